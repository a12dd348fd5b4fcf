"""The cut-over: the versions that a migration wrote become the published ones. One write a prompt; may be repeated."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from engine.errors import Rejected, Transient
from engine.ledger.writes import Writes
from engine.migrate import entries
from engine.migrate.context import Context
from engine.migrate.job import Job
from engine.model import Json, stored_version, version_ref
from engine.taskgroup import for_each

RESULTS: Final = ("published", "already", "edited", "not_verified", "failed", "not_started")


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """What became of one prompt. `edited`: somebody published another version since; it stays."""

    source_id: str
    name: str
    target_id: str
    result: str
    before: str | None
    version: str | None
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CutOver:
    """All of it."""

    prompts: Sequence[Published]
    counts: Mapping[str, int]
    notes: Sequence[str] = ()

    @property
    def whole(self) -> bool:
        """Everything that was staged is published."""
        return not any(self.counts[name] for name in ("edited", "not_verified", "failed", "not_started"))

    def to_json(self) -> dict[str, Any]:
        """The object of `publish --json`."""
        prompts = [{**asdict(one), **_stored(one)} for one in self.prompts]
        return {"prompts": prompts, "counts": self.counts, "notes": [*self.notes]}


def _stored(one: Published) -> dict[str, Json]:
    return {"before": stored_version(one.before), "version": stored_version(one.version)}


def staged(pairs: Sequence[Writes]) -> list[Writes]:
    """Those whose last version is not published yet."""
    return [made for made in pairs if made.staged is not None]


async def publish(job: Job, context: Context, pairs: Sequence[Writes], *, verified_only: bool) -> CutOver:
    """Publishes what is staged; every result is in the ledger when it returns. Raises Stop."""
    found: dict[str, Published] = {}

    async def one(made: Writes) -> None:
        found[made.source_id] = await _publish(job, context, made, verified_only=verified_only)

    await for_each(pairs, one, limit=job.concurrency)
    prompts = [found[made.source_id] for made in pairs]
    counts = Counter(one.result for one in prompts)
    return CutOver(prompts=prompts, counts={name: counts[name] for name in RESULTS})


async def _publish(job: Job, context: Context, made: Writes, *, verified_only: bool) -> Published:
    version = made.staged
    assert version is not None  # only what is staged comes here
    before = version_ref(made.last.get("before_version"))

    def says(result: str, message: str = "") -> Published:
        return Published(
            source_id=made.source_id,
            name=made.name,
            target_id=made.target_id,
            result=result,
            before=before,
            version=version,
            message=message,
        )

    if context.halt.stop is not None:
        return says("not_started")
    if verified_only and made.verified != "same":
        return says("not_verified", "its last comparison did not say `same`; run `promptferry verify`")
    try:
        now = (await job.target.fetch(made.target_id)).version
        if now not in (before, version):
            await context.record(entries.published(made.origin, made.target_id, "edited", before=now, version=version))
            return says("edited", f"version {now} was published since; it stays")
        if now != version:
            await job.target.publish(made.target_id, version)
    except (Rejected, Transient) as error:
        return says("not_started" if context.dropped(error) else "failed", str(error))
    result = "already" if now == version else "published"
    await context.record(entries.published(made.origin, made.target_id, result, before=before, version=version))
    return says(result)
