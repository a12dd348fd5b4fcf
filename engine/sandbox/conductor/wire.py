"""Conductor's API on the wire: its routes, tokens, and the bodies of its answers and refusals."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from aiohttp import web

from engine.sandbox.answers import Json, Refusal, encode, invalid
from engine.sandbox.conductor import integrations as conductor_integrations
from engine.sandbox.conductor import prompts as conductor
from engine.sandbox.conductor.call import ConductorCall
from engine.sandbox.conductor.cluster import Conductor

PREFIX: Final = "/api"
TOKEN_HEADER: Final = "X-Authorization"
_CODES: Final = {
    400: "INVALID_INPUT",
    401: "UNAUTHORIZED",
    403: "ACCESS_FORBIDDEN",
    404: "NOT_FOUND",
    405: "METHOD_NOT_ALLOWED",
    429: "RATE_LIMITED",
    503: "BACKEND_ERROR",
}


class ConductorRoute(NamedTuple):
    """An endpoint that gives None answers with an empty body. `open`: no token is asked for."""

    method: str
    path: str
    endpoint: Callable[[ConductorCall], Json]
    open: bool = False


_PROMPT: Final = "/prompts/{name:[^/]+}"
_PROVIDER: Final = "/integrations/provider/{provider:[^/]+}"
_MODEL: Final = f"{_PROVIDER}/integration/{{model:[^/]+}}"

CONDUCTOR_ROUTES: Final = (
    ConductorRoute("POST", "/token", conductor.issue_token, open=True),
    ConductorRoute("GET", "/token/userInfo", conductor.show_user),
    ConductorRoute("GET", "/prompts", conductor.list_prompts),
    ConductorRoute("POST", "/prompts/", conductor.save_prompts),
    ConductorRoute("POST", "/prompts/test", conductor.ask_model),
    ConductorRoute("GET", _PROMPT, conductor.retrieve_prompt),
    ConductorRoute("POST", _PROMPT, conductor.save_prompt),
    ConductorRoute("PUT", _PROMPT, conductor.replace_prompt),
    ConductorRoute("DELETE", _PROMPT, conductor.delete_prompt),
    ConductorRoute("GET", f"{_PROMPT}/versions", conductor.list_versions),
    ConductorRoute("DELETE", f"{_PROMPT}/versions/{{version}}", conductor.delete_version),
    ConductorRoute("GET", f"{_PROMPT}/tags", conductor.list_tags),
    ConductorRoute("PUT", f"{_PROMPT}/tags", conductor.add_tags),
    ConductorRoute("DELETE", f"{_PROMPT}/tags", conductor.remove_tags),
    ConductorRoute("GET", "/integrations/", conductor_integrations.list_whole),
    ConductorRoute("GET", "/integrations/all", conductor_integrations.list_names),
    ConductorRoute("GET", "/integrations/provider", conductor_integrations.list_providers),
    ConductorRoute("GET", _PROVIDER, conductor_integrations.retrieve_provider),
    ConductorRoute("GET", f"{_PROVIDER}/integration", conductor_integrations.list_models),
    ConductorRoute("GET", f"{_PROVIDER}/integration/all", conductor_integrations.list_model_names),
    ConductorRoute("GET", _MODEL, conductor_integrations.retrieve_model),
    ConductorRoute("GET", f"{_MODEL}/prompt", conductor_integrations.list_model_prompts),
    ConductorRoute("POST", f"{_MODEL}/prompt/{{name:[^/]+}}", conductor_integrations.associate),
)


def is_conductors(request: web.Request) -> bool:
    return request.path.startswith(f"{PREFIX}/")


async def read_call(state: Conductor, route: ConductorRoute, request: web.Request, late: float) -> ConductorCall:
    """Refusal: 400 for a path that such servers do not take, 401 or 403 for its token."""
    if not state.quirks.encoded_slash and "%2f" in request.raw_path.partition("?")[0].lower():
        raise invalid("an encoded slash is not allowed in a path")
    claims = None if route.open else state.tokens.judge(request.headers.get(TOKEN_HEADER, ""))
    raw = await request.read()
    return ConductorCall(
        conductor=state,
        claims=claims,
        path=request.match_info,
        query=request.query,
        models=request.query.getall("models", []),
        raw=raw,
        late=late,
    )


def answer_of(value: Json) -> web.Response:
    if isinstance(value, web.Response):
        return value
    return web.Response(text="" if value is None else encode(value), content_type="application/json")


def refusal_body(refusal: Refusal) -> dict[str, Json]:
    """`error` tells a token that can be renewed from any other refusal."""
    body = {
        "status": refusal.status,
        "code": _CODES.get(refusal.status, "INTERNAL_ERROR"),
        "message": refusal.message,
        "instance": "sandbox",
        "retryable": refusal.status in (429, 500, 503),
    }
    return body | ({"error": refusal.code} if refusal.status in (401, 403) else {})
