"""A server as rude as the network: resets, truncation, drips, garbage. It answers by script and keeps a record."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Self


@dataclass(frozen=True)
class Received:
    """One request as it came in."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes


Step = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[bool]]
"""Answers one request; True: the connection stays open for the next."""


class RawServer:
    """Answers the first request with the first step, and so on; the last step stays."""

    def __init__(self, *steps: Step, tls: ssl.SSLContext | None = None) -> None:
        self.steps = list(steps)
        self.received: list[Received] = []
        self.connections = 0
        self._tls = tls
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._tasks.add(task)
        self.connections += 1
        try:
            while await self._one(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            writer.transport.abort()
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        first, *lines = head.strip().split("\r\n")
        method, target, _ = first.split(" ")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        self.received.append(Received(method, target, headers, body))
        step = self.steps.pop(0) if len(self.steps) > 1 else self.steps[0]
        going_on = await step(reader, writer)
        await writer.drain()
        return going_on


def answer(status: int, body: bytes = b"{}", headers: Mapping[str, str] | None = None) -> Step:
    """A whole answer."""
    fields = {"Content-Type": "application/json", "Content-Length": str(len(body)), **(headers or {})}
    lines = [f"HTTP/1.1 {status} Words", *(f"{name}: {value}" for name, value in fields.items()), "", ""]
    return raw("\r\n".join(lines).encode() + body, keep=True)


def raw(data: bytes, *, keep: bool = False) -> Step:
    """These bytes; the connection is closed after them unless `keep`."""

    async def step(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        writer.write(data)
        return keep

    return step


def truncated(status: int = 200) -> Step:
    """A body that ends before its length."""
    return raw(f"HTTP/1.1 {status} Words\r\nContent-Length: 100\r\n\r\n".encode() + b'{"id":')


async def close(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> bool:
    """No answer: the connection is closed."""
    return False


async def reset(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    """No answer: the connection is reset."""
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
    return False


async def hang(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> bool:
    """No answer for as long as the client stays."""
    await reader.read()
    return False


async def drip(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    """A body that comes byte by byte, without end, each soon enough for any timeout between two reads."""
    writer.write(b"HTTP/1.1 200 Words\r\nContent-Length: 1000000\r\n\r\n")
    while not writer.is_closing():
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(0.005)
    return False
