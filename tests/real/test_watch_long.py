"""The live page beside a run of 2,000 prompts: as tests/web/test_watch.py, which takes fewer."""

from __future__ import annotations

from pathlib import Path

from tests.web.test_watch import all_watched


def test_a_run_of_two_thousand_prompts_is_shown_at_every_step(tmp_path: Path) -> None:
    all_watched(tmp_path, 2000)
