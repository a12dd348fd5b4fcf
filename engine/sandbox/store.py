"""Everything the sandbox knows, in SQLite: in memory, or in a file that outlives a killed process.

Every answered write was committed before (WAL: a killed process loses nothing that was committed). Documents are ASCII
JSON; names are kept as bytes, because SQLite's text takes neither lone surrogates nor NUL.
"""

from __future__ import annotations

import json
import random
import re
import sqlite3
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from engine.sandbox.answers import Json, encode
from engine.sandbox.conductor.store import CONDUCTOR_SCHEMA, ConductorStore
from engine.sandbox.langfuse.store import LANGFUSE_SCHEMA, LangfuseStore
from engine.sandbox.numbers import loads

Kind = Literal["prompt", "partial"]
ThingKind = Literal["collection", "label", "provider", "integration"]

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS meta (seed INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS workspaces (seq INTEGER PRIMARY KEY, id TEXT UNIQUE, slug TEXT UNIQUE);
CREATE TABLE IF NOT EXISTS keys (key TEXT PRIMARY KEY, workspace TEXT, scopes TEXT);
CREATE TABLE IF NOT EXISTS things (seq INTEGER PRIMARY KEY, kind TEXT, workspace TEXT, id TEXT, slug TEXT, doc TEXT);
CREATE UNIQUE INDEX IF NOT EXISTS things_by_id ON things (id);
CREATE INDEX IF NOT EXISTS things_by_kind ON things (kind, workspace);
CREATE TABLE IF NOT EXISTS templates (
    seq INTEGER PRIMARY KEY, kind TEXT, workspace TEXT, id TEXT UNIQUE, slug TEXT UNIQUE, name BLOB, folded BLOB,
    collection TEXT, status TEXT, model TEXT, published INTEGER, latest INTEGER, created_at TEXT, updated_at TEXT,
    visible_at REAL);
CREATE INDEX IF NOT EXISTS templates_in_order ON templates (kind, workspace, created_at, seq, visible_at);
CREATE INDEX IF NOT EXISTS templates_by_collection ON templates (collection, kind, created_at, seq, visible_at);
CREATE INDEX IF NOT EXISTS templates_by_name ON templates (kind, workspace, name);
CREATE TABLE IF NOT EXISTS versions (
    seq INTEGER PRIMARY KEY, id TEXT UNIQUE, template TEXT, number INTEGER, created_at TEXT, content TEXT);
CREATE UNIQUE INDEX IF NOT EXISTS versions_by_number ON versions (template, number);
CREATE TABLE IF NOT EXISTS version_labels (template TEXT, label TEXT, version TEXT, PRIMARY KEY (template, label));
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """The head of a prompt or partial: all but its versions."""

    seq: int
    kind: Kind
    workspace: str
    id: str
    slug: str
    name: str
    collection: str | None
    status: str
    model: str | None
    published: int
    latest: int
    created_at: str
    updated_at: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    id: str
    template: str
    number: int
    created_at: str
    content: dict[str, Json]


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A part of a listing: rows visible at `now`, newest first."""

    now: float
    limit: int | None = None
    offset: int = 0
    collection: str | None = None
    search: str = ""
    archived: bool = True


class Store:
    """One SQLite database. `fresh` tells whether it was empty; its `seed` is that of its first opening. `conductor`
    and `langfuse` are the parts of it that their APIs serve.

    OSError when the file cannot be used.
    """

    def __init__(self, path: Path | None, seed: int) -> None:
        self._db = _open(path)
        self.conductor = ConductorStore(self._db)
        self.langfuse = LangfuseStore(self._db)
        kept = self._db.execute("SELECT seed FROM meta").fetchone()
        self.fresh = kept is None
        self.seed: int = seed if kept is None else kept["seed"]
        # a reopened store must not draw again the ids that the first opening drew
        self._random = random.Random(seed) if self.fresh else random.Random()

    def finish_seeding(self) -> None:
        """Marks the store as seeded; inside the same `writing` as the seeds, so that a half-seeded file stays fresh."""
        self._db.execute("INSERT INTO meta VALUES (?)", (self.seed,))
        self.fresh = False

    def close(self) -> None:
        self._db.close()

    @contextmanager
    def writing(self) -> Iterator[None]:
        """All or nothing; committed at the end, of the outermost one. Raises OSError when the disk is full."""
        if self._db.in_transaction:
            yield
            return
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException as exc:
            if self._db.in_transaction:  # a full disk has rolled it back already
                self._db.execute("ROLLBACK")
            if isinstance(exc, sqlite3.OperationalError):
                raise OSError(f"the store cannot be written: {exc}") from exc
            raise

    def new_id(self) -> str:
        return str(uuid.UUID(int=self._random.getrandbits(128), version=4))

    def new_slug(self, prefix: str, name: str) -> str:
        """`pp-protomold-c76be4`: the prefix, about ten characters of the name, six hex digits."""
        stem = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:10].strip("-") or "untitled"
        while True:
            slug = f"{prefix}{stem}-{self._random.getrandbits(24):06x}"
            if self._db.execute("SELECT 1 FROM templates WHERE slug = ?", (slug,)).fetchone() is None:
                return slug

    # ---- workspaces and keys -----------------------------------------------------------------------------------------

    def add_workspace(self, slug: str) -> str:
        """Its id."""
        workspace = self.new_id()
        self._db.execute("INSERT INTO workspaces (id, slug) VALUES (?, ?)", (workspace, slug))
        return workspace

    def workspace(self, ref: str) -> str | None:
        """The id of the workspace of that id or slug."""
        row = self._one("SELECT id FROM workspaces WHERE ? IN (id, slug)", _plain(ref))
        return None if row is None else str(row["id"])

    def add_key(self, key: str, workspace: str | None, scopes: Sequence[str] | None) -> None:
        kept = None if scopes is None else encode(list(scopes))
        self._db.execute("INSERT OR IGNORE INTO keys VALUES (?, ?, ?)", (key, workspace, kept))

    def key(self, key: str) -> tuple[str | None, frozenset[str] | None] | None:
        """Workspace (None: the organisation) and scopes (None: all) of a key."""
        row = self._one("SELECT workspace, scopes FROM keys WHERE key = ?", _plain(key))
        if row is None:
            return None
        return row["workspace"], None if row["scopes"] is None else frozenset(json.loads(row["scopes"]))

    # ---- collections, labels, providers, integrations ----------------------------------------------------------------

    def add_thing(self, kind: ThingKind, workspace: str | None, slug: str, doc: dict[str, Json]) -> None:
        values = (kind, workspace, doc["id"], _plain(slug), encode(doc))
        self._db.execute("INSERT INTO things (kind, workspace, id, slug, doc) VALUES (?, ?, ?, ?, ?)", values)

    def things(self, kind: ThingKind, workspace: str | None) -> list[dict[str, Json]]:
        """Those of the workspace and those of everybody, oldest first."""
        query = "SELECT doc FROM things WHERE kind = ? AND (workspace = ? OR workspace IS NULL) ORDER BY seq"
        return [json.loads(row["doc"]) for row in self._db.execute(query, (kind, workspace))]

    def thing(self, kind: ThingKind, workspace: str | None, ref: str) -> dict[str, Json] | None:
        """By id or slug, in the workspace or of everybody."""
        query = "SELECT doc FROM things WHERE kind = ? AND (workspace = ? OR workspace IS NULL) AND ? IN (id, slug)"
        row = self._one(query, kind, workspace, _plain(ref))
        return None if row is None else json.loads(row["doc"])

    def thing_home(self, thing_id: str) -> str | None:
        """The id of the workspace that has it; None for unknown things and those of everybody."""
        row = self._one("SELECT workspace FROM things WHERE id = ?", _plain(thing_id))
        return None if row is None else row["workspace"]

    def change_thing(self, slug: str, doc: dict[str, Json]) -> None:
        self._db.execute("UPDATE things SET slug = ?, doc = ? WHERE id = ?", (_plain(slug), encode(doc), doc["id"]))

    def delete_thing(self, thing_id: str) -> None:
        self._db.execute("DELETE FROM version_labels WHERE label = ?", (thing_id,))
        self._db.execute("DELETE FROM things WHERE id = ?", (thing_id,))

    def prompts_in(self, collection: str) -> tuple[int, str | None]:
        """How many prompts a collection has, and when one was last updated."""
        query = "SELECT count(*) AS n, max(updated_at) AS at FROM templates WHERE collection = ? AND kind = 'prompt'"
        row = self._db.execute(query, (collection,)).fetchone()
        return row["n"], row["at"]

    # ---- prompts and partials ----------------------------------------------------------------------------------------

    def add_template(self, template: Template, visible_at: float) -> None:
        """`template.seq` is not used: the store counts."""
        name = template.name
        values = (
            *(template.kind, template.workspace, template.id, template.slug, _blob(name), _blob(name.casefold())),
            *(template.collection, template.status, _text(template.model), template.published, template.latest),
            *(template.created_at, template.updated_at, visible_at),
        )
        self._db.execute(f"INSERT INTO templates VALUES (NULL, {', '.join('?' * len(values))})", values)

    def change_template(self, template: Template) -> None:
        """Writes the fields that can change; found by id."""
        name = template.name
        values = (
            *(_blob(name), _blob(name.casefold()), template.collection, template.status, _text(template.model)),
            *(template.published, template.latest, template.updated_at, template.id),
        )
        columns = "name = ?, folded = ?, collection = ?, status = ?, model = ?, published = ?, latest = ?"
        self._db.execute(f"UPDATE templates SET {columns}, updated_at = ? WHERE id = ?", values)

    def delete_template(self, template_id: str) -> None:
        self._db.execute("DELETE FROM version_labels WHERE template = ?", (template_id,))
        self._db.execute("DELETE FROM versions WHERE template = ?", (template_id,))
        self._db.execute("DELETE FROM templates WHERE id = ?", (template_id,))

    def template(self, kind: Kind, ref: str) -> Template | None:
        """By id or slug, in any workspace."""
        for column in ("slug", "id"):
            row = self._one(f"SELECT * FROM templates WHERE {column} = ? AND kind = ?", _plain(ref), kind)
            if row is not None:
                return _template(row)
        return None

    def named(self, kind: Kind, workspace: str, name: str) -> Template | None:
        query = "SELECT * FROM templates WHERE kind = ? AND workspace = ? AND name = ?"
        row = self._one(query, kind, workspace, _blob(name))
        return None if row is None else _template(row)

    def count(self, kind: Kind, workspace: str) -> int:
        query = "SELECT count(*) FROM templates WHERE kind = ? AND workspace = ?"
        return int(self._db.execute(query, (kind, workspace)).fetchone()[0])

    def templates(self, kind: Kind, workspace: str, window: Window) -> tuple[list[Template], int]:
        """The rows of the window, and how many there are in all."""
        where = ["kind = ?", "workspace = ?", "visible_at <= ?"]
        values: list[Json] = [kind, workspace, window.now]
        if window.collection is not None:
            where.append("collection = ?")
            values.append(window.collection)
        if window.search:
            where.append("instr(folded, ?)")
            values.append(_blob(window.search.casefold()))
        if not window.archived:
            where.append("status = 'active'")
        picked = f"FROM templates WHERE {' AND '.join(where)}"
        total = self._db.execute(f"SELECT count(*) {picked}", values).fetchone()[0]
        page = f"{picked} ORDER BY created_at DESC, seq DESC LIMIT ? OFFSET ?"
        limit = -1 if window.limit is None else window.limit
        # the ids of skipped rows come from the index alone: a late page costs no more than an early one
        query = f"SELECT * FROM templates WHERE seq IN (SELECT seq {page}) ORDER BY created_at DESC, seq DESC"
        return [_template(row) for row in self._db.execute(query, (*values, limit, window.offset))], total

    def add_version(self, version: Version) -> None:
        values = (version.id, version.template, version.number, version.created_at, encode(version.content))
        self._db.execute("INSERT INTO versions VALUES (NULL, ?, ?, ?, ?, ?)", values)

    def change_version(self, version: Version) -> None:
        self._db.execute("UPDATE versions SET content = ? WHERE id = ?", (encode(version.content), version.id))

    def version(self, template_id: str, ref: int | str) -> Version | None:
        """By number or by id."""
        column, key = ("id", _plain(ref)) if isinstance(ref, str) else ("number", min(max(ref, 0), 2**62))
        row = self._one(f"SELECT * FROM versions WHERE template = ? AND {column} = ?", template_id, key)
        return None if row is None else _version(row)

    def versions(self, template: Template) -> list[Version]:
        """Up to the latest that the head knows, newest first."""
        query = "SELECT * FROM versions WHERE template = ? AND number <= ? ORDER BY number DESC"
        return [_version(row) for row in self._db.execute(query, (template.id, template.latest))]

    def set_label(self, template_id: str, label: str, version_id: str) -> None:
        """A label stands on one version of a prompt: it moves."""
        values = (template_id, label, version_id)
        self._db.execute("INSERT OR REPLACE INTO version_labels VALUES (?, ?, ?)", values)

    def clear_labels(self, version_id: str) -> None:
        self._db.execute("DELETE FROM version_labels WHERE version = ?", (version_id,))

    def labels(self, version_id: str) -> list[dict[str, Json]]:
        """The labels on a version."""
        query = "SELECT doc FROM things JOIN version_labels ON things.id = label WHERE version = ? ORDER BY things.seq"
        return [json.loads(row["doc"]) for row in self._db.execute(query, (version_id,))]

    def labelled(self, template_id: str, name: str) -> Version | None:
        """The version of a prompt that carries the label of that name."""
        query = (
            "SELECT versions.* FROM version_labels JOIN things ON things.id = label"
            " JOIN versions ON versions.id = version WHERE version_labels.template = ? AND things.slug = ?"
        )
        row = self._one(query, template_id, _plain(name))
        return None if row is None else _version(row)

    def _one(self, query: str, *values: Json) -> sqlite3.Row | None:
        row: sqlite3.Row | None = self._db.execute(query, values).fetchone()
        return row


def _open(path: Path | None) -> sqlite3.Connection:
    """OSError when the file cannot be opened, is locked, or is no database."""
    database = None
    try:
        database = sqlite3.connect(":memory:" if path is None else path, isolation_level=None)
        database.row_factory = sqlite3.Row
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = NORMAL")
        database.executescript(_SCHEMA + CONDUCTOR_SCHEMA + LANGFUSE_SCHEMA)
    except sqlite3.DatabaseError as exc:
        if database is not None:
            database.close()
        raise OSError(f"{path} cannot be used as a store: {exc}") from exc
    return database


def _blob(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _text(text: str | None) -> str | None:
    return None if text is None else encode(text)


def _plain(ref: str) -> str:
    """Ids and slugs are ASCII; anything else finds nothing, instead of upsetting SQLite."""
    return ref.encode("ascii", "backslashreplace").decode()


def _template(row: sqlite3.Row) -> Template:
    return Template(
        seq=row["seq"],
        kind=row["kind"],
        workspace=row["workspace"],
        id=row["id"],
        slug=row["slug"],
        name=row["name"].decode("utf-8", "surrogatepass"),
        collection=row["collection"],
        status=row["status"],
        model=None if row["model"] is None else json.loads(row["model"]),
        published=row["published"],
        latest=row["latest"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
    )


def _version(row: sqlite3.Row) -> Version:
    content = loads(row["content"])
    fields = {field: row[field] for field in ("id", "template", "number", "created_at")}
    return Version(content=content, **fields)
