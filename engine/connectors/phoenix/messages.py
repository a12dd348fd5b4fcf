"""A chat as Phoenix keeps it, and its neutral form, in which tools are called as OpenAI writes it. Pure.

A message there has a role of seven and a content: a text, or parts of three kinds. The JSON text of a chat is made anew
of the messages; where that is not the text that was sent, what brings it back is remembered in the version's metadata.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

from engine.content.chats import messages_of
from engine.content.layouts import PLAIN, laid_out, layout_of
from engine.model import Json

ROLES: Final = ("system", "developer", "user", "assistant", "ai", "model", "tool")
KEYS: Final = frozenset({"role", "content", "tool_calls", "tool_call_id"})
IN_PARTS: Final = "parts"
"""What is remembered where texts of system messages were sent as parts."""
_ANSWERING: Final = ("assistant", "ai", "model")
_ADVICE: Final = "leave the prompt out, or change it at the source"

Message = dict[str, Json]


class Unwritable(Exception):
    """A message that has no place: `reason` says why, without its text."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


# ---- what a text is --------------------------------------------------------------------------------------------------


def template_of(text: str, in_parts: Callable[[str], bool] = lambda _: False) -> tuple[list[Message], dict[str, Json]]:
    """What is sent for this text, and what has to be remembered so that it comes back. Raises Unwritable.

    `in_parts`: whether the text of a system message is sent as a part of its content.
    """
    messages = messages_of(text)
    if messages is None:
        return [{"role": "user", "content": text}], {"text": True}
    whole = [_written(at, one) for at, one in enumerate(messages, 1)]
    written = [_parted(one) if _is_system(one) and in_parts(one["content"]) else one for one in whole]
    again = [_read(one) for one in (written if written == whole else map(_unparted, written))]
    layout = layout_of(again, text)
    if layout is None:
        return written, {"chat": text}
    return written, {
        **({} if layout == PLAIN else {"layout": layout}),
        **({} if written == whole else {"system": IN_PARTS}),
    }


def _is_system(message: Message) -> bool:
    return message["role"] == "system" and isinstance(message["content"], str)


def _parted(message: Message) -> Message:
    return {**message, "content": [{"type": "text", "text": message["content"]}]}


def _unparted(message: Json) -> Json:
    """A system message of one part that is a text, as that text."""
    match message:
        case {"role": "system", "content": [{"type": "text", "text": str(text), **more}], **others} if not more:
            return {"role": "system", "content": text, **others}
    return message


def text_of(messages: Sequence[Json], form: Mapping[str, Json]) -> str:
    """The text that these messages were made of, as far as they are still the same."""
    match form, messages:
        case {"text": True}, [{"role": "user", "content": str(text)}]:
            return text
        case {"chat": str(text)}, _ if _makes(text, messages):
            return text
    parted = form.get("system") == IN_PARTS
    again = [_read(_unparted(one) if parted else one) for one in messages]
    layout = form.get("layout")
    try:
        return laid_out(again, layout if isinstance(layout, str) else PLAIN)
    except KeyError:  # somebody else's word
        return laid_out(again, PLAIN)


def _makes(text: str, messages: Sequence[Json]) -> bool:
    try:
        return [*map(_unparted, template_of(text)[0])] == [*map(_unparted, messages)]
    except Unwritable:
        return False


# ---- one message -----------------------------------------------------------------------------------------------------


def complaints(messages: Sequence[Message]) -> Iterator[str]:
    """Why some of these cannot be written."""
    for at, one in enumerate(messages, 1):
        try:
            _written(at, one)
        except Unwritable as error:
            yield error.reason


def _written(at: int, message: Message) -> Message:
    role, content = message["role"], message.get("content")
    if role not in ROLES:
        raise Unwritable(f"message {at} has a role that is none of {', '.join(ROLES)}: {_ADVICE}")
    if other := sorted(key for key, value in message.items() if key not in KEYS and value):
        raise Unwritable(f"message {at} has {', '.join(other)}, which Phoenix does not keep: {_ADVICE}")
    calls, answers = message.get("tool_calls"), message.get("tool_call_id")
    if calls:
        return {"role": role, "content": [*_parts(at, content), *_calls(at, role, calls)]}
    if answers is not None:
        return {"role": role, "content": [_result(at, role, answers, content)]}
    if isinstance(content, str):
        return {"role": role, "content": content}
    if not (parts := _parts(at, content)):
        raise Unwritable(f"message {at} has no content, and Phoenix takes none without: {_ADVICE}")
    return {"role": role, "content": parts}


def _parts(at: int, content: Json) -> list[Json]:
    """Of a content, in Phoenix's own form, which is also OpenAI's for texts."""
    if content is None:
        return []
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    if not isinstance(content, list) or not all(map(_is_part, content)):
        raise Unwritable(f"message {at} has a content that is neither a text nor a list of parts it keeps: {_ADVICE}")
    return content


def _is_part(part: Json) -> bool:
    match part:
        case {"type": "text", "text": str(), **more} if not more:
            return True
        case {"type": "tool_call", "tool_call_id": str(), "tool_call": dict(call), **more} if not more:
            return _is_call(call)
        case {"type": "tool_result", "tool_call_id": str(), "tool_result": _, **more} if not more:
            return True
    return False


def _is_call(call: Mapping[str, Json]) -> bool:
    texts = all(isinstance(call.get(name), str) for name in ("name", "arguments"))
    return texts and call.keys() == {"type", "name", "arguments"} and call["type"] == "function"


def _calls(at: int, role: str, calls: Json) -> list[Json]:
    if role not in _ANSWERING or not isinstance(calls, list):
        raise Unwritable(f"message {at} has tool_calls that Phoenix does not keep: {_ADVICE}")
    return [_call(at, one) for one in calls]


def _call(at: int, call: Json) -> Json:
    match call:
        case {"id": str(known), "type": "function", "function": dict(asked), **more} if not more:
            whole = {"type": "function", **asked}
            if _is_call(whole):
                return {"type": "tool_call", "tool_call_id": known, "tool_call": whole}
    raise Unwritable(f"message {at} calls a tool in a way that Phoenix does not keep: {_ADVICE}")


def _result(at: int, role: str, answers: Json, content: Json) -> Json:
    if role != "tool" or not isinstance(answers, str) or not isinstance(content, str):
        raise Unwritable(f"message {at} has a tool_call_id that Phoenix does not keep: {_ADVICE}")
    return {"type": "tool_result", "tool_call_id": answers, "tool_result": content}


def _read(message: Json) -> Json:
    """The neutral form; what has none stays as it is."""
    match message:
        case {"role": "tool", "content": [{"type": "tool_result", "tool_call_id": known, "tool_result": str(text)}]}:
            return {"role": "tool", "tool_call_id": known, "content": text}
        case {"role": role, "content": [*before, {"type": "tool_call"}]} if role in _ANSWERING:
            return _calling(message, before)
    return message


def _calling(message: Json, before: Sequence[Json]) -> Json:
    """A message that calls tools: a text before them at most."""
    parts = message["content"]
    if not all(map(_is_part, parts)):
        return message
    texts = [part["text"] for part in before if part.get("type") == "text"]
    calls = [_neutral_call(part) for part in parts if part.get("type") == "tool_call"]
    if len(texts) > 1 or len(texts) + len(calls) < len(parts) or (texts and parts[0].get("type") != "text"):
        return message
    return {"role": message["role"], "content": texts[0] if texts else None, "tool_calls": calls}


def _neutral_call(part: Json) -> Json:
    asked = part["tool_call"]
    return {
        "id": part["tool_call_id"],
        "type": "function",
        "function": {"name": asked["name"], "arguments": asked["arguments"]},
    }
