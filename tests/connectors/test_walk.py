"""The walk over pages: the whole listing or Stop, never a short list, whatever the server and other people do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.connectors.portkey.walk import PAGE_SIZE, WALKS, walk_raw
from engine.errors import Rejected, Stop

MOST_REQUESTS = 200


def refused(status: int) -> Rejected:
    return Rejected(f"the registry answered {status}", error="rejected", status=status)


class Server:
    """A listing of numbered pages. `ids` is its truth, in the order of the listing; `meanwhile` runs before a page."""

    def __init__(
        self,
        count: int,
        *,
        first: int = 0,
        cap: int = PAGE_SIZE,
        refuses_size: int | None = None,
        refuses_zero: int | None = None,
        past_end: int | None = None,
        newest_first: bool = True,
        dated: bool = True,
        total: Callable[[int, int], Any] = lambda count, _page: count,
        meanwhile: Callable[[Server, int], None] | None = None,
    ) -> None:
        self.made = 0
        self.ids: list[int] = []
        self.newest_first = newest_first
        for _ in range(count):
            self.create()
        self.requests: list[dict[str, str]] = []
        self._first = first
        self._cap = cap
        self._refuses_size = refuses_size
        self._refuses_zero = refuses_zero
        self._past_end = past_end
        self._dated = dated
        self._total = total
        self._meanwhile = meanwhile

    def create(self) -> None:
        self.made += 1
        self.ids.insert(0 if self.newest_first else len(self.ids), self.made)

    def delete(self, position: int) -> None:
        if self.ids:
            del self.ids[position % len(self.ids)]

    async def read(self, parameters: dict[str, str]) -> Any:
        if self._meanwhile is not None:
            self._meanwhile(self, len(self.requests))
        self.requests.append(parameters)
        assert len(self.requests) <= MOST_REQUESTS
        if self._refuses_size and "page_size" in parameters:
            raise refused(self._refuses_size)
        number = int(parameters.get("current_page", self._first))
        if number == 0 and self._refuses_zero:
            raise refused(self._refuses_zero)
        size = min(int(parameters.get("page_size", self._cap)), self._cap)
        start = max(0, number - self._first) * size
        page = self.ids[start : start + size]
        if self._past_end and not page and start:
            raise refused(self._past_end)
        return {"data": [self.row(one) for one in page], "total": self._total(len(self.ids), len(page))}

    def row(self, number: int) -> dict[str, Any]:
        return {"id": f"p{number}"} | ({"created_at": f"2026-01-01T{number:06d}"} if self._dated else {})

    @property
    def truth(self) -> set[str]:
        return {f"p{number}" for number in self.ids}


async def ids(server: Server) -> list[str]:
    return [row["id"] for row in await walk_raw(server.read, "prompts")]


async def stop(server: Server) -> Stop:
    with pytest.raises(Stop) as caught:
        await walk_raw(server.read, "prompts")
    return caught.value


@pytest.mark.parametrize("count", [0, 1, 99, 100, 101, 200, 250, 1000])
@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("cap", [30, 100, 10_000])
async def test_every_row_once_whatever_the_first_page_and_the_largest_page(count: int, first: int, cap: int) -> None:
    server = Server(count, first=first, cap=cap)
    found = await ids(server)
    assert len(found) == count
    assert set(found) == server.truth


@pytest.mark.parametrize("status", [400, 404, 422])
async def test_a_server_without_a_page_zero_is_walked_from_one(status: int) -> None:
    server = Server(250, first=1, refuses_zero=status)
    assert set(await ids(server)) == server.truth


@pytest.mark.parametrize("status", [400, 404, 422])
async def test_a_page_past_the_end_may_be_refused(status: int) -> None:
    server = Server(200, first=1, past_end=status)
    assert set(await ids(server)) == server.truth


@pytest.mark.parametrize("status", [400, 422])
@pytest.mark.parametrize("default", [40, 10_000])
async def test_a_server_that_refuses_our_page_size_is_asked_without(status: int, default: int) -> None:
    server = Server(130, refuses_size=status, cap=default)
    assert set(await ids(server)) == server.truth
    assert sum("page_size" in asked for asked in server.requests) == 1


async def test_other_refusals_are_the_callers() -> None:
    async def read(parameters: dict[str, str]) -> Any:
        raise refused(403)

    with pytest.raises(Rejected):
        await walk_raw(read, "prompts")


async def test_a_small_workspace_takes_one_request() -> None:
    server = Server(99)
    await ids(server)
    assert len(server.requests) == 1


async def test_a_walk_asks_little_more_than_its_pages() -> None:
    server = Server(1050)
    await ids(server)
    assert len(server.requests) <= 11 + 4


async def test_repeated_rows_count_once() -> None:
    async def read(parameters: dict[str, str]) -> Any:
        page = int(parameters.get("current_page", "0"))
        rows = [{"id": f"p{number}"} for number in range(page * 90, min(page * 90 + 100, 240))]
        return {"data": rows + rows[:3], "total": 240}

    found = [row["id"] for row in await walk_raw(read, "prompts")]
    assert sorted(found) == sorted(f"p{number}" for number in range(240))


async def test_a_bare_array_is_whole() -> None:
    async def read(parameters: dict[str, str]) -> Any:
        return [{"id": f"p{number}"} for number in range(150)]

    assert len(await walk_raw(read, "partials")) == 150


async def test_a_bare_array_that_is_only_a_page_is_not_taken_for_the_whole() -> None:
    server = Server(150)

    async def read(parameters: dict[str, str]) -> Any:
        return (await server.read(parameters))["data"]

    with pytest.raises(Stop):
        await walk_raw(read, "partials")


# ---- what is no listing ----------------------------------------------------------------------------------------------


async def test_a_loop_of_pages_ends_and_is_said_to_be_short() -> None:
    server = Server(100, total=lambda count, page: 250)

    async def read(parameters: dict[str, str]) -> Any:
        return await server.read({name: value for name, value in parameters.items() if name != "current_page"})

    with pytest.raises(Stop) as caught:
        await walk_raw(read, "prompts")
    assert caught.value.reason == "check_failed"
    assert "100 of the 250" in str(caught.value)
    assert len(server.requests) <= 1 + WALKS * 5


TOTALS = {
    "too large": lambda count, page: count + 1,
    "too small": lambda count, page: count - 1,
    "far too small": lambda count, page: 3,
    "that of the page": lambda count, page: page,
    "zero": lambda count, page: 0,
    "negative": lambda count, page: -1,
    "missing": lambda count, page: None,
    "a text": lambda count, page: str(count),
    "true": lambda count, page: True,
}


@pytest.mark.parametrize("total", TOTALS.values(), ids=TOTALS)
@pytest.mark.parametrize("first", [0, 1])
async def test_a_wrong_total_is_never_taken_for_the_whole(total: Callable[[int, int], Any], first: int) -> None:
    stopped = await stop(Server(250, first=first, total=total))
    assert stopped.exit_code in (4, 75)


@pytest.mark.parametrize(
    "answer",
    [
        None,
        "<html>",
        {"total": 1},
        {"data": None, "total": 0},
        {"data": [], "total": None},
        {"data": [{"name": "no id"}], "total": 1},
        {"data": [{"id": 7}], "total": 1},
        {"data": [{"id": ""}], "total": 1},
        {"data": ["p1"], "total": 1},
    ],
)
async def test_what_is_no_listing_stops_and_names_it(answer: Any) -> None:
    async def read(parameters: dict[str, str]) -> Any:
        return answer

    with pytest.raises(Stop) as caught:
        await walk_raw(read, "collections")
    assert caught.value.reason == "check_failed"
    assert "collections" in str(caught.value)
    assert "base_url" in caught.value.next


async def test_more_rows_than_claimed_are_not_called_short() -> None:
    stopped = await stop(Server(250, total=lambda count, page: 120))
    assert stopped.reason == "check_failed"
    assert "is longer than it says: 4 walks found 200 or more, and the registry claims 120" in str(stopped)
    assert "short" not in f"{stopped}{stopped.next}"


async def test_rows_that_come_and_go_are_not_called_short() -> None:
    """As many as are claimed, and every time others."""
    stopped = await stop(Server(250, newest_first=False, meanwhile=lambda server, _: replaced(0)(server)))
    assert "did not hold still: 4 walks found" in str(stopped)
    assert "the registry claimed 250;" in str(stopped)


# ---- other people ----------------------------------------------------------------------------------------------------


def at(moments: dict[int, Callable[[Server], None]]) -> Callable[[Server, int], None]:
    """Before which request what happens."""

    def meanwhile(server: Server, request: int) -> None:
        if change := moments.get(request):
            change(server)

    return meanwhile


def replaced(position: int) -> Callable[[Server], None]:
    """One deleted and one created: the total stays as it is."""

    def change(server: Server) -> None:
        server.delete(position)
        server.create()

    return change


@pytest.mark.parametrize("newest_first", [True, False])
@pytest.mark.parametrize("dated", [True, False])
@pytest.mark.parametrize("position", [0, 50, 150, 249])
@pytest.mark.parametrize("request_number", [1, 2, 3, 4, 5])
async def test_one_deleted_and_one_created_lose_nothing(
    newest_first: bool, dated: bool, position: int, request_number: int
) -> None:
    meanwhile = at({request_number: replaced(position)})
    server = Server(250, newest_first=newest_first, dated=dated, meanwhile=meanwhile)
    before = server.truth
    found = set(await ids(server))
    assert before & server.truth <= found
    if request_number < len(server.requests):  # else it came too late to be seen
        assert found == server.truth


async def test_creates_at_the_front_push_rows_onto_the_next_page() -> None:
    server = Server(250, meanwhile=at({2: Server.create}))
    assert set(await ids(server)) == server.truth


async def test_deletes_at_the_front_of_an_oldest_first_listing_pull_rows_over_the_edge() -> None:
    server = Server(250, newest_first=False, meanwhile=at({2: lambda server: server.delete(0)}))
    assert set(await ids(server)) == server.truth


@pytest.mark.parametrize("change", [Server.create, replaced(120)])
@pytest.mark.parametrize("newest_first", [True, False])
async def test_a_workspace_that_never_holds_still_is_told_to_come_back_later(
    change: Callable[[Server], None], newest_first: bool
) -> None:
    server = Server(250, newest_first=newest_first, meanwhile=lambda server, _: change(server))
    stopped = await stop(server)
    assert stopped.reason == "registry_down"
    assert "did not hold still" in str(stopped)


Change = tuple[int, bool, int]
"""Before which request, create or delete, and where."""

changes = st.lists(st.tuples(st.integers(0, 14), st.booleans(), st.integers(0, 400)), max_size=8)


@settings(max_examples=400, deadline=None)
@given(
    count=st.integers(0, 400),
    cap=st.sampled_from([60, 100]),
    first=st.sampled_from([0, 1]),
    newest_first=st.booleans(),
    dated=st.booleans(),
    schedule=changes,
)
async def test_any_schedule_of_creates_and_deletes_gives_the_whole_or_a_stop(
    count: int, cap: int, first: int, newest_first: bool, dated: bool, schedule: Sequence[Change]
) -> None:
    always: set[str] = set()
    changed_at = [-1]

    def meanwhile(server: Server, request: int) -> None:
        for when, create, position in schedule:
            if when == request:
                changed_at.append(request)
                server.create() if create else server.delete(position)
        always.intersection_update(server.truth)

    server = Server(count, cap=cap, first=first, newest_first=newest_first, dated=dated, meanwhile=meanwhile)
    always |= server.truth
    try:
        found = await ids(server)
    except Stop:
        assert max(changed_at) >= 0  # without any change there is no reason to stop
        return
    assert len(found) == len(set(found))
    assert always <= set(found)
    assert {int(one[1:]) for one in found} <= set(range(1, server.made + 1))
    if max(changed_at) <= 0:  # nothing changed once the first page had been read
        assert set(found) == server.truth


@settings(max_examples=200, deadline=None)
@given(count=st.integers(101, 400), schedule=st.lists(st.tuples(st.booleans(), st.integers(0, 400)), max_size=5))
async def test_when_only_the_first_walk_was_disturbed_the_result_is_the_truth(
    count: int, schedule: Sequence[tuple[bool, int]]
) -> None:
    def meanwhile(server: Server, request: int) -> None:
        if 0 < request <= len(schedule):
            create, position = schedule[request - 1]
            server.create() if create else server.delete(position)

    server = Server(count, meanwhile=meanwhile)
    found = set(await ids(server))
    assert found >= server.truth
