"""A tree of source code in which old ids were planted: `python -m tests.verbs.planted FOLDER` makes the large one.

The map is FOLDER.csv; what was planted is FOLDER.planted.json, as `repoint --json` finds it.
"""

from __future__ import annotations

import csv
import json
import random
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from engine.ledger.status import ID_FIELDS

_WORDS: Final = (
    "return self request client prompts render variables await async import from const function export class value "
    "result error config model temperature max_tokens message content user assistant system “quoted” größe 标题"
).split()
_BESIDE: Final = "xß0_-é"


@dataclass(frozen=True)
class Planted:
    """The map, and where its old ones stand: file, line, column, old, new."""

    rows: Sequence[dict[str, str]]
    found: Sequence[tuple[str, int, int, str, str]]
    look_alikes: int

    def write_map(self, path: Path) -> None:
        """As `ids` writes it."""
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, ID_FIELDS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(self.rows)


def rows_of(count: int, chance: random.Random) -> list[dict[str, str]]:
    """So many ids and slugs together; names stand in no file."""
    return [
        {
            "source_id": f"{chance.getrandbits(32):08x}-{chance.getrandbits(16):04x}-4abc-8def-{number:012x}",
            "source_slug": f"pp-{chance.choice(_KINDS)}-{number:x}{chance.getrandbits(20):05x}",
            "target_id": f"{chance.getrandbits(32):08x}-{chance.getrandbits(16):04x}-4abc-9def-{number:012x}",
            "target_slug": f"pp-{chance.choice(_KINDS)}-replica-{chance.getrandbits(24):06x}-{number:x}",
            "source_name": f"Prompt number {number}",
            "name": f"Prompt number {number}-replica",
            "source_version": "1",
            "target_version": "1",
        }
        for number in range(count // 2)
    ]


_KINDS: Final = ("support", "sales", "legal", "hr")


def plant(root: Path, *, files: int, ids: int, look_alikes: int, seed: int = 1) -> Planted:
    """Every id stands in at least one file; a look-alike is one with a letter, digit, `-` or `_` on one side."""
    chance = random.Random(seed)
    rows = rows_of(ids, chance)
    pairs = [(row[f"source_{part}"], row[f"target_{part}"]) for row in rows for part in ("id", "slug")]
    wanted: list[list[tuple[str, str | None]]] = [[] for _ in range(files)]
    for old, new in [*pairs, *chance.choices(pairs, k=files)]:
        chance.choice(wanted).append((old, new))
    for _ in range(look_alikes):
        old, beside = chance.choice(pairs)[0], chance.choice(_BESIDE)
        chance.choice(wanted).append((chance.choice((old + beside, beside + old)), None))
    found = []
    for number, tokens in enumerate(wanted):
        suffix, write = _FORMS[number % len(_FORMS)]
        path = root / f"package{number % 97}" / f"part{number % 7}" / f"file{number}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        text, codec = write(chance, [token for token, _ in tokens])
        path.write_bytes(text.encode(codec))
        found += _places(f"{path.relative_to(root)}", text, tokens)
    return Planted(rows, found, look_alikes)


def _places(file: str, text: str, tokens: Sequence[tuple[str, str | None]]) -> list[tuple[str, int, int, str, str]]:
    """Tokens stand in the text in their order."""
    places, end = [], 0
    for token, new in tokens:
        start = text.index(token, end)
        end = start + len(token)
        if new is not None:
            before = text[:start].removeprefix("\ufeff").split("\n")
            places.append((file, len(before), len(before[-1]) + 1, token, new))
    return places


# ---- kinds of file ---------------------------------------------------------------------------------------------------


def _prose(chance: random.Random, token: str) -> list[str]:
    lines = [" ".join(chance.choices(_WORDS, k=8)) for _ in range(chance.randrange(10, 60))]
    return [*lines, token]


def _by_line(form: str, *, end: str = "\n", codec: str = "utf-8", mark: str = "") -> Callable[..., tuple[str, str]]:
    def write(chance: random.Random, tokens: Sequence[str]) -> tuple[str, str]:
        lines = [line for token in tokens for line in _prose(chance, form % token)] or _prose(chance, "")
        text = mark + end.join(lines) + end
        return text.encode(codec, "ignore").decode(codec), codec

    return write


def _notebook(chance: random.Random, tokens: Sequence[str]) -> tuple[str, str]:
    cells = [{"cell_type": "code", "source": [*_prose(chance, f"run('{one}')")], "outputs": []} for one in tokens]
    return json.dumps({"cells": cells, "nbformat": 4}, indent=1, ensure_ascii=False), "utf-8"


def _minified(chance: random.Random, tokens: Sequence[str]) -> tuple[str, str]:
    parts = [f'function f(){{{";".join(_prose(chance, ""))}}}a="{one}"' for one in tokens]
    return ";".join(parts) + ";" + "(function(){})();" * 400, "utf-8"


_FORMS: Final[Sequence[tuple[str, Callable[[random.Random, Sequence[str]], tuple[str, str]]]]] = (
    (".py", _by_line('    prompt_id="%s",')),
    (".ts", _by_line("  await portkey.prompts.render(`%s`);")),
    (".yaml", _by_line("prompt: %s")),
    (".env", _by_line("PROMPT=%s")),
    ("-crlf.cs", _by_line('var id = "%s";', end="\r\n", mark="\ufeff")),
    (".json", _by_line('{"url": "/v1/prompts/%s/completions"},')),
    (".ipynb", _notebook),
    (".min.js", _minified),
    ("-16.txt", _by_line("id %s.", codec="utf-16-le", mark="\ufeff")),
    ("-16be.reg", _by_line("[%s]", codec="utf-16-be", mark="\ufeff", end="\r\n")),
    ("-32.txt", _by_line("(%s)", codec="utf-32-le", mark="\ufeff")),
    ("-latin.php", _by_line("$id = '%s'; // größe", codec="latin-1")),
)


def main(folder: str, files: int = 20_000, ids: int = 3_000, look_alikes: int = 500) -> None:
    """Makes the tree, its map, and what is to be found."""
    planted = plant(Path(folder), files=files, ids=ids, look_alikes=look_alikes)
    planted.write_map(Path(f"{folder}.csv"))
    found: list[Any] = sorted(planted.found)
    Path(f"{folder}.planted.json").write_text(json.dumps(found), encoding="utf-8")
    print(f"{files} files, {len(found)} planted, {look_alikes} look-alikes")


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
