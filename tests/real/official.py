"""The official clients, each in a process of its own under the environment that has it: ours stays light."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.real.servers import environment_of, surroundings

SCRIPTS: Final = Path(__file__).with_name("clients")


class ClientError(Exception):
    """What the client raised: the name of its class and its message."""


@dataclass(frozen=True, slots=True)
class Official:
    """Calls one function of `clients/with_NAME.py` at a time; importing the client, which takes seconds, happens once.

    `url`: of the registry, or of a proxy in front of it.
    """

    url: str
    _process: subprocess.Popen[str]

    def at(self, url: str) -> Official:
        """The same client, speaking to another address."""
        return Official(url, self._process)

    def __call__(self, do: str, **arguments: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        order = {"url": self.url, "do": do, "arguments": arguments}
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline() or '{"error": "the client has ended: see its log"}')
        if "error" in answer:
            raise ClientError(answer["error"])
        return answer["result"]


@contextmanager
def official(name: str, url: str, folder: Path) -> Iterator[Official]:
    """The client `name` for as long as the block; what it says besides goes to a file in `folder`."""
    command = (environment_of(name) / "python", SCRIPTS / f"with_{name}.py")
    quiet = surroundings(MLFLOW_DISABLE_TELEMETRY="true", PYTHONUNBUFFERED="1")
    with (folder / f"client-{name}.log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=folder, env=quiet, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
        )
    with process:  # it ends with its stdin
        yield Official(url, process)
