"""Signals and the time box: how a run is asked to end from outside."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import anyio
from anyio.abc import TaskStatus

from engine.errors import Stop
from engine.migrate.halt import AGAIN, Halt
from engine.taskgroup import task_group

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


@asynccontextmanager
async def interruptible(
    halt: Halt, *, signals: bool, seconds: float | None = None, within: Halt | None = None
) -> AsyncIterator[None]:
    """The first signal, or the end of the time box, asks for the end; a second signal drops what is in flight.

    `signals`: whether they are taken at all; then they are ignored from the end of the block on. `within`: what this is
    a part of; it ends with it.
    """
    async with asked_to_end(halt, signals=signals, seconds=seconds), task_group() as group:
        if within is not None:
            group.start_soon(halt.follow, within)
        group.start_soon(_drop, halt, group.cancel_scope)
        yield
        group.cancel_scope.cancel()


@asynccontextmanager
async def asked_to_end(halt: Halt, *, signals: bool, seconds: float | None = None) -> AsyncIterator[None]:
    """The same, but the block itself is not left: its parts look at `halt`."""
    async with task_group() as group:
        if signals:
            await group.start(_on_signals, halt)
        if seconds is not None:
            group.start_soon(_time_box, halt, seconds)
        yield
        group.cancel_scope.cancel()


async def _drop(halt: Halt, scope: anyio.CancelScope) -> None:
    await halt.dropped()
    scope.cancel()


async def _on_signals(halt: Halt, *, task_status: TaskStatus[None]) -> None:
    try:
        with anyio.open_signal_receiver(*SIGNALS) as received:
            task_status.started()
            async for one in received:
                if halt.stop is not None:
                    halt.drop()
                    return
                halt.request(Stop("interrupted", f"{one.name}: the run was asked to end", next=AGAIN))
    finally:
        for number in SIGNALS:  # it has ended: a signal must not cost its summary
            signal.signal(number, signal.SIG_IGN)


async def _time_box(halt: Halt, seconds: float) -> None:
    await anyio.sleep(seconds)
    halt.request(Stop("time_box", f"the {seconds:g} s of --max-duration are over", next=AGAIN))
