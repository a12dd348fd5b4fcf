"""A key and a text that must turn up nowhere: looked for in everything that the command leaves behind."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from engine.sandbox import Quirks, SandboxOptions
from tests.e2e import TIMEOUT, Ended, Served, promptferry, served, write_migration
from tests.forks import environment

TEXT: Final = "The canary sings in the mine at dawn"
WRONG_KEY: Final = "sk-canary-0123456789-abcdefghij"
LOUD: Final = ("--log-level", "debug")


@pytest.fixture
def registry() -> Iterator[Served]:
    """It repeats the key in its errors, and refuses some of the prompts, all of which hold the text."""
    options = SandboxOptions(prompts=0, quirks=Quirks(echo_key=True), faults={"500": 0.05}, seed=5)
    with served(options) as found:
        parameters = {"hint": TEXT, "stop": [TEXT]}
        for number in range(12):
            provider = "anthropic-prod" if number % 3 else "gone-provider"
            found.ask(
                lambda sandbox, number=number, provider=provider: sandbox.add_prompt(  # type: ignore[misc]
                    f"p{number}", f"{TEXT} {number}", virtual_key=provider, parameters=parameters
                )
            )
        yield found


def silent(folder: Path, key: str, *all_ended: Ended) -> None:
    """Neither the key nor the text, nor a good part of either, in what was printed or in any file."""
    places = {f"output {number}": one.out + one.err for number, one in enumerate(all_ended)}
    files = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".yaml"]
    places |= {str(path): path.read_text() for path in files}
    for place, text in places.items():
        for secret in (key, key[:16], key[-16:], TEXT, TEXT[:16], TEXT[-16:]):
            assert secret not in text, place


def test_runs_and_reports_hold_neither_key_nor_text(tmp_path: Path, registry: Served) -> None:
    rules = {"parameters": {"drop": ["hint"]}, "model": "gpt-4o"}
    limits = {"rate": 2000, "settle": "0.3s", "timeout": 5}
    path, key = write_migration(tmp_path, registry.base_url, rewrite=rules, limits=limits), registry.api_key
    command = ("run", path, *LOUD, "--summary", "summary.json")
    first = promptferry(*command, cwd=tmp_path, env={"KEY": key})
    assert first.summary["counts"]["failed"] == 4
    assert "***" in (tmp_path / "ledger.jsonl").read_text()  # the registry did repeat the key
    others = [
        promptferry(*arguments, *LOUD, cwd=tmp_path, env={"KEY": key})
        for arguments in (
            ("run", path, "--log-format", "console", "--retry-failed"),
            ("status", path, "--failed"),
            ("check", path),
            ("ids", path),
            ("report", path, "--html", "report.html"),
            ("report", "ledger.jsonl", "--json"),
        )
    ]
    assert all("Traceback" not in one.err for one in others)
    assert len(json.loads(others[-1].out)["prompts"]) == 12
    silent(tmp_path, key, first, *others)


def test_a_refused_key_is_repeated_nowhere(tmp_path: Path, registry: Served) -> None:
    path = write_migration(tmp_path, registry.base_url)
    for verb in ("run", "check", "plan", "inventory"):
        ended = promptferry(verb, path, *LOUD, cwd=tmp_path, env={"KEY": WRONG_KEY})
        assert ended.code == 4
        silent(tmp_path, WRONG_KEY, ended)


def test_a_literal_key_in_the_file_is_refused_without_being_repeated(tmp_path: Path) -> None:
    path = write_migration(tmp_path, "http://127.0.0.1:1/v1")
    path.write_text(path.read_text().replace("${KEY}", WRONG_KEY))
    ended = promptferry("run", path, *LOUD, cwd=tmp_path)
    assert ended.code == 2
    assert "api_key" in ended.sentence()
    silent(tmp_path, WRONG_KEY, ended)


BUGS: Final = {
    "in the rewrite": "decide.prepare = lambda job, prompt, **more: {}[prompt.text]",
    "in the client": "client.read_answer = lambda *found: found[0].missing(found, client)",
    "with a cause": "decide.make = None\ndef bug(job, prompt, **more):\n"
    "    try:\n        raise ValueError(prompt.text)\n    except ValueError as error:\n"
    "        raise RuntimeError(prompt.text, job) from error\ndecide.prepare = bug",
    "with the key": "http._exchange = lambda session, request, headers, leave: int(str(dict(headers)))",
}


@pytest.mark.parametrize("bug", BUGS.values(), ids=BUGS)
def test_a_bug_is_told_by_its_place_alone(bug: str, tmp_path: Path, registry: Served) -> None:
    path = write_migration(tmp_path, registry.base_url)
    planted = "from engine.http import client, session as http\nfrom engine.migrate import decide\n"
    code = f"{planted}{bug}\nfrom engine.cli import main\nmain()"
    done = subprocess.run(
        [sys.executable, "-c", code, "run", str(path), *LOUD],
        cwd=tmp_path,
        env=environment(KEY=registry.api_key),
        capture_output=True,
        timeout=TIMEOUT,
    )
    ended = Ended(done.returncode, done.stdout.decode(), done.stderr.decode())
    assert (ended.code, ended.summary["exit_code"]) == (4, 4)
    assert "bug in promptferry" in ended.err
    assert 'File "<string>"' in ended.err
    silent(tmp_path, registry.api_key, ended)
