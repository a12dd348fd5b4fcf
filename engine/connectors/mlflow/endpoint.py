"""What a migration file says of a tracking server of MLflow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar, Final, Literal

from pydantic import Field, ValidationInfo, field_validator

from engine.connectors.endpoint import Endpoint
from engine.connectors.fields import Secret, Text, Url, Workspace, is_sandbox
from engine.connectors.mlflow.dialect import ALIASES
from engine.model import Abilities

NEWEST: Final = "newest"


class MlflowEndpoint(Endpoint):
    """A tracking server of MLflow with its prompt registry; without keys when it is open."""

    needed: ClassVar[Mapping[str, str]] = {"base_url": "http://127.0.0.1:5000: the address of the tracking server"}
    address_form: ClassVar[str] = "MLflow's stands without /api"
    console: ClassVar[str] = "{url}/#/prompts/{name}"

    kind: Literal["mlflow"] = Field(default="mlflow", description="What kind of registry it is.")
    base_url: Url | None = Field(
        default=None, description="Address of the tracking server, without /api.", examples=["http://127.0.0.1:5000"]
    )
    token: Secret | None = Field(
        default=None, description="Bearer token, where it wants one.", examples=["${MLFLOW_TRACKING_TOKEN}"]
    )
    username: Workspace | None = Field(
        default=None,
        description="User, where it wants one with a password.",
        examples=["${MLFLOW_TRACKING_USERNAME}"],
    )
    password: Secret | None = Field(
        default=None, description="Password of that user.", examples=["${MLFLOW_TRACKING_PASSWORD}"]
    )
    published_by: Text = Field(
        default="production",
        description="The alias of the version that counts as published, or `newest`: always the newest one.",
    )

    @field_validator("base_url")
    @classmethod
    def _is_real(cls, base_url: str | None) -> str | None:
        if base_url is not None and is_sandbox(base_url):
            raise ValueError("MLflow has no stand-in: start a server with `mlflow server`, and give its address")
        return base_url

    @field_validator("username")
    @classmethod
    def _one_way_in(cls, username: str | None, info: ValidationInfo) -> str | None:
        if username is not None and info.data.get("token") is not None:
            raise ValueError("stands beside token: give the token, or username and password")
        if username is not None and ":" in username:
            raise ValueError("must not hold a colon, which would end it")
        return username

    @field_validator("password")
    @classmethod
    def _beside_a_user(cls, password: Secret | None, info: ValidationInfo) -> Secret | None:
        if "username" in info.data and (password is None) != (info.data["username"] is None):
            missing = "password is required beside username" if password is None else "needs username beside it"
            raise ValueError(missing)
        return password

    @field_validator("published_by")
    @classmethod
    def _is_an_alias(cls, word: str) -> str:
        if word != NEWEST and not ALIASES.takes(word):
            raise ValueError(f"is no alias: {ALIASES.says}; or say newest")
        return word

    @property
    def keys(self) -> tuple[str, ...]:
        """Token and password."""
        return tuple(key.get_secret_value() if key is not None else "" for key in (self.token, self.password))

    def able(self, can: Abilities) -> Abilities:
        """Where the newest version counts, a new one is live at once; versions can be taken out again, and any alias is
        a label. Else the alias that publishes is none.
        """
        if self.published_by == NEWEST:
            return replace(can, published="newest", retracts=True)
        own = self.published_by
        rule = replace(
            ALIASES,
            says=f"{ALIASES.says}, and {own} says what is published",
            takes=lambda name: name != own and ALIASES.takes(name),
        )
        return replace(can, label_names=rule)
