"""Results as text for a person. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from engine.content.table import as_table
from engine.errors import ConfigError
from engine.fleet.summary import FleetSummary
from engine.fleet.verbs import FleetResult
from engine.ledger.holder import Holder, Life
from engine.ledger.merge import Merged
from engine.ledger.repair import Mended
from engine.ledger.report import OUTCOMES, counted, reasons_table, together
from engine.ledger.status import ID_FIELDS, Health, Status
from engine.lossless_json.numbers import dumps
from engine.migrate.needs import Need
from engine.migrate.plan import Plan, Planned
from engine.model import Completion, Finding
from engine.verbs.compare.result import MEASURES, Comparison, MaxChanged, Recording, calls_json
from engine.verbs.inventory import Group, Inventory
from engine.verbs.publish import CutOver
from engine.verbs.rollback import Rollback
from engine.verbs.unmake import TAKEN_BACK, Unmade
from engine.verbs.verify import Verification

if TYPE_CHECKING:
    from engine.verbs.repoint.rewriting import Repointed  # with a library that no other command needs

_LEVELS: Final = {"ok": "ok      ", "note": "note    ", "problem": "PROBLEM "}
_BESIDE: Final = " " * len(f"{_LEVELS['ok']} ")
_NAMES_SHOWN: Final = 3
_MADE_SHOWN: Final = 30
_RESULTS: Final = {"differs": "DIFFERS", "missing": "MISSING", "source_changed": "source changed"}


def inventory(found: Inventory, matching: Sequence[Group]) -> str:
    """Prompts by model and collection."""
    own = f", {found.replicas} of them replicas of this migration" if found.replicas else ""
    lines = [f"{found.listed} prompts{own}; {found.selected} selected", ""]
    lines += _groups("model", found.models)
    lines += ["", *_groups("collection", found.collections)]
    if found.near_misses:
        lines += ["", "not selected, though they look as if they were meant:"]
        lines += [f"  {model}" for model in found.near_misses]
    if found.unread:
        lines += ["", "could not be read, so nobody knows their model:", *(f"  {name}" for name in found.unread)]
    if matching:
        lines += ["", "still there, though --expect-none does not want it:"]
        lines += [f"  {group.name} ({group.listed})" for group in matching]
    if found.notes:
        lines += ["", *(f"note: {note}" for note in found.notes)]
    return "\n".join(lines)


def _groups(title: str, groups: Iterable[Group]) -> list[str]:
    rows = list(groups)
    width = max([len(title), *(len(group.name) for group in rows)])
    return [
        f"{title:<{width}}  {'listed':>8}  {'selected':>8}",
        *(f"{group.name:<{width}}  {group.listed:>8}  {group.selected:>8}" for group in rows),
    ]


def findings(found: Sequence[Finding], *, unjudged: int = 0) -> str:
    """The report of `check`. `unjudged`: calls of its probe that say nothing."""
    lines = [
        line
        for one in found
        for line in (f"{_LEVELS[one.level]} {one.where}: {one.text}", f"{_BESIDE}{one.advice}" if one.advice else "")
        if line
    ]
    problems = sum(one.level == "problem" for one in found)
    left = f"{unjudged} call{'s' if unjudged != 1 else ''} could not be judged: run it again later"
    end = left if unjudged else "all is there"
    lines.append(f"{problems} problem{'s' if problems != 1 else ''}" if problems else end)
    return "\n".join(lines)


def plan(planned: Plan) -> str:
    """What would be done; prompts with the same changes together."""
    lines = needs(planned.made)
    for prompts in _alike(planned.prompts):
        lines += _together(prompts)
    counts = planned.counts
    totals = ", ".join(
        f"{counts[name]} {name}" for name in counts if name not in ("listed", "selected") and counts[name]
    )
    chosen = f", {len(planned.prompts)} of them chosen" if len(planned.prompts) < counts["selected"] else ""
    failing = sum(prompt.problem is not None for prompt in planned.prompts)
    fail = f"; {failing} of them WILL FAIL, as things are" if failing else ""
    lines.append(
        f"{counts['selected']} of {counts['listed']} prompts selected{chosen}: {totals or 'nothing to do'}{fail}"
    )
    lines.append(f"the run takes about {planned.requests:,} requests and {planned.seconds:,.0f} s")
    lines += [f"note: {note}" for note in planned.notes]
    return "\n".join([*_translation(planned), *lines])


def needs(found: Sequence[Need]) -> list[str]:
    """What is made at the target before the first prompt, and what cannot be."""
    lines = [
        f"make {need.key[0]} {need.part.name}{_within(need)}, which {need.prompts} "
        f"{'prompt needs' if need.prompts == 1 else 'prompts need'}"
        for need in found
        if not need.problem
    ]
    return lines + [f"{need.key[0]} {need.part.name} CANNOT BE MADE: {need.problem}" for need in found if need.problem]


def the_first(lines: Sequence[str], rest: str) -> list[str]:
    """Not more than a person reads. `rest`: where all of them are."""
    more = [f"and {len(lines) - _MADE_SHOWN} more, see {rest}"] if len(lines) > _MADE_SHOWN else []
    return [*lines[:_MADE_SHOWN], *more]


def _within(need: Need) -> str:
    first = ", ".join(slug for _, slug in need.after)
    return f" ({need.key[1]}, after {first})" if first else f" ({need.key[1]})"


def _translation(planned: Plan) -> list[str]:
    """What becomes of what the other registry says in its own way."""
    width = max((len(what) for what, _ in planned.translation), default=0)
    rows = [f"  {what:<{width}}  {becomes}" for what, becomes in planned.translation]
    return ["on the way to the other registry:", *rows, ""] if rows else []


def _alike(prompts: Iterable[Planned]) -> list[list[Planned]]:
    """Prompts whose action, changes (but for the name) and remarks are the same, largest group first."""
    groups: dict[str, list[Planned]] = {}
    for prompt in prompts:
        groups.setdefault(
            repr((prompt.action, _shown(prompt), prompt.losses, prompt.carried, prompt.notes, prompt.problem)), []
        ).append(prompt)
    return sorted(groups.values(), key=len, reverse=True)


def _shown(prompt: Planned) -> list[str]:
    return [_change(change) for change in prompt.changes if change["field"] != "name"]


def _change(change: Mapping[str, Any]) -> str:
    if change["field"] == "string":  # of texts there are only digests, and no two are alike
        return "string: changed"
    return f"{change['field']}: {_value(change['before'])} -> {_value(change['after'])}"


def _value(value: Any) -> str:
    """A text as it is; anything else as files and registries write it."""
    if value is None or isinstance(value, str):
        return "(none)" if value is None else value
    return dumps(list(value) if isinstance(value, tuple) else value, ensure_ascii=False)


def _together(prompts: Sequence[Planned]) -> list[str]:
    first = prompts[0]
    names = ", ".join(prompt.name for prompt in prompts[:_NAMES_SHOWN])
    more = f" and {len(prompts) - _NAMES_SHOWN} more" if len(prompts) > _NAMES_SHOWN else ""
    lines = [f"{first.action} {len(prompts)}: {names}{more}"]
    renamed = next((change for change in first.changes if change["field"] == "name"), None)
    if renamed is not None:
        lines.append(
            f"    name: {_value(renamed['before'])} -> {_value(renamed['after'])}{' and so on' if more else ''}"
        )
    lines += [f"    {line}" for line in _shown(first)]
    if first.problem is not None:
        lines.append(f"    WILL FAIL: {first.problem}")
    elif first.losses:
        lines.append(f"    lost, as allow_loss says: {', '.join(first.losses)}")
    if first.carried:
        lines.append(f"    carried in its metadata: {', '.join(first.carried)}")
    return [*lines, *(f"    note: {note}" for note in first.notes)]


def status(found: Status, *, with_failed: bool, life: Life = "unknown", holder: Holder | None = None) -> str:
    """Counts and what failed; `life` of the newest run, and the process that holds the ledger."""
    ended = _life(found, life)
    held = f"; process {holder.pid} holds the ledger" if holder is not None else ""
    if not found.run:
        return f"{found.ledger}: no run yet{held}"
    ended += held
    lines = [f"{found.migration}: the newest run, {found.run}, {ended}"]
    lines.append(f"{found.counts['selected']:,} prompts selected of {found.counts['listed']:,} listed")
    lines += [f"  {found.counts[name]:>7,}  {name.replace('_', ' ')}" for name in OUTCOMES if found.counts[name]]
    lines.append(f"{found.rate:g} prompts a second")
    if found.verified is not None:
        lines.append(f"verified since they were written: {counted(found.verified)}")
    settling = ("unresolved",) if life == "running" else ()  # what is in flight is nothing to worry about
    lines += reasons_table({name: why for name, why in found.reasons.items() if name not in settling})
    if with_failed:
        lines += [f"{one['name']} ({one['source_id']}): {one['stage']}: {one['message']}" for one in found.failed]
    elif found.failed:
        lines.append("see each of them with --failed")
    return "\n".join(lines if life == "running" else [*lines, found.next])


def _life(found: Status, life: Life) -> str:
    if not found.going_on:
        return f"ended: {(found.reason or '').replace('_', ' ')}"
    if life == "running":
        return "goes on"
    return "was killed" if life == "killed" else "has not ended: it goes on, or it was killed"


def verification(found: Verification) -> str:
    """What differs, replica by replica; then the counts."""
    lines = []
    for one in found.prompts:
        if one.result != "same":
            fields = f": {', '.join(one.fields)}" if one.fields else ""
            lines.append(f"{_RESULTS.get(one.result, one.result)} {one.name} ({one.target_id}){fields}")
        lines += [f"        {_completion(call)}" for call in one.completions]
    lines += _noted(found.all_notes)
    return "\n".join([*lines, f"{len(found.prompts):,} replicas compared: {counted(found.counts)}"])


def _completion(call: Completion) -> str:
    if not call.answered:
        return f"{call.how}: NOT ANSWERED: {call.error}"
    tokens = f", {call.tokens} tokens" if call.tokens is not None else ""
    return f"{call.how}: {call.model} answered in {call.seconds:.2f} s ({call.finish_reason}{tokens})"


def recorded(done: Recording) -> str:
    """What was asked, and what came of it."""
    there = f", {done.already:,} answers were there" if done.already else ""
    asked = f"{done.cases:,} cases of {done.prompts:,} originals{there}"
    lost = [f"LOST {why}" for why in dict.fromkeys(done.made.lost.values())]
    return "\n".join(
        [*lost, *_noted(done.notes), f"{asked}; calls: {counted(calls_json(done.made), 'none')}", done.file]
    )


def comparison(found: Comparison, threshold: MaxChanged | None) -> str:
    """What changed, case by case; then how long, fast and alike answers are, and the counts."""
    lines = []
    for one in found.cases:
        if one.result != "same":
            why = "; ".join(one.judgement.details) if one.judgement is not None else one.message
            lines.append(f"{one.result.replace('_', ' ').upper()} {one.name} ({one.target_id}): {why}")
    lines += [*_noted(found.notes), *_measured(found)]
    flaky = f"; {found.flaky} where the original itself answers now so, now otherwise" if found.flaky else ""
    lines.append(f"calls: {counted(calls_json(found.made), 'none, all was answered before')}")
    lines.append(f"{len(found.cases):,} cases: {counted(found.counts)}{flaky}")
    share = f"{found.changed_percent:g} % of {found.compared:,} compared cases changed"
    if threshold is not None:
        over = threshold.exceeded(found.counts["changed"], found.compared)
        share += f", {'MORE than' if over else 'within'} --max-changed {threshold}"
    return "\n".join([*lines, share])


def _measured(found: Comparison) -> Iterator[str]:
    for name in MEASURES:
        both = found.measure(name)
        if both.original is not None or both.replica is not None:
            yield f"{name:<10}  {_number(both.original):>10} -> {_number(both.replica)}"
    if found.similarity is not None:
        yield f"{'words':<10}  {found.similarity:>10.2f} alike"


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.2g}" if 0 < value < 1 else f"{value:,.2f}".rstrip("0").rstrip(".")


def _noted(notes: Iterable[str]) -> Iterator[str]:
    return (f"note: {note}" for note in notes)


def cut_over(done: CutOver) -> str:
    """What was not published and why; then the counts."""
    lines = [
        f"{one.result.replace('_', ' ')} {one.name} ({one.target_id}): {one.message}"
        for one in done.prompts
        if one.message
    ]
    return "\n".join([*lines, *_noted(done.notes), counted(done.counts, "nothing is staged")])


def rolled_back(done: Rollback) -> str:
    """What is kept and why, the versions that stay in histories, and the counts."""
    lines = []
    for one in done.prompts:
        result = f"would be {one.result}" if done.dry_run else one.result
        if one.message:
            lines.append(f"{result} {one.name} ({one.target_id}): {one.message}")
        elif one.versions:
            numbers = ", ".join(map(str, one.versions))
            lines.append(f"{result} {one.name} ({one.target_id}); in its history stays version {numbers}")
        elif done.dry_run:
            lines.append(f"{result} {one.name} ({one.target_id})")
    lines += [_unmade(part, dry_run=done.dry_run) for part in done.made]
    if done.in_doubt:
        first = "without --dry-run they are looked up first"
        left = "prompts of their names are there, and nobody can tell whether they are what was made: look at them"
        lines.append(f"{done.in_doubt} creates are in doubt: {first if done.dry_run else left}")
    lines += _noted(done.notes)
    would = "would be: " if done.dry_run else ""
    return "\n".join([*lines, f"{would}{counted(done.counts, 'nothing to take back')}"])


def ids_csv(pairs: Sequence[Mapping[str, Any]]) -> str:
    """The map as CSV."""
    return as_table(ID_FIELDS, pairs)


def ids_env(pairs: Sequence[Mapping[str, Any]]) -> str:
    """The map as lines for an environment file: PROMPT_<SOURCE_SLUG>=<target slug>. Raises ConfigError for two of one
    variable.
    """
    found: dict[str, tuple[str, str]] = {}
    for one in pairs:
        slug, value = one["source_slug"] or one["source_id"], one["target_slug"] or one["target_id"]
        variable = f"PROMPT_{re.sub('[^A-Z0-9]', '_', slug.upper())}"
        other, there = found.setdefault(variable, (slug, value))
        if there != value:
            raise ConfigError(
                f"--format env: {other} and {slug} would both be {variable}: choose between them with --only, or take "
                "--format csv or json"
            )
    return "".join(f"{variable}={value}\n" for variable, (_, value) in found.items())


def repointed(done: Repointed, *, write: bool) -> str:
    """A line for each: where it is, old and new; then the counts."""
    lines = [
        f"{one.file}:{one.line}:{one.column}: {one.old} -> {one.new or '? one of ' + ', '.join(one.news)}"
        f"{' (perhaps: a name)' if one.perhaps else ''}"
        for one in done.found
    ]
    counts = done.to_json()["counts"]
    rewritten = f", {counts['rewritten']:,} rewritten in {counts['rewritten_files']:,} files" if write else ""
    perhaps = f"; {done.perhaps:,} names that perhaps are (--names)" if done.perhaps else ""
    return "\n".join([*lines, f"{counts['found']:,} old ones in {done.files:,} files{rewritten}{perhaps}"])


def mended(done: Mended) -> str:
    """What a repair or compaction did."""
    kept = f"; the file as it was is kept as {done.kept}" if done.kept else ""
    return f"{done.ledger}: {done.lines_before:,} lines before, {done.lines_after:,} now{kept}"


def merged(done: Merged) -> str:
    """What was put together."""
    notes = [f"note: {note}" for note in done.notes]
    return "\n".join([f"{done.ledger}: {done.lines:,} lines on {done.prompts:,} prompts", *notes])


def health(found: Health) -> str:
    """Whether a ledger can be gone on with."""
    return "\n".join(
        [
            f"{found.ledger}: {found.verdict}",
            f"{found.lines:,} good lines, {found.runs} runs, {found.prompts:,} prompts, "
            f"{found.created:,} made, {found.in_doubt} in doubt",
            found.advice,
        ]
    )


# ---- fleets ----------------------------------------------------------------------------------------------------------


def fleet_summary(found: FleetSummary) -> str:
    """A row for each migration, the totals, and what to do now."""
    rows = [(one.migration, one.reason.replace("_", " "), one.counts) for one in found.migrations]
    states = counted(found.states, "no migrations")
    requests = found.requests
    lines = [
        *_fleet_table([*rows, ("", "total", found.counts)]),
        *reasons_table(together(one.reasons for one in found.migrations)),
        f"{found.fleet}: {states}; {requests['total']:,} requests ({requests['retries']:,} repeated, "
        f"{requests['throttled']:,} throttled) in {found.duration_s:.1f} s",
        *([found.message] if found.message else []),
        found.next,
    ]
    return "\n".join(lines if found.migrations else lines[-1:])


def _unmade(part: Unmade, *, dry_run: bool) -> str:
    result = f"would be {part.result}" if dry_run else part.result
    why = f": {part.message}" if part.message else ""
    return f"{result} {part.what} {part.name} ({part.source_slug}){why}"


def fleet_rolled_back(found: FleetResult[Rollback]) -> str:
    """The same as of any verb, and what was made for prompts and is still there."""
    values = [(one.name, one.value) for one in found.migrations if one.value is not None]
    lines = [
        f"{name}: {_unmade(part, dry_run=value.dry_run)}"
        for name, value in values
        for part in value.made
        if part.result not in TAKEN_BACK
    ]
    return "\n".join([fleet_result(found), *lines])


def fleet_planned(found: FleetResult[Plan]) -> str:
    """The same, and what would be made before the prompts."""
    values = [(one.name, one.value) for one in found.migrations if one.value is not None]
    lines = [f"{name}: {line}" for name, value in values for line in needs(value.made)]
    return "\n".join([*the_first(lines, "`--json`"), fleet_result(found)])


def fleet_result(found: FleetResult[Any]) -> str:
    """A row for each migration and the totals; then what could not be done."""
    rows = [
        (one.name, "stopped" if one.error is not None else "", one.value.counts if one.value is not None else {})
        for one in found.migrations
    ]
    errors = [f"{one.name}: {one.error}" for one in found.migrations if one.error is not None]
    return "\n".join([*_fleet_table([*rows, ("", "total", found.counts)]), *errors])


def _fleet_table(rows: Sequence[tuple[str, str, Mapping[str, int]]]) -> Iterator[str]:
    """Only columns in which something stands."""
    words = list(dict.fromkeys(word for _, _, counts in rows for word in counts))
    words = [word for word in words if any(counts.get(word) for _, _, counts in rows)]
    name, state = (max(len(row[which]) for row in rows) for which in (0, 1))
    name = max(name, len("migration"))
    widths = {word: max(len(word), 7) for word in words}
    head = "  ".join(f"{word.replace('_', ' '):>{widths[word]}}" for word in words)
    yield f"{'migration':<{name}}  {'':<{state}}  {head}".rstrip()
    for one, said, counts in rows:
        cells = "  ".join(f"{counts.get(word, 0):>{widths[word]},}" for word in words)
        yield f"{one:<{name}}  {said:<{state}}  {cells}".rstrip()
