"""The gate keeps the rate, the pauses and the order. All of it in virtual time: nothing here waits."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from itertools import pairwise

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import Transient
from engine.http.limiter import Kind, RateLimiter, Requests, Throttle, Turn
from engine.http.rate_search import RESERVE
from tests.simulator import Bucket
from tests.virtual import in_virtual_time, now


def gate(*, rate: float | None = 1000, concurrency: int = 1000, jitter: float = 0.0) -> RateLimiter:
    return RateLimiter(rate=rate, concurrency=concurrency, jitter=lambda: jitter)


async def leave(turn: Turn) -> None:
    """As the client does it."""
    await turn.ready()
    while not await turn.departs():
        await turn.ready()


async def send(gate: RateLimiter, times: list[float], *, seconds: float = 0.0) -> None:
    async with gate.turn("read"):
        times.append(now())
        await asyncio.sleep(seconds)


def most_in_a_window(times: list[float], seconds: float) -> int:
    return max(sum(start <= moment <= start + seconds for moment in times[at:]) for at, start in enumerate(times))


@pytest.mark.parametrize("rate", [0.5, 1, 7, 20, 50, 99, 101, 333, 2000])
def test_no_window_holds_more_than_the_rate_and_one_bucket(rate: float) -> None:
    times: list[float] = []

    async def work() -> None:
        throttle = gate(rate=rate)
        async with anyio.create_task_group() as tasks:
            for _ in range(300):
                tasks.start_soon(send, throttle, times)

    in_virtual_time(work)
    capacity = max(1, rate * 0.02)
    for window in (0.0, 0.5 / rate, 1 / rate, 10 / rate, 100 / rate):
        # a turn of the loop takes a microsecond of this time: leave it one at either edge
        assert most_in_a_window(times, window) <= rate * (window + 2e-6) + capacity
    assert times[-1] <= 300 / rate * 1.02 + 0.01, "nor may it be slower than that"


def departures(rate: float, late: Callable[[], float], requests: int = 1000) -> list[float]:
    """When they left, with timers that are late by what `late` draws."""
    times: list[float] = []

    async def come(throttle: RateLimiter) -> None:
        async with throttle.turn("read") as turn:
            await leave(turn)
            times.append(now())
            await asyncio.sleep(0.1)
        throttle.accepted(turn)

    async def work() -> None:
        throttle = gate(rate=rate)
        async with anyio.create_task_group() as tasks:
            for _ in range(requests):
                tasks.start_soon(come, throttle)

    in_virtual_time(work, late=late)
    return times


@pytest.mark.parametrize("rate", [7, 40, 99, 101, 500])
def test_timers_that_are_late_cost_no_rate(rate: float) -> None:
    draw = random.Random(1)
    times = departures(rate, lambda: draw.uniform(0, 0.02))
    assert times[-1] <= 1000 / (rate * RESERVE) + 0.3, "the first answers included"


@pytest.mark.parametrize("rate", [40, 101, 500])
def test_after_a_standstill_no_window_holds_much_more(rate: float) -> None:
    draw = random.Random(1)
    times = departures(rate, lambda: 0.3 if draw.random() < 0.02 else draw.uniform(0, 0.02))
    for window in (0.0, 1 / rate, 10 / rate, 100 / rate):
        assert most_in_a_window(times, window) <= rate * (window + 2e-6) + 1 + rate * 0.03


@settings(max_examples=40, deadline=None)
@given(
    rate=st.sampled_from([5.0, 60.0, 400.0]),
    arrivals=st.lists(st.floats(0, 0.5), min_size=1, max_size=60),
    pauses=st.lists(st.tuples(st.floats(0, 2), st.floats(0, 1)), max_size=4),
)
def test_rate_and_pauses_hold_whenever_requests_come(
    rate: float, arrivals: list[float], pauses: list[tuple[float, float]]
) -> None:
    times: list[float] = []
    quiet: list[tuple[float, float]] = []

    async def come(throttle: RateLimiter, after: float) -> None:
        await asyncio.sleep(after)
        await send(throttle, times)

    async def pause(throttle: RateLimiter, after: float, seconds: float) -> None:
        await asyncio.sleep(after)
        quiet.append((now(), now() + seconds))
        throttle.pause(seconds, "busy")

    async def work() -> None:
        throttle = gate(rate=rate)
        async with anyio.create_task_group() as tasks:
            for after in arrivals:
                tasks.start_soon(come, throttle, after)
            for after, seconds in pauses:
                tasks.start_soon(pause, throttle, after, seconds)

    in_virtual_time(work)
    assert len(times) == len(arrivals)
    assert not [moment for moment in times for start, end in quiet if start < moment < end]
    for window in (0.0, 1 / rate, 5 / rate):
        assert most_in_a_window(times, window) <= rate * (window + 2e-6) + max(1, rate * 0.02)


@pytest.mark.parametrize("rate", [40, 100, 1000])
def test_64_workers_wait_alike(rate: float) -> None:
    waits: list[float] = []

    async def worker(throttle: RateLimiter) -> None:
        for _ in range(20):
            start = now()
            async with throttle.turn("read"):
                waits.append(now() - start)

    async def work() -> None:
        throttle = gate(rate=rate)
        async with anyio.create_task_group() as tasks:
            for _ in range(64):
                tasks.start_soon(worker, throttle)

    in_virtual_time(work)
    settled = waits[64:]
    assert max(settled) <= 1.3 * sum(settled) / len(settled)


def test_first_come_first_served() -> None:
    order: list[int] = []

    async def work() -> None:
        throttle = gate(rate=50, concurrency=3)

        async def come(number: int) -> None:
            async with throttle.turn("write"):
                order.append(number)
                await asyncio.sleep(0.1)

        async with anyio.create_task_group() as tasks:
            for number in range(50):
                tasks.start_soon(come, number)

    in_virtual_time(work)
    assert order == list(range(50))


def test_never_more_in_flight_than_the_ceiling() -> None:
    seen: list[int] = []

    async def work() -> None:
        throttle = gate(concurrency=4)

        async def come() -> None:
            async with throttle.turn("read"):
                seen.append(throttle.in_flight)
                await asyncio.sleep(0.05)

        async with anyio.create_task_group() as tasks:
            for _ in range(40):
                tasks.start_soon(come)
        assert throttle.in_flight == 0

    in_virtual_time(work)
    assert max(seen) == 4


def test_waiting_for_a_place_saves_up_no_burst() -> None:
    times: list[float] = []

    async def work() -> None:
        throttle = gate(rate=10, concurrency=3)

        async def come() -> None:
            async with throttle.turn("read"):
                times.append(now())
                # three places are left at the same moment
                await asyncio.sleep(5 - now() % 5)

        async with anyio.create_task_group() as tasks:
            for _ in range(12):
                tasks.start_soon(come)

    in_virtual_time(work)
    assert min(later - earlier for earlier, later in pairwise(times)) >= 0.1 - 2e-6


def test_the_longest_pause_wins_and_gets_up_to_a_tenth_longer() -> None:
    async def work() -> tuple[float, str, list[float]]:
        throttle = gate(jitter=0.5)
        throttle.pause(10, "the registry asked for it")
        throttle.pause(2, "shorter")
        told = throttle.paused_for, throttle.why
        times: list[float] = []
        await send(throttle, times)
        assert (throttle.paused_for, throttle.why) == (0, "")
        return *told, times

    seconds, why, times = in_virtual_time(work)
    assert seconds == pytest.approx(10.5, abs=1e-4)
    assert why == "the registry asked for it"
    assert times == [pytest.approx(10.5, abs=1e-3)]


def test_a_pause_that_grows_while_it_is_waited_for() -> None:
    async def work() -> list[float]:
        throttle, times = gate(), list[float]()
        throttle.pause(1, "busy")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(send, throttle, times)
            await asyncio.sleep(0.9)
            throttle.pause(5, "busy")
        return times

    assert in_virtual_time(work) == [pytest.approx(5.9, abs=1e-3)]


@pytest.mark.parametrize("obstacle", ["rate", "pause", "place"])
@pytest.mark.parametrize("leaving", [0, 1, 5])
def test_who_is_cancelled_takes_no_turn_with_him(obstacle: str, leaving: int) -> None:
    passed: list[int] = []

    async def work() -> float:
        throttle = gate(rate=10, concurrency=1 if obstacle == "place" else 100)

        async def come(number: int, seconds: float) -> None:
            async with throttle.turn("read") as turn:
                await leave(turn)
                passed.append(number)
                await asyncio.sleep(seconds)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(come, 99, 1.0)
            await asyncio.sleep(0.01)
            if obstacle == "pause":
                throttle.pause(1, "busy")
            waiters = [asyncio.ensure_future(come(number, 0)) for number in range(8)]
            await asyncio.sleep(0.02)
            waiters[leaving].cancel()
            await asyncio.wait(waiters)
        assert throttle.in_flight == 0
        assert throttle.requests.total == 8
        return now()

    end = in_virtual_time(work)
    assert passed == [99, *(number for number in range(8) if number != leaving)]
    assert end <= 1.9


def test_a_request_that_fails_gives_its_place_back() -> None:
    async def work() -> int:
        throttle = gate(concurrency=1)
        with pytest.raises(RuntimeError):
            async with throttle.turn("write"):
                raise RuntimeError
        async with throttle.turn("write"):
            return throttle.in_flight

    assert in_virtual_time(work) == 1


@pytest.mark.parametrize("obstacle", ["rate", "pause", "place"])
def test_halt_sends_everyone_away_at_once_and_surely_unsent(obstacle: str) -> None:
    async def work() -> tuple[list[BaseException | None], float, Requests]:
        throttle = gate(rate=0.01 if obstacle == "rate" else 1000, concurrency=1 if obstacle == "place" else 100)
        finished = asyncio.Event()

        async def first() -> None:
            async with throttle.turn("read") as turn:
                await leave(turn)
                await asyncio.sleep(500)
                finished.set()

        async def later() -> None:
            async with throttle.turn("write"):
                raise AssertionError("it was let through")

        running = asyncio.ensure_future(first())
        await asyncio.sleep(0.01)
        if obstacle == "pause":
            throttle.pause(400, "busy")
        waiters = [asyncio.ensure_future(later()) for _ in range(64)]
        await asyncio.sleep(1)
        throttle.halt()
        start = now()
        waiters.append(asyncio.ensure_future(later()))
        await asyncio.wait(waiters)
        spent = now() - start
        await running
        assert finished.is_set(), "what is in flight may end"
        return [waiter.exception() for waiter in waiters], spent, throttle.requests

    errors, spent, requests = in_virtual_time(work)
    assert [getattr(error, "error", error) for error in errors] == ["not_sent"] * 65
    assert all(isinstance(error, Transient) for error in errors)
    assert spent < 0.01
    assert requests.total == 1


def test_the_counts() -> None:
    async def work() -> Requests:
        throttle = gate()
        for kind, retry in (("read", False), ("read", True), ("write", False), ("write", True), ("read", False)):
            async with throttle.turn(kind, retry=retry) as turn:  # type: ignore[arg-type]
                await leave(turn)
        throttle.pause(1, "busy")
        return throttle.requests

    assert in_virtual_time(work) == Requests(total=5, reads=3, writes=2, retries=2, throttled=1)


# ---- ceilings of their own -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("reads", "writes"), [(5.0, 40.0), (200.0, 3.0), (300.0, 120.0)])
def test_reads_and_writes_keep_ceilings_of_their_own_and_hold_nobody_else_up(reads: float, writes: float) -> None:
    times: dict[str, list[float]] = {"read": [], "write": []}

    async def work() -> float:
        throttle = RateLimiter(rate=400, concurrency=1000, reads=reads, writes=writes, jitter=lambda: 0.0)

        async def come(kind: Kind) -> None:
            async with throttle.turn(kind) as turn:
                await leave(turn)
                times[kind].append(now())

        async with anyio.create_task_group() as tasks:
            for _ in range(120):
                tasks.start_soon(come, "read")
                tasks.start_soon(come, "write")
            await asyncio.sleep(0.3)
            throttle.pause(2, "busy")
        return now()

    in_virtual_time(work)
    for kind, rate in (("read", reads), ("write", writes)):
        for window in (0.0, 1 / rate, 10 / rate, 1.0):
            assert most_in_a_window(times[kind], window) <= rate * (window + 2e-6) + 1 + rate * 0.03
        assert times[kind][-1] <= 120 / rate + 2.1, "the slower kind holds the other one up"


def test_without_a_ceiling_of_its_own_a_kind_has_all_the_rate() -> None:
    times: list[float] = []

    async def work() -> None:
        throttle = RateLimiter(rate=100, concurrency=1000, writes=1.0, jitter=lambda: 0.0)
        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(one_write, throttle)
            for _ in range(100):
                tasks.start_soon(send, throttle, times)

    async def one_write(throttle: RateLimiter) -> None:
        async with throttle.turn("write") as turn:
            await leave(turn)

    in_virtual_time(work)
    assert times[-1] <= 1.1


# ---- a pause between the turn and the first byte ---------------------------------------------------------------------


def test_nothing_is_sent_in_a_pause_that_began_while_the_intent_was_written() -> None:
    sent: list[float] = []

    async def work() -> int:
        throttle = gate(rate=1000, concurrency=4)

        async def create() -> None:
            async with throttle.turn("write") as turn:
                await asyncio.sleep(0.01)  # the ledger is synced
                await leave(turn)
                sent.append(now())

        async with anyio.create_task_group() as tasks:
            for _ in range(8):
                tasks.start_soon(create)
            await asyncio.sleep(0.005)
            throttle.pause(3, "busy")
        assert throttle.in_flight == 0
        return throttle.requests.writes

    assert in_virtual_time(work) == len(sent) == 8
    assert min(sent) >= 3.005


# ---- a host that is down ---------------------------------------------------------------------------------------------


def test_the_first_in_line_asks_a_closed_host_and_everyone_waits_for_the_answer() -> None:
    async def work() -> tuple[list[float], list[float], str]:
        throttle, asked, times = gate(), list[float](), list[float]()

        async def probe() -> None:
            for _ in range(3):
                await asyncio.sleep(5)
                async with throttle.turn("read", probe=True) as turn:
                    await leave(turn)
                    asked.append(now())

        throttle.close(probe, "it is down")
        throttle.close(probe, "still")
        why = throttle.why
        async with anyio.create_task_group() as tasks:
            for _ in range(20):
                tasks.start_soon(send, throttle, times)
        assert throttle.why == ""
        return asked, times, why

    asked, times, why = in_virtual_time(work)
    assert asked == pytest.approx([5, 10, 15], abs=0.01)
    assert len(times) == 20
    assert min(times) >= 15
    assert why == "it is down"


def test_what_a_probe_raises_goes_to_whoever_asked_and_the_next_one_asks_again() -> None:
    async def work() -> list[str]:
        throttle, asked = gate(), [0]

        async def probe() -> None:
            asked[0] += 1
            if asked[0] == 1:
                raise RuntimeError("given up")

        async def come() -> str:
            try:
                async with throttle.turn("read"):
                    return "passed"
            except RuntimeError as error:
                return str(error)

        throttle.close(probe, "it is down")
        return await asyncio.gather(*(come() for _ in range(3)))

    assert in_virtual_time(work) == ["given up", "passed", "passed"]


def test_halt_ends_the_asking() -> None:
    async def work() -> float:
        throttle = gate()
        throttle.close(lambda: asyncio.sleep(1000), "it is down")
        waiting = asyncio.ensure_future(send(throttle, []))
        await asyncio.sleep(1)
        throttle.halt()
        with pytest.raises(Transient):
            await waiting
        return now()

    assert in_virtual_time(work) < 1.1


# ---- a registry with a limit -----------------------------------------------------------------------------------------


def worked(limit: Bucket, seconds: float, *, rate: float | None, share: float = 1.0) -> tuple[int, int, Throttle]:
    """64 workers for so long against a registry 20 ms away: accepted and refused after 30 s, and what was found."""

    async def work() -> tuple[int, int, Throttle]:
        throttle = RateLimiter(rate=rate, concurrency=64, share=share, jitter=lambda: 0.5)
        accepted = refused = 0

        async def worker() -> None:
            nonlocal accepted, refused
            while now() < seconds:
                async with throttle.turn("read") as turn:
                    await leave(turn)
                    await asyncio.sleep(0.01)
                    asked = limit.takes(now())
                    await asyncio.sleep(0.01)
                if asked is None:
                    accepted += turn.entered > 30
                    throttle.accepted(turn)
                else:
                    refused += turn.entered > 30
                    throttle.refused(turn, 1.0, "429")

        async with anyio.create_task_group() as tasks:
            for _ in range(64):
                tasks.start_soon(worker)
        return accepted, refused, throttle.throttle

    return in_virtual_time(work)


def test_a_known_limit_is_used_and_never_met() -> None:
    accepted, refused, _ = worked(Bucket([(0, 50)], 2), 90, rate=50)
    assert accepted >= 0.97 * 60 * 50
    assert refused == 0


@pytest.mark.parametrize("limit", [10, 50])
def test_an_unknown_limit_is_found_and_told(limit: int) -> None:
    accepted, refused, found = worked(Bucket([(0, limit)], limit), 120, rate=None)
    assert accepted >= 0.85 * 90 * limit
    assert refused <= 0.02 * (accepted + refused)
    assert found.limit == pytest.approx(limit, rel=0.25)
    assert found.paused_s >= 1


# ---- several ways through one gate -----------------------------------------------------------------------------------


def test_two_ways_have_one_rate_and_take_turns() -> None:
    passed: list[str] = []
    times: list[float] = []

    async def one(name: str, way: RateLimiter) -> None:
        async with way.turn("read"):
            passed.append(name)
            times.append(now())

    async def work() -> None:
        many = gate(rate=10)
        few = many.another()
        async with anyio.create_task_group() as tasks:
            for _ in range(40):
                tasks.start_soon(one, "many", many)
            await asyncio.sleep(0.55)
            for _ in range(5):
                tasks.start_soon(one, "few", few)

    in_virtual_time(work)
    assert most_in_a_window(times, 1.0) <= 11 + 1
    first = passed.index("few")
    assert passed[first : first + 9].count("few") == 5, "every other one, though 34 of the others came before"
    assert first <= 8


def test_two_ways_take_turns_where_a_kind_has_a_ceiling_of_its_own() -> None:
    passed: list[str] = []

    async def one(name: str, way: RateLimiter) -> None:
        async with way.turn("read"):
            passed.append(name)

    async def work() -> None:
        many = RateLimiter(rate=1000, concurrency=1000, reads=10)
        few = many.another()
        async with anyio.create_task_group() as tasks:
            for _ in range(40):
                tasks.start_soon(one, "many", many)
            await asyncio.sleep(0.55)
            for _ in range(5):
                tasks.start_soon(one, "few", few)

    in_virtual_time(work)
    first = passed.index("few")
    assert first <= 9, "not behind all the others"
    assert passed[first : first + 9].count("few") == 5


def test_a_way_that_ends_ends_no_other() -> None:
    sent: list[float] = []
    errors: list[str] = []

    async def given_up(way: RateLimiter) -> None:
        try:
            await send(way, [])
        except Transient as error:
            errors.append(error.error)

    async def work() -> None:
        ending = gate(rate=1)
        other = ending.another()
        async with anyio.create_task_group() as tasks:
            for _ in range(4):
                tasks.start_soon(given_up, ending)
                tasks.start_soon(send, other, sent)
            await asyncio.sleep(0.5)
            ending.halt()
            await asyncio.sleep(0)
        assert (ending.requests.total, other.requests.total) == (0, 0), "no turn was made ready"

    in_virtual_time(work)
    assert errors == ["not_sent"] * 3, "one had passed"
    assert len(sent) == 4


def test_a_way_that_is_closed_closes_no_other() -> None:
    sent: list[float] = []
    held: list[float] = []

    async def work() -> None:
        down = gate(rate=1000)
        other = down.another()

        async def probe() -> None:
            await asyncio.sleep(60)

        down.close(probe, "the host is down")
        async with anyio.create_task_group() as tasks:
            for _ in range(20):
                tasks.start_soon(send, down, held)
                tasks.start_soon(send, other, sent)
        assert (down.why, other.why) == ("", "")

    in_virtual_time(work)
    assert len(sent) == len(held) == 20
    assert max(sent) < 1
    assert min(held) >= 60


def test_what_one_way_is_told_counts_for_all() -> None:
    async def work() -> None:
        one = gate(rate=1000)
        other = one.another()
        one.pause(30, "the host asked for it")
        times: list[float] = []
        await send(other, times)
        assert times[0] >= 30
        assert (one.requests.throttled, other.requests.throttled) == (1, 0)

    in_virtual_time(work)
