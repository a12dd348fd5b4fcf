"""A prompt as Orkes Conductor keeps it, and back. Pure.

What the code stands on: a prompt is known by its name; `integrations` is a set of `integration:model`, split at the
first colon because models have colons too; tags belong to the name and not to a version; `description` is a text.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from engine.connectors.conductor.dialect import CONDUCTOR, NAMES
from engine.content.digest import differences
from engine.errors import Rejected
from engine.lossless_json import encode
from engine.model import MARK_KEY, Json, Prompt, Replica, Row, Version, version_ref

COLLECTION_TAG: Final = "collection"
"""The tag that says where a prompt belongs: there is nothing else like a collection."""
SAMPLING: Final = ("temperature", "topP", "responseFormat", "stopWords")
"""Parameters that have a place; older servers drop them."""
FIRST_VERSION: Final = 1
_DROPPED: Final = frozenset(f"parameters.{name}" for name in SAMPLING)
_TAGS: Final = frozenset({"metadata", "collection"})
_SERVER_OWNED: Final = frozenset(
    "version variables createTime updateTime createdOn updatedOn createdBy updatedBy ownerApp".split()
)
_KNOWN: Final = _SERVER_OWNED | {"name", "template", "description", "integrations", "tags", *SAMPLING}

_LAST_TIME: Final = 253_402_300_799_999
"""The end of the year 9999, in milliseconds."""

Item = dict[str, Json]
"""A prompt in the registry's own words."""
Tag = tuple[str, str]


# ---- from the registry -----------------------------------------------------------------------------------------------


def prompt_of(item: Json, asked: str | None = None) -> Prompt:
    """The prompt in an answer. Rejected when it is none, or not the one that was `asked` for."""
    _check(item, asked)
    metadata = _metadata(tags_of(item))
    collection = metadata.pop(COLLECTION_TAG, None)
    provider, model, others = _split(item.get("integrations") or ())
    return Prompt(
        id=item["name"],
        name=item["name"],
        text=item["template"],
        collection=collection if isinstance(collection, str) else None,
        model=model,
        provider=provider,
        parameters={name: item[name] for name in SAMPLING if item.get(name) is not None},
        metadata=metadata,
        description=item.get("description") or None,
        integrations=others,
        version=version_ref(item.get("version")),
        updated_at=_time(item.get("updateTime")),
        dialect=CONDUCTOR.name,
        extra={name: value for name, value in item.items() if name not in _KNOWN and value is not None},
    )


def _check(item: Json, asked: str | None) -> None:
    if not isinstance(item, dict) or not all(isinstance(item.get(name), str) for name in ("name", "template")):
        raise Rejected("the registry's answer is not a prompt: it has no name or no template", error="bad_answer")
    if asked not in (None, item["name"]):
        raise Rejected("the registry answered with another prompt than the one asked for", error="bad_answer")
    for name, kind in (("integrations", list), ("tags", list), ("description", str), ("version", int)):
        if item.get(name) is not None and not isinstance(item[name], kind):
            raise Rejected(f"the registry's answer has {name} of another type than it should", error="bad_answer")


def row_of(item: Item) -> Row:
    """The row of a listing, which is a whole prompt here, but for tags where a cluster keeps them apart; what is not as
    it should be is as good as nothing.
    """
    pairs = item.get("integrations")
    provider_model = _split(pairs if isinstance(pairs, list) else ())
    tags = dict(tags_of(item))
    return Row(
        id=item["name"],
        name=item["name"],
        collection=tags.get(COLLECTION_TAG),
        model=provider_model[1],
        created_at=_time(item.get("createTime")),
        updated_at=_time(item.get("updateTime")),
        whole="tags" in item and "integrations" in item,
    )


def version_of(item: Json) -> Version:
    """Its place in the history; the id is the number."""
    number = item.get("version") if isinstance(item, dict) else None
    if not isinstance(number, int) or isinstance(number, bool):
        raise Rejected("the registry's list of versions has one without a number", error="bad_answer")
    return Version(ref=str(number), ordinal=number, id=str(number))


def tags_of(item: Mapping[str, Any]) -> list[Tag]:
    """The tags of a prompt, sorted."""
    listed = item.get("tags")
    tags = [tag for tag in listed if isinstance(tag, dict)] if isinstance(listed, list) else []
    return sorted({(tag["key"], tag["value"]) for tag in tags if _is_tag(tag)})


def _is_tag(tag: Mapping[str, Any]) -> bool:
    return isinstance(tag.get("key"), str) and isinstance(tag.get("value"), str)


def _metadata(tags: Collection[Tag]) -> dict[str, Json]:
    """A text, or where a key has several values their sorted list."""
    values: dict[str, list[str]] = {}
    for key, value in tags:
        values.setdefault(key, []).append(value)
    return {key: several[0] if len(several) == 1 else several for key, several in values.items()}


def _split(pairs: Collection[Json]) -> tuple[str | None, str | None, tuple[str, ...]]:
    """Provider and model of the first in order, and the others; a set has no order of its own."""
    known = sorted({pair for pair in pairs if isinstance(pair, str)})
    if not known:
        return None, None, ()
    provider, colon, model = known[0].partition(":")
    return (provider, model, tuple(known[1:])) if colon else (None, provider, tuple(known[1:]))


def _time(value: Json) -> str | None:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _LAST_TIME:
        return None
    moment = datetime.fromtimestamp(value / 1000, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


# ---- what was asked for and what is there ----------------------------------------------------------------------------


def differences_of(item: Item, found: Item) -> list[str]:
    """The fields in which a prompt is not as it was sent, but for tags, which a bulk need not store."""
    return [name for name in differences(prompt_of(item), prompt_of(found)) if name not in _TAGS]


def dropped_of(item: Item, found: Item) -> list[str]:
    """The same, when it is only what older servers drop, or what any keeps as a double; else nothing."""
    fields = differences_of(item, found)
    return fields if _DROPPED.issuperset(fields) else []


def dropped_says(fields: Sequence[str]) -> str:
    """What to do about it."""
    advice = "so that was taken back; use rewrite.parameters.drop, or set a number that a double holds"
    return f"{', '.join(fields)}: this server drops it, as older ones do, or keeps another number, {advice}"


# ---- to the registry -------------------------------------------------------------------------------------------------


def body_of(replica: Replica) -> bytes:
    """One prompt of a bulk, without version. Rejected when it cannot be written without loss."""
    prompt = replica.prompt
    if (why := NAMES.refuses(prompt.name)) is not None:
        raise Rejected(why, error="bad_name")
    if lost := sorted(prompt.parameters.keys() - {*SAMPLING}):
        names = ", ".join(f"parameters.{name}" for name in lost)
        raise Rejected(f"{names}: there is no place for that in Conductor; drop it in rewrite", error="loss")
    item = {
        "name": prompt.name,
        "template": prompt.text,
        "description": prompt.description or "",
        "integrations": _pairs(prompt),
        "tags": tags_as_sent(set(_tags(prompt))),
        **prompt.parameters,
    }
    try:
        return encode(item)
    except ValueError as error:
        raise Rejected(f"the prompt cannot be written as JSON without loss: {error}", error="not_encodable") from error


def tags_as_sent(tags: Collection[Tag]) -> list[Item]:
    """In the registry's own words, sorted."""
    return [{"key": key, "value": value} for key, value in sorted(tags)]


def _pairs(prompt: Prompt) -> list[str]:
    own = [pair for pair in (_pair(prompt.provider, prompt.model),) if pair]
    return sorted({*own, *prompt.integrations})


def _pair(provider: str | None, model: str | None) -> str | None:
    return f"{provider}:{model}" if provider and model else model


def _tags(prompt: Prompt) -> Iterator[Tag]:
    if prompt.collection is not None:
        yield COLLECTION_TAG, prompt.collection
    for key, value in prompt.metadata.items():
        if key == COLLECTION_TAG and prompt.collection is not None:
            raise Rejected("metadata.collection: that tag stands for the collection in Conductor", error="loss")
        yield from ((key, text) for text in _texts(key, value))


def _texts(key: str, value: Json) -> list[str]:
    if value is None:
        return []
    if key == MARK_KEY and isinstance(value, dict):
        return [str(value.get("key"))]
    texts = value if isinstance(value, list) else [value]
    if not all(isinstance(text, str) for text in texts):
        raise Rejected(f"metadata.{key}: a tag of Conductor is a text", error="loss")
    return texts
