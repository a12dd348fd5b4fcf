"""The endpoints that use a prompt: render, and completions by a model that knows one sentence, and what it was told."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Final

from aiohttp import web

from engine.sandbox.answers import Json, check, encode, invalid
from engine.sandbox.numbers import loads
from engine.sandbox.portkey.call import Call, pick
from engine.sandbox.portkey.template import PartialText, fill, fill_all
from engine.sandbox.store import Version

_OWN_FIELDS: Final = ("variables", "workspace_id")


def render_prompt(call: Call) -> Json:
    return {"success": True, "data": _request(call)}


def complete_prompt(call: Call) -> Json | web.Response:
    """A completion, or (`stream`, sent or stored) server-sent events. The same request has the same answer."""
    request = _request(call)
    streamed = request.pop("stream", False) is True
    asked = encode(request.get("messages", request.get("prompt")))
    digest = hashlib.sha256(asked.encode()).hexdigest()[:12]
    told = call.registry.model(request) if call.registry.model is not None else None
    message = {"role": "assistant", **(told or {"content": f"This is the canned answer {digest}."})}
    finish = message.pop("finish_reason", "tool_calls" if message.get("tool_calls") else "stop")
    said = encode([message.get("content"), message.get("tool_calls")])
    usage = {"prompt_tokens": len(asked) // 4, "completion_tokens": len(said) // 4}
    usage |= {"total_tokens": sum(usage.values())}
    head = {"id": f"chatcmpl-{digest}", "created": int(call.registry.clock()), "model": request["model"]}
    if streamed:
        options = request.get("stream_options")
        counted = isinstance(options, dict) and options.get("include_usage") is True
        return _events(head, message, finish, usage if counted else None)
    return head | {
        "object": "chat.completion",
        "choices": [{"index": 0, "message": message, "finish_reason": finish, "logprobs": None}],
        "usage": usage,
    }


def _request(call: Call) -> dict[str, Json]:
    """What would go to the model: the filled template, the stored parameters, and what this call overrides."""
    check(call.body, {"variables": dict}, ("variables",))
    template, version = call.picked("prompt")
    content = version.content
    names = {*content["components"]["variables"], *content["components"]["sections"]} - {"model"}
    parameters = content["parameters"]
    defaults = {name: parameters[name] for name in names if name in parameters}
    settings = {key: value for key, value in parameters.items() if key not in names}
    extras = {key: content[key] for key in ("functions", "tools", "tool_choice") if content[key] is not None}
    overrides = {key: value for key, value in call.body.items() if key not in _OWN_FIELDS}
    text = _filled(version, defaults | call.body["variables"], _partial_text(call, template.workspace))
    return text | settings | extras | overrides


def _filled(version: Version, variables: Mapping[str, Json], partial_text: PartialText) -> dict[str, Json]:
    """`messages` or `prompt`. A raw template is filled first and must be JSON then; any other is parsed first."""
    text: str = version.content["string"]
    if version.content["is_raw_template"]:
        try:
            return {"messages": loads(fill(text, variables, partial_text))}
        except ValueError as exc:
            raise invalid("the raw template is not JSON with these variables") from exc
    messages = _messages(text)
    if messages is None:
        return {"prompt": fill(text, variables, partial_text)}
    return {"messages": fill_all(messages, variables, partial_text)}


def _messages(text: str) -> list[Json] | None:
    try:
        value = loads(text)
    except ValueError:
        return None
    is_chat = isinstance(value, list) and all(isinstance(item, dict) and "role" in item for item in value)
    return value if is_chat else None


def _partial_text(call: Call, workspace: str) -> PartialText:
    def find(name: str) -> str | None:
        ref, _, suffix = name.partition("@")
        template = call.store.template("partial", ref)
        if template is None or template.workspace != workspace:
            return None
        version = pick(call.store, template, suffix or "default")
        return None if version is None else str(version.content["string"])

    return find


def _events(
    head: Mapping[str, Json], message: Mapping[str, Json], finish: str, usage: Mapping[str, Json] | None
) -> web.Response:
    """The whole stream, chunked; cut between words, ended by [DONE]. `usage`: None unless it was asked for."""
    head = {**head, "object": "chat.completion.chunk"}
    chunks = [
        head | {"choices": [{"index": 0, "delta": delta, "finish_reason": None if delta else finish}]}
        for delta in (*_deltas(message), {})
    ]
    chunks += [head | {"choices": [], "usage": usage}] if usage is not None else []
    lines = (f"data: {encode(chunk)}\n\n" for chunk in chunks)
    events = web.Response(text="".join(lines) + "data: [DONE]\n\n", content_type="text/event-stream")
    events.enable_chunked_encoding()
    return events


def _deltas(message: Mapping[str, Json]) -> Iterator[dict[str, Json]]:
    """A message in pieces: its words, and each of its tool calls with its arguments behind it, in halves."""
    first, *words = (message.get("content") or "").split(" ")
    yield {"role": "assistant", "content": ""}
    yield {"content": first}
    yield from ({"content": f" {word}"} for word in words)
    for index, one in enumerate(message.get("tool_calls") or ()):
        written = one["function"]["arguments"]
        half = len(written) // 2
        yield {"tool_calls": [{**one, "index": index, "function": {**one["function"], "arguments": ""}}]}
        for piece in (written[:half], written[half:]):
            yield {"tool_calls": [{"index": index, "function": {"arguments": piece}}]}
