"""Which messages of a chat MLflow's clients can load: they check each when a prompt is loaded, its server checks none.

Source: `ChatMessage` in `mlflow/types/chat.py` of MLflow 3.17.2. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from engine.model import Json

Message = Mapping[str, Json]
_DETAILS: Final = (None, "auto", "low", "high")
_SOUNDS: Final = ("wav", "mp3")


def unloadable(messages: Sequence[Message]) -> str | None:
    """What of a chat its clients do not take: a phrase that names the message. None: they take all of it."""
    found = ((at, why) for at, message in enumerate(messages, 1) if (why := _wrong(message)) is not None)
    return next((f"message {at} has {why}" for at, why in found), None)


def _wrong(message: Message) -> str | None:
    if not isinstance(message.get("role"), str):
        return "a role that is no text"
    for name in ("refusal", "tool_call_id"):
        if not isinstance(message.get(name), str | None):
            return f"a {name} that is no text"
    if message.get("tool_calls") is not None and not _all(message["tool_calls"], _is_call):
        return "tool_calls of another form than id, type and function"
    content = message.get("content")
    if isinstance(content, str | None):
        return None
    return None if _all(content, _is_part) else "a content that is neither a text nor a list of parts that it knows"


def _all(value: Json, takes: Callable[[Json], bool]) -> bool:
    return isinstance(value, list) and all(isinstance(one, dict) and takes(one) for one in value)


def _is_call(call: Message) -> bool:
    function = call.get("function")
    texts = isinstance(call.get("id"), str) and isinstance(call.get("type", ""), str)
    return texts and isinstance(function, dict) and _texts(function, "name", "arguments")


def _texts(value: Message, *names: str) -> bool:
    return all(isinstance(value.get(name), str | None) for name in names)


def _is_part(part: Message) -> bool:
    kind = part.get("type")
    return isinstance(kind, str) and kind in _PARTS and _PARTS[kind](part)


def _is_text(part: Message) -> bool:
    return isinstance(part.get("text"), str)


def _is_image(part: Message) -> bool:
    image = part.get("image_url")
    return isinstance(image, dict) and isinstance(image.get("url"), str) and image.get("detail") in _DETAILS


def _is_sound(part: Message) -> bool:
    sound = part.get("input_audio")
    return isinstance(sound, dict) and isinstance(sound.get("data"), str) and sound.get("format") in _SOUNDS


def _is_reasoning(part: Message) -> bool:
    return _all(part.get("summary", []), lambda one: one.get("type") == "summary_text" and _is_text(one))


_PARTS: Final[Mapping[str, Callable[[Message], bool]]] = {
    "text": _is_text,
    "image_url": _is_image,
    "input_audio": _is_sound,
    "reasoning": _is_reasoning,
}
