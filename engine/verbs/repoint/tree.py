"""Which files are looked at: all under the paths that are named but what git ignores, links, and what is ours.

Rules are those of `.gitignore` in every folder up to the root of the repository, and of `.git/info/exclude`; pathspec
knows what they mean. Files that git tracks although a rule ignores them are left out as well.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Final

from pathspec import GitIgnoreSpec
from pathspec.patterns.gitignore import GitIgnorePatternError
from pathspec.patterns.gitignore.spec import GitIgnoreSpecPattern

from engine.errors import ConfigError, Problem

GIT: Final = ".git"
IGNORE: Final = ".gitignore"


@dataclass(frozen=True, slots=True)
class Trouble:
    """What could not be done with one file or folder; the others go on."""

    file: str
    message: str

    def __str__(self) -> str:
        return f"{self.file}: {self.message}"


@dataclass(frozen=True, slots=True)
class Place:
    """A file or a folder. `shown`: as the user would name it; `real`: without links, so that one file is one place."""

    shown: str
    real: str

    def under(self, name: str) -> Place:
        """What has this name in it."""
        shown = name if self.shown == os.curdir else os.path.join(self.shown, name)
        return Place(shown, os.path.join(self.real, name))


@dataclass(slots=True)
class Listing:
    """What was found under some folders."""

    files: list[Place] = field(default_factory=list)
    troubles: list[Trouble] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Rules:
    """What git ignores in a folder: from each of these folders down, the deepest has the last word."""

    specs: tuple[tuple[str, GitIgnoreSpec], ...] = ()

    def and_of(self, folder: str, lines: Sequence[str]) -> Rules:
        """With those of a file in this folder."""
        patterns = [*_patterns(lines)]
        return Rules((*self.specs, (folder, GitIgnoreSpec(patterns)))) if patterns else self

    def ignore(self, real: str, *, folder: bool) -> bool:
        """Whether git would not see it."""
        for base, spec in reversed(self.specs):
            found = spec.check_file(real[len(base) :].lstrip(os.sep) + (os.sep if folder else "")).include
            if found is not None:
                return found
        return False


def _patterns(lines: Sequence[str]) -> Iterator[GitIgnoreSpecPattern]:
    for line in lines:
        try:
            pattern = GitIgnoreSpecPattern(line)
        except GitIgnorePatternError:  # git does not mind a line that means nothing either
            continue
        if pattern.include is not None:
            yield pattern


def files_under(
    paths: Sequence[Path], pool: Executor, *, own: Callable[[str], bool], alive: Callable[[], None]
) -> Listing:
    """Every file once, ordered by its name. `own`: of a real path, whether it is left out as one of ours.

    A path that is named is looked at whether git ignores it or not. Raises ConfigError for those that are not there or
    are links.
    """
    _refuse([*_wrong(paths)])
    found = Listing()
    level: list[tuple[Place, Rules]] = []
    for path in paths:
        place = Place(str(path), os.path.realpath(path))
        if path.is_dir():
            level.append((place, _rules_above(place.real, found.troubles)))
        else:
            found.files.append(place)
    while level:
        alive()
        listed = [*pool.map(lambda one: _listed(*one), level)]
        level = [folder for _, folders in listed for folder in folders if not own(folder[0].real)]
        for inside, _ in listed:
            found.files += inside.files
            found.troubles += inside.troubles
    once = {place.real: place for place in reversed(found.files) if not own(place.real)}
    found.files = sorted(once.values(), key=lambda place: place.shown)
    return found


def _wrong(paths: Sequence[Path]) -> Iterator[Problem]:
    for path in paths:
        if path.is_symlink():
            yield Problem("is a link, and links are not followed: name what it leads to", file=str(path))
        elif not path.exists():
            yield Problem("there is no such file or folder", file=str(path))
        elif not path.is_dir() and not path.is_file():
            yield Problem("is neither a file nor a folder", file=str(path))


def _refuse(problems: list[Problem]) -> None:
    if problems:
        raise ConfigError(problems)


def _listed(folder: Place, rules: Rules) -> tuple[Listing, list[tuple[Place, Rules]]]:
    """The files of one folder, and its folders with the rules that hold there."""
    found = Listing()
    try:
        with os.scandir(folder.real) as entries:
            inside = sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        return Listing(troubles=[Trouble(folder.shown, f"cannot be read: {error.strerror}")]), []
    rules = _rules_in(folder, {entry.name: entry for entry in inside}, rules, found.troubles)
    folders = []
    for entry in inside:
        is_folder = entry.is_dir(follow_symlinks=False)
        if entry.name == GIT or not (is_folder or entry.is_file(follow_symlinks=False)):
            continue
        place = folder.under(entry.name)
        if rules.ignore(place.real, folder=is_folder):
            continue
        if is_folder:
            folders.append((place, rules))
        else:
            found.files.append(place)
    return found, folders


# ---- rules -----------------------------------------------------------------------------------------------------------


def _rules_in(folder: Place, entries: dict[str, os.DirEntry[str]], rules: Rules, troubles: list[Trouble]) -> Rules:
    """A repository in another one has only rules of its own."""
    if GIT in entries:
        rules = _excluded(folder, troubles)
    if IGNORE in entries and entries[IGNORE].is_file(follow_symlinks=False):
        rules = rules.and_of(folder.real, _lines(folder.under(IGNORE), troubles))
    return rules


def _rules_above(real: str, troubles: list[Trouble]) -> Rules:
    """Of the folders above, up to the root of the repository; none where they ignore the folder that was named."""
    above = Path(real).parents
    root = next((one for one in above if os.path.lexists(one / GIT)), None)
    if root is None or os.path.lexists(os.path.join(real, GIT)):
        return Rules()
    way = [*reversed([one for one in above if one == root or root in one.parents]), Path(real)]
    rules = _excluded(Place(str(root), str(root)), troubles)
    for folder, inside in pairwise(way):
        file = folder / IGNORE
        if file.is_file() and not file.is_symlink():
            rules = rules.and_of(str(folder), _lines(Place(str(file), str(file)), troubles))
        if rules.ignore(str(inside), folder=True):
            return Rules()
    return rules


def _excluded(root: Place, troubles: list[Trouble]) -> Rules:
    try:
        file = str(_git_folder(root) / "info" / "exclude")
        return Rules().and_of(root.real, _lines(Place(file, file), troubles) if os.path.isfile(file) else [])
    except OSError as error:
        troubles.append(Trouble(root.under(GIT).shown, f"cannot be read: {error.strerror}"))
        return Rules()


def _git_folder(root: Place) -> Path:
    """What all work trees of the repository have in common."""
    git = Path(root.real, GIT)
    if not git.is_file():
        return git
    git = Path(root.real, _text(git).removeprefix("gitdir:").strip())  # of a submodule, or of another work tree
    shared = git / "commondir"
    return git / _text(shared).strip() if shared.exists() else git


def _lines(file: Place, troubles: list[Trouble]) -> list[str]:
    try:
        return _text(Path(file.real)).removeprefix("\ufeff").replace("\r\n", "\n").split("\n")
    except OSError as error:
        troubles.append(Trouble(file.shown, f"cannot be read: {error.strerror}"))
        return []


def _text(file: Path) -> str:
    return file.read_bytes().decode("utf-8", "surrogateescape")
