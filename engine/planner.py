"""What `run` would do, prompt by prompt, found by the same survey and the same preparation. Writes nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

import anyio

from engine.errors import Gone, Rejected, Transient
from engine.job import Job, prepare, task_group
from engine.model import Failed
from engine.rewrite import rewrite
from engine.survey import Survey, Task

ACTIONS: Final = ("create", "update", "unchanged", "skip", "conflict")


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """One prompt: what would be done, which fields change, what would be lost, what else there is to say."""

    source_id: str
    name: str
    action: str
    changes: Sequence[Mapping[str, Any]] = ()
    losses: Sequence[str] = ()
    notes: Sequence[str] = ()
    problem: str | None = None
    """Why the create would fail."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All of it. `requests` and `seconds`: what the run will take."""

    prompts: Sequence[Planned]
    counts: Mapping[str, int]
    requests: int
    seconds: float
    notes: Sequence[str] = field(default_factory=tuple)

    @property
    def has_work(self) -> bool:
        """Whether a run would write anything."""
        return bool(self.counts["create"] or self.counts["update"])

    def to_json(self) -> dict[str, Any]:
        """The object of `plan --json`."""
        return asdict(self)


async def plan(job: Job, survey: Survey, chosen: Collection[str] | None, *, rate: float, listing_requests: int) -> Plan:
    """Reads every definition that a run would read. `chosen`: source ids, None for all."""
    tasks = [task for task in survey.tasks if chosen is None or task.row.id in chosen]
    planned: dict[str, Planned | None] = {}
    limiter = anyio.CapacityLimiter(job.concurrency)

    async def one(task: Task) -> None:
        async with limiter:
            planned[task.row.id] = await _planned(job, task)

    async with task_group() as group:
        for task in tasks:
            group.start_soon(one, task)
    prompts = [prompt for task in tasks if (prompt := planned[task.row.id]) is not None]
    counts = Counter(prompt.action for prompt in prompts)
    creates = sum(prompt.action == "create" for prompt in prompts)
    requests = listing_requests + creates + sum(p.action == "create" and p.problem is None for p in prompts)
    selected = len(survey.tasks) - (len(tasks) - len(prompts))
    return Plan(
        prompts=prompts,
        counts={"listed": survey.listed, "selected": selected} | {name: counts[name] for name in ACTIONS},
        requests=requests,
        seconds=round(requests / rate, 1),
        notes=tuple(survey.notes),
    )


async def _planned(job: Job, task: Task) -> Planned | None:
    """None: it turned out to be a replica of this migration."""
    notes = [task.note] if task.note else []
    if task.action not in ("create", "wait"):
        return _settled(task, notes)
    if task.reason:
        notes.append(task.reason)
    try:
        prompt = await job.source.fetch(task.row.id, job.select.version)
    except Gone:
        return Planned(source_id=task.row.id, name=task.row.name, action="skip", notes=(*notes, "gone"))
    except (Rejected, Transient) as error:
        return Planned(source_id=task.row.id, name=task.row.name, action="create", notes=notes, problem=str(error))
    if job.is_replica(prompt):
        return None
    prepared = prepare(job, prompt, name=task.name)
    if isinstance(prepared, Failed):
        problem, rewritten = prepared.message, rewrite(prompt, job.rules, job.ends, job.target.fields)
    else:
        problem, rewritten = None, prepared.rewritten
    return Planned(
        source_id=task.row.id,
        name=task.row.name,
        action="create",
        changes=[asdict(change) for change in rewritten.changes],
        losses=list(rewritten.losses),
        notes=[*notes, *rewritten.notes],
        problem=problem,
    )


def _settled(task: Task, notes: list[str]) -> Planned:
    """A prompt that needs no reading: done, in the way, or given up."""
    action = {"adopt": "unchanged", "keep": "skip"}.get(task.action, task.action)
    if task.action == "adopt":
        notes.append(f"its replica {task.target_id} was found on the target and is taken over")
    elif task.action == "keep":
        notes.append(f"failed for good in an earlier run ({task.reason}); --retry-failed takes it up again")
    elif task.reason:
        notes.append(task.reason)
    return Planned(source_id=task.row.id, name=task.row.name, action=action, notes=notes)
