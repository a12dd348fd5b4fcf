"""How Portkey writes its prompts."""

from __future__ import annotations

from typing import Final

from engine.content.templates import MUSTACHE
from engine.model import Prompt
from engine.model.dialect import Chat, Dialect, Fitted, ParameterNames

_WANTED: Final = ("collection", "provider", "model")
"""Of a create, by its specification; whether every server holds to it is not known, so what lacks one is only noted."""


def fit(prompt: Prompt) -> Fitted:
    """The prompt as it is."""
    missing = [name for name in _WANTED if getattr(prompt, name) is None]
    notes = (f"it has no {name}, and Portkey wants one: name it in rewrite.{name}" for name in missing)
    return Fitted(prompt=prompt, notes=tuple(notes))


PORTKEY: Final = Dialect(
    name="portkey",
    registry="Portkey",
    grammar=MUSTACHE,
    parameters=ParameterNames(open=True, defaults=True),
    chat=Chat(messages=True),
    fit=fit,
    says={
        "a prompt without collection, provider or model": "a note; Portkey wants them: rewrite.collection, "
        "rewrite.provider, rewrite.model",
    },
)
"""Its parameters have the neutral names, and its text the neutral form of a chat: see `engine/model/dialect.py`."""
