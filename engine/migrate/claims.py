"""Names that the migrations of a fleet give to new replicas in one workspace. Pure.

Each judges against a listing that was made before the others wrote: what a listing cannot tell yet is told here.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Claims:
    """Of one workspace: whoever comes first has the name, to the end of the process."""

    _owners: dict[str, str] = field(default_factory=dict)

    def claim(self, name: str, migration: str) -> str | None:
        """The other migration that has the name already; None: it is this one's from now on."""
        owner = self._owners.setdefault(name, migration)
        return owner if owner != migration else None
