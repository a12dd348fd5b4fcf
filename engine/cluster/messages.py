"""What goes between the driver and its workers. No secret is in it, only the names of where they are found, and no
template: workers read definitions themselves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from engine.cluster.pages import Page
from engine.config import Written
from engine.content.digest import MarkIn
from engine.content.references import Ends
from engine.errors import EngineError, Gone, Rejected, Stop, Transient
from engine.http.limiter import Requests
from engine.ledger.state import Record
from engine.migrate.task import Step
from engine.model import Entry, Json


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A worker's part of a gate that all share; ceilings are its own."""

    number: int
    """Of the gate."""
    among: int
    concurrency: int
    reads: float | None
    writes: float | None
    latency: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What a worker needs to open a migration that the driver has open."""

    version: str
    run: str
    written: Written
    identity: Mapping[str, str]
    salt: bytes
    """For `Reply.fingerprints`."""
    gates: Mapping[str, Part]
    """By end: source, target."""
    served: Mapping[tuple[str, str], tuple[str, str]]
    """Stand-ins: kind and address as the file has them -> address and key as they are served."""
    known: Ends
    rehearsed: Ends | None
    planned: bool
    mark_in: MarkIn


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """A page, and what the ledger and the plan say of its tasks."""

    page: Page
    records: Mapping[str, Record]
    steps: Mapping[str, Step]


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What the driver tells a worker. `durable`: so many of the worker's lines are; `last`: it is to close."""

    durable: int = 0
    works: Sequence[Work] = ()
    labels: Mapping[str, str | Refusal] = field(default_factory=dict)
    """Ids of labels that it asked for, or why there is none."""
    stop: Halted | None = None
    last: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What a worker tells since it was asked last."""

    lines: Sequence[tuple[str, Mapping[str, Json]]] = ()
    """Kinds and fields, in their order; the driver counts them."""
    ended: Sequence[int] = ()
    """Pages whose lines are all durable."""
    replicas: Sequence[str] = ()
    """Prompts that turned out to be replicas of this migration."""
    labels: Sequence[str] = ()
    """Names whose ids it needs."""
    requests: Mapping[str, Requests] = field(default_factory=dict)
    """By end: all that it has sent so far."""
    fingerprints: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    """Of the secrets that it has found: told once, before it has any work."""
    stop: Halted | None = None
    """What must end the run."""
    bug: Sequence[str] | None = None
    """Where it happened, and of what kind it is."""

    @property
    def entries(self) -> list[Entry]:
        """The lines as the ledger takes them."""
        return [Entry(kind, fields) for kind, fields in self.lines]


@dataclass(frozen=True, slots=True)
class Halted:
    """A Stop on its way."""

    reason: str
    message: str
    next: str

    @classmethod
    def of(cls, stop: Stop) -> Halted:
        """Without what caused it, which may quote an answer."""
        return cls(stop.reason, str(stop), stop.next)

    @property
    def stop(self) -> Stop:
        """The error again."""
        return Stop(self.reason, self.message, next=self.next)


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer that was a refusal, on its way."""

    kind: str
    message: str
    how: Mapping[str, Any]

    @classmethod
    def of(cls, error: Rejected | Transient) -> Refusal:
        """All but what came with it."""
        return cls(type(error).__name__, str(error), {"error": error.error, "status": error.status, "code": error.code})

    @property
    def error(self) -> EngineError:
        """The error again."""
        kinds = {one.__name__: one for one in (Rejected, Transient, Gone)}
        return kinds.get(self.kind, Rejected)(self.message, **self.how)


def bare(ends: Ends) -> Ends:
    """Without what the program itself knows of registries."""
    return replace(ends, dialects={}, dialect=None, names=None)
