"""What lies in a folder of prompts and in its subfolders, by names alone: prompts, and what is passed over.

A subfolder is the collection of the prompts in it, and a prompt's id is its path without the ending: `team/greeting`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from engine.connectors.files.store import TEMPORARY

HIDDEN: Final = "hidden"
LINKS: Final = "links to folders"
OTHERS: Final = "other endings"
_NEVER_PROMPTS: Final = (".git", ".DS_Store")
"""What every folder in git or on a Mac has, and nobody asks about."""


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A file that may be a prompt. `path` is relative to the folder; `ending`: what of it is no part of an id."""

    path: str
    ending: str

    @property
    def id(self) -> str:
        """The path without the ending."""
        return self.path[: len(self.path) - len(self.ending)]

    @property
    def listed_as(self) -> str:
        """The id, or where there is no file to be opened under that, its place so that it can be printed."""
        return self.id if self.readable and not self.path.endswith("/") else shown(self.path)

    @property
    def collection(self) -> str | None:
        """The subfolder that it lies in."""
        return self.path.rpartition("/")[0] or None

    @property
    def readable(self) -> bool:
        """Whether its name is text."""
        return _is_text(self.path)


@dataclass(slots=True)
class Tree:
    """All of it, folder by folder in the order of names."""

    files: list[FoundFile] = field(default_factory=list)
    passed: dict[str, list[str]] = field(default_factory=dict)
    """HIDDEN, LINKS or OTHERS -> relative paths."""
    closed: list[tuple[str, str]] = field(default_factory=list)
    """Subfolders that cannot be looked into, and why."""
    temporaries: list[str] = field(default_factory=list)
    """What a killed run of ours has left."""


def read_tree(root: Path, endings: Sequence[str]) -> Tree:
    """Looks into every folder under `root`; follows no link to one, so it ends. Raises OSError for `root` alone.

    `endings`: of files that may be prompts, in lower case; the first is no part of an id, the others are.
    """
    tree, folders = Tree(), [""]
    while folders:
        folder = folders.pop()
        try:
            entries = sorted(os.scandir(root / folder), key=lambda entry: entry.name)
        except OSError as error:
            if not folder:
                raise
            if not isinstance(error, FileNotFoundError):  # else somebody took it away meanwhile
                tree.closed.append((folder, error.strerror or "the system refused it"))
            continue
        inside = [name for entry in entries if (name := _sort(tree, entry, folder, endings)) is not None]
        folders += reversed(inside)
    return tree


def shown(path: str) -> str:
    """A path on one line that can be printed."""
    return path if path.isprintable() else ascii(path)


def file_of(path: str, endings: Sequence[str]) -> FoundFile | None:
    """The file at this path; None: it cannot be a prompt."""
    ending = next((one for one in endings if path.lower().endswith(one)), None)
    return None if ending is None else FoundFile(path, ending if ending == endings[0] else "")


def _sort(tree: Tree, entry: os.DirEntry[str], folder: str, endings: Sequence[str]) -> str | None:
    """Puts it where it belongs; a folder to look into is returned."""
    name, path = entry.name, f"{folder}/{entry.name}" if folder else entry.name
    if name.startswith(TEMPORARY) and name.endswith(".tmp"):
        tree.temporaries.append(path)
    elif name.startswith("."):
        if not name.startswith(_NEVER_PROMPTS):
            tree.passed.setdefault(HIDDEN, []).append(path)
    elif entry.is_dir(follow_symlinks=False):
        return path
    elif os.path.isdir(entry.path):
        tree.passed.setdefault(LINKS, []).append(path)
    elif (found := file_of(path, endings)) is not None:
        tree.files.append(found)
    else:
        tree.passed.setdefault(OTHERS, []).append(path)
    return None


def _is_text(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True
