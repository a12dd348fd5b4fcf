"""`report`: the page of a ledger as a file, or its data; and what is said where there is none."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.e2e import promptferry
from tests.web import story


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    return story.write(tmp_path / "demo.jsonl", story.every_outcome(60))


def test_a_ledger_becomes_a_page_for_ones_own_eyes(tmp_path: Path, ledger: Path) -> None:
    ended = promptferry("report", ledger, "--html", "page.html", cwd=tmp_path)
    assert (ended.code, ended.out) == (0, "wrote page.html: claude-37-to-35-bedrock, 60 prompts\n")
    page = tmp_path / "page.html"
    assert page.stat().st_mode & 0o777 == 0o600
    assert page.read_text().startswith("<!doctype html>")
    again = promptferry("report", ledger, "--html", "page.html", "--json", cwd=tmp_path)
    assert len(json.loads(again.out)["prompts"]) == 58


def test_a_migration_file_adds_what_was_asked_and_no_secret(tmp_path: Path, ledger: Path) -> None:
    file = tmp_path / "my migration.yaml"
    file.write_text(
        "name: demo\nledger: demo.jsonl\nsource: {kind: portkey, api_key: '${NOWHERE_SET}'}\n"
        "select: {models: ['*claude-3-7-*']}\nrewrite: {model: gpt-4o, parameters: {drop: [thinking]}}\n"
    )
    data = json.loads(promptferry("report", file.name, "--json", cwd=tmp_path).out)
    asked = dict(data["asked"])
    assert asked == {
        "select.models": '["*claude-3-7-*"]',
        "rewrite.model": "gpt-4o",
        "rewrite.parameters.drop": '["thinking"]',
    }
    assert "promptferry check 'my migration.yaml'" in {one["command"] for one in data["reasons"]}


def test_a_page_that_goes_where_results_go_is_alone_there(tmp_path: Path, ledger: Path) -> None:
    ended = promptferry("report", ledger, "--html", "/dev/stdout", cwd=tmp_path)
    assert ended.code == 0
    assert ended.out.startswith("<!doctype html>")
    assert ended.out.rstrip().endswith("</html>")


@pytest.mark.parametrize("verb", ["status", "ids"])
def test_what_is_told_of_a_ledger_is_all_of_it_or_nothing(tmp_path: Path, verb: str) -> None:
    damaged = story.states(tmp_path)["damaged"]
    ended = promptferry(verb, damaged, cwd=tmp_path)
    assert (ended.code, ended.out) == (4, "")
    assert "is damaged" in ended.err


def test_a_migration_without_a_ledger_has_nothing_to_report(tmp_path: Path) -> None:
    (tmp_path / "m.yaml").write_text("name: demo\n")
    ended = promptferry("report", "m.yaml", "--html", "page.html", cwd=tmp_path)
    assert ended.code == 2
    assert "there is no ledger here" in ended.sentence()
    assert not (tmp_path / "page.html").exists()


def test_a_damaged_ledger_has_its_page_and_the_refusal(tmp_path: Path) -> None:
    damaged = story.states(tmp_path)["damaged"]
    ended = promptferry("report", damaged, "--html", "page.html", cwd=tmp_path)
    assert ended.code == 4
    assert "is damaged" in ended.sentence()
    assert "damaged" in (tmp_path / "page.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("demo.jsonl",), "--html FILE"),
        (("demo.jsonl", "--html", "demo.jsonl"), "what the page is made from"),
        (("demo.jsonl", "--html", "no/such/folder/page.html"), "cannot be written"),
        (("page.html", "--json"), "no ledger of promptferry"),
    ],
)
def test_what_cannot_be_done_is_refused(tmp_path: Path, ledger: Path, arguments: tuple[str, ...], told: str) -> None:
    (tmp_path / "page.html").write_text("<p>")
    before = ledger.read_bytes()
    ended = promptferry("report", *arguments, cwd=tmp_path)
    assert ended.code == 2
    assert told in ended.sentence()
    assert ledger.read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == {"demo.jsonl", "page.html"}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_ledger_that_may_not_be_read_is_told(tmp_path: Path, ledger: Path) -> None:
    ledger.chmod(0)
    assert promptferry("report", ledger, "--json", cwd=tmp_path).code == 75
