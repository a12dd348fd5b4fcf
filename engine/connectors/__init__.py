"""The registries, in one table: a new one is a file, a row here, and a fixture of the conformance suite."""

from __future__ import annotations

from typing import Final

from engine.connectors import portkey, portkey_gateway

CONNECT: Final = {"portkey": portkey.connect}
"""Kind of registry -> what opens it: an async context manager that gives a `Target`."""
CONNECT_GATEWAY: Final = {"portkey": portkey_gateway.connect_gateway}
"""Kind of registry -> what opens where its prompts are rendered and called: one that gives a `Gateway`."""
