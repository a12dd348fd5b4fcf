"""The servers themselves: what is killed is gone, what was committed stays, what does not come up says why."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from tests.real import servers
from tests.real.servers import MLFLOW, PHOENIX, NotReady, Registry, Server, running


def create(server: Server, name: str) -> None:
    """A prompt, or the first half of one."""
    prompt: dict[str, object] = {"name": name, "tags": [{"key": "mlflow.prompt.is_prompt", "value": "true"}]}
    path = "/api/2.0/mlflow/registered-models/create"
    if server.registry is PHOENIX:
        path = "/v1/prompts"
        template = {"type": "chat", "messages": [{"role": "user", "content": "Hi"}]}
        kind = {"template_type": "CHAT", "template_format": "NONE", "model_provider": "OPENAI", "model_name": "m"}
        parameters = {"type": "openai", "openai": {}}
        prompt = {
            "prompt": {"name": name},
            "version": {**kind, "template": template, "invocation_parameters": parameters},
        }
    httpx.post(server.base_url + path, json=prompt, trust_env=False, timeout=60).raise_for_status()


def names(server: Server) -> list[str]:
    """By its own database."""
    return [name for (name,) in server.rows(f"SELECT name FROM {server.registry.tables[-1]} ORDER BY name")]


def alive(group: int) -> list[int]:
    """Processes of the group that run: one that ended and that nobody waited for is none."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, its_group = stat.read_text().rpartition(")")[2].split()[:3]
        except FileNotFoundError:
            continue
        if int(its_group) == group and state not in "ZX":
            found.append(int(stat.parent.name))
    return found


@pytest.mark.parametrize("registry", [MLFLOW, PHOENIX], ids=lambda registry: registry.name)
def test_a_server_that_was_killed_goes_on_with_what_it_had(registry: Registry, tmp_path: Path) -> None:
    with running(registry, tmp_path) as server:
        create(server, "before")
        address, group = server.base_url, server.pid
        assert alive(group)
        server.kill()
        assert alive(group) == []
        assert names(server) == ["before"]
        server.start()
        create(server, "after")
        assert (server.base_url, names(server)) == (address, ["after", "before"])
        group = server.pid
    assert alive(group) == []


@pytest.mark.parametrize("which", ["mlflow", "phoenix"])
def test_an_emptied_server_is_as_a_new_one(which: str, request: pytest.FixtureRequest) -> None:
    server: Server = request.getfixturevalue(which)
    create(server, "a")
    server.empty()
    assert names(server) == []
    create(server, "a")
    assert names(server) == ["a"]


def failing(code: str) -> Registry:
    return replace(MLFLOW, name="it", command=lambda _place: (sys.executable, "-c", code))


def test_one_that_ends_says_what_its_log_says(tmp_path: Path) -> None:
    with (
        pytest.raises(NotReady, match=r"(?s)it ended with 3 before it answered:\nthe disk is full"),
        running(failing("print('the disk is full', flush=True); raise SystemExit(3)"), tmp_path),
    ):
        pass


def test_one_that_never_answers_is_given_up_and_ended(tmp_path: Path) -> None:
    code = "import os, time; os.fork(); print('thinking', flush=True); time.sleep(600)"
    server = Server(failing(code), tmp_path, patience_s=1)
    with pytest.raises(NotReady, match=r"(?s)it was not up after 1 s:\n.*thinking"):
        server.start()
    assert alive(server.pid) == []


def test_one_that_was_not_made_says_how(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "ROOT", tmp_path)
    with pytest.raises(NotReady, match="run `make servers`"), running(MLFLOW, tmp_path):
        pass


def test_nothing_of_the_user_reaches_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLFLOW_TRACKING_URI", "PHOENIX_API_KEY", "PYTHONPATH", "https_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, "theirs")
    assert "theirs" not in servers.surroundings().values()
    assert servers.surroundings()["PATH"] == os.environ["PATH"]
