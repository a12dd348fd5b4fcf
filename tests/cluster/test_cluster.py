"""Driver and workers together, all in this process: nothing doubled, nothing lost, whoever is lost."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from pathlib import Path

import anyio
import pytest

from engine.cluster import Cluster, refuse_what_stays_here
from engine.cluster.driver import Losses
from engine.cluster.messages import Refusal
from engine.cluster.station import Courier, FarLabels
from engine.config import load_fleet, load_migration
from engine.connectors.memory import Memory
from engine.errors import ConfigError, Gone, Rejected, Stop
from engine.fleet.run import FleetOptions, run_fleet
from engine.ledger.file import read_ledger
from engine.run import Live, run_migration
from tests.cluster.crew import KEY, Place, Workers, place

WORDS = b"never guess what a page does not say"
"""Of every template."""


def balanced(one: Place, counts: Mapping[str, int]) -> None:
    assert (one.doubled, one.lost) == ([], set())
    assert counts["created"] + counts["unchanged"] == one.registry.prompts
    assert len(read_ledger(one.file.parent / "ledgers" / "spread.jsonl").state.targets) == one.registry.prompts


async def test_workers_do_exactly_what_one_process_does_and_either_goes_on_with_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEY", KEY)
    async with place(tmp_path, 230) as one:
        summary, workers = await one.run()
        assert (summary.exit_code, summary.counts["created"]) == (0, 230), summary.message
        assert summary.requests["writes"] == 230
        assert all(worker.orders > 3 for worker in workers.hired)
        assert WORDS in bytes(next(iter(one.registry.bodies.values())))
        assert KEY.encode() not in workers.wire
        assert WORDS not in workers.wire
        balanced(one, summary.counts)
        again = await run_migration(one.load())
        assert (again.exit_code, again.counts["unchanged"]) == (0, 230)
        one.registry.prompts = 300
        more, _ = await one.run()
        assert (more.exit_code, more.this_run["created"]) == (0, 70)
        balanced(one, more.counts)


@pytest.mark.parametrize("seed", range(4))
async def test_workers_may_be_lost_at_any_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    monkeypatch.setenv("KEY", KEY)
    draw = random.Random(seed)
    accidents = {number: (draw.randint(1, 9), draw.random() < 0.5) for number in range(4)}
    async with place(tmp_path, 150) as one:
        summary, workers = await one.run(accidents)
        assert (summary.exit_code, summary.counts["created"]) == (0, 150), summary.message
        assert len(workers.hired) > 2
        balanced(one, summary.counts)


async def test_a_stop_ends_what_is_in_flight_and_the_next_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEY", KEY)

    async def interrupt(live: Live) -> None:
        assert live.context is not None
        while live.context.done["created"] < 60:  # noqa: ASYNC110 - a count has no event
            await asyncio.sleep(0)
        live.context.halt.request(Stop("interrupted", "a test", next="again"))
        await asyncio.Event().wait()

    async with place(tmp_path, 400) as one:
        summary, _ = await one.run(watch=interrupt)
        assert (summary.exit_code, summary.reason) == (75, "interrupted")
        assert 60 <= summary.counts["created"] < 400
        assert summary.counts["created"] == len(one.registry.names)
        assert summary.counts["unresolved"] == 0
        again = await run_migration(one.load())
        assert again.exit_code == 0
        balanced(one, again.counts)


async def test_what_ends_the_run_at_a_worker_ends_it_for_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEY", KEY)
    async with place(tmp_path, 300) as one:
        one.registry.expires_after = 80
        summary, _ = await one.run()
        assert (summary.exit_code, summary.reason) == (4, "key_refused")
        assert len(one.registry.names) == 80
        one.registry.expires_after = None
        again, _ = await one.run()
        assert again.exit_code == 0
        balanced(one, again.counts)


@pytest.mark.parametrize(
    ("there", "words"),
    [
        ("key-of-another-workspace-000", "another secret for source.api_key"),
        (None, "the environment variable KEY is not set"),
    ],
)
async def test_a_worker_that_has_other_secrets_gets_no_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: str | None, words: str
) -> None:
    monkeypatch.delenv("KEY", raising=False)
    if there is not None:
        monkeypatch.setenv("KEY", there)
    async with place(tmp_path, 50) as one:
        summary, workers = await one.run()
        assert (summary.exit_code, summary.reason) == (4, "check_failed")
        assert words in summary.message
        assert len(one.registry.names) == 1  # the first, which the driver creates
        assert (there or KEY).encode() not in workers.wire
        assert not any(worker.stations for worker in workers.hired), "nor keeps the connections of this migration"


def test_workers_that_are_lost_one_soon_after_another_have_an_end() -> None:
    """One that hangs, or is never there, is given up only after a minute or more: its time is until its last answer."""
    losses = Losses()
    assert [losses.too_many(0, served) for served in (0.0, 600.0, 0.0, 0.0, 0.0, 59.0)] == [False] * 5 + [True]
    assert [losses.too_many(1, 3600.0) for _ in range(20)] == [False] * 20


async def test_the_migrations_of_a_fleet_share_the_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEY", KEY)
    folders = [tmp_path / name for name in ("a", "b")]
    for folder in folders:
        folder.mkdir()
    async with place(folders[0], 60) as one, place(folders[1], 150) as other, anyio.create_task_group() as group:
        file = tmp_path / "fleet.yaml"
        ends = [f"{{kind: portkey, base_url: '{each.url}', api_key: '${{KEY}}'}}" for each in (one, other)]
        listed = ", ".join(f"{{name: m{number}, source: {end}}}" for number, end in enumerate(ends))
        limits = "limits: {timeout: 5, settle: 0.3, concurrency: 16}"
        file.write_text(f"name: f\ndefaults: {{{limits}}}\nmigrations: [{listed}]\n")
        workers = Workers(group, accidents={0: (4, False)})
        summary = await run_fleet(load_fleet(file, {"KEY": KEY}), FleetOptions(machines=Cluster(workers)))
        group.cancel_scope.cancel()
        assert (summary.exit_code, summary.counts["created"]) == (0, 210), summary.message
        assert (one.doubled, one.lost, other.doubled, other.lost) == ([], set(), [], set())
        assert len(workers.lines) == 2, "one limit for each host and key"
        assert len(workers.hired) == 3, "one was lost in the middle of it, and replaced"
        assert workers.wire.count(b"prompt 149-replica") > 0, "what was created came from them"


async def test_labels_are_asked_of_the_driver_once_each() -> None:
    labels = FarLabels(Courier("run"))
    target = Memory()
    async with asyncio.TaskGroup() as group:
        first, second = (group.create_task(labels.id_of(target, "gold")) for _ in range(2))
        refused = group.create_task(_caught(labels, "lead"))
        await asyncio.sleep(0)
        assert labels.asked == ["gold", "lead"]
        labels.told({"gold": "l-1", "lead": Refusal.of(Gone("no such label", error="gone", status=404))})
    assert (first.result(), second.result()) == ("l-1", "l-1")
    error = refused.result()
    assert isinstance(error, Gone)
    assert (str(error), error.status) == ("no such label", 404)
    assert await labels.id_of(target, "gold") == "l-1"


async def _caught(labels: FarLabels, name: str) -> Rejected | None:
    try:
        await labels.id_of(Memory(), name)
    except Rejected as error:
        return error
    return None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("mode: update\nsource: {kind: portkey, api_key: '${KEY}'}", "mode update changes prompts where they stand"),
        ("source: {kind: portkey, api_key: '${KEY}'}\ntarget: {kind: files, path: out}", "kind files lies on this one"),
        ("source: {kind: files, path: in.jsonl}\ntarget: {kind: portkey, api_key: '${KEY}'}", "kind files"),
    ],
)
def test_what_other_machines_cannot_do_is_refused_in_one_sentence(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "m.yaml"
    file.write_text(f"name: m\n{text}\n")
    with pytest.raises(ConfigError, match=words):
        refuse_what_stays_here([load_migration(file, {"KEY": KEY})])
