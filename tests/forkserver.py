"""Forks the command from a process that has all of it imported. A script: it reads orders from a socket to its end.

An order is a JSON line: arguments, cwd, env, file_limit (bytes beyond which no file may grow, or null), and plan (what
`tests.chaos.harness.disturb` is to do first, or null); its stdin, stdout and stderr come along with it. It is answered
with JSON lines: the command's pid, each time that it is stopped, then its exit code (negative: the signal that ended
it) and the most memory that it held.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import pkgutil
import random
import resource
import socket
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import engine
from engine.cli import main


def serve(orders: socket.socket) -> None:
    """Until the socket ends. In a child it ends as the command does: by SystemExit, or by what the command raises."""
    for module in pkgutil.walk_packages(engine.__path__, "engine."):
        if not module.name.endswith(("__main__", "on_ray")):  # Ray is an extra
            importlib.import_module(module.name)
    gc.freeze()  # or the first collection of every child would copy all of these pages
    while order := _next(orders):
        pid = os.fork()
        if pid == 0:
            orders.close()
            _become(*order)
            main()
            return
        for fd in order[1]:
            os.close(fd)
        _watch(pid, orders)


def _next(orders: socket.socket) -> tuple[Mapping[str, Any], Sequence[int]] | None:
    data, fds, _, _ = socket.recv_fds(orders, 1 << 16, 3)
    while data and not data.endswith(b"\n"):
        data += orders.recv(1 << 16)
    return (json.loads(data), fds) if data else None


def _become(order: Mapping[str, Any], fds: Sequence[int]) -> None:
    for ours, theirs in enumerate(fds):
        os.dup2(theirs, ours)
        os.close(theirs)
    os.chdir(order["cwd"])
    os.environ.clear()
    os.environ.update(order["env"])
    if order["file_limit"] is not None:
        _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (order["file_limit"], most))
    random.seed()  # or every command would draw the same jitter
    if order["plan"] is not None:
        from tests.chaos.harness import disturb

        disturb(order["plan"])
    sys.argv = ["promptferry", *order["arguments"]]


def _watch(pid: int, orders: socket.socket) -> None:
    news: dict[str, int] = {"pid": pid}
    while "code" not in news:
        orders.sendall(json.dumps(news).encode() + b"\n")
        _, status, usage = os.wait4(pid, os.WUNTRACED)
        news = {"stopped": pid}
        if not os.WIFSTOPPED(status):
            news = {"code": os.waitstatus_to_exitcode(status), "peak_kib": usage.ru_maxrss}
    orders.sendall(json.dumps(news).encode() + b"\n")


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
