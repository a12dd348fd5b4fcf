"""Many small values in a tenth of their memory, for a library may have a million prompts. Pure.

A value is kept as its fields, written by `marshal`: exact for None, numbers and any text, many times faster than JSON,
and never read by another process. It is made anew each time that it is looked at.
"""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, MutableMapping, Sequence
from dataclasses import dataclass, fields
from itertools import repeat
from marshal import dumps, loads
from operator import attrgetter, call
from typing import Any, Final, Generic, TypeVar, overload

T = TypeVar("T")

PAGE: Final = 256
"""Values that are packed together."""

Fields = tuple[Any, ...]
"""None, bool, int, float, str and bytes, and tuples of them."""


@dataclass(frozen=True, slots=True)
class Form(Generic[T]):
    """How values of a type are packed. `flat` gives None for one that cannot be: it is kept as it is."""

    flat: Callable[[T], Fields | None]
    whole: Callable[[Fields], T]


def form_of(kind: type[T]) -> Form[T]:
    """The form of a frozen dataclass with slots, all of whose fields can be packed."""
    names = [part.name for part in fields(kind)]  # type: ignore[arg-type]
    put = [getattr(kind, name).__set__ for name in names]

    def whole(values: Fields) -> T:
        made: T = object.__new__(kind)  # at half the price of its `__init__`, which sets them one by one in Python
        deque(map(call, put, repeat(made), values), maxlen=0)
        return made

    return Form(attrgetter(*names), whole)


class PackedList(Sequence[T]):
    """A list to append to, packed page by page. To walk over it is cheap; one value by its index costs a page."""

    def __init__(self, form: Form[T], values: Iterable[T] = ()) -> None:
        self._form = form
        self._data = bytearray()  # one block that grows: many small ones would leave as many holes in the heap
        self._ends = [0]
        """Where each page of PAGE values ends in it."""
        self._apart: dict[int, T] = {}
        """Values that cannot be packed, by their index."""
        self._rest: list[T] = []
        self.extend(values)

    def append(self, value: T) -> None:
        """Behind all others."""
        self._rest.append(value)
        if len(self._rest) == PAGE:
            self._pack()

    def extend(self, values: Iterable[T]) -> None:
        """All of them behind all others."""
        for value in values:
            self.append(value)

    def pages(self) -> Iterator[list[T]]:
        """All values, at most PAGE at a time."""
        for page in range(len(self._ends) - 1):
            yield self._page(page)
        if self._rest:
            yield self._rest

    def __len__(self) -> int:
        return (len(self._ends) - 1) * PAGE + len(self._rest)

    def __iter__(self) -> Iterator[T]:
        for page in self.pages():
            yield from page

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> list[T]: ...
    def __getitem__(self, index: int | slice) -> T | list[T]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        page, place = divmod(range(len(self))[index], PAGE)
        return self._page(page)[place] if page < len(self._ends) - 1 else self._rest[place]

    def _pack(self) -> None:
        flat = [self._form.flat(value) for value in self._rest]
        first = len(self) - PAGE
        self._apart.update((first + place, self._rest[place]) for place, one in enumerate(flat) if one is None)
        self._data += zlib.compress(dumps(flat), 1)
        self._ends.append(len(self._data))
        self._rest = []

    def _page(self, page: int) -> list[T]:
        flat = loads(zlib.decompress(self._data[self._ends[page] : self._ends[page + 1]]))
        whole, first = self._form.whole, page * PAGE
        return [self._apart[first + place] if one is None else whole(one) for place, one in enumerate(flat)]


class PackedDict(MutableMapping[str, T]):
    """A mapping by id. What it gives of a packed value is a copy: whoever changes it puts it back."""

    def __init__(self, form: Form[T], values: Iterable[tuple[str, T]] = ()) -> None:
        self._form = form
        self._values: dict[bytes, bytes | T] = {}
        self.update(values)

    def __getitem__(self, key: str) -> T:
        value = self._values[_key(key)]
        return self._form.whole(loads(value)) if type(value) is bytes else value  # type: ignore[return-value]

    def get(self, key: str, default: Any = None) -> Any:
        """The same as of a dict; the one of a mapping would raise and catch for each key that is not there."""
        value = self._values.get(key.encode("utf-8", "surrogatepass"))
        if value is None:
            return default
        return self._form.whole(loads(value)) if type(value) is bytes else value

    def whole_items(self) -> Iterator[tuple[str, T]]:
        """Those that are not packed, with their keys."""
        for key, value in self._values.items():
            if type(value) is not bytes:
                yield key.decode("utf-8", "surrogatepass"), value  # type: ignore[misc]

    def __setitem__(self, key: str, value: T) -> None:
        flat = self._form.flat(value)
        # copied, because what `dumps` gives is the beginning of a kilobyte that nothing else fits into well
        self._values[_key(key)] = value if flat is None else bytes(memoryview(dumps(flat)))

    def __delitem__(self, key: str) -> None:
        del self._values[_key(key)]

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and _key(key) in self._values

    def __iter__(self) -> Iterator[str]:
        return (key.decode("utf-8", "surrogatepass") for key in self._values)

    def __len__(self) -> int:
        return len(self._values)


def _key(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
