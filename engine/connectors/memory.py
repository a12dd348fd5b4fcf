"""The reference registry: a workspace in memory that does exactly what `Source` and `Target` promise."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import replace
from typing import Final

from engine.errors import Gone, Rejected
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

PAGE_SIZE: Final = 50


class Memory:
    """One workspace. `prompts` is its truth, newest last, each as it is published; `history` has every version of a
    prompt that has more than one; `creates` and `updates` count what it has carried out.
    """

    can = Abilities(marks=("metadata", "description"))
    parts: Parts | None = None
    batch = 1
    fields: Collection[str] = frozenset(
        "name text collection model provider parameters functions tools tool_choice raw metadata description".split()
    )

    def __init__(self, prompts: Sequence[Prompt] = (), catalog: Catalog | None = None) -> None:
        self.prompts = {prompt.id: prompt for prompt in prompts}
        self.history: dict[str, list[Prompt]] = {}
        self.labels: dict[str, str] = {}
        """Id of a label -> its name."""
        self.creates = 0
        self.updates = 0
        self._created: dict[str, str] = {}
        self._ticks = 0
        self._catalog = catalog or Catalog(collections=(), providers=(), partials=())
        self._encoded: dict[bytes, tuple[Prompt, Collection[str] | None]] = {}

    async def pages(self) -> AsyncIterator[Page]:
        """Newest first, as registries do."""
        rows = [_row(prompt, self._created.get(prompt.id)) for prompt in reversed(self.prompts.values())]
        for start in range(0, len(rows), PAGE_SIZE):
            yield Page(rows=rows[start : start + PAGE_SIZE], total=len(rows))

    async def fetch(self, prompt_id: str, version: str = "published") -> Prompt:
        """The prompt as it was put there, or as an update made it."""
        published = self._there(prompt_id)
        if version == "published":
            return published
        history = self._history(prompt_id)
        if (label := label_in(version)) is not None:
            found = next((one for one in history if label in one.labels), None)
        elif version == "latest":
            found = history[-1]
        else:
            found = next((one for one in history if one.version == version), None)
        if found is None:
            raise Gone(f"there is no version {version} of {prompt_id}", error="gone", status=404)
        return replace(found, name=published.name, collection=published.collection)

    async def versions(self, prompt_id: str) -> list[Version]:
        """The history; the id of a version is its number."""
        self._there(prompt_id)
        return [_version(one, self.labels) for one in self._history(prompt_id)]

    async def catalog(self, kinds: Collection[str]) -> Catalog:
        """What the workspace was made with."""
        return Catalog(**{kind: getattr(self._catalog, kind) for kind in kinds})

    def encode(self, replica: Replica) -> bytes:
        """A handle: nothing has to be written to keep a prompt in memory."""
        return self._keep(replica, None)

    async def named(self, names: Collection[str]) -> dict[str, Prompt | None]:
        """Rejected: a create changes nothing that is there."""
        raise Rejected("a create changes nothing that is there, so nothing is looked for", error="not_asked")

    async def create(self, bodies: Sequence[bytes], sending: Sending) -> list[Outcome]:
        """Puts the prompt there under a new id."""
        (body,) = bodies
        await sending()
        self.creates += 1
        target_id = f"memory-{self.creates}"
        made, _ = self._encoded.pop(body)
        self._created[target_id] = now = self._now()
        self.prompts[target_id] = replace(
            made, id=target_id, slug=f"pp-{target_id}", version="1", labels=(), updated_at=now
        )
        return [Created(target_id=target_id, target_slug=f"pp-{target_id}", version_id="1")]

    async def complete(self, target_id: str, body: bytes, sending: Sending) -> Outcome:
        """Failed: a create leaves nothing undone."""
        return Failed(error="not_asked", message="a create leaves nothing undone")

    def encode_update(self, replica: Replica, changed: Collection[str] | None) -> bytes:
        """A handle."""
        return self._keep(replica, changed)

    async def update(self, target_id: str, body: bytes, sending: Sending) -> Outcome:
        """A new version behind the others; name and collection are the prompt's own."""
        await sending()
        self.updates += 1
        wanted, changed = self._encoded[body]
        published, history = self._there(target_id), self._history(target_id)
        fields = {name: getattr(wanted, name) for name in (self.fields if changed is None else changed)}
        head = {name: fields.pop(name) for name in ("name", "collection") if name in fields}
        self.prompts[target_id] = replace(published, **head, updated_at=self._now())
        if not fields:
            return Updated()
        version = str(int(history[-1].version or "0") + 1)
        self.history[target_id] = [*history, replace(history[-1], **fields, version=version, labels=())]
        return Updated(version_id=version)

    async def publish(self, target_id: str, version: str) -> None:
        """The prompt as that version is."""
        self.prompts[target_id] = replace(await self.fetch(target_id, version), updated_at=self._now())

    async def retract(self, target_id: str, version: str) -> None:
        """Rejected: a version stays in the history."""
        raise Rejected("memory takes no version out of a history", error="kept")

    async def label(self, target_id: str, version_id: str, label_id: str) -> None:
        """The label moves to that version."""
        name = self.labels[label_id]
        rest = [tuple(label for label in one.labels if label != name) for one in self._history(target_id)]
        self.history[target_id] = [
            replace(one, labels=(*labels, name) if one.version == version_id else labels)
            for one, labels in zip(self._history(target_id), rest, strict=True)
        ]
        await self.publish(target_id, self._there(target_id).version or "1")

    async def create_label(self, name: str) -> str:
        """Its id."""
        found = next((one for one, known in self.labels.items() if known == name), f"label-{len(self.labels) + 1}")
        self.labels[found] = name
        return found

    async def describe(self, target_id: str, description: str) -> None:
        """The prompt with another description."""
        self.prompts[target_id] = replace(self.prompts[target_id], description=description)

    async def delete(self, target_id: str) -> None:
        """Takes the prompt away."""
        self._there(target_id)
        del self.prompts[target_id]
        self.history.pop(target_id, None)

    async def write_test(self, collection: str | None) -> AsyncIterator[Finding]:
        """Memory does what it promises; there is nothing to find out."""
        yield Finding(level="ok", where="target", text="prompts are kept in memory as they are")

    def _now(self) -> str:
        """Every write has a time of its own, long ago."""
        self._ticks += 1
        return f"2026-01-02T{self._ticks // 3600 % 24:02}:{self._ticks // 60 % 60:02}:{self._ticks % 60:02}.000Z"

    def _there(self, prompt_id: str) -> Prompt:
        try:
            return self.prompts[prompt_id]
        except KeyError:
            raise Gone(f"there is no prompt {prompt_id}", error="gone", status=404) from None

    def _history(self, prompt_id: str) -> list[Prompt]:
        return self.history.get(prompt_id) or [
            replace(self.prompts[prompt_id], version=self.prompts[prompt_id].version or "1")
        ]

    def _keep(self, replica: Replica, changed: Collection[str] | None) -> bytes:
        body = f"{replica.mark.key} {len(self._encoded)}".encode()
        self._encoded[body] = (replica.prompt, changed)
        return body


def _version(prompt: Prompt, labels: dict[str, str]) -> Version:
    ref = prompt.version or "1"
    on_it = tuple(one for one, name in labels.items() if name in prompt.labels)
    return Version(ref=ref, ordinal=int(ref), id=ref, labels=on_it)


def _row(prompt: Prompt, created_at: str | None) -> Row:
    return Row(
        id=prompt.id,
        name=prompt.name,
        slug=prompt.slug,
        collection=prompt.collection,
        model=prompt.model,
        created_at=created_at,
        updated_at=prompt.updated_at,
    )
