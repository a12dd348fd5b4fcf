"""What every command takes and how every command ends: the common flags, errors as sentences, exit codes."""

from __future__ import annotations

import inspect
import os
import re
import stat
import sys
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar, get_type_hints

import typer
from typer import Option

from engine import __version__
from engine.cli import early, telemetry
from engine.errors import EXIT_ACT, EXIT_OK, EXIT_RETRY, EXIT_USAGE, AnswerError, ConfigError, EngineError, Stop
from engine.ledger.durable import PUBLIC, new_file, put_in_place

if TYPE_CHECKING:
    from engine.config import Fleet, Migration
    from engine.content.shard import Shard

T = TypeVar("T")

MOST_CALLS: Final = 50
"""Calls of models above this number are asked for first."""
_SHOWN: Final = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\t\n"}
_MIGRATION_ENDINGS: Final = (".yaml", ".yml")
_LEDGER_ENDING: Final = ".jsonl"
_LEDGER_HEAD: Final = b'{"v":'
"""What every ledger begins with, of whatever version."""
_FORMATS: Final = ("auto", "console", "json")
_LEVELS: Final = ("debug", "info", "warning", "error")


def _one_of(*known: str) -> Callable[[str], str]:
    """Refuses another value while the arguments are read, before the command is reached."""

    def check(value: str) -> str:
        if value not in known:
            raise typer.BadParameter(f"{value!r}: must be one of {', '.join(known)}")
        return value

    return check


def choice(flag: str, *known: str, help: str = "") -> Any:
    """An option with these values, which a shell completes."""
    text = help or f"{', '.join(known[:-1])} or {known[-1]}."
    return Option(flag, help=text, callback=_one_of(*known), autocompletion=lambda: known)


def _show_version(asked: bool) -> None:
    if asked:
        say(f"promptferry {__version__}")
        raise typer.Exit(EXIT_OK)


Version = Annotated[bool, Option("--version", help="Print the version.", is_eager=True, callback=_show_version)]


@dataclass(slots=True)
class Common:
    """The flags that every command has."""

    ledger: Annotated[Path | None, Option("--ledger", help="Ledger to use in place of the migration file's.")] = None
    log_format: Annotated[str, choice("--log-format", *_FORMATS)] = "auto"
    log_level: Annotated[str, choice("--log-level", *_LEVELS)] = "info"
    quiet: Annotated[bool, Option("--quiet", help="No log and no progress; results only.")] = False
    no_progress: Annotated[bool, Option("--no-progress", help="No live display and no progress lines.")] = False
    version: Version = False
    secrets: set[str] = field(default_factory=set, init=False, repr=False)
    """What the log must not show."""

    def set_up_log(self) -> None:
        """Starts the log."""
        from engine import log

        terminal = sys.stderr.isatty()
        style = self.log_format if self.log_format != "auto" else ("console" if terminal else "json")
        level = "error" if self.quiet else self.log_level
        if self.log_format == "auto" and terminal and self.log_level == "info":
            level = "warning" if not self.quiet else level  # the live display shows the rest
        log.set_up(style=style, level=level, secrets=self.secrets)

    def load(self, path: Path, shard: Shard | None = None) -> Migration:
        """Reads the migration file; from here on the log hides its secrets."""
        from engine.config import load_migration

        migration = load_migration(path)
        self.secrets.update(migration.secrets)
        if shard is not None:
            return migration.of_shard(shard, self._own_ledger(migration.ledger, shard))
        return migration if self.ledger is None else migration.lying_at(self.ledger.absolute())

    def _own_ledger(self, ledger: Path, shard: Shard) -> Path:
        """Beside that of the whole migration, unless --ledger names that of a shard."""
        from engine.content.shard import names_a_shard

        if self.ledger is not None and names_a_shard(self.ledger.name):
            return self.ledger.absolute()
        whole = ledger if self.ledger is None else self.ledger.absolute()
        return whole.with_name(shard.ledger_name(whole.name))

    def load_fleet(self, path: Path, names: Sequence[str], shard: Shard | None = None) -> Fleet:
        """The same for a fleet file, and those of its migrations; --ledger is then the folder of the ledgers."""
        from engine.config import load_fleet

        fleet = load_fleet(path, ledgers=self.ledger)
        self.secrets.update(fleet.secrets)
        fleet = fleet.only(names)
        return fleet if shard is None else fleet.of_shard(shard)

    def ledger_of(self, path: Path, shard: Shard | None = None) -> Path:
        """The ledger that `path` means: itself, or that of a migration file."""
        found = self.ledger or (_ledger_of_migration(path) if is_migration(path) else path)
        return found if shard is None else self._own_ledger(found, shard)


def is_migration(path: Path) -> bool:
    """Whether it is a migration file, where it may be a ledger as well; what is not there or empty, by its name."""
    # asked of os.path: a Path raises where a folder may not be searched
    if path.suffix == _LEDGER_ENDING or os.path.isdir(path):
        return False
    if os.path.exists(path) and not os.path.isfile(path):  # a pipe: no ledger is read from one
        return True
    try:
        with path.open("rb") as file:
            head = file.read(len(_LEDGER_HEAD))
    except OSError:  # whoever reads it says so
        head = b""
    return not _LEDGER_HEAD.startswith(head) if head else path.suffix.lower() in _MIGRATION_ENDINGS


def _ledger_of_migration(path: Path) -> Path:
    from engine.config import ledger_of

    try:
        return ledger_of(path)
    except ConfigError as error:
        if path.suffix.lower() in _MIGRATION_ENDINGS:
            raise
        either = "; and it is no ledger of promptferry"
        raise ConfigError([replace(one, message=one.message + either) for one in error.problems]) from None


def command(group: typer.Typer, name: str) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """Makes a function a command: adds the common flags, and turns errors into sentences and exit codes."""

    def register(function: Callable[..., int]) -> Callable[..., int]:
        own = [parameter for parameter in _typed(function) if parameter.name != "common"]
        shared = _typed(Common)
        whole = f"{group.info.name} {name}"

        def wrapper(**values: Any) -> None:
            common = Common(**{parameter.name: values.pop(parameter.name) for parameter in shared})
            common.set_up_log()
            with telemetry.observed(whole) as ended:
                ended(exit_code := guarded(function, common, values))
            raise typer.Exit(exit_code)

        wrapper.__signature__ = inspect.Signature(own + shared)  # type: ignore[attr-defined]
        wrapper.__annotations__ = {parameter.name: parameter.annotation for parameter in own + shared}
        wrapper.__doc__ = function.__doc__
        group.command(name)(wrapper)
        return function

    return register


def _typed(function: Callable[..., Any]) -> list[inspect.Parameter]:
    hints = get_type_hints(function, include_extras=True)
    return [
        parameter.replace(annotation=hints[parameter.name], kind=inspect.Parameter.KEYWORD_ONLY)
        for parameter in inspect.signature(function).parameters.values()
    ]


def guarded(function: Callable[..., int], common: Common, values: dict[str, Any]) -> int:
    """Runs a command; what it raises on purpose becomes a sentence and an exit code."""
    try:
        return function(common=common, **values)
    except EngineError as error:
        return _say(error)


def run_async(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """For what writes nothing, and so looks after no signals: one cancels it, and it clears up. Raises Stop then."""
    import anyio

    from engine.migrate.halt import Halt
    from engine.migrate.interrupt import interruptible

    async def main() -> T:
        halt = Halt()
        async with interruptible(halt, signals=True):
            return await halt.guard(work())

    try:
        return anyio.run(main)
    finally:
        early.take()


def _say(error: EngineError) -> int:
    """One clear sentence on stderr, what to do now, and the exit code."""
    if isinstance(error, ConfigError):
        for problem in error.problems:
            print(f"error: {problem}", file=sys.stderr)
        return EXIT_USAGE
    print(f"error: {error}", file=sys.stderr)
    if isinstance(error, Stop):
        print(error.next, file=sys.stderr)
        return error.exit_code
    return EXIT_RETRY if isinstance(error, AnswerError) and error.status is None else EXIT_ACT


def write_file(file: Path, data: bytes, what: str, *, over: bool, mode: int = PUBLIC) -> None:
    """So that nobody ever reads half of it. `over`: also over a file that is there. Raises ConfigError, with `what`."""
    try:
        if not over:
            with new_file(file, mode=mode) as opened:
                opened.write(data)
        elif os.path.lexists(file) and not _may_be_replaced(file):
            file.write_bytes(data)
        else:
            beside = file.with_name(f".promptferry-{os.getpid()}.tmp")
            with new_file(beside, mode=mode, over=True) as opened:
                opened.write(data)
            put_in_place(beside, file)
    except FileExistsError:
        raise ConfigError(f"{what}: is there already; name another file, or remove it first") from None
    except OSError as error:
        raise ConfigError(f"{what}: cannot be written: {error.strerror}") from error


def is_stdout(file: Path) -> bool:
    """Whether what is written to that file goes where results go, so that nothing else should."""
    try:
        return os.path.samefile(file, sys.stdout.fileno())
    except OSError:
        return False


def _may_be_replaced(file: Path) -> bool:
    """A link, a pipe or a device stays what it is, and a file in a folder where nobody may make another one."""
    return stat.S_ISREG(file.lstat().st_mode) and os.access(file.parent, os.W_OK | os.X_OK)


def amount(flag: str, text: str, things: str) -> tuple[float, bool]:
    """A number of things, or with True a share of them in percent. Raises ConfigError."""
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)(%?)", text)
    if match is None or (not match[2] and "." in match[1]) or (match[2] and float(match[1]) > 100):
        raise ConfigError(f"{flag} {text!r}: must be a number of {things} such as 20, or a share such as 5%")
    return float(match[1]), bool(match[2])


def on_terminal() -> bool:
    """Whether somebody can be asked."""
    return sys.stdin.isatty() and sys.stdout.isatty()


def confirmation(*, yes: bool, needed: bool, ends: str = "") -> Callable[[str], Awaitable[bool]]:
    """Says on stderr what is to be done, with `ends` before it, and asks on a terminal. Raises ConfigError where nobody
    can be asked.
    """
    if needed and not yes and not on_terminal():
        raise ConfigError("this asks before it begins, and nobody is here to answer: give --yes")

    async def confirm(what: str) -> bool:
        print(f"{ends}{what}", file=sys.stderr)
        return yes or not needed or await yes_or_no()

    return confirm


async def yes_or_no() -> bool:
    """Asks a terminal whether to go on; a signal meanwhile is whose business it was before."""
    import anyio

    print("go on? [y/N] ", end="", flush=True)
    answer = ""
    try:
        await anyio.wait_readable(sys.stdin)  # input() would miss a signal that comes just before it reads
        answer = sys.stdin.readline()
    finally:
        if not answer:
            print()
    return answer.strip().lower() in ("y", "yes")


def say(text: str) -> bool:
    """A result, out of our hands when it returns. False: a reader who has seen enough, which is no error. Raises Stop
    when the disk is full.

    A terminal does what it is told by control characters, which may stand in any name: there they are shown instead.
    """
    if sys.stdout.isatty():
        text = text.translate(_SHOWN)
    try:
        sys.stdout.write(text.rstrip("\n") + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        _deaf_stdout()
        return False
    except OSError as error:
        _deaf_stdout()
        advice = "Free that disk, or send the output elsewhere, and run the same command again."
        raise Stop("disk", f"the result could not be written to stdout ({error.strerror})", next=advice) from error
    return True


def note(sentences: Iterable[str]) -> None:
    """Beside a result, on stderr."""
    for sentence in sentences:
        print(f"note: {sentence}", file=sys.stderr)


def _deaf_stdout() -> None:
    """So that what is still buffered cannot fail a second time, when Python ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
