"""Renders and completions over a real socket: what is sent, what counts as answered, and what is never told."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import count
from typing import Any

import pytest

from engine.connectors.portkey import registry as portkey
from engine.connectors.portkey.gateway import PortkeyGateway, connect_gateway
from engine.connectors.portkey.registry import KEY_HEADER
from engine.errors import EngineError, Gone, Rejected, Stop, Transient
from engine.http.limiter import RateLimiter
from engine.http.session import KeyAuth, RequestLimits, Timing, open_client
from engine.model import Completion, Gateway, Prompt, Refused, Tried
from engine.sandbox import Sandbox, SandboxOptions, serve
from engine.verbs.cases import made_up
from engine.verbs.completions import call, differs
from tests import ends
from tests.raw_server import RawServer, Step, answer, close, raw, reset, truncated

KEY = "canary-key-0123456789"
CANARY = "Canary words that nobody else may read"
CHAT = json.dumps([{"role": "system", "content": CANARY}, {"role": "user", "content": "{{question}}"}])


def clock() -> Callable[[], float]:
    """A second goes by whenever somebody looks."""
    ticks = count()
    return lambda: float(next(ticks))


def gate() -> RateLimiter:
    return RateLimiter(rate=5_000, concurrency=8)


@asynccontextmanager
async def opened(base_url: str, key: str = KEY) -> AsyncIterator[PortkeyGateway]:
    limits = RequestLimits(timeout=20, attempts=3)
    async with connect_gateway(ends.portkey(base_url, key), ends.opening(limits=limits), clock=clock()) as gateway:
        yield gateway


@asynccontextmanager
async def answering(*steps: Step, attempts: int = 3) -> AsyncIterator[tuple[PortkeyGateway, RawServer]]:
    async def sleep(_seconds: float) -> None:
        """Waiting is the client's affair, and tested there."""

    limits, timing = RequestLimits(timeout=20, attempts=attempts), Timing(sleep=sleep)
    async with (
        RawServer(*steps) as server,
        open_client(
            f"{server.url}/v1", KeyAuth(KEY_HEADER, KEY), gate(), limits, name="target", timing=timing
        ) as client,
    ):
        yield PortkeyGateway(client, clock=clock()), server


def says(value: Any, status: int = 200, content_type: str = "application/json") -> Step:
    return answer(status, json.dumps(value).encode(), {"Content-Type": content_type})


def streams(*lines: str, content_type: str = "text/event-stream", end: str = "\n\n") -> Step:
    return answer(200, "".join(line + end for line in lines).encode(), {"Content-Type": content_type})


async def completed(*steps: Step, stream: bool = False) -> Completion:
    async with answering(*steps) as (gateway, _):
        return await gateway.complete("p1", {"question": "why"}, stream=stream, overrides={})


async def raised(*steps: Step) -> EngineError:
    async with answering(*steps) as (gateway, _):
        with pytest.raises(EngineError) as caught:
            await gateway.render("p1", {"question": "why"})
    return caught.value


# ---- against the sandbox ---------------------------------------------------------------------------------------------


@asynccontextmanager
async def sandboxed() -> AsyncIterator[tuple[Sandbox, Gateway]]:
    async with serve(SandboxOptions(prompts=0)) as sandbox, opened(sandbox.base_url, sandbox.api_key) as gateway:
        yield sandbox, gateway


async def fetched(sandbox: Sandbox, prompt_id: str) -> Prompt:
    end = ends.portkey(sandbox.base_url, sandbox.api_key)
    async with portkey.connect(end, ends.opening(name="source", attempts=1)) as registry:
        return await registry.fetch(prompt_id)


async def test_a_render_is_what_would_go_to_the_model() -> None:
    async with sandboxed() as (sandbox, gateway):
        prompt = sandbox.add_prompt("p", CHAT, parameters={"max_tokens": 9})
        sandbox.add_version(prompt, string="Draft {{question}}")
        found = await gateway.render(prompt, {"question": "why"})
        assert found["messages"] == [{"role": "system", "content": CANARY}, {"role": "user", "content": "why"}]
        assert (found["model"], found["max_tokens"]) == ("claude-3-7-sonnet-20250219", 9)
        assert (await gateway.render(f"{prompt}@latest", {"question": "why"}))["prompt"] == "Draft why"
        assert "messages" in await gateway.render(f"{prompt}@1", {})


async def test_what_is_made_up_can_be_rendered_and_each_value_is_told_from_the_others() -> None:
    async with sandboxed() as (sandbox, gateway):
        text = "{{a}}|{{user.name}}|{{#s}}{{a}},{{b}}{{/s}}|{{#t}}shown{{/t}}|{{#items}}<{{.}}>{{/items}}|{{>>Mine}}"
        prompt = await fetched(sandbox, sandbox.add_prompt("p", text))
        found = (await gateway.render(prompt.id, made_up(prompt)))["prompt"]
        parts = "value of a", "value of user.name", "value of a,value of b", "shown", "<value of items>", "text of Mine"
        assert found == "|".join(parts)


async def test_what_is_made_up_for_a_raw_template_is_json_inside_of_quotes_and_outside() -> None:
    async with sandboxed() as (sandbox, gateway):
        text = (
            '[{"role": "user", "content": "{{a}} {{user.name}} {{>>Mine}}", "n": [{{a}}, {{b}}, {{>>Other}}]'
            ', "s": [{{#s}}"{{a}}", {{c}}{{/s}}], "t": {{t}}{{#t}}{{/t}}}]'
        )
        prompt = await fetched(sandbox, sandbox.add_prompt("p", text, is_raw_template=1))
        (found,) = (await gateway.render(prompt.id, made_up(prompt)))["messages"]
        first, second, third = found["content"].split(" ")
        numbers = [int(first), int(second), int(third), *found["n"][1:], found["s"][1]]
        assert len(set(numbers)) == len(numbers) == 6
        assert (found["n"][0], found["s"][0], found["t"]) == (int(first), first, True)


async def test_the_four_calls_of_a_prompt_are_answered_though_it_streams_by_itself() -> None:
    async with sandboxed() as (sandbox, gateway):
        prompt = sandbox.add_prompt("p", CHAT, parameters={"stream": True})
        found = await call(gateway, prompt, "1", {"question": "why"}, {})
        assert differs(found) == ()
        assert [one.how for one in found] == ["plain", "streamed", "plain @1", "streamed @latest"]
        assert {one.model for one in found} == {"claude-3-7-sonnet-20250219"}
        assert {one.finish_reason for one in found} == {"stop"}
        assert [one.tokens is not None for one in found] == [True, False, True, False]  # its chunks have no usage
        assert {one.seconds for one in found} == {1.0}
        assert "canned" not in repr(found)


async def test_a_version_that_is_not_there_gives_no_answer() -> None:
    async with sandboxed() as (sandbox, gateway):
        prompt = sandbox.add_prompt("p", CHAT)
        found = await call(gateway, prompt, "7", {"question": "why"}, {})
        assert differs(found) == ("completions.plain @7",)
        assert found[2].error is not None
        assert "404 AB08" in found[2].error
        with pytest.raises(Gone):
            await gateway.render(f"{prompt}@7", {})


@pytest.mark.parametrize("scopes", [{"prompts.read"}, {"prompts.render"}])
async def test_a_key_without_the_right_ends_the_run_at_its_first_completion(scopes: set[str]) -> None:
    async with serve(SandboxOptions(prompts=0)) as sandbox:
        prompt = sandbox.add_prompt("p", CHAT)
        async with opened(sandbox.base_url, sandbox.key("main", scopes)) as gateway:
            with pytest.raises(Stop) as caught:
                await gateway.complete(prompt, {}, stream=False, overrides={})
    assert caught.value.reason == "forbidden"
    assert "completions.write" in caught.value.next


# ---- what is sent ----------------------------------------------------------------------------------------------------

RENDERED = {"success": True, "data": {"model": "m1", "messages": []}}
COMPLETED = {
    "model": "m1",
    "choices": [{"index": 0, "message": {"content": CANARY}, "finish_reason": "stop"}],
    "usage": {"total_tokens": 7},
}


async def test_what_a_render_sends() -> None:
    async with answering(says(RENDERED)) as (gateway, server):
        await gateway.render("pp-a/b é@latest", {"a": [1]})
        (seen,) = server.received
    assert (seen.method, seen.target) == ("POST", "/v1/prompts/pp-a%2Fb%20%C3%A9@latest/render")
    assert json.loads(seen.body) == {"variables": {"a": [1]}}
    assert seen.headers["x-portkey-api-key"] == KEY
    assert seen.headers["content-type"] == "application/json"


@pytest.mark.parametrize("stream", [True, False])
async def test_what_a_completion_sends(stream: bool) -> None:
    async with answering(says(COMPLETED)) as (gateway, server):
        found = await gateway.complete("p1@3", {"a": 1}, stream=stream, overrides={"max_tokens": 16})
        (seen,) = server.received
    assert seen.target == "/v1/prompts/p1@3/completions"
    assert json.loads(seen.body) == {"max_tokens": 16, "variables": {"a": 1}, "stream": stream}
    assert found.how == ("streamed @3" if stream else "plain @3")


# ---- what a render answers -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data", [{"messages": []}, {"prompt": "x", "data": 1}, {"prompt": "", "model": "m", "data": {"a": 1}}]
)
async def test_a_render_comes_wrapped_or_bare(data: Any) -> None:
    for value in (data, {"success": True, "data": data}):
        async with answering(says(value)) as (gateway, _):
            assert await gateway.render("p1", {}) == data


@pytest.mark.parametrize(
    "value", [None, [], {}, "text", {"data": None}, {"data": {"model": "m"}}, {"messages": None}, {"prompt": {}}]
)
async def test_an_answer_that_is_no_render_is_refused(value: Any) -> None:
    error = await raised(says(value))
    assert isinstance(error, Rejected)
    assert error.error == "bad_answer"


async def test_a_render_is_repeated_until_its_tries_are_used_up() -> None:
    async with answering(says({}, 500), close, says(RENDERED)) as (gateway, server):
        assert await gateway.render("p1", {}) == RENDERED["data"]
        assert len(server.received) == 3
    async with answering(says(RENDERED), says({}, 500), attempts=1) as (gateway, server):
        await gateway.render("p1", {})
        with pytest.raises(Transient):
            await gateway.render("p1", {})


# ---- what a completion answers ---------------------------------------------------------------------------------------


def chunk(**fields: Any) -> str:
    return "data: " + json.dumps({"model": "m1", "choices": [{"delta": {"content": CANARY}}]} | fields)


STOPPED = chunk(choices=[{"delta": {}, "finish_reason": "stop"}])
USAGE = chunk(choices=[], usage={"total_tokens": 7})
DONE = "data: [DONE]"

ANSWERED: dict[str, Step] = {
    "json": says(COMPLETED),
    "with a charset": says(COMPLETED, content_type="application/JSON; charset=utf-8"),
    "wrapped": says({"status": 200, "headers": {}, "body": COMPLETED}),
    "a guardrail failed": says(COMPLETED, 246),
    "numbers nobody keeps": answer(200, json.dumps(COMPLETED).replace("}", ', "n": 0.10000000000000001}', 1).encode()),
    "stream": streams(chunk(), STOPPED, USAGE, DONE),
    "stream with a charset": streams(chunk(), STOPPED, USAGE, DONE, content_type="Text/Event-Stream; charset=utf-8"),
    "stream of another style": streams(
        *(": a comment", "event: x", "id: 1", 'data:{"model": null, "choices": []}', "retry: 1"),
        *(STOPPED, USAGE, chunk(usage=None), DONE, "data: after the end"),
        end="\r\n",
    ),
    "half of a character": streams('data: {"choices": [{"delta": {"content": "\\ud83d"}}]}', STOPPED, USAGE, DONE),
}


@pytest.mark.parametrize("kind", ANSWERED)
async def test_the_parser_is_chosen_by_what_came_and_not_by_what_was_asked(kind: str) -> None:
    for stream in (True, False):
        found = await completed(ANSWERED[kind], stream=stream)
        assert (found.answered, found.error) == (True, None)
        assert (found.model, found.finish_reason, found.tokens) == ("m1", "stop", 7)
        assert found.seconds == 1.0
        assert CANARY not in repr(found)


async def test_an_answer_need_not_say_anything_of_itself() -> None:
    for step in (
        says({"choices": [{}], "model": 7, "usage": {"total_tokens": "7"}}),
        streams('data: {"choices": [{}], "usage": []}', DONE),
    ):
        found = await completed(step)
        assert found == Completion(how="plain", answered=True, seconds=1.0)


PAID: dict[str, tuple[Step, str]] = {
    "cut off before [DONE]": (streams(chunk(), STOPPED), "[DONE]"),
    "no chunk": (streams(DONE), "without any chunk"),
    "an empty stream": (streams(), "[DONE]"),
    "no choices in any chunk": (streams(USAGE, DONE), "without any chunk"),
    "an error in midstream": (streams(chunk(), chunk(error={"message": CANARY}), DONE), "with an error"),
    "an error only": (streams('data: {"error": {"message": "' + CANARY + '"}}', DONE), "with an error"),
    "a chunk cut": (streams(chunk()[:-9], DONE), "not the JSON"),
    "a chunk that is a list": (streams('data: ["' + CANARY + '"]', DONE), "no object"),
    "no choices": (says({"model": "m1", "text": CANARY}), "no choices"),
    "choices of none": (says({"choices": []}), "no choices"),
    "choices of another kind": (says({"choices": [CANARY]}), "no choices"),
    "wrapped without choices": (says({"status": 400, "headers": {}, "body": {"error": CANARY}}), "no choices"),
    "a list": (says([COMPLETED]), "no object"),
    "not json": (answer(200, CANARY.encode()), "not the JSON"),
    "not utf-8": (answer(200, b'{"a":"\xff"}'), "not the JSON"),
    "nested": (answer(200, b"[" * 100_000), "not the JSON"),
    "blank": (answer(200, b""), "not the JSON"),
    "a stream that says it is json": (streams(chunk(), DONE, content_type="application/json"), "not the JSON"),
    "a page": (answer(200, CANARY.encode(), {"Content-Type": "text/html"}), "neither JSON nor"),
    "no type": (raw(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"), "neither JSON nor"),
    "broken off": (truncated(), "may have happened"),
    "500": (says({"message": CANARY}, 500), "500"),
    "503": (answer(503, b"{}", {"Retry-After": "0"}), "503"),
    "408": (says({}, 408), "408"),
    "closed": (close, "may have happened"),
    "reset": (reset, "may have happened"),
    "400": (says({"data": {"message": CANARY, "errorCode": "AB01"}}, 400), "400 AB01"),
    "404": (says({"error": {"message": CANARY, "code": "model_not_found"}}, 404), "404 model_not_found"),
    "446": (says({"error": {"message": CANARY}, "hook_results": {}}, 446), "446"),
    "a code that is a sentence": (says({"error": CANARY, "message": "x"}, 400), "400."),
}


@pytest.mark.parametrize("kind", PAID)
async def test_a_call_without_an_answer_is_told_and_not_repeated(kind: str) -> None:
    step, words = PAID[kind]
    async with answering(step, says(COMPLETED)) as (gateway, server):
        found = await gateway.complete("p1", {}, stream=False, overrides={})
        assert len(server.received) == 1
    assert not found.answered
    assert found.error is not None
    assert words in found.error
    assert len(found.error.splitlines()) == 1
    assert (found.model, found.finish_reason, found.tokens) == (None, None, None)
    assert "Canary" not in repr(found)


@pytest.mark.parametrize(("status", "reason"), [(401, "key_refused"), (402, "quota")])
async def test_a_refused_key_and_a_spent_quota_end_the_run_at_any_time(status: int, reason: str) -> None:
    async with answering(says(COMPLETED), says({"message": CANARY}, status)) as (gateway, _):
        await gateway.complete("p1", {}, stream=False, overrides={})
        with pytest.raises(Stop) as caught:
            await gateway.complete("p1", {}, stream=False, overrides={})
    assert caught.value.reason == reason
    assert "Canary" not in f"{caught.value} {caught.value.__cause__}"


FORBIDDEN = says({"data": {"message": CANARY, "errorCode": "AB03"}}, 403)


async def test_a_403_at_first_is_the_keys_fault_and_later_the_prompts() -> None:
    async with answering(FORBIDDEN) as (gateway, server):
        with pytest.raises(Stop) as caught:
            await gateway.complete("p1", {}, stream=False, overrides={})
        assert len(server.received) == 1
    assert (caught.value.reason, caught.value.exit_code) == ("forbidden", 4)
    assert "gateway_key" in caught.value.next
    assert "Canary" not in f"{caught.value} {caught.value.__cause__}"
    for first in (says(COMPLETED), says({}, 400)):
        async with answering(first, FORBIDDEN) as (gateway, _):
            await gateway.complete("p1", {}, stream=False, overrides={})
            found = await gateway.complete("p1", {}, stream=False, overrides={})
        assert not found.answered
        assert "403 AB03" in str(found.error)


async def test_what_tells_nothing_of_the_key_does_not_excuse_a_403() -> None:
    firewall = answer(403, CANARY.encode(), {"Content-Type": "text/html"})
    async with answering(firewall, close, FORBIDDEN) as (gateway, _):
        for words in ("firewall", "did not answer"):
            assert words in str((await gateway.complete("p1", {}, stream=False, overrides={})).error)
        with pytest.raises(Stop, match="403"):
            await gateway.complete("p1", {}, stream=False, overrides={})


TOO_FAST = answer(429, json.dumps({"message": CANARY}).encode(), {"Retry-After": "0"})


async def test_a_completion_is_sent_again_after_429() -> None:
    async with answering(TOO_FAST, says(COMPLETED)) as (gateway, server):
        assert (await gateway.complete("p1", {}, stream=False, overrides={})).answered
        assert len(server.received) == 2


async def test_a_model_that_answers_429_for_ever_is_given_up() -> None:
    async with answering(TOO_FAST, attempts=3) as (gateway, server):
        found = await gateway.complete("p1", {}, stream=False, overrides={})
        assert len(server.received) == 3
    assert not found.answered
    assert "429" in str(found.error)
    assert "Canary" not in repr(found)


# ---- what is never told ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 409, 422, 500])
async def test_no_error_of_a_render_quotes_the_template_or_the_key(status: int) -> None:
    shapes: list[Any] = [
        {"message": f"Unexpected token in {CANARY} ({KEY})"},
        {"error": {"message": CANARY, "code": f"{CANARY[:9]} {KEY}"}},
        {"error": CANARY, "message": "x"},
        CANARY,
    ]
    for shape in shapes:
        error = await raised(says(shape, status))
        told = f"{error} {error!r} {error.__cause__} {vars(error)}"
        assert str(status) in told
        assert "Canary" not in told
        assert KEY not in told


# ---- an address where no gateway is ----------------------------------------------------------------------------------

PAGE = answer(200, b"<!doctype html><title>Sign in</title>", {"Content-Type": "text/html; charset=utf-8"})


async def test_an_address_that_answers_with_pages_is_no_gateway() -> None:
    async with answering(PAGE) as (gateway, server):
        for work in (gateway.render("p1", {}), gateway.complete("p1", {}, stream=False, overrides={})):
            with pytest.raises(Stop) as stopped:
                await work
            assert (stopped.value.reason, stopped.value.exit_code) == ("check_failed", 4)
        assert [request.target.rpartition("/")[2] for request in server.received] == ["render"] * 3 + ["completions"]


async def test_messages_name_the_key_of_the_file_that_leads_to_the_gateway() -> None:
    async with RawServer(PAGE) as server:
        end = ends.portkey("https://registry.test/v1", KEY).model_copy(update={"gateway_url": server.url})
        async with connect_gateway(end, ends.opening(name="gateway", attempts=1)) as gateway:
            for work in (gateway.render("p1", {}), gateway.complete("p1", {}, stream=False, overrides={})):
                with pytest.raises(Stop, match="gateway_url") as stopped:
                    await work
                assert "gateway_url" in stopped.value.next


async def test_a_page_after_a_completion_is_told_of_that_completion() -> None:
    async with answering(says(COMPLETED), PAGE) as (gateway, _):
        assert (await gateway.complete("p1", {}, stream=False, overrides={})).answered
        assert not (await gateway.complete("p1", {}, stream=False, overrides={})).answered


# ---- what models take ------------------------------------------------------------------------------------------------

TOOL = {"type": "function", "function": {"name": "f", "description": CANARY, "parameters": {}}}
CALL = {"model": "m", "top_k": 5, "max_tokens": 1, "tools": [TOOL], "stream": True}


async def attempted(*steps: Step) -> Tried:
    async with answering(*steps) as (gateway, _):
        return await gateway.attempt("p", CALL)


async def test_what_is_sent_to_try_a_model() -> None:
    async with answering(says(COMPLETED)) as (gateway, server):
        assert await gateway.attempt("prod", CALL) == Tried(answered=True)
        assert await gateway.attempt(None, {"model": "m"}) == Tried(answered=True)
        first, second = (json.loads(request.body) for request in server.received)
        assert {request.target for request in server.received} == {"/v1/chat/completions"}
    assert first["model"] == "@prod/m"
    assert first.items() >= {**CALL, "model": "@prod/m"}.items()
    assert (second["model"], second["stream"]) == ("m", False)
    # OpenAI wants the word where the format is JSON
    assert all("JSON" in call["messages"][0]["content"] for call in (first, second))


async def test_a_refusal_of_the_vendor_is_read_and_not_quoted() -> None:
    error = {"message": f"Unknown parameter: 'top_k' in {CANARY}", "param": "top_k", "code": "unknown_parameter"}
    found = await attempted(says({"error": error}, 400))
    assert (found.answered, found.refused) == (False, [Refused(path="top_k", why="unknown")])
    async with answering(says({"error": error}, 400)) as (gateway, _):
        with pytest.raises(EngineError) as caught:  # of a prompt's template we have no copy to look for
            await gateway._client.complete("completions", "/prompts/p/completions", b"{}")
    assert "Canary" not in f"{vars(caught.value)}"
    nobody_reads = await attempted(says({"error": {"message": f"No: {CANARY} and {KEY}", "param": None}}, 400))
    assert (nobody_reads.answered, nobody_reads.refused) == (False, [])
    assert "answered completions with 400: No: *** and ***" in str(nobody_reads.error)
    assert "Canary" not in repr((found, nobody_reads))


@pytest.mark.parametrize(
    "step",
    [says({"message": "slow down"}, 429), says({}, 500), says({}, 503), says({}, 408), says({}, 412), says({}, 446)],
)
async def test_what_says_nothing_of_the_call_is_no_refusal(step: Step) -> None:
    found = await attempted(step)
    assert (found.answered, found.refused) == (None, [])
    assert found.error


async def test_neither_is_an_answer_that_is_none() -> None:
    for step in (says({"no": "choices"}), reset, truncated(), streams('data: {"error": {"message": "x"}}')):
        assert (await attempted(step)).answered is None


async def test_thinking_longer_than_the_limit_allows_is_an_answer() -> None:
    message = "Could not finish the message because max_tokens or model output limit was reached."
    assert (await attempted(says({"error": {"message": message, "param": None}}, 400))).answered


async def test_a_key_that_may_not_complete_stops_and_a_model_that_it_may_not_use_does_not() -> None:
    with pytest.raises(Stop, match="403") as stopped:
        await attempted(says({"data": {"errorCode": "AB03"}}, 403))
    assert "completions.write" in stopped.value.next
    found = await attempted(says({"message": "You don't have access to the model with the specified model ID."}, 403))
    assert found.refused == [Refused(path="model", why="model")]


async def test_the_catalogue_is_had_whole_or_not_at_all() -> None:
    def page(total: Any, *ids: Any) -> Step:
        return says({"object": "list", "total": total, "data": [{"id": one} for one in ids]})

    async def listed(*steps: Step) -> Any:
        async with answering(*steps) as (gateway, server):
            found = await gateway.models()
            return found, [request.target for request in server.received]

    assert await listed(page(3, "a", "b"), page(3, "c")) == ({"a", "b", "c"}, ["/v1/models", "/v1/models?offset=2"])
    assert (await listed(says({"data": [{"id": "a"}]})))[0] == {"a"}
    assert (await listed(page(3, "a", "b"), page(3, "a")))[0] is None
    for step in (says({"data": {"errorCode": "AB03"}}, 403), says([]), says({"data": 5}), page("3", "a"), page(9, [])):
        assert (await listed(step))[0] is None
