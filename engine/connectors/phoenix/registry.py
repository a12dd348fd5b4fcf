"""Arize Phoenix, as source and as target.

Facts that decide the code (tried on arize-phoenix 20.26.1): a prompt is its name, which it keeps; the answer to a
create names no prompt; a create of a name that is there appends a version without a word, so what is there is looked
at before; versions have ids that say nothing of their age, and never change or go; a tag stands on one version of a
prompt; rows tell no time, no version and no tag, and there is no call for one row, so what a prompt has besides its
versions is as old as the listing. Listings go by a key, newest first, so rows stay where they are. A path that is not
there is answered with a web page.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Final
from urllib.parse import quote
from uuid import uuid4

from engine.connectors.endpoint import Opening
from engine.connectors.outcomes import cleared, made_id, outcome, tried, unlabelled
from engine.connectors.phoenix.dialect import NAMES, PHOENIX
from engine.connectors.phoenix.endpoint import NEWEST, PhoenixEndpoint
from engine.connectors.phoenix.format import Head, Item, body_of, head_of, prompt_of, row_of
from engine.connectors.phoenix.listing import PAGE, PROMPTS, Listing
from engine.connectors.phoenix.parameters import PROVIDERS
from engine.content.digest import make_replica, read_mark
from engine.errors import Gone, Rejected, Transient, UnknownOutcome
from engine.http.responses import Special
from engine.http.session import Client, KeyAuth, NoAuth
from engine.lossless_json import decode, encode
from engine.model import (
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
    no_intent,
)
from engine.taskgroup import for_each

ERRORS: Final = (
    Special(status=507, read_as=402, says="its storage is full: make room there"),
    Special(status=403),
    Special(status=404),
    Special(status=413, says="the prompt is larger than the server or a proxy before it takes"),
    Special(status=422, text="invalid prompt version id", read_as=404),
    Special(status=422),
)
"""Most of its errors are plain text, which is its own and no firewall's."""
VERSIONS_PAGE: Final = 50
"""Versions come whole."""
AT_ONCE: Final = 8
"""Requests about one prompt."""
_PUBLISHED: Final = "published"
_LATEST: Final = "latest"


@asynccontextmanager
async def connect(end: PhoenixEndpoint, opening: Opening) -> AsyncIterator[Phoenix]:
    """A server under its own client."""
    auth = KeyAuth("Authorization", f"Bearer {end.keys[0]}") if end.keys else NoAuth()
    async with opening.client(end.address, auth, secrets=end.keys, errors=ERRORS) as client:
        yield Phoenix(client, end)


class Phoenix:
    """One server of Phoenix."""

    can = Abilities(
        dialect=PHOENIX,
        names=NAMES,
        own_ids=False,
        taken="appends",
        published="tag",
        label_names=NAMES,
        renames=False,
        once=frozenset({"collection"}),
        dated=False,
    )
    parts: Parts | None = None
    batch = 1
    fields: Collection[str] = frozenset(
        "name text collection model provider parameters tools tool_choice metadata description".split()
    )

    def __init__(self, client: Client, end: PhoenixEndpoint) -> None:
        self.can = end.able(type(self).can)
        self._client = client
        self._tag = None if end.published_by == NEWEST else end.published_by
        self._listing = Listing(client)

    # ---- reading -----------------------------------------------------------------------------------------------------

    async def pages(self) -> AsyncIterator[Page]:
        """The whole listing as one page."""
        heads = await self._listing.whole()
        yield Page(rows=[row_of(head) for head in heads.values()], total=len(heads))

    async def fetch(self, prompt_id: str, version: str = _PUBLISHED) -> Prompt:
        """The tagged version, the newest, or one by its id."""
        item, notes = await self._version(_known(prompt_id), version)
        labels = [name for name in await self._tags(item["id"]) if name != self._tag]
        return prompt_of(await self._head(prompt_id), item, labels, notes)

    async def versions(self, prompt_id: str) -> list[Version]:
        """The history, oldest first, by place."""
        path = f"{_path(_known(prompt_id))}/versions"
        ids = [_id_of(item) for item in await self._listing.walk("versions", path, VERSIONS_PAGE)][::-1]
        if not ids:
            raise _gone(prompt_id)
        tags: dict[str, list[str]] = {}

        async def one(version_id: str) -> None:
            tags[version_id] = [name for name in await self._tags(version_id) if name != self._tag]

        await for_each(ids, one, limit=AT_ONCE)
        return [Version(ref=ref, ordinal=at, id=ref, labels=tags[ref]) for at, ref in enumerate(ids, 1)]

    async def catalog(self, kinds: Collection[str]) -> Catalog:
        """The providers are a list that never changes; collections are words."""
        providers = [Named(id=name, slug=name, name=name) for name in PROVIDERS] if "providers" in kinds else None
        return Catalog(providers=providers, words=frozenset({"collections", "partials"}))

    # ---- writing -----------------------------------------------------------------------------------------------------

    def encode(self, replica: Replica) -> bytes:
        """The body of POST /v1/prompts."""
        return body_of(replica)

    async def named(self, names: Collection[str]) -> dict[str, Prompt | None]:
        """Those that are there. A name that no listing has, nor the newest rows, is free; any other is asked for."""
        found: dict[str, Prompt | None] = {}
        if self._listing.is_whole:
            await self._listing.look()
            names = [name for name in names if name in self._listing.heads]

        async def one(name: str) -> None:
            if (await self._listing.page("versions", f"{_path(name)}/versions", 1))[0]:
                found[name] = await self.fetch(name)

        await for_each(list(filter(NAMES.takes, names)), one, limit=AT_ONCE)
        return found

    async def create(self, bodies: Sequence[bytes], sending: Sending) -> list[Outcome]:
        """One POST, never repeated blindly, and the tag on what it made."""
        (body,) = bodies
        return [await outcome(self._create(body, sending))]

    async def complete(self, target_id: str, body: bytes, sending: Sending) -> Outcome:
        """The tag, where the create was ended before it."""
        return await outcome(self._complete(target_id, sending))

    def encode_update(self, replica: Replica, changed: Collection[str] | None) -> bytes:
        """The whole prompt, or without a version where that stays as it is."""
        return body_of(replica, changed)

    async def update(self, target_id: str, body: bytes, sending: Sending) -> Outcome:
        """One POST of a version, which no tag says is published, and a PATCH where the prompt itself changes."""
        return await outcome(self._update(target_id, decode(body), sending))

    async def publish(self, target_id: str, version: str) -> None:
        """The tag moves; without one, Rejected for all versions but the newest."""
        if self._tag is not None:
            await self._put_tag(version, self._tag)
        elif (await self._version(target_id, _LATEST))[0]["id"] != version:
            raise Rejected("the newest version is the published one here, and none can be taken out", error="newer")

    async def retract(self, target_id: str, version: str) -> None:
        """Rejected: a version stays in the history."""
        raise Rejected("Phoenix takes no version out of a history", error="kept")

    async def label(self, target_id: str, version_id: str, label_id: str) -> None:
        """POST /v1/prompt_versions/{id}/tags."""
        await self._put_tag(version_id, label_id)

    async def create_label(self, name: str) -> str:
        """A tag is its word. Rejected for a word that none can be."""
        if (rule := self.can.label_names) is not None and not rule.takes(name):
            raise Rejected(f"the label {name!r} cannot be put on a version: {rule.says}", error="bad_label")
        return name

    async def describe(self, target_id: str, description: str) -> None:
        """Rejected: a version never changes."""
        raise Rejected("Phoenix changes no version that is there", error="kept")

    async def delete(self, target_id: str) -> None:
        """DELETE /v1/prompts/{name}, with every version and tag."""
        await self._client.repeatable("delete", "DELETE", _path(_known(target_id)))
        self._listing.heads.pop(target_id, None)

    async def write_test(self, collection: str | None) -> AsyncIterator[Finding]:
        """Creates a scratch prompt in two versions, reads it back, moves its tag and deletes it."""
        name = f"promptferry-write-test-{uuid4().hex[:8]}"
        async for finding in tried(name, self._tested(name, collection)):
            yield finding
        yield await cleared(name, self.delete, "a prompt can be deleted; single versions never can")

    # ---- creates and updates -----------------------------------------------------------------------------------------

    async def _create(self, body: bytes, sending: Sending) -> Created:
        answer = await self._client.create("create", "POST", PROMPTS, body, sending)
        version_id = made_id(_data(answer))
        head = head_of(decode(body)["prompt"])
        await _surely_made(self._published_at_once(version_id))
        self._listing.heads[head.name] = head
        return Created(target_id=head.name, version=version_id, version_id=version_id)

    async def _published_at_once(self, version_id: str) -> None:
        if self._tag is not None:
            await self._put_tag(version_id, self._tag)

    async def _complete(self, name: str, sending: Sending) -> Created:
        await sending()
        item, _ = await self._version(name, _PUBLISHED)
        await _surely_made(self._published_at_once(item["id"]))
        return Created(target_id=name, version=item["id"], version_id=item["id"])

    async def _update(self, name: str, body: Item, sending: Sending) -> Updated:
        head = head_of(body["prompt"])
        if head.name != name:
            message = f"{name!r} cannot be renamed to {head.name!r}: in Phoenix the name is the prompt"
            raise Rejected(message, error="renamed")
        path, before = _path(_known(name)), await self._head(name)
        if "version" not in body:
            await self._change(path, before, head, sending)
            return Updated()
        untagged = await self._untagged(name)
        await sending()
        if untagged is not None:  # the newest is published until now, and is to stay so
            await self._published_at_once(untagged)
        version = encode({"version": body["version"]})
        answer = await self._client.create("update", "POST", f"{path}/versions", version, no_intent)
        version_id = made_id(_data(answer))
        await _surely_made(self._change(path, before, head, no_intent))
        return Updated(version_id=version_id)

    async def _untagged(self, name: str) -> str | None:
        """The newest version, where no tag says which one is published but one should."""
        if self._tag is None:
            return None
        item, notes = await self._version(name, _PUBLISHED)
        return item["id"] if notes else None

    async def _change(self, path: str, before: Head, head: Head, sending: Sending) -> None:
        """What the prompt itself has, where that changes: each field as a whole."""
        if (before.description, before.metadata) == (head.description, head.metadata):
            return
        body = encode({"description": head.description, "metadata": head.metadata})
        await self._client.create("change", "PATCH", path, body, sending)
        self._listing.heads[head.name] = head

    async def _put_tag(self, version_id: str, tag: str) -> None:
        path = f"/v1/prompt_versions/{quote(version_id, safe='')}/tags"
        await self._client.repeatable("tag", "POST", path, encode({"name": tag}))

    async def _tested(self, name: str, collection: str | None) -> AsyncIterator[Finding]:
        source = Prompt(id=name, name=name, text="Hello {{name}}", collection=collection)
        made = await self._create(self.encode(_scratch(source)), no_intent)
        yield _finding(True, "its key creates prompts")
        found = await self.fetch(name)
        yield _finding((found.version, found.text) == (made.version, source.text), "a new prompt is published at once")
        yield _finding(read_mark(found.metadata, None) is not None, "metadata arrive as they are, and a mark in them")
        newer = decode(self.encode_update(_scratch(replace(source, text="Goodbye {{name}}")), None))
        updated = await self._update(name, newer, no_intent)
        refs = [version.ref for version in await self.versions(name)]
        yield _finding(refs == [made.version, updated.version_id], "an update makes a version of its own")
        if self._tag is not None:
            staged = (await self.fetch(name)).version
            await self.publish(name, refs[-1])
            moved = [staged, (await self.fetch(name)).version]
            yield _finding(moved == [made.version, refs[-1]], f"the tag {self._tag!r} moves from version to version")

    # ---- what is there -----------------------------------------------------------------------------------------------

    async def _version(self, name: str, version: str) -> tuple[Item, tuple[str, ...]]:
        """A version in the registry's words, and what is to be said of its choice."""
        if (label := label_in(version)) is not None:
            return await self._labelled(name, label), ()
        if version not in (_PUBLISHED, _LATEST):
            return await self._item("version", f"/v1/prompt_versions/{quote(version, safe='')}"), ()
        if version == _LATEST or self._tag is None:
            return await self._item("latest version", f"{_path(name)}/latest"), ()
        try:
            return await self._item("tagged version", f"{_path(name)}/tags/{self._tag}"), ()
        except Gone:
            newest = await self._item("latest version", f"{_path(name)}/latest")
            return newest, (f"no version has the tag {self._tag!r}: its newest counts as published",)

    async def _labelled(self, name: str, label: str) -> Item:
        if not NAMES.takes(label):
            raise unlabelled(name, label)
        try:
            return await self._item("labelled version", f"{_path(name)}/tags/{label}")
        except Gone as error:
            raise unlabelled(name, label) from error

    async def _item(self, call: str, path: str) -> Item:
        item = _data(await self._client.read(call, path))
        _id_of(item)
        return item

    async def _tags(self, version_id: str) -> list[str]:
        """Names, sorted. Their pages overlap by a row."""
        rows = await self._listing.walk("tags", f"/v1/prompt_versions/{quote(version_id, safe='')}/tags", PAGE)
        return sorted({row["name"] for row in rows if isinstance(row, dict) and isinstance(row.get("name"), str)})

    async def _head(self, name: str) -> Head:
        """What the prompt has besides its versions. Gone when no listing has it."""
        if name not in self._listing.heads:
            await self._listing.whole()
        if name not in self._listing.heads:
            raise _gone(name)
        return self._listing.heads[name]


async def _surely_made(more: Awaitable[None]) -> None:
    """What follows on a write that was answered: should it go wrong, that one has happened all the same."""
    try:
        await more
    except (Rejected, Transient) as error:
        raise UnknownOutcome(f"it was made, but not what follows on that: {error}", error=error.error) from error


def _data(answer: Json) -> Item:
    data = answer.get("data") if isinstance(answer, dict) else None
    return data if isinstance(data, dict) else {}


def _id_of(item: Json) -> str:
    version_id = item.get("id") if isinstance(item, dict) else None
    if not isinstance(version_id, str) or not version_id:
        raise Rejected("the registry's answer is not a version of a prompt: it has no id", error="bad_answer")
    return version_id


def _gone(name: str) -> Gone:
    return Gone(f"there is no prompt {name!r}", error="gone", status=404)


def _known(name: str) -> str:
    """The name. Gone for one that no prompt can have, at which paths would be refused in other words."""
    if not NAMES.takes(name):
        raise _gone(name)
    return name


def _path(name: str) -> str:
    return f"{PROMPTS}/{quote(name, safe='')}"


def _scratch(prompt: Prompt) -> Replica:
    return make_replica(prompt, prompt, migration="write-test", registry="")


def _finding(good: bool, text: str) -> Finding:
    return Finding(level="ok" if good else "note", where="target", text=text if good else f"not found so: {text}")
