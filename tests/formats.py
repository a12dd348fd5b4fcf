"""What people keep in files of other tools: real prompts rewritten into a format, and what their renderers must say."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from engine.connectors import DIALECTS
from engine.connectors.files.fileformat import FileFormat
from engine.connectors.files.format import Document
from engine.connectors.files.formats.table import FORMATS
from engine.content.chats import messages_of
from engine.content.references import Ends
from engine.content.rewrite import Rewritten, rewrite
from engine.content.templates import ASKING, TEXT
from engine.model import Catalog, Prompt
from engine.model.dialect import Dialect
from tests.forks import ROOT

DATA: Final = ROOT.parent / "shared" / "data" / "real-prompts.jsonl"
WORDS: Final = Catalog(words=frozenset({"collections", "providers", "partials"}))
PORTKEY: Final = DIALECTS["portkey"]

Said = list[tuple[str, str]]
"""Role and text of each message."""


def real_prompts() -> Iterator[Prompt]:
    """As they stand in Portkey."""
    lines = [line for line in DATA.read_text(encoding="utf-8").split("\n") if line]
    for number, one in enumerate(map(json.loads, lines)):
        text = one["template"] if one["kind"] == "text" else json.dumps(one["messages"], ensure_ascii=False)
        parameters = dict(one["parameters"] or {})
        model = parameters.pop("model", None)
        tools = one["tools"] if all(isinstance(tool, dict) for tool in one["tools"] or ()) else None
        yield Prompt(
            id=f"p{number}",
            name=f"{number} {one['name']}",
            text=text,
            model=model,
            parameters=parameters,
            tools=tools or None,
            variables=frozenset(PORTKEY.grammar.shown(text)),
        )


def rewritten(prompt: Prompt, format: FileFormat) -> Rewritten:
    """As it is to be in files of that format."""
    return rewrite(prompt, (), Ends(False, WORDS, WORDS, dialects=DIALECTS, dialect=format.dialect), format.fields)


def arriving(name: str) -> tuple[list[tuple[Prompt, Prompt]], int, int]:
    """The real prompts that arrive, as they were and as they are there; how many are refused, and have a loss."""
    done = [rewritten(prompt, FORMATS[name]) for prompt in real_prompts()]
    refused = sum(bool(one.refused) for one in done)
    lossy = sum(bool(one.losses) and not one.refused for one in done)
    return [(one.source, one.prompt) for one in done if not (one.refused or one.losses)], refused, lossy


def file_of(prompt: Prompt, name: str) -> bytes:
    """The file."""
    return FORMATS[name].write(Document(prompt=prompt))


def read(content: str | bytes, name: str, prompt_id: str = "a") -> Prompt:
    """The one prompt of a file."""
    (document,) = FORMATS[name].read(content.encode() if isinstance(content, str) else content, prompt_id, DIALECTS)
    return document.prompt


# ---- rendering -------------------------------------------------------------------------------------------------------


def values_for(prompt: Prompt) -> dict[str, Any]:
    """A value for each of its variables: what stands in `a.b` is in the map `a`."""
    values: dict[str, Any] = {}
    for name in sorted(names_of(prompt)):
        *outer, last = name.split(".")
        holder = values
        for key in outer:
            holder[key] = inner if isinstance(inner := holder.get(key), dict) else {}
            holder = holder[key]
        holder[last] = f"<{name}>"
    return values


def asks_for_a_map(prompt: Prompt) -> bool:
    """Whether `a` and `a.b` are both asked for: every renderer shows a map in its own way."""
    names = names_of(prompt)
    return any(other.startswith(f"{name}.") for name in names for other in names)


def names_of(prompt: Prompt) -> set[str]:
    grammar = DIALECTS[prompt.dialect].grammar
    texts = [text for _, text in templates(prompt)]
    return {token.body for text in texts for token in grammar.tokens(text) if token.kind in ASKING}


def templates(prompt: Prompt, role: str = "user") -> Said:
    """Role and template of each message; a text is one of `role`."""
    messages = messages_of(prompt.text)
    if messages is None:
        return [(role, prompt.text)]
    return [(one["role"], _joined(one["content"])) for one in messages]


def _joined(content: str | Sequence[Mapping[str, Any]]) -> str:
    return content if isinstance(content, str) else "\n".join(part["text"] for part in content)


def said(prompt: Prompt, values: Mapping[str, Any], role: str = "user") -> Said:
    """What a renderer makes of it: by the tokens of its own grammar."""
    return [(who, _filled(text, DIALECTS[prompt.dialect], values)) for who, text in templates(prompt, role)]


def _filled(text: str, dialect: Dialect, values: Mapping[str, Any]) -> str:
    tokens = dialect.grammar.tokens(text)
    return "".join(token.body if token.kind == TEXT else _value(token.body, values) for token in tokens)


def _value(name: str, values: Mapping[str, Any]) -> str:
    found: Any = values
    for key in name.split("."):
        found = found[key]
    return str(found)
