"""The fastest registry there is: a few answers that were encoded beforehand, and a count of what was created.

`python -m tests.benchmarks.server PROMPTS` prints its address and serves until it is ended. `GET /created` tells how
often each name was created and how long the bodies were, `GET /cpu` how many seconds of CPU time it has used.
"""

from __future__ import annotations

import asyncio
import re
import sys
from collections import Counter
from time import process_time
from typing import Final
from urllib.parse import parse_qs, urlsplit

import orjson

PAGE: Final = 100
TEXT_BYTES: Final = 3_400
"""With its parameters and a tool, a prompt of some 4 KB."""
NUMBER: Final = 8_877_665_544
"""Stands for the number of a prompt where all of them are alike."""
KEPT: Final = 10_000
"""Bodies: a million of them would fill the machine."""
COLLECTIONS: Final = b'{"data":[{"id":"c-1","slug":"main","name":"Main"}],"total":1}'
_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


def definition(number: int) -> dict[str, object]:
    """One prompt as it is retrieved."""
    words = "You answer questions about orders in short sentences, and you never guess what a page does not say. "
    messages = [
        {
            "role": "system",
            "content": [{"type": "text", "text": (words * (TEXT_BYTES // len(words) + 1))[:TEXT_BYTES]}],
        },
        {
            "role": "user",
            "content": [{"type": "text", "text": "{{customer}} asks about the order {{order}}: {{question}}"}],
        },
    ]
    schema = {"type": "object", "properties": {"order": {"type": "string"}}, "required": ["order"]}
    return {
        "id": f"p-{number}",
        "slug": f"pp-prompt-{number}",
        "name": f"prompt {number}",
        "collection_id": "c-1",
        "model": "anthropic.claude-3-7-sonnet",
        "virtual_key": "bedrock",
        "string": orjson.dumps(messages).decode(),
        "parameters": {"model": "anthropic.claude-3-7-sonnet", "max_tokens": 1024, "temperature": 0.5},
        "tools": [{"type": "function", "function": {"name": "find_order", "parameters": schema}}],
        "is_raw_template": 0,
        "template_metadata": {"team": "support"},
        "prompt_version_description": "from the benchmark",
        "prompt_version": 1,
        "status": "active",
        "created_at": "2026-01-01T00:00:00.000Z",
        "last_updated_at": "2026-01-01T00:00:00.000Z",
    }


def row(number: int) -> dict[str, object]:
    """The same prompt in a listing."""
    whole = definition(number)
    # newest first, as registries list
    created = f"2026-01-{28 - number // 86_400:02d}T{86_399 - number % 86_400:05d}Z"
    return {name: whole[name] for name in ("id", "slug", "name", "collection_id", "model", "status")} | {
        "created_at": created,
        "last_updated_at": created,
    }


class Registry:
    """Its answers, and what was created."""

    def __init__(self, prompts: int) -> None:
        self.prompts = prompts
        self.kept = KEPT
        self.names: Counter[str] = Counter()
        self.least_bytes = 0
        self.bodies: dict[str, bytes] = {}
        """Of the first ones, which are read back."""
        self._count = 0
        self._definition = orjson.dumps(definition(NUMBER)).replace(b"%", b"%%").replace(b"%d" % NUMBER, b"%(n)d")

    def answer(self, method: bytes, target: str, body: bytes) -> bytes:
        """One answer, whole."""
        if method == b"POST":
            return self._create(body)
        path, _, query = target.partition("?")
        name = path.rpartition("/")[2]
        if name.startswith("p-"):
            return ok(self._definition % {b"n": int(name[2:])})
        if name.startswith("r-"):
            return ok(orjson.dumps({**orjson.loads(self.bodies[name]), "id": name, "slug": name}))
        if name == "created":
            return self._told()
        if name == "cpu":
            return ok(orjson.dumps(process_time()))
        return self._list(query) if name == "prompts" else ok(COLLECTIONS)

    def _create(self, body: bytes) -> bytes:
        target_id = f"r-{self._count}"
        self._count += 1
        self.names[orjson.loads(body)["name"]] += 1
        self.least_bytes = min(self.least_bytes or len(body), len(body))
        if len(self.bodies) < self.kept:
            self.bodies[target_id] = body
        return ok(b'{"id":"%b","slug":"%b","version_id":"v-1"}' % (target_id.encode(), target_id.encode()))

    def _list(self, query: str) -> bytes:
        asked = parse_qs(query)
        size, page = int(asked.get("page_size", ["100"])[0]), int(asked.get("current_page", ["0"])[0])
        rows = [row(number) for number in range(page * size, min((page + 1) * size, self.prompts))]
        return ok(orjson.dumps({"data": rows, "total": self.prompts}))

    def _told(self) -> bytes:
        told = ok(orjson.dumps({"names": self.names, "least_bytes": self.least_bytes}))
        self.names.clear()
        self.least_bytes = 0
        self.bodies.clear()
        return told


def ok(body: bytes) -> bytes:
    """An answer with this body of JSON."""
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


class Connection(asyncio.Protocol):
    """Just enough of HTTP/1.1: kept connections, bodies with a length."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._data = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._data += data
        while (end := self._data.find(b"\r\n\r\n") + 4) > 3:
            length = _LENGTH.search(self._data, 0, end)
            whole = end + (int(length[1]) if length else 0)
            if len(self._data) < whole:
                return
            method, target, _ = self._data[: self._data.index(b"\r\n")].split(b" ")
            body, self._data = self._data[end:whole], self._data[whole:]
            parts = urlsplit(target.decode())
            self._transport.write(self._registry.answer(method, f"{parts.path}?{parts.query}", body))


async def main(prompts: int) -> None:
    """Serves on a free port."""
    registry = Registry(prompts)
    server = await asyncio.get_running_loop().create_server(lambda: Connection(registry), "127.0.0.1", 0)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
