"""What a run uses of a limit, by default settings, in virtual time: `python -m tests.benchmarks.throttle [--seeds N]`.

Each row is one world: medians of its seeds, and the worst one. The table stands in README.md between two marks. Rows
that match `--only TEXT` are printed and not written.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import repeat
from statistics import median, quantiles
from typing import Any, Final

from engine.http.limiter import Known
from tests.benchmarks.__main__ import mark
from tests.simulator import (
    FAR,
    NEAR,
    TAIL,
    Bucket,
    Latency,
    Limit,
    Run,
    Seen,
    Sliding,
    Unlimited,
    Window,
    World,
    migrated,
)

SEEDS: Final = 20
FEW: Final = 3
"""Of rows that only complete the picture."""
LATE: Final = 0.02
"""Timers come up to so many seconds late."""
KNOWN: Final = Latency(0.05, 0.1)
BESIDE: Final = Latency(0.005, 0.02)
SLOW: Final = Latency(0.05, 0.07)


@dataclass(frozen=True)
class Row:
    """One world. `told`: what else is to be said of it."""

    name: str
    world: World
    run: Run = field(default_factory=Run)
    told: Callable[[Sequence[Sequence[Seen]]], str] = lambda found: ""
    seeds: int = FEW


def bucket(rate: float, capacity: float) -> Callable[[], Limit]:
    """A token bucket."""
    return lambda: Bucket([(0, rate)], capacity)


def drops(low: float) -> Callable[[], Limit]:
    """From 50 a second and back."""
    return lambda: Bucket([(0, 50), (60, low), (120, 50)], 50)


def others(found: Sequence[Sequence[Seen]]) -> str:
    """How the other client fared, and what was used of the rest."""
    refused = median(seen.others_refused / seen.others for (seen,) in found)
    used = median(seen.used(70) for (seen,) in found) / 0.6
    return f"{used:.0%} of the rest; the other client: {refused:.1%} refused"


def two_seconds(found: Sequence[Sequence[Seen]]) -> str:
    """The rate after two seconds."""
    return f"rate after 2 s: {min(seen.rates[2] for (seen,) in found):.0f}/s at least"


def times_faster(found: Sequence[Sequence[Seen]]) -> str:
    """Than one request after the other."""
    times = median(len(seen.left) * 0.15 / seen.ended for (seen,) in found)
    return f"{times:.1f} times as fast as one by one"


def saturated(workers: int) -> Callable[[Sequence[Sequence[Seen]]], str]:
    """How near to the most that so many can do, and what it costs whoever asks besides."""

    def told(found: Sequence[Sequence[Seen]]) -> str:
        work = (SLOW.least + SLOW.most) / 2 - SLOW.least / 4
        part = median(len(seen.accepted) * work / workers / seen.ended for (seen,) in found)
        p95 = median(quantiles(seen.took, n=20)[-1] for (seen,) in found)
        beside = median(median(seen.beside) for (seen,) in found)
        return f"{part:.0%} of all it can do, {beside:.0f} in flight, p95 {p95 / SLOW.most:.1f} times that of one"

    return told


def rows() -> Iterator[Row]:
    """All of them, in the order of the table."""
    for name, latency in (("0 ms", Latency()), ("50-150 ms", NEAR), ("300-600 ms", FAR), ("1 % takes 5 s", TAIL)):
        for capacity in (10, 50):
            world = World(limit=bucket(50, capacity), latency=latency, late=LATE)
            seeds = SEEDS if capacity == 10 and latency in (NEAR, FAR) else FEW
            yield Row(f"50/s, bursts of {capacity}, {name}", world, seeds=seeds)
            yield Row(f"50/s, bursts of {capacity}, {name}, share 1", world, Run(share=1.0), seeds=seeds)
    for name, latency in (("0 ms", Latency()), ("50-150 ms", NEAR), ("300-600 ms", FAR)):
        world = World(limit=bucket(10, 10), latency=latency, late=LATE)
        yield Row(f"10/s, bursts of 10, {name}", world, seeds=SEEDS if latency == NEAR else FEW)
    for capacity in (100, 500):
        world = World(limit=bucket(500, capacity), latency=NEAR, late=LATE)
        yield Row(f"500/s, bursts of {capacity}, 50-150 ms", world)
    yield from _by_the_minute()
    yield from _answers()
    yield from _known()
    yield from _shared()
    far = World(limit=Unlimited, latency=Latency(0.15, 0.15))
    yield Row("no limit, 150 ms, 1,000 prompts", far, Run(prompts=1000, seconds=None), times_faster)
    for workers in (1, 2, 8):
        slow = World(limit=Unlimited, latency=SLOW, workers=workers)
        yield Row(f"no limit, {workers} at a time, 50-70 ms", slow, Run(prompts=2000, seconds=None), saturated(workers))


def _by_the_minute() -> Iterator[Row]:
    for name, latency in (("0 ms", Latency()), ("50-150 ms", NEAR), ("300-600 ms", FAR)):
        window = World(limit=lambda: Window(600, 60), latency=latency, late=LATE)
        yield Row(f"600 in each minute, {name}", window, seeds=SEEDS if latency == NEAR else FEW)
        yield Row(f"600 in each minute, {name}, no Retry-After", replace(window, retry_after=""))
        yield Row(f"600 in any minute, {name}", replace(window, limit=lambda: Sliding(600, 60)))
        yield Row(f"600 in each minute, {name}, `X-RateLimit-*`", replace(window, headers=True))


def _answers() -> Iterator[Row]:
    for name, latency in (("50-150 ms", NEAR), ("300-600 ms", FAR)):
        world = World(limit=bucket(50, 10), latency=latency, late=LATE)
        yield Row(f"50/s, bursts of 10, {name}, no Retry-After", replace(world, retry_after=""))
        yield Row(f"50/s, bursts of 10, {name}, Retry-After is a date", replace(world, retry_after="date"))
        told = World(limit=bucket(50, 50), latency=latency, late=LATE, headers=True)
        yield Row(f"50/s, bursts of 50, {name}, `X-RateLimit-*`", told)
        one = World(limit=bucket(50, 1), latency=latency)
        yield Row(f"50/s, one at a time, {name}", replace(one, late=LATE))
        yield Row(f"50/s, one at a time, {name}, timers exact", one)
        for low in (5, 25):
            falls = World(limit=drops(low), latency=latency, late=LATE)
            yield Row(f"50/s, {low}/s from 60 to 120 s, {name}", falls, Run(seconds=180))


def _known() -> Iterator[Row]:
    for name, latency in (("50-100 ms", KNOWN), ("300-600 ms", FAR), ("1 % takes 5 s", TAIL)):
        world = World(limit=bucket(100, 10), latency=latency, late=LATE)
        yield Row(f"known: 100/s, bursts of 10, {name}", world, Run(rate=100), seeds=FEW if latency == TAIL else SEEDS)
    one = World(limit=bucket(100, 1), latency=FAR)
    yield Row("known: 100/s, one at a time, 300-600 ms, timers exact", one, Run(rate=100))
    for name, latency in (("50-150 ms", NEAR), ("300-600 ms", FAR)):
        world = World(limit=bucket(50, 10), latency=latency, late=LATE)
        again = Run(known=Known(limit=50, latency_s=(latency.least + latency.most) / 2))
        yield Row(f"second run: 50/s, bursts of 10, {name}", world, again, two_seconds, SEEDS)


def _shared() -> Iterator[Row]:
    for name, latency in (("50-150 ms", NEAR), ("300-600 ms", FAR)):
        for capacity in (10, 50):
            world = World(limit=bucket(50, capacity), latency=latency, late=LATE)
            busy = replace(world, others=20)
            yield Row(
                f"50/s, bursts of {capacity}, another client takes 20/s, {name}",
                busy,
                Run(),
                others,
                SEEDS if capacity == 10 else FEW,
            )
            yield Row(f"50/s, bursts of {capacity}, two runs with one key, {name}", world, Run(clients=2))
    for name, latency in (("5-20 ms", BESIDE), ("50-150 ms", NEAR)):
        world = World(limit=bucket(50, 50), latency=latency, late=LATE)
        yield Row(f"50/s, bursts of 50, a fleet of 200 x 50, {name}", world, Run(prompts=50, fleet=200, seconds=None))


def measured(name: str, seeds: int) -> str:
    """The line of that row, of so many seeds at most."""
    row = next(row for row in rows() if row.name == name)
    found = [migrated(row.world, row.run, seed) for seed in range(min(seeds, row.seeds))]
    if any(seen.in_pauses for clients in found for seen in clients):
        raise SystemExit(f"{row.name}: a request left in a pause")
    used = [sum(seen.used(row.run.seconds or seen.ended) for seen in clients) for clients in found]
    refused = [max(seen.refused_part for seen in clients) for clients in found]
    limits = [clients[0].limit_found for clients in found]
    limit = f"{median(limits):.1f} ({min(limits):.1f}-{max(limits):.1f})" if min(limits) else "none"
    share = f"{median(used):.1%} ({min(used):.1%})" if row.run.seconds or row.run.fleet else ""
    return (
        f"| {row.name} | {len(found)} | {share} | {median(refused):.2%} ({max(refused):.2%}) | "
        f"{limit if row.run.rate is None else 'given'} | {row.told(found)} |"
    )


def table(names: Sequence[str], seeds: int) -> Iterator[str]:
    """Line by line: it takes a while, on all cores."""
    yield "| limit, latency | seeds | used (worst seed) | refused (worst seed) | limit as it was told | |"
    yield "|---|---:|---:|---:|---:|---|"
    with ProcessPoolExecutor() as pool:
        yield from pool.map(measured, names, repeat(seeds))


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the table; a whole one is written to the README too."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.throttle")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="the most of one row")
    parser.add_argument("--only", default="", help="rows whose name holds this; nothing is written")
    options: Any = parser.parse_args(arguments)
    lines = []
    for line in table([row.name for row in rows() if options.only in row.name], options.seeds):
        lines.append(line)
        print(line, flush=True)
    if not options.only and options.seeds == SEEDS:
        mark("throttle", "Medians; timers come up to 20 ms late where nothing else is said:", lines)


if __name__ == "__main__":
    main()
