"""The endpoints that use a model, which knows one sentence: render and completions of a prompt, and chat completions.

What the model does not take, its vendor refuses: `vendors` has the tables.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Final

from aiohttp import web

from engine.sandbox.answers import Json, Refusal, check, encode, invalid
from engine.sandbox.numbers import loads
from engine.sandbox.portkey.call import Call, pick
from engine.sandbox.portkey.template import PartialText, fill, fill_all
from engine.sandbox.portkey.vendors import VENDORS, Vendor, wrapped
from engine.sandbox.store import Template, Version

_OWN_FIELDS: Final = ("variables", "workspace_id")
_PROVIDER_HEADERS: Final = ("x-portkey-provider", "x-portkey-virtual-key")


def render_prompt(call: Call) -> Json:
    return {"success": True, "data": _request(call, *call.picked("prompt"))}


def complete_prompt(call: Call) -> Json | web.Response:
    """A completion, or (`stream`, sent or stored) server-sent events. The same request has the same answer."""
    template, version = call.picked("prompt")
    request = _request(call, template, version)
    vendor, _ = _vendor(call, template.workspace, version.content["virtual_key"])
    return _refused(call, vendor, request) or _answer(call, request)


def complete_chat(call: Call) -> Json | web.Response:
    """The same for messages that come along, as `@provider/model` or with a header that names the provider."""
    check(call.body, {"model": str, "messages": list}, ("model", "messages"))
    provider, model = _called(call)
    vendor, models = _vendor(call, call.workspace(), provider)
    if models is None:
        raise Refusal(400, "AB01", "the provider does not exist in this workspace")
    request = call.body | {"model": model}
    if vendor is not None and model not in models:
        return _refusal(call, vendor, *vendor.absent(model))
    return _refused(call, vendor, request) or _answer(call, request)


# ---- who is asked ----------------------------------------------------------------------------------------------------


def _called(call: Call) -> tuple[str, str]:
    """Provider and model of a chat."""
    model: str = call.body["model"]
    if model.startswith("@") and "/" in model:
        provider, _, model = model[1:].partition("/")
        return provider, model
    named = next((call.headers[name] for name in _PROVIDER_HEADERS if name in call.headers), "")
    return named.removeprefix("@"), model


def _vendor(call: Call, workspace: str, provider: str) -> tuple[Vendor | None, list[str] | None]:
    """Who answers for a provider, where there is a table of it, and the models that it has; None: no such provider."""
    found = call.store.thing("provider", workspace, provider)
    integration = found and call.store.thing("integration", None, found["integration_id"])
    return (VENDORS.get(integration["slug"]), integration["models"]) if integration else (None, None)


def _refused(call: Call, vendor: Vendor | None, request: Mapping[str, Json]) -> web.Response | None:
    """What the vendor answers to a request that its model does not take."""
    refused = None if vendor is None else vendor.refuses(request["model"], request)
    return None if vendor is None or refused is None else _refusal(call, vendor, 400, vendor.body(refused))


def _refusal(call: Call, vendor: Vendor, status: int, body: Json) -> web.Response:
    headers = {"x-amzn-ErrorType": vendor.error_type} if vendor.error_type else None
    body = wrapped(vendor, body) if call.registry.quirks.vendor_errors == "wrapped" else body
    return web.Response(status=status, text=encode(body), content_type="application/json", headers=headers)


# ---- what is asked, and answered -------------------------------------------------------------------------------------


def _answer(call: Call, request: dict[str, Json]) -> Json | web.Response:
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


def _request(call: Call, template: Template, version: Version) -> dict[str, Json]:
    """What would go to the model: the filled template, the stored parameters, and what this call overrides."""
    check(call.body, {"variables": dict}, ("variables",))
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
