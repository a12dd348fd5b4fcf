"""Prompts into a real Phoenix and out of it: the conformance suite, kills, lost answers, and its official client."""

from __future__ import annotations

import json
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from engine.sandbox import Sandbox, SandboxOptions
from tests.e2e import Served, lines, served, started, wait_for_lines
from tests.real.losing import losing
from tests.real.official import Official
from tests.real.servers import Server
from tests.routes import COLLECTION, LIMITS, MODEL, Lines, Phoenix, Portkey, Route, did, results, route

REWRITE: Final = {"name": "{name|slug}", "provider": {"*": "OPENAI"}}
COUNT: Final = 100
MANY: Final = 250
LOST: Final = 100
PATIENCE_S: Final = 600
KILLS: Final = (3, 11, 24, 40, 7, 55, 1, 32, 18, 60)
"""Lines of the ledger after which the run is ended with kill -9."""


@pytest.fixture
def registry() -> Iterator[Served]:
    with served(SandboxOptions(prompts=0)) as found:
        yield found


def fill(registry: Served, count: int = COUNT) -> None:
    def add(sandbox: Sandbox) -> None:
        for number in range(count):
            chat = [{"role": "system", "content": f"You are {number}"}, {"role": "user", "content": "{{q}}"}]
            text = json.dumps(chat) if number % 2 else f"Hello {{{{ who }}}}, this is {number} ☕"
            parameters = {"temperature": 1, "top_k": 5}
            sandbox.add_prompt(f"P {number}", text, parameters=parameters, model=MODEL, collection=COLLECTION)

    registry.ask(add)


def to_phoenix(folder: Path, registry: Served, url: str, **parts: Any) -> Route:
    return route(folder, registry, Portkey(registry), Phoenix(url), **{"rewrite": REWRITE, **parts})


def none_doubled_none_lost(server: Server, count: int = COUNT) -> None:
    """By its own database: each prompt once, with one version, which has the tag."""
    names = [name for (name,) in server.rows("SELECT name FROM prompts")]
    assert sorted(names) == sorted(f"p-{number}" for number in range(count))
    versions = server.rows("SELECT prompt_id, COUNT(*) FROM prompt_versions GROUP BY prompt_id")
    assert Counter(each for _, each in versions) == {1: count}
    assert server.rows("SELECT name, COUNT(*) FROM prompt_version_tags GROUP BY name") == [("production", count)]


def test_ten_kills_double_nothing_and_lose_nothing(phoenix: Server, registry: Served, tmp_path: Path) -> None:
    fill(registry)
    way = to_phoenix(tmp_path, registry, phoenix.base_url, limits=LIMITS | {"timeout": 60, "concurrency": 4})
    for after in KILLS:
        with started("run", way.path, cwd=way.folder, env=way.environ) as process:
            before = way.ledger.read_bytes().count(b"\n") if way.ledger.exists() else 0
            assert wait_for_lines(way.ledger, before + after, process)
            process.kill()
            assert process.wait() == -signal.SIGKILL
    for _ in range(4):
        last = way.run()
        if did(last) == {"unchanged": COUNT}:
            break
    assert did(last) == {"unchanged": COUNT}
    assert last.summary["requests"]["writes"] == 0
    print(f"a run that writes nothing: {last.summary['requests']}")
    none_doubled_none_lost(phoenix)
    assert way.ask("verify").code == 0


def test_a_hundred_answers_lost_double_nothing(phoenix: Server, registry: Served, tmp_path: Path) -> None:
    fill(registry, MANY)
    with losing(phoenix.base_url, {("POST", "/v1/prompts"): LOST}) as proxy:
        way = to_phoenix(tmp_path, registry, proxy.url, limits=LIMITS | {"timeout": 60, "settle": "2s"})
        assert way.ask("run", patience_s=PATIENCE_S).code == 0
    assert proxy.lost.total() == LOST
    in_doubt = [line for line in lines(way.ledger) if line["kind"] == "unknown"]
    assert len(in_doubt) == LOST
    none_doubled_none_lost(phoenix, MANY)


# ---- its official client ---------------------------------------------------------------------------------------------


def test_what_the_official_client_writes_is_read_whole_and_written_again(
    phoenix_client: Official, phoenix: Server, registry: Served, tmp_path: Path
) -> None:
    """Into a file of lines, and back under other names: the same version, but for its id."""
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}, "strict": True}}
    openai = {
        "model": "gpt-4o",
        "messages": [{"role": "system", "content": "You are {{a}}"}, {"role": "user", "content": "{{b}}"}],
        "temperature": 0.25,
        "tools": [tool],
        "tool_choice": "required",
    }
    anthropic = {"model": "claude", "max_tokens": 9, "system": "S", "messages": [{"role": "user", "content": "{{c}}"}]}
    phoenix_client("create", prompt={"name": "o", "prompt_description": "d", "openai": openai})
    phoenix_client("create", prompt={"name": "a", "prompt_metadata": {"team": [1]}, "anthropic": anthropic})
    there = Phoenix(phoenix.base_url)
    before = {
        name: (row["description"], row["metadata"], there.versions(name)[-1]) for name, row in there.rows().items()
    }
    for folder in ("out", "back"):
        (tmp_path / folder).mkdir()
    files = Lines(tmp_path / "prompts.jsonl")
    out = route(tmp_path / "out", registry, there, files)
    assert did(out.run()) == {"created": 2}
    back = route(tmp_path / "back", registry, files, there, rewrite={"name": "copy-{name}"})
    ended = back.run()
    assert did(ended) == {"created": 2}, ended.err
    rows = there.rows()
    for name, (description, metadata, version) in before.items():
        copy = there.versions(f"copy-{name}")[-1]
        copy["metadata"].pop("promptferry")
        assert {**copy, "id": version["id"]} == {"metadata": {}, **version}
        assert (rows[f"copy-{name}"]["description"], rows[f"copy-{name}"]["metadata"]) == (description, metadata)
    assert results(back.ask("rollback", "--yes", "--json")) == {"a": "deleted", "o": "deleted"}
