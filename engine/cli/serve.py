"""`sandbox`: serves the stand-in until it is interrupted."""

from __future__ import annotations

import json
import signal
from collections.abc import Sequence
from pathlib import Path

import anyio

from engine.errors import ConfigError
from engine.sandbox import FAULTS, SandboxOptions, serve


def serve_sandbox(
    *, port: int, prompts: int, seed: int, rate_limit: float | None, faults: Sequence[str], store: Path | None
) -> None:
    """Returns after SIGINT or SIGTERM. Raises ConfigError for an unknown fault or a port that is taken."""
    options = SandboxOptions(
        port=port, prompts=prompts, seed=seed, rate_limit=rate_limit, faults=dict(map(_fault, faults)), store=store
    )
    try:
        anyio.run(_serve, options)
    except OSError as error:
        raise ConfigError(
            f"the sandbox cannot be started: {error.strerror or error}; name another --port or --store"
        ) from error


async def _serve(options: SandboxOptions) -> None:
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with serve(options) as sandbox:
            where = {
                "portkey": sandbox.base_url,
                "conductor": sandbox.conductor_url,
                "api_key": sandbox.api_key,
                "langfuse": sandbox.langfuse_url,
                "langfuse_public_key": sandbox.langfuse_public_key,
                "langfuse_secret_key": sandbox.langfuse_secret_key,
            }
            print(json.dumps(where), flush=True)
            async for _ in signals:
                return


def _fault(text: str) -> tuple[str, float]:
    name, _, probability = text.partition("=")
    if name not in FAULTS:
        raise ConfigError(f"--fault {text!r}: unknown fault; the faults are {', '.join(FAULTS)}")
    try:
        value = float(probability)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise ConfigError(f"--fault {text!r}: must be NAME=PROBABILITY with a probability from 0 to 1")
    return name, value
