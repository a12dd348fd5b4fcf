"""What a new migration file may say of an end, kind by kind, and whether it may say it: for `promptferry init`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, get_args, get_origin

from pydantic import SecretStr, ValidationError
from pydantic.fields import FieldInfo

from engine.config.complaints import complaints
from engine.config.migration import Migration
from engine.config.yamlfile import Place
from engine.connectors import REGISTRIES
from engine.connectors.fields import Surroundings, is_sandbox
from engine.model import Abilities, Json

__all__ = ["KINDS", "Key", "Kind", "complaint_on", "is_sandbox"]

_PUBLISHED_BY: Final = "published_by"


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """One key of an end. `start`: what a new file says of it, the default or an example; `words`: the ones that it may
    be, empty: any; `secret`: its value is the name of a variable; `asked`: the end is not told without it.
    """

    name: str
    says: str
    start: str
    is_default: bool
    words: tuple[str, ...]
    secret: bool
    asked: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A kind of end: its keys but `kind`, in the order in which they are written, and what it can do."""

    name: str
    says: str
    keys: Mapping[str, Key]
    can: Abilities


def _keys(kind: str) -> Iterator[Key]:
    end = REGISTRIES[kind].endpoint
    for name, field in end.model_fields.items():
        if name == "kind":
            continue
        words = tuple(_words(field.annotation))
        asked = name in (*end.needed, "base_url", _PUBLISHED_BY) or len(words) > 1
        yield Key(
            name=name,
            says=str(field.description),
            start=_start(field),
            is_default=field.default is not None,
            words=words,
            secret=_is_secret(field.annotation),
            asked=asked,
        )


def _start(field: FieldInfo) -> str:
    examples = [*(field.examples or ()), ""]
    return str(field.default if field.default is not None else examples[0])


def _is_secret(annotation: Any) -> bool:
    return annotation is SecretStr or any(map(_is_secret, get_args(annotation)))


def _words(annotation: Any) -> Iterator[str]:
    if get_origin(annotation) is Literal:
        yield from map(str, get_args(annotation))


KINDS: Final[Mapping[str, Kind]] = {
    kind: Kind(
        name=kind,
        says=str(row.endpoint.__doc__),
        keys={key.name: key for key in _keys(kind)},
        can=row.can,
    )
    for kind, row in REGISTRIES.items()
}
"""By their words in the file; the first is meant where none stands there."""


class _AnyVariable(dict[str, str]):
    """An environment in which every variable is set: who writes a file need not have its keys."""

    def get(self, name: str, default: Any = None) -> Any:
        return "set"


def complaint_on(place: Place, file: Mapping[str, Json]) -> str | None:
    """What is wrong with the value at that place in a file, whatever else is; None: nothing. What `${NAME}` stands for
    is not known yet.
    """
    try:
        Migration.model_validate(file, context=Surroundings(Path.cwd(), _AnyVariable()))
    except ValidationError as error:
        return next((sentence for at, sentence in complaints(error, Migration) if at == place), None)
    return None
