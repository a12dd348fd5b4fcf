"""A newcomer's walk: init, check, plan, run, status, ids, verify, rollback, with the mistakes on the way."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import pytest

from engine.sandbox import Sandbox
from tests.e2e import Ended, promptferry
from tests.routes import KEY_ID, Conductor, Folder, Langfuse
from tests.stand_ins import StandIns, stand_ins

FAST: Final = ("--rate", "2000")
ROUTES: Final = [("portkey", "langfuse"), ("langfuse", "files"), ("conductor", "langfuse")]


@dataclass(frozen=True)
class Walk:
    """A folder, and what stands in for the registries."""

    there: StandIns
    folder: Path

    @property
    def env(self) -> dict[str, str]:
        """As the file that `init` writes names them."""
        env = self.there.env
        return {
            "PORTKEY_API_KEY": env["KEY"],
            "CONDUCTOR_KEY_ID": KEY_ID,
            "CONDUCTOR_KEY_SECRET": env["KEY_SECRET"],
            "LANGFUSE_PUBLIC_KEY": env["PUBLIC"],
            "LANGFUSE_SECRET_KEY": env["SECRET"],
        }

    def ask(self, command: str, *flags: str, **env: str) -> Ended:
        file = ("migration.yaml",) if command != "init" else ()
        return promptferry(command, *file, *flags, cwd=self.folder, env={**self.env, **env})

    def init(self, source: str, target: str, *, source_url: str = "", target_url: str = "") -> None:
        """`source_url`, `target_url`: in the place of where they are."""
        flags = ["--force", "--source-kind", source, "--target-kind", target]
        for end, kind, url in (("source", source, source_url), ("target", target, target_url)):
            known = "path=backup" if kind == "files" else f"base_url={url or self.there.part(kind)['base_url']}"
            flags += [f"--{end}", known]
        done = self.ask("init", *flags)
        assert (done.code, done.err) == (0, "")


@pytest.fixture
def walk(tmp_path: Path) -> Iterator[Walk]:
    with stand_ins(tmp_path) as there:
        registry = there.registry
        registry.ask(lambda sandbox: sandbox.add_prompt("plain", "Hello {{name}}"))
        registry.ask(lambda sandbox: sandbox.add_prompt("sections", "{{#who}}Hello{{/who}}"))
        Langfuse(registry).add("theirs", "Hello <name>")
        for name in ("flow", "odd"):
            Conductor(registry).add(name, "Hello <name>" if name == "flow" else "Hello ${a b}", integrations=[])
        registry.ask(partial(Sandbox.add_prompt, name="many", string="Hi", tools=[{"type": "function"}]))
        yield Walk(there, tmp_path)


EXPECTED: Final = {"portkey": (2, 1), "langfuse": (1, 0), "conductor": (1, 1)}
"""Source -> prompts that arrive, and that cannot."""


@pytest.mark.parametrize(("source", "target"), ROUTES)
def test_from_init_to_rollback(source: str, target: str, walk: Walk) -> None:
    made, failing = EXPECTED[source]
    walk.init(source, target)
    assert "all is there" in walk.ask("check").out
    planned = walk.ask("plan", *FAST)
    total = f"{made + failing} of {made + failing} prompts selected: {made + failing} create"
    warned = f"; {failing} of them WILL FAIL, as things are" if failing else ""
    assert f"{total}{warned}\n" in planned.out
    run = walk.ask("run", *FAST)
    counts = run.summary["counts"]
    assert (run.code, counts["created"], counts["failed"]) == (1 if failing else 0, made, failing)
    before = json.loads(walk.ask("status", "--json").out)
    assert before["counts"]["created"] == made
    failed = walk.ask("status", "--failed").out
    assert (": rewrite: " in failed) is bool(failing)
    assert len(walk.ask("ids").out.splitlines()) == 1 + made
    assert f"{made} replicas compared: {made} same" in walk.ask("verify", *FAST).out
    after = json.loads(walk.ask("status", "--json").out)
    assert after["rate"] == before["rate"]  # what came after the run made it no slower
    assert f"would be: {made} deleted" in walk.ask("rollback", "--dry-run").out
    refused = walk.ask("rollback")
    assert (refused.code, "--yes" in refused.err) == (2, True)
    assert f"{made} deleted" in walk.ask("rollback", "--yes").out
    if target == "files":
        assert Folder(walk.folder / "backup").texts() == {}


MISTAKES: Final = [
    ("langfuse", "files", "LANGFUSE_SECRET_KEY", "sk-lf-wrong", 4, "refused the key"),
    ("langfuse", "files", "LANGFUSE_SECRET_KEY", "", 2, "LANGFUSE_SECRET_KEY is empty; give it a value"),
    ("portkey", "langfuse", "PORTKEY_API_KEY", "wrong", 4, "The source (127.0.0.1) refused the key"),
    ("portkey", "langfuse", "LANGFUSE_PUBLIC_KEY", "pk-lf-wrong", 4, "The target (127.0.0.1) refused the key"),
    ("conductor", "langfuse", "CONDUCTOR_KEY_SECRET", "wrong", 4, "refused the key at token"),
]


@pytest.mark.parametrize(("source", "target", "variable", "value", "code", "words"), MISTAKES)
def test_a_wrong_or_missing_key(
    source: str, target: str, variable: str, value: str, code: int, words: str, walk: Walk
) -> None:
    walk.init(source, target)
    for command in ("check", "plan", "run"):
        told = walk.ask(command, **{variable: value})
        assert (told.code, words in told.sentence()) == (code, True), told.err
        assert not value or value not in told.err
    assert not list((walk.folder / "backup").glob("*"))


def test_a_wrong_address_is_told_by_what_is_to_be_mended(walk: Walk) -> None:
    url = str(walk.there.part("langfuse")["base_url"])
    walk.init("portkey", "langfuse", target_url=f"{url}/api")
    told = walk.ask("check")
    assert told.code == 4
    assert "Mend base_url in the migration file: there is no list of prompts at that address." in told.err
    walk.init("conductor", "langfuse", source_url=url)
    assert "base_url ends with /api" in walk.ask("check").err


def test_what_changes_is_shown_as_files_and_registries_write_it(walk: Walk) -> None:
    Conductor(walk.there.registry).add("stops", "Hello", integrations=[], topP=0.5, stopWords=["###", "é"])
    walk.init("conductor", "langfuse")
    shown = walk.ask("plan", *FAST, "--only", "stops").out
    assert 'parameters.stop: (none) -> ["###", "é"]' in shown
    assert "'" not in shown.partition("create 1: stops")[2].partition("prompts selected")[0]
