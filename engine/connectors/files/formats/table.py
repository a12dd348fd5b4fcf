"""The formats of files, by their words in a migration file; the first is meant where none stands there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from engine.connectors.files.fileformat import FileFormat
from engine.connectors.files.format import read_markdown, to_markdown
from engine.connectors.files.formats.dotprompt import DOTPROMPT
from engine.connectors.files.formats.langchain.format import LANGCHAIN
from engine.connectors.files.formats.promptfoo import PROMPTFOO
from engine.connectors.files.formats.prompty import PROMPTY
from engine.model.dialect import Dialect

PROMPTFERRY: Final = FileFormat(
    name="promptferry",
    endings=(".md",),
    read=read_markdown,
    write=to_markdown,
    spares="a README is a prompt only with front matter",
    lines=True,
)
FORMATS: Final[Mapping[str, FileFormat]] = {
    one.name: one for one in (PROMPTFERRY, DOTPROMPT, PROMPTY, LANGCHAIN, PROMPTFOO)
}
DIALECTS: Final[tuple[Dialect, ...]] = tuple(one.dialect for one in FORMATS.values() if one.dialect is not None)
"""What their prompts are written in."""
