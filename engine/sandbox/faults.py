"""Faults on purpose, by name and probability, or planned one by one.

| name | what happens |
|---|---|
| 429, 503 | refused before the change; `Retry-After: 1` |
| 500 | an internal error; whether the change was made before it, nobody can tell: an even chance |
| reset_before | the connection is reset before the change |
| reset_after | the change is made, then the connection is reset without an answer |
| truncate, blank, not_json | the change is made, the answer is cut in half, empty, or HTML |
| slow | the answer comes late |
| late_listing | a create is answered at once, but its row appears in listings up to five seconds later |
"""

from __future__ import annotations

import random
import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from aiohttp import web

FAULTS: Final = (
    *("429", "500", "503", "reset_before", "reset_after", "truncate", "blank", "not_json", "slow", "late_listing"),
)
LATEST_LISTING_S: Final = 5.0


@dataclass(slots=True)
class _Planned:
    name: str
    method: str
    path_end: str
    times: int


class Faults:
    """Draws at most one fault a request. `chances` may be changed while the sandbox runs."""

    def __init__(self, chances: Mapping[str, float], seed: int) -> None:
        for name, chance in chances.items():
            _known(name)
            if not 0 <= chance <= 1:
                raise ValueError(f"the probability of {name} must be between 0 and 1, not {chance}")
        self.chances = dict(chances)
        self._planned: list[_Planned] = []
        self._random = random.Random(seed)

    def plan(self, name: str, *, method: str = "", path_end: str = "", times: int = 1) -> None:
        """The next `times` requests of that method whose path ends like that suffer the fault; before any chance."""
        _known(name)
        self._planned.append(_Planned(name, method, path_end, times))

    def draw(self, method: str, path: str) -> str | None:
        """The fault for this request."""
        for planned in self._planned:
            if planned.times and planned.method in ("", method) and path.endswith(planned.path_end):
                planned.times -= 1
                return planned.name
        return next((name for name, chance in self.chances.items() if self._random.random() < chance), None)

    def even_chance(self) -> bool:
        return self._random.random() < 0.5

    def lateness(self) -> float:
        """Seconds that a late row is late."""
        return self._random.uniform(0, LATEST_LISTING_S)


def reset(request: web.Request) -> web.Response:
    """Resets the connection (RST, not FIN); what is returned never leaves."""
    if request.transport is not None:
        at_once = struct.pack("ii", 1, 0)
        request.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, at_once)
        request.transport.abort()
    return web.Response()


async def spoil(name: str, request: web.Request, answer: web.StreamResponse) -> web.StreamResponse:
    """The answer as `truncate`, `blank` or `not_json` leaves it."""
    if name == "blank":
        return web.Response(status=answer.status, content_type="application/json")
    if name == "not_json":
        page = "<html><body>upstream connect error</body></html>"
        return web.Response(status=answer.status, text=page, content_type="text/html")
    body = answer.body if isinstance(answer, web.Response) and isinstance(answer.body, bytes) else b""
    cut = web.StreamResponse(status=answer.status, headers={"Content-Type": answer.content_type})
    cut.content_length = len(body)
    cut.force_close()
    await cut.prepare(request)
    await cut.write(body[: len(body) // 2])
    if request.transport is not None:
        request.transport.close()
    return cut


def _known(name: str) -> None:
    if name not in FAULTS:
        raise ValueError(f"there is no fault {name!r}; choose from {', '.join(FAULTS)}")
