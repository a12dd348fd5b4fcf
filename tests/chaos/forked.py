"""Forks the command, with everything imported already: a run costs what it does, not its imports. A script.

It reads one JSON line for each command and answers with one: what the command wrote, its exit code (negative: the
signal that ended it) and the most memory it held.
"""

from __future__ import annotations

import json
import os
import resource
import selectors
import signal
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

LONGEST_RUN_S: Final = 90
"""A run that has not ended by then is killed by SIGALRM: its code is -14."""


def serve() -> None:
    """Until stdin ends."""
    _import_everything()
    answers = os.fdopen(os.dup(1), "wb")
    for line in sys.stdin.buffer:
        answers.write(json.dumps(_command(json.loads(line))).encode() + b"\n")
        answers.flush()


def _import_everything() -> None:

    import engine.cli.commands
    import engine.cli.run
    import engine.config
    import engine.connectors.portkey.registry
    import engine.run
    import engine.sandbox  # noqa: F401


def _command(order: Mapping[str, Any]) -> dict[str, Any]:
    with _pipe() as (out_read, out_write), _pipe() as (err_read, err_write):
        child = os.fork()
        if child == 0:
            _become(order, out_write, err_write)
        os.close(out_write)
        os.close(err_write)
        out, err = _read_all(out_read, err_read)
        _, status, usage = os.wait4(child, 0)
    text = {"out": out.decode(), "err": err.decode()}
    return {"code": os.waitstatus_to_exitcode(status), "peak_kib": usage.ru_maxrss, **text}


@contextmanager
def _pipe() -> Iterator[tuple[int, int]]:
    read, write = os.pipe()
    try:
        yield read, write
    finally:
        os.close(read)


def _read_all(*pipes: int) -> list[bytes]:
    found: dict[int, bytearray] = {pipe: bytearray() for pipe in pipes}
    with selectors.DefaultSelector() as selector:
        for pipe in pipes:
            selector.register(pipe, selectors.EVENT_READ)
        while selector.get_map():
            for key, _ in selector.select():
                piece = os.read(key.fd, 65536)
                found[key.fd] += piece
                if not piece:
                    selector.unregister(key.fd)
    return [bytes(found[pipe]) for pipe in pipes]


def _become(order: Mapping[str, Any], out: int, err: int) -> None:
    """Does not return."""
    code = 70
    try:
        signal.alarm(LONGEST_RUN_S)
        null = os.open(os.devnull, os.O_RDONLY)
        for ours, theirs in ((null, 0), (out, 1), (err, 2)):
            os.dup2(ours, theirs)
        os.chdir(order["cwd"])
        os.environ.update(order["env"])
        if order["file_limit"] is not None:
            _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (order["file_limit"], most))
        code = _main(order["argv"])
    except BaseException:  # whatever it is, this is a child: it must end here and say so
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _main(argv: list[str]) -> int:
    from engine.cli import main

    sys.argv = ["promptferry", *argv]
    try:
        main()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0
    return 0


if __name__ == "__main__":
    serve()
