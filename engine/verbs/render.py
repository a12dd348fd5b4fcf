"""Whether a replica asks its model for the same as its source: both are rendered with the same values."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from engine.content.digest import changed
from engine.content.rewrite import Rewritten
from engine.errors import Rejected
from engine.model import Gateway, Json
from engine.verbs.cases import Case

TEXTS: Final = frozenset({"messages", "prompt"})
"""What no rule changes."""
_RENDERED_AS: Final = {"provider": "virtual_key"}
"""Change.field -> what a rendered request calls it, where that is another name."""


@dataclass(frozen=True, slots=True)
class Rendered:
    """`fields`: what differs, `render.messages [label of the case]`; `problem`: why not all could be compared."""

    fields: tuple[str, ...]
    problem: str | None


async def compare(
    source: Gateway,
    target: Gateway,
    source_ref: str,
    target_ref: str,
    cases: Sequence[Case],
    may_differ: Collection[str],
) -> Rendered:
    """Renders both with the values of each case. `may_differ`: names as in `may_differ_of`; the text never may.

    A source that cannot be rendered is a problem and no difference, a replica that cannot is a difference. Raises Stop,
    and Transient when an end gives no answer.
    """
    fields: set[str] = set()
    problems: list[str] = []
    for case in cases:
        mark = f" [{case.label}]" if case.label else ""
        try:
            expected = await source.render(source_ref, case.variables)
        except Rejected as error:
            problems.append(
                f"the source cannot be rendered with these values{mark}, so give it others in verify.cases: {error}"
            )
            continue
        found = await _rendered(target, target_ref, case)
        names = ["render"] if found is None else _differences(expected, found, may_differ)
        fields.update(f"{name}{mark}" for name in names)
    return Rendered(tuple(sorted(fields)), next(iter(problems), None))


def may_differ_of(rewritten: Rewritten) -> frozenset[str]:
    """The names of what the rules changed, and what a rendered request calls them."""
    names = [change.field for change in rewritten.changes]
    return frozenset((*names, *(_RENDERED_AS[name] for name in names if name in _RENDERED_AS)))


async def _rendered(target: Gateway, ref: str, case: Case) -> Mapping[str, Json] | None:
    try:
        return await target.render(ref, case.variables)
    except Rejected:
        return None


def _differences(expected: Mapping[str, Json], found: Mapping[str, Json], may_differ: Collection[str]) -> Iterator[str]:
    for key in expected.keys() | found.keys():
        if changed(expected.get(key), found.get(key)) and (key in TEXTS or not _allowed(key, may_differ)):
            yield f"render.{key}"


def _allowed(key: str, may_differ: Collection[str]) -> bool:
    parameter = f"parameters.{key}"
    return any(name in (key, parameter) or name.startswith(f"{parameter}.") for name in may_differ)
