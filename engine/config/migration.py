"""What may stand in a migration file, with defaults, and what it means in the engine's vocabulary.

The attributes of `Migration` and its parts are named as the keys of the file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Self, Union

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Discriminator,
    Field,
    ModelWrapValidatorHandler,
    PlainValidator,
    PrivateAttr,
    SecretStr,
    StrictBool,
    StrictInt,
    Tag,
    ValidationInfo,
    field_validator,
    model_validator,
)

from engine.config.fields import (
    CasesFile,
    Choices,
    FileName,
    IdsFile,
    LedgerPath,
    LossName,
    Makeable,
    NameTemplate,
    ParameterPath,
    Seconds,
    rounded,
)
from engine.connectors import REGISTRIES
from engine.connectors.endpoint import Endpoint, Part
from engine.connectors.fields import Text, surroundings
from engine.content.shard import Shard
from engine.errors import ConfigError, Problem
from engine.lossless_json.numbers import Number, dumps_plainly
from engine.model import LABELLED, Clamp, Json, ParameterRules, Rule, Select, When

_REPLICA_NAME: Final = (
    "Name of the replica: {name} {id} {slug} {model} {collection}; {name|slug}: in lower case, what the target does "
    "not take in a name becomes -"
)
_BRACKETS: Final = "[ab] is one of these characters, or itself as it is written; [[] is a bracket alone."
_DECIDES_CONTENT: Final = {"rewrite", "allow_loss", "carry"}
_DECIDES_RESULT: Final = {
    "select",
    "rewrite",
    "allow_loss",
    "carry",
    "create_missing",
    "on_existing",
    "on_change",
    "on_edited",
    "publish",
}


def _number(value: Json) -> int | float | Number:
    if isinstance(value, bool) or not isinstance(value, int | float | Number):
        raise ValueError("must be a number")
    return value


# Integers stay integers: what is clamped to them must not become 8192.0.
_Number = Annotated[int | float | Number, PlainValidator(_number, json_schema_input_type=float)]
_LEAST: Final = 0.001
"""As of `--rate`: below it a run stands still for longer than anybody waits."""


def _enough(value: float) -> float:
    if value < _LEAST:
        raise ValueError(f"must be at least {_LEAST:g}")
    return value


_Positive = Annotated[
    float,
    BeforeValidator(rounded),
    Field(strict=True, gt=0, json_schema_extra={"minimum": _LEAST}),
    AfterValidator(_enough),
]


_KINDS: Final = tuple(REGISTRIES)


def _kind_of(end: Any) -> str | None:
    """The kind that an end in a file is of; None: none that is known."""
    kind = end.get("kind") or _KINDS[0] if isinstance(end, dict) else getattr(end, "kind", _KINDS[0])
    return kind if kind in _KINDS else None


if TYPE_CHECKING:
    _End = Endpoint
else:  # one model for each row of the table
    _End = Annotated[
        Union[tuple(Annotated[row.endpoint, Tag(kind)] for kind, row in REGISTRIES.items())],  # noqa: UP007
        Discriminator(_kind_of, custom_error_type="kind", custom_error_message=" or ".join(_KINDS)),
    ]


# ---- the parts -------------------------------------------------------------------------------------------------------


class Selection(Part):
    """Which prompts are migrated; what is left out takes every prompt."""

    ids_file: IdsFile | None = Field(default=None, description="File with one id or slug a line, in place of ids.")
    ids: tuple[Text, ...] = Field(default=(), description="Ids or slugs of prompts.", validate_default=True)
    collections: tuple[Text, ...] = Field(default=(), description="Ids or slugs of collections.")
    names: tuple[Text, ...] = Field(
        default=(), description=f'Globs on the whole name, case-sensitive; "!" takes away. {_BRACKETS}'
    )
    models: tuple[Text, ...] = Field(default=(), description=f"Globs on the model. {_BRACKETS}")
    version: Literal["published", "latest", "all"] = Field(default="published", description="Which version is copied.")
    label: Text | None = Field(
        default=None,
        description="The version that carries this label (alias, tag) is copied; a prompt without it is not selected.",
    )

    @field_validator("ids")
    @classmethod
    def _from_one_place(cls, ids: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        from_file: tuple[str, ...] | None = info.data.get("ids_file")
        if ids and from_file:
            raise ValueError("give either ids or ids_file, not both")
        return from_file or ids

    @field_validator("label")
    @classmethod
    def _one_of_both(cls, label: str | None, info: ValidationInfo) -> str | None:
        if label is not None and info.data.get("version", "published") != "published":
            raise ValueError(f"select.version is {info.data['version']}: choose one of both")
        return label


class Bounds(Part):
    """Bounds of a number."""

    min: _Number | None = Field(default=None, description="Smallest value that is kept.")
    max: _Number | None = Field(default=None, description="Largest value that is kept.")

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.min is None and self.max is None:
            raise ValueError("needs min, max or both")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError("min must not be above max")
        return self


def _upper_bound(value: Json) -> Json:
    if isinstance(value, bool) or not isinstance(value, int | float | Number | dict):
        raise ValueError("must be a number, the upper bound, or {min: , max: }")
    return value if isinstance(value, dict) else {"max": value}


_Clamped = Annotated[Bounds, BeforeValidator(_upper_bound, json_schema_input_type=float | Bounds)]


class Parameters(Part):
    """What happens to parameters: drop, rename, clamp, set, in this order. Dotted paths reach inside."""

    drop: tuple[ParameterPath, ...] = Field(default=(), description="Parameters that are left out.")
    rename: dict[ParameterPath, ParameterPath] = Field(
        default={}, description="New names of parameters, by the old ones."
    )
    clamp: dict[ParameterPath, _Clamped] = Field(
        default={}, description="An upper bound, or {min: , max: }, by parameter."
    )
    set: dict[ParameterPath, Any] = Field(default={}, description="Values that are set, by parameter.")


class WhenPart(Part):
    """Which prompts a rule is for; all parts must hold."""

    model: Text = Field(default="*", description=f"Glob on the model. {_BRACKETS}")
    collection: Text = Field(default="*", description=f"Glob on the collection. {_BRACKETS}")
    name: Text = Field(default="*", description=f"Glob on the name. {_BRACKETS}")
    has: tuple[
        Literal[
            "tools",
            "functions",
            "tool_choice",
            "raw",
            "partials",
            "parameters",
            "metadata",
            "description",
            "provider",
        ],
        ...,
    ] = Field(default=(), description="What the prompt must have.")


class Changes(Part):
    """What is changed in a prompt; what is left out is kept."""

    name: NameTemplate | None = Field(default=None, description=f"{_REPLICA_NAME}.")
    model: Choices = Field(
        default={}, description=f"New model: one for all, or by globs of the old; first match wins. {_BRACKETS}"
    )
    provider: Choices = Field(
        default={}, description=f"New provider slug (virtual key): one for all, or by globs of the old. {_BRACKETS}"
    )
    collection: Choices = Field(
        default={}, description=f"Collection on the target: one for all, or by globs of the old. {_BRACKETS}"
    )
    partials: dict[Text, Text] = Field(default={}, description="New slugs of partials, by the old ones.")
    description: str | None = Field(default=None, description="Description of the version that is written.")
    messages: Literal["refuse", "system-only", "transcript"] | None = Field(
        default=None,
        description="A chat that goes to a registry which keeps one text; left out: it is refused. system-only: the "
        "instructions alone; transcript: all of it, `role: text`.",
    )
    parameters: Parameters = Field(default=Parameters(), description="Changes of parameters: drop, rename, clamp, set.")


class RewriteRule(Changes):
    """Changes for some prompts."""

    when: WhenPart = Field(description="Which prompts the rule is for; all parts must hold.")


class Rewrite(Changes):
    """Changes for all prompts, and then for some."""

    name: NameTemplate | None = Field(
        default=None,
        description=f"{_REPLICA_NAME}; left out: {{name}}-replica, and in mode update {{name}}.",
    )
    rules: tuple[RewriteRule, ...] = Field(
        default=(), description="Changes for some prompts, in order, after the general ones."
    )


class Limits(Part):
    """How hard the registries are worked."""

    rate: _Positive | None = Field(
        default=None,
        description="Most requests a second to one host with one key, everything counted; null: found by itself.",
    )
    reads: _Positive | None = Field(default=None, description="Most reads a second, below rate.")
    writes: _Positive | None = Field(default=None, description="Most writes a second, below rate.")
    share: _Positive = Field(
        default=0.9, le=1, description="How much of a limit that was found is used; the rest is for live traffic."
    )
    concurrency: StrictInt = Field(default=64, ge=1, description="Most requests in flight.")
    timeout: Seconds = Field(default=30.0, description="Time for one request in all: seconds, or 90s, 15m, 2h.")
    attempts: StrictInt = Field(default=5, ge=1, description="Attempts of a request that may be repeated.")
    settle: Seconds | None = Field(
        default=None,
        description="Time before an unanswered create is looked up; null: twice the timeout, at least 10 s.",
    )
    batch: StrictInt = Field(default=50, ge=1, description="Prompts in one call, where the registry takes bulks.")

    @property
    def settle_seconds(self) -> float:
        """Seconds before an unanswered create is looked up."""
        return max(10.0, 2 * self.timeout) if self.settle is None else self.settle


class VerifySettings(Part):
    """How replicas are checked."""

    after_run: StrictBool = Field(default=False, description="Verify as the last part of a run.")
    render: StrictBool = Field(default=False, description="Compare rendered prompts too.")
    completions: StrictInt = Field(default=0, ge=0, description="How many prompts are completed, for comparison.")
    variables: dict[Text, Any] = Field(
        default={}, description="Values of template variables for render and completions."
    )
    cases: CasesFile | None = Field(
        default=None, description="File of values per prompt, a JSON object a line: prompt, variables, label."
    )


# ---- the whole -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Written:
    """A migration as it is written, before anything of its surroundings is put in: no secret is in it. `folder`: what
    its paths are relative to.
    """

    data: Mapping[str, Json] = field(compare=False, repr=False)
    folder: Path = field(compare=False)


class Migration(Part):
    """A migration: what is copied, from where to where, and what is changed on the way."""

    name: FileName = Field(
        description="Identifies the migration and its ledger: letters, digits, dot, dash, underscore."
    )
    mode: Literal["replicate", "update"] = Field(
        default="replicate", description="replicate: copies; update: new versions."
    )
    source: _End = Field(description="Where prompts are read.")
    target: _End | None = Field(default=None, description="Where replicas are written; left out: the source.")
    select: Selection = Field(default=Selection(), description="Which prompts; left out: every prompt.")
    rewrite: Rewrite = Field(default=Rewrite(), description="What is changed on the way.")
    allow_loss: tuple[Text, ...] = Field(
        default=(), description="Losses that are accepted, by the names `plan` prints."
    )
    carry: tuple[LossName, ...] = Field(
        default=(),
        description="Losses that travel as JSON in the target's metadata, under `promptferry.carry`, by the names that "
        "`plan` prints; on the way to a registry that has a place for them they get it.",
    )
    create_missing: tuple[Makeable, ...] = Field(
        default=(),
        description="What selected prompts need and the target lacks is made there before the first of them: "
        "collections, with those that they lie in; partials, with their text, as they are published, and the partials "
        "that they name; labels, with description and color. Providers hold keys and are never made.",
    )
    on_existing: Literal["fail", "skip", "rename"] = Field(
        default="fail",
        description="The target has that name and it is not ours. fail: a conflict; rename: the first free of -2, -3.",
    )
    on_change: Literal["update", "skip"] = Field(
        default="update", description="Source or rules changed since the replica was made."
    )
    on_edited: Literal["conflict", "keep", "overwrite"] = Field(
        default="conflict", description="Source or rules changed and the replica was edited by hand."
    )
    publish: StrictBool | None = Field(
        default=None,
        description="Whether new versions become the published ones; left out: yes for replicas, no in mode update.",
        validate_default=True,
    )
    limits: Limits = Field(default=Limits(), description="How fast and how patiently registries are asked.")
    ledger: LedgerPath = Field(
        default=Path("ledgers/{name}.jsonl"),
        description="File of results; {name}: the migration's.",
        validate_default=True,
    )
    verify: VerifySettings = Field(default=VerifySettings(), description="What is compared when replicas are checked.")
    _shard: Shard | None = PrivateAttr(default=None)

    _written: Written | None = PrivateAttr(default=None)

    @model_validator(mode="wrap")
    @classmethod
    def _remember(cls, data: Any, handler: ModelWrapValidatorHandler[Self], info: ValidationInfo) -> Self:
        made = handler(data)
        if isinstance(data, Mapping):
            made._written = Written(data, surroundings(info).folder)
        return made

    @property
    def written(self) -> Written:
        """As it was read, for whoever reads it again on another machine."""
        assert self._written is not None  # it was read from somewhere
        return self._written

    @field_validator("target")
    @classmethod
    def _where_they_stand(cls, target: Endpoint | None, info: ValidationInfo) -> Endpoint | None:
        if target is not None and info.data.get("mode") == "update":
            raise ValueError("mode update changes prompts where they stand: take it out")
        return target

    @field_validator("select")
    @classmethod
    def _one_version(cls, select: Selection, info: ValidationInfo) -> Selection:
        if select.version == "all" and info.data.get("mode") == "update":
            raise ValueError("mode update follows one version of a prompt: set version to published or latest")
        return select

    @field_validator("select")
    @classmethod
    def _with_a_place_for_it(cls, select: Selection, info: ValidationInfo) -> Selection:
        target = info.data.get("target")
        if select.version == "all" and target is not None and not target.able(REGISTRIES[target.kind].can).history:
            raise ValueError(f"kind {target.kind} keeps one version of a prompt: set version to published or latest")
        return select

    @field_validator("select")
    @classmethod
    def _with_labels(cls, select: Selection, info: ValidationInfo) -> Selection:
        source = info.data.get("source")
        if (
            select.label is not None
            and source is not None
            and source.able(REGISTRIES[source.kind].can).labels == "none"
        ):
            raise ValueError(f"kind {source.kind} has no labels: take `label` out")
        return select

    @field_validator("create_missing")
    @classmethod
    def _where_it_can_be_made(cls, kinds: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        target = info.data.get("target") or info.data.get("source")
        if target is not None:
            makes = target.able(REGISTRIES[target.kind].can).makes
            if without := [kind for kind in kinds if kind not in makes]:
                raise ValueError(f"{' and '.join(without)} cannot be made in kind {target.kind}: take it out")
        return tuple(dict.fromkeys(kinds))

    @field_validator("publish")
    @classmethod
    def _live_at_once(cls, publish: bool | None, info: ValidationInfo) -> bool | None:
        target = info.data.get("target") or info.data.get("source")
        staged = publish is False or (publish is None and info.data.get("mode") == "update")
        if target is not None and staged and not target.able(REGISTRIES[target.kind].can).stages:
            raise ValueError(f"in kind {target.kind} what is written is live at once: say publish: true")
        return publish

    @field_validator("verify")
    @classmethod
    def _by_a_gateway(cls, verify: VerifySettings, info: ValidationInfo) -> VerifySettings:
        ends = [end for end in (info.data.get("source"), info.data.get("target")) if end is not None]
        if without := [end.kind for end in ends if end.gateway is None and (verify.render or verify.completions)]:
            raise ValueError(f"render and completions need a gateway, and kind {without[0]} has none")
        return verify

    @property
    def ends(self) -> tuple[Endpoint, Endpoint]:
        """Source and target; the source twice when the file names no target."""
        return self.source, self.target or self.source

    def why_not_at(self, ledger: Path) -> str:
        """Why its ledger cannot lie there; blank: it can."""
        for name, end in zip(("source", "target"), self.ends, strict=True):
            if end.reads(ledger):
                return f"{ledger} is what the prompts of the {name} are read from ({end.url}): name another file"
        return ""

    def lying_at(self, ledger: Path) -> Migration:
        """The same with another ledger. Raises ConfigError where it cannot lie there."""
        if why := self.why_not_at(ledger):
            raise ConfigError([Problem(why, key="ledger")])
        return self.model_copy(update={"ledger": ledger})

    @property
    def shard(self) -> Shard | None:
        """Which part of the prompts it is about; None: all of them. No file says so."""
        return self._shard

    def of_shard(self, shard: Shard, ledger: Path) -> Migration:
        """This part of it, with a ledger of its own. Raises ConfigError where shards cannot work side by side."""
        if self.create_missing and shard.count > 1:
            raise ConfigError(
                "create_missing: two shards would both make what prompts of both need: make what `promptferry plan` "
                "lists at the target and take create_missing out, or run it without --shard"
            )
        part = self.lying_at(ledger)
        part._shard = shard
        return part

    def sharing(self, count: int) -> Migration:
        """The same with its part of the limits that the file knows, where so many ask the registry at once."""
        known = {name: getattr(self.limits, name) for name in ("rate", "reads", "writes")}
        parts = {name: value / count for name, value in known.items() if value is not None}
        return self.model_copy(update={"limits": self.limits.model_copy(update=parts)})

    @property
    def same_workspace(self) -> bool:
        """Whether both ends are surely one workspace: the same kind, base_url and workspace, by the same key."""
        source, target = self.ends
        # A key may be locked to a workspace that the file need not name, so two keys may mean two workspaces.
        return source.identity == target.identity and source.keys == target.keys

    @property
    def secrets(self) -> frozenset[str]:
        """Every secret in clear text: for the log, which hides them wherever they turn up."""
        values = (value for end in self.ends for _, value in end)
        return frozenset(value.get_secret_value() for value in values if isinstance(value, SecretStr))

    def fingerprints(self, salt: bytes) -> dict[str, bytes]:
        """Key of the file -> what is equal where two processes have found the same secret: slow to make, so that nobody
        guesses by it. Not of what a command prints, which may be another one each time.
        """
        ends = zip(("source", "target"), self.ends, strict=True)
        named = [(f"{word}.{key}", self.written.data.get(word), key, value) for word, end in ends for key, value in end]
        return {
            place: hashlib.scrypt(value.get_secret_value().encode(), salt=salt, n=2**14, r=8, p=1, dklen=16)
            for place, written, key, value in named
            if isinstance(value, SecretStr) and isinstance(written, dict) and isinstance(written.get(key), str)
        }

    def selection(self) -> Select:
        """Which prompts, in the engine's own vocabulary."""
        chosen = self.select
        return Select(
            ids=frozenset(chosen.ids),
            collections=chosen.collections,
            names=chosen.names,
            models=chosen.models,
            version=chosen.version if chosen.label is None else f"{LABELLED}{chosen.label}",
        )

    def rules(self) -> tuple[Rule, ...]:
        """The general rule, which always has a name template, then those for some prompts in the file's order."""
        name = self.rewrite.name or ("{name}" if self.in_place else "{name}-replica")
        general = replace(_rule(self.rewrite, When()), name=name)
        return general, *(_rule(rule, _when(rule.when)) for rule in self.rewrite.rules)

    def identity(self) -> dict[str, str]:
        """What identifies the migration: another value of any of these is another migration. No secrets."""
        source, target = self.ends
        return {
            "migration": self.name,
            "mode": self.mode,
            "source": source.identity,
            "target": target.identity,
            "selects": self.select.version,
        }

    @property
    def in_place(self) -> bool:
        """Mode update: prompts are changed where they stand."""
        return self.mode == "update"

    @property
    def publishes(self) -> bool:
        """Whether a version that a run writes becomes the published one."""
        return not self.in_place if self.publish is None else self.publish

    def rules_digest(self) -> str:
        """SHA-256, in hex, of everything that decides a result and may change between runs."""
        return self._digest_of(_DECIDES_RESULT)

    def rewrites_digest(self) -> str:
        """SHA-256, in hex, of the part of that which decides what a replica holds."""
        return self._digest_of(_DECIDES_CONTENT)

    def _digest_of(self, keys: set[str]) -> str:
        deciding = self.model_dump(include=keys, exclude={"select": {"ids_file", "version"}})
        label = self.select.label
        deciding.get("select", {}).pop("label", None)
        if label is not None:
            deciding["label"] = label
        for key in ("carry", "create_missing"):  # as it was before there were such keys
            if not getattr(self, key):
                deciding.pop(key, None)
        return hashlib.sha256(dumps_plainly(deciding).encode()).hexdigest()


def _when(condition: WhenPart) -> When:
    return When(model=condition.model, collection=condition.collection, name=condition.name, has=condition.has)


def _rule(changes: Changes, when: When) -> Rule:
    return Rule(
        when=when,
        name=changes.name,
        model=tuple(changes.model.items()),
        provider=tuple(changes.provider.items()),
        collection=tuple(changes.collection.items()),
        partials=tuple(changes.partials.items()),
        description=changes.description,
        messages=changes.messages,
        parameters=_parameter_rules(changes.parameters),
    )


def _parameter_rules(parameters: Parameters) -> ParameterRules:
    return ParameterRules(
        drop=parameters.drop,
        rename=tuple(parameters.rename.items()),
        clamp=tuple((path, Clamp(min=bounds.min, max=bounds.max)) for path, bounds in parameters.clamp.items()),
        set=tuple(parameters.set.items()),
    )
