"""What a migration file says of a cluster of Orkes Conductor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field

from engine.connectors.endpoint import Endpoint
from engine.connectors.fields import Secret, Url


class ConductorEndpoint(Endpoint):
    """A cluster of Orkes Conductor."""

    needed: ClassVar[Mapping[str, str]] = {
        "base_url": "https://HOST/api: the address of the cluster with /api, or sandbox",
        "key_id": "${CONDUCTOR_KEY_ID}; only the sandbox needs none",
        "key_secret": "${CONDUCTOR_KEY_SECRET}; only the sandbox needs none",
    }
    address_form: ClassVar[str] = "Conductor's ends with /api"

    kind: Literal["conductor"] = Field(default="conductor", description="What kind of registry it is.")
    base_url: Url | None = Field(
        default=None,
        description="Address of the cluster, with /api; `sandbox`: the embedded stand-in.",
        examples=["https://conductor.example/api"],
    )
    key_id: Secret | None = Field(default=None, description="Id of the access key.", examples=["${CONDUCTOR_KEY_ID}"])
    key_secret: Secret | None = Field(
        default=None, description="Secret of the access key.", examples=["${CONDUCTOR_KEY_SECRET}"]
    )

    @property
    def keys(self) -> tuple[str, ...]:
        """Id and secret."""
        return tuple(key.get_secret_value() if key is not None else "" for key in (self.key_id, self.key_secret))

    def sandbox_keys(self, key: str) -> Mapping[str, str]:
        """Any id will do there."""
        return {"key_id": "sandbox", "key_secret": key}
