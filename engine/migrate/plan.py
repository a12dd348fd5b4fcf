"""What `run` would do, prompt by prompt, found by the same survey and the same preparation. Writes nothing."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final

from engine.content.dialects import table
from engine.content.digest import changed_fields, user_name
from engine.content.rewrite import Change, Rewritten
from engine.content.selection import find
from engine.errors import Rejected, Transient
from engine.ledger.state import Record, State
from engine.migrate.decide import Decision, decide
from engine.migrate.job import Job
from engine.migrate.needs import Need
from engine.migrate.reconcile import taken_over, writes_of
from engine.migrate.survey import Survey
from engine.migrate.task import Adoption, Prepared, Task
from engine.model import Failed, Json
from engine.taskgroup import for_each

_NOT_REWRITTEN: Final = frozenset({"functions", "tools", "tool_choice", "raw", "metadata"})
"""What no rule changes, so that only an update may."""
ACTIONS: Final = ("create", "update", "unchanged", "skip", "conflict")
_ACTION_OF: Final = {
    "create": "create",
    "update": "update",
    "finish": "update",
    "unchanged": "unchanged",
    "skip": "skip",
    "conflict": "conflict",
}
"""What a decision is called; a prompt that would fail is called by what would be tried."""
_REQUESTS: Final = {
    "create": 2,
    "finish": 4,
    "unchanged": 1,
    "skip": 1,
    "conflict": 2,
    "failed": 2,
    "replica": 1,
}
"""About what a run sends for each of these."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """One prompt: what would be done, which fields change, what would be lost, what else there is to say."""

    source_id: str
    name: str
    action: str
    changes: Sequence[Mapping[str, Any]] = ()
    losses: Sequence[str] = ()
    carried: Sequence[str] = ()
    """What would be lost, and travels in the metadata of the replica."""
    notes: Sequence[str] = ()
    problem: str | None = None
    """Why it would fail."""
    digests: Mapping[str, str | None] = field(default_factory=dict)
    """Of the source as it is, and of the replica as it would be; for `plan --out`."""
    requests: int = 0
    """What a run would send for it."""
    dialect: str | None = None
    """What its source is written in."""

    def to_json(self) -> dict[str, Any]:
        """As `plan --json` prints it."""
        value = asdict(self)
        del value["digests"], value["requests"], value["dialect"]
        return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All of it. `requests` and `seconds`: what the run will take."""

    prompts: Sequence[Planned]
    counts: Mapping[str, int]
    requests: int
    seconds: float
    notes: Sequence[str] = field(default_factory=tuple)
    translation: Sequence[tuple[str, str]] = ()
    """Where source and target speak different dialects: what becomes of each field and construct."""
    made: Sequence[Need] = ()
    """What prompts refer to, and would be made at the target before the first of them."""

    @property
    def has_work(self) -> bool:
        """Whether a run would write anything."""
        return bool(self.counts["create"] or self.counts["update"])

    def to_json(self) -> dict[str, Any]:
        """The object of `plan --json`."""
        return {
            "prompts": [prompt.to_json() for prompt in self.prompts],
            "counts": dict(self.counts),
            "requests": self.requests,
            "seconds": self.seconds,
            "made": [need.to_json() for need in self.made],
            "notes": list(self.notes),
            "translation": [{"what": what, "becomes": becomes} for what, becomes in self.translation],
        }


async def plan(
    job: Job,
    survey: Survey,
    state: State,
    chosen: Collection[str] | None,
    *,
    now: float,
    rate: float,
    asked: int,
    made: Sequence[Need] = (),
) -> Plan:
    """Reads what a run would read. `chosen`: source ids, None for all; `asked`: requests that the listings took;
    `made`: what would be made before the first prompt.
    """
    tasks = [task for task in survey.tasks if chosen is None or task.row.id in chosen]
    planned: dict[str, Planned | None] = {}

    async def one(task: Task) -> None:
        planned[task.row.id] = await _planned(job, task, state.records.get(task.row.id), now)

    await for_each(tasks, one, limit=job.concurrency)
    prompts = [prompt for task in tasks if (prompt := planned[task.row.id]) is not None]
    counts = Counter(prompt.action for prompt in prompts)
    requests = asked + sum(prompt.requests for prompt in prompts) + sum(map(_requests_of, made))
    selected = len(survey.tasks) - (len(tasks) - len(prompts))
    return Plan(
        prompts=prompts,
        counts={"listed": survey.listed, "selected": selected} | {name: counts[name] for name in ACTIONS},
        requests=requests,
        seconds=round(requests / rate, 1),
        made=tuple(made),
        notes=tuple(survey.notes),
        translation=_translation(job, {prompt.dialect for prompt in prompts}),
    )


def _translation(job: Job, dialects: Collection[str | None]) -> list[tuple[str, str]]:
    """The table of each direction that these prompts go."""
    there, fields = job.ends.dialect, job.target.fields
    ways = [one for word, one in job.ends.dialects.items() if word in dialects]
    return [row for one in ways if there is not None and one.name != there.name for row in table(one, there, fields)]


async def _planned(job: Job, task: Task, record: Record | None, now: float) -> Planned | None:
    """None: it turned out to be a replica of this migration."""
    notes = [task.note] if task.note else []
    if task.action == "unread" and task.failure is not None:
        return _unread(job, task, task.failure, made=record is not None and record.made)
    waits = task.action == "wait"
    if not waits and not any(writes_of(task)):
        return _settled(task, notes)
    if task.reason:
        notes.append(task.reason)
    if task.adopt is not None and task.adopt.then is not None:
        notes.append(_taken_over(task))
        record, task = _once_taken_over(job, task, task.adopt, now), task.adopt.then
    made = record is not None and record.made
    decision = await decide(job, task._replace(action="update" if made or job.in_place else "create"), record, now=now)
    if decision.action == "replica":
        return None
    action = _ACTION_OF.get(decision.action) or task.action
    notes += [*decision.notes, *await _labels_left(job, task, decision)]
    prepared, failure = decision.prepared, decision.failure
    rewritten = prepared.rewritten if prepared is not None else _rewritten(job, decision)
    if prepared is None and rewritten is not None:
        notes += rewritten.notes
    elif rewritten is not None:
        notes += [f"not carried: {why}" for why in rewritten.uncarried]
    return Planned(
        source_id=task.row.id,
        name=task.row.name,
        action="create" if action == "wait" else action,
        changes=_changes(decision, rewritten),
        losses=list(rewritten.losses) if rewritten is not None else (),
        carried=list(rewritten.carried) if rewritten is not None else (),
        notes=notes,
        problem=failure.message if failure is not None else None,
        digests=_digests(prepared),
        requests=_requests(job, decision),
        dialect=decision.source.dialect if decision.source is not None else None,
    )


def _rewritten(job: Job, decision: Decision) -> Rewritten | None:
    """Of a prompt that will fail."""
    if decision.source is None or decision.failure is None or decision.failure.error == "too_deep":
        return None
    return job.rewritten(decision.source)


def _changes(decision: Decision, rewritten: Rewritten | None) -> Sequence[Mapping[str, Any]]:
    """What the rules change; of an update, what becomes different from what is there."""
    if rewritten is None:
        return []
    revision = decision.prepared.revision if decision.prepared is not None else None
    compared = rewritten if revision is None else replace(rewritten, source=revision.before)
    found = [
        {"field": change.field, "before": _told(change.before), "after": _told(change.after)}
        for change in compared.changes
    ]
    if revision is None:
        return found
    others = sorted(changed_fields(revision.before, rewritten.prompt) & _NOT_REWRITTEN)
    return [*found, *(asdict(Change(user_name(name), "as it is", "as at the source")) for name in others)]


def _told(value: Json) -> Json:
    """NaN and Infinity, which files may hold and JSON may not, as words."""
    if isinstance(value, dict):
        return {key: _told(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_told(inner) for inner in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _requests(job: Job, decision: Decision) -> int:
    """About what a run sends for it: reads, the write, the proof of an update, labels; to files nothing is sent."""
    if not job.target.can.asked:
        return int(job.source.can.asked)
    labels = len(decision.source.labels) if decision.pending and decision.source is not None else 0
    if decision.action == "update":
        return 5 + job.publish + (not job.in_place) + labels
    return _REQUESTS[decision.action] - (decision.failure is not None) + labels


def _requests_of(need: Need) -> int:
    """It is read at the source, unless its listing says all of it, and made; nothing when it cannot be made."""
    return 0 if need.problem else 1 + (need.key[0] != "collection")


async def _labels_left(job: Job, task: Task, decision: Decision) -> list[str]:
    """A note for each label on a version that is not copied."""
    labels = job.ends.source.labels
    if decision.action != "create" or decision.source is None or job.select.version == "all" or not labels:
        return []
    try:
        versions = await job.source.versions(task.row.id)
    except (Rejected, Transient) as error:
        return [f"its versions could not be listed, so labels on them are not known: {error}"]
    left = [
        (version.ref, one.name)
        for version in versions
        for label in version.labels
        if version.ref != decision.source.version and (one := find(labels, label)) is not None
    ]
    return [f"label {name!r} stands on version {ref}, which is not copied" for ref, name in left]


def _digests(prepared: Prepared | None) -> Mapping[str, str | None]:
    mark = prepared.replica.mark if prepared is not None else None
    return {} if mark is None else {"source_digest": mark.source_digest, "replica_digest": mark.replica_digest}


def _unread(job: Job, task: Task, failure: Failed, *, made: bool) -> Planned:
    action = "update" if made or job.in_place else "create"
    return Planned(source_id=task.row.id, name=task.row.name, action=action, problem=failure.message, requests=1)


def _once_taken_over(job: Job, task: Task, adopt: Adoption, now: float) -> Record:
    """What a ledger will know of it by then."""
    state, entry = State(), taken_over(job, task, adopt, now)
    state.fold({"ts": "", "run": "", "kind": entry.kind, **entry.fields})
    return state.records[task.row.id]


def _taken_over(task: Task) -> str:
    return f"its replica {task.target_id} was found on the target and is taken over"


def _settled(task: Task, notes: list[str]) -> Planned:
    """A prompt that needs no reading: done, in the way, or given up."""
    action = {"adopt": "unchanged", "keep": "skip"}.get(task.action, task.action)
    if task.action == "adopt":
        notes.append(_taken_over(task))
    elif task.action == "keep":
        notes.append(f"failed for good in an earlier run ({task.reason}); --retry-failed takes it up again")
    elif task.reason:
        notes.append(task.reason)
    return Planned(source_id=task.row.id, name=task.row.name, action=action, notes=notes)
