"""What an end of a migration is, in the file and to the core: the parts that every kind of registry has."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationInfo, field_validator, model_validator

from engine.connectors.fields import is_sandbox
from engine.http.client import Auth, Client, RequestLimits
from engine.http.limiter import RateLimiter
from engine.http.responses import Special
from engine.http.session import open_client
from engine.model import Abilities, Json, ModelGateway, Target
from engine.model.dialect import Dialect


class Part(BaseModel):
    """One map of the file. Null is the same as left out, so that a key whose lines are all commented out is fine."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, hide_input_in_errors=True)

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, data: Json) -> Json:
        if not isinstance(data, dict):
            return data
        return {key: value for key, value in data.items() if value is not None or key not in cls.model_fields}


@dataclass(frozen=True, slots=True)
class Address:
    """Who is asked and with what: equal addresses share one limit."""

    url: str
    keys: tuple[str, ...] = field(repr=False)
    called: str = field(default="base_url", compare=False)
    """The key of the migration file that holds it."""
    form: str = field(default="", compare=False)
    """How such an address looks, for advice."""


class Endpoint(Part):
    """A registry and a workspace in it. A kind adds its own keys; `base_url`, where it has one, comes first."""

    model_config = ConfigDict(validate_default=True)

    needed: ClassVar[Mapping[str, str]] = {}
    """Key -> an example of what it cannot do without, but at the sandbox."""
    address_form: ClassVar[str] = ""
    """How its address looks, for advice: `it ends with /v1`."""

    console: ClassVar[str] = ""
    """Where its own console shows one prompt: {url} is its address, {id}, {slug} and {name} are the prompt's; empty
    where that is not known from the address and the prompt alone.
    """

    kind: str = Field(description="What kind of registry it is.")

    @field_validator("*", mode="before")
    @classmethod
    def _is_there(cls, value: Json, info: ValidationInfo) -> Json:
        key = str(info.field_name)
        if value is None and (example := cls.needed.get(key)) and not cls._excused(key, info.data):
            raise ValueError(f"is required, such as {example}")
        return value

    @classmethod
    def _excused(cls, key: str, before: Mapping[str, Any]) -> bool:
        """At the sandbox keys may be left out; and an address that is wrong is told already."""
        if key == "base_url" or "base_url" not in cls.model_fields:
            return False
        base_url = before.get("base_url")
        return base_url is None or is_sandbox(base_url)

    @property
    def is_sandbox(self) -> bool:
        """Whether the embedded stand-in is meant; its address is then `sandbox` or `sandbox:NAME`."""
        return "base_url" in type(self).model_fields and is_sandbox(self.url)

    @property
    def url(self) -> str:
        """Where it is, as the file says."""
        return str(getattr(self, "base_url", ""))

    @property
    def keys(self) -> tuple[str, ...]:
        """The secrets that the registry is asked with, in clear text; "" where there is none."""
        return ()

    @property
    def identity(self) -> str:
        """Kind, address and workspace in one text: equal exactly when both are the same workspace."""
        return f"{self.kind} {self.url}"

    @property
    def place(self) -> Hashable:
        """Equal only where both are surely the same workspace: a key may be what tells it from others."""
        return self.identity, self.keys

    @property
    def address(self) -> Address:
        """Of the registry."""
        return Address(self.url, self.keys, form=self.address_form)

    @property
    def gateway(self) -> Address | None:
        """Where its prompts are rendered and called; None: nowhere."""
        return None

    @property
    def gateway_key_name(self) -> str:
        """What the file calls the key that is used there."""
        return ""

    @property
    def may_call(self) -> bool:
        """Whether the file gives a key for calls that nobody asked for one by one."""
        return self.is_sandbox

    def able(self, can: Abilities) -> Abilities:
        """What the registry can do as this end has it, of what its kind `can`."""
        return can

    def reads(self, file: Path) -> bool:
        """Whether this file would be taken for one of its prompts, or for all of them."""
        return False

    def in_sandbox(self, url: str, key: str) -> Endpoint:
        """The same, as the embedded stand-in serves it at `url`; keys of the file stay."""
        given = {
            name: SecretStr(value) for name, value in self.sandbox_keys(key).items() if getattr(self, name) is None
        }
        return self.model_copy(update={"base_url": url, **given})

    def sandbox_keys(self, key: str) -> Mapping[str, str]:
        """What the stand-in takes for each secret, made of its key."""
        return {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """What the core gives a connector to open an end with. `name`: source or target, for errors; `writes`: into it;
    `batch`: prompts of one call, where a registry takes bulks; `dialects`: of all registries, by name, for those that
    keep prompts as they come.
    """

    name: str
    gate: RateLimiter
    limits: RequestLimits
    writes: bool = False
    batch: int = 1
    dialects: Mapping[str, Dialect] = field(default_factory=dict)

    def client(
        self, address: Address, auth: Auth, *, secrets: Collection[str] = (), errors: Sequence[Special] = ()
    ) -> AbstractAsyncContextManager[Client]:
        """A client of this end; no message holds any of `secrets`, nor what `auth` signs with. `errors`: the answers
        that this registry means otherwise than their status says.
        """
        known: dict[str, Any] = {"name": self.name, "address": address.called, "form": address.form}
        return open_client(address.url, auth, self.gate, self.limits, secrets=secrets, errors=errors, **known)


@dataclass(frozen=True, slots=True, kw_only=True)
class Registry:
    """One kind of registry: a row of the table. `connect` and `gateway` take an endpoint of its kind."""

    endpoint: type[Endpoint]
    can: Abilities
    connect: Callable[[Any, Opening], AbstractAsyncContextManager[Target]]
    gateway: Callable[[Any, Opening], AbstractAsyncContextManager[ModelGateway]] | None = None
    dialects: Sequence[Dialect] = ()
    """What its prompts may be written in besides, as an end says: the formats of files."""

    @property
    def kind(self) -> str:
        """Its word in the file."""
        return str(self.endpoint.model_fields["kind"].default)
