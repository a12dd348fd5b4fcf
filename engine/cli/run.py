"""`run` on the command line: its flags, the question before the first write, the live display and the summary."""

from __future__ import annotations

import os
import re
import stat
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

import anyio

from engine.cli import early, show, telemetry
from engine.cli.approve import trusted
from engine.cli.commands import shard_label, shared_rate
from engine.cli.common import Common, amount, note, on_terminal, say, write_file, yes_or_no
from engine.cli.display import watch
from engine.cli.machines import Asked, machines
from engine.cli.metrics import write_metrics
from engine.cli.step_summary import append_step_summary
from engine.config import Migration, name_of, seconds
from engine.content.filter import Chosen
from engine.content.shard import Shard
from engine.errors import EXIT_ACT, EXIT_USAGE, ConfigError, Stop
from engine.ledger import report
from engine.ledger.report import Summary, several
from engine.lossless_json import encode
from engine.migrate import plan_file as planfile
from engine.migrate.context import MaxFailures
from engine.migrate.halt import AGAIN
from engine.run import RunOptions, run_migration
from engine.run.totals import Totals
from engine.verbs.approve import required

ADVICE: Final = {
    EXIT_USAGE: "Mend what is named above; nothing was sent.",
    EXIT_ACT: "Report it with the lines on stderr; what was recorded is safe, and the same command goes on from there.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Flags:
    """The flags of `run` as they were typed."""

    chosen: Chosen
    plan: Path | None
    require_approvals: int | None
    limit: int | None
    retry_failed: bool
    canary: int
    max_duration: str | None
    max_failures: str | None
    shard: Shard | None
    rate_share: bool
    executor: Asked
    rate: float | None
    lock_wait: float
    yes: bool
    reason: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """The files that a run leaves its summary in. `shard`: whose it is, as `0/3`; empty: of all."""

    summary: Path | None
    metrics: Path | None
    shard: str = ""


def left_by(arguments: list[str]) -> Left:
    """From arguments that are refused: who watches these files is to see that, too."""
    summary, metrics = (early.file_of(flag, arguments) for flag in ("--summary", "--metrics"))
    shard, shards = (early.file_of(flag, arguments) for flag in ("--shard", "--shards"))
    which = shard_label(shard or None, int(shards) if shards.isdecimal() else None)
    return Left(summary=Path(summary) if summary else None, metrics=Path(metrics) if metrics else None, shard=which)


class Told(Protocol):
    """The summary of a run, of one migration or of many."""

    @property
    def exit_code(self) -> int:
        """Of the process."""
        ...

    @property
    def message(self) -> str:
        """What went wrong; empty when nothing did."""
        ...

    def to_json(self) -> dict[str, Any]:
        """The object of `--json` and `--summary`."""
        ...


S = TypeVar("S", bound=Told)


def run_and_tell(path: Path, common: Common, flags: Callable[[], Flags], *, left: Left, as_json: bool) -> int:
    """Runs it; whatever happens, the summary is the last line of stdout."""

    def refused(message: str) -> Summary:
        return nothing_done("config", message, EXIT_USAGE, migration=name_of(path))

    return end_with(lambda: _run(path, common, flags()), refused, report.to_text, left=left, as_json=as_json)


def end_with(
    work: Callable[[], S],
    refused: Callable[[str], S],
    to_text: Callable[[S], str],
    *,
    left: Left,
    as_json: bool,
) -> int:
    """Does the work; whatever happens, its summary is the last line of stdout. `refused`: that of wrong usage."""
    summary_file = left.summary
    try:
        if summary_file is not None and not _may_be_written(summary_file):
            raise ConfigError(
                f"--summary {summary_file}: cannot be written; name a file in a folder that you may write"
            )
        summary = work()
        sentences = [summary.message] if summary.message else []
    except ConfigError as error:
        sentences = [str(problem) for problem in error.problems]
        summary = refused("; ".join(sentences))
    if not _as_text(as_json):
        for sentence in sentences:
            print(f"error: {sentence}", file=sys.stderr)
    leave(summary, to_text, left=left, as_json=as_json)
    return summary.exit_code


def leave(summary: S, to_text: Callable[[S], str], *, left: Left, as_json: bool) -> None:
    """Tells how it ended to all who wait for it. Raises Stop where stdout is a full disk."""
    try:
        tell(summary, to_text, as_json=as_json)
    finally:
        if left.summary is not None and _may_be_written(left.summary):
            _write(left.summary, summary)
        _tell_others(summary, left)


def _tell_others(summary: Told, left: Left) -> None:
    """Those who watch the run from where it was started. None of them can fail it."""
    if left.metrics is not None:
        write_metrics(left.metrics, summary.to_json(), left.shard)
    telemetry.tell(summary.to_json())
    if page := os.environ.get("GITHUB_STEP_SUMMARY"):
        append_step_summary(Path(page), summary.to_json())


def _run(path: Path, common: Common, flags: Flags) -> Summary:
    if flags.require_approvals is not None and flags.plan is None:
        raise ConfigError("--require-approvals: speaks of the file that --plan names; give both")
    rate = shared_rate(flags.rate, flags.shard, share=flags.rate_share)
    migration = common.load(path, flags.shard)
    if flags.shard is not None and flags.rate_share:
        migration = migration.sharing(flags.shard.count)
        note_unknown([migration], rate)
    plan = _plan(flags.plan, migration) if flags.plan is not None else None
    try:
        approvals = _approvals(flags, plan)
    except Stop as stop:
        return nothing_done(stop.reason, str(stop), stop.exit_code, advice=stop.next, migration=migration.name)
    options = RunOptions(
        chosen=flags.chosen,
        plan=plan,
        approvals=approvals,
        limit=flags.limit,
        retry_failed=flags.retry_failed,
        canary=flags.canary,
        max_duration=duration(flags.max_duration),
        max_failures=max_failures(flags.max_failures),
        rate=rate,
        lock_wait=flags.lock_wait,
        reason=flags.reason,
        confirm=None if flags.yes or not on_terminal() else partial(_confirmed, migration),
        watch=None if common.quiet or common.no_progress else watch(),
        signals=True,
    )
    try:
        with machines(flags.executor, [migration]) as others:
            return anyio.run(run_migration, migration, replace(options, machines=others))
    except Stop as stop:  # before there was anything to run on
        return nothing_done(stop.reason, str(stop), stop.exit_code, advice=stop.next, migration=migration.name)


def _plan(file: Path, migration: Migration) -> planfile.PlanFile:
    try:
        data = file.read_bytes()
    except OSError as error:
        raise ConfigError(f"--plan {file}: cannot be read: {error.strerror}") from error
    identity, rules = migration.identity(), migration.rules_digest()
    return planfile.read(data, f"--plan {file}", identity, rules, shard=migration.shard)


def _approvals(flags: Flags, plan: planfile.PlanFile | None) -> tuple[str, ...]:
    """Who approved exactly this plan. Raises Stop when they are too few."""
    if plan is None or flags.plan is None or flags.require_approvals is None:
        return ()
    return required(flags.plan, plan.sha256, flags.require_approvals, trusted())


def note_unknown(migrations: Sequence[Migration], rate: float | None) -> None:
    """Says on stderr where there is nothing to share."""
    if rate is None and (unknown := [one.name for one in migrations if one.limits.rate is None]):
        note([f"--rate-share: no limits.rate is known of {', '.join(unknown)}, so it is found"])


def duration(text: str | None, flag: str = "--max-duration") -> float | None:
    """The seconds of a flag. Raises ConfigError."""
    if text is None:
        return None
    try:
        return seconds(float(text) if re.fullmatch(r"\d+(\.\d+)?", text) else text)
    except ValueError as error:
        raise ConfigError(f"{flag} {text!r}: {error}") from None


def max_failures(text: str | None) -> MaxFailures | None:
    """What --max-failures says. Raises ConfigError."""
    if text is None:
        return None
    limit, percent = amount("--max-failures", text, "prompts")
    return MaxFailures(limit, percent=percent)


# ---- the end ---------------------------------------------------------------------------------------------------------


def nothing_done(
    reason: str, message: str, exit_code: int, *, advice: str | None = None, migration: str = ""
) -> Summary:
    """The summary of a run that ended before it began. `migration`: its name, where that is known."""
    counts, this_run = report.nothing()
    return Summary(
        migration=migration,
        run="",
        mode="",
        exit_code=exit_code,
        reason=reason,
        message=message,
        next=advice or ADVICE.get(exit_code, AGAIN),
        counts=counts,
        this_run=this_run,
        requests=dict.fromkeys(("total", "reads", "writes", "retries", "throttled"), 0),
        duration_s=0.0,
        ledger="",
    )


def tell(summary: S, to_text: Callable[[S], str], *, as_json: bool) -> None:
    """Text on a terminal; elsewhere one line of JSON, the last of stdout. Raises Stop on a full disk."""
    early.ignore()
    say(to_text(summary) if _as_text(as_json) else encode(summary.to_json()).decode())


def _as_text(as_json: bool) -> bool:
    return sys.stdout.isatty() and not as_json


# ---- the summary in a file -------------------------------------------------------------------------------------------


def _may_be_written(path: Path) -> bool:
    """Asked before anything is sent, so that no run ends without the summary that somebody waits for."""
    try:
        there = path.stat()
    except FileNotFoundError:
        return os.access(path.parent, os.W_OK | os.X_OK)
    except OSError:  # a folder that may not be searched, a name that is too long
        return False
    return not stat.S_ISDIR(there.st_mode) and os.access(path, os.W_OK)


def _write(path: Path, summary: Told) -> None:
    try:
        write_file(path, encode(summary.to_json()) + b"\n", f"--summary {path}", over=True)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)


# ---- before the first write ------------------------------------------------------------------------------------------


async def _confirmed(migration: Migration, totals: Totals) -> bool:
    """Shows both ends and the totals and asks once."""
    source, target = migration.ends
    print(f"from  {source.identity}\nto    {target.identity}{' (the same workspace)' if source is target else ''}")
    if made := show.needs(totals.needs):
        print("\n".join(show.the_first(made, "`plan`")))
    print("; ".join(said_of(totals)))
    return await yes_or_no()


def said_of(totals: Totals) -> Iterator[str]:
    """What may be written, and of how many prompts, in a few words each."""
    compared = f" and {totals.compared:,} compared, and updated where something changed" if totals.compared else ""
    yield f"{several(totals.creates, 'replica')} will be created{compared}"
    if totals.limit is not None and totals.creates + totals.compared > totals.limit:
        yield f"of these no more than {totals.limit:,} are written in this run"
    if number := totals.doubtful:
        one = "1 prompt in doubt is" if number == 1 else f"{number:,} prompts in doubt are"
        yield f"{one} looked up, and written again where nothing has arrived"
    if number := totals.short:
        yield f"{several(number, 'replica')} found there may get labels or versions that are missing"
    chosen = f", {totals.chosen:,} of them chosen" if totals.chosen != totals.selected else ""
    verb = "is" if totals.selected == 1 else "are"
    yield f"{totals.selected:,} of {several(totals.listed, 'prompt')} {verb} selected{chosen}"
