"""What is worth saying of a whole survey and is nobody's failure. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from typing import Final

from engine.ledger.state import Record, State
from engine.migrate.adopt import CHANGED, EDITED
from engine.migrate.job import Job
from engine.migrate.task import Task
from engine.model import Row

EDITED_BEFORE: Final = "its replica was edited by hand; it stays as it is"
_SENTENCES: Final = {
    "unread": "{} prompts could not be read, so nobody knows whether select takes them; they fail",
    "gone": "{} replicas of earlier runs are no longer on the target; they are left as they are",
    "changed": "{} sources changed since their replica was made; on_change leaves those as they are",
    "by hand": "{} replicas were edited by hand, and their sources did not change; they stay as they are",
    "timeless": "the listing has no time of change for {} prompts, so they are read to be compared",
    "compared": "{} prompts made by earlier runs are read again: their times of change or the rules are new",
    "edited": "{} replicas taken over were edited since they were made; they stay as they are",
    "moved": "{} replicas taken over have a source that changed since they were made",
    "twins": "{} prompts share their name with another one; each gets its replica, told apart by its key",
}


def survey_notes(
    job: Job, state: State, tasks: Iterable[Task], target_rows: Iterable[Row], twins: Collection[str]
) -> list[str]:
    """Sentences with numbers. `twins`: names that several of these prompts have at the source."""
    found: Counter[str] = Counter()
    replicas: dict[str, int] = {}
    for task in tasks:
        if task.row.name in twins:
            found["twins"] += 1
        if task.action == "create":  # nothing more to say, and most are that
            continue
        record = state.records.get(task.row.id)
        for what in _told(task, record):
            found[what] += 1
        if task.action == "unchanged" and record is not None and record.target_id is not None:
            replicas[record.target_id] = replicas.get(record.target_id, 0) + 1
    for row in target_rows if replicas else ():
        replicas.pop(row.id, None)
    found["gone"] = sum(replicas.values())
    if job.select.label is not None:  # that they are read is told already
        del found["timeless"], found["compared"]
    elif found["timeless"]:
        del found["compared"]
    return [sentence.format(found[what]) for what, sentence in _SENTENCES.items() if found[what]]


def _told(task: Task, record: Record | None) -> Iterator[str]:
    if task.action == "unread":
        yield "unread"
    if task.adopt is not None and EDITED in task.adopt.notes:
        yield "edited"
    if task.adopt is not None and CHANGED in task.adopt.notes:
        yield "moved"
    if task.action == "unchanged" and record is not None:
        if record.updated_at and task.row.updated_at != record.updated_at:
            yield "changed"
        if task.note == EDITED_BEFORE:
            yield "by hand"
    if task.action == "update" and task.target_id and record is not None:
        yield "compared"
        if task.row.updated_at is None:
            yield "timeless"
