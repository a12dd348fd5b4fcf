"""A disk that takes no more, at any byte: no torn line, no claim, exit code 75, and with room again the run goes on."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.chaos.campaign import SCALE, Campaign, Tally, campaign, each
from tests.e2e import Ended

PROMPTS: Final = 3
ENTRIES: Final = 5
"""The run itself, the listing, and the first intent and outcome are among so many lines."""


@dataclass(frozen=True)
class Case:
    """A run whose files may have so many bytes."""

    folder: Path
    limit: int


def filled(case: Case) -> Tally:
    with campaign(case.folder, prompts=PROMPTS, seed=1) as one:
        done = one.run(file_limit=case.limit)
        check_stop(one, done, case.limit)
        one.disturbed()
        one.resume()
    return one.tally


def check_stop(one: Campaign, done: Ended, limit: int) -> None:
    """It stopped as a run on a full disk has to, and what it wrote is whole."""
    if (done.code, done.reason) != (75, "disk"):
        one.complain(f"{limit} bytes: ended with {done.code}, {done.reason}", undetected=1)
    data = one.ledger.read_bytes() if one.ledger.exists() else b""
    if data and not data.endswith(b"}\n"):
        one.complain(f"{limit} bytes: the ledger ends within a line", undetected=1)
    if len(data) > limit:
        one.complain(f"{limit} bytes: the ledger has {len(data)}", undetected=1)
    if list(one.folder.glob("*.torn-*")):
        one.complain(f"{limit} bytes: something was torn", undetected=1)


def sizes(folder: Path) -> tuple[int, int]:
    """Bytes of the first entries, and of the whole ledger but for its last lines, of a run that nothing happens to."""
    with campaign(folder, prompts=PROMPTS, seed=1) as one:
        assert one.run().code == 0
        lines = one.ledger.read_bytes().splitlines(keepends=True)
    return sum(map(len, lines[:ENTRIES])), sum(map(len, lines[:-1]))


def cases(folder: Path, limits: Iterable[int]) -> Iterator[Case]:
    for limit in limits:
        yield Case(folder / f"limit-{limit}", limit)


def test_a_full_disk_stops_the_run_and_tears_nothing(tmp_path: Path) -> None:
    _, most = sizes(tmp_path / "whole")
    limits = random.Random(4).sample(range(1, most), 40 * SCALE)
    tally = each(filled, cases(tmp_path, limits))
    assert tally.clean, tally
    assert tally.faults == len(limits)


def long_full_disk(_scale: int, jobs: int) -> Tally:
    """Every byte of the first entries."""
    with tempfile.TemporaryDirectory() as folder:
        entries, _ = sizes(Path(folder) / "whole")
        every = cases(Path(folder), range(1, entries + 1))
        return each(filled, every, jobs=jobs, told="a full disk")
