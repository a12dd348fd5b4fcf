"""`watch`: the page of a ledger, live, until it is interrupted."""

from __future__ import annotations

import signal
import sys
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Option

from engine.cli.commands import Either, InShard, Shards, app, shard_by
from engine.cli.common import Common, command, say
from engine.cli.report import beside_of
from engine.errors import EXIT_OK

if TYPE_CHECKING:
    from engine.web.view import Beside


@command(app, "watch")
def watch(
    path: Either,
    common: Common,
    port: Annotated[int, Option("--port", min=0, max=65535, help="0: any free one.")] = 0,
    open_: Annotated[bool, Option("--open", help="Open the page in a browser.")] = False,
    allow_stop: Annotated[
        bool, Option("--allow-stop", help="Let the page stop the run, as one Ctrl-C would; where the system is Linux.")
    ] = False,
    shard: InShard = None,
    shards: Shards = None,
) -> int:
    """Shows on a page in the browser what a ledger says, before, while and after a run writes it; until Ctrl-C.

    Reads the ledger only, so it never disturbs a run. Serves on 127.0.0.1, to whoever has the address that it prints.

    Example: promptferry watch migration.yaml --open
    """
    import anyio

    ledger = common.ledger_of(path, shard_by(shard, shards))
    said = "" if common.quiet else f"watching {ledger}; whoever has that address sees it, until Ctrl-C"
    anyio.run(lambda: _watch(ledger, beside_of(path), said, port=port, open_page=open_, allow_stop=allow_stop))
    return EXIT_OK


async def _watch(ledger: Path, beside: Beside, said: str, *, port: int, open_page: bool, allow_stop: bool) -> None:
    import anyio

    from engine.taskgroup import task_group
    from engine.web.serve import Watched, serving

    watched = Watched(ledger, beside)
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with serving(watched, port=port, allow_stop=allow_stop) as address, task_group() as group:
            group.start_soon(watched.follow)
            say(address)
            if said:
                print(said, file=sys.stderr)
            if open_page and not await anyio.to_thread.run_sync(webbrowser.open, address):
                print("no browser could be opened: open that address yourself", file=sys.stderr)
            async for _ in signals:
                group.cancel_scope.cancel()
                break
