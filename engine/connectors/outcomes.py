"""From what a write raised to what became of it, or to what `check --write-test` says."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

from engine.errors import Exists, Gone, Rejected, Transient, UnknownOutcome
from engine.model import Failed, Finding, Json, Outcome, Unknown


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


def unlabelled(prompt_id: str, label: str) -> Gone:
    """No version carries this label, or there is no such prompt."""
    return Gone(f"no version of {prompt_id!r} carries the label {label!r}", error="no_label", status=404)


async def tried(name: str, findings: AsyncIterator[Finding]) -> AsyncIterator[Finding]:
    """What a write test on the scratch prompt of this name finds, until something goes wrong."""
    try:
        async for finding in findings:
            yield finding
    except (Rejected, Transient, UnknownOutcome) as error:
        yield Finding(level="problem", where="target", text=f"the write test on {name} went wrong: {error}")


async def cleared(
    name: str, delete: Callable[[str], Awaitable[None]], good: str = "a prompt can be deleted"
) -> Finding:
    """Whether the scratch prompt could be deleted. `good`: what is said when it could."""
    try:
        await delete(name)
    except (Rejected, Transient) as error:
        text = f"{name} could not be deleted; do it by hand: {error}"
        return Finding(level="problem", where="target", text=text)
    return Finding(level="ok", where="target", text=good)
