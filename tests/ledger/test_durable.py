"""Durability as other systems give it: macOS has no fdatasync and a sync of its own, Windows has no locks at all."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.errors import EngineError, Stop, Unsupported
from engine.ledger import durable as disk
from engine.ledger.before_images import BeforeImages
from engine.ledger.file import read_ledger
from engine.ledger.repair import compact
from engine.ledger.sink import Sink
from engine.model import Entry, Prompt
from tests.e2e import TIMEOUT, Ended, lines, promptferry
from tests.forks import ROOT, environment

FULL_SYNC = 51
"""Its number on macOS."""


class Drive:
    """Takes full syncs down, and answers them as it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, answer: int = 0) -> None:
        self.full: list[int] = []
        self.plain: list[int] = []
        self.answer = answer
        self._fcntl = fcntl.fcntl
        monkeypatch.delattr(os, "fdatasync")
        monkeypatch.setattr(fcntl, "F_FULLFSYNC", FULL_SYNC, raising=False)
        monkeypatch.setattr(fcntl, "fcntl", self.fcntl)
        monkeypatch.setattr(os, "fsync", self.plain.append)

    def fcntl(self, fd: int, command: int, argument: int = 0) -> int:
        if command != FULL_SYNC:
            return self._fcntl(fd, command, argument)
        self.full.append(fd)
        if self.answer:
            raise OSError(self.answer, os.strerror(self.answer))
        return 0


@pytest.fixture
def drive(monkeypatch: pytest.MonkeyPatch) -> Drive:
    return Drive(monkeypatch)


SYNCS = pytest.mark.parametrize("sync", [disk.sync, disk.sync_data])


@SYNCS
def test_the_drive_is_told_where_it_can_be(sync: Callable[[int], None], drive: Drive, tmp_path: Path) -> None:
    with open(tmp_path / "file", "wb") as file:
        sync(file.fileno())
        assert (drive.full, drive.plain) == ([file.fileno()], [])


@SYNCS
@pytest.mark.parametrize("refusal", [errno.ENOTSUP, errno.EINVAL, errno.ENOTTY])
def test_a_file_system_that_cannot_tell_the_drive(
    sync: Callable[[int], None], refusal: int, drive: Drive, tmp_path: Path
) -> None:
    drive.answer = refusal
    with open(tmp_path / "file", "wb") as file:
        sync(file.fileno())
        assert drive.plain == [file.fileno()]


@SYNCS
@pytest.mark.parametrize("failure", [errno.EIO, errno.ENOSPC])
def test_an_error_of_a_sync_is_final(sync: Callable[[int], None], failure: int, drive: Drive, tmp_path: Path) -> None:
    drive.answer = failure
    with open(tmp_path / "file", "wb") as file, pytest.raises(OSError, match=os.strerror(failure)):
        sync(file.fileno())
    assert (len(drive.full), drive.plain) == (1, [])


def test_a_system_without_fdatasync(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    synced: list[int] = []
    monkeypatch.delattr(os, "fdatasync")
    monkeypatch.setattr(os, "fsync", synced.append)
    with open(tmp_path / "file", "wb") as file:
        disk.sync_data(file.fileno())
        assert synced == [file.fileno()]


async def test_a_ledger_is_written_there(drive: Drive, tmp_path: Path) -> None:
    ledger = tmp_path / "new" / "ledger.jsonl"
    sink = Sink.open(ledger, run="r1")
    async with sink:
        opened = len(drive.full)
        assert opened >= 3, "the folder, its own folder, and what was found in the file"
        await sink.record(Entry("intent", {"source_id": "a"}))
        assert len(drive.full) == opened + 1
    sink.close()
    await BeforeImages(ledger, run="r1").keep({"source_id": "a"}, Prompt(id="a", name="a", text="x"))
    assert compact(ledger).lines_before == 1
    assert read_ledger(ledger).verdict.kind == "whole"
    assert drive.plain == []


async def test_nothing_is_claimed_after_a_failed_full_sync(drive: Drive, tmp_path: Path) -> None:
    sink = Sink.open(tmp_path / "ledger.jsonl", run="r1")
    async with sink:
        drive.answer = errno.EIO
        for _ in range(2):
            with pytest.raises(Stop) as stopped:
                await sink.record(Entry("intent", {"source_id": "a"}))
            assert stopped.value.reason == "disk"
        assert drive.plain == []
    sink.close()


async def test_the_name_of_a_first_copy_is_durable(drive: Drive, tmp_path: Path) -> None:
    copies = BeforeImages(tmp_path / "ledger.jsonl", run="r1")
    for expected in (2, 3):  # the file and its folder; then the file alone
        await copies.keep({"source_id": "a"}, Prompt(id="a", name="a", text="x"))
        assert len(drive.full) == expected


MACOS = """
import fcntl, os, sys
del os.fdatasync
fcntl.F_FULLFSYNC, real, seen = 51, fcntl.fcntl, []
def full(fd, command, argument=0):
    return seen.append(fd) or 0 if command == 51 else real(fd, command, argument)
fcntl.fcntl = full
os.fsync = lambda fd: sys.exit("a sync that leaves it in the cache of the drive")
from engine.cli import main
try:
    main()
finally:
    assert seen, "nothing was synced"
"""


@pytest.mark.parametrize("target", ["sandbox", "folder", "copy.jsonl"])
def test_a_whole_run_as_on_macos(target: str, tmp_path: Path) -> None:
    to = "" if target == "sandbox" else f"target: {{kind: files, path: {target}}}\nallow_loss: ['*']\n"
    (tmp_path / "m.yaml").write_text(f"name: m\nsource: {{base_url: sandbox}}\n{to}ledger: m.jsonl\n")
    done = subprocess.run(
        [sys.executable, "-c", MACOS, "run", "m.yaml", "--limit", "5", "--summary", "summary.json"],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        timeout=TIMEOUT,
    )
    ended = Ended(done.returncode, done.stdout.decode(), done.stderr.decode())
    assert ended.summary["this_run"]["created"] == 5, ended.err
    assert lines(tmp_path / "m.jsonl")[-1]["kind"] == "end"
    assert (tmp_path / "summary.json").read_text() == ended.out


# ---- a system without locks ------------------------------------------------------------------------------------------

NO_LOCKS = {
    "no fcntl": "import sys\nsys.modules['fcntl'] = None\n",
    "windows": "import sys\nsys.platform = 'win32'\n",
}
WITHOUT = pytest.mark.parametrize("system", NO_LOCKS.values(), ids=NO_LOCKS)


def python(code: str, *arguments: str, cwd: Path) -> Ended:
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=cwd, env=environment(), capture_output=True, timeout=TIMEOUT
    )
    return Ended(done.returncode, done.stdout.decode(), done.stderr.decode())


@WITHOUT
@pytest.mark.parametrize("arguments", [("run", "m.yaml"), ("plan", "m.yaml"), ("status", "l.jsonl"), ("--help",)])
def test_the_command_refuses_a_system_without_locks(system: str, arguments: tuple[str, ...], tmp_path: Path) -> None:
    ended = python(f"{system}from engine.cli import main\nmain()", *arguments, cwd=tmp_path)
    assert ended.code == 2
    assert "Windows" in ended.sentence()
    assert len(ended.err.splitlines()) == 1
    if arguments[0] == "run":
        assert (ended.summary["reason"], ended.summary["exit_code"]) == ("config", 2)
    else:
        assert ended.out == ""


@WITHOUT
@pytest.mark.parametrize("name", ["load_migration", "run_migration"])
def test_the_library_refuses_a_system_without_locks(system: str, name: str, tmp_path: Path) -> None:
    code = f"{system}try:\n    from engine import {name}\nexcept ImportError as error:\n    print(error)\n"
    ended = python(code, cwd=tmp_path)
    assert "Windows" in ended.out
    assert ended.err == ""


def test_the_refusal_is_one_of_ours() -> None:
    assert issubclass(Unsupported, EngineError)
    assert issubclass(Unsupported, ImportError)


# ---- files that somebody waits for -----------------------------------------------------------------------------------


def test_a_plan_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    (tmp_path / "m.yaml").write_text("name: m\nsource: {base_url: sandbox}\nselect: {names: [nothing-has-this-name]}\n")
    plan = tmp_path / "plan.json"
    plan.write_text("an older plan")
    os.link(plan, tmp_path / "kept")
    assert promptferry("plan", "m.yaml", "--out", "plan.json", cwd=tmp_path).code == 0
    assert plan.read_text() != "an older plan"
    assert (tmp_path / "kept").read_text() == "an older plan", "it was never written into"
    assert {path.name for path in tmp_path.iterdir()} >= {"plan.json", "kept", "m.yaml"}
    assert not list(tmp_path.glob(".promptferry-*"))


def test_a_plan_through_a_link_goes_where_the_link_leads(tmp_path: Path) -> None:
    (tmp_path / "m.yaml").write_text("name: m\nsource: {base_url: sandbox}\nselect: {names: [nothing-has-this-name]}\n")
    (tmp_path / "real").write_text("")
    (tmp_path / "link").symlink_to("real")
    assert promptferry("plan", "m.yaml", "--out", "link", cwd=tmp_path).code == 0
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text()


def test_only_one_module_speaks_to_the_disk_about_durability() -> None:
    """So that a system that does it otherwise is met in one place."""
    words = ("fsync(", "fdatasync", "flock(", "samestat", "import fcntl", ".rename(", "os.replace(", "os.O_")
    found = {
        (path.stem, word)
        for path in (ROOT / "engine").rglob("*.py")
        if path.name != "durable.py" and "sandbox" not in path.parts
        for word in words
        if word in path.read_text()
    }
    # /dev/null, files that are only read, one that is read without following a link, and which file a name stands for;
    # and the summary of a run that a signal ends before it may import anything.
    reads = {
        ("early", ".rename("),
        ("early", "os.O_"),
        ("common", "os.O_"),
        ("lines", "os.O_"),
        ("rewriting", "os.O_"),
        ("follow", "os.O_"),
    }
    assert found <= reads | {("follow", "samestat"), ("holder", "samestat")}
