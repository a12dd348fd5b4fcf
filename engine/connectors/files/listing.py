"""What the files of a folder are: prompts with their rows, and all that is no prompt, with the reason."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from engine.connectors.files.fileformat import FileFormat
from engine.connectors.files.format import Document, Unreadable
from engine.connectors.files.store import iso, row_of, several
from engine.connectors.files.tree import HIDDEN, LINKS, OTHERS, FoundFile, Tree, read_tree, shown
from engine.errors import Problem, Rejected
from engine.model import Row
from engine.model.dialect import Dialect

_PASSED: Final = {
    HIDDEN: "passed over, because they are hidden",
    LINKS: "passed over, because links to folders are not followed",
}
_CHATS: Final = (
    "taken for one text though they look like chats, because they do not say so: write `chat: spaced` in their front "
    "matter and a line such as --- user --- before each message, or move the text to `string:` in the front matter"
)


@dataclass(slots=True)
class FolderListing:
    """A folder as it was found. What is no prompt though it should be one has a row as well, under its path."""

    rows: list[tuple[int, Row]] = field(default_factory=list)
    """With their times of change, in nanoseconds."""
    paths: dict[str, str] = field(default_factory=dict)
    """Id -> path in the folder."""
    problems: list[Problem] = field(default_factory=list)
    """Why it is not whole."""
    closed: dict[str, Problem] = field(default_factory=dict)
    """Id of a row -> why there is no file to be opened under it."""
    temporaries: Sequence[str] = ()
    notes: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class _Seen:
    """What a file held when it was read. `stamp`: its time of change and what else tells whether it was changed."""

    stamp: tuple[int, int, int]
    held: Sequence[_Held] = ()
    """None: it is no prompt, see `problem`; and without one it is passed over."""
    problem: Problem | None = None


@dataclass(frozen=True, slots=True)
class _Held:
    """A prompt of a file."""

    row: Row
    collection: str | None
    """As the file itself says."""
    like_chat: int | None


class Reader:
    """Lists a folder; what was not changed since is not read again.

    `whole`: the listing is of a target, where replicas are looked for: it is worth nothing when a file of the folder
    itself cannot be read. In a subfolder, where we put no replicas, such a file is nobody's concern.
    """

    def __init__(self, root: Path, *, whole: bool, dialects: Mapping[str, Dialect], format: FileFormat) -> None:
        self._root = root
        self._whole = whole
        self._dialects = dialects
        self._format = format
        self._seen: dict[str, _Seen] = {}

    def read(self) -> FolderListing:
        """All of it as it is now. Raises OSError when the folder itself cannot be looked into."""
        tree = read_tree(self._root, self._format.endings)
        listing, remarks = FolderListing(temporaries=tree.temporaries), _Remarks()
        for found in tree.files:
            self._take(found, listing, remarks)
        for folder, why in tree.closed:
            problem = Problem(f"cannot be looked into ({why}): mend its rights", file=str(self._root / folder))
            self._fail(FoundFile(f"{folder}/", ""), problem, listing, remarks)
        listing.notes = list(remarks.sentences(tree, self._format))
        return listing

    def _take(self, found: FoundFile, listing: FolderListing, remarks: _Remarks) -> None:
        file = self._root / found.path
        try:
            seen = self._look(found)
        except (Rejected, OSError) as error:
            if (problem := _problem(error, file)) is not None:
                self._fail(found, problem, listing, remarks)
            return
        if seen.problem is not None:
            self._fail(found, seen.problem, listing, remarks, time=seen.stamp[0])
        elif not seen.held:
            remarks.spared.append(shown(found.path))
        for one in seen.held:
            if (other := listing.paths.setdefault(one.row.id, found.path)) != found.path:
                listing.problems.append(Problem(f"has the id of {shown(other)}: rename one of them", file=str(file)))
            else:
                listing.rows.append((seen.stamp[0], one.row))
                remarks.of(found, one)

    def _look(self, found: FoundFile) -> _Seen:
        if not found.readable:
            raise Rejected(f"{found.path!a} has a name that is not UTF-8; rename it", error="not_readable")
        file = inside(self._root, self._root / found.path)
        stats = file.stat()
        stamp = (stats.st_mtime_ns, stats.st_size, stats.st_ino)
        seen = self._seen.get(found.path)
        if seen is None or seen.stamp != stamp:
            content, _ = read_file(file)
            seen = self._seen[found.path] = self._held(found, content, stamp)
        return seen

    def _held(self, found: FoundFile, content: bytes, stamp: tuple[int, int, int]) -> _Seen:
        try:
            documents = self._format.read(content, found.id, self._dialects)
        except Unreadable as error:
            return _Seen(stamp, problem=Problem(error.message, file=str(self._root / found.path), line=error.line))
        held = [
            _Held(row_of(collected(one, found.collection).prompt, iso(stamp[0])), one.prompt.collection, one.like_chat)
            for one in documents
        ]
        return _Seen(stamp, held)

    def _fail(
        self, found: FoundFile, problem: Problem, listing: FolderListing, remarks: _Remarks, *, time: int = 0
    ) -> None:
        """A source lists it under its place, so that it fails by name and the others go."""
        if self._whole:
            if "/" not in found.path:
                listing.problems.append(problem)
            return
        if time:
            listing.paths[found.id] = found.path
        else:
            listing.closed[found.listed_as] = problem
        row = Row(
            id=found.listed_as,
            name=shown(found.path),
            collection=found.collection if found.readable else None,
            updated_at=iso(time) if time else None,
        )
        listing.rows.append((time, row))
        remarks.broken.append(shown(found.path) + (f":{problem.line}" if problem.line else ""))


@dataclass(slots=True)
class _Remarks:
    """What is to be said of a folder."""

    spared: list[str] = field(default_factory=list)
    """Files that are no prompts though their ending says so, and were never meant to be."""
    broken: list[str] = field(default_factory=list)
    chats: list[str] = field(default_factory=list)
    elsewhere: list[str] = field(default_factory=list)
    """Files that name another collection than the one that their folder is."""
    named: dict[str, list[str]] = field(default_factory=dict)
    """Name of a prompt -> the files that have it."""

    def of(self, found: FoundFile, held: _Held) -> None:
        """Of a prompt."""
        self.named.setdefault(held.row.name, []).append(shown(found.path))
        if held.like_chat is not None:
            self.chats.append(f"{shown(found.path)}:{held.like_chat}")
        if found.collection is not None and held.collection not in (None, found.collection):
            self.elsewhere.append(shown(found.path))

    def sentences(self, tree: Tree, format: FileFormat) -> Iterator[str]:
        """All of it, each kind counted and named."""
        others = f"passed over, because prompts are files that end in {format.said_endings}"
        words_of = {OTHERS: others, **_PASSED}
        passed = ((words, [shown(path) for path in tree.passed.get(kind, ())]) for kind, words in words_of.items())
        twins = [" = ".join(paths) for paths in self.named.values() if len(paths) > 1]
        for words, names in (
            *passed,
            (f"passed over, because {format.spares}", self.spared),
            (f"that are no prompts, though they end in {format.said_endings}, and fail by name", self.broken),
            ("that name another collection than their folder, and what they name counts", self.elsewhere),
            (_CHATS, self.chats),
            ("that have one name inside, and each file is a prompt of its own", twins),
        ):
            if names:
                yield f"files {words} ({len(names)}): {several(names)}"


def collected(document: Document, folder: str | None) -> Document:
    """The same; of the collection that its subfolder is, when it names none."""
    if folder is None or document.prompt.collection is not None:
        return document
    return replace(document, prompt=replace(document.prompt, collection=folder))


def inside(folder: Path, path: Path) -> Path:
    """The file itself, where links lead. Raises Rejected when that is not in the folder."""
    real = Path(os.path.realpath(path))
    if not real.is_relative_to(folder):
        raise Rejected(f"{path} is a link that leads out of the folder; put the file itself there", error="outside")
    return real


def read_file(path: Path) -> tuple[bytes, int]:
    """Its bytes and its time of change. Raises OSError; no pipe or device is opened."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(errno.EINVAL, "it is no file")
    with open(path, "rb") as file:
        return file.read(), os.fstat(file.fileno()).st_mtime_ns


def _problem(error: Rejected | OSError, file: Path) -> Problem | None:
    """What is wrong with a file that was not read; None: somebody took it away meanwhile."""
    if isinstance(error, Rejected):
        return Problem(str(error))
    if isinstance(error, FileNotFoundError):
        return Problem("is a link to nothing; take it out", file=str(file)) if file.is_symlink() else None
    return Problem(f"cannot be read ({error.strerror})", file=str(file))
