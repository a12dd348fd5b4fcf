"""Models of the sandbox take what the vendors' take, and refuse the rest in the vendors' own words."""

from __future__ import annotations

import json
from typing import Any

import aiohttp
import pytest

from engine.sandbox.library import INTEGRATIONS, PROVIDERS, library
from engine.sandbox.options import Quirks
from engine.sandbox.portkey.vendors import VENDORS
from tests.sandbox_api import Api, api

TOOL = {"type": "function", "function": {"name": "f", "parameters": {}}}
THINKING = {"type": "enabled", "budget_tokens": 2048}
CLAUDE, OLDER, GPT = (
    "@anthropic-prod/claude-3-7-sonnet-20250219",
    "@anthropic-prod/claude-3-opus",
    "@openai-prod/gpt-4o",
)
BEDROCK, GEMINI, MINI = (
    "@bedrock-prod/anthropic.claude-3-5-sonnet",
    "@vertex-prod/gemini-1.5-pro",
    "@more-openai/o1-mini",
)


async def ask(portkey: Api, model: str, **fields: Any) -> tuple[int, Any]:
    body = {"model": model, "messages": [{"role": "user", "content": "Hi"}], **fields}
    return await portkey.ask("POST", "/chat/completions", body)


def plant(portkey: Api) -> None:
    portkey.sandbox.add_provider("vertex-prod", "vertex-ai", "gemini-1.5-pro", "gemini-2.5-flash")
    portkey.sandbox.add_provider("more-openai", "openai", "never taken: it is there")
    portkey.sandbox.add_prompt("p", model="o1-mini", virtual_key="openai-prod")


def said(answer: Any) -> str:
    """The message of any of their bodies."""
    return str(answer.get("error", answer)["message"])


async def test_each_vendor_refuses_in_its_own_body() -> None:
    async with api() as portkey:
        plant(portkey)
        status, answer = await ask(portkey, GPT, top_k=5)
        known = {"message": "Unknown parameter: 'top_k'.", "type": "invalid_request_error"}
        assert (status, answer) == (400, {"error": {**known, "param": "top_k", "code": "unknown_parameter"}})
        status, answer = await ask(portkey, CLAUDE, logit_bias={})
        known = {"type": "invalid_request_error", "message": "logit_bias: Extra inputs are not permitted"}
        assert (status, answer) == (400, {"type": "error", "error": known})
        status, answer = await ask(portkey, BEDROCK, max_tokens=9000)
        assert status == 400
        assert set(answer) == {"message"}
        assert "exceeds the model limit of 8192" in answer["message"]
        status, answer = await ask(portkey, GEMINI, foo=1)
        assert (status, answer["error"]["status"]) == (400, "INVALID_ARGUMENT")
        (detail,) = answer["error"]["details"]
        assert [one["description"] for one in detail["fieldViolations"]] == [answer["error"]["message"]]


@pytest.mark.parametrize(
    ("model", "fields", "words"),
    [
        (GPT, {"max_tokens": 16_385}, "max_tokens is too large: 16385. This model supports at most 16384"),
        (GPT, {"reasoning_effort": "low"}, "Unsupported parameter: 'reasoning_effort'"),
        (GPT, {"tool_choice": "auto"}, "'tool_choice' is only allowed when 'tools' are specified"),
        (CLAUDE, {"thinking": THINKING, "max_tokens": 4096, "temperature": 0.2}, "`temperature` may only be set to 1"),
        (CLAUDE, {"thinking": THINKING, "max_tokens": 4096, "top_k": 5}, "`top_k` must be unset"),
        (CLAUDE, {"thinking": THINKING, "max_tokens": 4096, "top_p": 0.5}, "`top_p` must be greater than or equal"),
        (CLAUDE, {"thinking": THINKING, "max_tokens": 4096, "tool_choice": "required"}, "forces tool use"),
        (CLAUDE, {"thinking": THINKING, "max_tokens": 2048}, "must be greater than `thinking.budget_tokens`"),
        (CLAUDE, {"thinking": {"type": "enabled", "budget_tokens": 9}}, "Input should be greater than or equal to"),
        (CLAUDE, {"temperature": 1.5}, "temperature: Input should be less than or equal to 1"),
        (CLAUDE, {"max_tokens": 64_001}, "max_tokens: 64001 > 64000, which is the maximum"),
        (OLDER, {"thinking": THINKING, "max_tokens": 4096}, "'claude-3-opus' does not support thinking."),
        (OLDER, {"max_completion_tokens": 4097}, "max_tokens: 4097 > 4096"),
        (BEDROCK, {"thinking": THINKING, "max_tokens": 4096}, "extraneous key [thinking] is not permitted"),
        (BEDROCK, {"foo": 1}, "returned the following errors: Malformed input request: #: extraneous key [foo]"),
        (BEDROCK, {"temperature": 2}, "The model returned the following errors: temperature: Input should be less"),
        (GEMINI, {"max_tokens": 8193}, "value of 8193 but the supported range is from 1 (inclusive) to 8193"),
        (GEMINI, {"thinking": THINKING}, "Unknown name \"thinkingConfig\" at 'generation_config'"),
        (GEMINI, {"temperature": 3}, "it has a temperature value of 3 but the supported range"),
    ],
)  # fmt: skip
async def test_what_a_model_does_not_take(model: str, fields: dict[str, Any], words: str) -> None:
    async with api() as portkey:
        plant(portkey)
        status, answer = await ask(portkey, model, **fields)
        assert status == 400
        assert words in said(answer)


async def test_reasoning_models_have_names_and_values_of_their_own() -> None:
    async with api() as portkey:
        plant(portkey)
        vendor = VENDORS["openai"]
        found = {
            name: refused.message
            for name, value in (("max_tokens", 5), ("temperature", 0.2), ("tools", [TOOL]))
            if (refused := vendor.refuses("o1-mini", {"model": "o1-mini", name: value})) is not None
        }
        assert "Use 'max_completion_tokens' instead" in found["max_tokens"]
        assert "Only the default (1) value is supported" in found["temperature"]
        assert "'tools' is not supported with this model" in found["tools"]
        assert vendor.refuses("o1-mini", {"model": "o1-mini", "max_completion_tokens": 5, "temperature": 1}) is None
        # a prompt of such a model is refused where it is completed, too
        (prompt,) = portkey.sandbox.prompts()
        asked = {"variables": {}, "stream": False, "max_tokens": 5}
        status, answer = await portkey.ask("POST", f"/prompts/{prompt['id']}/completions", asked)
        assert (status, answer["error"]["code"]) == (400, "unsupported_parameter")


async def test_who_is_asked_is_named_in_the_model_or_in_a_header() -> None:
    async with api() as portkey:
        assert (await ask(portkey, CLAUDE, max_tokens=5))[0] == 200
        assert (await ask(portkey, "@anthropic-prod/claude-9"))[1]["error"]["message"] == "model: claude-9"
        assert (await ask(portkey, "@openai-prod/gpt-9"))[1]["error"]["code"] == "model_not_found"
        assert "identifier is invalid" in (await ask(portkey, "@bedrock-prod/x"))[1]["message"]
        status, answer = await ask(portkey, "@nobody/gpt-4o")
        assert (status, answer["data"]["errorCode"]) == (400, "AB01")
        assert (await ask(portkey, "gpt-4o"))[0] == 400
        body = io_of({"model": "gpt-4o", "messages": [], "stream": True})
        for name in ("x-portkey-virtual-key", "x-portkey-provider"):
            headers = {"x-portkey-api-key": portkey.key, name: "openai-prod"}
            url = f"{portkey.sandbox.base_url}/chat/completions"
            async with portkey.session.post(url, data=body, headers=headers) as found:
                assert (found.status, found.content_type) == (200, "text/event-stream")


def io_of(value: Any) -> aiohttp.BytesPayload:
    return aiohttp.BytesPayload(json.dumps(value).encode())


async def test_the_gateway_may_wrap_what_a_vendor_says() -> None:
    """Portkey-AI/gateway, src/providers/utils.ts: only message, type, param and code are left, and who said it."""
    async with api(quirks=Quirks(vendor_errors="wrapped")) as portkey:
        plant(portkey)
        nothing = {"type": None, "param": None, "code": None}
        _, answer = await ask(portkey, GPT, top_k=5)
        known = {"type": "invalid_request_error", "param": "top_k", "code": "unknown_parameter"}
        message = "openai error: Unknown parameter: 'top_k'."
        assert answer == {"error": {"message": message, **known}, "provider": "openai"}
        _, answer = await ask(portkey, BEDROCK, max_tokens=9000)
        assert answer["provider"] == "bedrock"
        assert answer["error"].items() >= nothing.items()
        _, answer = await ask(portkey, GEMINI, foo=1)
        assert answer["error"].items() >= {"type": "INVALID_ARGUMENT", "code": "INVALID_ARGUMENT"}.items()
        _, answer = await ask(portkey, CLAUDE, foo=1)
        known = {"message": "anthropic error: foo: Extra inputs are not permitted", "type": "invalid_request_error"}
        assert answer == {"error": {**nothing, **known}, "provider": "anthropic"}


def test_a_seeded_library_is_answered_by_its_own_models() -> None:
    partials = {"Tone of voice": "a", "JSON only": "b", "Safety": "c"}
    refused = []
    for seed in library(1_000, 3, partials):
        fields = seed.fields
        request = {name: value for name, value in fields["parameters"].items() if name != "company"}
        request |= {name: fields[name] for name in ("tools", "functions", "tool_choice") if fields.get(name)}
        refused.append(VENDORS[PROVIDERS[fields["virtual_key"]]].refuses(fields["model"], request))
    assert set(refused) == {None}
    assert INTEGRATIONS.keys() <= VENDORS.keys()
