"""Whether prompts are answered: which of them are called, and in which ways."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import chain, zip_longest
from typing import Final

from engine.model import Completion, Gateway, Json

CALLS_EACH: Final = 4
"""Calls of one prompt, for telling what it will cost."""
SHORT: Final = 16
"""Tokens of an answer, where a call overrides how long it may be: that makes it cheap."""
LIMITS: Final = ("max_completion_tokens", "max_tokens")
"""The names that a limit of tokens has at models."""
THINKS: Final = ("thinking", "reasoning", "reasoning_effort")
"""With one of these the limit holds for thoughts as well, and a short one is refused: below the budget for them."""


def spread(items: Sequence[tuple[str, str | None]], count: int) -> list[str]:
    """Of pairs (id, model) the ids of `count` prompts, as evenly over the models as there are prompts of each.

    The same for the same pairs in any order. Where `count` is too low for every model, those with most prompts win.
    """
    ids_of: dict[str, list[str]] = defaultdict(list)
    for prompt_id, model in sorted(set(items), key=lambda item: (item[0], item[1] or "")):
        ids_of[model or ""].append(prompt_id)
    models = sorted(ids_of, key=lambda model: (-len(ids_of[model]), model))
    rounds = zip_longest(*(ids_of[model] for model in models))
    return [prompt_id for prompt_id in chain.from_iterable(rounds) if prompt_id is not None][: max(0, count)]


async def call(
    gateway: Gateway,
    ref: str,
    version: str | None,
    variables: Mapping[str, Json],
    parameters: Mapping[str, Json],
) -> list[Completion]:
    """Calls a prompt as applications do: plain and streamed, by `@version` (unless None), `@latest` with an override.

    `ref`: id or slug without a suffix; `parameters`: the prompt's own. One after the other, at most CALLS_EACH; each
    costs money. Raises Stop.
    """
    plain: dict[str, Json] = {}
    ways = [(ref, False, plain), (ref, True, plain)]
    if version is not None:
        ways.append((f"{ref}@{version}", False, plain))
    ways.append((f"{ref}@latest", True, _override(parameters)))
    return [
        await gateway.complete(suffixed, variables, stream=stream, overrides=overrides)
        for suffixed, stream, overrides in ways
    ]


def limit_of(parameters: Mapping[str, Json]) -> str | None:
    """What the limit of tokens of a prompt is called; None: it has none."""
    return next((name for name in LIMITS if name in parameters), None)


def _override(parameters: Mapping[str, Json]) -> dict[str, Json]:
    limit = limit_of(parameters)
    if any(name in parameters for name in THINKS):
        return {limit: parameters[limit]} if limit is not None else {}
    return {limit or "max_tokens": SHORT}


def differs(completions: Sequence[Completion]) -> tuple[str, ...]:
    """What was not answered, as fields of a comparison: `completions.streamed @latest`."""
    return tuple(f"completions.{completion.how}" for completion in completions if not completion.answered)
