"""Answers for scoring elsewhere: promptfoo's configuration, CSV, JSON Lines. All that was asked and answered. Pure.

promptfoo (0.121.20, whose command line a test runs on it): provider `echo` says what its prompt is rendered to, and the
two prompts, `original` and `replica`, are rendered to the recorded answers: `promptfoo eval` puts them side by side and
scores them by whatever assertions are added, without a call of these models. An answer stands in a list in a map, where
promptfoo renders nothing and takes no text for the path of a file; no piece of it has `{{`, for `{{ env.X }}` is
replaced wherever it stands. Where the original answers JSON, its shape is asserted of both.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import chain, zip_longest
from typing import Any, Final

from engine.content.table import as_table
from engine.lossless_json import encode
from engine.model import Reply
from engine.verbs.compare.result import Compared
from engine.verbs.compare.shapes import document, schema, together

SIDES: Final = ("original", "replica")


def as_promptfoo(cases: Iterable[Compared]) -> str:
    """JSON, which is YAML too: a test for each pair of answers."""
    prompts = [{"label": side, "raw": f"{{{{ answers.{side} | join }}}}"} for side in SIDES]
    tests = [test for one in cases for test in _tests(one)]
    value = {
        "description": "Answers of originals and their replicas, as promptferry recorded them",
        "providers": [{"id": "echo", "label": "recorded"}],
        "prompts": prompts,
        "tests": tests,
    }
    return json.dumps(value, indent=1) + "\n"


def _tests(one: Compared) -> Iterator[dict[str, Any]]:
    for original, replica in _pairs(one):
        answers = {"original": _pieces(_words(original)), "replica": _pieces(_words(replica))}
        asked = _inert(encode(one.question.variables).decode())
        case = {"prompt": _inert(one.question.prompt.name), "case": _inert(one.question.case), "variables": asked}
        asserted = _asserted(one)
        yield {
            "description": _inert(one.name),
            "vars": {"case": case, "answers": answers},
            "metadata": {"source_id": one.question.prompt.id, "target_id": one.target_id, "result": one.result},
            **({"assert": asserted} if asserted else {}),
        }


def _pairs(one: Compared) -> Iterator[tuple[Reply, Reply]]:
    """Each answer of the replica beside one of the original; none where either has none."""
    if one.original and one.replica:
        for number, replica in enumerate(one.replica):
            yield one.original[number % len(one.original)], replica


def _asserted(one: Compared) -> list[dict[str, Any]]:
    documents = [document(reply.text) for reply in one.original if reply.outcome == "answered"]
    shapes = [found.shape for found in documents if found is not None and not found.fenced]
    shape = together(shapes)
    return [{"type": "is-json", "value": schema(shape)}] if shape is not None and len(shapes) == len(documents) else []


def _words(reply: Reply) -> str:
    """The text; or the tools that are called, as JSON."""
    if reply.tool_calls and not reply.text:
        return json.dumps([asdict(call) for call in reply.tool_calls])
    return reply.text or ""


def _pieces(text: str) -> list[str]:
    first, *rest = text.split("{{")
    pieces = [first]
    for piece in rest:
        pieces[-1] += "{"
        pieces.append("{" + piece)
    return pieces


def _inert(text: str) -> str:
    return text.replace("{{", "{ {")


# ---- tables ----------------------------------------------------------------------------------------------------------

_WHOSE: Final = ("source_id", "target_id", "name", "case", "number", "result", "fields", "similarity")
_EACH: Final = ("outcome", "model", "finish_reason", "seconds", "tokens", "text", "tool_calls", "error")
COLUMNS: Final = (*_WHOSE, "variables", *(f"{side}_{name}" for side in SIDES for name in _EACH))


def as_csv(cases: Iterable[Compared]) -> str:
    """A row for each answer of a replica, beside one of its original; a case without answers has a row too."""
    return as_table(COLUMNS, chain.from_iterable(map(_rows, cases)))


def _rows(one: Compared) -> Iterator[dict[str, Any]]:
    pairs: Sequence[tuple[Reply | None, Reply | None]] = list(_pairs(one))
    pairs = pairs or list(zip_longest(one.original, one.replica)) or [(None, None)]
    for number, sides in enumerate(pairs, 1):
        yield _whose(one, number) | {
            f"{side}_{name}": value for side, reply in zip(SIDES, sides, strict=True) for name, value in _cells(reply)
        }


def _whose(one: Compared, number: int) -> dict[str, Any]:
    judged = one.judgement
    return {
        "source_id": one.question.prompt.id,
        "target_id": one.target_id,
        "name": one.question.prompt.name,
        "case": one.question.case,
        "number": number,
        "result": one.result,
        "fields": " ".join(judged.fields) if judged is not None else "",
        "similarity": judged.similarity if judged is not None else None,
        "variables": encode(one.question.variables).decode(),
    }


def _cells(reply: Reply | None) -> Iterator[tuple[str, Any]]:
    if reply is None:
        return
    calls = json.dumps([asdict(call) for call in reply.tool_calls]) if reply.tool_calls else None
    yield from ((name, calls if name == "tool_calls" else getattr(reply, name)) for name in _EACH)


def as_jsonl(cases: Iterable[Compared]) -> str:
    """An object for each case: all that `--json` says of it, what was asked, and all answers of both sides."""
    return "".join(encode(_object(one)).decode() + "\n" for one in cases)


def _object(one: Compared) -> Mapping[str, Any]:
    both = {side: [asdict(reply) for reply in getattr(one, side)] for side in SIDES}
    return one.to_json() | {"variables": one.question.variables} | both


EXPORTS: Final[Mapping[str, Callable[[Iterable[Compared]], str]]] = {
    "promptfoo": as_promptfoo,
    "csv": as_csv,
    "jsonl": as_jsonl,
}
