"""MLflow's prompt registry, as source and as target.

Facts that decide the code, tried on MLflow 3.17.2: a create is two calls, the prompt and then its version, and a third
one puts the alias on that publishes it; a name that is taken is refused with 400; numbers of versions are never used
again; a row of the list has the newest version whole, and times of change tell neither of aliases nor of tags; a token
of the list is an offset into the order of names, so that rows shift when somebody creates or deletes.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Final
from uuid import uuid4

from engine.connectors.endpoint import Opening
from engine.connectors.mlflow.dialect import ALIASES, MLFLOW, NAMES
from engine.connectors.mlflow.endpoint import MlflowEndpoint
from engine.connectors.mlflow.format import (
    IS_PROMPT,
    Held,
    Item,
    body_of,
    has_mark_of,
    held_of,
    labels_of,
    prompt_of,
    row_of,
    version_number,
)
from engine.connectors.outcomes import cleared, outcome, tried, unlabelled
from engine.content.digest import differences
from engine.errors import Exists, Gone, Rejected, Stop, Transient, UnknownOutcome
from engine.http.client import Auth
from engine.http.responses import Special
from engine.http.session import Client, KeyAuth, NoAuth
from engine.log import log
from engine.lossless_json import decode, encode
from engine.model import (
    MARK_KEY,
    Abilities,
    Catalog,
    Created,
    Failed,
    Finding,
    Json,
    Mark,
    Outcome,
    Page,
    Parts,
    Prompt,
    Replica,
    Row,
    Sending,
    Updated,
    Version,
    label_in,
    newer,
    no_intent,
)

API: Final = "/api/2.0/mlflow"
MODELS: Final = f"{API}/registered-models"
VERSIONS: Final = f"{API}/model-versions"
PROMPTS: Final = f"tags.`{IS_PROMPT}` = 'true'"
ERRORS: Final = (
    Special(
        status=400,
        codes=frozenset({"RESOURCE_ALREADY_EXISTS"}),
        text="taken by a registered model",
        says="a registered model that is no prompt has this name: give the prompt another one with rewrite.name",
    ),
    Special(status=400, codes=frozenset({"RESOURCE_ALREADY_EXISTS"}), read_as=409),
    Special(
        status=400,
        codes=frozenset({"BAD_REQUEST"}),
        text="QueuePool limit",
        read_as=503,
        says="none of its connections to its database was free for as long as it waits",
    ),
    Special(
        status=403,
        text="Invalid Host header",
        says="it does not know itself under this host: where it runs, name the host in MLFLOW_SERVER_ALLOWED_HOSTS",
    ),
    Special(status=403, text="Permission denied", says="this user may not do that: give it the permission in MLflow"),
)
"""A name that is taken is told with 400; and what is said in plain text is the registry's own, and no firewall's."""
PAGE_SIZE: Final = 200
"""Rows carry their newest version whole, which may be large."""
WALKS: Final = 4


@asynccontextmanager
async def connect(end: MlflowEndpoint, opening: Opening) -> AsyncIterator[Mlflow]:
    """A tracking server under its own client."""
    async with opening.client(end.address, _auth(end), secrets=end.keys, errors=ERRORS) as client:
        yield Mlflow(client, end)


def _auth(end: MlflowEndpoint) -> Auth:
    token, password = end.keys
    if token:
        return KeyAuth("Authorization", f"Bearer {token}")
    if end.username:
        return KeyAuth.basic(end.username, password)
    return NoAuth()


class Mlflow:
    """One tracking server of MLflow. Without the alias that publishes, the newest version counts as published."""

    can = Abilities(
        dialect=MLFLOW,
        names=NAMES,
        own_ids=False,
        taken="refuses",
        published="alias",
        label_names=ALIASES,
        renames=False,
        once=frozenset(),
        dated=False,
        marks=("tag",),
    )
    parts: Parts | None = None
    batch = 1
    fields: Collection[str] = frozenset(
        "name text collection model provider parameters functions tools tool_choice metadata description".split()
    )

    def __init__(self, client: Client, end: MlflowEndpoint) -> None:
        self.can = end.able(Mlflow.can)
        self._client = client
        self._published_by = end.published_by

    # ---- reading -----------------------------------------------------------------------------------------------------

    async def pages(self) -> AsyncIterator[Page]:
        """The whole listing as one page. More than a page of it is walked until two walks find the same names."""
        seen: dict[str, Row] = {}
        for _ in range(WALKS):
            before = seen.keys()
            seen, pages = await self._walk()
            if pages == 1 or seen.keys() == before:
                yield Page(rows=list(seen.values()), total=len(seen))
                return
        raise Stop(
            "registry_down",
            f"the listing of prompts did not hold still: of {WALKS} walks no two in turn found the same names; "
            "somebody is creating or deleting meanwhile",
            next="Run it again when nobody else is changing this server.",
        )

    async def fetch(self, prompt_id: str, version: str = "published") -> Prompt:
        """One definition. A prompt that a create left without a version is Gone: it is not there yet."""
        held = await self._held(prompt_id)
        if held.newest is None:
            raise _without_version(held)
        newest = version_number(held.newest)
        asked = {"published": held.published(self._published_by), "latest": newest}.get(version, version)
        if (label := label_in(version)) is not None and (asked := held.aliases.get(label)) is None:
            raise unlabelled(prompt_id, label)
        found = held.newest if asked == newest else await self._version(prompt_id, asked or newest)
        prompt = prompt_of(held, found, self._published_by)
        if version != "published" or not self.can.stages or self._published_by in held.aliases:
            return prompt
        note = f"no version has the alias {self._published_by}: the newest one counts as published"
        return replace(prompt, notes=(*prompt.notes, note))

    async def versions(self, prompt_id: str) -> list[Version]:
        """The history, oldest first."""
        held = await self._held(prompt_id)
        numbers = sorted(await self._numbers(held), key=int)
        return [
            Version(ref=one, ordinal=int(one), id=one, labels=labels_of(held, one, self._published_by))
            for one in numbers
        ]

    async def catalog(self, kinds: Collection[str]) -> Catalog:
        """Labels are words, and so is everything else."""
        words = frozenset({"collections", "providers", "partials"})
        return Catalog(words=words, labels=() if "labels" in kinds else None)

    # ---- writing -----------------------------------------------------------------------------------------------------

    def encode(self, replica: Replica) -> bytes:
        """The bodies of both calls."""
        return body_of(replica)

    async def named(self, names: Collection[str]) -> dict[str, Prompt | None]:
        """Rejected: a create changes nothing that is there."""
        raise Rejected("a create changes nothing that is there, so nothing is looked for", error="not_asked")

    async def create(self, bodies: Sequence[bytes], sending: Sending) -> list[Outcome]:
        """The prompt, its version, and the alias that publishes it. What an earlier create left without a version gets
        it now.
        """
        (body,) = bodies
        return [await outcome(self._create(body, sending))]

    async def complete(self, target_id: str, body: bytes, sending: Sending) -> Outcome:
        """Failed: a create that was ended before its time is taken up by the next one."""
        return Failed(error="not_asked", message="a create leaves nothing undone that is found by its name")

    def encode_update(self, replica: Replica, changed: Collection[str] | None) -> bytes:
        """The same, whatever changed: a version knows nothing of the one before."""
        return body_of(replica)

    async def update(self, target_id: str, body: bytes, sending: Sending) -> Outcome:
        """One more version, which is not the published one."""
        return await outcome(self._update(target_id, body, sending))

    async def publish(self, target_id: str, version: str) -> None:
        """The alias moves. Where the newest counts, Rejected for an older one: those after it would have to go."""
        if self.can.stages:
            await self._alias(target_id, version, self._published_by)
        elif later := [one.ref for one in newer(await self.versions(target_id), version)]:
            message = f"the newest version counts as published: {', '.join(later)} would have to be deleted"
            raise Rejected(message, error="newer")

    async def retract(self, target_id: str, version: str) -> None:
        """DELETE /model-versions/delete, where the newest counts; else Rejected, for its aliases would go with it."""
        if not self.can.retracts:
            raise Rejected("a version stays in the history, and with it its aliases", error="kept")
        try:
            await self._write("delete version", "DELETE", f"{VERSIONS}/delete", name=target_id, version=version)
        except Gone:
            return

    async def label(self, target_id: str, version_id: str, label_id: str) -> None:
        """An alias, which moves off the version that had it. Rejected where it would publish."""
        if not self.can.carries(label_id):
            raise Rejected(f"{label_id!r} cannot be a label here", error="bad_label")
        await self._alias(target_id, version_id, label_id)

    async def create_label(self, name: str) -> str:
        """An alias is its word."""
        return name

    async def describe(self, target_id: str, description: str) -> None:
        """The message of the version that is published."""
        version = (await self.fetch(target_id)).version
        await self._write(
            "describe", "PATCH", f"{VERSIONS}/update", name=target_id, version=version, description=description
        )

    async def delete(self, target_id: str) -> None:
        """DELETE /registered-models/delete, with every version."""
        await self._write("delete", "DELETE", f"{MODELS}/delete", name=target_id)

    async def write_test(self, collection: str | None) -> AsyncIterator[Finding]:
        """Creates a scratch prompt in two versions, reads it back and deletes it."""
        name = f"promptferry-write-test-{uuid4().hex[:8]}"
        async for finding in tried(name, self._tested(name, collection)):
            yield finding
        yield await cleared(name, self.delete)

    # ---- a create ----------------------------------------------------------------------------------------------------

    async def _create(self, body: bytes, sending: Sending) -> Created:
        parts = decode(body)
        name = parts["prompt"]["name"]
        await self._make(parts["prompt"], sending)
        try:
            number = await self._add(parts["version"], no_intent)
        except Rejected:
            await self._take_back(name)
            raise
        try:
            if self.can.stages:
                await self._alias(name, number, self._published_by)
        except (Rejected, Transient) as error:  # the version is there, and a look-up finds it
            raise UnknownOutcome(f"it is there and not published yet: {error}", error=error.error) from error
        return Created(target_id=name, version=number, version_id=number)

    async def _make(self, prompt: Item, sending: Sending) -> None:
        """The prompt without a version; one that an earlier create of the same replica left so will do."""
        try:
            await self._client.create("create", "POST", f"{MODELS}/create", encode(prompt), sending)
        except Exists:
            held = await self._held(prompt["name"])
            if held.newest is not None or not has_mark_of(held, prompt["tags"]):
                raise

    async def _add(self, version: Item, sending: Sending) -> str:
        """The number of the new version."""
        answer = await self._client.create("create version", "POST", f"{VERSIONS}/create", encode(version), sending)
        try:
            return version_number(_inside(answer, "model_version"))
        except Rejected as error:
            raise UnknownOutcome(f"the answer to the create has no version: {error}", error="no_version") from error

    async def _take_back(self, name: str) -> None:
        """The prompt that has just been made, and whose version was refused."""
        try:
            if (await self._held(name)).newest is None:
                await self.delete(name)
        except (Rejected, Transient) as error:
            log.warning("prompt.left_without_version", target_id=name, message=str(error))

    async def _update(self, target_id: str, body: bytes, sending: Sending) -> Updated:
        version = decode(body)["version"]
        if version["name"] != target_id:
            message = f"{target_id!r} cannot be renamed to {version['name']!r}: in MLflow the name is the prompt"
            raise Rejected(message, error="renamed")
        held = await self._held(target_id)
        if self.can.stages and held.newest is not None and self._published_by not in held.aliases:
            # what counts as published because it is the newest would not be that any more
            await self._alias(target_id, version_number(held.newest), self._published_by)
        return Updated(version_id=await self._add(version, sending))

    async def _alias(self, name: str, version: str, alias: str) -> None:
        await self._write("alias", "POST", f"{MODELS}/alias", name=name, version=version, alias=alias)

    async def _write(self, call: str, method: str, path: str, **fields: Json) -> None:
        """What may be sent twice."""
        await self._client.repeatable(call, method, path, encode(fields))

    # ---- requests that read ------------------------------------------------------------------------------------------

    async def _held(self, name: str) -> Held:
        answer = await self._client.read("retrieve", f"{MODELS}/get", {"name": name})
        held = held_of(_inside(answer, "registered_model"), name)
        if IS_PROMPT not in held.tags:
            raise Gone(f"{name!r} is a registered model and no prompt", error="gone", status=404)
        return held

    async def _version(self, name: str, number: str) -> Item:
        answer = await self._client.read("retrieve version", f"{VERSIONS}/get", {"name": name, "version": number})
        return _inside(answer, "model_version")

    async def _walk(self) -> tuple[dict[str, Row], int]:
        """The rows by name, and how many pages they came in."""
        rows: dict[str, Row] = {}
        pages = 0
        async for found in self._pages(f"{MODELS}/search", "registered_models", {"filter": PROMPTS}):
            rows.update((row.name, row) for row in (row_of(held_of(one), self._published_by) for one in found))
            pages += 1
        return rows, pages

    async def _numbers(self, held: Held) -> set[str]:
        """Of all versions that there are: numbers are never used again, so a newest one of 1 is the only one."""
        if held.newest is None or (newest := version_number(held.newest)) == "1":
            return set() if held.newest is None else {newest}
        quote = next((one for one in "'\"" if one not in held.name), None)
        if quote is None:  # no filter can hold such a name
            return {number for number in map(str, range(1, int(newest) + 1)) if await self._is_there(held, number)}
        asked = {"filter": f"name = {quote}{held.name}{quote} AND {PROMPTS}", "order_by": "version_number ASC"}
        found = [one async for page in self._pages(f"{VERSIONS}/search", "model_versions", asked) for one in page]
        return {version_number(one) for one in found if one.get("name") == held.name}

    async def _is_there(self, held: Held, number: str) -> bool:
        try:
            await self._version(held.name, number)
        except Gone:
            return False
        return True

    async def _pages(self, path: str, what: str, asked: Mapping[str, str]) -> AsyncIterator[list[Item]]:
        """Rows as they come, page by page; an empty page has no list at all."""
        token: dict[str, str] = {}
        while True:
            params = {**asked, "max_results": str(PAGE_SIZE), **token}
            answer = await self._client.read(f"list {what}", path, params, cap=self._client.limits.listing_cap)
            yield _rows(answer, what)
            following = answer.get("next_page_token")
            if not following:
                return
            if following == token.get("page_token"):
                raise Rejected(f"the registry's list of {what} gives one page again and again", error="bad_answer")
            token = {"page_token": str(following)}

    async def _tested(self, name: str, collection: str | None) -> AsyncIterator[Finding]:
        first = _scratch(name, "Hello {{ name }}", collection)
        made = await self._create(body_of(first), no_intent)
        found = await self.fetch(name)
        lost = differences(first.prompt, found)
        yield _finding(not lost, "a prompt is made in two calls and comes back whole", f"{', '.join(lost)}: not kept")
        yield _finding(MARK_KEY in found.metadata, "tags are kept, and the mark with them", "tags are not kept")
        await self._update(name, body_of(_scratch(name, "Hello", collection)), no_intent)
        numbers = [version.ref for version in await self.versions(name)]
        yield _finding(len(numbers) == 2, "an update makes a version of its own", f"it has the versions {numbers}")
        if self.can.stages:
            staged = (await self.fetch(name)).version == made.version
            alias = self._published_by
            yield _finding(staged, f"the alias {alias} says what is published", f"the alias {alias} is not kept")


def _rows(answer: Json, what: str) -> list[Item]:
    """Of a page. One without rows is an object without a key; any other key is of somebody else's API."""
    rows = answer.get(what, []) if isinstance(answer, dict) and answer.keys() <= {what, "next_page_token"} else None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise Rejected(f"the registry's answer is not a list of {what}", error="bad_answer")
    return rows


def _inside(answer: Json, name: str) -> Item:
    found = answer.get(name) if isinstance(answer, dict) else None
    if not isinstance(found, dict):
        raise Rejected(f"the registry's answer has no {name}", error="bad_answer")
    return found


def _without_version(held: Held) -> Rejected:
    if held.mark is not None:
        return Gone(f"the prompt {held.name!r} is not there yet: its create has not come to its version", error="gone")
    message = f"the prompt {held.name!r} has no version: give it one, or leave it out"
    return Rejected(message, error="no_version")


def _scratch(name: str, text: str, collection: str | None) -> Replica:
    mark = Mark(migration=name, key="0" * 16, source_id="write-test")
    metadata = {MARK_KEY: {"migration": mark.migration, "key": mark.key, "source_id": mark.source_id}}
    prompt = Prompt(id=name, name=name, text=text, collection=collection, metadata=metadata, dialect=MLFLOW.name)
    return Replica(source=prompt, prompt=prompt, mark=mark)


def _finding(good: bool, yes: str, no: str = "") -> Finding:
    return Finding(level="ok" if good else "problem", where="target", text=yes if good else no)
