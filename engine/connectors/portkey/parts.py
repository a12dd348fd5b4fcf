"""Collections, partials and labels of a Portkey workspace, one by one (contract section 2).

Facts that decide the code: a collection has a name and a parent and nothing else; slugs are made by the registry; a
partial is published by its create, and its description is the one of its version, `version_description` on the wire;
names of labels are unique, those of collections and partials are not known to be.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from urllib.parse import quote

from engine.connectors.outcomes import made_id, outcome
from engine.errors import Rejected
from engine.http.session import Client
from engine.lossless_json import encode
from engine.model import Created, Failed, Json, Outcome, Part, Sending, version_ref

_PATHS: Final = {"collection": "/collections", "partial": "/prompts/partials", "label": "/labels"}


class PortkeyParts:
    """Those of one workspace. `workspace`: the parameter that names it, where the key does not tell."""

    def __init__(self, client: Client, workspace: Mapping[str, str]) -> None:
        self._client = client
        self._workspace = workspace

    async def read(self, what: str, part_id: str, version: str = "published") -> Part:
        """GET of the one; a back end that knows no `version` gives the published one."""
        parameters = self._workspace if version == "published" else {**self._workspace, "version": version}
        answer = await self._client.read(f"retrieve {what}", self._path(what, part_id), parameters)
        return _part(what, answer)

    async def make(self, part: Part, sending: Sending) -> Outcome:
        """One POST, never repeated blindly."""
        try:
            body = encode({**_fields(part), **self._workspace})
        except ValueError as error:
            message = f"the {part.what} cannot be written as JSON without loss: {error}"
            return Failed(error="not_encodable", message=message)
        return await outcome(self._make(part, body, sending))

    async def remove(self, what: str, part_id: str) -> None:
        """DELETE of the one."""
        await self._client.repeatable(f"delete {what}", "DELETE", self._path(what, part_id), params=self._workspace)

    async def _make(self, part: Part, body: bytes, sending: Sending) -> Created:
        answer = await self._client.create(f"create {part.what}", "POST", _PATHS[part.what], body, sending)
        slug = part.name if part.what == "label" else answer.get("slug") if isinstance(answer, dict) else None
        return Created(target_id=made_id(answer), target_slug=slug if isinstance(slug, str) and slug else None)

    def _path(self, what: str, part_id: str) -> str:
        return f"{_PATHS[what]}/{quote(part_id, safe='')}"


def _part(what: str, answer: Json) -> Part:
    """Rejected when the answer is none of its kind."""
    found = answer if isinstance(answer, dict) else {}
    texts = ("id", "name", *(("string",) if what == "partial" else ()))
    if not all(isinstance(found.get(name), str) for name in texts):
        raise Rejected(f"the registry's answer is not a {what}: it lacks {' or '.join(texts)}", error="bad_answer")
    return Part(
        what=what,
        id=found["id"],
        slug=found["name"] if what == "label" else _text(found.get("slug")) or found["id"],
        name=found["name"],
        parent=_text(found.get("parent_collection_id")) if what == "collection" else None,
        text=found["string"] if what == "partial" else "",
        description=_text(found.get("version_description" if what == "partial" else "description")),
        color=_text(found.get("color_code")),
        version=version_ref(found.get("version")),
    )


def _fields(part: Part) -> dict[str, Json]:
    by_kind: dict[str, dict[str, Json]] = {
        "collection": {"parent_collection_id": part.parent},
        "partial": {"string": part.text, "version_description": part.description},
        "label": {"description": part.description, "color_code": part.color},
    }
    fields = {"name": part.name, **by_kind[part.what]}
    return {name: value for name, value in fields.items() if value is not None}


def _text(value: Json) -> str | None:
    return value if isinstance(value, str) and value else None
