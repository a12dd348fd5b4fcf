"""A Phoenix in memory, on a real socket, as far as the connector asks it; tests/real has the real one.

What it refuses, and in which words, is what arize-phoenix 20.26.1 does: tests/real/test_phoenix_contract.py.
"""

from __future__ import annotations

import json
import re
import sys
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from typing import Any, Final
from urllib.parse import parse_qs, unquote, urlsplit

from engine.connectors.phoenix.messages import ROLES
from engine.connectors.phoenix.parameters import FAMILIES, LARGEST, PROVIDERS, family_of

NAME: Final = re.compile(r"[a-z0-9](?:[_a-z0-9-]*[a-z0-9])?")
PAGE: Final = b"<!DOCTYPE html><title>Phoenix</title>"

Item = dict[str, Any]
Answer = tuple[int, Any]
"""Status, and what goes as JSON; bytes and texts go as they are."""


class Refused(Exception):
    """An answer that is none."""

    def __init__(self, status: int, body: Any) -> None:
        self.answer = (status, body)
        super().__init__(status)


def complaint(kind: str, *where: Any, value: Any = None) -> Refused:
    """As pydantic writes it, with the input that nobody may repeat."""
    return Refused(
        422, {"detail": [{"type": kind, "loc": ["body", *where], "msg": "Input is not valid", "input": value}]}
    )


@dataclass
class Phoenix:
    """Its prompts. `fault`: asked with method, path and number of the request; an answer goes in the place of what it
    would have said, and is said before anything is done; `lose`: so many creates are carried out and never answered.
    """

    prompts: dict[str, Item] = field(default_factory=dict)
    """Name -> id, description, metadata."""
    versions: list[Item] = field(default_factory=list)
    """Oldest first, each with the `name` of its prompt."""
    tags: dict[tuple[str, str], str] = field(default_factory=dict)
    """Name of the prompt and of the tag -> id of a version."""
    key: str | None = None
    fault: Callable[[str, str, int], Answer | None] = lambda method, path, number: None
    lose: int = 0
    requests: list[tuple[str, str]] = field(default_factory=list)
    url: str = ""
    lock: Lock = field(default_factory=Lock)
    made: int = 0

    def of(self, name: str) -> list[Item]:
        """Versions, oldest first."""
        return [one for one in self.versions if one["name"] == name]

    def texts(self, name: str) -> list[Any]:
        """Contents of the first message, oldest first."""
        return [one["template"]["messages"][0]["content"] for one in self.of(name)]

    def post(self, path: str, **body: Any) -> Any:
        """Somebody else's write."""
        return self.answered("POST", f"/v1/{path}", {}, body)[1]

    def answered(self, method: str, path: str, query: Mapping[str, str], body: Any) -> Answer:
        try:
            return self._routed(method, [unquote(part) for part in path.strip("/").split("/")], query, body)
        except Refused as refused:
            return refused.answer

    def _routed(self, method: str, parts: list[str], query: Mapping[str, str], body: Any) -> Answer:
        match method, parts:
            case "GET", ["v1", "prompts"]:
                rows = sorted(self.prompts.values(), key=lambda row: row["number"], reverse=True)
                return 200, _paged([_shown(row) for row in rows], query)
            case "POST", ["v1", "prompts"]:
                return 200, {"data": self._create(body)}
            case "GET", ["v1", "prompts", name, "versions"]:
                return 200, _paged([_version(one) for one in reversed(self.of(_valid(name)))], query)
            case "POST", ["v1", "prompts", name, "versions"]:
                return 201, {"data": self._add(self._prompt(name), body)}
            case "GET", ["v1", "prompts", name, "latest"]:
                return 200, {"data": _version((self.of(_valid(name)) or _not_found())[-1])}
            case "GET", ["v1", "prompts", name, "tags", tag]:
                return 200, {"data": _version(self._found(self.tags.get((name, tag), "")))}
            case "PATCH", ["v1", "prompts", name]:
                return 200, {"data": self._patch(self._prompt(name), body)}
            case "DELETE", ["v1", "prompts", name]:
                return self._delete(name)
            case "GET", ["v1", "prompt_versions", version]:
                return 200, {"data": _version(self._found(version))}
            case "GET", ["v1", "prompt_versions", version, "tags"]:
                there = [tag for (_, tag), on in self.tags.items() if on == self._found(version)["id"]]
                return 200, _paged([{"id": _id("Tag", tag), "name": tag} for tag in there], query, overlap=True)
            case "POST", ["v1", "prompt_versions", version, "tags"]:
                self.tags[self._found(version)["name"], _identifier(body["name"], "name")] = version
                return 204, b""
        return (200, PAGE) if method == "GET" else (405, "Method Not Allowed")

    # ---- writes ------------------------------------------------------------------------------------------------------

    def _create(self, body: Item) -> Item:
        given = body["prompt"]
        name = _identifier(given["name"], "prompt", "name")
        _check(body["version"])
        if name not in self.prompts:
            self.made += 1
            row = {"name": name, "description": given.get("description"), "metadata": given.get("metadata") or {}}
            self.prompts[name] = {**row, "number": self.made, "id": _id("Prompt", self.made), "source_prompt_id": None}
        return self._append(name, body["version"])

    def _add(self, name: str, body: Item) -> Item:
        version = body["version"]
        _check(version)
        kind, wanted = version["invocation_parameters"]["type"], family_of(version["model_provider"]).name
        if kind != wanted:
            raise Refused(422, f"Invocation parameters variant '{kind}' does not match (expected '{wanted}').")
        return self._append(name, version)

    def _append(self, name: str, version: Item) -> Item:
        item = {**version, "name": name, "id": _id("PromptVersion", len(self.versions) + 1)}
        self.versions.append(item)
        return _version(item)

    def _patch(self, name: str, body: Item) -> Item:
        if not body.keys() & {"description", "metadata"} or body.get("metadata", {}) is None:
            raise complaint("value_error")
        self.prompts[name] |= {key: body[key] for key in ("description", "metadata") if key in body}
        return _shown(self.prompts[name])

    def _delete(self, name: str) -> Answer:
        del self.prompts[self._prompt(name)]
        self.versions = [one if one["name"] != name else {**one, "name": ""} for one in self.versions]
        self.tags = {key: on for key, on in self.tags.items() if key[0] != name}
        return 204, b""

    # ---- what is there -----------------------------------------------------------------------------------------------

    def _prompt(self, name: str) -> str:
        if name not in self.prompts:
            raise Refused(404, "Prompt not found")
        return name

    def _found(self, version: str) -> Item:
        return next((one for one in self.versions if one["id"] == version and one["name"]), None) or _not_found()


def _not_found() -> Any:
    raise Refused(404, "Not Found")


def _id(kind: str, number: object) -> str:
    return b64encode(f"{kind}:{number}".encode()).decode()


def _valid(name: str) -> str:
    if not NAME.fullmatch(name):
        raise Refused(422, "Invalid prompt name")
    return name


def _identifier(name: str, *where: str) -> str:
    if not NAME.fullmatch(name):
        raise complaint("string_pattern_mismatch", *where, value=name)
    return name


def _check(version: Item) -> None:
    """What the form of a version must be."""
    if any(isinstance(one, int) and one > LARGEST for one in _values(version)):
        raise Refused(500, "Internal Server Error")
    if any(isinstance(one, str) and not _is_whole(one) for one in _values(version)):
        raise Refused(500, "Internal Server Error")
    if version["model_provider"] not in PROVIDERS:
        raise complaint("enum", "version", "model_provider")
    for at, message in enumerate(version["template"]["messages"]):
        if message["role"] not in ROLES:
            raise complaint("literal_error", "version", "template", "chat", "messages", at, "role", value=message)
        if message.keys() != {"role", "content"} or (
            not message["content"] and not isinstance(message["content"], str)
        ):
            raise complaint("extra_forbidden", "version", "template", "chat", "messages", at, value=message)
    kind = version["invocation_parameters"]["type"]
    family, fields = FAMILIES[kind], version["invocation_parameters"][kind]
    own = dict(family.fields.values())
    for name, value in fields.items():
        known = isinstance(value, dict) if name == "extra_body" and family.extra else name in own and own[name](value)
        if not known:
            raise complaint("extra_forbidden", "version", "invocation_parameters", kind, kind, name, value=value)
    if family.needed and family.needed not in fields:
        raise complaint("missing", "version", "invocation_parameters", kind, kind, family.needed)
    if "tools" in version and not version["tools"]["tools"]:
        raise complaint("too_short", "version", "tools", "tools")


def _is_whole(text: str) -> bool:
    return not any("\ud800" <= char <= "\udfff" for char in text)


def _values(value: Any) -> Iterator[Any]:
    if isinstance(value, dict | list):
        for inner in [*value, *value.values()] if isinstance(value, dict) else value:
            yield from _values(inner)
    else:
        yield value


def _version(item: Item) -> Item:
    """As it is answered: without what is empty, but for the description."""
    kept = {key: value for key, value in item.items() if key != "name" and (value or key != "metadata")}
    return {**kept, "description": item.get("description") or ""}


def _shown(row: Item) -> Item:
    return {key: value for key, value in row.items() if key != "number"}


def _paged(rows: list[Item], query: Mapping[str, str], *, overlap: bool = False) -> Item:
    limit, cursor = int(query.get("limit", "100")), query.get("cursor")
    begin = next((at for at, row in enumerate(rows) if row["id"] == cursor), len(rows)) if cursor else 0
    page = rows[begin : begin + limit]
    after = rows[begin + limit : begin + limit + 1]
    return {"data": page, "next_cursor": (page[-1] if overlap else after[0])["id"] if after else None}


# ---- on a socket -----------------------------------------------------------------------------------------------------


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    phoenix: Phoenix
    disable_nagle_algorithm = True

    def _serve(self) -> None:
        size = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(size)) if size else None
        parts, phoenix = urlsplit(self.path), self.phoenix
        with phoenix.lock:
            phoenix.requests.append((self.command, self.path))
            answer = self._refusal(parts.path, len(phoenix.requests))
            if answer is None:
                query = {key: values[0] for key, values in parse_qs(parts.query).items()}
                answer = phoenix.answered(self.command, parts.path, query, body)
                if phoenix.lose and (self.command, parts.path) == ("POST", "/v1/prompts"):
                    phoenix.lose -= 1
                    self.close_connection = True
                    return
        self._say(*answer)

    def _refusal(self, path: str, number: int) -> Answer | None:
        key = self.phoenix.key
        if key is not None and self.headers.get("Authorization") != f"Bearer {key}":
            return 401, "Invalid token"
        return self.phoenix.fault(self.command, path, number)

    def _say(self, status: int, body: Any) -> None:
        plain = body if isinstance(body, bytes) else body.encode() if isinstance(body, str) else None
        whole = json.dumps(body).encode() if plain is None else plain
        kind = "application/json" if plain is None else "text/html" if plain is PAGE else "text/plain"
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(whole)))
        self.end_headers()
        self.wfile.write(whole)

    do_GET = do_POST = do_PATCH = do_DELETE = _serve  # noqa: N815

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that was killed is no error; anything else is told as usual."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


@contextmanager
def running(**more: Any) -> Iterator[Phoenix]:
    """Without prompts, for as long as the block."""
    phoenix = Phoenix(**more)
    server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"phoenix": phoenix}))
    phoenix.url = f"http://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield phoenix
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
