"""Repairs and compacts a ledger: a new file is made durable beside it and takes its place; the old one is kept."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, Final

from engine.errors import ConfigError, Stop
from engine.ledger.durable import PRIVATE, new_file, put_in_place, sync_folder
from engine.ledger.file import entries, good_entries, is_there, open_ledger, read_ledger, recover, refused
from engine.ledger.lines import RESERVED, Chain, encode_line, salvage, seal
from engine.ledger.state import State
from engine.model import Entry, Json

Line = dict[str, Json]
_EACH_RUN: Final = ("updated", "published", "rolled_back", "end")
"""What a rollback, or who looks back, needs of every run."""
_ALL: Final = ("run", "pace")
"""What says how runs went, and nothing of prompts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mended:
    """What was done. `kept`: where the file as it was lies now, empty when it was left as it is."""

    ledger: str
    lines_before: int
    lines_after: int
    kept: str = ""

    def to_json(self) -> dict[str, Any]:
        """The object of `--json`."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


def repair(path: Path, *, force: bool) -> Mended:
    """Cuts a torn tail; with `force` also takes damaged lines out and joins what is whole behind them.

    What a lost line said is found again: a run looks up every prompt that is not settled by its key. Raises what
    opening a ledger raises, and Stop `ledger_damaged` for damage without `force`.
    """
    before = read_ledger(path)
    with locked(path) as fd:
        if before.verdict.kind != "damaged":
            after = recover(path, fd)
            return Mended(ledger=str(path), lines_before=before.end.seq, lines_after=after.end.seq)
        if not force:
            raise Stop(
                "ledger_damaged",
                f"{path}: line {before.verdict.line} is damaged and whole lines stand behind it",
                next="Restore a copy; or take the damaged lines out with `promptferry ledger repair --force`, "
                "and the next run looks up what they said.",
            )
        rest = path.read_bytes()[before.end.offset :]
        lines = [*good_entries(path), *salvage(rest)]
        return _replace(path, lines, before=before.end.seq + rest.count(b"\n"), keep_as="damaged")


def compact(path: Path) -> Mended:
    """Keeps the lines that decide the state and drops the rest. Raises what opening a ledger raises."""
    with locked(path) as fd:
        found = recover(path, fd)
        lines = deciding(list(entries(path)), found.state)
        return _replace(path, lines, before=found.end.seq, keep_as="before-compact")


def deciding(lines: Sequence[Line], state: State) -> Iterator[Line]:
    """The lines whose fold is `state`, but for the attempts of replicas that are made. Pure.

    Every run is kept; of a prompt that is made the line that says so and what follows; of any other the last line of
    each kind.
    """
    last: dict[tuple[Json, ...], int] = {}
    made: dict[str, int] = {}
    for number, line in enumerate(lines):
        kind, source_id = line["kind"], line.get("source_id")
        of = line["run"] if kind in _EACH_RUN else None
        part = (line["what"], line.get("source_slug")) if "what" in line else None
        last[(kind, source_id, line.get("target_id"), line.get("source_version"), of, part)] = number
        if kind == "created":
            made[str(source_id)] = number
    keep, targets = set(last.values()), state.targets
    for number, line in enumerate(lines):
        source_id = line.get("source_id")
        record = state.records.get(str(source_id))
        over = record is not None and record.made and number < made.get(str(source_id), 0)
        replica = line["kind"] == "created" and line.get("target_id") in targets
        if line["kind"] in _ALL or (number in keep and (replica or not over)):
            yield line


@contextmanager
def locked(path: Path) -> Iterator[int]:
    """The descriptor of a ledger under its lock. Raises Stop when somebody writes it, or when the disk fails."""
    if not is_there(path):
        raise ConfigError(f"{path}: there is no ledger here: name another one")
    try:
        fd, _ = open_ledger(path)
        try:
            yield fd
        finally:
            os.close(fd)
    except OSError as exc:
        raise refused(path, exc, "written") from exc


def _replace(path: Path, lines: Iterable[Line], *, before: int, keep_as: str) -> Mended:
    """Writes the lines anew with a chain of their own, keeps the old file, and renames."""
    new = path.with_name(f"{path.name}.new")
    number = write_anew(new, lines)
    kept = next(name for n in count(1) if not (name := path.with_name(f"{path.name}.{keep_as}-{n}")).exists())
    os.link(path, kept)
    put_in_place(new, path)
    sync_folder(path.absolute().parent)
    return Mended(ledger=str(path), lines_before=before, lines_after=number, kept=str(kept))


def write_anew(path: Path, lines: Iterable[Line]) -> int:
    """Writes these lines with a chain of their own, durably but for the name; how many there are."""
    chain = Chain()
    with new_file(path, mode=PRIVATE, over=True) as file:
        for line in lines:
            fields = {name: value for name, value in line.items() if name not in RESERVED}
            data, chain = seal([encode_line(Entry(line["kind"], fields))], chain, ts=line["ts"], run=line["run"])
            file.write(data)
    return chain.seq
