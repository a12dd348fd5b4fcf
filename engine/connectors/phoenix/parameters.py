"""Invocation parameters as Phoenix keeps them: one family of fields for each provider, and the neutral names. Pure.

Source: `db/types/prompts.py` of arize-phoenix 20.26.1, tried on the server. A field takes what its type takes without
a change; what it would change or refuse goes into `extra_body`, where the family has one, and is a loss where it has
none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from engine.lossless_json.numbers import Number
from engine.model import Json

PROVIDERS: Final = tuple(
    "OPENAI AZURE_OPENAI ANTHROPIC GOOGLE DEEPSEEK XAI OLLAMA AWS CEREBRAS FIREWORKS GROQ MOONSHOT MINIMAX PERPLEXITY "
    "TOGETHER ZAI META".split()
)
SMALLEST: Final = -(2**63)
LARGEST: Final = 2**64 - 1
"""Of the integers that its database keeps; the server breaks down at others."""
EXTRA_BODY: Final = "extra_body"
RESPONSE_FORMAT: Final = "response_format"
PARALLEL: Final = "parallel_tool_calls"

Check = Callable[[Json], bool]


# ---- what a field takes ----------------------------------------------------------------------------------------------


def plain(value: Json) -> Json:
    """A number as int or float, where one is the same; any other value as it is."""
    return value if not isinstance(value, Number) or (same := value.plain()) is None else same


def _whole(value: Json, least: int = SMALLEST) -> bool:
    number = plain(value)
    whole = isinstance(number, int) or (isinstance(number, float) and number.is_integer())
    return whole and not isinstance(number, bool) and least <= number <= LARGEST


def _real(value: Json) -> bool:
    """A float that is the same number."""
    number = plain(value)
    if isinstance(number, bool) or not isinstance(number, int | float):
        return False
    try:
        return float(number) == number
    except OverflowError:
        return False


def _texts(value: Json) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


def _flag(value: Json) -> bool:
    return isinstance(value, bool)


def _one_of(*words: str) -> Check:
    return lambda value: isinstance(value, str) and value in words


def _map(**fields: Check) -> Check:
    """A map with some of these keys."""
    return lambda value: (
        isinstance(value, dict) and all(key in fields and fields[key](inner) for key, inner in value.items())
    )


_DISPLAY: Final = _one_of("summarized", "omitted")
_THINKING: Final[Mapping[str, Check]] = {
    "disabled": _map(type=_one_of("disabled")),
    "enabled": _map(type=_one_of("enabled"), budget_tokens=lambda value: _whole(value, 1024), display=_DISPLAY),
    "adaptive": _map(type=_one_of("adaptive"), display=_DISPLAY),
}


def _thinking(value: Json) -> bool:
    kind = value.get("type") if isinstance(value, dict) else None
    fits = isinstance(kind, str) and kind in _THINKING and _THINKING[kind](value)
    return fits and (kind != "enabled" or "budget_tokens" in value)


# ---- families --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """The fields of some providers: neutral name -> name and what it takes. `extra`: anything else has a place too."""

    name: str
    fields: Mapping[str, tuple[str, Check]]
    extra: bool = False
    needed: str = ""
    """The field that the server insists on."""


_SAMPLING: Final[Mapping[str, Check]] = {"temperature": _real, "top_p": _real}
_PENALTIES: Final[Mapping[str, Check]] = {"frequency_penalty": _real, "presence_penalty": _real}


def _same(fields: Mapping[str, Check]) -> dict[str, tuple[str, Check]]:
    return {name: (name, check) for name, check in fields.items()}


_OPENAI: Final = Family(
    name="openai",
    fields=_same(
        {
            **_SAMPLING,
            **_PENALTIES,
            "max_tokens": _whole,
            "max_completion_tokens": _whole,
            "seed": _whole,
            "stop": _texts,
            "reasoning_effort": _one_of("none", "minimal", "low", "medium", "high", "xhigh"),
        }
    ),
    extra=True,
)
_ANTHROPIC: Final = Family(
    name="anthropic",
    fields=_same(
        {
            **_SAMPLING,
            "max_tokens": _whole,
            "thinking": _thinking,
            "output_config": _map(effort=_one_of("low", "medium", "high", "xhigh", "max")),
        }
    )
    | {"stop": ("stop_sequences", _texts)},
    extra=True,
    needed="max_tokens",
)
_GOOGLE: Final = Family(
    name="google",
    fields=_same(
        {
            **_SAMPLING,
            **_PENALTIES,
            "top_k": _whole,
            "thinking_config": _map(
                thinking_budget=_whole,
                thinking_level=_one_of("minimal", "low", "medium", "high"),
                include_thoughts=_flag,
            ),
        }
    )
    | {"max_tokens": ("max_output_tokens", _whole), "stop": ("stop_sequences", _texts)},
)
_AWS: Final = Family(
    name="aws", fields=_same({**_SAMPLING, "max_tokens": _whole}) | {"stop": ("stop_sequences", _texts)}
)
FAMILIES: Final[Mapping[str, Family]] = {one.name: one for one in (_OPENAI, _ANTHROPIC, _GOOGLE, _AWS)}
_OWN: Final[Mapping[str, Family]] = {"ANTHROPIC": _ANTHROPIC, "GOOGLE": _GOOGLE, "AWS": _AWS}


def family_of(provider: str) -> Family:
    """The family of a provider: a version that is added must have this one."""
    return _OWN.get(provider, _OPENAI)


# ---- to the registry -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Placed:
    """Where parameters go: the fields of their family, `extra_body` among them, the format of responses, whether tools
    may be called at once; and the names of those that have no place.
    """

    fields: dict[str, Json] = field(default_factory=dict, repr=False)
    response_format: Json = None
    parallel: bool | None = None
    lost: list[str] = field(default_factory=list)


def place(parameters: Mapping[str, Json], family: Family, *, tools: bool) -> Placed:
    """Where each of these goes; `tools`: there are some."""
    fields: dict[str, Json] = {}
    extra: dict[str, Json] = {}
    placed: dict[str, Any] = {}
    lost: list[str] = []
    for name, value in parameters.items():
        known = family.fields.get(name)
        if value is None:
            continue
        if name == RESPONSE_FORMAT and _is_schema(value):
            placed["response_format"] = value
        elif name == PARALLEL and tools and isinstance(value, bool):
            placed["parallel"] = value
        elif known is not None and known[1](value) and _within(name, value, parameters):
            fields[known[0]] = value
        elif family.extra:
            extra[name] = value
        else:
            lost.append(name)
    return Placed({**fields, **({EXTRA_BODY: extra} if extra else {})}, **placed, lost=lost)


def _within(name: str, value: Json, parameters: Mapping[str, Json]) -> bool:
    """Of Anthropic's: the budget for thinking is a part of the tokens."""
    if name != "thinking" or "budget_tokens" not in value:
        return True
    most = parameters.get("max_tokens")
    return not _whole(most) or plain(value["budget_tokens"]) < plain(most)


_SCHEMA: Final = _map(
    name=lambda value: isinstance(value, str),
    description=lambda value: isinstance(value, str),
    schema=lambda value: isinstance(value, dict),
    strict=_flag,
)


def _is_schema(value: Json) -> bool:
    """The one form that the server keeps."""
    whole = isinstance(value, dict) and value.keys() == {"type", "json_schema"} and value["type"] == "json_schema"
    return whole and _SCHEMA(value["json_schema"]) and "name" in value["json_schema"]


# ---- from the registry -----------------------------------------------------------------------------------------------


def read(kept: Mapping[str, Json]) -> tuple[dict[str, Json], dict[str, Json]]:
    """The parameters by their neutral names, and those that nobody can tell from another one of that name."""
    family = FAMILIES.get(str(kept.get("type")))
    fields = kept.get(str(kept.get("type")))
    if not isinstance(fields, dict):
        return {}, {}
    own = {name: neutral for neutral, (name, _) in family.fields.items()} if family is not None else {}
    extra = fields.get(EXTRA_BODY)
    body = extra if isinstance(extra, dict) else {}
    found = {own.get(name, name): value for name, value in fields.items() if body is not value or name != EXTRA_BODY}
    twice = {f"{EXTRA_BODY}.{name}": value for name, value in body.items() if name in found}
    return {**{name: value for name, value in body.items() if name not in found}, **found}, twice
