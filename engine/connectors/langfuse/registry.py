"""Langfuse's prompts, as source and as target.

Facts that decide the code, tried on 2.95.9 and 3.103.0: a prompt is its name, and a create whose name is there makes
its next version, so what is there is looked at before. Labels alone tell versions apart: the one that publishes is
asked for by name, and where no version has it the newest counts. A label is moved by PATCH, which 2.x does not have,
and cannot be taken off but by putting it elsewhere. Nothing else of a version can be changed. Creates of one name that
meet are refused: by 3.x with a 400 that says so, which is waited for, by 2.x with a 500, after which one has to look.
The listing tells versions, labels and the config of the newest version, and no text.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, Final
from urllib.parse import quote
from uuid import uuid4

from engine.connectors.endpoint import Opening
from engine.connectors.langfuse.dialect import LANGFUSE, NAMES
from engine.connectors.langfuse.endpoint import LATEST, LangfuseEndpoint, is_label
from engine.connectors.langfuse.format import (
    Item,
    body_of,
    checked,
    labels_of,
    made_version,
    placeable,
    prompt_of,
    row_of,
    texts_in,
)
from engine.connectors.langfuse.listing import walk
from engine.connectors.outcomes import cleared, outcome, tried, unlabelled
from engine.errors import Exists, Gone, Rejected, Transient
from engine.http.responses import Special
from engine.http.session import Client, KeyAuth
from engine.log import log
from engine.lossless_json import decode, encode
from engine.model import (
    MARK_KEY,
    Abilities,
    Catalog,
    Created,
    Finding,
    Json,
    Named,
    Outcome,
    Page,
    Parts,
    Prompt,
    Replica,
    Sending,
    Updated,
    Version,
    label_in,
    newer,
    no_intent,
)

PROMPTS: Final = "/api/public/v2/prompts"
KEEPS_MESSAGES: Final = (3, 103)
"""The oldest server that is known to keep commit messages; 2.95 drops them."""

_NO_ROUTE: Final = "this server has no such address: base_url is the one of its web page, without /api"
_NO_DELETE: Final = "this server deletes no prompts over its API, as older ones do not: delete it in its web page"
_DEPENDENCY: Final = "Prompt dependency not found"
ERRORS: Final = (
    # nothing was written: it is waited for and said again
    Special(status=400, text="unique constraint failure", read_as=429),
    Special(
        status=400,
        text="previous versions have different prompt type",
        says="a prompt of that name is there with texts where this one has messages, or the other way round, and "
        "Langfuse keeps one type for all versions: give it another name with rewrite.name",
    ),
    Special(status=413, says="the prompt is larger than what the server takes, which is 1 MB: shorten it"),
    Special(status=405, says=_NO_DELETE),
    Special(status=404, text="page could not be found", read_as=405, says=_NO_ROUTE),
)


@asynccontextmanager
async def connect(end: LangfuseEndpoint, opening: Opening) -> AsyncIterator[Langfuse]:
    """A project under its own client."""
    async with opening.client(end.address, KeyAuth.basic(*end.keys), secrets=end.keys, errors=ERRORS) as client:
        yield Langfuse(client, end, written=opening.writes or opening.name == "target")


class Langfuse:
    """One project of Langfuse."""

    can = Abilities(
        dialect=LANGFUSE,
        names=NAMES,
        own_ids=False,
        taken="appends",
        published="label",
        renames=False,
        once=frozenset(),
        marks=("config",),
    )
    parts: Parts | None = None
    batch = 1
    fields: Collection[str] = frozenset(
        "name text collection model provider parameters functions tools tool_choice metadata description".split()
    )

    def __init__(self, client: Client, end: LangfuseEndpoint, *, written: bool = True) -> None:
        self.can = end.able(Langfuse.can)
        self._written = written
        self._client = client
        self._label = end.publishing_label
        self._version: tuple[int, ...] | None = None
        """Of the server; None: not told."""
        self._times: dict[str, str] = {}
        """Name -> when the listing says that it was changed last, which no single version tells."""
        self._labels: set[str] | None = None
        """All that the listing names."""
        self._carried: set[tuple[str, str, str]] = set()
        """Name, version and label, of labels that a create has put on it."""

    # ---- reading -----------------------------------------------------------------------------------------------------

    async def pages(self) -> AsyncIterator[Page]:
        """The whole listing as one page."""
        rows = [row_of(item, self._label) for item in await self._all()]
        self._times = {row.id: row.updated_at for row in rows if row.updated_at is not None}
        yield Page(rows=rows, total=len(rows))

    async def fetch(self, prompt_id: str, version: str = "published") -> Prompt:
        """The version that the label is on, else the newest; the newest; or one by number."""
        if version == "published" and self._label is not None:
            try:
                return self._prompt(await self._read(prompt_id, label=self._label))
            except Gone:
                newest = await self._read(prompt_id, label=LATEST)
            note = f"no version has the label {self._label!r}: the newest one counts as published"
            return self._prompt(newest, note)
        if version in ("published", "latest"):
            return self._prompt(await self._read(prompt_id, label=LATEST))
        if (label := label_in(version)) is not None:
            try:
                return self._prompt(await self._read(prompt_id, label=label))
            except Gone as error:
                raise unlabelled(prompt_id, label) from error
        if not re.fullmatch(r"[1-9][0-9]{0,9}", version):  # 0 and the like mean nothing to the server
            raise Gone(f"there is no version {version} of {prompt_id!r}", error="gone", status=404)
        return self._prompt(await self._read(prompt_id, version=version))

    async def versions(self, prompt_id: str) -> list[Version]:
        """The history, oldest first; what each label stands on takes a request a label."""
        row = await self._row(prompt_id)
        on: dict[int, list[str]] = {}
        for label in labels_of(row, self._label):
            labelled = await walk(self._page, name=prompt_id, label=label)
            for number in [number for one in labelled for number in one["versions"]]:
                on.setdefault(number, []).append(label)
        return [
            Version(ref=str(number), ordinal=number, id=str(number), labels=tuple(on.get(number, ())))
            for number in sorted(row["versions"])
        ]

    async def catalog(self, kinds: Collection[str]) -> Catalog:
        """Everything that prompts refer to is a word here; what the version of the server means is said."""
        self._version = self._version or await self._told_version()
        labels = None
        if "labels" in kinds:
            if self._labels is None:
                await self._all()
            labels = [Named(id=label, slug=label, name=label) for label in sorted(self._labels or ())]
        words = frozenset({"collections", "providers", "partials"})
        return Catalog(words=words, labels=labels, notes=tuple(self._notes()))

    async def named(self, names: Collection[str]) -> dict[str, Prompt | None]:
        """Those that are there, one by one."""
        found: dict[str, Prompt | None] = {}
        for name in names:
            try:
                await self._read(name, label=LATEST)  # a free name is told by one request
                found[name] = await self.fetch(name)
            except Gone:
                continue
            except Rejected as error:  # it has the name, whatever else it is
                if error.status not in (None, 403):
                    raise
                found[name] = None
        return found

    # ---- writing -----------------------------------------------------------------------------------------------------

    def encode(self, replica: Replica) -> bytes:
        """The body of POST /v2/prompts, with every label that it is to have."""
        own = [] if self._label is None else [self._label]
        labels = [*own, *placeable(replica.source.labels, self._label)]
        return body_of(replica, labels=labels, tags=True, messages=self._keeps_messages)

    async def create(self, bodies: Sequence[bytes], sending: Sending) -> list[Outcome]:
        """One POST, never repeated blindly."""
        (body,) = bodies
        return [await outcome(self._create(body, sending))]

    async def complete(self, target_id: str, body: bytes, sending: Sending) -> Outcome:
        """Nothing is left undone: it is our create that landed late, or somebody else's prompt that is equal to it."""
        return await outcome(self._complete(target_id, body, sending))

    def encode_update(self, replica: Replica, changed: Collection[str] | None) -> bytes:
        """The whole version, for nothing is taken from an earlier one, and no label. Tags, which are of all versions,
        only where they may have changed.
        """
        tags = changed is None or "metadata" in changed
        return body_of(replica, labels=(), tags=tags, messages=self._keeps_messages)

    async def update(self, target_id: str, body: bytes, sending: Sending) -> Outcome:
        """One POST, never repeated blindly."""
        return await outcome(self._update(target_id, body, sending))

    async def publish(self, target_id: str, version: str) -> None:
        """The label moves there. Where none publishes, the newest version is the published one, and no other."""
        if self._label is not None:
            await self._put_label(target_id, version, self._label)
        elif later := [one.ref for one in newer(await self.versions(target_id), version)]:
            message = f"the newest version is the published one (published_by: newest), and {', '.join(later)} is newer"
            raise Rejected(message, error="newer")

    async def retract(self, target_id: str, version: str) -> None:
        """Rejected: a version stays in the history."""
        raise Rejected("older servers of Langfuse take no version out of a history, so none is", error="kept")

    async def label(self, target_id: str, version_id: str, label_id: str) -> None:
        """The label moves there, unless the create has brought it. One that would publish, or that Langfuse cannot
        have, is left out.
        """
        if (target_id, version_id, label_id) in self._carried:
            self._carried.discard((target_id, version_id, label_id))
        elif not placeable([label_id], self._label):
            why = "it says which version is published" if is_label(label_id) else "Langfuse cannot have it"
            log.warning("label.left_out", target_id=target_id, label=label_id, reason=why)
        else:
            await self._put_label(target_id, version_id, label_id)

    async def create_label(self, name: str) -> str:
        """A label is its word."""
        return name

    async def describe(self, target_id: str, description: str) -> None:
        """Rejected: of a version that is there, only labels can be changed."""
        raise Rejected("Langfuse changes nothing of a version but its labels", error="no_update")

    async def delete(self, target_id: str) -> None:
        """DELETE /v2/prompts/{name}, with every version. Rejected by servers that cannot."""
        await self._client.repeatable("delete", "DELETE", _path(target_id))

    async def write_test(self, collection: str | None) -> AsyncIterator[Finding]:
        """Creates a scratch prompt in two versions, moves its label and deletes it; where nothing can be deleted, it is
        the same one each time, and stays.
        """
        name = "promptferry-write-test"
        if deletes := await self._deletes():
            name = f"{name}-{uuid4().hex[:8]}"
        async for finding in tried(name, self._tested(name)):
            yield finding
        if deletes:
            yield await cleared(name, self.delete)
            return
        text = f"{_NO_DELETE}: {name} stays, and rollback can delete no replica"
        yield Finding(level="note", where="target", text=text)

    # ---- how it is done ----------------------------------------------------------------------------------------------

    @property
    def _keeps_messages(self) -> bool:
        return self._version is not None and self._version >= KEEPS_MESSAGES

    async def _create(self, body: bytes, sending: Sending) -> Created:
        answer = await self._post("create", body, sending)
        name, number = decode(body)["name"], str(made_version(answer))
        if number != "1":
            log.warning("prompt.appended", target_id=name, version=number, reason="its name was taken in between")
        self._carried.update((name, number, label) for label in labels_of(answer, None))
        return Created(target_id=name, version=number, version_id=number)

    async def _complete(self, target_id: str, body: bytes, sending: Sending) -> Created:
        found = await self.fetch(target_id)
        if found.metadata.get(MARK_KEY) != decode(body)["config"].get(MARK_KEY):
            raise Exists("a prompt of that name is there with the same content, and is not ours", error="exists")
        await sending()
        return Created(target_id=target_id, version=found.version or "1", version_id=found.version)

    async def _update(self, target_id: str, body: bytes, sending: Sending) -> Updated:
        if (name := decode(body)["name"]) != target_id:
            raise Rejected(
                f"{target_id!r} cannot be renamed to {name!r}: in Langfuse the name is the prompt", error="renamed"
            )
        if self._label is not None:
            await self._pin(target_id)
        return Updated(version_id=str(made_version(await self._post("update", body, sending))))

    async def _pin(self, name: str) -> None:
        """Puts the label on what counts as published without it: else the version to come would be live at once."""
        label = self._label or ""
        try:
            await self._read(name, label=label)
        except Gone:
            newest = await self._read(name, label=LATEST)
            await self._put_label(name, str(newest["version"]), label)

    async def _post(self, call: str, body: bytes, sending: Sending) -> Json:
        try:
            return await self._client.create(call, "POST", PROMPTS, body, sending)
        except Rejected as error:
            if _DEPENDENCY.lower() not in str(error).lower():
                raise
            advice = "run it again when that one is there, with that label"
            raise Transient(f"{error}; {advice}", error="dependency", status=error.status) from error

    async def _put_label(self, name: str, version: str, label: str) -> None:
        path = f"{_path(name)}/versions/{quote(version, safe='')}"
        try:
            await self._client.repeatable("label", "PATCH", path, encode({"newLabels": [label]}))
        except Gone:
            raise
        except Rejected as error:
            if error.status != 404:
                raise
            if label in texts_in((await self._read(name, version=version)).get("labels")):
                return
            message = f"this server moves no labels over its API, as 2.x does not: put {label!r} on version {version} "
            raise Rejected(f"{message}in its web page, or update the server", error="no_labels", status=404) from error

    async def _deletes(self) -> bool:
        """Whether the server deletes prompts: asked with a name that nothing has."""
        try:
            await self.delete(f"promptferry-nothing-{uuid4().hex}")
        except Gone:
            return True
        except Rejected:
            return False
        return True

    async def _tested(self, name: str) -> AsyncIterator[Finding]:
        sent: Item = {"model": "write-test", "temperature": 0.5, MARK_KEY: "0" * 16}
        body: dict[str, Any] = {"name": name, "type": "text", "config": sent, "tags": ["promptferry"]}
        body |= {"labels": [] if self._label is None else [self._label], "commitMessage": "a description"}
        first = made_version(await self._post("create", encode({**body, "prompt": "Hello {{name}}"}), no_intent))
        found = await self._read(name, version=str(first))
        yield _finding(found.get("config") == sent, "the config comes back as it was sent", "the config is changed")
        kept = found.get("commitMessage") == "a description"
        yield _finding(kept, "descriptions are kept as commit messages", "descriptions are kept in the config")
        second = made_version(await self._post("update", encode({**body, "labels": [], "prompt": "Hello"}), no_intent))
        yield _finding(second == first + 1, "an update makes a version of its own", f"it made version {second}")
        if self._label is not None:
            staged = (await self.fetch(name)).version == str(first)
            yield _finding(staged, "a new version is not the published one", "a new version is live at once")
            try:
                await self.publish(name, str(second))
                yield Finding(level="ok", where="target", text="the label that publishes can be moved")
            except Rejected as error:
                yield Finding(level="note", where="target", text=f"no version can be published later: {error}")

    # ---- the wire ----------------------------------------------------------------------------------------------------

    async def _all(self) -> list[Item]:
        items = await walk(self._page)
        self._labels = {label for item in items for label in labels_of(item, self._label)}
        return items

    async def _page(self, parameters: Any) -> Json:
        return await self._client.read("list prompts", PROMPTS, parameters, cap=self._client.limits.listing_cap)

    async def _row(self, name: str) -> Item:
        """Its row of the listing."""
        found = await walk(self._page, name=name) if name else []
        row = next((one for one in found if one["name"] == name), None)
        if row is None:
            raise Gone(f"there is no prompt {name!r}", error="gone", status=404)
        if not isinstance(row.get("versions"), list) or not all(isinstance(one, int) for one in row["versions"]):
            raise Rejected("the registry's listing has a prompt without versions", error="bad_answer")
        return row

    async def _read(self, name: str, **which: str) -> Item:
        """One version by label or number, with its references as they were written."""
        if not name:
            raise Rejected("a prompt without a name cannot be asked for: give it one in the web page", error="bad_name")
        return checked(await self._client.read("retrieve", _path(name), {**which, "resolve": "false"}), name)

    def _prompt(self, item: Item, *notes: str) -> Prompt:
        """With the time of change that the listing tells, unless this version is newer than that."""
        prompt = prompt_of(item, published_by=self._label, notes=notes)
        listed = self._times.get(prompt.id)
        later = listed is not None and (prompt.updated_at is None or prompt.updated_at < listed)
        return replace(prompt, updated_at=listed) if later else prompt

    async def _told_version(self) -> tuple[int, ...] | None:
        try:
            answer = await self._client.read("ask health", "/api/public/health")
        except Rejected:  # a proxy may keep it to itself
            return None
        told = answer.get("version") if isinstance(answer, dict) else None
        found = re.match(r"v?(\d+)\.(\d+)", told) if isinstance(told, str) else None
        return (int(found[1]), int(found[2])) if found is not None else None

    def _notes(self) -> Sequence[str]:
        """Of a target: what its version means."""
        if self._keeps_messages or not self._written:
            return ()
        told = "tells no version" if self._version is None else f"is {'.'.join(map(str, self._version))}"
        notes = [f"the server {told}: descriptions are written into the config, for it may not keep commit messages"]
        if self._version is not None and self._version < (3,):
            notes.append(
                "it moves no labels over its API: a version gets its labels when it is created, and what is made later "
                "is published in its web page"
            )
        return notes


def _path(name: str) -> str:
    """A dot alone would be taken for a folder."""
    return f"{PROMPTS}/{quote(name, safe='') if name not in ('.', '..') else name.replace('.', '%2E')}"


def _finding(good: bool, yes: str, no: str) -> Finding:
    return Finding(level="ok" if good else "note", where="target", text=yes if good else no)
