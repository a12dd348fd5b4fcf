"""Traces and metrics by OTLP, where the OTEL_* variables ask for them and the extra `otel` is there.

Nothing of OpenTelemetry is imported otherwise, and nothing is put around a request.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from engine.cli.otel import Observation

ENDPOINTS: Final = tuple(f"OTEL_EXPORTER_OTLP_{signal}ENDPOINT" for signal in ("", "TRACES_", "METRICS_"))
EXTRA: Final = "pip install 'promptferry[otel]'"

_hear: list[Callable[[Mapping[str, Any]], None]] = []
"""Who is told the summary of the command that runs."""


def asked() -> bool:
    """As the variables say."""
    disabled = os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    return not disabled and any(os.environ.get(name, "").strip() for name in ENDPOINTS)


@contextmanager
def observed(command: str) -> Iterator[Callable[[int], None]]:
    """One command, by its name; what is yielded takes its exit code. Leaving the block sends what was observed, if that
    can be done soon; nothing here fails or delays the command itself.
    """
    with ExitStack() as stack:
        observation = _begun(command, stack) if asked() else None
        if observation is None:
            yield lambda _exit_code: None
            return
        _hear.append(observation.told)
        try:
            yield observation.ended
        finally:
            _hear.clear()


def _begun(command: str, stack: ExitStack) -> Observation | None:
    """What observes it until the stack is left; None, and said in the log, where that cannot be."""
    try:
        from engine.cli import otel

        return stack.enter_context(otel.observed(command))
    except ImportError:
        level, why = "info", f"OTEL_EXPORTER_OTLP_ENDPOINT is set, and the extra is not there: {EXTRA}"
    except (ValueError, RuntimeError) as error:  # what OpenTelemetry raises for what it reads in its variables
        level, why = "warning", f"the OTEL_* variables hold what OpenTelemetry does not take: {error}"
    from engine.log import log

    getattr(log, level)("telemetry.unavailable", why=why)
    return None


def tell(summary: Mapping[str, Any]) -> None:
    """The summary of a run or of a fleet's, to whoever observes."""
    for hear in _hear:
        hear(summary)
