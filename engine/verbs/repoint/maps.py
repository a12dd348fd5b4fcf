"""The map in a file, as `ids` writes it: CSV, JSON, or lines for an environment."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from engine.content.textfile import NotText, read_text
from engine.errors import ConfigError, Problem
from engine.verbs.repoint.table import SIDES, Row

_VARIABLE: Final = re.compile(r"(?:export\s+)?PROMPT_([A-Z0-9_]+)=(\S.*)")
_NO_MAP: Final = "is no map as `promptferry ids` writes it, in CSV, JSON or for an environment"
_IDS: Final = tuple(side[:2] for side in SIDES)


@dataclass(frozen=True, slots=True)
class IdsMap:
    """Rows as `ids` has them. `spelled`: with the old ids; an environment has only what can be told from its names."""

    rows: tuple[Row, ...]
    spelled: bool = True


def read_map(path: Path) -> IdsMap:
    """Raises ConfigError with every line that is none of a map."""
    try:
        text = read_text(path)
    except NotText as error:
        raise ConfigError([Problem(str(error), file=str(path), line=error.line)]) from None
    spelled = True
    if text.lstrip().startswith("["):
        found = [*_from_json(path, text)]
    elif set(_IDS[0] + _IDS[1]) & set(next(csv.reader(io.StringIO(text)), [])):
        found = [*_from_csv(path, text)]
    else:
        found, spelled = [*_from_environment(text)], False
    if wrong := [number for number, row in found if not _is_row(row)]:
        raise ConfigError([Problem(_NO_MAP, file=str(path), line=number) for number in wrong])
    return IdsMap(tuple(row for _, row in found), spelled)


def _is_row(row: Any) -> bool:
    if not isinstance(row, dict) or not all(isinstance(row.get(part) or "", str) for side in SIDES for part in side):
        return False
    return all(any(row.get(part) for part in side) for side in _IDS)


def _from_json(path: Path, text: str) -> Iterator[tuple[int | None, Any]]:
    try:
        rows = json.loads(text)
    except (ValueError, RecursionError):
        raise ConfigError([Problem(_NO_MAP, file=str(path))]) from None
    return ((None, row) for row in rows)


def _from_csv(path: Path, text: str) -> Iterator[tuple[int | None, Any]]:
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        for row in reader:
            yield reader.line_num, row
    except csv.Error:
        raise ConfigError([Problem(_NO_MAP, file=str(path), line=reader.line_num + 1)]) from None


def _from_environment(text: str) -> Iterator[tuple[int | None, Any]]:
    """The slug as its variable tells it: lower case with dashes. Without a dash it may be any word, as a name may."""
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip() and not line.startswith("#"):
            yield number, _of_variable(line.strip())


def _of_variable(line: str) -> Row | None:
    if (found := _VARIABLE.fullmatch(line)) is None:
        return None
    old = found[1].lower().replace("_", "-")
    return {"source_slug": old, "source_name": None if "-" in old else old, "target_slug": found[2]}
