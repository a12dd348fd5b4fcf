"""The endpoints of prompt partials. A partial is published like a prompt; its content is a text and a description."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from engine.sandbox.answers import Json, check, invalid, missing
from engine.sandbox.portkey.call import Call
from engine.sandbox.portkey.prompts import add_version, published
from engine.sandbox.store import Store, Template, Version, Window

_KINDS: Final = {"name": str, "string": str, "version_description": str, "description": str, "status": str}


def create_partial(call: Call) -> Json:
    check(call.body, _KINDS, ("name", "string"))
    workspace = call.workspace()
    name, text, description = call.body["name"], call.body["string"], call.body.get("version_description")
    with call.store.writing():
        at = call.registry.now()
        visible_at = call.registry.clock() + call.registry.quirks.listing_lag_s + call.late
        template, version = plant_partial(
            call.store, workspace, name, text, at=at, description=description, visible_at=visible_at
        )
    return {"id": template.id, "slug": template.slug, "version_id": version.id}


def list_partials(call: Call) -> Json:
    templates, total = call.store.templates("partial", call.workspace(), Window(now=call.registry.clock()))
    rows = [_head(template) | {"object": "partial"} for template in templates]
    return {"object": "list", "total": total, "data": rows}


def retrieve_partial(call: Call) -> Json:
    template, version = call.picked("partial")
    return _head(template) | {
        "string": version.content["string"],
        "version": version.number,
        "version_description": version.content["description"],
        "prompt_partial_version_id": version.id,
    }


def update_partial(call: Call) -> Json:
    """A new text makes a new, unpublished version. `description` has no effect: the name is `version_description`."""
    check(call.body, _KINDS)
    template = call.template("partial")
    newest = call.store.versions(template)[0]
    status = call.body.get("status", template.status)
    if status not in ("active", "archived"):
        raise invalid('"status" must be active or archived')
    head = replace(template, name=call.body.get("name", template.name), status=status, updated_at=call.registry.now())
    description = call.body.get("version_description")
    with call.store.writing():
        if "string" in call.body:
            content = {"string": call.body["string"], "description": description}
            made = add_version(call.store, head, content, at=call.registry.now())
            return {"prompt_partial_version_id": made.id}
        call.store.change_template(head)
        if description is not None:
            call.store.change_version(replace(newest, content=newest.content | {"description": description}))
    return {"prompt_partial_version_id": newest.id}


def delete_partial(call: Call) -> Json:
    template = call.template("partial")
    with call.store.writing():
        call.store.delete_template(template.id)
    return {}


def list_partial_versions(call: Call) -> Json:
    template = call.template("partial")
    rows = [_summary(template, version) for version in call.store.versions(template)]
    return {"object": "list", "total": len(rows), "data": rows}


def publish_partial(call: Call) -> Json:
    check(call.body, {"version": int}, ("version",))
    template = call.template("partial")
    version = call.store.version(template.id, call.body["version"])
    if version is None:
        raise missing("partial version")
    with call.store.writing():
        call.store.change_template(published(template, version, at=call.registry.now()))
    return {}


def plant_partial(
    store: Store,
    workspace: str,
    name: str,
    text: str,
    *,
    at: str,
    description: str | None = None,
    visible_at: float = 0.0,
) -> tuple[Template, Version]:
    """A partial with a published version 1, in the default collection."""
    collections = (thing["id"] for thing in store.things("collection", workspace) if thing["is_default"])
    template = Template(
        seq=0,
        kind="partial",
        workspace=workspace,
        id=store.new_id(),
        slug=store.new_slug("pl-", name),
        name=name,
        collection=next(collections, None),
        status="active",
        model=None,
        published=1,
        latest=1,
        created_at=at,
        updated_at=at,
    )
    content = {"string": text, "description": description}
    version = Version(id=store.new_id(), template=template.id, number=1, created_at=at, content=content)
    store.add_template(template, visible_at)
    store.add_version(version)
    return template, version


def _head(template: Template) -> dict[str, Json]:
    return {
        "id": template.id,
        "slug": template.slug,
        "name": template.name,
        "collection_id": template.collection,
        "status": template.status,
        "created_at": template.created_at,
        "last_updated_at": template.updated_at,
    }


def _summary(template: Template, version: Version) -> dict[str, Json]:
    return {
        "prompt_partial_id": template.id,
        "prompt_partial_version_id": version.id,
        "slug": template.slug,
        "version": version.number,
        "string": version.content["string"],
        "description": version.content["description"],
        "created_at": version.created_at,
        "prompt_version_status": "active",
        "object": "partial",
    }
