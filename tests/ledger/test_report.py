"""Books that balance, the verdict, and what a person is told to do now."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import STOP_EXIT, Stop
from engine.ledger.record import Records
from engine.ledger.report import (
    OUTCOMES,
    Summary,
    books,
    lost_track,
    nothing,
    outcome_of,
    to_text,
    verdict,
    without_outcome,
)
from engine.ledger.state import Record, State

RUN = "run-2"

records = st.none() | st.builds(
    Record,
    status=st.sampled_from(["intent", "unknown", "created", "updated", "skipped", "conflict", "failed", "rolled_back"]),
    run=st.sampled_from(["run-1", RUN]),
)


def counts(**some: int) -> dict[str, int]:
    return dict.fromkeys(("listed", "selected", *OUTCOMES), 0) | some


def state_of(told: dict[str, Record | None]) -> State:
    return State(Records((source_id, record) for source_id, record in told.items() if record is not None))


# ---- books -----------------------------------------------------------------------------------------------------------


@given(told=st.dictionaries(st.text(max_size=3), records, max_size=30), unselected=st.integers(0, 5))
def test_the_books_balance_for_every_mixture(told: dict[str, Record | None], unselected: int) -> None:
    whole, this_run = books(state_of(told), told, listed=len(told) + unselected, run=RUN)
    assert whole["selected"] == len(told) == sum(whole[name] for name in OUTCOMES)
    assert whole["listed"] == len(told) + unselected
    assert set(whole) == {"listed", "selected", *OUTCOMES}
    assert set(this_run) == set(OUTCOMES)
    assert all(this_run[name] <= whole[name] for name in OUTCOMES)


@given(told=st.dictionaries(st.text(max_size=3), records, max_size=20))
def test_what_is_not_selected_is_not_counted(told: dict[str, Record | None]) -> None:
    whole, this_run = books(state_of(told), [], listed=len(told), run=RUN)
    assert sum(whole[name] for name in OUTCOMES) == sum(this_run.values()) == 0


@pytest.mark.parametrize(
    ("status", "run", "outcome"),
    [
        ("created", RUN, "created"),
        ("created", "run-1", "unchanged"),
        ("updated", RUN, "updated"),
        ("updated", "run-1", "unchanged"),
        ("skipped", "run-1", "skipped"),
        ("failed", "run-1", "failed"),
        ("conflict", RUN, "conflicts"),
        ("intent", RUN, "unresolved"),
        ("unknown", "run-1", "unresolved"),
        ("rolled_back", RUN, "not_started"),
        (None, RUN, "not_started"),
    ],
)
def test_what_became_of_a_prompt(status: Any, run: str, outcome: str) -> None:
    record = None if status is None else Record(status=status, run=run)
    assert outcome_of(record, RUN) == outcome


def test_this_run_is_what_it_did_itself() -> None:
    told: dict[str, Record | None] = {
        "made": Record(status="created", run=RUN),
        "made before": Record(status="created", run="run-1"),
        "failed": Record(status="failed", run=RUN),
        "failed before": Record(status="failed", run="run-1"),
        "left": None,
    }
    whole, this_run = books(state_of(told), told, listed=9, run=RUN)
    assert whole == counts(listed=9, selected=5, created=1, unchanged=1, failed=2, not_started=1)
    assert {name: count for name, count in this_run.items() if count} == {
        "created": 1,
        "unchanged": 1,
        "failed": 1,
        "not_started": 1,
    }


def test_a_run_that_listed_nothing_has_empty_books() -> None:
    whole, this_run = nothing()
    assert set(whole) == {"listed", "selected", *OUTCOMES}
    assert set(this_run) == set(OUTCOMES)
    assert not any([*whole.values(), *this_run.values()])


# ---- the verdict -----------------------------------------------------------------------------------------------------

STOP = Stop("registry_down", "it is down", next="Run it again later.")


def judged(some: dict[str, int], *, stop: Stop | None = None, limited: bool = False) -> tuple[int, str, str]:
    problem = lost_track(some, stop=stop, limited=limited)
    return verdict(some, stop=stop, limited=limited, problem=problem)


@pytest.mark.parametrize("reason", STOP_EXIT)
def test_a_stop_wins_over_everything(reason: str) -> None:
    stop = Stop(reason, "something happened", next="Do this.")
    for some in (counts(), counts(failed=3), counts(not_started=3), counts(created=9)):
        assert judged(some, stop=stop) == (STOP_EXIT[reason], reason, "Do this.")


def test_lost_track_wins_over_failures_and_is_never_0() -> None:
    code, reason, next_ = judged(counts(not_started=1, failed=1, created=5))
    assert (code, reason) == (4, "failures")
    assert "Report this" in next_
    assert "1 prompts" in (lost_track(counts(not_started=1), stop=None, limited=False) or "")


def test_what_is_taken_up_and_not_told_is_caught_whatever_the_counts_say() -> None:
    told: dict[str, Record | None] = {
        "said": Record(status="created", run="run-1", told=RUN),
        "in doubt": Record(status="intent", run="run-1", told="run-1"),
        "a": Record(status="created", run="run-1", told="run-1"),
        "b": None,
        "not taken up": Record(status="created", run="run-1", told="run-1"),
    }
    state, taken = state_of(told), [one for one in told if one != "not taken up"]
    lost = without_outcome(state, taken, RUN)
    assert lost == ["a", "b"]
    whole, _ = books(state, told, taken, listed=5, run=RUN)
    assert whole == counts(listed=5, selected=5, unchanged=2, unresolved=1, not_started=2)
    for limited in (False, True):
        problem = lost_track(counts(unchanged=5), lost, stop=None, limited=limited)
        assert problem == "the books do not balance: 2 prompts were taken up and have no outcome (among them a, b)"
        assert verdict(counts(unchanged=5), stop=None, limited=limited, problem=problem)[0] == 4
    assert lost_track(whole, lost, stop=STOP, limited=False) is None


@pytest.mark.parametrize("kept", [True, False])
def test_the_flag_is_named_where_it_is_needed(kept: bool) -> None:
    _, _, next_ = verdict(counts(failed=1), stop=None, limited=False, problem=None, kept=kept)
    assert ("--retry-failed" in next_) is kept
    assert next_.count(".") == 1


@pytest.mark.parametrize("limited", [True, False])
@pytest.mark.parametrize("kind", ["failed", "conflicts", "unresolved"])
def test_what_did_not_arrive_wins_over_done_and_limit(kind: str, limited: bool) -> None:
    code, reason, next_ = judged(counts(created=5, **{kind: 1}), limited=limited)
    assert (code, reason) == (1, "failures")
    word = {"failed": "status --failed", "conflicts": "on_existing", "unresolved": "look up"}[kind]
    assert word in next_
    assert next_[0].isupper()
    assert next_.endswith(".")


def test_everything_that_is_open_is_said_in_one_sentence() -> None:
    _, _, next_ = judged(counts(failed=1, conflicts=1, unresolved=1))
    assert all(word in next_ for word in ("--failed", "on_existing", "look up"))
    assert next_.count(".") == 1


def test_a_limit_and_an_end() -> None:
    assert judged(counts(created=5, not_started=5), limited=True)[:2] == (0, "limit")
    assert "same command" in judged(counts(created=5, not_started=5), limited=True)[2]
    code, reason, next_ = judged(counts(created=5))
    assert (code, reason) == (0, "done")
    assert "promptferry ids" in next_
    assert judged(counts(unchanged=5, skipped=1)) == (0, "done", "Nothing to do.")


@given(
    some=st.fixed_dictionaries(dict.fromkeys(OUTCOMES, st.integers(0, 3))),
    stop=st.none() | st.just(STOP),
    limited=st.booleans(),
)
def test_0_means_that_everything_arrived_or_was_left_on_purpose(
    some: dict[str, int], stop: Stop | None, limited: bool
) -> None:
    code, reason, next_ = judged(some, stop=stop, limited=limited)
    whole = not (some["failed"] or some["conflicts"] or some["unresolved"])
    assert (code == 0) is (stop is None and whole and (limited or not some["not_started"]))
    assert (code == 0) is (reason in ("done", "limit"))
    assert next_


# ---- the summary -----------------------------------------------------------------------------------------------------


def summary(**changes: Any) -> Summary:
    known: dict[str, Any] = {
        "migration": "m",
        "run": RUN,
        "mode": "replicate",
        "exit_code": 1,
        "reason": "failures",
        "message": "",
        "next": "See why.",
        "counts": counts(listed=12000, selected=11000, created=10999, failed=1),
        "this_run": dict.fromkeys(OUTCOMES, 0),
        "requests": {"total": 1234, "reads": 1000, "writes": 234, "retries": 5, "throttled": 2},
        "duration_s": 12.345,
        "ledger": "ledgers/m.jsonl",
        "notes": ("2 prompts share their name",),
    }
    return Summary(**known | changes)


def test_a_summary_is_one_line_of_json_with_every_field() -> None:
    value = summary().to_json()
    assert set(value) >= set(
        "schema migration run mode exit_code reason next counts this_run requests duration_s ledger".split()
    )
    line = json.dumps(value)
    assert "\n" not in line
    assert json.loads(line)["counts"]["created"] == 10999
    assert value["schema"] == 1


def test_a_summary_for_a_person_has_numbers_and_says_what_to_do_last() -> None:
    lines = to_text(summary(message="it is down", reason="registry_down")).splitlines()
    assert lines[0] == "m: registry down"
    assert lines[1] == "it is down"
    text = "\n".join(lines)
    for part in ("11000 of 12000 prompts selected", "10,999  created", "1  failed", "1,234 requests", "12.3 s"):
        assert part in text
    assert "skipped" not in text
    assert "note: 2 prompts share their name" in text
    assert lines[-1] == "See why."


def test_a_summary_says_what_held_the_run_back_and_says_it_once() -> None:
    found = {"rate": 45.0, "limit": 49.6, "concurrency": 12, "paused_s": 7.4}
    text = to_text(summary(throttle={"source": found, "target": found}))
    assert text.count("takes about 49.6 requests/s, asked for 7 s of pauses") == 1
    free = {"rate": 300.0, "limit": None, "concurrency": 12, "paused_s": 0.0}
    assert "about" not in to_text(summary(throttle={"source": free, "target": free}))
    both = to_text(summary(throttle={"source": found, "target": free}))
    assert "the source takes about" in both
    assert "the target" not in both
