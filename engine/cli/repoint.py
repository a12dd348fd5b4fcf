"""`repoint`: old ids in source code and configuration."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from engine import __version__
from engine.cli.commands import AsJson, Collection, IdsFile, Only, app, chosen_by, show_result
from engine.cli.common import Common, command, note, run_async, write_file
from engine.errors import ConfigError

if TYPE_CHECKING:
    from engine.verbs.repoint.maps import IdsMap
    from engine.verbs.repoint.rewriting import Repointed
    from engine.verbs.repoint.table import Table

_SHOWN = 3


@command(app, "repoint")
def repoint(
    paths: Annotated[list[Path], Argument(metavar="PATH", help="Files and folders.", show_default=False)],
    common: Common,
    migration: Annotated[
        Path | None, Option("--migration", metavar="FILE", help="The migration file, whose ledger has the map.")
    ] = None,
    map_file: Annotated[
        Path | None, Option("--map", metavar="FILE", help="The map as `ids` writes it: csv, json or env.")
    ] = None,
    only: Only = None,
    collection: Collection = None,
    ids_file: IdsFile = None,
    names: Annotated[
        bool, Option("--names", help="Names are as good as ids: --write and --check mean them, too.")
    ] = False,
    write: Annotated[bool, Option("--write", help="Put the new ones in their place.")] = False,
    check: Annotated[bool, Option("--check", help="Exit 3 when an old one is left.")] = False,
    reverse: Annotated[bool, Option("--reverse", help="Back from the new ones to the old ones.")] = False,
    sarif: Annotated[Path | None, Option("--sarif", help="Write what is left to this file, as SARIF 2.1.0.")] = None,
    as_json: AsJson = False,
) -> int:
    """Finds old ids, slugs and names in source code and configuration: file:line:column (characters, from 1), old, new.

    A name may be any word: without --names it is shown as one that perhaps is old, and neither rewritten nor counted.
    An id that is the name of its prompt counts always, and is rewritten with --names.

    The map is that of --migration, --ledger or --map. Whole tokens only: a letter, digit, - or _ beside it makes it
    another one. Left out: what git ignores, binary files, links, and the map, migration file, ledgers and plans
    themselves. A file that cannot be read is told, and ends it with 1.

    Example: promptferry repoint src/ config/ --migration migration.yaml --write
    """
    from anyio import from_thread, to_thread

    from engine.cli import show
    from engine.verbs.repoint.rewriting import repoint as over
    from engine.verbs.repoint.table import table_of

    found_map, own = _map(common, migration, map_file, (only, collection, ids_file))
    if reverse and not found_map.spelled:
        raise ConfigError(f"{map_file}: a map for an environment does not have the old ids: give it as csv or json")
    table = table_of(found_map.rows, names=names, reverse=reverse)
    own += [path for path in (sarif, ids_file) if path is not None]
    work = partial(over, paths, table, write=write, own=own, alive=from_thread.check_cancelled)
    note(_notes(table, spelled=found_map.spelled, write=write))  # before the work, which may be interrupted
    done: Repointed = run_async(lambda: to_thread.run_sync(work))
    for trouble in done.troubles:
        print(f"error: {trouble}", file=sys.stderr)
    if sarif is not None:
        _write_sarif(sarif, done)
    show_result(done.to_json(), as_json=as_json, text=show.repointed(done, write=write))
    return done.exit_code(write=write, check=check)


def _map(
    common: Common,
    migration: Path | None,
    map_file: Path | None,
    chosen: tuple[list[str] | None, list[str] | None, Path | None],
) -> tuple[IdsMap, list[Path]]:
    """The map, and the files that have the old ids because they tell of them. Raises ConfigError."""
    from engine.config import files_of
    from engine.ledger.status import read_ids_map
    from engine.verbs.repoint.maps import IdsMap, read_map

    if map_file is not None:
        if migration is not None or common.ledger is not None:
            raise ConfigError("--map: is the map already; leave out --migration and --ledger")
        if any(chosen):
            raise ConfigError(
                "--only, --collection and --ids-file: go with --migration or --ledger; a map is chosen by `ids`"
            )
        return read_map(map_file), [map_file]
    path = migration or common.ledger
    if path is None:
        raise ConfigError("say what is old and new: --migration FILE, --ledger FILE or --map FILE")
    ledger = common.ledger_of(path)
    own = [ledger, *(files_of(migration) if migration is not None else ())]
    return IdsMap(tuple(read_ids_map(ledger, chosen_by(*chosen)))), own


def _notes(table: Table, *, spelled: bool, write: bool) -> Iterator[str]:
    """What is not done, and what is to be minded."""
    if write and table.words:
        yield f"rewritten with --names only, because the id of a prompt is its name: {_some(table.words)}"
    if not spelled:
        yield "a map for an environment has no old ids: slugs were looked for in lower case with dashes"
    if write and table.chained:
        yield f"both old and new, so that a second --write would replace what this one wrote: {_some(table.chained)}"
    if table.unclear:
        yield f"never replaced, because several prompts have that name: {_some([one.old for one in table.unclear])}"


def _some(texts: Sequence[str]) -> str:
    more = f" and {len(texts) - _SHOWN} more" if len(texts) > _SHOWN else ""
    return ", ".join(map(repr, texts[:_SHOWN])) + more


def _write_sarif(file: Path, done: Repointed) -> None:
    from engine.lossless_json import encode
    from engine.verbs.repoint.sarif import MOST, sarif

    write_file(file, encode(sarif(done.left, root=os.getcwd(), version=__version__)), f"--sarif {file}", over=True)
    if len(done.left) > MOST:
        note([f"{file}: has {len(done.left):,} results, and GitHub takes {MOST:,}"])
