"""`--executor`: this process alone, or workers on a Ray cluster."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Final

from typer import BadParameter, Option

from engine.cli.common import choice
from engine.errors import ConfigError

if TYPE_CHECKING:
    from engine.config import Migration
    from engine.session.connect import Machines

EXECUTORS: Final = ("local", "ray")
_ADDRESS: Final = re.compile(r"([^\s:/]+|\[[0-9a-fA-F:.]+\]):[0-9]{1,5}")


def _address(value: str | None) -> str | None:
    """Ray itself would look for such a cluster for a minute, and a scheduler for ever."""
    if value not in (None, "auto", "local") and _ADDRESS.fullmatch(value) is None:
        raise BadParameter(f"{value!r}: must be HOST:PORT, auto or local")
    return value


Executor = Annotated[str, choice("--executor", *EXECUTORS, help="local: this process; ray: workers on a Ray cluster.")]
RayAddress = Annotated[
    str | None,
    Option("--ray-address", help="HOST:PORT of the cluster, or auto; local: a private one here.", callback=_address),
]
Workers = Annotated[int | None, Option("--workers", min=1, help="Workers; left out: one for each CPU of the cluster.")]


@dataclass(frozen=True, slots=True)
class Asked:
    """The flags as they were typed."""

    executor: str
    ray_address: str | None
    workers: int | None


@contextmanager
def machines(asked: Asked, migrations: Sequence[Migration]) -> Iterator[Machines | None]:
    """Those that do a part of the work, until the end of the block; None: all is done in this process. To be opened
    before a loop runs. Raises ConfigError.
    """
    if asked.executor == "local":
        if asked.ray_address is not None or asked.workers is not None:
            raise ConfigError("--ray-address and --workers: speak of a Ray cluster: give --executor ray, too")
        yield None
        return
    from engine.cluster import cluster_on_ray, refuse_what_stays_here

    refuse_what_stays_here(migrations)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    with cluster_on_ray(None if asked.ray_address == "local" else asked.ray_address, asked.workers) as cluster:
        yield cluster
