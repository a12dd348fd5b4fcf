"""The command in processes forked from one that has everything imported: most of a short run would be its imports.

How the command starts, and what it does before it is imported, is asked of real processes: tests/cli/test_early.py,
test_terminal.py, test_layers.py.
"""

from __future__ import annotations

import atexit
import json
import os
import queue
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

ROOT: Final = Path(__file__).resolve().parent.parent
SERVER: Final = (sys.executable, str(Path(__file__).with_name("forkserver.py")))
PATIENCE_S: Final = 60
"""A command that has not ended by then hangs."""


def environment(**changes: str) -> dict[str, str]:
    """That of a child: the checkout is importable, nothing of the user's own Promptferry or proxy is set."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PROMPTFERRY_")}
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "ALL_PROXY", "all_proxy", "NO_COLOR"):
        kept.pop(name, None)
    return kept | {"PYTHONPATH": str(ROOT), **changes}


class _Server:
    """A process that forks one command at a time and says what becomes of it."""

    def __init__(self, covered: bool) -> None:
        surroundings = environment()
        if not covered:
            surroundings.pop("COVERAGE_PROCESS_CONFIG", None)
        self._socket, theirs = socket.socketpair()
        with theirs:
            number = theirs.fileno()
            # What is a file at first would be taken for one after the fork: all three are pipes.
            self._process = subprocess.Popen(
                [*SERVER, str(number)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=surroundings,
                pass_fds=[number],
            )
        self._unread = b""
        atexit.register(self._end)

    def order(self, order: Mapping[str, Any], fds: Sequence[int]) -> None:
        data = json.dumps(order).encode() + b"\n"
        sent = socket.send_fds(self._socket, [data], fds)
        self._socket.sendall(data[sent:])

    def news(self, patience_s: float) -> dict[str, int] | None:
        """Its next line, None when there is none so soon."""
        while b"\n" not in self._unread:
            if not select.select([self._socket], [], [], patience_s)[0]:
                return None
            piece = self._socket.recv(4096)
            assert piece, self._process.communicate()[0].decode()
            self._unread += piece
        line, _, self._unread = self._unread.partition(b"\n")
        found: dict[str, int] = json.loads(line)
        return found

    def _end(self) -> None:
        self._socket.close()
        self._process.communicate()


_FREE: Final[Mapping[bool, queue.SimpleQueue[_Server]]] = {True: queue.SimpleQueue(), False: queue.SimpleQueue()}
"""Servers that run no command: those whose commands write down what they cover, and those whose commands do not."""


class Forked:
    """The command while it runs; to be used as a block, dead at its end.

    `out`, `err`: descriptors it writes to, which stay the caller's. `plan`: faults inside its own process, see
    tests/chaos/harness.py. `file_limit`: bytes beyond which no file may grow. A command under either, or one that is
    not `covered`, writes no coverage down.
    """

    def __init__(
        self,
        arguments: Sequence[str | Path],
        *,
        cwd: Path,
        env: Mapping[str, str],
        out: int,
        err: int,
        plan: Mapping[str, Any] | None = None,
        file_limit: int | None = None,
        covered: bool = True,
    ) -> None:
        self.returncode: int | None = None
        """Negative: the signal that ended it. None: it was not yet seen to end."""
        self.peak_kib = 0
        """The most memory that it held, once it has ended."""
        self._stopped = False
        self._hearing = threading.Lock()
        self._free = _FREE[covered and plan is None and file_limit is None]
        try:
            self._server = self._free.get_nowait()
        except queue.Empty:
            self._server = _Server(self._free is _FREE[True])
        order = {
            "arguments": [str(one) for one in arguments],
            "cwd": str(cwd),
            "env": environment(**env),
            "plan": plan,
            "file_limit": file_limit,
        }
        stdin = os.open(os.devnull, os.O_RDONLY)
        try:
            self._server.order(order, (stdin, out, err))
        finally:
            os.close(stdin)
        self.pid = self._first_news()["pid"]

    def poll(self) -> int | None:
        """Its exit code, when it has ended."""
        self._hear(0)
        return self.returncode

    def wait(self, patience_s: float = PATIENCE_S) -> int:
        """Its exit code, when it ends by itself. TimeoutExpired: it hangs."""
        deadline = time.monotonic() + patience_s
        while self.returncode is None:
            self._hear(0.05)
            if self.returncode is None and time.monotonic() > deadline:
                raise subprocess.TimeoutExpired("promptferry", patience_s)
        return self.returncode

    def send_signal(self, number: int) -> None:
        """To the process, if it still runs."""
        if self.returncode is None:
            with suppress(ProcessLookupError):  # it has ended, and nobody has heard of it yet
                os.kill(self.pid, number)

    def terminate(self) -> None:
        """SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Dead when this returns."""
        self.send_signal(signal.SIGKILL)
        self.wait()

    def stand_still(self) -> bool:
        """Stopped, in all its threads, when this returns; False: it had ended. SIGCONT lets it go on."""
        self._stopped = False
        self.send_signal(signal.SIGSTOP)
        while self.returncode is None and not self._stopped:
            self._hear(0.05)
        return self.returncode is None

    def _first_news(self) -> dict[str, int]:
        if (news := self._server.news(PATIENCE_S)) is None:
            raise subprocess.TimeoutExpired("promptferry", PATIENCE_S)
        return news

    def _hear(self, patience_s: float) -> None:
        """Takes one line of news; several threads may wait for the same command."""
        with self._hearing:
            if self.returncode is not None or (news := self._server.news(patience_s)) is None:
                return
            self._stopped = "stopped" in news
            if not self._stopped:
                self.returncode, self.peak_kib = news["code"], news["peak_kib"]
                self._free.put(self._server)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
