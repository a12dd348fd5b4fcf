"""The registries, in one table: a new one is a file, a row here, and a fixture of the conformance suite."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Final

from engine.connectors.conductor import registry as conductor
from engine.connectors.files import registry as files
from engine.connectors.portkey import gateway as portkey_gateway
from engine.connectors.portkey import registry as portkey
from engine.model import Target

CONNECT: Final[dict[str, Callable[..., AbstractAsyncContextManager[Target]]]] = {
    "portkey": portkey.connect,
    "conductor": conductor.connect,
    "files": files.connect,
}
"""Kind of registry -> what opens it: an async context manager that gives a `Target`."""
CONNECT_GATEWAY: Final = {"portkey": portkey_gateway.connect_gateway}
"""Kind of registry -> what opens where its prompts are rendered and called: one that gives a `Gateway`."""
