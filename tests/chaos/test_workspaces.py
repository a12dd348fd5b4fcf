"""From a workspace to another one that has nothing of what the prompts need, killed again and again: each of it is made
once, everything renders as it did, and a rollback leaves the registry as it was, to the last row.
"""

from __future__ import annotations

import random
import tempfile
from dataclasses import replace
from pathlib import Path

from tests.chaos.campaign import RESUMES, SCALE, Tally, wait_until
from tests.e2e import started, wait_for_lines
from tests.pair import ONE_EACH, Two, planted, two

AT_LEAST = 3
"""Lines of a run: that it began, what it listed, and something that it began to send."""


def killed(folder: Path, *, deep: int, kills: int, seed: int) -> Tally:
    """Kills it whenever it has begun to send something. `deep`: so many collections lie in each other, each with a
    prompt and a partial of its own, which names the one before.
    """
    rng = random.Random(seed)
    with two(folder, latency=(0.0, 0.004)) as found:
        planted(found, deep)
        _nested(found, deep)
        before = found.stored()
        found.write(limits={"rate": 2000, "settle": "0.1s", "timeout": 5, "concurrency": 2})
        faults = sum(_killed_once(found, rng) for _ in range(kills))
        return replace(_judged(found, 2 * deep, before), runs=1, faults=faults)


def _nested(found: Two, deep: int) -> None:
    home, slug = None, found.partial("Inmost", "the end")
    for number in range(deep):
        home = found.collection(f"Level {number}", home)["id"]
        slug = found.partial(f"Piece {number}", f"{number} {{{{>{slug}}}}}")
        found.prompt(f"deep {number}", home, f"Hi {{{{name}}}} {{{{>{slug}}}}}")


def _killed_once(found: Two, rng: random.Random) -> bool:
    """False: it had ended before."""
    ledger, answered = found.folder / "ledger.jsonl", found.registry.ask(lambda sandbox: sandbox.requests)
    so_far = len(ledger.read_bytes().splitlines()) if ledger.exists() else 0
    with started("run", "m.yaml", cwd=found.folder, env=found.env, covered=False) as process:
        begun = wait_for_lines(ledger, so_far + AT_LEAST + rng.randint(0, 1), process)
        moment = len(answered) + rng.randint(0, 2)
        reached = wait_until(process, lambda: len(answered) >= moment)
        process.kill()
        return begun and reached


def _judged(found: Two, prompts: int, before: object) -> Tally:
    wrong = []
    for _ in range(RESUMES):
        if (ended := found.do("run")).code == 0:
            break
    if ended.code or ended.summary["counts"]["selected"] != prompts or len(found.replicas()) < prompts:
        wrong.append(f"exit code {ended.code}: {ended.summary['counts']}")
    doubled = [f"{name} {count} times" for one in found.names().values() for name, count in one.items() if count > 1]
    doubled += [f"{len(found.replicas())} replicas"] * (len(found.replicas()) > prompts)
    if missing := [name for one in ONE_EACH for name in ONE_EACH[one] if name not in found.names()[one]]:
        wrong.append(f"not there: {missing}")
    if found.do("verify", "--render", "--json").json["counts"]["same"] != prompts:
        wrong.append("a replica does not render as its source does")
    if found.do("rollback", "--yes").code or found.stored() != before:
        wrong.append("the rollback left something, or took too much")
    return Tally(doubled=len(doubled), undetected=len(wrong), complaints=(*doubled, *wrong))


def test_what_is_made_for_prompts_is_made_once_whenever_it_is_killed(tmp_path: Path) -> None:
    tally = killed(tmp_path, deep=3, kills=2 * SCALE, seed=1)
    assert tally.clean, tally
    assert tally.faults == 2 * SCALE


# ---- by hand ---------------------------------------------------------------------------------------------------------


def long_workspaces(scale: int, _jobs: int) -> Tally:
    """12 collections and partials deep, killed 20 times."""
    with tempfile.TemporaryDirectory() as folder:
        return killed(Path(folder), deep=12, kills=20 * scale, seed=scale)
