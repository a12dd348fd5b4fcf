"""A proxy before a server that carries requests out and never gives their answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from typing import Any, Final

import httpx

PATIENCE_S: Final = 120

Call = tuple[str, str]
"""Method and path."""


@dataclass
class Losing:
    """`answers`: how many of which call are to be lost. `lost`: those that were."""

    answers: Mapping[Call, int]
    url: str = ""
    lost: Counter[Call] = field(default_factory=Counter)
    _asked: Counter[Call] = field(default_factory=Counter)
    _lock: Lock = field(default_factory=Lock)

    def loses(self, call: Call) -> bool:
        """Every other one, or nobody would take the server for well."""
        with self._lock:
            self._asked[call] += 1
            if self.lost[call] >= self.answers.get(call, 0) or self._asked[call] % 2:
                return False
            self.lost[call] += 1
            return True


@contextmanager
def losing(url: str, answers: Mapping[Call, int]) -> Iterator[Losing]:
    """In front of the server at `url`, for as long as the block."""
    losses = Losing(answers)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def handle_one_request(self) -> None:
            self.raw_requestline = self.rfile.readline(65_537)
            if not self.raw_requestline or not self.parse_request():
                self.close_connection = True
                return
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            kind = {"Content-Type": self.headers.get("Content-Type") or "application/json"}
            answer = client.request(self.command, self.path, content=body, headers=kind)
            if losses.loses((self.command, self.path)):
                self.close_connection = True
                return
            self.send_response(answer.status_code)
            self.send_header("Content-Type", answer.headers.get("Content-Type", "application/json"))
            self.send_header("Content-Length", str(len(answer.content)))
            self.end_headers()
            self.wfile.write(answer.content)

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing."""

    with httpx.Client(base_url=url, trust_env=False, timeout=PATIENCE_S) as client:
        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            losses.url = f"http://127.0.0.1:{server.server_port}"
            yield losses
        finally:
            server.shutdown()
            thread.join()
            server.server_close()
