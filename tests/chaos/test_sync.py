"""A sync that fails: nothing is sent after it, nothing is claimed that was not synced, and a rerun goes on."""

from __future__ import annotations

import json
import random
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from engine.errors import EXIT_RETRY
from engine.ledger.report import OUTCOMES
from tests.chaos.campaign import Campaign, Tally, campaign, each
from tests.chaos.disk import check_intents, cut_power, diary, synced_lines, watched


@dataclass(frozen=True)
class BadSync:
    """A run whose `at`-th sync says EIO; `lost`: what it should have written is really gone."""

    folder: Path
    call: str
    at: int
    concurrency: int
    lost: bool


def failed_sync(case: BadSync) -> Tally:
    with campaign(case.folder, prompts=20, seed=case.at, limits={"concurrency": case.concurrency}) as one:
        plan = {"fault": "eio", "at": case.at, "calls": [case.call], **watched(one)}
        ended = one.run(plan=plan)
        if any(name.startswith("eio") for name, _ in diary(one)):
            check_stop(one, ended.code, ended.out)
            if case.lost:
                cut_power(one, random.Random(case.at))
            one.disturbed()
        elif ended.code != 0:
            one.complain(f"exit code {ended.code} of a run that nothing happened to", undetected=1)
        one.resume()
    return one.tally


def check_stop(one: Campaign, code: int, out: str) -> None:
    """It ended as a run with a bad disk has to: nothing sent, synced or claimed after the error."""
    summary, lines = json.loads(out.splitlines()[-1]), synced_lines(one)
    if (code, summary["reason"]) != (EXIT_RETRY, "disk"):
        one.complain(f"exit code {code}, {summary['reason']}, after a sync failed", undetected=1)
    check_intents(one, lines)
    if not diary(one)[-1][0].startswith("eio"):
        one.complain("the ledger was written or synced again after a sync failed", undetected=1)
    durable = sum(line["kind"] == "created" for line in lines)
    claimed = {name: summary["this_run"][name] for name in OUTCOMES if summary["this_run"][name]}
    if summary["this_run"]["created"] != durable:
        one.complain(f"claims {claimed} while {durable} created lines were synced", undetected=1)


def every_sync(folder: Path, *, concurrency: int) -> Iterator[BadSync]:
    """Each sync of an undisturbed run and some more; every second time with what it should have written lost."""
    with campaign(folder / f"whole-{concurrency}", prompts=20, seed=0, limits={"concurrency": concurrency}) as one:
        assert one.run(plan=watched(one)).code == 0
        made = [name for name, _ in diary(one)]
    for call in ("fsync", "fdatasync"):
        for at in range(1, made.count(call) + made.count(call) // 5 + 2):
            yield BadSync(folder / f"c{concurrency}-{call}-{at}", call, at, concurrency, at % 2 == 0)


def test_every_sync_fails_once(tmp_path: Path) -> None:
    tally = each(failed_sync, every_sync(tmp_path, concurrency=4))
    assert tally.clean, tally
    assert tally.faults > 10


def long_syncs(_scale: int, jobs: int) -> Tally:
    """All syncs, with few and with many entries to each."""
    with tempfile.TemporaryDirectory() as folder:
        cases = [case for concurrency in (1, 4, 16) for case in every_sync(Path(folder), concurrency=concurrency)]
        return each(failed_sync, cases, jobs=jobs, told="a sync fails")
