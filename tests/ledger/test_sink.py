"""The ledger on a real disk: durable when it says so, one writer, mended or refused when it is opened."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import anyio
import pytest

import engine.ledger.file
import engine.ledger.sink
from engine.errors import ConfigError, Stop
from engine.ledger.file import entries, read_ledger
from engine.ledger.sink import BATCH_LINES, Sink
from engine.ledger.state import State
from engine.model import Entry

REPO = Path(__file__).parents[2]


def intent(number: int) -> Entry:
    return Entry("intent", {"source_id": f"p{number}", "op": "create", "name": f"n{number}", "attempt": 1})


def created(number: int) -> Entry:
    return Entry("created", {"source_id": f"p{number}", "target_id": f"t{number}", "name": f"n{number}"})


def opened(path: Path, run: str = "r1") -> Sink:
    return Sink.open(path, run=run, clock=lambda: 1_795_176_000.0)


async def written(path: Path, *batches: tuple[Entry, ...]) -> bytes:
    """The bytes of a ledger with these batches."""
    sink = opened(path)
    async with sink:
        for batch in batches:
            await sink.record(*batch)
    sink.close()
    return path.read_bytes()


async def campaign(path: Path) -> bytes:
    """25 lines in 12 batches, the last one of three lines."""
    pairs = [(intent(number), created(number)) for number in range(11)]
    return await written(path, *pairs, (intent(11), intent(12), created(11)))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledgers" / "m.jsonl"


class Disk:
    """Stands in front of os.fdatasync: counts, holds back, fails."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.fail_at = 0
        self.reached = threading.Event()
        self.free = threading.Event()
        self.free.set()
        self._sync = os.fdatasync

    def fdatasync(self, fd: int) -> None:
        self.sizes.append(os.fstat(fd).st_size)
        self.reached.set()
        self.free.wait(30)
        if len(self.sizes) == self.fail_at:
            raise OSError(errno.EIO, "Input/output error")
        self._sync(fd)

    async def wait_reached(self) -> None:
        await anyio.to_thread.run_sync(self.reached.wait, 30)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    disk = Disk()
    monkeypatch.setattr(os, "fdatasync", disk.fdatasync)
    return disk


# ---- recording -------------------------------------------------------------------------------------------------------


async def test_a_record_is_synced_when_it_returns_and_the_state_follows(path: Path, disk: Disk) -> None:
    sink = opened(path)
    assert path.stat().st_mode & 0o777 == 0o600
    async with sink:
        await sink.record(intent(1))
        assert disk.sizes == [path.stat().st_size]
        assert sink.state.records["p1"].doubtful
        await sink.record(created(1))
        assert disk.sizes[1:] == [path.stat().st_size]
    sink.close()
    found = read_ledger(path)
    assert found.verdict.kind == "whole"
    assert found.state == sink.state
    assert found.state.records["p1"].target_id == "t1"
    assert [line["kind"] for line in entries(path)] == ["intent", "created"]


async def test_many_writers_share_a_sync_and_keep_their_order(path: Path, disk: Disk) -> None:
    sink = opened(path)

    async def write(number: int) -> None:
        await sink.record(intent(number), intent(number + 1000))
        await sink.record(created(number))

    async with sink, anyio.create_task_group() as group:
        for number in range(200):
            group.start_soon(write, number)
    sink.close()
    lines = list(entries(path))
    assert [line["seq"] for line in lines] == list(range(1, 601))
    assert len(disk.sizes) == lines[-1]["b"] < 10
    places = {(line["kind"], line["source_id"]): (line["seq"], line["b"]) for line in lines}
    for number in range(200):
        seq, batch = places["intent", f"p{number}"]
        assert places["intent", f"p{number + 1000}"] == (seq + 1, batch)
        assert places["created", f"p{number}"][0] > seq
    assert max(line["n"] for line in lines) < BATCH_LINES
    assert read_ledger(path).state == sink.state


async def test_what_one_caller_hands_over_may_be_more_than_a_batch(path: Path) -> None:
    sink = opened(path)
    async with sink:
        await sink.record(*(created(number) for number in range(600)))
        assert len(sink.state.targets) == 600
    sink.close()
    assert [line["b"] for line in entries(path)] == [1] * 256 + [2] * 256 + [3] * 88


async def test_a_cancelled_caller_leaves_its_entries_behind(path: Path, disk: Disk) -> None:
    sink = opened(path)
    disk.free.clear()
    async with sink, anyio.create_task_group() as group:
        group.start_soon(sink.record, intent(1))
        await disk.wait_reached()
        group.start_soon(sink.record, intent(2))
        await anyio.lowlevel.checkpoint()
        group.cancel_scope.cancel()
        disk.free.set()
    assert set(sink.state.records) == {"p1", "p2"}
    sink.close()
    assert set(read_ledger(path).state.records) == {"p1", "p2"}


async def test_a_cancelled_run_flushes(path: Path, disk: Disk) -> None:
    sink = opened(path)
    disk.free.clear()
    with anyio.CancelScope() as scope:
        async with sink, anyio.create_task_group() as group:
            group.start_soon(sink.record, intent(1), created(1))
            await disk.wait_reached()
            group.start_soon(sink.record, intent(2))
            await anyio.lowlevel.checkpoint()
            scope.cancel()
            disk.free.set()
    assert len(disk.sizes) == 2
    assert scope.cancelled_caught
    sink.close()
    assert set(read_ledger(path).state.records) == {"p1", "p2"}


async def test_an_error_of_the_body_goes_on_as_it_is(path: Path) -> None:
    sink = opened(path)

    async def body() -> NoReturn:
        async with sink:
            await sink.record(intent(1))
            raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        await body()
    sink.close()
    assert set(read_ledger(path).state.records) == {"p1"}


async def test_a_bug_in_an_entry_is_raised_where_it_was_made_and_harms_nobody(path: Path) -> None:
    sink = opened(path)
    async with sink:
        with pytest.raises(TypeError):
            await sink.record(Entry("created", {"source_id": object()}))
        await sink.record(intent(1))
    sink.close()
    assert read_ledger(path).state == sink.state


async def test_outside_its_block_a_sink_takes_nothing(path: Path) -> None:
    sink = opened(path)
    with pytest.raises(RuntimeError, match="async with"):
        await sink.record(intent(1))
    async with sink:
        await sink.record()
    with pytest.raises(RuntimeError, match="async with"):
        await sink.record(intent(1))
    sink.close()
    assert not path.exists()


# ---- errors of the disk ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fail_at", [1, 2, 3])
async def test_after_a_failed_sync_nothing_is_claimed(path: Path, disk: Disk, fail_at: int) -> None:
    sink = opened(path)
    disk.fail_at = fail_at
    async with sink:
        for number in range(1, fail_at):
            await sink.record(intent(number))
        async with anyio.create_task_group() as group:
            for number in (fail_at, 8, 9):  # one batch, or it and one that waits
                group.start_soon(refused, sink, number)
        size = path.stat().st_size
        await refused(sink, 10)
    sink.close()
    assert sink.broken is not None
    assert len(disk.sizes) == fail_at
    assert set(sink.state.records) == {f"p{number}" for number in range(1, fail_at)}
    assert path.stat().st_size == size == disk.sizes[-1]  # neither cut nor written again


async def refused(sink: Sink, number: int) -> None:
    with pytest.raises(Stop) as caught:
        await sink.record(intent(number))
    assert (caught.value.reason, caught.value.exit_code) == ("disk", 75)
    assert "Input/output error" in str(caught.value)


async def test_a_failed_write_is_cut_off(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sink = opened(path)
    write = os.write

    def short_then_full(fd: int, data: bytes) -> int:
        if len(data) < 40:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(fd, data[:40])

    async with sink:
        await sink.record(intent(1))
        before = path.read_bytes()
        monkeypatch.setattr(os, "write", short_then_full)
        with pytest.raises(Stop, match="No space left"):
            await sink.record(intent(2))
        monkeypatch.setattr(os, "write", write)
        with pytest.raises(Stop, match="No space left"):
            await sink.record(intent(3))
    sink.close()
    assert path.read_bytes() == before


FULL = """
import asyncio, os, pathlib, resource, sys
from engine.errors import Stop
from engine.model import Entry
from engine.ledger.file import read_ledger
from engine.ledger.sink import Sink

os.fsync = os.fdatasync = lambda fd: None  # hundreds of ledgers; this is about writes

def entry(number): return Entry("intent", {"source_id": f"p{number}", "op": "create", "name": "n", "attempt": 1})

async def fill(path, limit):
    sink = Sink.open(path, run="r1", clock=lambda: 0.0)
    async with sink:
        await sink.record(entry(1))
        resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + limit, resource.RLIM_INFINITY))
        try:
            await sink.record(entry(2), entry(3))
        except Stop as stop:
            assert stop.reason == "disk", stop
            return False, path
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            sink.close()
    return True, path

async def resume(path):
    sink = Sink.open(path, run="r2", clock=lambda: 0.0)
    async with sink:
        await sink.record(entry(4))
    sink.close()
    return sink.cut

full = 0
for limit in range(10_000):
    done, path = asyncio.run(fill(pathlib.Path(sys.argv[1]) / f"{limit}.jsonl", limit))
    found = read_ledger(path)
    assert found.verdict.kind == "whole", (limit, found.verdict)
    if done:
        assert set(found.state.records) == {"p1", "p2", "p3"}
        break
    full += 1
    assert set(found.state.records) == {"p1"}
    assert asyncio.run(resume(path)) is False
    assert set(read_ledger(path).state.records) == {"p1", "p4"}
print(full)
"""


def test_a_full_disk_at_every_byte_of_a_write_leaves_no_torn_line(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path)], cwd=REPO, capture_output=True, text=True, check=False, timeout=50
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 200


async def test_a_disk_that_hangs_does_not_hold_the_end(path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine.ledger.sink, "FLUSH_SECONDS", 0.0)
    sink = opened(path)
    disk.free.clear()
    async with sink, anyio.create_task_group() as group:
        group.start_soon(sink.record, intent(1))
        await disk.wait_reached()
        group.cancel_scope.cancel()
    assert sink.broken is not None
    assert "did not answer" in str(sink.broken)
    assert not sink.state.records
    sink.close()
    with pytest.raises(Stop, match="another run"):  # its thread may still write
        opened(path)
    disk.free.set()


# ---- one writer ------------------------------------------------------------------------------------------------------

HOLDER = """
import pathlib, sys
from engine.ledger.sink import Sink
sink = Sink.open(pathlib.Path(sys.argv[1]), run="other")
print("held", flush=True)
sys.stdin.read()
"""


def test_one_process_at_a_time_and_kill_frees_it(path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)], cwd=REPO, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(Stop, match="another run") as caught:
            opened(path)
        assert (caught.value.reason, caught.value.exit_code) == ("ledger_in_use", 75)
        assert read_ledger(path).verdict.kind == "whole"
        holder.kill()
    opened(path).close()


async def test_a_ledger_replaced_while_it_is_opened_is_opened_again(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await written(path, (intent(1),))
    await written(tmp_path / "compacted.jsonl", (intent(2),))
    flock = fcntl.flock

    def replace_first(fd: int, operation: int) -> None:
        if (tmp_path / "compacted.jsonl").exists():
            (tmp_path / "compacted.jsonl").rename(path)
        flock(fd, operation)

    monkeypatch.setattr(fcntl, "flock", replace_first)
    sink = opened(path)
    assert set(sink.state.records) == {"p2"}
    sink.close()


async def test_an_unused_new_ledger_is_removed_and_any_other_stays(path: Path) -> None:
    sink = opened(path)
    assert sink.created
    sink.close()
    sink.close()
    assert not path.exists()
    path.touch()
    sink = opened(path)
    assert not sink.created
    sink.close()
    assert path.exists()
    await written(path, (intent(1),))
    assert path.exists()


async def test_what_is_made_and_what_is_found_is_synced_when_it_is_opened(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(os.fstat(fd).st_ino))
    data = await written(path, (intent(1),))
    folder, outer = path.parent.stat().st_ino, path.parent.parent.stat().st_ino
    assert synced == [outer, folder, path.stat().st_ino]
    synced.clear()
    opened(path).close()
    assert synced == [path.stat().st_ino]
    synced.clear()
    path.write_bytes(data[:-3])
    opened(path).close()
    assert synced == [path.with_name("m.jsonl.torn-1").stat().st_ino, folder, path.stat().st_ino]


# ---- torn and damaged ------------------------------------------------------------------------------------------------


def fold_of(data: bytes) -> State:
    """The plain fold of whole lines."""
    state = State()
    for line in data.splitlines():
        state.fold(json.loads(line))
    return state


async def test_a_torn_tail_is_kept_aside_and_the_run_goes_on(path: Path) -> None:
    whole = await written(path, (intent(1), created(1)))
    for number, torn in enumerate((b'{"v":1,"seq":3,"ts', b"\0" * 4096), 1):
        path.write_bytes(whole + torn)
        seen = read_ledger(path)
        assert (seen.verdict.kind, seen.end.offset, len(list(entries(path)))) == ("torn", len(whole), 2)
        sink = opened(path)
        assert sink.cut
        kept = path.with_name(f"m.jsonl.torn-{number}")
        assert kept.read_bytes() == torn
        assert kept.stat().st_mode & 0o777 == 0o600
        assert path.read_bytes() == whole
        sink.close()
    sink = opened(path, run="r2")
    assert not sink.cut
    async with sink:
        await sink.record(intent(2))
    sink.close()
    assert path.read_bytes().startswith(whole)
    assert read_ledger(path).verdict.kind == "whole"


async def test_a_tail_that_cannot_be_kept_is_not_cut(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = (await written(path, (intent(1),)))[:-5]
    path.write_bytes(data)
    monkeypatch.setattr(shutil, "copyfileobj", full)
    with pytest.raises(Stop, match="No space left") as caught:
        opened(path)
    assert caught.value.reason == "disk"
    assert path.read_bytes() == data
    assert [file.name for file in path.parent.iterdir()] == ["m.jsonl"]


def full(*_: object) -> NoReturn:
    raise OSError(errno.ENOSPC, "No space left on device")


async def test_a_cut_at_every_byte_opens_with_the_lines_before_it(path: Path, no_fsync: None) -> None:
    data = await campaign(path)
    lines = data.splitlines(keepends=True)
    assert len(lines) == 25
    for size in range(len(data)):
        path.unlink()  # a new file each time: overwriting one makes some file systems sync
        path.write_bytes(data[:size])
        kept = b"".join(lines[: data[:size].count(b"\n")])
        sink = opened(path)
        sink.close()
        assert sink.state == fold_of(kept), size
        assert path.read_bytes() == kept, size
        unfinished = bool(kept) and json.loads(kept.splitlines()[-1])["n"] > 0
        assert sink.cut == (size != len(kept) or unfinished), size
        path.with_name("m.jsonl.torn-1").unlink(missing_ok=True)


async def test_a_flip_of_every_byte_is_refused_or_cut(path: Path, no_fsync: None) -> None:
    data = await campaign(path)
    last_batch = sum(map(len, data.splitlines(keepends=True)[:22]))
    for place in range(len(data)):
        flipped = bytearray(data)
        flipped[place] ^= 1 << place % 8
        path.unlink()
        path.write_bytes(flipped)
        if place < last_batch:
            with pytest.raises(Stop, match="is damaged"):
                opened(path)
            assert path.read_bytes() == flipped, place
            continue
        kept = data[: data[:place].rfind(b"\n") + 1]
        if flipped[len(kept) :].startswith(b'{"v":9,'):
            with pytest.raises(Stop, match="newer version"):
                opened(path)
            continue
        sink = opened(path)
        sink.close()
        assert sink.cut
        assert (sink.state, path.read_bytes()) == (fold_of(kept), kept), place
        path.with_name("m.jsonl.torn-1").unlink()


@pytest.fixture
def no_fsync(monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands of opens in one test; what they sync is not looked at."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


async def test_damage_is_refused_by_line_with_what_to_do(path: Path) -> None:
    data = (await campaign(path)).replace(b'"t3"', b'"t4"', 1)
    path.write_bytes(data)
    with pytest.raises(Stop, match=r"m\.jsonl: line 8 is damaged") as caught:
        opened(path)
    assert (caught.value.reason, caught.value.exit_code) == ("ledger_damaged", 4)
    assert f"promptferry ledger check {path}" in caught.value.next
    assert path.read_bytes() == data
    assert len(read_ledger(path).state.records) == 4


async def test_more_than_a_write_can_tear_is_damage(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine.ledger.file, "REST_BYTES", 4096)
    data = await written(path, (intent(1),)) + b"\0" * 4096
    path.write_bytes(data)
    with pytest.raises(Stop, match="line 2 is damaged"):
        opened(path)
    assert path.read_bytes() == data


# ---- what is no ledger -----------------------------------------------------------------------------------------------


def make_text(path: Path) -> None:
    path.write_text("name: m\n")


def make_newer(path: Path) -> None:
    path.write_text('{"v":2,"seq":1}\n')


def make_parent_file(path: Path) -> None:
    path.parent.rmdir()
    path.parent.write_text("a file")


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (make_text, ConfigError, "no ledger of promptferry"),
        (make_newer, Stop, "newer version"),
        (Path.mkdir, ConfigError, "no ledger can be here"),
        (make_parent_file, ConfigError, "no ledger can be here"),
        (os.mkfifo, ConfigError, "this is no file"),
    ],
)
def test_what_is_no_ledger_is_left_alone(
    path: Path, make: Callable[[Path], object], error: type[Exception], words: str
) -> None:
    path.parent.mkdir()
    make(path)
    before = path.read_bytes() if path.is_file() else None
    with pytest.raises(error, match=words):
        opened(path)
    assert before is None or path.read_bytes() == before


def test_a_place_that_cannot_be_written_stops_with_75(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_only(*_: object) -> NoReturn:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(os, "open", read_only)
    with pytest.raises(Stop, match="Read-only file system") as caught:
        opened(path)
    assert caught.value.reason == "disk"


def test_reading_needs_a_file(path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no ledger here"):
        read_ledger(path)
    path.mkdir(parents=True)
    with pytest.raises(ConfigError, match="this is no file"):
        list(entries(path))
