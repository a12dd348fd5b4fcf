"""Keeps every definition as it was before an update: `LEDGER.before.jsonl`, readable by its owner only.

It holds template text, which the ledger never does; it is there to be read by a person when all else fails.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Final

import anyio

from engine.errors import Rejected, Stop
from engine.ledger.durable import PRIVATE, append_line
from engine.lossless_json import encode
from engine.model import Json, Prompt, stored_version

_LEFT_OUT: Final = frozenset({"variables", "inputs"})


def copies_of(ledger: Path) -> Path:
    """Where they lie, if there are any."""
    return ledger.with_name(f"{ledger.name}.before.jsonl")


class BeforeImages:
    """One file, made when the first copy is kept; a line is durable when `keep` returns."""

    def __init__(self, ledger: Path, *, run: str) -> None:
        self.path: Final = copies_of(ledger)
        self._run = run
        self._lock = anyio.Lock()

    async def keep(self, origin: Mapping[str, Json], before: Prompt) -> None:
        """Raises Stop when the disk fails, Rejected when it cannot be written as JSON without loss."""
        prompt = {one.name: getattr(before, one.name) for one in fields(Prompt) if one.name not in _LEFT_OUT}
        prompt["version"] = stored_version(before.version)
        try:
            line = encode({"run": self._run, "source_id": origin["source_id"], "prompt": prompt}) + b"\n"
        except ValueError as error:
            raise Rejected(f"it cannot be kept as it is before the update: {error}", error="not_encodable") from error
        async with self._lock:
            try:
                await anyio.to_thread.run_sync(partial(append_line, self.path, line, mode=PRIVATE))
            except OSError as error:
                raise Stop(
                    "disk",
                    f"{self.path}: the copies of what was there before cannot be written ({error.strerror})",
                    next="Free that disk and run the same command again: it goes on where this run stopped.",
                ) from error
