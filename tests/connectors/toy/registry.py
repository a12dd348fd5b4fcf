"""A registry of a JSON file, in all that Portkey is not: a prompt is its name, a create appends a version to what has
its name, versions have ids that say nothing of their age, a label says which one is published, and rows tell a name
alone.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, ClassVar, Final, Literal
from uuid import uuid4

from pydantic import Field

from engine.connectors.endpoint import Endpoint, Opening
from engine.connectors.fields import Text
from engine.content.templates import MUSTACHE
from engine.errors import Gone, Rejected
from engine.lossless_json import decode, encode
from engine.model import (
    Abilities,
    Catalog,
    Created,
    Failed,
    Finding,
    Outcome,
    Page,
    Parts,
    Prompt,
    Replica,
    Row,
    Sending,
    Updated,
    Version,
    label_in,
)
from engine.model.dialect import Chat, Dialect, Parameter, ParameterNames

HELD: Final = ("text", "collection", "model", "provider", "parameters", "metadata", "description")
PUBLISHED: Final = "production"
TOY: Final = Dialect(
    name="toy",
    registry="Toy",
    grammar=MUSTACHE,
    parameters=ParameterNames(known={"heat": Parameter(neutral="temperature")}, open=True, defaults=True),
    chat=Chat(messages=True),
)


class ToyEndpoint(Endpoint):
    """A JSON file of prompts."""

    needed: ClassVar[Mapping[str, str]] = {"path": "toys.json"}

    kind: Literal["toy"] = Field(default="toy", description="What kind of registry it is.")
    path: Text | None = Field(default=None, description="The file.")

    @property
    def url(self) -> str:
        """The path."""
        return str(self.path)


@asynccontextmanager
async def connect(end: ToyEndpoint, opening: Opening) -> AsyncIterator[Toy]:
    """The file as it is at each request."""
    yield Toy(Path(end.url))


class Toy:
    """Everything in one file: name -> versions, oldest first, and labels."""

    can = Abilities(dialect=TOY, own_ids=False, taken="appends", published="label", dated=False, once=frozenset())
    parts: Parts | None = None
    batch = 1
    fields: Collection[str] = frozenset({"name", *HELD})

    def __init__(self, path: Path) -> None:
        self.path = path

    async def pages(self) -> AsyncIterator[Page]:
        """Names."""
        rows = [Row(id=name, name=name) for name in self._all()]
        yield Page(rows=rows, total=len(rows))

    async def fetch(self, prompt_id: str, version: str = "published") -> Prompt:
        """The labelled version, the newest, or one by its id."""
        there = self._there(prompt_id)
        labels = {label: ref for label, ref in there["labels"].items() if label != PUBLISHED}
        ref = {"published": self._published(there), "latest": there["versions"][-1]["ref"]}.get(version, version)
        if (label := label_in(version)) is not None:
            ref = there["labels"].get(label)
        for one in there["versions"]:
            if one["ref"] == ref:
                kept = {name: value for name, value in one.items() if name in HELD}
                on_it = tuple(sorted(label for label, stands_on in labels.items() if stands_on == ref))
                return Prompt(id=prompt_id, name=prompt_id, **kept, version=ref, labels=on_it, dialect="toy")
        raise Gone(f"there is no version {version} of {prompt_id}", error="gone", status=404)

    async def versions(self, prompt_id: str) -> Sequence[Version]:
        """By their place."""
        there = self._there(prompt_id)
        refs = [one["ref"] for one in there["versions"]]
        return [
            Version(ref=ref, ordinal=at, id=ref, labels=[name for name, on in there["labels"].items() if on == ref])
            for at, ref in enumerate(refs, 1)
        ]

    async def catalog(self, kinds: Collection[str]) -> Catalog:
        """Labels are words, and so is everything else."""
        return Catalog(words=frozenset({"collections", "providers", "partials"}))

    def encode(self, replica: Replica) -> bytes:
        """What is kept."""
        values = {name: getattr(replica.prompt, name) for name in HELD}
        return encode({"name": replica.prompt.name, **values})

    async def named(self, names: Collection[str]) -> dict[str, Prompt | None]:
        """Those that are there."""
        return {name: await self.fetch(name) for name in names if name in self._all()}

    async def create(self, bodies: Sequence[bytes], sending: Sending) -> list[Outcome]:
        """One more version under that name, published."""
        (body,) = bodies
        await sending()
        name, ref = self._append(body)
        self._change(name, lambda there: there["labels"].update({PUBLISHED: ref}))
        return [Created(target_id=name, version=ref, version_id=ref)]

    async def complete(self, target_id: str, body: bytes, sending: Sending) -> Outcome:
        """Nothing is left undone."""
        await sending()
        return Created(target_id=target_id, version=(await self.fetch(target_id)).version or "")

    def encode_update(self, replica: Replica, changed: Collection[str] | None) -> bytes:
        """Whole, whatever changed."""
        return self.encode(replica)

    async def update(self, target_id: str, body: bytes, sending: Sending) -> Outcome:
        """One more version, which no label stands on."""
        there = self._there(target_id)
        if decode(body)["name"] != target_id:
            return Failed(error="renamed", message="a toy cannot be renamed")
        await sending()
        self._change(target_id, lambda one: one["labels"].setdefault(PUBLISHED, self._published(there)))
        return Updated(version_id=self._append(body)[1])

    async def publish(self, target_id: str, version: str) -> None:
        """The label moves."""
        await self.label(target_id, version, PUBLISHED)

    async def retract(self, target_id: str, version: str) -> None:
        """Refused."""
        raise Rejected("a toy keeps its versions", error="kept")

    async def label(self, target_id: str, version_id: str, label_id: str) -> None:
        """The label moves."""
        self._change(target_id, lambda there: there["labels"].update({label_id: version_id}))

    async def create_label(self, name: str) -> str:
        """A label is its word."""
        return name

    async def describe(self, target_id: str, description: str) -> None:
        """Of the newest version."""
        self._change(target_id, lambda there: there["versions"][-1].update(description=description))

    async def delete(self, target_id: str) -> None:
        """With its history."""
        self._there(target_id)
        self._write({name: one for name, one in self._all().items() if name != target_id})

    async def write_test(self, collection: str | None) -> AsyncIterator[Finding]:
        """A file is a file."""
        yield Finding(level="ok", where="target", text=f"{self.path} can be written")

    # ---- the file ----------------------------------------------------------------------------------------------------

    def _all(self) -> dict[str, Any]:
        found: dict[str, Any] = decode(self.path.read_bytes()) if self.path.exists() else {}
        return found

    def _there(self, name: str) -> dict[str, Any]:
        try:
            there: dict[str, Any] = self._all()[name]
        except KeyError:
            raise Gone(f"there is no toy {name!r}", error="gone", status=404) from None
        return there

    def _published(self, there: Mapping[str, Any]) -> str:
        return str(there["labels"].get(PUBLISHED) or there["versions"][-1]["ref"])

    def _append(self, body: bytes) -> tuple[str, str]:
        value, everything, ref = decode(body), self._all(), f"v-{uuid4().hex}"
        name = value.pop("name")
        everything.setdefault(name, {"versions": [], "labels": {}})["versions"].append({"ref": ref, **value})
        self._write(everything)
        return name, ref

    def _change(self, name: str, change: Callable[[dict[str, Any]], object]) -> None:
        everything = self._all()
        change(everything[name])
        self._write(everything)

    def _write(self, everything: Mapping[str, Any]) -> None:
        beside = self.path.with_suffix(".tmp")
        beside.write_bytes(encode(everything))
        beside.replace(self.path)
