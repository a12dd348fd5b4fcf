"""What a migration file says of prompts in files."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field, PlainValidator, ValidationInfo, WithJsonSchema

from engine.connectors.endpoint import Endpoint
from engine.connectors.fields import plain, surroundings
from engine.model import Json


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

    @property
    def place(self) -> Path:
        """The absolute path."""
        assert self.path is not None  # it is required
        return self.path.path

    @property
    def url(self) -> str:
        """The path as it is written."""
        return self.path.written if self.path is not None else ""
