"""One cluster of Conductor: its rules about versions, tags, integrations and permissions, without its wire."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from engine.sandbox.answers import Json, Refusal, invalid
from engine.sandbox.conductor.content import LARGEST_VERSION, check_item, sampling, unordered, variables
from engine.sandbox.conductor.store import ConductorStore, Content, Head, Integration, Tag
from engine.sandbox.conductor.tokens import Tokens
from engine.sandbox.options import ConductorQuirks
from engine.sandbox.store import Store

Before = tuple[float, Sequence[Tag], list[Content]]
"""Until when reads see a prompt so, and how: its tags and versions."""


@dataclass(slots=True, kw_only=True)
class Conductor:
    """The state behind all clusters."""

    store: Store
    quirks: ConductorQuirks
    clock: Callable[[], float]
    tokens: Tokens
    earlier: dict[tuple[str, str], Before] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """The prompts of one workspace, for one user. `late`: seconds that a new prompt stays out of listings."""

    conductor: Conductor
    id: str
    user: str
    late: float = 0.0

    @property
    def quirks(self) -> ConductorQuirks:
        return self.conductor.quirks

    @property
    def tables(self) -> ConductorStore:
        return self.conductor.store.conductor

    # ---- reading -----------------------------------------------------------------------------------------------------

    def prompts(self) -> list[Content]:
        """The newest version of every prompt as the service lists them."""
        now = self.conductor.clock()
        heads = [(head, content) for head, content in self.tables.newest(self.id) if head.visible_at <= now]
        seen = ((self._before(head.name), head, content) for head, content in heads)
        return [
            self.shown(content, head.tags) if before is None else self.shown(before[2][-1], before[1])
            for before, head, content in seen
        ]

    def versions(self, name: str) -> list[Content]:
        """As reads see them, oldest first. Refusal (404) when there is none."""
        before = self._before(name)
        head = self.head(name)
        tags, versions = (head.tags, self.tables.versions(self.id, name)) if before is None else before[1:]
        return [self.shown(content, tags) for content in versions]

    def shown(self, content: Content, tags: Sequence[Tag]) -> Content:
        """As the service shows a version: what has no value is absent."""
        return content | ({"tags": list(tags)} if self.quirks.tags_in_prompt else {})

    def head(self, name: str) -> Head:
        """Refusal (404) when there is no prompt of that name."""
        head = self.tables.head(self.id, name)
        if head is None:
            raise Refusal(404, "NOT_FOUND", "there is no prompt of that name")
        return head

    def _before(self, name: str) -> Before | None:
        before = self.conductor.earlier.get((self.id, name))
        return before if before is not None and self.conductor.clock() < before[0] else None

    # ---- writing -----------------------------------------------------------------------------------------------------

    def may_update(self, name: str) -> bool:
        """Whatever is not there yet may be made."""
        head = self.tables.head(self.id, name)
        return head is None or head.updatable

    def check_update(self, name: str) -> None:
        """Refusal (403) when the caller may not update the prompt."""
        if not self.may_update(name):
            raise Refusal(403, "FORBIDDEN", "no UPDATE permission on the prompt")

    def next_version(self, name: str) -> int:
        """Refusal (400) when all numbers are used up."""
        number = self.latest_version(name) + 1
        if number > LARGEST_VERSION:
            raise invalid("there is no higher version number")
        return number

    def latest_version(self, name: str) -> int:
        """0: there is no prompt of that name."""
        return max((int(content["version"]) for content in self.tables.versions(self.id, name)), default=0)

    def write(self, item: Content, version: int, *, founded: bool = True) -> None:
        """Writes that version of the prompt, over what was there. `founded`: who made it and when stays."""
        name, now = item["name"], int(self.conductor.clock() * 1000)
        over = next((one for one in self.tables.versions(self.id, name) if one["version"] == version), {})
        kept = over.get("integrations", []) if self.quirks.bulk_merges else []
        content = {
            "name": name,
            "version": version,
            "template": item["template"],
            "variables": variables(item["template"]),
            "integrations": unordered([*kept, *item.get("integrations", ())]),
            "createTime": now,
            "createdBy": self.user,
            "updateTime": now,
            "updatedBy": self.user,
        }
        described = {"description": item["description"]} if "description" in item else {}
        founding = {part: over[part] for part in ("createTime", "createdBy") if founded and over}
        with self.conductor.store.writing():
            self._remember(name)
            if self.tables.head(self.id, name) is None:
                self.tables.keep_head(self.id, Head(name=name, visible_at=self.conductor.clock() + self.late))
            self.tables.keep_version(self.id, content | described | sampling(item) | founding)

    def write_item(self, item: Json) -> None:
        """One item of a bulk: skipped without a word when the caller may not update it. Refusal: 400, 403, 404."""
        kept = check_item(item, self.quirks)
        if not self.may_update(kept["name"]):
            return
        self.check_integrations(kept.get("integrations", ()))
        sampled = {} if self.quirks.drops_sampling else sampling(kept)
        named = {part: kept[part] for part in ("name", "template", "description", "integrations") if part in kept}
        self.write(named | sampled, kept.get("version") or self._unsaid_version(kept["name"]))
        if self.quirks.bulk_tags and kept["tags"]:
            self.add_tags(kept["name"], kept["tags"])

    def _unsaid_version(self, name: str) -> int:
        if self.quirks.bulk_version == "next":
            return self.next_version(name)
        return max(1, self.latest_version(name)) if self.quirks.bulk_version == "latest" else 1

    def add_tags(self, name: str, tags: Iterable[Tag]) -> None:
        """Those that are there stay. Refusal (404) when there is no prompt of that name."""
        merged = {(tag["key"], tag["value"]): tag for tag in (*self.head(name).tags, *tags)}
        self._keep_tags(name, list(merged.values()))

    def remove_tags(self, name: str, tags: Iterable[Tag]) -> None:
        """Refusal (404) when there is no prompt of that name."""
        gone = {(tag["key"], tag["value"]) for tag in tags}
        self._keep_tags(name, [tag for tag in self.head(name).tags if (tag["key"], tag["value"]) not in gone])

    def _keep_tags(self, name: str, tags: Sequence[Tag]) -> None:
        with self.conductor.store.writing():
            self._remember(name)
            self.tables.keep_head(self.id, replace(self.head(name), tags=tags))

    def delete(self, name: str) -> None:
        """Every version, the tags and the grants; nothing happens when it is not there."""
        with self.conductor.store.writing():
            self.conductor.earlier.pop((self.id, name), None)
            self.tables.delete(self.id, name)

    def delete_version(self, name: str, version: int) -> None:
        """Of the last version the tags and grants go too; nothing happens when it is not there."""
        with self.conductor.store.writing():
            self._remember(name)
            self.tables.delete_version(self.id, name, version)

    def _remember(self, name: str) -> None:
        """Before a change: reads are stale for a while."""
        head = self.tables.head(self.id, name)
        if self.quirks.stale_reads_s > 0 and head is not None and self._before(name) is None:
            until = self.conductor.clock() + self.quirks.stale_reads_s
            self.conductor.earlier[self.id, name] = (until, head.tags, self.tables.versions(self.id, name))

    # ---- integrations ------------------------------------------------------------------------------------------------

    def check_integrations(self, refs: Iterable[str]) -> None:
        """Refusal: 404 when one is not there, 403 when the caller may not use it."""
        for ref in refs:
            said = f" {ref!r}" if self.quirks.names_item else ""
            one = self.tables.integration(self.id, ref)
            if one is None or (self.quirks.disabled_missing and not one.enabled):
                raise Refusal(404, "NOT_FOUND", f"a referenced integration{said} does not exist")
            if not one.readable:
                raise Refusal(403, "FORBIDDEN", f"no READ permission on a referenced integration{said}")

    def integrations(self, category: str | None, *, active_only: bool) -> list[Integration]:
        """Those that the caller may see."""
        return [
            one
            for one in self.tables.integrations(self.id)
            if one.readable and (one.enabled or not active_only) and category in (None, "", one.category)
        ]
