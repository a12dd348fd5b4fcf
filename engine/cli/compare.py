"""`compare`: are the answers still good?"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Option

from engine.cli.after import Yes
from engine.cli.commands import (
    AsJson,
    Collection,
    File,
    IdsFile,
    LockWait,
    Only,
    Rate,
    app,
    chosen_by,
    show_result,
    waiting,
)
from engine.cli.common import MOST_CALLS, Common, amount, command, confirmation, on_terminal, say, write_file
from engine.errors import EXIT_DIFFERENT, EXIT_OK, EXIT_UNFINISHED, ConfigError
from engine.ledger.durable import PRIVATE

if TYPE_CHECKING:
    from engine.verbs.compare.result import Comparison, MaxChanged


@command(app, "compare")
def compare(
    migration: File,
    common: Common,
    only: Only = None,
    collection: Collection = None,
    ids_file: IdsFile = None,
    record: Annotated[bool, Option("--record", help="Ask the originals, and keep what they answer.")] = False,
    repeat: Annotated[int, Option("--repeat", min=1, metavar="N", help="Ask each case N times.")] = 1,
    max_changed: Annotated[
        str | None, Option("--max-changed", metavar="N|N%", help="Exit 3 when more cases changed: 3, or 5%.")
    ] = None,
    export: Annotated[
        str | None, Option("--export", help="promptfoo, csv or jsonl: all answers, in place of the report.")
    ] = None,
    out: Annotated[Path | None, Option("--out", help="Write the --export to this file, and the report too.")] = None,
    html: Annotated[Path | None, Option("--html", help="Write a page with both sides to this file.")] = None,
    yes: Yes = False,
    rate: Rate = None,
    lock_wait: LockWait = None,
    as_json: AsJson = False,
) -> int:
    """Asks replicas what their originals were asked with --record, the cases of verify.cases, and compares the answers.

    Changed is a case that the replica did not answer as the original did: not at all, with another finish reason, other
    tool calls, or JSON of another shape. Length, time, tokens and words are measured. What was answered is not asked
    again: the same command goes on where it stopped. Files with answers are for your eyes only (0600).

    Example: promptferry compare migration.yaml --record, then run, then compare migration.yaml --max-changed 5%
    """
    import anyio

    from engine.cli import show
    from engine.run.after import AskOptions, compare_migration, has_answers, record_answers
    from engine.session import VerbOptions

    threshold = _threshold(max_changed)
    _fitting(record=record, export=export, out=out, as_json=as_json, others=(max_changed, export, out, html))
    loaded = common.load(migration)
    if not record and not has_answers(loaded):
        raise ConfigError(f"no answers of the originals are recorded: type `promptferry compare {migration} --record`")
    chosen, wait = chosen_by(only, collection, ids_file), waiting(lock_wait)
    options = VerbOptions(chosen=chosen, rate=rate, signals=True, lock_wait=wait)
    how = AskOptions(repeat=repeat, confirm=_confirm(yes=yes))
    if record:
        recorded = anyio.run(lambda: record_answers(loaded, options, how))
        show_result(recorded.to_json(), as_json=as_json, text=show.recorded(recorded))
        code = EXIT_OK if recorded.whole else EXIT_UNFINISHED
    else:
        found = anyio.run(lambda: compare_migration(loaded, options, how))
        _write(found, loaded.name, threshold, export=export, out=out, html=html)
        if export is None or out is not None:
            show_result(found.to_json(threshold), as_json=as_json, text=show.comparison(found, threshold))
        code = _exit_code(found, threshold)
    if options.halt.stop is not None:
        raise options.halt.stop
    return code


def _threshold(text: str | None) -> MaxChanged | None:
    from engine.verbs.compare.result import MaxChanged

    return MaxChanged(*amount("--max-changed", text, "cases")) if text is not None else None


def _fitting(*, record: bool, export: str | None, out: Path | None, as_json: bool, others: tuple[object, ...]) -> None:
    """Raises ConfigError for flags that do not go together."""
    from engine.verbs.compare.exports import EXPORTS

    if record and any(one is not None for one in others):
        raise ConfigError("--record: only asks the originals; leave out --max-changed, --export, --out and --html")
    if export is not None and export not in EXPORTS:
        raise ConfigError(f"--export {export!r}: must be one of {', '.join(EXPORTS)}")
    if out is not None and export is None:
        raise ConfigError("--out: says where an --export goes; give both")
    if export is not None and out is None and as_json:
        raise ConfigError("--json and --export both print: give --out FILE for the export")


def _confirm(*, yes: bool) -> Callable[[str, int], Awaitable[bool]]:
    async def confirm(what: str, calls: int) -> bool:
        needed = calls > MOST_CALLS
        if needed and not yes and not on_terminal():
            raise ConfigError(f"{what}: above {MOST_CALLS} this asks first, and nobody is here to answer: give --yes")
        return await confirmation(yes=yes, needed=needed)(what)

    return confirm


def _write(
    found: Comparison,
    name: str,
    threshold: MaxChanged | None,
    *,
    export: str | None,
    out: Path | None,
    html: Path | None,
) -> None:
    from engine.verbs.compare.exports import EXPORTS
    from engine.verbs.compare.page import page

    if html is not None:
        text = page(found, migration=name, threshold=threshold)
        write_file(html, _bytes(text), f"--html {html}", over=True, mode=PRIVATE)
    if export is not None:
        text = EXPORTS[export](found.cases)
        if out is None:
            say(text)
        else:
            write_file(out, _bytes(text), f"--out {out}", over=True, mode=PRIVATE)


def _bytes(text: str) -> bytes:
    return text.encode(errors="backslashreplace")  # a model may answer half of a character


def _exit_code(found: Comparison, threshold: MaxChanged | None) -> int:
    if threshold is not None and threshold.exceeded(found.counts["changed"], found.compared):
        return EXIT_DIFFERENT
    if not found.whole:
        print("note: not all could be compared; the same command asks again for what was lost", file=sys.stderr)
    return EXIT_OK if found.whole else EXIT_UNFINISHED
