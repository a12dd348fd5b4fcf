"""Workers on a real Ray cluster: one is killed, the holder of the limit is killed, the driver is interrupted."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from engine.ledger.file import read_ledger
from tests.real.ray_site import KEY, POLL_S, Site, descendants, site
from tests.real.servers import START_S

PROMPTS: Final = 240
RATE: Final = 60
"""Requests a second: time enough for accidents."""
WORDS: Final = b"never guess what a page does not say"
"""Of every template."""


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with site(tmp_path_factory.mktemp("ray"), prompts=PROMPTS, rate=RATE, nodes=1, cpus=3) as found:
        yield found


def ended(run: subprocess.Popen[str]) -> tuple[int, dict[str, Any]]:
    out, _ = run.communicate(timeout=START_S)
    (line,) = out.splitlines()
    summary: dict[str, Any] = json.loads(line)
    assert summary["exit_code"] == run.returncode
    return run.returncode, summary


def test_nothing_is_doubled_or_lost_when_a_worker_and_the_gate_are_killed(one: Site) -> None:
    one.write(rate=RATE)
    run = one.start(workers=2)
    one.wait_for(PROMPTS // 4, run)
    one.kill("worker", run)
    one.wait_for(PROMPTS // 2, run)
    one.kill("gate", run)
    code, summary = ended(run)
    assert code == 0, summary["message"]
    assert '"worker.lost"' in one.errors.read_text()
    assert summary["counts"]["created"] == PROMPTS
    truth = one.truth
    assert (truth["doubled"], truth["lost"], truth["created"]) == (0, 0, PROMPTS)
    assert len(read_ledger(one.ledger).state.targets) == PROMPTS
    logs = b"".join(path.read_bytes() for path in one.logs.rglob("*") if path.is_file())
    assert logs
    assert KEY.encode() not in logs
    assert WORDS not in logs
    code, summary = ended(one.start("--executor", "local"))
    assert (code, summary["counts"]["unchanged"]) == (0, PROMPTS)


def test_where_nobody_answers_it_is_later_at_once(one: Site) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    one.write(rate=RATE)
    code, summary = ended(one.start("--executor", "ray", "--ray-address", address))
    assert (code, summary["reason"]) == (75, "registry_down")
    assert f"no Ray cluster can be joined at {address}" in summary["message"]


def test_ctrl_c_ends_a_private_cluster_and_one_process_goes_on(one: Site) -> None:
    one.write(rate=RATE)
    one.ledger.unlink(missing_ok=True)
    one.forget()
    run = one.start("--executor", "ray", "--workers", "2")
    one.wait_for(PROMPTS // 4, run)
    assert run.poll() is None, one.errors.read_text()
    others = list(descendants(run.pid))
    os.killpg(run.pid, signal.SIGINT)  # as a terminal does it: to all that it has started
    code, summary = ended(run)
    assert (code, summary["reason"]) == (75, "interrupted")
    assert PROMPTS // 4 <= summary["counts"]["created"] < PROMPTS
    until = time.monotonic() + START_S
    while (left := [pid for pid in others if _runs(pid)]) and time.monotonic() < until:
        time.sleep(POLL_S)
    assert not left
    code, summary = ended(one.start("--executor", "local"))
    assert code == 0, summary["message"]
    truth = one.truth
    assert (truth["doubled"], truth["lost"], truth["created"]) == (0, 0, PROMPTS)


def _runs(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    try:
        return stat.read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
