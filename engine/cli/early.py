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
    f'"counts":{{"listed":0,"selected":0,{_OUTCOMES}}},"this_run":{{{_OUTCOMES}}},"reasons":{{}},"orphaned":0,"verified":null,'
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


def open_streams() -> None:
    """Streams that were closed before we began, as some schedulers do it, are as empty and as deaf as /dev/null. Else
    the next file to be opened, be it a ledger, would get the number of stdout, and what is printed.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            number = os.open(os.devnull, os.O_RDWR)
            os.set_inheritable(number, True)
            setattr(sys, name, os.fdopen(number, mode, encoding="utf-8", errors="backslashreplace"))


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
    if form := _SUMMARIES.get(summary_of(sys.argv)):
        summary = f"{form % (exit_code, reason, message, advice)}\n"
        _write(1, f"{advice}\n" if os.isatty(1) and "--json" not in sys.argv else summary)
        if file := file_of("--summary", sys.argv):
            _leave(file, summary)


def summary_of(arguments: list[str]) -> str:
    """`run` or `fleet run`, where that is the command: those have a summary at every end."""
    words = [word for word in arguments[1:] if not word.startswith("-")]
    for command in _SUMMARIES:
        if words[: len(command.split())] == command.split():
            return command
    return ""


def file_of(flag: str, arguments: list[str]) -> str:
    """What is named behind `flag`, where nobody has read the arguments yet; the last one counts, as it will then."""
    found = ""
    for word, behind in zip(arguments, [*arguments[1:], "-"], strict=False):
        if word.startswith(f"{flag}="):
            found = word[len(flag) + 1 :]
        elif word == flag and not behind.startswith("-"):
            found = behind
    return found


def _on_signal(_number: int, _frame: object) -> None:
    leave()


def _write(fd: int, text: str) -> None:
    # not by the streams, which may be in the middle of a write
    try:
        os.write(fd, text.encode())
    except OSError:
        return  # whoever read it has gone


def _leave(file: str, text: str) -> None:
    # who looks there would take what the run before left for this one's, or half of this one for the whole
    plain = os.path.lexists(file) and (os.path.islink(file) or not os.path.isfile(file))
    beside = file if plain else os.path.join(os.path.dirname(file), f".promptferry-{os.getpid()}.tmp")
    try:
        fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NONBLOCK, 0o666)
        _write(fd, text)
        os.close(fd)
        if not plain:
            os.rename(beside, file)
    except OSError:
        return  # a folder that is none of ours: stdout has it
