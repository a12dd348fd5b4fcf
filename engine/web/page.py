"""The page as one HTML document that loads nothing: style, scripts and data stand in it. Pure but for its own parts.

A Content-Security-Policy with the digest of each script and style holds wherever the file is opened, so that nothing
else can run: no name of a prompt, however it is written, becomes anything but text. The scripts put values into the
page as text nodes only; Jinja2 escapes the few that stand in the template.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from importlib.resources import files
from typing import Final

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from engine import __version__
from engine.model import Json
from engine.web.encoding import encoded

_DATA: Final = "@@data@@"
_ESCAPES: Final = {
    b"<": b"\\u003c",
    b">": b"\\u003e",
    b"&": b"\\u0026",
    "\u2028".encode(): b"\\u2028",
    "\u2029".encode(): b"\\u2029",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Live:
    """A page that is served and follows its ledger. `stop`: it has a button that ends the run."""

    stop: bool = False


def page(
    summary: Mapping[str, Json] | None, rows: Mapping[str, Json] | None = None, *, live: Live | None = None
) -> bytes:
    """The whole document in UTF-8. `summary` and `rows`: of a `View`; None: the page asks for them, see `engine.web`.

    `rows` may hold what orjson alone can write, and takes most of the memory: a page is written as it is.
    """
    head, tail = _frame(_title(summary), live is not None)
    data = {"live": asdict(live) if live is not None else None, "summary": summary, "rows": rows}
    return b"".join((head, embedded(data), tail))


def embedded(value: Mapping[str, object]) -> bytes:
    """As JSON that can stand in a script element: nothing in it ends the element, or begins another one."""
    text = encoded(value)
    for character, escape in _ESCAPES.items():
        if character in text:
            text = text.replace(character, escape)
    return text


def _title(summary: Mapping[str, Json] | None) -> str:
    name = (summary or {}).get("migration", {}).get("migration") or "promptferry"
    return f"{name}: migration report" if summary is not None else "promptferry watch"


def _frame(title: str, live: bool) -> tuple[bytes, bytes]:
    """What stands before and behind the data."""
    own = {"scripts": [Markup(script) for script in scripts()], "data": Markup(_DATA)}
    head, tail = rendered("page.html", title=title, policy=policy(live=live), **own).split(_DATA)
    return head.encode(), tail.encode()


def rendered(template: str, **values: object) -> str:
    """A template of this folder; whatever is no `Markup` is escaped."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(_part(template)).render(version=__version__, style=Markup(style()), **values)


def policy(*, live: bool) -> str:
    """The Content-Security-Policy: what stands in the page, and of addresses the page's own server, if it has one."""
    return policy_of({"script-src": scripts(), "style-src": [style()]}, connect="'self'" if live else "'none'")


def policy_of(texts: Mapping[str, Sequence[str]], *, connect: str = "'none'") -> str:
    """The policy that allows scripts and styles of exactly these texts."""
    allowed = {"default-src": "'none'"} | {name: " ".join(map(_digest, own)) for name, own in texts.items()}
    allowed |= {"img-src": "data:", "connect-src": connect, "base-uri": "'none'", "form-action": "'none'"}
    return "; ".join(f"{name} {what}" for name, what in allowed.items())


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


@cache
def style() -> str:
    """The text of the style element."""
    return _part("vendor/uPlot.min.css") + _part("page.css")


@cache
def scripts() -> tuple[str, ...]:
    """The texts of the script elements, in their order."""
    return _part("vendor/uPlot.iife.min.js"), _part("page.js")


def _part(name: str) -> str:
    return files("engine.web").joinpath(name).read_text(encoding="utf-8")
