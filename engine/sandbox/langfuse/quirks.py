"""What can be set on Langfuse's side of a sandbox."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class LangfuseQuirks:
    """Which generation of the server it is, and what differs between servers of one generation."""

    manner: Literal[2, 3] = 3
    """2 behaves as 2.95.9, 3 as 3.103.0. 2 knows no PATCH, no commit messages, placeholders or references, and takes
    any name.
    """
    deletes: bool = False
    """A newer server, which deletes prompts; else a DELETE is refused: 405."""
    knows_resolve: bool = True
    """False: an older server, to which `resolve` is an unknown parameter: it always puts references in (3 only)."""
    typed_rows: bool = True
    """A row of the list carries its `type`, without which version 5 of the official SDK cannot read it; False: an
    older server, as it was measured.
    """
    commit_limit: int | None = 500
    """Characters of a commit message; a longer one is refused: 400 (3 only)."""
    create_s: float = 0.005
    """Seconds between a create's look at the newest version and its write: another create of that name in between
    takes the number, and this one is refused.
    """
