"""What a person at a terminal sees: the question, the live display, the summary."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import select
import struct
import subprocess
import termios
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest
from rich.console import Console

from engine.cli.common import say
from engine.cli.display import progress_lines
from engine.cli.figures import Figures, Pace, Stopwatch, told
from engine.cli.panel import duration, panel
from engine.config import load_migration
from engine.config.kinds import KINDS
from engine.http.limiter import Requests
from engine.model import Select
from engine.run import Live
from engine.sandbox import SandboxOptions
from tests.cli.test_init import Everything
from tests.e2e import COMMAND, TIMEOUT, Served, replicas, served, write_migration
from tests.forks import environment

PROMPTS: Final = 12
CTRL_C: Final = b"\x03"
COLOUR: Final = re.compile(r"\x1b\[[0-9;]*m")


class Terminal:
    """A command on a terminal of 100 columns; `shown` is all that has been written to it."""

    def __init__(self, process: subprocess.Popen[bytes], fd: int) -> None:
        self.process = process
        self.shown = ""
        self._fd = fd

    def wait_for(self, text: str) -> None:
        """Until it is shown."""
        while text not in self.shown:
            assert self._more(), f"ended without {text!r}:\n{self.shown}"

    def type(self, keys: bytes) -> None:
        os.write(self._fd, keys)

    def end(self) -> int:
        """Its exit code."""
        while self._more():
            pass
        return self.process.wait(TIMEOUT)

    def _more(self) -> bool:
        assert select.select([self._fd], [], [], TIMEOUT)[0], f"it hangs:\n{self.shown}"
        try:
            piece = os.read(self._fd, 65536)
        except OSError:  # Linux says EIO when the last process has left a terminal
            return False
        self.shown += piece.decode(errors="replace")
        return bool(piece)


@contextmanager
def terminal(*arguments: str | Path, cwd: Path, **env: str) -> Iterator[Terminal]:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
    process = subprocess.Popen(
        [*COMMAND, *map(str, arguments)],
        cwd=cwd,
        env=environment(TERM="xterm-256color", **env),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # so that Ctrl-C is a signal
    )
    os.close(theirs)
    try:
        yield Terminal(process, ours)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait(TIMEOUT)
        os.close(ours)


@pytest.fixture
def registry() -> Iterator[Served]:
    with served(SandboxOptions(prompts=PROMPTS)) as found:
        yield found


def test_a_name_does_nothing_to_the_terminal_that_shows_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nobody looks, every character is as it was: whoever reads it has to find it again."""
    name = "a\x1b[2J\x07\r\x9b31m b\tc"
    for tty, shown in ((True, r"a\x1b[2J\x07\x0d\x9b31m b" + "\tc\n"), (False, f"{name}\n")):
        out = io.StringIO()
        monkeypatch.setattr(out, "isatty", lambda tty=tty: tty)
        monkeypatch.setattr("sys.stdout", out)
        assert say(name)
        assert out.getvalue() == shown


def test_the_question_names_what_is_made_first(tmp_path: Path, registry: Served) -> None:
    there = registry.ask(lambda sandbox: sandbox.key("second"))
    home = registry.call("POST", "/collections", {"name": "Letters"})
    body = {"name": "p", "collection_id": home["id"], "string": "Hi", "parameters": {}, "model": "gpt-4o"}
    made = registry.call("POST", "/prompts", {**body, "virtual_key": "openai-prod"})
    end = {"kind": "portkey", "base_url": registry.base_url, "api_key": "${THERE}"}
    path = write_migration(
        tmp_path, registry.base_url, target=end, create_missing=["collections"], select={"ids": [made["id"]]}
    )
    with terminal("run", path, cwd=tmp_path, KEY=registry.api_key, THERE=there) as screen:
        screen.wait_for("go on? [y/N] ")
        assert f"make collection Letters ({home['slug']}), which 1 prompt needs" in screen.shown
        screen.type(b"n\n")
        screen.end()
    assert "Letters" not in [one["name"] for one in registry.call("GET", "/collections", key=there)["data"]]


def test_yes_goes_on_to_a_summary_that_can_be_read(tmp_path: Path, registry: Served) -> None:
    path = write_migration(tmp_path, registry.base_url)
    with terminal("run", path, cwd=tmp_path, KEY=registry.api_key) as screen:
        screen.wait_for("go on? [y/N] ")
        assert registry.base_url in screen.shown
        assert "(the same workspace)" in screen.shown
        assert f"{PROMPTS} replicas will be created" in screen.shown
        assert len(registry.prompts()) == PROMPTS
        screen.type(b"y\n")
        assert screen.end() == 0
    shown = COLOUR.sub("", screen.shown)
    assert re.search(rf"{PROMPTS}/{PROMPTS} prompts +100 %", shown)
    assert re.search(rf"prompts +[0-9.e+]+/s · {PROMPTS} created", shown)
    assert re.search(r"requests +[0-9.e+]+/s of [0-9.e+]+/s allowed", shown)
    assert f"{PROMPTS}  created" in screen.shown
    assert "\x1b[?25l" in screen.shown  # the live display hides the cursor ...
    assert screen.shown.rfind("\x1b[?25h") > screen.shown.rfind("\x1b[?25l")  # ... and gives it back
    assert '{"' not in screen.shown  # neither log lines nor the summary are JSON here
    assert COLOUR.search(screen.shown)
    assert len(replicas(registry.prompts())) == PROMPTS


@pytest.mark.parametrize("answer", [b"n\n", b"\n", b"\x04", CTRL_C], ids=["no", "nothing", "Ctrl-D", "Ctrl-C"])
def test_anything_but_yes_writes_nothing(answer: bytes, tmp_path: Path, registry: Served) -> None:
    path = write_migration(tmp_path, registry.base_url)
    with terminal("run", path, cwd=tmp_path, KEY=registry.api_key) as screen:
        screen.wait_for("go on? [y/N] ")
        screen.type(answer)
        assert screen.end() == 75
    assert "nothing was written" in screen.shown
    assert "Traceback" not in screen.shown
    assert len(registry.prompts()) == PROMPTS
    assert not (tmp_path / "ledger.jsonl").exists()


def test_a_scheduler_that_loses_patience_at_the_question_is_heard(tmp_path: Path, registry: Served) -> None:
    path = write_migration(tmp_path, registry.base_url)
    with terminal("run", path, cwd=tmp_path, KEY=registry.api_key) as screen:
        screen.wait_for("go on? [y/N] ")
        screen.process.terminate()
        assert screen.end() == 75
    assert "nothing was written" in screen.shown
    assert len(registry.prompts()) == PROMPTS


def test_yes_as_a_flag_asks_nothing_and_no_color_is_honoured(tmp_path: Path, registry: Served) -> None:
    path = write_migration(tmp_path, registry.base_url)
    with terminal("run", path, "--yes", cwd=tmp_path, KEY=registry.api_key, NO_COLOR="1") as screen:
        assert screen.end() == 0
    assert "go on?" not in screen.shown
    assert not re.search(r"\x1b\[(3|4|9)\d", screen.shown)


def test_with_nothing_to_do_nothing_is_asked(tmp_path: Path, registry: Served) -> None:
    path = write_migration(tmp_path, registry.base_url)
    for _ in range(2):
        with terminal("run", path, "--yes", cwd=tmp_path, KEY=registry.api_key) as screen:
            screen.end()
    with terminal("run", path, "--no-progress", cwd=tmp_path, KEY=registry.api_key) as screen:
        assert screen.end() == 0
    assert "go on?" not in screen.shown
    assert "Nothing to do." in screen.shown
    assert "\x1b" not in screen.shown


def test_ctrl_c_in_the_middle_ends_with_a_summary(tmp_path: Path, registry: Served) -> None:
    path = write_migration(tmp_path, registry.base_url, limits={"rate": 2})
    with terminal("run", path, "--yes", cwd=tmp_path, KEY=registry.api_key) as screen:
        screen.wait_for(f" 2/{PROMPTS}")
        screen.type(CTRL_C)
        assert screen.end() == 75
    assert "goes on where this run stopped" in screen.shown
    assert "Traceback" not in screen.shown
    assert 2 <= len(replicas(registry.prompts())) < PROMPTS


def drawn(now: Figures, pace: Pace, columns: int, parts: Sequence[tuple[str, Figures]] = ()) -> list[str]:
    """The lines of a display."""
    console = Console(width=columns, force_terminal=True, no_color=True, file=io.StringIO())
    with console.capture() as shown:
        console.print(panel("claude-37-to-35-bedrock", now, pace, parts))
    return [line.rstrip() for line in COLOUR.sub("", shown.get()).splitlines()]


BUSY: Final = Figures(
    stage="migrating",
    done=406,
    total=947,
    outcomes={"failed": 14, "created": 391, "conflict": 1},
    why={("failed", "bad_name"): 3, ("conflict", "exists"): 1, ("failed", "loss"): 11},
    requests=Requests(total=820, reads=412, writes=408, retries=9, throttled=9),
    in_flight=16,
    rate=50.0,
    limit=55.0,
    pause="paused 40 s: the target answered 429",
    paused_s=75.0,
)


@pytest.mark.parametrize("columns", [80, 120])
def test_a_display_has_prompts_requests_throttle_and_reasons_each_in_a_line(columns: int) -> None:
    bar, prompts, requests, throttle, failed, conflicts = drawn(BUSY, Pace(12.3, 24.6, 44), columns)
    assert bar.endswith("406/947 prompts  42 % 44 s left")
    assert prompts == "prompts   12.3/s · 391 created · 14 failed · 1 conflicts"
    assert requests.startswith("requests  24.6/s of 50/s allowed · 16 in flight · 820 sent · 9 repeated · ")
    assert throttle.startswith("throttle  paused 40 s: the target answered 429 · 9 throttled · paused 1 m")
    assert failed == "failed    11 loss · 3 bad name"
    assert conflicts == "conflicts 1 exists"
    assert all(len(line) <= columns for line in (bar, prompts, requests, throttle))


def test_a_display_says_nothing_of_what_there_is_not() -> None:
    bar, prompts, requests = drawn(Figures(stage="listing", done=0, total=0), Pace(), 80)
    assert (bar.split()[-2:], prompts) == (["0/0", "prompts"], "prompts   0/s · listing")
    assert "allowed" in requests


def test_the_time_left_is_of_the_pace_of_the_last_minute() -> None:
    times = iter([0.0, 5.0, 15.0, 100.0])
    stopwatch = Stopwatch(lambda: next(times))

    def at(done: int, sent: int) -> Pace:
        return stopwatch.see(Figures(stage="", done=done, total=100, requests=Requests(total=sent)))

    assert at(0, 0) == Pace(0.0, 0.0, None)
    assert at(10, 20) == Pace(2.0, 4.0, 45.0)
    assert at(15, 40) == Pace(0.5, 2.0, 85.0)
    assert at(15, 40) == Pace(0.0, 0.0, None)  # nothing for so long: nobody can say
    assert [duration(seconds) for seconds in (0.2, 59, 61, 3700)] == ["1 s", "59 s", "1 min 01 s", "1 h 01 min"]


async def test_a_line_of_progress_says_what_its_figures_count(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[dict[str, Any]] = []

    class Ended(Exception):
        pass

    async def once(seconds: float) -> None:
        if said:
            raise Ended

    monkeypatch.setattr("engine.cli.display.anyio.sleep", once)
    monkeypatch.setattr("engine.cli.display.log.info", lambda event, **fields: said.append({"event": event, **fields}))
    with pytest.raises(Ended):
        await progress_lines(Live("m"))
    (line,) = said
    assert line.keys() == {"event", "stage", *told(BUSY, Pace())}
    assert told(BUSY, Pace(12.34, 24.6, 43.2)) == {
        "prompts_done": 406,
        "prompts": 947,
        "prompts_failed": 14,
        "why": {"failed bad_name": 3, "conflict exists": 1, "failed loss": 11},
        "prompts_per_s": 12.3,
        "left_s": 44,
        "requests": 820,
        "requests_sent_per_s": 24.6,
        "requests_per_s": 50.0,
        "throttled": 9,
        "paused_s": 75.0,
        "pause": "paused 40 s: the target answered 429",
    }


def answered(screen: Terminal, *answers: tuple[str, str]) -> None:
    """Each question, once it is there, with what somebody types."""
    for question, answer in answers:
        screen.wait_for(question)
        screen.shown = screen.shown.partition(question)[2]
        screen.type(answer.encode() + b"\n")


def test_init_asks_for_what_was_not_given(tmp_path: Path) -> None:
    with terminal("init", "--models", "*", cwd=tmp_path) as screen:
        answered(screen, ("Name of the migration", "asked"), ("Kind of the source", ""), ("base_url", "sandbox"))
        answered(screen, ("Kind of the target", ""), ("Name of a replica", ""), ("Model of", ""), ("Provider", ""))
        assert screen.end() == 0
    text = (tmp_path / "migration.yaml").read_text()
    assert 'name: "asked"' in text
    assert 'base_url: "sandbox"' in text
    assert "api_key" not in text
    assert "Which models" not in screen.shown


QUESTIONS: Final[dict[str, tuple[str, ...]]] = {
    "portkey": ("base_url", "variable with the key"),
    "conductor": ("base_url", "variable with the id", "variable with the secret"),
    "mlflow": ("base_url", "published_by"),
    "phoenix": ("base_url", "published_by"),
    "langfuse": ("base_url", "variable with the public", "variable with the secret", "published_by"),
    "files": ("path", "format"),
}
"""Kind -> what is asked of an end of it, in this order, and nothing besides."""


RING: Final = [*zip(KINDS, [*list(KINDS)[1:], next(iter(KINDS))], strict=True)]
"""Each kind once as source and once as target."""


@pytest.mark.parametrize(("source", "target"), RING)
def test_init_asks_what_both_kinds_need_and_nothing_else(source: str, target: str, tmp_path: Path) -> None:
    questions = [
        *("Name of the migration", "Kind of the source"),
        *QUESTIONS[source],
        "Kind of the target",
        *QUESTIONS[target],
        *("Name of a replica", "Which models", "Model of the replicas", "Provider slug"),
    ]
    typed = {"Kind of the source": source, "Kind of the target": target}
    with terminal("init", cwd=tmp_path) as screen:
        answered(screen, *[(question, typed.get(question, "")) for question in questions])
        assert screen.end() == 0
    migration = load_migration(tmp_path / "migration.yaml", Everything())
    assert (migration.source.kind, migration.ends[1].kind) == (source, target)
    assert migration.selection() == Select()


def test_init_asks_again_until_it_can_be_used(tmp_path: Path) -> None:
    with terminal("init", cwd=tmp_path) as screen:
        answered(screen, ("Name of the migration", "no/name"), ("must be 1 to 100", "m"))
        answered(screen, ("Kind of the source", "langfuze"), ("did you mean `langfuse`?", "langfuse"))
        answered(screen, ("base_url", "langfuse.example"), ("must be an address", "https://langfuse.example"))
        answered(screen, ("public key", "pk-lf-canary-4711"), ("never written into a file", "${MY_KEY}"))
        answered(screen, ("secret key", ""), ("published_by", "No Label"), ("must be a label", "newest"))
        answered(screen, ("Kind of the target", "file"), ("did you mean `files`?", "files"), ("path", "backup"))
        answered(screen, ("format", ""), ("Name of a replica", "{nmae}"), ("cannot be filled in", ""), ("models", ""))
        answered(screen, ("Model of", ""), ("Provider", ""))
        assert screen.end() == 0
    text = (tmp_path / "migration.yaml").read_text()
    assert "canary" not in text
    assert "public_key: ${MY_KEY} " in text
    migration = load_migration(tmp_path / "migration.yaml", Everything())
    assert (migration.source.url, migration.ends[1].url) == ("https://langfuse.example", "backup")
