"""The endpoints of what prompts refer to: collections, labels, providers, models, integrations."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from engine.sandbox.answers import Json, check, conflict, invalid, missing, whole_number
from engine.sandbox.portkey.call import Call
from engine.sandbox.store import Store

_LABEL_NAME: Final = re.compile(r"(?!latest$)(?!default$)(?!\d+$)[a-zA-Z0-9_-]*[^@\s]?[a-zA-Z0-9_-]*")
_LABEL_KINDS: Final = {"name": str, "description": str, "color_code": str}

# ---- collections -----------------------------------------------------------------------------------------------------


def create_collection(call: Call) -> Json:
    check(call.body, {"name": str, "parent_collection_id": str}, ("name",))
    workspace = call.workspace()
    parent = None
    if "parent_collection_id" in call.body:
        found = call.store.thing("collection", workspace, call.body["parent_collection_id"])
        if found is None:
            raise missing("parent collection")
        parent = found["id"]
    name = call.body["name"]
    with call.store.writing():
        slug = call.store.new_slug("", name)
        made = plant_collection(call.store, workspace, name, slug, at=call.registry.now(), parent=parent)
    return {"id": made["id"], "slug": made["slug"]}


def list_collections(call: Call) -> Json:
    everything = call.store.things("collection", call.workspace())
    picked = _search(everything, call.query.get("search", ""))
    rows = [doc | {"collection_details": _details(call.store, doc, everything)} for doc in _page(call, picked)]
    return {"total": len(picked), "data": rows}


def retrieve_collection(call: Call) -> Json:
    doc = call.thing("collection")
    everything = call.store.things("collection", doc["workspace_id"])
    children = [
        {field: child[field] for field in ("id", "name", "last_updated_at")}
        | {"collection_details": _details(call.store, child, everything)}
        for child in everything
        if child["parent_collection_id"] == doc["id"]
    ]
    return doc | {"child_collections": children}


def update_collection(call: Call) -> Json:
    check(call.body, {"name": str}, ("name",))
    doc = call.thing("collection")
    with call.store.writing():
        call.store.change_thing(doc["slug"], doc | {"name": call.body["name"], "last_updated_at": call.registry.now()})
    return {}


def delete_collection(call: Call) -> Json:
    doc = call.thing("collection")
    if doc["is_default"]:
        raise missing("collection")
    details = _details(call.store, doc, call.store.things("collection", doc["workspace_id"]))
    if details["prompts_count"] or details["child_collections_count"]:
        raise conflict("the collection is not empty")
    with call.store.writing():
        call.store.delete_thing(doc["id"])
    return {}


def plant_collection(
    store: Store, workspace: str, name: str, slug: str, *, at: str, parent: str | None = None, default: bool = False
) -> dict[str, Json]:
    """The collection as it is listed, without its details."""
    doc = {
        "id": store.new_id(),
        "name": name,
        "workspace_id": workspace,
        "slug": slug,
        "parent_collection_id": parent,
        "is_default": default,
        "status": "active",
        "created_at": at,
        "last_updated_at": at,
    }
    store.add_thing("collection", workspace, slug, doc)
    return doc


def _details(store: Store, doc: Mapping[str, Json], everything: list[dict[str, Json]]) -> dict[str, Json]:
    children = [other for other in everything if other["parent_collection_id"] == doc["id"]]
    count, updated_at = store.prompts_in(doc["id"])
    return {
        "child_collections_count": len(children),
        "prompts_count": count,
        "child_collections_last_updated_at": max((child["last_updated_at"] for child in children), default=None),
        "prompts_last_updated_at": updated_at,
    }


# ---- labels ----------------------------------------------------------------------------------------------------------


def create_label(call: Call) -> Json:
    _check_label(call, ("name",))
    workspace = call.workspace()
    if call.store.thing("label", workspace, call.body["name"]) is not None:
        raise conflict("a label of this name exists already")
    with call.store.writing():
        made = plant_label(call.store, workspace, call.body["name"], at=call.registry.now())
        call.store.change_thing(made["name"], made | _sent_label(call))
    return {"id": made["id"]}


def list_labels(call: Call) -> Json:
    picked = _search(call.store.things("label", call.workspace()), call.query.get("search", ""))
    return {"total": len(picked), "data": _page(call, picked)}


def retrieve_label(call: Call) -> Json:
    return call.thing("label")


def update_label(call: Call) -> Json:
    _check_label(call)
    doc = _own_label(call)
    changed = doc | _sent_label(call) | {"last_updated_at": call.registry.now()}
    named = call.store.thing("label", doc["workspace_id"], changed["name"])
    if named is not None and named["id"] != doc["id"]:
        raise conflict("a label of this name exists already")
    with call.store.writing():
        call.store.change_thing(changed["name"], changed)
    return {}


def delete_label(call: Call) -> Json:
    doc = _own_label(call)
    with call.store.writing():
        call.store.delete_thing(doc["id"])
    return {}


def plant_label(store: Store, workspace: str | None, name: str, *, at: str) -> dict[str, Json]:
    """A label of one workspace, or (None) of everybody."""
    doc: dict[str, Json] = {"id": store.new_id(), "name": name, "description": "", "color_code": "#9CA3AF"}
    if workspace is not None:
        doc["workspace_id"] = workspace
    doc |= {"is_universal": workspace is None, "status": "active", "created_at": at, "last_updated_at": at}
    store.add_thing("label", workspace, name, doc)
    return doc


def _check_label(call: Call, required: tuple[str, ...] = ()) -> None:
    check(call.body, _LABEL_KINDS, required)
    if "name" in call.body and not (call.body["name"] and _LABEL_NAME.fullmatch(call.body["name"])):
        raise invalid("a label may not be called that")


def _sent_label(call: Call) -> dict[str, Json]:
    return {field: call.body[field] for field in _LABEL_KINDS if field in call.body}


def _own_label(call: Call) -> dict[str, Json]:
    doc = call.thing("label")
    if doc["is_universal"]:
        raise invalid("a default label cannot be changed or deleted")
    return doc


# ---- providers, models, integrations ---------------------------------------------------------------------------------


def list_providers(call: Call) -> Json:
    return _provider_page(call, "provider")


def list_virtual_keys(call: Call) -> Json:
    return _provider_page(call, "virtual-key")


def list_models(call: Call) -> Json:
    """What the workspace may call, as `@provider/model`; `limit` and `offset`."""
    integrations = {doc["slug"]: doc for doc in call.store.things("integration", None)}
    rows = [
        {"id": f"@{provider['slug']}/{model}", "slug": model, "object": "model"}
        for provider in call.store.things("provider", call.workspace())
        for model in integrations[provider["integration_id"]]["models"]
    ]
    start = whole_number(call.query.get("offset", "0"), "offset")
    limit = whole_number(call.query.get("limit", str(len(rows))), "limit")
    return {"object": "list", "total": len(rows), "data": rows[start : start + limit]}


def list_integrations(call: Call) -> Json:
    everything = call.store.things("integration", None)
    rows = [{key: value for key, value in doc.items() if key != "models"} for doc in _page(call, everything, 100)]
    return {"object": "list", "total": len(everything), "data": rows}


def list_integration_models(call: Call) -> Json:
    models = call.thing("integration")["models"]
    rows = [{"slug": model, "enabled": True, "is_custom": False, "is_finetune": False} for model in models]
    return {"object": "list", "total": len(rows), "allow_all_models": False, "models": rows}


def plant_provider(store: Store, workspace: str, slug: str, integration: str, *, at: str) -> None:
    doc = {
        "id": store.new_id(),
        "name": slug,
        "slug": slug,
        "note": None,
        "status": "active",
        "usage_limits": None,
        "rate_limits": None,
        "expires_at": None,
        "created_at": at,
        "workspace_id": workspace,
        "integration_id": integration,
        "provider": integration,
    }
    store.add_thing("provider", workspace, slug, doc)


def plant_integration(store: Store, slug: str, models: list[str], *, at: str) -> None:
    """An integration of the whole organisation."""
    doc = {
        "id": store.new_id(),
        "slug": slug,
        "name": slug,
        "ai_provider_id": slug,
        "status": "active",
        "created_at": at,
        "last_updated_at": at,
        "object": "integration",
        "models": models,
    }
    store.add_thing("integration", None, slug, doc)


def _provider_page(call: Call, kind: str) -> Json:
    everything = call.store.things("provider", call.workspace())
    rows = [doc | {"object": kind} for doc in _page(call, everything, 50)]
    return {"object": "list", "total": len(everything), "data": rows}


# ---- lists -----------------------------------------------------------------------------------------------------------


def _search(docs: list[dict[str, Json]], text: str) -> list[dict[str, Json]]:
    return [doc for doc in docs if text.casefold() in doc["name"].casefold()]


def _page(call: Call, docs: list[dict[str, Json]], default_size: int | None = None) -> list[dict[str, Json]]:
    limit, offset = call.page(default_size=default_size)
    return docs[offset:] if limit is None else docs[offset : offset + limit]
