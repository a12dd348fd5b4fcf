"""A comparison as one HTML file, to be opened from wherever it lies: no script, no network. It holds the answers. Pure.

Jinja2 escapes every value: what a model answers is nobody's HTML.
"""

from __future__ import annotations

from importlib.resources import files
from typing import Final

from jinja2 import Environment, StrictUndefined

from engine.verbs.compare.result import MEASURES, Comparison, MaxChanged

_UNITS: Final = {"length": "characters", "seconds": "s", "tokens": "tokens"}


def page(found: Comparison, *, migration: str, threshold: MaxChanged | None) -> str:
    """The whole document."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    source = files("engine.verbs.compare").joinpath("page.html").read_text(encoding="utf-8")
    return environment.from_string(source).render(
        migration=migration,
        found=found,
        told=found.to_json(threshold),
        measures=[(name, _UNITS[name], found.measure(name)) for name in MEASURES],
        cases=sorted(found.cases, key=lambda one: one.result == "same"),
        SIDES=("original", "replica"),
    )
