"""Orkes Conductor's prompt store, as source and as target.

Facts that decide the code: prompts are known by name and written in bulk, at a path with a trailing slash; a bulk works
in list order, stops at the first prompt that is refused and leaves the rest undone, leaves out without a word what the
key may not update, overwrites whatever has the name, and answers all of that with an empty body. So only what is read
back is believed. The newest version is the one in use; tags belong to the name. Tokens expire.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from operator import attrgetter
from typing import Any, Final
from urllib.parse import quote
from uuid import uuid4

from engine.connectors.conductor.bulk import Bulk
from engine.connectors.conductor.dialect import CONDUCTOR, NAMES
from engine.connectors.conductor.endpoint import ConductorEndpoint
from engine.connectors.conductor.format import (
    FIRST_VERSION,
    SAMPLING,
    Item,
    Tag,
    body_of,
    dropped_of,
    dropped_says,
    prompt_of,
    row_of,
    tags_as_sent,
    tags_of,
    version_of,
)
from engine.connectors.endpoint import Opening
from engine.connectors.outcomes import cleared, outcome, tried, unlabelled
from engine.errors import Gone, Rejected, Stop, Transient, UnknownOutcome
from engine.http.responses import Special
from engine.http.session import Client, NoAuth
from engine.lossless_json import decode, encode
from engine.model import (
    MARK_KEY,
    Abilities,
    Catalog,
    Created,
    Failed,
    Finding,
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
from engine.taskgroup import task_group

TOKEN_HEADER: Final = "X-Authorization"
ERRORS: Final = (Special(status=403, codes=frozenset({"EXPIRED_TOKEN", "INVALID_TOKEN"}), read_as=401),)
"""A token that is refused is told with 403."""
LISTABLE: Final = 2_000
"""Prompts of a store that is read back by its listing: one call for a whole bulk. A larger one is read by name."""
_SCRATCH_MARK: Final = (MARK_KEY, "0" * 16)
_SCRATCH_SAMPLING: Final = {"temperature": 0.5, "topP": 0.5}
_AI_MODELS: Final = {"type": "AI_MODEL"}


class TokenAuth:
    """A token for key id and secret: got when the first request needs it, and again when it is refused."""

    def __init__(self, client: Client, key_id: str, key_secret: str) -> None:
        self._client = client
        self._keys = encode({"keyId": key_id, "keySecret": key_secret})
        self._token = ""

    def headers(self) -> Mapping[str, str]:
        """The token as it is, without a word before it; nothing before the first."""
        return {TOKEN_HEADER: self._token} if self._token else {}

    async def refresh(self, stale: Mapping[str, str]) -> bool:
        """POST /token."""
        try:
            answer = await self._client.repeatable("token", "POST", "/token", self._keys)
        except Rejected as error:
            advice = "Check key_id, key_secret and that base_url ends with /api."
            raise Stop("key_refused", f"no token was given: {error}", next=advice) from error
        token = answer.get("token") if isinstance(answer, dict) else None
        if not isinstance(token, str) or not token or not token.isascii() or not token.isprintable() or " " in token:
            raise Stop("key_refused", "the answer to /token has no token", next="Check that base_url ends with /api.")
        self._token = token
        return True


@asynccontextmanager
async def connect(end: ConductorEndpoint, opening: Opening) -> AsyncIterator[Conductor]:
    """A cluster under its own client."""
    async with (
        opening.client(end.address, NoAuth(), secrets=end.keys, errors=ERRORS) as unsigned,
        opening.client(end.address, TokenAuth(unsigned, *end.keys), secrets=end.keys, errors=ERRORS) as client,
    ):
        yield Conductor(client, batch=opening.batch)


class Conductor:
    """One cluster of Orkes Conductor."""

    can = Abilities(
        dialect=CONDUCTOR,
        names=NAMES,
        own_ids=False,
        taken="overwrites",
        published="newest",
        labels="none",
        retracts=True,
        renames=False,
        once=frozenset(),
        marks=("tag",),
        marked_at_once=False,
    )
    parts: Parts | None = None
    fields: Collection[str] = frozenset(
        "name text collection model provider parameters metadata description integrations".split()
    )

    def __init__(self, client: Client, *, batch: int) -> None:
        self.batch = batch
        self._client = client
        self._size = LISTABLE + 1
        """Prompts at the last listing."""

    async def pages(self) -> AsyncIterator[Page]:
        """The whole listing as one page: there is no paging."""
        rows = [row_of(item) for item in await self._all()]
        yield Page(rows=rows, total=len(rows))

    async def fetch(self, prompt_id: str, version: str = "published") -> Prompt:
        """The newest version, or one by number. A name that no path can hold is looked for in the listing."""
        if (label := label_in(version)) is not None:
            raise unlabelled(prompt_id, label)
        if "/" in prompt_id:
            return await self._from_listing(prompt_id)
        number = {} if version in ("published", "latest") else {"version": version}
        item = await self._client.read("retrieve", _path(prompt_id), number)
        if isinstance(item, dict) and "tags" not in item:
            item["tags"] = await self._client.read("tags", f"{_path(prompt_id)}/tags")
        return prompt_of(item, prompt_id)

    async def versions(self, prompt_id: str) -> list[Version]:
        """The history, oldest first."""
        return sorted(map(version_of, await self._history(prompt_id)), key=attrgetter("ordinal"))

    async def catalog(self, kinds: Collection[str]) -> Catalog:
        """The integrations that this key may use and that are enabled; one call."""
        words = frozenset({"collections", "providers", "partials"})
        try:
            found = await self._client.read("integrations", "/integrations/all", _AI_MODELS)
        except Rejected:
            return Catalog(words=words)
        pairs = frozenset(pair for pair in found if isinstance(pair, str)) if isinstance(found, list) else None
        return Catalog(words=words, integrations=pairs)

    def encode(self, replica: Replica) -> bytes:
        """One prompt of a bulk, as its first version."""
        return _numbered(body_of(replica), FIRST_VERSION)

    async def named(self, names: Collection[str]) -> dict[str, Prompt | None]:
        """Those that are there, by one listing or by name."""
        found = await self.found([*names], surely=False)
        return {name: _readable(item, name) for name, item in found.items()}

    async def create(self, bodies: Sequence[bytes], sending: Sending) -> list[Outcome]:
        """A bulk, read back; what it left undone is sent again without the prompt at fault."""
        bulk = Bulk(self, [decode(body) for body in bodies], sending)
        return await bulk.carry_out()

    async def complete(self, target_id: str, body: bytes, sending: Sending) -> Outcome:
        """The tags that are missing."""
        return await outcome(self._complete(target_id, tags_of(decode(body)), sending))

    def encode_update(self, replica: Replica, changed: Collection[str] | None) -> bytes:
        """The whole prompt, whatever changed: a bulk knows nothing less."""
        return body_of(replica)

    async def update(self, target_id: str, body: bytes, sending: Sending) -> Outcome:
        """A bulk of one, as the version after the newest."""
        return await outcome(self._update(target_id, body, sending))

    async def publish(self, target_id: str, version: str) -> None:
        """The newest version is the published one. Rejected for an older one: those after it would have to go."""
        if later := [one.ref for one in newer(await self.versions(target_id), version)]:
            raise Rejected(
                f"Conductor serves the newest version: {', '.join(later)} would have to be deleted", error="newer"
            )

    async def retract(self, target_id: str, version: str) -> None:
        """DELETE /prompts/{name}/versions/{version}."""
        try:
            await self._client.repeatable("delete version", "DELETE", f"{_path(target_id)}/versions/{version}")
        except Gone:
            return

    async def label(self, target_id: str, version_id: str, label_id: str) -> None:
        """Rejected: there are no labels."""
        raise Rejected("Conductor has no labels", error="no_labels")

    async def create_label(self, name: str) -> str:
        """Rejected: there are no labels."""
        raise Rejected("Conductor has no labels", error="no_labels")

    async def describe(self, target_id: str, description: str) -> None:
        """The same version once more, with another description."""
        item = await self._client.read("retrieve", _path(target_id))
        prompt_of(item, target_id)  # refuses what is no prompt
        kept = {name: item[name] for name in ("name", "template", "integrations", "version", *SAMPLING) if name in item}
        try:
            await self.post([{**kept, "description": description}], no_intent)
        except UnknownOutcome as error:
            raise Transient(str(error), error=error.error) from error  # it may be repeated
        if (await self.fetch(target_id)).description != (description or None):
            raise Rejected(_not_permitted(target_id), error="no_update_permission")

    async def delete(self, target_id: str) -> None:
        """DELETE /prompts/{name}, with every version and tag."""
        await self._client.repeatable("delete", "DELETE", _path(target_id))

    async def write_test(self, collection: str | None) -> AsyncIterator[Finding]:
        """Creates a scratch prompt in two versions, reads it back and deletes it."""
        name = f"promptferry-write-test-{uuid4().hex[:8]}"
        async for finding in tried(name, self._tested(name)):
            yield finding
        yield await cleared(name, self.delete)

    # ---- what a bulk is made of --------------------------------------------------------------------------------------

    async def post(self, items: Sequence[Item], sending: Sending) -> None:
        """POST /prompts/. Raises what a create raises; part of it may have been carried out then."""
        await self._client.create("bulk", "POST", "/prompts/", encode(list(items)), sending, blank=True)

    async def found(self, names: Sequence[str], *, surely: bool) -> dict[str, Item | None]:
        """Those of these prompts that are there; None: the key may not read it. One listing, where the store is small
        enough for that; `surely`: what it lacks is asked for by name, for a listing may be late.
        """
        if self._size > LISTABLE or len(names) == 1:
            return await self._by_name(names)
        wanted = {*names}
        there: dict[str, Item | None] = {item["name"]: item for item in await self._all() if item["name"] in wanted}
        return there | (await self._by_name([name for name in names if name not in there]) if surely else {})

    async def tag(self, name: str, tags: Collection[Tag]) -> None:
        """Adds tags."""
        await self._client.repeatable("tag", "PUT", f"{_path(name)}/tags", encode(tags_as_sent(tags)))

    async def _untag(self, name: str, tags: Collection[Tag]) -> None:
        await self._client.repeatable("untag", "DELETE", f"{_path(name)}/tags", encode(tags_as_sent(tags)))

    async def _by_name(self, names: Sequence[str]) -> dict[str, Item | None]:
        found: dict[str, Item | None] = {}

        async def one(name: str) -> None:
            try:
                found[name] = _item(await self._client.read("retrieve", _path(name)))
            except Gone:
                return
            except Rejected as error:
                if error.status != 403:
                    raise
                found[name] = None

        async with task_group() as group:
            for name in names:
                group.start_soon(one, name)
        return found

    async def _complete(self, name: str, wanted: Sequence[Tag], sending: Sending) -> Created:
        await sending()
        try:
            await self._add_tags(name, wanted)
        except (Rejected, Transient) as error:
            raise UnknownOutcome(str(error), error=error.error) from error
        return Created(target_id=name)

    # ---- an update ---------------------------------------------------------------------------------------------------

    async def _update(self, target_id: str, body: bytes, sending: Sending) -> Updated | Failed:
        item = decode(body)
        if item["name"] != target_id:
            message = f"{target_id!r} cannot be renamed to {item['name']!r}: in Conductor the name is the prompt"
            raise Rejected(message, error="renamed")
        known = await self.versions(target_id)
        if not known:
            raise Rejected("the registry's list of versions is empty", error="bad_answer")
        number = known[-1].ordinal + 1
        await self.post([{**item, "version": number}], sending)
        try:
            made = next((one for one in await self._history(target_id) if version_of(one).ordinal == number), None)
            dropped = dropped_of(item, made) if made is not None else []
            if dropped:
                await self.retract(target_id, str(number))
            elif made is not None:
                await self._set_tags(target_id, tags_of(item))
        except (Rejected, Transient) as error:
            raise UnknownOutcome(f"it was answered, and could not be looked at: {error}", error=error.error) from error
        if made is None:
            return Failed(error="no_update_permission", message=_not_permitted(target_id), retriable=True)
        if dropped:
            return Failed(error="loss", message=dropped_says(dropped), retriable=True)
        return Updated(version_id=str(number))

    async def _history(self, name: str) -> list[Item]:
        items = await self._client.read("versions", f"{_path(name)}/versions", cap=self._client.limits.listing_cap)
        if not isinstance(items, list):
            raise Rejected("the registry's answer is not a list of versions", error="bad_answer")
        return items

    async def _add_tags(self, name: str, wanted: Sequence[Tag]) -> Sequence[Tag]:
        """Those that were there before."""
        there = tags_of(_tagged(await self._client.read("tags", f"{_path(name)}/tags")))
        if missing := set(wanted) - set(there):
            await self.tag(name, missing)
        return there

    async def _set_tags(self, name: str, wanted: Sequence[Tag]) -> None:
        there = await self._add_tags(name, wanted)
        if surplus := set(there) - set(wanted):
            await self._untag(name, surplus)

    # ---- reading -----------------------------------------------------------------------------------------------------

    async def _all(self) -> list[Item]:
        items = await self._client.read("list /prompts", "/prompts", cap=self._client.limits.listing_cap)
        if not isinstance(items, list) or not all(_has_name(item) for item in items):
            raise Rejected("the registry's answer is not a list of prompts", error="bad_answer")
        self._size = len(items)
        return items

    async def _from_listing(self, name: str) -> Prompt:
        for item in await self._all():
            if item["name"] == name:
                return prompt_of(item)
        raise Gone(f"there is no prompt {name!r}", error="gone", status=404)

    async def _tested(self, name: str) -> AsyncIterator[Finding]:
        first = {"name": name, "template": "Hello ${name}", "description": "", "integrations": [], "version": 1}
        await self.post([{**first, "tags": tags_as_sent([_SCRATCH_MARK]), **_SCRATCH_SAMPLING}], no_intent)
        found = await self.fetch(name)
        kept = found.parameters.keys() >= _SCRATCH_SAMPLING.keys()
        yield _finding(kept, "temperature and topP arrive", "temperature and topP are dropped: an older server")
        if MARK_KEY not in found.metadata:
            await self.tag(name, [_SCRATCH_MARK])
            found = await self.fetch(name)
            yield _finding(MARK_KEY in found.metadata, "tags are set by a second call", "tags are not kept")
        else:
            yield Finding(level="ok", where="target", text="a bulk stores tags")
        await self.post([{**first, "template": "Hello", "version": 2}], no_intent)
        numbers = [version.ordinal for version in await self.versions(name)]
        yield _finding(numbers == [1, 2], "an update makes a version of its own", f"it has the versions {numbers}")


def _readable(item: Item | None, name: str) -> Prompt | None:
    try:
        return prompt_of(item, name) if item is not None else None
    except Rejected:  # it has the name, whatever else it is
        return None


def _item(answer: Any) -> Item:
    if not _has_name(answer):
        raise Rejected("the registry's answer is not a prompt: it has no name", error="bad_answer")
    found: Item = answer
    return found


def _tagged(answer: Any) -> Item:
    if not isinstance(answer, list):
        raise Rejected("the registry's answer is not a list of tags", error="bad_answer")
    return {"tags": answer}


def _has_name(item: Any) -> bool:
    return isinstance(item, dict) and isinstance(item.get("name"), str)


def _not_permitted(name: str) -> str:
    return f"no update permission: the bulk left {name!r} out without a word; grant its application that right"


def _finding(good: bool, yes: str, no: str) -> Finding:
    return Finding(level="ok" if good else "note", where="target", text=yes if good else no)


def _path(name: str) -> str:
    return f"/prompts/{quote(name, safe='')}"


def _numbered(body: bytes, version: int) -> bytes:
    return b'{"version":%d,%b' % (version, body[1:])
