"""Whether a replica answers as its original did, by what can be told without reading the words. Pure.

A model need not answer the same thing twice. Originals that were asked several times show how far they go, and only
what is outside of all that they showed is a difference: another finish reason or set of tool calls than any of them
had, a key or type that none of them had, a key missing that all of them had.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import islice
from statistics import median
from typing import Final

from engine.content.digest import changed
from engine.model import Json, Reply
from engine.verbs.compare.shapes import Document, document, outside, shown, together

FIELDS: Final = ("answered", "finish_reason", "tool_calls", "json")
"""What makes an answer another one. Length, times, tokens and words are measured, and decide nothing."""
SAME_REASON: Final[Mapping[str, str]] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "complete": "stop",
    "eos": "stop",
    "max_tokens": "length",
    "max_output_tokens": "length",
    "model_length": "length",
    "tool_use": "tool_calls",
    "tool_call": "tool_calls",
    "function_call": "tool_calls",
    "safety": "content_filter",
    "content_filtered": "content_filter",
    "guardrail_intervened": "content_filter",
    "refusal": "content_filter",
}
"""What vendors call what OpenAI calls so, for a gateway may pass their own words on. Sources: `stop_reason` of
Anthropic's Messages, `finishReason` of Gemini, `stopReason` of Bedrock's Converse, `finish_reason` of Cohere, Mistral.
"""
MOST_PLACES: Final = 5
"""Of JSON, places that are told for one answer."""
MOST_WORDS: Final = 4_000
"""Of each text, what is compared word by word."""


@dataclass(frozen=True, slots=True)
class Measure:
    """Medians. None: not told by any answer."""

    original: float | None
    replica: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """Of one case. `fields`: of FIELDS, those that differ; `details`: in words, without any of the answers'."""

    fields: tuple[str, ...]
    details: tuple[str, ...]
    outside: int
    """How many of the replica's answers differ."""
    flaky: bool
    """The original's own answers differ in one of the fields."""
    length: Measure
    """Characters."""
    seconds: Measure
    tokens: Measure
    similarity: float | None
    """0 to 1: how alike the words are, each answer beside the likest of the original's; the lowest of them."""


def judge(originals: Sequence[Reply], replicas: Sequence[Reply]) -> Judgement:
    """What is to be said of the answers to one case; there is at least one of either."""
    seen = _seen(originals)
    found = [dict(seen.against(one)) for one in replicas]
    details = [detail for one in found for detail in one.values()]
    return Judgement(
        fields=tuple(name for name in FIELDS if any(name in one for one in found)),
        details=tuple(dict.fromkeys(details)),
        outside=sum(map(bool, found)),
        flaky=any(dict(_seen([one]).against(other)) for one in originals for other in originals if one is not other),
        length=_measure(originals, replicas, lambda one: len(one.text) if one.text is not None else None),
        seconds=_measure(originals, replicas, lambda one: one.seconds),
        tokens=_measure(originals, replicas, lambda one: one.tokens),
        similarity=min(_likest(originals, replicas), default=None),
    )


def _measure(originals: Sequence[Reply], replicas: Sequence[Reply], of: Callable[[Reply], float | None]) -> Measure:
    return Measure(median_of(map(of, originals)), median_of(map(of, replicas)))


def median_of(values: Iterable[float | None]) -> float | None:
    """Of those that are known."""
    found = [value for value in values if value is not None]
    return median(found) if found else None


# ---- what the original showed ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Seen:
    """All that the original's answers did."""

    answered: frozenset[bool]
    reasons: frozenset[str | None]
    calls: Sequence[Json]
    documents: Sequence[Document | None]

    def against(self, reply: Reply) -> Iterator[tuple[str, str]]:
        """Each field in which this answer is outside of it, and how."""
        answered = reply.outcome == "answered"
        if answered not in self.answered:
            yield "answered", "answered" if answered else f"not answered: {reply.error}"
        if not answered or True not in self.answered:  # there is nothing to put it beside
            return
        if (reason := _reason(reply)) not in self.reasons:
            yield "finish_reason", f"finish_reason is {reason}, was {_words(self.reasons)}"
        if all(changed(_calls(reply), known) for known in self.calls):
            yield "tool_calls", f"tool_calls: {_other(_names(_calls(reply)), {_names(known) for known in self.calls})}"
        if words := self._json(document(reply.text)):
            yield "json", f"json: {words}"

    def _json(self, found: Document | None) -> str:
        known = [one for one in self.documents if one is not None]
        if len(known) < len(self.documents):  # it was no JSON either, at least once
            return ""
        if found is None:
            return "it is none"
        if found.fenced and not any(one.fenced for one in known):
            return "it stands in a code fence"
        shape = together(one.shape for one in known)
        places = list(outside(found.shape, shape)) if shape is not None else []
        more = [f"and {len(places) - MOST_PLACES} more"] if len(places) > MOST_PLACES else []
        return ", ".join([*islice(places, MOST_PLACES), *more])


def _seen(originals: Sequence[Reply]) -> _Seen:
    answered = [one for one in originals if one.outcome == "answered"]
    return _Seen(
        answered=frozenset(one.outcome == "answered" for one in originals),
        reasons=frozenset(map(_reason, answered)),
        calls=[_calls(one) for one in answered],
        documents=[document(one.text) for one in answered],
    )


def _reason(reply: Reply) -> str | None:
    word = reply.finish_reason.lower() if reply.finish_reason is not None else None
    return SAME_REASON.get(word, word) if word is not None else None


def _words(reasons: frozenset[str | None]) -> str:
    return " or ".join(sorted(map(str, reasons)))


def _calls(reply: Reply) -> list[Json]:
    """Name and arguments of each, in an order of their own: tools that are called at once have none."""
    calls = [[one.name, _arguments(one.arguments)] for one in reply.tool_calls]
    return sorted(calls, key=lambda call: json.dumps(call, sort_keys=True))


def _arguments(written: str) -> Json:
    """As JSON; a text where they are none."""
    try:
        return json.loads(written or "{}")
    except (ValueError, RecursionError):
        return written


def _names(calls: Json) -> str:
    return ", ".join(shown(name) for name, _ in calls) or "none"


def _other(names: str, known: Collection[str]) -> str:
    return f"other arguments of {names}" if names in known else f"{names}, was {' or '.join(sorted(known))}"


# ---- words -----------------------------------------------------------------------------------------------------------


def _likest(originals: Sequence[Reply], replicas: Sequence[Reply]) -> Iterator[float]:
    before = [one.text for one in originals if one.text is not None]
    for one in replicas:
        if one.text is not None and before:
            yield max(likeness(text, one.text) for text in before)


def likeness(one: str, other: str) -> float:
    """0 to 1, by words. difflib is the standard library's, and enough for a number that decides nothing."""
    if one == other:
        return 1.0
    words, others = (text.split(None, MOST_WORDS)[:MOST_WORDS] for text in (one, other))
    return round(SequenceMatcher(None, words, others).ratio(), 4)
