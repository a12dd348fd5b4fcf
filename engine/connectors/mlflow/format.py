"""A prompt as MLflow keeps it, and back. Pure.

What the code stands on: a prompt is a registered model with a tag, and each of its versions carries the content in
tags, which are texts. `_mlflow_prompt_model_config` is flat: provider and model_name beside the parameters, and
whatever else a caller has, as tools. `latest_versions` has the newest version of each stage. A version that carries our
mark says all of itself; to any other one belongs also what is said of its prompt.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from posixpath import normpath
from typing import Any, Final

from engine.connectors.mlflow.dialect import LONGEST_VALUE, MLFLOW, NAMES
from engine.connectors.mlflow.messages import unloadable
from engine.content.chats import messages_of
from engine.content.digest import read_mark
from engine.errors import Rejected
from engine.lossless_json import decode, encode
from engine.model import MARK_KEY, Json, Mark, Prompt, Replica, Row

IS_PROMPT: Final = "mlflow.prompt.is_prompt"
TEXT: Final = "mlflow.prompt.text"
TYPE: Final = "_mlflow_prompt_type"
FORMAT: Final = "_mlflow_prompt_response_format"
CONFIG: Final = "_mlflow_prompt_model_config"
COLLECTION: Final = "collection"
"""The tag that says where a prompt belongs: there is nothing else like a collection."""
REST: Final = "promptferry.metadata"
"""The tag that holds, as JSON, what of the metadata is no text, or has a key that no tag can have."""
SOURCE: Final = "dummy-source"
"""What its own client sends, and one of two words that the server takes."""
LONGEST_KEY: Final = 250
"""Characters of the key of a tag."""

_OF_THE_SERVER: Final = frozenset({"mlflow.prompt.associatedRunIds", "_mlflow_experiment_ids"})
"""Tags in which it notes who used a prompt."""
_CONTENT: Final = frozenset({IS_PROMPT, TEXT, TYPE, FORMAT, CONFIG, REST})
_OF_A_PROMPT: Final = frozenset({IS_PROMPT, MARK_KEY, COLLECTION})
"""Tags that a new prompt carries too, so that it can be searched for by them, and known before it has a version."""
_RESERVED: Final = ("mlflow.prompt.", "_mlflow_")
_OF_A_VERSION: Final = frozenset(
    "name version creation_timestamp last_updated_timestamp user_id current_stage description source run_id run_link "
    "status status_message tags aliases".split()
)
_IN_CONFIG: Final = ("tools", "tool_choice", "functions")
"""Fields of Prompt that stand in the configuration under their own names."""
_CONFIG_FIELDS: Final = frozenset({"provider", "model_name", *_IN_CONFIG})
_KEY: Final = re.compile(r"[/\w.\- :]+")
_LAST_TIME: Final = 253_402_300_799_999
"""The end of the year 9999, in milliseconds."""

Item = dict[str, Json]
"""A version in the registry's own words."""


# ---- from the registry -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """What there is of a prompt besides its older versions. `newest`: None where it has no version."""

    name: str
    description: str
    tags: Mapping[str, str] = field(repr=False)
    aliases: Mapping[str, str]
    """Alias -> version."""
    newest: Item | None = field(repr=False)
    created_at: str | None

    def published(self, published_by: str) -> str | None:
        """The version that counts as published; None: there is none at all."""
        return self.aliases.get(published_by) or (version_number(self.newest) if self.newest is not None else None)

    @property
    def mark(self) -> Mark | None:
        """The one that the prompt itself carries, which is put on by the first call of a create."""
        return read_mark(_metadata(self.tags), None)


def held_of(item: Json, asked: str | None = None) -> Held:
    """The prompt in an answer. Rejected when it is none, or not the one that was `asked` for."""
    if not isinstance(item, dict) or not isinstance(item.get("name"), str):
        raise Rejected("the registry's answer is not a prompt: it has no name", error="bad_answer")
    if asked not in (None, item["name"]):
        raise Rejected("the registry answered with another prompt than the one asked for", error="bad_answer")
    aliases = [one for one in _objects(item, "aliases") if isinstance(one.get("alias"), str)]
    versions = _objects(item, "latest_versions")
    return Held(
        name=item["name"],
        description=_text(item.get("description")),
        tags=tags_of(item),
        aliases={one["alias"]: str(one.get("version")) for one in aliases},
        newest=max(versions, key=lambda one: int(version_number(one)), default=None),
        created_at=_time(item.get("creation_timestamp")),
    )


def version_number(item: Json) -> str:
    """What it is called. Rejected when it has no number."""
    number = item.get("version") if isinstance(item, dict) else None
    if not isinstance(number, str | int) or isinstance(number, bool) or not str(number).isdecimal():
        raise Rejected("the registry's answer has a version without a number", error="bad_answer")
    return str(number)


def tags_of(item: Item) -> dict[str, str]:
    """Of a prompt or a version."""
    tags = _objects(item, "tags")
    return {tag["key"]: _text(tag.get("value")) for tag in tags if isinstance(tag.get("key"), str)}


def _objects(item: Item, name: str) -> list[dict[str, Any]]:
    listed = item.get(name)
    if listed is not None and not isinstance(listed, list):
        raise Rejected(f"the registry's answer has {name} of another type than it should", error="bad_answer")
    return [one for one in listed or () if isinstance(one, dict)]


def _text(value: Json) -> str:
    return value if isinstance(value, str) else ""


def prompt_of(held: Held, item: Item, published_by: str) -> Prompt:
    """One version of it. Rejected when it has no text, or content that is not as it should be."""
    own = tags_of(item)
    if TEXT not in own:
        raise Rejected("it has no text: that version was not made as a prompt", error="bad_answer")
    alone = MARK_KEY in own
    tags = own if alone else {**held.tags, **own}
    config, wrong = _config(own)
    metadata = _metadata(tags)
    description = _text(item.get("description"))
    if not alone and held.description not in ("", description):
        description = description or held.description
        if description != held.description:
            metadata.setdefault("prompt_description", held.description)
    return Prompt(
        id=held.name,
        name=held.name,
        text=own[TEXT],
        collection=tags.get(COLLECTION) or None,
        model=config.pop("model_name", None),
        provider=config.pop("provider", None),
        tools=config.pop("tools", None),
        tool_choice=config.pop("tool_choice", None),
        functions=config.pop("functions", None),
        parameters=config,
        metadata=metadata,
        description=description or None,
        version=version_number(item),
        labels=labels_of(held, version_number(item), published_by),
        dialect=MLFLOW.name,
        extra={**wrong, **_unknown(own, item)},
        notes=tuple(_notes(item)),
    )


def labels_of(held: Held, number: str, published_by: str) -> tuple[str, ...]:
    """The aliases that stand on a version, but for the one that publishes it."""
    aliases = (alias for alias, on in held.aliases.items() if on == number and alias != published_by)
    return tuple(sorted(aliases))


def row_of(held: Held, published_by: str) -> Row:
    """The row of a listing: it has the newest version whole, which may not be the published one."""
    told: dict[str, Any] = {}
    if held.newest is not None and held.published(published_by) == version_number(held.newest):
        own = tags_of(held.newest)
        tags = own if MARK_KEY in own else {**held.tags, **own}
        model = _config(own)[0].get("model_name")
        told = {"model": model, "collection": tags.get(COLLECTION) or None, "whole": True}
    return Row(id=held.name, name=held.name, created_at=held.created_at, labels=tuple(held.aliases), **told)


def _config(tags: Mapping[str, str]) -> tuple[dict[str, Json], dict[str, Json]]:
    """Model configuration and response format; and what of them is not as it should be, as extra fields."""
    wrong: dict[str, Json] = {}
    config = _json(tags.get(CONFIG), {})
    if not isinstance(config, dict):
        config, wrong["model_config"] = {}, tags[CONFIG]
    for name in ("model_name", "provider"):
        if not isinstance(config.get(name), str | None):
            wrong[f"model_config.{name}"] = config.pop(name)
    if FORMAT in tags:
        if "response_format" in config:
            wrong["model_config.response_format"] = config.pop("response_format")
        config["response_format"] = _json(tags[FORMAT], tags[FORMAT])
    return config, wrong


def _json(text: str | None, otherwise: Json) -> Json:
    """What the text says, or itself where it is no JSON."""
    if not text:
        return otherwise
    try:
        return decode(text.encode("utf-8", "surrogatepass"))
    except ValueError:
        return text


def _metadata(tags: Mapping[str, str]) -> dict[str, Json]:
    metadata: dict[str, Json] = {key: value for key, value in tags.items() if _is_free(key) and key != COLLECTION}
    if MARK_KEY in metadata:
        metadata[MARK_KEY] = _json(tags[MARK_KEY], None)
    rest = _json(tags.get(REST), {})
    return {**metadata, **(rest if isinstance(rest, dict) else {REST: rest})}


def _is_free(key: str) -> bool:
    """Whether the key of a tag is nobody's but the user's."""
    return key not in _CONTENT and not key.startswith(_RESERVED)


def _unknown(own: Mapping[str, str], item: Item) -> dict[str, Json]:
    """What has a value and no field of ours."""
    extra: dict[str, Json] = {
        key: value
        for key, value in own.items()
        if key.startswith(_RESERVED) and key not in _CONTENT | _OF_THE_SERVER and value
    }
    extra |= {name: value for name, value in item.items() if name not in _OF_A_VERSION and value}
    told, messages = own.get(TYPE, "text"), messages_of(own[TEXT])
    if told != ("chat" if messages else "text") and messages != []:
        extra[TYPE] = told  # a text that looks like a chat, or a chat that is none
    return extra


def _notes(item: Item) -> Iterator[str]:
    if (stage := _text(item.get("current_stage"))) not in ("", "None"):
        yield f"is in the stage {stage}, which is not copied"


def _time(value: Json) -> str | None:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _LAST_TIME:
        return None
    moment = datetime.fromtimestamp(value / 1000, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


# ---- to the registry -------------------------------------------------------------------------------------------------


def body_of(replica: Replica) -> bytes:
    """The bodies of both calls of a create, of which an update makes the second. Rejected when the prompt cannot be
    written without loss.
    """
    prompt = replica.prompt
    if (why := NAMES.refuses(prompt.name)) is not None:
        raise Rejected(why, error="bad_name")
    described = {"name": prompt.name, **_description(prompt)}
    tags = dict(_tags(prompt))
    of_the_prompt = {key: value for key, value in tags.items() if key in _OF_A_PROMPT}
    return _encoded(
        {
            "prompt": {**described, "tags": _as_sent(of_the_prompt)},
            "version": {**described, "source": SOURCE, "tags": _as_sent(tags)},
        }
    )


def _description(prompt: Prompt) -> Item:
    if not prompt.description:
        return {}
    return {"description": _whole(prompt.description, "version_description")}


def _tags(prompt: Prompt) -> Iterator[tuple[str, str]]:
    messages = messages_of(prompt.text)
    if messages and (why := unloadable(messages)):
        raise Rejected(f"{why}, so no client of MLflow could load it: change it at the source", error="untranslatable")
    yield IS_PROMPT, "true"
    yield TYPE, "chat" if messages else "text"
    yield TEXT, _fitting(prompt.text, "its text")
    parameters = {name: value for name, value in prompt.parameters.items() if value is not None}
    answer = parameters.pop("response_format", None)
    if answer is not None:
        yield FORMAT, _fitting(_dumped(answer), "parameters.response_format")
    if config := _written_config(prompt, parameters):
        yield CONFIG, _fitting(_dumped(config), "the parameters and tools")
    yield from _written_metadata(prompt)


def _written_config(prompt: Prompt, parameters: Mapping[str, Json]) -> dict[str, Json]:
    if taken := sorted(_CONFIG_FIELDS & parameters.keys()):
        names = ", ".join(f"parameters.{name}" for name in taken)
        raise Rejected(f"{names}: that name means something else in MLflow; drop it in rewrite", error="loss")
    fields = {"provider": prompt.provider, "model_name": prompt.model}
    fields |= {name: getattr(prompt, name) for name in _IN_CONFIG}
    return {name: value for name, value in fields.items() if value is not None} | dict(parameters)


def _written_metadata(prompt: Prompt) -> Iterator[tuple[str, str]]:
    """Each text that can be a tag is one; all the rest stands in one more."""
    rest: dict[str, Json] = {}
    if prompt.collection is not None:
        yield COLLECTION, _fitting(prompt.collection, "collection")
    for key, value in prompt.metadata.items():
        if key == MARK_KEY:
            yield key, _fitting(_dumped(value), f"metadata.{key}")
        elif isinstance(value, str) and _is_tag(key) and len(value) <= LONGEST_VALUE and _is_whole(value):
            yield key, value
        elif value is not None:
            rest[key] = value
    if rest:
        yield REST, _fitting(_dumped(rest), f"metadata.{next(iter(rest))}")


def _is_tag(key: str) -> bool:
    """Whether it can be the key of a tag: a path of its own, as it says of itself."""
    fits = len(key) <= LONGEST_KEY and _KEY.fullmatch(key) is not None and _is_free(key) and key != COLLECTION
    return fits and normpath(key) == key and not key.startswith(("..", "/")) and key != "."


def _as_sent(tags: Mapping[str, str]) -> list[Item]:
    return [{"key": key, "value": value} for key, value in tags.items()]


def _fitting(text: str, what: str) -> str:
    if len(text) > LONGEST_VALUE:
        message = f"{what}: {len(text):,} characters, and MLflow keeps {LONGEST_VALUE:,}: shorten it, or leave it out"
        raise Rejected(message, error="too_long")
    return _whole(text, what)


def _whole(text: str, what: str) -> str:
    if not _is_whole(text):
        message = f"{what} holds half a character (a lone surrogate), which MLflow loses: mend it at the source"
        raise Rejected(message, error="not_encodable")
    return text


def _is_whole(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _dumped(value: Json) -> str:
    return _encoded(value).decode()


def _encoded(value: Json) -> bytes:
    try:
        return encode(value)
    except ValueError as error:
        raise Rejected(f"the prompt cannot be written as JSON without loss: {error}", error="not_encodable") from error


def has_mark_of(held: Held, tags: Sequence[Item]) -> bool:
    """Whether the prompt carries the mark that stands among these tags, as they are sent."""
    mark = read_mark(_metadata(tags_of({"tags": list(tags)})), None)
    there = held.mark
    return mark is not None and there is not None and (mark.migration, mark.key) == (there.migration, there.key)
