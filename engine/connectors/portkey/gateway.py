"""Portkey's gateway: where prompts are rendered, and answered by their models.

Facts that decide the code: a render comes wrapped in `data`; completions come bare, though the specification wraps
them; stored parameters may hold `stream: true`, so `stream` is always sent, and what comes back is told by its content
type alone. An error may quote the template, which was never sent: only its code is told.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final, NamedTuple
from urllib.parse import quote

from engine.connectors.endpoint import Opening
from engine.connectors.portkey.endpoint import PortkeyEndpoint
from engine.connectors.portkey.refusals import refusals, took_all
from engine.connectors.portkey.registry import KEY_HEADER
from engine.connectors.portkey.replies import Said, said, said_in
from engine.errors import AnswerError, Rejected, Stop, UnknownOutcome
from engine.http.redact import clean
from engine.http.responses import Whole
from engine.http.session import Client, KeyAuth
from engine.lossless_json import encode
from engine.model import Completion, Json, Reply, Sending, Tried

Clock = Callable[[], float]

_TEXTS: Final = ("messages", "prompt")
_PAGE: Final = "text/html"
_DATA: Final = b"data:"
_DONE: Final = b"[DONE]"
_ASKED: Final = ({"role": "user", "content": 'Answer with this JSON and nothing else: {"ok": true}'},)
"""Of a call that only tries what a model takes. With a JSON format OpenAI wants the word JSON in the messages."""
_UNJUDGED: Final = frozenset({408, 412, 429, 446})
"""Of the statuses below 500: no word on what was sent. 412: a budget is spent; 446: a guardrail of the gateway."""


@asynccontextmanager
async def connect_gateway(
    end: PortkeyEndpoint, opening: Opening, *, clock: Clock = time.monotonic
) -> AsyncIterator[PortkeyGateway]:
    """A Portkey gateway under its own client; the key tells the workspace."""
    address = end.gateway
    async with opening.client(address, KeyAuth(KEY_HEADER, *address.keys)) as client:
        yield PortkeyGateway(client, name=opening.name, address=address.called, clock=clock)


class PortkeyGateway:
    """Prompts of one workspace as applications use them. `clock` counts seconds and never goes back."""

    def __init__(
        self, client: Client, *, name: str = "gateway", address: str = "gateway_url", clock: Clock = time.monotonic
    ) -> None:
        self._client = client
        self._name = name
        self._address = address
        self._clock = clock
        self._may_complete = False
        """The key has the right to: a completion was answered, be it badly."""

    async def render(self, ref: str, variables: Mapping[str, Json]) -> Mapping[str, Json]:
        """POST /prompts/{ref}/render."""
        body = encode({"variables": variables})
        answer = await self._client.repeatable("render", "POST", _path(ref, "render"), body, hushed=True)
        for place in (answer.get("data"), answer) if isinstance(answer, dict) else ():
            if isinstance(place, dict) and any(isinstance(place.get(name), list | str) for name in _TEXTS):
                return place
        raise Rejected("the answer to a render has neither messages nor a prompt", error="bad_answer")

    async def complete(
        self, ref: str, variables: Mapping[str, Json], *, stream: bool, overrides: Mapping[str, Json]
    ) -> Completion:
        """POST /prompts/{ref}/completions. `seconds` are those until its last byte, the rate limit's included."""
        begun = self._clock()
        reply = await self._call(ref, {**overrides, "variables": variables, "stream": stream}, None)
        return Completion(
            how=_how(ref, stream=stream),
            answered=reply.outcome == "answered",
            model=reply.model,
            finish_reason=reply.finish_reason,
            seconds=self._clock() - begun,
            tokens=reply.tokens,
            error=reply.error,
        )

    async def ask(self, ref: str, variables: Mapping[str, Json], *, stream: bool, sending: Sending) -> Reply:
        """The same call, for what the model says."""
        return await self._call(ref, {"variables": variables, "stream": stream}, sending)

    async def _call(self, ref: str, fields: Mapping[str, Json], sending: Sending | None) -> Reply:
        try:
            answer = await self._client.complete("completions", _path(ref, "completions"), encode(fields), sending)
            if answer.media_type == _PAGE and answer.body.lstrip().startswith(b"<") and not self._may_complete:
                raise self._no_gateway()
            told = _told(answer)
            self._may_complete = True
        except AnswerError as exc:
            self._see(exc)
            return Reply(outcome="refused" if isinstance(exc, Rejected) else "lost", error=str(exc))
        return Reply(
            outcome="answered",
            text=told.said.text,
            tool_calls=told.said.tool_calls,
            model=told.model,
            finish_reason=told.finish_reason,
            seconds=answer.seconds,
            tokens=told.tokens,
        )

    async def models(self) -> Collection[str] | None:
        """GET /models of the data plane, by `offset`; whole or not at all."""
        found: set[str] = set()
        while True:
            try:
                answer = await self._client.read(
                    "list models", "/models", {"offset": f"{len(found)}"} if found else None
                )
            except Rejected:  # no scope, or a gateway without a catalogue
                return None
            page = answer if isinstance(answer, dict) else {}
            rows, total = page.get("data"), page.get("total", 0)
            if not isinstance(rows, list) or not isinstance(total, int):
                return None
            fresh = {one for row in rows if isinstance(row, dict) and isinstance(one := row.get("id"), str)} - found
            found |= fresh
            if len(found) >= total:
                return found
            if not fresh:
                return None

    async def attempt(self, provider: str | None, request: Mapping[str, Json]) -> Tried:
        """POST /chat/completions, the model as `@provider/model`."""
        model = request["model"] if provider is None else f"@{provider}/{request['model']}"
        body = encode({**request, "model": model, "messages": _ASKED, "stream": request.get("stream") is True})
        try:
            answer = await self._client.complete("completions", "/chat/completions", body, hushed=False)
            if answer.media_type == _PAGE and answer.body.lstrip().startswith(b"<") and not self._may_complete:
                raise self._no_gateway()
            _told(answer)
            self._may_complete = True
        except AnswerError as exc:
            return self._refusal(exc, request)
        return Tried(answered=True)

    def _refusal(self, error: AnswerError, request: Mapping[str, Json]) -> Tried:
        """Stop when the key was refused before it was ever taken."""
        refused = refusals(error.body, request)
        if not refused:
            self._see(error)
        self._may_complete |= bool(refused)
        if took_all(error.body):
            return Tried(answered=True)
        judged = error.status is not None and 400 <= error.status < 500 and error.status not in _UNJUDGED
        judged = judged and error.error not in ("firewall", "forbidden")
        return Tried(answered=False if judged or refused else None, refused=refused, error=str(error))

    def _no_gateway(self) -> Stop:
        message = f"The {self._name} answered completions with a page: {self._address} is not the address of a gateway."
        advice = f"Set {self._address} to where completions are answered, then run the same command again."
        return Stop("check_failed", message, next=advice)

    def _see(self, error: AnswerError) -> None:
        """Stop when the key was refused before it was ever taken."""
        if error.error == "forbidden" and not self._may_complete:
            next_step = "Give gateway_key a key that has completions.write; a key of an organisation never has."
            raise Stop("forbidden", str(error), next=next_step) from error
        # a firewall answers whatever the key
        self._may_complete |= error.status is not None and error.error != "firewall"


def _path(ref: str, use: str) -> str:
    return f"/prompts/{quote(ref, safe='@')}/{use}"


def _how(ref: str, *, stream: bool) -> str:
    _, at, suffix = ref.partition("@")
    return ("streamed" if stream else "plain") + (f" @{suffix}" if at else "")


# ---- what a model answered -------------------------------------------------------------------------------------------


class _Told(NamedTuple):
    """What an answer says of itself, and what the model said."""

    model: str | None = None
    finish_reason: str | None = None
    tokens: int | None = None
    said: Said = Said()


def _told(answer: Whole) -> _Told:
    """UnknownOutcome for what is no answer of a model: it was paid for all the same."""
    match answer.media_type:
        case "application/json":
            return _of_json(answer.body)
        case "text/event-stream":
            return _of_events(answer.body)
        case _:
            raise _unusable("is neither JSON nor an event stream")


def _of_json(body: bytes) -> _Told:
    value = _decoded(body)
    wrapped = value.get("body")
    value = wrapped if isinstance(wrapped, dict) else value
    if (choice := _choice(value)) is None:
        raise _unusable("has no choices")
    return _Told(_word(value.get("model")), _word(choice.get("finish_reason")), _tokens(value), said(choice))


def _of_events(body: bytes) -> _Told:
    chunks = list(_chunks(body))
    choices = [choice for choice in map(_choice, chunks) if choice is not None]
    if any(chunk.get("error") for chunk in chunks):
        raise _unusable("broke off with an error of the model's provider")
    if not choices:
        raise _unusable("is an event stream without any chunk")
    return _Told(
        _last(_word(chunk.get("model")) for chunk in chunks),
        _last(_word(choice.get("finish_reason")) for choice in choices),
        _last(map(_tokens, chunks)),
        said_in(chunks),
    )


def _chunks(body: bytes) -> Iterator[dict[str, Any]]:
    for line in body.splitlines():
        if line.startswith(_DATA):
            data = line.removeprefix(_DATA).strip()
            if data == _DONE:
                return
            yield _decoded(data)
    raise _unusable("is an event stream that ends before [DONE]")


def _decoded(body: bytes) -> dict[str, Any]:
    # not engine.wire, which refuses numbers and halves of characters that nobody here will keep
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        # from None: json's error carries the whole text
        raise _unusable("is not the JSON that it says it is") from None
    if not isinstance(value, dict):
        raise _unusable("is JSON, but no object")
    return value


def _choice(value: Mapping[str, Json]) -> Mapping[str, Json] | None:
    match value.get("choices"):
        case [dict() as choice, *_]:
            return choice
    return None


def _tokens(value: Mapping[str, Json]) -> int | None:
    match value.get("usage"):
        case {"total_tokens": int(tokens)}:
            return tokens
    return None


def _word(value: Json) -> str | None:
    return clean(value, ()) or None if isinstance(value, str) else None


def _last(values: Iterator[Any]) -> Any:
    return next((value for value in reversed(list(values)) if value is not None), None)


def _unusable(what: str) -> UnknownOutcome:
    return UnknownOutcome(f"the answer to the completion {what}", error="bad_answer")
