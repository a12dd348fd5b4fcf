"""One bulk of Orkes Conductor, carried out to the end: what the registry does not say is read back.

A bulk that is refused was carried out up to the prompt at fault, which the answer need not name: it is the first one
that is not there. Where nothing is there, the first was at fault, or the server took everything back: it is sent alone,
and after that the rest in halves.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from engine.connectors.conductor.format import Item, Tag, differences_of, dropped_of, dropped_says, tags_of
from engine.errors import AnswerError, Gone, Rejected, Transient, UnknownOutcome
from engine.model import Created, Failed, Outcome, Sending, Unknown, no_intent
from engine.taskgroup import task_group


class BulkStore(Protocol):
    """What a bulk asks of the registry; see `Conductor`."""

    async def post(self, items: Sequence[Item], sending: Sending) -> None: ...
    async def found(self, names: Sequence[str], *, surely: bool) -> Mapping[str, Item | None]: ...
    async def tag(self, name: str, tags: Collection[Tag]) -> None: ...
    async def delete(self, target_id: str) -> None: ...


class Bulk:
    """Some prompts, none of which is there yet: a bulk would overwrite it."""

    def __init__(self, store: BulkStore, items: Sequence[Item], sending: Sending) -> None:
        self._store, self._items, self._sending = store, items, sending
        self._outcomes: dict[int, Outcome] = {}
        self._takes_back = False
        """The server carries out all of a bulk or nothing."""
        self._probing = False
        """The next bulk holds one prompt, to find that out."""

    async def carry_out(self) -> list[Outcome]:
        """One outcome for each item. Raises Stop, nothing else."""
        waiting: list[Sequence[int]] = [range(len(self._items))]
        while waiting:
            if numbers := waiting.pop():
                waiting += reversed(await self._send(numbers))
        return [self._outcomes[number] for number in range(len(self._items))]

    async def _send(self, numbers: Sequence[int]) -> list[Sequence[int]]:
        """One bulk, and what it did. Returns those that are to be sent again, in this order."""
        error = await self._post(numbers)
        if isinstance(error, Transient):  # surely not sent
            self._all(numbers, _failed(error))
            return []
        absent = await self._read_back(numbers, error)
        if not absent:
            self._takes_back |= self._probing
        self._probing = False
        if error is None or isinstance(error, UnknownOutcome):
            self._all(absent, _left_out() if error is None else _unknown(error))
            return []
        if len(absent) < len(numbers) or len(numbers) == 1:
            self._all(absent[:1], _failed(error))
            return [absent[1:]]
        if self._takes_back:
            half = len(absent) // 2
            return [absent[:half], absent[half:]]
        self._probing = True  # was the first at fault, or does the server take back what it has carried out?
        return [absent[:1], absent[1:]]

    async def _post(self, numbers: Sequence[int]) -> AnswerError | None:
        try:
            await self._store.post([self._items[number] for number in numbers], self._intend)
        except (Rejected, Transient, UnknownOutcome) as error:
            return error
        return None

    async def _intend(self) -> None:
        """Once: the intents of all are durable before the first of these requests."""
        sending, self._sending = self._sending, no_intent
        await sending()

    # ---- what was carried out ----------------------------------------------------------------------------------------

    async def _read_back(self, numbers: Sequence[int], error: AnswerError | None) -> list[int]:
        """Settles those that are there; returns the others, in the order of the bulk."""
        try:
            found = await self._store.found(self._names(numbers), surely=error is None)
            absent = await self._settle_all(numbers, found)
            while absent and isinstance(error, Rejected) and (late := await self._look_again(absent[0])):
                absent = await self._settle_all(absent, late)
        except (Rejected, Transient) as unread:
            self._all([number for number in numbers if number not in self._outcomes], _unknown(unread))
            return []
        return absent

    async def _look_again(self, number: int) -> Mapping[str, Item | None]:
        """It would be the one at fault; but a listing may be late."""
        return await self._store.found(self._names([number]), surely=True)

    def _names(self, numbers: Sequence[int]) -> list[str]:
        return [self._items[number]["name"] for number in numbers]

    async def _settle_all(self, numbers: Sequence[int], found: Mapping[str, Item | None]) -> list[int]:
        """Returns the numbers of those that are not there."""
        names = {number: self._items[number]["name"] for number in numbers}
        async with task_group() as group:
            for number, name in names.items():
                if name in found:
                    group.start_soon(self._settle, number, found[name])
        return [number for number, name in names.items() if name not in found]

    async def _settle(self, number: int, found: Item | None) -> None:
        item = self._items[number]
        name = item["name"]
        if found is None:  # it is there, and the key may not read it
            self._outcomes[number] = _left_out()
            return
        try:
            fields = differences_of(item, found)
            if dropped_of(item, found) and item.get("version") == found.get("version"):
                await self._store.delete(name)
                self._outcomes[number] = Failed(error="loss", message=dropped_says(fields), retriable=True)
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


def _left_out() -> Failed:
    message = "no update permission: the bulk left it out without a word, so somebody else has a prompt of that name"
    return Failed(error="no_update_permission", message=message, retriable=True)


def _taken(fields: Sequence[str]) -> Failed:
    message = f"a prompt of that name is there and differs in {', '.join(fields)}"
    return Failed(error="exists", message=message, exists=True)


def _unknown(error: AnswerError) -> Unknown:
    return Unknown(error=error.error, message=str(error))
