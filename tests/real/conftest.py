"""One server and one client of each kind for all tests; every test finds an empty registry."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.real.official import Official, official
from tests.real.servers import MLFLOW, PHOENIX, START_S, Server, running

HERE = Path(__file__).parent


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All tests of this folder are `real`, and have the time that a start may take. Of the conformance suite, a module
    takes what is for its own kind.
    """
    items[:] = [item for item in items if _is_for_its_kind(item)]
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.real)
            if item.get_closest_marker("timeout") is None:
                item.add_marker(pytest.mark.timeout(2 * START_S))


def _is_for_its_kind(item: pytest.Item) -> bool:
    kind = getattr(getattr(item, "module", None), "KIND", None)
    params = getattr(getattr(item, "callspec", None), "params", {})
    return kind is None or kind in (params.get("end"), params.get("name"))


@pytest.fixture(scope="session")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(MLFLOW, tmp_path_factory.mktemp("mlflow")) as server:
        yield server


@pytest.fixture(scope="session")
def phoenix_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(PHOENIX, tmp_path_factory.mktemp("phoenix")) as server:
        yield server


@pytest.fixture
def mlflow(mlflow_server: Server) -> Server:
    """Without prompts."""
    mlflow_server.empty()
    return mlflow_server


@pytest.fixture
def phoenix(phoenix_server: Server) -> Server:
    """Without prompts."""
    phoenix_server.empty()
    return phoenix_server


@pytest.fixture(scope="session")
def _mlflow_client(mlflow_server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Official]:
    with official("mlflow", mlflow_server.base_url, tmp_path_factory.mktemp("mlflow-client")) as client:
        yield client


@pytest.fixture(scope="session")
def _phoenix_client(phoenix_server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Official]:
    with official("phoenix", phoenix_server.base_url, tmp_path_factory.mktemp("phoenix-client")) as client:
        yield client


@pytest.fixture
def mlflow_client(_mlflow_client: Official, mlflow: Server) -> Official:
    """MLflow's own client, at a server without prompts."""
    return _mlflow_client


@pytest.fixture
def phoenix_client(_phoenix_client: Official, phoenix: Server) -> Official:
    """Phoenix's own client, at a server without prompts."""
    return _phoenix_client
