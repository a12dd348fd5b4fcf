"""Tables as CSV, which every reader takes apart as they were put together. Pure."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

_END: Final = "\r\n"
"""With one character of it, csv would leave the other one unquoted in a cell, where readers end the row."""


class _Line:
    """Gives back what csv writes to it."""

    def write(self, line: str) -> str:
        return line.removesuffix(_END) + "\n"


def as_table(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    """A line for the names of the columns, and one for each row; what a row does not have is empty."""
    writer = csv.writer(_Line(), lineterminator=_END)
    cells = ([row.get(name) for name in columns] for row in rows)
    return "".join(map(writer.writerow, (columns, *cells)))
