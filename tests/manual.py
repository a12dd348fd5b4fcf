"""The manual page, made of what `--help` says: `python -m tests.manual` writes engine/cli/promptferry.1 anew."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import typer

from engine import __version__
from engine.cli import after, approve, compare, fleet, repoint, report, watch  # noqa: F401 - they register their commands
from engine.cli.commands import app
from engine.errors import EXIT_ACT, EXIT_DIFFERENT, EXIT_OK, EXIT_RETRY, EXIT_UNFINISHED, EXIT_USAGE

PAGE: Final = Path(__file__).parents[1] / "engine" / "cli" / "promptferry.1"
NAME: Final = "promptferry"
DATE: Final = "2026-11-29"
"""Of the version."""
WIDTH: Final = 79
"""Of the source of the page."""

ENDS: Final[Mapping[int, str]] = {
    EXIT_OK: "Done, or nothing to do.",
    EXIT_UNFINISHED: "Finished; some prompts failed, conflict, or are unresolved. Tell somebody.",
    EXIT_USAGE: "Bad usage or migration file; nothing was sent. Do not retry.",
    EXIT_DIFFERENT: "Something differs, is left to do, or was found, where a command asks for that. Look.",
    EXIT_ACT: "Stopped, and a person must act: the message says what to do. Do not retry.",
    EXIT_RETRY: "Stopped, and the same command goes on later: interrupted, time box, registry down, disk full, "
    "ledger in use. Retry later.",
}
VARIABLES: Final[Mapping[str, str]] = {
    "PROMPTFERRY_LEDGER_DIR": "Folder of ledgers, in place of the one that a migration file names.",
    "PROMPTFERRY_SIGNING_KEY": "Key file that signs approvals of a plan, and which signatures count.",
    "JOB_COMPLETION_INDEX": "With `--shards N`: which of the shards this is.",
    "GITHUB_STEP_SUMMARY": "File that gets the summary in Markdown.",
    "OTEL_EXPORTER_OTLP_ENDPOINT, TRACEPARENT": "Where traces and metrics are sent, and the trace that this one is a "
    "part of; with the extra `promptferry[otel]`.",
    "NO_COLOR": "When set, no colour.",
    "HTTPS_PROXY, NO_PROXY, SSL_CERT_FILE": "As everywhere.",
}
FILES: Final[Mapping[str, str]] = {
    "ledgers/NAME.jsonl": "What was done, line by line, beside the migration file unless it says otherwise. Keep it: "
    "with it a run goes on where the last one stopped, and `ids`, `verify` and `rollback` work.",
}


def manual() -> str:
    """The page."""
    return "".join(f"{line}\n" for line in _lines())


def _lines() -> Iterator[str]:
    top: Any = typer.main.get_command(app)
    context = typer.Context(top, info_name=NAME)
    commands = dict(_commands(top, context))
    common, inner = commands["schema"]  # which has nothing of its own
    shared = {_names(one) for one in common.params}
    yield f'.TH {NAME.upper()} 1 {DATE} "{NAME} {__version__}" "User Commands"'
    yield from (".SH NAME", f"{NAME} \\- moves prompts between registries in bulk")
    yield from (".SH SYNOPSIS", f".B {NAME}", ".I COMMAND", "[\\fIOPTIONS\\fR] [\\fIARGUMENTS\\fR]")
    yield from (".SH DESCRIPTION", *_text(top.help or ""), ".PP", *_text(top.epilog or ""))
    yield ".SH COMMANDS"
    for name, (command, around) in commands.items():
        yield from _command(name, command, around, shared)
    yield from (".SH COMMON OPTIONS", *_text("Every command has these; the last ones stand before it."))
    yield from _options([*common.params], inner)
    yield from _options([one for one in top.params if _names(one) not in shared], context)
    yield from (".SH EXIT STATUS", *_list({str(code): about for code, about in ENDS.items()}))
    yield from (".SH ENVIRONMENT", *_list(VARIABLES))
    yield from (".SH FILES", *_list(FILES))


def _commands(group: Any, context: Any, before: str = "") -> Iterator[tuple[str, tuple[Any, Any]]]:
    """Every command by its whole name, those of a group behind it."""
    for name, command in sorted(group.commands.items()):  # they are registered in the order of imports
        inner = typer.Context(command, info_name=name, parent=context)
        if hasattr(command, "commands"):
            yield from _commands(command, inner, f"{before}{name} ")
        else:
            yield f"{before}{name}", (command, inner)


def _command(name: str, command: Any, context: Any, shared: set[str]) -> Iterator[str]:
    arguments = [piece.strip("{}") for piece in command.collect_usage_pieces(context) if piece != "[OPTIONS]"]
    yield f".SS {_escaped(' '.join([name, *arguments]))}"
    for number, paragraph in enumerate(re.split(r"\n\s*\n", command.help or "")):
        yield from ([".PP"] if number else [])
        yield from _text(paragraph)
    yield from _options([one for one in command.params if _names(one) not in shared], context)


def _options(params: list[Any], context: Any) -> Iterator[str]:
    for one in params:
        if one.param_type_name == "option" and (told := one.get_help_record(context)) is not None:
            yield from _list({told[0]: told[1]})


def _names(param: Any) -> str:
    return " ".join(param.opts)


def _list(items: Mapping[str, str]) -> Iterator[str]:
    for term, about in items.items():
        yield from (".TP", f".B {_escaped(term)}", *_text(about))


def _text(text: str) -> Iterator[str]:
    """Filled by whoever shows it; what stands in backticks is bold."""
    parts = re.split(r"`([^`]*)`", " ".join(text.split()))
    joined = "".join(f"\\fB{_escaped(part)}\\fR" if at % 2 else _escaped(part) for at, part in enumerate(parts))
    yield from _filled(joined)


def _filled(text: str) -> Iterator[str]:
    line = ""
    for word in text.split():
        if line and len(line) + 1 + len(word) > WIDTH:
            yield line
            line = ""
        line = f"{line} {word}" if line else _at_start(word)
    if line:
        yield line


def _at_start(word: str) -> str:
    """A dot or a quote there would be taken for a request."""
    return f"\\&{word}" if word[0] in ".'" else word


def _escaped(text: str) -> str:
    return text.replace("\\", "\\e").replace("-", "\\-")


def main() -> None:
    """Writes it."""
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(manual(), encoding="utf-8")


if __name__ == "__main__":
    main()
