"""`init` for every pair of kinds: what it writes loads, whatever cannot be used is said, and no key is ever written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from engine.cli.starter import starter
from engine.config import Migration, load_migration
from engine.config.kinds import KINDS
from tests.config.test_config import valid
from tests.e2e import Ended, promptferry

TARGETS = [None, *KINDS]
CANARY = "sk-canary-4711"


class Everything(Mapping[str, str]):
    """An environment in which every variable is set, each to another value."""

    def __getitem__(self, name: str) -> str:
        if name == "PROMPTFERRY_LEDGER_DIR":
            raise KeyError(name)
        return f"{CANARY}-{name}"

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


def loaded(text: str, folder: Path) -> Migration:
    assert valid(text)
    (folder / "m.yaml").write_text(text, encoding="utf-8")
    return load_migration(folder / "m.yaml", Everything())


@pytest.mark.parametrize("source", KINDS)
@pytest.mark.parametrize("target", TARGETS)
def test_a_file_for_every_pair_loads(source: str, target: str | None, tmp_path: Path) -> None:
    migration = loaded(starter(source_kind=source, target_kind=target), tmp_path)
    assert migration.source.kind == source
    assert migration.ends[1].kind == (target or source)
    assert migration.same_workspace is (target is None)


@pytest.mark.parametrize("source", KINDS)
@pytest.mark.parametrize("target", TARGETS)
def test_what_is_commented_out_loads_too(source: str, target: str | None, tmp_path: Path) -> None:
    """But for what excludes another key, such as two ways to log in."""
    lines = starter(source_kind=source, target_kind=target).splitlines()
    shown = [line.replace("  # ", "  ", 1) if line.startswith("  # ") else line for line in lines]
    text = "\n".join(line for line in shown if not line.startswith(("  username", "  password")))
    migration = loaded(text, tmp_path)
    assert migration.rewrite.provider
    assert migration.select.models


@pytest.mark.parametrize(
    ("source", "target", "name"),
    [
        ("portkey", None, "{name}-replica"),
        ("portkey", "langfuse", "{name}"),
        ("portkey", "mlflow", "{name|slug}"),
        ("langfuse", "phoenix", "{name|slug}"),
        ("mlflow", "phoenix", "{name|slug}"),
        ("mlflow", "mlflow", "{name}"),
        ("phoenix", "portkey", "{name}"),
    ],
)
def test_names_are_made_fit_where_the_target_is_strict(
    source: str, target: str | None, name: str, tmp_path: Path
) -> None:
    assert loaded(starter(source_kind=source, target_kind=target), tmp_path).rewrite.name == name


@pytest.mark.parametrize("source", KINDS)
def test_a_chat_that_becomes_one_text_is_told_how(source: str, tmp_path: Path) -> None:
    migration = loaded(starter(source_kind=source, target_kind="conductor"), tmp_path)
    assert migration.rewrite.messages == (None if source == "conductor" else "transcript")


# ---- the command -----------------------------------------------------------------------------------------------------


def said(ended: Ended) -> str:
    assert (ended.code, ended.out) == (2, "")
    assert "Traceback" not in ended.err
    assert "canary" not in ended.err
    return ended.err


def test_every_flag_is_in_the_file(tmp_path: Path) -> None:
    flags = (
        *("--name", "all", "--source-kind", "langfuse", "--base-url", "https://langfuse.example"),
        *("--source", "public_key=MY_PUBLIC", "--source", "secret_key=${MY_SECRET}", "--source", "published_by=newest"),
        *("--target-kind", "phoenix", "--target", "api_key=MY_PHOENIX", "--target", "base_url=https://p.example"),
        *(
            "--replica-name",
            "{collection}-{name|slug}",
            "--models",
            "gpt-*",
            "--model",
            "gpt-4o",
            "--provider",
            "OPENAI",
        ),
    )
    done = promptferry("init", "new.yaml", *flags, cwd=tmp_path)
    assert (done.code, done.err) == (0, "")
    assert "set MY_PUBLIC, MY_SECRET, MY_PHOENIX, then run `promptferry check new.yaml`" in done.out
    migration = load_migration(tmp_path / "new.yaml", Everything())
    source, target = migration.ends
    assert (migration.name, source.url, target.url) == ("all", "https://langfuse.example", "https://p.example")
    assert source.keys == (f"{CANARY}-MY_PUBLIC", f"{CANARY}-MY_SECRET")
    assert target.keys == (f"{CANARY}-MY_PHOENIX",)
    assert (source.model_dump()["published_by"], target.model_dump()["published_by"]) == ("newest", "production")
    assert migration.rewrite.name == "{collection}-{name|slug}"
    assert migration.select.models == ("gpt-*",)
    assert (migration.rewrite.model, migration.rewrite.provider) == ({"*": "gpt-4o"}, {"*": "OPENAI"})


def test_a_key_of_the_target_alone_means_another_workspace_of_the_same_kind(tmp_path: Path) -> None:
    done = promptferry("init", "--target", "api_key=OTHER_KEY", cwd=tmp_path)
    assert done.code == 0
    migration = load_migration(tmp_path / "migration.yaml", Everything())
    assert [end.kind for end in migration.ends] == ["portkey", "portkey"]
    assert migration.ends[1].keys == (f"{CANARY}-OTHER_KEY",)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--source-kind", "langfuze"), "--source-kind: must be `portkey`, `conductor`,"),
        (("--source-kind", "Langfuse"), "did you mean `langfuse`?"),
        (("--target-kind", "mflow"), "did you mean `mlflow`?"),
        (
            ("--source-kind", "files", "--base-url", "sandbox"),
            "--source: kind files has no key `base_url`; it has path",
        ),
        (("--source", "bse_url=sandbox"), "did you mean `base_url`?"),
        (("--source", "base_url"), "--source: must be KEY=VALUE"),
        (("--source", f"api_key={CANARY}"), "--source api_key: must be the name of the environment variable"),
        (("--source", "api_key=canary4711"), "--source api_key: must be the name of the environment variable"),
        (("--base-url", "langfuse.example"), "--source base_url: must be an address such as"),
        (("--target-kind", "mlflow", "--target", "base_url=sandbox"), "--target base_url: MLflow has no stand-in"),
        (
            ("--target-kind", "phoenix", "--target", "published_by=No Tag"),
            "--target published_by: is no tag of Phoenix",
        ),
        (("--replica-name", "{nmae}"), "--replica-name: {nmae} cannot be filled in"),
        (("--name", "a/b"), "--name: must be 1 to 100 letters"),
    ],
)
def test_what_cannot_be_used_is_said_and_nothing_is_written(flags: tuple[str, ...], words: str, tmp_path: Path) -> None:
    assert words in said(promptferry("init", *flags, cwd=tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_all_that_cannot_be_used_is_said_at_once(tmp_path: Path) -> None:
    flags = ("--name", "a/b", "--source", "api_key=x", "--source", "wrkspace=y", "--replica-name", "{x}")
    told = said(promptferry("init", *flags, cwd=tmp_path))
    assert all(word in told for word in ("--name:", "--source api_key:", "`workspace`", "--replica-name:"))


def test_a_wrong_kind_in_a_file_is_told_with_the_nearest_one(tmp_path: Path) -> None:
    (tmp_path / "m.yaml").write_text(f"name: m\nsource: {{kind: langfuze, secret_key: {CANARY}}}\n")
    told = said(promptferry("check", "m.yaml", cwd=tmp_path))
    assert "source.kind: must be `portkey`, `conductor`," in told
    assert "did you mean `langfuse`?" in told
