"""SIGINT and SIGTERM while a command looks after no signals itself: from its first line until its work begins.

A handler that raises would lose some: what is raised while a module is imported may end in a callback that nobody waits
for. Nothing has been sent or written by then, so the process ends at once. That may be in the middle of any import, so
nothing is imported here but what Python has loaded itself, and the summary of a run stands here as it is written.
"""

from __future__ import annotations

import os
import signal
import sys

SIGNALS = (signal.SIGINT, signal.SIGTERM)
EXIT_INTERRUPTED = 75
AGAIN = "Run the same command again: it goes on where this run stopped."
_OUTCOMES = '"created":0,"updated":0,"unchanged":0,"skipped":0,"failed":0,"conflicts":0,"unresolved":0,"not_started":0'
_SUMMARY = (
    '{"schema":1,"migration":"","run":"","mode":"","exit_code":%d,"reason":"%s","message":"%s","next":"%s",'
    f'"counts":{{"listed":0,"selected":0,{_OUTCOMES}}},"this_run":{{{_OUTCOMES}}},"orphaned":0,"verified":null,'
    '"requests":{"total":0,"reads":0,"writes":0,"retries":0,"throttled":0},"throttle":{},"duration_s":0.0,"ledger":"",'
    '"notes":[]}'
)
_FLEET_SUMMARY = (
    '{"schema":1,"fleet":"","exit_code":%d,"reason":"%s","message":"%s","next":"%s",'
    '"states":{"done":0,"unfinished":0,"differs":0,"stopped":0,"not_started":0},'
    f'"counts":{{"listed":0,"selected":0,{_OUTCOMES}}},"this_run":{{{_OUTCOMES}}},'
    '"requests":{"total":0,"reads":0,"writes":0,"retries":0,"throttled":0},"duration_s":0.0,"migrations":[]}'
)
_SUMMARIES = {"run": _SUMMARY, "fleet run": _FLEET_SUMMARY}
"""By command."""


def take() -> None:
    """From here on the first signal ends the process."""
    for number in SIGNALS:
        signal.signal(number, _on_signal)


def ignore() -> None:
    """From here on none does: a summary is about to be told."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def leave() -> None:
    """Ends the process as one that was interrupted before it had done anything."""
    ignore()
    _write(2, "interrupted\n")
    tell_nothing_done(EXIT_INTERRUPTED, "interrupted", "interrupted", AGAIN)
    os._exit(EXIT_INTERRUPTED)


def tell_nothing_done(exit_code: int, reason: str, message: str, advice: str) -> None:
    """The summary of a run that has done nothing, where that is the command. The texts are put in as they are."""
    if summary := _SUMMARIES.get(summary_of(sys.argv)):
        as_text = os.isatty(1) and "--json" not in sys.argv
        _write(1, f"{advice}\n" if as_text else f"{summary % (exit_code, reason, message, advice)}\n")


def summary_of(arguments: list[str]) -> str:
    """`run` or `fleet run`, where that is the command: those have a summary at every end."""
    words = [word for word in arguments[1:] if not word.startswith("-")]
    for command in _SUMMARIES:
        if words[: len(command.split())] == command.split():
            return command
    return ""


def _on_signal(_number: int, _frame: object) -> None:
    leave()


def _write(fd: int, text: str) -> None:
    # not by the streams, which may be in the middle of a write
    if (sys.stdout, sys.stderr)[fd - 1] is not None:
        try:
            os.write(fd, text.encode())
        except OSError:
            return  # whoever read it has gone
