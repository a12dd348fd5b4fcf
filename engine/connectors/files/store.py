"""What a folder of prompts and a file of lines have in common: what they promise, and how they speak to the disk.

These functions block; the connector calls them in threads. What the disk refuses is Stop; when surely nothing was
written, its cause is Transient.
"""

from __future__ import annotations

import errno
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Protocol

from engine.connectors.files.format import Document
from engine.content.digest import read_mark
from engine.errors import ConfigError, Gone, Problem, Stop
from engine.ledger import durable as disk
from engine.model import Prompt, Row

TEMPORARY: Final = ".promptferry-"
_ROOM: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
MOST_PROBLEMS: Final = 20
_MOST_NAMED: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What is to be put there: whose replica it is, and its bytes as `form` made them."""

    key: str
    source_id: str
    name: str
    slug: str | None
    content: bytes


class Store(Protocol):
    """Where prompts are kept. `batch`: how many are put there at once.

    What is no prompt does not keep the others of a source from being read: it is listed under its place, and `read`
    says what is wrong with it. A target is read whole or not at all, for it could be a replica of ours.
    """

    path: Path
    batch: int

    def rows(self) -> list[Row]:
        """All prompts, newest first. Raises Stop that names every file and line that keeps it from being whole."""
        ...

    def notes(self) -> Sequence[str]:
        """Sentences on what the last listing passed over, or could not make sense of."""
        ...

    def collections(self) -> set[str]:
        """Those that prompts of the last listing are of."""
        ...

    def read(self, prompt_id: str) -> tuple[Document, str]:
        """A prompt, and when it was written. Raises Gone, or Rejected when it is no prompt by now."""
        ...

    def form(self, document: Document) -> bytes:
        """Its bytes. Raises ValueError for what would not come back as it is."""
        ...

    def parse(self, content: bytes) -> Document:
        """What `form` was given."""
        ...

    def add(self, several: Sequence[Written]) -> list[str]:
        """Their ids. A prompt of the same key is replaced, no other one. Raises Stop."""
        ...

    def change(self, prompt_id: str, document: Document) -> None:
        """Replaces what is there. Raises Stop."""
        ...

    def remove(self, prompt_id: str) -> None:
        """Takes it away. Raises Stop."""
        ...

    def close(self) -> None:
        """Ends the writing. May be called once. Raises Stop."""
        ...


def key_of_mark(prompt: Prompt) -> str | None:
    """The key of the replica that it is, if it is one."""
    mark = read_mark(prompt.metadata, prompt.description)
    return mark.key if mark is not None else None


def row_of(prompt: Prompt, updated_at: str | None) -> Row:
    """What a listing says of it."""
    return Row(
        id=prompt.id,
        name=prompt.name,
        slug=prompt.slug or prompt.id,
        collection=prompt.collection,
        model=prompt.model,
        updated_at=updated_at,
        whole=True,
    )


def iso(nanoseconds: int) -> str:
    """ISO 8601 in UTC with milliseconds."""
    seconds, rest = divmod(nanoseconds // 1_000_000, 1000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest:03}Z"


def several(names: Sequence[str]) -> str:
    """The first few of them, and how many more there are."""
    rest = len(names) - _MOST_NAMED
    return ", ".join(names[:_MOST_NAMED]) + (f" and {rest} more" if rest > 0 else "")


def gone(prompt_id: str) -> Gone:
    """There is no such prompt."""
    return Gone(f"there is no prompt {prompt_id}", error="gone", status=404)


def not_read(path: Path, problems: Collection[Problem]) -> Stop:
    """A listing that would not be whole."""
    told = "\n".join(str(problem) for problem in list(problems)[:MOST_PROBLEMS])
    return Stop("check_failed", f"{path} was not read whole:\n{told}", next="Mend these files or take them out of it.")


def stopped(path: Path, error: OSError) -> Stop:
    """What the disk's refusal means for the run."""
    why = error.strerror or "the system refused it"
    what = "Make room on the disk" if error.errno in _ROOM else "Mend the disk or the rights on it"
    return Stop("disk", f"{path} cannot be written ({why})", next=f"{what}, then run the same command again.")


def lock_store(fd: int, path: Path) -> None:
    """For as long as `fd` is open, no other run writes there. Raises Stop when one does."""
    try:
        disk.lock(fd)
    except BlockingIOError:
        raise in_use(path) from None


def in_use(path: Path) -> Stop:
    """Another run writes there."""
    message = f"{path}: another run is writing there"
    return Stop("ledger_in_use", message, next="Wait until it ends, then run the same command again.")


def missing(path: Path, name: str) -> ConfigError:
    """A source that is not there."""
    return ConfigError([Problem("is not there: mend the path of the migration file", file=str(path), key=name)])
