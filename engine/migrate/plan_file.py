"""A plan in a file: what `plan` found, so that `run --plan` does exactly that. Digests only, never a text. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final

from engine.content.shard import Shard
from engine.content.textfile import NotText, repeated_key, text_of
from engine.errors import ConfigError, Problem
from engine.ledger.state import mismatch
from engine.migrate.plan import Plan
from engine.migrate.task import Step
from engine.model import PartKey

VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class PlanFile:
    """`steps` by id of the source; `sha256` of the file, in hex; `made`: what is made before the first of them."""

    steps: Mapping[str, Step]
    sha256: str
    made: frozenset[PartKey] = frozenset()


def write(plan: Plan, identity: Mapping[str, str], rules: str, *, shard: Shard | None = None) -> bytes:
    """The file, a prompt a line so that two plans can be compared. `shard`: which part of the prompts it is about."""
    made = [list(need.key) for need in plan.made if not need.problem]
    parts: dict[str, Any] = {"made": made} if made else {}
    parts |= {"shard": str(shard)} if shard is not None else {}
    head = json.dumps({"promptferry_plan": VERSION, "rules": rules, "identity": dict(identity), **parts})[:-1]
    prompts = ",\n".join(
        json.dumps(
            {
                "source_id": one.source_id,
                "name": one.name,
                "action": one.action,
                "source_digest": one.digests.get("source_digest"),
                "replica_digest": one.digests.get("replica_digest"),
            }
        )
        for one in plan.prompts
    )
    return f'{head}, "prompts": [\n{prompts}\n]}}\n'.encode("ascii")


def read(data: bytes, name: str, identity: Mapping[str, str], rules: str, *, shard: Shard | None = None) -> PlanFile:
    """Raises ConfigError when it is no plan, or not one of this migration under these rules, or that of another shard,
    of which none of its prompts is. `name`: of the file; `shard`: which part is to be done.
    """
    found = _parsed(data, name)
    if different := mismatch(found.identity, identity):
        raise ConfigError(f"{name}: is the plan of another migration: {different}")
    if found.rules != rules:
        raise ConfigError(f"{name}: the migration file was changed since this plan was made: make the plan again")
    if shard is not None and found.shard not in (None, str(shard)):
        raise ConfigError(f"{name}: is the plan of shard {found.shard}, and this is shard {shard}")
    return PlanFile(found.steps, plan_digest(data), found.made)


def digest_of_plan(data: bytes, name: str) -> str:
    """SHA-256 of a plan file, in hex, of whatever migration. Raises ConfigError when it is no plan. `name`: of it."""
    _parsed(data, name)
    return plan_digest(data)


@dataclass(frozen=True, slots=True)
class _Parsed:
    steps: Mapping[str, Step]
    made: frozenset[PartKey]
    identity: Mapping[str, str]
    rules: str
    shard: str | None


def _parsed(data: bytes, name: str) -> _Parsed:
    try:
        text = text_of(data)
        found: Any = json.loads(text)
        prompts = found["prompts"]
        steps = {one["source_id"]: Step(one["action"], one["source_digest"], one["replica_digest"]) for one in prompts}
        made = frozenset((str(what), str(slug)) for what, slug in found.get("made", ()))
        version, identity = found["promptferry_plan"], dict(found["identity"])
        parsed = _Parsed(steps, made, identity, found["rules"], found.get("shard"))
    except NotText as error:
        raise ConfigError([Problem(str(error), file=name, line=error.line)]) from None
    except (ValueError, TypeError, KeyError, RecursionError):
        raise ConfigError(f"{name}: is no plan: make one with `promptferry plan --out`") from None
    if (repeated := repeated_key(text)) is not None:
        key, line = repeated
        raise ConfigError([Problem("is there twice: make the plan again", file=name, line=line, key=key)])
    if len(steps) < len(prompts):
        raise ConfigError(f"{name}: names a prompt twice: make the plan again")
    if version != VERSION:
        raise ConfigError(f"{name}: was written by another version of promptferry: make the plan again")
    return parsed


def plan_digest(data: bytes) -> str:
    """SHA-256 of a plan file, in hex."""
    return sha256(data).hexdigest()
