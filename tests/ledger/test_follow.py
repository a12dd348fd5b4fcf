"""Somebody who reads a ledger while others write, cut, mend and replace it has what is in the file, at every step."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Iterator, Mapping
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

import engine.ledger.follow
from engine.errors import ConfigError, Stop
from engine.ledger.file import entries, good_entries, read_ledger
from engine.ledger.follow import Follower, News, follow
from engine.ledger.lines import Chain
from engine.ledger.repair import compact, repair
from engine.ledger.sink import Sink
from engine.model import Entry, Json


class Reader:
    """What somebody knows who takes all news as they come."""

    def __init__(self, path: Path) -> None:
        self.follower = Follower(path)
        self.lines: list[Mapping[str, Json]] = []
        self.begun = 0
        """How often it read a file from its start."""
        self.news: News | None = None

    def catch_up(self) -> News:
        """Looks until there is nothing new."""
        while (news := self.follower.look()) is not None:
            self.news = news
            self.begun += news.anew and news.there
            self.lines = [*([] if news.anew else self.lines), *news.lines]
            assert news.lines or not news.behind
        assert self.news is not None
        assert not self.news.behind
        return self.news


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.jsonl"


@pytest.fixture
def reader(path: Path) -> Iterator[Reader]:
    found = Reader(path)
    yield found
    found.follower.close()


async def write(path: Path, *numbers: int, run: str = "r1", **fields: Any) -> None:
    """A run that creates these prompts."""
    sink = Sink.open(path, run=run)
    async with sink:
        await sink.record(Entry("run", {"migration": "m", "mode": "replicate"}))
        for number in numbers:
            known = {"source_id": f"p{number}", "source_name": f"name {number}"}
            await sink.record(Entry("intent", known | {"op": "create", "name": "n", "attempt": 1}))
            await sink.record(Entry("created", known | {"target_id": f"t{number}"} | fields))
    sink.close()


async def test_lines_come_once_in_order_and_nothing_comes_where_nothing_is_new(path: Path, reader: Reader) -> None:
    news = reader.catch_up()
    assert (news.there, news.condition.kind, reader.lines) == (False, "whole", [])
    await write(path, 1, 2)
    assert reader.catch_up().there
    assert reader.lines == list(entries(path))
    await write(path, 3, run="r2")
    reader.catch_up()
    assert reader.lines == list(entries(path))
    assert reader.begun == 1
    assert reader.follower.look() is None


async def test_the_writer_is_not_kept_from_its_lock_and_the_file_stays_as_it_is(path: Path, reader: Reader) -> None:
    await write(path, 1)
    before = path.read_bytes(), path.stat().st_mtime_ns, sorted(path.parent.iterdir())
    reader.catch_up()
    assert (path.read_bytes(), path.stat().st_mtime_ns, sorted(path.parent.iterdir())) == before
    Sink.open(path, run="r2").close()  # it would be refused a lock that somebody else has


@pytest.mark.parametrize("kept", [1, 40, -1])
async def test_a_last_line_that_is_not_whole_is_waited_for(kept: int, path: Path, reader: Reader) -> None:
    await write(path, 1)
    whole = path.read_bytes()
    last = whole[:-1].rfind(b"\n") + 1
    path.write_bytes(whole[:last] + whole[last:][:kept])
    news = reader.catch_up()
    assert (news.condition.kind, news.refusal) == ("torn", None)
    assert len(reader.lines) == whole.count(b"\n") - 1
    with path.open("ab") as file:
        file.write(whole[last:][kept:])
    assert reader.catch_up().condition.kind == "whole"
    assert reader.lines == list(entries(path))
    assert reader.begun == 1


async def test_a_line_that_becomes_whole_while_it_is_looked_at_is_no_damage(
    path: Path, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    await write(path, 1, 2, 3)
    whole = path.read_bytes()
    half, read, accept = len(whole) // 2, os.pread, Chain.accept

    def go_on() -> None:
        """The writer, behind the half line, and batches later."""
        path.write_bytes(path.read_bytes() + whole[path.stat().st_size :])

    def pread(fd: int, size: int, offset: int) -> bytes:
        data = read(fd, size, offset)
        if size:
            go_on()
        return data

    def accepted(chain: Chain, line: bytes) -> Any:
        fields = accept(chain, line)
        if fields is None:
            go_on()
        return fields

    path.write_bytes(whole[:half])
    with monkeypatch.context() as patched:
        patched.setattr(os, "pread", pread)
        first = reader.follower.look()
    assert first is not None
    assert first.condition.kind == "torn"

    path.write_bytes(whole[:half])
    with monkeypatch.context() as patched:
        patched.setattr(Chain, "accept", accepted)
        found = read_ledger(path)
    assert (found.verdict.kind, found.end.offset) == ("whole", len(whole))


async def test_a_torn_tail_that_the_next_run_cuts_off_is_forgotten(path: Path, reader: Reader) -> None:
    await write(path, 1, 2)
    path.write_bytes(path.read_bytes()[:-20])
    assert reader.catch_up().condition.kind == "torn"
    await write(path, 3, run="r2")
    assert reader.catch_up().condition.kind == "whole"
    assert reader.lines == list(entries(path))
    assert reader.begun == 1


async def test_a_ledger_that_is_compacted_is_read_anew(path: Path, reader: Reader) -> None:
    await write(path, 1, 2)
    reader.catch_up()
    compact(path)
    assert reader.catch_up().anew
    assert reader.lines == list(entries(path))


async def test_a_write_that_the_disk_refused_and_another_in_its_place_are_told_apart(
    path: Path, reader: Reader
) -> None:
    """A full disk: the writer takes back what it wrote of a batch, which a reader may have seen."""
    await write(path, 1)
    good = path.read_bytes()
    await write(path, 2, run="r2")
    reader.catch_up()
    path.write_bytes(good)
    await write(path, 3, run="r3", padding="x" * 500)
    assert path.stat().st_size > len(good)
    assert reader.catch_up().anew
    assert reader.lines == list(entries(path))


async def test_damage_is_said_and_mended_is_read_anew(path: Path, reader: Reader) -> None:
    await write(path, 1, 2, 3)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:2]))
    reader.catch_up()
    with path.open("ab") as file:
        file.writelines([lines[2], lines[3].replace(b"p", b"q", 1), *lines[4:]])
    news = reader.catch_up()
    assert isinstance(news.refusal, Stop)
    assert "line 4 is damaged" in str(news.refusal)
    assert reader.lines == list(good_entries(path))
    repair(path, force=True)
    assert reader.catch_up().refusal is None
    assert reader.lines == list(entries(path))


async def test_another_file_in_its_place_and_none_are_noticed(path: Path, reader: Reader, tmp_path: Path) -> None:
    await write(path, 1)
    await write(tmp_path / "other.jsonl", 7, 8)
    reader.catch_up()
    path.unlink()
    assert not reader.catch_up().there
    assert reader.lines == []
    shutil.copy(tmp_path / "other.jsonl", path)
    reader.catch_up()
    assert reader.lines == list(entries(path))


def test_what_is_no_ledger_or_no_file_is_refused(path: Path, reader: Reader) -> None:
    path.write_text("name: migration\nsource: {kind: portkey}\n")
    assert isinstance(reader.catch_up().refusal, ConfigError)
    path.write_text('{"v":2,"seq":1}\n')
    assert "newer version" in str(reader.catch_up().refusal)
    path.unlink()
    path.mkdir()
    with pytest.raises(ConfigError, match="no file"):
        reader.follower.look()


async def test_a_large_ledger_comes_in_pieces_and_a_line_larger_than_one_too(
    path: Path, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine.ledger.follow, "_PIECE_BYTES", 1000)
    await write(path, *range(20))
    await write(path, 20, run="r2", padding="x" * 3000)
    await write(path, 21, run="r3")
    first = reader.follower.look()
    assert first is not None
    assert first.behind
    assert first.anew
    reader.lines = list(first.lines)
    reader.catch_up()
    assert reader.lines == list(entries(path))
    assert reader.begun == 0, "the start came with the first look"


async def test_whatever_happens_to_the_file_a_reader_has_what_is_in_it(path: Path, reader: Reader) -> None:
    chance = random.Random(17)

    def torn() -> None:
        os.truncate(path, max(0, path.stat().st_size - chance.randrange(1, 300)))

    for count in range(120):
        what = chance.choice(["write", "write", "write", "torn", "compact", "repair", "copy", "look"])
        if what == "write" or not path.exists():
            await write(path, count, count % 5, run=f"r{count}")
        elif what == "torn":
            torn()
        elif what == "copy":
            shutil.copy(path, path.with_name("copy"))
            path.with_name("copy").replace(path)
        elif what != "look":
            _ = compact(path) if what == "compact" else repair(path, force=True)
        if chance.random() < 0.6:
            news = reader.catch_up()
            assert reader.lines == list(entries(path))
            assert news.condition == read_ledger(path).verdict


async def test_news_come_by_themselves(path: Path) -> None:
    seen: list[Mapping[str, Json]] = []
    async with aclosing(follow(path, interval=0.001)) as all_news:
        async for news in all_news:
            if not news.there:
                await write(path, 1)
            seen += news.lines
            if news.there:
                break
    assert seen == list(entries(path))


async def test_who_writes_it_is_news_as_well(path: Path) -> None:
    async with aclosing(follow(path, interval=0.001)) as all_news:
        first = await anext(all_news)
        assert first.holder is None
        sink = Sink.open(path, run="r1")
        while (news := await anext(all_news)).holder is None:
            pass
        assert news.holder is not None
        assert news.holder.pid == os.getpid()
        sink.close()
        assert (await anext(all_news)).holder is None
