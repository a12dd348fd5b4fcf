"""A Ray cluster of several nodes on this machine, in Ray's own environment.

`python -m tests.real.ray_nodes NODES CPUS` prints one line of JSON, its address, its logs and the process of each node
but the first, which has no CPU for workers and keeps the books; it ends, with all that it started, when its stdin does.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from contextlib import suppress

from ray.cluster_utils import Cluster

from tests.real.ray_site import descendants

OBJECTS_BYTES = 80 * 2**20
STARTS = 5
"""Ray gives a node 30 seconds; on a busy machine it needs another try."""


def started(nodes: int, cpus: int) -> dict[str, object]:
    """Raises whatever Ray likes."""
    cluster = Cluster()
    head = cluster.add_node(num_cpus=0, object_store_memory=OBJECTS_BYTES, include_dashboard=False)
    more = [cluster.add_node(num_cpus=cpus, object_store_memory=OBJECTS_BYTES) for _ in range(nodes)]
    pids = [node.all_processes["raylet"][0].process.pid for node in more]
    return {"address": cluster.address, "nodes": pids, "logs": head.get_logs_dir_path()}


def end_all() -> None:
    """Of a start that failed, Ray itself ends only a part."""
    for pid in descendants(os.getpid()):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def main(nodes: int, cpus: int) -> None:
    try:
        for _ in range(STARTS):
            try:
                print(json.dumps(started(nodes, cpus)), flush=True)
                break
            except Exception as error:
                print(f"{type(error).__name__}: once more", file=sys.stderr)
                end_all()
        sys.stdin.read()
    finally:
        end_all()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
