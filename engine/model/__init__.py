"""The vocabulary of Promptferry. Read this first.

A `Row` is what a listing says of a prompt, a `Prompt` its whole definition, a `Replica` what is to be made of it,
an `Outcome` what became of that, an `Entry` the line in the ledger that says so. `Source` and `Target` are what a
connector gives; everything else in the engine speaks to registries through them. How a registry writes its prompts is
the `Dialect` in `dialect.py`. Imports nothing of ours but numbers that keep their written form.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple, Protocol

from engine.lossless_json.numbers import Number
from engine.model.dialect import Dialect, NameRule
from engine.model.frozen import frozen
from engine.model.packed import Form, PackedList, columns_of, maker
from engine.model.part import Part as Part
from engine.model.part import PartKey as PartKey
from engine.model.prompt import DEFAULT_DIALECT as DEFAULT_DIALECT
from engine.model.prompt import Inputs as Inputs
from engine.model.prompt import Prompt as Prompt
from engine.model.prompt import altered as altered

Json = Any
"""A decoded JSON value: None, bool, int, float, Number (what these two cannot say), str, list or dict of the same."""

_NUMBER: Final = re.compile(r"[1-9][0-9]*|0")

LABELLED: Final = "label:"
"""What stands before the name of a label where a version is asked for: the one that carries it."""
MARK_KEY: Final = "promptferry"
"""The key of `Prompt.metadata` under which a replica carries its `Mark`, or the mark's key alone."""

# ---- what a registry holds -------------------------------------------------------------------------------------------


class Row(NamedTuple):
    """One row of a listing: enough to select by, never the template. A tuple, because a library has a million of them,
    and they are packed and made anew.
    """

    id: str
    name: str
    slug: str | None = None
    collection: str | None = None
    """Id of the collection."""
    model: str | None = None
    created_at: str | None = None
    updated_at: str | None = None
    archived: bool = False
    whole: bool = False
    """Where it has no model or no collection, its definition has none either; else only the definition tells."""
    labels: Collection[str] | None = None
    """Names of all labels on its versions, the one that publishes among them; None: not told."""


ROW: Final[Form[Row]] = Form(tuple, maker(Row))
ROWS: Final = columns_of(Row)


def packed_rows(rows: Iterable[Row] = ()) -> PackedList[Row]:
    """A listing: it may have a million rows."""
    return PackedList(ROWS, rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Some rows of a listing and the total that the registry claims for the whole of it."""

    rows: Sequence[Row]
    total: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """One version in the history of a prompt."""

    ref: str
    """What the registry calls it: a number in digits, or an id that says nothing of its age."""
    ordinal: int
    """Later versions have higher ones: the number where it is one, else its place in the history, from 1."""
    id: str
    """What labels are put on."""
    labels: Sequence[str] = ()
    """Ids of the labels that stand on it."""


def label_in(version: str) -> str | None:
    """The label whose version is asked for; None: it is asked for in another way."""
    return version.removeprefix(LABELLED) if version.startswith(LABELLED) else None


def stored_version(ref: str | None) -> int | str | None:
    """A `Version.ref` as ledgers and files have it: a number where it is one."""
    return int(ref) if ref is not None and _NUMBER.fullmatch(ref) else ref


def version_ref(stored: Json) -> str | None:
    """The same back; None: there is none."""
    return None if stored is None else str(stored)


def ordinal_of(versions: Sequence[Version], ref: str | None) -> int:
    """Where this one stands among them, also one that was taken out, if it is a number; 0: before them all."""
    known = next((version.ordinal for version in versions if version.ref == ref), None)
    return known if known is not None else int(ref) if ref is not None and _NUMBER.fullmatch(ref) else 0


def newer(versions: Sequence[Version], than: str | None) -> list[Version]:
    """Those of these versions that came after this one, in their order."""
    at = ordinal_of(versions, than)
    return [version for version in versions if version.ordinal > at]


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """A collection, provider or partial: something prompts refer to."""

    id: str
    slug: str
    name: str
    parent: str | None = None
    """Of a collection: the id of the one that it lies in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalog:
    """What prompts of one workspace refer to. None: not asked for, or the key may not list it."""

    collections: Sequence[Named] | None = None
    providers: Sequence[Named] | None = None
    partials: Sequence[Named] | None = None
    labels: Sequence[Named] | None = None
    """The slug of a label is its name."""
    integrations: Collection[str] | None = None
    """Every `provider:model` that is enabled; None: prompts name no such pairs here, or the key may not list them."""
    words: Collection[str] = ()
    """Of collections, providers and partials, those that are plain words here: any may be named, none has to exist."""
    notes: Sequence[str] = ()
    """Sentences on what lies there and is passed over, or is not as whoever put it there may think."""


# ---- what is to be done ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Select:
    """Which prompts; an empty part takes every prompt."""

    ids: Collection[str] = frozenset()
    """Ids or slugs."""
    collections: Collection[str] = ()
    """Ids or slugs."""
    names: Sequence[str] = ()
    """Globs on the whole name, case-sensitive; `!` takes away; only `!` globs: everything else."""
    models: Sequence[str] = ()
    version: str = "published"
    """published | latest | all | LABELLED and the name of a label: prompts without it are not selected."""

    @property
    def label(self) -> str | None:
        """The label whose version is copied."""
        return label_in(self.version)

    @property
    def speaking(self) -> str:
        """The version that speaks for a prompt: of a whole history the published one."""
        return "published" if self.version == "all" else self.version


Choice = tuple[tuple[str, str], ...]
"""Pairs of glob and value, the first glob that matches wins: `(("claude-3-7-*", "new"), ("*", "other"))`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Clamp:
    """Bounds of a number."""

    min: Number | float | None = None
    max: Number | float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ParameterRules:
    """What happens to `Prompt.parameters`, in this order. Keys are dotted paths."""

    drop: tuple[str, ...] = ()
    rename: tuple[tuple[str, str], ...] = ()
    clamp: tuple[tuple[str, Clamp], ...] = ()
    set: tuple[tuple[str, Json], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class When:
    """Which prompts a rule is for; all parts must hold. `has` names fields of Prompt that must have a value."""

    model: str = "*"
    collection: str = "*"
    name: str = "*"
    has: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """Changes for the prompts that `when` takes; None or empty: kept as it is."""

    when: When = When()
    name: str | None = None
    model: Choice = ()
    provider: Choice = ()
    collection: Choice = ()
    partials: tuple[tuple[str, str], ...] = ()
    description: str | None = None
    messages: str | None = None
    """A chat that goes where one text is kept: refuse | system-only | transcript."""
    parameters: ParameterRules = ParameterRules()


@frozen(kw_only=True)
class Mark:
    """Tells whose replica a prompt is; `key` is the same without any ledger."""

    migration: str
    key: str
    source_id: str
    source_digest: str | None = None
    replica_digest: str | None = None


@frozen(kw_only=True)
class Replica:
    """A prompt to be made on the target. `source` is as it was read, `prompt` as it is to be (with the mark)."""

    source: Prompt
    prompt: Prompt
    mark: Mark


@frozen(kw_only=True)
class Created:
    """The replica is there."""

    target_id: str
    target_slug: str | None = None
    version: str = "1"
    """`Version.ref` of its first one."""
    version_id: str | None = None
    """`Version.id` of the same; None: not told."""


@frozen(kw_only=True)
class Updated:
    """The prompt is as it was to be. `version_id`: of the version that this made; None: it made none."""

    version_id: str | None = None


@frozen(kw_only=True)
class Failed:
    """Surely no effect. `error` names the kind; `exists`: something of that name is there already (409)."""

    error: str
    message: str
    status: int | None = None
    code: str | None = None
    retriable: bool = False
    exists: bool = False


@frozen(kw_only=True)
class Unknown:
    """It was sent and may have happened."""

    error: str
    message: str


Outcome = Created | Updated | Failed | Unknown


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One line of a report on the ends. `level`: ok | note | problem."""

    level: str
    where: str
    """source, target, or the key of the migration file."""
    text: str
    advice: str = ""
    """What mends it, where that is worth a line of its own."""
    reason: str = ""
    """Of the Stop that an end could not be asked for; else nothing."""


# ---- the ledger ------------------------------------------------------------------------------------------------------


@frozen()
class Entry:
    """One line of the ledger without what the sink adds (`v seq ts run b n crc`)."""

    kind: str
    fields: Mapping[str, Json]


# ---- what a connector gives ------------------------------------------------------------------------------------------

Sending = Callable[[], Awaitable[None]]
"""Awaited once by `Target.create` when the rate limit has let the request through, before its first byte leaves."""


async def no_intent() -> None:
    """The `Sending` of a write that no ledger tells of, because it may be repeated."""


Taken = Literal["refuses", "twins", "appends", "overwrites"]
Publishing = Literal["state", "label", "alias", "tag", "newest"]
Labels = Literal["none", "read", "written"]
MarkPlace = Literal["metadata", "tag", "config", "description"]
"""Metadata, tag and config are `Prompt.metadata` in here, whatever the registry calls it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Abilities:
    """What a registry can do, so that no caller asks which one it is."""

    dialect: Dialect | None = None
    """What its prompts are written in; without one they are kept as they come."""
    names: NameRule | None = None
    """Which names it takes; without a rule any."""
    asked: bool = True
    """It is a service: what is read or written there is a request."""
    own_ids: bool = True
    """No prompt of another workspace has the id of one of these; else an id is a name, which others may have too."""
    moves: bool = False
    """An id is only where a prompt stands, such as the name of its file: the same prompt may have another one later."""
    taken: Taken = "twins"
    """What a create does with a name that is there: it refuses, makes twins (two prompts of one name), appends a
    version to the prompt that has it, or overwrites that. Before it appends or overwrites, what is there is looked at.
    """
    published: Publishing = "state"
    """What makes a version the published one: a state, a label, alias or tag that stands on it, or being the newest."""
    labels: Labels = "written"
    """Versions carry labels: none, read (whose they are is not ours to say), or written."""
    label_names: NameRule | None = None
    """Which labels are put on versions, without a rule any; others stay behind. Never the one that publishes."""
    history: bool = True
    """Earlier versions stay readable."""
    retracts: bool = False
    """A version can be taken out of the history."""
    renames: bool = True
    """A prompt that is there can get another name."""
    once: frozenset[str] = frozenset({"name", "collection"})
    """The fields of Prompt that a prompt has once: a change of these alone makes no version."""
    dated: bool = True
    """Rows tell when a prompt was changed last; else every run reads all prompts that it made before. What they tell of
    model and collection says `Row.whole`.
    """
    marks: tuple[MarkPlace, ...] = ("metadata",)
    """Where a replica carries its mark, and where else, should the first create show that it does not last there."""
    marked_at_once: bool = True
    """A create carries its mark; else that is a second call, and a replica without mark may be left behind."""
    makes: frozenset[str] = frozenset()
    """What prompts refer to and can be made here where it is missing: collections, partials, labels."""

    @property
    def stages(self) -> bool:
        """A new version is not the published one until somebody says so."""
        return self.published != "newest"

    @property
    def pins(self) -> bool:
        """What publishes a version is put on it by name; a create may end before it has put it on."""
        return self.published in ("label", "alias", "tag")

    def carries(self, label: str) -> bool:
        """Whether a replica gets this label of its source."""
        return self.labels == "written" and (self.label_names is None or bool(self.label_names.takes(label)))

    @property
    def unique(self) -> bool:
        """No two prompts have one name."""
        return self.taken != "twins"

    @property
    def careless(self) -> bool:
        """A create changes what has its name already."""
        return self.taken in ("appends", "overwrites")


class Parts(Protocol):
    """What prompts refer to, one by one. Methods raise EngineError only, and never retry by themselves."""

    async def read(self, what: str, part_id: str, version: str = "published") -> Part:
        """As it is now; of a partial this version: published | latest. Gone when it is not there."""
        ...

    async def make(self, part: Part, sending: Sending) -> Outcome:
        """One create of what `part` says but for its id, slug and version. Raises Stop, nothing else."""
        ...

    async def remove(self, what: str, part_id: str) -> None:
        """May be repeated; Gone when it is not there, Rejected where something there still needs it."""
        ...


class Source(Protocol):
    """Where prompts are read from. Methods raise EngineError only, and never retry by themselves."""

    can: Abilities
    parts: Parts | None
    """Collections, partials and labels as things of their own, see `Parts`; None: there are none, or plain words."""

    def pages(self) -> AsyncIterator[Page]:
        """The whole listing, each row once; raises Stop when the registry does not give it whole."""
        ...

    async def fetch(self, prompt_id: str, version: str = "published") -> Prompt:
        """One definition. `version`: published | latest | `label:NAME`, the one that carries this label | a ref. Gone
        when it is not there.
        """
        ...

    async def versions(self, prompt_id: str) -> Sequence[Version]:
        """The history, oldest first; refs may have gaps. Gone when the prompt is not there."""
        ...

    async def catalog(self, kinds: Collection[str]) -> Catalog:
        """Of the fields of Catalog, those in `kinds`; None for what the key may not list."""
        ...


class Target(Source, Protocol):
    """Where replicas are written, found again, and read back."""

    batch: int
    """How many replicas one call takes."""
    fields: Collection[str]
    """The fields of Prompt that have a place here; what has a value in another one is a loss. `labels` among them: as
    words, with the prompt.
    """

    def encode(self, replica: Replica) -> bytes:
        """The body of its create. Rejected when it cannot be written without loss."""
        ...

    async def named(self, names: Collection[str]) -> Mapping[str, Prompt | None]:
        """Those of these names that are there by now, as they are published; None: the key may not read it. Asked only
        where a create appends or overwrites.
        """
        ...

    async def create(self, bodies: Sequence[bytes], sending: Sending) -> list[Outcome]:
        """One outcome for each body. Raises Stop, nothing else."""
        ...

    async def complete(self, target_id: str, body: bytes, sending: Sending) -> Outcome:
        """Brings what a create left undone that was ended before its last call: the prompt is there, and what it has is
        as wanted. Asked only where a create does not carry its mark. Raises Stop, nothing else.
        """
        ...

    def encode_update(self, replica: Replica, changed: Collection[str] | None) -> bytes:
        """The body of an update with these fields of Prompt, all others to be as in the latest version; None: whole,
        nothing taken from an earlier version. Rejected when it cannot be written without loss.
        """
        ...

    async def update(self, target_id: str, body: bytes, sending: Sending) -> Outcome:
        """Makes a new version, which is not the published one. Raises Stop, nothing else."""
        ...

    async def publish(self, target_id: str, version: str) -> None:
        """Makes this version the published one. May be repeated."""
        ...

    async def retract(self, target_id: str, version: str) -> None:
        """Takes a version out of the history. May be repeated; Rejected where no version can be taken out."""
        ...

    async def label(self, target_id: str, version_id: str, label_id: str) -> None:
        """Puts a label on a version, off the one that had it. May be repeated."""
        ...

    async def create_label(self, name: str) -> str:
        """The id of the label of that name, made when it is not there. May be repeated."""
        ...

    async def describe(self, target_id: str, description: str) -> None:
        """Sets the description of the version that is there; makes no new one. May be repeated."""
        ...

    async def delete(self, target_id: str) -> None:
        """Removes the prompt with its history. May be repeated; Gone when it is not there."""
        ...

    def write_test(self, collection: str | None) -> AsyncIterator[Finding]:
        """Creates, reads, changes and deletes a scratch prompt, and says what the registry did."""
        ...


# ---- what answers prompts --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """What became of one call of a prompt, without a word of its answer."""

    how: str
    """plain | streamed, and the suffix that was asked for: `streamed @latest`."""
    answered: bool
    model: str | None = None
    """The model that answered, as it calls itself."""
    finish_reason: str | None = None
    seconds: float
    tokens: int | None = None
    """In all, as the answer counts them; None: it does not."""
    error: str | None = None
    """Why it was not answered: one sentence."""


Why = Literal["unknown", "unsupported", "value", "too_large", "too_small", "model"]
"""Of what is refused: the name; the name with this model; this value, or with what else is there; a number; the model
itself.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """One part of a call that the model's vendor does not take. `path`: as the call has it, dotted, never inside of
    tools; `bound`: the largest or smallest number that is taken; `instead`: the name that is.
    """

    path: str
    why: Why
    bound: Number | float | None = None
    instead: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """What became of a call that was made to see whether a model takes it. `answered`: None: nobody can tell. `error`:
    one sentence where it is not True, without any text of the call. Without `refused` it does not say what is refused,
    or nobody could read it.
    """

    answered: bool | None
    refused: Sequence[Refused] = ()
    error: str | None = None


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A function that a model wants called. `arguments`: as it wrote them, which should be JSON."""

    name: str
    arguments: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What came of one call of a prompt, with the words of its answer: these belong to the prompt's owner, and are told
    nowhere but where they are asked for.
    """

    outcome: Literal["answered", "refused", "lost"]
    """refused: and the same call will be again; lost: no answer that can be used, the same call may have one."""
    text: str | None = field(default=None, repr=False)
    tool_calls: tuple[ToolCall, ...] = ()
    model: str | None = None
    """The model that answered, as it calls itself."""
    finish_reason: str | None = None
    seconds: float | None = None
    """From the moment it left; without what the rate limit made it wait."""
    tokens: int | None = None
    """In all, as the answer counts them; None: it does not."""
    error: str | None = None
    """Why it was not answered: one sentence."""


class Gateway(Protocol):
    """Where prompts are rendered and called. `ref`: id or slug, with `@n`, `@latest`, or nothing: as published."""

    async def render(self, ref: str, variables: Mapping[str, Json]) -> Mapping[str, Json]:
        """What would go to the model: `messages` or `prompt`, `model`, and the parameters. Raises EngineError."""
        ...

    async def complete(
        self, ref: str, variables: Mapping[str, Json], *, stream: bool, overrides: Mapping[str, Json]
    ) -> Completion:
        """Calls the model; costs money. A refusal of the key raises Stop; any other failure is in the completion."""
        ...

    async def ask(self, ref: str, variables: Mapping[str, Json], *, stream: bool, sending: Sending) -> Reply:
        """Calls the model for its answer; costs money. `sending` is awaited when the rate limit has let it through,
        before its first byte leaves. A refusal of the key raises Stop; any other failure is in the reply.
        """
        ...


class ModelGateway(Gateway, Protocol):
    """The same, where models can be called without a prompt too."""

    async def models(self) -> Collection[str] | None:
        """The catalogue: `@provider/model` for each that may be called; None: the key may not list it."""
        ...

    async def attempt(self, provider: str | None, request: Mapping[str, Json]) -> Tried:
        """Calls a model with a message of ours; `request`: all that goes along, its `model` too. Costs money. A refusal
        of the key raises Stop.
        """
        ...
