"""The registries. A new one is a folder here, a row in this table, and a fixture of the conformance suite.

May import http, content, model, and what makes files durable. Nothing in here repeats a request, waits, or reads the
environment: see README.md beside this file.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from engine.connectors.conductor import registry as conductor
from engine.connectors.conductor.endpoint import ConductorEndpoint
from engine.connectors.endpoint import Registry
from engine.connectors.files import registry as files
from engine.connectors.files.endpoint import FilesEndpoint
from engine.connectors.files.formats.table import DIALECTS as FORMAT_DIALECTS
from engine.connectors.langfuse import registry as langfuse
from engine.connectors.langfuse.endpoint import LangfuseEndpoint
from engine.connectors.mlflow import registry as mlflow
from engine.connectors.mlflow.endpoint import MlflowEndpoint
from engine.connectors.phoenix import registry as phoenix
from engine.connectors.phoenix.endpoint import PhoenixEndpoint
from engine.connectors.portkey import gateway
from engine.connectors.portkey import registry as portkey
from engine.connectors.portkey.endpoint import PortkeyEndpoint
from engine.model.dialect import Dialect

TABLE: Final = (
    Registry(
        endpoint=PortkeyEndpoint, can=portkey.Portkey.can, connect=portkey.connect, gateway=gateway.connect_gateway
    ),
    Registry(endpoint=ConductorEndpoint, can=conductor.Conductor.can, connect=conductor.connect),
    Registry(endpoint=MlflowEndpoint, can=mlflow.Mlflow.can, connect=mlflow.connect),
    Registry(endpoint=PhoenixEndpoint, can=phoenix.Phoenix.can, connect=phoenix.connect),
    Registry(endpoint=LangfuseEndpoint, can=langfuse.Langfuse.can, connect=langfuse.connect),
    Registry(endpoint=FilesEndpoint, can=files.Files.can, connect=files.connect, dialects=FORMAT_DIALECTS),
)
REGISTRIES: Final[Mapping[str, Registry]] = {registry.kind: registry for registry in TABLE}
"""By the word that stands for it in a migration file; the first is meant where none stands there."""


def console_of(identity: str) -> str:
    """Of an end as its `identity` names it: where its console shows one prompt, with {id}, {slug} or {name} in place of
    what is the prompt's own; empty where that is not known.
    """
    kind, _, rest = identity.partition(" ")
    url = rest.partition(" ")[0].rstrip("/")
    registry = REGISTRIES.get(kind)
    return registry.endpoint.console.replace("{url}", url) if registry and url.startswith("http") else ""


DIALECTS: Final[Mapping[str, Dialect]] = {
    one.name: one
    for registry in TABLE
    for own in (registry.can.dialect, *registry.dialects)
    if own is not None
    for one in (own, *own.variants)
}
"""By the word that stands for it in files."""
