"""Is everything there that the migration file names, and what would be missing: said before anything is written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

from engine.content.references import Ends
from engine.content.rewrite import Rewritten
from engine.content.selection import find, glob_readings, meant, needs_definition, selects, unknown_collections
from engine.errors import Rejected, Stop, Transient
from engine.migrate.job import Job
from engine.migrate.listing import label_notes, listings, told_by_definitions, with_definitions, with_labelled
from engine.migrate.needs import Need, needs, promised
from engine.model import Choice, Finding, Named, Row
from engine.taskgroup import for_each


def named_in_file(job: Job) -> Iterator[Finding]:
    """Collections, providers and partials that the file names and that are not there."""
    for sentence in unknown_collections(job.select, job.ends.source.collections):
        yield Finding(level="problem", where="select.collections", text=sentence)
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
    job: Job, replicas: Collection[str], known: Collection[str], *, each: Callable[[Rewritten], None] | None = None
) -> Examined:
    """Everything that can be known before a write, each problem once.

    `replicas`: ids of this migration's own; `known`: ids and slugs of sources that its ledger knows; `each`: gets every
    selected prompt as it would arrive, which are all read for that.

    Raises Stop when an end cannot be asked.
    """
    listed, _, target_rows = await listings(job.source, job.target, same=job.ends.same)
    collections = job.ends.source.collections

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
    findings = [
        Finding(level="ok", where="source", text=f"reachable; its key lists prompts: {len(rows)}"),
        Finding(
            level="ok" if selected else "note", where="select", text=f"takes {len(selected)} of {len(rows)} prompts"
        ),
    ]
    if not job.source.can.dated:
        text = "its listing has no times of change, so each later run reads all prompts again to compare them"
        findings.append(Finding(level="note", where="source", text=text))
    notes = [*told_by_definitions(found.read, job.select), *glob_readings(job.select, job.rules, rows, collections)]
    findings += [Finding(level="note", where="select", text=note) for note in notes]
    level = "note" if selected else "problem"
    labels = label_notes(job.select, found, len(selected), job.ends.source.labels)
    findings += [Finding(level=level, where="select.label", text=note) for note in labels]
    if not job.ends.same:
        text = f"reachable; its key lists prompts: {len(target_rows)}"
        findings.append(Finding(level="ok", where="target", text=text))
        findings += [Finding(level="note", where="target", text=note) for note in job.ends.target.notes]
    findings += [Finding(level="note", where="source", text=note) for note in job.ends.source.notes]
    findings += [*named_in_file(job), *unknown_ids(job, rows, known), *_unlisted(job)]
    made, job = await _made(job, selected)
    findings += made
    findings += await _read(job, selected if each is not None or not job.ends.same else selected[:1], each)
    return Examined(findings, job.ends)


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


async def write_test(job: Job, collection: str | None) -> list[Finding]:
    """What the target really does, found out on a scratch prompt; a problem, unless it creates, reads and deletes."""
    target = job.ends.target
    known = find(target.collections, collection)
    listed = target.collections is not None and "collections" not in target.words
    if collection is not None and listed and known is None:
        text = f"there is no collection {collection!r} at the target"
        return [Finding(level="problem", where="--collection", text=text)]
    return [finding async for finding in job.target.write_test(known.id if known is not None else collection)]


async def _read(job: Job, rows: Sequence[Row], each: Callable[[Rewritten], None] | None = None) -> list[Finding]:
    """Reads definitions; says whether that is allowed, and all that they refer to and is missing at the target."""
    missing: Counter[str] = Counter()
    refused: Counter[str] = Counter()

    async def one(row: Row) -> None:
        try:
            prompt = await job.read(row.id, job.select.speaking)
        except (Rejected, Transient) as error:
            refused[str(error)] += 1
            return
        try:
            rewritten = job.rewritten(prompt)
        except RecursionError:  # JSON can be nested deeper than Python goes; such a prompt fails alone
            refused[f"the parameters or tools of {prompt.name} are nested too deep to be copied without loss"] += 1
            return
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
