"""Finds out what a Portkey workspace really does, on a scratch prompt that is deleted again.

Everything here is documented by nobody: where a mark survives, which of two models wins, how pages are counted, whether
names are unique, how stale reads are. What could not be removed is named.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote

import anyio

from engine.connectors.outcomes import made_id
from engine.connectors.portkey.walk import Listing, listing
from engine.errors import AnswerError, Exists, Gone, Rejected, Stop
from engine.http.session import Client
from engine.lossless_json import encode
from engine.model import MARK_KEY, Finding, Json, no_intent

POLLS: Final = 8
"""Looks at what should be there by now, with growing pauses: some 25 s in all."""
MANY: Final = 1000
CLEAN_S: Final = 10.0
"""How long an interrupted test may take to remove what it made."""

Sleep = Callable[[float], Awaitable[object]]


@dataclass(slots=True)
class Probe:
    """One write test in one workspace. `left`: ids of scratch prompts that still have to be deleted."""

    client: Client
    workspace: Mapping[str, str]
    collection: str
    provider: str | None
    model: str
    sleep: Sleep
    name: str = field(default_factory=lambda: f"promptferry-write-test-{secrets.token_hex(4)}")
    left: list[str] = field(default_factory=list)

    async def run(self) -> AsyncIterator[Finding]:
        """The findings, one by one; the scratch prompts are deleted at the end, whatever happened before."""
        try:
            async for finding in self._all():
                yield finding
        except (AnswerError, Stop) as error:
            yield Finding(level="problem", where="target", text=f"the write test could not go on: {error}")
        except anyio.get_cancelled_exc_class():
            with anyio.move_on_after(CLEAN_S, shield=True):
                [finding async for finding in self._clean()]
            raise
        async for finding in self._clean():
            yield finding

    async def _all(self) -> AsyncIterator[Finding]:
        prompt_id = await self._create(self.name, {"parameters": {"model": f"{self.model}-inner", "n": 1}})
        yield _ok("its key creates prompts")
        found, polls = await self._poll(prompt_id, lambda answer: True)
        yield _ok(f"a new prompt can be read {_soon(polls)}")
        yield _mark(found)
        yield _ok(_winner(found, self.model))
        yield await self._change(prompt_id)
        yield await self._listed(prompt_id)
        yield await self._pages()
        yield await self._again()
        yield await self._without_collection()

    # ---- one question each ---------------------------------------------------------------------------------------

    async def _change(self, prompt_id: str) -> Finding:
        """A new version, and how long reads of the latest one stay behind."""
        body = encode({**self.workspace, "patch": True, "string": "Goodbye {{name}}"})
        await self.client.create("update", "PUT", self._path(prompt_id), body, no_intent)
        found, polls = await self._poll(prompt_id, _says("Goodbye {{name}}"), version="latest")
        if not _says("Goodbye {{name}}")(found):
            return _note("a change was accepted, and reads do not show it after half a minute")
        return _ok(f"its key changes prompts; a new version can be read {_soon(polls)}")

    async def _listed(self, prompt_id: str) -> Finding:
        for polls in range(POLLS):
            found = await self._list({"search": self.name, "page_size": "100"})
            if any(row["id"] == prompt_id for row in found.rows):
                return _ok(f"a new prompt is listed {_soon(polls)}")
            await self.sleep(0.1 * 2**polls)
        return _note("a new prompt is not listed under its name after half a minute: set limits.settle above that")

    async def _pages(self) -> Finding:
        """The number of the first page, and the largest page."""
        firsts = []
        for number in ("0", "1", "2"):
            try:
                rows = (await self._list({"page_size": "1", "current_page": number})).rows
            except Rejected:
                rows = ()
            firsts.append(rows[0]["id"] if rows else None)
        base = "0" if firsts[0] != firsts[1] and firsts[0] is not None else "1"
        many = await self._list({"page_size": str(MANY)})
        size, total = len(many.rows), many.total
        cap = (
            f"pages hold at most {size} rows"
            if size < min(total, MANY)
            else f"no cap below {min(total, MANY)} rows was met"
        )
        return _ok(f"prompts are paged from {base}; {cap}")

    async def _again(self) -> Finding:
        try:
            await self._create(self.name, {})
        except Exists:
            return _ok("names are unique: a second prompt of one name is refused")
        return _ok("names are not unique: a second prompt of one name is accepted")

    async def _without_collection(self) -> Finding:
        try:
            prompt_id = await self._create(f"{self.name}-loose", {"collection_id": None})
        except Rejected as error:
            return _ok(f"a prompt without collection is refused ({error.code or error.status})")
        found, _ = await self._poll(prompt_id, lambda answer: True)
        return _ok(f"a prompt without collection is accepted and lies in {found.get('collection_id') or 'none'}")

    # ---- requests ------------------------------------------------------------------------------------------------

    async def _create(self, name: str, changes: Mapping[str, Json]) -> str:
        mark = {"migration": self.name, "key": "0" * 16, "source_id": "write-test"}
        fields = {
            "name": name,
            "collection_id": self.collection,
            "string": "Hello {{name}}",
            "parameters": {"model": self.model},
            "model": self.model,
            "virtual_key": self.provider,
            "version_description": f"write test [promptferry:{mark['key']}]",
            "template_metadata": {MARK_KEY: mark},
            **self.workspace,
            **changes,
        }
        body = encode({key: value for key, value in fields.items() if value is not None})
        answer = await self.client.create("create", "POST", "/prompts", body, no_intent)
        prompt_id = made_id(answer)
        self.left.append(prompt_id)
        return prompt_id

    async def _poll(
        self, prompt_id: str, enough: Callable[[Mapping[str, Any]], bool], version: str | None = None
    ) -> tuple[dict[str, Any], int]:
        """The prompt as soon as it is as it should be, or as it is at the end; and how many looks were in vain."""
        parameters = {**self.workspace, **({"version": version} if version else {})}
        found: dict[str, Any] = {}
        for polls in range(POLLS):
            try:
                found = _prompt(await self.client.read("retrieve", self._path(prompt_id), parameters))
            except Gone:
                found = {}
            if found and enough(found):
                return found, polls
            await self.sleep(0.1 * 2**polls)
        return found, POLLS

    async def _list(self, parameters: Mapping[str, str]) -> Listing:
        cap = self.client.limits.listing_cap
        answer = await self.client.read("list /prompts", "/prompts", {**self.workspace, **parameters}, cap=cap)
        return listing(answer, "prompts")

    async def _clean(self) -> AsyncIterator[Finding]:
        kept, scratch = [], await self._scratch()
        for prompt_id in scratch:
            try:
                await self.client.repeatable("delete", "DELETE", self._path(prompt_id))
            except Gone:
                continue
            except (AnswerError, Stop) as error:
                kept.append(f"{prompt_id} ({error})")
        if kept:
            names = "; ".join(kept)
            text = f"these scratch prompts named {self.name} could not be removed, delete them by hand: {names}"
            yield Finding(level="problem", where="target", text=text)
        elif scratch:
            yield _ok(f"its key deletes prompts; all {len(scratch)} scratch prompts were removed")

    async def _scratch(self) -> list[str]:
        """Ids of all scratch prompts, also of one whose create was never answered."""
        try:
            rows = (await self._list({"search": self.name, "page_size": "100"})).rows
        except (AnswerError, Stop):
            rows = ()
        listed = [row["id"] for row in rows if str(row.get("name")).startswith(self.name)]
        return list(dict.fromkeys([*self.left, *listed]))

    def _path(self, prompt_id: str) -> str:
        return f"/prompts/{quote(prompt_id, safe='')}"


def _prompt(answer: Json) -> dict[str, Any]:
    if not isinstance(answer, dict):
        raise Rejected("the registry's answer is not a prompt", error="bad_answer")
    return answer


def _says(text: str) -> Callable[[Mapping[str, Any]], bool]:
    return lambda answer: answer.get("string") == text


def _mark(found: Mapping[str, Any]) -> Finding:
    metadata = found.get("template_metadata")
    inside = isinstance(metadata, dict) and MARK_KEY in metadata
    behind = str(found.get("prompt_version_description") or "").endswith("]")
    if inside:
        return _ok("the mark survives in template_metadata" + (" and in version_description" if behind else ""))
    if behind:
        return _ok("the mark survives in version_description, not in template_metadata: runs put it there")
    text = "no mark survives: a lost ledger or a lost answer could not be told from somebody else's prompt"
    return Finding(level="problem", where="target", text=text)


def _winner(found: Mapping[str, Any], model: str) -> str:
    parameters = found.get("parameters")
    inner = parameters.get("model") if isinstance(parameters, dict) else None
    if found.get("model") == inner:
        winner = "model" if inner == model else "parameters.model"
        return f"{winner} wins over the other when model and parameters.model differ"
    return "model and parameters.model are kept apart when they differ"


def _soon(polls: int) -> str:
    return "at once" if polls == 0 else f"after {0.1 * (2**polls - 1):.1f} s"


def _ok(text: str) -> Finding:
    return Finding(level="ok", where="target", text=text)


def _note(text: str) -> Finding:
    return Finding(level="note", where="target", text=text)
