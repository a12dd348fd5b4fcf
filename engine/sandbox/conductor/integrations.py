"""Conductor's endpoints for integrations, read only but for the association of a prompt."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Final

from engine.sandbox.answers import Json, Refusal
from engine.sandbox.conductor.call import ConductorCall
from engine.sandbox.conductor.store import Integration

_FOUNDED_MS: Final = 1_704_067_200_000


def list_names(call: ConductorCall) -> Json:
    return [one.ref for one in _seen(call, "type")]


def list_providers(call: ConductorCall) -> Json:
    return [_provider(models) for models in _by_provider(_seen(call, "category"))]


def list_whole(call: ConductorCall) -> Json:
    return [
        _provider(models) | {"apis": [_model(one) for one in models if one.model]}
        for models in _by_provider(_seen(call, "category"))
    ]


def retrieve_provider(call: ConductorCall) -> Json:
    return _provider(_models(call, active_only=False))


def list_models(call: ConductorCall) -> Json:
    return [_model(one) for one in _models(call, active_only=call.flag("activeOnly", True)) if one.model]


def list_model_names(call: ConductorCall) -> Json:
    return [one.model for one in _models(call, active_only=False) if one.model]


def retrieve_model(call: ConductorCall) -> Json:
    return _model(_named(call))


def list_model_prompts(call: ConductorCall) -> Json:
    ref = _named(call).ref
    return [content for content in call.cluster.prompts() if ref in content["integrations"]]


def associate(call: ConductorCall) -> None:
    """Adds the model to the newest version of the prompt."""
    ref, cluster = _named(call).ref, call.cluster
    cluster.head(call.name)
    cluster.check_update(call.name)
    newest = cluster.tables.versions(cluster.id, call.name)[-1]
    cluster.write(newest | {"integrations": [*newest["integrations"], ref]}, newest["version"])


def _seen(call: ConductorCall, category_field: str) -> list[Integration]:
    category, active_only = call.query.get(category_field), call.flag("activeOnly", True)
    return call.cluster.integrations(category, active_only=active_only)


def _models(call: ConductorCall, *, active_only: bool) -> list[Integration]:
    """Of the provider in the path. Refusal (404) when there is no such provider."""
    provider = call.path["provider"]
    every = [one for one in call.cluster.integrations(None, active_only=False) if one.provider == provider]
    if not every:
        raise Refusal(404, "NOT_FOUND", "there is no such integration provider")
    return [one for one in every if one.enabled or not active_only]


def _named(call: ConductorCall) -> Integration:
    found = [one for one in _models(call, active_only=False) if one.model == call.path["model"]]
    if not found:
        raise Refusal(404, "NOT_FOUND", "the provider has no such model")
    return found[0]


def _by_provider(integrations: Sequence[Integration]) -> list[list[Integration]]:
    ordered = sorted(integrations, key=lambda one: one.provider)
    return [list(models) for _, models in groupby(ordered, key=lambda one: one.provider)]


def _provider(models: Sequence[Integration]) -> dict[str, Json]:
    return {
        "name": models[0].provider,
        "type": models[0].provider.partition("-")[0],
        "category": models[0].category,
        "enabled": any(one.enabled for one in models),
        "modelsCount": sum(1 for one in models if one.model),
        "configuration": {"api_key": "***"},
        "createTime": _FOUNDED_MS,
        "updateTime": _FOUNDED_MS,
        "tags": [],
    }


def _model(one: Integration) -> dict[str, Json]:
    return {
        "integrationName": one.provider,
        "api": one.model,
        "enabled": one.enabled,
        "configuration": {},
        "createTime": _FOUNDED_MS,
        "updateTime": _FOUNDED_MS,
        "tags": [],
    }
