"""Where the old ones stand in a text, as whole tokens; and the text with the new ones. Pure."""

from __future__ import annotations

import unicodedata
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from operator import attrgetter
from typing import Final

from ahocorasick_rs import AhoCorasick

from engine.verbs.repoint.table import Pair

_JOINS: Final = "-_"
_BOM: Final = "\ufeff"


@dataclass(frozen=True, slots=True)
class Hit:
    """One that was found, by its place in the text: counted in characters, from 0."""

    start: int
    pair: Pair

    @property
    def end(self) -> int:
        """Where it ends."""
        return self.start + len(self.pair.old)


class Search:
    """One search for all of them at once, however many they are; may be used by several threads."""

    def __init__(self, pairs: Sequence[Pair]) -> None:
        self._pairs = pairs
        self._automaton = AhoCorasick([pair.old for pair in pairs])

    def find(self, text: str) -> list[Hit]:
        """In order. Of those that overlap the first, and of those the longest, as in a table read from the left; what
        is spared hides nothing that is not, and what only may be one nothing that is.
        """
        found = self._automaton.find_matches_as_indexes(text, overlapping=True)
        whole = [Hit(start, self._pairs[which]) for which, start, end in found if is_whole(text, start, end)]
        hits: list[Hit] = []
        for rank in sorted({_rank(hit) for hit in whole}):
            hits += _apart(_free([hit for hit in whole if _rank(hit) == rank], hits))
            hits.sort(key=_START)
        return hits


_START: Final = attrgetter("start")
_END: Final = attrgetter("end")


def _rank(hit: Hit) -> int:
    return hit.pair.spared + hit.pair.perhaps


def _free(hits: Sequence[Hit], taken: Sequence[Hit]) -> Iterator[Hit]:
    """Those that overlap none of the taken ones, which are in order and apart."""
    for hit in hits:
        next_one = bisect_right(taken, hit.start, key=_END)
        if next_one == len(taken) or taken[next_one].start >= hit.end:
            yield hit


def _apart(hits: Iterable[Hit]) -> list[Hit]:
    """Without those that overlap one before."""
    apart: list[Hit] = []
    for hit in sorted(hits, key=lambda hit: (hit.start, -hit.end)):
        if not apart or hit.start >= apart[-1].end:
            apart.append(hit)
    return apart


def is_whole(text: str, start: int, end: int) -> bool:
    """Whether no letter or digit of any script, `-` or `_` stands on either side."""
    before = start - 1
    while before >= 0 and _marks(text[before]):  # what belongs to the character before it
        before -= 1
    if before >= 0 and _joins(text[before]):
        return False
    return end == len(text) or not (_joins(text[end]) or _marks(text[end]))


def _joins(char: str) -> bool:
    return char.isalnum() or char in _JOINS


def _marks(char: str) -> bool:
    return not char.isascii() and unicodedata.category(char).startswith("M")


def places(text: str, hits: Sequence[Hit]) -> Iterator[tuple[int, int]]:
    """Line and column of each, from 1. Lines end with a line feed; a column counts characters, without a byte order
    mark.
    """
    line, begin = 1, len(_BOM) if text.startswith(_BOM) else 0
    for before, after in pairwise([0, *(hit.start for hit in hits)]):
        if (newline := text.rfind("\n", before, after)) >= 0:
            line, begin = line + text.count("\n", before, after), newline + 1
        yield line, after - begin + 1


def replaced(text: str, hits: Sequence[Hit]) -> str:
    """The text with what takes their place, where that is known: in one pass, nothing is replaced twice."""
    parts, end = [], 0
    for hit in hits:
        if hit.pair.instead is not None:
            parts += [text[end : hit.start], hit.pair.instead]
            end = hit.end
    return "".join([*parts, text[end:]])
