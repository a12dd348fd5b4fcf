"""What the sandbox makes of templates: render and completions."""

from __future__ import annotations

import json
from typing import Any

from tests.sandbox_api import api, rendered


async def test_a_raw_template_is_filled_before_it_is_parsed() -> None:
    async with api() as portkey:
        prompt = portkey.sandbox.add_prompt(
            "raw", '[{"role": "user", "content": "{{q}}"}, {{more}}]', is_raw_template=1
        )
        data = await rendered(portkey, prompt, {"q": "<why>", "more": '{"role": "user"}'})
        assert data["messages"] == [{"role": "user", "content": "<why>"}, {"role": "user"}]
        assert (await portkey.ask("POST", f"/prompts/{prompt}/render", {"variables": {}}))[0] == 400


async def test_partials_private_partials_and_pinned_ones() -> None:
    async with api() as portkey:
        partial = (await portkey.post("/prompts/partials", {"name": "p", "string": "one {{x}}"}))["slug"]
        await portkey.put(f"/prompts/partials/{partial}", {"string": "two {{>>Mine}}"})
        text = f"{{{{>{partial}}}}}|{{{{>{partial}@2}}}}|{{{{>> Mine}}}}|{{{{>nothing}}}}"
        prompt = portkey.sandbox.add_prompt("partials", text)
        variables = {"x": 1.5, "Mine": "private {{x}}"}
        assert (await rendered(portkey, prompt, variables))["prompt"] == "one 1.5|two private 1.5|private 1.5|"
        await portkey.put(f"/prompts/partials/{partial}/makeDefault", {"version": 2})
        assert (await rendered(portkey, prompt, variables))["prompt"].startswith("two")
        circle = {"Mine": "{{>>Mine}}"}
        assert (await portkey.ask("POST", f"/prompts/{prompt}/render", {"variables": circle}))[0] == 400


async def test_parameters_that_are_variables_are_defaults_of_them() -> None:
    async with api() as portkey:
        fields: dict[str, Any] = {"parameters": {"company": "Acme", "top_p": 0.5}, "tools": [{"type": "function"}]}
        prompt = portkey.sandbox.add_prompt("d", "{{company}} {{flag}}{{#flag}}!{{/flag}}", **fields)
        data = await rendered(portkey, prompt, {"flag": True}, top_p=0.9)
        model = "claude-3-7-sonnet-20250219"
        assert data == {"prompt": "Acme true!", "model": model, "top_p": 0.9, "tools": [{"type": "function"}]}
        assert (await rendered(portkey, prompt, {"company": "B"}))["prompt"] == "B "


async def test_broken_mustache_is_kept_and_refused_at_render() -> None:
    async with api() as portkey:
        prompt = portkey.sandbox.add_prompt("broken", "{{#a}} {{")
        assert (await portkey.get(f"/prompts/{prompt}"))["variable_components"]["variables"] == []
        assert (await portkey.ask("POST", f"/prompts/{prompt}/render", {"variables": {}}))[0] == 400
        assert (await portkey.ask("POST", f"/prompts/{prompt}/render", {}))[0] == 400


async def test_a_stored_stream_flag_streams_unless_the_call_says_otherwise() -> None:
    async with api() as portkey:
        prompt = portkey.sandbox.add_prompt("s", parameters={"stream": True})
        headers, url = {"x-portkey-api-key": portkey.key}, f"{portkey.sandbox.base_url}/prompts/{prompt}/completions"
        async with portkey.session.post(url, json={"variables": {}}, headers=headers) as response:
            assert response.content_type == "text/event-stream"
            assert response.headers["Transfer-Encoding"] == "chunked"
            assert (await response.text()).endswith("\n\ndata: [DONE]\n\n")
        answer = await portkey.post(f"/prompts/{prompt}/completions", {"variables": {}, "stream": False})
        assert answer["object"] == "chat.completion"


async def test_a_model_answers_what_it_was_told_also_in_a_stream() -> None:
    function = {"name": "find", "arguments": '{"id": 7}'}
    message = {"content": "two words", "tool_calls": [{"id": "c", "type": "function", "function": function}]}
    async with api() as portkey:
        prompt = portkey.sandbox.add_prompt("m", "{{q}}")
        portkey.sandbox.answer_with(lambda request: message if request["prompt"] == "known" else None)
        path = f"/prompts/{prompt}/completions"
        (choice,) = (await portkey.post(path, {"variables": {"q": "known"}}))["choices"]
        assert (choice["message"], choice["finish_reason"]) == ({"role": "assistant", **message}, "tool_calls")
        (choice,) = (await portkey.post(path, {"variables": {"q": "unknown"}}))["choices"]
        assert choice["message"]["content"].startswith("This is the canned answer")
        body = {"variables": {"q": "known"}, "stream": True, "stream_options": {"include_usage": True}}
        headers = {"x-portkey-api-key": portkey.key}
        async with portkey.session.post(portkey.sandbox.base_url + path, json=body, headers=headers) as response:
            *events, done, _ = (await response.text()).split("\n\n")
        chunks = [json.loads(event.removeprefix("data: ")) for event in events]
        *deltas, last = [chunk["choices"][0] for chunk in chunks if chunk["choices"]]
        assert "".join(one["delta"].get("content") or "" for one in deltas) == "two words"
        calls = [one["delta"]["tool_calls"][0] for one in deltas if "tool_calls" in one["delta"]]
        assert "".join(one["function"]["arguments"] for one in calls) == function["arguments"]
        assert (calls[0]["function"]["name"], last["finish_reason"], done) == ("find", "tool_calls", "data: [DONE]")
        assert chunks[-1]["usage"]["total_tokens"] > 0
