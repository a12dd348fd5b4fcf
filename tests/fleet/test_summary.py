"""What the summaries of its migrations make of a fleet."""

from __future__ import annotations

from dataclasses import replace

import pytest

from engine.errors import STOP_EXIT
from engine.fleet.summary import NO_REQUESTS, summarise
from engine.ledger.report import Summary, nothing
from tests.fleets import balanced


def summary(name: str, exit_code: int, reason: str = "done", *, message: str = "", created: int = 0) -> Summary:
    counts, this_run = nothing()
    return Summary(
        migration=name,
        run="r",
        mode="replicate",
        exit_code=exit_code,
        reason=reason,
        message=message,
        next=f"Do what {reason} wants.",
        counts=counts | {"listed": created, "selected": created, "created": created},
        this_run=this_run | {"created": created},
        requests=NO_REQUESTS | {"total": 3 * created, "writes": created, "reads": 2 * created},
        duration_s=1.0,
        ledger=f"{name}.jsonl",
    )


@pytest.mark.parametrize(
    ("codes", "worst"),
    [
        ((0, 0), 0),
        ((0, 3), 3),
        ((3, 1, 0), 1),
        ((1, 75, 3), 75),
        ((75, 4, 1), 4),
        ((), 0),
    ],
)
def test_the_worst_of_all_is_the_exit_code(codes: tuple[int, ...], worst: int) -> None:
    found = summarise("f", [summary(f"m{at}", code) for at, code in enumerate(codes)], not_started=(), duration_s=1)
    assert found.exit_code == worst
    assert sum(found.states.values()) == len(codes)


def test_totals_balance() -> None:
    each = [summary("a", 0, created=3), summary("b", 1, "failures", created=4), summary("c", 75, "interrupted")]
    found = summarise("f", each, not_started={"c"}, duration_s=1)
    balanced(found.to_json())
    assert (found.counts["created"], found.requests["total"]) == (7, 21)
    assert found.states == {"done": 1, "unfinished": 1, "differs": 0, "stopped": 0, "not_started": 1}


def test_what_is_said_of_many_is_said_once() -> None:
    many = [summary(f"m{at}", 75, "interrupted", message="SIGINT") for at in range(200)]
    found = summarise("f", many, not_started=(), duration_s=1)
    assert (found.message, found.next) == ("m0, m1, m2 and 197 more: SIGINT", "Do what interrupted wants.")
    each = [replace(one, message=f"{one.migration} is odd", next=f"Mend {one.migration}.") for one in many]
    found = summarise("f", each, not_started=(), duration_s=1)
    assert found.message.startswith("m0: m0 is odd; m1: m1 is odd")
    assert found.next.endswith("see `migrations` for 195 more")


def test_what_to_do_speaks_of_the_worst() -> None:
    each = [summary("a", 0), summary("b", 75, "time_box"), summary("c", 4, "quota"), summary("d", 4, "key_refused")]
    found = summarise("f", each, not_started=(), duration_s=1)
    assert (found.reason, found.next) == ("quota", "c: Do what quota wants; d: Do what key_refused wants")
    assert set(STOP_EXIT.values()) <= {4, 75}
