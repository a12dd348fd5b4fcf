"""The kinds of value a migration file has: texts, secrets, addresses, times, paths, templates.

Each takes what the file says and gives what it means, or raises ValueError with a sentence that never quotes what may
be secret. Values that refer to the file's folder or to the environment find both in `Surroundings`, the validation's
context.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Final
from urllib.parse import SplitResult, urlsplit

from pydantic import AfterValidator, BeforeValidator, PlainValidator, SecretStr, ValidationInfo, WithJsonSchema

from engine.content.numbers import Number
from engine.content.textfile import NotText, read_text
from engine.model import Json

COMMAND_SECONDS: Final = 30.0
"""How long a command that prints a secret may take."""

_COMMENT: Final = re.compile(r"(?:^|\s)#.*", re.DOTALL)
_REFERENCE: Final = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_TIME: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)([smh]?)")
_UNITS: Final = {"": 1, "s": 1, "m": 60, "h": 3600}
_LONGEST: Final = 1e9
_SANDBOX: Final = re.compile(r"sandbox(:[A-Za-z0-9._-]+)?")
_PLACEHOLDER: Final = re.compile(r"\{([^{}]*)\}")
_PLACEHOLDERS: Final = ("name", "id", "slug", "model", "collection")
_PRIVATE_NAMES: Final = (".localhost", ".local", ".internal", ".lan", ".svc", ".cluster.local", ".home.arpa")


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a value may refer to. Relative paths are relative to `folder`, the absolute folder of the file."""

    folder: Path
    environ: Mapping[str, str] = field(repr=False)


def _surroundings(info: ValidationInfo) -> Surroundings:
    surroundings = info.context
    if not isinstance(surroundings, Surroundings):
        raise TypeError("migrations are read by load_migration")
    return surroundings


# ---- texts -----------------------------------------------------------------------------------------------------------


def _plain(text: str) -> str:
    if not text.strip():
        raise ValueError("must not be empty")
    if _REFERENCE.search(text):
        raise ValueError("${NAME} is replaced only in secrets, base_url, gateway_url and workspace; write the value")
    return text


def _from_environment(name: str, environ: Mapping[str, str]) -> str:
    value = environ.get(name)
    if value is None:
        raise ValueError(f"the environment variable {name} is not set; set it and try again")
    if not value.strip():
        raise ValueError(f"the environment variable {name} is empty; give it a value and try again")
    return value.rstrip("\r\n")


def _expanded(value: Json, info: ValidationInfo) -> Json:
    if not isinstance(value, str):
        return value
    environ = _surroundings(info).environ
    if "${" in _REFERENCE.sub("", value):
        raise ValueError("${...} must hold the name of an environment variable: letters, digits and underscores")
    return _REFERENCE.sub(lambda match: _from_environment(match[1], environ), value)


def _one_word(text: str) -> str:
    if not text or not text.isprintable() or " " in text:
        raise ValueError("must be one word, without spaces or line breaks")
    return text


Text = Annotated[str, AfterValidator(_plain)]
"""A text with something in it, taken as it is."""

Workspace = Annotated[str, BeforeValidator(_expanded), AfterValidator(_one_word)]
"""Id or slug of a workspace, with ${NAME} replaced."""


# ---- secrets ---------------------------------------------------------------------------------------------------------


def _secret(value: Json, info: ValidationInfo) -> SecretStr:
    surroundings = _surroundings(info)
    match value:
        case str() if reference := _REFERENCE.fullmatch(value):
            secret = _from_environment(reference[1], surroundings.environ)
        case {"file": str(path), **rest} if not rest:
            secret = _first_of_file(surroundings.folder / path)
        case {"command": [str(), *_] as command, **rest} if not rest and all(isinstance(word, str) for word in command):
            secret = _printed_by(command, surroundings)
        case _:
            raise ValueError("a secret is never written here: use ${NAME}, {file: PATH} or {command: [ARGV]}")
    # Such a value could not be sent in a header, and the refusal there would quote it.
    if not secret or not secret.isascii() or not secret.isprintable() or " " in secret:
        raise ValueError("the secret found there is empty, has spaces or is more than one line of ASCII; mend it there")
    return SecretStr(secret)


def _first_of_file(path: Path) -> str:
    try:
        return read_text(path).rstrip("\r\n")
    except ValueError as error:
        raise ValueError(f"the secret's file {path}: {error}") from None


def _printed_by(command: list[str], surroundings: Surroundings) -> str:
    try:
        done = subprocess.run(
            command,
            cwd=surroundings.folder,
            env=dict(surroundings.environ),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=COMMAND_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ValueError(f"the command took longer than {COMMAND_SECONDS:g} s; run it by hand to see why") from None
    except (OSError, ValueError):
        raise ValueError("the command cannot be started; check its first word and that it may be executed") from None
    if done.returncode:
        raise ValueError(f"the command ended with code {done.returncode}; run it by hand to see why")
    return done.stdout.decode("ascii", errors="replace").strip()


Secret = Annotated[
    SecretStr,
    BeforeValidator(_secret),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "pattern": r"^\$\{[A-Za-z_][A-Za-z0-9_]*\}$"},
                {
                    "type": "object",
                    "properties": {
                        "file": {"type": "string", "description": "File that holds the secret and nothing else."}
                    },
                    "required": ["file"],
                    "additionalProperties": False,
                },
                {
                    "type": "object",
                    "properties": {
                        "command": {
                            "type": "array",
                            "items": {"type": "string"},
                            "minItems": 1,
                            "description": "Program and arguments; it prints the secret. No shell, 30 s.",
                        }
                    },
                    "required": ["command"],
                    "additionalProperties": False,
                },
            ]
        }
    ),
]
"""A secret, named by ${NAME}, {file: PATH} or {command: [ARGV]}, never written in the file itself."""


# ---- addresses -------------------------------------------------------------------------------------------------------


def is_sandbox(base_url: str) -> bool:
    """Whether the address means the embedded stand-in: `sandbox`, or `sandbox:NAME` for a second workspace in it."""
    return _SANDBOX.fullmatch(base_url) is not None


def _url(text: str) -> str:
    if is_sandbox(text):
        return text
    parts = _split(text)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("must be an address such as https://HOST/v1, or sandbox, or sandbox:NAME")
    if parts.username is not None or parts.password is not None:
        raise ValueError("must not hold a user or password; the key has its own field")
    if "?" in text or "#" in text:
        raise ValueError("must end with the path, without ? or #")
    if parts.scheme == "http" and not _is_private(parts.hostname):
        raise ValueError("http would send the key in clear text over the network; use https")
    return text.rstrip("/")


def _split(text: str) -> SplitResult:
    try:
        parts = urlsplit(_one_word(text))
        _ = parts.port
    except ValueError:
        raise ValueError("is not an address such as https://HOST/v1") from None
    return parts


def _is_private(host: str) -> bool:
    try:
        address = ip_address(host)
    except ValueError:
        return host.endswith(_PRIVATE_NAMES) or ("." not in host and host[0].isalpha())
    return address.is_loopback or address.is_private or address.is_link_local


Url = Annotated[str, BeforeValidator(_expanded), AfterValidator(_url)]
"""Address of a registry without trailing slash, with ${NAME} replaced; or `sandbox`, `sandbox:NAME`."""


# ---- times and paths -------------------------------------------------------------------------------------------------


def rounded(value: Json) -> Json:
    """A number with more digits than a float has, as a float: where it is only measured by."""
    return float(value) if isinstance(value, Number) else value


def seconds(value: Json) -> float:
    """Seconds in a number, or in a text such as `90s`, `15m`, `2h`. Raises ValueError unless above zero."""
    value = rounded(value)
    if isinstance(value, str) and (match := _TIME.fullmatch(value)):
        value = float(match[1]) * _UNITS[match[2]]
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= _LONGEST:
        raise ValueError("must be a time above zero: seconds, or 90s, 15m, 2h")
    return float(value)


Seconds = Annotated[
    float,
    BeforeValidator(seconds),
    WithJsonSchema(
        {"anyOf": [{"type": "number", "exclusiveMinimum": 0}, {"type": "string", "pattern": f"^{_TIME.pattern}$"}]}
    ),
]


def ids_in(path: Path) -> tuple[str, ...]:
    """The ids in a file, one a line; blank lines and # comments are left out. Raises ValueError when it has none.

    A # inside of a word is a part of the id; and only a line feed ends a line, for the id of a file may hold any other.
    """
    lines = (_COMMENT.sub("", line).strip() for line in read_text(path).split("\n"))
    ids = tuple(dict.fromkeys(line for line in lines if line))
    # No ids would mean every prompt, the opposite of what an empty list asks for.
    if not ids:
        raise ValueError("the file holds no ids; add some, or leave it out to take every prompt")
    return ids


def _ids_of_file(value: Json, info: ValidationInfo) -> tuple[str, ...]:
    if not isinstance(value, str) or not value:
        raise ValueError("must be the path of a file with one id a line")
    try:
        return ids_in(_surroundings(info).folder / value)
    except NotText as error:
        raise ValueError(f"{value}{'' if error.line is None else f':{error.line}'}: {error}") from None


IdsFile = Annotated[tuple[str, ...], BeforeValidator(_ids_of_file), WithJsonSchema({"type": "string"})]
"""The ids in the file that is named."""


def _cases(value: Json, info: ValidationInfo) -> Path:
    if not isinstance(value, str) or not _plain(value):
        raise ValueError("must be the path of a file")
    path = _surroundings(info).folder / value
    if not path.is_file():
        raise ValueError(f"there is no file {value}; `promptferry verify --write-cases` writes one to fill in")
    return path


CasesFile = Annotated[Path, BeforeValidator(_cases), WithJsonSchema({"type": "string"})]
"""Absolute path of a file that is there."""


def _ledger(value: Json, info: ValidationInfo) -> Path:
    return ledger_path(value, name=info.data.get("name", ""), folder=_surroundings(info).folder)


def ledger_path(value: Json, *, name: str, folder: Path) -> Path:
    """The absolute path that `ledger:` means in the file of this migration. Raises ValueError."""
    if isinstance(value, Path):
        value = str(value)
    if not isinstance(value, str) or not value.isprintable() or not _plain(value):
        raise ValueError("must be the path of a file; {name} stands for the migration's name")
    filled = value.replace("{name}", name)
    if _PLACEHOLDER.search(filled):
        raise ValueError("only {name} can be filled in here")
    path = Path(os.path.abspath(folder / filled))
    if filled.endswith("/") or os.path.isdir(path):
        raise ValueError("is a folder; add the name of a file, such as {name}.jsonl")
    return path


LedgerPath = Annotated[Path, BeforeValidator(_ledger), WithJsonSchema({"type": "string"})]
"""Absolute path of the ledger, with {name} filled in."""


@dataclass(frozen=True, slots=True)
class FilesPath:
    """Where prompts are kept in files: as the migration file says it, and absolute."""

    written: str
    path: Path


def _files_path(value: Json, info: ValidationInfo) -> FilesPath:
    if not isinstance(value, str) or not value.isprintable():
        raise ValueError("must be the path of a .jsonl file or of a directory")
    return FilesPath(_plain(value), Path(os.path.abspath(_surroundings(info).folder / value)))


Files = Annotated[FilesPath, PlainValidator(_files_path), WithJsonSchema({"type": "string"})]
"""A .jsonl file or a directory."""


# ---- what rewrites are made of ---------------------------------------------------------------------------------------


def _name_template(text: str) -> str:
    found = _PLACEHOLDER.findall(_plain(text))
    unknown = [name for name in found if name not in _PLACEHOLDERS]
    if unknown or set(_PLACEHOLDER.sub("", text)) & {"{", "}"}:
        named = f"{{{unknown[0]}}}" if unknown else "a lone brace"
        raise ValueError(f"{named} cannot be filled in; known are {{{'} {'.join(_PLACEHOLDERS)}}}")
    return text


NameTemplate = Annotated[str, AfterValidator(_name_template)]
"""The name of a replica; {name} {id} {slug} {model} {collection} are the source's."""


def _parameter_path(path: str) -> str:
    steps = _plain(path).split(".")
    if not all(steps):
        raise ValueError(f"{path!r} is not a parameter or a dotted path to one inside it")
    if steps[0] == "model":
        raise ValueError("`model` is no parameter here: use rewrite.model")
    return path


ParameterPath = Annotated[str, AfterValidator(_parameter_path)]
"""A parameter, or a dotted path inside one: `thinking.budget_tokens`."""


def _for_all(value: Json) -> Json:
    if not isinstance(value, str | dict):
        raise ValueError("must be one text for all prompts, or a map of globs to texts")
    return {"*": value} if isinstance(value, str) else value


Choices = Annotated[dict[Text, Text], BeforeValidator(_for_all, json_schema_input_type=str | dict[str, str])]
"""New values by globs of the old, in the file's order; a single text is for all: `{"*": text}`."""
