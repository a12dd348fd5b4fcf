"""Tokens of Conductor: signed, so that they outlive a restart; what they have been used for is forgotten by it."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import uuid
from collections.abc import Callable
from typing import Final, NamedTuple

from engine.sandbox.answers import Json, Refusal, encode
from engine.sandbox.options import ConductorQuirks

_NEVER: Final = 2**52


class Claims(NamedTuple):
    """What a token says: who uses it and in which cluster. `iat` and `exp` are seconds since 1970."""

    sub: str
    org: str
    iat: int
    exp: int
    jti: str


class Tokens:
    """Issues tokens and judges them. `issued` counts those of this start."""

    def __init__(self, seed: int, quirks: ConductorQuirks, clock: Callable[[], float]) -> None:
        self.issued = 0
        self._secret = hashlib.sha256(f"{seed} tokens".encode()).digest()
        self._quirks = quirks
        self._clock = clock
        self._used: dict[str, float] = {}

    def issue(self, user: str, cluster: str, expiration: int | None) -> str:
        """`expiration`: milliseconds; negative: never."""
        now = int(self._clock())
        seconds = self._quirks.token_lifetime_s if expiration is None else expiration / 1000
        exp = _NEVER if seconds < 0 else int(now + seconds)
        claims = Claims(sub=user, org=cluster, iat=now, exp=exp, jti=str(uuid.uuid4()))
        self.issued += 1
        self._used[claims.jti] = 0
        signed = f"{_part({'alg': 'HS256', 'typ': 'JWT'})}.{_part(claims._asdict())}"
        return f"{signed}.{self._signature(signed)}"

    def judge(self, token: str) -> Claims:
        """What it says; counts as a use of it. Refusal: EXPIRED_TOKEN or INVALID_TOKEN."""
        claims = self._read(token)
        if claims is None:
            raise self._refusal("INVALID_TOKEN", "the token is not valid")
        used = self._used.get(claims.jti, 0)
        limit = self._quirks.token_requests
        if self._clock() >= claims.exp or used == float("inf") or (limit is not None and used >= limit):
            raise self._refusal("EXPIRED_TOKEN", "the token has expired")
        self._used[claims.jti] = used + 1
        return claims

    def expire(self) -> None:
        """Every token of this start expires now."""
        self._used = dict.fromkeys(self._used, float("inf"))

    def _read(self, token: str) -> Claims | None:
        signed, _, signature = token.rpartition(".")
        if not hmac.compare_digest(signature.encode("utf-8", "replace"), self._signature(signed).encode()):
            return None
        try:
            return Claims(**json.loads(base64.urlsafe_b64decode(signed.partition(".")[2] + "==")))
        except (ValueError, TypeError, binascii.Error):
            return None

    def _signature(self, signed: str) -> str:
        digest = hmac.new(self._secret, signed.encode("utf-8", "replace"), hashlib.sha256).digest()
        return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()

    def _refusal(self, code: str, message: str) -> Refusal:
        return Refusal(self._quirks.token_status, code, message)


def _part(value: Json) -> str:
    return base64.urlsafe_b64encode(encode(value).encode()).rstrip(b"=").decode()
