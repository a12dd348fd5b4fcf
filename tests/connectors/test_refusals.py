"""What vendors say when they refuse a call: their bodies as clients quote them, and what is read of each."""
# ruff: noqa: E501 - each body stands in one piece, as it was sent

from __future__ import annotations

import json
from typing import Any

import pytest

from engine.connectors.portkey.refusals import LONGEST, as_called, refusals, took_all
from engine.model import Refused

Case = tuple[str, Any, dict[str, Any], list[Refused]]


def openai(message: str, param: str | None = None, code: str | None = None) -> dict[str, Any]:
    return {"error": {"message": message, "type": "invalid_request_error", "param": param, "code": code}}


def anthropic(message: str, kind: str = "invalid_request_error") -> dict[str, Any]:
    return {"type": "error", "error": {"type": kind, "message": message}}


def google(message: str, *violations: dict[str, str]) -> dict[str, Any]:
    """As google.rpc.Status with BadRequest.fieldViolations has it (googleapis google/rpc/error_details.proto)."""
    error: dict[str, Any] = {"code": 400, "message": message, "status": "INVALID_ARGUMENT"}
    if violations:
        kind = "type.googleapis.com/google.rpc.BadRequest"
        error["details"] = [{"@type": kind, "fieldViolations": list(violations)}]
    return {"error": error}


def wrapped(provider: str, message: str, **fields: str) -> dict[str, Any]:
    """As Portkey's gateway hands it on (Portkey-AI/gateway, src/providers/utils.ts)."""
    known: dict[str, Any] = {"type": None, "param": None, "code": None, **fields}
    return {"error": {"message": f"{provider} error: {message}", **known}, "provider": provider}


TOO_MANY = (
    "max_tokens is too large: 8192. This model supports at most 4096 completion tokens, whereas you provided 8192."
)
OTHER_NAME = (
    "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
)
ONLY_ONE = (
    "Unsupported value: 'temperature' does not support 0.2 with this model. Only the default (1) value is supported."
)
ABOVE = "Invalid 'n': integer above maximum value. Expected a value <= 8, but got 64 instead."
THINKS = (
    "`temperature` may only be set to 1 when thinking is enabled. Please consult our documentation at "
    "https://docs.anthropic.com/en/docs/build-with-claude/extended-thinking#important-considerations-when-using-extended-thinking"
)
CLAUDE_MOST = "max_tokens: 128000 > 64000, which is the maximum allowed number of output tokens for claude-sonnet-4-5"
BEDROCK_MOST = (
    "The maximum tokens you requested exceeds the model limit of 8192. Try again with a maximum tokens value that is "
    "lower than 8192."
)
EXTRANEOUS = (
    "The model returned the following errors: Malformed input request: #: extraneous key [chat_id] is not permitted, "
    "please reformat your input and try again."
)
GEMINI_MOST = (
    "Unable to submit request because it has a maxOutputTokens value of 65536 but the supported range is from 1 "
    "(inclusive) to 65536 (exclusive). Update the value and try again."
)
UNKNOWN_NAME = "Invalid JSON payload received. Unknown name \"topK\" at 'generation_config': Cannot find field."
TOOL = {"type": "function", "function": {"name": "find_order", "parameters": {}}}
TOOLS = {"tools": [TOOL]}
THINKING = {"thinking": {"type": "enabled", "budget_tokens": 512}, "temperature": 0.2}

CASES: list[Case] = [
    # ---- OpenAI: error.param and error.code -------------------------------------------------------------------------
    # ChatGPTNextWeb/NextChat issue 3195
    ("gpt-4", openai(TOO_MANY, "max_tokens"), {"max_tokens": 8192}, [Refused(path="max_tokens", why="too_large", bound=4096)]),
    ("gpt-4o", openai(TOO_MANY, "max_tokens", "invalid_value"), {"max_tokens": 8192}, [Refused(path="max_tokens", why="too_large", bound=4096)]),
    # koosoli/ESPHomeDesigner issue 379
    ("o3", openai(OTHER_NAME, "max_tokens", "unsupported_parameter"), {"max_tokens": 1}, [Refused(path="max_tokens", why="unsupported", instead="max_completion_tokens")]),
    ("only 1", openai(ONLY_ONE, "temperature", "unsupported_value"), {"temperature": 0.2}, [Refused(path="temperature", why="value")]),
    # Wei-Shaw/sub2api
    ("unknown", openai("Unknown parameter: 'thinking'.", "thinking", "unknown_parameter"), THINKING, [Refused(path="thinking", why="unknown")]),
    ("no param", openai("Unrecognized request argument supplied: top_k"), {"top_k": 5}, [Refused(path="top_k", why="unknown")]),
    ("n", openai(ABOVE, "n", "integer_above_max_value"), {"n": 64}, [Refused(path="n", why="too_large", bound=8)]),
    ("tool", openai("Unsupported tool type", "tools[0].type", "unsupported_value"), TOOLS, [Refused(path="tools", why="value")]),
    ("schema", openai("Invalid schema for response_format 'x'", "response_format", None), {"response_format": {"type": "json_schema"}}, [Refused(path="response_format", why="value")]),
    ("model", openai("The model `gpt-9` does not exist or you do not have access to it.", None, "model_not_found"), {}, [Refused(path="model", why="model")]),
    # Gitlawb/openclaude issue 331: a server that speaks as OpenAI does
    ("doubao", {"error": {"code": "InvalidParameter", "message": "The parameter `max_completion_tokens` specified in the request are not valid: integer above maximum value, expected a value <= 12288, but got 32000 instead.", "param": "max_completion_tokens", "type": "BadRequest"}}, {"max_completion_tokens": 32000}, [Refused(path="max_completion_tokens", why="too_large", bound=12288)]),
    # ---- Anthropic: type invalid_request_error, the path begins the message -----------------------------------------
    # anthropics/claude-code issue 2245
    ("3.5", anthropic("'claude-3-5-sonnet-20241022' does not support thinking."), THINKING, [Refused(path="thinking", why="unsupported")]),
    # agno-agi/agno issue 9931, MartialBE/one-hub issue 529
    ("thinks", anthropic(THINKS), THINKING, [Refused(path="temperature", why="value")]),
    ("most", anthropic(CLAUDE_MOST), {"max_tokens": 128000}, [Refused(path="max_tokens", why="too_large", bound=64000)]),
    ("most, by its other name", anthropic(CLAUDE_MOST), {"max_completion_tokens": 128000}, [Refused(path="max_completion_tokens", why="too_large", bound=64000)]),
    ("extra", anthropic("logit_bias: Extra inputs are not permitted"), {"logit_bias": {}}, [Refused(path="logit_bias", why="unknown")]),
    ("budget", anthropic("thinking.enabled.budget_tokens: Input should be greater than or equal to 1024"), THINKING, [Refused(path="thinking.budget_tokens", why="too_small", bound=1024)]),
    ("temperature", anthropic("temperature: Input should be less than or equal to 1"), {"temperature": 1.5}, [Refused(path="temperature", why="too_large", bound=1)]),
    # Azure's Claude: tools are what the body has in its first place
    ("tag", anthropic("tools.0: Input tag 'function' found using 'type' does not match any of the expected tags: 'bash_20250124', 'custom'"), TOOLS, [Refused(path="tools", why="unsupported")]),
    # openclaw/openclaw issue 101674
    ("adaptive", anthropic('"thinking.type.enabled" is not supported for this model. Use "thinking.type.adaptive" and "output_config.effort"'), THINKING, [Refused(path="thinking.type", why="unsupported")]),
    ("404", anthropic("model: claude-9", "not_found_error"), {}, [Refused(path="model", why="model")]),
    # ---- Bedrock: the message of a ValidationException --------------------------------------------------------------
    # BerriAI/litellm issue 7416
    ("extraneous", {"message": EXTRANEOUS}, {"chat_id": "x"}, [Refused(path="chat_id", why="unknown")]),
    ("limit", {"message": BEDROCK_MOST}, {"max_tokens": 9000}, [Refused(path="max_tokens", why="too_large", bound=8192)]),
    ("field", {"message": "This model doesn't support the topP field. Remove topP and try again."}, {"top_p": 0.5}, [Refused(path="top_p", why="unsupported")]),
    ("deprecated", {"message": "The model returned the following errors: `temperature` is deprecated for this model."}, {"temperature": 0.2}, [Refused(path="temperature", why="unsupported")]),
    ("both", {"message": "The model returned the following errors: `temperature` and `top_p` cannot both be specified for this model"}, {"temperature": 0.2, "top_p": 0.5}, [Refused(path="top_p", why="value")]),
    ("forced", {"message": "The model returned the following errors: tool_choice: forcing a specific tool is not supported for this model; only auto is supported"}, {**TOOLS, "tool_choice": "required"}, [Refused(path="tool_choice", why="value")]),
    ("no tools", {"message": "This model doesn't support tool use in streaming mode."}, TOOLS, [Refused(path="tools", why="unsupported")]),
    ("identifier", {"message": "The provided model identifier is invalid."}, {}, [Refused(path="model", why="model")]),
    # ---- Vertex: fieldViolations, status INVALID_ARGUMENT -----------------------------------------------------------
    # Alishahryar1/free-claude-code issue 542: a list, as calls that stream get it, and a violation without a field
    ("listed", [google('Invalid JSON payload received. Unknown name "google": Cannot find field.', {"description": 'Invalid JSON payload received. Unknown name "google": Cannot find field.'})], {"google": {}}, [Refused(path="google", why="unknown")]),
    ("violation", google(UNKNOWN_NAME, {"field": "generation_config", "description": UNKNOWN_NAME}), {"top_k": 5}, [Refused(path="top_k", why="unknown")]),
    # BerriAI/litellm pull request 10548: the bound is the first number that is too large
    ("range", google(GEMINI_MOST), {"max_tokens": 65536}, [Refused(path="max_tokens", why="too_large", bound=65535)]),
    ("below", google(GEMINI_MOST.replace("value of 65536", "value of -1")), {"max_tokens": -1}, [Refused(path="max_tokens", why="too_small", bound=1)]),
    # google-gemini and zed-industries/zed issue 44875: schemas are refused as a whole
    ("const", google("x", {"field": "tools[0].function_declarations[5].parameters.properties[8].value.any_of[2]", "description": "Invalid JSON payload received. Unknown name \"const\" at 'tools[0].function_declarations[5].parameters.properties[8].value.any_of[2]': Cannot find field."}), TOOLS, [Refused(path="tools", why="unknown")]),
    # router-for-me/CLIProxyAPI issue 512: Claude at Vertex, its own body inside of the message
    ("claude there", google('{"type":"error","error":{"type":"invalid_request_error","message":"thinking: Extra inputs are not permitted"},"request_id":"req_vrtx_1"}'), THINKING, [Refused(path="thinking", why="unknown")]),
    # ---- the same through Portkey, which keeps message, type, param and code ----------------------------------------
    ("wrapped openai", wrapped("openai", OTHER_NAME, param="max_tokens", code="unsupported_parameter"), {"max_tokens": 1}, [Refused(path="max_tokens", why="unsupported", instead="max_completion_tokens")]),
    ("wrapped anthropic", wrapped("anthropic", THINKS, type="invalid_request_error"), THINKING, [Refused(path="temperature", why="value")]),
    ("wrapped bedrock", wrapped("bedrock", EXTRANEOUS), {"chat_id": 1}, [Refused(path="chat_id", why="unknown")]),
    ("wrapped vertex", wrapped("vertex-ai", UNKNOWN_NAME, type="INVALID_ARGUMENT", code="400"), {"top_k": 5}, [Refused(path="top_k", why="unknown")]),
    ("wrapped other", wrapped("groq", "'tools' : does not support tools"), TOOLS, [Refused(path="tools", why="unsupported")]),
    # ---- what says nothing of the call ------------------------------------------------------------------------------
    ("about the message", openai("Invalid value", "messages[0].content", "invalid_value"), {}, []),
    ("about what it has not", anthropic("metadata.x: Extra inputs are not permitted"), {"top_p": 1}, []),
    ("portkey's own", {"status": "failure", "message": "You must provide a provider"}, {"top_p": 1}, []),
    ("portkey's control plane", {"success": False, "data": {"message": "no", "errorCode": "AB03"}}, {"top_p": 1}, []),
    ("no object", [1], {"top_p": 1}, []),
    ("odd types", {"error": {"message": 5, "param": [], "code": {}}}, {"top_p": 1}, []),
    ("odd details", {"error": {"message": "x", "status": "A", "details": [1, {"fieldViolations": [2, {}]}]}}, {}, []),
]  # fmt: skip


@pytest.mark.parametrize(("body", "request_", "found"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_a_refusal_is_read_by_its_fields(body: Any, request_: dict[str, Any], found: list[Refused]) -> None:
    call = {"model": "m", "temperature": 0.5, **request_}
    assert refusals(json.dumps(body).encode(), call) == found
    assert not took_all(json.dumps(body).encode())


def test_several_violations_are_all_read() -> None:
    violations = [
        {"field": "generation_config", "description": f'Unknown name "{name}" at \'generation_config\': Cannot find field.'}
        for name in ("topK", "seed")
    ]  # fmt: skip
    found = refusals(json.dumps(google("both", *violations)).encode(), {"top_k": 1, "seed": 2})
    assert [(one.path, one.why) for one in found] == [("top_k", "unknown"), ("seed", "unknown")]


def test_a_model_that_thought_longer_than_it_might_write_took_the_call() -> None:
    """The limit of one token does that to OpenAI's reasoning models, with 400."""
    message = "Could not finish the message because max_tokens or model output limit was reached. Please try again."
    for body in (openai(message), wrapped("azure-openai", message)):
        assert took_all(json.dumps(body).encode())
        assert refusals(json.dumps(body).encode(), {"model": "o3", "max_completion_tokens": 1}) == []


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"null", b'"text"', b"\xff", b"{" * 9999])
def test_what_is_no_error_body_says_nothing(body: bytes) -> None:
    assert refusals(body, {"top_p": 1}) == []
    assert not took_all(body)


def test_of_an_endless_message_only_the_beginning_is_looked_at() -> None:
    body = json.dumps(anthropic("a" * LONGEST + " top_p: Extra inputs are not permitted")).encode()
    assert refusals(body, {"top_p": 1}) == []


@pytest.mark.parametrize(
    ("said", "called"),
    [
        ("generationConfig.topP", "top_p"),
        ("inferenceConfig.maxTokens", "max_tokens"),
        ("thinking.enabled.budget_tokens", "thinking.budget_tokens"),
        ("thinking.budgetTokens", "thinking.budget_tokens"),
        ("tools[0].function.name", "tools"),
        ("/stop_sequences/0", "stop"),
        ("metadata.user_id", "user"),
        ("messages.0.content", "messages"),
        ("model", None),
        ("nothing.of.it", None),
        ("", None),
    ],
)
def test_a_name_of_the_vendor_is_the_one_that_the_call_has(said: str, called: str | None) -> None:
    call = {"model": "m", "top_p": 1, "max_tokens": 1, "thinking": {"budget_tokens": 1}, "tools": [TOOL], "stop": ["x"]}
    assert as_called(said, {**call, "user": "u"}) == called
