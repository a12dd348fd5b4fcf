"""Langfuse's API on the wire: its routes, Basic auth, query parameters, and bodies. Names in paths are URL-encoded, the
slash too.
"""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from aiohttp import web

from engine.sandbox.answers import Json, Refusal, decode_any, encode
from engine.sandbox.langfuse.answers import PLAIN, Invalid, no_route
from engine.sandbox.langfuse.content import LATEST, check_creation, check_labels
from engine.sandbox.langfuse.project import Langfuse, Pick, Project
from engine.sandbox.langfuse.store import Filters

PREFIX: Final = "/api/public"
HEALTH: Final = "/health"
_VERSIONS: Final = {2: "2.95.9", 3: "3.103.0"}
_LARGEST_BODY: Final = 1024 * 1024
_LARGEST_PAGE: Final = 100
_LARGEST_NUMBER: Final = 2**31 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class LangfuseCall:
    """One request as the endpoints see it: the project that its keys are for."""

    project: Project
    path: Mapping[str, str]
    query: Mapping[str, str]
    body: Json

    @property
    def pick(self) -> Pick:
        """Raises Invalid (400)."""
        text = self.query.get("version")
        number = None if text is None else _whole("version", text, most=None)
        # to the server 0 and the empty text say nothing
        return Pick(name=self.path["name"], version=number or None, label=self.query.get("label") or None)


Endpoint = Callable[[LangfuseCall], Awaitable[web.Response]]


async def list_prompts(call: LangfuseCall) -> web.Response:
    query = call.query
    number = _whole("page", query.get("page", "1"))
    limit = _whole("limit", query.get("limit", "10"), most=_LARGEST_PAGE)
    filters = Filters(
        name=query.get("name") or None,
        label=query.get("label") or None,
        tag=query.get("tag") or None,
        since=_time("fromUpdatedAt", query),
        before=_time("toUpdatedAt", query),
    )
    return _answer(call.project.page(filters, number, limit))


async def create_prompt(call: LangfuseCall) -> web.Response:
    """It looks, and writes a little later: creates of one name run into each other."""
    project = call.project
    draft = project.draft(check_creation(call.body, project.quirks))
    if project.quirks.create_s > 0:
        await project.langfuse.sleep(project.quirks.create_s)
    return _answer(project.write(draft), status=201)


async def retrieve_prompt(call: LangfuseCall) -> web.Response:
    resolve = call.query.get("resolve", "true").lower() != "false"
    return _answer(call.project.retrieve(call.pick, resolve=resolve))


async def label_version(call: LangfuseCall) -> web.Response:
    if not isinstance(call.body, dict):
        raise Invalid([], "Expected object")
    labels = check_labels("newLabels", call.body.get("newLabels"))
    if LATEST in labels:
        raise Invalid(["newLabels"], "Label 'latest' is always assigned to the latest prompt version")
    number = call.path["version"]
    known = int(number) if number.isascii() and number.isdigit() and len(number) < 11 else 0
    return _answer(call.project.label(call.path["name"], known, labels))


async def delete_prompt(call: LangfuseCall) -> web.Response:
    call.project.delete(call.pick)
    return web.Response(status=204)


def health(state: Langfuse) -> web.Response:
    """Which version it is; open to everybody."""
    return _answer({"status": "OK", "version": _VERSIONS[state.quirks.manner]})


LANGFUSE_ROUTES: Final[Mapping[str, Mapping[str, Endpoint]]] = {
    "/v2/prompts": {"GET": list_prompts, "POST": create_prompt},
    "/v2/prompts/{name:[^/]+}": {"GET": retrieve_prompt, "DELETE": delete_prompt},
    "/v2/prompts/{name:[^/]+}/versions/{version:[^/]+}": {"PATCH": label_version},
}
"""Endpoints by method, by path."""


def is_langfuses(request: web.Request) -> bool:
    return request.path.startswith(f"{PREFIX}/")


def endpoint_of(state: Langfuse, endpoints: Mapping[str, Endpoint], method: str) -> Endpoint:
    """Refusal: 404 for what the manner does not know, 405."""
    if label_version in endpoints.values() and state.quirks.manner == 2:
        raise no_route()
    found = endpoints.get(method)
    if found is None or (found is delete_prompt and not state.quirks.deletes):
        raise Refusal(405, "", "Method not allowed")
    return found


async def read_call(state: Langfuse, request: web.Request, late: float) -> LangfuseCall:
    """Refusal: 413 and 400 in plain text for a body that is too large or no JSON, 401 for its keys."""
    raw = await request.read()
    if len(raw) > _LARGEST_BODY:
        raise Refusal(413, PLAIN, "Body exceeded 1mb limit")
    body = _decoded(raw) if raw else {}
    project = Project(langfuse=state, id=_project(state, request.headers.get("Authorization")), late=late)
    return LangfuseCall(project=project, path=request.match_info, query=request.query, body=body)


def _decoded(raw: bytes) -> Json:
    try:
        return decode_any(raw)
    except Refusal as refusal:
        raise Refusal(400, PLAIN, "Invalid JSON") from refusal


def _project(state: Langfuse, header: str | None) -> str:
    """That the keys in the header are for. Refusal (401)."""
    if header is None:
        raise Refusal(401, "", "No authorization header")
    scheme, _, value = header.partition(" ")
    try:
        public, _, secret = base64.b64decode(value, validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        public = secret = ""
    project = state.store.langfuse.project(public, secret) if scheme.lower() == "basic" else None
    if project is None:
        raise Refusal(401, "", "Invalid credentials. Confirm that you've configured the correct host.")
    return project


def _answer(value: Json, *, status: int = 200) -> web.Response:
    return web.Response(status=status, text=encode(value), content_type="application/json")


def _whole(field: str, text: str, *, most: int | None = _LARGEST_NUMBER) -> int:
    """A parameter of the query; from 1 on unless `most` is None. Raises Invalid (400)."""
    try:
        number = float(text or "0")
    except ValueError:
        number = math.nan
    if not number.is_integer():
        raise Invalid([field], "Expected integer")
    if most is not None and not 1 <= number <= most:
        raise Invalid([field], f"Number must be from 1 to {most}")
    return int(number)


def _time(field: str, query: Mapping[str, str]) -> float | None:
    """Seconds since 1970 of a parameter in ISO 8601 with its zone. Raises Invalid (400)."""
    if field not in query:
        return None
    try:
        time = datetime.fromisoformat(query[field])
    except ValueError:
        time = datetime.min
    if time.tzinfo is None or "T" not in query[field]:
        raise Invalid([field], "Invalid datetime")
    return time.timestamp()
