"""The benchmark itself works: every client moves every prompt once. Its figures are for people."""

from __future__ import annotations

import subprocess
import sys

import pytest

from benchmarks.__main__ import ROOT, ran
from benchmarks.clients import CLIENTS


@pytest.mark.parametrize("client", CLIENTS)
def test_every_client_creates_every_prompt_once(client: str) -> None:
    assert ran(client, 9).keys() == {"cpu_s", "wall_s", "peak_mib"}


def test_the_table_has_a_row_for_each() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks", "--quick"], cwd=ROOT, check=True, capture_output=True, text=True
    )
    assert [line.split("|")[1].strip() for line in done.stdout.splitlines()[2:]] == list(CLIENTS)
