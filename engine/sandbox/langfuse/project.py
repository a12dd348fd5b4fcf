"""One project of Langfuse: its rules about versions, labels, tags and references, without its wire."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import groupby

from engine.sandbox.answers import Json
from engine.sandbox.langfuse.answers import bad_request, internal, not_found
from engine.sandbox.langfuse.content import LATEST, Creation
from engine.sandbox.langfuse.quirks import LangfuseQuirks
from engine.sandbox.langfuse.references import Reference, Resolution, Unresolved, references
from engine.sandbox.langfuse.store import Filters, LangfuseStore, Version
from engine.sandbox.store import Store

Row = dict[str, Json]
"""A version, or a prompt in a listing, as the server shows it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Langfuse:
    """The state behind all projects. `sleep` is what a create waits with."""

    store: Store
    quirks: LangfuseQuirks
    clock: Callable[[], float]
    sleep: Callable[[float], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pick:
    """Which version of a prompt; the production one when it says nothing."""

    name: str
    version: int | None = None
    label: str | None = None

    def means(self, version: Version) -> bool:
        if self.version is not None:
            return version.number == self.version
        return (self.label or "production") in version.labels


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """The prompts of one workspace. `user` makes them; `late`: seconds that a new prompt stays out of listings."""

    langfuse: Langfuse
    id: str
    user: str = "API"
    late: float = 0.0

    @property
    def quirks(self) -> LangfuseQuirks:
        return self.langfuse.quirks

    @property
    def tables(self) -> LangfuseStore:
        return self.langfuse.store.langfuse

    # ---- reading -----------------------------------------------------------------------------------------------------

    def page(self, filters: Filters, number: int, limit: int) -> Row:
        """A page of the prompts in the order of their names; only versions that the filters mean count."""
        versions, total = self.tables.page(
            self.id, filters, now=self.langfuse.clock(), limit=limit, offset=min(limit * (number - 1), 2**62)
        )
        data = [self._summary(list(group)) for _, group in groupby(versions, key=lambda version: version.name)]
        pages = -(-total // limit)
        return {"data": data, "meta": {"page": number, "limit": limit, "totalPages": pages, "totalItems": total}}

    def _summary(self, versions: Sequence[Version]) -> Row:
        newest = versions[-1]
        row: Row = {
            "name": newest.name,
            "tags": list(newest.tags),
            "lastUpdatedAt": stamp(max(version.updated_at for version in versions)),
            "versions": [version.number for version in versions],
            "labels": sorted({label for version in versions for label in version.labels}),
            "lastConfig": newest.config,
        }
        return row | ({"type": newest.type} if self.quirks.typed_rows else {})

    def retrieve(self, pick: Pick, *, resolve: bool) -> Row:
        """`resolve`: references are replaced with the texts that they name. Refusal: 400, 404."""
        if pick.version is not None and pick.label:
            raise bad_request("Cannot specify both version and label")
        found = [one for one in self.tables.versions(self.id, pick.name) if pick.means(one)]
        if not found:
            which = f"version {pick.version}" if pick.version is not None else f"label '{pick.label or 'production'}'"
            raise not_found(f"Prompt not found: '{pick.name}' with {which}")
        row = self.shown(found[0])
        return row if self.quirks.manner == 2 else row | self._resolved(found[0], resolve=resolve)

    def _resolved(self, version: Version, *, resolve: bool) -> Row:
        if not resolve and self.quirks.knows_resolve:
            return {"resolutionGraph": None}
        resolution = Resolution(self._referred)
        try:
            prompt = resolution.resolve(version)
        except Unresolved as exc:
            raise internal() from exc
        root = {"id": version.id, "name": version.name, "version": version.number}
        graph = {"root": root, "dependencies": resolution.graph} if resolution.graph else None
        return {"prompt": prompt, "resolutionGraph": graph}

    def _referred(self, reference: Reference) -> Version | None:
        return next((one for one in self.tables.versions(self.id, reference.name) if reference.means(one)), None)

    def shown(self, version: Version) -> Row:
        """A version as it was stored."""
        row: Row = {
            "id": version.id,
            "createdAt": stamp(version.created_at),
            "updatedAt": stamp(version.updated_at),
            "projectId": self.id,
            "createdBy": version.created_by,
            "prompt": version.prompt,
            "name": version.name,
            "version": version.number,
            "type": version.type,
            "isActive": None,
            "config": version.config,
            "tags": list(version.tags),
            "labels": list(version.labels),
        }
        return row if self.quirks.manner == 2 else row | {"commitMessage": version.commit_message}

    # ---- writing -----------------------------------------------------------------------------------------------------

    def draft(self, creation: Creation) -> Version:
        """The version that a create means to write, next to those that are there now. Refusal (400)."""
        versions, now = self.tables.versions(self.id, creation.name), self.langfuse.clock()
        newest = versions[-1] if versions else None
        if newest is not None and newest.type != creation.type:
            raise bad_request(
                "Previous versions have different prompt type. Create a new prompt with a different name."
            )
        tags = creation.tags if creation.tags is not None else newest.tags if newest is not None else ()
        draft = Version(
            id=self.langfuse.store.new_id(),
            name=creation.name,
            number=1 if newest is None else newest.number + 1,
            type=creation.type,
            prompt=creation.prompt,
            config=creation.config,
            labels=list(dict.fromkeys([*creation.labels, LATEST])),
            tags=list(dict.fromkeys(tags)),
            commit_message=creation.commit_message,
            created_by=self.user,
            created_at=now,
            updated_at=now,
            visible_at=now + (self.late if newest is None else 0),
        )
        self._check_references(draft)
        return draft

    def _check_references(self, draft: Version) -> None:
        if self.quirks.manner == 2:
            return
        try:
            Resolution(self._referred).resolve(draft)
        except Unresolved as exc:
            raise bad_request(str(exc)) from exc

    def write(self, draft: Version) -> Row:
        """Its labels leave the other versions, its tags become theirs. Refusal (500, or 400) when another create has
        taken its number.
        """
        with self.langfuse.store.writing():
            versions = self.tables.versions(self.id, draft.name)
            if any(version.number == draft.number for version in versions):
                raise internal() if self.quirks.manner == 2 else bad_request(_race(draft.name))
            for version in versions:
                self._keep(version, _without(version.labels, draft.labels), draft.tags)
            self.tables.keep(self.id, draft)
        return self.shown(draft)

    def label(self, name: str, number: int, labels: Sequence[str]) -> Row:
        """Gives labels to a version and takes them from the others; what it has stays. Refusal (404)."""
        with self.langfuse.store.writing():
            versions = self.tables.versions(self.id, name)
            found = next((version for version in versions if version.number == number), None)
            if found is None:
                raise not_found(f"Prompt not found: {name}")
            for version in versions:
                if version is not found:
                    self._keep(version, _without(version.labels, labels), version.tags)
            return self.shown(self._keep(found, list(dict.fromkeys([*labels, *found.labels])), found.tags))

    def delete(self, pick: Pick) -> None:
        """All versions, or those that are picked; `latest` goes to the newest that stays. Refusal: 400, 404."""
        if pick.version is not None and pick.label:
            raise bad_request("Cannot specify both version and label")
        versions = self.tables.versions(self.id, pick.name)
        whole = pick.version is None and not pick.label
        gone = [version for version in versions if whole or pick.means(version)]
        if not gone:
            raise not_found("Prompt not found")
        rest = [version for version in versions if version not in gone]
        self._check_dependents(gone, rest)
        with self.langfuse.store.writing():
            for version in gone:
                self.tables.delete(self.id, version)
            if rest:
                self._keep(rest[-1], list(dict.fromkeys([*rest[-1].labels, LATEST])), rest[-1].tags)

    def _check_dependents(self, gone: Sequence[Version], rest: Sequence[Version]) -> None:
        others = [version for version in self.tables.versions(self.id) if version not in gone]
        for other in others:
            for one in references(other.prompt):
                if any(map(one.means, gone)) and not any(map(one.means, rest)):
                    what = f"{other.name} v{other.number} depends on {one}"
                    said = "Other prompts are depending on prompt versions you are trying to delete"
                    raise bad_request(f"{said}:\n\n{what}\n\nPlease delete the dependent prompts first.")

    def _keep(self, version: Version, labels: Sequence[str], tags: Sequence[str]) -> Version:
        """With those labels and tags; a version that has them already stays as it is, its time too."""
        if (list(version.labels), list(version.tags)) == (list(labels), list(tags)):
            return version
        changed = replace(version, labels=labels, tags=tags, updated_at=self.langfuse.clock())
        self.tables.keep(self.id, changed)
        return changed


def stamp(seconds: float) -> str:
    """ISO 8601 with milliseconds."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _without(labels: Iterable[str], gone: Iterable[str]) -> list[str]:
    taken = set(gone)
    return [label for label in labels if label not in taken]


def _race(name: str) -> str:
    return (
        f"Failed to create prompt '{name}' due to unique constraint failure. This is likely due to too many concurrent"
        " prompt creations for this prompt name. Please add a delay."
    )
