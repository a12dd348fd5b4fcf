"""Several migrations of one process that make what is missing in the same workspace: one of them at a time, and each
knows what the others have made.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, MutableMapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import anyio

from engine.ledger.parts import PartRecord
from engine.migrate.context import Context
from engine.migrate.job import Job
from engine.migrate.listing import catalog_of
from engine.model import Named


@dataclass(slots=True)
class SharedParts:
    """Of one workspace. `turn`: whose it is to make there; `unsure`: migration -> `settled_by` of what it has sent."""

    turn: anyio.Lock
    unsure: MutableMapping[str, float]
    made: dict[str, dict[str, Named]] = field(default_factory=dict)
    """Field of Catalog -> id -> what is there by us, though a listing may not have it yet."""

    @asynccontextmanager
    async def taking_turns(self, job: Job, context: Context) -> AsyncIterator[None]:
        """None of the others makes anything there meanwhile. Raises Stop when the end is asked for before its turn."""
        await context.halt.guard(self.turn.acquire())
        whole = False
        try:
            yield
            whole = True
        finally:
            # of what was stopped on the way not even what it made is known to the others but by a listing
            left = [one for one in context.state.parts.values() if one.doubtful or not whole]
            self.unsure.pop(job.migration, None)
            if left:
                self.unsure[job.migration] = settled_by(left, job.settle)
            self.turn.release()

    async def known(self, job: Job, context: Context) -> Job:
        """The job that knows what the others have made, or sent without an answer. Raises Stop."""
        others = [until for name, until in self.unsure.items() if name != job.migration]
        if not (others or self.made):
            return job
        await context.halt.pause(max(others, default=0.0) - context.clock())
        listed = await context.halt.guard(catalog_of(job.target, job.ends.create))
        now: dict[str, Any] = {kind: self._completed(kind, getattr(listed, kind)) for kind in job.ends.create}
        return replace(job, ends=replace(job.ends, target=replace(job.ends.target, **now)))

    def learn(self, job: Job) -> None:
        """What is there now."""
        for (what, _), one in job.ends.made.items():
            self.made.setdefault(f"{what}s", {})[one.named.id] = one.named

    def _completed(self, kind: str, listed: Sequence[Named] | None) -> Sequence[Named] | None:
        if listed is None:
            return None
        made = self.made.get(kind, {})
        return [*listed, *(made[one] for one in made.keys() - {one.id for one in listed})]


def settled_by(sent: Iterable[PartRecord], settle: float) -> float:
    """When all of this has landed, and is listed, or never will be: in epoch seconds."""
    return max((record.since + 2 * settle for record in sent), default=0.0)
