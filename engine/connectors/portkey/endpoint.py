"""What a migration file says of a Portkey workspace."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import ClassVar, Final, Literal

from pydantic import Field

from engine.connectors.endpoint import Address, Endpoint
from engine.connectors.fields import GatewayUrl, Secret, Url, Workspace

HOSTED: Final = "https://api.portkey.ai/v1"


class PortkeyEndpoint(Endpoint):
    """A Portkey workspace."""

    needed: ClassVar[Mapping[str, str]] = {"api_key": "${PORTKEY_API_KEY}; only the sandbox needs none"}
    address_form: ClassVar[str] = "Portkey's ends with /v1"

    kind: Literal["portkey"] = Field(default="portkey", description="What kind of registry it is.")
    base_url: Url = Field(default=HOSTED, description="Address of the API; `sandbox`: the embedded stand-in.")
    gateway_url: GatewayUrl | None = Field(
        default=None,
        description="Where render and completions live, when not base_url.",
        examples=["https://gateway.example/v1"],
    )
    api_key: Secret | None = Field(
        default=None,
        description="Key that may read (source) or write (target) prompts.",
        examples=["${PORTKEY_API_KEY}"],
    )
    gateway_key: Secret | None = Field(
        default=None,
        description="Key that may render and complete, when api_key may not.",
        examples=["${PORTKEY_GATEWAY_KEY}"],
    )
    workspace: Workspace | None = Field(
        default=None, description="Id or slug, needed with the key of an organisation.", examples=["my-workspace"]
    )

    @property
    def keys(self) -> tuple[str, ...]:
        """The one key."""
        return (self.api_key.get_secret_value() if self.api_key is not None else "",)

    @property
    def identity(self) -> str:
        """With the workspace, where the file names one."""
        return " ".join(part for part in (self.kind, self.base_url, self.workspace) if part)

    @property
    def place(self) -> Hashable:
        """Whatever the key, where the file names the workspace."""
        return self.identity if self.workspace is not None else super().place

    @property
    def gateway(self) -> Address:
        """The registry's own address and key, where the file says nothing else."""
        key = self.gateway_key.get_secret_value() if self.gateway_key is not None else self.keys[0]
        if self.gateway_url is None:
            return Address(self.base_url, (key,), form=self.address_form)
        return Address(self.gateway_url, (key,), called="gateway_url", form=self.address_form)

    @property
    def gateway_key_name(self) -> str:
        """The special one, where the file has it."""
        return "gateway_key" if self.gateway_key is not None else "api_key"

    @property
    def may_call(self) -> bool:
        """With a `gateway_key`."""
        return self.is_sandbox or self.gateway_key is not None

    def sandbox_keys(self, key: str) -> Mapping[str, str]:
        """The key of its workspace."""
        return {"api_key": key}
