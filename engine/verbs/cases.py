"""The values that prompts are rendered and called with: from a file of cases, or made up from what a template asks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from engine.content.textfile import NotText, read_text, repeated_key
from engine.errors import ConfigError, Problem
from engine.lossless_json import NotKept, decode, encode
from engine.model import Inputs, Json, Prompt

KEYS: Final = ("prompt", "variables", "label")
IMPLICIT: Final = "."
"""The variable that means the item of the section itself."""


@dataclass(frozen=True, slots=True)
class Case:
    """Values for one prompt. `prompt`: its id, slug or name; `label` tells several of one prompt apart."""

    prompt: str
    variables: Mapping[str, Json] = field(repr=False)
    label: str | None = None


# ---- the file --------------------------------------------------------------------------------------------------------


def read_cases(path: Path) -> list[Case]:
    """The cases in a JSONL file, `{"prompt": , "variables": {}, "label": ""}` a line; blank lines are left out.

    Raises ConfigError with every problem found; no message quotes a value.
    """
    try:
        text = read_text(path)
    except NotText as error:
        raise ConfigError([Problem(str(error), file=str(path), line=error.line)]) from None
    cases: list[Case] = []
    problems: list[Problem] = []
    # not splitlines, for which a text in JSON may hold ends of lines
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            value, wrong = _read(line)
            problems += [Problem(message, file=str(path), line=number, key=key) for key, message in wrong]
            if not wrong:
                cases.append(Case(value["prompt"], value.get("variables", {}), value.get("label") or None))
    if problems:
        raise ConfigError(problems)
    return cases


def _read(line: str) -> tuple[Json, list[tuple[str, str]]]:
    """The line's value, and (key, what is wrong there)."""
    try:
        value = decode(line.encode())
    except NotKept:
        return None, [("", "has a number that cannot be kept; put quotes around it")]
    except ValueError:
        return None, [("", "is not JSON: each line is one object that ends where the line ends")]
    if not isinstance(value, dict):
        return value, [("", "must be an object with prompt, variables and label")]
    if (repeated := repeated_key(line)) is not None:
        return value, [(repeated[0], "is there twice; take one of them out")]
    return value, list(_wrong(value))


def _wrong(value: Mapping[str, Json]) -> Iterator[tuple[str, str]]:
    for key in value:
        if key not in KEYS:
            yield key, f"unknown key; known here are {', '.join(KEYS)}"
    prompt, label = value.get("prompt"), value.get("label")
    if not isinstance(prompt, str) or not prompt:
        yield "prompt", "is required: the id, slug or name of a prompt"
    if not isinstance(value.get("variables", {}), dict):
        yield "variables", "must be an object of names and values"
    if label is not None and not (isinstance(label, str) and label.isprintable()):
        yield "label", "must be a text on one line"


# ---- for one prompt --------------------------------------------------------------------------------------------------


def cases_for(prompt: Prompt, cases: Sequence[Case], shared: Mapping[str, Json]) -> list[Case]:
    """Those that name this prompt, each with `shared` underneath; without any, one with values that are made up, and
    with those of `shared` that the template knows in their place.
    """
    names = (prompt.id, prompt.slug, prompt.name)
    own = [replace(case, variables={**shared, **case.variables}) for case in cases if case.prompt in names]
    if own:
        return own
    values = made_up(prompt)
    known = {name: value for name, value in shared.items() if name in values or name in prompt.variables}
    return [Case(prompt.id, values | known)]


def made_up(prompt: Prompt) -> dict[str, Json]:
    """A value for everything the registry lists in `prompt.inputs`, no two alike.

    A text, or for a raw template a whole number, which is JSON inside of quotes and outside; a section is a list of one
    object with the variables inside it, or true; a dotted name is an object in an object.
    """
    inputs = prompt.inputs
    inside = [name for names in inputs.sections.values() for name in names]
    names = dict.fromkeys((*inputs.variables, *inside, *inputs.partials, *inputs.sections))
    made = {name: number if prompt.raw else f"value of {name}" for number, name in enumerate(names, start=1)}
    # a text that the caller supplies is a text in a raw template too
    values: dict[str, Json] = {name: str(made[name]) if prompt.raw else f"text of {name}" for name in inputs.partials}
    for name in inputs.sections:
        _put(values, name, _section(name, inputs, made))
    for name in (*inputs.variables, *inside):
        _put(values, name, made[name])
    return values


def _section(name: str, inputs: Inputs, made: Mapping[str, Json]) -> Json:
    names = inputs.sections[name]
    if set(names) == {IMPLICIT}:
        return [made[name]]
    item: dict[str, Json] = {}
    for inner in names:
        _put(item, inner, made[inner])
    return [item] if item else True


def _put(values: dict[str, Json], name: str, value: Json) -> None:
    """Puts it where a dotted name leads; what is there stays, but for a plain value where an object is needed."""
    *way, last = name.split(".")
    if not all((*way, last)):  # `.` itself, and what is no way
        return
    for key in way:
        if isinstance(values.setdefault(key, {}), list):
            return
        if not isinstance(values[key], dict):
            values[key] = {}
        values = values[key]
    values.setdefault(last, value)


def skeleton(prompt: Prompt) -> bytes:
    """One line of such a file, its values to be filled in: texts are "", sections []."""
    values = _emptied(made_up(prompt))
    return encode({"label": "", "prompt": prompt.slug or prompt.id, "variables": values}) + b"\n"


def _emptied(value: Json) -> Json:
    if isinstance(value, dict):
        return {name: _emptied(value[name]) for name in sorted(value)}
    return [] if value is True or isinstance(value, list) else ""
