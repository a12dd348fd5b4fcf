"""The command line: arguments, output, exit codes; no logic.

common     what every command takes and how it ends
commands   the commands up to a run, and those about its ledger
after      verify, publish, rollback
run        the flags of `run`, its live display and its summary
show       results as text for a person

Heavy modules are imported by the commands that use them, so that `--help` answers at once.
"""

from __future__ import annotations

import io
import signal
import sys
import traceback
from types import FrameType
from typing import Final

from engine.errors import EXIT_ACT, EXIT_RETRY, EXIT_USAGE

_TYPER_INTERRUPTED: Final = 130


def main() -> None:
    """The command `promptferry`."""
    for stream in (sys.stdout, sys.stderr):  # names may hold what this terminal, or UTF-8 itself, cannot write
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        signal.signal(signal.SIGTERM, _interrupt)
        _command()
    except KeyboardInterrupt:  # before a run looks after signals itself, so it has written nothing
        print("interrupted", file=sys.stderr)
        _summary_of_nothing("interrupted", "interrupted", EXIT_RETRY)
        sys.exit(EXIT_RETRY)
    except Exception as error:  # the one place that knows what to do about a bug: say where, and stop the scheduler
        _tell_bug(error)
        _summary_of_nothing("failures", "a bug in promptferry ended the run; see stderr", EXIT_ACT)
        sys.exit(EXIT_ACT)


def _command() -> None:
    import typer

    from engine.cli import after  # noqa: F401 - registers its commands
    from engine.cli.commands import app

    try:
        app()
    except SystemExit as end:
        if end.code == _TYPER_INTERRUPTED:
            raise KeyboardInterrupt from None
        # typer.Exit: the command has ended and told it; anything else: its arguments were refused
        refused = end.__context__
        if end.code == EXIT_USAGE and not isinstance(refused, typer.Exit):
            message = refused.format_message() if isinstance(refused, typer.BadParameter) else str(refused)
            _summary_of_nothing("config", message, EXIT_USAGE)
        raise


def _summary_of_nothing(reason: str, message: str, exit_code: int) -> None:
    """`run` has a summary at every end, also at one that comes before the command is reached."""
    if next((word for word in sys.argv[1:] if not word.startswith("-")), "") == "run":
        from engine.cli.run import nothing_done, tell

        tell(nothing_done(reason, message, exit_code), as_json=False)


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _tell_bug(error: BaseException) -> None:
    """Where it happened and of what kind it is; never its text, which may hold a prompt or a key."""
    print("error: this is a bug in promptferry; please report the lines below.", file=sys.stderr)
    _tell_where(error)
    print("What was recorded is safe: the same command goes on from there.", file=sys.stderr)


def _tell_where(error: BaseException) -> None:
    if isinstance(error, BaseExceptionGroup):
        for one in error.exceptions:
            _tell_where(one)
        return
    if (earlier := error.__cause__ or error.__context__) is not None:
        _tell_where(earlier)
    sys.stderr.writelines(traceback.format_tb(error.__traceback__))
    print(f"{type(error).__module__}.{type(error).__qualname__}", file=sys.stderr)
