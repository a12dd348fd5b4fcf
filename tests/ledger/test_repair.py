"""Repairing and compacting: the state stays, the old file stays, and damage is only taken out when asked for."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import ConfigError, Stop
from engine.ledger.file import entries, read_ledger
from engine.ledger.repair import compact, deciding, repair
from engine.ledger.sink import Sink
from engine.ledger.state import State
from engine.model import Entry

RUN = Entry("run", {"migration": "m", "mode": "replicate", "source": "s", "target": "t", "selects": "published"})


def intent(source_id: str, attempt: int = 1) -> Entry:
    return Entry("intent", {"source_id": source_id, "op": "create", "name": f"{source_id}-replica", "attempt": attempt})


def created(source_id: str) -> Entry:
    return Entry("created", {"source_id": source_id, "target_id": f"t-{source_id}", "how": "response"})


async def write(path: Path, *batches: list[Entry], run: str = "r1") -> None:
    sink = Sink.open(path, run=run)
    async with sink:
        for batch in batches:
            await sink.record(*batch)
    sink.close()


def damage(path: Path, line: int) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    lines[line - 1] = lines[line - 1].replace(b'"kind"', b'"kinb"')
    path.write_bytes(b"".join(lines))


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    return tmp_path / "m.jsonl"


async def test_damage_is_refused_and_forced_out(ledger: Path) -> None:
    await write(ledger, [RUN], [intent("a")], [created("a")], [intent("b")], [created("b")], [intent("c")])
    damage(ledger, 3)
    damaged = ledger.read_bytes()
    with pytest.raises(Stop, match="line 3 is damaged") as stop:
        repair(ledger, force=False)
    assert stop.value.reason == "ledger_damaged"
    assert ledger.read_bytes() == damaged

    mended = repair(ledger, force=True)
    assert Path(mended.kept).read_bytes() == damaged
    assert stat.S_IMODE(ledger.stat().st_mode) == 0o600
    state = read_ledger(ledger).state
    assert state.targets == {"t-b"}
    assert {source_id: record.status for source_id, record in state.records.items()} == {
        "a": "intent",  # looked up by the next run
        "b": "created",
        "c": "intent",
    }
    assert read_ledger(ledger).verdict.kind == "whole"
    await write(ledger, [created("c")], run="r2")
    assert read_ledger(ledger).state.targets == {"t-b", "t-c"}


async def test_a_torn_tail_is_cut_and_kept(ledger: Path) -> None:
    await write(ledger, [RUN], [intent("a")])
    whole = ledger.read_bytes()
    ledger.write_bytes(whole + b'{"v":1,"seq":3,"ts"')
    repair(ledger, force=False)
    assert ledger.read_bytes() == whole
    assert ledger.with_name("m.jsonl.torn-1").exists()


async def test_a_whole_ledger_stays_as_it_is(ledger: Path) -> None:
    await write(ledger, [RUN], [intent("a")])
    whole = ledger.read_bytes()
    assert repair(ledger, force=True).kept == ""
    assert ledger.read_bytes() == whole


async def test_compacting_drops_what_decides_nothing_and_keeps_the_old_file(ledger: Path) -> None:
    skipped = Entry("skipped", {"source_id": "b", "reason": "exists"})
    await write(ledger, [RUN], [intent("a")], [created("a")], [skipped], [skipped, intent("c"), intent("c", 2)])
    before, state = ledger.read_bytes(), read_ledger(ledger).state
    mended = compact(ledger)
    assert (mended.lines_before, mended.lines_after) == (7, 4)
    assert Path(mended.kept).read_bytes() == before
    assert [line["kind"] for line in entries(ledger)] == ["run", "created", "skipped", "intent"]
    after = read_ledger(ledger).state
    assert after.records["c"] == state.records["c"]
    assert after.targets == state.targets
    assert after.identity == state.identity


async def test_both_need_the_lock_and_a_ledger(ledger: Path, tmp_path: Path) -> None:
    for verb in (compact, lambda path: repair(path, force=True)):
        with pytest.raises(ConfigError, match="no ledger here"):
            verb(ledger)
    sink = Sink.open(ledger, run="r1")
    try:
        for verb in (compact, lambda path: repair(path, force=True)):
            with pytest.raises(Stop) as stop:
                verb(ledger)
            assert stop.value.reason == "ledger_in_use"
    finally:
        sink.close()


LINES = st.builds(
    lambda kind, source_id, nth: {"kind": kind, "source_id": source_id, "target_id": source_id + nth, "op": "create"},
    st.sampled_from(["intent", "unknown", "created", "skipped", "conflict", "failed", "rolled_back", "verified"]),
    st.sampled_from("abc"),
    st.sampled_from("12"),
)


@given(st.lists(LINES, max_size=30))
def test_the_fold_of_what_is_kept_is_the_state(drawn: list[dict[str, str]]) -> None:
    some = [
        one for line in drawn for one in ([{**line, "kind": "intent"}] if line["kind"] == "unknown" else []) + [line]
    ]
    lines = [
        {**line, "ts": f"2026-01-01T00:00:{second:02}.000Z", "run": f"r{second}"} for second, line in enumerate(some)
    ]
    state, after = State(), State()
    for line in lines:
        state.fold(line)
    for line in deciding(lines, state):
        after.fold(line)
    assert after.targets == state.targets
    assert after.records.keys() == state.records.keys()
    for source_id, record in state.records.items():
        if record.made and not record.doubtful:
            record.doubt = after.records[source_id].doubt  # how often it was tried before
        if record.status == "rolled_back":  # by the first or the second of two that say so
            record.run = after.records[source_id].run
    assert after.records == state.records
