"""One prompt as bytes, and back: a Markdown file with front matter, or a line of JSON. Pure.

The Markdown file is made for review: everything about the prompt in YAML between `---` lines, then the template as it
is, byte for byte; a chat in sections, where exactly its own bytes can be made of them again. The line keeps everything.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256
from itertools import pairwise
from typing import Any, Final

from engine import lossless_json as wire
from engine.connectors.files.yaml import SPLIT_PAIR, Front, Unreadable, read_front, write_yaml
from engine.content.digest import digest
from engine.content.layouts import ASCII, LAYOUTS, laid_out, layout_of
from engine.content.textfile import BOM, NotText, decoded, other_encoding, repeated_key
from engine.lossless_json.numbers import dumps, loads
from engine.model import DEFAULT_DIALECT, MARK_KEY, Inputs, Json, Prompt, stored_version, version_ref
from engine.model.dialect import Dialect

__all__ = [
    "Document",
    "Unreadable",
    "file_stem",
    "from_line",
    "from_markdown",
    "hash_of",
    "named_in_line",
    "read_markdown",
    "to_line",
    "to_markdown",
]

_KEYS: Final = {
    "name": "name",
    "slug": "slug",
    "collection": "collection",
    "dialect": "dialect",
    "model": "model",
    "provider": "provider",
    "integrations": "integrations",
    "version_description": "description",
    "raw": "raw",
    "parameters": "parameters",
    "tools": "tools",
    "tool_choice": "tool_choice",
    "functions": "functions",
    "labels": "labels",
    "source_version": "version",
    "extra": "extra",
    "metadata": "metadata",
}
"""Key in a file -> field of Prompt, in the order in which they are written."""
_LINE_KEYS: Final = {
    "id": "id",
    **_KEYS,
    "string": "text",
    "updated_at": "updated_at",
    "variables": "variables",
    "inputs": "inputs",
    "parameters_model": "parameters_model",
    "notes": "notes",
}
_MAPS: Final = frozenset({"parameters", "metadata", "extra", "inputs"})
_LISTS: Final = frozenset({"integrations", "labels", "variables", "notes"})
_FREE: Final = frozenset({"tools", "tool_choice", "functions"})
_TEXTS: Final = _KEYS.keys() - _MAPS - _FREE - {"raw", "source_version"} | {"string"}
"""Keys whose values, or what a list of them holds, are texts."""

_FRONT: Final = re.compile(rb"(?:\xef\xbb\xbf)?---[ \t]*\r?\n(.*?)^---[ \t]*(?:\r?\n|\Z)", re.S | re.M)
_HEAD: Final = re.compile(r"^--- (?:([A-Za-z_]+)(, in a list)?|(message as JSON)) ---(\r?)$", re.M)
_ROLES: Final = "(system|developer|user|human|assistant|ai|model|tool|function)"
_OUR_HEAD: Final = re.compile(rf"^--- {_ROLES}(?:, in a list)? ---\r?$", re.M)
_OTHER_HEAD: Final = re.compile(
    rf"^(?:#{{1,6}}[ \t]+{_ROLES}:?|\*\*{_ROLES}:?\*\*:?|-?[ \t]*{_ROLES}:|<\|im_start\|>{_ROLES}"
    rf"|\{{\{{\s*role\s+[\"']{_ROLES}[\"']\s*\}}\}}|-?[ \t]*role:[ \t]*[\"']?{_ROLES}[\"']?)[ \t]*\r?$",
    re.M | re.I,
)
"""How others write a message's head. One may be a heading of the text itself; two different roles are a chat."""
_LONGEST_STEM: Final = 80
_ANY_STEM: Final = re.compile(r"[^a-z0-9._-]+")
_RESERVED: Final = re.compile(r"(?:con|prn|aux|nul|com[0-9]|lpt[0-9])(?:\..*)?|readme")
"""What Windows keeps for itself, with or without anything behind a point; and what is no prompt in a git repository."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A prompt as a file holds it: `prompt.version` is the version that it was at its source."""

    prompt: Prompt
    replaces: bool = False
    """A line that takes the place of the earlier one of the same id."""
    deleted: bool = False
    """A line that only says that the prompt of this id is no longer there."""
    loose: bool = False
    """Its file has no place for anything but the text, so it is read and never changed."""
    like_chat: int | None = None
    """The line of what looks like a message's head, in a file that does not say that it is a chat."""


# ---- names of files --------------------------------------------------------------------------------------------------


def hash_of(text: str, digits: int = 6) -> str:
    """Hex digits that tell texts apart."""
    return sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:digits]


def file_stem(name: str, also: str = "", *, unsafe: re.Pattern[str] = _ANY_STEM, edges: str = "-.") -> str:
    """The file name of a prompt without its ending, safe on every disk; no two names have the same, whatever their
    case. `also`: hex digits behind it instead, for a second prompt of that name. `unsafe`: what must not stand in it;
    `edges`: nor at its ends.
    """
    stem = unsafe.sub("-", name.lower()).strip(edges)[:_LONGEST_STEM].rstrip(edges)
    reserved = _RESERVED.fullmatch(stem) is not None
    if stem == name and stem and not reserved and not also:
        return stem
    if reserved:
        stem = stem.replace(".", "-")
    return f"{stem or 'prompt'}~{also or hash_of(name)}"


# ---- Markdown --------------------------------------------------------------------------------------------------------


def to_markdown(document: Document) -> bytes:
    """The file. The same prompt is the same bytes. Raises ValueError for what would not come back as it is."""
    prompt = document.prompt
    front = {key: value for key, value in _values(prompt, _KEYS) if value or (value is not None and key == "name")}
    for key in _MAPS & front.keys():
        front[key] = dict(sorted(front[key].items()))
    chat = _to_sections(prompt.text)
    body = ""
    if chat is not None:
        front["chat"], body = chat
    elif _stands_as_it_is(prompt.text):
        body = prompt.text
    else:
        front["string"] = prompt.text
    return f"---\n{write_yaml(front)}---\n{body}".encode()


def read_markdown(content: bytes, prompt_id: str, dialects: Mapping[str, Dialect]) -> list[Document]:
    """The same; none of a README that has no front matter, which is a word about the folder."""
    readme = prompt_id.rpartition("/")[2].lower() == "readme"
    if readme and not content.startswith((b"---", BOM + b"---")):
        return []
    return [from_markdown(content, prompt_id, dialects)]


def from_markdown(content: bytes, prompt_id: str, dialects: Mapping[str, Dialect]) -> Document:
    """The prompt that the file holds. Raises Unreadable with the line; no message holds any of the content."""
    found = _FRONT.match(content)
    if found is None:
        raise Unreadable(1, _without_front(content))
    front = _front(_decoded(found[1], 2))
    begin = content.count(b"\n", 0, found.end()) + 1
    body = _decoded(content[found.end() :], begin)
    values, lines = dict(front.values), front.lines
    chat, text = values.pop("chat", None), values.pop("string", None)
    if text is not None:
        if not isinstance(text, str) or chat is not None or body.strip():
            line = lines["string"]
            raise Unreadable(line, "has a `string` that is no text, or stands beside `chat` or a text below: keep one")
        body = text
    elif chat is not None:
        body = _from_sections(chat, body, lines["chat"], begin)
    prompt = _prompt({**values, "id": prompt_id, "string": body}, lines, 1, _KEYS, dialects)
    plain = chat is None and text is None and MARK_KEY not in prompt.metadata  # what we wrote is what it says
    return Document(prompt=prompt, like_chat=_like_chat(body, begin) if plain else None)


def _without_front(content: bytes) -> str:
    """What is wrong with a file that does not begin as it should."""
    if (other := other_encoding(content)) is not None:
        return other
    if not content.strip():
        return "is empty: a prompt begins with front matter, which has at least its `name`, between two lines of ---"
    if b"\r" in content and b"\n" not in content:
        return "ends its lines with carriage returns alone; save it with line feeds"
    return "is no prompt: it does not begin with front matter between two lines of ---"


def _like_chat(body: str, begin: int) -> int | None:
    """The line of what looks like the first message's head. `begin`: the first line of the body."""
    head = _OUR_HEAD.search(body)
    if head is None:
        heads = list(_OTHER_HEAD.finditer(body))
        head = heads[0] if len({str(one[one.lastindex or 0]).lower() for one in heads}) > 1 else None
    return None if head is None else begin + body.count("\n", 0, head.start())


def _front(text: str) -> Front:
    """Front matter that begins in the second line of its file."""
    try:
        front = read_front(text, texts=_TEXTS)
    except Unreadable as error:
        raise Unreadable(error.line + 1, error.message) from None
    return replace(front, lines={key: line + 1 for key, line in front.lines.items()})


def _decoded(content: bytes, first_line: int) -> str:
    try:
        return decoded(content)
    except NotText as error:
        raise Unreadable(first_line - 1 + (error.line or 1), str(error)) from None


def _stands_as_it_is(text: str) -> bool:
    """Git and editors take a NUL for the sign of a binary file; a lone surrogate has no bytes in UTF-8."""
    try:
        return "\0" not in text and text.encode() is not None
    except UnicodeEncodeError:
        return False


# ---- chats -----------------------------------------------------------------------------------------------------------

_CONTENT_FIRST: Final = "content-first"


def _to_sections(text: str) -> tuple[str, str] | None:
    """How the JSON of a chat is laid out, and its messages in sections; None where they would not make these bytes."""
    if not text.startswith("["):
        return None
    try:
        messages = loads(text)
        if not messages or not all(isinstance(message, dict) for message in messages):
            return None
        layout = layout_of(messages, text)
        if layout is None:
            return None
        first = any(next(iter(message), None) == "content" for message in messages)
        words = f"{layout} {_CONTENT_FIRST}" if first else layout
        body = "".join(_section(message, content_first=first) for message in messages)
        return (words, body) if _stands_as_it_is(body) and _from_sections(words, body, 1, 1) == text else None
    except (ValueError, RecursionError):
        return None


def _section(message: dict[str, Json], *, content_first: bool) -> str:
    order = ["content", "role"] if content_first else ["role", "content"]
    if list(message) == order and isinstance(role := message["role"], str):
        content = message["content"]
        if isinstance(content, str):
            return f"--- {role} ---\n{content}\n"
        match content:
            case [{"type": "text", "text": str(text)} as part] if list(part) == ["type", "text"]:
                return f"--- {role}, in a list ---\n{text}\n"
    return f"--- message as JSON ---\n{dumps(message, ensure_ascii=False, indent=2)}\n"


def _from_sections(words: Json, body: str, line: int, begin: int) -> str:
    """The text of the chat. `line`: of the key `chat`; `begin`: the first line of the sections."""
    known = [*LAYOUTS, ASCII, _CONTENT_FIRST]
    told = words.split() if isinstance(words, str) else []
    if not told or told[0] not in LAYOUTS or not set(told) <= set(known):
        raise Unreadable(line, f"has a `chat` that is not one of {', '.join(LAYOUTS)}, then {ASCII}, {_CONTENT_FIRST}")
    heads = list(_HEAD.finditer(body))
    if not heads or heads[0].start():
        raise Unreadable(begin, "has text before its first message: begin with a line such as --- user ---")
    ends = [*(after.start() for _, after in pairwise(heads)), len(body)]
    message = partial(_message, body, content_first=_CONTENT_FIRST in told, begin=begin)
    return laid_out([message(head, end) for head, end in zip(heads, ends, strict=True)], " ".join(told))


def _message(body: str, head: re.Match[str], end: int, *, content_first: bool, begin: int) -> Json:
    text = body[head.end() + 1 : end].removesuffix(f"{head[4]}\n")  # the line end behind it is the head's own
    if head[3] is not None:
        line = begin + body.count("\n", 0, head.start())
        try:
            message: Json = loads(text)
        except (ValueError, RecursionError):
            raise Unreadable(line, "has a message that is not JSON") from None
        if (repeated := repeated_key(text)) is not None:
            raise Unreadable(line + repeated[1], _TWICE)
        return message
    content: Json = [{"type": "text", "text": text}] if head[2] else text
    fields: dict[str, Json] = {"role": head[1], "content": content}
    return dict(reversed(fields.items())) if content_first else fields


# ---- lines -----------------------------------------------------------------------------------------------------------

_TWICE: Final = "has a key that stands in this object already; take one of them out"
_BEGIN: Final = re.compile(r'\s*\{\s*"id"\s*:\s*("(?:[^"\\]|\\.)*")(?:\s*,\s*"name"\s*:\s*("(?:[^"\\]|\\.)*"))?')
"""How a line begins that is no JSON further on."""


def to_line(document: Document) -> bytes:
    """The line, with its line feed. Raises ValueError for what would not come back as it is."""
    if document.deleted:
        return wire.encode({"id": document.prompt.id, "deleted": True}) + b"\n"
    prompt = document.prompt
    if SPLIT_PAIR.search(prompt.text):
        raise ValueError("a text with a surrogate pair in two characters, which would come back as one")
    values = {key: value for key, value in _values(prompt, _LINE_KEYS) if value is not None}
    values = {key: value for key, value in values.items() if value or key in ("id", "name", "string") or key in _FREE}
    told = {**values, **({"replaces": True} if document.replaces else {}), "digest": digest(prompt)}
    return wire.encode(told) + b"\n"


def from_line(line: bytes, number: int, dialects: Mapping[str, Dialect]) -> Document:
    """The prompt of a line. Raises Unreadable with `number`; no message holds any of the content."""
    text = _decoded(line, number)
    try:
        values = wire.decode(line, finite=False)  # a number that no registry takes fails its prompt alone, and by name
    except wire.NotKept:
        raise Unreadable(number, "has a number that cannot be kept; put quotes around it if it is a text") from None
    except ValueError:
        raise Unreadable(number, "is no JSON") from None
    if (repeated := repeated_key(text)) is not None:
        known = repeated[0] in _LINE_KEYS  # any other may be a part of the content
        raise Unreadable(number, f"has `{repeated[0]}` twice; take one of them out" if known else _TWICE)
    if not isinstance(values, dict) or not isinstance(prompt_id := values.get("id"), str) or not prompt_id:
        raise Unreadable(number, "is no prompt: it has no id")
    if values.get("deleted") is True:
        return Document(prompt=Prompt(id=prompt_id, name="", text=""), deleted=True)
    told, replaces = values.pop("digest", None), values.pop("replaces", False) is True
    prompt = _prompt(values, {}, number, _LINE_KEYS, dialects)
    if told is not None and told != digest(prompt):
        raise Unreadable(
            number,
            "does not hold what its digest says: it was edited or damaged; if it is as it is to be, take out `digest`",
        )
    return Document(prompt=prompt, replaces=replaces)


def named_in_line(line: bytes) -> tuple[str | None, str | None]:
    """Id and name of the prompt in a line that cannot be read, as far as they can be told."""
    text = line.decode(errors="replace")
    try:
        told = json.loads(text, parse_int=_no, parse_float=_no, parse_constant=_no, object_pairs_hook=_once)
    except (ValueError, RecursionError):
        begin = _BEGIN.match(text)
        told = dict(zip(("id", "name"), map(_unquoted, begin.groups()), strict=True)) if begin is not None else {}
    prompt_id, name = (told.get(key) if isinstance(told, dict) else None for key in ("id", "name"))
    sure = isinstance(prompt_id, str) and prompt_id and "\ufffd" not in prompt_id
    return prompt_id if sure else None, name if isinstance(name, str) and name else None


def _no(_number: str) -> None:
    """No number is an id or a name, and some cannot be held."""


def _once(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    """Without what stands there more than once: nobody can tell which is meant."""
    values = dict(pairs)
    if len(values) < len(pairs):
        keys = [key for key, _ in pairs]
        values = {key: value for key, value in values.items() if keys.count(key) == 1}
    return values


def _unquoted(written: str | None) -> Json:
    try:
        return json.loads(written or "null")
    except ValueError:
        return None


# ---- values ----------------------------------------------------------------------------------------------------------


def _values(prompt: Prompt, keys: Mapping[str, str]) -> Iterator[tuple[str, Json]]:
    for key, field in keys.items():
        value = getattr(prompt, field)
        if field == "dialect":
            yield key, value if value != DEFAULT_DIALECT else None
        elif field == "inputs":
            yield key, _of_inputs(value)
        elif field in ("variables", "integrations"):
            yield key, sorted(value)
        elif field == "version":
            yield key, stored_version(value)
        else:
            yield key, list(value) if field in _LISTS else value


def _of_inputs(inputs: Inputs) -> dict[str, Json]:
    told = {
        "variables": list(inputs.variables),
        "sections": {name: list(inside) for name, inside in inputs.sections.items()},
        "partials": list(inputs.partials),
    }
    return {name: value for name, value in told.items() if value}


def _prompt(
    values: Mapping[str, Json],
    lines: Mapping[str, int],
    first_line: int,
    keys: Mapping[str, str],
    dialects: Mapping[str, Dialect],
) -> Prompt:
    """A prompt of checked values; those that are null count as not there."""
    for key, value in values.items():
        if key not in keys and key not in ("id", "string"):
            known = ", ".join(keys)
            raise Unreadable(lines.get(key, first_line), f"has a key that is none of {known}")
        if value is not None and not _fits(key, value):
            raise Unreadable(lines.get(key, first_line), f"has a `{key}` of another kind than it should")
    for key in ("id", "name", "string"):
        if values.get(key) is None:
            raise Unreadable(first_line, f"is no prompt: it has no `{key}`")
    named = {**keys, "id": "id", "string": "text"}
    fields: dict[str, Any] = {named[key]: value for key, value in values.items() if value is not None}
    dialect = dialects.get(fields.get("dialect", DEFAULT_DIALECT))
    if dialect is None:
        raise Unreadable(lines.get("dialect", first_line), f"has a `dialect` that is none of {', '.join(dialects)}")
    shown = dialect.grammar.shown(fields["text"])
    fields["variables"] = frozenset({*fields.get("variables", ()), *shown})
    for field in (_LISTS - {"variables"}) & fields.keys():
        fields[field] = tuple(fields[field])
    if "version" in fields:
        fields["version"] = version_ref(fields["version"])
    if "inputs" in fields:
        fields["inputs"] = Inputs(**fields["inputs"])
    return Prompt(**fields)


def _fits(key: str, value: Json) -> bool:
    check = _CHECKS.get(key)
    return check(value) if check is not None else key in _FREE or isinstance(value, str)


def _texts(value: Json) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _told_inputs(value: Json) -> bool:
    if not isinstance(value, dict) or not value.keys() <= {"variables", "sections", "partials"}:
        return False
    sections = value.get("sections", {})
    inside = isinstance(sections, dict) and all(_texts(names) for names in sections.values())
    return inside and _texts(value.get("variables", [])) and _texts(value.get("partials", []))


def _is_version(value: Json) -> bool:
    """As `stored_version` writes it: a number, or a text that is none."""
    if isinstance(value, str):
        return value != "" and stored_version(value) == value
    return isinstance(value, int) and not isinstance(value, bool)


_CHECKS: Final[Mapping[str, Callable[[Json], bool]]] = {
    **dict.fromkeys(("parameters", "metadata", "extra"), lambda value: isinstance(value, dict)),
    **dict.fromkeys(_LISTS, _texts),
    "inputs": _told_inputs,
    "raw": lambda value: isinstance(value, bool),
    "source_version": _is_version,
}
