"""`approve`, and whose signatures count."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

from typer import Argument, Option

from engine.cli.commands import AsJson, app, show_result
from engine.cli.common import Common, command
from engine.errors import EXIT_OK, ConfigError

if TYPE_CHECKING:
    from types import ModuleType

    from engine.verbs.signing import Signer, Trusted

T = TypeVar("T")
SIGNING_KEY = "PROMPTFERRY_SIGNING_KEY"


@command(app, "approve")
def approve(
    plan: Annotated[Path, Argument(metavar="PLAN", help="The file that `plan --out` wrote.", show_default=False)],
    common: Common,
    name: Annotated[str, Option("--as", metavar="NAME", help="Who approves it.", show_default=False)],
    reason: Annotated[str | None, Option("--reason", help="Why, or under which ticket.")] = None,
    as_json: AsJson = False,
) -> int:
    """Approves exactly this plan, for `run --plan FILE --require-approvals N`: a line in PLAN.approvals.jsonl.

    Signed when PROMPTFERRY_SIGNING_KEY names the file of your private key (ed25519). Where it is set for `run` too, it
    names a file of the keys that are trusted, public ones one a line; only what these signed counts then.

    Example: promptferry approve plan.json --as ada@example.com --reason 'ticket 12'
    """
    from engine.migrate.plan_file import digest_of_plan
    from engine.verbs.approve import approvals_file, read_approvals
    from engine.verbs.approve import approve as add

    try:
        sha256 = digest_of_plan(plan.read_bytes(), str(plan))
    except OSError as error:
        raise ConfigError(f"{plan}: cannot be read: {error.strerror}") from error
    line = add(plan, sha256, name, reason=reason, signer=_signer(), now=datetime.now(UTC))
    names = read_approvals(plan, sha256, None).names
    value = {**line, "plan": str(plan), "file": str(approvals_file(plan)), "names": names}
    how = "signed" if "signature" in line else "not signed"
    text = f"approved {plan} as {line['name']} ({how}), SHA-256 {sha256}\nnamed so far: {', '.join(names)}"
    show_result(value, as_json=as_json, text=text)
    return EXIT_OK


def _signer() -> Signer | None:
    return _with_key(lambda signing, path: signing.read_signer(path))


def trusted() -> Trusted | None:
    """Whose signatures count; None: those of nobody are asked for. Raises ConfigError."""
    return _with_key(lambda signing, path: signing.read_trusted(path))


def _with_key(read: Callable[[ModuleType, Path], T]) -> T | None:
    if (named := os.environ.get(SIGNING_KEY)) is None:
        return None
    if not named.strip():
        raise ConfigError(f"{SIGNING_KEY}: is set and empty: name a key file, or unset it")
    try:
        from engine.verbs import signing
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "cryptography":
            raise
        raise ConfigError(f"{SIGNING_KEY}: signed approvals need an extra: pip install 'promptferry[sign]'") from error
    return read(signing, Path(named))
