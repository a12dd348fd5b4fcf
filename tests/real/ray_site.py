"""What a run on Ray needs: a registry with a limit, a cluster of several nodes, the command, and who to kill."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.request import ProxyHandler, build_opener

from tests.forks import ROOT, environment
from tests.real.servers import START_S, NotReady, environment_of

KEY_NAME: Final = "REGISTRY_KEY_OF_A_TEST"
KEY: Final = "key-of-a-test-0123456789abcdef"
POLL_S: Final = 0.05

MIGRATION: Final = """\
name: spread
source:
  kind: portkey
  base_url: {url}
  api_key: ${{{key}}}
rewrite: {{name: "{{name}}-replica"}}
limits: {{rate: {rate}, concurrency: {concurrency}, timeout: 5, settle: 10}}
"""


@contextmanager
def _process(*command: str | Path, **more: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A process, and the first line that it prints; it ends with its stdin, or is ended."""
    surroundings = environment(RAY_USAGE_STATS_ENABLED="0", **more)
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen([str(word) for word in command], cwd=ROOT, env=surroundings, text=True, **pipes) as process:
        assert process.stdout is not None
        try:
            yield process, process.stdout.readline()
        finally:
            assert process.stdin is not None
            process.stdin.close()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.terminate()


@dataclass(frozen=True, slots=True)
class Site:
    """`pid`: of the process that started the nodes; `nodes`: those of nodes with workers."""

    url: str
    address: str
    pid: int
    nodes: Sequence[int]
    logs: Path
    """Of Ray."""
    folder: Path

    @property
    def truth(self) -> dict[str, Any]:
        """What the registry has seen."""
        with build_opener(ProxyHandler({})).open(f"{self.url}/truth") as answer:
            found: dict[str, Any] = json.load(answer)
        return found

    def forget(self) -> None:
        """The registry is as it was at first."""
        with build_opener(ProxyHandler({})).open(f"{self.url}/forget"):
            pass

    @property
    def ledger(self) -> Path:
        return self.folder / "ledgers" / "spread.jsonl"

    def write(self, *, rate: float | None, concurrency: int = 64) -> None:
        """The migration file."""
        text = MIGRATION.format(
            url=self.url, key=KEY_NAME, rate="null" if rate is None else rate, concurrency=concurrency
        )
        (self.folder / "spread.yaml").write_text(text)

    def start(self, *arguments: str, workers: int = 4) -> subprocess.Popen[str]:
        """The command, on the cluster unless something else is said. It leads a process group, as in a terminal."""
        own = arguments or ("--executor", "ray", "--ray-address", self.address, "--workers", str(workers))
        command = [str(environment_of("ray") / "promptferry"), "run", "spread.yaml", *own, "--no-progress"]
        command += ["--log-level", "warning"]
        surroundings = environment(RAY_USAGE_STATS_ENABLED="0", **{KEY_NAME: KEY})
        more: dict[str, Any] = {"stdout": subprocess.PIPE, "start_new_session": True, "text": True}
        with self.errors.open("w") as errors:  # a pipe that nobody reads would hold it
            return subprocess.Popen(command, cwd=self.folder, env=surroundings, stderr=errors, **more)

    @property
    def errors(self) -> Path:
        """The stderr of the newest run."""
        return self.folder / "stderr.txt"

    def created(self) -> int:
        """Lines of the ledger that say so."""
        return self.ledger.read_bytes().count(b'"kind":"created"') if self.ledger.exists() else 0

    def wait_for(self, many: int, run: subprocess.Popen[str]) -> None:
        """Until so many were created."""
        until = time.monotonic() + START_S
        while self.created() < many and run.poll() is None and time.monotonic() < until:
            time.sleep(POLL_S)

    def actors(self, name: str) -> list[int]:
        """Processes of this cluster that hold such an actor."""
        return [pid for pid in descendants(self.pid) if _title(pid).startswith(f"ray::{name}")]

    def kill(self, what: str, run: subprocess.Popen[str]) -> None:
        """`kill -9`: worker | gate | node | driver."""
        busy = {*self.actors("WorkerActor")}
        node = next((one for one in reversed(self.nodes) if busy.intersection(descendants(one))), self.nodes[-1])
        pids = {
            "worker": self.actors("WorkerActor")[:1],
            "gate": self.actors("GateActor")[:1],
            "node": [node, *descendants(node)],
            "driver": [run.pid],
        }
        for pid in pids[what]:
            os.kill(pid, signal.SIGKILL)


def descendants(pid: int) -> Iterator[int]:
    """Of a process, from Linux's own table."""
    children: dict[int, list[int]] = {}
    for one in Path("/proc").iterdir():
        if one.name.isdigit() and (parent := _parent(one)) is not None:
            children.setdefault(parent, []).append(int(one.name))
    left = [pid]
    while left:
        found = children.get(left.pop(), [])
        yield from found
        left += found


def _parent(one: Path) -> int | None:
    try:
        return int((one / "stat").read_text().rpartition(")")[2].split()[1])
    except OSError:  # it has ended meanwhile
        return None


def _title(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return ""


@contextmanager
def site(folder: Path, *, prompts: int, rate: float, nodes: int = 2, cpus: int = 2) -> Iterator[Site]:
    """A registry of so many prompts that takes `rate` requests a second, 0: as many as it can; and a cluster."""
    python = environment_of("ray") / "python"
    registry = _process(sys.executable, "-m", "tests.benchmarks.limited", str(prompts), str(rate))
    cluster = _process(python, "-m", "tests.real.ray_nodes", str(nodes), str(cpus), **{KEY_NAME: KEY})
    with registry as (_, url), cluster as (process, line):
        if not line:
            raise NotReady("Ray's nodes did not come up: a busy machine?")
        told = json.loads(line)
        yield Site(url.strip(), told["address"], process.pid, told["nodes"], Path(told["logs"]), folder)
