"""The fleet file: many migrations in one. Each is a migration file's keys, laid over defaults or filled into them.

`{column}` is filled in by text before anything is checked, so a problem is told where a person has to mend it: in the
defaults, in an item of the list, or in a line of the CSV.
"""

from __future__ import annotations

import csv
import difflib
import itertools
import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, Field, StrictInt, ValidationError, WithJsonSchema

from engine.config.complaints import Complaint, complaints
from engine.config.fields import PLACEHOLDERS, FileName, is_file_name
from engine.config.migration import Migration
from engine.config.yamlfile import Place, YamlFile, dotted, read_yaml
from engine.connectors.endpoint import Part
from engine.connectors.fields import Surroundings
from engine.content.selection import takes
from engine.content.shard import Shard, shard_of
from engine.content.textfile import NotText, read_text
from engine.errors import ConfigError, Problem
from engine.model import Json

PARALLEL: Final = 4
NAMED: Final = 10
"""Names that a message gives."""
SOURCES: Final = ("migrations", "matrix", "csv")
"""Keys that a fleet has one of, and a migration none."""
_COLUMN: Final = re.compile(r"[^\W\d][\w .-]*")
_FILLED: Final = re.compile(r"(?<!\$)\{\{[^{}]*\}\}|(?<!\$)\{([^\W\d][\w .|-]*)\}")
"""What stands in braces; a name in double ones is a variable of a prompt, and behind a $ one of the environment."""


def _single(value: Json) -> Json:
    if value is None or isinstance(value, dict | list):
        raise ValueError("must be a text, a number, true or false")
    return value


_Single = Annotated[Any, AfterValidator(_single), WithJsonSchema({"type": "string"})]


class FleetFile(Part):
    """Many migrations in one go: defaults, and what is different in each."""

    name: FileName = Field(description="Names the fleet and the folder of its ledgers: ledgers/FLEET/NAME.jsonl.")
    defaults: dict[str, Any] = Field(default={}, description="Keys of a migration file that hold for all.")
    migrations: tuple[dict[str, Any], ...] = Field(
        default=(), description="A name and keys for each migration, laid deeply over the defaults; null takes one out."
    )
    matrix: dict[str, tuple[_Single, ...]] = Field(
        default={}, description="Keys and their values: a migration for each combination, {key} filled in."
    )
    csv: str | None = Field(default=None, description="File with a migration in each row, {column} filled in.")
    parallel: StrictInt = Field(default=PARALLEL, ge=1, description="Migrations at a time.")
    stop_on: tuple[Literal[1, 3, 4, 75], ...] = Field(
        default=(), description="Exit codes of a migration that end the others, too; left out: none."
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """A fleet file as it was read."""

    name: str
    migrations: tuple[Migration, ...]
    parallel: int
    stop_on: frozenset[int]
    folder: Path
    """Of the ledgers."""

    @property
    def secrets(self) -> frozenset[str]:
        """Every secret in clear text: for the log."""
        return frozenset().union(*(one.secrets for one in self.migrations))

    def only(self, globs: Sequence[str]) -> Fleet:
        """Those whose name one of these globs takes; all of them where there is none. Raises ConfigError."""
        names = picked([one.name for one in self.migrations], globs)
        return replace(self, migrations=tuple(one for one in self.migrations if one.name in names))

    def of_shard(self, shard: Shard) -> Fleet:
        """The migrations that are this shard's, each whole and with its own ledger. Raises ConfigError where two shards
        would make the same thing.
        """
        makers: dict[str, Migration] = {}
        for one in self.migrations:
            first = makers.setdefault(one.ends[1].identity, one) if one.create_missing else one
            if shard_of(first.name, shard.count) != shard_of(one.name, shard.count):
                raise ConfigError(
                    f"create_missing: {first.name} and {one.name} are of two shards and write to one workspace, where "
                    "both would make what both need: make what `promptferry fleet plan` lists there and take "
                    "create_missing out, or run them without --shard"
                )
        return replace(self, migrations=tuple(one for one in self.migrations if shard.takes(one.name)))

    def sharing(self, count: int) -> Fleet:
        """See `Migration.sharing`."""
        return replace(self, migrations=tuple(one.sharing(count) for one in self.migrations))


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """A migration of a fleet, before its keys are checked: its name, and where its ledger lies."""

    name: str
    ledger: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    """One migration as the file has it. `at`: its item, row or combination."""

    data: dict[str, Json]
    at: Problem
    item: int | None = None
    """Its place in the list of migrations."""
    filled: frozenset[Place] = frozenset()
    """Where a column was filled in."""


def picked(names: Sequence[str], globs: Sequence[str]) -> Collection[str]:
    """The names that one of the globs takes; all of them where there is none. Raises ConfigError."""
    for glob in globs:
        if not any(takes(glob, name) for name in names):
            known = f"{', '.join(names[:NAMED])}{' and others' if len(names) > NAMED else ''}"
            raise ConfigError(f"--migration {glob!r}: the fleet has no such migration; there are {known}")
    return {name for name in names if not globs or any(takes(glob, name) for glob in globs)}


@dataclass(slots=True)
class _Reading:
    """A fleet file while it is read; `problems` are all that were found."""

    file: YamlFile
    fleet: FleetFile
    """Without the keys that are wrong."""
    problems: list[Problem]
    entries: list[_Entry] = field(default_factory=list)

    def raise_problems(self) -> None:
        """ConfigError with each, told once: of one place the first is the cause of the others."""
        first: dict[tuple[str, int | None, str], Problem] = {}
        for one in self.problems:
            first.setdefault((one.file, one.line, one.key), one)
        if first:
            raise ConfigError(sorted(first.values(), key=lambda one: (one.file, one.line or 0)))


def load_fleet(path: str | Path, environ: Mapping[str, str] | None = None, *, ledgers: Path | None = None) -> Fleet:
    """Reads a fleet file and all its migrations. `ledgers`: the folder of the ledgers, in place of ledgers/FLEET beside
    the file; `PROMPTFERRY_LEDGER_DIR`, when set, is the folder above it.

    Raises ConfigError with every problem of all of them; no message quotes a secret.
    """
    environ = os.environ if environ is None else environ
    reading = _read(Path(path))
    folder = _ledger_folder(reading, environ, ledgers)
    around = Surroundings(_beside(path), environ)
    migrations = [_migration(reading, entry, around) for entry in reading.entries]
    reading.raise_problems()
    placed = [_placed(one, folder) for one in migrations if one is not None]
    return Fleet(
        name=reading.fleet.name,
        migrations=tuple(placed),
        parallel=reading.fleet.parallel,
        stop_on=frozenset(reading.fleet.stop_on),
        folder=folder,
    )


def fleet_ledgers(
    path: str | Path,
    environ: Mapping[str, str] | None = None,
    *,
    ledgers: Path | None = None,
    only: Sequence[str] = (),
    shard: Shard | None = None,
) -> tuple[str, list[Planned]]:
    """The fleet's name and the ledger of each migration, without their secrets: of those whose name one of the globs in
    `only` takes, and that are this shard's. Raises what load_fleet raises.
    """
    environ = os.environ if environ is None else environ
    reading = _read(Path(path))
    names = [entry.data.get("name") for entry in reading.entries]
    if reading.problems or not all(map(is_file_name, names)):
        load_fleet(path, environ, ledgers=ledgers)  # which says all that is wrong
    taken = picked([str(name) for name in names], only)
    folder = _ledger_folder(reading, environ, ledgers)
    return reading.fleet.name, [
        Planned(name=one, ledger=folder / f"{one}.jsonl")
        for one in map(str, names)
        if one in taken and (shard is None or shard.takes(one))
    ]


def _beside(path: str | Path) -> Path:
    return Path(os.path.abspath(path)).parent


def _ledger_folder(reading: _Reading, environ: Mapping[str, str], given: Path | None) -> Path:
    if given is not None:
        return given.absolute()
    above = environ.get("PROMPTFERRY_LEDGER_DIR")
    return (Path(os.path.abspath(above)) if above else _beside(reading.file.name) / "ledgers") / reading.fleet.name


# ---- the file --------------------------------------------------------------------------------------------------------


def _read(path: Path) -> _Reading:
    """Everything but what the keys of each migration mean."""
    file = read_yaml(path)
    fleet, wrong = _fleet_file(file)
    reading = _Reading(file, fleet, [*file.problems, *(file.problem(place, message) for place, message in wrong)])
    given = [key for key in SOURCES if file.data.get(key) is not None]
    if len(given) != 1:
        message = "give one of `migrations`, `matrix` and `csv`"
        reading.problems.append(file.problem((given[1],) if given else (), message))
        return reading
    if "ledger" in fleet.defaults:
        reading.problems.append(_no_ledger(reading, ("defaults", "ledger")))
    if given[0] not in {place[0] for place, _ in wrong if place}:
        reading.entries = list(_ENTRIES[given[0]](reading, fleet))
    if not reading.entries and not reading.problems:
        reading.problems.append(file.problem((given[0],), "there is no migration in it"))
    _check_names(reading)
    return reading


def _fleet_file(file: YamlFile) -> tuple[FleetFile, list[Complaint]]:
    """What its own keys say, and what is wrong with those that are left out here."""
    try:
        return FleetFile.model_validate(file.data), []
    except ValidationError as error:
        wrong = list(complaints(error, FleetFile))
    keys = {place[0] for place, _ in wrong}
    rest = {"name": "unnamed"} | {key: value for key, value in file.data.items() if key not in keys}
    return FleetFile.model_validate(rest), wrong


def _no_ledger(reading: _Reading, place: Place) -> Problem:
    message = "each ledger of a fleet is ledgers/FLEET/NAME.jsonl: take it out, or name the folder with --ledger"
    return reading.file.problem(place, message)


def _check_names(reading: _Reading) -> None:
    """Each has one, and no two have the same, nor one file on a disk that takes upper and lower case for the same."""
    first: dict[str, _Entry] = {}
    for entry in reading.entries:
        name = entry.data.get("name")
        if not isinstance(name, str):
            continue  # told with its other keys
        other = first.setdefault(name.casefold(), entry)
        if other is not entry:
            where = other.at.file if other.at.line is None else f"{other.at.file}:{other.at.line}"
            message = f"the name {name!r} is taken: {where} has it, too; names may not differ in case only"
            reading.problems.append(Problem(message, file=entry.at.file, line=entry.at.line, key=entry.at.key))


# ---- a list ----------------------------------------------------------------------------------------------------------


def _listed(reading: _Reading, fleet: FleetFile) -> Iterator[_Entry]:
    for index, own in enumerate(fleet.migrations):
        place: Place = ("migrations", index)
        if "ledger" in own:
            reading.problems.append(_no_ledger(reading, (*place, "ledger")))
        if "name" not in own:
            reading.problems.append(reading.file.problem((*place, "name"), "is required"))
            own = {**own, "name": f"unnamed-{index}"}
        yield _Entry(data=_laid_over(fleet.defaults, own), at=reading.file.problem(place, ""), item=index)


def _laid_over(below: Mapping[str, Json], above: Mapping[str, Json]) -> dict[str, Json]:
    """Maps are laid into each other, anything else in the place of what was there. What is above comes first: of globs,
    the first that matches wins.
    """
    whole = dict(above)
    for key, value in below.items():
        other = whole.setdefault(key, value)
        if isinstance(value, dict) and isinstance(other, dict) and other is not value:
            whole[key] = _laid_over(value, other)
    return whole


# ---- what is filled in -----------------------------------------------------------------------------------------------


def _combined(reading: _Reading, fleet: FleetFile) -> Iterator[_Entry]:
    columns = tuple(fleet.matrix)
    named = "-".join(f"{{{key}}}" for key in columns if _COLUMN.fullmatch(key)) or "unnamed"
    template = {"name": named, **fleet.defaults}
    _check_columns(reading, ("matrix",), columns, template)
    for values in itertools.product(*fleet.matrix.values()):
        row = dict(zip(columns, values, strict=True))
        said = ", ".join(f"{key}: {_text(value)}" for key, value in row.items())
        at = reading.file.problem(("matrix",), "")
        yield _entry(template, row, Problem("", file=at.file, line=at.line, key=f"matrix ({said})"))


def _rows(reading: _Reading, fleet: FleetFile) -> Iterator[_Entry]:
    assert fleet.csv is not None  # one of the three is given
    path = Path(reading.file.name).parent / fleet.csv
    try:
        columns, rows = _read_csv(path)
    except ConfigError as error:
        reading.problems.extend(error.problems)
        return
    template = {**({"name": "{name}"} if "name" in columns else {}), **fleet.defaults}
    if "name" not in template:
        message = "its migrations have no names: give it a column `name`, or say `name:` in the defaults"
        reading.problems.append(reading.file.problem(("csv",), message))
        return
    _check_columns(reading, ("csv",), columns, template)
    for line, cells in rows:
        if len(cells) != len(columns):
            message = f"has {len(cells)} cells, and there are {len(columns)} columns"
            reading.problems.append(Problem(message, file=str(path), line=line))
            continue
        yield _entry(template, dict(zip(columns, cells, strict=True)), Problem("", file=str(path), line=line))


_ENTRIES: Final = {"migrations": _listed, "matrix": _combined, "csv": _rows}


def _read_csv(path: Path) -> tuple[tuple[str, ...], list[tuple[int, list[str]]]]:
    """The columns, and the line and the cells of each row. Raises ConfigError."""
    try:
        reader = csv.reader(read_text(path).splitlines(keepends=True), strict=True)
        rows, line = [], 1
        for cells in reader:
            if any(cell.strip() for cell in cells):
                rows.append((line, [cell.strip() for cell in cells]))
            line = reader.line_num + 1
    except NotText as error:
        raise ConfigError([Problem(str(error), file=str(path), line=error.line)]) from None
    except csv.Error as error:
        raise ConfigError([Problem(f"is no CSV: {error}", file=str(path), line=reader.line_num)]) from None
    if not rows:
        raise ConfigError([Problem("is empty: its first line names the columns", file=str(path))])
    line, columns = rows[0]
    if len(columns) == 1 and re.search(r"[;\t]", columns[0]):
        message = "its columns are not separated by commas: save it with commas"
        raise ConfigError([Problem(message, file=str(path), line=line)])
    wrong = [name for name in columns if not _COLUMN.fullmatch(name)]
    twice = [name for name in dict.fromkeys(columns) if columns.count(name) > 1]
    problems = [f"the column {name!r} must be named by letters, digits and underscores" for name in wrong]
    problems += [f"the column {name!r} is there twice" for name in twice]
    if problems:
        raise ConfigError([Problem(message, file=str(path), line=line) for message in problems])
    return tuple(columns), rows[1:]


def _check_columns(reading: _Reading, source: Place, columns: Collection[str], template: Mapping[str, Json]) -> None:
    """Every {column} is there, and each column that there is can be meant by one."""
    for name in columns:
        if not _COLUMN.fullmatch(name):
            message = f"the key {name!r} must be made of letters, digits and underscores"
            reading.problems.append(reading.file.problem((*source, name), message))
    for place, text in _texts(template, ()):
        for word in _words(text, place):
            if word not in columns:
                nearest = difflib.get_close_matches(word, columns, n=1)
                known = f"did you mean {{{nearest[0]}}}?" if nearest else f"there are {', '.join(columns)}"
                message = f"{{{word}}} is no {'key' if source == ('matrix',) else 'column'}: {known}"
                reading.problems.append(reading.file.problem(("defaults", *place), message))


def _texts(value: Json, place: Place) -> Iterator[tuple[Place, str]]:
    """Every text in a value, keys too, and where it stands."""
    if isinstance(value, str):
        yield place, value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield (*place, key), key
            yield from _texts(inner, (*place, key))
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            yield from _texts(inner, (*place, index))


def _words(text: str, place: Place) -> Iterator[str]:
    """What is to be filled in there."""
    own = _own_words(place)
    return (word for match in _FILLED.finditer(text) if (word := match[1]) and word.partition("|")[0] not in own)


def _own_words(place: Place) -> Collection[str]:
    """In names of replicas these are the prompt's own, whatever columns there are."""
    return PLACEHOLDERS if place[:1] == ("rewrite",) and place[-1:] == ("name",) and "when" not in place else ()


def _entry(template: Mapping[str, Json], row: Mapping[str, Json], at: Problem) -> _Entry:
    filled: set[Place] = set()
    data = _fill(template, row, (), filled)
    assert isinstance(data, dict)  # as the template
    return _Entry(data=data, at=at, filled=frozenset(filled))


def _fill(value: Json, row: Mapping[str, Json], place: Place, filled: set[Place]) -> Json:
    """The same with the values of the row. A text that is nothing but {column} becomes the value itself, and a value
    that is empty then leaves its key out.
    """
    if isinstance(value, dict):
        return {_filled_text(key, row, ()): _fill(inner, row, (*place, key), filled) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_fill(inner, row, (*place, index), filled) for index, inner in enumerate(value)]
    if not isinstance(value, str) or not any(_words(value, place)):
        return value
    filled.add(place)
    whole = _FILLED.fullmatch(value)
    if whole is not None and whole[1] in row and place != ("name",):
        found = row[whole[1]]
        return None if found == "" else found
    return _filled_text(value, row, place)


def _filled_text(text: str, row: Mapping[str, Json], place: Place) -> str:
    own = _own_words(place)

    def value(match: re.Match[str]) -> str:
        word = match[1]
        return _text(row[word]) if word in row and word.partition("|")[0] not in own else match[0]

    return _FILLED.sub(value, text)


def _text(value: Json) -> str:
    """As it is written in YAML."""
    return str(value).lower() if isinstance(value, bool) else str(value)


# ---- what it means ---------------------------------------------------------------------------------------------------


def _migration(reading: _Reading, entry: _Entry, around: Surroundings) -> Migration | None:
    try:
        return Migration.model_validate(entry.data, context=around)
    except ValidationError as error:
        for place, message in complaints(error, Migration):
            reading.problems.append(_problem(reading.file, entry, place, message))
        return None


def _problem(file: YamlFile, entry: _Entry, place: Place, message: str) -> Problem:
    """Where a person mends it; what stands in the defaults is the same problem for all."""
    if entry.item is not None:
        own: Place = ("migrations", entry.item)
        if _depth(file, (*own, *place)) - len(own) >= _depth(file, ("defaults", *place)) - 1:
            return file.problem((*own, *place), message)
        return file.problem(("defaults", *place), message)
    if any(place[: len(one)] == one or one[: len(place)] == place for one in entry.filled):
        key = ": ".join(part for part in (entry.at.key, dotted(place)) if part)
        return Problem(message, file=entry.at.file, line=entry.at.line, key=key)
    return file.problem(("defaults", *place), message)


def _depth(file: YamlFile, place: Place) -> int:
    """How much of a place the file has."""
    return next((end for end in range(len(place), 0, -1) if place[:end] in file.lines), 0)


def _placed(migration: Migration, folder: Path) -> Migration:
    """Raises ConfigError."""
    return migration.lying_at(folder / f"{migration.name}.jsonl")
