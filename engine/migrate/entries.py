"""The lines that the verbs write into the ledger. Pure; nothing here may hold template text or a secret."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence, Sized
from dataclasses import replace
from datetime import datetime
from typing import Final

from engine.content.digest import part_digest
from engine.content.selection import find
from engine.errors import AnswerError
from engine.ledger.parts import PartRecord
from engine.ledger.writes import FIRST
from engine.migrate.task import Prepared, Revision
from engine.model import (
    Created,
    Entry,
    Failed,
    Json,
    Mark,
    Named,
    Outcome,
    Part,
    PartKey,
    Prompt,
    Row,
    Unknown,
    stored_version,
)

MESSAGE_BYTES: Final = 500
CLOCKS_APART_S: Final = 60.0
UPDATE: Final = {"op": "update"}
_LONGER: Final = ("source_slug", "source_collection_id")
_NAMES: Final = ("model", "provider", "collection")
"""Fields that name something, and hold nothing of a prompt's text."""
MOST_EXACT: Final = 2**53
"""Above it a reader that has only floats, as JavaScript does, has another integer."""
EXISTS: Final = "exists"
"""The `error` of an `unknown` line after a 409: the registry has that name, and a look-up tells whose it is."""


def origin_of(row: Row, collections: Sequence[Named] | None) -> dict[str, Json]:
    """Whose line it is; by name, slug and collection too, so that readers of the ledger can choose by them."""
    known = find(collections, row.collection)
    collection = known.slug if known is not None else row.collection
    return {
        "source_id": row.id,
        "source_name": row.name,
        "source_collection": collection,
        **({"source_slug": row.slug} if row.slug not in (None, row.id) else {}),
        **({"source_collection_id": known.id} if known is not None and known.id != collection else {}),
    }


def _in_short(origin: Mapping[str, Json]) -> dict[str, Json]:
    """Of lines that others about the same prompt follow, which can be chosen by all of it."""
    return {name: value for name, value in origin.items() if name not in _LONGER}


def compared_at(updated_at: str | None, now: float) -> str | None:
    """The time of a change, where whatever changes from now on surely has another one; else None: compare again.

    Registries keep times to the second, and their clocks are not ours.
    """
    try:
        changed = datetime.fromisoformat(updated_at or "").timestamp()
    except ValueError:
        return None
    return updated_at if now - changed > CLOCKS_APART_S else None


def intent(origin: Mapping[str, Json], prepared: Prepared, attempt: int) -> Entry:
    """Durable before the first byte of a create or update leaves."""
    revision = prepared.revision
    return Entry(
        "intent",
        {
            **(origin if revision is not None else _in_short(origin)),
            "op": "create" if revision is None else "update",
            "key": prepared.replica.mark.key,
            "name": prepared.replica.prompt.name,
            "body_sha256": hashlib.sha256(prepared.body).hexdigest(),
            "attempt": attempt,
            "base_version": None if revision is None else stored_version(revision.base),
            **(_update_intended(prepared, revision) if revision is not None else {}),
        },
    )


def _update_intended(prepared: Prepared, revision: Revision) -> dict[str, Json]:
    """What tells later whether it happened, and what was there before it."""
    versions = {
        "source_version": stored_version(prepared.replica.source.version),
        "collection": prepared.replica.prompt.collection,
    }
    return {**_before(revision), **versions, "replica_digest": prepared.replica.mark.replica_digest}


def of(
    origin: Mapping[str, Json],
    prepared: Prepared,
    outcome: Outcome,
    *,
    now: float,
    seen: Mapping[str, Json],
    pending: bool = False,
) -> Entry:
    """What became of a create, or of an update that did not arrive: of one that did, the version is looked at first.

    `pending`: labels or the rest of the history follow. `seen`: see `failed`.
    """
    op = UPDATE if prepared.revision is not None else {}
    stage = "update" if op else "create"
    match outcome:
        case Failed(exists=True) if not op:  # 409: the look-up tells ours from somebody else's
            return Entry("unknown", {**origin, **op, "stage": stage, "error": EXISTS})
        case Failed():
            return failed(origin, stage, outcome, seen, **op)
        case Unknown():
            return Entry("unknown", {**origin, **op, "stage": stage, "error": outcome.error})
        case Created() if not op:
            made: dict[str, Json] = {
                "target_id": outcome.target_id,
                "target_slug": outcome.target_slug,
                "how": "response",
            }
            made |= {"after_version": stored_version(outcome.version)} if outcome.version != FIRST else {}
            told = {**_copied(prepared, now), **made, "changes": changes_of(prepared)}
            return Entry("created", {**origin, **told, **({"pending": True} if pending else {})})
        case _:
            raise RuntimeError(f"the {stage} of a prompt ended as {type(outcome).__name__}")


def updated(
    origin: Mapping[str, Json],
    prepared: Prepared,
    *,
    how: str,
    after: str | None,
    published: bool,
    now: float,
    pending: bool,
) -> Entry:
    """A prompt that has a new version, or a new head; `published`: that version is what applications get."""
    revision = prepared.revision
    assert revision is not None  # nothing else is an update
    return Entry(
        "updated",
        {
            **origin,
            **_copied(prepared, now),
            **_before(revision),
            "target_slug": revision.before.slug,
            "how": how,
            "collection": prepared.replica.prompt.collection,
            "after_version": stored_version(after),
            "published": published,
            "changes": changes_of(prepared),
            **({"pending": True} if pending else {}),
        },
    )


def changes_of(prepared: Prepared) -> list[list[Json]]:
    """[field, before, after] of what the rules changed, or an update, but for names; of texts only that they did.

    Values of parameters may quote the template: numbers are told as they are, of the others what kind they are.
    """
    revision, rewritten = prepared.revision, prepared.rewritten
    compared = rewritten if revision is None else replace(rewritten, source=revision.before)
    return [
        [change.field, _told(change.field, change.before), _told(change.field, change.after)]
        for change in compared.changes
        if change.field != "name"
    ]


def _told(field: str, value: Json) -> Json:
    if isinstance(value, str):
        return short(value) if field in _NAMES else "a text"
    if isinstance(value, Sized):
        return f"{len(value)} {'keys' if isinstance(value, Mapping) else 'items'}"
    if value is None or isinstance(value, bool) or (isinstance(value, int | float) and _exact(value)):
        return value
    return str(value)


def _exact(value: float) -> bool:
    """Whether whoever reads the ledger, such as a browser, has the same number."""
    return abs(value) <= MOST_EXACT if isinstance(value, int) else math.isfinite(value)


def _before(revision: Revision) -> dict[str, Json]:
    """What a rollback goes back to."""
    return {
        "target_id": revision.target_id,
        "before_version": stored_version(revision.published),
        "before_name": revision.before.name,
        "before_collection": revision.before.collection,
        "before_labels": list(revision.before.labels),
    }


def _copied(prepared: Prepared, now: float) -> dict[str, Json]:
    source = prepared.replica.source
    return {
        "source_slug": source.slug,
        "source_version": stored_version(source.version),
        "source_updated_at": compared_at(source.updated_at, now),
        "name": prepared.replica.prompt.name,
        "model": prepared.replica.prompt.model,
        "source_digest": prepared.replica.mark.source_digest,
        "replica_digest": prepared.replica.mark.replica_digest,
    }


def unchanged(
    origin: Mapping[str, Json],
    *,
    source_updated_at: str | None,
    target_updated_at: str | None,
    mark: Mark | None = None,
    edited: bool = False,
) -> Entry:
    """It was compared, and there is nothing to do. `mark`: what both hold now, where that is not what they held."""
    digests = {} if mark is None else {"source_digest": mark.source_digest, "replica_digest": mark.replica_digest}
    times = {"source_updated_at": source_updated_at, "target_updated_at": target_updated_at}
    return Entry("unchanged", {**origin, **times, **digests, **({"edited": True} if edited else {})})


def version(origin: Mapping[str, Json], target_id: str, source_version: str, target_version: str) -> Entry:
    """One version of a history has arrived."""
    refs = {"source_version": stored_version(source_version), "target_version": stored_version(target_version)}
    return Entry("version", {**_in_short(origin), "target_id": target_id, **refs})


def verified(origin: Mapping[str, Json], target_id: str, result: str, fields: Sequence[str], **more: Json) -> Entry:
    """What a comparison found: same | differs | missing | source_changed."""
    return Entry("verified", {**origin, "target_id": target_id, "result": result, "fields": list(fields), **more})


def published(origin: Mapping[str, Json], target_id: str, result: str, *, before: str | None, version: str) -> Entry:
    """A cut-over: published | already | edited. `before`: the version that was published until then."""
    refs = {"before_version": stored_version(before), "version": stored_version(version)}
    return Entry("published", {**origin, "target_id": target_id, "result": result, **refs})


def rolled_back(origin: Mapping[str, Json], target_id: str | None, result: str, **back_to: Json) -> Entry:
    """deleted | gone | absent | restored | kept. `back_to`: what an earlier run had made, where that is there again."""
    return Entry("rolled_back", {**origin, "target_id": target_id, "result": result, **back_to})


def finished(origin: Mapping[str, Json], target_id: str, prepared: Prepared | None, *, now: float) -> Entry:
    """What was pending is there. `prepared`: of a whole history the version that is published."""
    copied = _copied(prepared, now) if prepared is not None else {}
    return Entry("finished", {**_in_short(origin), "target_id": target_id, **copied})


def adopted(
    origin: Mapping[str, Json], row: Row, source: Prompt | None, found: Row, mark: Mark, *, now: float, pending: bool
) -> Entry:
    """A replica of ours that was found on the target. `source`: what it was made from, when it is what the rules make
    of that now; else they are compared after it.
    """
    return Entry(
        "created",
        {
            **origin,
            "source_slug": row.slug,
            "source_version": stored_version(source.version) if source is not None else None,
            "source_updated_at": compared_at(source.updated_at, now) if source is not None else None,
            "target_id": found.id,
            "target_slug": found.slug,
            "name": found.name,
            "how": "lookup",
            "source_digest": mark.source_digest,
            "replica_digest": mark.replica_digest,
            **({"pending": True} if pending else {}),
        },
    )


def moved(origin: Mapping[str, Json], was: str, target: Row) -> Entry:
    """A prompt that an earlier run knew under the id `was`, and its replica as it is now, which may have moved too."""
    return Entry("moved", {**origin, "was": was, "target_id": target.id, "target_slug": target.slug})


def seen(updated_at: str | None, source_digest: str | None, now: float) -> dict[str, Json]:
    """The source that something failed with: its time of change as it was listed, and its digest, where it was read.

    Where there is a digest, a time that does not tell later changes apart is left out.
    """
    at = updated_at if source_digest is None else compared_at(updated_at, now)
    return {"source_updated_at": at, "source_digest": source_digest}


def failed(
    origin: Mapping[str, Json], stage: str, failure: Failed, seen: Mapping[str, Json], *, op: str | None = None
) -> Entry:
    """Surely no effect on the target. `seen`: what of the source must change before a plain run takes it up again,
    unless it is retriable. `op`: `update`, when it was one of a replica that is there.
    """
    return Entry(
        "failed",
        {
            **origin,
            **({"op": op} if op is not None else {}),
            "stage": stage,
            "error": failure.error,
            "status": failure.status,
            "code": failure.code,
            "message": short(failure.message),
            "retriable": failure.retriable,
            **seen,
        },
    )


def failure(error: AnswerError, *, retriable: bool) -> Failed:
    """What an answer to a read says about its prompt."""
    return Failed(error=error.error, message=str(error), status=error.status, code=error.code, retriable=retriable)


def skipped(origin: Mapping[str, Json], reason: str, *, op: str | None = None) -> Entry:
    """Nothing is to be done for this prompt. `op`: as in `failed`."""
    more = {"op": op} if op is not None else {}
    return Entry("skipped", {**origin, **more, "reason": reason})


def conflict(origin: Mapping[str, Json], reason: str, target_id: str | None, *, op: str | None = None) -> Entry:
    """A person must decide: `exists`, `name_clash`, `edited`, `changed`. `op`: as in `failed`."""
    more = {"op": op} if op is not None else {}
    return Entry("conflict", {**origin, **more, "reason": reason, "target_id": target_id})


def answers(counts: Mapping[str, int]) -> Entry:
    """What a comparison of answers came to: cases by result, and no word of them."""
    return Entry("answers", {"counts": {**counts}})


# ---- what prompts refer to: `what` and no `source_id`, so that readers of prompts pass them over ---------------------


def part_intent(wanted: Part, source: Part, key: str, attempt: int) -> Entry:
    """Durable before the first byte of its create leaves. `wanted`: as it is to be at the target."""
    return Entry(
        "intent", {**part_origin(source.key), "op": "make", **_part_made(wanted, source, key), "attempt": attempt}
    )


def part_made(wanted: Part, source: Part, key: str, made: Created) -> Entry:
    """It is there."""
    told: dict[str, Json] = {"target_id": made.target_id, "target_slug": made.target_slug, "how": "response"}
    return Entry("made", {**part_origin(source.key), **told, **_part_made(wanted, source, key)})


def part_found(key: PartKey, record: PartRecord, found: Named) -> Entry:
    """It was in doubt, and is there."""
    told: dict[str, Json] = {"target_id": found.id, "target_slug": found.slug, "how": "lookup"}
    what_it_is = {"name": record.name, "parent": record.parent, "key": record.mark, "replica_digest": record.digest}
    return Entry("made", {**part_origin(key), **told, **what_it_is, "source_version": stored_version(record.version)})


def part_outcome(key: PartKey, outcome: Failed | Unknown) -> Entry:
    """It is not there, or nobody knows."""
    if isinstance(outcome, Unknown) or outcome.exists:  # 409: a look-up tells whose it is
        error = outcome.error if isinstance(outcome, Unknown) else EXISTS
        return Entry("unknown", {**part_origin(key), "stage": "make", "error": error})
    told = {"error": outcome.error, "status": outcome.status, "code": outcome.code, "message": short(outcome.message)}
    return Entry("failed", {**part_origin(key), "stage": "make", **told})


def part_skipped(key: PartKey) -> Entry:
    """Somebody else has made one like it."""
    return Entry("skipped", {**part_origin(key), "reason": EXISTS})


def part_unmade(key: PartKey, target_id: str | None, result: str) -> Entry:
    """deleted | gone | absent | kept."""
    return Entry("unmade", {**part_origin(key), "target_id": target_id, "result": result})


def part_origin(key: PartKey) -> dict[str, Json]:
    """What each of these lines begins with."""
    return {"what": key[0], "source_slug": key[1]}


def _part_made(wanted: Part, source: Part, key: str) -> dict[str, Json]:
    return {
        "name": wanted.name,
        "parent": wanted.parent,
        "key": key,
        "replica_digest": part_digest(wanted),
        "source_version": stored_version(source.version),
    }


def short(message: str) -> str:
    """At most 500 bytes of UTF-8, cut between characters."""
    return message.encode("utf-8", "backslashreplace")[:MESSAGE_BYTES].decode("utf-8", "ignore")
