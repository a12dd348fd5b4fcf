"""From what a write raised to what became of it."""

from __future__ import annotations

from collections.abc import Awaitable

from engine.errors import Exists, Rejected, Transient, UnknownOutcome
from engine.model import Failed, Outcome, Unknown


async def outcome(write: Awaitable[Outcome]) -> Outcome:
    """The outcome of one create or update; Stop goes through, and so does everything that is a bug."""
    try:
        return await write
    except UnknownOutcome as error:
        return Unknown(error=error.error, message=str(error))
    except (Rejected, Transient) as error:
        return Failed(
            error=error.error,
            message=str(error),
            status=error.status,
            code=error.code,
            retriable=isinstance(error, Transient),
            exists=isinstance(error, Exists),
        )
