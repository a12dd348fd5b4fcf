"""JSON in and out, the refusals of the service, and the checks on what was sent.

Portkey's side keeps what it is sent: lone surrogates, NUL and U+2028 come back equal, numbers byte for byte. To
Conductor and Langfuse numbers are doubles; one that is too large for that is refused.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any, Final, NoReturn

from engine.sandbox.numbers import dumps, loads
from engine.sandbox.options import ErrorShape

Json = Any
"""A decoded JSON value."""

Kinds = Mapping[str, type | tuple[type, ...]]
"""Field names and the Python types their values may have."""

_SLUGS: Final = {
    "AB01": "validation_error",
    "AB02": "route_not_found",
    "AB03": "forbidden",
    "AB04": "internal_error",
    "AB05": "unauthorized",
    "AB06": "rate_limited",
    "AB07": "conflict",
    "AB08": "not_found",
    "AB09": "subscription_exhausted",
}


class Refusal(Exception):
    """The service says no: HTTP status, its own code, one sentence."""

    def __init__(self, status: int, code: str, message: str, *, retry_after: int | None = None) -> None:
        self.status = status
        self.code = code
        self.message = message
        self.retry_after = retry_after
        super().__init__(message)


def invalid(message: str) -> Refusal:
    return Refusal(400, "AB01", message)


def missing(what: str) -> Refusal:
    return Refusal(404, "AB08", f"{what} not found")


def forbidden(message: str) -> Refusal:
    return Refusal(403, "AB03", message)


def conflict(message: str) -> Refusal:
    return Refusal(409, "AB07", message)


def error_body(shape: ErrorShape, status: int, code: str, message: str) -> dict[str, Json]:
    """One of the four bodies that clients of the service have met."""
    if shape == "error":
        error = {"message": message, "slug": _SLUGS[code], "code": code, "type": "invalid_request_error"}
        return {"status_code": status, "success": False, "error": error}
    if shape == "message":
        return {"success": False, "message": message, "errorCode": code}
    if shape == "gateway":
        return {"status": "failure", "message": message}
    return {"success": False, "data": {"message": message, "errorCode": code}}


def encode(value: Json) -> str:
    """ASCII JSON text."""
    return dumps(value, allow_nan=False)


def decode(raw: bytes) -> dict[str, Json]:
    """The JSON object in a request body, its numbers as they were written; Refusal (400) when it is none."""
    value = _decoded(raw, partial(loads, constant=_no_constant))
    if not isinstance(value, dict):
        raise invalid("the body must be a JSON object")
    return value


def decode_list(raw: bytes) -> list[Json]:
    """The JSON array in a request body, its numbers as doubles; Refusal (400) when it is none."""
    value = decode_any(raw)
    if not isinstance(value, list):
        raise invalid("the body must be a JSON array")
    return value


def decode_any(raw: bytes) -> Json:
    """The JSON value in a request body, its numbers as doubles; Refusal (400) when it is none."""
    return _decoded(raw, partial(json.loads, parse_constant=_no_constant, parse_float=_finite))


def _decoded(raw: bytes, read: Callable[[bytes], Json]) -> Json:
    try:
        return read(raw)
    except (ValueError, RecursionError) as exc:
        raise invalid("the body is not JSON that this service can keep") from exc


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("a number is out of range")
    return number


def check(body: Mapping[str, Json], kinds: Kinds, required: Collection[str] = ()) -> None:
    """Refusal (400) for a required field that is absent and for any field of the wrong type; null is of no type."""
    for field in required:
        if field not in body:
            raise invalid(f'"{field}" is required')
    for field, kind in kinds.items():
        if field in body and not _is(body[field], kind):
            raise invalid(f'"{field}" has the wrong type')


def _is(value: Json, kind: type | tuple[type, ...]) -> bool:
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))


def whole_number(text: str, field: str) -> int:
    """A query parameter that must be 0 or more; Refusal (400) otherwise."""
    if not (text.isascii() and text.isdigit() and len(text) < 18):
        raise invalid(f'"{field}" must be a whole number')
    return int(text)
