"""The refusals of Langfuse, and their bodies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from engine.sandbox.answers import Refusal, encode

PLAIN: Final = "plain"
"""Code of a refusal whose body is its message as plain text: the server's framework said it, not the server."""
_NO_ROUTE: Final = "AB02"
_PAGE: Final = "<!DOCTYPE html><html><body><h1>404</h1><h2>This page could not be found.</h2></body></html>"
_ERRORS: Final = {
    400: "InvalidRequestError",
    401: "UnauthorizedError",
    404: "LangfuseNotFoundError",
    405: "MethodNotAllowedError",
    500: "An unknown error occurred",
}


class Invalid(Refusal):
    """A request that is not of the form; `path` leads to the field."""

    def __init__(self, path: Sequence[str | int], message: str) -> None:
        super().__init__(400, "ZodError", message)
        self.path = list(path)


class Body(NamedTuple):
    content_type: str
    text: str


def not_found(message: str) -> Refusal:
    return Refusal(404, "", message)


def no_route() -> Refusal:
    """As any path that the server does not have: a page."""
    return Refusal(404, _NO_ROUTE, "Not Found")


def bad_request(message: str) -> Refusal:
    return Refusal(400, "", message)


def internal() -> Refusal:
    return Refusal(500, "", "Internal Server Error")


def refusal_body(refusal: Refusal, message: str) -> Body:
    """As the server says it; `message` is that of the refusal, as it shall read."""
    if isinstance(refusal, Invalid):
        issue = {"code": "custom", "path": refusal.path, "message": message}
        return _json({"message": "Invalid request data", "error": [issue]})
    if refusal.code == PLAIN or refusal.status == 429:
        return Body("text/plain", message)
    if (refusal.status, refusal.code) == (404, _NO_ROUTE):
        return Body("text/html", _PAGE)
    return _json({"message": message, "error": _ERRORS.get(refusal.status, "InternalServerError")})


def _json(value: object) -> Body:
    return Body("application/json", encode(value))
