"""What can be set on a sandbox."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from engine.sandbox.langfuse.quirks import LangfuseQuirks

ErrorShape = Literal["data", "error", "message", "gateway"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Quirks:
    """Manners of the real service that nobody has verified; the defaults are the likeliest ones."""

    first_page: int = 0
    """Number of the first page of /prompts; a lower number gives the first page too."""
    page_cap: int | None = 100
    """Largest `page_size` of /prompts that is honoured; a larger one is cut to it."""
    default_page_size: int | None = None
    """Rows of /prompts when no `page_size` is sent; None: all of them."""
    metadata_survives: bool = True
    """Keys of `template_metadata` that the service does not know come back."""
    metadata_on_update: bool = True
    """A PUT takes `template_metadata` as well as `prompt_metadata`."""
    unique_names: bool = False
    """A second prompt of one name in one workspace is refused: 409 AB07."""
    collection_required: bool = True
    """A create without collection is refused; else the prompt has none and comes back with null."""
    provider_checked: bool = True
    """A create or update with a provider that the workspace lacks is refused: 400 AB01."""
    archived_listed: bool = True
    listing_lag_s: float = 0.0
    """Seconds before a new prompt or partial appears in listings (and in `total`)."""
    stale_reads_s: float = 0.0
    """Seconds after an update during which reads still give the prompt as it was."""
    model_wins: Literal["model", "parameters"] = "model"
    """Which counts when `model` and `parameters.model` differ; both come back as the winner."""
    prompt_quota: int | None = None
    """Prompts a workspace may hold; one more is refused: 402 AB09."""
    error_shape: ErrorShape = "data"
    vendor_errors: Literal["own", "wrapped"] = "own"
    """What a model's vendor refuses comes in its own body, or as the gateway wraps it."""
    echo_key: bool = False
    """Error messages repeat the key that was sent."""
    knows_patch: bool = True
    """False: an older back end, to which `patch` is an unknown field and is ignored."""
    version_step: int = 1
    """Distance between version numbers; above 1 they have gaps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConductorQuirks:
    """The same for Conductor."""

    token_lifetime_s: float = 36_000.0
    """Of a token that was asked for without `expiration`."""
    token_requests: int | None = None
    """Requests that a token is good for; the next one meets EXPIRED_TOKEN."""
    token_status: Literal[401, 403] = 401
    """Of the answer to an expired or invalid token."""
    drops_sampling: bool = False
    """An older server: temperature, topP, responseFormat and stopWords of a bulk item are dropped without a word."""
    bulk_tags: bool = False
    """The bulk call stores the tags of its items; else it drops them without a word."""
    bulk_version: Literal["first", "latest", "next"] = "first"
    """The version that a bulk item without one writes."""
    bulk_rolls_back: bool = False
    """A bulk that fails leaves nothing behind; else what came before the failure stays."""
    bulk_merges: bool = False
    """Integrations of the version that is overwritten stay; else they are replaced."""
    names_item: bool = False
    """The error of a bulk says which item failed and what it lacks."""
    tags_in_prompt: bool = True
    """A prompt that is read or listed carries its `tags`."""
    disabled_missing: bool = False
    """A write that names a disabled integration is refused as if it were not there."""
    description_limit: int | None = 10_000
    """Characters of a description; a longer one is refused: 400."""
    encoded_slash: bool = False
    """`%2F` in a path is a character of the name; else it is refused: 400."""
    stale_reads_s: float = 0.0
    """Seconds after a change of a prompt during which it is read and listed as it was."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxOptions:
    """Times are seconds. `faults` are probabilities by the names in `FAULTS`; `rate_limit` is requests a second
    for one key (bursts of one second); with a `rate_window` it is requests in each window of so many seconds, the first
    of which begins with the key's first request. `latency`: least and most seconds from a request to its answer; what
    it asks for is done when it arrives. `store` is a SQLite file that outlives the process; it is seeded with `prompts`
    prompts, the same for the same `seed`, only when it is new (Conductor's and Langfuse's sides with a tenth of them,
    20 at most). `clock` gives seconds since 1970, `sleep` is what answers are held back with.
    """

    port: int = 0
    prompts: int = 200
    seed: int = 1
    rate_limit: float | None = None
    rate_window: float | None = None
    latency: tuple[float, float] = (0.0, 0.0)
    faults: Mapping[str, float] = field(default_factory=dict)
    store: Path | None = None
    quirks: Quirks = field(default_factory=Quirks)
    conductor: ConductorQuirks = field(default_factory=ConductorQuirks)
    langfuse: LangfuseQuirks = field(default_factory=LangfuseQuirks)
    slow_s: float = 2.0
    clock: Callable[[], float] = time.time
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
