"""The verbs as functions: opens both ends and the ledger and calls the engine; `after`: what follows a run.

Python callers use `run_migration`; the command line uses all of it. May import whatever a migration takes, and is
imported by the fleet and the command line only.
"""

from __future__ import annotations

import getpass
import hashlib
import socket
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import chain
from typing import Any, Final

from engine import __version__
from engine.config import Migration
from engine.content.filter import Chosen
from engine.content.selection import glob_readings
from engine.errors import EXIT_OK, EXIT_RETRY, Stop
from engine.http.limiter import Requests
from engine.ledger import report
from engine.ledger.before_images import BeforeImages
from engine.ledger.file import entries, is_there, read_ledger
from engine.ledger.report import Summary
from engine.ledger.sink import Sink
from engine.ledger.state import State
from engine.ledger.writes import proved_so_far, read_made
from engine.migrate.context import Context, Elsewhere, MaxFailures
from engine.migrate.halt import Halt
from engine.migrate.job import Job, replicas_among
from engine.migrate.limit import in_turn, within
from engine.migrate.listing import catalog_of, inventoried, label_notes, listings, rows_of, told_by_definitions
from engine.migrate.making import made_notes, make
from engine.migrate.needs import Need, needs, promised, rehearsed, with_made
from engine.migrate.pipeline import migrate
from engine.migrate.plan import Plan, plan
from engine.migrate.plan_file import PlanFile
from engine.migrate.reconcile import reconcile, settle, writes_of
from engine.migrate.selected import EVERYTHING
from engine.migrate.survey import Survey, survey
from engine.migrate.task import Task, packed_tasks
from engine.model import Catalog, Entry, Finding, Named, Row, packed_rows
from engine.run.after import checks_of, verify_made
from engine.run.totals import Totals, counted
from engine.session import check_identity, check_shard, job_now, new_run_id, opened
from engine.session.connect import Machines, Shared, Workspaces, open_ends, open_job
from engine.session.pace import Pace
from engine.taskgroup import both, task_group
from engine.verbs import check
from engine.verbs.check import examine_ends, named_in_file, stop_on_problems, unknown_ids
from engine.verbs.inventory import Inventory, count
from engine.verbs.probe.shapes import Kinds
from engine.verbs.probe.trying import Confirm, Probed, probe
from engine.verbs.verify import Checks, Verification

TOLD: Final = ("adopt", "conflict", "skip", "wait", "unread")
"""What a run has to do besides creating."""


@dataclass(slots=True)
class Live:
    """What a display may look at while a run goes on."""

    migration: str
    stage: str = "opening"
    ends: Workspaces | None = None
    context: Context | None = None

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
    approvals: tuple[str, ...] = ()
    """Who approved that plan, for the ledger."""
    limit: int | None = None
    retry_failed: bool = False
    canary: int = 0
    """So many prompts first, read back whole."""
    max_duration: float | None = None
    """Seconds."""
    max_failures: MaxFailures | None = None
    rate: float | None = None
    reason: str | None = None
    confirm: Callable[[Totals], Awaitable[bool]] | None = None
    """Asked once before the first write, where there may be one."""
    watch: Callable[[Live], Coroutine[Any, Any, None]] | None = None
    """Shows progress until it is cancelled."""
    signals: bool = False
    """Take SIGINT and SIGTERM as requests to end, and ignore them from its end on."""
    live: Live | None = None
    """Where whoever started it looks while it goes on."""
    shared: Shared | None = None
    """What it has in common with the other migrations of a fleet."""
    lock_wait: float = 0.0
    """Seconds to wait for a ledger that somebody holds."""
    machines: Machines | None = None
    """Other processes that create; None: all is done in this one."""


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
    needs: Sequence[Need] = ()
    """What is made at the target before the first prompt."""
    writing: Sequence[Row] = ()
    """Whatever comes to a write, or may; only where something is to be made for it."""
    chosen: set[str] | None = None
    """Ids of the prompts that it is about; None: all that are selected."""
    replicas: set[str] = field(default_factory=set)
    left: set[str] = field(default_factory=set)
    """Beyond --limit."""
    checks: Checks | None = None
    """What is verified at its end; None: nothing is."""
    verifying: bool = False
    proof: Verification | None = None
    """What was found then."""
    books: _Books | None = None
    """As they were closed, when nothing more is done."""
    started: float = field(default_factory=time.monotonic)

    def takes(self, task: Task) -> bool:
        """Whether it is about this prompt."""
        return self.chosen is None or task.row.id in self.chosen


async def run_migration(migration: Migration, options: RunOptions | None = None) -> Summary:
    """Does the migration, or goes on with it, and returns its summary. What stopped it is in the summary.

    Raises ConfigError when the ledger's path or `verify.cases` cannot be used at all, before anything is sent;
    everything else that is raised is a bug.
    """
    options = options or RunOptions()
    run = _Run(migration=migration, options=options, id=new_run_id(), live=options.live or Live(migration.name))
    run.checks = checks_of(migration) if migration.verify.after_run else None
    how: dict[str, Any] = {"rate": options.rate, "signals": options.signals, "seconds": options.max_duration}
    how |= {"shared": options.shared, "lock_wait": options.lock_wait}
    how["gates"] = options.machines.gate if options.machines is not None else None
    how["gateways"] = run.checks is not None and run.checks.calls
    try:
        async with opened(migration, run.halt, run=run.id, **how) as (sink, ends):
            check_shard(migration, sink.state)
            await _run(run, sink, ends)
    except Stop as stop:
        run.halt.request(stop)
    return _summary(run)


async def _run(run: _Run, sink: Sink, ends: Workspaces) -> None:
    run.state, run.live.ends = sink.state, ends
    confirm = run.options.confirm
    job, writes, told = await run.halt.guard(_survey(run, ends))
    if confirm is not None and (totals := _totals(run, job, writes, told)).prompts:
        await run.halt.confirm(confirm(totals))
    await _write(run, job, sink, writes, told)


async def _survey(run: _Run, ends: Workspaces) -> tuple[Job, Sequence[Task], Sequence[Task]]:
    """The checks and both listings; what this run takes up to write, and of what there is something to tell."""
    run.live.stage = "listing"
    job, listed = await both(open_job(run.migration, ends), listings(ends.source, ends.target, same=ends.same))
    stop_on_problems(list(named_in_file(job)))
    job = _claiming(await with_made(job, run.state), run.migration, run.options.shared)
    chosen = run.options.chosen
    retry = run.options.retry_failed
    found = await survey(job, run.state, now=time.time(), retry_failed=retry, narrowed=chosen.parts, listed=listed)
    found.notes.extend(chosen.readings(task.row for task in found.tasks))
    stop_on_problems(list(unknown_ids(job, found.rows, _known_ids(run.migration))))
    run.survey = found
    job = replace(job, rivals=found.rivals)
    if run.options.plan is not None:
        job = replace(job, planned=run.options.plan.steps)
    run.chosen = _chosen(run.options, found, job.ends.source.collections)
    found.notes.extend(chosen.takes_none(len(run.chosen or ()), len(found.tasks), "selected prompts"))
    writes, told = packed_tasks(), packed_tasks()
    for task in filter(run.takes, found.tasks):
        writes.extend(writes_of(task))
        if task.note or task.action in TOLD:
            told.append(task)
    if run.options.limit is not None:
        writes = in_turn(writes, run.state.records)
    if job.ends.create:
        run.writing = packed_rows(_written(_within(run, writes), told))
    run.needs = await _needs(run, job)
    if run.options.plan is not None:
        job = replace(job, rehearsed=rehearsed(job.ends, run.needs))
    return job, writes, told


def _totals(run: _Run, job: Job, writes: Iterable[Task], told: Iterable[Task]) -> Totals:
    found = _surveyed(run)
    return Totals(
        listed=found.listed,
        selected=len(found.tasks),
        chosen=len(found.tasks) if run.chosen is None else len(run.chosen),
        limit=run.options.limit,
        needs=run.needs,
        **counted(job, _within(run, writes), told),
    )


def _claiming(job: Job, migration: Migration, shared: Shared | None) -> Job:
    """The job that gives no name which another migration of the fleet gives there."""
    return replace(job, claims=shared.claims_of(migration)) if shared is not None else job


def _chosen(options: RunOptions, found: Survey, collections: Sequence[Named] | None) -> set[str] | None:
    """Ids of the selected prompts that flags and plan take; None: all."""
    if options.chosen.everything and options.plan is None:
        return None
    taken = {task.row.id for task in found.tasks if options.chosen.takes_row(task.row, collections)}
    return taken if options.plan is None else taken & options.plan.steps.keys()


def _within(run: _Run, writes: Iterable[Task]) -> Iterator[Task]:
    """Those that it may come to: all, where there is no limit."""
    return within(writes, run.state.records, run.options.limit)


def _count_within(run: _Run, writes: Sequence[Task]) -> int:
    return len(writes) if run.options.limit is None else sum(1 for _ in _within(run, writes))


def _written(writes: Iterable[Task], told: Iterable[Task]) -> Iterator[Row]:
    """Whatever comes to a write, or is in doubt and may."""
    return (task.row for task in chain((one for one in told if one.action == "wait"), writes))


async def _needs(run: _Run, job: Job) -> list[Need]:
    """Of a plan, only what stands in it."""
    found, plan = await needs(job, run.writing), run.options.plan
    return [need for need in found if plan is None or need.key in plan.made]


async def _make(run: _Run, job: Job, context: Context) -> Job:
    """What is missing, and of a fleet what none of the others has made meanwhile. Raises Stop."""
    shared = run.options.shared
    if shared is None or not job.ends.create:
        return await make(job, context, run.needs)
    parts = shared.parts_of(run.migration)
    async with parts.taking_turns(job, context):
        if run.needs:
            job = await parts.known(job, context)
            run.needs = await context.halt.guard(_needs(run, job))
        job = await make(job, context, run.needs)
        parts.learn(job)
    return job


def _elsewhere(run: _Run) -> Elsewhere | None:
    machines, ends = run.options.machines, run.live.ends
    return machines.executor(run.migration, ends) if machines is not None and ends is not None else None


async def _write(run: _Run, job: Job, sink: Sink, writes: Sequence[Task], told: Sequence[Task]) -> None:
    """Everything that changes the ledger or the target."""
    found = _surveyed(run)
    context = Context(
        sink=sink,
        halt=run.halt,
        clock=time.time,
        copies=BeforeImages(run.migration.ledger, run=run.id),
        max_failures=run.options.max_failures,
        replicas=run.replicas,
        elsewhere=_elsewhere(run),
        total=_count_within(run, writes) + sum(task.action in TOLD for task in told),
    )
    run.live.context, run.live.stage = context, "migrating"
    await context.record(
        _run_entry(run),
        Entry("listed", {"count": found.listed, "total": found.total, "selected": len(found.tasks)}),
        *found.moved,
    )
    assert run.live.ends is not None  # they are open
    pace = Pace(run.live.ends.source_gate, run.live.ends.target_gate)
    async with task_group() as group:
        if run.options.watch is not None and context.total:
            group.start_soon(run.options.watch, run.live)
        group.start_soon(pace.tell, context)
        try:
            job = await _make(run, job, context)
            found.notes.extend(made_notes(job, run.needs))
            await settle(job, context, told)
            beyond = await migrate(job, context, writes, canary=run.options.canary, limit=run.options.limit)
            if run.halt.stop is None:
                run.left = {task.row.id for task in beyond.take(len(beyond))}
            await reconcile(job, context, _written((one for one in writes if one.row.id not in run.left), told))
            if run.checks is not None and run.halt.stop is None:
                await _verify(run, context, run.checks)
        except Stop as stop:
            run.halt.request(stop)
        group.cancel_scope.cancel()
    if sink.broken is None:
        run.books = _books(run)  # a second time over a whole library costs as much again
        summary = _summary(run).to_json()
        await context.record(*pace.rest(), Entry("end", {name: summary[name] for name in report.END_FIELDS}))


async def _verify(run: _Run, context: Context, checks: Checks) -> None:
    """As `verify` does, and before the end of the run is in the ledger; what a run that was stopped there has compared
    is not compared again, or a time box shorter than all of it would never end. Raises Stop.
    """
    ends = run.live.ends
    assert ends is not None  # they are open
    run.verifying, run.live.stage, context.looking_up = True, "verifying", False
    pairs = read_made(run.migration.ledger, run.options.chosen)
    before = set() if checks.calls else proved_so_far(run.migration.ledger)
    rest = [made for made in pairs if made.source_id not in before]
    job = await job_now(run.migration, run.halt, run.state, ends)
    found = await verify_made(rest, checks, job, context, ends)
    if earlier := len(pairs) - len(rest):
        _surveyed(run).notes.append(f"verified the same by the run before, which was stopped meanwhile: {earlier:,}")
    run.proof, run.verifying = found.beside(earlier), False


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
            "approvals": list(run.options.approvals) or None,
            **({"shard": str(migration.shard)} if migration.shard is not None else {}),
        },
    )


def _actor() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container without a user database
        return "unknown"


def _surveyed(run: _Run) -> Survey:
    assert run.survey is not None  # only asked for after the survey
    return run.survey


# ---- the end of a run ------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Books:
    """What became of the selected prompts, and of those that the run was about; see `report.books`."""

    counts: Counter[str]
    this_run: Counter[str]
    chosen: Counter[str] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)
    """See `report.without_outcome`."""
    kept: bool = False
    """Some of them failed so that a plain run leaves them alone."""
    why: Counter[tuple[str, str]] = field(default_factory=Counter)
    """See `report.why`."""


def _books(run: _Run) -> _Books:
    """Page by page: sets of ids of a whole library take as much memory as all that is known of it."""
    counts, this_run = report.nothing()
    books = _Books(Counter(counts), Counter(this_run))
    if run.survey is not None:
        for page in run.survey.tasks.pages():
            _enter(run, books, [task for task in page if task.row.id not in run.replicas])
        books.counts["listed"] = run.survey.listed
    return books


def _enter(run: _Run, books: _Books, tasks: Sequence[Task]) -> None:
    """Some of the selected prompts."""
    chosen = [task for task in tasks if run.takes(task)]
    due = {task.row.id for task in chosen if task.due}
    counts, this_run = _counted(run, tasks, due)
    of_chosen = counts if run.chosen is None else _counted(run, chosen, due)[0]
    books.counts.update(counts)
    books.this_run.update(this_run)
    if any(counts[name] for name in report.WITH_REASON):
        books.why.update(report.why(run.state, (task.row.id for task in tasks)))
    books.chosen.update(of_chosen)
    books.lost += report.without_outcome(run.state, due - run.left, run.id)
    if of_chosen["failed"] and not books.kept:
        books.kept = any(_is_kept(run, task.row.id) for task in chosen)


def _counted(run: _Run, tasks: Iterable[Task], due: Collection[str]) -> tuple[dict[str, int], dict[str, int]]:
    return report.books(run.state, (task.row.id for task in tasks), due, listed=0, run=run.id)


def _summary(run: _Run) -> Summary:
    books, stop, limited = run.books or _books(run), run.halt.stop, bool(run.left)
    problem = report.lost_track(books.chosen, books.lost, stop=stop, limited=limited)
    exit_code, reason, next_ = report.verdict(
        books.chosen,
        stop=stop,
        limited=limited,
        problem=problem,
        kept=books.kept,
        mode=_outcome_of(run.migration),
        proved=run.proof is None or not run.proof.different,
    )
    during = "the verification stopped: " if run.verifying else ""
    return Summary(
        migration=run.migration.name,
        run=run.id,
        mode=run.migration.mode,
        exit_code=exit_code,
        reason=reason,
        message=problem or (f"{during}{stop}" if stop is not None else ""),
        next=next_ if run.migration.shard is None else report.of_shard(next_, run.migration.shard, exit_code),
        counts=dict(books.counts),
        this_run=dict(books.this_run),
        reasons=report.ranked(books.why),
        orphaned=run.survey.orphaned if run.survey is not None else 0,
        verified=run.proof.counts if run.proof is not None else None,
        requests=asdict(run.live.requests),
        throttle=run.live.throttle,
        duration_s=round(time.monotonic() - run.started, 3),
        ledger=str(run.migration.ledger),
        notes=tuple(run.survey.notes) if run.survey is not None else (),
    )


def _is_kept(run: _Run, source_id: str) -> bool:
    """Whether it failed so that a plain run leaves it alone."""
    record = run.state.records.get(source_id)
    return record is not None and record.status == "failed" and not record.retriable


def _outcome_of(migration: Migration) -> str:
    """What applications get by it: replicas, new versions at once, or new versions that are staged."""
    if not migration.in_place:
        return "replicate"
    return "in place" if migration.publishes else "staged"


# ---- verbs that write nothing ----------------------------------------------------------------------------------------


async def preview_migration(migration: Migration, options: RunOptions) -> tuple[int, Sequence[Need]]:
    """How many prompts may come to a write in a `run`, as it asks before the first one, and what it would make before
    them. Raises Stop and ConfigError.
    """
    state = _recorded(migration)
    check_shard(migration, state)
    run = _Run(migration=migration, options=options, id="", live=Live(migration.name), state=state)
    async with open_ends(migration, rate=options.rate, throttle=state.throttle, shared=options.shared) as ends:
        totals = _totals(run, *await _survey(run, ends))
    return totals.prompts, [need for need in run.needs if not need.problem]


async def plan_migration(
    migration: Migration, *, chosen: Chosen, rate: float | None = None, shared: Shared | None = None
) -> Plan:
    """What `run` would do now. Raises Stop."""
    state = _recorded(migration)
    check_shard(migration, state)
    async with open_ends(migration, rate=rate, throttle=state.throttle, shared=shared) as ends:
        job = await with_made(await open_job(migration, ends, also={"labels"}), state)
        stop_on_problems(list(named_in_file(job)))
        job = _claiming(job, migration, shared)
        found = await survey(job, state, now=time.time(), narrowed=chosen.parts)
        found.notes.extend(chosen.readings(task.row for task in found.tasks))
        stop_on_problems(list(unknown_ids(job, found.rows, _known_ids(migration))))
        taken = {task.row.id for task in found.tasks if chosen.takes_row(task.row, job.ends.source.collections)}
        found.notes.extend(chosen.takes_none(len(taken), len(found.tasks), "selected prompts"))
        asked = sum(gate.requests.total for gate in ends.gates)
        there = packed_tasks(task for task in found.tasks if task.row.id in taken)
        due = _written(chain.from_iterable(map(writes_of, there)), there)
        made = await needs(job, due)
        job = replace(job, ends=promised(job.ends, made))
        return await plan(job, found, state, taken, made=made, now=time.time(), rate=ends.gates[0].rate, asked=asked)


@dataclass(frozen=True, slots=True)
class Checked:
    """The report of `check`, and what its probe found."""

    findings: Sequence[Finding]
    probed: Probed | None = None

    @property
    def exit_code(self) -> int:
        """4 for anything wrong, else 75 where something could not be asked or judged now."""
        unjudged = self.probed is not None and self.probed.unjudged
        return check.exit_code(self.findings) or (EXIT_RETRY if unjudged else EXIT_OK)


async def check_migration(
    migration: Migration,
    *,
    rate: float | None = None,
    write_test: bool = False,
    collection: str | None = None,
    confirm_probe: Confirm | None = None,
) -> Checked:
    """Everything that can be known before a write, in one report, of each end by itself. Raises ConfigError, and Stop
    when it is interrupted.

    `write_test`: also finds out what the target really does, on a scratch prompt in this `collection`. `confirm_probe`:
    also tries whether its models take the prompts, once that is confirmed.
    """
    report = check.Report()
    state = State()
    try:
        state = _recorded(migration)
    except Stop as stop:
        report.stopped("ledger", stop)
    how: dict[str, Any] = {"rate": rate, "writes": write_test, "target_gateway": confirm_probe is not None}
    probed = None
    try:
        async with open_ends(migration, throttle=state.throttle, **how) as ends:
            into = _WriteTest(collection) if write_test else None
            probed = await _check(migration, ends, state, report, into, confirm_probe)
    except Stop as stop:  # the disk, where an end lies in files or in the sandbox's store
        report.stopped("target" if write_test else "source", stop)
    return Checked(report.findings, probed)


@dataclass(frozen=True, slots=True)
class _WriteTest:
    """Of `check`; `collection`: where its scratch prompt goes."""

    collection: str | None


async def _check(
    migration: Migration,
    ends: Workspaces,
    state: State,
    report: check.Report,
    testing: _WriteTest | None,
    confirm: Confirm | None,
) -> Probed | None:
    """Adds to the report what the open ends say. Raises Stop when it is interrupted."""
    kinds = Kinds()
    job = await open_job(migration, ends, ask=partial(report.ask, instead=Catalog()))
    job = await report.ask("target", partial(with_made, job, state), job)
    known = _known_ids(migration) if "ledger" not in report.silent else ()
    each = kinds.add if confirm is not None else None
    examined = await examine_ends(job, job.replicas_among(state.targets), known, each=each, report=report)
    job = replace(job, ends=examined.ends)
    end = "source" if ends.same else "target"
    if testing is not None and end not in report.silent:
        await report.ask(end, partial(_write_test, job, testing, report), None)
    elif testing is None:
        text = "creating was not tried; --write-test does, on a scratch prompt"
        report.findings.append(Finding(level="note", where="target", text=text))
    gateway, target = ends.target_gateway, migration.ends[1]
    if confirm is None or gateway is None or {"source", "target"} & report.silent:
        return None
    how: dict[str, Any] = {"may_call": target.may_call, "key": target.gateway_key_name, "confirm": confirm}
    found = await report.ask("probe", partial(probe, job, kinds, gateway, **how), None)
    report.findings += found.findings() if found is not None else ()
    return found


async def _write_test(job: Job, testing: _WriteTest, report: check.Report) -> None:
    async for finding in check.write_test(job, testing.collection):
        report.findings.append(finding)


async def take_inventory(migration: Migration, *, rate: float | None = None) -> Inventory:
    """One listing of the source, counted; where rows do not tell the model, definitions are read. Raises Stop."""
    state = _recorded(migration)
    async with open_ends(migration, rate=rate, throttle=state.throttle) as ends:
        select = migration.selection()
        listed, _ = await rows_of(ends.source)
        known = await catalog_of(ends.source, {"collections", *(() if select.label is None else ("labels",))})
        collections = known.collections

        replicas = replicas_among(ends.source, ends.target, state.targets)
        labelled, found = await inventoried(
            ends.source, listed, select, collections, replicas, concurrency=migration.limits.concurrency
        )
        counted = count(
            found.rows,
            select,
            collections,
            replicas,
            unread={*labelled.unread, *found.unread},
            unlabelled=labelled.unlabelled,
        )
        notes = [
            *known.notes,
            *told_by_definitions(labelled.read, select),
            *told_by_definitions(found.read, EVERYTHING),
            *label_notes(select, labelled, counted.selected, known.labels),
            *glob_readings(select, migration.rules(), found.rows, collections),
        ]
        return replace(counted, notes=notes)


def _known_ids(migration: Migration) -> set[str]:
    """Ids and slugs of the sources that the ledger knows, where the file selects by them."""
    if not migration.select.ids or not is_there(migration.ledger):
        return set()
    return {
        str(line[name])
        for line in entries(migration.ledger)
        if "what" not in line
        for name in ("source_id", "source_slug")
        if line.get(name)
    }


def _recorded(migration: Migration) -> State:
    """What the ledger says, without its lock; an empty state when there is none."""
    if not is_there(migration.ledger):
        return State()
    state = read_ledger(migration.ledger).state
    check_identity(migration, state)
    return state
