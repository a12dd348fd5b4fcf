"""The workers and gates as actors of a Ray cluster: a private one on this machine, or one that is there.

The one module that imports Ray. Actors are never tried again by Ray itself, but for gates, whose calls may be repeated.
"""

from __future__ import annotations

import asyncio
import logging
import os
import pickle
import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import anyio
import ray
from anyio.abc import TaskGroup
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from engine.cluster.driver import Cluster, Hand, Losses, Lost
from engine.cluster.messages import Order, Reply, Setup
from engine.cluster.station import Gates, Station
from engine.errors import Stop
from engine.http.leases import Ask, Lease, Lessor, Line, Terms
from engine.log import log
from engine.migrate.halt import AGAIN

OBJECTS_BYTES: Final = 80 * 2**20
"""Messages are small and go from process to process; Ray takes no less for its store."""
KNOCK_S: Final = 10.0
"""So long may it take until somebody answers at the address of a cluster."""
STARTS: Final = 3
"""Of a private cluster: Ray gives a node 30 seconds, which is too little on a busy machine."""
REPLY_S: Final = 60.0
"""A worker that does not answer for so long is given up."""
START_S: Final = 300.0
"""So long may one take until it is there: a cluster that grows needs minutes for it."""
GATE_AGAIN_S: Final = 0.5
MANY: Final = 10_000
"""Calls that an actor takes at once: those of gates wait for their turn there."""


# ---- what runs elsewhere ---------------------------------------------------------------------------------------------


class GateActor:
    """Holds one limit."""

    def __init__(self, terms: Terms) -> None:
        self._terms = terms
        self._lessor: Lessor | None = None

    async def lease(self, ask: Ask) -> Lease:
        """See `Lessor.lease`."""
        return await self._opened().lease(ask)

    async def tell(self, ask: Ask) -> None:
        """See `Lessor.tell`."""
        self._opened().tell(ask)

    def _opened(self) -> Lessor:
        if self._lessor is None:  # not before there is a loop
            again = ray.get_runtime_context().was_current_actor_reconstructed
            self._lessor = Lessor(self._terms, again=again)
        return self._lessor


@dataclass(frozen=True, slots=True)
class _Line:
    """The way to a gate."""

    actor: Any

    async def lease(self, ask: Ask) -> Lease:
        while True:
            try:
                lease: Lease = await self.actor.lease.remote(ask)
                return lease
            except RayTaskError:
                raise
            except RayError:  # it is being restarted, or its node is out of reach
                await asyncio.sleep(GATE_AGAIN_S)

    def tell(self, ask: Ask) -> None:
        self.actor.tell.remote(ask)


class WorkerActor:
    """One worker, with a station for each migration that it works on."""

    def __init__(self, gates: dict[int, Any]) -> None:
        self._lines: dict[int, Line] = {}
        self._gates = Gates(self._lines)
        self._stations: dict[str, Station] = {}
        self._group: TaskGroup | None = None
        self.meet(gates)

    def meet(self, gates: dict[int, Any]) -> None:
        """Gates that were made since."""
        self._lines.update({number: _Line(actor) for number, actor in gates.items()})

    async def stay(self) -> None:
        """What its stations do is done in here."""
        async with anyio.create_task_group() as self._group:
            await anyio.sleep_forever()

    async def exchange(self, packed: bytes) -> bytes:
        """See `Station.exchange`; a station is opened by its first order. What Ray packs itself costs twice as much."""
        name, order, setup = pickle.loads(packed)  # of our own driver
        if setup is not None:
            self._stations[name] = Station(setup, self._gates)  # at once: the next order may be here before it is open
            while self._group is None:  # noqa: ASYNC110 - `stay` was called first, and begins in a moment
                await asyncio.sleep(0)
            self._group.start_soon(self._stations[name].run)
        reply = await self._stations[name].exchange(order)
        if order.last:
            del self._stations[name]
        return pickle.dumps(reply)


# ---- the driver's side -----------------------------------------------------------------------------------------------


@dataclass(eq=False)
class _Hand:
    """A worker as the driver knows it."""

    crew: _Crew
    actor: Any
    met: int
    """Gates that it knows."""
    since: float = field(default_factory=time.monotonic)
    served_s: float = 0.0
    """From its hiring until its last answer."""
    stay: Any = None

    def __post_init__(self) -> None:
        self.stay = self.actor.stay.remote()

    async def exchange(self, station: str, order: Order, setup: Setup | None) -> Reply:
        seconds = START_S if setup is not None else REPLY_S
        try:
            async with asyncio.timeout(seconds):
                if self.met < len(self.crew.gates):
                    self.met = len(self.crew.gates)
                    await self.actor.meet.remote(dict(enumerate(self.crew.gates)))
                packed = await self.actor.exchange.remote(pickle.dumps((station, order, setup)))
                reply: Reply = pickle.loads(packed)
                self.crew.answered = True
                self.served_s = time.monotonic() - self.since
                return reply
        except RayTaskError as error:
            raise RuntimeError(f"a worker ended with {type(error.cause).__qualname__}") from None
        except TimeoutError:
            raise Lost(f"no answer for {seconds:g} s") from None
        except RayError as error:
            raise Lost(type(error).__name__) from None

    def dismiss(self) -> None:
        ray.kill(self.actor)


class _Crew:
    """Workers spread over the nodes, and the gates."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.gates: list[Any] = []
        self.answered = False
        """A worker has been there."""
        self._gate = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1, max_concurrency=MANY)(GateActor)
        self._worker = ray.remote(
            num_cpus=1, max_restarts=0, max_task_retries=0, max_concurrency=MANY, scheduling_strategy="SPREAD"
        )(WorkerActor)
        self._hands: dict[int, _Hand] = {}
        self._losses = Losses()

    def line(self, number: int) -> Line:
        return _Line(self.gates[number])

    def hold(self, terms: Terms) -> int:
        # beside the driver, where it is not lost with a node of workers; elsewhere, should that be impossible
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
        self.gates.append(self._gate.options(scheduling_strategy=here).remote(terms))
        for place in range(self.size):  # they start while both ends are listed
            self.hand(place)
        return len(self.gates) - 1

    def hand(self, place: int) -> Hand:
        if place not in self._hands:
            self._hands[place] = self._hired()
        return self._hands[place]

    async def replaced(self, place: int, lost: Hand) -> Hand:
        if self._hands[place] is not lost:  # another migration was quicker
            return self._hands[place]
        if not self.answered:
            message = f"no worker could be started within {START_S:g} s"
            advice = f"Give them a CPU each: fewer --workers, or more nodes. {AGAIN}"
            raise Stop("check_failed", message, next=advice)
        if self._losses.too_many(place, self._hands[place].served_s):
            message = f"{Losses.MOST} workers were lost one soon after another"
            raise Stop("check_failed", message, next=f"See why in the logs of Ray. {AGAIN}")
        log.info("worker.replaced", place=place)
        self._hands[place] = self._hired()
        return self._hands[place]

    def _hired(self) -> _Hand:
        return _Hand(self, self._worker.remote(dict(enumerate(self.gates))), len(self.gates))


@contextmanager
def open_cluster(address: str | None, workers: int | None) -> Iterator[Cluster]:
    """Joins the cluster at this address, or starts a private one that ends with the block. `workers`: None: as many as
    it has CPUs. To be opened before a loop runs. Raises Stop where that cannot be done.
    """
    logging.getLogger("ray").setLevel(logging.ERROR)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    with _stdout_for_results():
        try:
            _join(address, workers)
        finally:
            for number, handler in handlers.items():  # Ray has taken them
                signal.signal(number, handler)
        try:
            yield Cluster(_Crew(workers or max(1, int(ray.cluster_resources().get("CPU", 1)))))
        finally:
            ray.shutdown()


@contextmanager
def _stdout_for_results() -> Iterator[None]:
    """What Ray itself writes there, past Python, goes to stderr: the summary is told when the block has ended."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)


def _join(address: str | None, workers: int | None) -> None:
    """Always by an address: without one Ray joins whatever it finds."""
    if address is not None:
        _knock(address)
    how: dict[str, Any] = {"log_to_driver": False, "configure_logging": False, "logging_level": logging.ERROR}
    if address is None:
        how |= {"include_dashboard": False, "object_store_memory": OBJECTS_BYTES}
        how |= {} if workers is None else {"num_cpus": workers}
    for left in reversed(range(STARTS if address is None else 1)):
        try:
            ray.init(address=address or "local", **how)
            return
        except BaseException as error:
            ray.shutdown()
            if isinstance(error, SystemExit):  # Ray's own handler of SIGTERM, which it puts in the place of ours
                raise Stop("interrupted", "SIGTERM: the run was asked to end", next=AGAIN) from error
            if not isinstance(error, Exception):
                raise
            if not left:
                raise _not_there(address, error) from error


def _knock(address: str) -> None:
    """Ray goes on for many minutes where nobody answers. Raises Stop."""
    host, _, port = address.rpartition(":")
    if not host:
        return  # auto: a cluster that this machine knows of
    try:
        socket.create_connection((host.strip("[]"), int(port)), KNOCK_S).close()
    except (OSError, OverflowError) as error:
        raise _not_there(address, error) from error


def _not_there(address: str | None, error: Exception) -> Stop:
    """Whatever Ray raises is its own affair, and nothing was sent."""
    if address is None:
        return Stop("registry_down", f"Ray cannot be started on this machine ({type(error).__name__})", next=AGAIN)
    message = f"no Ray cluster can be joined at {address} ({type(error).__name__})"
    return Stop("registry_down", message, next=f"See whether it is up, and has this version of Ray. {AGAIN}")
