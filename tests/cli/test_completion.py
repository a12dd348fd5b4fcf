"""Completion in the shell: what is offered, what is installed, and what is said when it cannot be."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e import Ended, promptferry
from tests.forks import PATIENCE_S, environment

COMMAND = Path(sys.executable).with_name("promptferry")


def offered(folder: Path, line: str) -> list[str]:
    """What bash would offer for the last word of this line."""
    env = {"_PROMPTFERRY_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(line.count(" "))}
    return promptferry(cwd=folder, env=env).out.split()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("promptferry rol", ["rollback"]),
        ("promptferry fleet ro", ["rollback"]),
        ("promptferry run --retr", ["--retry-failed"]),
        ("promptferry run --log-level e", ["error"]),
        ("promptferry run migr", []),  # a file, which is the shell's own business
    ],
)
def test_words_are_offered(line: str, words: list[str], tmp_path: Path) -> None:
    assert offered(tmp_path, line) == words


def install(shell: str, home: Path) -> Ended:
    """From a shell that stays there meanwhile: it is found among the parents of the command."""
    script = f'"{COMMAND}" --install-completion; exit $?'
    process = subprocess.run(
        [shell, "-c", script], env=environment(HOME=str(home)), capture_output=True, text=True, timeout=PATIENCE_S
    )
    return Ended(process.returncode, process.stdout, process.stderr)


def test_it_is_installed_once_and_what_stood_in_the_start_file_stays(tmp_path: Path) -> None:
    (tmp_path / ".bashrc").write_text("alias ll='ls -l'\n")
    assert [install("bash", tmp_path).code for _ in range(2)] == [0, 0]
    (script,) = (tmp_path / ".bash_completions").iterdir()
    (alias, line) = filter(None, (tmp_path / ".bashrc").read_text().splitlines())
    assert (alias, line) == ("alias ll='ls -l'", f"source '{script}'")
    shell = ["bash", "-c", f"{line}; complete -p promptferry"]
    told = subprocess.run(shell, capture_output=True, text=True, timeout=PATIENCE_S, check=True)
    assert "-F _promptferry_completion promptferry" in told.stdout


def test_a_home_that_cannot_be_written_or_read_is_told(tmp_path: Path) -> None:
    nowhere = install("bash", Path("/proc/self"))
    assert (nowhere.code, "--show-completion" in nowhere.err) == (2, True)
    assert nowhere.sentence().startswith("completion was not installed: /proc/self/.bashrc: ")
    (tmp_path / ".bashrc").write_bytes(b"# caf\xe9\n")
    unreadable = install("bash", tmp_path)
    assert unreadable.code == 2
    assert "completion was not installed" in unreadable.sentence()
    assert (tmp_path / ".bashrc").read_bytes() == b"# caf\xe9\n"


def test_a_shell_that_it_is_not_made_for_is_told(tmp_path: Path) -> None:
    found = install("sh", tmp_path)
    assert (found.code, found.sentence()) == (2, "start it from the shell that is to complete: bash, zsh or fish")
    assert list(tmp_path.iterdir()) == []
