"""`report`: one page of what a ledger says."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

from typer import Option

from engine.cli.commands import AsJson, Either, InShard, Shards, app, shard_by
from engine.cli.common import Common, command, is_migration, is_stdout, say, write_file
from engine.errors import EXIT_OK, ConfigError
from engine.ledger.durable import PRIVATE, make_folder

if TYPE_CHECKING:
    from engine.config import Planned
    from engine.web.view import Beside

Html = Annotated[Path | None, Option("--html", metavar="FILE", help="Write the page to this file.")]


@command(app, "report")
def report(
    path: Either,
    common: Common,
    html: Html = None,
    shard: InShard = None,
    shards: Shards = None,
    as_json: AsJson = False,
) -> int:
    """Writes one page, which loads nothing: the books, what did not arrive and what to do, every prompt, how it went.

    Takes what the ledger says, also while a run writes it. The page holds names and ids, and never the text of a
    template or a key; for your eyes only (0600), until you send it. --json prints what is on it.

    Example: promptferry report migration.yaml --html report.html
    """
    from engine.web.report import read_report

    if html is None and not as_json:
        raise ConfigError("report: give --html FILE for the page, or --json for its data")
    ledger = common.ledger_of(path, shard_by(shard, shards))
    if html is not None:
        _check_place(html, (path, ledger))
    found = read_report(ledger, beside_of(path), now=time.time())
    if html is not None:
        write_file(html, found.html(), f"--html {html}", over=True, mode=PRIVATE)
    if as_json:
        say(found.json().decode())
    elif html is not None and not is_stdout(html):
        say(f"wrote {html}: {found.title}")
    if found.refusal is not None:
        raise found.refusal
    return EXIT_OK


def write_fleet(name: str, ledgers: Sequence[Planned], html: Path | None) -> dict[str, Any]:
    """Writes the pages of a fleet, where there is a place for them, and gives what is on the first of them. One
    migration is read after the other: their rows are not held together.
    """
    from engine.config import console_of
    from engine.web.fleet import Row, fleet_page, reasons, totals
    from engine.web.report import read_report
    from engine.web.view import Beside

    if html is not None and html.suffix.lower() not in (".html", ".htm"):
        raise ConfigError(
            f"--html {html}: must end with .html, for the pages of its migrations lie in a folder beside it"
        )
    now, rows = time.time(), []
    for one in ledgers:
        found = read_report(one.ledger, Beside(console=console_of), now=now, alone=False)
        link = ""
        if html is not None and found.news.there:
            own = html.parent / html.stem / f"{one.name}.html"
            _make_folder(own.parent)
            write_file(own, found.html(), f"--html {own}", over=True, mode=PRIVATE)
            link = f"./{quote(os.fsencode(html.stem))}/{quote(one.name)}.html"
        rows.append(Row(name=one.name, summary=found.summary(), link=link))
    if html is not None:
        write_file(html, fleet_page(name, rows, now=now), f"--html {html}", over=True, mode=PRIVATE)
    migrations = [{"name": row.name, **row.summary} for row in rows]
    return {"fleet": name, "counts": totals(rows), "reasons": reasons(rows), "migrations": migrations}


def _make_folder(folder: Path) -> None:
    try:
        make_folder(folder)
    except OSError as error:
        raise ConfigError(f"{folder}: this folder cannot be made: {error.strerror}") from error


def _check_place(html: Path, read: tuple[Path, ...]) -> None:
    """Raises ConfigError for a page over what it is made from."""
    for one in read:
        if os.path.exists(html) and os.path.exists(one) and os.path.samefile(html, one):
            raise ConfigError(f"--html {html}: this is what the page is made from; name another file")


def beside_of(path: Path) -> Beside:
    """What the page has that is in no ledger: of a migration file its rules, and its name in commands."""
    from engine.config import console_of, told_rules
    from engine.web.view import Beside

    if not is_migration(path) or not os.path.isfile(path):  # a pipe has told what it had
        return Beside(console=console_of)
    return Beside(asked=told_rules(path), command=shlex.quote(str(path)), console=console_of)
