"""From what a write raised to what became of it."""

from __future__ import annotations

from collections.abc import Awaitable

from engine.errors import Exists, Rejected, Transient, UnknownOutcome
from engine.model import Failed, Json, Outcome, Unknown


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


def made_id(answer: Json) -> str:
    """The id of what was created. UnknownOutcome where the answer has none: something was made, or nothing."""
    made = answer.get("id") if isinstance(answer, dict) else None
    if not isinstance(made, str) or not made:
        raise UnknownOutcome("the answer to the create has no id", error="no_id")
    return made
