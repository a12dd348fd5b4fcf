"""The error tree, named by what the caller should do.

EngineError                 everything Promptferry raises on purpose
├── Unsupported             this system has no file locks; an ImportError too        exit 2
├── ConfigError             mend the file or the command line; nothing was sent     exit 2
├── Stop                    end the whole run                                        exit 4 or 75
├── Transient               surely no effect and it may work later: try again
├── Rejected                surely no effect and it will not work: give up on this prompt
│   ├── Gone                what was asked for is not there (404)
│   └── Exists              something of that name is there already (409)
└── UnknownOutcome          sent, and nobody knows whether it happened: ask before sending again

Anything else that is raised is a bug: it stops the run, and the ledger makes a rerun safe.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

EXIT_OK: Final = 0
EXIT_UNFINISHED: Final = 1
EXIT_USAGE: Final = 2
EXIT_DIFFERENT: Final = 3
EXIT_ACT: Final = 4
EXIT_RETRY: Final = 75

WORST_FIRST: Final = (EXIT_ACT, EXIT_RETRY, EXIT_UNFINISHED, EXIT_DIFFERENT, EXIT_OK)
"""Which exit code has the word where several runs are one."""

STOP_EXIT: Final = {
    # a person must act
    "key_refused": EXIT_ACT,
    "quota": EXIT_ACT,
    "forbidden": EXIT_ACT,
    "ledger_damaged": EXIT_ACT,
    "ledger_mismatch": EXIT_ACT,
    "too_many_failures": EXIT_ACT,
    "canary": EXIT_ACT,
    "check_failed": EXIT_ACT,
    # the same command goes on where this one stopped
    "interrupted": EXIT_RETRY,
    "time_box": EXIT_RETRY,
    "registry_down": EXIT_RETRY,
    "disk": EXIT_RETRY,
    "ledger_in_use": EXIT_RETRY,
}


class EngineError(Exception):
    """Base of all errors raised on purpose; `str()` is one clear sentence."""


class Unsupported(EngineError, ImportError):
    """Raised by importing what needs another system than this one."""

    def __init__(self) -> None:
        super().__init__(
            "promptferry runs on Linux and macOS, not on Windows itself, for a ledger needs file locks (fcntl): "
            "run it there in WSL or in a container"
        )


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong in a file: where it is and what to do."""

    message: str
    file: str = ""
    line: int | None = None
    key: str = ""

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        return ": ".join(part for part in (place, self.key, self.message) if part)


class ConfigError(EngineError):
    """The migration file or the command line is wrong; carries every problem found."""

    def __init__(self, problems: Sequence[Problem] | str) -> None:
        self.problems = (Problem(problems),) if isinstance(problems, str) else tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class Stop(EngineError):
    """End the run. `reason` is one of STOP_EXIT; `next` says what to do now."""

    def __init__(self, reason: str, message: str, *, next: str) -> None:
        self.reason = reason
        self.next = next
        self.exit_code = STOP_EXIT[reason]
        super().__init__(message)


class AnswerError(EngineError):
    """What a registry answered, or that it did not; `code` is the registry's own error code. `body`: of a call that
    tries a model, what came as it came; it may quote what was sent, so nobody shows it.
    """

    def __init__(
        self, message: str, *, error: str, status: int | None = None, code: str | None = None, body: bytes = b""
    ) -> None:
        self.error = error
        self.status = status
        self.code = code
        self.body = body
        super().__init__(message)


class Transient(AnswerError):
    """Surely no effect, and it may work later."""


class Rejected(AnswerError):
    """Surely no effect, and repeating it will not help."""


class Gone(Rejected):
    """What was asked for is not there."""


class Exists(Rejected):
    """Something of that name is there already."""


class UnknownOutcome(AnswerError):
    """It was sent and may have happened: look before sending it again."""
