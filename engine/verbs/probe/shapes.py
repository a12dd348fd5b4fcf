"""The distinct calls that prompts come to when they have arrived: model, parameters, tools and response format. Pure.

Texts make no difference: neither messages, which are not sent, nor the descriptions of tools and schemas. Nor does the
limit of tokens as long as every model takes it, for then the call is made with a limit of one token.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from engine.content.rewrite import Rewritten
from engine.lossless_json.numbers import dumps
from engine.model import Json, Prompt, Tried
from engine.verbs.completions import LIMITS, limit_of

SURE: Final = 4_096
"""No model in use writes less: a limit of so many tokens is taken everywhere."""
BESIDE: Final = ("functions", "tools", "tool_choice")
"""What goes along and is no parameter of a prompt."""
_TEXTS: Final = ("description", "title")
_PLAIN_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")
"""A name that no vendor refuses, so that one is as good as another."""

Called = tuple[str, str | None]
"""Model and provider."""


@dataclass(slots=True)
class Kind:
    """Prompts that are the same in all that decides their call and the rules for it. `source`: one of them as it was
    read; `request`: what goes along with its messages; `prompts`: id and name of each.
    """

    source: Prompt = field(repr=False)
    request: Mapping[str, Json] = field(repr=False)
    provider: str | None
    prompts: list[tuple[str, str]] = field(default_factory=list)

    @property
    def called(self) -> Called:
        """Whom it calls."""
        return str(self.request["model"]), self.provider


@dataclass(slots=True)
class Shape:
    """One call, and the prompts that come to it. `limit`: the name of its limit of tokens where the value is ours;
    `added`: that name is ours too.
    """

    call: Mapping[str, Json] = field(repr=False)
    provider: str | None
    kinds: Sequence[Kind]
    limit: str | None
    added: bool
    tried: Tried | None = None

    @property
    def called(self) -> Called:
        """Whom it calls."""
        return str(self.call["model"]), self.provider

    @property
    def refused(self) -> bool:
        """Whether it was."""
        return self.tried is not None and self.tried.answered is False


class Kinds:
    """The prompts of a library, gathered by kind. `unlike`: names of those that come to no call at all."""

    def __init__(self) -> None:
        self.unlike: list[str] = []
        self._kinds: dict[tuple[str, ...], Kind] = {}

    def add(self, rewritten: Rewritten) -> None:
        """One prompt as it would arrive; what would not arrive is not called."""
        source, prompt = rewritten.source, rewritten.prompt
        if rewritten.missing or rewritten.refused:
            return
        if prompt.model is None:
            self.unlike.append(source.name)
            return
        request = request_of(prompt)
        try:
            key = (source.model or "", _key(source.parameters), _key(request), prompt.provider or "")
        except RecursionError:  # such a prompt fails in plan and run, which say so
            self.unlike.append(source.name)
            return
        kind = self._kinds.setdefault(key, Kind(source, request, prompt.provider))
        kind.prompts.append((source.id, source.name))

    def __iter__(self) -> Iterator[Kind]:
        return iter(self._kinds.values())


def request_of(prompt: Prompt) -> dict[str, Json]:
    """All that goes to the model with its messages; default values of variables of the template do not."""
    held = {name for variable in prompt.variables for name in (variable, variable.partition(".")[0])}
    request = {name: value for name, value in prompt.parameters.items() if name not in held and value is not None}
    beside = {name: value for name in BESIDE if (value := getattr(prompt, name)) is not None}
    return {**request, **beside, "model": prompt.model}


def shapes_of(kinds: Kinds) -> list[Shape]:
    """The distinct calls, those of most prompts first."""
    names: dict[Called, str] = {}
    for kind in kinds:
        for name in LIMITS:
            if name in kind.request:
                names.setdefault(kind.called, name)
    found: dict[tuple[str, str], list[tuple[Kind, Mapping[str, Json], str | None, bool]]] = defaultdict(list)
    for kind in kinds:
        call, limit, added = _limited(kind.request, names.get(kind.called, "max_tokens"))
        found[kind.provider or "", _key(call)].append((kind, call, limit, added))
    shapes = [
        Shape(call, each[0][0].provider, [kind for kind, *_ in each], limit, added)
        for each in found.values()
        for _, call, limit, added in each[:1]
    ]
    return sorted(shapes, key=lambda shape: -sum(len(kind.prompts) for kind in shape.kinds))


def _limited(request: Mapping[str, Json], name: str) -> tuple[Mapping[str, Json], str | None, bool]:
    """The same with a limit of one token, where nothing stands against it; else with its own."""
    own = limit_of(request)
    value = request.get(own) if own is not None else None
    thinking = request.get("thinking")
    budget = thinking.get("budget_tokens") if isinstance(thinking, dict) else None
    if own is not None and (not isinstance(value, int) or value > SURE or budget is not None):
        return request, None, False
    if isinstance(budget, int):  # a model that thinks must be allowed to write more than it thinks
        return {**request, name: budget + 1}, name, True
    return {**request, own or name: 1}, own or name, own is None


def _key(value: Json) -> str:
    return dumps(_without_texts(value), sort_keys=True)


def _without_texts(value: Json) -> Any:
    if isinstance(value, list | tuple):
        return [_without_texts(one) for one in value]
    if not isinstance(value, Mapping):
        return value
    return {
        name: "name" if name == "name" and isinstance(one, str) and _PLAIN_NAME.fullmatch(one) else _without_texts(one)
        for name, one in value.items()
        if not (name in _TEXTS and isinstance(one, str))
    }
