"""What a format of files is: which files it reads, what of a prompt it keeps, and how it writes one. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from engine.connectors.files.format import Document, file_stem
from engine.content.digest import CONTENT
from engine.model.dialect import Dialect


@dataclass(frozen=True, slots=True, kw_only=True)
class FileFormat:
    """One format. New files hold one prompt each; files of others may hold several, or be none of the format."""

    name: str
    """Its word in a migration file."""
    endings: tuple[str, ...]
    """Of its files, in lower case; new ones have the first, which is no part of an id."""
    read: Callable[[bytes, str, Mapping[str, Dialect]], Sequence[Document]] = field(repr=False)
    """The prompts of a file with this id, each with its own id; none: it was never meant to be one. Raises Unreadable
    with the line; no message holds any of the content.
    """
    write: Callable[[Document], bytes] = field(repr=False)
    """The file. The same prompt is the same bytes. Raises ValueError for what would not come back as it is."""
    spares: str
    """Why some of its files are passed over."""
    dialect: Dialect | None = None
    """What its prompts are written in; without one they are kept as they come."""
    fields: frozenset[str] = frozenset({*CONTENT, "extra", "labels"})
    """The fields of Prompt that have a place."""
    stem: Callable[[str, str], str] = field(default=file_stem, repr=False)
    """Of a new file for a prompt of this name; the second text, if any, tells it from others of that name."""
    lines: bool = False
    """A path that ends in .jsonl is a file of lines."""

    @property
    def said_endings(self) -> str:
        """As people say them."""
        *most, last = self.endings
        return f"{', '.join(most)} or {last}" if most else last

    def file_name(self, prompt_id: str) -> str:
        """Of a new file."""
        return f"{prompt_id}{self.endings[0]}"
