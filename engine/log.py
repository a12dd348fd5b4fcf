"""The log: structlog on stderr, set up once by the command line; silent when the engine is used as a library.

A host that has configured structlog itself keeps its configuration. Secrets are scrubbed from the finished line, last.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Collection, MutableMapping
from contextlib import AbstractContextManager
from functools import cache
from typing import Any, Final, TextIO

import structlog

LEVELS: Final = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
HIDDEN: Final = "***"

log: Any = structlog.get_logger("promptferry")


def scrub(text: str, secrets: Collection[str]) -> str:
    """The text without any of the secrets, as they are or as JSON writes them."""
    # the longest first: one may be the beginning of another, whose rest would stay
    for secret in sorted(filter(None, secrets), key=len, reverse=True):
        for form in _forms(secret):
            text = text.replace(form, HIDDEN)
    return text


@cache
def _forms(secret: str) -> frozenset[str]:
    return frozenset({secret, json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]})


class _Scrub:
    """The last processor: takes secrets out of the line as it would be written."""

    def __init__(self, secrets: Collection[str]) -> None:
        self._secrets = secrets

    def __call__(self, logger: Any, method: str, line: Any) -> str:
        return scrub(line, self._secrets)


def set_up(*, style: str, level: str, secrets: Collection[str], stream: TextIO = sys.stderr) -> None:
    """`style`: json | console. `secrets` may grow later. Lines below `level` are not even rendered."""
    renderer: Any = structlog.processors.JSONRenderer()
    if style == "console":
        renderer = structlog.dev.ConsoleRenderer(colors=False, pad_event_to=0)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _in_order,
            renderer,
            _Scrub(secrets),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=structlog.PrintLoggerFactory(stream),
        cache_logger_on_first_use=True,
    )


def log_within(**fields: str) -> AbstractContextManager[None]:
    """Every line that is logged inside, by whatever task begins there, has these fields."""
    return structlog.contextvars.bound_contextvars(**fields)


def _in_order(logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """When, how grave and what first: people read the beginning of a line."""
    return {name: event.pop(name) for name in ("timestamp", "level", "event")} | dict(event)


def _drop(logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    raise structlog.DropEvent


if not structlog.is_configured():
    # below critical, which is never used here, this costs nothing
    structlog.configure(processors=[_drop], wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
