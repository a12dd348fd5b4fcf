"""The commands that come after a run: verify, publish, rollback."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Option

from engine.cli.commands import (
    AsJson,
    Collection,
    File,
    IdsFile,
    InShard,
    LockWait,
    Only,
    Rate,
    Shards,
    app,
    chosen_by,
    shard_by,
    show_result,
    waiting,
)
from engine.cli.common import MOST_CALLS, Common, command, confirmation, run_async, say, write_file
from engine.errors import EXIT_DIFFERENT, EXIT_OK, EXIT_UNFINISHED

if TYPE_CHECKING:
    from engine.config import Migration

Yes = Annotated[bool, Option("--yes", "-y", help="Do not ask.")]


@command(app, "verify")
def verify(
    migration: File,
    common: Common,
    only: Only = None,
    collection: Collection = None,
    ids_file: IdsFile = None,
    render: Annotated[bool, Option("--render", help="Also compare what would be sent to the model.")] = False,
    completions: Annotated[
        int, Option("--completions", min=0, metavar="N", help="Also call N replicas for real; costs money.")
    ] = 0,
    write_cases: Annotated[
        Path | None, Option("--write-cases", help="Only write a file of variables to fill in, for verify.cases.")
    ] = None,
    yes: Yes = False,
    shard: InShard = None,
    shards: Shards = None,
    rate: Rate = None,
    lock_wait: LockWait = None,
    as_json: AsJson = False,
) -> int:
    """Reads every replica back and compares it, field by field, with what the rules make of its source.

    Example: promptferry verify migration.yaml --render
    """
    import anyio

    from engine.cli import show
    from engine.run.after import case_lines, verify_migration
    from engine.session import VerbOptions
    from engine.verbs.completions import CALLS_EACH

    loaded = common.load(migration, shard_by(shard, shards))
    chosen = chosen_by(only, collection, ids_file)
    if write_cases is not None:
        lines = run_async(lambda: case_lines(loaded, VerbOptions(chosen=chosen, rate=rate)))
        write_file(write_cases, b"".join(lines), f"--write-cases {write_cases}", over=False)
        say(f"wrote {write_cases}: {len(lines)} prompts; fill in the values and name it in verify.cases")
        return EXIT_OK
    wanted = completions or loaded.verify.completions
    many = wanted * CALLS_EACH > MOST_CALLS
    confirm, wait = _confirm(loaded, yes=yes, needed=many), waiting(lock_wait)
    options = VerbOptions(chosen=chosen, rate=rate, confirm=confirm, signals=True, lock_wait=wait)
    found = anyio.run(lambda: verify_migration(loaded, options, render=render, completions=completions))
    show_result(found.to_json(), as_json=as_json, text=show.verification(found))
    return EXIT_OK if found.proved else EXIT_DIFFERENT


@command(app, "publish")
def publish(
    migration: File,
    common: Common,
    only: Only = None,
    collection: Collection = None,
    ids_file: IdsFile = None,
    verified_only: Annotated[
        bool, Option("--verified-only", help="Only those whose last `verify` found no difference.")
    ] = False,
    yes: Yes = False,
    shard: InShard = None,
    shards: Shards = None,
    rate: Rate = None,
    lock_wait: LockWait = None,
    as_json: AsJson = False,
) -> int:
    """Makes the versions that this migration wrote the published ones: the cut-over.

    Example: promptferry publish migration.yaml --verified-only --yes
    """
    import anyio

    from engine.cli import show
    from engine.run.after import publish_migration
    from engine.session import VerbOptions

    loaded = common.load(migration, shard_by(shard, shards))
    confirm = _confirm(loaded, yes=yes, needed=True)
    chosen, wait = chosen_by(only, collection, ids_file), waiting(lock_wait)
    options = VerbOptions(chosen=chosen, rate=rate, confirm=confirm, signals=True, lock_wait=wait)
    done = anyio.run(lambda: publish_migration(loaded, options, verified_only=verified_only))
    show_result(done.to_json(), as_json=as_json, text=show.cut_over(done))
    if options.halt.stop is not None:
        raise options.halt.stop
    return EXIT_OK if done.whole else EXIT_UNFINISHED


@command(app, "rollback")
def rollback(
    migration: File,
    common: Common,
    only: Only = None,
    collection: Collection = None,
    ids_file: IdsFile = None,
    run: Annotated[str | None, Option("--run", metavar="ID|last", help="Only what this run did.")] = None,
    dry_run: Annotated[bool, Option("--dry-run", help="Say what would be done, and write nothing.")] = False,
    yes: Yes = False,
    shard: InShard = None,
    shards: Shards = None,
    rate: Rate = None,
    lock_wait: LockWait = None,
    as_json: AsJson = False,
) -> int:
    """Takes back what the ledger says this migration did, and only that; what was edited since is kept.

    Example: promptferry rollback migration.yaml --run last --dry-run
    """
    import anyio

    from engine.cli import show
    from engine.run.after import rollback_migration
    from engine.session import VerbOptions

    loaded = common.load(migration, shard_by(shard, shards))
    confirm = None if dry_run else _confirm(loaded, yes=yes, needed=True)
    chosen, wait = chosen_by(only, collection, ids_file), waiting(lock_wait)
    options = VerbOptions(chosen=chosen, rate=rate, confirm=confirm, signals=True, lock_wait=wait)
    done = anyio.run(lambda: rollback_migration(loaded, options, run=run, dry_run=dry_run))
    show_result(done.to_json(), as_json=as_json, text=show.rolled_back(done))
    if options.halt.stop is not None:
        raise options.halt.stop
    return EXIT_OK if done.whole else EXIT_UNFINISHED


def _confirm(migration: Migration, *, yes: bool, needed: bool) -> Callable[[str], Awaitable[bool]]:
    """Names both ends, and what is to be done."""
    source, target = migration.ends
    return confirmation(yes=yes, needed=needed, ends=f"source {source.identity}\ntarget {target.identity}\n")
