"""Every fault of the wire, on reads and creates, once and for ever: each ends as it must, a resume sets it right.

The proxy stands before the registry, so the registry knows what really happened.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest

from tests.chaos.campaign import Campaign, Tally, campaign, each
from tests.chaos.faultserver import Between, Plan, between
from tests.e2e import Ended

MOST_KIB: Final = 200 * 1024


class End(NamedTuple):
    """How a run ends that meets a fault."""

    code: int
    reason: str


DONE: Final = End(0, "done")
"""Sent again, or looked up."""
DOWN: Final = End(75, "registry_down")
ACT: Final = End(4, "check_failed")
OPEN: Final = End(1, "failures")
"""Some prompts failed or are in doubt."""


class Ends(NamedTuple):
    """GET 1 is a listing that the rules need, 2 the listing of prompts, 3 the first definition; POST 1 goes alone."""

    get_1: End = DONE
    get_2: End = DONE
    get_3: End = DONE
    gets: End = DOWN
    gets_from_3: End = DOWN
    post_1: End = DONE
    post_2: End = DONE
    posts: End = DONE


WAITS: Final = End(75, "time_box")
"""It has answered well before, so it is waited for until the time is up."""
REFUSED: Final = Ends(DOWN, DOWN, DOWN, DOWN, DOWN, WAITS, WAITS, WAITS)
REDIRECTED: Final = Ends(ACT, ACT, ACT, ACT, ACT, ACT, ACT, ACT)
WANTED: Final[Mapping[str, Ends]] = {
    "refuse": REFUSED,
    "hang": Ends(gets_from_3=OPEN, posts=OPEN),
    "drip": Ends(gets_from_3=OPEN),
    "reset before": Ends(posts=OPEN),
    "reset after": Ends(),
    "truncated": Ends(),
    "blank": Ends(),
    "bad json": Ends(),
    "html": Ends(gets=ACT),
    "long header": Ends(),
    "gzip bomb": Ends(get_1=ACT, get_2=ACT, gets=ACT),
    "302": REDIRECTED,
    "307": REDIRECTED,
    "page loop": Ends(gets=ACT, gets_from_3=ACT),
    "repeated rows": Ends(gets=DONE, gets_from_3=DONE),
    "stale keep-alive": Ends(gets=DONE, gets_from_3=DONE, posts=OPEN),
}
PROMPTS: Final = {"hang": 3, "drip": 3, "refuse": 12}
"""Not ten: what costs the whole timeout, and too few for the registry to count as down; and surely enough for that."""
TIMEOUTS: Final = {"hang": 1, "drip": 1, "gzip bomb": 15}
"""A bomb is to be judged by its size, however slow the machine."""
FLAGS: Final = {"refuse": ("--max-duration", "9s")}
LISTED: Final = ("page loop", "repeated rows")
"""What only a listing can have: it comes in several pages then."""
PLANS: Final[Mapping[str, Mapping[str, Any]]] = {
    "get_1": {"method": "GET", "nth": 1},
    "get_2": {"method": "GET", "nth": 2},
    "get_3": {"method": "GET", "nth": 3},
    "gets": {"method": "GET", "on": True},
    "gets_from_3": {"method": "GET", "nth": 3, "on": True},
    "post_1": {"method": "POST", "nth": 1},
    "post_2": {"method": "POST", "nth": 2},
    "posts": {"method": "POST", "on": True},
}


@dataclass(frozen=True)
class Case:
    """One fault of one kind of request."""

    folder: Path
    fault: str
    place: str


@contextmanager
def spoiled(folder: Path, *, prompts: int, seed: int, **more: Any) -> Iterator[tuple[Campaign, Between]]:
    """A campaign whose registry is reached through a proxy."""
    with ExitStack() as stack:
        proxies: list[Between] = []

        def behind(url: str) -> str:
            proxies.append(stack.enter_context(between(url)))
            return proxies[0].base_url

        one = stack.enter_context(campaign(folder, prompts=prompts, seed=seed, base_url=behind, **more))
        yield one, proxies[0]


def suffered(case: Case) -> Tally:
    plan = Plan(case.fault, **PLANS[case.place])
    quirks = {"page_cap": 4} if case.fault in LISTED else {}
    limits = {"settle": "0.3s", "timeout": TIMEOUTS.get(case.fault, 2), "attempts": 2}
    prompts = PROMPTS.get(case.fault, 10)
    with spoiled(case.folder, prompts=prompts, seed=1, quirks=quirks, limits=limits) as (one, proxy):
        proxy.suffer(plan)
        done = one.run(*FLAGS.get(case.fault, ()))
        proxy.suffer(None)
        one.disturbed(plan.spoiled)
        judge_end(one, case, done)
        if not plan.spoiled:
            one.complain("no answer was spoiled", undetected=1)
        one.resume()
    return one.tally


def judge_end(one: Campaign, case: Case, done: Ended) -> None:
    """It ended by itself, as it must, in little memory."""
    wanted: End = getattr(WANTED[case.fault], case.place)
    found = End(done.code, done.reason)
    if found != wanted:
        one.complain(f"{case.fault}, {case.place}: ended with {found}, not {wanted}", undetected=1)
    if done.peak_kib > MOST_KIB:
        one.complain(f"{case.fault}, {case.place}: held {done.peak_kib} KiB", undetected=1)


def cases(folder: Path, fault: str) -> list[Case]:
    """All kinds of requests that can suffer it."""
    places = [place for place in PLANS if fault not in LISTED or place.startswith("get")]
    return [Case(folder / f"{fault} {place}".replace(" ", "-"), fault, place) for place in places]


@pytest.mark.parametrize("fault", WANTED)
def test_a_fault_ends_as_it_must_and_a_resume_sets_it_right(fault: str, tmp_path: Path) -> None:
    tally = each(suffered, cases(tmp_path, fault), jobs=len(PLANS))
    assert tally.clean, tally


def long_faults(_scale: int, jobs: int) -> Tally:
    """All faults of all requests."""
    with tempfile.TemporaryDirectory() as folder:
        every = [case for fault in WANTED for case in cases(Path(folder), fault)]
        return each(suffered, every, jobs=jobs, told="faults of the wire")
