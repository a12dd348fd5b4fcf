"""Each file of configs/ is run as it is, but for addresses and pace: check, plan, run, verify, and again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from operator import methodcaller
from pathlib import Path
from typing import Any, Final

import pytest
from langchain_core.load import dumps
from langchain_core.prompts import PromptTemplate
from ruamel.yaml import YAML

from engine.sandbox import Sandbox
from tests.config.test_config import CONFIGS
from tests.connectors.test_mlflow_routes import Mlflow
from tests.e2e import Ended, promptferry
from tests.routes import KEY_ID, LIMITS, MODEL, Conductor, End, Folder, Langfuse, Phoenix, Portkey, mustache, results
from tests.stand_ins import StandIns, stand_ins

READY: Final = [path for path in CONFIGS if path.stem != "sandbox"]
"""The sandbox is run by other tests, with its own 200 prompts."""
COLLECTIONS: Final = ("from-langfuse", "from-mlflow", "from-conductor", "sales-2026")
"""What the files say is there."""
TEXTS: Final = {"Refund reply": "Hello <name>, about <order>.", "Plain one": "No variable at all."}
SAFE: Final = {"refund-reply": TEXTS["Refund reply"], "plain-one": TEXTS["Plain one"]}
CHAT: Final = [{"role": "system", "content": "Be {{tone}}."}, {"role": "user", "content": "{{question}}"}]
FIELDS: Final[dict[str, Any]] = {"model": MODEL, "collection": "sales", "parameters": {"max_tokens": 1024}}
"""Of Portkey's: Phoenix wants that parameter of models of Anthropic."""
MODEL_CONFIG: Final = {"_mlflow_prompt_model_config": '{"provider": "openai", "model_name": "gpt-4o"}'}
STRICT: Final = ("mlflow", "phoenix")
"""Their names are no ordinary ones."""


def data_of(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    return found


def env_of(there: StandIns) -> dict[str, str]:
    """What the files call the keys."""
    env = there.env
    return {
        "PORTKEY_API_KEY": env["KEY"],
        "PORTKEY_TARGET_API_KEY": env["COPY_KEY"],
        "CONDUCTOR_KEY_ID": KEY_ID,
        "CONDUCTOR_KEY_SECRET": env["KEY_SECRET"],
        "LANGFUSE_PUBLIC_KEY": env["PUBLIC"],
        "LANGFUSE_SECRET_KEY": env["SECRET"],
    }


def moved(end: Mapping[str, Any], there: StandIns) -> dict[str, Any]:
    """The end of a file with the address of a stand-in; a path stays, beside the file."""
    known = there.part(end["kind"])
    return {**end, **({"base_url": known["base_url"]} if "base_url" in known else {})}


def plant(source: End, kind: str) -> int:
    """Texts that every registry can say, and a chat where there are chats; how many."""
    texts = SAFE if kind in STRICT else TEXTS
    for name, text in texts.items():
        if isinstance(source, Mlflow):
            source.server.ask(methodcaller("plant", name, mustache(text), **MODEL_CONFIG))
        elif isinstance(source, Portkey):
            source.registry.ask(partial(Sandbox.add_prompt, name=name, string=mustache(text), **FIELDS))
        elif isinstance(source, Langfuse):
            source.add(name, text, config={"model": "gpt-4o", "temperature": 0.5})
        else:
            source.add(name, text)
    return len(texts) + plant_chat(source)


def plant_export(folder: Path) -> int:
    """The same texts as LangChain itself writes its prompts; how many."""
    folder.mkdir()
    for name, text in TEXTS.items():
        template = PromptTemplate.from_template(text.replace("<", "{").replace(">", "}"))
        (folder / f"{name}.json").write_text(dumps(template))
    return len(TEXTS)


def plant_chat(source: End) -> int:
    """0: there are none."""
    if isinstance(source, Langfuse):
        source.add("Chat", "", type="chat", prompt=CHAT, config={"model": "gpt-4o"})
    elif isinstance(source, Portkey):
        source.registry.ask(partial(Sandbox.add_prompt, name="Chat", string=json.dumps(CHAT), **FIELDS))
    elif isinstance(source, Phoenix):
        source.add("chat", "", template={"type": "chat", "messages": CHAT})
    else:
        return 0
    return 1


def surround(there: StandIns) -> None:
    """What the files say is at the target."""
    for name in COLLECTIONS:
        there.registry.call("POST", "/collections", {"name": name})
    there.registry.ask(lambda sandbox: sandbox.add_integration(f"anthropic:{MODEL}"))


def names(end: End) -> list[str]:
    """Of all prompts that are there; each once."""
    if isinstance(end, Portkey | Langfuse | Conductor):
        return [*end.prompts()]
    return [*end.models()] if isinstance(end, Mlflow) else [*end.rows()] if isinstance(end, Phoenix) else [*end.texts()]


@pytest.mark.parametrize("path", READY, ids=lambda path: path.stem)
def test_a_ready_file_runs_from_check_to_verify(path: Path, tmp_path: Path) -> None:
    data = data_of(path)
    source_kind, target_kind = data["source"]["kind"], data.get("target", data["source"])["kind"]
    copy = source_kind == target_kind and "target" in data
    with stand_ins(tmp_path) as there:
        env = env_of(there)  # the second workspace is there from now on
        surround(there)
        data["source"] = moved(data["source"], there)
        if "target" in data:
            data["target"] = moved(data["target"], there)
        ready = tmp_path / path.name
        ready.write_text(json.dumps({**data, "limits": {**data.get("limits", {}), **LIMITS}}))
        if data["source"].get("format") == "langchain":
            count = plant_export(tmp_path / data["source"]["path"])
        else:
            source = Folder(tmp_path / data["source"]["path"]) if source_kind == "files" else there.end(source_kind)
            count = plant(source, source_kind)

        def ask(command: str, *flags: str) -> Ended:
            return promptferry(command, ready, *flags, cwd=tmp_path, env=env)

        checked = ask("check")
        assert checked.code == 0, checked.out + checked.err
        planned = ask("plan", "--json").json
        assert [one["problem"] for one in planned["prompts"]] == [None] * count
        work = "update" if data.get("mode") == "update" else "create"
        assert planned["counts"][work] == count
        run = ask("run")
        assert (run.code, run.summary["this_run"][f"{work}d"]) == (0, count), run.err
        assert set(results(ask("verify", "--json")).values()) == {"same"}
        again = ask("run")
        assert (again.code, again.summary["this_run"]["unchanged"]) == (0, count)
        if target_kind == "files":
            assert Path(tmp_path / data["target"]["path"]).exists()
        elif "target" in data:
            assert len(names(there.end(target_kind, copy=copy))) == count
