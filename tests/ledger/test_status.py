"""What a ledger says while a run goes on and after it: counts, failures, the map old to new, health."""

from __future__ import annotations

import csv
import io
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from engine.cli import show
from engine.content.filter import Chosen
from engine.content.shard import Shard
from engine.errors import ConfigError, Rejected, Stop
from engine.ledger.file import entries as lines_of
from engine.ledger.report import OUTCOMES, Summary
from engine.ledger.sink import Sink
from engine.ledger.status import (
    CUT_OVER,
    GOES_ON,
    ID_FIELDS,
    NOT_BEGUN,
    TAKEN_BACK,
    UNPROVED,
    Status,
    examine_ledger,
    read_ids_map,
    read_status,
)
from engine.model import Entry, Select
from tests.workspaces import Wrapped, job_of, memory, prompt, run

ALL = Chosen()
START = 1_795_176_000.0


def run_line() -> Entry:
    return Entry("run", {"migration": "m", "mode": "replicate", "identity": {}, "rules": "r"})


def line(kind: str, number: int, **fields: Any) -> Entry:
    known = {"source_id": f"p{number}", "source_name": f"name {number}", "source_collection": "support"}
    return Entry(kind, known | fields)


def intent(number: int) -> Entry:
    return line("intent", number, op="create", name=f"r{number}", attempt=1)


def created(number: int, **fields: Any) -> Entry:
    known = {
        "target_id": f"t{number}",
        "target_slug": f"pp-t{number}",
        "source_slug": f"pp-s{number}",
        "name": f"r{number}",
    }
    return line("created", number, **known | {"source_version": 3} | fields)


def failed(number: int, error: str = "rejected", message: str = "too long") -> Entry:
    return line("failed", number, stage="create", error=error, message=message, retriable=False)


async def written(path: Path, *entries: Entry, run: str = "r1", seconds: float = 1.0) -> None:
    """These lines as one run; `seconds` pass before each of them but the first."""
    now = [START - seconds]

    def clock() -> float:
        now[0] += seconds
        return now[0]

    sink = Sink.open(path, run=run, clock=clock)
    async with sink:
        for entry in entries:
            await sink.record(entry)
    sink.close()


LISTED = Entry("listed", {"count": 12, "total": 12, "selected": 10})


# ---- status ----------------------------------------------------------------------------------------------------------


async def test_a_run_that_goes_on_is_told_while_another_process_holds_the_ledger(ledger: Path) -> None:
    sink = Sink.open(ledger, run="r1", clock=lambda: START)
    async with sink:
        await sink.record(run_line(), LISTED, intent(1), created(1), intent(2), failed(3))
        found = read_status(ledger, ALL)
        assert (found.migration, found.run, found.mode, found.going_on, found.reason) == (
            "m",
            "r1",
            "replicate",
            True,
            None,
        )
        assert {name: count for name, count in found.counts.items() if count} == {
            "listed": 12,
            "selected": 10,
            "created": 1,
            "failed": 1,
            "unresolved": 1,
            "not_started": 7,
        }
        assert found.counts["selected"] == sum(found.counts[name] for name in OUTCOMES)
    sink.close()


async def test_a_torn_tail_hides_nothing_that_was_written_before_it(ledger: Path) -> None:
    await written(ledger, run_line(), LISTED, created(1), created(2))
    whole = read_status(ledger, ALL).counts
    size = ledger.stat().st_size
    with ledger.open("ab") as file:
        file.write(b'{"v":1,"seq":5,"ts":"2026-')
    assert read_status(ledger, ALL).counts == whole
    with ledger.open("r+b") as file:
        file.truncate(size - 3)
    assert read_status(ledger, ALL).counts["created"] == 1


async def test_a_run_that_ended_says_why_and_how_fast_it_was(ledger: Path) -> None:
    end = Entry("end", {"reason": "limit", "counts": {}})
    await written(ledger, run_line(), LISTED, created(1), created(2), failed(3), end)
    found = read_status(ledger, ALL)
    assert (found.going_on, found.reason) == (False, "limit")
    assert found.rate == 0.6  # three in the five seconds between the first and the last line


async def test_a_killed_run_after_one_that_ended_goes_on_and_what_was_made_before_is_unchanged(ledger: Path) -> None:
    await written(ledger, run_line(), LISTED, created(1), Entry("end", {"reason": "done", "counts": {}}))
    await written(ledger, run_line(), LISTED, created(2), run="r2")
    found = read_status(ledger, ALL)
    assert (found.run, found.going_on, found.reason, found.exit_code) == ("r2", True, None, None)
    assert (found.counts["created"], found.counts["unchanged"]) == (1, 1)


async def test_what_was_verified_is_told_until_it_is_written_again(ledger: Path) -> None:
    verified = [line("verified", number, result=result) for number, result in ((1, "same"), (2, "differs"))]
    await written(ledger, run_line(), created(1), created(2), created(3))
    assert read_status(ledger, ALL).verified is None
    await written(ledger, *verified, run="r2")
    found = read_status(ledger, ALL)
    assert found.verified == {"same": 1, "differs": 1}
    assert "verified since they were written: 1 " in show.status(found, with_failed=False)
    assert read_status(ledger, Chosen(only=("p1",))).verified == {"same": 1}
    await written(ledger, line("updated", 2, target_id="t2"), run="r3")
    assert read_status(ledger, ALL).verified == {"same": 1}


async def test_failures_are_told_by_kind_and_one_by_one_until_they_are_mended(ledger: Path) -> None:
    await written(ledger, run_line(), failed(1), failed(2), failed(3, "loss", "guardrails would be lost"))
    found = read_status(ledger, ALL)
    assert found.why == {"rejected": 2, "loss": 1}
    assert list(found.why) == ["rejected", "loss"]
    assert found.failed[2] == {
        "source_id": "p3",
        "name": "name 3",
        "stage": "create",
        "error": "loss",
        "message": "guardrails would be lost",
    }
    await written(ledger, run_line(), intent(3), created(3), run="r2")
    found = read_status(ledger, ALL)
    assert found.why == {"rejected": 2}
    assert "failed" not in found.to_json(with_failed=False)
    assert [one["source_id"] for one in found.to_json(with_failed=True)["failed"]] == ["p1", "p2"]


async def test_what_failed_conflicts_or_is_left_out_is_found_by_slug_and_by_id_of_its_collection(ledger: Path) -> None:
    async def on_fetch(prompt_id: str) -> None:
        if prompt_id in ("a", "b"):
            raise Rejected("it is refused", error="x")

    somebodys = prompt("z", name="d-replica", slug="pp-z", collection="c2")
    prompts = [prompt(one, slug=f"pp-{one}", collection="c1" if one == "a" else "c2") for one in "abcd"]
    job = job_of(Wrapped(memory(*prompts, somebodys), on_fetch=on_fetch), select=Select(names=("?",)))
    await run(job, ledger)
    for one, outcome in (("a", "failed"), ("b", "failed"), ("c", "created"), ("d", "conflicts")):
        found = read_status(ledger, Chosen(ids=(f"pp-{one}",)))
        assert (found.counts["selected"], found.counts[outcome]) == (1, 1)
        assert [line["source_id"] for line in found.failed] == ([one] if outcome == "failed" else [])
    assert read_status(ledger, Chosen(collections=("c1",))).counts["failed"] == 1
    assert [one["source_id"] for one in read_ids_map(ledger, Chosen(collections=("c2",)))] == ["c"]
    (intent,) = (line for line in lines_of(ledger) if line["kind"] == "intent")
    assert not {"source_slug", "source_collection_id"} & intent.keys()


@pytest.mark.parametrize(
    ("chosen", "ids"),
    [
        (Chosen(only=("name 1",)), ["p1"]),
        (Chosen(only=("p[12]",)), ["p1", "p2"]),
        (Chosen(ids=("p2", "pp-s3")), ["p2", "p3"]),
        (Chosen(collections=("support",)), ["p1", "p2", "p3"]),
        (Chosen(collections=("sales",)), []),
        (Chosen(only=("name*",), ids=("p3",)), ["p3"]),
    ],
)
async def test_what_was_chosen_is_told_alone(ledger: Path, chosen: Chosen, ids: list[str]) -> None:
    await written(ledger, run_line(), LISTED, created(1), created(2), created(3))
    assert read_status(ledger, chosen).counts["selected"] == len(ids)
    assert [one["source_id"] for one in read_ids_map(ledger, chosen)] == ids


async def test_a_ledger_without_a_run_and_none_at_all(ledger: Path) -> None:
    with pytest.raises(ConfigError, match="there is no ledger here: name another one"):
        read_status(ledger, ALL)
    shards = ledger.with_name(Shard(1, 4).ledger_name(ledger.name))
    shards.touch()
    with pytest.raises(ConfigError, match="there is no ledger here, but of its shards: give --shard"):
        read_status(ledger, ALL)
    ledger.touch()
    found = read_status(ledger, ALL)
    assert (found.run, found.going_on, found.counts["selected"], found.rate) == ("", False, 0, 0.0)
    assert "no run yet" in show.status(found, with_failed=True)


async def test_status_after_a_real_run_agrees_with_its_state(ledger: Path) -> None:
    async def on_fetch(prompt_id: str) -> None:
        if prompt_id == "p3":
            raise Rejected("it is refused", error="forbidden", status=403)

    there = memory(*(prompt(f"p{number}") for number in range(9)), prompt("t", "p5-replica"))
    await run(job_of(Wrapped(there, on_fetch=on_fetch)), ledger, limit=6)
    found = read_status(ledger, ALL)
    assert found.counts["conflicts"] == 1
    assert found.counts["created"] == there.creates
    text = show.status(found, with_failed=True)
    assert "it goes on, or it was killed" in text
    assert all(str(found.counts[name]) in text for name in OUTCOMES if found.counts[name])


# ---- ids -------------------------------------------------------------------------------------------------------------


async def test_the_map_has_what_was_made_and_not_what_was_undone(ledger: Path) -> None:
    undone = line("rolled_back", 2, target_id="t2", result="deleted")
    await written(ledger, run_line(), created(1), created(2), undone, failed(3), created(4))
    assert [one["source_id"] for one in read_ids_map(ledger, ALL)] == ["p1", "p4"]


async def test_a_prompt_that_was_undone_and_made_again_has_its_new_replica(ledger: Path) -> None:
    undone = line("rolled_back", 1, target_id="t1", result="deleted")
    await written(ledger, run_line(), created(1), undone, created(1, target_id="t9"), undone)
    assert [one["target_id"] for one in read_ids_map(ledger, ALL)] == ["t9"]


async def test_a_replica_that_a_rollback_left_where_it_is_stays_in_the_map(ledger: Path) -> None:
    """It was edited by hand and kept; or the last run alone was taken back, and what an earlier one made is there."""
    kept = line("rolled_back", 1, target_id="t1", result="kept")
    update = line("updated", 2, target_id="t2", target_slug="pp-t2", name="new", before_version=1, after_version=2)
    restored = line("rolled_back", 2, target_id="t2", result="restored", undone=1, source_digest="s")
    await written(ledger, run_line(), created(1), created(2), kept, update, restored)
    found = read_ids_map(ledger, ALL)
    assert [(one["target_id"], one["name"], one["target_version"]) for one in found] == [
        ("t1", "r1", 1),
        ("t2", "r2", 1),
    ]


async def test_a_clock_that_is_set_back_makes_no_time_less_than_none(ledger: Path) -> None:
    await written(ledger, run_line(), intent(1), created(1), seconds=-60.0)
    found = read_status(ledger, ALL)
    assert (found.duration_s, found.rate, found.counts["created"]) == (0.0, 0.0, 1)


async def test_the_map_as_csv_json_and_environment(ledger: Path) -> None:
    await written(
        ledger,
        run_line(),
        created(1, source_slug="pp-support-réply.v2-0a1b"),
        created(2, source_slug=None, target_slug=None, name='a "quoted", name'),
    )
    pairs = read_ids_map(ledger, ALL)
    assert [tuple(one) for one in pairs] == [ID_FIELDS, ID_FIELDS]
    assert pairs[0] == {
        "source_id": "p1",
        "source_slug": "pp-support-réply.v2-0a1b",
        "target_id": "t1",
        "target_slug": "pp-t1",
        "source_name": "name 1",
        "name": "r1",
        "source_version": 3,
        "target_version": 1,
    }
    text = show.ids_csv(pairs)
    header = "source_id,source_slug,target_id,target_slug,source_name,name,source_version,target_version"
    assert text.splitlines()[0] == header
    rows = list(csv.DictReader(io.StringIO(text)))
    assert rows[1]["name"] == 'a "quoted", name'
    assert rows[1]["target_slug"] == ""
    assert show.ids_env(pairs) == "PROMPT_PP_SUPPORT_R_PLY_V2_0A1B=pp-t1\nPROMPT_P2=t2\n"


@pytest.mark.parametrize(("first", "second"), [("a-b", "a_b"), ("Grüße", "gr\u00fc\u00dfe"), ("a b", "A.B")])
def test_two_prompts_that_would_be_one_variable_are_named(first: str, second: str) -> None:
    pairs = [
        {"source_id": f"p{number}", "source_slug": slug, "target_id": f"t{number}", "target_slug": None}
        for number, slug in enumerate((first, "other", second))
    ]
    with pytest.raises(ConfigError) as error:
        show.ids_env(pairs)
    (problem,) = error.value.problems
    assert f"{first} and {second} would both be PROMPT_" in problem.message
    assert show.ids_env([{**one, "target_slug": "same"} for one in pairs]).count("\n") == 2


async def test_an_update_says_the_version_that_it_made(ledger: Path) -> None:
    updated = line("updated", 1, target_id="p1", name="n", before_version=3, after_version=5)
    await written(ledger, run_line(), updated)
    assert read_ids_map(ledger, ALL)[0]["target_version"] == 5


# ---- health ----------------------------------------------------------------------------------------------------------


async def test_the_health_of_a_ledger(ledger: Path) -> None:
    await written(ledger, run_line(), created(1), intent(2), failed(3))
    found = examine_ledger(ledger)
    assert (found.verdict, found.usable, found.lines, found.runs) == ("whole", True, 4, 1)
    assert (found.prompts, found.created, found.in_doubt) == (3, 1, 1)
    whole = ledger.read_bytes()
    ledger.write_bytes(whole[:-5])
    found = examine_ledger(ledger)
    assert (found.verdict, found.usable, found.lines) == ("torn", True, 3)
    assert "goes on" in found.advice
    lines = whole.splitlines(keepends=True)
    ledger.write_bytes(b"".join([lines[0], lines[1].replace(b"t1", b"t9"), *lines[2:]]))
    found = examine_ledger(ledger)
    assert (found.verdict, found.usable, found.lines) == ("damaged", False, 1)
    assert "Line 2" in found.advice
    ledger.write_text("a diary\n")
    assert examine_ledger(ledger).verdict == "foreign"


@pytest.mark.parametrize("told", ["damaged", "foreign", "newer"])
async def test_what_some_lines_say_is_not_taken_for_all(ledger: Path, told: str) -> None:
    """A status, or a map of which some lines were lost, would be believed: old ids would stay where nobody looks."""
    await written(ledger, run_line(), created(1))
    await written(ledger, created(2))
    whole = ledger.read_bytes()
    spoilt = {
        "damaged": whole.replace(b'"t1"', b'"t9"'),
        "foreign": b"a diary\n",
        "newer": whole + b'{"v":2,"seq":9}\n',
    }
    ledger.write_bytes(spoilt[told])
    for read in (read_status, read_ids_map):
        with pytest.raises(ConfigError if told == "foreign" else Stop) as refused:
            read(ledger, ALL)
        assert told == "foreign" or "line " in str(refused.value)


async def test_a_line_that_is_being_written_is_waited_for_by_the_next_who_asks(ledger: Path) -> None:
    await written(ledger, run_line(), created(1))
    with ledger.open("ab") as file:
        file.write(b'{"v":1,"seq":3,')
    assert read_status(ledger, ALL).counts["created"] == 1
    assert len(read_ids_map(ledger, ALL)) == 1


async def test_what_to_do_now_is_never_what_held_before(ledger: Path) -> None:
    ledger.write_bytes(b"")
    assert read_status(ledger, ALL).next == NOT_BEGUN
    end = Entry("end", {"reason": "done", "exit_code": 0, "next": "Point applications to the replicas."})
    await written(ledger, run_line(), created(1), end)
    assert read_status(ledger, ALL).next == "Point applications to the replicas."
    await written(ledger, line("verified", 1, target_id="t1", result="differs", fields=["text"]))
    assert read_status(ledger, ALL).next == UNPROVED
    await written(ledger, line("verified", 1, target_id="t1", result="same", fields=[]))
    assert read_status(ledger, ALL).next == "Point applications to the replicas."
    await written(ledger, line("rolled_back", 1, target_id="t1", result="kept"))
    assert read_status(ledger, ALL).next == "Point applications to the replicas."
    await written(ledger, line("rolled_back", 1, target_id="t1", result="deleted"))
    assert read_status(ledger, ALL).next == TAKEN_BACK
    await written(ledger, run_line(), run="r2")
    assert read_status(ledger, ALL).next == GOES_ON


async def test_what_was_open_at_the_end_stays_open_when_a_replica_differs(ledger: Path) -> None:
    end = Entry("end", {"reason": "failures", "exit_code": 1, "next": "See why prompts failed."})
    await written(ledger, run_line(), created(1), end, line("verified", 1, target_id="t1", result="missing"))
    assert read_status(ledger, ALL).next == f"{UNPROVED} See why prompts failed."


async def test_what_is_published_is_not_to_be_published_again(ledger: Path) -> None:
    end = Entry("end", {"reason": "done", "exit_code": 0, "next": "Cut over with `promptferry publish`."})
    updates = [
        line("updated", number, target_id=f"t{number}", before_version="1", after_version="2", source_version="3")
        for number in (1, 2)
    ]
    await written(ledger, run_line(), *updates, end)
    cut = {"result": "published", "before_version": "1", "version": "2"}
    await written(ledger, line("published", 1, target_id="t1", **cut))
    assert read_status(ledger, ALL).next == "Cut over with `promptferry publish`."
    await written(ledger, line("published", 2, target_id="t2", **cut))
    assert read_status(ledger, ALL).next == CUT_OVER


def test_status_has_every_field_of_a_summary() -> None:
    summary = {field.name for field in fields(Summary)} - {"message", "notes"}
    assert summary <= {"schema", *(field.name for field in fields(Status))}
