"""Puts ledgers of one migration together: those of its shards become the ledger that one run would have written.

Every line of each is kept, a ledger behind the other as they are named, for a run's lines mean what its `run` line says
of the rules. A line `merged` at the end says what all of it has come to.

A run of all prompts that went before the shards, such as a trial of a few, is about their prompts, too: what it made
they have found by its mark. Then ledgers stand in the order of their first lines, and the books are counted anew.
"""

from __future__ import annotations

import os
import shlex
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from itertools import chain, combinations
from pathlib import Path
from typing import Any, Final

from engine.content.filter import Chosen
from engine.content.shard import Shard, shard_from
from engine.errors import EXIT_ACT, EXIT_DIFFERENT, EXIT_RETRY, WORST_FIRST, ConfigError, Stop
from engine.ledger.before_images import copies_of
from engine.ledger.durable import make_folder, sync_folder
from engine.ledger.file import Reading, entries, is_there, read_ledger, refused
from engine.ledger.lines import timestamp
from engine.ledger.record import Record
from engine.ledger.repair import Line, locked, write_anew
from engine.ledger.report import nothing, outcome_of, verdict
from engine.ledger.state import State, mismatch
from engine.ledger.status import TAKEN_BACK, Status, read_status
from engine.model import Json

Span = tuple[str, str]
"""Times of the first and the last line of a ledger."""
Books = tuple[dict[str, int], dict[str, int]]
"""`counts` and `this_run`."""
_NAMED: Final = 3
_SHARDS_NAMED: Final = 10
_APART: Final = (
    "Merge ledgers of one migration of which each prompt is in one, or its replica the same in all: leave out the one "
    "whose prompts others have, too."
)
_NEXT: Final = "Run the migration without --shard on this ledger: it goes on where they stopped."


@dataclass(frozen=True, slots=True, kw_only=True)
class Merged:
    """What was put together. `notes`: sentences on what is not in it."""

    ledger: str
    ledgers: Sequence[str]
    lines: int
    prompts: int
    notes: Sequence[str]

    def to_json(self) -> dict[str, Any]:
        """The object of `--json`."""
        return asdict(self)


def merge(out: Path, ledgers: Sequence[Path], *, run: str, now: float) -> Merged:
    """Writes `out`, which is not there yet, durably. `run`: id of the merge; `now`: epoch seconds.

    Holds the lock of each meanwhile. Raises what opening a ledger raises, ConfigError for names that cannot be used,
    and Stop `ledger_mismatch` where they do not belong together: another migration, a shard or a prompt in two of them.
    """
    _check_names(out, ledgers)
    with ExitStack() as stack:
        for path in ledgers:
            stack.enter_context(locked(path))
        readings = [_whole(read_ledger(path)) for path in ledgers]
        shared = _check_together(readings)
        overlapping = bool(shared) or (len(readings) > 1 and not all(map(_parts, readings)))
        if overlapping:
            spans = {one.path: _span(one.path) for one in readings}
            readings.sort(key=lambda one: spans[one.path])
            _check_agreed(readings, shared, spans)
        ledgers = [one.path for one in readings]
        statuses = [read_status(path, Chosen()) for path in ledgers]
        books = _counted_anew(readings, statuses) if overlapping else _added_up(statuses)
        last = {
            **_said(readings, statuses, books, overlapping=overlapping),
            "kind": "merged",
            "run": run,
            "ts": timestamp(now),
        }
        number = _write(out, chain(chain.from_iterable(map(entries, ledgers)), (last,)))
    return Merged(
        ledger=str(out),
        ledgers=[str(path) for path in ledgers],
        lines=number,
        prompts=sum(len(one.state.records) for one in readings) - shared.total(),
        notes=[*_missing(_shards(readings)), *_left_beside(ledgers)],
    )


# ---- what belongs together -------------------------------------------------------------------------------------------


def _check_names(out: Path, ledgers: Sequence[Path]) -> None:
    if os.path.lexists(out):
        raise ConfigError(
            f"{out}: is there already; name another file for the merged ledger, and give it with --ledger from then "
            "on, or move this one away first and merge it with the others"
        )
    for first, other in combinations(ledgers, 2):
        if is_there(first) and is_there(other) and first.samefile(other):
            raise ConfigError(f"{other}: is named twice; name each ledger once")


def _whole(found: Reading) -> Reading:
    if refusal := found.refusal():
        raise refusal
    if found.verdict.kind == "torn":
        raise Stop(
            "ledger_damaged",
            f"{found.path}: its last write did not end (line {found.verdict.line})",
            next="Run that shard again, or cut it off with "
            f"`promptferry ledger repair {shlex.quote(str(found.path))}`; then merge.",
        )
    if found.state.identity is None:
        raise ConfigError(f"{found.path}: no run has written to it: leave it out, or run its shard first")
    return found


def _check_together(readings: Sequence[Reading]) -> Counter[str]:
    """The prompts that are in more than one, and in how many more."""
    first = readings[0]
    prompts: set[str] = set()
    shared: Counter[str] = Counter()
    parts: dict[str, Path] = {}
    shards: dict[str, Path] = {}
    for one in readings:
        if different := mismatch(first.state.identity or {}, one.state.identity or {}):
            raise _apart(f"{one.path} belongs to another migration than {first.path}: {different}")
        _check_once(shards, _parts(one), one.path, "the shard")
        _check_once(parts, [f"{what} {slug}" for what, slug in one.state.parts], one.path, "the")
        shared.update(source_id for source_id in one.state.records if source_id in prompts)
        prompts.update(one.state.records)
    return shared


def _span(path: Path) -> Span:
    first = last = ""
    for line in entries(path):
        first, last = first or line["ts"], line["ts"]
    return first, last


def _check_agreed(readings: Sequence[Reading], shared: Collection[str], spans: Mapping[Path, Span]) -> None:
    """What one ledger says of a prompt, those that began later must have found."""
    apart: dict[str, tuple[Path, Path]] = {}
    before: dict[str, tuple[Path, Record]] = {}
    for one in readings:
        for source_id in shared:
            if (later := one.state.records.get(source_id)) is None:
                continue
            path, first = before.setdefault(source_id, (one.path, later))
            if path != one.path and not _agree(first, later, apart=spans[path][1] <= spans[one.path][0]):
                apart.setdefault(source_id, (path, one.path))
            if later.made:
                before[source_id] = one.path, later
    if apart:
        (source_id, (path, other)), more = next(iter(apart.items())), len(apart) - 1
        raise _apart(f"the prompt {source_id}{f' (and {more} more)' if more else ''} is in {path} and in {other}")


def _agree(first: Record, later: Record, *, apart: bool) -> bool:
    """Whether there is one replica at most of a prompt of which both speak. `apart`: the first had ended when the later
    one began.
    """
    if first.doubtful or later.doubtful or later.status == "rolled_back":
        return False
    if first.status == "rolled_back" and not apart:
        return False
    if first.made and later.made:
        return first.target_id == later.target_id
    return later.made or not first.made or later.status in ("skipped", "unchanged")


def _check_once(seen: dict[str, Path], found: Iterable[str], path: Path, what: str) -> None:
    found = list(found)
    if twice := [one for one in found if one in seen]:
        more = f" (and {len(twice) - 1} more)" if len(twice) > 1 else ""
        raise _apart(f"{what} {twice[0]}{more} is in {seen[twice[0]]} and in {path}")
    seen.update(dict.fromkeys(found, path))


def _apart(message: str) -> Stop:
    return Stop("ledger_mismatch", message, next=_APART)


def _shards(readings: Sequence[Reading]) -> list[Shard]:
    return [shard_from(shard) for one in readings for shard in _parts(one)]


def _parts(found: Reading) -> tuple[str, ...]:
    """Which parts of the prompts it is about; none: all of them."""
    return found.state.merged if found.state.shard is None else (found.state.shard,)


def _missing(shards: Sequence[Shard]) -> Iterator[str]:
    """A run of all prompts on the merged ledger would do the work of a shard that is still under way."""
    for count in sorted({one.count for one in shards}):
        there = {one.index for one in shards if one.count == count}
        left = [str(Shard(index, count)) for index in range(count) if index not in there]
        if left:
            more = f" and {len(left) - _SHARDS_NAMED} more" if len(left) > _SHARDS_NAMED else ""
            named = f"{', '.join(left[:_SHARDS_NAMED])}{more}"
            yield f"not in it: shard {named}; do not run the migration on the merged ledger while one of them runs"


def _left_beside(ledgers: Sequence[Path]) -> Iterator[str]:
    """Who is done with the ledgers may delete them, and these with them."""
    if left := [copies.name for path in ledgers if (copies := copies_of(path)).exists()]:
        yield f"definitions as they were before updates are not in it and stay where they are: {', '.join(left)}"


# ---- what it has come to ---------------------------------------------------------------------------------------------


def _said(
    readings: Sequence[Reading], statuses: Sequence[Status], books: Books, *, overlapping: bool
) -> dict[str, Json]:
    """The fields of the line `merged`."""
    counts, this_run = books
    speaking = _speaking(readings, statuses) if overlapping else statuses
    worst = min(speaking, key=lambda one: WORST_FIRST.index(_code(one)))
    return {
        "ledgers": [one.path.name for one in readings],
        "shards": [shard for one in readings for shard in _parts(one) or (None,)],
        "runs": [run for one in readings for run in one.state.newest],
        "reason": worst.reason or "interrupted",
        "counts": counts,
        "exit_code": _code(worst),
        "next": _next(readings, statuses, worst, counts),
        "this_run": this_run,
        "orphaned": sum(one.orphaned or 0 for one in statuses),
        "requests": _sum(one.requests or {} for one in statuses),
        "duration_s": max(one.duration_s for one in statuses),
    }


def _added_up(statuses: Sequence[Status]) -> Books:
    """Of `end` lines; every shard has listed the whole source."""
    counts = _sum(one.counts for one in statuses) | {"listed": max(one.counts["listed"] for one in statuses)}
    return counts, _sum(one.this_run for one in statuses)


def _counted_anew(readings: Sequence[Reading], statuses: Sequence[Status]) -> Books:
    """Each prompt once, as the last ledger has it that speaks of it."""
    newest = {run for one in readings for run in one.state.newest}
    state = State()
    state.fold_all(chain.from_iterable(entries(one.path) for one in readings))
    counts, this_run = map(Counter, nothing())
    for record in state.records.values():
        run = record.run if record.run in newest else None
        outcome = outcome_of(record, run)
        counts[outcome] += 1
        this_run[outcome] += run is not None
    told = counts.total()
    whole = [status.counts["selected"] for one, status in zip(readings, statuses, strict=True) if not _parts(one)]
    of_shards = sum(status.counts["selected"] for status in statuses) - sum(whole)
    counts["selected"] = max(told, of_shards, *whole)
    counts["listed"] = max(one.counts["listed"] for one in statuses)
    counts["not_started"] += counts["selected"] - told
    return dict(counts), dict(this_run | {name: counts[name] for name in ("unchanged", "not_started")})


def _speaking(readings: Sequence[Reading], statuses: Sequence[Status]) -> Sequence[Status]:
    """Those that have a word in how it ended: a trial that went before the shards of all prompts has none."""
    of_shards = [bool(_parts(one)) for one in readings]
    if not any(of_shards) or any(_missing(_shards(readings))):
        return statuses
    last = len(of_shards) - of_shards[::-1].index(True)
    return [one for at, one in enumerate(statuses) if of_shards[at] or at >= last]


def _code(status: Status) -> int:
    """Of its newest run; one that has written no end was killed."""
    return EXIT_RETRY if status.exit_code is None else status.exit_code


def _next(readings: Sequence[Reading], statuses: Sequence[Status], worst: Status, counts: Mapping[str, int]) -> str:
    """What to do with the merged ledger."""
    if _code(worst) in (EXIT_ACT, EXIT_DIFFERENT):
        return worst.next.replace(f" --shard {readings[statuses.index(worst)].state.shard}", "")
    if _code(worst) == EXIT_RETRY:
        return _NEXT
    if counts["not_started"]:
        return TAKEN_BACK if any(one.next == TAKEN_BACK for one in statuses) else _NEXT
    mode = "replicate"
    if worst.mode == "update":
        records = chain.from_iterable(one.state.records.whole_items() for one in readings)
        mode = "staged" if any(record.rare.staged for _, record in records) else "in place"
    return verdict(counts, stop=None, limited=False, problem=None, mode=mode)[2]


def _sum(parts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for part in parts:
        total.update(part)
    return dict(total)


# ---- the file --------------------------------------------------------------------------------------------------------


def _write(out: Path, lines: Iterable[Line]) -> int:
    """Never over a file that has come there meanwhile."""
    new = out.with_name(f"{out.name}.new")
    try:
        make_folder(out.absolute().parent)
        number = write_anew(new, lines)
        try:
            os.link(new, out)
        finally:
            with suppress(OSError):
                new.unlink()
        sync_folder(out.absolute().parent)
    except FileExistsError:
        raise ConfigError(f"{out}: is there already; name another file for the merged ledger") from None
    except OSError as exc:
        raise refused(out, exc, "written") from exc
    return number
