"""What a model said, whole or in the chunks of a stream: the same words and tool calls, whoever serves them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from engine.connectors.portkey.gateway import PortkeyGateway, connect_gateway
from engine.connectors.portkey.replies import Said, said, said_in
from engine.model import Reply, ToolCall, no_intent
from engine.sandbox import SandboxOptions, serve
from tests import ends

CALL = {"id": "c1", "type": "function", "function": {"name": "find", "arguments": '{"id": 7}'}}


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ({"message": {"content": "Yes."}}, Said("Yes.")),
        ({"message": {"content": ""}}, Said("")),
        ({"message": {"content": [{"type": "text", "text": "Yes"}, {"type": "x"}, {"text": "."}]}}, Said("Yes.")),
        ({"message": {"content": None, "refusal": "No."}}, Said("No.")),
        ({"message": {"content": None, "tool_calls": [CALL]}}, Said(None, (ToolCall("find", '{"id": 7}'),))),
        ({"message": {"function_call": CALL["function"]}}, Said(None, (ToolCall("find", '{"id": 7}'),))),
        (
            {"message": {"tool_calls": [{"function": {"name": "f", "arguments": {"a": 1}}}]}},
            Said(None, (ToolCall("f", '{"a":1}'),)),
        ),
        ({"text": "Yes."}, Said("Yes.")),
        ({"message": "odd"}, Said()),
        ({"message": {"content": 7, "tool_calls": "odd"}}, Said()),
    ],
)
def test_a_whole_answer(choice: dict[str, Any], expected: Said) -> None:
    assert said(choice) == expected


def deltas(*found: Any, index: int = 0) -> list[dict[str, Any]]:
    return [{"choices": [{"index": index, "delta": one}]} for one in found]


def piece(index: int | None, arguments: str, name: str | None = None) -> dict[str, Any]:
    place = {} if index is None else {"index": index}
    return {"tool_calls": [{**place, "function": {"name": name, "arguments": arguments}}]}


def test_a_stream_is_put_together() -> None:
    assert said_in(deltas({"role": "assistant", "content": ""}, {"content": "Y"}, {"content": "es"}, {})) == Said("Yes")
    assert said_in(deltas({"content": "\ud83d"}, {"content": "\ude00"})) == Said("\U0001f600")  # half by half
    assert said_in([{"choices": [{"text": "Y"}]}, {"choices": [{"text": "es"}]}]) == Said("Yes")
    assert said_in([*deltas({"content": "a"}), *deltas({"content": "b"}, index=1), {"choices": []}, {}]) == Said("a")
    assert said_in(deltas({}, {"content": None})) == Said()


def test_the_pieces_of_tool_calls_find_together() -> None:
    chunks = deltas(piece(0, "", "f"), piece(1, "", "g"), piece(0, '{"a"'), piece(1, "{}"), piece(0, ": 1}"))
    assert said_in(chunks) == Said(None, (ToolCall("f", '{"a": 1}'), ToolCall("g", "{}")))
    assert said_in(deltas(piece(None, '{"a"', "f"), piece(None, ": 1}"))) == Said(None, (ToolCall("f", '{"a": 1}'),))


async def test_over_the_wire_a_stream_says_what_a_whole_answer_says() -> None:
    message = {"content": "Yes, of course.", "tool_calls": [CALL, {**CALL, "id": "c2"}]}
    async with serve(SandboxOptions(prompts=0)) as sandbox:
        sandbox.answer_with(lambda request: message if request["prompt"] == "Hello Ada" else None)
        sandbox.add_prompt("p", "Hello {{name}}", parameters={"stream_options": {"include_usage": True}})
        (prompt,) = sandbox.prompts()
        end = ends.portkey(sandbox.base_url, sandbox.api_key)
        async with connect_gateway(end, ends.opening()) as gateway:
            found = [await asked(gateway, prompt["id"], "Ada", stream=stream) for stream in (False, True)]
            other = await asked(gateway, prompt["id"], "Bob", stream=True)
            gone = await asked(gateway, "nobody", "Ada", stream=False)
            sandbox.faults.plan("500", path_end="/completions")
            lost = await asked(gateway, prompt["id"], "Ada", stream=False)
    for one in found:
        assert (one.outcome, one.text, one.finish_reason) == ("answered", "Yes, of course.", "tool_calls")
        assert one.tool_calls == (ToolCall("find", '{"id": 7}'),) * 2
        assert one.seconds is not None
    assert found[0].tokens == found[1].tokens is not None
    assert str(other.text).startswith("This is the canned answer")
    assert (gone.outcome, lost.outcome) == ("refused", "lost")
    assert "Yes" not in repr(found)
    assert json.dumps(message)[:9] not in repr(found)


async def asked(gateway: PortkeyGateway, ref: str, name: str, *, stream: bool) -> Reply:
    sent = []

    async def sending() -> None:
        sent.append(1)
        await no_intent()

    reply = await gateway.ask(ref, {"name": name}, stream=stream, sending=sending)
    assert sent == [1]
    return reply
