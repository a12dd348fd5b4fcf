"""`mlflow server` and `phoenix serve` as processes, each on a free port and a sqlite database of its own.

Sources: `contracts/mlflow.md` and `contracts/phoenix.md`. A server leads a session of its own, so that what it forks
ends with it; only what was started here is ever signalled.
"""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.error import URLError
from urllib.request import ProxyHandler, build_opener

ROOT: Final = Path(__file__).resolve().parents[2]
HOST: Final = "127.0.0.1"
START_S: Final = 300
"""A start reads a thousand modules and makes the tables: 10 s on an idle machine, more than a minute on a busy one."""
STOP_S: Final = 30
POLL_S: Final = 0.05
LOG_TAIL: Final = 4_000
OURS_ALONE: Final = ("MLFLOW_", "PHOENIX_", "PYTHON", "COV_", "COVERAGE_")
"""Beginnings of variables of the person who runs the tests, which would change what a server or a client does."""

Place = tuple[Path, int, int]
"""The folder of a server, its port, and one more for protocols that we do not speak."""


class NotReady(Exception):
    """A server that does not come up; the message holds the end of its log."""


@dataclass(frozen=True, slots=True)
class Registry:
    """How a registry is started. `tables` hold its prompts, children first."""

    name: str
    ready: str
    """The path that answers 200 when it is up."""
    database: str
    tables: tuple[str, ...]
    command: Callable[[Place], Sequence[str | Path]]
    variables: Callable[[Place], Mapping[str, str]]


def environment_of(name: str) -> Path:
    """The folder of programs that `make servers` made. NotReady: it did not."""
    folder = ROOT / f".venv-{name}"
    if not (folder / "ready").exists():
        raise NotReady(f"{folder.name} is not made: run `make servers`")
    return folder / "bin"


def surroundings(**more: str) -> dict[str, str]:
    """Environment of a child: no proxy, and nothing of the user's that a server or a client reads."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(OURS_ALONE) and not name.lower().endswith("_proxy")
    }
    return kept | more


def _mlflow(place: Place) -> Sequence[str | Path]:
    folder, port, _ = place
    address = ("--host", HOST, "--port", str(port), "--workers", "1")
    stores = ("--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--artifacts-destination", folder / "artifacts")
    return (environment_of("mlflow") / "mlflow", "server", *address, *stores)


def _phoenix_variables(place: Place) -> Mapping[str, str]:
    folder, port, grpc = place
    return {
        "PHOENIX_WORKING_DIR": str(folder),
        "PHOENIX_HOST": HOST,
        "PHOENIX_PORT": str(port),
        "PHOENIX_GRPC_PORT": str(grpc),
        "PHOENIX_TELEMETRY_ENABLED": "false",
    }


MLFLOW: Final = Registry(
    name="mlflow",
    ready="/health",
    database="mlflow.db",
    tables=(
        "registered_model_aliases",
        "model_version_tags",
        "model_versions",
        "registered_model_tags",
        "registered_models",
    ),
    command=_mlflow,
    # without the first one it forks eight consumers of a job queue
    variables=lambda _place: {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"},
)
PHOENIX: Final = Registry(
    name="phoenix",
    ready="/healthz",
    database="phoenix.db",
    tables=("prompt_version_tags", "prompt_versions", "prompts"),
    command=lambda _place: (environment_of("phoenix") / "phoenix", "serve"),
    variables=_phoenix_variables,
)


def free_ports() -> tuple[int, int]:
    """Two that nobody listens at now."""
    with closing(socket.create_server((HOST, 0))) as one, closing(socket.create_server((HOST, 0))) as other:
        return one.getsockname()[1], other.getsockname()[1]


@dataclass(slots=True)
class Server:
    """One server; its address and its database stay when it is started again."""

    registry: Registry
    folder: Path
    patience_s: float = START_S
    _ports: tuple[int, int] = field(default_factory=free_ports)
    _process: subprocess.Popen[bytes] | None = None

    @property
    def base_url(self) -> str:
        return f"http://{HOST}:{self._ports[0]}"

    @property
    def database(self) -> Path:
        return self.folder / self.registry.database

    @property
    def log(self) -> Path:
        """What it writes, over all its starts."""
        return self.folder / "server.log"

    @property
    def pid(self) -> int:
        """Of the process that leads its session and its group."""
        assert self._process is not None, "it was not started"
        return self._process.pid

    def start(self) -> None:
        """Up and answering when this returns, on the database that it had. NotReady: it ended, or took too long."""
        place = (self.folder, *self._ports)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.registry.command(place),
                cwd=self.folder,
                env=surroundings(**self.registry.variables(place)),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._wait_until_it_answers()

    def stop(self) -> None:
        """Asked to end; killed when it does not. Everything of it is gone when this returns."""
        if self._process is None:
            return
        self._signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_S)
        self.kill()  # in any case: it ends what the leader left behind

    def kill(self) -> None:
        """`kill -9` of the whole group; nothing of it runs when this returns."""
        assert self._process is not None, "it was not started"
        self._signal(signal.SIGKILL)
        self._process.wait()
        while _listens(self._ports[0]):  # children are not ours to wait for
            time.sleep(POLL_S)

    def empty(self) -> None:
        """As a new database, but for the seconds that one takes: no prompts, and numbers start again at 1."""
        with closing(sqlite3.connect(self.database, timeout=STOP_S)) as database, database:
            for table in self.registry.tables:
                database.execute(f"DELETE FROM {table}")
            if database.execute("SELECT 1 FROM sqlite_master WHERE name = 'sqlite_sequence'").fetchone():
                marks = ", ".join("?" * len(self.registry.tables))
                database.execute(f"DELETE FROM sqlite_sequence WHERE name IN ({marks})", self.registry.tables)

    def rows(self, query: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """What its own database says, without asking it."""
        with closing(sqlite3.connect(f"file:{self.database}?mode=ro", uri=True, timeout=STOP_S)) as database:
            return database.execute(query, parameters).fetchall()

    def _signal(self, number: int) -> None:
        with suppress(ProcessLookupError):  # nothing of the group is left
            os.killpg(self.pid, number)

    def _wait_until_it_answers(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + self.patience_s
        while not _is_up(self.base_url + self.registry.ready):
            if (code := self._process.poll()) is not None:
                self.kill()
                raise NotReady(f"{self.registry.name} ended with {code} before it answered:\n{self._end_of_log()}")
            if time.monotonic() > deadline:
                self.kill()
                raise NotReady(f"{self.registry.name} was not up after {self.patience_s} s:\n{self._end_of_log()}")
            time.sleep(POLL_S)

    def _end_of_log(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")[-LOG_TAIL:]


@contextmanager
def running(registry: Registry, folder: Path) -> Iterator[Server]:
    """A server of its own, for as long as the block."""
    server = Server(registry, folder)
    try:
        server.start()
        yield server
    finally:
        server.stop()


def _listens(port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex((HOST, port)) == 0


def _is_up(url: str) -> bool:
    try:
        with build_opener(ProxyHandler({})).open(url, timeout=STOP_S) as answer:
            return bool(answer.status == 200)
    except (URLError, ConnectionError, TimeoutError):
        return False
