"""`repoint` over a tree: finds what is old in every file, and with `write` puts the new in its place."""

from __future__ import annotations

import errno
import os
import stat
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final

from engine.errors import EXIT_DIFFERENT, EXIT_OK, EXIT_UNFINISHED
from engine.ledger.durable import PRIVATE, new_file, put_in_place
from engine.verbs.repoint.search import Hit, Search, places, replaced
from engine.verbs.repoint.table import Kind, Pair, Table
from engine.verbs.repoint.text import Text, may_be_text, text_of
from engine.verbs.repoint.tree import Place, Trouble, files_under

_THREADS: Final = 4
_TOGETHER: Final = 64
"""Files for one thread at a time: to hand over each of them would cost more than most take."""
_HEAD: Final = 8192
_OWN: Final = (b'{"v":1,"seq":', b'{"promptferry_plan":')
"""How ledgers and plans begin: their old ids are what they tell of."""


@dataclass(frozen=True, slots=True)
class Found:
    """An old one. Line and column count from 1, the column in characters; `new` null: one of several. `perhaps`: a name
    that nobody asked for, which may be any word.
    """

    file: str
    line: int
    column: int
    old: str
    new: str | None
    news: tuple[str, ...]
    kind: Kind
    rewritten: bool
    perhaps: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Repointed:
    """All that was found, and what became of it. `files`: that were looked through; `left_out`: that are no text, or
    ledgers and plans.
    """

    found: Sequence[Found]
    files: int
    left_out: int
    troubles: Sequence[Trouble]
    table: Table

    @property
    def left(self) -> list[Found]:
        """What is still old, as far as anybody can tell."""
        return [one for one in self.found if not one.rewritten and not one.perhaps]

    @property
    def perhaps(self) -> int:
        """How many names were found that may be any word."""
        return sum(one.perhaps for one in self.found)

    def exit_code(self, *, write: bool, check: bool) -> int:
        """Something old that is left is what was asked for; else what could not be done."""
        if check and self.left:
            return EXIT_DIFFERENT
        return EXIT_UNFINISHED if self.troubles or (write and self.left) else EXIT_OK

    def to_json(self) -> dict[str, Any]:
        """The object of `repoint --json`."""
        rewritten = Counter(one.file for one in self.found if one.rewritten)
        return {
            "found": [asdict(one) for one in self.found],
            "counts": {
                "files": self.files,
                "left_out": self.left_out,
                "found": len(self.found) - self.perhaps,
                "perhaps": self.perhaps,
                "rewritten": rewritten.total(),
                "left": len(self.left),
                "rewritten_files": len(rewritten),
            },
            "troubles": [asdict(one) for one in self.troubles],
            "only_with_names": self.table.words,
        }


def repoint(
    paths: Sequence[Path],
    table: Table,
    *,
    write: bool,
    own: Iterable[Path] = (),
    alive: Callable[[], None] = lambda: None,
) -> Repointed:
    """Looks through everything under `paths`, in threads. `own`: files and folders that are left out; of a ledger also
    what lies beside it.

    `alive` is called between files, and may raise to end it: every file is then as it was, or whole with the new ones.
    Raises ConfigError for paths that cannot be looked at.
    """
    search = Search(table.pairs)
    left_out = {os.path.realpath(path) for path in own}
    with ThreadPoolExecutor(_THREADS) as pool:
        tree = files_under(paths, pool, own=lambda real: _is_own(real, left_out), alive=alive)
        results: list[_Result] = []
        for some in pool.map(lambda files: [_looked(one, search, write=write) for one in files], _cut(tree.files)):
            alive()
            results += some
    return Repointed(
        found=[found for result in results for found in result.found],
        files=sum(result.searched for result in results),
        left_out=sum(not result.searched and result.trouble is None for result in results),
        troubles=[*tree.troubles, *(result.trouble for result in results if result.trouble is not None)],
        table=table,
    )


def _is_own(real: str, left_out: set[str]) -> bool:
    """Or what lies beside a ledger, which is called by its name and more."""
    ledger, beside, _ = real.rpartition(os.sep)[2].partition(".jsonl.")
    return real in left_out or bool(beside and os.path.join(os.path.dirname(real), f"{ledger}.jsonl") in left_out)


def _cut(files: Iterable[Place]) -> Iterator[list[Place]]:
    rest = iter(files)
    while some := [*islice(rest, _TOGETHER)]:
        yield some


# ---- one file --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Result:
    found: Sequence[Found] = ()
    searched: bool = False
    trouble: Trouble | None = None


def _looked(file: Place, search: Search, *, write: bool) -> _Result:
    try:
        data, status = _read(file.real)
    except OSError as error:
        return _Result(trouble=Trouble(file.shown, f"cannot be read: {error.strerror}"))
    if data is None or (text := text_of(data)) is None:
        return _Result()
    view = text.view
    if not (hits := search.find(view)):
        return _Result(searched=True)
    trouble = _rewrite(file, text, hits, status) if write else None
    done = write and trouble is None
    found = [_found(file, place, hit.pair, done=done) for hit, place in zip(hits, places(view, hits), strict=True)]
    return _Result(found, searched=True, trouble=trouble)


def _found(file: Place, place: tuple[int, int], pair: Pair, *, done: bool) -> Found:
    rewritten = done and pair.instead is not None
    return Found(file.shown, *place, pair.old, pair.new, pair.news, pair.kind, rewritten, pair.perhaps)


def _read(real: str) -> tuple[bytes | None, os.stat_result]:
    """None: its first bytes say that it is no text, or ours; the rest was not read."""
    with open(os.open(real, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:
        status = os.fstat(file.fileno())
        head = file.read(_HEAD)
        if head.startswith(_OWN) or not may_be_text(head):
            return None, status
        return head + file.read(), status


def _rewrite(file: Place, text: Text, hits: Sequence[Hit], before: os.stat_result) -> Trouble | None:
    """Puts a new file in the place of the old one, with its mode and owner. Returns what is wrong: then it stays."""
    news = [hit.pair.instead for hit in hits if hit.pair.instead is not None]
    if not news:
        return None
    if not all(map(text.may_hold, news)):
        return Trouble(file.shown, "is not rewritten: nobody can tell in which encoding the new name would have to be")
    try:
        _replace(file.real, text.encoded(replaced(text.text, hits)), before)
    except OSError as error:
        return Trouble(file.shown, f"cannot be rewritten: {error.strerror}")
    return None


def _replace(real: str, data: bytes, before: os.stat_result) -> None:
    new = Path(os.path.dirname(real), f".promptferry-{os.getpid()}-{before.st_ino}.tmp")
    with new_file(new, mode=PRIVATE, over=True) as opened:
        opened.write(data)
        made = os.fstat(opened.fileno())
        if (made.st_uid, made.st_gid) != (before.st_uid, before.st_gid):
            os.fchown(opened.fileno(), before.st_uid, before.st_gid)
        os.fchmod(opened.fileno(), stat.S_IMODE(before.st_mode))
        now = os.lstat(real)
        if (now.st_ino, now.st_size, now.st_mtime_ns) != (before.st_ino, before.st_size, before.st_mtime_ns):
            raise OSError(errno.ESTALE, "somebody changed it meanwhile; run it again")
    put_in_place(new, Path(real))
