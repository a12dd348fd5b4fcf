"""Fills a store: the organisation, workspaces with what prompts refer to, and the library of prompts."""

from __future__ import annotations

from typing import Final

from engine.sandbox.library import INTEGRATIONS, PARTIALS, PROVIDERS, library
from engine.sandbox.options import Quirks
from engine.sandbox.portkey.call import stamp
from engine.sandbox.portkey.catalog import plant_collection, plant_integration, plant_label, plant_provider
from engine.sandbox.portkey.content import first_content
from engine.sandbox.portkey.partials import plant_partial
from engine.sandbox.portkey.prompts import add_version, plant_prompt
from engine.sandbox.store import Store, Window

_FOUNDED: Final = stamp(1_704_067_200)
_COLLECTIONS: Final = ("Support", "Sales", "Engineering", "HR")
_LABELS: Final = ("production", "staging", "development")


def plant_organisation(store: Store) -> None:
    """Integrations, and the labels that everybody has."""
    for slug, models in INTEGRATIONS.items():
        plant_integration(store, slug, models, at=_FOUNDED)
    for label in _LABELS:
        plant_label(store, None, label, at=_FOUNDED)


def plant_workspace(store: Store, slug: str) -> str:
    """Its id. Collections and providers have the same slugs in every workspace, the default collection and partials
    do not.
    """
    workspace = store.add_workspace(slug)
    plant_collection(store, workspace, "Default", store.new_slug("", "default"), at=_FOUNDED, default=True)
    for name in _COLLECTIONS:
        made = plant_collection(store, workspace, name, name.lower(), at=_FOUNDED)
        if name == "Support":
            plant_collection(store, workspace, "Escalations", "escalations", at=_FOUNDED, parent=made["id"])
    for provider, integration in PROVIDERS.items():
        plant_provider(store, workspace, provider, integration, at=_FOUNDED)
    for name, text in PARTIALS.items():
        template, _ = plant_partial(store, workspace, name, text, at=_FOUNDED)
        if name == "Tone of voice":
            draft = {"string": f"{text} Use emoji.", "description": "not agreed yet"}
            add_version(store, template, draft, at=_FOUNDED)
    return workspace


def default_collection(store: Store, workspace: str) -> str:
    """Its id."""
    return next(str(doc["id"]) for doc in store.things("collection", workspace) if doc["is_default"])


def plant_library(store: Store, workspace: str, count: int, quirks: Quirks) -> None:
    """`count` prompts of the store's seed."""
    collections = {doc["slug"]: str(doc["id"]) for doc in store.things("collection", workspace)}
    collections["default"] = default_collection(store, workspace)
    labels = {str(doc["name"]): doc["id"] for doc in store.things("label", None)}
    partials, _ = store.templates("partial", workspace, Window(now=0.0))
    for seed in library(count, store.seed, {partial.name: partial.slug for partial in partials}):
        fields = {key: value for key, value in seed.fields.items() if value is not None}
        content = first_content(fields, fields["virtual_key"], quirks)
        at = stamp(seed.at)
        collection = collections[seed.collection]
        template, version = plant_prompt(store, workspace, seed.name, content, collection, at=at, visible_at=0.0)
        if seed.label is not None:
            store.set_label(template.id, labels[seed.label], version.id)
        if seed.draft:
            add_version(store, template, first_content(fields | seed.draft, fields["virtual_key"], quirks), at=at)
