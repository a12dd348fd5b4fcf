"""JSON values as YAML 1.2 in block style, and back. Pure.

Written by hand, so that the same values are the same bytes whatever library is installed; read by ruamel.yaml, because
people edit it. Every number, text and key comes back as it was: kinds are told by the JSON rules, not by guesses, and
numbers are kept as they are written (`engine.numbers`).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from engine.lossless_json.numbers import NotKept, Number, dumps, yaml_number
from engine.model import Json

MOST_DEEP: Final = 64
"""Values nested deeper than this are not written: a reader could not follow."""
SPLIT_PAIR: Final = re.compile("[\ud800-\udbff][\udc00-\udfff]")
"""The two halves of one character as two: they would come back as one."""

_STEP: Final = "  "
_LONGEST_KEY: Final = 500
"""YAML looks for the colon of a key in its next 1024 characters only; a longer one needs a question mark."""
_PLAIN: Final = re.compile(r"[A-Za-z][A-Za-z0-9_./@+-]*(?:[ :][A-Za-z0-9_./@+-]+)*")
_WORDS: Final = frozenset("null true false yes no on off y n".split())
_NOT_PRINTED: Final = re.compile(
    "[^\\n\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]"
)
"""What YAML readers refuse, take for the end of a line, or do not show."""
_BLOCK: Final = re.compile(r"[^\s][^\n]*(?:\n[^\n]*)*\n[^\n]*[^\s\n]\n?")
"""Several lines that stand in a literal block: no blank at their start, and no blank line at their end."""
_IN_BASE: Final = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_NOT_FINITE: Final = re.compile(r"([-+]?)\.(inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_OTHER_ENDS: Final = re.compile("\r(?!\n)|[\x85\u2028\u2029]")
_PRIVATE: Final = range(0xE000, 0xF900)
"""Characters that mean nothing by themselves, so that some are surely free to stand for others."""
_CONSTANTS: Final = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}


_Never = re.Pattern[str] | None


class Unreadable(ValueError):
    """It is not such YAML. `line` counts from 1; the message never quotes it."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line
        self.message = message


@dataclass(frozen=True, slots=True, kw_only=True)
class Front:
    """What stands in front matter, and the line of each of its outermost keys, from 1."""

    values: Mapping[str, Json]
    lines: Mapping[str, int]


# ---- writing ---------------------------------------------------------------------------------------------------------


def write_yaml(values: Mapping[str, Json], *, never: re.Pattern[str] | None = None, old: bool = False) -> str:
    """The lines of a mapping, in its order. Raises ValueError for what would not come back: NaN, Infinity, an integer
    of more digits than Python reads, a surrogate pair as two characters, or nesting deeper than MOST_DEEP.

    `never`: what must not stand anywhere in it, so its first character is escaped where a text holds it. `old`: readers
    of YAML 1.1 find the same values, who take a number for one only where it has a point before its exponent.
    """
    given = _for_old_readers(values) if old else values
    return "".join(f"{line}\n" for line in _mapping(given, "", never))


_BARE_EXPONENT: Final = re.compile(r"(-?[0-9]+)(\.[0-9]+)?[eE]([-+]?)([0-9]+)")


def _for_old_readers(value: Json) -> Json:
    if isinstance(value, Mapping):
        return {key: _for_old_readers(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_for_old_readers(inner) for inner in value]
    if isinstance(value, float | Number) and (found := _BARE_EXPONENT.fullmatch(dumps(value))) is not None:
        return Number(f"{found[1]}{found[2] or '.0'}e{found[3] or '+'}{found[4]}")
    return value


def _mapping(values: Mapping[str, Json], indent: str, never: _Never) -> Iterator[str]:
    if len(indent) > MOST_DEEP * len(_STEP):
        raise ValueError("a value that is nested too deep")
    for key, value in values.items():
        written = _text(key, never)
        if len(written) <= _LONGEST_KEY:
            yield from _behind(f"{indent}{written}:", value, indent, never)
        else:
            yield f"{indent}? {written}"
            yield from _behind(f"{indent}:", value, indent, never)


def _behind(head: str, value: Json, indent: str, never: _Never) -> Iterator[str]:
    """A value behind its key."""
    if isinstance(value, Mapping) and value:
        yield head
        yield from _mapping(value, indent + _STEP, never)
    elif isinstance(value, list | tuple) and value:
        yield head
        yield from _sequence(value, indent + _STEP, never)
    else:
        yield from _leaf(head, value, indent, never)


def _sequence(items: list[Json] | tuple[Json, ...], indent: str, never: _Never) -> Iterator[str]:
    if len(indent) > MOST_DEEP * len(_STEP):
        raise ValueError("a value that is nested too deep")
    inner = indent + _STEP
    for item in items:
        if isinstance(item, Mapping | list | tuple) and item:
            lines = _mapping(item, inner, never) if isinstance(item, Mapping) else _sequence(item, inner, never)
            yield f"{indent}- {next(lines)[len(inner) :]}"
            yield from lines
        else:
            yield from _leaf(f"{indent}-", item, indent, never)


def _leaf(head: str, value: Json, indent: str, never: _Never) -> Iterator[str]:
    if isinstance(value, str) and _BLOCK.fullmatch(value) and not (_NOT_PRINTED.search(value) or _has(value, never)):
        yield f"{head} |" if value.endswith("\n") else f"{head} |-"
        yield from (f"{indent}{_STEP}{line}" if line else "" for line in value.removesuffix("\n").split("\n"))
    else:
        yield f"{head} {_scalar(value, never)}"


def _scalar(value: Json, never: _Never) -> str:
    if isinstance(value, str):
        return _text(value, never)
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("a number that is not finite")
    if value is None or isinstance(value, bool | int | float | Number):
        return dumps(value)
    if isinstance(value, Mapping | list | tuple) and not value:
        return "{}" if isinstance(value, Mapping) else "[]"
    raise TypeError(f"no JSON value: {type(value).__name__}")


def _has(text: str, never: _Never) -> bool:
    return never is not None and never.search(text) is not None


def _text(text: str, never: _Never) -> str:
    if SPLIT_PAIR.search(text):
        raise ValueError("a text with a surrogate pair in two characters, which would come back as one")
    if _PLAIN.fullmatch(text) and text.lower() not in _WORDS and not _has(text, never):
        return text
    quoted = _NOT_PRINTED.sub(_escaped, json.dumps(text, ensure_ascii=False))
    while never is not None and (found := never.search(quoted)) is not None:
        quoted = f"{quoted[: found.start()]}\\u{ord(quoted[found.start()]):04x}{quoted[found.start() + 1 :]}"
    return quoted


def _escaped(found: re.Match[str]) -> str:
    return f"\\u{ord(found[0]):04x}"


# ---- reading ---------------------------------------------------------------------------------------------------------


def read_yaml(text: str, *, texts: Collection[str] = ()) -> tuple[Json, Mapping[str, int]]:
    """What a whole file of YAML holds, a mapping or anything else, and the lines of a mapping's outermost keys; see
    `read_front`. Raises Unreadable.
    """
    try:
        front = read_front(text, texts=texts)
    except NoMapping as error:
        return error.value, {}
    return front.values, front.lines


class NoMapping(Unreadable):
    """It is such YAML, but no mapping."""

    def __init__(self, line: int, value: Json) -> None:
        super().__init__(line, "is no map of keys such as `name:`")
        self.value = value


def read_front(text: str, *, texts: Collection[str] = ()) -> Front:
    """The mapping that `text` holds. `texts`: outermost keys whose scalars are texts, whatever they look like, but for
    null: a model may be called 4e2. Raises Unreadable.

    Only a line feed ends a line here, as it does below: YAML would make a blank of the other ends, or drop blanks.
    """
    if ends := set(_OTHER_ENDS.findall(text)):
        free = (char for char in map(chr, _PRIVATE) if char not in text)
        back = dict(zip(free, sorted(ends), strict=False))
        there = {end: char for char, end in back.items()}
        front = read_front(_OTHER_ENDS.sub(lambda end: there[end[0]], text), texts=texts)
        return Front(values=_with(back, front.values), lines=_with(back, front.lines))
    try:
        root = YAML(typ="safe", pure=True).compose(text)
        if root is None:
            return Front(values={}, lines={})
        if not isinstance(root, MappingNode):
            raise NoMapping(root.start_mark.line + 1, _read(root))
        values = _read_mapping(root, texts)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        message = "is not YAML; put quotes around a text that holds any of {{ }} [ ] : # * ! % @"
        raise Unreadable(mark.line + 1 if mark else 1, message) from None
    except YAMLError:
        raise Unreadable(1, "is not YAML: it holds control characters; write them as \\u and four digits") from None
    except RecursionError:
        raise Unreadable(1, "is nested too deep") from None
    return Front(values=values, lines={str(key.value): key.start_mark.line + 1 for key, _ in root.value})


def _with(back: Mapping[str, str], value: Json) -> Json:
    """The same value with the characters that others stood for."""
    if isinstance(value, str):
        return value.translate({ord(char): end for char, end in back.items()})
    if isinstance(value, Mapping):
        return {_with(back, key): _with(back, inner) for key, inner in value.items()}
    return [_with(back, inner) for inner in value] if isinstance(value, list) else value


def _read_mapping(node: MappingNode, texts: Collection[str] = ()) -> dict[str, Json]:
    values: dict[str, Json] = {}
    for key_node, value_node in node.value:
        if not isinstance(key_node, ScalarNode):
            raise _unreadable(key_node, "has a key that is no text")
        key = _joined(key_node.value)
        if key in values:
            raise _unreadable(key_node, "has a key that stands in this map already; take one of them out")
        values[key] = _read(value_node, as_text=key in texts)
    return values


def _read(node: Node, *, as_text: bool = False) -> Json:
    if node.anchor is not None:
        raise _unreadable(node, "has an anchor or an alias (& or *); write the value out, or put quotes around a text")
    if not str(node.tag).startswith("tag:yaml.org,2002:"):
        raise _unreadable(node, "has a tag; put quotes around a text that begins with !")
    if isinstance(node, MappingNode):
        return _read_mapping(node)
    if isinstance(node, SequenceNode):
        return [_read(item, as_text=as_text) for item in node.value]
    return _read_scalar(node, as_text)


def _read_scalar(node: Any, as_text: bool) -> Json:
    text = node.value
    if node.style is not None or (as_text and _CONSTANTS.get(text, text) is not None):
        return _joined(text)
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if _IN_BASE.fullmatch(text):
        return int(text, 0)
    if odd := _NOT_FINITE.fullmatch(text):  # no registry takes it: what holds it fails by itself, and by name
        return float(f"{odd[1]}{odd[2]}") if odd[2] else math.nan
    try:
        number = yaml_number(text)
    except NotKept:
        raise _unreadable(node, "has a number that cannot be kept; put quotes around it if it is a text") from None
    return _joined(text) if number is None else number


def _joined(text: str) -> str:
    """The text, with escapes such as those of JSON, where two make one character, put together."""
    if not SPLIT_PAIR.search(text):
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")


def _unreadable(node: Node, message: str) -> Unreadable:
    return Unreadable(node.start_mark.line + 1, message)
