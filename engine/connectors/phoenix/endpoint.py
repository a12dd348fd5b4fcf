"""What a migration file says of a Phoenix server."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar, Literal

from pydantic import Field, field_validator

from engine.connectors.endpoint import Endpoint
from engine.connectors.fields import Secret, Text, Url, is_sandbox
from engine.connectors.phoenix.dialect import NAMES
from engine.model import Abilities
from engine.model.dialect import NameRule

NEWEST = "newest"
"""In the place of a tag: the newest version is the published one."""


class PhoenixEndpoint(Endpoint):
    """A server of Arize Phoenix."""

    needed: ClassVar[Mapping[str, str]] = {"base_url": "http://localhost:6006: the address of the server, without /v1"}
    address_form: ClassVar[str] = "Phoenix's stands without /v1"

    kind: Literal["phoenix"] = Field(default="phoenix", description="What kind of registry it is.")
    base_url: Url | None = Field(
        default=None, description="Address of the server, without `/v1`.", examples=["http://localhost:6006"]
    )
    api_key: Secret | None = Field(
        default=None, description="Key, where the server wants one.", examples=["${PHOENIX_API_KEY}"]
    )
    published_by: Text = Field(
        default="production",
        description="Tag that says which version is published; `newest`: always the newest one.",
    )

    @field_validator("base_url")
    @classmethod
    def _is_a_server(cls, base_url: str | None) -> str | None:
        if base_url is not None and is_sandbox(base_url):
            raise ValueError("there is no stand-in for Phoenix: start `phoenix serve` and name its address")
        return base_url

    @field_validator("published_by")
    @classmethod
    def _is_a_tag(cls, tag: str) -> str:
        if not NAMES.takes(tag):
            raise ValueError(f"is no tag of Phoenix: {NAMES.says}")
        return tag

    def able(self, can: Abilities) -> Abilities:
        """Where the newest version counts, a new one is live at once. Else the tag that publishes is no label."""
        own = self.published_by
        if own == NEWEST:
            return replace(can, published="newest")
        rule = NameRule(
            says=f"{NAMES.says}, and {own} says what is published there",
            takes=lambda name: name != own and NAMES.takes(name),
        )
        return replace(can, label_names=rule)

    @property
    def keys(self) -> tuple[str, ...]:
        """The one key, where there is one."""
        return (self.api_key.get_secret_value(),) if self.api_key is not None else ()
