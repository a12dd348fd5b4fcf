"""What a model said, from the answer of Portkey's gateway: whole, or in the chunks of a stream. Pure.

Sources: contract section 5, and OpenAI's chat completions, in whose shape every vendor's answer comes: `message` in a
whole answer, `delta` in a chunk, where a tool call comes in pieces that its `index` tells apart; `text` where the
prompt is no chat. Of several choices the first one is what the model said.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from engine.lossless_json import encode
from engine.model import Json, ToolCall

Object = Mapping[str, Any]


class Said(NamedTuple):
    """The words. `text`: None where there are none, as beside a tool call."""

    text: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()


def said(choice: Object) -> Said:
    """What a whole answer says."""
    message = choice.get("message")
    if not isinstance(message, dict):
        return Said(_text(choice.get("text")))
    return Said(_words(message), tuple(_call(_function(one)) for one in _calls(message)))


def said_in(chunks: Iterable[Object]) -> Said:
    """What a stream says, put together."""
    texts: list[str] = []
    functions: dict[Json, list[Object]] = {}
    for choice in _first_choices(chunks):
        delta = choice.get("delta")
        delta = delta if isinstance(delta, dict) else {"content": choice.get("text")}
        if (text := _words(delta)) is not None:
            texts.append(text)
        for place, one in enumerate(_calls(delta)):
            functions.setdefault(one.get("index", place), []).append(_function(one))
    return Said(_joined(texts) if texts else None, tuple(_whole(pieces) for pieces in functions.values()))


def _first_choices(chunks: Iterable[Object]) -> Iterator[Object]:
    for chunk in chunks:
        for choice in _objects(chunk.get("choices")):
            if choice.get("index") in (None, 0):
                yield choice


def _words(message: Object) -> str | None:
    content = _text(message.get("content"))
    return content if content is not None else _text(message.get("refusal"))


def _text(content: Json) -> str | None:
    """A text, or the texts among its parts."""
    if isinstance(content, list):
        texts = [part["text"] for part in _objects(content) if isinstance(part.get("text"), str)]
        return "".join(texts) if texts else None
    return _joined([content]) if isinstance(content, str) else None


def _joined(texts: Iterable[str]) -> str:
    """As one text: a character may come in two chunks, half by half."""
    return "".join(texts).encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")


def _calls(message: Object) -> list[Object]:
    older = message.get("function_call")  # what there was before there were tools
    return [*_objects(message.get("tool_calls")), *([{"function": older}] if isinstance(older, dict) else [])]


def _function(call: Object) -> Object:
    function = call.get("function")
    return function if isinstance(function, dict) else {}


def _whole(pieces: Iterable[Object]) -> ToolCall:
    calls = [_call(piece) for piece in pieces]
    return ToolCall(next((one.name for one in calls if one.name), ""), _joined(one.arguments for one in calls))


def _call(function: Object) -> ToolCall:
    name, arguments = function.get("name"), function.get("arguments")
    written = arguments if isinstance(arguments, str) else "" if arguments is None else encode(arguments).decode()
    return ToolCall(name if isinstance(name, str) else "", written)


def _objects(value: Json) -> list[dict[str, Any]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []
