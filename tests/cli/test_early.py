"""Signals while a command starts: none is lost, and none costs more than what had not begun."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import orjson
import pytest

from engine.cli import early
from engine.cli.fleet import no_fleet
from engine.cli.run import Told, nothing_done
from engine.ledger.file import read_ledger
from engine.migrate.interrupt import SIGNALS
from engine.sandbox import SandboxOptions
from tests.e2e import COMMAND, TIMEOUT, Ended, Served, served, write_migration
from tests.forks import ROOT, environment

PROMPTS = 12
SCRIPT = (str(Path(sys.executable).with_name("promptferry")),)
STATUS = Path("/proc/self/status")


@pytest.fixture(scope="module")
def registry() -> Iterator[Served]:
    with served(SandboxOptions(prompts=PROMPTS)) as found:
        yield found


def begin(command: Sequence[str], *arguments: str, cwd: Path, **env: str) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    surroundings = environment(**env)
    surroundings.pop("COVERAGE_PROCESS_CONFIG", None)  # it would look after SIGTERM before the command does
    return subprocess.Popen(
        [*command, *arguments], cwd=cwd, env=surroundings, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, text=True
    )


def looks_after_signals(process: subprocess.Popen[str]) -> bool:
    """Whether the process has a handler for SIGTERM, which Python itself never has."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    caught = next(line for line in status.splitlines() if line.startswith("SigCgt"))
    return bool(int(caught.split()[1], 16) & 1 << (signal.SIGTERM - 1))


def ended(process: subprocess.Popen[str]) -> Ended:
    out, err = process.communicate(timeout=TIMEOUT)
    return Ended(process.returncode, out, err)


@pytest.mark.skipif(not STATUS.exists(), reason="needs /proc to see when the command has begun")
@pytest.mark.parametrize("moment", range(20))
def test_a_signal_at_any_moment_of_the_first_second(moment: int, tmp_path: Path, registry: Served) -> None:
    path = write_migration(tmp_path, registry.base_url, name=f"m{moment}")
    command, number = (COMMAND, SCRIPT)[moment % 2], SIGNALS[moment // 2 % 2]
    left = tmp_path / "summary.json"
    left.write_text('{"exit_code": 0, "next": "what the run of last night left, which is not what this one leaves"}')
    flags = ("--rate", "4", *(("--summary", str(left)), (f"--summary={left}",))[moment % 2])
    seconds = random.Random(moment).random()
    with begin(command, "run", str(path), *flags, cwd=tmp_path, KEY=registry.api_key) as process:
        while not looks_after_signals(process):
            assert process.poll() is None
        with suppress(subprocess.TimeoutExpired):
            process.wait(seconds if moment else 0)
        process.send_signal(number)
        found = ended(process)
    assert (found.code, found.summary["reason"]) == (75, "interrupted"), found.err
    assert json.loads(left.read_text()) == found.summary
    assert "Traceback" not in found.err
    assert "Exception ignored" not in found.err


@pytest.mark.skipif(not STATUS.exists(), reason="needs /proc to see when the command has begun")
@pytest.mark.parametrize("moment", range(4))
def test_a_signal_while_a_fleet_begins(moment: int, tmp_path: Path, registry: Served) -> None:
    source = {"base_url": registry.base_url, "api_key": "${KEY}"}
    path = tmp_path / "fleet.yaml"
    path.write_text(json.dumps({"name": f"f{moment}", "defaults": {"source": source}, "migrations": [{"name": "m"}]}))
    seconds = random.Random(moment).random()
    with begin(COMMAND, "fleet", "run", str(path), "--rate", "1", cwd=tmp_path, KEY=registry.api_key) as process:
        while not looks_after_signals(process):
            assert process.poll() is None
        with suppress(subprocess.TimeoutExpired):
            process.wait(seconds if moment else 0)
        process.send_signal(SIGNALS[moment % 2])
        out, err = process.communicate(timeout=TIMEOUT)
    told = json.loads(out)
    assert (process.returncode, told["exit_code"], told["reason"]) == (75, 75, "interrupted"), err
    assert "Traceback" not in err
    assert "Exception ignored" not in err


@pytest.mark.parametrize("closed", ["<&-", "<&- >&- 2>&-"])
def test_streams_that_are_closed(closed: str, tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "hello.md").write_text("---\nname: hello\nmodel: old\n---\nHello\n")
    ends = {end: {"kind": "files", "path": end} for end in ("source", "target")}
    (tmp_path / "m.yaml").write_text(json.dumps({"name": "m", **ends, "ledger": "m.jsonl"}))
    shell = ["sh", "-c", f'exec "$@" {closed}', "sh", *COMMAND]
    with begin(shell, "run", "m.yaml", "--summary", "summary.json", cwd=tmp_path, LANG="C", HOME="") as process:
        found = ended(process)
    assert (found.code, found.err.count("Traceback")) == (0, 0), found.err
    assert json.loads((tmp_path / "summary.json").read_text())["counts"]["created"] == 1
    assert read_ledger(tmp_path / "m.jsonl").verdict.kind == "whole"
    assert b"schema" not in (tmp_path / "m.jsonl").read_bytes()  # its descriptor is no stream's


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("arguments", [("plan", "pipe"), ("check", "pipe"), ("status", "pipe"), ("verify", "pipe")])
def test_commands_that_have_no_summary(arguments: tuple[str, str], number: signal.Signals, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    with begin(COMMAND, arguments[0], "pipe.yaml", cwd=tmp_path) as process:
        with (tmp_path / "pipe.yaml").open("w"):  # closed at once: a signal just before a read that blocks waits for it
            process.send_signal(number)
        found = ended(process)
    assert (found.code, found.out, found.err) == (75, "", "interrupted\n")


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_while_a_plan_waits_for_an_answer(number: signal.Signals, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as registry:
        path = write_migration(tmp_path, f"http://127.0.0.1:{registry.getsockname()[1]}/v1")
        with begin(COMMAND, "plan", str(path), cwd=tmp_path, KEY="key-for-tests") as process:
            connection, _ = registry.accept()
            with connection:
                assert connection.recv(1), "it has been asked"
                process.send_signal(number)
                found = ended(process)
    assert found.code == 75
    assert number.name in found.sentence()


@pytest.mark.parametrize(
    ("command", "told"),
    [(["run", "m.yaml"], nothing_done), (["fleet", "run", "f.yaml"], no_fleet)],
    ids=["run", "fleet run"],
)
def test_the_summary_that_is_written_without_any_import_is_the_one_that_a_run_tells(
    command: list[str], told: Callable[..., Told], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["promptferry", *command])
    early.tell_nothing_done(early.EXIT_INTERRUPTED, "interrupted", "interrupted", early.AGAIN)
    out = capfd.readouterr().out
    assert out.encode() == orjson.dumps(told("interrupted", "interrupted", 75).to_json()) + b"\n"


@pytest.mark.parametrize("flags", [["--no-such-flag"], ["--rate", "fast"]])
def test_a_fleet_s_run_that_is_refused_has_a_summary(flags: list[str], tmp_path: Path) -> None:
    with begin(COMMAND, "fleet", "run", "fleet.yaml", *flags, cwd=tmp_path) as process:
        found = ended(process)
    told = json.loads(found.out)
    assert (found.code, told["exit_code"], told["reason"], told["migrations"]) == (2, 2, "config", [])


def test_nothing_heavy_is_imported_before_signals_are_looked_after(tmp_path: Path) -> None:
    """What Python has not loaded by itself takes time, in which a signal is answered by Python and not by us."""
    code = "import sys, signal; before = {*sys.modules}; import engine.cli; print(*{*sys.modules} - before)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment(), capture_output=True, text=True, check=True
    )
    assert {*done.stdout.split()} <= {"engine", "engine.cli", "engine.cli.early", "__future__"}
