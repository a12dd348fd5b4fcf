"""What the stages of a run share: the ledger, the way to end, and the counters that are shown while it runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import anyio

from engine.copies import Copies
from engine.digest import MarkIn
from engine.errors import EngineError, Stop, Transient
from engine.job import Draft, Halt
from engine.ledger import State
from engine.log import log
from engine.model import Entry, Json, Target
from engine.sink import Sink
from engine.survey import Task

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

GRAVE: Final = ("failed", "conflict", "unknown")

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


@dataclass(frozen=True, slots=True)
class Ready:
    """A task whose replica is ready to be sent."""

    task: Task
    whose: Mapping[str, Json]
    """What its lines in the ledger begin with."""
    draft: Draft
    pending: bool = False
    """Labels or the rest of the history follow."""
    mark_in: MarkIn = "metadata"
    """Where its mark was put."""


class Trial:
    """The first create of a run, alone: whoever comes first makes it, the others wait until it has been looked at."""

    def __init__(self, *, over: bool = False) -> None:
        self.over = over
        self.turn: Final = anyio.Lock()


class Labels:
    """Ids of labels at the target by their names: listed once, when the first is asked for, and made when missing."""

    def __init__(self) -> None:
        self._ids: dict[str, str] | None = None
        self._lock = anyio.Lock()

    async def id_of(self, target: Target, name: str) -> str:
        """Raises EngineError when it is not there and cannot be made."""
        async with self._lock:
            if self._ids is None:
                self._ids = {one.name: one.id for one in (await target.catalog({"labels"})).labels or ()}
            if name not in self._ids:
                self._ids[name] = await target.create_label(name)
            return self._ids[name]


@dataclass(slots=True, kw_only=True)
class Flow:
    """One run. Every line of the ledger goes through `record`."""

    sink: Sink
    halt: Halt
    clock: Callable[[], float]
    max_failures: MaxFailures | None = None
    copies: Copies
    labels: Labels = field(default_factory=Labels)
    mark_in: MarkIn = "metadata"
    """Where the mark comes back: `metadata` or `description`; the first create of a run finds out."""
    looking_up: bool = False
    """What is left is in doubt and waits for its settle time."""
    total: int = 0
    """Prompts that this run takes up."""
    replicas: set[str] = field(default_factory=set)
    """Selected prompts that turned out to be replicas of this migration."""
    log: Any = field(default_factory=log.bind)
    """Bound once: a new one for each line costs more than the line."""
    done: Counter[str] = field(default_factory=Counter)
    """Kind of outcome -> how many prompts in this run."""

    @property
    def settled(self) -> int:
        """Prompts of this run whose outcome is known."""
        return self.done.total() - self.done["unknown"]

    @property
    def state(self) -> State:
        """The fold of the ledger so far."""
        return self.sink.state

    def dropped(self, error: EngineError) -> bool:
        """Whether this is only what was not sent any more because the run was asked to end."""
        return self.halt.stop is not None and isinstance(error, Transient) and error.error == "not_sent"

    async def record(self, *entries: Entry) -> None:
        """Durable when it returns. Raises Stop when the disk fails."""
        await self.sink.record(*entries)
        for entry in entries:
            if entry.kind in EVENTS:
                self.done[entry.kind] += 1
                write = self.log.warning if entry.kind in GRAVE else self.log.info
                fields = {name: value for name in LOGGED if (value := entry.fields.get(name)) is not None}
                write(EVENTS[entry.kind], **fields)
        if self.max_failures is not None:
            self._judge_failures(self.max_failures)

    def _judge_failures(self, most: MaxFailures) -> None:
        failures, taken = self.done["failed"], self.settled
        if most.exceeded(failures, taken):
            self.halt.request(
                Stop(
                    "too_many_failures",
                    f"{failures} of {taken} prompts taken up in this run failed, more than --max-failures allows",
                    next="See why with `promptferry status --failed`, mend it, and run it again.",
                )
            )
