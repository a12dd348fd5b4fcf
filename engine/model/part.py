"""What prompts refer to, and may be made at a target: a collection, a partial, a label."""

from __future__ import annotations

from dataclasses import dataclass, field

PartKey = tuple[str, str]
"""What it is (collection, partial, label) and its slug at the source; the slug of a label is its name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One of them, whole. Its repr leaves the content out, as that of a prompt does."""

    what: str
    """collection | partial | label: the singular of a field of `Catalog`."""
    id: str
    slug: str
    name: str
    parent: str | None = None
    """Of a collection: the id of the one that it lies in."""
    text: str = field(default="", repr=False)
    """Of a partial: the template as it is published, byte for byte."""
    description: str | None = field(default=None, repr=False)
    """Of a label, or of the published version of a partial."""
    color: str | None = None
    """Of a label."""
    version: str | None = None
    """Of a partial: `Version.ref` of the published one."""

    @property
    def key(self) -> PartKey:
        """By which it is known, where this is how it is at the source."""
        return self.what, self.slug
