"""What the vendors' models take and how they refuse the rest: one table each, with its sources. Pure.

Names are those of Portkey's gateway, which takes OpenAI's and passes on what a vendor has besides; what it silently
leaves out is refused here, as the vendor refuses it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final

from engine.sandbox.answers import Json

Request = Mapping[str, Json]
"""What goes to the model: its messages or prompt, and everything else at the root."""

_TEXTS: Final = frozenset({"model", "messages", "prompt"})
_LIMITS: Final = ("max_completion_tokens", "max_tokens")
_GATEWAY: Final = frozenset(
    "max_tokens max_completion_tokens temperature top_p stop stream stream_options user".split()
)
"""What the gateway translates for every vendor: Portkey-AI/gateway, src/providers/*/chatComplete.ts."""
_TOOLS: Final = frozenset("tools tool_choice parallel_tool_calls functions function_call".split())


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """`most`: tokens that it writes; `budget`: it takes `thinking`; `reasons`: as OpenAI's do, with fixed sampling."""

    most: int
    budget: bool = False
    reasons: bool = False
    tools: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """`param` and `code` as OpenAI has them, `field` as Google has it; the others say it all in the message."""

    message: str
    param: str | None = None
    code: str | None = None
    field: str | None = None


Judge = Callable[[Request, Model, str], Iterator[Refused]]
"""What a vendor says of a request to this model, of this name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Vendor:
    """`known`: names that it has; `models`: by globs, the first that takes a name counts; `body`: of its errors."""

    name: str
    known: frozenset[str]
    models: Sequence[tuple[str, Model]]
    judge: Judge
    body: Callable[[Refused], Json]
    unknown: Callable[[str], Refused]
    absent: Callable[[str], tuple[int, Json]]
    """Status and body for a model that it does not have."""

    error_type: str = ""
    """What stands beside a body, in x-amzn-ErrorType."""

    def refuses(self, model: str, request: Request) -> Refused | None:
        """The first thing that it does not take, for vendors name one at a time."""
        for name in request:
            if name not in self.known and name not in _TEXTS:
                return self.unknown(name)
        found = next((one for glob, one in self.models if fnmatchcase(model, glob)), None)
        return next(self.judge(request, found, model), None) if found is not None else None


def _limit(request: Request) -> tuple[str, int] | None:
    """The name of the limit of tokens, and its value."""
    for name in _LIMITS:
        if isinstance(value := request.get(name), int) and not isinstance(value, bool):
            return name, value
    return None


def _thinks(request: Request) -> bool:
    thinking = request.get("thinking")
    return isinstance(thinking, dict) and thinking.get("type") != "disabled"


def _budget(request: Request) -> int | None:
    budget = request["thinking"].get("budget_tokens") if _thinks(request) else None
    return budget if isinstance(budget, int) else None


# ---- OpenAI ----------------------------------------------------------------------------------------------------------
# Parameters: platform.openai.com/docs/api-reference/chat/create. Limits: platform.openai.com/docs/models. Bodies: as
# clients quote them, ChatGPTNextWeb/NextChat issue 3195 (max_tokens is too large), sub2api and others
# (unknown_parameter, unsupported_parameter, unsupported_value).

_OPENAI: Final = (
    _GATEWAY
    | _TOOLS
    | frozenset(
        "audio frequency_penalty logit_bias logprobs metadata modalities n prediction presence_penalty "
        "prompt_cache_key reasoning_effort response_format safety_identifier seed service_tier store top_logprobs "
        "verbosity web_search_options".split()
    )
)
_FIXED: Final = {"temperature": 1, "top_p": 1, "presence_penalty": 0, "frequency_penalty": 0, "n": 1}
"""platform.openai.com/docs/guides/reasoning: what reasoning models take only as it is by default."""


def _openai_body(refused: Refused) -> Json:
    error = {"message": refused.message, "type": "invalid_request_error", "param": refused.param, "code": refused.code}
    return {"error": error}


def _openai_unknown(name: str) -> Refused:
    return Refused(message=f"Unknown parameter: '{name}'.", param=name, code="unknown_parameter")


def _openai_absent(model: str) -> tuple[int, Json]:
    message = f"The model `{model}` does not exist or you do not have access to it."
    return 404, _openai_body(Refused(message=message, code="model_not_found"))


def _unsupported(name: str, advice: str = "") -> Refused:
    message = f"Unsupported parameter: '{name}' is not supported with this model.{advice}"
    return Refused(message=message, param=name, code="unsupported_parameter")


def _openai(request: Request, model: Model, name: str) -> Iterator[Refused]:
    if model.reasons and "max_tokens" in request:
        yield _unsupported("max_tokens", " Use 'max_completion_tokens' instead.")
    if not model.tools and "tools" in request:
        yield _unsupported("tools")
    for parameter, only in _FIXED.items() if model.reasons else ():
        if request.get(parameter, only) != only:
            message = (
                f"Unsupported value: '{parameter}' does not support {request[parameter]} with this model. "
                f"Only the default ({only}) value is supported."
            )
            yield Refused(message=message, param=parameter, code="unsupported_value")
    if "reasoning_effort" in request and not model.reasons:
        yield _unsupported("reasoning_effort")
    if (limit := _limit(request)) is not None and limit[1] > model.most:
        message = (
            f"{limit[0]} is too large: {limit[1]}. This model supports at most {model.most} completion tokens, "
            f"whereas you provided {limit[1]}."
        )
        yield Refused(message=message, param=limit[0], code="invalid_value")
    if "tool_choice" in request and not request.get("tools"):
        message = "Invalid value for 'tool_choice': 'tool_choice' is only allowed when 'tools' are specified."
        yield Refused(message=message, param="tool_choice")


# ---- Anthropic -------------------------------------------------------------------------------------------------------
# Parameters: docs.anthropic.com/en/api/messages. Limits: docs.anthropic.com/en/docs/about-claude/models/overview. With
# thinking: docs.anthropic.com/en/docs/build-with-claude/extended-thinking. Bodies: as clients quote them,
# anthropics/claude-code issue 2245 (does not support thinking), agno-agi/agno issue 9931 (temperature).

_CLAUDE: Final = frozenset("top_k stop_sequences metadata system thinking service_tier response_format".split())
_ANTHROPIC: Final = _GATEWAY | _TOOLS | _CLAUDE
_CLAUDES: Final = (
    ("*claude-3-7-*", Model(most=64_000, budget=True)),
    ("*claude-3-5-*", Model(most=8_192)),
    ("*claude-3-*", Model(most=4_096)),
    ("*claude-opus-4-*", Model(most=32_000, budget=True)),
    ("*claude-sonnet-4*", Model(most=64_000, budget=True)),
    ("*claude-haiku-4-5*", Model(most=64_000, budget=True)),
    ("*claude-2*", Model(most=4_096, tools=False)),
)
_DOCUMENTED: Final = (
    "Please consult our documentation at https://docs.anthropic.com/en/docs/build-with-claude/extended-thinking"
)
_SMALLEST_BUDGET: Final = 1_024


def _anthropic_body(refused: Refused) -> Json:
    return {"type": "error", "error": {"type": "invalid_request_error", "message": refused.message}}


def _anthropic_absent(model: str) -> tuple[int, Json]:
    return 404, {"type": "error", "error": {"type": "not_found_error", "message": f"model: {model}"}}


def _extra(name: str) -> Refused:
    return Refused(message=f"{name}: Extra inputs are not permitted")


def _anthropic(request: Request, model: Model, name: str) -> Iterator[Refused]:
    if _thinks(request) and not model.budget:
        yield Refused(message=f"'{name}' does not support thinking.")
    if "tools" in request and not model.tools:
        yield Refused(message=f"'{name}' does not support tool use.")
    temperature = request.get("temperature")
    if isinstance(temperature, int | float) and temperature > 1:
        yield Refused(message="temperature: Input should be less than or equal to 1")
    limit = _limit(request)
    if limit is not None and limit[1] > model.most:
        allowed = f"which is the maximum allowed number of output tokens for {name}"
        yield Refused(message=f"max_tokens: {limit[1]} > {model.most}, {allowed}")
    if _thinks(request):
        yield from _anthropic_thinking(request, limit[1] if limit is not None else None)


def _anthropic_thinking(request: Request, limit: int | None) -> Iterator[Refused]:
    budget = _budget(request)
    if budget is not None and budget < _SMALLEST_BUDGET:
        path = "thinking.enabled.budget_tokens"
        yield Refused(message=f"{path}: Input should be greater than or equal to {_SMALLEST_BUDGET}")
    if budget is not None and limit is not None and limit <= budget:
        yield Refused(message=f"`max_tokens` must be greater than `thinking.budget_tokens`. {_DOCUMENTED}")
    if request.get("temperature", 1) != 1:
        yield Refused(message=f"`temperature` may only be set to 1 when thinking is enabled. {_DOCUMENTED}")
    if "top_k" in request:
        yield Refused(message=f"`top_k` must be unset when thinking is enabled. {_DOCUMENTED}")
    if isinstance(top_p := request.get("top_p"), int | float) and top_p < 0.95:
        message = "`top_p` must be greater than or equal to 0.95 or unset when thinking is enabled."
        yield Refused(message=f"{message} {_DOCUMENTED}")
    if request.get("tool_choice") not in (None, "auto", "none"):
        yield Refused(message="Thinking may not be enabled when tool_choice forces tool use.")


# ---- Bedrock ---------------------------------------------------------------------------------------------------------
# docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html: a ValidationException is a 400, its body
# {"message": ...}. What a model says of its own comes behind a sentence of Bedrock's: BerriAI/litellm issue 7416.

_SAID_BY_MODEL: Final = "The model returned the following errors: "


def _bedrock_body(refused: Refused) -> Json:
    return {"message": refused.message}


def _bedrock_unknown(name: str) -> Refused:
    reason = f"#: extraneous key [{name}] is not permitted, please reformat your input and try again."
    return Refused(message=f"{_SAID_BY_MODEL}Malformed input request: {reason}")


def _bedrock_absent(model: str) -> tuple[int, Json]:
    return 400, {"message": "The provided model identifier is invalid."}


def _bedrock(request: Request, model: Model, name: str) -> Iterator[Refused]:
    if "tools" in request and not model.tools:
        yield Refused(message="This model doesn't support tool use.")
    if (limit := _limit(request)) is not None and limit[1] > model.most:
        yield Refused(
            message=f"The maximum tokens you requested exceeds the model limit of {model.most}. Try again with a "
            f"maximum tokens value that is lower than {model.most}."
        )
    if _thinks(request) and not model.budget:
        yield _bedrock_unknown("thinking")
    for one in _anthropic(request, model, name):
        yield Refused(message=f"{_SAID_BY_MODEL}{one.message}")


# ---- Vertex ----------------------------------------------------------------------------------------------------------
# Parameters: cloud.google.com/vertex-ai/generative-ai/docs/model-reference/inference. Errors: google.rpc.Status with
# BadRequest.fieldViolations, github.com/googleapis/googleapis google/rpc/error_details.proto. Bodies:
# Alishahryar1/free-claude-code issue 542 (unknown name), BerriAI/litellm pull request 10548 (maxOutputTokens).

_VERTEX: Final = (
    _GATEWAY
    | _TOOLS
    | frozenset("top_k response_format logprobs top_logprobs seed thinking modalities safety_settings labels n".split())
)
_GEMINIS: Final = (
    ("*gemini-2.5-*", Model(most=65_535, budget=True)),
    ("*gemini-2.0-*", Model(most=8_192)),
    ("*gemini-1.5-*", Model(most=8_192)),
)


def _vertex_body(refused: Refused) -> Json:
    error: dict[str, Json] = {"code": 400, "message": refused.message, "status": "INVALID_ARGUMENT"}
    if refused.field is not None:
        place = {"field": refused.field} if refused.field else {}
        violations = [{**place, "description": refused.message}]
        error["details"] = [{"@type": "type.googleapis.com/google.rpc.BadRequest", "fieldViolations": violations}]
    return {"error": error}


def _vertex_unknown(name: str) -> Refused:
    return Refused(message=f'Invalid JSON payload received. Unknown name "{name}": Cannot find field.', field="")


def _vertex_absent(model: str) -> tuple[int, Json]:
    message = f"Publisher Model `publishers/google/models/{model}` was not found or your project does not have access."
    return 404, {"error": {"code": 404, "message": message, "status": "NOT_FOUND"}}


def _vertex(request: Request, model: Model, name: str) -> Iterator[Refused]:
    if (limit := _limit(request)) is not None and limit[1] > model.most:
        yield Refused(
            message=f"Unable to submit request because it has a maxOutputTokens value of {limit[1]} but the supported "
            f"range is from 1 (inclusive) to {model.most + 1} (exclusive). Update the value and try again."
        )
    if _thinks(request) and not model.budget:
        message = (
            "Invalid JSON payload received. Unknown name \"thinkingConfig\" at 'generation_config': Cannot find field."
        )
        yield Refused(message=message, field="generation_config")
    temperature = request.get("temperature")
    if isinstance(temperature, int | float) and temperature > 2:
        yield Refused(
            message=f"Unable to submit request because it has a temperature value of {temperature} but the supported "
            "range is from 0 (inclusive) to 2.0000001 (exclusive). Update the value and try again."
        )


# ---- all of them -----------------------------------------------------------------------------------------------------

VENDORS: Final[Mapping[str, Vendor]] = {
    "openai": Vendor(
        name="openai",
        known=_OPENAI,
        models=(
            ("gpt-4o-2024-05-13", Model(most=4_096)),
            ("gpt-4o*", Model(most=16_384)),
            ("gpt-4.1*", Model(most=32_768)),
            ("o1-mini*", Model(most=65_536, reasons=True, tools=False)),
            ("o[134]*", Model(most=100_000, reasons=True)),
            ("gpt-5*", Model(most=128_000, reasons=True)),
            ("gpt-4-turbo*", Model(most=4_096)),
            ("gpt-3.5-turbo*", Model(most=4_096)),
        ),
        judge=_openai,
        body=_openai_body,
        unknown=_openai_unknown,
        absent=_openai_absent,
    ),
    "anthropic": Vendor(
        name="anthropic",
        known=_ANTHROPIC,
        models=_CLAUDES,
        judge=_anthropic,
        body=_anthropic_body,
        unknown=_extra,
        absent=_anthropic_absent,
    ),
    "bedrock": Vendor(
        name="bedrock",
        known=_ANTHROPIC | {"anthropic_version", "anthropic_beta"},
        models=(("amazon.titan-text-*", Model(most=8_192, tools=False)), *_CLAUDES),
        judge=_bedrock,
        body=_bedrock_body,
        unknown=_bedrock_unknown,
        absent=_bedrock_absent,
        error_type="ValidationException",
    ),
    "vertex-ai": Vendor(
        name="vertex-ai",
        known=_VERTEX,
        models=_GEMINIS,
        judge=_vertex,
        body=_vertex_body,
        unknown=_vertex_unknown,
        absent=_vertex_absent,
    ),
}
"""By the slug of the integration."""


def wrapped(vendor: Vendor, body: Json) -> Json:
    """The same body as Portkey's gateway hands it on: Portkey-AI/gateway, src/providers/utils.ts and each vendor's
    error transform. Only message, type, param and code are left of it.
    """
    error = body.get("error", body)
    status = error.get("status")
    return {
        "error": {
            "message": f"{vendor.name} error: {error['message']}",
            "type": error.get("type", status),
            "param": error.get("param"),
            "code": error.get("code") if vendor.name == "openai" else status,
        },
        "provider": vendor.name,
    }
