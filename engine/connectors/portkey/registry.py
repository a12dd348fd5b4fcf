"""Portkey's prompt API, as source and as target.

Facts that decide the code: list rows carry no template; retrieve is flat and adds `model` inside `parameters`;
`virtual_key` comes back as slug; `is_raw_template` is 0 or 1; nulls must be left out of a create; nobody documents
whether `model` or `parameters.model` wins, so both are set alike; there is no idempotency key.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from operator import attrgetter
from types import NoneType
from typing import Any, Final
from urllib.parse import quote

import anyio

from engine.connectors.endpoint import Opening
from engine.connectors.outcomes import made_id, outcome, unlabelled
from engine.connectors.portkey.dialect import PORTKEY
from engine.connectors.portkey.endpoint import PortkeyEndpoint
from engine.connectors.portkey.parts import PortkeyParts
from engine.connectors.portkey.probe import Probe
from engine.connectors.portkey.walk import listing, no_listing, walk, walk_raw
from engine.errors import Exists, Rejected, Transient, UnknownOutcome
from engine.http.session import Client, KeyAuth
from engine.lossless_json import encode
from engine.model import (
    Abilities,
    Catalog,
    Created,
    Failed,
    Finding,
    Inputs,
    Json,
    Named,
    Outcome,
    Page,
    Parts,
    Prompt,
    Replica,
    Row,
    Sending,
    Updated,
    Version,
    label_in,
    packed_rows,
    stored_version,
    version_ref,
)
from engine.taskgroup import task_group

KEY_HEADER: Final = "x-portkey-api-key"

_VARIABLE_PARTS: Final = ("variables", "sections", "sectionVariables")
_SERVER_OWNED: Final = frozenset(
    "id slug object created_at last_updated_at status workspace_id organisation_id variable_components "
    "prompt_version_id prompt_version prompt_version_status "
    "access_level share_organisation_id shared_at shared_by_user_id shared_from_version_id allow_all_workspaces "
    "forked_from_prompt_id forked_from_prompt_version_id prompt_owning_workspace_id "
    "prompt_version_label_id prompt_version_label_name prompt_version_labels".split()
)
_CONTENT: Final = frozenset(
    "name collection_id string parameters model virtual_key prompt_version_description template_metadata "
    "functions tools tool_choice is_raw_template".split()
)
NO_INPUTS: Final = Inputs()
_KNOWN: Final = _SERVER_OWNED | _CONTENT
_TYPES: Final[Mapping[str, tuple[type, ...]]] = {
    **dict.fromkeys(
        "name slug collection_id model virtual_key prompt_version_description last_updated_at".split(),
        (str, NoneType),
    ),
    "parameters": (dict, NoneType),
    "template_metadata": (dict, NoneType),
    "prompt_version": (int, NoneType),
    "is_raw_template": (int, NoneType),
    "prompt_version_labels": (list, NoneType),
}
"""Of what a retrieve gives; null is as good as nothing."""
_CATALOG_PATHS: Final = {
    "collections": ("/collections",),
    "providers": ("/providers", "/virtual-keys"),
    "partials": ("/prompts/partials",),
    "labels": ("/labels",),
}
_WIRE: Final = {
    "name": ("name",),
    "collection": ("collection_id",),
    "text": ("string",),
    # one without the other would leave two models
    "model": ("model", "parameters"),
    "parameters": ("model", "parameters"),
    "provider": ("virtual_key",),
    "functions": ("functions",),
    "tools": ("tools",),
    "tool_choice": ("tool_choice",),
    "raw": ("is_raw_template",),
    # the specification has the one, the official clients send the other
    "metadata": ("prompt_metadata", "template_metadata"),
    "description": ("version_description",),
}
"""Field of Prompt -> what an update sends of it."""
_STRICT: Final = {"string", "parameters", "model"}
"""A back end that does not know `patch` takes an update that has all three for a whole one."""


@asynccontextmanager
async def connect(end: PortkeyEndpoint, opening: Opening) -> AsyncIterator[Portkey]:
    """A Portkey workspace under its own client."""
    async with opening.client(end.address, KeyAuth(KEY_HEADER, *end.keys)) as client:
        yield Portkey(client, workspace=end.workspace)


class Portkey:
    """One workspace of Portkey."""

    can = Abilities(
        dialect=PORTKEY,
        marks=("metadata", "description"),
        makes=frozenset({"collections", "partials", "labels"}),
    )
    batch = 1
    fields: Collection[str] = frozenset(
        "name text collection model provider parameters functions tools tool_choice raw metadata description".split()
    )

    def __init__(self, client: Client, *, workspace: str | None = None) -> None:
        self._client = client
        self._workspace = {"workspace_id": workspace} if workspace else {}
        self.parts: Parts | None = PortkeyParts(client, self._workspace)
        self._asking = anyio.Lock()
        self._labels: dict[str, str] | None = None
        """Name of a label -> its id, when that was asked for."""

    async def pages(self) -> AsyncIterator[Page]:
        """The whole listing as one page."""
        rows = await walk(self._prompts, "prompts", _row, attrgetter("created_at"), packed_rows)
        yield Page(rows=rows, total=len(rows))

    async def fetch(self, prompt_id: str, version: str = "published") -> Prompt:
        """One definition; `latest` may be an unpublished draft."""
        parameters = dict(self._workspace)
        if (label := label_in(version)) is not None:
            return await self._labelled(prompt_id, label)
        if version != "published":
            parameters["version"] = version
        answer = await self._client.read("retrieve", _path(prompt_id), parameters)
        return _prompt(answer, prompt_id)

    async def _labelled(self, prompt_id: str, label: str) -> Prompt:
        """By its number: nobody documents that a retrieve takes a label, and it would be the published one else."""
        async with self._asking:
            if self._labels is None:
                self._labels = {one.name: one.id for one in await self._named("labels") or ()}
        wanted = self._labels.get(label)
        versions = await self.versions(prompt_id) if wanted is not None else []
        ref = next((one.ref for one in versions if wanted in one.labels), None)
        if ref is None:
            raise unlabelled(prompt_id, label)
        prompt = await self.fetch(prompt_id, ref)
        if label not in prompt.labels:
            raise Transient(f"the label {label!r} was moved while {prompt_id} was read", error="moved")
        return prompt

    async def versions(self, prompt_id: str) -> list[Version]:
        """The history, oldest first."""
        path = f"{_path(prompt_id)}/versions"
        rows = await walk_raw(lambda page: self._list("list versions", path, page), "versions")
        return sorted((_version(row) for row in rows), key=attrgetter("ordinal"))

    async def catalog(self, kinds: Collection[str]) -> Catalog:
        """What prompts refer to; None for what this key may not list."""
        found: dict[str, list[Named] | None] = {}

        async def ask(kind: str) -> None:
            found[kind] = await self._named(kind)

        async with task_group() as group:
            for kind in _CATALOG_PATHS:
                if kind in kinds:
                    group.start_soon(ask, kind)
        return Catalog(
            collections=found.get("collections"),
            providers=found.get("providers"),
            partials=found.get("partials"),
            labels=found.get("labels"),
        )

    def encode(self, replica: Replica) -> bytes:
        """The body of POST /prompts with every field it takes and no nulls."""
        return _body(replica.prompt, self._workspace)

    async def named(self, names: Collection[str]) -> dict[str, Prompt | None]:
        """Rejected: a create changes nothing that is there."""
        raise Rejected("a create changes nothing that is there, so nothing is looked for", error="not_asked")

    async def create(self, bodies: Sequence[bytes], sending: Sending) -> list[Outcome]:
        """One POST, never repeated blindly."""
        (body,) = bodies
        return [await outcome(self._create(body, sending))]

    async def complete(self, target_id: str, body: bytes, sending: Sending) -> Outcome:
        """Failed: a create leaves nothing undone."""
        return Failed(error="not_asked", message="a create leaves nothing undone")

    def encode_update(self, replica: Replica, changed: Collection[str] | None) -> bytes:
        """The body of PUT /prompts/{id}: these fields with `patch`, or every version field without it."""
        fields = _fields(replica.prompt, self._workspace)
        fields["prompt_metadata"] = fields["template_metadata"]
        wanted = {name for field in changed or () for name in _WIRE[field]}
        # what is taken away cannot be said to a back end that takes the rest from the latest version
        if changed is None or wanted >= _STRICT or any(fields[name] is None for name in wanted):
            return _encoded(fields)
        return _encoded({name: fields[name] for name in fields if name in wanted} | self._workspace | {"patch": True})

    async def update(self, target_id: str, body: bytes, sending: Sending) -> Outcome:
        """One PUT, never repeated blindly."""
        return await outcome(self._update(target_id, body, sending))

    async def publish(self, target_id: str, version: str) -> None:
        """PUT /prompts/{id}/makeDefault."""
        await self._put("publish", f"{_path(target_id)}/makeDefault", {"version": stored_version(version)})

    async def retract(self, target_id: str, version: str) -> None:
        """Rejected: a version stays in the history."""
        raise Rejected("Portkey takes no version out of a history", error="kept")

    async def label(self, target_id: str, version_id: str, label_id: str) -> None:
        """PUT /prompts/{id}/versions/{versionId}."""
        await self._put("label", f"{_path(target_id)}/versions/{quote(version_id, safe='')}", {"label_id": label_id})

    async def create_label(self, name: str) -> str:
        """POST /labels, unless it is there."""
        if (found := await self._label(name)) is not None:
            return found
        body = encode({"name": name, **self._workspace})
        try:
            answer = await self._client.repeatable("create label", "POST", "/labels", body)
        except Exists:  # somebody was quicker, or the answer to the first try was lost
            answer = {"id": await self._label(name)}
        self._labels = None
        label_id = answer.get("id") if isinstance(answer, dict) else None
        if not isinstance(label_id, str):
            raise Rejected(f"the registry made no label {name!r}", error="bad_answer")
        return label_id

    async def describe(self, target_id: str, description: str) -> None:
        """PUT of the description alone, which makes no version."""
        await self._put("update", _path(target_id), {"version_description": description})

    async def delete(self, target_id: str) -> None:
        """DELETE /prompts/{id}."""
        await self._client.repeatable("delete", "DELETE", _path(target_id), params=self._workspace)

    async def write_test(self, collection: str | None) -> AsyncIterator[Finding]:
        """Creates, reads, changes and deletes a scratch prompt; without a collection, in that of the newest prompt."""
        rows = listing(await self._prompts({"page_size": "1"}), "prompts").rows
        like = await self.fetch(rows[0]["id"]) if rows else None
        into = collection or (like.collection if like is not None else None)
        if like is None or into is None:
            text = "the workspace has no prompt to take collection and provider from; name one with --collection"
            yield Finding(level="problem", where="target", text=f"the write test was not made: {text}")
            return
        model = like.model or "write-test"
        probe = Probe(self._client, self._workspace, into, like.provider, model, asyncio.sleep)
        async for finding in probe.run():
            yield finding

    async def _create(self, body: bytes, sending: Sending) -> Created:
        answer = await self._client.create("create", "POST", "/prompts", body, sending)
        target_id = made_id(answer)
        slug, version_id = answer.get("slug"), answer.get("version_id")
        return Created(
            target_id=target_id,
            target_slug=slug if isinstance(slug, str) else None,
            version_id=version_id if isinstance(version_id, str) else None,
        )

    async def _update(self, target_id: str, body: bytes, sending: Sending) -> Updated:
        answer = await self._client.create("update", "PUT", _path(target_id), body, sending)
        if not isinstance(answer, dict):
            raise UnknownOutcome("the answer to the update is no object", error="bad_answer")
        version_id = answer.get("prompt_version_id")
        return Updated(version_id=version_id if isinstance(version_id, str) and version_id else None)

    async def _put(self, call: str, path: str, fields: Mapping[str, Json]) -> None:
        await self._client.repeatable(call, "PUT", path, encode({**fields, **self._workspace}))

    async def _label(self, name: str) -> str | None:
        return next((one.id for one in await self._named("labels") or () if one.name == name), None)

    async def _prompts(self, page: Mapping[str, str]) -> Json:
        """A page of the prompts, which never come bare: a list of nothing may be anybody's answer."""
        answer = await self._list("list /prompts", "/prompts", page)
        if answer == []:
            raise no_listing("prompts", "is a bare list of nothing, and not as this registry writes it")
        return answer

    async def _list(self, call: str, path: str, page: Mapping[str, str]) -> Json:
        return await self._client.read(call, path, {**self._workspace, **page}, cap=self._client.limits.listing_cap)

    async def _named(self, kind: str) -> list[Named] | None:
        for path in _CATALOG_PATHS[kind]:
            try:
                rows = await walk_raw(lambda page, path=path: self._list(f"list {path}", path, page), kind)  # type: ignore[misc]
            except Rejected:  # no scope, or an older back end without this path
                continue
            return [_named(row, kind) for row in rows]
        return None


def _path(prompt_id: str) -> str:
    return f"/prompts/{quote(prompt_id, safe='')}"


def _named(row: Json, kind: str) -> Named:
    name = _text(row.get("name"))
    slug = name if kind == "labels" else _text(row.get("slug")) or row["id"]
    return Named(id=row["id"], slug=slug, name=name, parent=_text(row.get("parent_collection_id")) or None)


def _version(row: Json) -> Version:
    number = row.get("prompt_version")
    if not isinstance(number, int) or isinstance(number, bool):
        raise Rejected("the registry's list of versions has one without a number", error="bad_answer")
    several = row.get("prompt_version_labels")
    labels = [label.get("id") for label in _list_of(several) if isinstance(label, dict)] or [row.get("label_id")]
    return Version(
        ref=str(number), ordinal=number, id=row["id"], labels=tuple(label for label in labels if isinstance(label, str))
    )


def _row(row: Json) -> Row:
    created, updated = _text(row.get("created_at")) or None, _text(row.get("last_updated_at")) or None
    return Row(
        id=row["id"],
        name=_text(row.get("name")),
        slug=_text(row.get("slug")) or None,
        collection=_shared(row.get("collection_id")),
        model=_shared(row.get("model")) or None,
        created_at=created,
        updated_at=created if updated == created else updated,
        archived=row.get("status") == "archived",
    )


def _shared(value: Json) -> str | None:
    """One text for all rows that have it; what is no text is as good as nothing."""
    return sys.intern(value) if type(value) is str else None


def _text(value: Json) -> str:
    return value if isinstance(value, str) else ""


def _list_of(value: Json) -> list[Json]:
    return value if isinstance(value, list) else []


def _prompt(answer: Json, asked: str) -> Prompt:
    """The flat answer of a retrieve. Rejected when it is not that prompt or has no template."""
    _check(answer, asked)
    parameters = answer.get("parameters") or {}
    inner = parameters.get("model")
    return Prompt(
        id=answer["id"],
        name=_text(answer.get("name")),
        text=answer["string"],
        slug=answer.get("slug"),
        collection=answer.get("collection_id"),
        model=answer.get("model") or (inner if isinstance(inner, str) else None),
        provider=answer.get("virtual_key"),
        parameters={name: value for name, value in parameters.items() if name != "model"},
        functions=answer.get("functions"),
        tools=answer.get("tools"),
        tool_choice=answer.get("tool_choice"),
        raw=bool(answer.get("is_raw_template")),
        metadata=answer.get("template_metadata") or {},
        description=answer.get("prompt_version_description"),
        version=version_ref(answer.get("prompt_version")),
        updated_at=answer.get("last_updated_at"),
        variables=_variables(answer),
        inputs=_inputs(answer),
        parameters_model=inner if isinstance(inner, str) and inner != (answer.get("model") or inner) else None,
        labels=tuple(_labels(answer)),
        extra=_extra(answer, inner),
        notes=tuple(_notes(answer, inner)),
    )


def _check(answer: Json, asked: str) -> None:
    if not isinstance(answer, dict) or not (
        isinstance(answer.get("id"), str) and isinstance(answer.get("string"), str)
    ):
        raise Rejected("the registry's answer is not a prompt: it has no id or no string", error="bad_answer")
    if asked not in (answer["id"], answer.get("slug")):
        raise Rejected("the registry answered with another prompt than the one asked for", error="bad_answer")
    for field, kinds in _TYPES.items():
        if not isinstance(answer.get(field), kinds):
            raise Rejected(f"the registry's answer has a {field} of another type than it should", error="bad_answer")


def _extra(answer: Mapping[str, Any], inner_model: Json) -> dict[str, Json]:
    """What has a value and no field of ours; a model that is no text can only be the default of a variable."""
    extra = {name: value for name, value in answer.items() if name not in _KNOWN and value is not None}
    if inner_model is not None and not isinstance(inner_model, str):
        extra["parameters.model"] = inner_model
    return extra


def _variables(answer: Mapping[str, Any]) -> frozenset[str]:
    """Names of variables and sections, as the server parsed them and as the text shows them."""
    names = set(PORTKEY.grammar.shown(answer["string"]))
    if isinstance(parsed := answer.get("variable_components"), dict):
        names.update(name for part in _VARIABLE_PARTS for name in _strings(parsed.get(part)))
    return frozenset(names.union([name.partition(".")[0] for name in names if "." in name]))


def _strings(value: Json) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from value
        for inner in value.values():
            yield from _strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _strings(inner)


def _inputs(answer: Mapping[str, Any]) -> Inputs:
    """What the server parsed; what is not as it should be is as good as nothing."""
    parsed = answer.get("variable_components")
    if not isinstance(parsed, dict) or not any(parsed.values()):
        return NO_INPUTS
    inside = parsed.get("sectionVariables")
    inside = inside if isinstance(inside, dict) else {}
    return Inputs(
        variables=_names(parsed.get("variables")),
        sections={name: _names(inside.get(name)) for name in (*_names(parsed.get("sections")), *inside)},
        partials=_names(parsed.get("variablePartials")),
    )


def _names(value: Json) -> tuple[str, ...]:
    return tuple(name for name in value if isinstance(name, str)) if isinstance(value, list) else ()


def _labels(answer: Mapping[str, Any]) -> Iterator[str]:
    listed = answer.get("prompt_version_labels")
    names = [label.get("name") for label in listed if isinstance(label, dict)] if listed else ()
    yield from (name for name in names or (answer.get("prompt_version_label_name"),) if isinstance(name, str) and name)


def _notes(answer: Mapping[str, Any], inner_model: Json) -> Iterator[str]:
    if "archived" in (answer.get("status"), answer.get("prompt_version_status")):
        yield "is archived; the replica is active"
    if answer.get("shared_at") or answer.get("share_organisation_id") or answer.get("allow_all_workspaces"):
        yield "is shared; the replica is not"
    if isinstance(inner_model, str) and answer.get("model") and inner_model != answer["model"]:
        yield f"parameters.model says {inner_model!r}, model says {answer['model']!r}; model was taken"


def _body(prompt: Prompt, workspace: Mapping[str, str]) -> bytes:
    return _encoded(_fields(prompt, workspace))


def _fields(prompt: Prompt, workspace: Mapping[str, str]) -> dict[str, Json]:
    model = {} if prompt.model is None else {"model": prompt.model}
    return {
        "name": prompt.name,
        "collection_id": prompt.collection,
        "string": prompt.text,
        "parameters": {**prompt.parameters, **model},
        "functions": prompt.functions,
        "tools": prompt.tools,
        "tool_choice": prompt.tool_choice,
        **model,
        "virtual_key": prompt.provider,
        "version_description": prompt.description,
        "template_metadata": prompt.metadata,
        "is_raw_template": int(prompt.raw),
        **workspace,
    }


def _encoded(fields: Mapping[str, Json]) -> bytes:
    try:
        return encode({name: value for name, value in fields.items() if value is not None})
    except ValueError as error:
        raise Rejected(f"the prompt cannot be written as JSON without loss: {error}", error="not_encodable") from error
