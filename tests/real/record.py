"""What the official clients send and read, call by call, as files: `python -m tests.real.record` writes them anew.

Whoever writes a connector compares with `bodies/`; test_official_clients.py holds the files to the clients of today.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from tests.real.official import Official, official
from tests.real.recorder import Recorder, recording
from tests.real.servers import MLFLOW, PHOENIX, Server, running

BODIES: Final = Path(__file__).with_name("bodies")
CHANGES: Final = frozenset({"creation_timestamp", "last_updated_timestamp"})
"""Fields that are another at each time."""

Call = tuple[str, str, Mapping[str, Any]]
"""Title, function of the client's script, arguments."""

CHAT: Final = [
    {"role": "system", "content": "You are {{ persona }}."},
    {"role": "user", "content": "{{ question }}"},
]
SCHEMA: Final = {"type": "object", "properties": {"answer": {"type": "string"}}, "required": ["answer"]}
OPENAI: Final = {
    "model": "gpt-4o",
    "temperature": 0.1,
    "max_completion_tokens": 100,
    "stop": ["x"],
    "messages": [
        {"role": "system", "content": "You are {{ persona }}."},
        {"role": "user", "content": "{{ question }}"},
    ],
    "tools": [{"type": "function", "function": {"name": "look_up", "parameters": SCHEMA}}],
    "tool_choice": "auto",
    "response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA}},
}
ANTHROPIC: Final = {
    "model": "claude-sonnet-4",
    "max_tokens": 100,
    "temperature": 0.1,
    "system": "You are {{ persona }}.",
    "messages": [{"role": "user", "content": "{{ question }}"}],
    "tools": [{"name": "look_up", "input_schema": SCHEMA}],
    "tool_choice": {"type": "any"},
}
MLFLOW_CALLS: Final[Sequence[Call]] = (
    ("register_prompt, text", "register", {"prompt": {"name": "text", "template": "Hi {{ name }}"}}),
    (
        "register_prompt, a second version, with all there is",
        "register",
        {
            "prompt": {
                "name": "text",
                "template": "Hello {{ name }}",
                "commit_message": "kinder",
                "tags": {"team": "support"},
                "response_format": SCHEMA,
                "model_config": {
                    "provider": "openai",
                    "model_name": "gpt-4o",
                    "temperature": 0.1,
                    "max_tokens": 100,
                    "top_p": 0.9,
                    "top_k": 5,
                    "frequency_penalty": 0.1,
                    "presence_penalty": 0.2,
                    "stop_sequences": ["x"],
                    "seed": 3,
                },
            }
        },
    ),
    (
        "register_prompt, chat, with all there is",
        "register",
        {
            "prompt": {
                "name": "chat",
                "template": CHAT,
                "commit_message": "first",
                "tags": {"team": "support"},
                "response_format": SCHEMA,
                "model_config": {"model_name": "gpt-4o"},
            }
        },
    ),
    ("load_prompt by version", "load", {"uri": "prompts:/text/2"}),
    ("set_prompt_alias", "set_alias", {"name": "text", "alias": "production", "version": 2}),
    ("load_prompt by alias", "load", {"uri": "prompts:/text@production"}),
    ("load_prompt, latest", "load", {"uri": "prompts:/chat@latest"}),
    ("delete_prompt_alias", "delete_alias", {"name": "text", "alias": "production"}),
    ("search_prompts", "search", {}),
    ("search_prompt_versions", "versions", {"name": "text"}),
)
PHOENIX_CALLS: Final[Sequence[Call]] = (
    (
        "prompts.create, a message",
        "create",
        {
            "prompt": {
                "name": "text",
                "messages": [{"role": "user", "content": "Hi {{ name }}"}],
                "more": {"model_name": "m"},
            }
        },
    ),
    (
        "prompts.create, from OpenAI, with all there is",
        "create",
        {
            "prompt": {
                "name": "chat",
                "prompt_description": "answers",
                "prompt_metadata": {"team": "support"},
                "openai": OPENAI,
                "more": {"description": "first"},
            }
        },
    ),
    (
        "prompts.create, from Anthropic: a second version",
        "create",
        {"prompt": {"name": "chat", "anthropic": ANTHROPIC}},
    ),
    ("prompts.get by name", "load", {"prompt_identifier": "chat"}),
    ("prompts.tags.create", "set_tag", {"prompt_version_id": "UHJvbXB0VmVyc2lvbjoy", "name": "production"}),
    ("prompts.tags.list", "tags", {"prompt_version_id": "UHJvbXB0VmVyc2lvbjoy"}),
    ("prompts.get by tag", "load", {"prompt_identifier": "chat", "tag": "production"}),
    ("prompts.get by id", "load", {"prompt_version_id": "UHJvbXB0VmVyc2lvbjox"}),
    (
        "prompts.update",
        "update",
        {"prompt_identifier": "chat", "prompt_description": "better", "prompt_metadata": {"team": "sales"}},
    ),
    ("prompts.delete", "delete", {"prompt_identifier": "text"}),
)


def recorded(calls: Sequence[Call], client: Official, recorder: Recorder) -> list[dict[str, Any]]:
    """Each call with what it returned and what went over the wire for it, without what differs each time."""
    found = []
    for title, do, arguments in calls:
        returned = client(do, **arguments)
        wire = [_steady(asdict(exchange)) for exchange in recorder.take()]
        found.append({"call": title, "arguments": arguments, "returned": returned, "wire": wire})
    return found


def written(calls: Sequence[Mapping[str, Any]]) -> str:
    """A file of them, an exchange a line."""
    return "[\n" + ",\n".join(map(_lines, calls)) + "\n]\n"


def _lines(call: Mapping[str, Any]) -> str:
    fields = [f"{_compact(name)}: {_compact(value)}" for name, value in call.items() if name != "wire"]
    exchanges = ",\n   ".join(map(_compact, call["wire"]))
    return " {" + ",\n  ".join([*fields, f'"wire": [\n   {exchanges}]']) + "}"


def _compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _steady(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: 0 if key in CHANGES else _steady(inner) for key, inner in value.items()}
    return [_steady(inner) for inner in value] if isinstance(value, list) else value


def mlflow(client: Official, server: Server) -> list[dict[str, Any]]:
    """At a server without prompts."""
    with recording(server.base_url) as recorder:
        return recorded(MLFLOW_CALLS, client.at(recorder.base_url), recorder)


def phoenix(client: Official, server: Server) -> list[dict[str, Any]]:
    """At a server without prompts."""
    with recording(server.base_url) as recorder:
        return recorded(PHOENIX_CALLS, client.at(recorder.base_url), recorder)


def main() -> None:
    """Writes `bodies/`."""
    for registry, record in ((MLFLOW, mlflow), (PHOENIX, phoenix)):
        with (
            tempfile.TemporaryDirectory() as folder,
            running(registry, Path(folder)) as server,
            official(registry.name, server.base_url, Path(folder)) as client,
        ):
            text = written(record(client, server))
            (BODIES / f"{registry.name}.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
