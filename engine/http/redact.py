"""Keeps secrets and template text out of what registries say, for it ends in logs and in the ledger."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from typing import Final

from engine.log import HIDDEN, scrub
from engine.lossless_json import Json, decode, encode

MESSAGE_BYTES: Final = 500
ECHO: Final = 16
"""So many characters in a row that were also sent are an echo, not a coincidence."""
SHORT: Final = 6
"""A whole text of fewer characters is an ordinary word."""
TEMPLATES: Final = ("string", "template", "prompt", "content", "text", "value")
"""The fields of bodies that hold a template, whatever it looks like."""


def clean(text: str, secrets: Collection[str], sent: bytes = b"") -> str:
    """`text` on one line of at most 500 bytes: no control characters, no secret, no piece of a text in `sent`.

    `sent` is the JSON body of the request: registries quote in their errors what they do not like.
    """
    # secrets come last but for the cut: with a control character in their midst they would not be found before
    line = scrub(_one_line(text), secrets)
    texts = [text for prose in _proses(sent) for text in _as_quoted(prose) if text]
    for text in texts:
        line = line.replace(text, HIDDEN) if SHORT <= len(text) < ECHO else line
    return _cut(_without_echo(_cut(line), "\n".join(texts)))


def _one_line(text: str) -> str:
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())


def _cut(text: str) -> str:
    return text.encode()[:MESSAGE_BYTES].decode(errors="ignore")


def _proses(sent: bytes) -> Iterator[str]:
    """The texts in a JSON body, and in JSON that stands in one: the template, and whatever has whitespace or a letter
    that no id has; but no ids or slugs, which a message may name.
    """
    if not sent:
        return
    left: list[tuple[Json, bool]] = [(_value(sent, sent.decode(errors="replace")), True)]
    while left:
        value, is_template = left.pop()
        if isinstance(value, dict):
            left.extend((inner, name in TEMPLATES) for name, inner in value.items())
        elif isinstance(value, list):
            left.extend((inner, is_template) for inner in value)
        elif isinstance(value, str):
            if is_template or not value.isascii() or len(value.split()) > 1:
                yield value
            if value.lstrip()[:1] in ("[", "{"):  # a chat that is kept as its text
                inside = _value(value.encode(errors="replace"), None)
                left.extend([(inside, True)] if isinstance(inside, dict | list) else [])


def _value(body: bytes, otherwise: Json) -> Json:
    try:
        return decode(body)
    except ValueError:
        return otherwise


def _as_quoted(prose: str) -> set[str]:
    """The forms in which a message may have it: as it is, and as JSON writes it."""
    return {_one_line(form) for form in (prose, encode(prose)[1:-1].decode(), json.dumps(prose)[1:-1])}


def _without_echo(line: str, sent: str) -> str:
    kept, at = "", 0
    while at < len(line):
        end = at + ECHO
        if end > len(line) or line[at:end] not in sent:
            kept, at = kept + line[at], at + 1
            continue
        while end < len(line) and line[at : end + 1] in sent:
            end += 1
        kept, at = kept + HIDDEN, end
    return kept
