"""`init`: the answers for the starter file, from flags, and asked for on a terminal."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final

import typer

from engine.cli.common import on_terminal, write_file
from engine.cli.starter import default_name, default_replica, start_of, starter
from engine.config.complaints import must_be
from engine.config.kinds import KINDS, Key, complaint_on, is_sandbox
from engine.errors import ConfigError

_FIRST: Final = next(iter(KINDS))
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_REFERENCE: Final = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_NO_VARIABLE: Final = (
    "must be the name of the environment variable that will hold it, in capitals, such as {start}; the key itself is "
    "never written into a file"
)


@dataclass(slots=True, kw_only=True)
class Answers:
    """What is known of the file. None: not given."""

    name: str | None
    source_kind: str | None
    target_kind: str | None
    source: dict[str, str] = field(repr=False)  # somebody may give a key where its variable's name belongs
    target: dict[str, str] = field(repr=False)
    replica: str | None
    models: str | None
    model: str | None
    provider: str | None

    @property
    def kinds(self) -> tuple[str, str | None]:
        """Of source and target; None: the workspace of the source."""
        source = self.source_kind or _FIRST
        return source, self.target_kind or (source if self.target else None)


def write_starter(file: Path, answers: Answers, *, force: bool) -> list[str]:
    """Writes the file, and gives the variables that it needs; on a terminal asks for what was not given. Raises
    ConfigError for what cannot be used, and rather than write over a file.
    """
    if os.path.exists(file) and not force:
        raise ConfigError(f"{file}: is there already; name another file, or write over it with --force")
    _check(answers)
    if on_terminal():
        _ask(answers)
    source, target = answers.kinds
    text = starter(
        name=answers.name,
        source_kind=source,
        target_kind=target,
        source=answers.source,
        target=answers.target,
        replica=answers.replica,
        models=answers.models,
        model=answers.model,
        provider=answers.provider,
    )
    write_file(file, text.encode(), f"{file}", over=force)
    said = "\n".join(line.partition("#")[0] for line in text.splitlines())
    return list(dict.fromkeys(_REFERENCE.findall(said)))


def pairs(flag: str, given: Sequence[str]) -> dict[str, str]:
    """The keys of an end and their values, from KEY=VALUE. Raises ConfigError."""
    found: dict[str, str] = {}
    for pair in given:
        key, sign, value = pair.partition("=")
        if not sign or not value:
            raise ConfigError(f"{flag}: must be KEY=VALUE, such as {flag} base_url=https://HOST")
        found[key] = value
    return found


# ---- what was given --------------------------------------------------------------------------------------------------


def _check(answers: Answers) -> None:
    """All that is wrong with what was given, at once."""
    problems = list(_wrong_kinds(answers))
    if not problems:
        source, target = answers.kinds
        problems = [*_wrong_keys("source", source, answers.source)]
        problems += _wrong_keys("target", target, answers.target) if target is not None else []
        problems += _wrong_texts(answers)
    if problems:
        raise ConfigError("\n".join(problems))


def _wrong_kinds(answers: Answers) -> Iterator[str]:
    for end, kind in (("source", answers.source_kind), ("target", answers.target_kind)):
        if kind is not None and kind not in KINDS:
            yield f"--{end}-kind: {must_be(KINDS, kind)}"


def _wrong_keys(end: str, kind: str, given: dict[str, str]) -> Iterator[str]:
    known = KINDS[kind].keys
    for name, value in list(given.items()):
        if (key := known.get(name)) is None:
            nearest = get_close_matches(name, known, n=1)
            yield f"--{end}: kind {kind} has no key `{name}`; " + (
                f"did you mean `{nearest[0]}`?" if nearest else f"it has {', '.join(known)}"
            )
            continue
        given[name] = _variable(value) if key.secret else value
        if (why := _wrong_value(end, kind, given, key)) is not None:
            yield f"--{end} {name}: {why}"


def _wrong_texts(answers: Answers) -> Iterator[str]:
    for flag, place, value in (
        ("--name", ("name",), answers.name),
        ("--replica-name", ("rewrite", "name"), answers.replica),
    ):
        if value is not None and (why := _wrong_text(place, value)) is not None:
            yield f"{flag}: {why}"


def _variable(value: str) -> str:
    """`NAME` and `${NAME}` are the same."""
    return value[2:-1] if value.startswith("${") and value.endswith("}") else value


def _wrong_value(end: str, kind: str, given: Mapping[str, str], key: Key) -> str | None:
    value = given[key.name]
    if key.secret:
        known = _VARIABLE.fullmatch(value) and (value == value.upper() or value in os.environ)
        return None if known else _NO_VARIABLE.format(start=start_of(key, again=False))
    if "${" in value:  # what it stands for is known when the file is read
        return None
    secrets = {name: f"${{{other}}}" if KINDS[kind].keys[name].secret else other for name, other in given.items()}
    return complaint_on((end, key.name), {end: {"kind": kind, **secrets}})


def _wrong_text(place: tuple[str, ...], value: str) -> str | None:
    file: Any = value
    for step in reversed(place):
        file = {step: file}
    return complaint_on(place, file)


# ---- what is asked ---------------------------------------------------------------------------------------------------


def _ask(answers: Answers) -> None:
    """For each that was not given, in the order of the file."""
    if answers.name is None:
        answers.name = _answer("Name of the migration (it names the ledger too)", _suggested(answers), _as_text("name"))
    kinds = ", ".join(KINDS)
    if answers.source_kind is None:
        answers.source_kind = _answer(f"Kind of the source ({kinds})", _FIRST, _as_kind)
    source = answers.source_kind or _FIRST
    _ask_end("source", source, answers.source, again=False)
    if answers.target_kind is None and not answers.target:
        question = f"Kind of the target ({kinds}; empty: the source's own workspace)"
        answers.target_kind = _answer(question, "", _as_kind) or None
    source, target = answers.kinds
    if target is not None:
        _ask_end("target", target, answers.target, again=target == source)
    if answers.replica is None:
        name = default_replica(source, target)
        answers.replica = _answer("Name of a replica, made of its source's", name, _as_text("rewrite", "name"))
    _ask_changes(answers, elsewhere=target is not None)


def _suggested(answers: Answers) -> str:
    return default_name(*answers.kinds)


def _ask_end(end: str, kind: str, given: dict[str, str], *, again: bool) -> None:
    for key in KINDS[kind].keys.values():
        tried = key.secret and is_sandbox(given.get("base_url", ""))
        if key.asked and not tried and key.name not in given:
            given[key.name] = _answer(_question(end, key), start_of(key, again=again), _as_value(end, kind, given, key))


def _question(end: str, key: Key) -> str:
    says = key.says.removesuffix(".")
    if key.secret:
        return f"{end.capitalize()}: environment variable with the {says[:1].lower()}{says[1:]}"
    return f"{end.capitalize()}: {key.name} ({says[:1].lower()}{says[1:]})"


def _ask_changes(answers: Answers, *, elsewhere: bool) -> None:
    models, model = ("", "") if elsewhere else ("*claude-3-7-*", "anthropic.claude-3-5-sonnet")
    if answers.models is None:
        which = "Which models (a glob; empty: all)" if elsewhere else "Which models to move away from (a glob)"
        answers.models = _answer(which, models) or None
    if answers.model is None:
        answers.model = _answer(f"Model of the replicas{' (empty: kept)' if elsewhere else ''}", model) or None
    if answers.provider is None:
        answers.provider = _answer("Provider slug of the replicas (empty: kept)", "") or None


Wrong = Callable[[str], str | None]


def _as_kind(kind: str) -> str | None:
    return must_be(KINDS, kind) if kind and kind not in KINDS else None


def _as_text(*place: str) -> Wrong:
    return lambda value: _wrong_text(place, value)


def _as_value(end: str, kind: str, given: Mapping[str, str], key: Key) -> Wrong:
    return lambda value: _wrong_value(end, kind, {**given, key.name: value}, key)


def _answer(question: str, default: str, wrong: Wrong = lambda value: None) -> str:
    """Asked until it can be used; never repeated, for it may be a key."""
    while True:
        answer = _variable(str(typer.prompt(question, default=default, show_default=bool(default))).strip())
        if (why := wrong(answer)) is None:
            return answer
        print(f"That cannot be used: it {why}.", file=sys.stderr)
