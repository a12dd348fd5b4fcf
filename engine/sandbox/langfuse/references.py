"""References from one prompt to another, `@@@langfusePrompt:name=NAME|label=LABEL@@@` or `|version=N`: the text that
they name stands in their place when the prompt is read. Pure, but for the look-up that it is given.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from engine.sandbox.answers import Json
from engine.sandbox.langfuse.store import Version

_TAG: Final = re.compile(r"@@@langfusePrompt:name=([^|]+?)\|(version|label)=([^|]+?)@@@")
_DEEPEST: Final = 5


class Reference(NamedTuple):
    """`version`: a number as text, or empty; then `label` is not."""

    name: str
    version: str
    label: str

    def __str__(self) -> str:
        return f"{self.name} - " + (f"version {self.version}" if self.version else f"label {self.label}")

    def means(self, version: Version) -> bool:
        if version.name != self.name:
            return False
        return str(version.number) == self.version if self.version else self.label in version.labels


class Unresolved(Exception):
    """A reference leads nowhere, to a chat, in a ring, or too deep."""


LookUp = Callable[[Reference], Version | None]


def references(prompt: Json) -> list[Reference]:
    return [_reference(tag) for text in _texts(prompt) for tag in _TAG.finditer(text)]


@dataclass(slots=True)
class Resolution:
    """One prompt with what it refers to. `graph` holds ids, names and versions, by the id of what refers to them."""

    look_up: LookUp
    graph: dict[str, list[dict[str, Json]]] = field(default_factory=dict)

    def resolve(self, version: Version, above: tuple[Version, ...] = ()) -> Json:
        """Its text or messages with the texts of others in place of the references. Raises Unresolved."""
        if len(above) >= _DEEPEST:
            raise Unresolved(f"Maximum nesting depth exceeded ({_DEEPEST})")
        if version in above or (above and version.name == above[0].name):
            raise Unresolved(f"Circular dependency detected involving prompt '{version.name}' version {version.number}")

        def text_of(tag: re.Match[str]) -> str:
            child = self._child(_reference(tag))
            node = {"id": child.id, "name": child.name, "version": child.number}
            self.graph.setdefault(version.id, []).append(node)
            return str(self.resolve(child, (*above, version)))

        if isinstance(version.prompt, str):
            return _TAG.sub(text_of, version.prompt)
        return [{part: _TAG.sub(text_of, text) for part, text in one.items()} for one in version.prompt]

    def _child(self, reference: Reference) -> Version:
        child = self.look_up(reference)
        if child is None:
            raise Unresolved(f"Prompt dependency not found: {reference}")
        if child.type != "text":
            raise Unresolved(f"Prompt dependency is not a text prompt: {reference}")
        return child


def _reference(tag: re.Match[str]) -> Reference:
    name, kind, value = tag.groups()
    return Reference(name, value if kind == "version" else "", value if kind == "label" else "")


def _texts(prompt: Json) -> Iterator[str]:
    if isinstance(prompt, str):
        yield prompt
        return
    for message in prompt:
        yield from message.values()
