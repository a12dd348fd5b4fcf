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
from collections.abc import Iterable, Mapping
from pathlib import Path

from pydantic import ValidationError

from engine.config.complaints import Complaint, complaints
from engine.config.fields import ids_in, ledger_path, seconds
from engine.config.fleet import Fleet, Planned, fleet_ledgers, load_fleet
from engine.config.migration import Limits, Migration
from engine.config.yamlfile import YamlFile, read_yaml
from engine.connectors import REGISTRIES
from engine.connectors.fields import Surroundings
from engine.content.textfile import NotText
from engine.errors import ConfigError, Problem
from engine.model import Json

__all__ = [
    "Fleet",
    "Limits",
    "Migration",
    "Planned",
    "files_of",
    "fleet_ledgers",
    "json_schema",
    "ledger_of",
    "load_fleet",
    "load_migration",
    "read_ids",
    "seconds",
]


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
    return migration.model_copy(update={"ledger": _in_ledger_folder(migration.ledger, environ)})


def ledger_of(path: str | Path, environ: Mapping[str, str] | None = None) -> Path:
    """The ledger of a migration file, without its secrets: who asks for a status need not have them.

    Raises what load_migration raises, and reads the whole file only where name or ledger are not as they should be.
    """
    environ = os.environ if environ is None else environ
    data = read_yaml(Path(path)).data
    parts = data if isinstance(data, dict) else {}
    given, name = parts.get("ledger", Migration.model_fields["ledger"].default), parts.get("name")
    try:
        found = ledger_path(given, name=name if isinstance(name, str) else "", folder=_folder(path))
    except ValueError:
        return load_migration(path, environ).ledger
    return _in_ledger_folder(found, environ)


def files_of(path: str | Path) -> list[Path]:
    """The migration file, and the files and folders that it names besides its ledger, without its secrets."""
    data = read_yaml(Path(path)).data
    parts = [data.get(part) for part in ("source", "target", "select", "verify")] if isinstance(data, dict) else []
    values = [part.get(key) for part in parts if isinstance(part, dict) for key in ("path", "ids_file", "cases")]
    named = [_folder(path) / value for value in values if isinstance(value, str)]
    return [Path(path), *(Path(os.path.abspath(one)) for one in named)]


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
