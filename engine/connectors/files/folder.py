"""Prompts in a folder and its subfolders, a file for each. A file is there whole, or as it was before."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import count
from pathlib import Path
from threading import Lock

from engine.connectors.files.fileformat import FileFormat
from engine.connectors.files.format import Document, Unreadable, hash_of
from engine.connectors.files.listing import FolderListing, Reader, collected, inside, read_file
from engine.connectors.files.store import (
    TEMPORARY,
    Written,
    gone,
    iso,
    key_of_mark,
    lock_store,
    missing,
    not_read,
    stopped,
)
from engine.connectors.files.tree import file_of
from engine.errors import ConfigError, Problem, Rejected, Transient
from engine.ledger.durable import PUBLIC, make_folder, new_file, open_folder, put_in_place, sync_folder, write_all
from engine.model import Row
from engine.model.dialect import Dialect


class Folder:
    """A file for each prompt. Its id is its file's path without the ending; new ones are put into the folder itself. A
    file that others wrote may hold several, with ids that say which; those are read, and never changed.

    A prompt in a subfolder that names no collection is of the one that is called as the subfolder.
    """

    batch = 1

    def __init__(
        self, path: Path, *, name: str, writes: bool, dialects: Mapping[str, Dialect], format: FileFormat
    ) -> None:
        if not path.exists():
            if not writes:
                raise missing(path, name)
            make_folder(path)
        if not path.is_dir():
            what = "a file must end in .jsonl" if format.lines else "name the folder that it is in"
            raise ConfigError([Problem(f"is no folder; {what}", file=str(path), key=name)])
        self.path = path.resolve()
        self._dialects = dialects
        self._format = format
        self._reader = Reader(self.path, whole=name == "target", dialects=dialects, format=format)
        self._choosing = Lock()
        self._numbers = count(1)
        self._lock = open_folder(self.path)
        try:
            if writes:
                lock_store(self._lock, self.path)
            self._listing = self._reader.read()
            if writes:
                self._clean(self._listing)
            if self._listing.problems:
                raise ConfigError(self._listing.problems)
            self._taken = {row.id.lower(): row.id for _, row in self._listing.rows}
        except BaseException:
            os.close(self._lock)
            raise

    def rows(self) -> list[Row]:
        """All prompts, the newest first; of one time, in the order of their ids backwards."""
        listing = self._listing = self._reader.read()
        if listing.problems:
            raise not_read(self.path, listing.problems)
        found = sorted(listing.rows, key=lambda one: (one[0], one[1].id), reverse=True)
        return [row for _, row in found]

    def notes(self) -> Sequence[str]:
        """Of the last listing."""
        return self._listing.notes

    def collections(self) -> set[str]:
        """Of the last listing."""
        return {row.collection for _, row in self._listing.rows if row.collection is not None}

    def read(self, prompt_id: str) -> tuple[Document, str]:
        """One file."""
        if (problem := self._listing.closed.get(prompt_id)) is not None:
            raise Rejected(str(problem), error="not_readable")
        try:
            path = self._file(prompt_id)
            content, time = read_file(path)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            raise gone(prompt_id) from None
        except OSError as error:
            raise Rejected(f"{path.name} cannot be read ({error.strerror})", error="not_readable") from error
        document = self._document(prompt_id, content, path)
        return collected(document, _folder_of(prompt_id)), iso(time)

    def _document(self, prompt_id: str, content: bytes, path: Path) -> Document:
        """The prompt of that id. Raises Gone, and Rejected when the file is none."""
        try:
            documents = self._format.read(content, self._stem(prompt_id), self._dialects)
        except Unreadable as error:
            problem = Problem(error.message, file=str(path), line=error.line)
            raise Rejected(f"{problem}", error="not_a_prompt") from None
        found = next((one for one in documents if one.prompt.id == prompt_id), None)
        if found is None:
            raise gone(prompt_id)
        return found

    def _stem(self, prompt_id: str) -> str:
        """The id of its file: its own, unless that holds several."""
        path = self._listing.paths.get(prompt_id)
        found = file_of(path, self._format.endings) if path is not None else None
        return found.id if found is not None else prompt_id

    def _names_collection(self, content: bytes) -> bool:
        """Whether the file itself says which."""
        try:
            return self.parse(content).prompt.collection is not None
        except Unreadable:
            return True

    def form(self, document: Document) -> bytes:
        """The file."""
        return self._format.write(document)

    def parse(self, content: bytes) -> Document:
        """The prompt of a file."""
        return self._format.read(content, "", self._dialects)[0]

    def add(self, several: Sequence[Written]) -> list[str]:
        """A new file for each."""
        return [self._add(one) for one in several]

    def change(self, prompt_id: str, document: Document) -> None:
        """Another file in the place of this one, unless it is the same; a collection that its folder says stays so."""
        with self._refused():
            path = self._alone(prompt_id)
            there = path.read_bytes()
            folder = _folder_of(prompt_id)
            if folder is not None and document.prompt.collection == folder and not self._names_collection(there):
                document = replace(document, prompt=replace(document.prompt, collection=None))
            content = self._format.write(document)
            if there != content:
                self._write(path, content)

    def remove(self, prompt_id: str) -> None:
        """No file."""
        with self._refused():
            self._alone(prompt_id)
            path = self._path(prompt_id)
            path.unlink()
            sync_folder(path.parent)
        self._taken.pop(prompt_id.lower(), None)

    def close(self) -> None:
        """Lets others write."""
        os.close(self._lock)

    def _add(self, one: Written) -> str:
        with self._choosing:
            prompt_id = next(stem for stem in self._stems(one) if self._is_free(stem, one.key))
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

    def _stems(self, one: Written) -> Iterator[str]:
        yield self._format.stem(one.name, "")
        for digits in (6, 16, 64):
            yield self._format.stem(one.name, hash_of(one.source_id, digits))
        yield self._format.stem(one.name, one.key)

    def _is_free(self, stem: str, key: str) -> bool:
        """Whether there is no such file whatever its case, or one that is the replica of this key."""
        if stem not in self._taken and not os.path.lexists(self.path / self._format.file_name(stem)):
            return True
        try:
            document, _ = self.read(stem)
        except Rejected:
            return False
        return key_of_mark(document.prompt) == key

    def _file(self, prompt_id: str, *, new: bool = False) -> Path:
        """Where it stands, inside this folder. Raises Gone, and Rejected for a link that leads out of it."""
        if "\0" in prompt_id or any(not part or part.startswith(".") for part in prompt_id.split("/")):
            raise gone(prompt_id)
        path = self._path(prompt_id)
        try:
            if new or os.path.lexists(path):
                return inside(self.path, path)
        except (OSError, UnicodeError):
            pass  # a name that no disk can hold
        raise gone(prompt_id)

    def _alone(self, prompt_id: str) -> Path:
        """Where it stands. Raises Rejected when other prompts stand in the same file, which are not ours to touch, and
        for a file of another shape than we write.
        """
        path = self._file(prompt_id)
        if self._stem(prompt_id) != prompt_id:
            message = (
                f"{path.name} holds several prompts, and a file of one alone is changed: split it, and run it again"
            )
            raise Rejected(message, error="several_prompts")
        ending = self._format.endings[0]
        if not path.name.lower().endswith(ending) or self._document(prompt_id, path.read_bytes(), path).loose:
            message = f"{path.name} is read and never changed: only a file {ending} as it is written here is"
            raise Rejected(message, error="other_shape")
        return path

    def _path(self, prompt_id: str) -> Path:
        """As it was listed: an ending may be in capitals."""
        return self.path / self._listing.paths.get(prompt_id, self._format.file_name(prompt_id))

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

    def _clean(self, listing: FolderListing) -> None:
        for path in listing.temporaries:
            (self.path / path).unlink()


def _folder_of(prompt_id: str) -> str | None:
    """The subfolder that it is in."""
    return prompt_id.rpartition("/")[0] or None
