"""What surrounds every command: the system it needs, refused arguments, signals nobody took, bugs."""

from __future__ import annotations

import io
import sys
import traceback
from typing import Final, NoReturn

from engine.cli import early
from engine.errors import EXIT_ACT, EXIT_USAGE, Stop, Unsupported

_TYPER_INTERRUPTED: Final = 130
_TYPER_REFUSED: Final = 1
_COMPLETION: Final = ("--install-completion", "--show-completion")


def start() -> None:
    """Runs the command that is asked for, and ends the process with its exit code."""
    for stream in (sys.stdout, sys.stderr):  # names may hold what this terminal, or UTF-8 itself, cannot write
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        import engine.ledger.durable  # noqa: F401 - refuses a system without file locks, before anything else is loaded

        _command()
    except Unsupported as error:
        print(f"error: {error}", file=sys.stderr)
        early.tell_nothing_done(EXIT_USAGE, "config", str(error), "Run it where it can run; nothing was sent.")
        sys.exit(EXIT_USAGE)
    except KeyboardInterrupt:  # between what looks after signals there are moments in which Python does
        early.leave()
    except Exception as error:  # the one place that knows what to do about a bug: say where, and stop the scheduler
        _tell_bug(error)
        _summary_of_nothing("failures", "a bug in promptferry ended the run; see stderr", EXIT_ACT)
        sys.exit(EXIT_ACT)


def _command() -> None:
    import typer

    from engine.cli import after, approve, compare, fleet, repoint, report, watch  # noqa: F401 - they register their commands
    from engine.cli.commands import app

    for_completion = sys.argv[1:2] and sys.argv[1] in _COMPLETION
    try:
        app(prog_name="promptferry")  # whatever it was started as: completion is installed for this name
    except (OSError, RuntimeError, UnicodeError) as error:  # no home, or a start file of the shell that we cannot take
        if not for_completion:
            raise
        _completion_refused(error)
    except SystemExit as end:
        if end.code == _TYPER_INTERRUPTED:
            raise KeyboardInterrupt from None
        if for_completion and end.code == _TYPER_REFUSED:
            print("error: start it from the shell that is to complete: bash, zsh or fish", file=sys.stderr)
            sys.exit(EXIT_USAGE)
        # typer.Exit: the command has ended and told it; anything else: its arguments were refused
        refused = end.__context__
        if end.code == EXIT_USAGE and not isinstance(refused, typer.Exit):
            message = refused.format_message() if isinstance(refused, typer.BadParameter) else str(refused)
            _summary_of_nothing("config", message, EXIT_USAGE)
        raise


def _completion_refused(error: Exception) -> NoReturn:
    where = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) else str(error)
    print(f"error: completion was not installed: {where}", file=sys.stderr)
    print("`promptferry --show-completion` prints the script, to be put where you want it.", file=sys.stderr)
    sys.exit(EXIT_USAGE)


def _summary_of_nothing(reason: str, message: str, exit_code: int) -> None:
    """A run has a summary at every end, also at one that comes before the command is reached."""
    command = early.summary_of(sys.argv)
    if not command:
        return
    from engine.cli import show
    from engine.cli.fleet import no_fleet
    from engine.cli.run import leave, left_by, nothing_done
    from engine.ledger.report import to_text

    left = left_by(sys.argv)
    try:
        if command == "run":
            leave(nothing_done(reason, message, exit_code), to_text, left=left, as_json=False)
        else:
            leave(no_fleet(reason, message, exit_code), show.fleet_summary, left=left, as_json=False)
    except Stop as stop:  # stdout is a full disk
        print(f"error: {stop}", file=sys.stderr)


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
