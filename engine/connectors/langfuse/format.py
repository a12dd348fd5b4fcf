"""A prompt as Langfuse keeps it, and back. Pure.

What the code stands on: a version is one text, or a chat of messages with role and content alone; every other key of a
message is dropped without a word. Beside it stands `config`, any JSON: model, parameters, tools and response format
under OpenAI's names, as its users write them; what has no name of that kind stands there as `provider`, `collection`,
`metadata`, and the mark as `promptferry`. A parameter that has one of these names goes into `config.parameters`. Tags
are `metadata.tags`; all versions of a prompt share them. The description is the commit message where the server is
known to keep one and it is short enough, else `config.description`. Numbers are doubles.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Final

from engine.connectors.langfuse.dialect import (
    GRAMMAR,
    LANGFUSE,
    LARGEST_BODY,
    NAMES,
    PLACEHOLDER,
    PLACEHOLDER_ROLE,
    REFERENCE,
)
from engine.connectors.langfuse.endpoint import LATEST, is_label
from engine.content.chats import messages_of, spelled
from engine.errors import Rejected, UnknownOutcome
from engine.lossless_json import encode
from engine.lossless_json.numbers import Number
from engine.model import MARK_KEY, Json, Prompt, Replica, Row

LONGEST_MESSAGE: Final = 500
"""Characters of a commit message, as JavaScript counts them."""

_TEXTS: Final = ("model", "provider", "collection", "description")
_VALUES: Final = ("functions", "tools", "tool_choice")
_NESTED: Final = "parameters"
_OWN: Final = frozenset({*_TEXTS, *_VALUES, _NESTED, "metadata", MARK_KEY})
"""Keys of the config that are not the name of a parameter."""
_KNOWN: Final = frozenset(
    "id createdAt updatedAt projectId createdBy name version type prompt config tags labels isActive commitMessage "
    "resolutionGraph".split()
)
_NOT_KEPT: Final = re.compile("[\0\ud800-\udfff]")
"""PostgreSQL has neither in a text."""
_PLAIN_MESSAGE: Final = ("chatmessage", "message")
"""What newer servers and clients call a message that is no placeholder."""

Item = dict[str, Json]
"""A version, or a row of a listing, in the registry's own words."""


# ---- from the registry -----------------------------------------------------------------------------------------------


def checked(answer: Json, asked: str | None = None) -> Item:
    """The version in an answer. Rejected when it is none, or not of the prompt that was `asked` for."""
    if not isinstance(answer, dict) or not isinstance(answer.get("name"), str) or version_of(answer) is None:
        raise Rejected("the registry's answer is not a prompt: it has no name or no version", error="bad_answer")
    if asked not in (None, answer["name"]):
        raise Rejected("the registry answered with another prompt than the one asked for", error="bad_answer")
    if not isinstance(answer.get("prompt"), str | list):
        raise Rejected("the registry's answer is neither a text nor a chat", error="bad_answer")
    if answer.get("resolutionGraph") is not None:
        raise Rejected(
            "this server puts the texts of other prompts in the place of references, whatever it is asked for, so "
            "nobody can read what was written: update the server, or put the texts in at the source",
            error="resolved",
        )
    return answer


def version_of(item: Mapping[str, Any]) -> int | None:
    """The number of a version; None: it has none."""
    number = item.get("version")
    return number if isinstance(number, int) and not isinstance(number, bool) else None


def made_version(answer: Json) -> int:
    """The version that a create made. UnknownOutcome where the answer does not say it: something was made, or not."""
    number = version_of(answer) if isinstance(answer, dict) else None
    if number is None:
        raise UnknownOutcome("the answer to the create names no version", error="no_id")
    return number


def prompt_of(item: Item, *, published_by: str | None, notes: Sequence[str] = ()) -> Prompt:
    """The prompt of a version; `notes`: what else there is to say of it."""
    config: Item = item["config"] if isinstance(item.get("config"), dict) else {}
    texts = {key: config[key] for key in _TEXTS if _is_text(config.get(key))}
    text, contents = _text(item)
    return Prompt(
        id=item["name"],
        name=item["name"],
        text=text,
        collection=texts.get("collection"),
        model=texts.get("model"),
        provider=texts.get("provider"),
        parameters=_parameters(config),
        functions=config.get("functions"),
        tools=config.get("tools"),
        tool_choice=config.get("tool_choice"),
        metadata=_metadata(item, config),
        description=item["commitMessage"] if _is_text(item.get("commitMessage")) else texts.get("description"),
        version=str(item["version"]),
        updated_at=item.get("updatedAt") if isinstance(item.get("updatedAt"), str) else None,
        variables=frozenset(name for one in contents for name in GRAMMAR.shown(one)),
        labels=labels_of(item, published_by),
        dialect=LANGFUSE.name,
        extra=dict(_extra(item, config)),
        notes=(*notes, *_notes(contents)),
    )


def labels_of(item: Mapping[str, Any], published_by: str | None) -> tuple[str, ...]:
    """Those that people put there, without the one that publishes, sorted."""
    return tuple(sorted({*texts_in(item.get("labels"))} - {LATEST, published_by}))


def texts_in(value: Json) -> list[str]:
    """Of a list, those that are texts; what is no list has none."""
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []


def row_of(item: Item, published_by: str | None) -> Row:
    """A row of the listing, which has the config of the newest version: it tells the model and collection of what is
    published where that is the newest one.
    """
    labels, versions = texts_in(item.get("labels")), item.get("versions")
    newest = (isinstance(versions, list) and len(versions) == 1) or published_by is None or published_by not in labels
    config: Item = item["lastConfig"] if newest and isinstance(item.get("lastConfig"), dict) else {}
    model, collection = (
        value if isinstance(value := config.get(key), str) and value else None for key in ("model", "collection")
    )
    updated_at = item.get("lastUpdatedAt")
    return Row(
        id=item["name"],
        name=item["name"],
        model=model,
        collection=collection,
        updated_at=updated_at if isinstance(updated_at, str) else None,
        whole=newest and "lastConfig" in item,
        labels=tuple(labels),
    )


def _text(item: Item) -> tuple[str, list[str]]:
    """`Prompt.text`, and the texts in it."""
    if isinstance(item["prompt"], str):
        return item["prompt"], [item["prompt"]]
    messages = [_message(one) for one in item["prompt"]]
    return spelled(messages), [one["content"] for one in messages]


def _message(one: Json) -> dict[str, str]:
    if isinstance(one, dict) and one.get("type") == PLACEHOLDER_ROLE and isinstance(one.get("name"), str):
        return {"role": PLACEHOLDER_ROLE, "content": f"@@@placeholder:{one['name']}@@@"}
    if not isinstance(one, dict) or not all(isinstance(one.get(key), str) for key in ("role", "content")):
        raise Rejected("the registry's answer has a message without role or content", error="bad_answer")
    return {"role": one["role"], "content": one["content"]}


def _is_text(value: Json) -> bool:
    """With something in it."""
    return isinstance(value, str) and bool(value)


def _parameters(config: Mapping[str, Any]) -> dict[str, Json]:
    plain = {key: value for key, value in config.items() if key not in _OWN}
    nested = config.get(_NESTED)
    if isinstance(nested, dict) and not nested.keys() & plain.keys():
        return plain | nested
    return plain | ({_NESTED: nested} if nested is not None else {})


def _metadata(item: Item, config: Mapping[str, Any]) -> dict[str, Json]:
    inner = config.get("metadata")
    metadata = dict(inner) if isinstance(inner, dict) else {}
    if (tags := texts_in(item.get("tags"))) and "tags" not in metadata:
        metadata["tags"] = tags
    return metadata | ({MARK_KEY: config[MARK_KEY]} if config.get(MARK_KEY) is not None else {})


def _extra(item: Item, config: Mapping[str, Any]) -> Iterator[tuple[str, Json]]:
    """What has a value and no field of ours."""
    yield from ((key, value) for key, value in item.items() if key not in _KNOWN and value is not None)
    if not isinstance(item.get("config"), dict) and item.get("config"):
        yield "config", item["config"]
    for key, kind in (*((key, str) for key in _TEXTS), ("metadata", dict)):
        if not isinstance(config.get(key), kind | None):
            yield f"config.{key}", config[key]
    if _is_text(item.get("commitMessage")) and _is_text(config.get("description")):
        yield "config.description", config["description"]
    if isinstance(inner := config.get("metadata"), dict) and "tags" in inner and (tags := texts_in(item.get("tags"))):
        yield "tags", tags
    yield from _extra_of_text(item)


def _extra_of_text(item: Item) -> Iterator[tuple[str, Json]]:
    if isinstance(item["prompt"], str):
        if messages_of(item["prompt"]) is not None:  # elsewhere, and when it comes back, that is a chat
            yield "type", "text"
        return
    for one in item["prompt"]:
        known = ("type", "name") if one.get("type") == PLACEHOLDER_ROLE else ("role", "content")
        for key, value in one.items():
            if value and key not in known and not (key == "type" and value in _PLAIN_MESSAGE):
                yield f"messages.{key}", value


def _notes(contents: Collection[str]) -> Iterator[str]:
    tokens = [token for text in contents for token in GRAMMAR.tokens(text)]
    for body in dict.fromkeys(token.body for token in tokens if token.kind == REFERENCE):
        name = body.removeprefix("name=").rpartition("|")[0]
        yield f"it takes in the prompt {name!r} by that name, which is kept as it is written"


# ---- to the registry -------------------------------------------------------------------------------------------------


def body_of(replica: Replica, *, labels: Sequence[str], tags: bool, messages: bool) -> bytes:
    """The body of a create. `tags`: they become those of all versions; `messages`: a description may be the commit
    message. Rejected when it cannot be written without loss.
    """
    prompt = replica.prompt
    if (why := NAMES.refuses(prompt.name)) is not None:
        raise Rejected(why, error="bad_name")
    config = _config(prompt)
    item: Item = {"name": prompt.name, **_content(prompt), "config": config, "labels": [*labels]}
    if tags:
        item["tags"] = _tags(prompt)
    if messages and prompt.description and _length(prompt.description) <= LONGEST_MESSAGE:
        item["commitMessage"] = prompt.description
    elif prompt.description:
        config["description"] = prompt.description
    if (lost := next(_unkept(item), None)) is not None:
        raise Rejected(lost, error="loss")
    return _encoded(item)


def placeable(labels: Collection[str], published_by: str | None) -> list[str]:
    """Those that may be put on a version as they are: never the one that would publish it by chance."""
    return [label for label in labels if is_label(label) and label != published_by]


def _content(prompt: Prompt) -> Item:
    messages = messages_of(prompt.text)
    if messages is None:
        return {"type": "text", "prompt": prompt.text}
    return {"type": "chat", "prompt": [_sent(at, one) for at, one in enumerate(messages, 1)]}


def _sent(at: int, message: Mapping[str, Json]) -> dict[str, str]:
    role, content = message["role"], message.get("content")
    if not isinstance(role, str) or not isinstance(content, str):
        what = "a role" if not isinstance(role, str) else "a content"
        raise Rejected(
            f"message {at} has {what} that is no text, and Langfuse keeps nothing else: change it at the source",
            error="loss",
        )
    if lost := sorted(key for key, value in message.items() if key not in ("role", "content") and value):
        raise Rejected(f"message {at} has {', '.join(lost)}, which Langfuse drops", error="loss")
    tokens = GRAMMAR.tokens(content)
    if role == PLACEHOLDER_ROLE and [token.kind for token in tokens] == [PLACEHOLDER]:
        return {"type": PLACEHOLDER_ROLE, "name": tokens[0].body}
    return {"role": role, "content": content}


def _length(text: str) -> int:
    """As JavaScript counts characters."""
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


def _config(prompt: Prompt) -> Item:
    """But for the description."""
    tagged = {MARK_KEY, "tags"} if _tags(prompt) else {MARK_KEY}
    nested = {key: value for key, value in prompt.parameters.items() if key in _OWN}
    fields = {
        **{key: getattr(prompt, key) for key in ("model", "provider", "collection", *_VALUES)},
        _NESTED: nested or None,
        "metadata": {key: value for key, value in prompt.metadata.items() if key not in tagged} or None,
        MARK_KEY: prompt.metadata.get(MARK_KEY),
    }
    plain = {key: value for key, value in prompt.parameters.items() if key not in _OWN}
    return plain | {key: value for key, value in fields.items() if value is not None}


def _tags(prompt: Prompt) -> list[str]:
    """The metadata of that name, where that is a list of different words."""
    value = prompt.metadata.get("tags")
    words = texts_in(value)
    return words if words == value and len(set(words)) == len(words) else []


def _unkept(value: Json, path: str = "") -> Iterator[str]:
    """What of a value would not come back, by name."""
    if isinstance(value, str):
        if _NOT_KEPT.search(value):
            yield f"{path}: Langfuse cannot keep a NUL or half of a character, take it out at the source"
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _unkept(key, f"a key of {path}" if path else "a key")
            yield from _unkept(inner, _inside(path, key))
    elif isinstance(value, list):
        for inner in value:
            yield from _unkept(inner, path)
    elif not _is_kept_number(value):
        yield f"{path}: Langfuse keeps numbers as doubles, and this one would lose digits; round it at the source"


def _inside(path: str, key: str) -> str:
    """As users know it: what stands in the config under its own name."""
    if path in ("", "config"):
        own = {"prompt": "string", "commitMessage": "version_description", "description": "version_description"}
        return own.get(key, key) if not path or key in _OWN else f"parameters.{key}"
    return f"{path}.{key}"


def _is_kept_number(value: Json) -> bool:
    if not isinstance(value, int | float | Number) or isinstance(value, bool):
        return True
    try:
        double = float(value)
    except OverflowError:
        return False
    # JavaScript writes the shortest digits that mean the double
    return math.isfinite(double) and Number(repr(double)) == value


def _encoded(item: Item) -> bytes:
    try:
        body = encode(item)
    except ValueError as error:
        raise Rejected(f"the prompt cannot be written as JSON without loss: {error}", error="not_encodable") from error
    if len(body) > LARGEST_BODY:
        message = f"it has {len(body):,} bytes with all that belongs to it, and Langfuse takes {LARGEST_BODY:,}"
        raise Rejected(f"{message}: shorten it at the source", error="too_large")
    return body
