"""How much of the engine's CPU time its ledger takes: the entries, their lines, the fold, the write and the sync.

What the event loop does to wake the sink and its callers is not counted: no function of the sink is running then.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine, Generator
from dataclasses import dataclass, field
from types import coroutine
from typing import Any, Final, ParamSpec, TypeVar

from engine.ledger.sink import Sink
from engine.migrate import entries

P = ParamSpec("P")
T = TypeVar("T")
READINGS: Final = 20_000


def _reading_s() -> float:
    began = time.thread_time()
    for _ in range(READINGS):
        time.thread_time()
    return (time.thread_time() - began) / READINGS


@dataclass(slots=True)
class LedgerTime:
    """CPU seconds so far. Each thread has its own number, because two cannot add to one."""

    loop_s: float = 0.0
    pieces: int = 0
    """Of which `loop_s` is the sum."""
    disk_s: float = 0.0
    reading_s: float = field(default_factory=_reading_s)
    """What reading the clock adds to a piece."""

    @property
    def seconds(self) -> float:
        """Of both threads, without the readings."""
        return self.loop_s - self.pieces * self.reading_s + self.disk_s

    def add(self, began: float) -> None:
        """The piece that began then has ended."""
        self.loop_s += time.thread_time() - began
        self.pieces += 1


def measure() -> LedgerTime:
    """From here on, what the ledger takes in this process is added up."""
    taken = LedgerTime()
    for owner, name, measured in (
        (entries, "intent", _called(entries.intent, taken)),
        (entries, "of", _called(entries.of, taken)),
        (Sink, "record", _stepped(Sink.record, taken)),
        (Sink, "_serve", _stepped(Sink._serve, taken)),
        (Sink, "_write", _on_disk(Sink._write, taken)),
    ):
        setattr(owner, name, measured)
    return taken


def _called(function: Callable[P, T], taken: LedgerTime) -> Callable[P, T]:
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        began = time.thread_time()
        try:
            return function(*args, **kwargs)
        finally:
            taken.add(began)

    return call


def _on_disk(write: Callable[[Sink, bytes], None], taken: LedgerTime) -> Callable[[Sink, bytes], None]:
    def call(sink: Sink, data: bytes) -> None:
        write(sink, data)
        taken.disk_s = time.thread_time()  # of the whole thread: it does nothing else

    return call


def _stepped(function: Callable[P, Coroutine[Any, Any, T]], taken: LedgerTime) -> Callable[P, Coroutine[Any, Any, T]]:
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
            taken.add(began)
        try:
            given, resume = (yield awaited), running.send
        except BaseException as exc:  # thrown in by whoever cancels: the coroutine's to take
            given, resume = exc, running.throw
