"""The command as a process: helpers of the tests that look at it from outside."""

from __future__ import annotations

import asyncio
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from engine.ledger.report import OUTCOMES
from engine.sandbox import Sandbox, SandboxOptions, serve
from tests.forks import PATIENCE_S, Forked

COMMAND: Final = (sys.executable, "-m", "engine")
TIMEOUT: Final = PATIENCE_S
MARK: Final = "promptferry"

T = TypeVar("T")


# ---- the command -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ended:
    """A command that has ended: its exit code and what it wrote."""

    code: int
    out: str
    err: str
    peak_kib: int = 0
    """The most memory it held; 0: nobody looked."""

    @property
    def summary(self) -> dict[str, Any]:
        """The summary: the last line of stdout, and the only one; its exit code is the process's, its books balance."""
        (line,) = self.out.splitlines()
        found: dict[str, Any] = json.loads(line)
        assert found["exit_code"] == self.code
        assert found["counts"]["selected"] == sum(found["counts"][name] for name in OUTCOMES)
        assert found["next"]
        return found

    @property
    def reason(self) -> str:
        """As the summary says it; empty when there is none."""
        return str(json.loads(self.out)["reason"]) if self.out else ""

    @property
    def json(self) -> Any:
        """What `--json` printed."""
        return json.loads(self.out)

    def sentence(self) -> str:
        """The one plain sentence among the log lines of stderr; there is no traceback."""
        assert "Traceback" not in self.err
        plain = [line for line in self.err.splitlines() if not line.startswith("{")]
        found = [line.removeprefix("error: ") for line in plain if line.startswith("error: ")]
        assert len(found) == 1, self.err
        return found[0]


def promptferry(
    *arguments: str | Path, cwd: Path, env: Mapping[str, str] | None = None, patience_s: float = TIMEOUT, **more: Any
) -> Ended:
    """Runs the command to its end, which takes so long at most. `more`: see Forked."""
    with started(*arguments, cwd=cwd, env=env, **more) as process:
        return process.end(patience_s)


class Started(Forked):
    """A command that runs. A thread hears its log: a pipe that nobody reads would hold it up."""

    def __init__(self, arguments: Sequence[str | Path], *, cwd: Path, env: Mapping[str, str], **more: Any) -> None:
        (out, to_out), (err, to_err) = os.pipe(), os.pipe()
        self.stdout = os.fdopen(out, "rb")
        self._told, self._log = b"", bytearray()
        self._hearer = threading.Thread(target=self._hear_log, args=(err,))
        self._hearer.start()
        try:
            super().__init__(arguments, cwd=cwd, env=env, out=to_out, err=to_err, **more)
        except BaseException:
            self.stdout.close()
            raise
        finally:
            os.close(to_out)
            os.close(to_err)

    def _hear_log(self, err: int) -> None:
        with os.fdopen(err, "rb", buffering=0) as log:
            while piece := log.read(1 << 16):
                self._log += piece

    def end(self, patience_s: float = TIMEOUT) -> Ended:
        """Waits until it ends by itself, and gives what it wrote; of stdout, what was not read yet."""
        self._listen(patience_s)
        return Ended(self.wait(), self._told.decode(), self.logged(), self.peak_kib)

    def _listen(self, patience_s: float) -> None:
        deadline = time.monotonic() + patience_s
        while not self.stdout.closed:
            if not select.select([self.stdout], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise subprocess.TimeoutExpired("promptferry", TIMEOUT)
            if not (piece := self.stdout.read1(1 << 16)):
                self.stdout.close()
            self._told += piece
        self._hearer.join(TIMEOUT)

    def logged(self) -> str:
        """What it has written to its log so far."""
        return bytes(self._log).decode()

    def first_line(self) -> str:
        """The first line of stdout."""
        return self.stdout.readline().decode()

    def release(self) -> Ended:
        """Kills it when it still runs, closes its files, and gives what it wrote."""
        self.kill()
        return self.end()


@contextmanager
def started(*arguments: str | Path, cwd: Path, env: Mapping[str, str] | None = None, **more: Any) -> Iterator[Started]:
    """The command while it runs; killed when the block ends and it still runs."""
    process = Started(arguments, cwd=cwd, env=env or {}, **more)
    try:
        yield process
    finally:
        process.release()


# ---- a registry ------------------------------------------------------------------------------------------------------


class Served:
    """A sandbox on a thread and loop of its own, so that it answers while a test waits for a process."""

    def __init__(self, sandbox: Sandbox, loop: asyncio.AbstractEventLoop) -> None:
        self._sandbox = sandbox
        self._loop = loop
        self.base_url = sandbox.base_url
        self.api_key = sandbox.api_key

    def ask(self, question: Callable[[Sandbox], T]) -> T:
        """The answer of the sandbox, on its own thread."""

        async def answer() -> T:
            return question(self._sandbox)

        return asyncio.run_coroutine_threadsafe(answer(), self._loop).result(TIMEOUT)

    def prompts(self, workspace: str = "main") -> list[dict[str, Any]]:
        """Every prompt there is, replicas too."""
        return self.ask(lambda sandbox: sandbox.prompts(workspace))

    def versions(self, prompt_id: str) -> list[dict[str, Any]]:
        """Every version of a prompt, oldest first."""
        return self.ask(lambda sandbox: sandbox.versions(prompt_id))

    def edit(self, prompt_id: str, *, publish: bool = True, **fields: Any) -> int:
        """The number of the new version that somebody makes of a prompt."""
        return self.ask(lambda sandbox: sandbox.add_version(prompt_id, publish=publish, **fields))

    def call(self, method: str, path: str, body: Mapping[str, Any] | None = None, *, key: str = "") -> Any:
        """A request by somebody else, with the key of the workspace, or of another one."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"x-portkey-api-key": key or self.api_key, "Content-Type": "application/json"}
        request = urllib.request.Request(self.base_url + path, data, headers, method=method)
        with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
            return json.loads(answer.read() or b"null")


@contextmanager
def served(options: SandboxOptions) -> Iterator[Served]:
    """A sandbox with quirks, in this process."""
    ready: Future[Served] = Future()
    done: list[asyncio.Event] = []

    async def main() -> None:
        try:
            async with serve(options) as sandbox:
                done.append(asyncio.Event())
                ready.set_result(Served(sandbox, asyncio.get_running_loop()))
                await done[0].wait()
        except OSError as error:
            ready.set_exception(error)

    thread = threading.Thread(target=asyncio.run, args=(main(),))
    thread.start()
    found = ready.result(TIMEOUT)
    try:
        yield found
    finally:
        found._loop.call_soon_threadsafe(done[0].set)
        thread.join(TIMEOUT)


@dataclass(frozen=True)
class Separate:
    """A sandbox in a process of its own."""

    process: Started
    base_url: str
    api_key: str


@contextmanager
def separate(store: Path, *flags: str) -> Iterator[Separate]:
    """`promptferry sandbox --store`; ended when the block ends."""
    with started("sandbox", "--store", store, *flags, cwd=store.parent) as process:
        first = json.loads(process.first_line())
        yield Separate(process, first["portkey"], first["api_key"])
        process.terminate()
        process.wait(TIMEOUT)


def truth(store: Path) -> list[dict[str, Any]]:
    """Every prompt that is in a store, whoever serves it."""
    with served(SandboxOptions(store=store)) as sandbox:
        return sandbox.prompts()


def replicas(prompts: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """Mark key -> the prompts that carry it."""
    found: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for prompt in prompts:
        if mark := prompt["template_metadata"].get(MARK):
            found[mark["key"]].append(prompt)
    return found


@dataclass(frozen=True)
class Place:
    """A migration in a registry."""

    registry: Served
    path: Path

    @property
    def ledger(self) -> Path:
        """Of the migration."""
        return self.path.parent / "ledger.jsonl"

    @property
    def env(self) -> dict[str, str]:
        """The keys."""
        return {"KEY": self.registry.api_key}

    def ask(self, command: str, *flags: str | Path) -> Ended:
        """Runs the command on the migration."""
        return promptferry(command, self.path, *flags, cwd=self.path.parent, env=self.env)

    def run(self, *flags: str) -> Ended:
        """Runs the migration."""
        return self.ask("run", *flags)

    def kill(self, command: str, *flags: str, after: int) -> None:
        """Ends the command with kill -9 when it has written so many lines."""
        assert self.killed(command, *flags, after=after)

    def killed(self, command: str, *flags: str, after: int) -> bool:
        """The same; False: it had ended before."""
        before = self.ledger.read_bytes().count(b"\n") if self.ledger.exists() else 0
        with started(command, self.path, *flags, cwd=self.path.parent, env=self.env) as process:
            in_time = wait_for_lines(self.ledger, before + after, process)
            process.kill()
            return process.wait() == -signal.SIGKILL and in_time

    def originals(self) -> list[dict[str, Any]]:
        """Every prompt that is no replica, as it is published."""
        return [one for one in self.registry.prompts() if MARK not in one["template_metadata"]]

    def plain(self, count: int) -> list[dict[str, Any]]:
        """Originals that are a single text, which anybody may change without breaking it."""
        found = [one for one in self.originals() if not one["is_raw_template"] and one["string"][0] != "["]
        return found[:count]

    def replica_of(self, source_id: str) -> dict[str, Any]:
        """Its only replica, as the registry has it."""
        marks = [(one["template_metadata"].get(MARK, {}), one) for one in self.registry.prompts()]
        (found,) = (one for mark, one in marks if mark.get("source_id") == source_id)
        return found


# ---- files -----------------------------------------------------------------------------------------------------------


def write_migration(folder: Path, base_url: str, *, name: str = "e2e", **parts: Any) -> Path:
    """A migration file from that registry into the same workspace; its key comes from KEY."""
    value = {
        "name": name,
        "source": {"kind": "portkey", "base_url": base_url, "api_key": "${KEY}"},
        "limits": {"rate": 2000, "settle": "0.5s", "timeout": 5},
        "ledger": "ledger.jsonl",
        **parts,
    }
    path = folder / f"{name}.yaml"
    path.write_text(json.dumps(value))  # JSON is YAML
    return path


def lines(ledger: Path) -> list[dict[str, Any]]:
    """The lines of a ledger."""
    return [json.loads(line) for line in ledger.read_text().splitlines()]


def wait_for_lines(ledger: Path, count: int, process: Started) -> bool:
    """Until the ledger has so many lines; False when the process ended first."""
    while not ledger.exists() or ledger.read_bytes().count(b"\n") < count:
        if process.poll() is not None:
            return False
        time.sleep(0.002)
    return True
