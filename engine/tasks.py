"""Task groups whose errors are ours."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import anyio
from anyio.abc import TaskGroup

from engine.errors import EngineError

T = TypeVar("T")
U = TypeVar("U")


@asynccontextmanager
async def task_group() -> AsyncIterator[TaskGroup]:
    """An anyio task group that raises the first EngineError of its tasks as it is; a bug stays a group."""
    try:
        async with anyio.create_task_group() as group:
            yield group
    except BaseExceptionGroup as errors:
        found = list(_leaves(errors))
        if all(isinstance(error, EngineError) for error in found):
            raise found[0] from None
        raise


async def at_once(one: Awaitable[T], other: Awaitable[U]) -> tuple[T, U]:
    """Awaits both together."""
    found: dict[bool, Any] = {}

    async def wait(which: bool, work: Awaitable[Any]) -> None:
        found[which] = await work

    async with task_group() as group:
        group.start_soon(wait, False, one)
        group.start_soon(wait, True, other)
    return found[False], found[True]


def _leaves(errors: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for error in errors.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error
