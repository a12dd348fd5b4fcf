"""Whatever is shown of a value, in a traceback, a debugger or a log of somebody else's: no secret is in it."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import json
import pkgutil
import re
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from pydantic import BaseModel, SecretStr

import engine
from engine.cli.common import Common
from engine.config import load_migration
from engine.connectors.fields import Surroundings
from engine.errors import ConfigError, EngineError
from engine.http.client import _Progress
from engine.http.limiter import RateLimiter
from engine.http.responses import Answer, Request, read_answer
from engine.http.session import KeyAuth, RequestLimits, open_client
from engine.session.connect import open_ends
from tests.raw_server import RawServer, answer

CANARY: Final = "canary-0123456789-secret"
MIGRATION: Final = {
    "name": "m",
    "source": {"base_url": "https://registry.test/v1", "api_key": "${KEY}", "gateway_key": {"file": "key"}},
    "target": {
        "kind": "conductor",
        "base_url": "https://cluster.test/api",
        "key_id": {"command": ["printf", CANARY]},
        "key_secret": "${KEY}",
    },
}

# ---- every class there is --------------------------------------------------------------------------------------------

SECRET = re.compile(
    r"(^|_)(key|keys|token|tokens|secret|secrets|password|headers|auth|proxy|environ|credentials|cookies?)(_|$)"
)
HARMLESS = {
    "Mark.key": "names a replica, and stands in the ledger",
    "_Place.key": "the same",
    "Written.key": "the same",
    "Problem.key": "a key of the migration file, by its name",
    "_Kind.key": "the same",
    "Kind.keys": "keys of the migration file, by their names",
    "Key.secret": "whether one of these is a secret",
    "Completion.tokens": "how many a model took",
    "_Told.tokens": "the same",
    "Reply.tokens": "the same",
    "Judgement.tokens": "the same",
    "Shape.keys": "names in JSON, of which only a type is known",
    "Chat.keys": "names of what a message may have",
    "Trusted.keys": "public halves",
    "_Counting.keys": "the same",
    "Conductor.tokens": "the sandbox's own, which open nothing else",
    "Quirks.echo_key": "a switch of the sandbox",
    "ConductorQuirks.token_lifetime_s": "seconds",
    "ConductorQuirks.token_requests": "a number of requests",
    "ConductorQuirks.token_status": "a status",
}


def classes() -> Iterator[type]:
    for module in pkgutil.walk_packages(engine.__path__, "engine."):
        if not module.name.endswith(("__main__", "on_ray")):  # Ray is an extra
            loaded = importlib.import_module(module.name)
            yield from (one for one in vars(loaded).values() if inspect.isclass(one) and one.__module__ == module.name)


def shown(one: type) -> Iterator[str]:
    """The fields that its repr shows."""
    if dataclasses.is_dataclass(one):
        yield from (
            field.name for field in dataclasses.fields(one) if field.repr and one.__repr__ is not object.__repr__
        )
    elif issubclass(one, BaseModel):
        hidden = {name for name, field in one.model_fields.items() if SecretStr.__name__ in str(field.annotation)}
        yield from one.model_fields.keys() - hidden
    elif issubclass(one, tuple):
        yield from getattr(one, "_fields", ())


def test_no_class_shows_a_field_that_is_named_like_a_secret() -> None:
    named = {f"{one.__name__}.{name}" for one in classes() for name in shown(one) if SECRET.search(name)}
    assert named == set(HARMLESS), "hide it with field(repr=False), or say why it is harmless"


# ---- what holds one --------------------------------------------------------------------------------------------------


@pytest.fixture
def migration(tmp_path: Path) -> Any:
    (tmp_path / "m.yaml").write_text(json.dumps(MIGRATION))
    (tmp_path / "key").write_text(CANARY)
    return load_migration(tmp_path / "m.yaml", {"KEY": CANARY, "PATH": "/usr/bin:/bin"})


def everything_about(value: object) -> str:
    """What Python says of it, also in the middle of other values, and in a traceback of somebody who prints locals."""
    held = [value]
    try:
        raise ValueError("a bug")
    except ValueError as error:
        trace = traceback.TracebackException.from_exception(error, capture_locals=True)
    return f"{value} {value!r} {held!r} {''.join(trace.format())}"


def test_values_that_hold_a_secret_do_not_show_it(migration: Any) -> None:
    common = Common()
    common.secrets.add(CANARY)
    headers = {"x-portkey-api-key": CANARY}
    request = Request(end="e", call="token", method="POST", url="http://registry.test", body=CANARY.encode(), cap=10)
    refused = read_answer(request, Answer(status=400, headers=headers, body=json.dumps({"message": CANARY}).encode()))
    token = read_answer(request, Answer(status=200, body=json.dumps({"token": CANARY}).encode()))
    for value in (
        migration,
        migration.source,
        migration.target,
        *(end.address for end in migration.ends),
        Surroundings(Path(), {"KEY": CANARY}),
        KeyAuth("x-portkey-api-key", CANARY),
        _Progress(headers=headers),
        request,
        refused,
        token,
        common,
    ):
        assert CANARY not in everything_about(value), type(value)


async def test_open_ends_do_not_show_their_keys(migration: Any) -> None:
    async with open_ends(migration, gateways=False) as ends:
        assert CANARY not in everything_about(ends)
        for end in (ends.source, ends.target):
            assert CANARY not in everything_about(end)


@pytest.mark.parametrize("place", ["api_key", "base_url", "gateway_url"])
@pytest.mark.parametrize(
    "value",
    [CANARY, f"https://user:{CANARY}@host/v1", "${KEY} ${KEY}", "${SPACED}", {"file": "spaced"}, {"command": ["no"]}],
)
def test_a_secret_in_the_wrong_place_is_not_repeated(place: str, value: Any, tmp_path: Path) -> None:
    source = {"api_key": "${KEY}", place: value}
    if place == "base_url":
        source["api_key"] = {"command": ["sh", "-c", f"echo {CANARY}; echo {CANARY}; exit 3"]}
    (tmp_path / "spaced").write_text(f"{CANARY} and more")
    (tmp_path / "m.yaml").write_text(json.dumps({"name": "m", "source": source}))
    environ = {"KEY": CANARY, "SPACED": f"{CANARY} {CANARY}\n{CANARY}", "PATH": "/usr/bin:/bin"}
    with pytest.raises(ConfigError) as refused:
        load_migration(tmp_path / "m.yaml", environ)
    text = "".join(traceback.format_exception(refused.value))
    assert CANARY not in f"{refused.value!r} {refused.value.problems} {text} {refused.value.__context__!r}"


# ---- a proxy with a password -----------------------------------------------------------------------------------------

PROXIES = {
    "no port": f"http://me:{CANARY}@proxy.test:no-port",
    "socks": f"socks5://me:{CANARY}@proxy.test:1080",
    "no host": f"http://me:{CANARY}@",
    "a path": f"/etc/{CANARY}",
    "brackets": f"http://me:{CANARY}@[::1",
}


@pytest.mark.parametrize("proxy", PROXIES.values(), ids=PROXIES)
async def test_a_proxy_that_is_none_is_refused_and_not_repeated(proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setenv("http_proxy", proxy)
    with pytest.raises(ConfigError) as refused:
        await _read("http://registry.test")
    assert str(refused.value).startswith("HTTP_PROXY: ")
    text = "".join(traceback.format_exception(refused.value))
    assert CANARY not in f"{refused.value!r} {text} {refused.value.__context__!r}"


@pytest.mark.parametrize("form", ["http://me:{}@127.0.0.1:{}", "me:{}@127.0.0.1:{}"])
async def test_the_password_of_a_proxy_goes_to_the_proxy_alone(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("no_proxy", raising=False)
    async with RawServer(answer(407, CANARY.encode()), answer(407, CANARY.encode())) as proxy:
        monkeypatch.setenv("http_proxy", form.format(CANARY, proxy.port))
        with pytest.raises(EngineError) as refused:
            await _read("http://registry.test")
        assert "proxy-authorization" in proxy.received[0].headers
    assert CANARY not in "".join(traceback.format_exception(refused.value))
    assert not any(CANARY in repr(value) for value in _frames(refused.value))


def _frames(error: BaseException) -> Iterator[object]:
    """The locals of our own functions in its traceback."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if Path(frame.f_code.co_filename).is_relative_to(Path(engine.__path__[0])):
            yield from frame.f_locals.values()


async def _read(url: str) -> Any:
    gate, limits = RateLimiter(rate=1000, concurrency=1), RequestLimits(timeout=5, attempts=1)
    async with open_client(url, KeyAuth("x-key", "key"), gate, limits, name="source") as client:
        return await client.read("list", "/prompts")


def test_a_traceback_with_locals_was_looked_at() -> None:
    """The way of looking finds what is there: otherwise the tests above show nothing."""
    assert CANARY in everything_about(CANARY)
    assert sys.version_info >= (3, 11)
