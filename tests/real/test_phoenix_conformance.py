"""The conformance suite on a real Phoenix server: what the stand-in is taken for holds there too."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Final

import pytest

from tests.conformance import test_conformance as suite
from tests.conformance.test_conformance import End
from tests.real.servers import Server

KIND: Final = "phoenix"
end = suite.end
globals().update({name: test for name, test in vars(suite).items() if name.startswith("test_")})


@pytest.fixture(autouse=True)
def _on_the_server(phoenix_server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each opening of the kind is of an empty server."""

    @asynccontextmanager
    async def opened() -> AsyncIterator[End]:
        phoenix_server.empty()
        async with suite.phoenix_at(phoenix_server.base_url) as found:
            yield found

    monkeypatch.setitem(suite.KINDS, KIND, replace(suite.KINDS[KIND], open=opened))
