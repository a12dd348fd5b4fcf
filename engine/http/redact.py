"""Keeps secrets and template text out of what registries say, for it ends in logs and in the ledger."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Final

from engine.lossless_json import decode

MESSAGE_BYTES: Final = 500
ECHO: Final = 16
"""So many characters in a row that were also sent are an echo, not a coincidence."""
SHORT: Final = 6
"""A whole text of fewer characters is an ordinary word."""
TEMPLATES: Final = ("string", "template")
"""The fields of a body that hold a template."""


def clean(text: str, secrets: Collection[str], sent: bytes = b"") -> str:
    """`text` on one line of at most 500 bytes: no control characters, no secret, no piece of a text in `sent`.

    `sent` is the JSON body of the request: registries quote in their errors what they do not like.
    """
    # secrets come last but for the cut: with a control character in their midst they would not be found before
    line = _one_line(text)
    for secret in sorted(filter(None, secrets), key=len, reverse=True):
        line = line.replace(secret, "***")
    texts = [text for text in map(_one_line, _proses(sent)) if text]
    for text in texts:
        line = line.replace(text, "***") if SHORT <= len(text) < ECHO else line
    return _cut(_without_echo(_cut(line), "\n".join(texts)))


def _one_line(text: str) -> str:
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())


def _cut(text: str) -> str:
    return text.encode()[:MESSAGE_BYTES].decode(errors="ignore")


def _proses(sent: bytes) -> Iterator[str]:
    """The texts in a JSON body: the template, and whatever has a space in it, but no ids or slugs."""
    if not sent:
        return
    try:
        left = [decode(sent)]
    except ValueError:
        left = [sent.decode(errors="replace")]
    while left:
        value = left.pop()
        if isinstance(value, str) and " " in value:
            yield value
        elif isinstance(value, dict):
            left.extend(value.values())
            yield from (value[name] for name in TEMPLATES if isinstance(value.get(name), str))
        elif isinstance(value, list):
            left.extend(value)


def _without_echo(line: str, sent: str) -> str:
    kept, at = "", 0
    while at < len(line):
        end = at + ECHO
        if end > len(line) or line[at:end] not in sent:
            kept, at = kept + line[at], at + 1
            continue
        while end < len(line) and line[at : end + 1] in sent:
            end += 1
        kept, at = kept + "***", end
    return kept
