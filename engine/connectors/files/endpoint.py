"""What a migration file says of prompts in files."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field, PlainValidator, ValidationInfo, WithJsonSchema, field_validator

from engine.connectors.endpoint import Endpoint
from engine.connectors.fields import plain, surroundings
from engine.connectors.files.fileformat import FileFormat
from engine.connectors.files.formats.table import FORMATS
from engine.connectors.files.tree import file_of
from engine.model import Abilities, Json


@dataclass(frozen=True, slots=True)
class FilesPath:
    """Where prompts are kept in files: as the migration file says it, and absolute."""

    written: str
    path: Path


def _files_path(value: Json, info: ValidationInfo) -> FilesPath:
    if not isinstance(value, str) or not value.isprintable():
        raise ValueError("must be the path of a .jsonl file or of a directory")
    return FilesPath(plain(value), Path(os.path.abspath(surroundings(info).folder / value)))


Files = Annotated[FilesPath, PlainValidator(_files_path), WithJsonSchema({"type": "string"})]
"""A .jsonl file or a directory."""


class FilesEndpoint(Endpoint):
    """A `.jsonl` file or a folder."""

    needed: ClassVar[Mapping[str, str]] = {"path": "prompts.jsonl, or prompts for a directory"}

    kind: Literal["files"] = Field(default="files", description="What kind of registry it is.")
    path: Files | None = Field(default=None, description="A .jsonl file or a directory.", examples=["prompts"])
    format: Literal["promptferry", "dotprompt", "prompty", "langchain", "promptfoo"] = Field(
        default="promptferry",
        description="How prompts are written in the files of a directory: as we do, or as other tools read them.",
    )

    @field_validator("format")
    @classmethod
    def _of_a_folder(cls, value: str, info: ValidationInfo) -> str:
        path = info.data.get("path")
        if value != "promptferry" and path is not None and path.path.suffix == ".jsonl":
            raise ValueError(f"{value} has no .jsonl files: name a directory, or leave the format out")
        return value

    @property
    def file_format(self) -> FileFormat:
        """What it stands for."""
        return FORMATS[self.format]

    @property
    def identity(self) -> str:
        """A directory may hold files of several formats, which have nothing to do with each other."""
        return super().identity if self.format == "promptferry" else f"{self.kind} {self.format} {self.url}"

    def able(self, can: Abilities) -> Abilities:
        """In another format than ours prompts are written in its dialect."""
        return replace(can, dialect=self.file_format.dialect)

    def reads(self, file: Path) -> bool:
        """The file of lines, or one in the folder whose name is a prompt's."""
        place, file = Path(os.path.realpath(self.place)), Path(os.path.realpath(file))
        if place == file:
            return True
        of_lines = self.file_format.lines and self.place.suffix == ".jsonl"
        inside = file.relative_to(place) if not of_lines and file.is_relative_to(place) else None
        if inside is None or any(part.startswith(".") for part in inside.parts):
            return False
        return file_of(inside.as_posix(), self.file_format.endings) is not None

    @property
    def place(self) -> Path:
        """The absolute path."""
        assert self.path is not None  # it is required
        return self.path.path

    @property
    def url(self) -> str:
        """The path as it is written."""
        return self.path.written if self.path is not None else ""
