"""A prompt as Phoenix keeps it, and back. Pure.

What the code stands on (tried on arize-phoenix 20.26.1): a version has its template, model, parameters, tools,
description and metadata, and never changes; the prompt has a name, one more description and metadata of its own.
`Prompt.metadata` are those of the version, where every JSON value arrives; what the prompt itself has stands in them
under `phoenix`, but for its collection. The key `promptferry.form` remembers what the wire cannot say.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from engine.connectors.phoenix.dialect import CHOICES, FORMATS, NAMES, UNTOLD, choice_of, in_parts, losses
from engine.connectors.phoenix.messages import Unwritable, template_of, text_of
from engine.connectors.phoenix.parameters import (
    LARGEST,
    PARALLEL,
    PROVIDERS,
    RESPONSE_FORMAT,
    SMALLEST,
    Placed,
    family_of,
    place,
    plain,
    read,
)
from engine.connectors.phoenix.tools import is_function
from engine.errors import Rejected
from engine.lossless_json import encode
from engine.lossless_json.numbers import Number
from engine.model import Json, Prompt, Replica, Row

FORM: Final = "promptferry.form"
"""The key of a version's metadata that says how its text was written, and that it has no provider."""
HEAD: Final = "phoenix"
"""The key of `Prompt.metadata` for the description and the metadata of the prompt itself."""
COLLECTION: Final = "collection"
"""The key of the prompt's own metadata that says where it belongs."""
_CONTENT: Final = frozenset(
    "description metadata model_provider model_name template template_type template_format invocation_parameters tools "
    "response_format".split()
)
_KNOWN: Final = _CONTENT | {"id"}
_TYPES: Final[Mapping[str, type]] = {
    "description": str,
    "metadata": dict,
    "model_provider": str,
    "model_name": str,
    "template": dict,
    "template_format": str,
    "invocation_parameters": dict,
    "tools": dict,
}

Item = dict[str, Json]
"""A version, or a prompt, in the registry's own words."""


@dataclass(frozen=True, slots=True)
class Head:
    """What a prompt has apart from its versions."""

    name: str
    description: str | None = field(default=None, repr=False)
    metadata: Mapping[str, Json] = field(default_factory=dict, repr=False)
    forked: bool = False

    @property
    def collection(self) -> str | None:
        """Where it belongs; a value that is no text is like any other of its metadata."""
        found = self.metadata.get(COLLECTION)
        return found if isinstance(found, str) else None


# ---- from the registry -----------------------------------------------------------------------------------------------


def head_of(row: Json) -> Head:
    """A row of the listing. Rejected when it is none."""
    if not isinstance(row, dict) or not isinstance(row.get("name"), str):
        raise Rejected("the registry's answer is not a prompt: it has no name", error="bad_answer")
    description, metadata = row.get("description"), row.get("metadata")
    return Head(
        name=row["name"],
        description=description if isinstance(description, str) and description else None,
        metadata=metadata if isinstance(metadata, dict) else {},
        forked=row.get("source_prompt_id") is not None,
    )


def row_of(head: Head) -> Row:
    """What a listing tells: neither model nor time."""
    return Row(id=head.name, name=head.name, collection=head.collection)


def prompt_of(head: Head, item: Json, labels: Sequence[str] = (), notes: Sequence[str] = ()) -> Prompt:
    """One version of a prompt, with the tags on it. Rejected when it is none."""
    messages = _checked(item)
    metadata = dict(item.get("metadata") or {})
    known = metadata.pop(FORM, None)
    form = known if isinstance(known, dict) else {}
    parameters, twice = read(item["invocation_parameters"])
    tools, choice = _tools_of(item.get("tools") or {}, parameters, twice)
    _keep(RESPONSE_FORMAT, item.get("response_format"), parameters, twice)
    own = _own_of(head, metadata)
    provider = item["model_provider"]
    return Prompt(
        id=head.name,
        name=head.name,
        text=text_of(messages, form) if isinstance(messages, list) else messages,
        collection=head.collection,
        model=item["model_name"] or None,
        provider=None if form.get("provider") is False and provider == UNTOLD else provider,
        parameters=parameters,
        tools=tools,
        tool_choice=choice,
        metadata={**metadata, **own},
        description=item.get("description") or None,
        version=item["id"],
        labels=tuple(labels),
        dialect=FORMATS[item["template_format"]],
        extra={name: value for name, value in item.items() if name not in _KNOWN and value is not None} | twice,
        notes=(*notes, *(("was made from another prompt; the replica is not",) if head.forked else ())),
    )


def _checked(item: Json) -> list[Json] | str:
    """The messages, or the one text that older servers kept."""
    if not isinstance(item, dict) or not isinstance(item.get("id"), str):
        raise Rejected("the registry's answer is not a version of a prompt: it has no id", error="bad_answer")
    for name, kind in _TYPES.items():
        needed = name not in ("description", "metadata", "tools")
        if (needed or item.get(name) is not None) and not isinstance(item.get(name), kind):
            raise Rejected(f"the registry's answer has {name} of another type than it should", error="bad_answer")
    if item.get("template_format") not in FORMATS:
        raise Rejected("the registry's answer has a template_format that is not known here", error="bad_answer")
    messages, text = item["template"].get("messages"), item["template"].get("template")
    if isinstance(text, str):
        return text
    if not isinstance(messages, list) or not all(map(_is_message, messages)):
        raise Rejected("the registry's answer has a template that is neither a chat nor a text", error="bad_answer")
    return messages


def _is_message(value: Json) -> bool:
    if not isinstance(value, dict) or not isinstance(value.get("role"), str):
        return False
    content = value.get("content")
    return isinstance(content, str) or (isinstance(content, list) and all(isinstance(part, dict) for part in content))


def _own_of(head: Head, metadata: Mapping[str, Json]) -> dict[str, Json]:
    """What the prompt has besides its collection; beside a version's own `phoenix`, that one counts."""
    rest = {key: value for key, value in head.metadata.items() if key != COLLECTION or head.collection is None}
    own = {**({"description": head.description} if head.description else {}), **({"metadata": rest} if rest else {})}
    return {HEAD: own} if own and HEAD not in metadata else {}


def _keep(name: str, value: Json, parameters: dict[str, Json], twice: dict[str, Json]) -> None:
    """As a parameter, unless there is another one of that name."""
    if value is not None:
        (twice if name in parameters else parameters)[name] = value


_WORDS: Final = {kind: word for word, kind in CHOICES.items()}


def _tools_of(kept: Mapping[str, Json], parameters: dict[str, Json], twice: dict[str, Json]) -> tuple[Json, Json]:
    tools = [one.get("raw") if isinstance(one, dict) and one.get("type") == "raw" else one for one in _listed(kept)]
    if isinstance(disabled := kept.get("disable_parallel_tool_calls"), bool):
        _keep(PARALLEL, not disabled, parameters, twice)
    match kept.get("tool_choice"):
        case {"type": "specific_function", "function_name": str(name)}:
            return tools, {"type": "function", "function": {"name": name}}
        case {"type": str(kind)} if kind in _WORDS:
            return tools, _WORDS[kind]
        case None:
            return tools or None, None
        case other:
            twice["tools.tool_choice"] = other
            return tools, None


def _listed(kept: Mapping[str, Json]) -> list[Json]:
    tools = kept.get("tools")
    return tools if isinstance(tools, list) else []


# ---- to the registry -------------------------------------------------------------------------------------------------


def body_of(replica: Replica, fields: Collection[str] | None = None) -> bytes:
    """The prompt and a version of it; without version where only `fields` are to change that a prompt has once.
    Rejected when it cannot be written without loss.
    """
    prompt = replica.prompt
    if (why := NAMES.refuses(prompt.name)) is not None:
        raise Rejected(why, error="bad_name")
    metadata = dict(prompt.metadata)
    head = {"name": prompt.name, **_head(prompt, metadata)}
    once = fields is not None and {"name", "collection"}.issuperset(fields)
    body = {"prompt": head, **({} if once else {"version": _version(prompt, metadata)})}
    if (wrong := next(_unkept(body), None)) is not None:
        raise Rejected(f"{wrong}: change it at the source", error="not_encodable")
    try:
        return encode(body)
    except ValueError as error:
        raise Rejected(f"the prompt cannot be written as JSON without loss: {error}", error="not_encodable") from error


def _head(prompt: Prompt, metadata: dict[str, Json]) -> Item:
    """What the prompt itself gets; what of it stands in the metadata is taken out of them."""
    given = metadata.pop(HEAD) if _is_own(metadata.get(HEAD)) else {}
    description, own = given.get("description"), given.get("metadata") or {}
    if prompt.collection is not None and COLLECTION in own:
        raise Rejected("metadata.phoenix.metadata.collection: it stands for the collection in Phoenix", error="loss")
    own = {**own, **({COLLECTION: prompt.collection} if prompt.collection is not None else {})}
    return {**({"description": description} if description else {}), **({"metadata": own} if own else {})}


def _is_own(value: Json) -> bool:
    """Whether it has the form in which the prompt's own is read."""
    if not isinstance(value, dict) or not value or not value.keys() <= {"description", "metadata"}:
        return False
    texts = isinstance(value.get("description", ""), str)
    return texts and isinstance(value.get("metadata", {}), dict) and all(value.values())


def _version(prompt: Prompt, metadata: dict[str, Json]) -> Item:
    provider = _provider(prompt)
    try:
        messages, form = template_of(prompt.text, partial(in_parts, prompt=prompt))
    except Unwritable as error:
        raise Rejected(error.reason, error="untranslatable") from None
    placed = place(prompt.parameters, family_of(provider), tools=bool(prompt.tools))
    _no_loss(prompt, placed, metadata, provider)
    if not prompt.provider:
        form = {**form, "provider": False}
    kept = {**metadata, **({FORM: form} if form else {})}
    family = family_of(provider).name
    item = {
        "description": prompt.description,
        "metadata": kept or None,
        "model_provider": provider,
        "model_name": prompt.model or "",
        "template_type": "CHAT",
        "template_format": next((word for word, name in FORMATS.items() if name == prompt.dialect), "MUSTACHE"),
        "template": {"type": "chat", "messages": messages},
        "invocation_parameters": {"type": family, family: placed.fields},
        "tools": _tools(prompt, placed),
        "response_format": placed.response_format,
    }
    return {name: value for name, value in item.items() if value is not None}


def _provider(prompt: Prompt) -> str:
    provider = prompt.provider or UNTOLD
    if provider not in PROVIDERS:
        raise Rejected(f"provider {provider!r} is none of Phoenix's: map it in rewrite.provider", error="bad_provider")
    return provider


def _no_loss(prompt: Prompt, placed: Placed, metadata: Mapping[str, Json], provider: str) -> None:
    lost = [*losses(prompt, placed), *([f"metadata.{FORM}"] if FORM in metadata else [])]
    if lost:
        raise Rejected(f"{', '.join(sorted(lost))}: there is no place for that in Phoenix", error="loss")
    needed = family_of(provider).needed
    if needed and needed not in placed.fields:
        raise Rejected(f"parameters.{needed} is missing, and {provider} needs it", error="untranslatable")


def _tools(prompt: Prompt, placed: Placed) -> Item | None:
    if not prompt.tools:
        return None
    if not isinstance(prompt.tools, list) or not all(isinstance(one, dict) for one in prompt.tools):
        raise Rejected("tools: Phoenix keeps a list of objects", error="loss")
    choice = choice_of(prompt.tool_choice) if prompt.tool_choice else None
    return {
        "type": "tools",
        "tools": [one if is_function(one) else {"type": "raw", "raw": one} for one in prompt.tools],
        **({"tool_choice": choice} if choice is not None else {}),
        **({"disable_parallel_tool_calls": not placed.parallel} if placed.parallel is not None else {}),
    }


def _unkept(value: Json, way: tuple[str, ...] = ()) -> Iterator[str]:
    """Where a value is that the server breaks down at or changes without a word; never the value."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _unkept(key, way)
            yield from _unkept(inner, (*way, key))
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _unkept(inner, way)
    elif isinstance(value, str):
        if _is_halved(value):
            yield f"{_place(way)} has half a character (a lone surrogate), at which Phoenix breaks down"
    elif isinstance(value, int | float | Number) and not isinstance(value, bool) and not _is_kept(plain(value)):
        yield f"{_place(way)} has a number that Phoenix cannot keep: an integer of more than 64 bits, or no double"


def _is_halved(text: str) -> bool:
    try:
        return text.encode() is None
    except UnicodeEncodeError:
        return True


def _place(way: Sequence[str]) -> str:
    return ".".join(way).encode("utf-8", "replace").decode() or "it"


def _is_kept(number: Json) -> bool:
    return isinstance(number, float) or (isinstance(number, int) and SMALLEST <= number <= LARGEST)
