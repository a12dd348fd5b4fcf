"""What the lines of a ledger come to on a page: the same numbers as everywhere else, and nothing lost on the way."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from engine.ledger.file import entries, good_entries
from engine.ledger.lines import Condition
from engine.ledger.remedies import remedy
from engine.ledger.repair import compact
from engine.ledger.status import StatusFold
from engine.migrate.entries import answers
from engine.model import Entry
from engine.web.encoding import encoded
from engine.web.report import read_report
from engine.web.timeline import BINS, Timeline, share_of
from engine.web.view import Beside, View
from tests.web import story


def told(value: Any) -> Any:
    """As a browser has it."""
    return json.loads(encoded(value))


@pytest.fixture(scope="module")
def ledgers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return story.states(tmp_path_factory.mktemp("ledgers"))


@pytest.mark.parametrize("state", ["every", "running", "stopped", "finished", "damaged", "empty"])
def test_numbers_are_those_of_the_status_and_the_books_add_up(state: str, ledgers: dict[str, Path]) -> None:
    path = ledgers[state]
    summary = read_report(path, Beside(), now=0.0).summary()
    fold = StatusFold()
    for line in good_entries(path):
        fold.take(line)
    assert summary["status"] == fold.status(path).to_json()
    counts = summary["status"]["counts"]
    assert counts["selected"] == sum(counts[name] for name in summary["outcomes"])


@pytest.mark.parametrize(
    ("state", "shown"),
    [
        ("every", "open"),
        ("running", "unended"),
        ("stopped", "stopped"),
        ("finished", "finished"),
        ("damaged", "damaged"),
        ("empty", "empty"),
    ],
)
def test_each_state_is_told(state: str, shown: str, ledgers: dict[str, Path]) -> None:
    assert read_report(ledgers[state], Beside(), now=0.0).summary()["state"] == shown


def test_what_was_left_or_taken_back_is_not_finished(tmp_path: Path) -> None:
    """With a limit a run ends well, and most of the prompts are not there."""
    limited = [*story.finished(3), (50, "r1", [story.end(0, "limit", created=3, not_started=97)])]
    view = story.viewed(story.write(tmp_path / "limited.jsonl", limited))
    assert (view.summary()["state"], view.summary()["status"]["reason"]) == ("open", "limit")
    back = Entry("rolled_back", {**story.origin(20), "target_id": "rr-0020-7be21d", "result": "deleted"})
    view = story.viewed(story.write(tmp_path / "back.jsonl", [*story.finished(3), (60, "r2", [back])]))
    assert view.summary()["state"] == "rolled_back"


@pytest.mark.parametrize("data", [b"a diary\n", b'{"v":2,"seq":1}\n'])
def test_a_ledger_without_a_good_line_has_its_advice_too(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "it is $(mine).jsonl"
    path.write_bytes(data)
    found = read_report(path, Beside(), now=0.0, alone=False)
    assert found.summary()["state"] == "damaged"
    assert found.summary()["health"]["advice"]
    assert found.title == "no good line, 0 prompts"
    assert shlex.split(found.summary()["health"]["check"]) == ["promptferry", "ledger", "check", str(path)]


def test_texts_that_are_no_characters_and_numbers_of_any_size_reach_the_page(tmp_path: Path) -> None:
    """Wherever they stand: beside the rows, which are written already, and in what few prompts have."""
    half, many = "\ud83d", 2**64 + 1
    lost = {**story.failed(3, "rejected").fields, "message": half}
    made = {**story.created(4).fields, "changes": [["collection", half, "b"], ["parameters.seed", many, None]]}
    seen = {**story.origin(4), "target_id": "t", "result": "differs", "fields": [half]}
    entries = [story.run(reason=half), Entry("failed", lost), Entry("created", made), Entry("verified", seen)]
    report = read_report(story.write(tmp_path / "half.jsonl", [(0, "r1", entries)]), Beside(), now=0.0)
    assert rb"\ud83d" in report.html()
    data = json.loads(report.json())
    assert data["runs"][0]["reason"] == data["prompts"][0]["message"] == half
    assert data["prompts"][1]["changes"][0] == {"field": "collection", "before": half, "after": "b"}
    assert data["prompts"][1]["fields"] == [half]


def test_a_run_whose_process_is_known_runs_or_was_killed(ledgers: dict[str, Path]) -> None:
    view = story.viewed(ledgers["running"])
    assert view.summary(life="running")["state"] == "running"
    assert view.summary(life="killed")["state"] == "killed"


def test_rows_by_outcome_are_what_the_status_counts_while_a_run_goes_on(ledgers: dict[str, Path]) -> None:
    summary = story.viewed(ledgers["running"]).summary()
    counts = {name: n for name, n in summary["status"]["counts"].items() if n and name in summary["outcomes"]}
    assert summary["told"] == {name: n for name, n in counts.items() if name != "not_started"}


def test_every_prompt_has_its_row_with_all_that_is_known(ledgers: dict[str, Path]) -> None:
    prompts = {one["source_id"]: one for one in story.viewed(ledgers["every"]).prompts()}
    assert len(prompts) == 218
    one = prompts["pp-0011-a3f9c1"]
    assert (one["outcome"], one["target_id"], one["name"]) == ("created", "rr-0011-7be21d", "legal-summary-011-replica")
    assert (one["source_model"], one["model"], one["source_version"]) == ("claude-3-7-sonnet", "gpt-4o", "4")
    assert {"field": "parameters.max_tokens", "before": 4096, "after": None} in one["changes"]
    assert prompts["pp-0002-a3f9c1"]["outcome"] == "unresolved"
    assert prompts["pp-0048-a3f9c1"]["verified"] == "differs"
    assert prompts["pp-0048-a3f9c1"]["fields"] == ["parameters.temperature", "labels"]
    assert prompts["pp-0213-a3f9c1"]["in_the_way"] == "rr-foreign"


def test_reasons_have_their_prompts_and_what_to_do(ledgers: dict[str, Path]) -> None:
    summary = story.viewed(ledgers["every"], Beside(command="m.yaml")).summary()
    failed = {one["reason"]: one for one in summary["reasons"] if one["outcome"] == "failed"}
    assert {reason: one["count"] for reason, one in failed.items()} == dict.fromkeys(story.FAILURES, 2)
    assert failed["rejected"]["retriable"] == 2
    assert failed["rejected"]["command"] == "promptferry run m.yaml --retry-failed"
    assert "allow_loss" in failed["loss"]["advice"]
    assert {one["outcome"] for one in summary["reasons"]} == {"failed", "conflicts", "unresolved", "skipped"}
    running = story.viewed(ledgers["every"]).summary(life="running")  # what is in flight is nothing to worry about
    assert {one["outcome"] for one in running["reasons"]} == {"failed", "conflicts", "skipped"}


def test_whatever_a_prompt_fails_with_there_is_something_to_do() -> None:
    found = remedy("failed", "an error that nobody has heard of")
    assert found.advice
    assert found.command


def test_models_flow_from_those_before_to_those_after(ledgers: dict[str, Path]) -> None:
    flow = story.viewed(ledgers["every"]).summary()["models"]
    assert sum(one["count"] for one in flow) == 204
    assert {one["before"] for one in flow} == {"claude-3-7-sonnet"}
    assert {one["after"] for one in flow} == set(story.MODELS)


def test_a_ledger_of_old_says_no_model_before(tmp_path: Path) -> None:
    made = story.created(30)
    del made.fields["changes"]  # type: ignore[attr-defined]
    path = story.write(tmp_path / "old.jsonl", [(0, "r1", [story.run()]), (1, "r1", [made])])
    view = story.viewed(path)
    assert view.summary()["models"] == [{"before": None, "after": made.fields["model"], "count": 1}]
    assert view.summary()["runs"][0]["time"]["pace"] == {}


def test_lines_taken_together_are_the_same_as_one_by_one(ledgers: dict[str, Path]) -> None:
    together, each = View(ledgers["every"]), story.viewed(ledgers["every"])
    together.take_all(list(entries(ledgers["every"])))
    assert together.summary() == each.summary()
    ours, theirs = ({one["source_id"]: one for one in view.prompts()} for view in (together, each))
    assert ours == theirs


def test_what_changed_since_a_revision_brings_rows_up_to_date(ledgers: dict[str, Path]) -> None:
    """As the page does it: place by place, with the texts of the last answer."""
    view = View(ledgers["every"])
    lines, rows = list(entries(ledgers["every"])), told(view.rows())
    for start in range(0, len(lines), 97):
        view.take_all(lines[start : start + 97])
        news = told(view.rows(rows["revision"])) if rows["revision"] else told(view.rows())
        places = news.get("number", range(len(news["columns"]["id"])))
        for name, column in news["columns"].items():
            own = rows["columns"][name]
            for place, value in zip(places, column, strict=True):
                own.extend([None] * (place + 1 - len(own)))
                own[place] = value
        rows |= {name: news[name] for name in ("revision", "texts", "models", "changes", "said")}
    whole = told(view.rows())
    del rows["columns"]["replica"], whole["columns"]["replica"]  # whose numbers are of one answer only
    for name in ("columns", "texts", "models", "changes", "said"):
        assert rows[name] == whole[name]
    assert len(told(view.rows(view.revision - 1))["number"]) == 1


def test_a_prompt_that_moved_keeps_its_row(tmp_path: Path) -> None:
    there = {"was": story.origin(30)["source_id"], "target_id": "t", "target_slug": "s"}
    moved = Entry("moved", {**story.origin(31), **there})
    path = story.write(tmp_path / "moved.jsonl", [(0, "r1", [story.run()]), (1, "r1", [story.created(30), moved])])
    (one,) = story.viewed(path).prompts()
    assert (one["source_id"], one["target_id"], one["outcome"]) == ("pp-0031-a3f9c1", "t", "created")


def test_what_was_rolled_back_has_no_replica(tmp_path: Path) -> None:
    back = Entry("rolled_back", {**story.origin(30), "target_id": "rr-0030-7be21d", "result": "deleted"})
    path = story.write(tmp_path / "back.jsonl", [(0, "r1", [story.run()]), (1, "r1", [story.created(30), back])])
    view = story.viewed(path)
    (one,) = view.prompts()
    assert (one["outcome"], one["target_id"], one["reason"]) == ("not_started", None, "rolled back: deleted")
    assert view.summary()["models"] == []
    assert view.summary()["proof"]["rolled_back"] == {"deleted": 1}


def test_the_newest_comparison_of_answers_is_told(tmp_path: Path, ledgers: dict[str, Path]) -> None:
    compared = [(at, "v", [answers({"same": same, "changed": 3})]) for at, same in ((50, 1), (60, 40))]
    path = story.write(tmp_path / "ledger.jsonl", [*story.finished(), *compared])
    assert story.viewed(ledgers["finished"]).summary()["proof"]["answers"] is None
    before = story.viewed(path).summary()["proof"]["answers"]
    assert before["counts"] == {"same": 40, "changed": 3}
    compact(path)
    assert story.viewed(path).summary()["proof"]["answers"] == before


def test_how_runs_went_outlives_compaction(tmp_path: Path) -> None:
    path = story.write(tmp_path / "ledger.jsonl", story.every_outcome())
    before = story.viewed(path).summary()
    compact(path)
    after = story.viewed(path).summary()
    assert [run["end"] for run in after["runs"]] == [run["end"] for run in before["runs"]]
    assert after["runs"][0]["time"]["pace"] == before["runs"][0]["time"]["pace"]
    assert after["models"] == before["models"]


def test_runs_have_who_what_why_and_who_approved(ledgers: dict[str, Path]) -> None:
    newest, first = story.viewed(ledgers["every"]).summary()["runs"]
    assert (newest["actor"], newest["reason"]) == ("alice", "claude 3.7 is retired")
    assert newest["approvals"] == ["bob", "carol"]
    assert newest["end"]["exit_code"] == 1
    assert first["end"] is None


def test_pace_tells_rate_limit_and_pauses(ledgers: dict[str, Path]) -> None:
    pace = story.viewed(ledgers["every"]).summary()["runs"][0]["time"]["pace"]
    assert set(pace) == {"source", "target"}
    assert pace["target"]["paused_s"][3:5] == [4.2, 4.2]
    assert pace["target"]["limit"][-1] == 42.5
    assert pace["target"]["rate"][0] == 36.0
    assert pace["source"]["limit"] == [None] * 12


def test_a_long_run_has_no_more_bins_than_a_short_one() -> None:
    timeline = Timeline(0.0)
    told = {"requests": 7, "throttled": 0, "paused_s": 0.0, "limit": None}
    for second in range(0, 100_000, 7):
        timeline.take(float(second), "created", "p", {})
        timeline.pace(float(second), {"seconds": 7.0, "target": told})
    found = timeline.to_json()
    assert len(found["p50"]) <= BINS
    assert sum(found["counts"]["created"]) == len(range(0, 100_000, 7))
    assert len(found["pace"]["target"]["at"]) <= 2 * BINS
    assert set(found["pace"]["target"]["rate"]) == {1.0}


def test_waits_are_told_to_a_tenth() -> None:
    timeline = Timeline(0.0)
    for number in range(100):
        timeline.take(1.0, "intent", f"p{number}", {})
        timeline.take(1.0 + (0.2 if number < 90 else 3.0), "created", f"p{number}", {})
    found = timeline.to_json()
    assert found["p50"][1] == pytest.approx(0.2, rel=0.1)
    assert found["p95"][4] == pytest.approx(3.0, rel=0.1)
    assert share_of({}, 0.5) is None


def test_a_ledger_that_is_not_there_is_empty(tmp_path: Path) -> None:
    found = View(tmp_path / "none.jsonl").summary(Condition("whole", 1, 0), there=False)
    assert (found["state"], found["health"]["there"], found["rows"]) == ("empty", False, 0)
