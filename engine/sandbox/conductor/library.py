"""What a cluster of Conductor holds at first: integrations for every provider, and a small library."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Final, NamedTuple

from engine.sandbox.answers import Json
from engine.sandbox.conductor.cluster import Cluster, Conductor
from engine.sandbox.conductor.store import ConductorStore, Integration
from engine.sandbox.library import INTEGRATIONS, PROVIDERS

_LARGEST_LIBRARY: Final = 20
_FOUNDED: Final = 1_704_067_200.0
_JOBS: Final = ("claim intake", "fraud check", "order status", "shipment delay", "invoice match", "kyc summary")
_MODELS: Final = ("anthropic-prod:claude-3-7-sonnet-20250219", "openai-prod:gpt-4o", "anthropic-prod:claude-3-opus")
_TEXTS: Final = (
    "You handle the ${job} of ${customer_name}.\n\nThe workflow gave: ${input}\n",
    'Answer with JSON like {"decision": "...", "reason": "${ reason }"} about ${task.input}. Grüße ☕',
    "Classify ${message}. Costs stand as $5; {{this}} is no variable.",
    'First line\\nsecond line of \\"${subject}\\"',  # as a client leaves it that escapes what it sends
    "${history}\n${history}\nNothing else.",
)


class ConductorSeed(NamedTuple):
    """Items of a bulk, one a version, and the tags of the name."""

    items: list[dict[str, Json]]
    tags: list[dict[str, str]]


def plant_integrations(tables: ConductorStore, cluster: str) -> None:
    """Every model of every provider, under the provider's slug; and one that has no models."""
    for provider, integration in PROVIDERS.items():
        for model in INTEGRATIONS[integration]:
            tables.keep_integration(cluster, Integration(provider=provider, model=model))
    tables.keep_integration(cluster, Integration(provider="SendGrid", model="", category="API"))


def plant_conductor_library(conductor: Conductor, workspace: str, portkey_prompts: int) -> None:
    """A tenth of the prompts that Portkey's side has, 20 at most; made long ago, by somebody else."""
    then = replace(conductor, clock=lambda: _FOUNDED)
    cluster = Cluster(conductor=then, id=workspace, user="somebody")
    for one in conductor_library(min(_LARGEST_LIBRARY, -(-portkey_prompts // 10)), conductor.store.seed):
        for item in one.items:
            cluster.write(item, item["version"])
        cluster.add_tags(one.items[0]["name"], one.tags)


def conductor_library(count: int, seed: int) -> Iterator[ConductorSeed]:
    """The same for the same count and seed; names are unique."""
    rng = random.Random(f"conductor {seed}")
    for index in range(count):
        job = _JOBS[index % len(_JOBS)]
        item: dict[str, Json] = {
            "name": f"flow_{job.replace(' ', '_')}_{index + 1}" if index % 4 else f"Flow: {job} {index + 1}",
            "template": _TEXTS[index % len(_TEXTS)],
            "integrations": sorted(rng.sample(_MODELS, rng.choice((1, 1, 2)))),
            "version": 1,
        }
        if index % 3:
            item |= {"description": f"{job} of the intake workflow"}
        if index % 3 == 1:
            item |= {"temperature": rng.choice((0, 0.1, 0.7)), "topP": 0.9, "stopWords": ["###"]}
        versions = (
            [item] if index % 5 != 2 else [item, item | {"version": 3, "template": f"{item['template']} Be brief."}]
        )
        yield ConductorSeed(versions, [{"key": "team", "value": rng.choice(("ops", "risk"))}] if index % 2 else [])
