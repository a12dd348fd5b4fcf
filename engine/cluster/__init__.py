"""Several machines: the pools of a run in workers of a Ray cluster, one ledger and one limit for all.

May import session, config, migrate, ledger, http, content, the model, errors, log and task groups.
Ray is an extra: it is loaded when somebody asks for it.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from importlib import import_module

from engine.cluster.driver import Cluster, refuse_what_stays_here
from engine.errors import ConfigError

__all__ = ["Cluster", "cluster_on_ray", "refuse_what_stays_here"]


def cluster_on_ray(address: str | None, workers: int | None) -> AbstractContextManager[Cluster]:
    """See `on_ray.open_cluster`. Raises ConfigError where Ray is not installed."""
    try:
        found = import_module("engine.cluster.on_ray")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "ray":
            raise
        raise ConfigError("--executor ray: Ray is not installed here: pip install 'promptferry[ray]'") from error
    opened: AbstractContextManager[Cluster] = found.open_cluster(address, workers)
    return opened
