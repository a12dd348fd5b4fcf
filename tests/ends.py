"""Ends as a migration file would give them, open at once."""

from __future__ import annotations

from typing import Any

from pydantic import SecretStr

from engine.connectors import DIALECTS
from engine.connectors.conductor.endpoint import ConductorEndpoint
from engine.connectors.endpoint import Opening
from engine.connectors.langfuse.endpoint import LangfuseEndpoint
from engine.connectors.mlflow.endpoint import MlflowEndpoint
from engine.connectors.phoenix.endpoint import PhoenixEndpoint
from engine.connectors.portkey.endpoint import PortkeyEndpoint
from engine.http.client import RequestLimits
from engine.http.limiter import RateLimiter


def opening(*, name: str = "target", attempts: int = 3, concurrency: int = 16, **more: Any) -> Opening:
    """As the core opens an end, but as fast as it goes."""
    gate, limits = RateLimiter(rate=5_000, concurrency=concurrency), RequestLimits(timeout=20, attempts=attempts)
    known: dict[str, Any] = {"name": name, "gate": gate, "limits": limits, "batch": 50, "dialects": DIALECTS}
    return Opening(**known | more)


def portkey(url: str, key: str, workspace: str | None = None) -> PortkeyEndpoint:
    """A workspace at that address."""
    return PortkeyEndpoint.model_construct(base_url=url, api_key=SecretStr(key), workspace=workspace)


def mlflow(url: str, **more: Any) -> MlflowEndpoint:
    """An open tracking server at that address."""
    return MlflowEndpoint.model_construct(base_url=url, **more)


def conductor(url: str, secret: str) -> ConductorEndpoint:
    """A cluster at that address."""
    return ConductorEndpoint.model_construct(base_url=url, key_id=SecretStr("tests"), key_secret=SecretStr(secret))


def phoenix(url: str, key: str | None = None, published_by: str = "production") -> PhoenixEndpoint:
    """A server at that address."""
    secret = SecretStr(key) if key is not None else None
    return PhoenixEndpoint.model_construct(base_url=url, api_key=secret, published_by=published_by)


def langfuse(url: str, keys: tuple[str, str], published_by: str = "production") -> LangfuseEndpoint:
    """A project at that address; its public and secret key."""
    public, secret = map(SecretStr, keys)
    return LangfuseEndpoint.model_construct(
        base_url=url, public_key=public, secret_key=secret, published_by=published_by
    )
