"""Task groups whose errors are ours."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from typing import TypeVar

import anyio
from anyio.abc import TaskGroup

from engine.errors import EngineError

T = TypeVar("T")
U = TypeVar("U")


async def for_each(items: Iterable[T], work: Callable[[T], Awaitable[object]], *, limit: int) -> None:
    """Works on every item, on at most `limit` of them at once. There are never more tasks than that."""
    rest = iter(items)

    async def worker() -> None:
        for item in rest:
            await work(item)

    async with task_group() as group:
        for _ in range(limit):
            group.start_soon(worker)


async def both(first: Awaitable[T], second: Awaitable[U]) -> tuple[T, U]:
    """What two calls give, made at the same time. The first that fails ends the other one."""
    found: list[U] = []

    async def other() -> None:
        found.append(await second)

    async with task_group() as group:
        group.start_soon(other)
        one = await first
    return one, found[0]


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


def _leaves(errors: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for error in errors.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error
