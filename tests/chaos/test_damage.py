"""A ledger that is cut or changed: the run that follows refuses, or goes on and neither doubles nor loses anything."""

from __future__ import annotations

import json
import random
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Final
from urllib.request import ProxyHandler, Request, build_opener

from tests.chaos.campaign import SCALE, Campaign, Tally, campaign, each, wait_until

PROMPTS: Final = 12
LAST_BATCHES: Final = 3
WORLDS: Final = 2
"""Registries side by side, each with its share of the damages."""
REFUSED: Final = (4, "ledger_damaged")


@dataclass(frozen=True)
class Share:
    """Every WORLDS-th damage, from the `first` on, to a ledger that is finished or whose run was killed.

    `sample`: so many cuts within lines; None: at every byte of the last batches.
    """

    folder: Path
    first: int
    interrupted: bool
    seed: int
    sample: int | None


@dataclass(frozen=True)
class Damage:
    """What stands in the file now. `synced`: a line of an earlier batch was changed, which no crash does."""

    data: bytes
    synced: bool = False


def damaged(share: Share) -> Tally:
    """One registry and one ledger, damaged again and again; what the runs create is taken away in between."""
    with campaign(share.folder, prompts=PROMPTS, seed=share.seed) as one:
        if share.interrupted:
            interrupt(one)
        else:
            one.run()
        ledger, truth = one.ledger.read_bytes(), one.truth()
        for damage in list(damages(ledger, random.Random(share.seed), share.sample))[share.first :: WORLDS]:
            restore(one, truth)
            one.ledger.write_bytes(damage.data)
            follow(one, damage)
    return one.tally


def interrupt(one: Campaign) -> None:
    """Kills a slow run in its middle."""
    with one.start("--rate", "60") as process:
        assert wait_until(process, lambda: len(one.truth()) > PROMPTS // 2)
        process.kill()
        process.wait()


def follow(one: Campaign, damage: Damage) -> None:
    """The run after the damage."""
    before = one.truth()
    done = one.run()
    one.tally += Tally(faults=1)
    if done.code == REFUSED[0]:
        if (done.code, done.reason) != REFUSED:
            one.complain(f"refused with {done.code}, {done.reason}", undetected=1)
        if one.truth() != before or one.ledger.read_bytes() != damage.data:
            one.complain("refused, and changed something all the same", undetected=1)
    elif damage.synced:
        one.complain(f"a line was changed that had been synced, and the run ended with {done.code}", undetected=1)
    else:
        one.resume()


def damages(whole: bytes, rng: random.Random, sample: int | None) -> Iterator[Damage]:
    """Cut before each line, within the last batches, and with one byte changed in each line."""
    lines = whole.splitlines(keepends=True)
    starts = [0, *accumulate(len(line) for line in lines)][:-1]
    batches = [json.loads(line)["b"] for line in lines]
    last = next(start for start, batch in zip(starts, batches, strict=True) if batch > batches[-1] - LAST_BATCHES)
    inside = range(last, len(whole))
    for cut in sorted({*starts, *(inside if sample is None else rng.sample(inside, sample))}):
        yield Damage(whole[:cut])
    for start, line, batch in zip(starts, lines, batches, strict=True):
        place = start + rng.randrange(len(line))
        data = whole[:place] + bytes([whole[place] ^ 1 << rng.randrange(8)]) + whole[place + 1 :]
        yield Damage(data, synced=batch < batches[-1])


def restore(one: Campaign, truth: dict[str, list[str]]) -> None:
    """Takes away every replica that was not there then."""
    kept = {replica for replicas in truth.values() for replica in replicas}
    opener = build_opener(ProxyHandler({}))
    for replica in [replica for replicas in one.truth().values() for replica in replicas if replica not in kept]:
        address = f"{one.registry.base_url}/prompts/{replica}"
        with opener.open(Request(address, method="DELETE", headers={"x-portkey-api-key": one.registry.api_key})):
            pass


def shares(folder: Path, seed: int, sample: int | None) -> list[Share]:
    return [
        Share(folder / f"{seed}-{interrupted}-{first}", first, interrupted, seed, sample)
        for interrupted in (False, True)
        for first in range(WORLDS)
    ]


def test_a_damaged_ledger_is_refused_or_gone_on_from(tmp_path: Path) -> None:
    every = [share for seed in range(SCALE) for share in shares(tmp_path, seed, sample=12)]
    tally = each(damaged, every)
    assert tally.clean, tally
    assert tally.faults > 80 * SCALE


def long_damage(scale: int, jobs: int) -> Tally:
    """Every byte of the last batches."""
    with tempfile.TemporaryDirectory() as folder:
        every = [share for seed in range(scale) for share in shares(Path(folder), seed, sample=None)]
        return each(damaged, every, jobs=jobs, told="a damaged ledger")
