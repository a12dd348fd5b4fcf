"""What a version of a Langfuse prompt holds: checked and brought into the form in which the server keeps it. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from engine.sandbox.answers import Json
from engine.sandbox.langfuse.answers import Invalid
from engine.sandbox.langfuse.quirks import LangfuseQuirks

LATEST: Final = "latest"
_LABEL: Final = re.compile(r"[a-z0-9_\-.]+")
_PLACEHOLDER: Final = re.compile("[a-zA-Z][a-zA-Z0-9_]*")
_NAME_RULES: Final = (
    (re.compile(r"(?s).+"), "Enter a name"),
    (re.compile(r"[^|]*"), "Prompt name cannot contain '|' character"),
    (re.compile(r"(?s)[^/].*"), "Name cannot start with a slash"),
    (re.compile(r"(?s)(?!.*//).*"), "Name cannot contain consecutive slashes"),
    # its dot stops at line ends: a name of several lines is refused in these words too
    (re.compile("[^\n\r\u2028\u2029]*[^/]"), "Name cannot end with a slash"),
)
_BLANKS: Final = "\t\n\v\f\r \u00a0\u1680\u2028\u2029\u202f\u205f\u3000\ufeff" + "".join(
    map(chr, range(0x2000, 0x200B))
)
_LARGEST_WHOLE: Final = 2**53


@dataclass(frozen=True, slots=True, kw_only=True)
class Creation:
    """A create that is well formed. `tags`: None when none were sent."""

    name: str
    type: str
    prompt: Json
    config: Json
    labels: Sequence[str]
    tags: Sequence[str] | None
    commit_message: str | None


def check_creation(body: Json, quirks: LangfuseQuirks) -> Creation:
    """The fields that are kept; others are dropped without a word. Raises Invalid (400)."""
    if not isinstance(body, dict):
        raise Invalid([], "Expected object")
    kind = body.get("type", "text")
    if kind not in ("text", "chat"):
        raise Invalid(["type"], "Invalid input")
    labels, tags, config = body.get("labels", []), body.get("tags"), body.get("config")
    return Creation(
        name=_name(body.get("name"), quirks),
        type=kind,
        prompt=kept(_prompt(kind, body.get("prompt"), quirks)),
        config={} if config is None else kept(config),
        labels=check_labels("labels", labels),
        tags=None if tags is None else _texts("tags", tags),
        commit_message=_commit_message(body.get("commitMessage"), quirks),
    )


def check_labels(field: str, labels: Json) -> list[str]:
    """Each once. Raises Invalid (400)."""
    for index, label in enumerate(_texts(field, labels)):
        if not _LABEL.fullmatch(label):
            rule = "Label must be lowercase alphanumeric with optional underscores, hyphens, or periods"
            raise Invalid([field, index], rule)
    return list(dict.fromkeys(labels))


def kept(value: Json) -> Json:
    """As it comes back from a server that reads JSON into JavaScript and keeps it as `jsonb`: numbers are doubles, keys
    stand in order of their length and then their bytes.
    """
    if isinstance(value, dict):
        keys = sorted(value, key=lambda key: (len(_bytes(key)), _bytes(key)))
        return {key: kept(value[key]) for key in keys}
    if isinstance(value, list):
        return [kept(one) for one in value]
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    return _double(value)


def _double(number: float) -> Json:
    """null: too large for one."""
    try:
        double = float(number)
    except OverflowError:
        return None
    return int(double) if double.is_integer() and abs(number) < _LARGEST_WHOLE else double


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _name(name: Json, quirks: LangfuseQuirks) -> str:
    if not isinstance(name, str):
        raise Invalid(["name"], "Expected string")
    if quirks.manner == 2:
        return name
    for rule, message in _NAME_RULES:
        if not rule.fullmatch(name):
            raise Invalid(["name"], message)
    trimmed = name.strip(_BLANKS)
    if trimmed in ("", "new"):
        raise Invalid(["name"], "Prompt name cannot be 'new'" if trimmed else "Name cannot be empty")
    return trimmed


def _prompt(kind: str, prompt: Json, quirks: LangfuseQuirks) -> Json:
    if not isinstance(prompt, str if kind == "text" else list):
        raise Invalid(["prompt"], "Expected string" if kind == "text" else "Expected array")
    return prompt if kind == "text" else [_message(index, one, quirks) for index, one in enumerate(prompt)]


def _message(index: int, message: Json, quirks: LangfuseQuirks) -> dict[str, str]:
    """Role and content, or (3) a placeholder; other keys are dropped without a word."""
    if isinstance(message, dict):
        if _are_texts(message, "role", "content"):
            return {"role": message["role"], "content": message["content"]}
        if quirks.manner == 3 and _is_placeholder(message):
            return {"type": "placeholder", "name": message["name"]}
    raise Invalid(["prompt", index], "Invalid input")


def _is_placeholder(message: Mapping[str, Json]) -> bool:
    named = message.get("type") == "placeholder" and _are_texts(message, "name")
    return named and _PLACEHOLDER.fullmatch(message["name"]) is not None


def _are_texts(message: Mapping[str, Json], *fields: str) -> bool:
    return all(isinstance(message.get(field), str) for field in fields)


def _commit_message(message: Json, quirks: LangfuseQuirks) -> str | None:
    if quirks.manner == 2 or message is None:
        return None
    if not isinstance(message, str):
        raise Invalid(["commitMessage"], "Expected string")
    if quirks.commit_limit is not None and len(message) > quirks.commit_limit:
        raise Invalid(["commitMessage"], f"String must contain at most {quirks.commit_limit} character(s)")
    return message


def _texts(field: str, values: Json) -> list[str]:
    if not isinstance(values, list):
        raise Invalid([field], "Expected array")
    for index, value in enumerate(values):
        if not isinstance(value, str):
            raise Invalid([field, index], "Expected string")
    return values
