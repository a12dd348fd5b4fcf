"""What a migration file says of a project of Langfuse."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, ClassVar, Final, Literal

from pydantic import AfterValidator, Field

from engine.connectors.endpoint import Endpoint
from engine.connectors.fields import Secret, Url
from engine.model import Abilities

CLOUD: Final = "https://cloud.langfuse.com"
LATEST: Final = "latest"
"""The label that the server itself keeps on the newest version."""
NEWEST: Final = "newest"
"""No label: the newest version is the published one."""
_LABEL: Final = re.compile(r"[a-z0-9_.-]{1,36}")
"""Newer servers take no more characters."""


def is_label(name: str) -> bool:
    """Whether it may be put on a version."""
    return name != LATEST and _LABEL.fullmatch(name) is not None


def _published_by(text: str) -> str:
    if not is_label(text):
        raise ValueError(f"must be a label: at most 36 of a-z, 0-9, _ . and -, and not {LATEST}; or {NEWEST}")
    return text


class LangfuseEndpoint(Endpoint):
    """A project of Langfuse, which its keys name."""

    needed: ClassVar[Mapping[str, str]] = {
        "public_key": "${LANGFUSE_PUBLIC_KEY}; only the sandbox needs none",
        "secret_key": "${LANGFUSE_SECRET_KEY}; only the sandbox needs none",
    }
    address_form: ClassVar[str] = "Langfuse's stands without /api"

    kind: Literal["langfuse"] = Field(default="langfuse", description="What kind of registry it is.")
    base_url: Url = Field(
        default=CLOUD, description="Address of the server, without /api; `sandbox`: the embedded stand-in."
    )
    public_key: Secret | None = Field(
        default=None, description="Public key of the project.", examples=["${LANGFUSE_PUBLIC_KEY}"]
    )
    secret_key: Secret | None = Field(
        default=None, description="Secret key of the project.", examples=["${LANGFUSE_SECRET_KEY}"]
    )
    published_by: Annotated[str, AfterValidator(_published_by)] = Field(
        default="production",
        description="The label that says which version is published; newest: the newest one always is.",
    )

    @property
    def keys(self) -> tuple[str, ...]:
        """Public and secret."""
        return tuple(key.get_secret_value() if key is not None else "" for key in (self.public_key, self.secret_key))

    @property
    def publishing_label(self) -> str | None:
        """None: the newest version is the published one."""
        return None if self.published_by == NEWEST else self.published_by

    def able(self, can: Abilities) -> Abilities:
        """Where no label publishes, a new version is live at once."""
        return can if self.publishing_label is not None else replace(can, published="newest")

    def sandbox_keys(self, key: str) -> Mapping[str, str]:
        """The pair of its project."""
        public, _, secret = key.partition(":")
        return {"public_key": public, "secret_key": secret}
