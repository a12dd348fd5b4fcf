"""One request as the endpoints see it: who asks, what for, and the registry it is asked of."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from engine.sandbox.answers import Json, forbidden, invalid, missing, whole_number
from engine.sandbox.options import Quirks
from engine.sandbox.store import Kind, Store, Template, ThingKind, Version

Model = Callable[[Mapping[str, Json]], Mapping[str, Json] | None]
"""What goes to the model -> its `message`, among whose fields `finish_reason` may be; None: the sentence it knows."""


@dataclass(slots=True, kw_only=True)
class Registry:
    """The state behind the endpoints. `earlier`: prompts as they were, and until when reads still see them so."""

    store: Store
    quirks: Quirks
    clock: Callable[[], float]
    earlier: dict[str, tuple[float, Template]] = field(default_factory=dict)
    model: Model | None = None
    """Says what a model answers in place of the sentence that it knows."""

    def now(self) -> str:
        """ISO 8601, whole seconds."""
        return stamp(self.clock())

    def remember(self, template: Template) -> None:
        """Before a change: reads are stale for a while."""
        if self.quirks.stale_reads_s > 0 and self.seen(template) is template:
            self.earlier[template.id] = (self.clock() + self.quirks.stale_reads_s, template)

    def seen(self, template: Template) -> Template:
        """The head as reads see it now."""
        until, before = self.earlier.get(template.id, (0.0, template))
        return before if self.clock() < until else template


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """`home`: the workspace the key is locked to; None for a key of the organisation. `late`: seconds that what is
    created stays out of listings.
    """

    registry: Registry
    home: str | None
    path: Mapping[str, str]
    query: Mapping[str, str]
    body: dict[str, Json]
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    late: float = 0.0

    @property
    def store(self) -> Store:
        return self.registry.store

    def workspace(self) -> str:
        """Where a listing or a create goes. Refusal: 400 when an organisation key does not say, 403, 404."""
        named = self._named_workspace()
        if named is None and self.home is None:
            raise invalid("workspace_id is required with a key of the organisation")
        return named or self.home or ""

    def template(self, kind: Kind) -> Template:
        """The prompt or partial that the path names, in its newest state. Refusal: 403, 404."""
        ref = self.path["ref"].partition("@")[0]
        found = self.store.template(kind, ref)
        if found is None:
            raise missing(kind)
        self._allow(found.workspace)
        return found

    def picked(self, kind: Kind) -> tuple[Template, Version]:
        """The version that `@suffix` or `?version=` means: none, latest, default, a number, or a label."""
        template = self.registry.seen(self.template(kind))
        suffix = self.path["ref"].partition("@")[2] or self.query.get("version", "default")
        found = pick(self.store, template, suffix)
        if found is None:
            raise missing(f"{kind} version")
        return template, found

    def thing(self, kind: ThingKind) -> dict[str, Json]:
        """The collection, label or the like that the path names. Refusal: 403, 404."""
        home = self._named_workspace() or self.home or self.store.thing_home(self.path["ref"])
        found = self.store.thing(kind, home, self.path["ref"])
        if found is None and self.store.thing_home(self.path["ref"]) is not None:
            raise forbidden(f"this key may not use that {kind}")
        if found is None:
            raise missing(kind)
        return found

    def page(self, *, first: int = 0, default_size: int | None, cap: int | None = None) -> tuple[int | None, int]:
        """Limit and offset of the rows asked for. Refusal (400) for what is no page."""
        size = default_size
        if "page_size" in self.query:
            size = whole_number(self.query["page_size"], "page_size")
            if size < 1:
                raise invalid('"page_size" must be 1 or more')
            size = size if cap is None else min(size, cap)
        number = whole_number(self.query.get("current_page", "0"), "current_page")
        past = max(0, number - first)
        if size is None:
            return (None, 0) if past == 0 else (0, 0)
        return size, min(size * past, 2**62)

    def _named_workspace(self) -> str | None:
        ref = self.query.get("workspace_id") or self.body.get("workspace_id")
        if ref is None:
            return None
        found = self.store.workspace(ref) if isinstance(ref, str) else None
        if found is None:
            raise missing("workspace")
        self._allow(found)
        return found

    def _allow(self, workspace: str) -> None:
        if self.home not in (None, workspace):
            raise forbidden("this key belongs to another workspace")


def stamp(seconds: float) -> str:
    """ISO 8601, whole seconds."""
    return time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(seconds))


def pick(store: Store, template: Template, suffix: str) -> Version | None:
    """The version of a template that `default`, `latest`, a number or a label means."""
    if suffix == "default":
        return store.version(template.id, template.published)
    if suffix == "latest":
        return store.version(template.id, template.latest)
    if suffix.isascii() and suffix.isdigit():
        number = int(suffix[:19])
        return store.version(template.id, number) if number <= template.latest else None
    return store.labelled(template.id, suffix)
