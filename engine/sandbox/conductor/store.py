"""What Conductor's API knows, in the database of the sandbox: tables of their own, one cluster for each workspace.

Names are kept as ASCII JSON texts, because SQLite's text takes neither lone surrogates nor NUL.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from engine.sandbox.answers import Json, encode

Content = dict[str, Json]
"""One version of a prompt; always with `name` and `version`."""

Tag = dict[str, str]
"""`key`, `value`, and `type` when it was sent."""

CONDUCTOR_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS conductor_prompts (
    seq INTEGER PRIMARY KEY, cluster TEXT, name TEXT, tags TEXT, updatable INTEGER, visible_at REAL);
CREATE UNIQUE INDEX IF NOT EXISTS conductor_prompts_by_name ON conductor_prompts (cluster, name);
CREATE TABLE IF NOT EXISTS conductor_versions (
    cluster TEXT, name TEXT, number INTEGER, content TEXT, PRIMARY KEY (cluster, name, number));
CREATE TABLE IF NOT EXISTS conductor_integrations (
    seq INTEGER PRIMARY KEY, cluster TEXT, provider TEXT, model TEXT, category TEXT, enabled INTEGER, readable INTEGER);
CREATE UNIQUE INDEX IF NOT EXISTS conductor_integrations_by_name ON conductor_integrations (cluster, provider, model);
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """What belongs to the name of a prompt and not to a version of it."""

    name: str
    tags: Sequence[Tag] = ()
    updatable: bool = True
    """The caller may update it."""
    visible_at: float = 0.0
    """Seconds since 1970 from which it is listed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Integration:
    """A model of a provider; `model` is empty for an integration that has none."""

    provider: str
    model: str
    category: str = "AI_MODEL"
    enabled: bool = True
    readable: bool = True
    """The caller may see and use it."""

    @property
    def ref(self) -> str:
        return f"{self.provider}:{self.model}" if self.model else self.provider


class ConductorStore:
    """The tables; writes belong inside the `writing` of the store."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._db = database

    # ---- prompts -----------------------------------------------------------------------------------------------------

    def head(self, cluster: str, name: str) -> Head | None:
        query = "SELECT * FROM conductor_prompts WHERE cluster = ? AND name = ?"
        row = self._db.execute(query, (cluster, encode(name))).fetchone()
        return None if row is None else _head(row)

    def newest(self, cluster: str) -> list[tuple[Head, Content]]:
        """Every prompt with its newest version, oldest name first."""
        query = (
            "SELECT p.*, v.content, max(v.number) FROM conductor_prompts AS p"
            " JOIN conductor_versions AS v ON v.cluster = p.cluster AND v.name = p.name"
            " WHERE p.cluster = ? GROUP BY p.seq ORDER BY p.seq"
        )
        return [(_head(row), json.loads(row["content"])) for row in self._db.execute(query, (cluster,))]

    def keep_head(self, cluster: str, head: Head) -> None:
        values = (cluster, encode(head.name), encode(list(head.tags)), head.updatable, head.visible_at)
        self._db.execute(
            "INSERT INTO conductor_prompts VALUES (NULL, ?, ?, ?, ?, ?) ON CONFLICT (cluster, name) DO UPDATE"
            " SET tags = excluded.tags, updatable = excluded.updatable, visible_at = excluded.visible_at",
            values,
        )

    def versions(self, cluster: str, name: str) -> list[Content]:
        """Oldest first."""
        query = "SELECT content FROM conductor_versions WHERE cluster = ? AND name = ? ORDER BY number"
        return [json.loads(row["content"]) for row in self._db.execute(query, (cluster, encode(name)))]

    def keep_version(self, cluster: str, content: Content) -> None:
        values = (cluster, encode(content["name"]), content["version"], encode(content))
        self._db.execute("INSERT OR REPLACE INTO conductor_versions VALUES (?, ?, ?, ?)", values)

    def delete_version(self, cluster: str, name: str, number: int) -> None:
        """Of the last version the name goes too."""
        where = "WHERE cluster = ? AND name = ?"
        self._db.execute(f"DELETE FROM conductor_versions {where} AND number = ?", (cluster, encode(name), number))
        if not self.versions(cluster, name):
            self.delete(cluster, name)

    def delete(self, cluster: str, name: str) -> None:
        for table in ("conductor_prompts", "conductor_versions"):
            self._db.execute(f"DELETE FROM {table} WHERE cluster = ? AND name = ?", (cluster, encode(name)))

    # ---- integrations ------------------------------------------------------------------------------------------------

    def integrations(self, cluster: str) -> list[Integration]:
        """Oldest first."""
        query = "SELECT * FROM conductor_integrations WHERE cluster = ? ORDER BY seq"
        return [_integration(row) for row in self._db.execute(query, (cluster,))]

    def integration(self, cluster: str, ref: str) -> Integration | None:
        """`provider:model`; the first colon parts them, because models may hold more."""
        provider, _, model = ref.partition(":")
        query = "SELECT * FROM conductor_integrations WHERE cluster = ? AND provider = ? AND model = ?"
        row = self._db.execute(query, (cluster, encode(provider), encode(model))).fetchone()
        return None if row is None else _integration(row)

    def keep_integration(self, cluster: str, one: Integration) -> None:
        names = (cluster, encode(one.provider), encode(one.model))
        self._db.execute(
            "INSERT INTO conductor_integrations VALUES (NULL, ?, ?, ?, ?, ?, ?) ON CONFLICT (cluster, provider, model)"
            " DO UPDATE SET category = excluded.category, enabled = excluded.enabled, readable = excluded.readable",
            (*names, one.category, one.enabled, one.readable),
        )

    def delete_integration(self, cluster: str, one: Integration) -> None:
        query = "DELETE FROM conductor_integrations WHERE cluster = ? AND provider = ? AND model = ?"
        self._db.execute(query, (cluster, encode(one.provider), encode(one.model)))


def _head(row: sqlite3.Row) -> Head:
    name, tags = json.loads(row["name"]), json.loads(row["tags"])
    return Head(name=name, tags=tags, updatable=bool(row["updatable"]), visible_at=row["visible_at"])


def _integration(row: sqlite3.Row) -> Integration:
    return Integration(
        provider=json.loads(row["provider"]),
        model=json.loads(row["model"]),
        category=row["category"],
        enabled=bool(row["enabled"]),
        readable=bool(row["readable"]),
    )
