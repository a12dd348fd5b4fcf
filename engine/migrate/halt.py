"""How a run is asked to end, by whoever and wherever: looked at before anything new is taken up."""

from __future__ import annotations

from collections.abc import Awaitable
from contextlib import suppress
from typing import Final, TypeVar

import anyio

from engine.errors import Stop
from engine.taskgroup import task_group

T = TypeVar("T")

AGAIN: Final = "Run the same command again: it goes on where this run stopped."


class Halt:
    """How a run is asked to end: the first request wins, and everything that takes new work looks here."""

    def __init__(self) -> None:
        self.stop: Stop | None = None
        self._requested = anyio.Event()
        self._dropped = anyio.Event()

    def request(self, stop: Stop) -> None:
        """Asks for the end; later requests change nothing."""
        if self.stop is None:
            self.stop = stop
            self._requested.set()

    async def wait(self) -> None:
        """Until the end is asked for."""
        await self._requested.wait()

    def drop(self) -> None:
        """Asks for the end at once: what is in flight is not waited for."""
        self._dropped.set()

    async def dropped(self) -> None:
        """Until the end is asked for at once."""
        await self._dropped.wait()

    async def follow(self, other: Halt) -> None:
        """Ends as the other one ends, for as long as this is awaited."""
        await other.wait()
        assert other.stop is not None  # it was waited for
        self.request(other.stop)
        await other.dropped()
        self.drop()

    async def pause(self, seconds: float) -> None:
        """Sleeps, but not past a request to end."""
        with anyio.move_on_after(max(0.0, seconds)):
            await self.wait()

    async def guard(self, work: Awaitable[T]) -> T:
        """Awaits work that writes nothing, and drops it at once when the end is asked for."""
        async with task_group() as group:
            group.start_soon(self._cancel, group.cancel_scope)
            result = await work
            group.cancel_scope.cancel()
            return result
        assert self.stop is not None  # only a request cancels the group before the work is done
        raise self.stop

    async def confirm(self, question: Awaitable[bool]) -> None:
        """Awaits somebody's answer before the first write. Stop: it is no, or the end is asked for instead."""
        agreed = False
        with suppress(Stop):
            agreed = await self.guard(question)
        if not agreed:
            self.stop = Stop("interrupted", "it was not confirmed; nothing was written", next=AGAIN)
            raise self.stop

    async def _cancel(self, scope: anyio.CancelScope) -> None:
        await self.wait()
        scope.cancel()
