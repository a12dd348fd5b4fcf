"""One bulk of Orkes Conductor, carried out to the end: what the registry does not say is read back.

A bulk that is refused was carried out up to the prompt at fault, which the answer need not name: it is the first one
that is not there. Where nothing is there, the first was at fault, or the server took everything back: it is sent alone,
and after that in halves.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Final, Protocol

from engine.connectors.conductor_format import SAMPLING, Item, Tag, prompt_of, tags_of
from engine.digest import differences
from engine.errors import AnswerError, Gone, Rejected, Transient, UnknownOutcome
from engine.model import Created, Failed, Outcome, Sending, Unknown
from engine.tasks import task_group

_DROPPED: Final = frozenset(f"parameters.{name}" for name in SAMPLING)
_NOT_COMPARED: Final = frozenset({"metadata", "collection"})
"""Tags: a bulk need not store them."""


class Store(Protocol):
    """What a bulk asks of the registry; see `Conductor`."""

    async def post(self, items: Sequence[Item], sending: Sending) -> None: ...
    async def found(self, names: Sequence[str], *, surely: bool) -> dict[str, Item]: ...
    async def tag(self, name: str, tags: Collection[Tag]) -> None: ...
    async def delete(self, target_id: str) -> None: ...


class Bulk:
    """Some prompts, none of which is to be there yet: a bulk overwrites, so this is looked at right before it."""

    def __init__(self, store: Store, items: Sequence[Item], sending: Sending) -> None:
        self._store, self._items, self._sending = store, items, sending
        self._outcomes: dict[int, Outcome] = {}

    async def carry_out(self) -> list[Outcome]:
        """One outcome for each item. Raises Stop, nothing else."""
        await self._send(await self._new())
        return [self._outcomes[number] for number in range(len(self._items))]

    async def _new(self) -> list[int]:
        """Settles what is there already: a create that landed late, or somebody else's prompt. Returns the others."""
        numbers = range(len(self._items))
        try:
            found = await self._store.found([item["name"] for item in self._items], surely=False)
        except (Rejected, Transient) as unread:
            await self._intend()
            self._all(numbers, _not_looked_up(unread))
            return []
        if found:
            await self._intend()
        return await self._settle_all(numbers, found, written=False)

    async def _send(self, numbers: Sequence[int]) -> None:
        if not numbers:
            return
        error = await self._post(numbers)
        if isinstance(error, Transient):  # surely not sent
            self._all(numbers, _failed(error))
            return
        absent = await self._read_back(numbers, error)
        if not absent:
            return
        if error is None or isinstance(error, UnknownOutcome):
            self._all(absent, _left_out() if error is None else _unknown(error))
        elif len(absent) < len(numbers) or len(numbers) == 1:
            self._outcomes[absent[0]] = _failed(error)
            await self._send(absent[1:])
        else:
            await self._one_by_one(absent)

    async def _one_by_one(self, numbers: Sequence[int]) -> None:
        first, rest = numbers[0], numbers[1:]
        await self._send([first])
        if isinstance(self._outcomes[first], Created):  # then the server takes back what it has carried out
            half = len(rest) // 2
            await self._send(rest[:half])
            await self._send(rest[half:])
        else:
            await self._send(rest)

    async def _post(self, numbers: Sequence[int]) -> AnswerError | None:
        try:
            await self._store.post([self._items[number] for number in numbers], self._intend)
        except (Rejected, Transient, UnknownOutcome) as error:
            return error
        return None

    async def _intend(self) -> None:
        """Once: the intents of all are durable before the first of these requests."""
        sending, self._sending = self._sending, _nothing
        await sending()

    # ---- what was carried out ----------------------------------------------------------------------------------------

    async def _read_back(self, numbers: Sequence[int], error: AnswerError | None) -> list[int]:
        """Settles those that are there; returns the others, in the order of the bulk."""
        try:
            found = await self._store.found([self._items[number]["name"] for number in numbers], surely=True)
        except (Rejected, Transient) as unread:
            self._all(numbers, _unknown(unread))
            return []
        return await self._settle_all(numbers, found, written=True)

    async def _settle_all(self, numbers: Sequence[int], found: Mapping[str, Item], *, written: bool) -> list[int]:
        """Returns the numbers of those that are not there. `written`: by us, just now."""
        names = {number: self._items[number]["name"] for number in numbers}
        async with task_group() as group:
            for number, name in names.items():
                if name in found:
                    group.start_soon(self._settle, number, found[name], written)
        return [number for number, name in names.items() if name not in found]

    async def _settle(self, number: int, found: Item, written: bool) -> None:
        item = self._items[number]
        name = item["name"]
        try:
            fields = [field for field in differences(prompt_of(item), prompt_of(found)) if field not in _NOT_COMPARED]
            if written and fields and _DROPPED.issuperset(fields) and item.get("version") == found.get("version"):
                await self._store.delete(name)
                self._outcomes[number] = _dropped(fields)
            elif fields:
                self._outcomes[number] = _taken(fields)
            else:
                if missing := set(tags_of(item)) - set(tags_of(found)):
                    await self._store.tag(name, missing)
                self._outcomes[number] = Created(target_id=name, version_id=str(found.get("version") or 1))
        except (Rejected, Transient) as error:
            self._outcomes[number] = _unknown(error)

    def _all(self, numbers: Sequence[int], outcome: Outcome) -> None:
        self._outcomes.update(dict.fromkeys(numbers, outcome))


def _failed(error: AnswerError) -> Failed:
    """What a refused bulk says of the prompt at fault."""
    if isinstance(error, Gone):
        message = (
            f"an integration that it names is not there: add it, or mend rewrite.provider and rewrite.model. {error}"
        )
        return Failed(error="missing", message=message, status=error.status, code=error.code, retriable=True)
    if error.status == 403:
        message = f"the key may not use an integration that it names: grant its application the right to. {error}"
        return Failed(error="forbidden", message=message, status=403, code=error.code, retriable=True)
    retriable = isinstance(error, Transient)
    return Failed(error=error.error, message=str(error), status=error.status, code=error.code, retriable=retriable)


def _not_looked_up(error: AnswerError) -> Failed:
    message = f"it was not sent, for nobody could tell whether a prompt of that name is there: {error}"
    return Failed(error=error.error, message=message, status=error.status, code=error.code, retriable=True)


def _left_out() -> Failed:
    message = "no update permission: the bulk left it out without a word, so somebody else has a prompt of that name"
    return Failed(error="no_update_permission", message=message, retriable=True)


def _dropped(fields: Sequence[str]) -> Failed:
    names = ", ".join(fields)
    message = (
        f"{names}: this older server dropped it, and the replica was taken back; leave it out in rewrite.parameters"
    )
    return Failed(error="loss", message=message, retriable=True)


def _taken(fields: Sequence[str]) -> Failed:
    message = f"a prompt of that name is there and differs in {', '.join(fields)}"
    return Failed(error="exists", message=message, exists=True)


def _unknown(error: AnswerError) -> Unknown:
    return Unknown(error=error.error, message=str(error))


async def _nothing() -> None:
    """The intents are written already."""
