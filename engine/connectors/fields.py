"""The kinds of value that the end of a migration has in its file: texts, secrets, addresses.

Each takes what the file says and gives what it means, or raises ValueError with a sentence that never quotes what may
be secret. Values that refer to the file's folder or to the environment find both in `Surroundings`, the validation's
context.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Final
from urllib.parse import SplitResult, urlsplit

from pydantic import AfterValidator, BeforeValidator, SecretStr, ValidationInfo, WithJsonSchema

from engine.content.textfile import read_text
from engine.model import Json

COMMAND_SECONDS: Final = 30.0
"""How long a command that prints a secret may take."""

_REFERENCE: Final = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_SANDBOX: Final = re.compile(r"sandbox(:[A-Za-z0-9._-]+)?")
_PRIVATE_NAMES: Final = (".localhost", ".local", ".internal", ".lan", ".svc", ".cluster.local", ".home.arpa")


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a value may refer to. Relative paths are relative to `folder`, the absolute folder of the file."""

    folder: Path
    environ: Mapping[str, str] = field(repr=False)
    printed: dict[tuple[str, ...], str] = field(default_factory=dict, repr=False)
    """What commands have printed: many migrations of a fleet name the same one, which may take its time."""


def surroundings(info: ValidationInfo) -> Surroundings:
    """Of the validation that goes on."""
    around = info.context
    if not isinstance(around, Surroundings):
        raise TypeError("migrations are read by load_migration")
    return around


# ---- texts -----------------------------------------------------------------------------------------------------------


def plain(text: str) -> str:
    """The same text, when there is something in it and nothing that looks like ${NAME}."""
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
    environ = surroundings(info).environ
    if "${" in _REFERENCE.sub("", value):
        raise ValueError("${...} must hold the name of an environment variable: letters, digits and underscores")
    return _REFERENCE.sub(lambda match: _from_environment(match[1], environ), value)


def _one_word(text: str) -> str:
    if not text or not text.isprintable() or " " in text:
        raise ValueError("must be one word, without spaces or line breaks")
    return text


Text = Annotated[str, AfterValidator(plain)]
"""A text with something in it, taken as it is."""

Workspace = Annotated[str, BeforeValidator(_expanded), AfterValidator(_one_word)]
"""Id or slug of a workspace, with ${NAME} replaced."""


# ---- secrets ---------------------------------------------------------------------------------------------------------


def _secret(value: Json, info: ValidationInfo) -> SecretStr:
    around = surroundings(info)
    match value:
        case str() if reference := _REFERENCE.fullmatch(value):
            secret = _from_environment(reference[1], around.environ)
        case {"file": str(path), **rest} if not rest:
            secret = _first_of_file(around.folder / path)
        case {"command": [str(), *_] as command, **rest} if not rest and all(isinstance(word, str) for word in command):
            secret = _printed_by(command, around)
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


def _printed_by(command: list[str], around: Surroundings) -> str:
    key = tuple(command)
    if key not in around.printed:
        around.printed[key] = _run(command, around)
    return around.printed[key]


def _run(command: list[str], around: Surroundings) -> str:
    try:
        done = subprocess.run(
            command,
            cwd=around.folder,
            env=dict(around.environ),
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


def _no_sandbox(text: str) -> str:
    if is_sandbox(text):
        raise ValueError("leave it out at the sandbox, which has its own")
    return text


GatewayUrl = Annotated[Url, AfterValidator(_no_sandbox)]
"""The same of what renders and calls prompts, but never the sandbox's."""
