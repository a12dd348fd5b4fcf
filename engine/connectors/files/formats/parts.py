"""What the formats have in common: front matter, what of a prompt stands beside the metadata, and whether all of it
comes back. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from engine.connectors.files.format import Document, Unreadable
from engine.connectors.files.yaml import Front, read_front
from engine.content.chats import messages_of, respelled
from engine.content.digest import CONTENT, changed, content, user_name
from engine.content.templates import TEXT
from engine.content.textfile import BOM, NotText, decoded, other_encoding, repeated_key
from engine.lossless_json.numbers import NotKept, loads
from engine.model import Json, Prompt, stored_version, version_ref
from engine.model.dialect import Dialect, Fitted, Grammar, Token

REST: Final = "promptferry.file"
"""The key of the metadata that holds, as a map, what a format has no place of its own for."""

_FRONT: Final = re.compile(
    rb"(?:\xef\xbb\xbf)?(?:(?:#[^\n]*|[ \t\r]*)\n)*---[ \t]*\r?\n(?P<front>.*?)^---[ \t]*(?:\r?\n|\Z)",
    re.S | re.M,
)
_KINDS: Final[Mapping[str, tuple[str, Callable[[Json], bool]]]] = {
    "collection": ("collection", lambda value: isinstance(value, str)),
    "slug": ("slug", lambda value: isinstance(value, str)),
    "provider": ("provider", lambda value: isinstance(value, str)),
    "source_version": ("version", lambda value: isinstance(value, str | int) and not isinstance(value, bool)),
    "labels": ("labels", lambda value: isinstance(value, list) and all(isinstance(one, str) for one in value)),
    "functions": ("functions", lambda value: True),
    "tools": ("tools", lambda value: True),
    "tool_choice": ("tool_choice", lambda value: True),
    "extra": ("extra", lambda value: isinstance(value, dict)),
}
"""Key in the rest -> field of Prompt, and whether a value may stand there."""


# ---- front matter ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Cut:
    """A file in two: what stands in front, and the text below with its first line."""

    front: Front
    body: str
    begin: int


def cut(content: bytes, texts: Collection[str]) -> Cut | None:
    """None: it has no front matter. Raises Unreadable. `texts`: outermost keys whose scalars are texts."""
    if (other := other_encoding(content)) is not None:
        raise Unreadable(1, other)
    found = _FRONT.match(content)
    if found is None:
        return None
    above = content.count(b"\n", 0, found.start("front"))
    try:
        front = read_front(text_of(found["front"], above + 1), texts=texts)
    except Unreadable as error:
        raise Unreadable(error.line + above, error.message) from None
    begin = content.count(b"\n", 0, found.end()) + 1
    moved = replace(front, lines={key: line + above for key, line in front.lines.items()})
    return Cut(moved, text_of(content[found.end() :], begin), begin)


def text_of(content: bytes, first_line: int = 1) -> str:
    """A part of a file that begins in that line. Raises Unreadable."""
    try:
        return decoded(content)
    except NotText as error:
        raise Unreadable(first_line - 1 + (error.line or 1), str(error)) from None


def json_of(content: bytes) -> Json:
    """What a file of JSON holds. Raises Unreadable with the line."""
    if (other := other_encoding(content)) is not None:
        raise Unreadable(1, other)
    text = text_of(content.removeprefix(BOM))
    try:
        value = loads(text)
    except NotKept:
        raise Unreadable(1, "has a number that cannot be kept; put quotes around it if it is a text") from None
    except ValueError as error:
        raise Unreadable(getattr(error, "lineno", 1), "is no JSON") from None
    except RecursionError:
        raise Unreadable(1, "is nested too deep") from None
    if (repeated := repeated_key(text)) is not None:
        raise Unreadable(repeated[1], "has a key that stands in this object already; take one of them out")
    return value


@dataclass(frozen=True, slots=True)
class Values:
    """A map that people wrote, with the lines of its keys."""

    values: dict[str, Json]
    lines: Mapping[str, int]
    line: int = 1

    def line_of(self, key: str) -> int:
        """Where it stands."""
        return self.lines.get(key, self.line)

    def take(self, key: str, *kinds: type) -> Any:
        """The value, taken out; None where there is none. Raises Unreadable for one of another kind."""
        value = self.values.pop(key, None)
        if value is not None and (not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds)):
            raise Unreadable(self.line_of(key), f"has a `{key}` of another kind than it should")
        return value


# ---- metadata, and what stands beside it -----------------------------------------------------------------------------


def beside(prompt: Prompt, *keys: str, **more: Json) -> dict[str, Json]:
    """Metadata as they are written: sorted, and with what of the prompt is called by `keys` in one map."""
    metadata: dict[str, Json] = dict(sorted(prompt.metadata.items()))
    if REST in metadata:
        raise ValueError(f"metadata called {REST}, which is the name of what we keep there: rename them at the source")
    rest = {key: _stored(prompt, _KINDS[key][0]) for key in keys}
    rest = {key: value for key, value in {**rest, **more}.items() if value is not None and value != []}
    return {**metadata, REST: rest} if rest else metadata


def _stored(prompt: Prompt, field: str) -> Json:
    value = getattr(prompt, field)
    if field == "version":
        return stored_version(value)
    return list(value) if isinstance(value, tuple) else value


def taken_beside(metadata: Mapping[str, Json], line: int) -> tuple[dict[str, Json], dict[str, Json], dict[str, Json]]:
    """The metadata, the fields of Prompt that stood beside them, and what else did."""
    kept = dict(metadata)
    rest = kept.pop(REST, None) or {}
    if not isinstance(rest, dict):
        raise Unreadable(line, f"has metadata with a `{REST}` that is no map: take it out")
    fields: dict[str, Json] = {}
    others: dict[str, Json] = {}
    for key, value in rest.items():
        if key not in _KINDS:
            others[key] = value
            continue
        field, fits = _KINDS[key]
        if not fits(value):
            raise Unreadable(line, f"has metadata with a `{REST}.{key}` of another kind than it should")
        fields[field] = version_ref(value) if field == "version" else tuple(value) if field == "labels" else value
    return kept, fields, others


# ---- whether it comes back -------------------------------------------------------------------------------------------


def checked(
    prompt: Prompt, file: bytes, read: Callable[[bytes], Document], dialect: Dialect, fields: Collection[str]
) -> bytes:
    """The file, when the prompt comes back of it. Raises ValueError that names what would not."""
    try:
        found = read(file).prompt
    except Unreadable as error:
        raise ValueError(f"what would make a file that {error.message}") from None
    wanted = respelled(prompt, dialect)
    before, after = content(wanted), content(found)
    wrong = [user_name(name) for name in CONTENT if name in fields and changed(before.get(name), after.get(name))]
    wrong += [name for name in ("extra", "labels") if name in fields and _differ(wanted, found, name)]
    if wrong:
        raise ValueError(f"what would come back otherwise: {', '.join(wrong)}")
    return file


def _differ(one: Prompt, other: Prompt, field: str) -> bool:
    return changed(getattr(one, field) or None, getattr(other, field) or None)


def fitting(write: Callable[[Document], bytes], prompt: Prompt) -> Fitted:
    """The prompt, refused where no file can be made of it."""
    try:
        write(Document(prompt=prompt))
    except ValueError as error:
        return Fitted(prompt=prompt, refused=(f"it has {error}",))
    return Fitted(prompt=prompt)


# ---- templates -------------------------------------------------------------------------------------------------------

TEXTS_KEPT: Final = 16
"""Texts whose tokens are remembered: one prompt is asked for them several times in a row."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A token and where it stands: text, or a tag, with whether it takes the blanks on each side."""

    token: Token = field(repr=False)
    start: int
    end: int
    before: bool = False
    after: bool = False

    @property
    def kind(self) -> str:
        """Of its token."""
        return self.token.kind


def without_blanks(found: Sequence[Piece], takes: Callable[[Piece], bool], blanks: str | None = None) -> list[Piece]:
    """The pieces, their texts without the `blanks` (None: all) that the tags beside them take; those texts alone of
    which `takes` says that a tag may.
    """
    after = list(found)
    for at, piece in enumerate(found):
        if piece.kind == TEXT and takes(piece):
            said = piece.token.body
            said = said.lstrip(blanks) if at and found[at - 1].after else said
            said = said.rstrip(blanks) if at + 1 < len(found) and found[at + 1].before else said
            after[at] = replace(piece, token=Token(TEXT, said))
    return after


def variables_in(texts: Iterator[str], grammar: Grammar) -> frozenset[str]:
    """Those that these templates ask for."""
    return frozenset(name for text in texts for name in grammar.shown(text))


def templates_of(text: str) -> Iterator[str]:
    """The template, or those of the messages of a chat."""
    messages = messages_of(text)
    if messages is None:
        yield text
        return
    yield from (one["content"] for one in messages if isinstance(one.get("content"), str))


def as_list(value: Json) -> Json:
    """A single text to stop at as a list of one, which means the same."""
    return [value] if isinstance(value, str) else value


def simple_messages(prompt: Prompt, format: str, roles: Mapping[str, str]) -> list[tuple[str, str]] | None:
    """Role, as it is called there, and text of each message; None: it is no chat. `roles`: neutral role -> its own.
    Raises ValueError for a message that is more than a role that there is and a text.
    """
    messages = messages_of(prompt.text)
    if messages is None:
        return None
    for at, one in enumerate(messages, 1):
        if not isinstance(one["role"], str) or one["role"] not in roles:
            raise ValueError(f"a message {at} with a role that {format} does not have: it has {', '.join(roles)}")
        if not isinstance(one.get("content"), str):
            raise ValueError(f"a message {at} with a content that is no text: leave the prompt out, or change it")
        if more := sorted(one.keys() - {"role", "content"}):
            raise ValueError(f"a message {at} with {', '.join(more)}, which {format} has no place for")
    return [(roles[one["role"]], one["content"]) for one in messages]


def sayable(text: str) -> str:
    """The text, when a file can hold it. Raises ValueError."""
    if "\0" in text:
        raise ValueError("a text with a NUL, which makes a binary file of it: take it out at the source")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("a text with half a character, which UTF-8 cannot write: mend it at the source") from None
    return text
