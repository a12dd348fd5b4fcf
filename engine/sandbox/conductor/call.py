"""One request to Conductor's API as its endpoints see it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from engine.sandbox.answers import invalid
from engine.sandbox.conductor.cluster import Cluster, Conductor
from engine.sandbox.conductor.content import LARGEST_VERSION
from engine.sandbox.conductor.tokens import Claims


@dataclass(frozen=True, slots=True, kw_only=True)
class ConductorCall:
    """`claims`: of its token; None where none is asked for. `models`: every value of that parameter of the query.
    `late`: seconds that what is created stays out of listings.
    """

    conductor: Conductor
    claims: Claims | None
    path: Mapping[str, str]
    query: Mapping[str, str]
    models: Sequence[str]
    raw: bytes
    late: float = 0.0

    @property
    def user(self) -> Claims:
        """Whose token it is."""
        assert self.claims is not None, "the route asks for a token"
        return self.claims

    @property
    def cluster(self) -> Cluster:
        """What the token is for."""
        return Cluster(conductor=self.conductor, id=self.user.org, user=self.user.sub, late=self.late)

    @property
    def name(self) -> str:
        """Of the prompt that the path names."""
        return self.path["name"]

    def flag(self, field: str, default: bool = False) -> bool:
        """True and true are the same. Refusal (400) for what is neither true nor false."""
        text = self.query.get(field, str(default)).lower()
        if text not in ("true", "false"):
            raise invalid(f'"{field}" must be true or false')
        return text == "true"

    def version(self) -> int | None:
        """Of the query. Refusal (400) when it is no int32 above 0."""
        return number_of(self.query["version"]) if "version" in self.query else None


def number_of(text: str) -> int:
    """A version number. Refusal (400) when it is no int32 above 0."""
    if not (text.isascii() and text.isdigit() and len(text) < 11 and 1 <= int(text) <= LARGEST_VERSION):
        raise invalid('"version" must be a whole number from 1')
    return int(text)
