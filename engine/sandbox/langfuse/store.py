"""What Langfuse's API knows, in the database of the sandbox: tables of their own, one project for each workspace."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from engine.sandbox.answers import Json, encode

LANGFUSE_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS langfuse_keys (public TEXT PRIMARY KEY, secret TEXT, project TEXT);
CREATE TABLE IF NOT EXISTS langfuse_versions (
    project TEXT, name BLOB, number INTEGER, updated_at REAL, visible_at REAL, labels TEXT, tags TEXT, doc TEXT,
    PRIMARY KEY (project, name, number));
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """One version of a prompt. Times are seconds since 1970; `visible_at` is when it is listed from on."""

    id: str
    name: str
    number: int
    type: str
    prompt: Json
    config: Json
    labels: Sequence[str]
    tags: Sequence[str]
    commit_message: str | None
    created_by: str
    created_at: float
    updated_at: float
    visible_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """Which versions count for a listing; the rest is as if it were not there."""

    name: str | None = None
    label: str | None = None
    tag: str | None = None
    since: float | None = None
    before: float | None = None


class LangfuseStore:
    """The tables; writes belong inside the `writing` of the store."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._db = database

    def add_keys(self, public: str, secret: str, project: str) -> None:
        self._db.execute("INSERT INTO langfuse_keys VALUES (?, ?, ?)", (public, secret, project))

    def keys(self, project: str) -> tuple[str, str] | None:
        """Public and secret."""
        row = self._db.execute("SELECT public, secret FROM langfuse_keys WHERE project = ?", (project,)).fetchone()
        return None if row is None else (row["public"], row["secret"])

    def project(self, public: str, secret: str) -> str | None:
        """That the pair of keys is for."""
        query = "SELECT project FROM langfuse_keys WHERE public = ? AND secret = ?"
        row = self._db.execute(query, (public, secret)).fetchone()
        return None if row is None else str(row["project"])

    def versions(self, project: str, name: str | None = None) -> list[Version]:
        """Of one prompt, or of all of them in the order of their names; oldest first."""
        where, values = _where(project, float("inf"), Filters(name=name))
        return self._select(f"WHERE {where} ORDER BY name, number", values)

    def page(self, project: str, filters: Filters, *, now: float, limit: int, offset: int) -> tuple[list[Version], int]:
        """The versions that count of the names on that page, and how many names there are in all."""
        where, values = _where(project, now, filters)
        total = self._db.execute(f"SELECT count(DISTINCT name) FROM langfuse_versions WHERE {where}", values)
        names = f"SELECT DISTINCT name FROM langfuse_versions WHERE {where} ORDER BY name LIMIT ? OFFSET ?"
        rows = self._select(
            f"WHERE {where} AND name IN ({names}) ORDER BY name, number", [*values, *values, limit, offset]
        )
        return rows, total.fetchone()[0]

    def keep(self, project: str, version: Version) -> None:
        """New, or in the place of the one with its name and number."""
        doc = {
            "id": version.id,
            "type": version.type,
            "prompt": version.prompt,
            "config": version.config,
            "commit_message": version.commit_message,
            "created_by": version.created_by,
            "created_at": version.created_at,
        }
        values = (
            *(project, _blob(version.name), version.number, version.updated_at, version.visible_at),
            *(encode(list(version.labels)), encode(list(version.tags)), encode(doc)),
        )
        self._db.execute("INSERT OR REPLACE INTO langfuse_versions VALUES (?, ?, ?, ?, ?, ?, ?, ?)", values)

    def delete(self, project: str, version: Version) -> None:
        query = "DELETE FROM langfuse_versions WHERE project = ? AND name = ? AND number = ?"
        self._db.execute(query, (project, _blob(version.name), version.number))

    def _select(self, rest: str, values: Sequence[Json]) -> list[Version]:
        return [_version(row) for row in self._db.execute(f"SELECT * FROM langfuse_versions {rest}", values)]


def _where(project: str, now: float, filters: Filters) -> tuple[str, list[Json]]:
    conditions = [("project = ?", project), ("visible_at <= ?", now), *_conditions(filters)]
    return " AND ".join(text for text, _ in conditions), [value for _, value in conditions]


def _conditions(filters: Filters) -> Iterator[tuple[str, Json]]:
    if filters.name is not None:
        yield "name = ?", _blob(filters.name)
    if filters.label is not None:
        yield "EXISTS (SELECT 1 FROM json_each(labels) WHERE value = ?)", filters.label
    if filters.tag is not None:
        yield "EXISTS (SELECT 1 FROM json_each(tags) WHERE value = ?)", filters.tag
    if filters.since is not None:
        yield "updated_at >= ?", filters.since
    if filters.before is not None:
        yield "updated_at < ?", filters.before


def _blob(text: str) -> bytes:
    """SQLite's text takes neither lone surrogates nor NUL; bytes have the order of code points."""
    return text.encode("utf-8", "surrogatepass")


def _version(row: sqlite3.Row) -> Version:
    return Version(
        name=row["name"].decode("utf-8", "surrogatepass"),
        number=row["number"],
        labels=json.loads(row["labels"]),
        tags=json.loads(row["tags"]),
        updated_at=row["updated_at"],
        visible_at=row["visible_at"],
        **json.loads(row["doc"]),
    )
