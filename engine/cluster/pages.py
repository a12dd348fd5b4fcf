"""Which tasks are where: the pages that workers were given, and what comes back of a worker that was lost. Pure."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from typing import Final

from engine.migrate.task import Rest, Task

PAGE: Final = 100
"""Tasks that a worker is given at once."""


@dataclass(frozen=True, slots=True)
class Page:
    """Tasks of one worker. Numbers are never used again."""

    number: int
    tasks: tuple[Task, ...]


class Book:
    """Hands out pages of what is left, and knows who has which."""

    def __init__(self, rest: Rest, *, size: int = PAGE) -> None:
        self._rest = rest
        self._size = size
        self._numbers = 0
        self._out: dict[Hashable, dict[int, Page]] = {}

    def __len__(self) -> int:
        """Tasks that nobody has."""
        return len(self._rest)

    @property
    def whole(self) -> bool:
        """Nothing is left, and nobody has anything."""
        return not self._rest and not any(self._out.values())

    def held(self, worker: Hashable) -> int:
        """Pages that it has."""
        return len(self._out.get(worker, ()))

    def hand_out(self, worker: Hashable, most: int, among: int) -> Iterator[Page]:
        """So many that it has `most`. The last ones are smaller, so that all of `among` workers have something."""
        while self._rest and self.held(worker) < most:
            size = min(self._size, max(1, -(-len(self._rest) // among)))
            self._numbers += 1
            page = Page(self._numbers, tuple(self._rest.pop() for _ in range(min(size, len(self._rest)))))
            self._out.setdefault(worker, {})[page.number] = page
            yield page

    def ended(self, worker: Hashable, number: int) -> None:
        """Every task of that page has its lines in the ledger."""
        del self._out[worker][number]

    def lost(self, worker: Hashable, told: Callable[[Task], bool]) -> list[Task]:
        """The worker is gone: what it had is left again, but for tasks that the ledger has something of. Those are
        given back: nobody takes them up before it is known what became of them.
        """
        tasks = [task for page in self._out.pop(worker, {}).values() for task in page.tasks]
        self._rest.put_back([task for task in tasks if not told(task)])
        return [task for task in tasks if told(task)]
