"""A stand-in of every kind of registry, and a second one of each, as a migration file names them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.sandbox import LangfuseQuirks, Quirks, SandboxOptions
from tests import phoenix_server
from tests.connectors.test_mlflow_routes import Mlflow
from tests.e2e import Served, served
from tests.mlflow_server import served_mlflow
from tests.routes import Conductor, End, Folder, Langfuse, Phoenix, Portkey, environ


@dataclass
class StandIns:
    """Those that were asked for run until the block ends. `folder`: where files are."""

    registry: Served
    folder: Path
    stack: ExitStack
    ends: dict[tuple[str, bool], End] = field(default_factory=dict)

    @property
    def env(self) -> dict[str, str]:
        """The secrets that the parts name."""
        return environ(self.registry)

    def end(self, kind: str, *, copy: bool = False) -> End:
        """What is there; `copy`: in the other workspace, server, or folder."""
        if (found := self.ends.get((kind, copy))) is None:
            found = self.ends[kind, copy] = self._end(kind, "copy" if copy else "main")
        return found

    def part(self, kind: str, *, copy: bool = False) -> Mapping[str, Any]:
        """The same in a migration file."""
        return self.end(kind, copy=copy).part

    def _end(self, kind: str, workspace: str) -> End:
        enter, registry = self.stack.enter_context, self.registry
        ends: Mapping[str, Callable[[], End]] = {
            "portkey": lambda: Portkey(registry, workspace),
            "langfuse": lambda: Langfuse(registry, workspace),
            "conductor": lambda: Conductor(registry),
            "mlflow": lambda: Mlflow(enter(served_mlflow())),
            "phoenix": lambda: Phoenix(enter(phoenix_server.running()).url),
            "files": lambda: Folder(self.folder / f"prompts-{workspace}"),
        }
        return ends[kind]()


@contextmanager
def stand_ins(folder: Path, *, prompts: int = 0, **quirks: Any) -> Iterator[StandIns]:
    """`prompts`: how many there are at Portkey's. `quirks`: of Portkey."""
    options = SandboxOptions(prompts=prompts, langfuse=LangfuseQuirks(deletes=True), quirks=Quirks(**quirks))
    with ExitStack() as stack, served(options) as registry:
        yield StandIns(registry, folder, stack)
