"""Is everything there that the migration file names, and what would be missing: said before anything is written."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeVar

from engine.content.references import Ends
from engine.content.rewrite import Rewritten
from engine.content.selection import find, glob_readings, meant, needs_definition, selects, unknown_collections
from engine.errors import EXIT_ACT, EXIT_OK, EXIT_RETRY, STOP_EXIT, Rejected, Stop, Transient
from engine.migrate.job import Job, digest_of
from engine.migrate.listing import label_notes, rows_of, told_by_definitions, with_definitions, with_labelled
from engine.migrate.needs import Need, needs, promised
from engine.model import Choice, Finding, Named, Row
from engine.taskgroup import both, for_each

T = TypeVar("T")
U = TypeVar("U")


@dataclass(slots=True)
class Report:
    """What was found so far: an end that cannot be asked is a problem as any other, and the rest is looked at too."""

    findings: list[Finding] = field(default_factory=list)
    silent: set[str] = field(default_factory=set)
    """What gave no answer, and is asked no more."""

    async def ask(self, where: str, question: Callable[[], Awaitable[T]], instead: U) -> T | U:
        """The answer; `instead`: what is gone on with where there is none, which is a problem there."""
        if where in self.silent:
            return instead
        try:
            return await question()
        except Stop as stop:
            self.stopped(where, stop)
            return instead

    def stopped(self, where: str, stop: Stop) -> None:
        """Nothing more comes from there. Raises it where it is somebody's wish."""
        if stop.reason == "interrupted":
            raise stop
        self.silent.add(where)
        self.findings.append(
            Finding(level="problem", where=where, text=str(stop), advice=stop.next, reason=stop.reason)
        )


def exit_code(findings: Iterable[Finding]) -> int:
    """What a report comes to: 4 for anything wrong, else 75 where all that is wrong may be right later."""
    codes = {STOP_EXIT.get(one.reason, EXIT_ACT) for one in findings if one.level == "problem"}
    return next((code for code in (EXIT_ACT, EXIT_RETRY) if code in codes), EXIT_OK)


def named_in_file(job: Job) -> Iterator[Finding]:
    """Collections, providers and partials that the file names and that are not there."""
    yield from _named_of_source(job)
    yield from _named_of_target(job)


def _named_of_source(job: Job) -> Iterator[Finding]:
    for sentence in unknown_collections(job.select, job.ends.source.collections):
        yield Finding(level="problem", where="select.collections", text=sentence)


def _named_of_target(job: Job) -> Iterator[Finding]:
    target = job.ends.target
    for rule in job.rules:
        partials = [new for _, new in rule.partials]
        for kind, values in (
            ("collection", _values(rule.collection)),
            ("provider", _values(rule.provider)),
            ("partial", partials),
        ):
            if f"{kind}s" not in target.words:
                key = "rewrite.partials" if kind == "partial" else f"rewrite.{kind}"
                yield from _unknown(key, kind, values, getattr(target, f"{kind}s"))


def unknown_ids(job: Job, rows: Iterable[Row], known: Collection[str]) -> Iterator[Finding]:
    """Ids and slugs that the file selects and that neither the whole listing (`rows`) nor the ledger (`known`) has."""
    if job.select.ids:
        missing = set(job.select.ids) - set(known)
        for row in rows:
            missing -= {row.id, row.slug}
        for prompt_id in sorted(missing):
            yield Finding(level="problem", where="select.ids", text=f"there is no prompt {prompt_id!r} at the source")


@dataclass(frozen=True, slots=True)
class Examined:
    """The report, and both ends as a run finds them when it has made what is missing."""

    findings: list[Finding]
    ends: Ends


async def examine_ends(
    job: Job,
    replicas: Collection[str],
    known: Collection[str],
    *,
    each: Callable[[Rewritten], None] | None = None,
    report: Report | None = None,
) -> Examined:
    """Everything that can be known before a write, each problem once.

    `replicas`: ids of this migration's own; `known`: ids and slugs of sources that its ledger knows; `each`: gets every
    selected prompt as it would arrive, which are all read for that; `report`: what was found before, which grows: the
    catalog of an end that is silent there is not known.
    """
    report = report or Report()
    findings = report.findings
    blind = ("source" if job.ends.same else "target") in report.silent
    listed, target_rows = await _listed(job, report)
    selected = await report.ask("source", partial(_selected, job, listed, replicas, findings), None)
    if not job.ends.same and "target" not in report.silent:
        text = f"reachable; its key lists prompts: {len(target_rows)}"
        findings.append(Finding(level="ok", where="target", text=text))
    if not job.ends.same:
        findings += [Finding(level="note", where="target", text=note) for note in job.ends.target.notes]
    findings += [Finding(level="note", where="source", text=note) for note in job.ends.source.notes]
    findings += _named_of_source(job)
    findings += _named_of_target(job) if not blind else ()
    findings += unknown_ids(job, listed, known) if "source" not in report.silent else ()
    findings += _unlisted(job) if not blind else ()
    if selected is not None:
        job = await _examine(job, selected, each, report, blind=blind)
    return Examined(findings, job.ends)


async def _listed(job: Job, report: Report) -> tuple[Sequence[Row], Sequence[Row]]:
    """The rows of both ends, each asked by itself; none, where it is silent."""
    nothing: tuple[Sequence[Row], int] = ((), 0)
    source = report.ask("source", partial(rows_of, job.source), nothing)
    if job.ends.same:
        rows, _ = await source
        return rows, rows
    (rows, _), (target_rows, _) = await both(source, report.ask("target", partial(rows_of, job.target), nothing))
    return rows, target_rows


async def _selected(
    job: Job, listed: Sequence[Row], replicas: Collection[str], findings: list[Finding]
) -> Sequence[Row]:
    """Those that the file selects, and what there is to say of the source and the selection. Raises Stop."""
    collections = job.ends.source.collections
    text = f"reachable; its key lists prompts: {len(listed)}"
    findings.append(Finding(level="ok", where="source", text=text))

    def silent(row: Row) -> bool:
        return row.id not in replicas and needs_definition(job.select, row, collections)

    read = partial(job.source.fetch, version=job.select.speaking)
    found = await (
        with_labelled(
            listed,
            job.select,
            collections,
            read,
            among=lambda row: row.id not in replicas,
            concurrency=job.concurrency,
        )
        if job.select.label is not None
        else with_definitions(listed, silent, read, concurrency=job.concurrency)
    )
    rows = found.rows
    spared = {*replicas, *found.unlabelled}
    selected = [
        row
        for row in rows
        if row.id not in spared and (row.id in found.unread or selects(job.select, row, collections))
    ]
    text = f"takes {len(selected)} of {len(rows)} prompts"
    findings.append(Finding(level="ok" if selected else "note", where="select", text=text))
    if not job.source.can.dated:
        text = "its listing has no times of change, so each later run reads all prompts again to compare them"
        findings.append(Finding(level="note", where="source", text=text))
    notes = [*told_by_definitions(found.read, job.select), *glob_readings(job.select, job.rules, rows, collections)]
    findings += [Finding(level="note", where="select", text=note) for note in notes]
    level = "note" if selected else "problem"
    labels = label_notes(job.select, found, len(selected), job.ends.source.labels)
    findings += [Finding(level=level, where="select.label", text=note) for note in labels]
    return selected


async def _examine(
    job: Job, selected: Sequence[Row], each: Callable[[Rewritten], None] | None, report: Report, *, blind: bool
) -> Job:
    """Reads what is selected. `blind`: what the target has is not known, so it is not looked for what is missing."""
    if blind:
        report.findings += await report.ask("source", partial(_read, job, selected[:1], compared=False), [])
        return job
    made, job = await report.ask("source", partial(_made, job, selected), ([], job))
    report.findings += made
    rows = selected if each is not None or not job.ends.same else selected[:1]
    report.findings += await report.ask("source", partial(_read, job, rows, each), [])
    return job


async def _made(job: Job, rows: Sequence[Row]) -> tuple[list[Finding], Job]:
    """What a run would make, which is nothing that is missing then."""
    try:
        found = await needs(job, rows)
    except Stop as stop:
        if stop.reason != "check_failed":
            raise
        return [Finding(level="problem", where="create_missing", text=str(stop))], job
    return [_need(need) for need in found], replace(job, ends=promised(job.ends, found))


def _need(need: Need) -> Finding:
    what, slug = need.key
    there = f"{what} '{slug}' ({need.part.name}) is not in the target workspace"
    if need.problem:
        text = f"{there}, and cannot be made: {need.problem} ({_prompts(need.prompts)})"
        return Finding(level="problem", where="target", text=text)
    return Finding(level="note", where="target", text=f"{there}: a run makes it first ({_prompts(need.prompts)})")


def _unlisted(job: Job) -> Iterator[Finding]:
    """What two workspaces need matched and the target's key may not list."""
    for kind in ("collections", "providers", "partials"):
        unknown = getattr(job.ends.target, kind) is None and kind not in job.ends.target.words
        if not job.ends.same and unknown:
            yield Finding(level="note", where="target", text=f"its key may not list {kind}, so they are not checked")


async def write_test(job: Job, collection: str | None) -> AsyncIterator[Finding]:
    """What the target really does, found out on a scratch prompt; a problem, unless it creates, reads and deletes.

    Raises Stop.
    """
    target = job.ends.target
    known = find(target.collections, collection)
    listed = target.collections is not None and "collections" not in target.words
    if collection is not None and listed and known is None:
        text = f"there is no collection {collection!r} at the target"
        yield Finding(level="problem", where="--collection", text=text)
        return
    async for finding in job.target.write_test(known.id if known is not None else collection):
        yield finding


async def _read(
    job: Job, rows: Sequence[Row], each: Callable[[Rewritten], None] | None = None, *, compared: bool = True
) -> list[Finding]:
    """Reads definitions; says whether that is allowed, and where they are `compared` with what the target has, all that
    they refer to and is missing there. Raises Stop.
    """
    missing: Counter[str] = Counter()
    refused: Counter[str] = Counter()

    async def one(row: Row) -> None:
        try:
            prompt = await job.read(row.id, job.select.speaking)
        except (Rejected, Transient) as error:
            refused[str(error)] += 1
            return
        if not compared:
            return
        if digest_of(prompt) is None:  # JSON can be nested deeper than Python goes; such a prompt fails alone
            refused[f"the parameters or tools of {prompt.name} are nested too deep to be copied without loss"] += 1
            return
        rewritten = job.rewritten(prompt)
        missing.update(rewritten.missing)
        if each is not None:
            each(rewritten)

    await for_each(rows, one, limit=job.concurrency)
    read = len(rows) - refused.total()
    findings = [Finding(level="ok", where="source", text=f"its key reads prompts: {read} read")] if read else []
    for text, count in (refused + missing).most_common():
        findings.append(
            Finding(
                level="problem", where="source" if text in refused else "target", text=f"{text} ({_prompts(count)})"
            )
        )
    return findings


def _prompts(count: int) -> str:
    return "1 prompt" if count == 1 else f"{count} prompts"


def stop_on_problems(findings: Sequence[Finding]) -> None:
    """Raises Stop when there is a problem, naming all of them."""
    problems = [f"{finding.where}: {finding.text}" for finding in findings if finding.level == "problem"]
    if problems:
        raise Stop(
            "check_failed",
            "; ".join(problems),
            next="Create what is missing, or mend the migration file, then run the same command again.",
        )


def _values(choice: Choice) -> list[str]:
    return [value for _, value in choice]


def _unknown(key: str, kind: str, values: Sequence[str], known: Sequence[Named] | None) -> Iterator[Finding]:
    for value in values:
        if known is None:
            text = f"nobody can tell whether {kind} {value!r} is there: this key may not list {kind}s"
            yield Finding(level="note", where=key, text=text)
        elif not (found := meant(known, value)):
            yield Finding(level="problem", where=key, text=f"there is no {kind} {value!r} at the target")
        elif len(found) > 1:
            text = f"{len(found)} {kind}s at the target are called {value!r}: give the slug of one"
            yield Finding(level="problem", where=key, text=text)
