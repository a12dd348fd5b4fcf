"""A fleet that is killed again and again: every replica of every workspace there once, and all books balance."""

from __future__ import annotations

import random
import tempfile
from dataclasses import replace
from pathlib import Path

from tests.chaos.campaign import SCALE, Tally, wait_until
from tests.e2e import started
from tests.fleets import Fleet, balanced, fleet


def killed(folder: Path, *, workspaces: int, prompts: int, kills: int, seed: int) -> Tally:
    """Kills it at random moments, each before the end, and lets it go on."""
    rng, faults = random.Random(seed), 0
    with fleet(folder, workspaces, prompts, parallel=4) as one:
        for left in range(kills, 0, -1):
            faults += _killed_once(one, rng, left)
        return _judged(one, Tally(runs=1, faults=faults))


def _killed_once(one: Fleet, rng: random.Random, left: int) -> bool:
    answered = one.registry.ask(lambda sandbox: sandbox.requests)
    todo = len(one.workspaces) * one.prompts - sum(sum(one.replicas(name).values()) for name in one.workspaces)
    moment = len(answered) + rng.randint(1, 2 * (2 * todo) // (left + 1) + 4)
    with started("fleet", "run", one.path, cwd=one.path.parent, env=one.env, covered=False) as process:
        reached = wait_until(process, lambda: len(answered) >= moment)
        process.kill()
        return reached


def _judged(one: Fleet, tally: Tally) -> Tally:
    ended = one.run_whole()
    summary = ended.summary
    wrong = [] if ended.code == summary["exit_code"] == 0 else [f"exit code {ended.code}: {summary['message']}"]
    balanced(summary)
    if summary["counts"]["selected"] != len(one.workspaces) * one.prompts:
        wrong.append(f"the books speak of {summary['counts']}")
    wrong += one.complaints()
    doubled = sum("doubled" in what for what in wrong)
    return replace(tally, doubled=doubled, undetected=len(wrong) - doubled, complaints=tuple(wrong))


def test_a_fleet_that_is_killed_goes_on(tmp_path: Path) -> None:
    tally = killed(tmp_path, workspaces=12, prompts=10, kills=2 * SCALE, seed=1)
    assert tally.clean, tally
    assert tally.faults == 2 * SCALE


# ---- by hand ---------------------------------------------------------------------------------------------------------


def long_fleet(scale: int, _jobs: int) -> Tally:
    """200 migrations of 50 prompts, killed 20 times."""
    with tempfile.TemporaryDirectory() as folder:
        return killed(Path(folder), workspaces=200, prompts=50, kills=20 * scale, seed=scale)
