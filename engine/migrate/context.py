"""What the stages of a run share: the ledger, the way to end, and the counters that are shown while it runs."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import anyio

from engine.content.digest import MarkIn
from engine.errors import EngineError, Stop, Transient
from engine.ledger.before_images import BeforeImages
from engine.ledger.state import State
from engine.log import log
from engine.migrate.halt import Halt
from engine.migrate.job import Job
from engine.migrate.task import Rest
from engine.model import Entry, Failed, Outcome, Target

PERCENT_FROM: Final = 20
"""A percentage of failures means nothing before so many prompts have been taken up."""

EVENTS: Final = {
    "created": "prompt.created",
    "updated": "prompt.updated",
    "unchanged": "prompt.unchanged",
    "skipped": "prompt.skipped",
    "conflict": "prompt.conflict",
    "failed": "prompt.failed",
    "unknown": "prompt.unknown",
}

FINAL: Final = ("failed", "conflict")
"""What did not arrive."""
GRAVE: Final = (*FINAL, "unknown")

LOGGED: Final = (
    "source_id",
    "source_name",
    "target_id",
    "name",
    "how",
    "stage",
    "error",
    "status",
    "message",
    "reason",
)
"""The fields of a ledger line that its log line repeats."""
PART_LOGGED: Final = ("what", "source_slug", "target_id", "error", "message")
"""The same of a collection, partial or label."""


@dataclass(frozen=True, slots=True)
class MaxFailures:
    """More failures than this end the run: a number of prompts, or a percentage of those taken up."""

    limit: float
    percent: bool = False

    def exceeded(self, failures: int, taken: int) -> bool:
        """Whether `failures` among `taken` prompts are too many."""
        if not self.percent:
            return failures > self.limit
        return taken >= PERCENT_FROM and failures * 100 > self.limit * taken


class Labels:
    """Ids of labels at the target by their names: listed once, when the first is asked for, and made when missing."""

    def __init__(self) -> None:
        self._ids: dict[str, str] | None = None
        self._lock = anyio.Lock()
        self._made: dict[str, str] = {}

    def learn(self, name: str, label_id: str) -> None:
        """One that was just made, which a listing may not have yet."""
        self._made[name] = label_id

    async def id_of(self, target: Target, name: str) -> str:
        """Raises EngineError when it is not there and cannot be made."""
        async with self._lock:
            if self._ids is None:
                self._ids = {one.name: one.id for one in (await target.catalog({"labels"})).labels or ()} | self._made
            if name not in self._ids:
                self._ids[name] = await target.create_label(name)
            return self._ids[name]


class FirstWrite:
    """Writes go alone until one of them has arrived, and creates until one was read back: a run learns from them what
    the registry makes of a write before many are under way.
    """

    def __init__(self) -> None:
        self.arrived = False
        """A write has had its effect."""
        self.read_back = False
        """A create has, and it was looked at."""
        self._lock = anyio.Lock()

    @asynccontextmanager
    async def turn(self, *, create: bool) -> AsyncIterator[bool]:
        """Whether what is written in this block goes alone: then the next one waits until it ends."""
        if not self.over(create=create):
            async with self._lock:
                if not self.over(create=create):
                    yield True
                    return
        yield False

    def over(self, *, create: bool) -> bool:
        """Nothing goes alone any more, so nobody need ask for a turn."""
        return self.read_back or (self.arrived and not create)


class Recording(Protocol):
    """Where lines become durable: the ledger's sink, or the way to it from another process. `run`: whose lines."""

    run: str
    state: State

    async def record(self, *entries: Entry) -> None:
        """Returns when all are durable, in this order. Raises Stop."""
        ...


class LabelIds(Protocol):
    """What knows the labels of the target."""

    def learn(self, name: str, label_id: str) -> None:
        """One that was just made."""
        ...

    async def id_of(self, target: Target, name: str) -> str:
        """Made when it is missing. Raises EngineError when it is not there and cannot be made."""
        ...


Elsewhere = Callable[[Job, "Context", Rest], Awaitable[None]]
"""Runs the pools over these tasks, in other processes; every outcome is in the ledger when it returns."""


@dataclass(slots=True, kw_only=True)
class Context:
    """One run. Every line of the ledger goes through `record`."""

    sink: Recording
    halt: Halt
    clock: Callable[[], float]
    max_failures: MaxFailures | None = None
    copies: BeforeImages
    labels: LabelIds = field(default_factory=Labels)
    first: FirstWrite = field(default_factory=FirstWrite)
    mark_in: MarkIn = "metadata"
    """Where the mark comes back: `metadata` or `description`; the first create of a run finds out."""
    looking_up: bool = False
    """What is left is in doubt and waits for its settle time."""
    elsewhere: Elsewhere | None = None
    """Other processes that create; None: all is done in this one."""
    total: int = 0
    """Prompts that this run takes up."""
    replicas: set[str] = field(default_factory=set)
    """Selected prompts that turned out to be replicas of this migration."""
    log: Any = field(default_factory=log.bind)
    """Bound once: a new one for each line costs more than the line."""
    done: Counter[str] = field(default_factory=Counter)
    """Kind of outcome -> how many prompts in this run."""
    why: Counter[tuple[str, str]] = field(default_factory=Counter)
    """(`failed` or `conflict`, why) -> how many prompts in this run."""

    @property
    def settled(self) -> int:
        """Prompts of this run whose outcome is known."""
        return self.done.total() - self.done["unknown"]

    @property
    def idle(self) -> int:
        """Prompts of this run that were looked at and needed nothing."""
        return self.done["unchanged"] + self.done["skipped"] + len(self.replicas)

    @property
    def state(self) -> State:
        """The fold of the ledger so far."""
        return self.sink.state

    def dropped(self, failure: EngineError | Outcome) -> bool:
        """Whether this is only what was not sent any more because the run was asked to end."""
        unsent = isinstance(failure, Transient | Failed) and failure.error == "not_sent"
        return self.halt.stop is not None and unsent

    async def record(self, *entries: Entry) -> None:
        """Durable when it returns. Raises Stop when the disk fails."""
        await self.sink.record(*entries)
        for entry in entries:
            if "what" in entry.fields:  # of what prompts refer to, and of no prompt
                self._say_part(entry)
            elif entry.kind in EVENTS:
                self.done[entry.kind] += 1
                if entry.kind in FINAL:
                    self.why[entry.kind, str(entry.fields.get("error") or entry.fields.get("reason"))] += 1
                self._say(entry)
        if self.max_failures is not None:
            self._judge_failures(self.max_failures)

    def _say_part(self, entry: Entry) -> None:
        level = logging.WARNING if entry.kind in GRAVE else logging.INFO
        if entry.kind != "intent" and self.log.is_enabled_for(level):
            self.log.log(level, f"part.{entry.kind}", **{name: entry.fields.get(name) for name in PART_LOGGED})

    def _say(self, entry: Entry) -> None:
        level = logging.WARNING if entry.kind in GRAVE else logging.INFO
        if self.log.is_enabled_for(level):  # a line that nobody reads is not put together
            fields = {name: value for name in LOGGED if (value := entry.fields.get(name)) is not None}
            self.log.log(level, EVENTS[entry.kind], **fields)

    def _judge_failures(self, most: MaxFailures) -> None:
        failures, taken = self.done["failed"], self.settled
        if most.exceeded(failures, taken):
            self.halt.request(
                Stop(
                    "too_many_failures",
                    f"{failures} of {taken} prompts taken up in this run failed, more than --max-failures allows",
                    next="See why with `promptferry status --failed`, mend it, and run it again with --retry-failed.",
                )
            )
