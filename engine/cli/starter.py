"""The migration file that `promptferry init` writes: short, commented, and ready to run."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Final
from urllib.parse import urlsplit

from engine.config.kinds import KINDS, Key, is_sandbox

SAME_KIND: Final = "TARGET"
"""In the names of the target's variables, where the source's have the same."""
_PLAIN_NAME: Final = "Support reply"
"""A name as people give them: where a registry takes no such, names need a filter."""
_NONE: Final[Mapping[str, str]] = {}
_HEAD: Final = """\
# A Promptferry migration. From here on:
#   promptferry check FILE    is everything there, and do the keys work? Writes nothing
#   promptferry plan FILE     what would be made of every prompt. Writes nothing
#   promptferry run FILE      does it; the same command again goes on where it stopped
#   promptferry schema        every key there is, for your editor

# Identifies this migration and its ledger: keep it once you have run it.
"""
_SOURCE: Final = """
# Where prompts are read. Keys are never written here: ${NAME} comes from the environment;
# {file: PATH} and {command: [PROGRAM, ARGUMENT]} work too.
source:
"""
_SELECT: Final = """
# Which prompts; without any of these, all. More: names, collections, ids, ids_file.
select:
"""
_REWRITE: Final = """
# What is changed in the replica; everything else is kept.
rewrite:
"""
_PARAMETERS: Final = """\
  parameters: # in this order; dotted paths reach inside
    drop: [] # such as thinking, when the new model does not know it
    rename: {} # such as max_tokens: max_completion_tokens
    clamp: {} # such as max_completion_tokens: 8192
"""
_TAIL: Final = """
allow_loss: [] # losses that you accept, by the names `plan` prints; any other fails its prompt
on_existing: fail # a prompt of that name is there and not ours: fail, skip or rename

limits:
  rate: null # most requests a second, everything counted; null: found by itself

ledger: ledgers/{name}.jsonl # what was done, beside this file; needed to resume
"""


def starter(
    *,
    name: str | None = None,
    source_kind: str = next(iter(KINDS)),
    source: Mapping[str, str] = _NONE,
    base_url: str | None = None,
    target_kind: str | None = None,
    target: Mapping[str, str] = _NONE,
    target_base_url: str | None = None,
    replica: str | None = None,
    models: str | None = None,
    model: str | None = None,
    provider: str | None = None,
) -> str:
    """The text of a migration file with these values; it loads when the variables that it names are set.

    `source`, `target`: keys of the ends and their values, of a secret the name of its variable; `base_url` and
    `target_base_url` are theirs. No kind, key or address of a target: the source's own workspace, on another model.
    `replica`: the template of names; `provider`: slug of the new provider. What is None is kept, or a default.
    """
    here = {**source, **({"base_url": base_url} if base_url is not None else {})}
    there = {**target, **({"base_url": target_base_url} if target_base_url is not None else {})}
    to = target_kind or (source_kind if there else None)
    return "".join(
        [
            f"{_HEAD}name: {_quoted(name or default_name(source_kind, to))}\n{_SOURCE}",
            *_end(source_kind, here, again=False),
            "\n# Where replicas are made",
            *([": left out, so in the workspace of the source.\n"] if to is None else [".\ntarget:\n"]),
            *([] if to is None else _end(to, there, again=to == source_kind)),
            *_select(models, to),
            *_rewrite(source_kind, to, replica, model, provider),
            _TAIL,
        ]
    )


def default_name(source: str, target: str | None) -> str:
    """Of the migration from one kind to another; None: it stays in its workspace."""
    return "my-migration" if target is None else f"{source}-to-{target}"


def default_replica(source: str, target: str | None) -> str:
    """The template of names: the same in another place, made fit where that takes no ordinary ones."""
    if target is None:
        return "{name}-replica"
    rule = KINDS[target].can.names
    plain = rule is None or rule == KINDS[source].can.names or rule.takes(_PLAIN_NAME)
    return "{name}" if plain else "{name|slug}"


def start_of(key: Key, *, again: bool) -> str:
    """What a new file says of a key; `again`: in the second of two ends of one kind."""
    start = key.start.removeprefix("${").removesuffix("}") if key.secret else key.start
    if not again:
        return start
    if key.secret:
        first, _, rest = start.partition("_")
        return f"{first}_{SAME_KIND}_{rest}"
    if key.name == "base_url" and not key.is_default:
        return f"https://target.example{urlsplit(key.start).path}"
    return f"{start}-copy" if key.name == "path" else start


# ---- the parts -------------------------------------------------------------------------------------------------------


def _end(kind: str, given: Mapping[str, str], *, again: bool) -> Iterator[str]:
    """Of an embedded stand-in, no more than it needs."""
    yield f"  kind: {kind}\n"
    tried = is_sandbox(given.get("base_url", ""))
    for key in KINDS[kind].keys.values():
        value = given.get(key.name)
        if value is None and tried and (key.secret or not key.asked):
            continue
        off = "" if value is not None or key.asked else "# "
        said = _value(key, start_of(key, again=again) if value is None else value)
        yield f"  {off}{key.name}: {said} # {_remark(key)}\n"


def _value(key: Key, value: str) -> str:
    if key.secret:
        return f"${{{value}}}"
    return value if key.words else _quoted(value)


def _remark(key: Key) -> str:
    says = key.says.removesuffix(".")
    return " | ".join(key.words) if key.words else says[:1].lower() + says[1:]


def _select(models: str | None, target: str | None) -> Iterator[str]:
    yield _SELECT
    taken = models or (None if target is not None else "*claude-3-7-*")
    yield f"  {'# ' if taken is None else ''}models: [{_quoted(taken or '*claude-3-7-*')}] # globs, case-sensitive\n"
    yield "  version: published # or latest, which may be a draft\n"


def _rewrite(
    source: str, target: str | None, replica: str | None, model: str | None, provider: str | None
) -> list[str]:
    name = replica or default_replica(source, target)
    filtered = "lower case, and a dash for what the target does not take" if "|slug}" in name else ""
    wanted = model or (None if target is not None else "anthropic.claude-3-5-sonnet")
    lines = [
        f"  name: {_quoted(name)} # {filtered or 'also {id} {slug} {model} {collection}'}",
        f"  {'# ' if wanted is None else ''}model: {_quoted(wanted or 'gpt-4o')} # one for all, or a map: "
        '{"old-*": new, "*": other}',
        f"  {'# ' if provider is None else ''}provider: {_quoted(provider or 'new-slug')} # slug of the "
        "provider, when the new model has another vendor, or the target calls it otherwise",
    ]
    if target is not None:
        lines.append("  # collection: my-collection # one for all, or a map; of the target, when the source has others")
        lines += _messages(source, target)
    return [_REWRITE, *(f"{line}\n" for line in lines), _PARAMETERS]


def _messages(source: str, target: str) -> Iterator[str]:
    here, there = (KINDS[kind].can.dialect for kind in (source, target))
    if there is not None and not there.chat.messages and (here is None or here.chat.messages):
        yield "  messages: transcript # a chat becomes one text there: all of it, system-only, or refuse"


def _quoted(text: str) -> str:
    # A JSON string is a YAML string, whatever is in it.
    return json.dumps(text, ensure_ascii=False)
