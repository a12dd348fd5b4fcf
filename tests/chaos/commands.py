"""Runs of campaigns in processes that are forked, not started: twenty times quicker, and as many at once as wanted."""

from __future__ import annotations

import json
import queue
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from tests.chaos.campaign import RESUMES, Campaign
from tests.e2e import Ended, environment

JOBS: Final = 4
SERVER: Final = Path(__file__).with_name("forked.py")


@dataclass(frozen=True)
class Done:
    """A command that has ended."""

    code: int
    out: str
    err: str
    peak_kib: int
    """The most memory it held."""

    @property
    def reason(self) -> str:
        """As the summary says it; empty when there is none."""
        return str(json.loads(self.out)["reason"]) if self.out else ""


class Commands:
    """Runs `promptferry`, as many commands at once as there are `processes`; the others wait for one."""

    def __init__(self, processes: int = JOBS) -> None:
        self._count = processes

    def __enter__(self) -> Self:
        command, pipe = [sys.executable, str(SERVER)], subprocess.PIPE
        self._processes = [
            # stderr too: what is a file at first would be taken for one after the fork
            subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.STDOUT, env=environment())
            for _ in range(self._count)
        ]
        self._free: queue.SimpleQueue[subprocess.Popen[bytes]] = queue.SimpleQueue()
        for process in self._processes:
            self._free.put(process)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._processes:
            process.communicate()

    def run(self, one: Campaign, *flags: str, file_limit: int | None = None) -> Done:
        """One run of a campaign to its end, heard out. `file_limit`: no file may grow beyond so many bytes."""
        one.started += 1
        order = {
            "argv": ["run", str(one.path), *flags],
            "cwd": str(one.folder),
            "env": {"KEY": one.registry.api_key},
            "file_limit": file_limit,
        }
        process = self._free.get()
        try:
            done = _ask(process, order)
        finally:
            self._free.put(process)
        (one.folder / f"run-{one.started}.out").write_text(done.out)
        (one.folder / f"run-{one.started}.err").write_text(done.err)
        one.hear(Ended(done.code, done.out, done.err))
        return done

    def resume(self, one: Campaign) -> None:
        """The same command again, until there is nothing left to do; then the registry is judged."""
        codes: list[int] = []
        while len(codes) < RESUMES and 0 not in codes:
            codes.append(self.run(one).code)
        if 0 not in codes:
            one.complain(f"not done after {RESUMES} runs, exit codes {codes}", undetected=1)
        one.judge()


def _ask(process: subprocess.Popen[bytes], order: Mapping[str, Any]) -> Done:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps(order).encode() + b"\n")
    process.stdin.flush()
    return Done(**json.loads(process.stdout.readline()))
