"""`run` on the command line: its flags, the question before the first write, the live display and the summary."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

import anyio
import orjson

from engine.cli import early, show
from engine.cli.approve import trusted
from engine.cli.common import Common, amount, on_terminal, say, write_file, yes_or_no
from engine.cli.display import watch
from engine.config import Migration, seconds
from engine.content.filter import Chosen
from engine.errors import EXIT_ACT, EXIT_USAGE, ConfigError, Stop
from engine.ledger import report
from engine.ledger.report import Summary
from engine.migrate import plan_file as planfile
from engine.migrate.context import MaxFailures
from engine.migrate.halt import AGAIN
from engine.migrate.needs import Need
from engine.migrate.survey import Survey
from engine.run import RunOptions, run_migration
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
    rate: float | None
    yes: bool
    reason: str | None


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


def run_and_tell(
    path: Path, common: Common, flags: Callable[[], Flags], *, summary_file: Path | None, as_json: bool
) -> int:
    """Runs it; whatever happens, the summary is the last line of stdout."""
    refused = partial(nothing_done, "config", exit_code=EXIT_USAGE)
    return end_with(
        lambda: _run(path, common, flags()), refused, report.to_text, summary_file=summary_file, as_json=as_json
    )


def end_with(
    work: Callable[[], S],
    refused: Callable[[str], S],
    to_text: Callable[[S], str],
    *,
    summary_file: Path | None,
    as_json: bool,
) -> int:
    """Does the work; whatever happens, its summary is the last line of stdout. `refused`: that of wrong usage."""
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
    try:
        tell(summary, to_text, as_json=as_json)
    finally:
        if summary_file is not None and _may_be_written(summary_file):
            _write(summary_file, summary)
    return summary.exit_code


def _run(path: Path, common: Common, flags: Flags) -> Summary:
    if flags.require_approvals is not None and flags.plan is None:
        raise ConfigError("--require-approvals: speaks of the file that --plan names; give both")
    migration = common.load(path)
    plan = _plan(flags.plan, migration) if flags.plan is not None else None
    try:
        approvals = _approvals(flags, plan)
    except Stop as stop:
        return nothing_done(stop.reason, str(stop), stop.exit_code, advice=stop.next)
    options = RunOptions(
        chosen=flags.chosen,
        plan=plan,
        approvals=approvals,
        limit=flags.limit,
        retry_failed=flags.retry_failed,
        canary=flags.canary,
        max_duration=duration(flags.max_duration),
        max_failures=max_failures(flags.max_failures),
        rate=flags.rate,
        reason=flags.reason,
        confirm=None if flags.yes or not on_terminal() else partial(_confirmed, migration),
        watch=None if common.quiet or common.no_progress else watch(),
        signals=True,
    )
    return anyio.run(run_migration, migration, options)


def _plan(file: Path, migration: Migration) -> planfile.PlanFile:
    try:
        data = file.read_bytes()
    except OSError as error:
        raise ConfigError(f"--plan {file}: cannot be read: {error.strerror}") from error
    return planfile.read(data, f"--plan {file}", migration.identity(), migration.rules_digest())


def _approvals(flags: Flags, plan: planfile.PlanFile | None) -> tuple[str, ...]:
    """Who approved exactly this plan. Raises Stop when they are too few."""
    if plan is None or flags.plan is None or flags.require_approvals is None:
        return ()
    return required(flags.plan, plan.sha256, flags.require_approvals, trusted())


def duration(text: str | None) -> float | None:
    """The seconds of --max-duration. Raises ConfigError."""
    if text is None:
        return None
    try:
        return seconds(float(text) if re.fullmatch(r"\d+(\.\d+)?", text) else text)
    except ValueError as error:
        raise ConfigError(f"--max-duration {text!r}: {error}") from None


def max_failures(text: str | None) -> MaxFailures | None:
    """What --max-failures says. Raises ConfigError."""
    if text is None:
        return None
    limit, percent = amount("--max-failures", text, "prompts")
    return MaxFailures(limit, percent=percent)


# ---- the end ---------------------------------------------------------------------------------------------------------


def nothing_done(reason: str, message: str, exit_code: int, *, advice: str | None = None) -> Summary:
    """The summary of a run that ended before it began."""
    counts, this_run = report.nothing()
    return Summary(
        migration="",
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
    say(to_text(summary) if _as_text(as_json) else orjson.dumps(summary.to_json()).decode())


def _as_text(as_json: bool) -> bool:
    return sys.stdout.isatty() and not as_json


# ---- the summary in a file -------------------------------------------------------------------------------------------


def _may_be_written(path: Path) -> bool:
    """Asked before anything is sent, so that no run ends without the summary that somebody waits for."""
    if path.exists():
        return not path.is_dir() and os.access(path, os.W_OK)
    return os.access(path.parent, os.W_OK | os.X_OK)


def _write(path: Path, summary: Told) -> None:
    try:
        write_file(path, orjson.dumps(summary.to_json()) + b"\n", f"--summary {path}", over=True)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)


# ---- before the first write ------------------------------------------------------------------------------------------


async def _confirmed(migration: Migration, survey: Survey, tasks: int, needs: Sequence[Need]) -> bool:
    """Shows both ends and the totals and asks once."""
    source, target = migration.ends
    print(f"from  {source.identity}\nto    {target.identity}{' (the same workspace)' if source is target else ''}")
    if made := show.needs(needs):
        print("\n".join(show.the_first(made, "`plan`")))
    creates = sum(task.action == "create" for task in survey.tasks)
    compared = f" and {tasks - creates} compared, and updated where something changed" if tasks > creates else ""
    print(f"{min(creates, tasks)} replicas will be created{compared}; ", end="")
    print(f"{len(survey.tasks)} of {survey.listed} prompts are selected")
    return await yes_or_no()
