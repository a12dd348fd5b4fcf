"""The page in a real browser: what it shows, by hand and by keyboard, for whoever cannot see it, and on paper."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pytest

from engine.config import console_of
from engine.web.report import read_report
from engine.web.view import Beside
from tests.real.browser import CHROMIUM, MODULE, looked
from tests.real.servers import ROOT
from tests.web import story

STATES: Final = {
    "every": "finished, not all arrived",
    "running": "has not ended",
    "stopped": "stopped",
    "damaged": "damaged ledger",
    "finished": "finished",
    "empty": "no run yet",
}
SHOWN: Final = (*((name, 1280, "light") for name in STATES), ("every", 360, "dark"), ("every", 3840, "light"))
DONE: Final = {
    "used": "every",
    "typed": "finished",
    "printed": "every",
    "opened": "every",
    "chosen": "every",
    "counted": "many",
}
MANY: Final = 1234
"""Prompts that one second brought."""
AXE: Final = (("every", 1280, "light"), ("every", 1280, "dark"), ("every", 360, "dark"), ("empty", 1280, "light"))

pytestmark = [
    pytest.mark.skipif(not (MODULE / "ready").exists(), reason="no driver of a browser: `make servers` installs it"),
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium here: install it, such as with apt-get"),
]

Seen = Mapping[str, Any]


def look(do: str, page: str, width: int, scheme: str) -> dict[str, Any]:
    """What tests/real/page.mjs is asked for."""
    name = do if do in DONE else f"{do} {page} {width} {scheme}"
    return {"name": name, "do": do, "page": page, "width": width, "scheme": scheme}


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Seen]:
    """What one browser saw, look by look; it takes seconds to start."""
    folder = tmp_path_factory.mktemp("pages")
    looks = [look("state", *shown) for shown in SHOWN] + [look("accessible", *shown) for shown in AXE]
    looks += [look(do, page, 1280, "light") for do, page in DONE.items()]
    many = [(0, "r1", [story.run()]), (1, "r1", [story.created(number) for number in range(MANY)])]
    for name, path in (story.states(folder) | {"many": story.write(folder / "many.jsonl", many)}).items():
        html = read_report(path, Beside(console=console_of), now=story.START + 4000).html()
        (folder / f"{name}.html").write_bytes(html)
    asked = [{**look, "url": (folder / f"{look['page']}.html").as_uri()} for look in looks]
    return {one["name"]: one for one in looked(asked)}


def test_nothing_is_complained_of_or_asked_for(seen: Mapping[str, Seen]) -> None:
    """No error, no refusal by the policy of what stands in the page, no alert of a hostile name, and no request."""
    for one in seen.values():
        assert one["complaints"] == []
        assert one["requests"] == [one["url"]]


def test_each_state_is_told_at_every_width_and_in_both_lights(seen: Mapping[str, Seen]) -> None:
    for one in (one for one in seen.values() if one["do"] == "state"):
        found = one["found"]
        assert found["badge"] == STATES[one["page"]]
        assert found["wider"] <= 0, "it scrolls sideways"
        assert found["shift"] < 0.01, one["name"]
        assert one["page"] == "empty" or "the books balance" in found["balance"]
        assert "[object" not in found["text"]
        assert "undefined" not in found["text"]


def test_hostile_names_are_only_text(seen: Mapping[str, Seen]) -> None:
    named = set(seen["state every 1280 light"]["found"]["names"])
    assert {name for name in story.HOSTILE if name.isascii()} <= named


def test_rows_are_searched_filtered_and_sorted_and_only_those_in_sight_drawn(seen: Mapping[str, Seen]) -> None:
    found = seen["used"]["found"]
    assert (found["all"], found["again"]) == ("218 prompts", "218 prompts")
    assert found["drawn"] < 60
    assert found["scrolled"] < 60
    assert found["search"]["names"]
    assert all("legal" in name for name in found["search"]["names"])
    assert "No prompt fits" in found["nothing"]
    whys = [error for error in story.FAILURES for _ in range(2)]
    assert found["failed"] == {"tally": "8 of 218 prompts", "whys": whys}
    assert found["loss"] == found["shown"] == "2 of 218 prompts"
    assert found["sorted"]["way"] == "descending"
    assert found["sorted"]["ids"] == sorted(found["sorted"]["ids"], reverse=True)


def test_a_prompt_is_opened_copied_from_and_left_by_keyboard(seen: Mapping[str, Seen]) -> None:
    found = seen["typed"]["found"]
    assert found["open"]
    assert found["closed"]
    assert found["focus"]
    assert found["copied"].startswith("pp-00")
    assert found["said"] == "source id copied"
    for told in ("What changed", "model", "claude-3-7-sonnet", "max_completion_tokens", "4096"):
        assert told in found["one"]
    assert found["links"][0].startswith("http://mlflow.test:5000/#/prompts/")


def test_every_prompt_can_be_opened_whatever_its_name_is(seen: Mapping[str, Seen]) -> None:
    """Also one that can stand in no address of a console; a long one leaves room for the button beside it."""
    found = seen["opened"]["found"]
    assert found["closed"] == []
    assert found["tall"] < 50


def test_numbers_are_told_exactly(seen: Mapping[str, Seen]) -> None:
    found = seen["counted"]["found"]
    assert found["sentence"].startswith("1,234 prompts settled")
    assert "1,234" in found["numbers"]


def test_a_reason_of_two_outcomes_is_chosen_once(seen: Mapping[str, Seen]) -> None:
    found = seen["chosen"]["found"]
    assert "exists (2)" in found["all"]
    assert found["skipped"] == ["any", "exists (1)"]


def test_it_can_be_printed(seen: Mapping[str, Seen]) -> None:
    assert seen["printed"]["found"] == {"rows": 218, "search": False, "readable": True}


def test_whoever_cannot_see_it_can_use_it(seen: Mapping[str, Seen]) -> None:
    assert {one["name"]: one["found"] for one in seen.values() if one["found"] and one["do"] == "accessible"} == {}


def test_the_chart_library_is_the_one_of_its_package() -> None:
    package, vendor = MODULE / "node_modules" / "uplot", ROOT / "engine" / "web" / "vendor"
    for theirs in ("dist/uPlot.iife.min.js", "dist/uPlot.min.css", "LICENSE"):
        ours = "uPlot.LICENSE" if theirs == "LICENSE" else Path(theirs).name
        assert (package / theirs).read_bytes() == (vendor / ours).read_bytes()
