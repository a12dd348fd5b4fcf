"""A prompt as the engine holds it, whichever registry it is from."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Final

from engine.lossless_json import Json
from engine.model.frozen import frozen

DEFAULT_DIALECT: Final = "portkey"
"""The dialect of a prompt whose file names none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """What a template asks of its caller, as the registry parsed it."""

    variables: Sequence[str] = ()
    """Every variable, those inside sections too."""
    sections: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Section -> the variables inside it."""
    partials: Sequence[str] = ()
    """Names of the partials whose text the caller supplies: `{{>>name}}`."""


@frozen(slots=False, kw_only=True)  # no slots: `altered` copies all of its fields at once
class Prompt:
    """One version of a prompt, whole. `extra` holds what the connector does not know but the registry gave a value.

    Its repr leaves the content out: a template never reaches a log or a traceback.
    """

    id: str
    name: str
    text: str = field(repr=False)
    """The template, byte for byte: a single text, or messages as the registry keeps them."""
    slug: str | None = None
    collection: str | None = None
    """Id of the collection."""
    model: str | None = None
    provider: str | None = None
    """Slug of the provider (Portkey: virtual key)."""
    parameters: Mapping[str, Json] = field(default_factory=dict, repr=False)
    """Hyperparameters without `model`; may also hold default values of template variables."""
    functions: Json = field(default=None, repr=False)
    tools: Json = field(default=None, repr=False)
    tool_choice: Json = None
    raw: bool = False
    """The text is a raw template: rendered first, parsed as JSON afterwards."""
    metadata: Mapping[str, Json] = field(default_factory=dict, repr=False)
    description: str | None = None
    version: str | None = None
    """`Version.ref` of the one that this is."""
    updated_at: str | None = None
    variables: Collection[str] = ()
    """Names of the template's variables, as the registry parsed them and as the text shows them."""
    inputs: Inputs = Inputs()
    parameters_model: str | None = None
    """The model among the parameters, where it is not `model`."""
    labels: Sequence[str] = ()
    """Names of the labels that stand on this version."""
    integrations: Sequence[str] = ()
    """Besides provider and model, the others that may run it: `provider:model`, sorted."""
    dialect: str = DEFAULT_DIALECT
    """What text and parameters are written in: the name of a `Dialect`."""
    extra: Mapping[str, Json] = field(default_factory=dict, repr=False)
    notes: Sequence[str] = ()
    """What is not copied and is no loss: sharing, archived status."""


_PROMPT_FIELDS: Final = frozenset(part.name for part in fields(Prompt))


def altered(prompt: Prompt, **changes: Any) -> Prompt:
    """The same with other values, as `dataclasses.replace` gives it, at a tenth of the price: a run makes two of each
    prompt. TypeError for what is no field.
    """
    if not changes.keys() <= _PROMPT_FIELDS:
        raise TypeError(f"a prompt has no field {min(changes.keys() - _PROMPT_FIELDS)!r}")
    made: Prompt = object.__new__(Prompt)
    vars(made).update(vars(prompt), **changes)
    return made
