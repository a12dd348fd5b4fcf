"""In which order a limited run takes up prompts, so that runs of the same limit, one after the other, come to the end.

First what is there and is to be compared: what is found unchanged counts for nothing. Then what surely needs something,
in the order of the listing. Last what an earlier run tried in vain, the longest ago first. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from engine.ledger.state import Record
from engine.migrate.task import Task, packed_tasks
from engine.model.packed import PackedList

_TRIED: Final = ("failed", "conflict", "intent", "unknown")
"""What may become of a prompt again and again."""


def is_compared(task: Task, record: Record | None) -> bool:
    """Whether only a look at it can tell that it needs anything."""
    settled = record is not None and record.status not in (*_TRIED, "rolled_back")
    return task.action == "update" and settled


def in_turn(tasks: Iterable[Task], records: Mapping[str, Record]) -> PackedList[Task]:
    """All of them, in the order in which a limited run takes them up."""
    compared, sure = packed_tasks(), packed_tasks()
    tried: list[tuple[str, Task]] = []
    for task in tasks:
        record = records.get(task.row.id)
        if record is not None and record.status in _TRIED:
            tried.append((record.run, task))  # the id of a run begins with its time
        else:
            (compared if is_compared(task, record) else sure).append(task)
    tried.sort(key=lambda one: one[0])
    compared.extend(sure)
    compared.extend(task for _, task in tried)
    return compared


def within(tasks: Iterable[Task], records: Mapping[str, Record], limit: int | None) -> Iterator[Task]:
    """Of tasks in turn those that a run of this limit may come to."""
    left = limit
    for task in tasks if limit != 0 else ():
        if left is not None and not is_compared(task, records.get(task.row.id)):
            if not left:
                return
            left -= 1
        yield task
