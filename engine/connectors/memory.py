"""The reference registry: a workspace in memory that does exactly what `Source` and `Target` promise."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import replace
from typing import Final

from engine.errors import Gone
from engine.model import Catalog, Created, Finding, Outcome, Page, Prompt, Replica, Row, Sending

PAGE_SIZE: Final = 50


class Memory:
    """One workspace. `prompts` is its truth, newest last; `creates` counts the creates that it has carried out."""

    batch = 1
    fields: Collection[str] = frozenset(
        "name text collection model provider parameters functions tools tool_choice raw metadata description".split()
    )

    def __init__(self, prompts: Sequence[Prompt] = (), catalog: Catalog | None = None) -> None:
        self.prompts = {prompt.id: prompt for prompt in prompts}
        self.creates = 0
        self._catalog = catalog or Catalog(collections=(), providers=(), partials=())
        self._encoded: dict[bytes, Prompt] = {}

    async def pages(self) -> AsyncIterator[Page]:
        """Newest first, as registries do."""
        rows = [_row(prompt) for prompt in reversed(self.prompts.values())]
        for start in range(0, len(rows), PAGE_SIZE):
            yield Page(rows=rows[start : start + PAGE_SIZE], total=len(rows))

    async def fetch(self, prompt_id: str, version: str = "published") -> Prompt:
        """The prompt as it was put there; there is one version."""
        try:
            return self.prompts[prompt_id]
        except KeyError:
            raise Gone(f"there is no prompt {prompt_id}", error="gone", status=404) from None

    async def catalog(self, kinds: Collection[str]) -> Catalog:
        """What the workspace was made with."""
        return Catalog(**{kind: getattr(self._catalog, kind) for kind in kinds})

    def encode(self, replica: Replica) -> bytes:
        """A handle: nothing has to be written to keep a prompt in memory."""
        body = replica.mark.key.encode()
        self._encoded[body] = replica.prompt
        return body

    async def create(self, bodies: Sequence[bytes], sending: Sending) -> list[Outcome]:
        """Puts the prompt there under a new id."""
        (body,) = bodies
        await sending()
        self.creates += 1
        target_id = f"memory-{self.creates}"
        self.prompts[target_id] = replace(self._encoded.pop(body), id=target_id, slug=f"pp-{target_id}", version=1)
        return [Created(target_id=target_id, target_slug=f"pp-{target_id}")]

    async def describe(self, target_id: str, description: str) -> None:
        """The prompt with another description."""
        self.prompts[target_id] = replace(self.prompts[target_id], description=description)

    async def write_test(self, collection: str | None) -> AsyncIterator[Finding]:
        """Memory does what it promises; there is nothing to find out."""
        yield Finding(level="ok", where="target", text="prompts are kept in memory as they are")


def _row(prompt: Prompt) -> Row:
    return Row(
        id=prompt.id,
        name=prompt.name,
        slug=prompt.slug,
        collection=prompt.collection,
        model=prompt.model,
        updated_at=prompt.updated_at,
    )
