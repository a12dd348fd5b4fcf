"""Shards of one migration side by side, each killed again and again, then merged: as if one run had done it."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from engine.content.filter import Chosen
from engine.errors import EXIT_RETRY
from engine.ledger.merge import merge
from engine.ledger.status import read_ids_map, read_status
from engine.sandbox import SandboxOptions
from tests.chaos.campaign import LIMITS, RESUMES, SCALE, Tally, wait_until
from tests.e2e import MARK, Ended, Served, Started, lines, promptferry, served, started, write_migration

ALIKE: Final = ("source_id", "source_slug", "source_name", "name", "source_version", "target_version")
"""What the maps old to new of two registries have in common."""
LINE: Final = 1140
"""Bytes that a prompt takes in a ledger."""


@dataclass(frozen=True)
class Migrated:
    """A migration in a registry of its own, by one run or by several side by side."""

    registry: Served
    path: Path

    @property
    def ledger(self) -> Path:
        """Of the whole."""
        return self.path.with_name("ledger.jsonl")

    def ask(self, *arguments: str | Path) -> Ended:
        return promptferry(*arguments, cwd=self.path.parent, env={"KEY": self.registry.api_key})

    def shard(self, index: int, count: int) -> AbstractContextManager[Started]:
        """Begins it, as an Indexed Job does."""
        env = {"KEY": self.registry.api_key, "JOB_COMPLETION_INDEX": str(index)}
        return started("run", self.path, "--shards", str(count), cwd=self.path.parent, env=env, covered=False)

    def truth(self) -> dict[str, list[tuple[str, ...]]]:
        """Source id -> its replicas, as the registry has them."""
        found: dict[str, list[tuple[str, ...]]] = {}
        for one in self.registry.prompts():
            if mark := one["template_metadata"].get(MARK):
                content = (one["name"], one["string"], mark["source_digest"], mark["replica_digest"])
                found.setdefault(mark["source_id"], []).append(content)
        return found

    def ids(self) -> list[tuple[Any, ...]]:
        """The map old to new, but for the ids that this registry gave."""
        rows = read_ids_map(self.ledger, Chosen())
        return sorted(tuple(row[name] for name in ALIKE) for row in rows)


def killed(folder: Path, *, shards: int, prompts: int, kills: int, seed: int) -> Tally:
    """The same library twice: done by one run, and by shards, each of them killed so many times."""
    limits = {**LIMITS, "concurrency": 4}
    with (
        served(SandboxOptions(prompts=prompts, seed=seed)) as first,
        served(SandboxOptions(prompts=prompts, seed=seed)) as second,
    ):
        for name in ("one", "many"):
            (folder / name).mkdir(parents=True)
        one = Migrated(first, write_migration(folder / "one", first.base_url, limits=limits))
        many = Migrated(second, write_migration(folder / "many", second.base_url, limits=limits))
        ledgers = [many.path.with_name(f"ledger.{index}-of-{shards}.jsonl") for index in range(shards)]
        rng = random.Random(seed)
        faults = sum(_killed_once(many, ledgers, prompts * LINE // (kills + 1), rng) for _ in range(kills))
        wrong = [*_finished(many, ledgers), *_merged(many, ledgers), *_as_one_run(one, many)]
    doubled = sum(what.startswith("doubled") for what in wrong)
    return Tally(runs=1, faults=faults, doubled=doubled, undetected=len(wrong) - doubled, complaints=tuple(wrong))


def _killed_once(many: Migrated, ledgers: list[Path], size: int, rng: random.Random) -> int:
    """All of them, each when its ledger has grown by its part of so many bytes at most; how many had not ended then."""
    moments = {index: _size(path) + rng.randrange(1, size // len(ledgers)) for index, path in enumerate(ledgers)}

    def kill(index: int) -> bool:
        with many.shard(index, len(ledgers)) as process:
            reached = wait_until(process, lambda: _size(ledgers[index]) >= moments[index])
            process.kill()
            return reached

    with ThreadPoolExecutor(len(ledgers)) as pool:
        return sum(pool.map(kill, moments))


def _size(ledger: Path) -> int:
    try:
        return ledger.stat().st_size
    except FileNotFoundError:
        return 0


def _finished(many: Migrated, ledgers: list[Path]) -> Iterator[str]:
    """The same commands again, to their ends: books that balance, each over its own prompts. Who comes while others
    write may find a listing that does not hold still, and is to come back.
    """
    ended: dict[int, Ended] = {}
    for _ in range(RESUMES):
        with ExitStack() as stack:
            left = [index for index in range(len(ledgers)) if index not in ended or ended[index].code == EXIT_RETRY]
            running = {index: stack.enter_context(many.shard(index, len(ledgers))) for index in left}
            ended |= {index: process.end() for index, process in running.items()}
    yield from (f"a shard ended with {one.code}: {one.err[-800:]}" for one in ended.values() if one.code)
    if (selected := sum(one.summary["counts"]["selected"] for one in ended.values())) != len(many.truth()):
        yield f"the books of the shards speak of {selected} prompts"


def _merged(many: Migrated, ledgers: list[Path]) -> Iterator[str]:
    """Where one run would have written."""
    merge(many.ledger, ledgers, run="merge", now=0.0)
    chain = ("v", "seq", "b", "n", "crc")
    told = [[{name: one[name] for name in one if name not in chain} for one in lines(path)] for path in ledgers]
    *kept, _ = ({n: one[n] for n in one if n not in chain} for one in lines(many.ledger))
    if kept != [line for each in told for line in each]:
        yield "a line was lost"


def _as_one_run(one: Migrated, many: Migrated) -> Iterator[str]:
    """What the registry holds, what the ledger says, and what every command that comes after makes of it."""
    wanted = one.ask("run", one.path).summary["counts"]
    found = dict(read_status(many.ledger, Chosen()).counts)
    made = found["created"] + found["unchanged"]  # what was made before a kill was found again
    if found | {"created": made, "unchanged": 0, "listed": wanted["listed"]} != wanted:
        yield f"the merged ledger has {found}, and one run {wanted}"
    yield from (f"doubled: {source_id}" for source_id, replicas in many.truth().items() if len(replicas) > 1)
    if many.truth() != one.truth():
        yield "the registries hold other replicas"
    if many.ids() != one.ids():
        yield "the maps old to new are not the same"
    if (verified := many.ask("verify", many.path, "--json").json["counts"])["same"] != wanted["created"]:
        yield f"verified: {verified}"
    again = many.ask("run", many.path).summary
    if again["exit_code"] or again["requests"]["writes"] or again["counts"]["unchanged"] != wanted["created"]:
        yield f"a run of all of it still had something to do: {again}"
    if many.ask("rollback", many.path, "--yes").code or many.truth():
        yield "the rollback left something"


def test_shards_that_are_killed_and_merged_are_as_one_run(tmp_path: Path) -> None:
    tally = killed(tmp_path, shards=3, prompts=20, kills=SCALE, seed=1)
    assert tally.clean, tally
    assert tally.faults >= 2 * SCALE


# ---- by hand ---------------------------------------------------------------------------------------------------------


def long_shards(scale: int, _jobs: int) -> Tally:
    """8 shards of 400 prompts, each killed twice."""
    with tempfile.TemporaryDirectory() as folder:
        return killed(Path(folder), shards=8, prompts=400, kills=2 * scale, seed=scale)
