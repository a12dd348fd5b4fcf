"""What lies in a folder of prompts and in its subfolders, by names alone: prompts, and what is passed over.

A subfolder is the collection of the prompts in it, and a prompt's id is its path without the ending: `team/greeting`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from engine.connectors.files.store import TEMPORARY

ENDING: Final = ".md"
HIDDEN: Final = "hidden"
LINKS: Final = "links to folders"
OTHERS: Final = f"not {ENDING}"
_NEVER_PROMPTS: Final = (".git", ".DS_Store")
"""What every folder in git or on a Mac has, and nobody asks about."""


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A file that may be a prompt. `path` is relative to the folder."""

    path: str

    @property
    def id(self) -> str:
        """The path without the ending."""
        return self.path[: -len(ENDING)]

    @property
    def listed_as(self) -> str:
        """The id, or where there is no file to be opened under that, its place so that it can be printed."""
        return self.id if self.readable and not self.path.endswith("/") else shown(self.path)

    @property
    def is_readme(self) -> bool:
        """Whether it may be a word about the folder and no prompt."""
        return self.path.rpartition("/")[2].lower() == f"readme{ENDING}"

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


def read_tree(root: Path) -> Tree:
    """Looks into every folder under `root`; follows no link to one, so it ends. Raises OSError for `root` alone."""
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
        inside = [name for entry in entries if (name := _sort(tree, entry, folder)) is not None]
        folders += reversed(inside)
    return tree


def shown(path: str) -> str:
    """A path on one line that can be printed."""
    return path if path.isprintable() else ascii(path)


def _sort(tree: Tree, entry: os.DirEntry[str], folder: str) -> str | None:
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
    elif name.lower().endswith(ENDING):
        tree.files.append(FoundFile(path))
    else:
        tree.passed.setdefault(OTHERS, []).append(path)
    return None


def _is_text(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True
