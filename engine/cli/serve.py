"""`sandbox`: serves the stand-in until it is interrupted."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Collection, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TYPE_CHECKING

import anyio

from engine.errors import ConfigError
from engine.session.connect import the_sandbox

if TYPE_CHECKING:
    from engine.sandbox import Sandbox


def serve_sandbox(
    *,
    port: int,
    prompts: int,
    seed: int,
    rate_limit: float | None,
    rate_window: float | None,
    latency: str | None,
    faults: Sequence[str],
    store: Path | None,
) -> None:
    """Returns after SIGINT or SIGTERM. Raises ConfigError for what cannot be set so, or a port that is taken."""
    if rate_window is not None and rate_limit is None:
        raise ConfigError("--rate-window: says in how many seconds --rate-limit requests are allowed; give both")
    sandbox = the_sandbox()
    options = sandbox.SandboxOptions(
        port=port,
        prompts=prompts,
        seed=seed,
        rate_limit=rate_limit,
        rate_window=rate_window,
        latency=_latency(latency) if latency is not None else (0.0, 0.0),
        faults=dict(_fault(text, sandbox.FAULTS) for text in faults),
        store=store,
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


def _latency(text: str) -> tuple[float, float]:
    """`150` or `50-150`, in milliseconds, as seconds."""
    found = re.fullmatch(r"([0-9]{1,7}(?:\.[0-9]+)?)(?:-([0-9]{1,7}(?:\.[0-9]+)?))?", text.strip())
    if found is None:
        raise ConfigError(f"--latency {text!r}: must be MS or MS-MS, milliseconds such as 150 or 50-150")
    least, most = float(found[1]), float(found[2] or found[1])
    if least > most:
        raise ConfigError(f"--latency {text!r}: the first number must not be above the second one")
    return least / 1000, most / 1000


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
