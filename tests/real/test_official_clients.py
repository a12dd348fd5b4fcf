"""What the official clients say, and what they make of versions that came by REST as a connector writes them."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from tests.real import record
from tests.real.official import ClientError, Official
from tests.real.servers import Server


@pytest.fixture
def mlflow_rest(mlflow: Server) -> Any:
    """Writes a prompt of one version with these tags."""

    def write(name: str, **tags: str) -> None:
        given = [{"key": key, "value": value} for key, value in {"mlflow.prompt.is_prompt": "true", **tags}.items()]
        for path, more in (("registered-models", {}), ("model-versions", {"source": "dummy-source"})):
            url = f"{mlflow.base_url}/api/2.0/mlflow/{path}/create"
            body = {"name": name, "tags": given if more else given[:1], **more}
            httpx.post(url, json=body, trust_env=False, timeout=60).raise_for_status()

    return write


def phoenix_rest(server: Server, name: str, content: Any, **version: Any) -> None:
    """Writes a prompt of one message."""
    known = {
        "model_provider": "OPENAI",
        "model_name": "gpt-4o",
        "template_type": "CHAT",
        "template_format": "MUSTACHE",
        "template": {"type": "chat", "messages": [{"role": "user", "content": content}]},
        "invocation_parameters": {"type": "openai", "openai": {"temperature": 0.5}},
    }
    body = {"prompt": {"name": name}, "version": known | version}
    httpx.post(f"{server.base_url}/v1/prompts", json=body, trust_env=False, timeout=60).raise_for_status()


# ---- what they say ---------------------------------------------------------------------------------------------------


def test_mlflow_says_what_was_recorded(mlflow_client: Official, mlflow: Server) -> None:
    assert record.mlflow(mlflow_client, mlflow) == json.loads((record.BODIES / "mlflow.json").read_text("utf-8"))


def test_phoenix_says_what_was_recorded(phoenix_client: Official, phoenix: Server) -> None:
    assert record.phoenix(phoenix_client, phoenix) == json.loads((record.BODIES / "phoenix.json").read_text("utf-8"))


def test_recordings_are_written_as_they_were_read() -> None:
    for path in record.BODIES.glob("*.json"):
        assert record.written(json.loads(path.read_text("utf-8"))) == path.read_text("utf-8")


# ---- what they read: MLflow ------------------------------------------------------------------------------------------


def test_mlflow_loads_a_text_with_all_that_belongs_to_it(mlflow_client: Official, mlflow_rest: Any) -> None:
    mlflow_rest(
        "a",
        **{
            "mlflow.prompt.text": "Hi {{ name }}, {{user.mood}}?",
            "_mlflow_prompt_type": "text",
            "_mlflow_prompt_response_format": json.dumps({"type": "object"}),
            "_mlflow_prompt_model_config": json.dumps({"model_name": "m", "temperature": -1, "tools": [{"any": None}]}),
            "promptferry.mark": "x",
        },
    )
    mlflow_client("set_alias", name="a", alias="production", version=1)
    for uri in ("prompts:/a/1", "prompts:/a@production", "prompts:/a@latest"):
        found = mlflow_client("load", uri=uri)
        assert found["template"] == "Hi {{ name }}, {{user.mood}}?"
        assert (found["is_text"], found["variables"]) == (True, ["name", "user.mood"])
        assert found["response_format"] == {"type": "object"}
        assert found["model_config"] == {"model_name": "m", "temperature": -1, "tools": [{"any": None}]}
        assert found["tags"] == {"promptferry.mark": "x"}
    values = {"name": "Ann", "user.mood": r"\d"}
    assert mlflow_client("render", uri="prompts:/a/1", values=values) == r"Hi Ann, \d?"


MESSAGES = [
    {"role": "system", "content": "You are {{ persona }}."},
    {"role": "function", "name": "f", "content": "{{ x }}"},
]


def test_mlflow_loads_a_chat_whole_and_renders_roles_and_contents(mlflow_client: Official, mlflow_rest: Any) -> None:
    mlflow_rest("a", **{"mlflow.prompt.text": json.dumps(MESSAGES), "_mlflow_prompt_type": "chat"})
    assert mlflow_client("load", uri="prompts:/a/1")["template"] == MESSAGES
    rendered = mlflow_client("render", uri="prompts:/a/1", values={"persona": "kind", "x": 1})
    assert rendered == [{"role": "system", "content": "You are kind."}, {"role": "function", "content": "1"}]


def test_mlflow_takes_messages_without_their_type_for_a_text(mlflow_client: Official, mlflow_rest: Any) -> None:
    mlflow_rest("a", **{"mlflow.prompt.text": json.dumps(MESSAGES)})
    found = mlflow_client("load", uri="prompts:/a/1")
    assert (found["is_text"], found["template"]) == (True, json.dumps(MESSAGES))


@pytest.mark.parametrize(
    "content",
    [[{"type": "text", "text": "{{ x }}"}], [{"type": "image_url", "image_url": {"url": "u"}}], None],
)
def test_mlflow_loads_messages_that_it_cannot_render(
    mlflow_client: Official, mlflow_rest: Any, content: list[Any] | None
) -> None:
    messages = [{"role": "user", "content": content}]
    mlflow_rest("a", **{"mlflow.prompt.text": json.dumps(messages), "_mlflow_prompt_type": "chat"})
    assert mlflow_client("load", uri="prompts:/a/1")["template"] == messages
    with pytest.raises(ClientError, match="TypeError"):
        mlflow_client("render", uri="prompts:/a/1", values={"x": "y"})


@pytest.mark.parametrize(
    "template",
    [
        "{{ prompt }}",
        "{{ self }}",
        [{"role": "user", "content": "{{ prompt }}"}],
        [{"role": "user", "content": [{"type": "text", "text": "{{ x }}"}]}],
    ],
)
def test_mlflow_cannot_fill_in_all_that_it_makes_by_itself(mlflow_client: Official, template: Any) -> None:
    """What its own client has written, read, and fails at: the names are those of its own arguments."""
    mlflow_client("register", prompt={"name": "a", "template": template})
    found = mlflow_client("load", uri="prompts:/a/1")
    assert found["template"] == template
    with pytest.raises(ClientError, match="TypeError"):
        mlflow_client("render", uri="prompts:/a/1", values=dict.fromkeys((*found["variables"], "x"), "y"))


@pytest.mark.parametrize("name", ["allow_partial", "use_jinja_sandbox"])
def test_mlflow_takes_some_variables_for_its_own_settings(mlflow_client: Official, name: str) -> None:
    mlflow_client("register", prompt={"name": "a", "template": f"{{{{ {name} }}}}"})
    with pytest.raises(ClientError, match=r"Missing variables|PromptVersion is not JSON serializable"):
        mlflow_client("render", uri="prompts:/a/1", values={name: "y"})


@pytest.mark.parametrize(
    "messages", ['[{"role": "user", "content": [{"type": "tool_result"}]}]', '[{"content": "x"}]', "x"]
)
def test_mlflow_does_not_load_messages_that_are_none(mlflow_client: Official, mlflow_rest: Any, messages: str) -> None:
    """The server takes them: what its client refuses must be refused before it is sent."""
    mlflow_rest("a", **{"mlflow.prompt.text": messages, "_mlflow_prompt_type": "chat"})
    with pytest.raises(ClientError):
        mlflow_client("load", uri="prompts:/a/1")


def test_mlflow_renders_jinja_and_wants_all_variables(mlflow_client: Official, mlflow_rest: Any) -> None:
    mlflow_rest("jinja", **{"mlflow.prompt.text": "{% if x %}{{ x }}{% else %}none{% endif %}"})
    assert mlflow_client("render", uri="prompts:/jinja/1", values={"x": "y"}) == "y"
    assert mlflow_client("render", uri="prompts:/jinja/1", values={}) == "none"
    mlflow_rest("plain", **{"mlflow.prompt.text": "{{ x }} {y} {{{z}}}"})
    assert mlflow_client("render", uri="prompts:/plain/1", values={"x": "y", "z": "w"}) == "y {y} {w}"
    with pytest.raises(ClientError, match="Missing variables"):
        mlflow_client("render", uri="prompts:/plain/1", values={"x": "y"})


@pytest.mark.parametrize("name", ["a b", "ü", "a'b", "a@b"])
def test_mlflow_refuses_names_that_its_server_takes(mlflow_client: Official, name: str) -> None:
    with pytest.raises(ClientError, match="alphanumeric"):
        mlflow_client("register", prompt={"name": name, "template": "x"})


# ---- what they read: Phoenix -----------------------------------------------------------------------------------------


def test_phoenix_loads_and_renders_what_came_by_rest(phoenix_client: Official, phoenix: Server) -> None:
    phoenix_rest(phoenix, "a", "Hi {{ name }}")
    found = phoenix_client("load", prompt_identifier="a")
    assert found["template"] == {"type": "chat", "messages": [{"role": "user", "content": "Hi {{ name }}"}]}
    rendered = phoenix_client("render", values={"name": r"\d"}, prompt_identifier="a")
    assert rendered == {"model": "gpt-4o", "temperature": 0.5, "messages": [{"role": "user", "content": r"Hi \d"}]}


@pytest.mark.parametrize(
    ("template_format", "text", "rendered"),
    [
        ("MUSTACHE", "{{x}} {{ x }} {x} {{a.b}} {{#x}}{{/x}}", "y y {x} {{a.b}} {{#x}}{{/x}}"),
        ("MUSTACHE", r"\{{x}} {{{x}}} {{&x}}", r"\{{x}} {y} {{&x}}"),
        ("F_STRING", "{x} {{x}}", "y {x}"),
        ("NONE", "{{x}} {x}", "{{x}} {x}"),
    ],
)
def test_phoenix_renders_names_and_nothing_else(
    phoenix_client: Official, phoenix: Server, template_format: str, text: str, rendered: str
) -> None:
    """Sections, paths and unescaped variables of mustache stay as they stand; a backslash before one protects it."""
    phoenix_rest(phoenix, "a", text, template_format=template_format)
    found = phoenix_client("render", values={"x": "y"}, prompt_identifier="a")
    assert found["messages"] == [{"role": "user", "content": rendered}]


@pytest.mark.parametrize(
    ("role", "rendered"),
    [("system", "system"), ("developer", "developer"), ("user", "user"), ("ai", "assistant"), ("model", "assistant")],
)
def test_phoenix_renders_roles_as_openai_has_them(
    phoenix_client: Official, phoenix: Server, role: str, rendered: str
) -> None:
    template = {"type": "chat", "messages": [{"role": role, "content": "{{x}}"}]}
    phoenix_rest(phoenix, "a", "", template=template)
    found = phoenix_client("render", values={"x": "y"}, prompt_identifier="a")
    assert found["messages"] == [{"role": rendered, "content": "y"}]


ANTHROPIC = {
    "model_provider": "ANTHROPIC",
    "invocation_parameters": {"type": "anthropic", "anthropic": {"max_tokens": 5}},
}


def test_phoenix_leaves_variables_in_what_anthropic_calls_system(phoenix_client: Official, phoenix: Server) -> None:
    messages = [{"role": "system", "content": "{{x}}"}, {"role": "user", "content": "{{x}}"}]
    phoenix_rest(phoenix, "a", "", template={"type": "chat", "messages": messages}, **ANTHROPIC)
    found = phoenix_client("render", values={"x": "y"}, prompt_identifier="a")
    assert (found["system"], found["messages"]) == ("{{x}}", [{"role": "user", "content": "y"}])


def test_phoenix_fills_in_what_anthropic_calls_system_when_it_is_a_part(
    phoenix_client: Official, phoenix: Server
) -> None:
    messages = [{"role": "system", "content": [{"type": "text", "text": "{{x}}"}]}, {"role": "user", "content": "x"}]
    phoenix_rest(phoenix, "a", "", template={"type": "chat", "messages": messages}, **ANTHROPIC)
    assert phoenix_client("render", values={"x": "y"}, prompt_identifier="a")["system"] == "y"


def test_phoenix_leaves_them_in_what_it_wrote_itself(phoenix_client: Official, phoenix: Server) -> None:
    call = {"model": "m", "max_tokens": 5, "system": "{{x}}", "messages": [{"role": "user", "content": "{{x}}"}]}
    phoenix_client("create", prompt={"name": "a", "anthropic": call})
    found = phoenix_client("render", values={"x": "y"}, prompt_identifier="a")
    assert (found["system"], found["messages"]) == ("{{x}}", [{"role": "user", "content": "y"}])


DEVELOPER = [{"role": "developer", "content": "{{x}}"}]
USER = [{"role": "user", "content": "{{x}}"}]


@pytest.mark.parametrize(
    ("provider", "messages"), [("ANTHROPIC", DEVELOPER), ("GOOGLE", DEVELOPER), ("AWS", USER), ("AWS", DEVELOPER)]
)
def test_phoenix_loads_what_it_wrote_itself_and_cannot_render_it(
    phoenix_client: Official, phoenix: Server, provider: str, messages: list[Any]
) -> None:
    """Its client has no way for AWS at all, and for two others none for that role: nothing of ours is missing. For AWS
    it renders when it is told for whose library.
    """
    more = {"model_name": "m", "model_provider": provider}
    phoenix_client("create", prompt={"name": "a", "messages": messages, "more": more})
    assert phoenix_client("load", prompt_identifier="a")["template"]["messages"] == messages
    # what Phoenix's own client raises where it has no way to render for a provider
    with pytest.raises(ClientError, match="NotImplementedError"):
        phoenix_client("render", values={"x": "y"}, prompt_identifier="a")
    found = phoenix_client("render", values={"x": "y"}, prompt_identifier="a", sdk="openai")
    assert found["messages"] == [{**messages[0], "content": "y"}]


def test_phoenix_renders_objects_of_google(phoenix_client: Official, phoenix: Server) -> None:
    google = {"model_provider": "GOOGLE", "invocation_parameters": {"type": "google", "google": {}}}
    phoenix_rest(phoenix, "a", "{{x}}", **google)
    found = phoenix_client("render", values={"x": "y"}, prompt_identifier="a")
    assert found["messages"] == [{"role": "user", "parts": [{"text": "y"}]}]


def test_phoenix_wants_all_variables(phoenix_client: Official, phoenix: Server) -> None:
    phoenix_rest(phoenix, "a", "{{x}}")
    with pytest.raises(ClientError, match=r"Missing template variable\(s\): x"):
        phoenix_client("render", values={}, prompt_identifier="a")


def test_phoenix_renders_parts_and_tools(phoenix_client: Official, phoenix: Server) -> None:
    tools = {"type": "tools", "tools": [{"type": "function", "function": {"name": "f"}}]}
    phoenix_rest(phoenix, "a", [{"type": "text", "text": "{{x}}"}, {"type": "text", "text": "b"}], tools=tools)
    found = phoenix_client("render", values={"x": "y"}, prompt_identifier="a")
    parts = [{"type": "text", "text": "y"}, {"type": "text", "text": "b"}]
    assert found["messages"] == [{"role": "user", "content": parts}]
    assert found["tools"] == [{"type": "function", "function": {"name": "f"}}]


# ---- many at once ----------------------------------------------------------------------------------------------------


def test_mlflow_registers_each_once_with_threads(mlflow_client: Official, mlflow: Server) -> None:
    prompts = [{"name": f"n{number}", "template": "x"} for number in range(8)]
    took = mlflow_client("register_all", prompts=prompts, threads=4)
    assert len(took["each"]) == 8
    assert mlflow.rows("SELECT count(*), count(DISTINCT name) FROM model_versions") == [(8, 8)]


def test_phoenix_creates_each_once_with_threads(phoenix_client: Official, phoenix: Server) -> None:
    message = {"role": "user", "content": "x"}
    prompts = [{"name": f"n{number}", "messages": [message], "more": {"model_name": "m"}} for number in range(8)]
    took = phoenix_client("create_all", prompts=prompts, threads=4)
    assert len(took["each"]) == 8
    assert phoenix.rows("SELECT count(*), count(DISTINCT prompt_id) FROM prompt_versions") == [(8, 8)]
