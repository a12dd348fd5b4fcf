"""A real MLflow server as the end of a migration, seen through its database."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tests.real.servers import Server


@dataclass(frozen=True)
class Mlflow:
    """`url`: of a proxy before the server."""

    server: Server
    url: str | None = None

    @property
    def part(self) -> Mapping[str, Any]:
        return {"kind": "mlflow", "base_url": self.url or self.server.base_url}

    def add(self, name: str, text: str) -> None:
        raise AssertionError("its own client writes here")

    def edit(self, name: str, text: str) -> None:
        raise AssertionError("its own client writes here")

    def texts(self) -> dict[str, str]:
        found = self.server.rows("SELECT name, value FROM model_version_tags WHERE key = 'mlflow.prompt.text'")
        assert len(dict(found)) == len(found), "a prompt has more than one version"
        return dict(found)

    def count(self) -> tuple[int, int, int]:
        """Prompts, versions and aliases, as its own database has them."""
        tables = ("registered_models", "model_versions", "registered_model_aliases")
        prompts, versions, aliases = (self.server.rows(f"SELECT count(*) FROM {table}")[0][0] for table in tables)
        return prompts, versions, aliases
