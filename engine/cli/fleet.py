"""The commands over a fleet."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Argument, Option

from engine.cli.after import Yes
from engine.cli.commands import (
    AsJson,
    LockWait,
    Metrics,
    Rate,
    RateShare,
    Shards,
    app,
    shard_by,
    shard_label,
    shared_rate,
    show_result,
    waiting,
)
from engine.cli.common import MOST_CALLS, Common, command, confirmation, on_terminal, run_async, yes_or_no
from engine.cli.machines import Asked, Executor, RayAddress, Workers, machines
from engine.cli.report import Html
from engine.errors import EXIT_ACT, EXIT_DIFFERENT, EXIT_OK, EXIT_USAGE, ConfigError, Stop

if TYPE_CHECKING:
    from engine.config import Fleet
    from engine.fleet.run import FleetOptions, Preview
    from engine.fleet.summary import FleetSummary

fleet_app = typer.Typer(
    name="promptferry fleet",
    help="Many migrations in one go: a file of them, one ledger each, one limit for each host and key.",
    epilog="Example: promptferry fleet run configs/fleet.yaml",
    rich_markup_mode=None,
    no_args_is_help=True,
)
app.add_typer(fleet_app, name="fleet")

File = Annotated[Path, Argument(metavar="FLEET", help="The fleet file.", show_default=False)]
Names = Annotated[
    list[str] | None, Option("--migration", metavar="GLOB", help="Migrations with this name; repeatable.")
]
InShard = Annotated[
    str | None, Option("--shard", metavar="I/N", help="Only the migrations of this part, from 0; each is whole.")
]
ENDS_SHOWN = 5


@command(fleet_app, "plan")
def plan(
    fleet: File,
    common: Common,
    migration: Names = None,
    detailed_exitcode: Annotated[bool, Option("--detailed-exitcode", help="Exit 3 when there is work to do.")] = False,
    shard: InShard = None,
    shards: Shards = None,
    rate: Rate = None,
    as_json: AsJson = False,
) -> int:
    """Shows for each migration what `fleet run` would do. Writes nothing.

    Example: promptferry fleet plan configs/fleet.yaml --migration 'support-*'
    """
    from engine.cli import show
    from engine.fleet.verbs import plan_fleet

    loaded = common.load_fleet(fleet, migration or (), shard_by(shard, shards))
    planned = run_async(lambda: plan_fleet(loaded, rate=rate))
    show_result(planned.to_json(), as_json=as_json, text=show.fleet_planned(planned))
    work = any(one.value is not None and one.value.has_work for one in planned.migrations)
    return EXIT_DIFFERENT if detailed_exitcode and work and planned.exit_code == EXIT_OK else planned.exit_code


@command(fleet_app, "run")
def run(
    fleet: File,
    common: Common,
    migration: Names = None,
    retry_failed: Annotated[bool, Option("--retry-failed", help="Take up every failed prompt again.")] = False,
    max_duration: Annotated[str | None, Option("--max-duration", help="Stop after this time: 90s, 15m, 2h.")] = None,
    max_failures: Annotated[
        str | None, Option("--max-failures", help="Stop a migration above so many: 20, or 5%.")
    ] = None,
    shard: InShard = None,
    shards: Shards = None,
    rate_share: RateShare = False,
    executor: Executor = "local",
    ray_address: RayAddress = None,
    workers: Workers = None,
    rate: Rate = None,
    lock_wait: LockWait = None,
    yes: Annotated[bool, Option("--yes", "-y", help="Do not ask before the first write.")] = False,
    reason: Annotated[str | None, Option("--reason", help="Why, for the ledgers.")] = None,
    summary: Annotated[Path | None, Option("--summary", help="Write the summary to this file too.")] = None,
    metrics: Metrics = None,
    as_json: AsJson = False,
) -> int:
    """Does all migrations; the same command again goes on where it stopped.

    Example: promptferry fleet run configs/fleet.yaml --max-duration 2h
    """
    from dataclasses import replace

    from engine.cli import show
    from engine.cli.fleet_display import watch
    from engine.cli.run import Left, duration, end_with, note_unknown
    from engine.cli.run import max_failures as read_max_failures
    from engine.fleet.run import FleetOptions

    def work() -> FleetSummary:
        part = shard_by(shard, shards)
        rate_of_one = shared_rate(rate, part, share=rate_share)
        options = FleetOptions(
            retry_failed=retry_failed,
            max_duration=duration(max_duration),
            max_failures=read_max_failures(max_failures),
            rate=rate_of_one,
            reason=reason,
            lock_wait=waiting(lock_wait),
            watch=None if common.quiet or common.no_progress else watch(),
            signals=True,
        )
        loaded = common.load_fleet(fleet, migration or (), part)
        if part is not None and rate_share:
            loaded = loaded.sharing(part.count)
            note_unknown(loaded.migrations, rate_of_one)
        try:
            with machines(Asked(executor, ray_address, workers), loaded.migrations) as others:
                return _run(loaded, replace(options, machines=others), ask=on_terminal() and not yes)
        except Stop as stop:  # before there was anything to run on
            return no_fleet(stop.reason, str(stop), exit_code=stop.exit_code)

    refused = partial(no_fleet, "config", exit_code=EXIT_USAGE)
    left = Left(summary=summary, metrics=metrics, shard=shard_label(shard, shards))
    return end_with(work, refused, show.fleet_summary, left=left, as_json=as_json)


@command(fleet_app, "status")
def status(
    fleet: File,
    common: Common,
    migration: Names = None,
    shard: InShard = None,
    shards: Shards = None,
    as_json: AsJson = False,
) -> int:
    """Counts of each migration as its ledger has them; works while a run goes on.

    Example: promptferry fleet status configs/fleet.yaml
    """
    from engine.cli import show
    from engine.config import fleet_ledgers
    from engine.fleet.verbs import fleet_status

    part = shard_by(shard, shards)
    name, ledgers = fleet_ledgers(fleet, ledgers=common.ledger, only=migration or (), shard=part)
    found = fleet_status(name, ledgers)
    show_result(found.to_json(), as_json=as_json, text=show.fleet_result(found))
    return found.exit_code


@command(fleet_app, "verify")
def verify(
    fleet: File,
    common: Common,
    migration: Names = None,
    render: Annotated[bool, Option("--render", help="Also compare what would be sent to the model.")] = False,
    shard: InShard = None,
    shards: Shards = None,
    yes: Yes = False,
    rate: Rate = None,
    lock_wait: LockWait = None,
    as_json: AsJson = False,
) -> int:
    """Reads the replicas of every migration back and compares them with their sources.

    Example: promptferry fleet verify configs/fleet.yaml
    """
    import anyio

    from engine.cli import show
    from engine.fleet.verbs import verify_fleet
    from engine.verbs.completions import CALLS_EACH

    loaded = common.load_fleet(fleet, migration or (), shard_by(shard, shards))
    calls = sum(one.verify.completions for one in loaded.migrations) * CALLS_EACH
    confirm = confirmation(yes=yes, needed=calls > MOST_CALLS)
    how: dict[str, Any] = {"confirm": confirm, "rate": rate, "signals": True, "lock_wait": waiting(lock_wait)}
    found = anyio.run(partial(verify_fleet, loaded, render=render, **how))
    show_result(found.to_json(), as_json=as_json, text=show.fleet_result(found))
    return found.exit_code


@command(fleet_app, "rollback")
def rollback(
    fleet: File,
    common: Common,
    migration: Names = None,
    dry_run: Annotated[bool, Option("--dry-run", help="Say what would be done, and write nothing.")] = False,
    shard: InShard = None,
    shards: Shards = None,
    yes: Yes = False,
    rate: Rate = None,
    lock_wait: LockWait = None,
    as_json: AsJson = False,
) -> int:
    """Takes back what the ledgers of the fleet say was done, and only that; what was edited since is kept.

    Example: promptferry fleet rollback configs/fleet.yaml --dry-run
    """
    import anyio

    from engine.cli import show
    from engine.fleet.verbs import rollback_fleet

    loaded = common.load_fleet(fleet, migration or (), shard_by(shard, shards))
    confirm = confirmation(yes=yes, needed=not dry_run)
    how: dict[str, Any] = {"confirm": confirm, "rate": rate, "signals": True, "lock_wait": waiting(lock_wait)}
    done = anyio.run(partial(rollback_fleet, loaded, dry_run=dry_run, **how))
    show_result(done.to_json(), as_json=as_json, text=show.fleet_rolled_back(done))
    return done.exit_code


@command(fleet_app, "report")
def report(
    fleet: File,
    common: Common,
    migration: Names = None,
    shard: InShard = None,
    shards: Shards = None,
    html: Html = None,
    as_json: AsJson = False,
) -> int:
    """Writes one page with a row for each migration, and beside it, in a folder of its name, a page for each.

    Takes what the ledgers say, also while they are written; a migration without one was not started. The pages hold
    names and ids, and never the text of a template or a key; for your eyes only (0600), until you send them.

    Example: promptferry fleet report configs/fleet.yaml --html fleet.html
    """
    from engine.cli.report import write_fleet
    from engine.config import fleet_ledgers
    from engine.ledger.report import several

    if html is None and not as_json:
        raise ConfigError("fleet report: give --html FILE for the page, or --json for its data")
    part = shard_by(shard, shards)
    name, ledgers = fleet_ledgers(fleet, ledgers=common.ledger, only=migration or (), shard=part)
    found = write_fleet(name, ledgers, html)
    of = several(len(ledgers), "migration")
    said = f"wrote {html}: {name}, {of}, {found['counts']['selected']:,} prompts"
    show_result(found, as_json=as_json, text=said)
    damaged = [one for one in found["migrations"] if one["state"] == "damaged"]
    for one in damaged:
        print(f"error: {one['name']}: {one['health']['advice']}", file=sys.stderr)
    return EXIT_ACT if damaged else EXIT_OK


def no_fleet(reason: str, message: str, exit_code: int) -> FleetSummary:
    """The summary of a fleet's run that ended before it began."""
    from dataclasses import replace

    from engine.cli.run import nothing_done
    from engine.fleet.summary import summarise

    said = nothing_done(reason, message, exit_code)
    empty = summarise("", [], not_started=(), duration_s=0.0)
    return replace(empty, exit_code=exit_code, reason=reason, message=message, next=said.next)


def _run(fleet: Fleet, options: FleetOptions, *, ask: bool) -> FleetSummary:
    from dataclasses import replace

    import anyio

    from engine.fleet.run import run_fleet

    confirm = partial(_confirmed, fleet) if ask else None
    return anyio.run(run_fleet, fleet, replace(options, confirm=confirm))


async def _confirmed(fleet: Fleet, preview: Preview) -> bool:
    """Shows all ends and the totals and asks once."""
    from engine.ledger.report import several
    from engine.migrate.needs import counted

    busy = sum(tasks > 0 for tasks in preview.tasks.values())
    print(f"{fleet.name}: {several(len(fleet.migrations), 'migration')}, {fleet.parallel} at a time")
    for word, end in (("from", 0), ("to", 1)):
        ends = list(dict.fromkeys(one.ends[end].identity for one in fleet.migrations))
        more = f" and {len(ends) - ENDS_SHOWN} more" if len(ends) > ENDS_SHOWN else ""
        print(f"{word:<5} {f'{chr(10)}      '.join(ends[:ENDS_SHOWN])}{more}")
    for name, problem in preview.problems.items():
        print(f"{name} will not begin: {problem}")
    if preview.made:
        print(f"made at the target first: {counted([need.key for need in preview.made])}")
    total = sum(preview.tasks.values())
    them = f"{several(total, 'prompt')} of {several(busy, 'migration')}"
    print(f"{them} will be created, or compared or looked up, and written where something changed or is missing")
    return await yes_or_no()
