"""`init`: the answers for the starter file, asked for on a terminal."""

from __future__ import annotations

import sys
from pathlib import Path

import typer

from engine.cli.common import write_file
from engine.cli.starter import starter
from engine.errors import ConfigError

QUESTIONS = {
    "name": ("Name of the migration (it names the ledger too)", "my-migration"),
    "base_url": ("Address of the registry, or `sandbox` to try it out", None),
    "models": ("Which models to move away from (a glob)", "*claude-3-7-*"),
    "model": ("Model of the replicas", "anthropic.claude-3-5-sonnet"),
    "provider": ("Provider slug of the replicas (empty: kept)", ""),
}


def write_starter(file: Path, answers: dict[str, str | None], *, force: bool) -> None:
    """Writes the file; on a terminal asks for what was not given. Raises ConfigError rather than write over a file."""
    if file.exists() and not force:
        raise ConfigError(f"{file}: is there already; name another file, or write over it with --force")
    if sys.stdin.isatty() and sys.stdout.isatty():
        answers = {key: value if value is not None else _ask(key) for key, value in answers.items()}
    text = starter(**{key: value for key, value in answers.items() if value})
    write_file(file, text.encode(), f"{file}", over=force)


def _ask(key: str) -> str | None:
    question, default = QUESTIONS[key]
    answer: str = typer.prompt(question, default=default or "", show_default=bool(default))
    return answer.strip() or None
