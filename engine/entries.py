"""The lines that the verbs write into the ledger. Pure; nothing here may hold template text or a secret."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Final

from engine.errors import AnswerError
from engine.job import Draft
from engine.model import Entry, Failed, Json, Mark, Named, Outcome, Prompt, Row, Unknown
from engine.selection import find

MESSAGE_BYTES: Final = 500
EXISTS: Final = "exists"
"""The `error` of an `unknown` line after a 409: the registry has that name, and a look-up tells whose it is."""


def origin(row: Row, collections: Sequence[Named] | None) -> dict[str, Json]:
    """Whose line it is; by name and collection too, so that readers of the ledger can choose by them."""
    known = find(collections, row.collection)
    return {
        "source_id": row.id,
        "source_name": row.name,
        "source_collection": known.slug if known is not None else row.collection,
    }


def intent(whose: Mapping[str, Json], draft: Draft, attempt: int) -> Entry:
    """Durable before the create's first byte leaves."""
    return Entry(
        "intent",
        {
            **whose,
            "op": "create",
            "key": draft.replica.mark.key,
            "name": draft.replica.prompt.name,
            "body_sha256": hashlib.sha256(draft.body).hexdigest(),
            "attempt": attempt,
            "base_version": None,
        },
    )


def of(whose: Mapping[str, Json], draft: Draft, outcome: Outcome) -> Entry:
    """What became of a create."""
    if isinstance(outcome, Failed) and outcome.exists:  # 409: the look-up tells ours from somebody else's
        return Entry("unknown", {**whose, "stage": "create", "error": EXISTS})
    if isinstance(outcome, Failed):
        return failed(whose, "create", outcome)
    if isinstance(outcome, Unknown):
        return Entry("unknown", {**whose, "stage": "create", "error": outcome.error})
    source = draft.replica.source
    return Entry(
        "created",
        {
            **whose,
            "source_slug": source.slug,
            "source_version": source.version,
            "source_updated_at": source.updated_at,
            "target_id": outcome.target_id,
            "target_slug": outcome.target_slug,
            "name": draft.replica.prompt.name,
            "how": "response",
            "source_digest": draft.replica.mark.source_digest,
            "replica_digest": draft.replica.mark.replica_digest,
        },
    )


def adopted(whose: Mapping[str, Json], row: Row, source: Prompt | None, found: Row, mark: Mark) -> Entry:
    """A replica of ours that was found on the target. `source`: what it was made from, when that is known."""
    return Entry(
        "created",
        {
            **whose,
            "source_slug": row.slug,
            "source_version": source.version if source is not None else None,
            "source_updated_at": source.updated_at if source is not None else None,
            "target_id": found.id,
            "target_slug": found.slug,
            "name": found.name,
            "how": "lookup",
            "source_digest": mark.source_digest,
            "replica_digest": mark.replica_digest,
        },
    )


def failed(whose: Mapping[str, Json], stage: str, failure: Failed) -> Entry:
    """Surely no effect on the target."""
    return Entry(
        "failed",
        {
            **whose,
            "stage": stage,
            "error": failure.error,
            "status": failure.status,
            "code": failure.code,
            "message": short(failure.message),
            "retriable": failure.retriable,
        },
    )


def failure(error: AnswerError, *, retriable: bool) -> Failed:
    """What an answer to a read says about its prompt."""
    return Failed(error=error.error, message=str(error), status=error.status, code=error.code, retriable=retriable)


def skipped(whose: Mapping[str, Json], reason: str) -> Entry:
    """Nothing is to be done for this prompt."""
    return Entry("skipped", {**whose, "reason": reason})


def conflict(whose: Mapping[str, Json], reason: str, target_id: str | None) -> Entry:
    """A person must decide: `exists`, `name_clash`, `edited`."""
    return Entry("conflict", {**whose, "reason": reason, "target_id": target_id})


def short(message: str) -> str:
    """At most 500 bytes of UTF-8, cut between characters."""
    return message.encode("utf-8", "backslashreplace")[:MESSAGE_BYTES].decode("utf-8", "ignore")
