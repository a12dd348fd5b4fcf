"""The commands, one function each."""

from __future__ import annotations

import os
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from typer import Argument, Option

from engine.cli.common import MOST_CALLS, Common, Version, command, confirmation, note, run_async, say, write_file
from engine.cli.machines import Asked, Executor, RayAddress, Workers
from engine.errors import EXIT_ACT, EXIT_DIFFERENT, EXIT_OK, ConfigError

if TYPE_CHECKING:
    from engine.config import Migration
    from engine.content.filter import Chosen
    from engine.content.shard import Shard
    from engine.model import Finding

T = TypeVar("T")

app = typer.Typer(
    name="promptferry",
    help="Moves prompts between registries in bulk: each once, every field, resumable.",
    epilog="Example: promptferry init migration.yaml, then plan, then run",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
ledger_app = typer.Typer(
    name="promptferry ledger",
    help="Health of a ledger file.",
    epilog="Example: promptferry ledger check ledgers/claude-37-to-35.jsonl",
    rich_markup_mode=None,
    no_args_is_help=True,
)
app.add_typer(ledger_app, name="ledger")

File = Annotated[Path, Argument(metavar="MIGRATION", help="The migration file.", show_default=False)]
Either = Annotated[Path, Argument(metavar="MIGRATION|LEDGER", help="A migration file, or a ledger (.jsonl).")]
Only = Annotated[list[str] | None, Option("--only", metavar="GLOB", help="Prompts with this name or id; repeatable.")]
Collection = Annotated[
    list[str] | None, Option("--collection", metavar="SLUG", help="Prompts of this collection; repeatable.")
]
IdsFile = Annotated[Path | None, Option("--ids-file", help="Prompts whose ids are in this file, one a line.")]
AsJson = Annotated[bool, Option("--json", help="Print JSON.")]
InShard = Annotated[
    str | None, Option("--shard", metavar="I/N", help="Only this part, from 0; with a ledger of its own.")
]
Shards = Annotated[
    int | None, Option("--shards", min=1, metavar="N", help="The same, where JOB_COMPLETION_INDEX says which.")
]
LockWait = Annotated[
    str | None, Option("--lock-wait", metavar="S", help="Wait so long for a ledger in use: 30, 90s, 15m.")
]
Metrics = Annotated[Path | None, Option("--metrics", help="Write how it ended to this file, as Prometheus text.")]
RateShare = Annotated[
    bool, Option("--rate-share", help="Use 1/N of limits.rate or --rate, where N shards run at the same time.")
]
Rate = Annotated[float | None, Option("--rate", min=0.001, help="Requests a second, in place of limits.rate.")]


@app.callback()
def _top(version: Version = False) -> None:
    pass


def chosen_by(only: list[str] | None, collection: list[str] | None, ids_file: Path | None) -> Chosen:
    from engine.config import read_ids
    from engine.content.filter import Chosen

    ids = read_ids(ids_file) if ids_file is not None else ()
    return Chosen(only=tuple(only or ()), collections=tuple(collection or ()), ids=ids)


def shard_by(shard: str | None, shards: int | None) -> Shard | None:
    """The part that --shard and --shards mean. Raises ConfigError."""
    from engine.content.shard import shard_from

    if shard is None and shards is None:
        return None
    text, flag = shard, f"--shard {shard}"
    if text is None:
        index = os.environ.get("JOB_COMPLETION_INDEX", "")
        if not index:
            raise ConfigError(f"--shards {shards}: which of them? Give --shard I/{shards}, or set JOB_COMPLETION_INDEX")
        text, flag = f"{index}/{shards}", f"JOB_COMPLETION_INDEX={index} --shards {shards}"
    try:
        found = shard_from(text)
    except ValueError as error:
        raise ConfigError(f"{flag}: {error}") from None
    if shards is not None and found.count != shards:
        raise ConfigError(f"--shard {shard} and --shards {shards} do not agree: give one of both")
    return found


def shard_label(shard: str | None, shards: int | None) -> str:
    """The same as `0/3`; empty where there is none, or none that can be understood."""
    try:
        return str(shard_by(shard, shards) or "")
    except ConfigError:
        return ""


def shared_rate(rate: float | None, shard: Shard | None, *, share: bool) -> float | None:
    """--rate as it is for one shard. Raises ConfigError."""
    if not share:
        return rate
    if shard is None:
        raise ConfigError("--rate-share: shares a limit among shards: give --shard, too")
    return rate / shard.count if rate is not None else None


def waiting(lock_wait: str | None) -> float:
    """The seconds of --lock-wait. Raises ConfigError."""
    from engine.cli.run import duration

    return 0.0 if lock_wait in (None, "0") else duration(lock_wait, "--lock-wait") or 0.0


def show_result(value: object, *, as_json: bool, text: str) -> None:
    if as_json:
        from engine.lossless_json import encode

        text = encode(value).decode()
    say(text)


# ---- before a run ----------------------------------------------------------------------------------------------------


@command(app, "init")
def init(
    common: Common,
    file: Annotated[Path, Argument(help="Where to write it.")] = Path("migration.yaml"),
    name: Annotated[str | None, Option("--name", help="Name of the migration.")] = None,
    source_kind: Annotated[
        str | None, Option("--source-kind", metavar="KIND", help="Of the registry that is read.")
    ] = None,
    source: Annotated[
        list[str] | None,
        Option("--source", metavar="KEY=VALUE", help="A key of it; of a secret its variable's name. Repeatable."),
    ] = None,
    base_url: Annotated[
        str | None, Option("--base-url", metavar="URL", help="The same as --source base_url=URL.")
    ] = None,
    target_kind: Annotated[
        str | None,
        Option("--target-kind", metavar="KIND", help="Of the one that is written; left out: the source itself."),
    ] = None,
    target: Annotated[
        list[str] | None, Option("--target", metavar="KEY=VALUE", help="A key of that one. Repeatable.")
    ] = None,
    replica_name: Annotated[
        str | None, Option("--replica-name", metavar="TEMPLATE", help="Such as {name} or {name|slug}.")
    ] = None,
    models: Annotated[str | None, Option("--models", metavar="GLOB", help="Models to move away from.")] = None,
    model: Annotated[str | None, Option("--model", help="Model of the replicas.")] = None,
    provider: Annotated[str | None, Option("--provider", help="Provider slug of the replicas.")] = None,
    force: Annotated[bool, Option("--force", help="Write over a file that is there.")] = False,
) -> int:
    """Writes a commented migration file; asks on a terminal, takes flags and defaults elsewhere.

    Example: promptferry init --source-kind langfuse --target-kind files --target path=backup

    Example: promptferry init --models '*claude-3-7-*' --model anthropic.claude-3-5-sonnet --provider bedrock-prod
    """
    from engine.cli.ask import Answers, pairs, write_starter

    read = [*(source or ()), *([f"base_url={base_url}"] if base_url is not None else ())]
    answers = Answers(
        name=name,
        source_kind=source_kind,
        target_kind=target_kind,
        source=pairs("--source", read),
        target=pairs("--target", target or ()),
        replica=replica_name,
        models=models,
        model=model,
        provider=provider,
    )
    variables = write_starter(file, answers, force=force)
    first = f"set {', '.join(variables)}, then " if variables else ""
    say(f"wrote {file}: {first}run `promptferry check {file}`")
    return EXIT_OK


@command(app, "inventory")
def inventory(
    migration: File,
    common: Common,
    expect_none: Annotated[
        str | None, Option("--expect-none", metavar="GLOB", help="Exit 3 if a model matches.")
    ] = None,
    rate: Rate = None,
    as_json: AsJson = False,
) -> int:
    """Counts the source's prompts by model and collection, and says what `select` takes and nearly takes.

    Example: promptferry inventory migration.yaml --expect-none '*claude-3-7-*'
    """
    from engine.cli import show
    from engine.run import take_inventory

    found = run_async(lambda: take_inventory(common.load(migration), rate=rate))
    matching = found.matching(expect_none) if expect_none is not None else []
    show_result(found.to_json(), as_json=as_json, text=show.inventory(found, matching))
    return EXIT_DIFFERENT if matching else EXIT_OK


@command(app, "check")
def check(
    migration: File,
    common: Common,
    write_test: Annotated[
        bool, Option("--write-test", help="Create, read, change and delete a scratch prompt at the target.")
    ] = False,
    into: Annotated[
        str | None, Option("--collection", metavar="SLUG", help="Collection of the scratch prompt.")
    ] = None,
    probe: Annotated[
        bool, Option("--probe", help="Try whether the target's models take what prompts hold; costs a token a call.")
    ] = False,
    write_rules: Annotated[
        Path | None, Option("--write-rules", help="Write what mends the refusals of --probe to this file, as rules.")
    ] = None,
    yes: Annotated[bool, Option("--yes", "-y", help="Do not ask before the calls of --probe.")] = False,
    rate: Rate = None,
    as_json: AsJson = False,
) -> int:
    """Asks both ends whether all is there that the migration needs; writes nothing, unless asked for a write test.

    Example: promptferry check migration.yaml --write-test --collection scratch

    Example: promptferry check migration.yaml --probe --write-rules rules.yaml
    """
    from engine.cli import show
    from engine.run import check_migration

    if into is not None and not write_test:
        raise ConfigError("--collection: says where --write-test puts its scratch prompt; give both")
    if write_rules is not None and not probe:
        raise ConfigError("--write-rules: writes what mends the refusals that --probe finds; give both")
    if write_rules is not None and os.path.lexists(write_rules):
        raise ConfigError(f"--write-rules {write_rules}: is there already; name another file, or remove it first")
    loaded = common.load(migration)
    confirm = _confirm_calls(loaded, yes=yes) if probe else None
    how: dict[str, Any] = {"rate": rate, "write_test": write_test, "collection": into, "confirm_probe": confirm}
    checked = run_async(lambda: check_migration(loaded, **how))
    findings, probed, code = checked.findings, checked.probed, checked.exit_code
    unjudged = len(probed.unjudged) if probed is not None else 0
    value: dict[str, Any] = {"findings": [_finding(finding) for finding in findings], "ok": code == EXIT_OK}
    if probed is not None:
        value["probe"] = probed.to_json()
    show_result(value, as_json=as_json, text=show.findings(findings, unjudged=unjudged))
    _tell_stops(findings)
    if write_rules is not None and probed is not None:
        _write_rules(write_rules, probed.rules)
    return code


def _finding(found: Finding) -> dict[str, str]:
    more = {name: value for name, value in (("advice", found.advice), ("reason", found.reason)) if value}
    return {"level": found.level, "where": found.where, "text": found.text, **more}


def _tell_stops(findings: Sequence[Finding]) -> None:
    """Why an end could not be asked, for who hears stderr alone; a terminal has the report."""
    for one in findings:
        if one.reason and not sys.stdout.isatty():
            print(f"error: {one.text}\n{one.advice}", file=sys.stderr)


def _confirm_calls(migration: Migration, *, yes: bool) -> Callable[[str, int], Awaitable[bool]]:
    target = f"target {migration.ends[1].identity}\n"

    async def confirm(what: str, calls: int) -> bool:
        return await confirmation(yes=yes, needed=calls > MOST_CALLS, ends=target)(what)

    return confirm


def _write_rules(file: Path, rules: str) -> None:
    """Says on stderr what was written, or that there was nothing to write."""
    if rules:
        write_file(file, rules.encode(), f"--write-rules {file}", over=False)
        said = f"wrote {file}: rules for the migration file, behind its own rewrite.rules"
    else:
        said = f"{file}: not written, for there is no rule to write"
    print(said, file=sys.stderr)


@command(app, "plan")
def plan(
    migration: File,
    common: Common,
    only: Only = None,
    collection: Collection = None,
    ids_file: IdsFile = None,
    detailed_exitcode: Annotated[bool, Option("--detailed-exitcode", help="Exit 3 when there is work to do.")] = False,
    out: Annotated[
        Path | None, Option("--out", help="Write the plan to this file too; `run --plan` then does exactly that.")
    ] = None,
    shard: InShard = None,
    shards: Shards = None,
    rate: Rate = None,
    as_json: AsJson = False,
) -> int:
    """Shows per prompt what `run` would do: changes, losses, notes, totals. Writes nothing.

    Example: promptferry plan migration.yaml --only 'support-*'
    """
    from engine.cli import show
    from engine.migrate import plan_file as planfile
    from engine.run import plan_migration

    chosen = chosen_by(only, collection, ids_file)
    loaded = common.load(migration, shard_by(shard, shards))
    planned = run_async(lambda: plan_migration(loaded, chosen=chosen, rate=rate))
    if out is not None:
        data = planfile.write(planned, loaded.identity(), loaded.rules_digest(), shard=loaded.shard)
        write_file(out, data, f"--out {out}", over=True)
        print(
            f"wrote {out}: sha256 {planfile.plan_digest(data)}; `run --plan {out}` does exactly that", file=sys.stderr
        )
    show_result(planned.to_json(), as_json=as_json, text=show.plan(planned))
    return EXIT_DIFFERENT if detailed_exitcode and planned.has_work else EXIT_OK


# ---- the run, and what it left ---------------------------------------------------------------------------------------


@command(app, "run")
def run(
    migration: File,
    common: Common,
    only: Only = None,
    collection: Collection = None,
    ids_file: IdsFile = None,
    limit: Annotated[int | None, Option("--limit", min=0, help="At most so many prompts that need work.")] = None,
    retry_failed: Annotated[bool, Option("--retry-failed", help="Take up every failed prompt again.")] = False,
    max_duration: Annotated[str | None, Option("--max-duration", help="Stop after this time: 90s, 15m, 2h.")] = None,
    max_failures: Annotated[str | None, Option("--max-failures", help="Stop above so many: 20, or 5%.")] = None,
    canary: Annotated[
        int, Option("--canary", min=0, help="So many first, read back whole; any difference stops the run.")
    ] = 0,
    plan_file: Annotated[
        Path | None, Option("--plan", help="Do exactly what this file says, written by `plan --out`.")
    ] = None,
    require_approvals: Annotated[
        int | None,
        Option("--require-approvals", min=1, metavar="N", help="Only if so many approved exactly that --plan."),
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
    reason: Annotated[str | None, Option("--reason", help="Why, for the ledger.")] = None,
    summary: Annotated[Path | None, Option("--summary", help="Write the summary to this file too.")] = None,
    metrics: Metrics = None,
    as_json: AsJson = False,
) -> int:
    """Does the migration; the same command again goes on where it stopped.

    Example: promptferry run migration.yaml --max-duration 2h --max-failures 5%
    """
    from engine.cli.run import Flags, Left, run_and_tell

    def flags() -> Flags:
        return Flags(
            plan=plan_file,
            require_approvals=require_approvals,
            chosen=chosen_by(only, collection, ids_file),
            limit=limit,
            retry_failed=retry_failed,
            canary=canary,
            max_duration=max_duration,
            max_failures=max_failures,
            shard=shard_by(shard, shards),
            rate_share=rate_share,
            executor=Asked(executor, ray_address, workers),
            rate=rate,
            lock_wait=waiting(lock_wait),
            yes=yes,
            reason=reason,
        )

    left = Left(summary=summary, metrics=metrics, shard=shard_label(shard, shards))
    return run_and_tell(migration, common, flags, left=left, as_json=as_json)


@command(app, "status")
def status(
    path: Either,
    common: Common,
    only: Only = None,
    collection: Collection = None,
    ids_file: IdsFile = None,
    failed: Annotated[bool, Option("--failed", help="List what failed, and why.")] = False,
    follow: Annotated[
        bool, Option("--follow", "-f", help="Go on until the run has ended, also one that has yet to begin.")
    ] = False,
    shard: InShard = None,
    shards: Shards = None,
    as_json: AsJson = False,
) -> int:
    """Counts, rate and failures as the ledger has them; works while a run goes on.

    Example: promptferry status migration.yaml --failed

    Example: promptferry status migration.yaml --follow
    """
    from engine.cli.follow import follow_status, tell_status

    ledger = common.ledger_of(path, shard_by(shard, shards))
    tell = follow_status if follow else tell_status
    tell(ledger, chosen_by(only, collection, ids_file), with_failed=failed, as_json=as_json)
    return EXIT_OK


@command(app, "ids")
def ids(
    path: Either,
    common: Common,
    only: Only = None,
    collection: Collection = None,
    ids_file: IdsFile = None,
    form: Annotated[str, Option("--format", help="csv, json or env.")] = "csv",
    shard: InShard = None,
    shards: Shards = None,
    as_json: AsJson = False,
) -> int:
    """Prints the map old to new, with which applications are repointed.

    Example: promptferry ids migration.yaml --format env > prompts.env
    """
    from engine.cli import show
    from engine.ledger.status import read_ids_map
    from engine.ledger.writes import none_taken

    form = "json" if as_json else form
    if form not in ("csv", "json", "env"):
        raise ConfigError(f"--format {form!r}: must be csv, json or env")
    ledger = common.ledger_of(path, shard_by(shard, shards))
    chosen = chosen_by(only, collection, ids_file)
    pairs = read_ids_map(ledger, chosen)
    text = show.ids_env(pairs) if form == "env" else show.ids_csv(pairs) if form == "csv" else ""
    show_result(pairs, as_json=form == "json", text=text)
    note(none_taken(ledger, chosen, pairs))
    return EXIT_OK


@command(ledger_app, "check")
def ledger_check(
    path: Annotated[Path, Argument(metavar="LEDGER", help="The ledger.")], common: Common, as_json: AsJson = False
) -> int:
    """Says whether a ledger is whole, torn at its end, or damaged, and what can be done.

    Example: promptferry ledger check ledgers/claude-37-to-35.jsonl
    """
    from engine.cli import show
    from engine.ledger.status import examine_ledger

    health = examine_ledger(path)
    show_result(health.to_json(), as_json=as_json, text=show.health(health))
    return EXIT_OK if health.usable else EXIT_ACT


@command(ledger_app, "repair")
def ledger_repair(
    path: Annotated[Path, Argument(metavar="LEDGER", help="The ledger.")],
    common: Common,
    force: Annotated[bool, Option("--force", help="Take damaged lines out, too.")] = False,
    lock_wait: LockWait = None,
    as_json: AsJson = False,
) -> int:
    """Cuts off a torn tail; with --force also takes damaged lines out. The file as it was is kept.

    Example: promptferry ledger repair ledgers/claude-37-to-35.jsonl --force
    """
    from engine.cli import show
    from engine.ledger.repair import repair

    mended = _when_free(lambda: repair(path, force=force), lock_wait)
    show_result(mended.to_json(), as_json=as_json, text=show.mended(mended))
    return EXIT_OK


@command(ledger_app, "compact")
def ledger_compact(
    path: Annotated[Path, Argument(metavar="LEDGER", help="The ledger.")],
    common: Common,
    lock_wait: LockWait = None,
    as_json: AsJson = False,
) -> int:
    """Writes a ledger anew with the lines that decide its state; the file as it was is kept.

    Example: promptferry ledger compact ledgers/claude-37-to-35.jsonl
    """
    from engine.cli import show
    from engine.ledger.repair import compact

    mended = _when_free(lambda: compact(path), lock_wait)
    show_result(mended.to_json(), as_json=as_json, text=show.mended(mended))
    return EXIT_OK


@command(ledger_app, "merge")
def ledger_merge(
    out: Annotated[Path, Argument(metavar="OUT", help="The ledger to write; it must not be there yet.")],
    ledgers: Annotated[list[Path], Argument(metavar="LEDGER...", help="Ledgers of one migration.")],
    common: Common,
    lock_wait: LockWait = None,
    as_json: AsJson = False,
) -> int:
    """Puts the ledgers of all shards together, into one with which every command works, `run` without --shard too.

    Example: promptferry ledger merge ledgers/all.jsonl ledgers/claude.*-of-8.jsonl
    """
    import time

    from engine.cli import show
    from engine.ledger.merge import merge
    from engine.session import new_run_id

    merged = _when_free(lambda: merge(out, ledgers, run=new_run_id(), now=time.time()), lock_wait)
    show_result(merged.to_json(), as_json=as_json, text=show.merged(merged))
    return EXIT_OK


def _when_free(work: Callable[[], T], lock_wait: str | None) -> T:
    """What is done to ledgers, once nobody holds them."""
    from engine.migrate.halt import Halt
    from engine.session import when_free

    seconds = waiting(lock_wait)
    return run_async(lambda: when_free(work, Halt(), seconds)) if seconds else work()


# ---- the rest --------------------------------------------------------------------------------------------------------


@command(app, "sandbox")
def sandbox(
    common: Common,
    port: Annotated[int, Option("--port", min=0, max=65535, help="0: any free one.")] = 0,
    prompts: Annotated[int, Option("--prompts", min=0, help="Prompts to seed an empty store with.")] = 200,
    seed: Annotated[int, Option("--seed", help="Another seed, another library.")] = 1,
    rate_limit: Annotated[float | None, Option("--rate-limit", min=0.001, help="Requests a second it allows.")] = None,
    rate_window: Annotated[
        float | None,
        Option("--rate-window", metavar="S", min=0.001, help="Count --rate-limit in windows of so many seconds."),
    ] = None,
    latency: Annotated[
        str | None, Option("--latency", metavar="MS or MS-MS", help="Milliseconds until an answer.")
    ] = None,
    fault: Annotated[list[str] | None, Option("--fault", metavar="NAME=PROBABILITY", help="Repeatable.")] = None,
    store: Annotated[Path | None, Option("--store", help="SQLite file that outlives it; seeded when empty.")] = None,
) -> int:
    """Serves stand-ins of Portkey, Conductor and Langfuse on 127.0.0.1 until it is stopped; the first line says where.

    Example: promptferry sandbox --prompts 500 --rate-limit 50 --fault reset_after=0.1
    """
    from engine.cli.serve import serve_sandbox

    serve_sandbox(
        port=port,
        prompts=prompts,
        seed=seed,
        rate_limit=rate_limit,
        rate_window=rate_window,
        latency=latency,
        faults=fault or [],
        store=store,
    )
    return EXIT_OK


@command(app, "schema")
def schema(common: Common) -> int:
    """Prints the JSON Schema of the migration file, for editors.

    Example: promptferry schema > migration.schema.json
    """
    import json

    from engine.config import json_schema

    say(json.dumps(json_schema(), indent=2))
    return EXIT_OK
