"""`verify.after_run`: what is found at the end of a run is a part of it: in its ledger, its figures, its time box."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import anyio
import pytest

from engine import load_migration, run_migration
from engine.config import Migration
from engine.content.filter import Chosen
from engine.errors import ConfigError, Stop
from engine.http.limiter import Requests
from engine.ledger.report import END_FIELDS, Summary
from engine.ledger.status import PROVED, UNPROVED, Status, read_status
from engine.ledger.writes import Writes, proved_so_far
from engine.migrate import interrupt
from engine.migrate.context import Context
from engine.migrate.halt import AGAIN, Halt
from engine.migrate.job import Job
from engine.run import Live, RunOptions, after
from engine.run.after import verify_migration
from engine.sandbox import SandboxOptions
from engine.session import VerbOptions
from engine.session.connect import open_ends
from engine.verbs.verify import Verification, verify
from engine.web.view import View
from tests.e2e import lines, served, write_migration

COUNT: Final = 3


class Place:
    """Prompts in a folder on their way into a file."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.ledger, self.out = folder, folder / "ledger.jsonl", folder / "out.jsonl"
        (folder / "prompts").mkdir()
        for number in range(COUNT):
            (folder / "prompts" / f"p{number}.md").write_text(
                f"---\nname: p{number}\ncollection: c\n---\nHi {number}\n"
            )

    def load(self, **verify: Any) -> Migration:
        value = {
            "name": "proved",
            "source": {"kind": "files", "path": "prompts"},
            "target": {"kind": "files", "path": "out.jsonl"},
            "rewrite": {"name": "{name}"},
            "ledger": "ledger.jsonl",
            "verify": {"after_run": True, **verify},
        }
        (self.folder / "m.yaml").write_text(json.dumps(value))
        return load_migration(self.folder / "m.yaml")

    def edit(self) -> None:
        """Somebody changes a replica by hand."""
        replicas = lines(self.out)
        replicas[1] = {name: "by hand" if name == "string" else value for name, value in replicas[1].items()}
        del replicas[1]["digest"]
        self.out.write_text("".join(f"{json.dumps(one)}\n" for one in replicas))

    async def run(self, **options: Any) -> Summary:
        with anyio.fail_after(30):
            return await run_migration(self.load(), RunOptions(**options))

    @property
    def status(self) -> Status:
        return read_status(self.ledger, Chosen())

    @property
    def kinds(self) -> list[str]:
        return [line["kind"] for line in lines(self.ledger)]

    @property
    def state(self) -> str:
        """As the page calls it."""
        view = View(self.ledger)
        for line in lines(self.ledger):
            view.take(line)
        return str(view.summary()["state"])


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def agree(summary: Summary, status: Status) -> None:
    """But for what to do now, which has more words for it, and for the time that writing the end has taken."""
    names = [name for name in END_FIELDS if name not in ("next", "duration_s")]
    told, kept = summary.to_json(), status.to_json()
    assert {name: kept[name] for name in names} == {name: told[name] for name in names}
    assert status.duration_s <= summary.duration_s


async def test_the_ledger_says_what_the_summary_says(place: Place) -> None:
    first = await place.run()
    assert (first.exit_code, first.reason) == (0, "done")
    assert first.verified == {"same": COUNT, "differs": 0, "missing": 0, "source_changed": 0}
    assert place.kinds[-COUNT - 1 :] == ["verified"] * COUNT + ["end"]
    agree(first, place.status)

    whole = place.out.read_text()
    place.edit()
    second = await place.run()
    assert (second.exit_code, second.reason, second.verified and second.verified["differs"]) == (3, "failures", 1)
    agree(second, place.status)
    assert (place.status.next, place.state) == (UNPROVED, "finished")

    place.out.write_text(whole)
    await verify_migration(place.load(), VerbOptions())
    assert place.status.next == PROVED
    third = await place.run()
    assert third.exit_code == 0
    agree(third, place.status)


async def test_its_requests_are_those_of_the_run(tmp_path: Path) -> None:
    reads = {}
    for after_run in (False, True):
        (folder := tmp_path / str(after_run)).mkdir()
        with served(SandboxOptions(prompts=COUNT)) as registry:
            path = write_migration(folder, registry.base_url, verify={"after_run": after_run})
            summary = await run_migration(load_migration(path, {"KEY": registry.api_key}))
        reads[after_run] = summary.requests["reads"]
        agree(summary, read_status(folder / "ledger.jsonl", Chosen()))
    assert reads[True] >= reads[False] + 2 * COUNT


@pytest.mark.parametrize(("key", "gates"), [(None, 1), ("${OTHER}", 2)])
async def test_requests_through_a_gateway_of_another_key_are_counted_too(
    tmp_path: Path, key: str | None, gates: int
) -> None:
    end = {"base_url": "http://127.0.0.1:9/v1", "api_key": "${KEY}", "gateway_key": key}
    (tmp_path / "m.yaml").write_text(json.dumps({"name": "m", "source": {"kind": "portkey", **end}}))
    migration = load_migration(tmp_path / "m.yaml", {"KEY": "one", "OTHER": "two"})
    async with open_ends(migration, gateways=True) as ends:
        assert len(ends.gates) == gates
        for gate in ends.gates:
            gate.requests += Requests(reads=1)
        assert Live("m", ends=ends).requests.reads == gates


# ---- what ends it ----------------------------------------------------------------------------------------------------


@pytest.fixture
def endless(monkeypatch: pytest.MonkeyPatch) -> anyio.Event:
    """The verification has begun, and does not end by itself."""
    begun = anyio.Event()

    async def compare(*_: Any, **__: Any) -> Verification:
        begun.set()
        await anyio.sleep_forever()
        raise AssertionError

    monkeypatch.setattr(after, "verify", compare)
    return begun


async def test_a_time_box_bounds_it(place: Place, endless: anyio.Event, monkeypatch: pytest.MonkeyPatch) -> None:
    async def time_box(halt: Halt, seconds: float) -> None:
        await endless.wait()
        halt.request(Stop("time_box", f"the {seconds:g} s are over", next=AGAIN))

    monkeypatch.setattr(interrupt, "_time_box", time_box)
    ended = await place.run(max_duration=60.0)
    assert (ended.exit_code, ended.reason, ended.next) == (75, "time_box", AGAIN)
    assert ended.message == "the verification stopped: the 60 s are over"
    assert (ended.counts["created"], place.kinds[-1]) == (COUNT, "end")
    agree(ended, place.status)
    monkeypatch.undo()
    again = await place.run()
    assert (again.exit_code, again.counts["unchanged"], again.verified and again.verified["same"]) == (0, COUNT, COUNT)


async def test_time_boxes_shorter_than_all_of_it_come_to_an_end(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    async def one_each(job: Job, context: Context, pairs: Sequence[Writes], *rest: Any, **how: Any) -> Verification:
        asked.append(len(pairs))
        found = await verify(job, context, pairs[:1], *rest, **how)
        if len(pairs) > 1:
            context.halt.request(Stop("time_box", "over", next=AGAIN))
            await anyio.sleep_forever()
        return found

    monkeypatch.setattr(after, "verify", one_each)
    codes = [(await place.run()).exit_code for _ in range(COUNT)]
    assert (codes, asked) == ([75, 75, 0], [3, 2, 1])
    assert place.status.verified == {"same": COUNT}
    monkeypatch.undo()
    whole = await place.run()  # the one before has ended: all of them again
    assert (whole.verified and whole.verified["same"], place.kinds[-COUNT - 1 :]) == (
        COUNT,
        ["verified"] * COUNT + ["end"],
    )


async def test_what_was_written_since_is_compared_again(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    async def stopped_behind(*args: Any, **how: Any) -> Verification:
        await verify(*args, **how)
        raise Stop("registry_down", "it is down", next=AGAIN)

    monkeypatch.setattr(after, "verify", stopped_behind)
    assert (await place.run()).exit_code == 75
    assert proved_so_far(place.ledger) == {line["source_id"] for line in lines(place.ledger) if "source_id" in line}
    changed = place.folder / "prompts" / "p1.md"
    changed.write_text(changed.read_text().replace("Hi", "Good morning"))
    monkeypatch.undo()
    monkeypatch.setattr(after, "verify", stopped_behind)
    assert (await place.run()).this_run["updated"] == 1
    assert len(proved_so_far(place.ledger)) == COUNT
    assert [line["kind"] for line in lines(place.ledger)][-3:-1] == ["updated", "verified"]


async def test_killed_in_it_a_run_goes_on_as_any_other(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    async def killed(*_: Any, **__: Any) -> Verification:
        raise RuntimeError("killed")

    monkeypatch.setattr(after, "verify", killed)
    with pytest.RaisesGroup(RuntimeError, flatten_subgroups=True):
        await place.run()
    assert ("end" in place.kinds, place.status.going_on, place.status.counts["created"]) == (False, True, COUNT)
    monkeypatch.undo()
    again = await place.run()
    assert (again.exit_code, again.counts["unchanged"], again.verified and again.verified["same"]) == (0, COUNT, COUNT)
    agree(again, place.status)


async def test_cases_that_cannot_be_read_are_told_before_anything_is_written(place: Place) -> None:
    (place.folder / "cases.jsonl").write_text("{")
    migration = place.load(cases="cases.jsonl")
    with pytest.raises(ConfigError, match=r"cases\.jsonl"):
        await run_migration(migration)
    assert (place.out.exists(), place.ledger.exists()) == (False, False)
