"""`sandbox`: serves the stand-in until it is interrupted."""

from __future__ import annotations

import json
import signal
from collections.abc import Collection, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TYPE_CHECKING

import anyio

from engine.connect import the_sandbox
from engine.errors import ConfigError

if TYPE_CHECKING:
    from engine.sandbox import Sandbox


def serve_sandbox(
    *, port: int, prompts: int, seed: int, rate_limit: float | None, faults: Sequence[str], store: Path | None
) -> None:
    """Returns after SIGINT or SIGTERM. Raises ConfigError for an unknown fault or a port that is taken."""
    sandbox = the_sandbox()
    odds = dict(_fault(text, sandbox.FAULTS) for text in faults)
    options = sandbox.SandboxOptions(
        port=port, prompts=prompts, seed=seed, rate_limit=rate_limit, faults=odds, store=store
    )
    try:
        anyio.run(_serve, sandbox.serve(options))
    except OSError as error:
        raise ConfigError(
            f"the sandbox cannot be started: {error.strerror or error}; name another --port or --store"
        ) from error


async def _serve(serving: AbstractAsyncContextManager[Sandbox]) -> None:
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with serving as sandbox:
            keys = {
                "api_key": sandbox.api_key,
                "langfuse_public_key": sandbox.langfuse_public_key,
                "langfuse_secret_key": sandbox.langfuse_secret_key,
            }
            print(json.dumps(sandbox.urls | keys), flush=True)
            async for _ in signals:
                return


def _fault(text: str, known: Collection[str]) -> tuple[str, float]:
    name, _, probability = text.partition("=")
    if name not in known:
        raise ConfigError(f"--fault {text!r}: unknown fault; the faults are {', '.join(known)}")
    try:
        value = float(probability)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise ConfigError(f"--fault {text!r}: must be NAME=PROBABILITY with a probability from 0 to 1")
    return name, value
