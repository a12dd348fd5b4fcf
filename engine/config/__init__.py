"""The migration file: `load_migration` reads it, `Migration` is what it says, `json_schema` describes it for editors.

yamlfile    YAML to plain values, with the line of every key
fields      kinds of value: secrets, addresses, times, paths, templates
migration   Migration and its parts
fleet       many migrations in one file: `load_fleet`
complaints  what is wrong, in plain words
kinds       what a new file may say of an end

May import connectors, whose endpoints say what an end has, content, the model, errors and lossless JSON.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from engine.config.complaints import Complaint, complaints
from engine.config.fields import ids_in, is_file_name, ledger_path, seconds
from engine.config.fleet import SOURCES, Fleet, Planned, fleet_ledgers, load_fleet
from engine.config.migration import Limits, Migration, Written
from engine.config.yamlfile import Place, YamlFile, dotted, read_yaml
from engine.connectors import REGISTRIES, console_of
from engine.connectors.fields import Surroundings
from engine.content.textfile import NotText
from engine.errors import ConfigError, Problem
from engine.lossless_json.numbers import dumps
from engine.model import Json

__all__ = [
    "Fleet",
    "Limits",
    "Migration",
    "Planned",
    "Written",
    "console_of",
    "files_of",
    "fleet_ledgers",
    "json_schema",
    "ledger_of",
    "load_fleet",
    "load_migration",
    "name_of",
    "read_again",
    "read_ids",
    "seconds",
    "told_rules",
]

_ASKED: Final = (
    "select",
    "rewrite",
    "allow_loss",
    "create_missing",
    "on_existing",
    "on_change",
    "on_edited",
    "publish",
    "limits",
)
"""Keys of a migration file that say what is asked for; in what they hold nothing is replaced from the environment."""


def load_migration(path: str | Path, environ: Mapping[str, str] | None = None) -> Migration:
    """Reads a migration file; `environ` stands in for the process's environment.

    Fetches its secrets: reads their files and runs their commands. `PROMPTFERRY_LEDGER_DIR`, when set, is the folder
    of the ledger. Raises ConfigError with every problem of the file; no message quotes a secret.
    """
    environ = os.environ if environ is None else environ
    surroundings = Surroundings(_folder(path), environ)
    file = read_yaml(Path(path))
    try:
        migration, found = Migration.model_validate(file.data, context=surroundings), []
    except ValidationError as error:
        migration, found = None, list(complaints(error, Migration))
    problems = _problems(file, found)
    if migration is None or problems:
        raise ConfigError(problems)
    ledger = _in_ledger_folder(migration.ledger, environ)
    if why := migration.why_not_at(ledger):
        raise ConfigError([file.problem(("ledger",), why)])
    return migration.lying_at(ledger)


def read_again(written: Written, environ: Mapping[str, str] | None = None) -> Migration:
    """The same migration by the surroundings of this process, which may be on another machine: its secrets are fetched
    here. What only who lists needs is left out: chosen ids, the ledger, what is verified. Raises ConfigError.
    """
    environ = os.environ if environ is None else environ
    data = {key: value for key, value in written.data.items() if key not in ("ledger", "verify")}
    if isinstance(select := data.get("select"), dict):
        data["select"] = {key: value for key, value in select.items() if key not in ("ids", "ids_file")}
    try:
        return Migration.model_validate(data, context=Surroundings(written.folder, environ))
    except ValidationError as error:
        problems = [Problem(message, key=dotted(place)) for place, message in complaints(error, Migration)]
    raise ConfigError(problems)


def ledger_of(path: str | Path, environ: Mapping[str, str] | None = None) -> Path:
    """The ledger of a migration file, without its secrets: who asks for a status need not have them.

    Raises what load_migration raises, and reads the whole file only where name or ledger are not as they should be.
    """
    environ = os.environ if environ is None else environ
    data = read_yaml(Path(path)).data
    parts = data if isinstance(data, dict) else {}
    if parts.keys() & set(SOURCES):
        raise ConfigError(f"{path}: this is a fleet file: use `promptferry fleet`, or name one of its ledgers")
    given, name = parts.get("ledger", Migration.model_fields["ledger"].default), parts.get("name")
    try:
        found = ledger_path(given, name=name if isinstance(name, str) else "", folder=_folder(path))
    except ValueError:
        return load_migration(path, environ).ledger
    return _in_ledger_folder(found, environ)


def name_of(path: Path) -> str:
    """The name in a migration file that was refused; empty where not even that can be read."""
    try:
        data = read_yaml(path).data if os.path.isfile(path) else None  # what is no file was read to its end already
    except ConfigError:
        return ""
    name = data.get("name") if isinstance(data, dict) else None
    return str(name) if is_file_name(name) else ""


def files_of(path: str | Path) -> list[Path]:
    """The migration file, and the files and folders that it names besides its ledger, without its secrets."""
    data = read_yaml(Path(path)).data
    parts = [data.get(part) for part in ("source", "target", "select", "verify")] if isinstance(data, dict) else []
    values = [part.get(key) for part in parts if isinstance(part, dict) for key in ("path", "ids_file", "cases")]
    named = [_folder(path) / value for value in values if isinstance(value, str)]
    return [Path(path), *(Path(os.path.abspath(one)) for one in named)]


def told_rules(path: str | Path) -> list[tuple[str, str]]:
    """What a migration file asks for, but for its ends, keys and cases: dotted keys, and their values as JSON."""
    data = read_yaml(Path(path)).data
    return [
        (dotted((key, *inner)), value if isinstance(value, str) else dumps(value, ensure_ascii=False))
        for key in _ASKED
        if key in data
        for inner, value in _leaves(data[key])
    ]


def _leaves(value: Json, place: Place = ()) -> Iterator[tuple[Place, Json]]:
    """A map of maps, key by key; a list stays whole."""
    if not isinstance(value, dict) or not value:
        yield place, value
        return
    for key, inner in value.items():
        yield from _leaves(inner, (*place, key))


def _folder(path: str | Path) -> Path:
    return Path(os.path.abspath(path)).parent


def _in_ledger_folder(ledger: Path, environ: Mapping[str, str]) -> Path:
    folder = environ.get("PROMPTFERRY_LEDGER_DIR")
    return Path(os.path.abspath(folder)) / ledger.name if folder else ledger


def read_ids(path: Path) -> tuple[str, ...]:
    """The ids in a file: one a line, blank lines and # comments left out. Raises ConfigError, also when it has none."""
    try:
        return ids_in(path)
    except ValueError as error:
        problem = Problem(str(error), file=str(path), line=error.line if isinstance(error, NotText) else None)
    raise ConfigError([problem])


def _problems(file: YamlFile, found: Iterable[Complaint]) -> list[Problem]:
    problems = list(file.problems)
    keys = {problem.key for problem in problems}
    for place, message in found:
        problem = file.problem(place, message)
        # What is wrong in the YAML itself is often the cause of what seems wrong with the value.
        if problem.key not in keys:
            keys.add(problem.key)
            problems.append(problem)
    return sorted(problems, key=lambda problem: problem.line or 0)


def json_schema() -> dict[str, Json]:
    """JSON Schema of the migration file, for editors; takes whatever `load_migration` takes."""
    schema = Migration.model_json_schema()
    for row in list(REGISTRIES.values())[1:]:  # where no kind is named, the first is meant
        schema["$defs"][row.endpoint.__name__].setdefault("required", []).append("kind")
    for part in (schema, *schema["$defs"].values()):
        required = part.get("required", ())
        for key, value in part.get("properties", {}).items():
            if key not in required:
                part["properties"][key] = _or_null(value)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "Promptferry migration"}


def _or_null(schema: dict[str, Json]) -> dict[str, Json]:
    if {"type": "null"} in schema.get("anyOf", ()):
        return schema
    notes: dict[str, Json] = {key: schema[key] for key in ("title", "description", "default") if key in schema}
    value = {key: schema[key] for key in schema if key not in notes}
    return {**notes, "anyOf": [value, {"type": "null"}]}
