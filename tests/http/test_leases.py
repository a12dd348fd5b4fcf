"""One limit for several processes, in virtual time: nothing here waits."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import anyio
import pytest

from engine.errors import AnswerError, EngineError
from engine.http.client import Client, Leave, RequestLimits, Timing
from engine.http.leases import BLOCK_S, EXPIRED_S, OPENING_S, Ask, Lease, Lessor, Terms
from engine.http.limiter import RateLimiter
from engine.http.rate_search import RESERVE
from engine.http.responses import Answer, Request
from engine.http.session import KeyAuth
from tests.virtual import in_virtual_time, now

TERMS = Terms(rate=500, share=1.0, known=None)


@dataclass
class Wires:
    """The way to a holder of the limit that takes its time; `lost`: the next answers are."""

    lessor: Lessor
    seconds: float = 0.002
    asked: list[Ask] = field(default_factory=list)

    async def lease(self, ask: Ask) -> Lease:
        self.asked.append(ask)
        await asyncio.sleep(self.seconds * random.random())
        lease = await self.lessor.lease(ask)
        await asyncio.sleep(self.seconds * random.random())
        return lease

    def tell(self, ask: Ask) -> None:
        self.asked.append(ask)
        self.lessor.tell(ask)


def process(wires: Wires, *, among: int, concurrency: int = 16) -> RateLimiter:
    return RateLimiter.leased(wires, among=among, concurrency=concurrency)


async def send(gate: RateLimiter, times: list[float], seconds: float = 0.01) -> None:
    async with gate.turn("read") as turn:
        await turn.ready()
        while not await turn.departs():
            await turn.ready()
        times.append(now())
        await asyncio.sleep(seconds)
    gate.accepted(turn)


def most_in_a_second(times: Sequence[float]) -> int:
    window: deque[float] = deque()
    most = 0
    for time in sorted(times):
        window.append(time)
        while window[0] <= time - 1:
            window.popleft()
        most = max(most, len(window))
    return most


@pytest.mark.parametrize("rate", [3, 60, 500, 2000])
def test_several_processes_keep_to_one_limit_together_and_use_it(rate: int) -> None:
    random.seed(rate)
    times: list[float] = []
    requests = 4 * rate

    async def work() -> None:
        wires = Wires(Lessor(Terms(rate=rate, share=1.0, known=None), jitter=lambda: 0.0))
        gates = [process(wires, among=4) for _ in range(4)]
        async with anyio.create_task_group() as tasks:
            for number in range(requests):
                tasks.start_soon(send, gates[number % 4], times)

    in_virtual_time(work)
    assert len(times) == requests
    assert most_in_a_second(times) <= 1.05 * rate + 1
    assert times[-1] - times[0] <= requests / (RESERVE * rate) * 1.03 + 2 * BLOCK_S


def test_one_busy_process_gets_what_the_others_leave() -> None:
    times: list[float] = []

    async def work() -> None:
        wires = Wires(Lessor(TERMS))
        busy, _idle = process(wires, among=2), process(wires, among=2)
        async with anyio.create_task_group() as tasks:
            for _ in range(1000):
                tasks.start_soon(send, busy, times)

    in_virtual_time(work)
    assert times[-1] - times[0] < 2.1


def test_a_pause_that_one_was_asked_for_holds_all() -> None:
    left: list[float] = []

    async def work() -> float:
        wires = Wires(Lessor(TERMS, jitter=lambda: 0.0))
        gates = [process(wires, among=2) for _ in range(2)]
        async with gates[0].turn("read") as turn:
            await turn.ready()
            await turn.departs()
        gates[0].refused(turn, 60.0, "it answered 429")
        begun = now()
        async with anyio.create_task_group() as tasks:
            for gate in (*gates, *gates):
                tasks.start_soon(send, gate, left)
        return begun

    begun = in_virtual_time(work)
    assert len(left) == 4
    assert min(left) >= begun + 60


def test_refusals_tell_the_holder_a_limit_that_nobody_gave() -> None:
    refused = 0

    async def work() -> float | None:
        nonlocal refused
        taken: deque[float] = deque()
        gates = []

        async def ask(gate: RateLimiter) -> None:
            nonlocal refused
            while now() < 60:
                async with gate.turn("read") as turn:
                    await turn.ready()
                    while not await turn.departs():
                        await turn.ready()
                    while taken and taken[0] < now() - 1:
                        taken.popleft()
                    over = len(taken) >= 200
                    if not over:
                        taken.append(now())
                    await asyncio.sleep(0.02)
                if over:
                    refused += 1
                    gate.refused(turn, None, "it answered 429")
                else:
                    gate.accepted(turn)

        wires = Wires(Lessor(Terms(rate=None, share=0.9, known=None)))
        gates = [process(wires, among=4, concurrency=8) for _ in range(4)]
        async with anyio.create_task_group() as tasks:
            for gate in gates * 8:
                tasks.start_soon(ask, gate)
        return gates[0].throttle.limit

    limit = in_virtual_time(work)
    assert limit is not None
    assert 150 < limit < 230
    assert refused < 500


def test_a_holder_that_was_lost_begins_with_what_the_others_know() -> None:
    async def work() -> tuple[Lease, float]:
        lessor = Lessor(Terms(rate=None, share=1.0, known=None), again=True)
        begun = now()
        lessor.tell(Ask(limit=300.0, paused=5.0))
        lessor.tell(Ask(limit=310.0, paused=7.0))
        held = await lessor.lease(Ask(wanted=10))
        assert held.count == 0
        assert held.paused == pytest.approx(7.0, abs=0.01)
        await asyncio.sleep(held.paused + 0.01)
        lease = await lessor.lease(Ask(wanted=10, limit=20.0))  # too late to be believed: it has a limit of its own
        return lease, now() - begun

    lease, seconds = in_virtual_time(work)
    assert lease.limit == 300.0
    assert seconds > 7


def test_a_holder_that_was_lost_waits_until_what_was_leased_is_used() -> None:
    async def work() -> float:
        lessor = Lessor(TERMS, again=True)
        begun = now()
        lease = await lessor.lease(Ask(wanted=1))
        return now() + lease.delay - begun

    assert in_virtual_time(work) >= OPENING_S


def test_permits_that_came_too_late_are_not_used() -> None:
    times: list[float] = []

    async def work() -> None:
        wires = Wires(Lessor(TERMS))
        gate = process(wires, among=1, concurrency=1)
        async with anyio.create_task_group() as tasks:
            for _ in range(20):
                tasks.start_soon(send, gate, times, 10 * EXPIRED_S)

    in_virtual_time(work)
    assert len(times) == 20
    assert max(after - before for before, after in pairwise(times)) < 10 * EXPIRED_S + 0.1


def test_a_small_rate_is_leased_one_by_one() -> None:
    async def work() -> list[int]:
        lessor = Lessor(Terms(rate=2, share=1.0, known=None))
        return [(await lessor.lease(Ask(wanted=50))).count for _ in range(4)]

    assert in_virtual_time(work) == [1, 1, 1, 1]


def test_what_is_told_twice_or_of_unknown_permits_does_no_harm() -> None:
    async def work() -> Lease:
        lessor = Lessor(Terms(rate=None, share=1.0, known=200.0))
        lease = await lessor.lease(Ask(wanted=2))
        told = Ask(accepted=[(lease.first, 0.1), (999, 0.1)], refused=[(777, 1.0)])
        lessor.tell(told)
        lessor.tell(told)
        return await lessor.lease(Ask(wanted=1))

    assert in_virtual_time(work).paused > 0.9


# ---- creates, whose intents become durable somewhere else ------------------------------------------------------------


@dataclass
class Registry:
    """What a process sends to it, and the intents that it writes before: all that wait are durable at once."""

    gate: RateLimiter
    delay: Callable[[], float]
    """Until the next ones are."""
    left: list[float]
    intended: int = 0
    created: int = 0
    most_open: int = 0
    _waiting: list[anyio.Event] = field(default_factory=list)
    client: Client = field(init=False)

    def __post_init__(self) -> None:
        self.client = Client(
            self._send,
            "http://registry",
            KeyAuth("x-key", "k"),
            self.gate,
            RequestLimits(timeout=1e6, attempts=5),
            end="target",
            secrets=(),
            address="base_url",
            timing=Timing(clock=now, now=now, draw=random.random),
        )

    async def _send(self, request: Request, headers: Mapping[str, str], leave: Leave) -> Answer:
        if not await leave():
            return Answer(held=True)
        self.left.append(now())
        self.created += request.method == "POST"
        await asyncio.sleep(random.uniform(0.004, 0.012))
        return Answer(status=200, body=b"{}")

    async def read(self) -> None:
        await self.client.read("retrieve", "/prompts/p")

    async def create(self) -> None:
        await self.client.create("create", "POST", "/prompts", b"{}", self._sending)

    async def _sending(self) -> None:
        self.intended += 1
        self.most_open = max(self.most_open, self.intended - self.created)
        self._waiting.append(durable := anyio.Event())
        await durable.wait()

    async def write_intents(self) -> None:
        while True:
            await asyncio.sleep(self.delay())
            waiting, self._waiting = self._waiting, []
            for durable in waiting:
                durable.set()


def test_creates_keep_to_the_limit_however_late_and_together_their_intents_are_durable() -> None:
    random.seed(1)
    rate, times = 600, list[float]()

    def delay() -> float:
        stalls = 3 < now() % 5 < 3.2
        return random.uniform(0.1, 0.3) if stalls else random.uniform(0.03, 0.1)

    async def work() -> None:
        wires = Wires(Lessor(Terms(rate=rate, share=1.0, known=None), jitter=lambda: 0.0))
        async with anyio.create_task_group() as others, anyio.create_task_group() as tasks:
            for _ in range(4):
                one = Registry(process(wires, among=4), delay, times)
                others.start_soon(one.write_intents)
                for _ in range(32):
                    tasks.start_soon(replicate, one)
            tasks.start_soon(end, others.cancel_scope)

    async def replicate(one: Registry) -> None:
        while now() < 12:
            await one.read()
            await one.create()

    async def end(scope: anyio.CancelScope) -> None:
        await asyncio.sleep(13)
        scope.cancel()

    in_virtual_time(work, late=lambda: random.uniform(0, 0.003))
    assert most_in_a_second(times) <= 1.02 * rate
    assert len(times) >= 0.95 * 12 * rate


def test_what_has_its_intent_leaves_even_when_the_run_was_asked_to_end_and_nothing_else_does() -> None:
    async def work() -> tuple[Registry, list[EngineError]]:
        gate = process(Wires(Lessor(Terms(rate=100, share=1.0, known=None))), among=1)
        one, unsent = Registry(gate, lambda: 0.05, []), list[EngineError]()

        async def create() -> None:
            try:
                await one.create()
            except EngineError as error:
                unsent.append(error)

        async with anyio.create_task_group() as others:
            others.start_soon(one.write_intents)
            async with anyio.create_task_group() as tasks:
                for _ in range(200):
                    tasks.start_soon(create)
                await asyncio.sleep(0.2)
                gate.halt()
            others.cancel_scope.cancel()
        return one, unsent

    one, unsent = in_virtual_time(work)
    assert 0 < one.created == one.intended < 200
    assert len(unsent) == 200 - one.created
    assert {error.error for error in unsent if isinstance(error, AnswerError)} == {"not_sent"}


def test_no_more_intents_are_open_than_may_soon_leave() -> None:
    async def work() -> int:
        gate = process(Wires(Lessor(Terms(rate=8, share=1.0, known=None))), among=2)
        one = Registry(gate, lambda: 0.05, [])
        await one.read()  # it knows the rate since
        async with anyio.create_task_group() as others:
            others.start_soon(one.write_intents)
            async with anyio.create_task_group() as tasks:
                for _ in range(20):
                    tasks.start_soon(one.create)
            others.cancel_scope.cancel()
        return one.most_open

    assert in_virtual_time(work) <= 3  # half a second of the half of the rate, and one that is leaving


def test_no_intent_is_written_in_a_pause() -> None:
    async def work() -> tuple[int, float]:
        gate = process(Wires(Lessor(TERMS, jitter=lambda: 0.0)), among=1)
        one = Registry(gate, lambda: 0.05, [])
        gate.pause(60.0, "busy")
        async with anyio.create_task_group() as others:
            others.start_soon(one.write_intents)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(one.create)
                await asyncio.sleep(59)
                intended = one.intended
            others.cancel_scope.cancel()
        return intended, one.left[0]

    intended, left = in_virtual_time(work)
    assert intended == 0
    assert left > 60


def test_those_whose_intents_are_written_go_before_those_who_only_read() -> None:
    async def work() -> tuple[int, int]:
        gate = process(Wires(Lessor(Terms(rate=50, share=1.0, known=None))), among=1)
        one = Registry(gate, lambda: 0.05, [])
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(one.write_intents)
            for _ in range(100):
                tasks.start_soon(one.read)
            tasks.start_soon(one.create)
            await asyncio.sleep(0.5)
            tasks.cancel_scope.cancel()
        return one.created, len(one.left)

    created, left = in_virtual_time(work)
    assert created == 1
    assert left < 30
