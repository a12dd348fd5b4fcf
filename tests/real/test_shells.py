"""Completion as people meet it: in bash, zsh and fish, at a terminal."""

from __future__ import annotations

import os
import pty
import select
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.real.servers import surroundings
from tests.real.tools import needed, passed

TYPING_S = 60
BIN = Path(sys.executable).parent


def home(folder: Path) -> dict[str, str]:
    return {"HOME": str(folder), "PATH": f"{BIN}:/usr/bin:/bin", "TERM": "xterm", "SHELL": "/bin/sh"}


def install(shell: str, folder: Path) -> None:
    """As somebody does who works in that shell."""
    passed(needed(shell), "-c", "promptferry --install-completion; true", cwd=folder, env=home(folder))


class Terminal:
    """A shell that somebody types into."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._shown = b""

    def types(self, keys: str) -> None:
        os.write(self._fd, keys.encode())

    def shows(self, word: str) -> None:
        deadline = time.monotonic() + TYPING_S
        while word.encode() not in self._shown:
            assert select.select([self._fd], [], [], max(0.0, deadline - time.monotonic()))[0], self._shown
            self._shown += os.read(self._fd, 1 << 16)
        self._shown = self._shown.partition(word.encode())[2]


@contextmanager
def terminal(shell: str, folder: Path) -> Iterator[Terminal]:
    path, env = needed(shell), surroundings(**home(folder))
    pid, fd = pty.fork()
    if pid == 0:
        os.chdir(folder)
        os.execve(path, [shell, "-i"], env)
    try:
        yield Terminal(fd)
    finally:
        os.close(fd)
        os.waitpid(pid, 0)


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_a_tab_completes(shell: str, tmp_path: Path) -> None:
    install(shell, tmp_path)
    (tmp_path / "migration.yaml").touch()
    with terminal(shell, tmp_path) as person:
        # the marks are not what was typed, which the terminal shows as well; in zsh the first tab loads the completion
        person.types("echo rea''dy\r")
        person.shows("ready")
        if shell == "zsh":
            person.types("promptferry \t\x15echo loa''ded\r")
            person.shows("loaded")
        person.types("promptferry rol\t")
        person.shows("lback")
        person.types("\x15promptferry run --retr\t")
        person.shows("y-failed")
        person.types("\x15promptferry run migr\t")
        person.shows("ation.yaml")


def test_fish_completes(tmp_path: Path) -> None:
    install("fish", tmp_path)
    (tmp_path / "migration.yaml").touch()
    for line, word in {"rol": "rollback", "run --retr": "--retry-failed", "run migr": "migration.yaml"}.items():
        told = passed(needed("fish"), "-c", f"complete -C 'promptferry {line}'", cwd=tmp_path, env=home(tmp_path))
        assert told.split()[0] == word
