"""The command in processes forked from one that has everything imported: most of a short run would be its imports."""

from __future__ import annotations

import atexit
import json
import os
import queue
import select
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from tests.e2e import Ended, environment

PATIENCE_S: Final = 50
"""A run that has not ended by then hangs."""
HARNESS: Final = (sys.executable, str(Path(__file__).with_name("harness.py")))


class _Forks:
    """A process that forks one command at a time and says what becomes of it."""

    def __init__(self) -> None:
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(
            HARNESS, stdin=pipe, stdout=pipe, stderr=subprocess.STDOUT, env=environment(), bufsize=0
        )
        atexit.register(self._process.communicate)  # it ends with its stdin

    def order(self, order: Mapping[str, Any]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order).encode() + b"\n")

    def news(self, patience: float) -> dict[str, int] | None:
        """Its next line, None when there is none so soon."""
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], patience)[0]:
            return None
        found: dict[str, int] = json.loads(self._process.stdout.readline())
        return found


_FREE: Final[queue.SimpleQueue[_Forks]] = queue.SimpleQueue()


def _free() -> _Forks:
    try:
        return _FREE.get_nowait()
    except queue.Empty:
        return _Forks()


class Running:
    """The command while it runs; to be used as a block, dead at its end. What it says goes to files in the folder."""

    def __init__(
        self,
        arguments: Sequence[str],
        *,
        folder: Path,
        number: int,
        key: str,
        plan: Mapping[str, Any] | None = None,
        file_limit: int | None = None,
    ) -> None:
        self.code: int | None = None
        """Negative: the signal that ended it. None: it runs."""
        self.peak_kib = 0
        """The most memory that it held, once it has ended."""
        self._out, self._err = (folder / f"run-{number}.{end}" for end in ("out", "err"))
        self._forks = _free()
        self._forks.order(
            {
                "arguments": arguments,
                "folder": str(folder),
                "out": str(self._out),
                "err": str(self._err),
                "env": {"KEY": key},
                "plan": plan or {},
                "file_limit": file_limit,
            }
        )
        self.pid = self._news()["pid"]

    def poll(self) -> int | None:
        """Its exit code, when it has ended."""
        if self.code is None and (news := self._forks.news(0)):
            self._ended(news)
        return self.code

    def wait(self) -> int:
        """Its exit code, when it ends by itself. TimeoutExpired: it hangs."""
        if self.code is None:
            self._ended(self._news())
        assert self.code is not None
        return self.code

    def end(self) -> Ended:
        """Waits until it ends by itself, and gives what it wrote. TimeoutExpired: it hangs."""
        return Ended(self.wait(), self._out.read_text(), self._err.read_text())

    def send_signal(self, number: int) -> None:
        """To the process, if it still runs."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Dead when this returns."""
        self.send_signal(signal.SIGKILL)
        self.wait()

    def stand_still(self) -> bool:
        """Stopped, in all its threads, when this returns; False: it had ended. SIGCONT lets it go on."""
        self.send_signal(signal.SIGSTOP)
        if self.code is None and "stopped" not in (news := self._news()):
            self._ended(news)
        return self.code is None

    def _news(self) -> dict[str, int]:
        if (news := self._forks.news(PATIENCE_S)) is None:
            raise subprocess.TimeoutExpired("promptferry", PATIENCE_S)
        return news

    def _ended(self, news: Mapping[str, int]) -> None:
        self.code, self.peak_kib = news["code"], news["peak_kib"]
        _FREE.put(self._forks)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
