"""How much of the engine's CPU time its ledger takes: the entries, their lines, the fold, the write and the sync.

What the event loop does to wake the sink and its callers is not counted: no function of the sink is running then.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Coroutine, Generator
from dataclasses import dataclass
from types import coroutine
from typing import Any, ParamSpec, TypeVar

from engine import entries
from engine.sink import Sink

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(slots=True)
class LedgerTime:
    """CPU seconds so far, by thread. One each, because two threads cannot add to one number."""

    loop_s: float = 0.0
    disk_s: float = 0.0

    @property
    def seconds(self) -> float:
        """Of both threads."""
        return self.loop_s + self.disk_s


def measure() -> LedgerTime:
    """From here on, in this process, what the ledger takes is added up. Reading the clock costs it some 2 us a prompt."""
    taken = LedgerTime()
    setattr(entries, "intent", _called(entries.intent, taken))
    setattr(entries, "of", _called(entries.of, taken))
    setattr(Sink, "record", _stepped(Sink.record, taken))
    setattr(Sink, "_serve", _stepped(Sink._serve, taken))
    setattr(Sink, "_write", _on_disk(Sink._write, taken))
    return taken


def _called(function: Callable[P, T], taken: LedgerTime) -> Callable[P, T]:
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        began = time.thread_time()
        try:
            return function(*args, **kwargs)
        finally:
            taken.loop_s += time.thread_time() - began

    return call


def _on_disk(write: Callable[[Sink, bytes], None], taken: LedgerTime) -> Callable[[Sink, bytes], None]:
    def call(sink: Sink, data: bytes) -> None:
        write(sink, data)
        taken.disk_s = time.thread_time()  # of the whole thread: it does nothing else

    return call


def _stepped(
    function: Callable[P, Coroutine[Any, Any, T]], taken: LedgerTime
) -> Callable[P, Coroutine[Any, Any, T]]:
    """Counts from each resumption to the next wait, and nothing of the wait."""

    async def call(*args: P.args, **kwargs: P.kwargs) -> T:
        return await _steps(function(*args, **kwargs), taken)

    return call


@coroutine
def _steps(running: Coroutine[Any, Any, T], taken: LedgerTime) -> Generator[Any, Any, T]:
    resume: Callable[[Any], Any] = running.send
    given: Any = None
    while True:
        began = time.thread_time()
        try:
            awaited = resume(given)
        except StopIteration as ended:
            result: T = ended.value
            return result
        finally:
            taken.loop_s += time.thread_time() - began
        try:
            given, resume = (yield awaited), running.send
        except BaseException as exc:  # thrown in by whoever cancels: the coroutine's to take
            given, resume = exc, running.throw
