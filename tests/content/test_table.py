"""What is written as CSV is read again as it was."""

from __future__ import annotations

import csv
import io

import pytest

from engine.content.table import as_table

COLUMNS = ("id", "name")


@pytest.mark.parametrize(
    "name", ["plain", "a, b", 'a "b"', "a\rb", "a\nb", "a\r\nb", "\r", "\n", " a ", "a\0b", "a\u2028b", "=cmd|' /C'!A0"]
)
def test_a_cell_comes_back_whatever_is_in_it(name: str) -> None:
    text = as_table(COLUMNS, [{"id": "1", "name": name}, {"id": "2"}])
    assert list(csv.reader(io.StringIO(text, newline=""), strict=True)) == [[*COLUMNS], ["1", name], ["2", ""]]
    assert text.startswith("id,name\n1,")
    assert text.endswith("\n2,\n")
