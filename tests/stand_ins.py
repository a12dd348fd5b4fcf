"""A stand-in of every kind of registry, and a second one of each, as a migration file names them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.sandbox import LangfuseQuirks, Quirks, SandboxOptions
from tests import phoenix_server
from tests.e2e import Served, served
from tests.mlflow_server import served_mlflow
from tests.routes import Conductor, Langfuse, Phoenix, Portkey, environ

Part = Mapping[str, Any]


@dataclass
class StandIns:
    """Those that were asked for run until the block ends. `folder`: where files are."""

    registry: Served
    folder: Path
    stack: ExitStack
    urls: dict[tuple[str, bool], str] = field(default_factory=dict)

    @property
    def env(self) -> dict[str, str]:
        """The secrets that the parts name."""
        return environ(self.registry)

    def part(self, kind: str, *, copy: bool = False) -> Part:
        """An end of this kind in a migration file; `copy`: the other workspace, server, or folder."""
        workspace = "copy" if copy else "main"
        parts: Mapping[str, Callable[[], Part]] = {
            "portkey": lambda: Portkey(self.registry, workspace).part,
            "langfuse": lambda: Langfuse(self.registry, workspace).part,
            "conductor": lambda: Conductor(self.registry).part,
            "mlflow": lambda: {"kind": "mlflow", "base_url": self._url(kind, copy)},
            "phoenix": lambda: Phoenix(self._url(kind, copy)).part,
            "files": lambda: {"kind": "files", "path": str(self.folder / f"prompts-{workspace}")},
        }
        return parts[kind]()

    def _url(self, kind: str, copy: bool) -> str:
        if (kind, copy) not in self.urls:
            enter = self.stack.enter_context
            url = enter(served_mlflow()).url if kind == "mlflow" else enter(phoenix_server.running()).url
            self.urls[kind, copy] = url
        return self.urls[kind, copy]


@contextmanager
def stand_ins(folder: Path, *, prompts: int = 0, **quirks: Any) -> Iterator[StandIns]:
    """`prompts`: how many there are at Portkey's. `quirks`: of Portkey."""
    options = SandboxOptions(prompts=prompts, langfuse=LangfuseQuirks(deletes=True), quirks=Quirks(**quirks))
    with ExitStack() as stack, served(options) as registry:
        yield StandIns(registry, folder, stack)
