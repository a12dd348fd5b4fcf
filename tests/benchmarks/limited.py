"""A registry that takes so many requests a second, and keeps its own truth.

`python -m tests.benchmarks.limited PROMPTS RATE` serves what `tests.benchmarks.server` does, and lists what was
created, too. Above its rate it answers 429; RATE 0: it has none. `GET /truth`
tells what it has seen since it was asked last, `GET /forget` makes it as it was at first.
"""

from __future__ import annotations

import asyncio
import sys
from collections import Counter, deque
from time import monotonic
from typing import Final
from urllib.parse import parse_qs

import orjson

from tests.benchmarks.server import Connection, Registry, ok, row

OVER: Final = 0.05
"""By so much may a second be over the rate."""
REFUSED: Final = (
    b"HTTP/1.1 429 Too Many Requests\r\nContent-Type: application/json\r\nRetry-After: 1\r\nContent-Length: 2\r\n\r\n{}"
)

EXPIRED: Final = b"HTTP/1.1 401 Unauthorized\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"


class LimitedRegistry(Registry):
    """Counts what arrives in each second, wherever that begins."""

    def __init__(self, prompts: int, rate: float) -> None:
        super().__init__(prompts)
        self.kept = 10 * prompts
        self.expires_after: int | None = None
        """Creates after which it refuses the key."""
        self._rate = rate
        self._recent: deque[float] = deque()
        self._seen: Counter[str] = Counter()
        self._worst = 0
        self._creates: list[float] = []
        self._made: list[str] = []

    def answer(self, method: bytes, target: str, body: bytes) -> bytes:
        """One answer, whole; the truth is told beyond any limit."""
        path = target.partition("?")[0]
        if path.endswith("/truth"):
            return self._truth()
        if path.endswith("/forget"):
            self._truth()
            self.names.clear()
            self._made.clear()
            self.bodies.clear()
            self._count = 0
            return ok(b"{}")
        now = monotonic()
        while self._recent and self._recent[0] <= now - 1:
            self._recent.popleft()
        self._recent.append(now)
        self._seen["requests"] += 1
        self._worst = max(self._worst, len(self._recent))
        if self._rate and len(self._recent) > self._rate * (1 + OVER):
            self._recent.pop()
            self._seen["refused"] += 1
            return REFUSED
        if self.expires_after is not None and self.expires_after <= len(self._made):
            return EXPIRED
        if method == b"POST":
            self._creates.append(now)
        return super().answer(method, target, body)

    def _create(self, body: bytes) -> bytes:
        self._made.append(orjson.loads(body)["name"])
        return super()._create(body)

    def _list(self, query: str) -> bytes:
        asked = parse_qs(query)
        size, page = int(asked.get("page_size", ["100"])[0]), int(asked.get("current_page", ["0"])[0])
        made, total = len(self._made), len(self._made) + self.prompts
        rows = []
        for place in range(page * size, min((page + 1) * size, total)):
            number = made - 1 - place
            if number >= 0:
                rows.append({**row(0), "id": f"r-{number}", "slug": f"r-{number}", "name": self._made[number]})
            else:
                rows.append(row(place - made))
        return ok(orjson.dumps({"data": rows, "total": total}))

    def _truth(self) -> bytes:
        """Of the whole time, but for what is counted by the second."""
        wanted = {f"prompt {number}-replica" for number in range(self.prompts)}
        seconds = self._creates[-1] - self._creates[0] if self._creates else 0.0
        many = len(self._creates)
        middle = self._creates[many // 10 : many - many // 10]  # neither the workers' start nor the last pages
        told = {
            "doubled": sum(many - 1 for many in self.names.values()),
            "lost": len(wanted - self.names.keys()),
            "created": len(self._made),
            "requests": self._seen["requests"],
            "refused": self._seen["refused"],
            "worst_second": self._worst,
            "seconds": seconds,
            "creates_a_second": len(middle) / (middle[-1] - middle[0]) if len(middle) > 1 else 0.0,
        }
        self._seen.clear()
        self._worst, self._creates = 0, []
        return ok(orjson.dumps(told))


async def main(prompts: int, rate: float) -> None:
    """Serves on a free port."""
    registry = LimitedRegistry(prompts, rate)
    server = await asyncio.get_running_loop().create_server(lambda: Connection(registry), "127.0.0.1", 0)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), float(sys.argv[2])))
