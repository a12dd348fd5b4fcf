"""Prompts in one file, a line for each: newer lines stand behind older ones until the end sorts them."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock
from typing import Final

from engine import lossless_json as wire
from engine.connectors.files.format import Document, Unreadable, from_line, named_in_line, to_line
from engine.connectors.files.store import (
    MOST_PROBLEMS,
    TEMPORARY,
    Written,
    gone,
    in_use,
    iso,
    key_of_mark,
    missing,
    row_of,
    several,
    stopped,
)
from engine.content.textfile import BOM, other_encoding
from engine.errors import ConfigError, Problem, Rejected, Transient
from engine.ledger import durable as disk
from engine.ledger.durable import PUBLIC, NotAFile, new_file, put_in_place, sync, sync_data, sync_folder, write_all
from engine.log import log
from engine.model import Prompt, Row
from engine.model.dialect import Dialect

_OUR_LINE: Final = b'{"id":'


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a line stands in the file."""

    offset: int
    length: int
    number: int
    replaces: bool
    key: str | None
    row: Row
    problem: str | None = None
    """Why it is no prompt, though it should be one."""


class Lines:
    """A line for each prompt. While it is written, newer lines stand behind older ones of the same id."""

    batch = 50

    def __init__(self, path: Path, *, name: str, writes: bool, dialects: Mapping[str, Dialect]) -> None:
        if not path.exists() and not writes:
            raise missing(path, name)
        self.path = path.resolve()
        if self.path.is_dir():
            raise ConfigError(
                [Problem("is a folder; name a file, or a folder without .jsonl", file=str(path), key=name)]
            )
        self._writes = writes
        self._dialects = dialects
        self._whole = name == "target"
        self._writing = Lock()
        self._places: dict[str, _Place] = {}
        self._count = 0
        self._old = 0
        """Lines that no longer count."""
        self._fd = _open_locked(self.path) if writes else os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            if writes:
                self._temporary.unlink(missing_ok=True)
            self._load()
        except BaseException:
            os.close(self._fd)
            raise

    def rows(self) -> list[Row]:
        """The newest line first. All have the time of the file."""
        with self._writing:
            time = iso(os.fstat(self._fd).st_mtime_ns)
            return [place.row._replace(updated_at=time) for place in reversed(self._places.values())]

    def notes(self) -> list[str]:
        """The lines that are no prompts."""
        broken = [place.number for place in self._places.values() if place.problem is not None]
        told = several([f"{self.path.name}:{number}" for number in sorted(broken)])
        return [f"lines that are no prompts, and fail by name ({len(broken)}): {told}"] if broken else []

    def collections(self) -> set[str]:
        """All that lines name."""
        return {place.row.collection for place in self._places.values() if place.row.collection is not None}

    def read(self, prompt_id: str) -> tuple[Document, str]:
        """One line."""
        place = self._places.get(prompt_id)
        if place is None:
            raise gone(prompt_id)
        if place.problem is not None:
            raise Rejected(place.problem, error="not_a_prompt")
        try:
            line = os.pread(self._fd, place.length, place.offset)
            return from_line(line, place.number, self._dialects), iso(os.fstat(self._fd).st_mtime_ns)
        except (OSError, Unreadable) as error:
            message = f"{self.path}:{place.number}: was changed while it was read; run it again"
            raise Rejected(message, error="not_a_prompt") from error

    def form(self, document: Document) -> bytes:
        """The line."""
        return to_line(document)

    def parse(self, content: bytes) -> Document:
        """The prompt of a line."""
        return from_line(content, 1, self._dialects)

    def add(self, several: Sequence[Written]) -> list[str]:
        """Their lines, written and synced at once."""
        with self._writing:
            new: dict[str, str] = {}
            documents = []
            for one in several:
                prompt_id = next(name for name in _ids(one) if self._is_free(name, one.key, new))
                replaces = prompt_id in self._places or prompt_id in new
                new[prompt_id] = one.key
                document = self.parse(one.content)
                documents.append(replace(document, prompt=replace(document.prompt, id=prompt_id), replaces=replaces))
            self._append(documents)
            return [document.prompt.id for document in documents]

    def change(self, prompt_id: str, document: Document) -> None:
        """A newer line, unless it says the same."""
        with self._writing:
            place = self._places[prompt_id]
            newer = replace(document, replaces=place.replaces)
            if to_line(newer) != os.pread(self._fd, place.length, place.offset):
                self._append([replace(document, replaces=True)])

    def remove(self, prompt_id: str) -> None:
        """A line that says so."""
        with self._writing:
            if prompt_id not in self._places:
                raise gone(prompt_id)
            self._append([Document(prompt=Prompt(id=prompt_id, name="", text=""), deleted=True)])

    def close(self) -> None:
        """Sorts what was written into a new file, which takes the place of this one."""
        try:
            if self._writes and (self._old or list(self._places) != self._sorted()):
                self._sort()
        except OSError as error:
            raise stopped(self.path, error) from error
        finally:
            os.close(self._fd)

    @property
    def _temporary(self) -> Path:
        return self.path.with_name(f"{TEMPORARY}{self.path.name}.tmp")

    def _is_free(self, prompt_id: str, key: str, new: Mapping[str, str]) -> bool:
        """Whether there is no such id, or that of the replica of this key. `new`: ids and keys that are to be added."""
        place = self._places.get(prompt_id)
        return new.get(prompt_id, place.key if place is not None else key) == key

    def _sorted(self) -> list[str]:
        return sorted(self._places, key=lambda prompt_id: prompt_id.encode("utf-8", "surrogatepass"))

    def _sort(self) -> None:
        mode = stat.S_IMODE(os.fstat(self._fd).st_mode)
        with new_file(self._temporary, mode=PUBLIC, over=True) as file:
            os.fchmod(file.fileno(), mode)
            for prompt_id in self._sorted():
                place = self._places[prompt_id]
                line = os.pread(self._fd, place.length, place.offset)
                if place.replaces:
                    line = to_line(replace(from_line(line, place.number, self._dialects), replaces=False))
                file.write(line if line.endswith(b"\n") else line + b"\n")
        put_in_place(self._temporary, self.path)
        sync_folder(self.path.parent)

    def _append(self, documents: Sequence[Document]) -> None:
        lines = [to_line(document) for document in documents]
        size = os.fstat(self._fd).st_size
        try:
            write_all(self._fd, b"".join(lines))
            sync_data(self._fd)
        except OSError as error:
            try:
                os.ftruncate(self._fd, size)
            except OSError:
                raise stopped(self.path, error) from error
            raise stopped(self.path, error) from Transient("nothing was written", error="disk")
        for document, line in zip(documents, lines, strict=True):
            self._place(document, size, len(line))
            size += len(line)

    def _place(self, document: Document, offset: int, length: int) -> None:
        prompt = document.prompt
        self._count += 1
        self._old += (self._places.pop(prompt.id, None) is not None) + document.deleted
        if not document.deleted:
            key = key_of_mark(prompt)
            self._places[prompt.id] = _Place(offset, length, self._count, document.replaces, key, row_of(prompt, None))

    def _load(self) -> None:
        problems: list[Problem] = []
        offset, torn = 0, False
        with open(self._fd, "rb", closefd=False) as file:
            if (other := other_encoding(file.peek(4))) is not None:
                raise ConfigError([Problem(other, file=str(self.path), line=1)])
            for line in file:
                if torn := not line.endswith(b"\n") and _is_torn(line):
                    break
                text = line.removeprefix(BOM)  # in front of the file, or of one that was put behind another
                self._load_line(text, offset + len(line) - len(text), problems)
                offset += len(line)
        if problems:
            raise ConfigError(problems[:MOST_PROBLEMS])
        if torn:
            self._leave_torn(offset)
        if self._writes and offset and os.pread(self._fd, 1, offset - 1) != b"\n":
            write_all(self._fd, b"\n")

    def _load_line(self, line: bytes, offset: int, problems: list[Problem]) -> None:
        number = self._count + 1
        if not line.strip():
            self._count += 1
            return
        try:
            document = from_line(line, number, self._dialects)
        except Unreadable as error:
            self._fail(Problem(error.message, file=str(self.path), line=number), line, offset, problems)
            return
        if not (document.replaces or document.deleted):
            self._check_id(document.prompt.id, number, problems)
        self._place(document, offset, len(line))

    def _check_id(self, prompt_id: str, number: int, problems: list[Problem]) -> None:
        if (there := self._places.get(prompt_id)) is not None:
            message = f"has the id of line {there.number}; give one of them another id, or take one out"
            problems.append(Problem(message, file=str(self.path), line=number))

    def _fail(self, problem: Problem, line: bytes, offset: int, problems: list[Problem]) -> None:
        """A source lists it under its id, or its place, so that it fails by name and the others go."""
        self._count += 1
        if self._whole:
            problems.append(problem)
            return
        prompt_id, name = named_in_line(line)
        place = f"{self.path.name}:{self._count}"
        self._check_id(prompt_id or place, self._count, problems)
        row = Row(id=prompt_id or place, name=name or place)
        self._places[row.id] = _Place(offset, len(line), self._count, False, None, row, str(problem))

    def _leave_torn(self, offset: int) -> None:
        log.warning("files.torn", path=str(self.path), line=self._count + 1, cut=self._writes)
        if self._writes:
            os.ftruncate(self._fd, offset)
            sync(self._fd)


def _is_torn(line: bytes) -> bool:
    """Whether it is the beginning of a line of ours: anything else is not ours to cut."""
    if not (line.startswith(_OUR_LINE) or _OUR_LINE.startswith(line)):
        return False
    try:
        wire.decode(line, finite=False)
    except wire.NotKept:
        return False
    except ValueError:
        return True
    return False


def _ids(one: Written) -> Iterator[str]:
    yield one.source_id
    yield f"{one.source_id}-{one.key[:6]}"
    yield f"{one.source_id}-{one.key}"


def _open_locked(path: Path) -> int:
    try:
        fd, _ = disk.open_locked(path, mode=PUBLIC)
    except NotAFile:
        raise ConfigError([Problem("is no file; name another place", file=str(path))]) from None
    except BlockingIOError:
        raise in_use(path) from None
    return fd
