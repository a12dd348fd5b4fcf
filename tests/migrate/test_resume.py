"""Killed, cut off, unanswered: the same command again ends with every replica there once."""

from __future__ import annotations

import json
import random
import signal
from pathlib import Path
from typing import Any

import pytest

from engine.sandbox import SandboxOptions
from tests.e2e import Ended, promptferry, replicas, separate, served, started, truth, wait_for_lines, write_migration

RUNS = 8
"""So many runs at most until nothing is left to do."""


def killed(path: Path, key: str, line: int) -> bool:
    """Runs it and kills it (-9) once its ledger has so many lines; False: it ended before."""
    with started("run", path, cwd=path.parent, env={"KEY": key}) as process:
        in_time = wait_for_lines(path.parent / "ledger.jsonl", line, process)
        process.kill()
        process.wait()
    return in_time and process.returncode == -signal.SIGKILL


def to_its_end(path: Path, key: str) -> Ended:
    """The same command until it exits with 0, and then once more: nothing is left to do."""
    for _ in range(RUNS):
        if promptferry("run", path, cwd=path.parent, env={"KEY": key}).code == 0:
            break
    return promptferry("run", path, cwd=path.parent, env={"KEY": key})


def once_each(prompts: list[dict[str, Any]], count: int) -> None:
    """The registry has one replica of each of its `count` originals, and no more than that."""
    found = replicas(prompts)
    sources = {prompt["id"] for prompt in prompts if "promptferry" not in prompt["template_metadata"]}
    assert len(prompts) == 2 * count
    assert {key: len(ones) for key, ones in found.items() if len(ones) != 1} == {}
    marked = {ones[0]["template_metadata"]["promptferry"]["source_id"] for ones in found.values()}
    assert marked == sources


def test_two_thousand_prompts_killed_five_times(tmp_path: Path) -> None:
    store, count = tmp_path / "store.sqlite", 2_000
    moments = sorted(random.Random(7).sample(range(20, 2 * count - 200), 5))
    with separate(store, "--prompts", str(count)) as registry:
        path = write_migration(tmp_path, registry.base_url, limits={"rate": 5_000, "settle": "0.5s"})
        kills = [killed(path, registry.api_key, line) for line in moments]
        last = to_its_end(path, registry.api_key)
    assert all(kills)
    assert last.summary["counts"]["unchanged"] == count
    assert last.summary["requests"]["writes"] == 0
    once_each(truth(store), count)


@pytest.mark.parametrize("seed", range(10))
def test_killed_at_a_random_moment(seed: int, tmp_path: Path) -> None:
    rng, count = random.Random(seed), 60
    with served(SandboxOptions(prompts=count, seed=seed)) as registry:
        path = write_migration(tmp_path, registry.base_url, limits={"rate": 400, "settle": "0.2s"})
        assert killed(path, registry.api_key, rng.randrange(1, 2 * count - 20))
        assert to_its_end(path, registry.api_key).summary["counts"]["unchanged"] == count
        once_each(registry.prompts(), count)


LOST = {
    "answers lost": {"reset_after": 0.2},
    "answers spoiled": {"truncate": 0.07, "blank": 0.07, "not_json": 0.06},
    "refused and broken": {"500": 0.1, "503": 0.01, "reset_before": 0.1},
    "late and lost": {"late_listing": 0.2, "reset_after": 0.1},
}


@pytest.mark.parametrize("chances", LOST.values(), ids=LOST)
def test_lost_answers_double_and_lose_nothing(chances: dict[str, float], tmp_path: Path) -> None:
    # a row may be listed five seconds late, so a look-up that is to be believed comes later than that
    settle, count = ("3s", 60) if "late_listing" in chances else ("0.3s", 60)
    with served(SandboxOptions(prompts=count, seed=3)) as registry:
        path = write_migration(tmp_path, registry.base_url, limits={"rate": 400, "settle": settle, "timeout": 5})
        registry.ask(lambda sandbox: sandbox.faults.chances.update(chances))
        outcomes = [promptferry("run", path, cwd=tmp_path, env={"KEY": registry.api_key}) for _ in range(2)]
        assert all(one.code in (0, 1, 75) and one.summary for one in outcomes)
        registry.ask(lambda sandbox: sandbox.faults.chances.clear())
        assert to_its_end(path, registry.api_key).summary["counts"]["unchanged"] == count
        once_each(registry.prompts(), count)


def test_killed_with_lost_answers_and_then_the_ledger_is_lost_too(tmp_path: Path) -> None:
    count = 60
    with served(SandboxOptions(prompts=count, faults={"reset_after": 0.1})) as registry:
        path = write_migration(tmp_path, registry.base_url, limits={"rate": 300, "settle": "0.3s"})
        assert killed(path, registry.api_key, count)
        (tmp_path / "ledger.jsonl").unlink()
        assert to_its_end(path, registry.api_key).summary["counts"]["unchanged"] == count
        once_each(registry.prompts(), count)


def test_a_torn_last_line_is_kept_aside_and_gone_on_from(tmp_path: Path) -> None:
    with served(SandboxOptions(prompts=30)) as registry:
        path, ledger = write_migration(tmp_path, registry.base_url), tmp_path / "ledger.jsonl"
        promptferry("run", path, "--limit", "12", cwd=tmp_path, env={"KEY": registry.api_key})
        whole = ledger.read_bytes()
        ledger.write_bytes(whole[: whole.rindex(b'{"v"') + 40])
        summary = promptferry("run", path, cwd=tmp_path, env={"KEY": registry.api_key}).summary
        assert (summary["exit_code"], summary["counts"]["selected"]) == (0, 30)
        assert (tmp_path / "ledger.jsonl.torn-1").read_bytes() == whole[whole.rindex(b'{"v"') :][:40]
        assert all(json.loads(line) for line in ledger.read_bytes().splitlines())
        once_each(registry.prompts(), 30)
