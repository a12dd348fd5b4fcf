"""Many small values in a tenth of their memory, for a library may have a million prompts. Pure.

Values are kept as their fields, written by `marshal`: exact for None, numbers and any text, many times faster than
JSON, and never read by another process. A value is made anew each time that it is looked at: two looks give equal
values, not the same one, so `is` tells nothing and a change to one is lost unless it is put back.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator, MutableMapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from marshal import dumps, loads
from operator import methodcaller
from typing import Any, Final, Generic, TypeVar, overload

T = TypeVar("T")
Tuple = TypeVar("Tuple", bound=tuple[Any, ...])

PAGE: Final = 256
"""Values that are packed together."""

Fields = tuple[Any, ...]
"""None, bool, int, float, str and bytes, and tuples of them; `marshal` refuses what is something else."""


@dataclass(frozen=True, slots=True)
class Form(Generic[T]):
    """How one value is packed. `flat` gives None for one that cannot be: it is kept as it is."""

    flat: Callable[[T], Fields | None]
    whole: Callable[[Fields], T]


@dataclass(frozen=True, slots=True)
class Columns(Generic[T]):
    """How the values of a page are packed: field by field. `flat` and `whole` take and give what is not empty."""

    flat: Callable[[Sequence[T]], Fields]
    whole: Callable[[Fields], list[T]]


def maker(kind: type[Tuple]) -> Callable[[Iterable[Any]], Tuple]:
    """What makes such a named tuple of all its fields, in their order: faster than its `_make` by a call of Python."""
    return partial(tuple.__new__, kind)


def columns_of(kind: type[Tuple]) -> Columns[Tuple]:
    """Of a named tuple all of whose fields can be packed."""
    make = maker(kind)

    def whole(fields: Fields) -> list[Tuple]:
        return list(map(make, zip(*fields, strict=True)))

    return Columns(lambda page: tuple(zip(*page, strict=True)), whole)


class PackedList(Sequence[T]):
    """A list to append to, packed page by page. To walk over it is cheap; one value by its index costs a page."""

    def __init__(self, columns: Columns[T], values: Iterable[T] = ()) -> None:
        self._columns = columns
        self._data = bytearray()  # one block that grows: many small ones would leave as many holes in the heap
        self._ends = [0]
        """Where each page of PAGE values ends in it."""
        self._apart: dict[int, dict[int, T]] = {}
        """Number of a page -> its values that cannot be packed, by their place in it."""
        self._rest: list[T] = []
        self.extend(values)

    def append(self, value: T) -> None:
        """Behind all others."""
        self._rest.append(value)
        if len(self._rest) == PAGE:
            self._pack()

    def extend(self, values: Iterable[T]) -> None:
        """All of them behind all others."""
        if isinstance(values, PackedList) and values._columns is self._columns and not self._rest:
            self._join(values)
            return
        rest = iter(values)
        while some := list(islice(rest, PAGE - len(self._rest))):
            self._rest += some
            if len(self._rest) == PAGE:
                self._pack()

    def pages(self) -> Iterator[list[T]]:
        """All values, at most PAGE at a time."""
        for page in range(len(self._ends) - 1):
            yield self._page(page)
        if self._rest:
            yield self._rest

    def __len__(self) -> int:
        return (len(self._ends) - 1) * PAGE + len(self._rest)

    def __iter__(self) -> Iterator[T]:
        return chain.from_iterable(self.pages())

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> list[T]: ...
    def __getitem__(self, index: int | slice) -> T | list[T]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        page, place = divmod(range(len(self))[index], PAGE)
        return self._page(page)[place] if page < len(self._ends) - 1 else self._rest[place]

    def _join(self, other: PackedList[T]) -> None:
        """The other's pages as they are packed."""
        first, offset = len(self._ends) - 1, self._ends[-1]
        self._apart.update((first + page, apart) for page, apart in other._apart.items())
        self._data += other._data
        self._ends += [offset + end for end in other._ends[1:]]
        self._rest = list(other._rest)

    def _pack(self) -> None:
        try:
            packed = dumps(self._columns.flat(self._rest))
        except ValueError:
            packed = self._pack_most(len(self._ends) - 1)
        self._data += zlib.compress(packed, 1)
        self._ends.append(len(self._data))
        self._rest = []

    def _pack_most(self, page: int) -> bytes:
        """All but those that cannot be."""
        self._apart[page] = apart = {place: one for place, one in enumerate(self._rest) if not self._packs(one)}
        packed = [one for place, one in enumerate(self._rest) if place not in apart]
        return dumps(self._columns.flat(packed) if packed else ())

    def _packs(self, value: T) -> bool:
        try:
            dumps(self._columns.flat([value]))
        except ValueError:
            return False
        return True

    def _page(self, page: int) -> list[T]:
        fields = loads(zlib.decompress(self._data[self._ends[page] : self._ends[page + 1]]))
        values = self._columns.whole(fields) if fields else []
        for place, value in self._apart.get(page, {}).items():  # in the order of their places
            values.insert(place, value)
        return values


class PackedDict(MutableMapping[str, T]):
    """A mapping by id. What it gives of a packed value is a copy: whoever changes it puts it back."""

    def __init__(self, form: Form[T], values: Iterable[tuple[str, T]] = ()) -> None:
        self._form = form
        self._values: dict[bytes, bytes | T] = {}
        self.update(values)

    def __getitem__(self, key: str) -> T:
        value = self._values[packed_key(key)]
        return self._form.whole(loads(value)) if type(value) is bytes else value  # type: ignore[return-value]

    def get(self, key: str, default: Any = None) -> Any:
        """The same as of a dict; the one of a mapping would raise and catch for each key that is not there."""
        value = self._values.get(packed_key(key))
        if value is None:
            return default
        return self._form.whole(loads(value)) if type(value) is bytes else value

    def whole_items(self) -> Iterator[tuple[str, T]]:
        """Those that are not packed, with their keys."""
        for key, value in self._values.items():
            if type(value) is not bytes:
                yield key.decode("utf-8", "surrogatepass"), value  # type: ignore[misc]

    def __setitem__(self, key: str, value: T) -> None:
        try:
            flat = self._form.flat(value)
            self._values[packed_key(key)] = value if flat is None else packed(flat)
        except ValueError:
            self._values[packed_key(key)] = value

    def __delitem__(self, key: str) -> None:
        del self._values[packed_key(key)]

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and packed_key(key) in self._values

    def __iter__(self) -> Iterator[str]:
        return (key.decode("utf-8", "surrogatepass") for key in self._values)

    def __len__(self) -> int:
        return len(self._values)


def packed(flat: Fields) -> bytes:
    """To be kept. Copied, because what `dumps` gives is the beginning of a block that nothing else fits into well."""
    return bytes(memoryview(dumps(flat)))


packed_key: Final[Callable[[str], bytes]] = methodcaller("encode", "utf-8", "surrogatepass")
"""An id as a mapping keeps it. Asked a dozen times for each prompt, so it is no function of Python."""
