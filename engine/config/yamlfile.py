"""A YAML 1.2 file as plain values, with the line of every key: what an error needs to say where it is."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from engine.content.textfile import NotText, read_text
from engine.errors import ConfigError, Problem
from engine.lossless_json.numbers import Number, yaml_number
from engine.model import Json

Place = tuple[str | int, ...]
"""Where a value stands: keys of maps and indexes of lists, outermost first."""

_TAG: Final = "tag:yaml.org,2002:"
_TEXTS: Final = tuple(_TAG + tag for tag in ("str", "timestamp", "value", "merge"))
_SCALARS: Final = tuple(_TAG + tag for tag in ("null", "bool", "int", "float"))


@dataclass(frozen=True, slots=True)
class YamlFile:
    """One file: `data` is its outermost map, `lines` the line (from 1) of each key and list item."""

    name: str
    data: Mapping[str, Json]
    lines: Mapping[Place, int]
    problems: tuple[Problem, ...]
    """What is wrong in it that leaves the rest readable: duplicate keys, tags."""

    def problem(self, place: Place, message: str) -> Problem:
        """`message` at `place`, or at the nearest place around it that the file has."""
        return Problem(message, file=self.name, line=_line(self.lines, place), key=dotted(place))


def dotted(place: Place) -> str:
    """`("rewrite", "rules", 0, "model")` -> `rewrite.rules[0].model`."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).removeprefix(".")


def read_yaml(path: Path) -> YamlFile:
    """Reads the map that `path` holds. Raises ConfigError when it cannot be read as one; never quotes its content."""
    name = str(path)
    try:
        reading = _Reading(name)
        root = YAML(typ="safe", pure=True).compose(read_text(path))
        if root is None:
            raise ValueError("the file is empty; `promptferry init` writes one to start from")
        if not isinstance(root, MappingNode):
            raise ValueError("must be a map of keys such as `name:` and `source:` at its outermost level")
        return YamlFile(name, reading.map(root, ()), reading.lines, tuple(reading.problems))
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = Problem(_syntax(error), file=name, line=mark.line + 1 if mark else None)
    except YAMLError:
        problem = Problem("is not YAML: it holds control characters; save it as plain text", file=name)
    except RecursionError:
        problem = Problem("is nested too deeply to be a migration file", file=name)
    except NotText as error:
        problem = Problem(str(error), file=name, line=error.line)
    except ValueError as error:
        problem = Problem(str(error), file=name)
    raise ConfigError([problem])


def _line(lines: Mapping[Place, int], place: Place) -> int | None:
    return next((lines[place[:end]] for end in range(len(place), 0, -1) if place[:end] in lines), None)


def _syntax(error: MarkedYAMLError) -> str:
    problem = str(error.problem or "cannot be understood")
    if "alias" in problem:
        return "is not YAML: a text that begins with * needs quotes"
    if "another document" in problem:
        return "must hold one YAML document: take out what follows `---`"
    where = f"{error.context}: " if error.context else ""
    return f"is not YAML: {where}{problem}; put quotes around texts that hold any of {{ }} [ ] : # * ! % @"


class _Reading:
    """Turns nodes into values and notes the lines and problems met on the way."""

    def __init__(self, name: str) -> None:
        self.lines: dict[Place, int] = {}
        self.problems: list[Problem] = []
        self._name = name
        self._scalars = YAML(typ="safe", pure=True).constructor

    def map(self, node: MappingNode, place: Place) -> dict[str, Json]:
        values: dict[str, Json] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, ScalarNode):
                self._refuse(key_node, place, "a key must be a text")
                continue
            key = self._text(key_node, place)
            here = (*place, key)
            if key in values:
                first = self.lines[here]
                self._refuse(key_node, here, f"the key is there twice, first in line {first}; take one of them out")
                continue
            self.lines[here] = key_node.start_mark.line + 1
            values[key] = self._value(value_node, here)
        return values

    def _value(self, node: Node, place: Place) -> Json:
        if isinstance(node, ScalarNode):
            return self._scalar(node, place)
        if isinstance(node, MappingNode) and node.tag == _TAG + "map":
            return self.map(node, place)
        if isinstance(node, SequenceNode) and node.tag == _TAG + "seq":
            return list(self._items(node, place))
        self._refuse(node, place, "tags (`!name`) are not allowed here; take it out")
        return None

    def _items(self, node: SequenceNode, place: Place) -> Iterator[Json]:
        for index, item in enumerate(node.value):
            self.lines[(*place, index)] = item.start_mark.line + 1
            yield self._value(item, (*place, index))

    def _scalar(self, node: ScalarNode, place: Place) -> Json:
        if node.tag in _TEXTS:
            return self._text(node, place)
        if node.tag not in _SCALARS:
            self._refuse(node, place, "a text that begins with ! needs quotes")
            return None
        try:
            value: Json = self._exactly(node)
        except ValueError:
            value = math.nan
        if isinstance(value, float) and not math.isfinite(value):
            self._refuse(node, place, "is not a number that can be used; put quotes around it if it is a text")
            return None
        return value

    def _exactly(self, node: ScalarNode) -> Json:
        """The value; of a number the written form only where a float would be another one: bounds and rates are plain.
        Raises ValueError.
        """
        exact = yaml_number(node.value) if node.tag == f"{_TAG}float" else None
        if isinstance(exact, Number) and exact.plain() is None:
            return exact
        return self._scalars.construct_object(node)

    def _text(self, node: ScalarNode, place: Place) -> str:
        """The text, with escapes such as those of JSON, where two make one character, put together."""
        try:
            return str(node.value).encode("utf-16", "surrogatepass").decode("utf-16")
        except UnicodeDecodeError:
            self._refuse(node, place, "has an escape that is half a character; write the character itself")
            return ""

    def _refuse(self, node: Node, place: Place, message: str) -> None:
        line = node.start_mark.line + 1
        self.problems.append(Problem(message, file=self._name, line=line, key=dotted(place)))
