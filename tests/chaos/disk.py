"""What the harness tells of the disk under a ledger: what was synced, and what a power cut leaves."""

from __future__ import annotations

import json
import random
from typing import Any

from tests.chaos.campaign import Campaign, posts


def watched(one: Campaign) -> dict[str, str]:
    """The part of a plan that names the ledger and the diary of its calls."""
    return {"ledger": str(one.ledger), "diary": str(one.folder / "diary")}


def diary(one: Campaign) -> list[tuple[str, int]]:
    """Each call of the disk, and how many bytes of the ledger were synced after it."""
    path = one.folder / "diary"
    return [(name, synced) for name, synced in map(json.loads, path.read_text().splitlines())] if path.exists() else []


def synced_lines(one: Campaign) -> list[dict[str, Any]]:
    """The lines of the ledger that are surely on the disk."""
    synced = max((size for _, size in diary(one)), default=0)
    return [json.loads(line) for line in one.ledger.read_bytes()[:synced].splitlines()] if synced else []


def check_intents(one: Campaign, lines: list[dict[str, Any]]) -> None:
    """Whatever reached the registry has its intent among these lines, one for each create."""
    intents = [line["source_id"] for line in lines if line["kind"] == "intent"]
    if early := one.truth().keys() - set(intents):
        one.complain(f"{len(early)} creates left before their intents were durable", undetected=1)
    if (sent := posts(one.registry).total()) > len(intents):
        one.complain(f"{sent} creates were sent and {len(intents)} intents durable", undetected=1)


def cut_power(one: Campaign, rng: random.Random) -> None:
    """What was never synced is lost, or all but a part of it; a file of which nothing was synced is gone."""
    synced, size = max((size for _, size in diary(one)), default=0), one.size()
    if not synced:
        one.ledger.unlink(missing_ok=True)
        return
    with one.ledger.open("rb+") as file:
        file.truncate(rng.choice((synced, rng.randint(synced, max(synced, size)))))
