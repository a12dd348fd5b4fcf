"""A loop whose clock jumps: hours of waiting in no time, and the same every time."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any, TypeVar

T = TypeVar("T")


class _NothingOutside(selectors.SelectSelector):
    """There is no other process to hear from."""

    def select(self, timeout: float | None = None) -> list[Any]:
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop whose clock jumps to the next timer when nothing else is to be done."""

    def __init__(self, late: Callable[[], float] | None = None) -> None:
        super().__init__(_NothingOutside())
        self._now = 0.0
        self._late = late

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Timers are late by what `late` draws."""
        return super().call_at(when + (self._late() if self._late else 0.0), callback, *args, context=context)

    def time(self) -> float:
        return self._now

    def _run_once(self) -> None:
        # at least 1 us a turn: a timer that is due at this very moment would else be set again for ever
        self._now += 1e-6
        if not self._ready and self._scheduled:  # type: ignore[attr-defined]
            self._now = max(self._now, self._scheduled[0].when())  # type: ignore[attr-defined]
        super()._run_once()  # type: ignore[misc]


def in_virtual_time(work: Callable[[], Coroutine[Any, Any, T]], *, late: Callable[[], float] | None = None) -> T:
    with asyncio.Runner(loop_factory=lambda: VirtualLoop(late)) as runner:
        return runner.run(work())


def now() -> float:
    return asyncio.get_running_loop().time()
