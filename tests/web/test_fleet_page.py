"""`fleet report`: one page for many migrations, and one for each of them."""

from __future__ import annotations

import json
import re
from html import unescape
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

import pytest

from engine.web.page import policy_of, style
from tests.e2e import promptferry
from tests.web import story


@pytest.fixture
def fleet(tmp_path: Path) -> Path:
    """Of four migrations one was not started, and one has a damaged ledger."""
    ends = "{kind: files, path: a}, target: {kind: files, path: b}"
    names = ("every", "finished", "damaged", "later")
    migrations = "".join(f"  - {{name: {name}, source: {ends}}}\n" for name in names)
    (tmp_path / "fleet.yaml").write_text(f"name: teams\nmigrations:\n{migrations}")
    ledgers = tmp_path / "ledgers" / "teams"
    ledgers.mkdir(parents=True)
    for name, path in story.states(tmp_path).items():
        if name in names:
            path.rename(ledgers / path.name)
    return tmp_path / "fleet.yaml"


def test_a_fleet_becomes_a_page_with_a_row_and_a_page_for_each(fleet: Path) -> None:
    folder = fleet.parent
    ended = promptferry("fleet", "report", fleet, "--html", "out.html", "--json", cwd=folder)
    assert ended.code == 4
    assert "error: damaged: Line " in ended.err
    data = json.loads(ended.out)
    counts = data["counts"]
    outcomes = data["migrations"][0]["outcomes"]
    assert counts["selected"] == sum(counts[name] for name in outcomes) == 220 + 60 + 220
    assert [one["state"] for one in data["migrations"]] == ["open", "finished", "damaged", "empty"]
    html = (folder / "out.html").read_text()
    assert "500 prompts selected" in html
    assert re.findall(r'href="([.][^"]*)"', html) == [
        "./out/every.html",
        "./out/finished.html",
        "./out/damaged.html",
    ]
    for name in ("every", "finished", "damaged"):
        page = folder / "out" / f"{name}.html"
        assert page.stat().st_mode & 0o777 == 0o600
        assert page.read_text().startswith("<!doctype html>")
    assert "<script" not in html
    assert " style=" not in html
    assert policy_of({"style-src": [style()]}).replace("'", "&#39;") in html


def test_migrations_are_chosen_and_a_whole_fleet_is_no_failure(fleet: Path) -> None:
    ended = promptferry("fleet", "report", fleet, "--migration", "f*", "--html", "out.html", cwd=fleet.parent)
    assert (ended.code, ended.out) == (0, "wrote out.html: teams, 1 migration, 60 prompts\n")


def test_one_ledger_that_is_none_keeps_no_other_from_its_page(fleet: Path) -> None:
    """Neither here nor in the status; and the links lead to the pages whatever the file is called."""
    (fleet.parent / "ledgers" / "teams" / "damaged.jsonl").write_text("a diary\n")
    name = "it's 100% #1 a:b"
    ended = promptferry("fleet", "report", fleet, "--html", f"{name}.html", "--json", cwd=fleet.parent)
    assert (ended.code, "error: damaged: This file is no ledger" in ended.err) == (4, True)
    assert json.loads(ended.out)["counts"]["selected"] == 220 + 60
    links = re.findall(r'href="([.][^"]*)"', (fleet.parent / f"{name}.html").read_text())
    assert len(links) == 3
    for link in links:
        page = urlsplit(urljoin((fleet.parent / "x").as_uri(), unescape(link)))
        assert (page.query, page.fragment, Path(unquote(page.path)).is_file()) == ("", "", True)


def test_a_status_tells_a_ledger_that_nobody_may_go_on_with(fleet: Path) -> None:
    ended = promptferry("fleet", "status", fleet, "--json", cwd=fleet.parent)
    assert ended.code == 4
    data = json.loads(ended.out)
    told = {one["migration"]: (one["exit_code"], one.get("reason")) for one in data["migrations"]}
    assert told["damaged"] == (4, "ledger_damaged")
    assert told["later"] == (None, None)
    assert data["counts"]["selected"] == 220 + 60
    alone = promptferry("status", fleet, "--follow", cwd=fleet.parent)
    assert (alone.code, "this is a fleet file" in alone.sentence()) == (2, True)


def test_each_needs_a_place(fleet: Path) -> None:
    assert promptferry("fleet", "report", fleet, cwd=fleet.parent).code == 2
    wrong = promptferry("fleet", "report", fleet, "--html", "page", cwd=fleet.parent)
    assert (wrong.code, "must end with .html" in wrong.sentence()) == (2, True)
    (fleet.parent / "taken").write_text("")
    taken = promptferry("fleet", "report", fleet, "--html", "taken.html", cwd=fleet.parent)
    assert (taken.code, "cannot be made" in taken.sentence()) == (2, True)
