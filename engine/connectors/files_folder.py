"""Prompts in a folder, a Markdown file for each. A file is there whole, or as it was before."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from threading import Lock
from typing import Final

from engine.connectors.files_format import (
    Document,
    Unreadable,
    file_stem,
    from_markdown,
    hash_of,
    to_markdown,
)
from engine.connectors.files_store import (
    TEMPORARY,
    Written,
    gone,
    iso,
    key_of_mark,
    lock,
    missing,
    not_read,
    row_of,
    stopped,
)
from engine.disk import PUBLIC, make_folder, new_file, open_folder, put_in_place, sync, sync_folder, write_all
from engine.errors import ConfigError, Problem, Rejected, Transient
from engine.model import Row

_ENDING: Final = ".md"


class Folder:
    """`NAME.md` for each prompt. Its id is its file's name without the ending."""

    batch = 1

    def __init__(self, path: Path, *, name: str, writes: bool) -> None:
        if not path.exists():
            if not writes:
                raise missing(path, name)
            make_folder(path)
        if not path.is_dir():
            raise ConfigError([Problem("is no folder; a file must end in .jsonl", file=str(path), key=name)])
        self.path = path.resolve()
        self._rows: dict[str, tuple[tuple[int, int, int], Row | None]] = {}
        self._choosing = Lock()
        self._numbers = count(1)
        self._lock = open_folder(self.path)
        try:
            if writes:
                lock(self._lock, self.path)
                self._clean()
            rows, problems = self._listed()
            if problems:
                raise ConfigError(problems)
            self._taken = {row.id.lower(): row.id for row in rows}
        except BaseException:
            os.close(self._lock)
            raise

    def rows(self) -> list[Row]:
        """All prompts, the newest first."""
        rows, problems = self._listed()
        if problems:
            raise not_read(self.path, problems)
        return rows

    def read(self, prompt_id: str) -> tuple[Document, str]:
        """One file."""
        try:
            path = self._file(prompt_id)
            content, time = _read_file(path)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            raise gone(prompt_id) from None
        except OSError as error:
            raise Rejected(f"{prompt_id}{_ENDING} cannot be read ({error.strerror})", error="not_readable") from error
        try:
            return from_markdown(content, prompt_id), iso(time)
        except Unreadable as error:
            problem = Problem(error.message, file=str(path), line=error.line)
            raise Rejected(f"{problem}", error="not_a_prompt") from None

    def form(self, document: Document) -> bytes:
        """The file."""
        return to_markdown(document)

    def parse(self, content: bytes) -> Document:
        """The prompt of a file."""
        return from_markdown(content, "")

    def add(self, several: Sequence[Written]) -> list[str]:
        """A new file for each."""
        return [self._add(one) for one in several]

    def change(self, prompt_id: str, document: Document) -> None:
        """Another file in the place of this one, unless it is the same."""
        path, content = self._file(prompt_id), to_markdown(document)
        with self._refused():
            if path.read_bytes() != content:
                self._write(path, content)

    def remove(self, prompt_id: str) -> None:
        """No file."""
        self._file(prompt_id)
        with self._refused():
            (self.path / f"{prompt_id}{_ENDING}").unlink()
            sync(self._lock)
        self._taken.pop(prompt_id.lower(), None)

    def close(self) -> None:
        """Lets others write."""
        os.close(self._lock)

    def _add(self, one: Written) -> str:
        with self._choosing:
            prompt_id = next(stem for stem in _stems(one) if self._is_free(stem, one.key))
            new = prompt_id.lower() not in self._taken
            self._taken[prompt_id.lower()] = prompt_id
        try:
            with self._refused():
                self._write(self._file(prompt_id, new=new), one.content)
        except BaseException:
            if new:
                self._taken.pop(prompt_id.lower(), None)
            raise
        return prompt_id

    def _is_free(self, stem: str, key: str) -> bool:
        """Whether there is no such file whatever its case, or one that is the replica of this key."""
        if stem not in self._taken and not os.path.lexists(self.path / f"{stem}{_ENDING}"):
            return True
        try:
            document, _ = self.read(stem)
        except Rejected:
            return False
        return key_of_mark(document.prompt) == key

    def _file(self, prompt_id: str, *, new: bool = False) -> Path:
        """Where it stands, inside this folder. Raises Gone, and Rejected for a link that leads out of it."""
        name = f"{prompt_id}{_ENDING}"
        if not prompt_id or prompt_id.startswith(".") or "/" in prompt_id or "\\" in prompt_id or "\0" in prompt_id:
            raise gone(prompt_id)
        path = self.path / name
        try:
            if new or os.path.lexists(path):
                return _inside(self.path, path)
        except (OSError, UnicodeError):
            pass  # a name that no disk can hold
        raise gone(prompt_id)

    def _write(self, path: Path, content: bytes) -> None:
        """Whole or not at all, whatever happens in between."""
        temporary = path.with_name(f"{TEMPORARY}{os.getpid()}-{next(self._numbers)}.tmp")
        try:
            with new_file(temporary, mode=PUBLIC) as file:
                write_all(file.fileno(), content)
            put_in_place(temporary, path)
        except OSError as error:
            raise stopped(self.path, error) from Transient("nothing was written", error="disk")
        sync_folder(path.parent)

    @contextmanager
    def _refused(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise stopped(self.path, error) from error

    def _clean(self) -> None:
        for entry in os.scandir(self.path):
            if entry.name.startswith(TEMPORARY) and entry.name.endswith(".tmp"):
                os.unlink(entry.path)

    def _listed(self) -> tuple[list[Row], list[Problem]]:
        """Newest first; of one time, in the order of their names backwards."""
        found: list[tuple[int, Row]] = []
        problems: list[Problem] = []
        for entry in sorted(os.scandir(self.path), key=lambda entry: entry.name):
            if not entry.name.endswith(_ENDING) or entry.name.startswith("."):
                continue
            try:
                if (one := self._row(entry)) is not None:
                    found.append(one)
            except Unreadable as error:
                problems.append(Problem(error.message, file=entry.path, line=error.line))
            except Rejected as error:
                problems.append(Problem(str(error)))
            except UnicodeEncodeError:
                problems.append(Problem("has a name that is not UTF-8; rename it", file=ascii(entry.path)))
            except FileNotFoundError:
                if entry.is_symlink():
                    problems.append(Problem("is a link to nothing; take it out", file=entry.path))
            except OSError as error:
                problems.append(Problem(f"cannot be read ({error.strerror})", file=entry.path))
        found.sort(key=lambda one: (one[0], one[1].id), reverse=True)
        return [row for _, row in found], problems

    def _row(self, entry: os.DirEntry[str]) -> tuple[int, Row] | None:
        prompt_id = entry.name.encode().decode().removesuffix(_ENDING)
        path = _inside(self.path, Path(entry.path))
        stats = path.stat()
        stamp = (stats.st_mtime_ns, stats.st_size, stats.st_ino)
        known = self._rows.get(prompt_id)
        if known is None or known[0] != stamp:
            content, _ = _read_file(path)
            if prompt_id.lower() == "readme" and not content.startswith((b"---", b"\xef\xbb\xbf---")):
                known = (stamp, None)
            else:
                known = (stamp, row_of(from_markdown(content, prompt_id).prompt, iso(stats.st_mtime_ns)))
            self._rows[prompt_id] = known
        return (stats.st_mtime_ns, known[1]) if known[1] is not None else None


def _stems(one: Written) -> Iterator[str]:
    yield file_stem(one.name)
    for digits in (6, 16, 64):
        yield file_stem(one.name, hash_of(one.source_id, digits))
    yield file_stem(one.name, one.key)


def _inside(folder: Path, path: Path) -> Path:
    """The file itself, where links lead. Raises Rejected when that is not in the folder."""
    if not path.is_symlink():
        return path
    real = Path(os.path.realpath(path))
    if not real.is_relative_to(folder):
        raise Rejected(f"{path} is a link that leads out of the folder; put the file itself there", error="outside")
    return real


def _read_file(path: Path) -> tuple[bytes, int]:
    """Its bytes and its time of change. Raises OSError; no pipe or device is opened."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(errno.EINVAL, "it is no file")
    with open(path, "rb") as file:
        return file.read(), os.fstat(file.fileno()).st_mtime_ns
