"""One campaign: a migration against a registry that keeps its own truth, disturbed, resumed, and judged by that truth.

    with campaign(folder, prompts=20, seed=7) as one:
        with one.start() as process:
            wait_until(process, lambda: one.size() > 3000)
            process.kill()
        one.disturbed()
        one.resume()
    assert one.tally.clean, one.tally

The oracle never takes the client's word: replicas are counted in the registry itself, by key and by source.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sized
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final, TypeVar

from engine.errors import EngineError
from engine.ledger.file import read_ledger
from engine.ledger.report import OUTCOMES
from engine.sandbox import Quirks, SandboxOptions
from tests.e2e import MARK, Ended, Served, Started, served, write_migration

SCALE: Final = int(os.environ.get("PROMPTFERRY_CHAOS", "1"))
"""Multiplies the number of campaigns in a test; 1 is the share of CI."""
LIMITS: Final[Mapping[str, Any]] = {"rate": 2000, "settle": "0.4s", "timeout": 2, "concurrency": 16}
RESUMES: Final = 3
"""So many runs at most until nothing is left to do."""
CANARY: Final = "canary text 7c1e4f0a: {{name}} must stay out of everything that is written"
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Tally:
    """What campaigns came to. `complaints` say each thing that counts as doubled, lost or undetected."""

    runs: int = 0
    faults: int = 0
    doubled: int = 0
    """Sources with more than one replica."""
    lost: int = 0
    """Selected sources without replica at the end and without a failure that names them."""
    undetected: int = 0
    """Lies: books that do not balance, a ledger that disagrees with the registry, an exit code that says otherwise."""
    leaked: int = 0
    """Files that hold the key or the canary text."""
    complaints: tuple[str, ...] = ()

    def __add__(self, other: Tally) -> Tally:
        return Tally(*(getattr(self, one.name) + getattr(other, one.name) for one in fields(Tally)))

    @property
    def clean(self) -> bool:
        """Nothing doubled, lost, lied about or leaked; and there was something to judge."""
        return self.runs > 0 and not (self.doubled or self.lost or self.undetected or self.leaked)


def wait_until(process: Started, reached: Callable[[], bool]) -> bool:
    """Until the run has come so far; False when it ended first."""
    while not reached():
        if process.poll() is not None:
            return False
        time.sleep(0.0002)
    return True


# ---- the campaign ----------------------------------------------------------------------------------------------------


@dataclass
class Campaign:
    """A migration file, its ledger, and the registry's truth. Everything it does adds to its `tally`."""

    folder: Path
    registry: Served
    path: Path
    sources: frozenset[str]
    """Ids of the prompts that are to be replicated."""
    answered: Sized
    """The requests that the registry has answered so far."""
    tally: Tally = field(default_factory=lambda: Tally(runs=1))
    started: int = 0

    @property
    def ledger(self) -> Path:
        return self.folder / "ledger.jsonl"

    def size(self) -> int:
        """Bytes of the ledger."""
        try:
            return self.ledger.stat().st_size
        except FileNotFoundError:
            return 0

    def complain(self, what: str, *, doubled: int = 0, lost: int = 0, undetected: int = 0, leaked: int = 0) -> None:
        """Counts something that must not be."""
        said = (f"{self.folder.name}: {what}",)
        self.tally += Tally(doubled=doubled, lost=lost, undetected=undetected, leaked=leaked, complaints=said)

    # ---- doing

    @contextmanager
    def start(
        self, *flags: str, plan: Mapping[str, Any] | None = None, file_limit: int | None = None
    ) -> Iterator[Started]:
        """A run. `plan`: see the harness. `file_limit`: bytes that no file may grow beyond."""
        self.started += 1
        said = self.folder / f"run-{self.started}"
        process = Started(
            ["run", self.path, *flags],
            cwd=self.folder,
            env={"KEY": self.registry.api_key},
            plan=plan,
            file_limit=file_limit,
            covered=False,
        )
        try:
            yield process
        finally:
            ended = process.release()
            said.with_suffix(".out").write_text(ended.out)
            said.with_suffix(".err").write_text(ended.err)

    def run(self, *flags: str, plan: Mapping[str, Any] | None = None, file_limit: int | None = None) -> Ended:
        """One run that ends by itself, heard out."""
        with self.start(*flags, plan=plan, file_limit=file_limit) as process:
            ended = process.end()
        self.hear(ended)
        return ended

    def disturbed(self, faults: int = 1) -> None:
        """Something was done to a run: what the ledger claims by now must be true."""
        self.tally += Tally(faults=faults)
        self.check_claims()

    def resume(self) -> Ended:
        """The same command again, until there is nothing left to do; then the registry is judged."""
        for _ in range(RESUMES):
            ended = self.run()
            if ended.code == 0:
                break
        else:
            self.complain(f"not done after {RESUMES} runs, exit code {ended.code}", undetected=1)
        self.judge()
        return ended

    # ---- judging

    def truth(self) -> dict[str, list[str]]:
        """Source id -> ids of its replicas, as the registry holds them."""
        found: dict[str, list[str]] = {}
        for prompt in self.registry.prompts():
            if mark := prompt["template_metadata"].get(MARK):
                found.setdefault(mark["source_id"], []).append(prompt["id"])
        return found

    def hear(self, ended: Ended) -> None:
        """A run that ended by itself: its summary, its books and its exit code must be true."""
        told = ended.out.splitlines()
        try:
            summary = json.loads(told[-1])
        except (IndexError, ValueError):
            self.complain(f"exit code {ended.code} without a summary: {ended.err[-800:]}", undetected=1)
            return
        counts = summary["counts"]
        if summary["exit_code"] != ended.code:
            self.complain(f"exit code {ended.code}, the summary says {summary['exit_code']}", undetected=1)
        if counts["selected"] != sum(counts[name] for name in OUTCOMES):
            self.complain(f"the books do not balance: {counts}", undetected=1)
        if "Traceback" in ended.err:
            self.complain(f"a traceback: {ended.err[-800:]}", undetected=1)
        if ended.code == 0 and (missing := self.sources - self.truth().keys()):
            self.complain(f"exit code 0 while {len(missing)} replicas are not there", undetected=1)
        self.check_claims()

    def check_claims(self) -> None:
        """Every replica that the ledger claims is there."""
        if not self.ledger.exists():
            return
        try:
            records = read_ledger(self.ledger).state.records
        except EngineError as error:
            self.complain(f"the ledger cannot be read: {error}", undetected=1)
            return
        truth = self.truth()  # after the ledger: a run may be going on
        false = [one for one, record in records.items() if record.made and record.target_id not in truth.get(one, [])]
        if false:
            self.complain(f"{len(false)} replicas that the ledger claims are not there", undetected=1)

    def judge(self) -> None:
        """The end: every source once, and the ledger says the same."""
        truth, reading = self.truth(), read_ledger(self.ledger)
        doubled = [one for one, replicas in truth.items() if len(replicas) > 1]
        records = reading.state.records
        named = {one for one, record in records.items() if record.status in ("failed", "conflict", "skipped")}
        lost = self.sources - truth.keys() - named
        if doubled:
            self.complain(f"doubled: {', '.join(sorted(doubled))}", doubled=len(doubled))
        if lost:
            self.complain(f"lost: {', '.join(sorted(lost))}", lost=len(lost))
        made = {one for one, record in records.items() if record.made}
        if made != truth.keys():
            self.complain(f"the ledger knows {len(made)} replicas, the registry holds {len(truth)}", undetected=1)
        if reading.verdict.kind != "whole":
            self.complain(f"the ledger is {reading.verdict.kind} after its last run", undetected=1)

    def search_leaks(self) -> None:
        """The key and the canary text are in nothing that was written."""
        for path in sorted(self.folder.rglob("*")):
            if path.is_file() and (data := path.read_bytes()):
                for name, secret in (("the key", self.registry.api_key), ("a text", CANARY.partition(":")[0])):
                    if secret.encode() in data:
                        self.complain(f"{path.name} holds {name}", leaked=1)


@contextmanager
def campaign(
    folder: Path,
    *,
    prompts: int,
    seed: int,
    quirks: Mapping[str, Any] | None = None,
    faults: Mapping[str, float] | None = None,
    slow_s: float = 2.0,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    base_url: Callable[[str], str] = str,
    **parts: Any,
) -> Iterator[Campaign]:
    """A registry of so many prompts, one of them the canary, and a migration of all; leaks are searched at its end.

    `base_url` gives the address in the migration file from that of the registry; `parts` are parts of that file, and
    `limits` among them change single ones of LIMITS. `faults` are chances, `slow_s` and `sleep` what slow answers do:
    see the sandbox.
    """
    folder.mkdir(parents=True, exist_ok=True)
    given = Quirks(echo_key=True, **(quirks or {}))
    options = SandboxOptions(
        prompts=prompts - 1, seed=seed, quirks=given, faults=faults or {}, slow_s=slow_s, sleep=sleep
    )
    with served(options) as registry:
        registry.ask(lambda sandbox: sandbox.add_prompt("canary", CANARY))
        sources = frozenset(prompt["id"] for prompt in registry.prompts())
        limits = {**LIMITS, **parts.pop("limits", {})}
        path = write_migration(folder, base_url(registry.base_url), name="chaos", limits=limits, **parts)
        one = Campaign(folder, registry, path, sources, registry.ask(lambda sandbox: sandbox.requests))
        yield one
        one.search_leaks()


def posts(registry: Served) -> Counter[int]:
    """Creates that the registry has answered: status -> how many; 0: it reset the connection instead."""
    seen = registry.ask(lambda sandbox: list(sandbox.requests))
    return Counter(one.status for one in seen if one.method == "POST")


def each(work: Callable[[T], Tally], cases: Iterable[T], *, jobs: int = 8, told: str = "") -> Tally:
    """The sum over all cases, some at the same time; with `told`, progress on stderr."""
    total = Tally()
    with ThreadPoolExecutor(jobs) as pool:
        for done, tally in enumerate(pool.map(work, cases), 1):
            total += tally
            if told and done % 10 == 0:
                print(f"{told}: {done} campaigns, {len(total.complaints)} complaints", file=sys.stderr)
    return total
