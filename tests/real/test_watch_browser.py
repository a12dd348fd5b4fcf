"""The live page in a real browser, beside runs that are killed, stopped from the page, and resumed."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final

from engine.sandbox import SandboxOptions
from tests.e2e import lines, served, started, wait_for_lines, write_migration
from tests.real.browser import CHROMIUM, MODULE
from tests.real.test_page import pytestmark as pytestmark

PROMPTS: Final = 60


class Browser:
    """A page that says what it shows."""

    def __init__(self, orders: IO[str], answers: IO[str]) -> None:
        self._orders, self._answers = orders, answers

    def do(self, order: str) -> dict[str, Any]:
        """Until it is done."""
        print(order, file=self._orders, flush=True)
        line = self._answers.readline()
        assert line, f"{order}: see the browser's own words above"
        found: dict[str, Any] = json.loads(line)
        return found


@contextmanager
def browser(url: str) -> Iterator[Browser]:
    told = json.dumps({"module": str(MODULE), "chromium": CHROMIUM, "url": url})
    command = ["node", str(Path(__file__).with_name("live.mjs")), told]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield Browser(process.stdin, process.stdout)
        finally:
            process.kill()


def test_a_browser_shows_a_run_that_is_killed_stopped_and_resumed(tmp_path: Path) -> None:
    with served(SandboxOptions(prompts=PROMPTS)) as registry:
        env = {"KEY": registry.api_key}
        path = write_migration(tmp_path, registry.base_url, limits={"rate": 20, "settle": "0.5s", "timeout": 5})
        ledger = tmp_path / "ledger.jsonl"
        with started("watch", path, "--allow-stop", cwd=tmp_path) as watch:
            address = watch.first_line().strip()
            with browser(address) as page:
                assert page.do("see no run yet")["top"].split() == ["promptferry", "watch", "no", "run", "yet", "live"]
                with started("run", path, cwd=tmp_path, env=env) as run:
                    page.do("see running")
                    assert wait_for_lines(ledger, 20, run)
                    page.do("use")
                    before = page.do("used")
                    assert wait_for_lines(ledger, 40, run)
                    run.kill()
                assert "Stop" not in page.do("see was killed")["top"]
                after = page.do("used")  # what is drawn anew takes nothing out of anybody's hands
                assert after["drawn"] != before["drawn"]
                assert (after["same"], after["open"], after["focus"]) == (True, True, "Copy path")
                with started("run", path, cwd=tmp_path, env=env) as run:
                    assert "Stop the run" in page.do("see running")["top"]
                    page.do("stop")
                    assert run.end().code == 75
                page.do("see stopped")
                with started("run", path, "--rate", "500", cwd=tmp_path, env=env) as run:
                    assert run.end().code == 0
                counts = lines(ledger)[-1]["counts"]
                seen = page.do("see finished")
                assert seen["top"].split() == ["promptferry", "watch", "finished", "live"]
                assert f"{PROMPTS} selected = " in seen["balance"]
                assert f"{counts['created']} created" in seen["balance"]
                watch.send_signal(signal.SIGINT)
                page.do("gone")
                told = page.do("end")
        assert told["complaints"] == []
        base = address.partition("?")[0]
        assert all(url.startswith(base) for url in told["requests"])
