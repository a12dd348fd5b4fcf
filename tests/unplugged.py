"""A registry without a socket, for what depends on status, headers and body alone.

aioresponses stands in the place of aiohttp's own request. It sees neither timeouts nor broken connections nor when a
request leaves: those are tested against `raw_server`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, Final

from aiohttp import ClientResponse
from aioresponses import aioresponses

from engine.http import session

URL: Final = "http://registry.test/v1"
_METHODS: Final = ("GET", "POST", "PUT", "DELETE")
_SENT: Final = SimpleNamespace(output_size=0)


class Response(ClientResponse):
    """aioresponses 0.7.9 makes responses as aiohttp before 3.14 did, without the writer that sent the request."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **{"stream_writer": _SENT, **more})


async def _leaves(url: object, **_: object) -> None:
    await session._TRIP.get().leave()


class Unplugged:
    """What requests are answered."""

    def __init__(self, mocked: aioresponses) -> None:
        self._mocked = mocked

    def answer(
        self,
        status: int = 200,
        body: bytes = b"{}",
        *,
        headers: Mapping[str, str] | None = None,
        content_type: str = "application/json",
        path: str = "",
        method: str = "",
    ) -> None:
        """To every request of that method whose path ends with `path`; what was said first counts."""
        for one in (method,) if method else _METHODS:
            self._mocked.add(
                re.compile(rf"{re.escape(URL)}[^?]*{re.escape(path)}(\?.*)?$"),
                method=one,
                status=status,
                body=body,
                headers=dict(headers or {}),
                content_type=content_type,
                response_class=Response,
                callback=_leaves,
                repeat=True,
            )

    def value(self, value: Any, *, path: str = "") -> None:
        """The same with JSON."""
        self.answer(body=json.dumps(value).encode(), path=path)

    @property
    def sent(self) -> list[tuple[str, str, Mapping[str, str]]]:
        """Method, address and headers of all requests."""
        return [
            (method, str(url), call.kwargs["headers"])
            for (method, url), calls in self._mocked.requests.items()
            for call in calls
        ]


@contextmanager
def unplugged() -> Iterator[Unplugged]:
    """No request of this process leaves while the block goes on."""
    with aioresponses() as mocked:
        yield Unplugged(mocked)
