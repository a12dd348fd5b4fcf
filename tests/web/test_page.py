"""The page as a document: what stands in it can do nothing but be read, and nothing is loaded."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, Final

import pytest

from engine.web.page import Live, embedded, page, policy, scripts, style
from engine.web.report import read_report
from engine.web.view import Beside
from tests.web import story

ROOT: Final = Path(__file__).parents[2]
BUDGET: Final = 1_000_000
"""Bytes without data."""
VENDORED: Final = {
    "uPlot.iife.min.js": "19c8d4c6ad88929a79f4ae49d6f7161566dfd0ba3d15cc495e974f787eb78f1f",
    "uPlot.min.css": "df630c6a8d6f8eeaff264b50f73ce5b114f646ffd9a0bb74f049b0a00135fa04",
    "uPlot.LICENSE": "8f989229699b4fe2f1a0432d0e9edc338a8a911e250e2d1b01ecd770a5f5b1bd",
}
"""uPlot 1.6.32."""


class Document(HTMLParser):
    """Elements, their attributes, and the text of scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.inside: dict[str, list[str]] = {"script": [], "style": []}
        self._open = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag in self.inside:
            self._open = tag
            self.inside[tag].append("")

    def handle_endtag(self, tag: str) -> None:
        self._open = ""

    def handle_data(self, data: str) -> None:
        if self._open:
            self.inside[self._open][-1] += data


@pytest.fixture(scope="module")
def html(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = story.write(tmp_path_factory.mktemp("page") / "every.jsonl", story.every_outcome())
    return read_report(path, Beside(), now=0.0).html().decode()


@pytest.fixture(scope="module")
def document(html: str) -> Document:
    return Document(html)


def digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def test_the_policy_allows_what_stands_in_the_page_and_nothing_else(document: Document) -> None:
    policies = [attrs for _, attrs in document.elements if attrs.get("http-equiv") == "Content-Security-Policy"]
    told = policies[0]["content"] or ""
    allowed = dict(part.split(" ", 1) for part in told.split("; "))
    data, *run = document.inside["script"]
    assert allowed["default-src"] == allowed["connect-src"] == "'none'"
    assert allowed["script-src"].split() == [digest(text) for text in run]
    assert allowed["style-src"].split() == [digest(text) for text in document.inside["style"]]
    assert "unsafe" not in told
    assert json.loads(data)["rows"]


def test_it_has_no_handler_no_style_attribute_and_no_address(document: Document, html: str) -> None:
    attributes = {name for _, attrs in document.elements for name in attrs}
    assert not {name for name in attributes if name.startswith("on") or name == "style"}
    addresses = {attrs[name] for _, attrs in document.elements for name in ("src", "href") if name in attrs}
    assert addresses == {"data:,", "#prompts"}
    shell = html.replace(document.inside["script"][0], "")
    assert set(re.findall(r"https?://[\w.-]+", shell)) <= {"https://github.com"}  # of uPlot's licence


def test_no_name_ends_its_element_or_begins_another(document: Document) -> None:
    assert [tag for tag, _ in document.elements].count("script") == 3
    assert "img" not in {tag for tag, _ in document.elements}
    data = json.loads(document.inside["script"][0])
    assert {name for name in story.HOSTILE if name.isascii()} <= set(data["rows"]["columns"]["name"])


@pytest.mark.parametrize("hostile", story.HOSTILE)
def test_data_is_written_so_that_it_is_read_back_as_it_was(hostile: str) -> None:
    written = embedded({"name": hostile})
    assert not set(b"<>&") & set(written)
    assert "\u2028".encode() not in written
    assert json.loads(written) == {"name": hostile}


def test_the_live_page_asks_its_own_server_and_nobody_else() -> None:
    document = Document(page(None, live=Live(stop=True)).decode())
    assert "connect-src 'self';" in policy(live=True)
    assert json.loads(document.inside["script"][0]) == {"live": {"stop": True}, "summary": None, "rows": None}


def test_without_data_it_is_small() -> None:
    assert len(page(None)) < BUDGET


@pytest.mark.parametrize("name", VENDORED)
def test_the_chart_library_is_as_it_was_published(name: str) -> None:
    data = (ROOT / "engine" / "web" / "vendor" / name).read_bytes()
    assert hashlib.sha256(data).hexdigest() == VENDORED[name]


def test_scripts_can_stand_in_a_page() -> None:
    """Neither ends its element."""
    for text in (*scripts(), style()):
        assert not re.search(r"</(script|style)", text, re.IGNORECASE)
        assert "<!--" not in text


def test_the_data_is_what_json_prints_but_row_by_row(tmp_path: Path) -> None:
    path = story.write(tmp_path / "every.jsonl", story.every_outcome())
    report = read_report(path, Beside(), now=0.0)
    data: dict[str, Any] = json.loads(report.json())
    assert len(data["prompts"]) == data["rows"] == 218
    assert {one["outcome"] for one in data["prompts"]} == set(data["told"])
