"""How Langfuse writes its prompts, and what they may be called.

Variables are what its Python client fills in: whatever stands between `{{` and the next `}}`, without the blanks around
it. There are no sections and no escapes. (Its JavaScript client renders with mustache, so `{{#x}}` means something
there and is a name here: neither is sent to the other.) A reference `@@@langfusePrompt:name=N|label=L@@@` stands for
the text of another prompt, and has no counterpart elsewhere, for what it names may change.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final

from engine.content.digest import canonical
from engine.content.templates import BRACE, SPACE, TEXT, VARIABLE, joined, literal
from engine.lossless_json import encode
from engine.model import Prompt
from engine.model.dialect import Chat, Construct, Dialect, Grammar, MetadataRule, NameRule, ParameterNames, Token

REFERENCE: Final = "reference to another prompt"
PLACEHOLDER: Final = "placeholder for messages"
PLACEHOLDER_ROLE: Final = "placeholder"
"""Of the message that stands for a placeholder in `Prompt.text`; its content is one tag of that kind."""

_TAG: Final = re.compile(
    r"@@@langfusePrompt:(?P<reference>name=[^|]+?\|(?:version|label)=[^|]+?)@@@"
    r"|@@@placeholder:(?P<placeholder>[a-zA-Z][a-zA-Z0-9_]*)@@@"
    r"|\{\{(?P<variable>.*?)\}\}",
    re.DOTALL,
)
_WRITTEN: Final = {
    VARIABLE: "{{%s}}",
    REFERENCE: "@@@langfusePrompt:%s@@@",
    PLACEHOLDER: "@@@placeholder:%s@@@",
    TEXT: "%s",
}


def _tokens(text: str) -> list[Token]:
    return joined(_pieces(text))


def _pieces(text: str) -> Iterator[list[Token]]:
    here = 0
    for tag in _TAG.finditer(text):
        yield literal(text[here : tag.start()])
        yield _token(tag)
        here = tag.end()
    yield literal(text[here:])


def _token(tag: re.Match[str]) -> list[Token]:
    if tag["reference"] is not None:
        return [Token(REFERENCE, tag["reference"])]
    if tag["placeholder"] is not None:
        return [Token(PLACEHOLDER, tag["placeholder"])]
    name = tag["variable"].strip()
    return [Token(VARIABLE, name)] if name else literal(tag[0])


def _text(tokens: Iterable[Token]) -> str:
    # what other grammars have and this one has not is refused before; should it come here, it is no tag
    return "".join(_WRITTEN.get(token.kind, "%s") % token.body for token in tokens)


def _shown(text: str) -> list[str]:
    return [token.body for token in _tokens(text) if token.kind == VARIABLE]


GRAMMAR: Final = Grammar(
    name="Langfuse's template",
    tokens=_tokens,
    text=_text,
    shown=_shown,
    variable="{{name}}, {{ name }}",
    opening="{{",
    constructs=(
        Construct(
            name="references",
            kinds=frozenset({REFERENCE}),
            words="references @@@langfusePrompt:name=x|label=y@@@",
            otherwise="refused: put their text in",
            instead="put the text of that prompt in at the source",
        ),
        Construct(
            name="placeholders",
            kinds=frozenset({PLACEHOLDER}),
            words="placeholders for messages",
            otherwise="refused: write messages, or a variable",
            instead="put messages or a variable in its place at the source",
        ),
    ),
    names={SPACE: "trimmed", BRACE: "a part of the name"},
    literal=(("literal {{name}}", "it would become a variable, and there is no escape"),),
)

LARGEST_BODY: Final = 2**20
"""Bytes that a server takes."""
_SPARE: Final = 8192
"""Of that, for the mark, labels and the names of keys."""


def _room(prompt: Prompt, text: str) -> str | None:
    size = len(canonical(prompt)) + len(encode(text)) + _SPARE
    if size <= LARGEST_BODY:
        return None
    return f"Langfuse takes {LARGEST_BODY:,} bytes of a prompt with all that belongs to it, and there would be {size:,}"


LANGFUSE: Final = Dialect(
    name="langfuse",
    registry="Langfuse",
    grammar=GRAMMAR,
    parameters=ParameterNames(open=True, defaults=True),
    chat=Chat(messages=True, keys=frozenset({"role", "content"}), parts=frozenset(), spelled=False),
    metadata=MetadataRule(says="metadata in the config; a list of words called tags becomes the tags", room=_room),
)

_UNNAMED: Final = re.compile("[\0\n\r\u2028\u2029\ud800-\udfff|]|//")


def _is_name(name: str) -> bool:
    """As servers of the third generation check it; a name with blanks around it would come back without them."""
    plain = bool(name) and name == name.strip() and name == name.strip("\ufeff") and not _UNNAMED.search(name)
    return plain and not name.startswith("/") and not name.endswith("/") and name not in ("new", ".", "..")


NAMES: Final = NameRule(
    says="in Langfuse it holds no |, no // and no line break, no slash and no blank at either end, and is not new",
    takes=_is_name,
)
