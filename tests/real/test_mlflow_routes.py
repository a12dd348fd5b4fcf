"""Prompts from Portkey into a real MLflow and on: every verb, ten `kill -9`, and what its own client makes of them."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import httpx
import pytest

from engine.sandbox import SandboxOptions
from tests.connectors.test_mlflow import MESSAGES
from tests.connectors.test_mlflow_routes import contents, some
from tests.e2e import Served, lines, served, started, wait_for_lines
from tests.real.losing import losing
from tests.real.mlflow_end import Mlflow
from tests.real.official import ClientError, Official
from tests.real.servers import Server
from tests.routes import COLLECTION, LIMITS, MODEL, Folder, Portkey, did, results, route

COUNT: Final = 40
MANY: Final = 150
API: Final = "/api/2.0/mlflow"
LOST: Final = {
    ("POST", f"{API}/registered-models/create"): 34,
    ("POST", f"{API}/model-versions/create"): 33,
    ("POST", f"{API}/registered-models/alias"): 33,
}
"""Answers that a proxy keeps to itself, of each call that a create is made of: 100 in all."""
PATIENCE_S: Final = 600


@pytest.fixture
def registry() -> Iterator[Served]:
    with served(SandboxOptions(prompts=0)) as sandbox:
        yield sandbox


def test_there_and_back_with_every_verb(mlflow: Server, registry: Served, tmp_path: Path) -> None:
    some(registry, COUNT)
    there = Mlflow(mlflow)
    way = route(tmp_path, registry, Portkey(registry), there)
    tested = way.ask("check", "--write-test")
    assert (tested.code, there.count()) == (0, (0, 0, 0)), tested.out
    assert did(way.run()) == {"created": COUNT}
    assert there.count() == (COUNT, COUNT, COUNT)
    assert there.texts() == {one["name"]: one["string"] for one in registry.prompts()}
    assert did(way.run()) == {"unchanged": COUNT}
    assert set(results(way.ask("verify", "--json")).values()) == {"same"}

    for name in ("files", "back"):
        (tmp_path / name).mkdir()
    files = route(tmp_path / "files", registry, there, Folder(tmp_path / "files" / "prompts"))
    assert did(files.run()) == {"created": COUNT}
    assert did(files.run()) == {"unchanged": COUNT}
    back = route(tmp_path / "back", registry, there, Portkey(registry, "copy"))
    assert did(back.run()) == {"created": COUNT}
    assert contents(registry.prompts("copy")) == contents(registry.prompts())

    assert way.ask("rollback", "--yes").code == 0
    assert there.count() == (0, 0, 0)


def test_ten_kills_double_nothing_and_lose_nothing(mlflow: Server, registry: Served, tmp_path: Path) -> None:
    some(registry, COUNT)
    there = Mlflow(mlflow)
    way = route(tmp_path, registry, Portkey(registry), there)
    kills = 0
    for more in (1, 2, 3, 5, 8, 4, 6, 2, 7, 3):
        written = len(lines(way.ledger)) if way.ledger.exists() else 0
        with started("run", way.path, cwd=way.folder, env=way.environ) as process:
            wait_for_lines(way.ledger, written + more, process)
            process.kill()
            kills += process.wait() == -signal.SIGKILL
    assert kills > 5
    ended = way.run()
    assert ended.code == 0, ended.err
    assert there.count() == (COUNT, COUNT, COUNT)
    assert there.texts() == {one["name"]: one["string"] for one in registry.prompts()}
    assert set(results(way.ask("verify", "--json")).values()) == {"same"}
    assert did(way.run()) == {"unchanged": COUNT}


def test_a_hundred_answers_lost_double_nothing(mlflow: Server, registry: Served, tmp_path: Path) -> None:
    some(registry, MANY)
    there = Mlflow(mlflow)
    with losing(mlflow.base_url, LOST) as proxy:
        limits = LIMITS | {"timeout": 60, "settle": "2s"}
        way = route(tmp_path, registry, Portkey(registry), Mlflow(mlflow, proxy.url), limits=limits)
        ended = way.ask("run", patience_s=PATIENCE_S)
        assert (ended.code, did(ended)) == (0, {"created": MANY})
        assert proxy.lost == LOST
        assert did(way.ask("run", patience_s=PATIENCE_S)) == {"unchanged": MANY}
    assert there.count() == (MANY, MANY, MANY)
    assert there.texts() == {one["name"]: one["string"] for one in registry.prompts()}


def test_its_own_client_loads_and_fills_in_what_was_written(
    mlflow: Server, mlflow_client: Official, registry: Served, tmp_path: Path
) -> None:
    some(registry, COUNT)
    assert route(tmp_path, registry, Portkey(registry), Mlflow(mlflow)).run().code == 0
    for one in registry.prompts():
        found = mlflow_client("load", uri=f"prompts:/{one['name']}@production")
        assert (found["version"], found["aliases"], found["variables"]) == (1, ["production"], ["who"])
        is_chat = one["string"].startswith("[")
        assert found["template"] == (json.loads(one["string"]) if is_chat else one["string"])
        assert (found["commit_message"], found["response_format"]) == ("why", {"type": "json_object"})
        config = found["model_config"]
        assert (config["model_name"], config["stop_sequences"], config["seed"]) == (MODEL, ["###"], 2**70)
        assert config["tools"] == one["tools"]
        filled = mlflow_client("render", uri=f"prompts:/{one['name']}/1", values={"who": "you"})
        assert (filled[0]["content"] if is_chat else filled).startswith("Hello you, this is ")
    assert len(mlflow_client("search", filter_string=f"tags.collection = '{COLLECTION}'")) == COUNT


def test_what_its_own_client_writes_is_read(
    mlflow: Server, mlflow_client: Official, registry: Served, tmp_path: Path
) -> None:
    chat = [{"role": "system", "content": "You are {{ who }}."}, {"role": "user", "content": "{{ question }}"}]
    model = {"provider": "openai", "model_name": "gpt-4o", "temperature": 0.1, "stop_sequences": ["x"]}
    for text, why in (("Hi {{ who }}", "first"), ("Hello {{ who }}", "second")):
        mlflow_client(
            "register", prompt={"name": "text", "template": text, "commit_message": why, "model_config": model}
        )
    mlflow_client(
        "register", prompt={"name": "chat", "template": chat, "model_config": model, "tags": {"team": "docs"}}
    )
    mlflow_client("set_alias", name="text", alias="production", version=1)
    way = route(
        tmp_path,
        registry,
        Mlflow(mlflow),
        Portkey(registry),
        rewrite={"name": "{name}", "collection": "sales", "provider": "anthropic-prod"},
    )
    assert did(way.run()) == {"created": 2}
    found = contents(registry.prompts())
    assert (found["text"]["string"], found["text"]["prompt_version_description"]) == ("Hi {{ who }}", "first")
    assert json.loads(found["chat"]["string"]) == chat
    assert found["chat"]["parameters"] == {"temperature": 0.1, "stop": ["x"], "model": "gpt-4o"}
    assert (found["chat"]["virtual_key"], found["chat"]["metadata"]) == ("anthropic-prod", {"team": "docs"})


def test_its_client_loads_the_messages_that_are_taken_for_loadable(mlflow: Server, mlflow_client: Official) -> None:
    is_prompt = {"key": "mlflow.prompt.is_prompt", "value": "true"}
    for number, (message, loads) in enumerate(MESSAGES):
        name, text = f"m{number}", json.dumps([{"role": "user", **message}])
        tags = [
            is_prompt,
            {"key": "mlflow.prompt.text", "value": text},
            {"key": "_mlflow_prompt_type", "value": "chat"},
        ]
        for path, body in (
            ("registered-models", {"name": name, "tags": [is_prompt]}),
            ("model-versions", {"name": name, "source": "dummy-source", "tags": tags}),
        ):
            url = f"{mlflow.base_url}/api/2.0/mlflow/{path}/create"
            httpx.post(url, json=body, trust_env=False, timeout=60).raise_for_status()
        try:
            mlflow_client("load", uri=f"prompts:/{name}/1")
        except ClientError:
            assert not loads, message
        else:
            assert loads, message
