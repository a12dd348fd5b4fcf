"""A proxy that writes down what a client and a registry say to each other, and changes nothing."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

HOP_BY_HOP: Final = frozenset(
    {"connection", "keep-alive", "transfer-encoding", "content-length", "host", "date", "server"}
)


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request and its answer. `query`, `body` and `answer` as values; `answer` is None when it is not JSON."""

    method: str
    path: str
    query: dict[str, str]
    body: Any
    status: int
    answer: Any


@dataclass(slots=True)
class Recorder:
    """Use `base_url` in place of the registry's; `said` is in the order of the answers."""

    base_url: str
    said: list[Exchange] = field(default_factory=list)

    def take(self) -> list[Exchange]:
        """All since the last time."""
        taken, self.said[:] = list(self.said), []
        return taken


@contextmanager
def recording(upstream: str) -> Iterator[Recorder]:
    """Listens for as long as the block."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    recorder = Recorder(f"http://127.0.0.1:{server.server_address[1]}")
    server.RequestHandlerClass = _handler(urlsplit(upstream).netloc, recorder)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield recorder
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _handler(upstream: str, recorder: Recorder) -> type[BaseHTTPRequestHandler]:
    class Passing(BaseHTTPRequestHandler):
        def pass_on(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            connection = HTTPConnection(upstream)
            headers = {name: value for name, value in self.headers.items() if name.lower() not in HOP_BY_HOP}
            connection.request(self.command, self.path, body=body, headers=headers | {"Accept-Encoding": "identity"})
            answer = connection.getresponse()
            content = answer.read()
            connection.close()
            recorder.said.append(_exchange(self.command, self.path, body, answer.status, content))
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in HOP_BY_HOP:
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = pass_on  # noqa: N815 - names that the library asks for

        def log_message(self, format: str, *args: Any) -> None:
            """Says nothing: what was said is in the recorder."""

    return Passing


def _exchange(method: str, target: str, body: bytes, status: int, content: bytes) -> Exchange:
    parts = urlsplit(target)
    return Exchange(method, parts.path, dict(parse_qsl(parts.query)), _value(body), status, _value(content))


def _value(content: bytes) -> Any:
    try:
        return json.loads(content)
    except ValueError:
        return None
