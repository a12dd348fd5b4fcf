"""Whether prompts are answered: which of them are called, and in which ways."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import chain, zip_longest
from typing import Final

from engine.model import Completion, Gateway, Json

CALLS_EACH: Final = 4
"""Calls of one prompt, for telling what it will cost."""
SHORT: Final[Mapping[str, Json]] = {"max_tokens": 16}
"""A hyperparameter that is overridden in a call, and makes it cheap."""


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


async def call(gateway: Gateway, ref: str, version: str | None, variables: Mapping[str, Json]) -> list[Completion]:
    """Calls a prompt as applications do: plain and streamed, by `@version` (unless None), `@latest` with an override.

    `ref`: id or slug without a suffix. One after the other, at most CALLS_EACH; each costs money. Raises Stop.
    """
    plain: dict[str, Json] = {}
    ways = [(ref, False, plain), (ref, True, plain)]
    if version is not None:
        ways.append((f"{ref}@{version}", False, plain))
    ways.append((f"{ref}@latest", True, dict(SHORT)))
    return [
        await gateway.complete(suffixed, variables, stream=stream, overrides=overrides)
        for suffixed, stream, overrides in ways
    ]


def differs(completions: Sequence[Completion]) -> tuple[str, ...]:
    """What was not answered, as fields of a comparison: `completions.streamed @latest`."""
    return tuple(f"completions.{completion.how}" for completion in completions if not completion.answered)
