"""What one migration is to do, as plain values, and from a definition to what is sent."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from engine.content.digest import MarkIn, digest, key_of, make_replica, read_mark
from engine.content.references import Ends
from engine.content.rewrite import Rewritten, rewrite
from engine.content.shard import Shard
from engine.errors import Rejected
from engine.migrate.claims import Claims
from engine.migrate.readings import Readings
from engine.migrate.task import Prepared, Step
from engine.model import Failed, Mark, Parts, Prompt, Row, Rule, Select, Source, Target, Version, altered


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One migration between two open ends. `registry` is the text of source registry and workspace in every key."""

    migration: str
    registry: str
    source: Source
    target: Target
    ends: Ends
    select: Select
    rules: tuple[Rule, ...]
    allow_loss: frozenset[str]
    carry: frozenset[str] = frozenset()
    """Losses that are carried in the metadata instead."""
    on_existing: str
    in_place: bool = False
    """Mode update: prompts get a new version where they stand."""
    on_change: str = "update"
    on_edited: str = "conflict"
    publish: bool = True
    """A new version becomes the published one."""
    planned: Mapping[str, Step] | None = None
    """Source id -> what a plan says; what is otherwise by now is a conflict. None: there is no plan."""
    rehearsed: Ends | None = None
    """The ends as the plan saw them, before what was missing was made."""
    rewrites: str | None = None
    """Digest of the rules that decide what a replica holds."""
    settle: float
    """Seconds before an unanswered create is looked up."""
    concurrency: int
    attempts: int
    readings: Readings = field(default_factory=Readings)
    shard: Shard | None = None
    """Which part of the prompts it is about; None: all of them."""
    rivals: Sequence[Row] = ()
    """Prompts of other shards that may take a name from one of these."""
    claims: Claims | None = None
    """Names that the other migrations of a fleet give at the same target; None: it is alone there."""

    def takes(self, source_id: str) -> bool:
        """Whether this prompt is no other shard's."""
        return self.shard is None or self.shard.takes(source_id)

    @property
    def parts(self) -> Parts:
        """What makes and removes parts at the target. Only where some are to be made, or were."""
        assert self.target.parts is not None  # a file that asks for it is refused
        return self.target.parts

    async def read_ahead(self, prompt_id: str) -> Prompt:
        """A definition that is needed before its turn comes, and is kept for it. Raises what `Source.fetch` raises."""
        if (known := self.readings.look(prompt_id, self.select.speaking)) is not None:
            return known
        prompt = await self.source.fetch(prompt_id, self.select.speaking)
        self.readings.keep(prompt, self.select.speaking)
        return prompt

    async def read(self, prompt_id: str, version: str) -> Prompt:
        """A definition whose turn has come. Raises what `Source.fetch` raises."""
        return self.readings.take(prompt_id, version) or await self.source.fetch(prompt_id, version)

    async def read_versions(self, prompt_id: str) -> Sequence[Version]:
        """The history of a prompt whose turn has come. Raises what `Source.versions` raises."""
        return self.readings.take_versions(prompt_id) or await self.source.versions(prompt_id)

    def key(self, source_id: str) -> str:
        """The key of the replica of this prompt, the same without any ledger."""
        return key_of(self.migration, self.registry, source_id)

    def claim(self, name: str) -> str | None:
        """The other migration of the fleet that gives this name to a replica; None: it is this one's."""
        return self.claims.claim(name, self.migration) if self.claims is not None else None

    def replicas_among(self, target_ids: Collection[str]) -> Collection[str]:
        """See the function of that name."""
        return replicas_among(self.source, self.target, target_ids)

    def rewritten(self, prompt: Prompt, *, metadata: bool = True) -> Rewritten:
        """What the rules make of it. Without `metadata` nothing is carried: the target does not keep them."""
        return rewrite(prompt, self.rules, self.ends, self.target.fields, carry=self.carry if metadata else ())

    def labels_follow(self, source: Prompt) -> bool:
        """Whether it has labels that its replica can carry."""
        return any(map(self.target.can.carries, source.labels))

    @property
    def puts_out(self) -> bool:
        """Whether what publishes a version has to be put on those that are made."""
        return self.publish and self.target.can.pins

    def is_replica(self, prompt: Prompt) -> bool:
        """Whether this migration made it: then it is no source, whatever it is called by now."""
        mark = read_mark(prompt.metadata, prompt.description)
        return mark is not None and self.made(mark)

    def made(self, mark: Mark) -> bool:
        """Whether it is this migration's own mark, and not one of another source under the same name."""
        return mark.migration == self.migration and mark.key == self.key(mark.source_id)


def prepare(job: Job, prompt: Prompt, *, name: str | None = None, mark_in: MarkIn = "metadata") -> Prepared | Failed:
    """From a definition to what is sent; Failed names what is missing or would be lost. `name` overrides the rules'."""
    try:
        return _prepare(job, prompt, name, mark_in)
    except Rejected as error:
        return Failed(error=error.error, message=str(error))
    except RecursionError:  # JSON can be nested deeper than Python goes; one such prompt must not stop the others
        return Failed(error="too_deep", message="its parameters or tools are nested too deep to be copied without loss")


def _prepare(job: Job, prompt: Prompt, name: str | None, mark_in: MarkIn) -> Prepared | Failed:
    rewritten = job.rewritten(prompt, metadata=mark_in != "description")
    if rewritten.missing:
        return Failed(error="missing", message="; ".join(rewritten.missing), retriable=True)
    if rewritten.refused:
        return Failed(error="untranslatable", message="; ".join(rewritten.refused), retriable=True)
    losses = [loss for loss in rewritten.losses if loss not in job.allow_loss]
    if losses:
        return Failed(error="loss", message=_loss(job, losses, rewritten, mark_in), retriable=True)
    if name is not None:
        rewritten = replace(rewritten, prompt=altered(rewritten.prompt, name=name))
    where: MarkIn = "nowhere" if job.in_place else mark_in
    replica = make_replica(prompt, rewritten.prompt, migration=job.migration, registry=job.registry, mark_in=where)
    return Prepared(replica=replica, body=job.target.encode(replica), rewritten=rewritten)


def _loss(job: Job, losses: Sequence[str], rewritten: Rewritten, mark_in: MarkIn) -> str:
    names = ", ".join(losses)
    message = f"{names} would be lost: accept it with allow_loss: [{names}] in the migration file, and run again"
    if mark_in == "description" and not job.carry.isdisjoint(losses):
        return f"{message}; the target does not keep metadata, so nothing can be carried in them"
    return f"{message}; not carried: {'; '.join(rewritten.uncarried)}" if rewritten.uncarried else message


def digest_of(prompt: Prompt) -> str | None:
    """None: it is nested too deep to have one."""
    try:
        return digest(prompt)
    except RecursionError:
        return None


def replicas_among(source: Source, target: Target, target_ids: Collection[str]) -> Collection[str]:
    """Those ids of the target under which the source would list the same prompt: it is a replica, and no source.

    With two keys, both ends may be one workspace though the file does not say so.
    """
    own = source.can.own_ids and target.can.own_ids
    return target_ids if source is target or own else frozenset()
