"""What a refusal of a model's vendor says, read by its fields: one table for each vendor, with its sources. Pure.

Vendors put what they refuse in different places: OpenAI in `param` and `code`, Google in `fieldViolations`, Anthropic
and Bedrock at fixed places of a sentence. Portkey hands a body on as it is, or wrapped: then the vendor is in
`provider`, and of the fields message, type, param and code are left (Portkey-AI/gateway, src/providers/utils.ts). A
vendor may serve the models of another (Claude at Bedrock and Vertex), so a sentence that its own table does not have is
looked for in the others. Nothing of a message comes out of here but numbers, and names that the call has itself.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from engine.lossless_json import decode
from engine.lossless_json.numbers import Number
from engine.model import Json, Refused, Why

Request = Mapping[str, Json]
"""The call: everything at its root."""

MODEL: Final = "model"
WHOLE: Final = frozenset({"tools", "functions", "tool_choice", "response_format"})
"""What is only refused as a whole: what is inside of it is a list, or a schema."""
_OURS: Final = frozenset({"messages", "contents", "prompt", "system"})

_PATH: Final = r"[A-Za-z_][\w.\[\]-]*"
_NUMBER: Final = r"-?\d+(?:\.\d+)?"


@dataclass(frozen=True, slots=True)
class Sentence:
    """How one is built. The groups `path`, `at` (what the path is in), `max`, `min`, `beyond` (the first number that is
    too large) and `instead` say the rest; `path` where the sentence itself does not name it.
    """

    pattern: re.Pattern[str]
    why: Why
    path: str = ""


def _sentence(pattern: str, why: Why, path: str = "") -> Sentence:
    return Sentence(re.compile(pattern.replace("PATH", _PATH).replace("NUMBER", _NUMBER)), why, path)


# ---- the vendors -----------------------------------------------------------------------------------------------------

OPENAI: Final = (
    # https://platform.openai.com/docs/api-reference/chat/create; the sentences of gpt-3.5 and gpt-4 have no code:
    # https://github.com/ChatGPTNextWeb/NextChat/issues/3195
    _sentence(r"(?P<path>PATH) is too large: \d+\. This model supports at most (?P<max>NUMBER) ", "too_large"),
    _sentence(r"Unrecognized request arguments? supplied: (?P<path>PATH)", "unknown"),
    _sentence(r"Unknown parameter: '(?P<path>PATH)'", "unknown"),
    _sentence(r"'(?P<path>PATH)' is not supported with this model\. Use '(?P<instead>PATH)' instead", "unsupported"),
    _sentence(r"Unsupported (?:parameter|value): '(?P<path>PATH)'", "unsupported"),
    _sentence(r"Invalid '(?P<path>PATH)': .*Expected a value <= (?P<max>NUMBER)", "too_large"),
    _sentence(r"Invalid '(?P<path>PATH)': .*Expected a value >= (?P<min>NUMBER)", "too_small"),
    _sentence(r"NUMBER is greater than the maximum of (?P<max>NUMBER) - '(?P<path>PATH)'", "too_large"),
    _sentence(r"NUMBER is less than the minimum of (?P<min>NUMBER) - '(?P<path>PATH)'", "too_small"),
    # https://github.com/Gitlawb/openclaude/issues/331, of a server that speaks OpenAI's
    _sentence(r"`(?P<path>PATH)` .*expected a value <= (?P<max>NUMBER)", "too_large"),
    _sentence(r"model `[^`]*` does not exist", "model", MODEL),
    _sentence(r"does not support (?:tools|function calling)", "unsupported", "tools"),
)
OPENAI_CODES: Final[Mapping[str, Why]] = {
    "unknown_parameter": "unknown",
    "unsupported_parameter": "unsupported",
    "unsupported_value": "value",
    "invalid_value": "value",
    "invalid_type": "value",
    "integer_above_max_value": "too_large",
    "decimal_above_max_value": "too_large",
    "integer_below_min_value": "too_small",
    "decimal_below_min_value": "too_small",
    "model_not_found": "model",
}
"""https://platform.openai.com/docs/guides/error-codes, and what clients quote."""

ANTHROPIC: Final = (
    # https://docs.anthropic.com/en/api/errors: type invalid_request_error, and the path begins the message
    _sentence(r"(?P<path>PATH): Extra inputs are not permitted", "unknown"),
    _sentence(r"(?P<path>PATH): \d+ > (?P<max>NUMBER), which is the maximum", "too_large"),
    _sentence(r"(?P<path>PATH): Input should be less than or equal to (?P<max>NUMBER)", "too_large"),
    _sentence(r"(?P<path>PATH): Input should be greater than or equal to (?P<min>NUMBER)", "too_small"),
    _sentence(r"(?P<path>PATH): Input tag '[^']*' found using", "unsupported"),
    # https://docs.anthropic.com/en/docs/build-with-claude/extended-thinking
    _sentence(r"`(?P<path>PATH)` may only be set to \S+ when thinking is enabled", "value"),
    _sentence(r"`(?P<path>PATH)` must be (?:greater than or equal to \S+ or )?unset when thinking is enabled", "value"),
    _sentence(r"Thinking may not be enabled when (?P<path>tool_choice) forces tool use", "value"),
    # https://github.com/anthropics/claude-code/issues/2245
    _sentence(r"does not support (?:\w+ )?(?P<path>thinking)", "unsupported"),
    _sentence(r"does not support tool use", "unsupported", "tools"),
    # https://github.com/openclaw/openclaw/issues/101674
    _sentence(r'"(?P<path>PATH)" is not supported for this model', "unsupported"),
    _sentence(r"`(?P<path>PATH)` is deprecated for this model", "unsupported"),
    _sentence(r"`PATH` and `(?P<path>PATH)` cannot both be specified", "value"),
    _sentence(r"^(?P<path>tool_choice): ", "value"),
    _sentence(r"^model: ", "model", MODEL),
    _sentence(r"^(?P<path>PATH): ", "value"),
)
BEDROCK: Final = (
    # https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html, ValidationException
    # https://github.com/BerriAI/litellm/issues/7416
    _sentence(r"Malformed input request: #(?P<at>[\w/]*): extraneous key \[(?P<path>[^\]]+)\] is not", "unknown"),
    _sentence(r"maximum tokens you requested exceeds the model limit of (?P<max>NUMBER)", "too_large", "maxTokens"),
    _sentence(r"This model doesn't support the (?P<path>PATH) field", "unsupported"),
    _sentence(r"This model doesn't support tool use", "unsupported", "tools"),
    _sentence(
        r"at '(?P<path>PATH)' failed to satisfy constraint: Member must have value less than or equal to "
        r"(?P<max>NUMBER)",
        "too_large",
    ),
    _sentence(
        r"at '(?P<path>PATH)' failed to satisfy constraint: Member must have value greater than or equal to "
        r"(?P<min>NUMBER)",
        "too_small",
    ),
    _sentence(r"provided model identifier is invalid", "model", MODEL),
    _sentence(r"don't have access to the model", "model", MODEL),
    _sentence(r"Invocation of model ID \S+ with on-demand throughput isn.t supported", "model", MODEL),
)
GOOGLE: Final = (
    # https://github.com/googleapis/googleapis/blob/master/google/rpc/error_details.proto, BadRequest.FieldViolation
    # https://github.com/Alishahryar1/free-claude-code/issues/542
    _sentence(r'Unknown name "(?P<path>[^"]+)"(?: at \'(?P<at>[^\']+)\')?: Cannot find field', "unknown"),
    # https://github.com/BerriAI/litellm/pull/10548
    _sentence(
        r"it has an? (?P<path>PATH) value of NUMBER but the supported range is from (?P<min>NUMBER) \(inclusive\)"
        r" to (?P<beyond>NUMBER) \(exclusive\)",
        "too_large",
    ),
    _sentence(
        r"it has an? (?P<path>PATH) value of NUMBER but the supported range is from (?P<min>NUMBER) \(inclusive\)"
        r" to (?P<max>NUMBER) \(inclusive\)",
        "too_large",
    ),
    _sentence(r"Function calling is not (?:enabled|supported) for", "unsupported", "tools"),
    _sentence(r"[Tt]hinking(?:_config\S*| config)? is (?:not|only) (?:supported|enabled)", "unsupported", "thinking"),
    _sentence(r"[Cc]ontrolled generation is not supported", "unsupported", "response_format"),
    _sentence(r"Publisher Model `?[^`]*`? (?:was )?not found", "model", MODEL),
)
PORTKEY: Final = (
    # the gateway itself: contract, section 6; the bodies are its own, the sentences are nowhere listed
    _sentence(r"[Mm]odel \S+ is not (?:allowed|enabled|supported)", "model", MODEL),
)
_TABLES: Final = (OPENAI, ANTHROPIC, BEDROCK, GOOGLE, PORTKEY)

LONGEST: Final = 4_000
"""Characters of a message that are looked at: those behind would only repeat what was sent."""
_SAID_BY_MODEL: Final = "The model returned the following errors: "
"""Bedrock's words before those of the model."""

ANSWERED: Final = re.compile("Could not finish the message because max_tokens or model output limit was reached")
"""OpenAI's reasoning models thought longer than they were allowed to write: all of the call was taken."""

_WRAPPED: Final[Mapping[str, Sequence[Sentence]]] = {
    "openai": OPENAI,
    "azure-openai": OPENAI,
    "anthropic": ANTHROPIC,
    "bedrock": BEDROCK,
    "google": GOOGLE,
    "vertex-ai": GOOGLE,
}
"""What the gateway calls its providers: Portkey-AI/gateway, src/globals.ts."""

_AS_CALLED: Final[Mapping[str, tuple[str, ...]]] = {
    "maxTokens": ("max_tokens", "max_completion_tokens"),
    "maxOutputTokens": ("max_tokens", "max_completion_tokens"),
    "max_tokens": ("max_completion_tokens",),
    "topP": ("top_p",),
    "topK": ("top_k",),
    "stopSequences": ("stop",),
    "stop_sequences": ("stop",),
    "thinkingConfig": ("thinking",),
    "toolConfig": ("tools",),
    "responseSchema": ("response_format",),
    "responseMimeType": ("response_format",),
    "metadata": ("user",),
}
"""A vendor's name -> those that the gateway makes it of: Portkey-AI/gateway, src/providers/*/chatComplete.ts."""


# ---- a body ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Said:
    """What an error body has at its places, whoever sent it."""

    table: Sequence[Sentence]
    messages: Sequence[str]
    param: str = ""
    code: str = ""


def took_all(body: bytes) -> bool:
    """Whether this refusal says that the call was taken whole, and only its limit was too low to answer."""
    said = _read(body)
    return said is not None and any(ANSWERED.search(message) for message in said.messages)


def refusals(body: bytes, request: Request) -> list[Refused]:
    """What an error body says is refused, as the call has it; none where it is about something else, or says nothing
    that can be read.
    """
    said = _read(body)
    if said is None:
        return []
    found = _of_fields(said, request)
    for message in said.messages if not found else ():
        for table in (said.table, *(other for other in _TABLES if other is not said.table)):
            if here := list(_of_sentences(table, message, request)):
                found += here
                break
    unique = {one.path: one for one in reversed(found)}
    return [one for path, one in reversed(unique.items()) if path not in _OURS]


def _read(body: bytes) -> _Said | None:
    try:
        root = decode(body)
    except ValueError:
        return None
    if isinstance(root, list) and root:  # Google, to a call that streams
        root = root[0]
    if not isinstance(root, dict):
        return None
    held = root.get("error")
    error: Mapping[str, Json] = held if isinstance(held, dict) else root
    if not isinstance(message := error.get("message"), str):
        return None
    provider = root.get("provider")
    if isinstance(provider, str):
        message = message.removeprefix(f"{provider} error: ")
    message = message[:LONGEST].removeprefix(_SAID_BY_MODEL)
    table = _WRAPPED.get(provider) if isinstance(provider, str) else None
    return _Said(
        table=table or _table_of(root, error),
        messages=[*_violations(error), message],
        param=_text(error.get("param")),
        code=_text(error.get("code")),
    )


def _table_of(root: Mapping[str, Json], error: Mapping[str, Json]) -> Sequence[Sentence]:
    """Whose body it is, by its fields."""
    if isinstance(error.get("status"), str) and error is not root:
        return GOOGLE
    if root.get("type") == "error":
        return ANTHROPIC
    if "param" in error:
        return OPENAI
    return PORTKEY if {"status", "success"} & root.keys() else BEDROCK


def _violations(error: Mapping[str, Json]) -> Iterator[str]:
    details = error.get("details")
    for detail in details if isinstance(details, list) else ():
        violations = detail.get("fieldViolations") if isinstance(detail, dict) else None
        for one in violations if isinstance(violations, list) else ():
            if isinstance(one, dict) and isinstance(description := one.get("description"), str):
                yield description[:LONGEST]


def _text(value: Json) -> str:
    return value if isinstance(value, str) else ""


def _of_fields(said: _Said, request: Request) -> list[Refused]:
    """By `param` and `code` alone; numbers and other names come from the sentence, where that is about the same."""
    why = OPENAI_CODES.get(said.code)
    if why == "model":
        return [Refused(path=MODEL, why=why)]
    path = as_called(said.param, request)
    if path is None:
        return []
    told = next((one for one in _of_sentences(OPENAI, said.messages[-1], request) if one.path == path), None)
    if told is not None and (told.bound is not None or why is None):
        return [told]
    return [Refused(path=path, why=why or "value", instead=told.instead if told is not None else None)]


def _of_sentences(table: Sequence[Sentence], message: str, request: Request) -> Iterator[Refused]:
    """By the first of the table that the message has; as often as it has it."""
    for sentence in table:
        found = [_refused(sentence, match, request) for match in sentence.pattern.finditer(message)]
        if any(found):
            yield from filter(None, found)
            return


def _refused(sentence: Sentence, match: re.Match[str], request: Request) -> Refused | None:
    groups = match.groupdict()
    said = ".".join(filter(None, (_dotted(groups.get("at")), groups.get("path") or sentence.path)))
    path = MODEL if said == MODEL else as_called(said, request)
    if path is None:
        return None
    why, bound = _bound(sentence.why, groups, request.get(path))
    return Refused(path=path, why=why, bound=bound, instead=groups.get("instead"))


def _dotted(at: str | None) -> str:
    return (at or "").strip("/").replace("/", ".")


def _bound(why: Why, groups: Mapping[str, str | None], value: Json) -> tuple[Why, float | None]:
    """The number that is the largest, or where the value lies below it all, the smallest one."""
    low, high, beyond = (_number(groups.get(name)) for name in ("min", "max", "beyond"))
    if beyond is not None:
        high = beyond - 1 if isinstance(beyond, int) else math.floor(beyond)
    below = isinstance(value, int | float | Number) and low is not None and value < low
    return ("too_small", low) if low is not None and (below or high is None) else (why, high)


def _number(text: str | None) -> int | float | None:
    if text is None:
        return None
    return float(text) if "." in text else int(text)


# ---- names -----------------------------------------------------------------------------------------------------------


def as_called(path: str, request: Request) -> str | None:
    """What the call itself calls it: the longest way that it has; None: it has no such thing.

    Vendors put words around a name: `generationConfig.topP`, `thinking.enabled.budget_tokens`, `tools.0.name`.
    """
    parts = [part for part in re.split(r"[.\[\]/]+", path) if part]
    if parts and parts[0] in _OURS:
        return parts[0]
    for start, part in enumerate(parts):
        for name in (part, *_AS_CALLED.get(part, ()), _snake(part)):
            if name in request and name != MODEL:
                return name if name in WHOLE else ".".join((name, *_way(request[name], parts[start + 1 :])))
    return None


def _way(value: Json, parts: Sequence[str]) -> Iterator[str]:
    for part in parts:
        if isinstance(value, dict) and (part in value or _snake(part) in value):
            name = part if part in value else _snake(part)
            yield name
            value = value[name]


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])([A-Z])", r"_\1", name).lower()
