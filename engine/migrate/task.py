"""The values that travel through a run: what is to be done with a prompt, and what it has become on its way."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Final, NamedTuple

from engine.content.rewrite import Rewritten
from engine.model import (
    ROWS,
    Failed,
    Json,
    Mark,
    Prompt,
    Replica,
    Row,
    Target,
)
from engine.model.frozen import frozen
from engine.model.packed import Columns, Fields, PackedList, maker


@dataclass(frozen=True, slots=True)
class Step:
    """What a plan says of one prompt. No digests: nothing was to be written."""

    action: str
    source_digest: str | None
    replica_digest: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Revision:
    """The prompt that an update changes, as it is before."""

    target_id: str
    base: str | None
    """Its newest version."""
    published: str | None
    """Its published version."""
    before: Prompt
    """As it is published."""
    fields: frozenset[str] | None
    """The fields of Prompt that are sent; None: whole."""
    there: str | None = None
    """The version that holds what is wanted already: an update whose answer was lost, or whose ledger was."""


@frozen(kw_only=True)
class Prepared:
    """A replica ready to be sent, and what the rewrite said of it. `revision`: it updates a prompt that is there."""

    replica: Replica
    body: bytes = field(repr=False)
    rewritten: Rewritten
    revision: Revision | None = None

    def revising(self, revision: Revision, target: Target) -> Prepared:
        """The same as an update. Raises Rejected when it cannot be written without loss."""
        return replace(self, revision=revision, body=target.encode_update(self.replica, revision.fields))


class Task(NamedTuple):
    """One selected prompt and what is to be done: create | update | adopt | unchanged | skip | conflict | keep | wait |
    unread.

    `update`: to be compared, and updated where something changed. `keep`: failed for good in an earlier run, and
    neither its source nor the rules changed since. `wait`: a write in doubt whose settle time is not over. `unread`:
    its definition was needed to judge it and could not be read, so nothing is done for it in this run.
    """

    row: Row
    action: str
    reason: str | None = None
    name: str | None = None
    """Name of the replica, when it is not the one that the rules give."""
    target_id: str | None = None
    adopt: Adoption | None = None
    note: str | None = None
    look: str = ""
    """`replica`: only the replica's time of change is new."""
    failure: Failed | None = None
    """Why it cannot be done, or is unread."""

    @property
    def due(self) -> bool:
        """Whether a run that takes it up has to say what became of it."""
        return self.action not in ("unchanged", "keep", "wait")


def packed_tasks(tasks: Iterable[Task] = ()) -> PackedList[Task]:
    """Those of a whole library. What is adopted or has failed stays as it is."""
    return PackedList(_TASKS, tasks)


def _flat(page: Sequence[Task]) -> Fields:
    rows, *others = zip(*page, strict=True)
    return ROWS.flat(rows), *others


def _whole(fields: Fields) -> list[Task]:
    rows, *others = fields
    return list(map(_made, zip(ROWS.whole(rows), *others, strict=True)))


_made: Final = maker(Task)
_TASKS: Final = Columns(_flat, _whole)


class Rest:
    """Tasks that were not taken up yet. They are made one by one, for there may be a million."""

    def __init__(self, tasks: Sequence[Task]) -> None:
        self._tasks: Iterator[Task] = iter(tasks)
        self._left = len(tasks)

    def __len__(self) -> int:
        return self._left

    def pop(self) -> Task:
        """The first one."""
        self._left -= 1
        return next(self._tasks)

    def take(self, most: int, fits: Callable[[Task], bool] = lambda _: True) -> PackedList[Task]:
        """The first ones: at most so many, and none behind one that does not fit."""
        taken = packed_tasks()
        while self and len(taken) < most:
            task = self.pop()
            if not fits(task):
                self.put_back([task])
                break
            taken.append(task)
        return taken

    def put_back(self, tasks: Sequence[Task]) -> None:
        """Before all others."""
        self._tasks, self._left = chain(tasks, self._tasks), self._left + len(tasks)


@dataclass(frozen=True, slots=True, kw_only=True)
class Adoption:
    """A replica of ours, and what its marks tell. `source`: as it is now, when the rules would make the same of it."""

    match: Match
    source: Prompt | None
    labelled: bool
    """Its source has labels, which it may not have got."""
    notes: tuple[str, ...]
    then: Task | None = None
    """What is to be done with it once it is taken over, where it is not what the rules make of its source now."""


@dataclass(frozen=True, slots=True)
class Match:
    """A replica that was found, its mark, and the digest of what it holds now."""

    row: Row
    mark: Mark
    digest: str
    prompt: Prompt | None = None
    """As it is there, when it has no mark."""


@frozen()
class Ready:
    """A task whose replica is ready to be sent."""

    task: Task
    origin: Mapping[str, Json]
    """What its lines in the ledger begin with."""
    prepared: Prepared
    pending: bool = False
    """Labels or the rest of the history follow."""
