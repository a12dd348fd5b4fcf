"""The kinds of value that are a migration file's own: times, paths, templates.

Each takes what the file says and gives what it means, or raises ValueError with a sentence. What the ends have besides
stands in `engine.connectors.fields`.
"""

from __future__ import annotations

import os
import re
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Final

from pydantic import AfterValidator, BeforeValidator, ValidationInfo, WithJsonSchema

from engine.connectors import DIALECTS
from engine.connectors.fields import Text, plain, surroundings
from engine.content.carry import never_lost
from engine.content.textfile import NotText, read_text
from engine.lossless_json.numbers import Number
from engine.model import Json

_FILE_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,100}")
_COMMENT: Final = re.compile(r"(?:^|\s)#.*", re.DOTALL)
_TIME: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)([smh]?)")
_UNITS: Final = {"": 1, "s": 1, "m": 60, "h": 3600}
_LONGEST: Final = 1e9
_PLACEHOLDER: Final = re.compile(r"\{([^{}]*)\}")
PLACEHOLDERS: Final = ("name", "id", "slug", "model", "collection")
"""What a name of a replica may be made of."""
_FILTERS: Final = ("slug",)
_MAKEABLE: Final = ("collections", "partials", "labels")
_NEVER_MADE: Final = ("providers", "integrations")


# ---- names, times and paths ------------------------------------------------------------------------------------------


def is_file_name(name: Json) -> bool:
    """Whether a migration or a fleet may be called so."""
    return isinstance(name, str) and _FILE_NAME.fullmatch(name) is not None


def _usable_as_file_name(name: str) -> str:
    if not is_file_name(name):
        raise ValueError("must be 1 to 100 letters, digits, dots, dashes and underscores")
    return name


FileName = Annotated[str, AfterValidator(_usable_as_file_name)]
"""The name of a migration or a fleet, which its ledgers are called by."""


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
        return ids_in(surroundings(info).folder / value)
    except NotText as error:
        raise ValueError(f"{value}{'' if error.line is None else f':{error.line}'}: {error}") from None


IdsFile = Annotated[tuple[str, ...], BeforeValidator(_ids_of_file), WithJsonSchema({"type": "string"})]
"""The ids in the file that is named."""


def _cases(value: Json, info: ValidationInfo) -> Path:
    if not isinstance(value, str) or not plain(value):
        raise ValueError("must be the path of a file")
    path = surroundings(info).folder / value
    if not os.path.isfile(path):
        raise ValueError(f"there is no file {value}; `promptferry verify --write-cases` writes one to fill in")
    return path


CasesFile = Annotated[Path, BeforeValidator(_cases), WithJsonSchema({"type": "string"})]
"""Absolute path of a file that is there."""


def _ledger(value: Json, info: ValidationInfo) -> Path:
    return ledger_path(value, name=info.data.get("name", ""), folder=surroundings(info).folder)


def ledger_path(value: Json, *, name: str, folder: Path) -> Path:
    """The absolute path that `ledger:` means in the file of this migration. Raises ValueError."""
    if isinstance(value, Path):
        value = str(value)
    if not isinstance(value, str) or not value.isprintable() or not plain(value):
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


# ---- what rewrites are made of ---------------------------------------------------------------------------------------


def _name_template(text: str) -> str:
    found = _PLACEHOLDER.findall(plain(text))
    for one in found:
        name, bar, how = one.partition("|")
        if name not in PLACEHOLDERS:
            raise ValueError(f"{{{name}}} cannot be filled in; known are {{{'} {'.join(PLACEHOLDERS)}}}")
        if bar and how not in _FILTERS:
            raise ValueError(f"{{{one}}} has a filter that is not known; there is {{{name}|{'} {'.join(_FILTERS)}}}")
    if set(_PLACEHOLDER.sub("", text)) & {"{", "}"}:
        raise ValueError(f"a lone brace cannot be filled in; known are {{{'} {'.join(PLACEHOLDERS)}}}")
    return text


NameTemplate = Annotated[str, AfterValidator(_name_template)]
"""The name of a replica; {name} {id} {slug} {model} {collection} are the source's, {name|slug} fit for the target."""


def _parameter_path(path: str) -> str:
    steps = plain(path).split(".")
    if not all(steps):
        raise ValueError(f"{path!r} is not a parameter or a dotted path to one inside it")
    if steps[0] == "model":
        raise ValueError("`model` is no parameter here: use rewrite.model")
    return path


ParameterPath = Annotated[str, AfterValidator(_parameter_path)]
"""A parameter, or a dotted path inside one: `thinking.budget_tokens`."""


_PARAMETERS: Final = frozenset(
    "temperature top_p top_k max_tokens max_completion_tokens stop seed n logprobs logit_bias frequency_penalty "
    "presence_penalty response_format thinking reasoning_effort parallel_tool_calls".split()
).union(name for one in DIALECTS.values() for name in one.parameters.known)
"""Names that are surely meant as parameters."""


def _loss_name(name: str) -> str:
    if (why := never_lost(plain(name), _PARAMETERS)) is not None:
        raise ValueError(why)
    return name


LossName = Annotated[str, AfterValidator(_loss_name)]
"""What `plan` may print as a loss: a field, `parameters.NAME`, `metadata.KEY`, `messages.KEY`, or a field that is not
known here.
"""


def _makeable(kind: str) -> str:
    if kind in _MAKEABLE:
        return kind
    nearest = get_close_matches(kind.lower(), [*_MAKEABLE, *_NEVER_MADE], n=1)
    if nearest and nearest[0] in _NEVER_MADE:
        raise ValueError(f"{nearest[0]} hold keys and are never made: make them at the target, or map them in rewrite")
    meant = f"; did you mean `{nearest[0]}`?" if nearest else ""
    raise ValueError(f"must be `collections`, `partials` or `labels`{meant}")


Makeable = Annotated[str, AfterValidator(_makeable), WithJsonSchema({"enum": [*_MAKEABLE]})]
"""What can be made at a target, where its kind of registry has it."""


def _for_all(value: Json) -> Json:
    if not isinstance(value, str | dict):
        raise ValueError("must be one text for all prompts, or a map of globs to texts")
    return {"*": value} if isinstance(value, str) else value


Choices = Annotated[dict[Text, Text], BeforeValidator(_for_all, json_schema_input_type=str | dict[str, str])]
"""New values by globs of the old, in the file's order; a single text is for all: `{"*": text}`."""
