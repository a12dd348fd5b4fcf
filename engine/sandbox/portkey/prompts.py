"""The endpoints of prompts and their versions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from engine.sandbox.answers import Json, Refusal, check, conflict, invalid, missing
from engine.sandbox.portkey.call import Call
from engine.sandbox.portkey.content import (
    NEW_VERSION,
    Content,
    check_prompt,
    first_content,
    flat,
    next_content,
    row,
    summary,
)
from engine.sandbox.store import Store, Template, Version, Window


def list_prompts(call: Call) -> Json:
    quirks = call.registry.quirks
    workspace = call.workspace()
    limit, offset = call.page(first=quirks.first_page, default_size=quirks.default_page_size, cap=quirks.page_cap)
    window = Window(
        now=call.registry.clock(),
        limit=limit,
        offset=offset,
        collection=_filter_collection(call, workspace),
        search=call.query.get("search", ""),
        archived=quirks.archived_listed,
    )
    templates, total = call.store.templates("prompt", workspace, window)
    rows = [row(call.registry.seen(template)) for template in templates]
    return {"object": "list", "total": total, "data": rows}


def create_prompt(call: Call) -> Json:
    quirks = call.registry.quirks
    required = ("name", "collection_id", "string", "parameters", "virtual_key")
    check_prompt(call.body, required if quirks.collection_required else ("name", *required[2:]))
    workspace = call.workspace()
    collection = _collection(call, workspace)
    content = first_content(call.body, _provider(call, workspace), quirks)
    if quirks.prompt_quota is not None and call.store.count("prompt", workspace) >= quirks.prompt_quota:
        raise Refusal(402, "AB09", f"the subscription allows {quirks.prompt_quota} prompt templates")
    _name_is_free(call, workspace, call.body["name"])
    with call.store.writing():
        visible_at = call.registry.clock() + quirks.listing_lag_s + call.late
        template, version = plant_prompt(
            call.store, workspace, call.body["name"], content, collection, at=call.registry.now(), visible_at=visible_at
        )
    return {"id": template.id, "slug": template.slug, "version_id": version.id, "object": "prompt"}


def retrieve_prompt(call: Call) -> Json:
    template, version = call.picked("prompt")
    return flat(template, version, call.store.labels(version.id))


def update_prompt(call: Call) -> Json:
    """New content makes a new version, which is not the published one; anything else changes the prompt in place."""
    check_prompt(call.body)
    template = call.template("prompt")
    head = _new_head(call, template)
    newest = _version(call, template, template.latest)
    content = _new_content(call, template.workspace, newest.content)
    call.registry.remember(template)
    with call.store.writing():
        if content is None:
            call.store.change_template(head)
            call.store.change_version(replace(newest, content=_amended(call, template.workspace, newest.content)))
            return {}
        made = add_version(call.store, head, content, at=call.registry.now(), step=call.registry.quirks.version_step)
    return {"id": template.id, "slug": template.slug, "prompt_version_id": made.id}


def delete_prompt(call: Call) -> Json:
    template = call.template("prompt")
    with call.store.writing():
        call.store.delete_template(template.id)
    return {}


def publish_prompt(call: Call) -> Json:
    check(call.body, {"version": int}, ("version",))
    template = call.template("prompt")
    version = _version(call, template, call.body["version"])
    call.registry.remember(template)
    with call.store.writing():
        call.store.change_template(published(template, version, at=call.registry.now()))
    return {}


def list_versions(call: Call) -> Json:
    template = call.registry.seen(call.template("prompt"))
    rows = [summary(version, call.store.labels(version.id)) for version in call.store.versions(template)]
    return {"object": "list", "total": len(rows), "data": rows}


def retrieve_version(call: Call) -> Json:
    template = call.template("prompt")
    version = _version(call, template, call.path["version"])
    return flat(template, version, call.store.labels(version.id))


def label_version(call: Call) -> Json:
    """A label moves to this version; null takes all labels off it. Nothing else of a version can change."""
    if set(call.body) - {"workspace_id"} != {"label_id"}:
        raise invalid('only "label_id" of a version can be changed')
    template = call.template("prompt")
    version = _version(call, template, call.path["version"])
    label = call.body["label_id"]
    if label is None:
        with call.store.writing():
            call.store.clear_labels(version.id)
        return {}
    check(call.body, {"label_id": str})
    found = call.store.thing("label", template.workspace, label)
    if found is None:
        raise missing("label")
    with call.store.writing():
        call.store.set_label(template.id, found["id"], version.id)
    return {}


# ---- writing, also used by the seeds ---------------------------------------------------------------------------------


def plant_prompt(
    store: Store, workspace: str, name: str, content: Content, collection: str | None, *, at: str, visible_at: float
) -> tuple[Template, Version]:
    """A prompt with a published version 1."""
    template = Template(
        seq=0,
        kind="prompt",
        workspace=workspace,
        id=store.new_id(),
        slug=store.new_slug("pp-", name),
        name=name,
        collection=collection,
        status="active",
        model=content["model"],
        published=1,
        latest=1,
        created_at=at,
        updated_at=at,
    )
    version = Version(id=store.new_id(), template=template.id, number=1, created_at=at, content=content)
    store.add_template(template, visible_at)
    store.add_version(version)
    return template, version


def add_version(store: Store, template: Template, content: Content, *, at: str, step: int = 1) -> Version:
    """The newest version of a prompt or partial, not published. Also writes what else changed in `template`."""
    number = template.latest + step
    made = Version(id=store.new_id(), template=template.id, number=number, created_at=at, content=content)
    store.add_version(made)
    store.change_template(replace(template, latest=number, updated_at=at))
    return made


def published(template: Template, version: Version, *, at: str) -> Template:
    """With that version as the published one."""
    return replace(template, published=version.number, model=version.content.get("model"), updated_at=at)


# ---- parts of an update ----------------------------------------------------------------------------------------------


def _new_head(call: Call, template: Template) -> Template:
    name = call.body.get("name", template.name)
    if name != template.name:
        _name_is_free(call, template.workspace, name)
    collection = _collection(call, template.workspace) if "collection_id" in call.body else template.collection
    return replace(template, name=name, collection=collection, updated_at=call.registry.now())


def _new_content(call: Call, workspace: str, newest: Content) -> Content | None:
    """The content of the version that an update makes; None when it makes none. Refusal (400) as the service refuses:
    without `patch` the three main fields must come together, with it the rest comes from the newest version.
    """
    body, quirks = call.body, call.registry.quirks
    patch = quirks.knows_patch and body.get("patch") is True
    metadata = _sent_metadata(call)
    content_sent = any(field in body for field in NEW_VERSION) or metadata is not None
    if not content_sent and not (patch and "virtual_key" in body):
        return None
    if not patch:
        check_prompt(body, ("string", "parameters", "model"))
    provider = _provider(call, workspace) if "virtual_key" in body else None
    return next_content(newest if patch else _blank(newest), body, provider, metadata, quirks)


def _blank(newest: Content) -> Content:
    """What a whole update starts from: only the provider is kept."""
    empty = dict.fromkeys(("functions", "tools", "tool_choice", "description"))
    return newest | empty | {"is_raw_template": 0, "template_metadata": {}}


def _amended(call: Call, workspace: str, newest: Content) -> Content:
    """Description and provider change without a new version."""
    changed: Content = {}
    if "version_description" in call.body:
        changed["description"] = call.body["version_description"]
    if "virtual_key" in call.body:
        changed["virtual_key"] = _provider(call, workspace)
    return newest | changed


def _sent_metadata(call: Call) -> Mapping[str, Json] | None:
    sent = call.body.get("prompt_metadata")
    if sent is None and call.registry.quirks.metadata_on_update:
        sent = call.body.get("template_metadata")
    return sent


# ---- what a prompt refers to -----------------------------------------------------------------------------------------


def _collection(call: Call, workspace: str) -> str | None:
    ref = call.body.get("collection_id")
    if ref is None:
        return None
    found = call.store.thing("collection", workspace, ref)
    if found is None:
        raise missing("collection")
    return str(found["id"])


def _filter_collection(call: Call, workspace: str) -> str | None:
    ref = call.query.get("collection_id")
    if not ref:
        return None
    found = call.store.thing("collection", workspace, ref)
    return ref if found is None else str(found["id"])


def _provider(call: Call, workspace: str) -> str:
    """The slug of the provider that `virtual_key` means."""
    ref: str = call.body["virtual_key"]
    found = call.store.thing("provider", workspace, ref)
    if found is not None:
        return str(found["slug"])
    if call.registry.quirks.provider_checked:
        raise invalid("the virtual key does not exist in this workspace")
    return ref


def _name_is_free(call: Call, workspace: str, name: str) -> None:
    if call.registry.quirks.unique_names and call.store.named("prompt", workspace, name) is not None:
        raise conflict("a prompt of this name exists already")


def _version(call: Call, template: Template, ref: int | str) -> Version:
    found = call.store.version(template.id, ref)
    if found is None:
        raise missing("prompt version")
    return found
