"""The wire: routes, keys, scopes, the rate limit, and faults."""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Final, NamedTuple

from aiohttp import web

from engine.sandbox.answers import Json, Refusal, decode, encode, error_body, forbidden
from engine.sandbox.conductor.cluster import Conductor
from engine.sandbox.conductor.wire import (
    CONDUCTOR_ROUTES,
    PREFIX,
    TOKEN_HEADER,
    ConductorRoute,
    answer_of,
    is_conductors,
    read_call,
    refusal_body,
)
from engine.sandbox.faults import Faults, reset, spoil
from engine.sandbox.langfuse import wire as langfuse_wire
from engine.sandbox.langfuse.answers import refusal_body as langfuse_refusal_body
from engine.sandbox.langfuse.project import Langfuse
from engine.sandbox.langfuse.wire import LANGFUSE_ROUTES, Endpoint, is_langfuses
from engine.sandbox.options import SandboxOptions
from engine.sandbox.portkey import catalog, inference, partials, prompts
from engine.sandbox.portkey.call import Call, Registry

_LARGEST_BODY: Final = 64 * 1024 * 1024
_REMEMBERED: Final = 100_000
_LATE: Final = web.RequestKey("late", float)
_DATA_PLANE: Final = ("prompts.render", "completions.write")


class Seen(NamedTuple):
    """A request that was answered; status 0: the connection was reset instead."""

    method: str
    path: str
    status: int


class Route(NamedTuple):
    """`scope`: what a key needs; empty: any key."""

    method: str
    path: str
    scope: str
    endpoint: Callable[[Call], Json]


ROUTES: Final = (
    Route("GET", "/prompts", "prompts.list", prompts.list_prompts),
    Route("POST", "/prompts", "prompts.create", prompts.create_prompt),
    Route("POST", "/prompts/partials", "", partials.create_partial),
    Route("GET", "/prompts/partials", "", partials.list_partials),
    Route("GET", "/prompts/partials/{ref}", "", partials.retrieve_partial),
    Route("PUT", "/prompts/partials/{ref}", "", partials.update_partial),
    Route("DELETE", "/prompts/partials/{ref}", "", partials.delete_partial),
    Route("GET", "/prompts/partials/{ref}/versions", "", partials.list_partial_versions),
    Route("PUT", "/prompts/partials/{ref}/makeDefault", "", partials.publish_partial),
    Route("GET", "/prompts/{ref}", "prompts.read", prompts.retrieve_prompt),
    Route("PUT", "/prompts/{ref}", "prompts.update", prompts.update_prompt),
    Route("DELETE", "/prompts/{ref}", "prompts.delete", prompts.delete_prompt),
    Route("PUT", "/prompts/{ref}/makeDefault", "prompts.publish", prompts.publish_prompt),
    Route("GET", "/prompts/{ref}/versions", "prompts.read", prompts.list_versions),
    Route("GET", "/prompts/{ref}/versions/{version}", "prompts.read", prompts.retrieve_version),
    Route("PUT", "/prompts/{ref}/versions/{version}", "prompts.update", prompts.label_version),
    Route("POST", "/prompts/{ref}/render", "prompts.render", inference.render_prompt),
    Route("POST", "/prompts/{ref}/completions", "completions.write", inference.complete_prompt),
    Route("POST", "/chat/completions", "completions.write", inference.complete_chat),
    Route("POST", "/collections", "", catalog.create_collection),
    Route("GET", "/collections", "", catalog.list_collections),
    Route("GET", "/collections/{ref}", "", catalog.retrieve_collection),
    Route("PUT", "/collections/{ref}", "", catalog.update_collection),
    Route("DELETE", "/collections/{ref}", "", catalog.delete_collection),
    Route("POST", "/labels", "", catalog.create_label),
    Route("GET", "/labels", "", catalog.list_labels),
    Route("GET", "/labels/{ref}", "", catalog.retrieve_label),
    Route("PUT", "/labels/{ref}", "", catalog.update_label),
    Route("DELETE", "/labels/{ref}", "", catalog.delete_label),
    Route("GET", "/providers", "providers.list", catalog.list_providers),
    Route("GET", "/virtual-keys", "virtual_keys.list", catalog.list_virtual_keys),
    Route("GET", "/models", "", catalog.list_models),
    Route("GET", "/integrations", "", catalog.list_integrations),
    Route("GET", "/integrations/{ref}/models", "", catalog.list_integration_models),
)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Limit:
    """For each key a token bucket with bursts of one second, or so many requests in each `window` of seconds."""

    def __init__(self, rate: float | None, window: float | None, clock: Callable[[], float]) -> None:
        self._rate = rate
        self._window = window
        self._clock = clock
        self._used: dict[str, tuple[float, float]] = {}
        """Key -> the tokens that were left and when; or the requests of the newest window and when it began."""

    def take(self, key: str) -> None:
        """Refusal (429, Retry-After in whole seconds) when the key has used up its rate."""
        if self._rate is None:
            return
        wait = self._bucket(key, self._rate) if self._window is None else self._count(key, self._rate, self._window)
        if wait > 0:
            raise Refusal(429, "AB06", "rate limit exceeded", retry_after=max(1, math.ceil(wait)))

    def _bucket(self, key: str, rate: float) -> float:
        """Seconds until there is a token; 0: it was taken."""
        now = self._clock()
        tokens, since = self._used.get(key, (max(1.0, rate), now))
        tokens = min(max(1.0, rate), tokens + (now - since) * rate)
        self._used[key] = (tokens - 1 if tokens >= 1 else tokens, now)
        return max(0.0, (1 - tokens) / rate)

    def _count(self, key: str, most: float, window: float) -> float:
        """Seconds until the next window; 0: there was room in this one."""
        now = self._clock()
        used, began = self._used.get(key, (0.0, now))
        if now >= began + window:
            used, began = 0.0, now
        if used + 1 > most:
            return began + window - now
        self._used[key] = (used + 1, began)
        return 0.0


class Server:
    """Answers requests on all registries. `requests` are the last ones that were answered, oldest first."""

    def __init__(self, registry: Registry, conductor: Conductor, langfuse: Langfuse, options: SandboxOptions) -> None:
        self.faults = Faults(options.faults, options.seed)
        self.requests: deque[Seen] = deque(maxlen=_REMEMBERED)
        self._registry = registry
        self._conductor = conductor
        self._langfuse = langfuse
        self._options = options
        self._limit = Limit(options.rate_limit, options.rate_window, options.clock)
        self._latency = random.Random(options.seed)

    def app(self) -> web.Application:
        app = web.Application(client_max_size=_LARGEST_BODY, middlewares=[self._outermost])
        for route in ROUTES:
            app.router.add_route(route.method, f"/v1{route.path}", partial(self._endpoint, route))
        for one in CONDUCTOR_ROUTES:
            app.router.add_route(one.method, f"{PREFIX}{one.path}", partial(self._conductor_endpoint, one))
        for path, endpoints in LANGFUSE_ROUTES.items():
            app.router.add_route("*", f"{langfuse_wire.PREFIX}{path}", partial(self._langfuse_endpoint, endpoints))
        app.router.add_get(f"{langfuse_wire.PREFIX}{langfuse_wire.HEALTH}", self._langfuse_health)
        return app

    @web.middleware
    async def _outermost(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        fault = self.faults.draw(request.method, request.path)
        answer = await self._suffer(fault, request, handler)
        if self._options.latency[1] > 0:
            await self._options.sleep(self._latency.uniform(*self._options.latency))
        status = 0 if fault in ("reset_before", "reset_after") else answer.status
        self.requests.append(Seen(request.method, request.path, status))
        return answer

    async def _suffer(self, fault: str | None, request: web.Request, handler: Handler) -> web.StreamResponse:
        if fault in ("429", "503"):
            code = "AB06" if fault == "429" else "AB04"
            return self._refuse(request, Refusal(int(fault), code, "try again later", retry_after=1))
        if fault == "reset_before":
            return reset(request)
        if fault == "500":
            if self.faults.even_chance():
                await self._answer(request, handler)
            return self._refuse(request, Refusal(500, "AB04", "internal error"))
        if fault == "slow":
            await request.read()  # it has arrived: it is carried out even when the client has left by then
            await self._options.sleep(self._options.slow_s)
        request[_LATE] = self.faults.lateness() if fault == "late_listing" else 0.0
        answer = await self._answer(request, handler)
        if fault == "reset_after":
            return reset(request)
        if fault in ("truncate", "blank", "not_json"):
            return await spoil(fault, request, answer)
        return answer

    async def _answer(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except Refusal as refusal:
            return self._refuse(request, refusal)
        except web.HTTPException as exc:
            code = "AB02" if exc.status in (404, 405) else "AB01"
            return self._refuse(request, Refusal(exc.status, code, exc.reason))

    async def _endpoint(self, route: Route, request: web.Request) -> web.Response:
        key = _key(route, request)
        known = self._registry.store.key(key)
        if known is None:
            raise Refusal(401, "AB05", "the API key is not valid")
        self._limit.take(key)
        home, scopes = known
        if home is None and route.scope in _DATA_PLANE:
            raise forbidden("a key of the organisation cannot use prompts")
        if route.scope and scopes is not None and route.scope not in scopes:
            raise forbidden(f"the key lacks the scope {route.scope}")
        raw = await request.read()
        call = Call(
            registry=self._registry,
            home=home,
            path=request.match_info,
            query=request.query,
            body=decode(raw) if raw or request.method in ("POST", "PUT") else {},
            headers=request.headers,
            late=request.get(_LATE, 0.0),
        )
        answer = route.endpoint(call)
        if isinstance(answer, web.Response):
            return answer
        return web.Response(text=encode(answer), content_type="application/json")

    async def _conductor_endpoint(self, route: ConductorRoute, request: web.Request) -> web.Response:
        call = await read_call(self._conductor, route, request, request.get(_LATE, 0.0))
        self._limit.take(f"conductor {call.claims.org if call.claims else ''}")
        return answer_of(route.endpoint(call))

    async def _langfuse_health(self, _request: web.Request) -> web.Response:
        return langfuse_wire.health(self._langfuse)

    async def _langfuse_endpoint(self, endpoints: Mapping[str, Endpoint], request: web.Request) -> web.StreamResponse:
        endpoint = langfuse_wire.endpoint_of(self._langfuse, endpoints, request.method)
        call = await langfuse_wire.read_call(self._langfuse, request, request.get(_LATE, 0.0))
        self._limit.take(f"langfuse {call.project.id}")
        return await endpoint(call)

    def _refuse(self, request: web.Request, refusal: Refusal) -> web.Response:
        quirks = self._registry.quirks
        message = refusal.message + (f" (key {request.headers.get(_key_header(request))})" if quirks.echo_key else "")
        headers = {} if refusal.retry_after is None else {"Retry-After": str(refusal.retry_after)}
        if is_langfuses(request):
            kind, text = langfuse_refusal_body(refusal, message)
            return web.Response(status=refusal.status, text=text, content_type=kind, headers=headers)
        if is_conductors(request):
            body = refusal_body(Refusal(refusal.status, refusal.code, message))
        else:
            body = error_body(quirks.error_shape, refusal.status, refusal.code, message)
        return web.Response(status=refusal.status, text=encode(body), content_type="application/json", headers=headers)


def _key_header(request: web.Request) -> str:
    if is_langfuses(request):
        return "Authorization"
    return TOKEN_HEADER if is_conductors(request) else "x-portkey-api-key"


def _key(route: Route, request: web.Request) -> str:
    """The key of a request; only the data plane takes a bearer token."""
    bearer = request.headers.get("Authorization", "").removeprefix("Bearer ") if route.scope in _DATA_PLANE else ""
    return request.headers.get("x-portkey-api-key") or bearer
