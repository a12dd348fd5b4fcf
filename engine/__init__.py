"""Promptferry: moves prompts between registries in bulk, each exactly once.

from engine import load_migration, run_migration
summary = await run_migration(load_migration("migration.yaml"))

README.md beside this file has the folders, who may import whom, and the path of one prompt.
"""

from __future__ import annotations

__version__ = "0.1.0"
__all__ = ["__version__", "load_migration", "run_migration"]

TYPE_CHECKING = False  # not from typing: until the command looks after signals, nothing is imported that need not be
if TYPE_CHECKING:
    from typing import Any

    from engine.config import load_migration
    from engine.run import run_migration


def __getattr__(name: str) -> Any:
    """Imports on first use: `promptferry --help` needs neither aiohttp nor pydantic. Raises Unsupported on Windows."""
    if name == "load_migration":
        import engine.ledger.durable
        from engine.config import load_migration

        return load_migration
    if name == "run_migration":
        import engine.ledger.durable  # noqa: F401 - here as there: a system without file locks is refused before all else
        from engine.run import run_migration

        return run_migration
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
