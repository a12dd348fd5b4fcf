"""The verbs as functions: opens both ends and the ledger and calls the engine.

Python callers use `run_migration`; the command line uses all of it.
"""

from __future__ import annotations

import getpass
import hashlib
import secrets
import socket
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from engine import __version__, check, report
from engine.check import examine, named_in_file, stop_on_problems, unknown_ids
from engine.chosen import Chosen
from engine.config import Migration
from engine.copies import Copies
from engine.ends import Workspaces, open_ends, open_job
from engine.errors import EXIT_DIFFERENT, Stop
from engine.flow import Flow, MaxFailures
from engine.interrupt import AGAIN, interruptible
from engine.inventory import Inventory, count
from engine.job import Halt, Job, replicas_among
from engine.ledger import State, mismatch
from engine.ledgerfile import entries, read_ledger
from engine.lookup import catalog_of, rows_of
from engine.model import Entry, Finding
from engine.pipeline import migrate
from engine.planfile import PlanFile
from engine.planner import Plan, plan
from engine.reconcile import reconcile, settle
from engine.report import Summary
from engine.sink import Sink
from engine.survey import Survey, Task, list_both, survey
from engine.tasks import at_once, task_group
from engine.throttle import Requests

TOLD: Final = ("adopt", "conflict", "skip", "wait")
"""What a run has to do besides creating."""


@dataclass(slots=True)
class Live:
    """What a display may look at while a run goes on."""

    migration: str
    stage: str = "opening"
    ends: Workspaces | None = None
    flow: Flow | None = None

    @property
    def requests(self) -> Requests:
        """The requests of both ends together."""
        return sum((gate.requests for gate in self.ends.gates), Requests()) if self.ends else Requests()

    @property
    def throttle(self) -> dict[str, dict[str, float | None]]:
        """End -> what its gate has come to."""
        if self.ends is None:
            return {}
        gates = {"source": self.ends.source_gate, "target": self.ends.target_gate}
        return {end: asdict(gate.throttle) for end, gate in gates.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """The flags of `run`."""

    chosen: Chosen = field(default_factory=Chosen)
    plan: PlanFile | None = None
    """Do exactly this."""
    limit: int | None = None
    retry_failed: bool = False
    canary: int = 0
    """So many prompts first, read back whole."""
    max_duration: float | None = None
    """Seconds."""
    max_failures: MaxFailures | None = None
    rate: float | None = None
    reason: str | None = None
    confirm: Callable[[Survey, int], bool] | None = None
    """Asked once before the first write, with the survey and the number of creates."""
    watch: Callable[[Live], Coroutine[Any, Any, None]] | None = None
    """Shows progress until it is cancelled."""
    signals: bool = False
    """Take SIGINT and SIGTERM as requests to end, and ignore them from its end on."""


@dataclass(slots=True, kw_only=True)
class _Run:
    """One run from its first request to its summary."""

    migration: Migration
    options: RunOptions
    id: str
    live: Live
    halt: Halt = field(default_factory=Halt)
    state: State = field(default_factory=State)
    survey: Survey | None = None
    chosen: set[str] = field(default_factory=set)
    replicas: set[str] = field(default_factory=set)
    limited: bool = False
    started: float = field(default_factory=time.monotonic)


async def run_migration(migration: Migration, options: RunOptions | None = None) -> Summary:
    """Does the migration, or goes on with it, and returns its summary. What stopped it is in the summary.

    Raises ConfigError when the ledger's path cannot be used at all; everything else that is raised is a bug.
    """
    options = options or RunOptions()
    run = _Run(migration=migration, options=options, id=new_run_id(), live=Live(migration.name))
    try:
        async with interruptible(run.halt, signals=options.signals, seconds=options.max_duration):
            await _run(run)
    except Stop as stop:
        run.halt.request(stop)
    summary = _summary(run)
    return await _verified(run, summary) if migration.verify.after_run and run.halt.stop is None else summary


async def _verified(run: _Run, summary: Summary) -> Summary:
    """The same with what `verify` found behind the run."""
    from engine.verbs import VerbOptions, verify_migration

    options = VerbOptions(chosen=run.options.chosen, rate=run.options.rate, signals=run.options.signals)
    try:
        found = await verify_migration(run.migration, options)
    except Stop as stop:
        return replace(
            summary,
            exit_code=stop.exit_code,
            reason=stop.reason,
            message=f"the verification stopped: {stop}",
            next=stop.next,
        )
    if found.proved or summary.exit_code:
        return replace(summary, verified=found.counts)
    advice = "See what differs with `promptferry verify`."
    return replace(summary, verified=found.counts, exit_code=EXIT_DIFFERENT, reason="failures", next=advice)


async def _run(run: _Run) -> None:
    migration, options = run.migration, run.options
    sink = Sink.open(migration.ledger, run=run.id)
    try:
        run.state = sink.state
        check_identity(migration, sink.state)
        known = sink.state.throttle
        async with sink, open_ends(migration, rate=options.rate, writes=True, throttle=known) as ends:
            run.live.ends = ends
            job, tasks = await run.halt.guard(_survey(run, ends))
            if tasks and options.confirm is not None and not options.confirm(_surveyed(run), len(tasks)):
                declined = Stop("interrupted", "the run was not confirmed; nothing was written", next=AGAIN)
                run.halt.request(declined)  # first: when the answer was Ctrl-C, its signal asks for the end as well
                raise declined
            await _write(run, job, sink, tasks)
    finally:
        sink.close()


async def _survey(run: _Run, ends: Workspaces) -> tuple[Job, list[Task]]:
    """The checks and both listings; the tasks that this run takes up."""
    run.live.stage = "listing"
    job, listed = await at_once(open_job(run.migration, ends), list_both(ends.source, ends.target, same=ends.same))
    stop_on_problems(list(named_in_file(job)))
    retry_failed = run.options.retry_failed
    found = await survey(job, run.state, now=time.time(), retry_failed=retry_failed, listed=listed)
    stop_on_problems(list(unknown_ids(job, found.rows, _known_ids(run.migration))))
    run.survey = found
    run.chosen = {
        task.row.id for task in found.tasks if run.options.chosen.takes_row(task.row, job.ends.source.collections)
    }
    if run.options.plan is not None:
        run.chosen &= run.options.plan.steps.keys()
        job = replace(job, planned=run.options.plan.steps)
    if found.tasks and not run.chosen:
        found.notes.append(f"--only, --collection and --ids-file take none of the {len(found.tasks)} selected prompts")
    tasks = [task for task in found.tasks if task.action in ("create", "update") and task.row.id in run.chosen]
    run.limited = run.options.limit is not None and len(tasks) > run.options.limit
    return job, tasks[: run.options.limit]


async def _write(run: _Run, job: Job, sink: Sink, tasks: Sequence[Task]) -> None:
    """Everything that changes the ledger or the target."""
    flow = Flow(
        sink=sink,
        halt=run.halt,
        clock=time.time,
        copies=Copies(run.migration.ledger, run=run.id),
        max_failures=run.options.max_failures,
        replicas=run.replicas,
        total=len(tasks) + sum(task.action in TOLD for task in _surveyed(run).tasks),
    )
    run.live.flow, run.live.stage = flow, "migrating"
    found = _surveyed(run)
    await flow.record(
        _run_entry(run),
        Entry("listed", {"count": found.listed, "total": found.total, "selected": len(found.tasks)}),
    )
    async with task_group() as group:
        group.start_soon(_stop_sending, run)
        if run.options.watch is not None and flow.total:
            group.start_soon(run.options.watch, run.live)
        try:
            await settle(job, flow, [task for task in found.tasks if task.row.id in run.chosen])
            await migrate(job, flow, tasks, canary=run.options.canary)
            waiting = [task.row for task in found.tasks if task.action == "wait" and task.row.id in run.chosen]
            await reconcile(job, flow, [*waiting, *(task.row for task in tasks)])
        except Stop as stop:
            run.halt.request(stop)
        group.cancel_scope.cancel()
    if sink.broken is None:
        summary = _summary(run).to_json()
        await flow.record(Entry("end", {name: summary[name] for name in report.END_FIELDS}))


async def _stop_sending(run: _Run) -> None:
    """When the run is asked to end, nothing that still waits for its turn is sent."""
    await run.halt.wait()
    for gate in run.live.ends.gates if run.live.ends else ():
        gate.halt()


def check_identity(migration: Migration, state: State) -> None:
    if state.identity is None:
        return
    if different := mismatch(state.identity, migration.identity()):
        raise Stop(
            "ledger_mismatch",
            f"{migration.ledger} belongs to another migration: {different}",
            next="Give this migration another name or ledger, or set back what was changed in the file.",
        )


def _run_entry(run: _Run) -> Entry:
    migration = run.migration
    identity = migration.identity()
    return Entry(
        "run",
        {
            **identity,
            "identity": hashlib.sha256("\0".join(identity.values()).encode()).hexdigest(),
            "rules": migration.rules_digest(),
            "rewrites": migration.rewrites_digest(),
            "version": __version__,
            "actor": _actor(),
            "host": socket.gethostname(),
            "reason": run.options.reason,
        },
    )


def _actor() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container without a user database
        return "unknown"


def new_run_id() -> str:
    return f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"


def _surveyed(run: _Run) -> Survey:
    assert run.survey is not None  # only asked for after the survey
    return run.survey


# ---- the end of a run ------------------------------------------------------------------------------------------------


def _selected(run: _Run) -> list[str]:
    tasks = run.survey.tasks if run.survey is not None else []
    return [task.row.id for task in tasks if task.row.id not in run.replicas]


def _books(run: _Run) -> tuple[dict[str, int], dict[str, int]]:
    if run.survey is None:
        return report.nothing()
    return report.books(run.state, _selected(run), listed=run.survey.listed, run=run.id)


def _summary(run: _Run) -> Summary:
    counts, this_run = _books(run)
    chosen, _ = report.books(run.state, (one for one in _selected(run) if one in run.chosen), listed=0, run=run.id)
    stop = run.halt.stop
    problem = report.lost_track(chosen, stop=stop, limited=run.limited)
    exit_code, reason, next_ = report.verdict(
        chosen, stop=stop, limited=run.limited, problem=problem, mode=_outcome_of(run.migration)
    )
    return Summary(
        migration=run.migration.name,
        run=run.id,
        mode=run.migration.mode,
        exit_code=exit_code,
        reason=reason,
        message=problem or (str(stop) if stop is not None else ""),
        next=next_,
        counts=counts,
        this_run=this_run,
        orphaned=run.survey.orphaned if run.survey is not None else 0,
        requests=asdict(run.live.requests),
        throttle=run.live.throttle,
        duration_s=round(time.monotonic() - run.started, 3),
        ledger=str(run.migration.ledger),
        notes=tuple(run.survey.notes) if run.survey is not None else (),
    )


def _outcome_of(migration: Migration) -> str:
    """What applications get by it: replicas, new versions at once, or new versions that are staged."""
    if not migration.in_place:
        return "replicate"
    return "in place" if migration.publishes else "staged"


# ---- verbs that write nothing ----------------------------------------------------------------------------------------


async def plan_migration(migration: Migration, *, chosen: Chosen, rate: float | None = None) -> Plan:
    """What `run` would do now. Raises Stop."""
    state = _recorded(migration)
    async with open_ends(migration, rate=rate, throttle=state.throttle) as ends:
        job = await open_job(migration, ends, also={"labels"})
        stop_on_problems(list(named_in_file(job)))
        found = await survey(job, state, now=time.time())
        stop_on_problems(list(unknown_ids(job, found.rows, _known_ids(migration))))
        taken = {task.row.id for task in found.tasks if chosen.takes_row(task.row, job.ends.source.collections)}
        return await plan(
            job,
            found,
            state,
            taken,
            now=time.time(),
            rate=ends.gates[0].rate,
            asked=lambda: sum(gate.requests.total for gate in ends.gates),
        )


async def check_migration(
    migration: Migration, *, rate: float | None = None, write_test: bool = False, collection: str | None = None
) -> list[Finding]:
    """Everything that can be known before a write, in one report. Raises Stop when an end cannot be asked.

    `write_test`: also finds out what the target really does, on a scratch prompt in this `collection`.
    """
    state = _recorded(migration)
    async with open_ends(migration, rate=rate, writes=write_test, throttle=state.throttle) as ends:
        job = await open_job(migration, ends)
        findings = await examine(job, job.replicas_among(state.targets), _known_ids(migration))
        if write_test:
            return findings + await check.write_test(job, collection)
        text = "creating was not tried; --write-test does, on a scratch prompt"
        return [*findings, Finding(level="note", where="target", text=text)]


async def take_inventory(migration: Migration, *, rate: float | None = None) -> Inventory:
    """One listing of the source, counted. Raises Stop."""
    state = _recorded(migration)
    async with open_ends(migration, rate=rate, throttle=state.throttle) as ends:
        select = migration.selection()
        rows, _ = await rows_of(ends.source)
        collections = (await catalog_of(ends.source, {"collections"})).collections
        return count(rows, select, collections, replicas_among(ends.source, ends.target, state.targets))


def _known_ids(migration: Migration) -> set[str]:
    """Ids and slugs of the sources that the ledger knows, where the file selects by them."""
    if not migration.select.ids or not Path(migration.ledger).exists():
        return set()
    return {
        str(line[name]) for line in entries(migration.ledger) for name in ("source_id", "source_slug") if line.get(name)
    }


def _recorded(migration: Migration) -> State:
    """What the ledger says, without its lock; an empty state when there is none."""
    if not Path(migration.ledger).exists():
        return State()
    state = read_ledger(migration.ledger).state
    check_identity(migration, state)
    return state
