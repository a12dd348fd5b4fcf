"""An address that leads to a web page: each registry says how its own looks, and of no other one."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import SecretStr

from engine.connectors import REGISTRIES
from engine.errors import Stop
from tests.ends import opening
from tests.raw_server import RawServer, answer

PAGE = answer(200, b"<!doctype html><title>Welcome</title>", {"Content-Type": "text/html"})
SERVED = [kind for kind, row in REGISTRIES.items() if "base_url" in row.endpoint.model_fields]


def end_at(kind: str, url: str) -> Any:
    """An end of this kind there, with any keys."""
    end = REGISTRIES[kind].endpoint
    secrets: dict[str, Any] = {name: SecretStr("a-key") for name in end.needed if name != "base_url"}
    return end.model_construct(base_url=url, **secrets)


@pytest.mark.parametrize("kind", SERVED)
async def test_a_page_in_the_place_of_an_api(kind: str) -> None:
    async with (
        RawServer(PAGE) as server,
        REGISTRIES[kind].connect(end_at(kind, server.url), opening(attempts=1)) as target,
    ):
        with pytest.raises(Stop) as caught:
            await anext(aiter(target.pages()))
    assert "base_url is not its API" in str(caught.value)
    advice = caught.value.next
    assert REGISTRIES[kind].endpoint.address_form in advice
    others = [one.endpoint.address_form for one in REGISTRIES.values() if one.kind not in (kind, "files")]
    assert not [form for form in others if form in advice]


@pytest.mark.parametrize("kind", SERVED)
def test_every_registry_says_how_its_address_looks(kind: str) -> None:
    assert kind in REGISTRIES[kind].endpoint.address_form.lower()
