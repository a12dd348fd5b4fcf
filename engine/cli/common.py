"""What every command takes and how every command ends: the common flags, errors as sentences, exit codes."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, get_type_hints

import typer
from typer import Option

from engine.errors import EXIT_ACT, EXIT_RETRY, EXIT_USAGE, AnswerError, ConfigError, EngineError, Stop

if TYPE_CHECKING:
    from engine.config import Migration


LATER: Final = "not available in this version"


@dataclass(slots=True)
class Common:
    """The flags that every command has."""

    ledger: Annotated[Path | None, Option("--ledger", help="Ledger to use in place of the migration file's.")] = None
    log_format: Annotated[str, Option("--log-format", help="auto, console or json.")] = "auto"
    log_level: Annotated[str, Option("--log-level", help="debug, info, warning or error.")] = "info"
    quiet: Annotated[bool, Option("--quiet", help="No log and no progress; results only.")] = False
    no_progress: Annotated[bool, Option("--no-progress", help="No live display and no progress lines.")] = False
    secrets: set[str] = field(default_factory=set, init=False)
    """What the log must not show."""

    def set_up_log(self) -> None:
        """Starts the log. Raises ConfigError for an unknown format or level."""
        from engine import log

        if self.log_format not in ("auto", "console", "json"):
            raise ConfigError(f"--log-format {self.log_format!r}: must be auto, console or json")
        if self.log_level not in log.LEVELS:
            raise ConfigError(f"--log-level {self.log_level!r}: must be one of {', '.join(log.LEVELS)}")
        terminal = sys.stderr.isatty()
        style = self.log_format if self.log_format != "auto" else ("console" if terminal else "json")
        level = "error" if self.quiet else self.log_level
        if self.log_format == "auto" and terminal and self.log_level == "info":
            level = "warning" if not self.quiet else level  # the live display shows the rest
        log.set_up(style=style, level=level, secrets=self.secrets)

    def load(self, path: Path) -> Migration:
        """Reads the migration file; from here on the log hides its secrets."""
        from engine.config import load_migration

        migration = load_migration(path)
        self.secrets.update(migration.secrets)
        return migration if self.ledger is None else migration.model_copy(update={"ledger": self.ledger.absolute()})

    def ledger_of(self, path: Path) -> Path:
        """The ledger that `path` means: itself, or that of a migration file."""
        if self.ledger is not None:
            return self.ledger
        return path if path.suffix not in (".yaml", ".yml") else self.load(path).ledger


def command(group: typer.Typer, name: str) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """Makes a function a command: adds the common flags, and turns errors into sentences and exit codes."""

    def register(function: Callable[..., int]) -> Callable[..., int]:
        own = [parameter for parameter in _typed(function) if parameter.name != "common"]
        shared = _typed(Common)

        def wrapper(**values: Any) -> None:
            common = Common(**{parameter.name: values.pop(parameter.name) for parameter in shared})
            raise typer.Exit(guarded(function, common, values))

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
        common.set_up_log()
        return function(common=common, **values)
    except EngineError as error:
        return _say(error)


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
