"""Takes over replicas that no ledger knows: says which were edited since they were made, and whose source changed."""

from __future__ import annotations

from dataclasses import replace

from engine.content.digest import differences, digest
from engine.errors import Rejected, Transient
from engine.migrate.job import Job, prepare
from engine.migrate.task import Adoption, Match
from engine.model import Failed, Prompt, Row

EDITED = "was edited since it was made; it is taken over as it is"
CHANGED = "its source changed since it was made"
_BY_TAGS = frozenset({"metadata", "collection"})


async def examine(job: Job, row: Row, match: Match) -> Adoption | None:
    """None: without digests in its mark nobody can say whether it was edited, and it is not what we would make now."""
    source = await _source(job, row)  # None: only the mark speaks for it
    if match.mark.replica_digest is None:
        return _compared(job, match, source)
    edited = match.digest != match.mark.replica_digest
    changed = source is not None and digest(source) != match.mark.source_digest
    notes = ((EDITED,) if edited else ()) + ((CHANGED,) if changed else ())
    same = source is not None and not changed and _would_make(job, match, source) == match.mark.replica_digest
    labelled = source is not None and job.labels_follow(source)
    return Adoption(match=match, source=source if same else None, labelled=labelled, notes=notes)


async def is_unfinished(job: Job, row: Row, found: Prompt) -> bool:
    """Whether a prompt without a mark is what a create leaves behind that was killed before its second call: what we
    would make now, but for tags that are still missing.
    """
    source = await _source(job, row)
    prepared = prepare(job, source, name=found.name) if source is not None else None
    if prepared is None or isinstance(prepared, Failed):
        return False
    return lacks_tags_only(prepared.replica.prompt, found)


def lacks_tags_only(wanted: Prompt, found: Prompt) -> bool:
    """Whether it is what is wanted, but for tags that are still missing."""
    if not _BY_TAGS.issuperset(differences(wanted, found)):
        return False
    tags = all(wanted.metadata.get(key) == value for key, value in found.metadata.items())
    return tags and found.collection in (None, wanted.collection)


async def _source(job: Job, row: Row) -> Prompt | None:
    """None: it cannot be read now."""
    try:
        return await job.read_ahead(row.id)
    except (Rejected, Transient):
        return None


def _would_make(job: Job, match: Match, source: Prompt) -> str | None:
    """Digest of the replica that the rules make of its source now."""
    prepared = prepare(job, source, name=match.row.name)
    return None if isinstance(prepared, Failed) else prepared.replica.mark.replica_digest


def _compared(job: Job, match: Match, source: Prompt | None) -> Adoption | None:
    if source is None:
        return None
    prepared = prepare(job, source, name=match.row.name)
    if isinstance(prepared, Failed) or match.digest != prepared.replica.mark.replica_digest:
        return None
    ours = replace(match, mark=prepared.replica.mark)
    return Adoption(match=ours, source=source, labelled=job.labels_follow(source), notes=())
