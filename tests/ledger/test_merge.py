"""Ledgers put together: every line is kept, the state is that of one run; what does not belong together is refused."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from engine.content.filter import Chosen
from engine.errors import ConfigError, Stop
from engine.ledger.file import entries, read_ledger
from engine.ledger.merge import Merged, merge
from engine.ledger.repair import compact
from engine.ledger.sink import Sink
from engine.ledger.status import TAKEN_BACK, UNPROVED, read_ids_map, read_status
from engine.ledger.writes import read_made, runs_of
from engine.model import Entry
from engine.verbs.rollback import undoing
from tests.ledger.test_repair import RUN, created, damage, intent

CHAIN = ("seq", "b", "n", "crc")
NAMES = ("created", "updated", "unchanged", "skipped", "failed", "conflicts", "unresolved", "not_started")


def begun(shard: str | None, **fields: Any) -> Entry:
    return Entry("run", {**RUN.fields, "rewrites": "r", **({"shard": shard} if shard else {}), **fields})


def end(made: int, *, exit_code: int = 0, reason: str = "done", next: str = "Nothing.", **counts: int) -> Entry:
    books = {"listed": 9, **dict.fromkeys(NAMES, 0), "created": made, **counts}
    books["selected"] = sum(books[name] for name in NAMES)
    this_run = {name: books[name] for name in NAMES}
    asked = {"total": 5, "reads": 3, "writes": 2, "retries": 0, "throttled": 1}
    said = {"exit_code": exit_code, "reason": reason, "next": next, "orphaned": 1, "duration_s": 2.0}
    return Entry("end", {**said, "counts": books, "this_run": this_run, "requests": asked})


async def write(path: Path, *lines: Entry, run: str) -> Path:
    sink = Sink.open(path, run=run)
    async with sink:
        await sink.record(*lines)
    sink.close()
    return path


@pytest.fixture
async def two(tmp_path: Path) -> list[Path]:
    first, second = tmp_path / "m.0-of-2.jsonl", tmp_path / "m.1-of-2.jsonl"
    await write(first, begun("0/2"), intent("a"), run="a1")  # killed: it goes on in the next one
    await write(first, begun("0/2", rewrites="other"), created("a"), created("b"), end(2), run="a2")
    await write(second, begun("1/2"), intent("c"), created("c"), intent("d"), end(1, unresolved=1), run="b1")
    return [first, second]


def put(out: Path, ledgers: list[Path]) -> Merged:
    return merge(out, ledgers, run="m1", now=1_795_176_000.0)


def told(line: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in line.items() if name not in CHAIN}


def test_no_line_is_lost_and_the_state_is_that_of_all(two: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "new" / "all.jsonl"
    done = put(out, two)
    *kept, last = map(told, entries(out))
    assert kept == [told(line) for path in two for line in entries(path)]
    assert (last["kind"], last["shards"], last["runs"]) == ("merged", ["0/2", "1/2"], ["a2", "b1"])
    assert (done.lines, done.prompts, done.notes) == (len(kept) + 1, 4, [])
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    assert [path.name for path in out.parent.iterdir()] == ["all.jsonl"]

    reading, parts = read_ledger(out), [read_ledger(path).state for path in two]
    assert reading.verdict.kind == "whole"
    assert dict(reading.state.records) == {
        **parts[0].records,
        **parts[1].records,
    }  # also under which rules each was made
    assert reading.state.targets == parts[0].targets | parts[1].targets
    assert (reading.state.shard, reading.state.runs) == (None, 3)
    assert [row["source_id"] for row in read_ids_map(out, Chosen())] == ["a", "b", "c"]


async def test_its_status_is_that_of_one_run(two: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "all.jsonl"
    put(out, two)
    found = read_status(out, Chosen())
    assert {name: count for name, count in found.counts.items() if count} == {
        "listed": 9,
        "selected": 4,
        "created": 3,
        "unresolved": 1,
    }
    assert (found.going_on, found.exit_code, found.orphaned, found.duration_s) == (False, 0, 2, 2.0)
    assert found.requests == {"total": 10, "reads": 6, "writes": 4, "retries": 0, "throttled": 2}
    assert list(runs_of(out))[-1] == {"a2", "b1"}  # what `rollback --run last` means
    # a rollback of one of them, and a run after it: the books are of lines again
    await write(out, Entry("rolled_back", {"source_id": "a", "target_id": "t-a", "result": "deleted"}), run="r2")
    after = read_status(out, Chosen()).counts
    assert (after["created"], after["unresolved"], after["not_started"], after["selected"]) == (2, 1, 1, 4)
    compact(out)
    assert read_status(out, Chosen()).counts == after
    await write(out, begun(None), created("a"), run="r3")
    assert (read_status(out, Chosen()).counts["created"], read_status(out, Chosen()).counts["unchanged"]) == (1, 2)


@pytest.mark.parametrize(
    ("last", "code", "words"),
    [
        (None, 75, "Run the migration without --shard on this ledger"),
        (end(1, exit_code=75, reason="interrupted"), 75, "Run the migration without --shard on this ledger"),
        (end(1, exit_code=4, reason="canary", next="See `promptferry plan --shard 1/2`."), 4, "`promptferry plan`"),
        (end(1, exit_code=1, reason="failures", failed=1), 1, "`promptferry status --failed`"),
        (end(1), 0, "`promptferry ids`"),
        (end(1, reason="limit", not_started=1), 0, "Run the migration without --shard on this ledger"),
    ],
)
async def test_the_worst_of_all_has_the_word(last: Entry | None, code: int, words: str, tmp_path: Path) -> None:
    lines = [begun("1/2"), created("c"), *([last] if last else [])]
    first = await write(tmp_path / "0", begun("0/2"), created("a"), end(1), run="a")
    second = await write(tmp_path / "1", *lines, run="b")
    put(tmp_path / "out", [first, second])
    found = read_status(tmp_path / "out", Chosen())
    assert (found.exit_code, words in found.next) == (code, True), found.next
    assert "1/2" not in found.next


async def test_a_merged_ledger_may_be_merged_again(two: list[Path], tmp_path: Path) -> None:
    put(tmp_path / "some.jsonl", two)
    third = await write(tmp_path / "third", begun(None), created("z"), end(1), run="z1")
    put(tmp_path / "all.jsonl", [tmp_path / "some.jsonl", third])
    assert read_status(tmp_path / "all.jsonl", Chosen()).counts["created"] == 4


async def test_some_shards_and_later_the_rest(two: list[Path], tmp_path: Path) -> None:
    third = await write(tmp_path / "third", begun("2/3"), created("z"), end(1), run="z1")
    first, second = [
        await write(tmp_path / f"{n}-of-3", begun(f"{n}/3"), created(f"{n}"), end(1), run=f"r{n}") for n in (0, 1)
    ]
    assert "shard 2/3;" in put(tmp_path / "some.jsonl", [first, second]).notes[0]
    compact(tmp_path / "some.jsonl")
    out = tmp_path / "all.jsonl"
    assert put(out, [tmp_path / "some.jsonl", third]).notes == []
    last = list(entries(out))[-1]
    assert (last["shards"], last["runs"]) == (
        ["0/3", "1/3", "2/3"],
        ["r0", "r1", "z1"],
    )  # also for `rollback --run last`
    again = await write(tmp_path / "again", begun("1/3"), end(0), run="r9")
    with pytest.raises(Stop, match=r"the shard 1/3 is in .*some\.jsonl and in .*again"):
        put(tmp_path / "no.jsonl", [tmp_path / "some.jsonl", again])
    await write(out, begun(None), created("y"), end(4), run="w1")
    assert (read_ledger(out).state.merged, read_ledger(out).state.newest) == ((), ("w1",))


async def test_what_is_not_in_it_is_told(two: list[Path], tmp_path: Path) -> None:
    third = await write(tmp_path / "third", begun("4/20"), created("z"), end(1), run="z1")
    first, second = put(tmp_path / "all.jsonl", [two[0], third]).notes
    assert "shard 1/2; do not run" in first
    assert "shard 0/20, 1/20, 2/20, 3/20, 5/20" in second
    assert "and 9 more" in second


def test_copies_of_what_was_there_before_stay_where_they_are(two: list[Path], tmp_path: Path) -> None:
    copies = tmp_path / "m.1-of-2.jsonl.before.jsonl"
    copies.write_text("{}\n")
    (note,) = put(tmp_path / "all.jsonl", two).notes
    assert note.endswith("stay where they are: m.1-of-2.jsonl.before.jsonl")
    assert copies.read_text() == "{}\n"


# ---- a trial before the shards ---------------------------------------------------------------------------------------


def adopted(source_id: str) -> Entry:
    return Entry("created", {**created(source_id).fields, "how": "lookup"})


def said(kind: str, source_id: str, **fields: Any) -> Entry:
    return Entry(kind, {"source_id": source_id, **fields})


UNDONE = said("rolled_back", "a", target_id="t-a", result="deleted")
AGAIN = said("created", "a", target_id="t-a2", how="response")


async def trial(folder: Path, *of_a: Entry) -> Path:
    """Of two prompts of six: `a`, and `x`, which failed."""
    failed = said("failed", "x", stage="rewrite", error="missing", retriable=True)
    last = end(1, exit_code=1, reason="failures", failed=1, not_started=4)
    return await write(folder / "m.jsonl", begun(None), *of_a, failed, last, run="t1")


@pytest.mark.parametrize(
    ("of_trial", "of_shard", "target"),
    [
        ((intent("a"), created("a")), (adopted("a"),), "t-a"),
        ((said("conflict", "a", reason="exists"),), (created("a"),), "t-a"),
        ((created("a"), UNDONE), (intent("a"), AGAIN), "t-a2"),
        ((created("a"),), (said("unchanged", "a"),), "t-a"),
    ],
)
@pytest.mark.parametrize("named_first", [True, False])
async def test_what_a_trial_made_is_once_in_it(
    of_trial: tuple[Entry, ...], of_shard: tuple[Entry, ...], target: str, named_first: bool, tmp_path: Path
) -> None:
    first = await trial(tmp_path, *of_trial)
    shards = [
        await write(tmp_path / "m.0-of-2.jsonl", begun("0/2"), *of_shard, created("b"), end(2), run="s0"),
        await write(tmp_path / "m.1-of-2.jsonl", begun("1/2"), *map(created, "cdex"), end(4), run="s1"),
    ]
    out = tmp_path / "all.jsonl"
    done = put(out, [first, *shards] if named_first else [*shards, first])
    assert (done.prompts, done.notes) == (6, [])
    state, status = read_ledger(out).state, read_status(out, Chosen())
    assert {one: record.target_id for one, record in state.records.items()} == {
        **{one: f"t-{one}" for one in "bcdex"},
        "a": target,
    }
    assert state.targets == {target, *(f"t-{one}" for one in "bcdex")}
    told = {name: count for name, count in status.counts.items() if count}
    assert told == {"listed": 9, "selected": 6, "created": 6}
    assert (status.exit_code, status.reason, "`promptferry ids`" in status.next) == (0, "done", True)
    assert [row["target_id"] for row in read_ids_map(out, Chosen()) if row["source_id"] == "a"] == [target]
    (undo,) = (one for one in undoing(read_made(out, Chosen()), None) if one.made.source_id == "a")
    assert (undo.action, undo.made.target_id) == ("delete", target)


@pytest.mark.parametrize("compacted", [False, True])
@pytest.mark.parametrize(("kind", "of_it"), [("created", 1), ("updated", 2), ("updated", 3)])
async def test_what_is_deleted_is_in_no_map_though_a_trial_made_it_first(
    kind: str, of_it: int, compacted: bool, tmp_path: Path
) -> None:
    """The rollback of what the shard wrote, of that and an update since, or of all, deletes what both speak of."""
    first = await trial(tmp_path, created("a"))
    shard = await write(tmp_path / "m.0-of-2.jsonl", begun("0/2"), adopted("a"), created("b"), end(2), run="s0")
    put(out := tmp_path / "all.jsonl", [first, shard])
    if kind == "updated":
        await write(out, begun(None), said("updated", "a", target_id="t-a"), end(0, updated=1), run="r2")
    await write(out, said("rolled_back", "a", target_id="t-a", result="deleted", undone=of_it), run="r3")
    if compacted:
        compact(out)
    assert [row["source_id"] for row in read_ids_map(out, Chosen())] == ["b"]
    assert [one.made.source_id for one in undoing(read_made(out, Chosen()), None)] == ["b"]
    assert read_ledger(out).state.targets == {"t-b"}


async def test_what_no_shard_has_come_to_is_not_started(tmp_path: Path) -> None:
    first = await trial(tmp_path, created("a"))
    shard = await write(tmp_path / "m.0-of-2.jsonl", begun("0/2"), adopted("a"), created("b"), end(2), run="s0")
    put(tmp_path / "all.jsonl", [first, shard])
    status = read_status(tmp_path / "all.jsonl", Chosen())
    told = {name: count for name, count in status.counts.items() if count}
    assert told == {"listed": 9, "selected": 6, "created": 2, "failed": 1, "not_started": 3}
    assert (status.exit_code, "Run the migration without --shard" in status.next) == (1, True)


async def test_a_run_of_all_that_came_to_none_of_them_counts_none_twice(tmp_path: Path) -> None:
    listed = Entry("listed", {"count": 9, "total": 9, "selected": 6})
    killed = await write(tmp_path / "m.jsonl", begun(None), listed, run="t1")
    shards = [
        await write(tmp_path / "m.0-of-2.jsonl", begun("0/2"), *map(created, "ab"), end(2), run="s0"),
        await write(tmp_path / "m.1-of-2.jsonl", begun("1/2"), *map(created, "cdex"), end(4), run="s1"),
    ]
    put(tmp_path / "all.jsonl", [*shards, killed])
    status = read_status(tmp_path / "all.jsonl", Chosen())
    assert {name: n for name, n in status.counts.items() if n} == {"listed": 9, "selected": 6, "created": 6}
    assert (status.exit_code, "`promptferry ids`" in status.next) == (0, True)


async def test_runs_of_all_that_were_about_different_prompts_count_none_twice(tmp_path: Path) -> None:
    first, other = [
        await write(tmp_path / one, begun(None), created(one), end(1, not_started=5), run=one) for one in "ab"
    ]
    put(tmp_path / "all.jsonl", [first, other])
    counts = read_status(tmp_path / "all.jsonl", Chosen()).counts
    assert (counts["selected"], counts["created"], counts["not_started"]) == (6, 2, 4)


@pytest.mark.parametrize(
    ("of_trial", "of_shard"),
    [
        ((created("a"),), (AGAIN,)),
        ((intent("a"),), (created("a"),)),
        ((created("a"),), (adopted("a"), UNDONE)),
        ((created("a"),), (said("conflict", "a", reason="edited"),)),
    ],
)
async def test_what_there_may_be_twice_is_refused(
    of_trial: tuple[Entry, ...], of_shard: tuple[Entry, ...], tmp_path: Path
) -> None:
    first = await trial(tmp_path, *of_trial)
    shard = await write(tmp_path / "m.0-of-2.jsonl", begun("0/2"), *of_shard, end(1), run="s0")
    with pytest.raises(Stop, match=r"the prompt a is in .*m\.jsonl and in .*m\.0-of-2\.jsonl") as stop:
        put(tmp_path / "all.jsonl", [shard, first])
    assert "leave out the one whose prompts others have, too" in stop.value.next
    assert not (tmp_path / "all.jsonl").exists()


# ---- what is refused -------------------------------------------------------------------------------------------------


async def other(path: Path, **fields: Any) -> Path:
    return await write(path, begun(fields.pop("shard", None), **fields), created("x"), run="o1")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"migration": "other"}, "belongs to another migration than"),
        ({"target": "elsewhere"}, "the target .* is 't' there and 'elsewhere' here"),
        ({"shard": "0/2"}, "the shard 0/2 is in"),
    ],
)
async def test_what_does_not_belong_together(
    fields: dict[str, Any], words: str, two: list[Path], tmp_path: Path
) -> None:
    third = await other(tmp_path / "other", **fields)
    with pytest.raises(Stop, match=words) as stop:
        put(tmp_path / "all.jsonl", [*two, third])
    assert (stop.value.reason, stop.value.exit_code) == ("ledger_mismatch", 4)
    assert not (tmp_path / "all.jsonl").exists()


async def test_a_prompt_or_a_part_that_is_in_two(two: list[Path], tmp_path: Path) -> None:
    doubled = Entry("created", {"source_id": "c", "target_id": "t-other", "how": "response"})
    twice = await write(tmp_path / "twice", begun(None), doubled, intent("d"), run="o1")
    with pytest.raises(Stop, match=r"the prompt c \(and 1 more\) is in .*m\.1-of-2\.jsonl and in .*twice"):
        put(tmp_path / "all.jsonl", [*two, twice])
    part = Entry("made", {"what": "collection", "source_slug": "sales", "target_id": "c1"})
    parts = [await write(tmp_path / name, begun(None), part, run=name) for name in ("p1", "p2")]
    with pytest.raises(Stop, match=r"the collection sales is in .*p1 and in .*p2"):
        put(tmp_path / "all.jsonl", parts)


def torn(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 3)


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def foreign(path: Path) -> None:
    path.write_text("hello\n")


def gone(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (torn, "its last write did not end"),
        (emptied, "no run has written to it"),
        (foreign, "is no ledger of promptferry"),
        (gone, "there is no ledger here"),
    ],
)
def test_what_is_not_whole(spoil: Callable[[Path], None], words: str, two: list[Path], tmp_path: Path) -> None:
    spoil(two[1])
    before = [path.read_bytes() for path in two if path.exists()]
    with pytest.raises((Stop, ConfigError), match=words):
        put(tmp_path / "all.jsonl", two)
    assert [path.read_bytes() for path in two if path.exists()] == before
    assert sorted(path.name for path in tmp_path.iterdir()) == [path.name for path in two if path.exists()]


async def test_damage_and_a_ledger_in_use(two: list[Path], tmp_path: Path) -> None:
    sink = Sink.open(two[0], run="x")
    with pytest.raises(Stop, match="another run holds this ledger") as stop:
        put(tmp_path / "all.jsonl", two)
    assert stop.value.reason == "ledger_in_use"
    sink.close()
    damage(two[0], 2)
    with pytest.raises(Stop, match="line 2 is damaged"):
        put(tmp_path / "all.jsonl", two)
    assert not (tmp_path / "all.jsonl").exists()


def test_names_that_cannot_be_used(two: list[Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is named twice"):
        put(tmp_path / "all.jsonl", [*two, tmp_path / "." / two[0].name])
    (tmp_path / "all.jsonl").symlink_to("nowhere")
    for out in (tmp_path / "all.jsonl", two[0]):
        with pytest.raises(ConfigError, match=r"is there already; name another file .* --ledger from then on"):
            put(out, two)


def test_a_file_that_comes_there_meanwhile_stays(
    two: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, link = tmp_path / "all.jsonl", os.link

    def late(new: Path, path: Path) -> None:
        path.write_text("somebody's")
        link(new, path)

    monkeypatch.setattr(os, "link", late)
    with pytest.raises(ConfigError, match="is there already"):
        put(out, two)
    assert out.read_text() == "somebody's"
    assert not out.with_name("all.jsonl.new").exists()


async def test_what_was_found_to_differ_in_a_shard_is_told_of_the_whole(tmp_path: Path) -> None:
    differs = Entry("verified", {"source_id": "a", "target_id": "A", "result": "differs", "fields": ["string"]})
    first = await write(tmp_path / "0.jsonl", begun("0/2"), created("a"), differs, end(1, exit_code=3), run="a1")
    second = await write(tmp_path / "1.jsonl", begun("1/2"), created("b"), end(1), run="b1")
    put(out := tmp_path / "all.jsonl", [first, second])
    *_, last = entries(out)
    assert (last["exit_code"], last["next"], read_status(out, Chosen()).next) == (3, UNPROVED, UNPROVED)


@pytest.mark.parametrize(("published", "words"), [(True, "Applications get the new versions"), (False, "cut over")])
async def test_only_what_is_staged_is_to_be_cut_over(published: bool, words: str, tmp_path: Path) -> None:
    versions = {"before_version": 1, "after_version": 2, "published": published}
    paths = []
    for shard, one in (("0/2", "a"), ("1/2", "b")):
        updated = Entry("updated", {"source_id": one, "target_id": one, **versions})
        lines = begun(shard, mode="update"), updated, end(0, updated=1)
        paths.append(await write(tmp_path / one, *lines, run=one))
    put(tmp_path / "all.jsonl", paths)
    assert words in read_status(tmp_path / "all.jsonl", Chosen()).next


async def test_what_was_taken_back_in_a_shard_is_not_called_unfinished(tmp_path: Path) -> None:
    back = Entry("rolled_back", {"source_id": "a", "target_id": "t-a", "result": "deleted"})
    first = await write(tmp_path / "0.jsonl", begun("0/2"), created("a"), end(1), back, run="a1")
    second = await write(tmp_path / "1.jsonl", begun("1/2"), created("b"), end(1), run="b1")
    put(out := tmp_path / "all.jsonl", [first, second])
    found = read_status(out, Chosen())
    assert (found.counts["created"], found.counts["not_started"], found.next) == (1, 1, TAKEN_BACK)
