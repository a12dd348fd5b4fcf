"""Campaigns run whole migrations by the hundred: what they run through is measured by the tests of its own folder."""

from __future__ import annotations

from pathlib import Path

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks those of this folder."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("unmeasured")
