"""What becomes of all that a prompt may hold, on the way from each dialect to each target: found out by doing it.

A `Probe` is a prompt with one thing in it, written as a dialect writes it; `fate` takes it the way that `plan` does.
Dialects, grammars, parameters and targets are those of the table of registries: a new one is in here by itself.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, get_args

from pydantic import SecretStr

from engine.connectors import DIALECTS, REGISTRIES
from engine.connectors.endpoint import Endpoint
from engine.connectors.files.endpoint import FilesPath
from engine.content.chats import messages_of
from engine.content.digest import make_replica
from engine.content.references import Ends
from engine.content.rewrite import Rewritten, rewrite
from engine.content.templates import TEXT, VARIABLE, literal
from engine.content.translate import own_name
from engine.content.way import KIND_WORDS
from engine.errors import Rejected
from engine.lossless_json.numbers import dumps
from engine.model import Abilities, Catalog, Json, Prompt, Replica, Rule
from engine.model.dialect import Construct, Dialect, Grammar, Token
from tests.ends import opening

# ---- where prompts go ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Place:
    """A target as the table has it: one registry, or one format of files."""

    title: str
    end: Endpoint
    can: Abilities
    fields: frozenset[str]
    encode: Callable[[Replica], bytes] = field(repr=False)

    def speaks(self, dialect: Dialect) -> bool:
        """Whether what is read there may be written in it."""
        return self.can.dialect is not None and self.can.dialect.takes(dialect.name)


def _ends() -> Iterator[Endpoint]:
    """One of each kind, and of each format; nothing is sent to any of them."""
    known = {"base_url": "http://127.0.0.1:1", "path": FilesPath("none", Path("/nowhere/none"))}
    for row in REGISTRIES.values():
        given: dict[str, Any] = {key: known.get(key, SecretStr("none")) for key in ("base_url", *row.endpoint.needed)}
        formats = row.endpoint.model_fields.get("format")
        each = [{}] if formats is None else [{"format": one} for one in get_args(formats.annotation)]
        yield from (row.endpoint.model_construct(**given, **form) for form in each)


async def _places() -> list[Place]:
    found = []
    for end in _ends():
        async with REGISTRIES[end.kind].connect(end, opening()) as target:
            title = target.can.dialect.registry if target.can.dialect is not None else end.kind
            found.append(Place(title, end, target.can, frozenset(target.fields), target.encode))
    return found


PLACES: Final = asyncio.run(_places())

# ---- what a prompt may hold ------------------------------------------------------------------------------------------

NAME: Final = "probe"
_TOOL: Final = {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}
_CALL: Final = {"id": "c1", "type": "function", "function": {"name": "look_up", "arguments": "[]"}}
_SCHEMA: Final = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object"}}}
_VALUES: Final[Mapping[str, Sequence[Json]]] = {
    "temperature": [0.5],
    "top_p": [0.9],
    "stop": [["###"], "###"],
    "response_format": [{"type": "json_object"}, _SCHEMA],
}
"""Neutral name -> values that are not taken alike; of any other one it is a whole number."""
_PARTS: Final[Mapping[str, Json]] = {
    "text": {"type": "text", "text": "Look"},
    "image_url": {"type": "image_url", "image_url": {"url": "https://images.example/1.png"}},
    "input_audio": {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}},
}
_BODIES: Final = ("x", "<% %>", "x:8", "name=x|label=y", "#if x", "/if", "else", "history", 'role "user"')
"""What stands in the tags of the grammars."""
_NAMES: Final = dict(zip(KIND_WORDS, ("a.b", "a b", "a}b", "a=b", "a[0]", "1"), strict=True))


@dataclass(frozen=True)
class Probe:
    """`row`: what it is about. `of`: the prompt as that dialect writes it on the way to that place; None: it cannot.
    `tag`: how it looks, where a row has several. `refers`: what it names has to be at the target.
    """

    row: str
    of: Callable[[Dialect, Place], Prompt | None]
    tag: str = ""
    refers: bool = False


def _prompt(dialect: Dialect, text: str | None = None, **fields: Any) -> Prompt:
    return Prompt(id=NAME, name=NAME, text=_plain(dialect) if text is None else text, dialect=dialect.name, **fields)


def _plain(dialect: Dialect) -> str:
    return "Hello" if dialect.chat.text else dumps([{"role": "user", "content": "Hello"}])


def _chat(dialect: Dialect, *messages: Json) -> Prompt | None:
    return _prompt(dialect, dumps([*messages])) if dialect.chat.messages else None


def _holder(name: str, value: Json) -> Probe:
    """A field of Prompt, where registries of that dialect have it."""

    def of(dialect: Dialect, _place: Place) -> Prompt | None:
        return _prompt(dialect, **{name: value}) if name in _fields_of(dialect) else None

    return Probe(ROWS.get(name, f"`{name}`"), of, refers=name in ("model", "provider", "collection", "integrations"))


ROWS: Final = {
    "raw": "`raw`, a template that becomes JSON when it is rendered",
    "description": "`version_description`",
    "integrations": "`integrations`, more of them than one",
}


def _fields_of(dialect: Dialect) -> frozenset[str]:
    return frozenset[str]().union(*(place.fields for place in PLACES if place.speaks(dialect)))


def _tokens(dialect: Dialect, *tokens: Token) -> Prompt | None:
    """A text of exactly these, or a chat of it where texts are none."""
    text = dialect.grammar.text(tokens)
    if list(dialect.grammar.tokens(text)) != [*tokens]:
        return None
    return _prompt(dialect, text) if dialect.chat.text else _chat(dialect, {"role": "user", "content": text})


def _variable(dialect: Dialect, name: str = "name") -> Prompt | None:
    return _tokens(dialect, *literal("Hello "), Token(VARIABLE, name))


def _tag_of(grammar: Grammar, kind: str) -> Token | None:
    """The first body that makes it one."""
    tags = (Token(kind, body) for body in _BODIES)
    return next((tag for tag in tags if list(grammar.tokens(grammar.text([tag]))) == [tag]), None)


def _construct(grammar: Grammar, construct: Construct, tag: Token) -> Probe:
    def of(dialect: Dialect, _place: Place) -> Prompt | None:
        return _tokens(dialect, tag) if dialect.grammar == grammar else None

    refers = construct.name in ("partials", "references")
    shared = sum(construct.name in [other.name for other in one.constructs] for one in _GRAMMARS) > 1
    row = f"{construct.name} ({grammar.name})" if shared and construct.name != grammar.name else construct.name
    return Probe(row, of, tag=f"`{grammar.text([tag])}`", refers=refers)


_GRAMMARS: Final = list({one.grammar.name: one.grammar for one in DIALECTS.values()}.values())


def _constructs() -> Iterator[Probe]:
    for grammar in _GRAMMARS:
        for construct in grammar.constructs:
            tags = [tag for kind in sorted(construct.kinds) if (tag := _tag_of(grammar, kind)) is not None]
            assert tags, f"nothing shows {construct.name} of {grammar.name}"
            yield from (_construct(grammar, construct, tag) for tag in tags)


def _parameter(neutral: str, value: Json) -> Probe:
    def of(dialect: Dialect, _place: Place) -> Prompt | None:
        names = dialect.parameters
        if (own := own_name(neutral, names)) is None:
            return None
        known = names.known.get(own)
        written = value if known is None else known.write(value)
        return None if written is None else _prompt(dialect, parameters={own: written})

    tag = value["type"] if isinstance(value, dict) else dumps(value)
    return Probe(f"`parameters.{neutral}`", of, tag=f"`{tag}`")


def _parameters() -> Iterator[Probe]:
    known = {one.neutral: [64] for dialect in DIALECTS.values() for one in dialect.parameters.known.values()}
    for neutral, values in {**known, **_VALUES}.items():
        yield from (_parameter(neutral, value) for value in values)
    yield Probe("any other parameter", lambda dialect, _place: _other_parameter(dialect))
    yield Probe("a default value of a variable, among the parameters", lambda dialect, _place: _default_value(dialect))


def _other_parameter(dialect: Dialect) -> Prompt | None:
    return _prompt(dialect, parameters={"seed": 7}) if own_name("seed", dialect.parameters) == "seed" else None


def _default_value(dialect: Dialect) -> Prompt | None:
    prompt = _variable(dialect) if dialect.parameters.defaults else None
    return None if prompt is None else replace(prompt, parameters={"name": "Ada"}, variables=("name",))


def _key(name: str, message: Json) -> Probe:
    def of(dialect: Dialect, _place: Place) -> Prompt | None:
        keys = dialect.chat.keys
        return _chat(dialect, message) if keys is None or name in keys else None

    return Probe(f"`{name}` of a message", of)


def _part(kind: str, part: Json) -> Probe:
    def of(dialect: Dialect, _place: Place) -> Prompt | None:
        parts = dialect.chat.parts
        return _chat(dialect, {"role": "user", "content": [part]}) if parts is None or kind in parts else None

    return Probe(f"a part `{kind}` of a message", of)


def _named(kind: str, name: str) -> Probe:
    return Probe(f"a name with {KIND_WORDS[kind]}", lambda dialect, _place: _variable(dialect, name), tag=f"`{name}`")


def _like_a_tag(dialect: Dialect, place: Place) -> Prompt | None:
    """Text of the one that is a variable of the other."""
    there = place.can.dialect
    if there is None or dialect.grammar == there.grammar:
        return None
    text = there.grammar.text([Token(VARIABLE, "name")])
    return _prompt(dialect, text) if [one.kind for one in dialect.grammar.tokens(text)] == [TEXT] else None


PROBES: Final[Sequence[Probe]] = (
    Probe("a text, with variables", lambda dialect, _place: _variable(dialect) if dialect.chat.text else None),
    Probe("a chat", lambda dialect, _place: _chat(dialect, {"role": "system", "content": "Be brief"})),
    _key("name", {"role": "user", "name": "ada", "content": "Hi"}),
    _key("tool_calls", {"role": "assistant", "content": "Wait", "tool_calls": [_CALL]}),
    _key("tool_call_id", {"role": "tool", "content": "42", "tool_call_id": "c1"}),
    _key("cache_control", {"role": "user", "content": "Hi", "cache_control": {"type": "ephemeral"}}),
    *(_part(kind, part) for kind, part in _PARTS.items()),
    *_constructs(),
    *(_named(kind, name) for kind, name in _NAMES.items()),
    Probe("text that is a variable at the target", _like_a_tag),
    _holder("model", "gpt-4o"),
    _holder("provider", "openai-prod"),
    _holder("collection", "sales"),
    *_parameters(),
    _holder("tools", [_TOOL]),
    Probe("`tool_choice`, with tools", lambda dialect, _place: _choice(dialect)),
    _holder("functions", [_TOOL["function"]]),
    _holder("raw", True),
    _holder("metadata", {"team": "docs"}),
    Probe("`metadata.KEY` that is no text", lambda dialect, _place: _owner(dialect)),
    _holder("description", "Why it changed"),
    _holder("integrations", ("openai:gpt-4o", "openai:gpt-4o-mini")),
    Probe(
        "a field that nobody knows", lambda dialect, _place: _prompt(dialect, extra={"guardrail": {"deny": ["all"]}})
    ),
)


def _choice(dialect: Dialect) -> Prompt | None:
    has = {"tools", "tool_choice"} <= _fields_of(dialect)
    return _prompt(dialect, tools=[_TOOL], tool_choice="auto") if has else None


def _owner(dialect: Dialect) -> Prompt | None:
    value = {"level": 2}
    keeps = dialect.metadata.keeps
    return _prompt(dialect, metadata={"owner": value}) if keeps is None or keeps(value) else None


# ---- what becomes of it ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fate:
    """`word`: kept, converted, loss, refused, or one text. `losses`: what `plan` names, also of what is refused."""

    word: str
    losses: tuple[str, ...] = ()

    @property
    def arrives(self) -> bool:
        """With a migration file that names nothing but the name of the replica."""
        return self.word in ("kept", "converted")


ONE_TEXT: Final = "one text, by `rewrite.messages`"


def fate(prompt: Prompt, place: Place) -> Fate:
    """Where the file names nothing but the name; where it takes `rewrite.messages` to arrive at all, that too."""
    done = _rewritten(prompt, place)
    if done.refused and not _rewritten(prompt, place, messages="transcript").refused:
        return Fate(ONE_TEXT, done.losses)
    if done.refused or done.missing:
        return Fate("refused", done.losses)
    if done.losses:
        return Fate("loss", done.losses)
    try:
        place.encode(make_replica(prompt, done.prompt, migration="m", registry="r", mark_in="metadata"))
    except Rejected:
        return Fate("refused")
    return Fate("kept" if _content(prompt) == _content(done.prompt) else "converted")


def _rewritten(prompt: Prompt, place: Place, messages: str | None = None) -> Rewritten:
    everything = Catalog(words=("collections", "providers", "partials"))
    ends = Ends(False, everything, everything, dialects=DIALECTS, dialect=place.can.dialect, names=place.can.names)
    return rewrite(prompt, [Rule(name="{name}", messages=messages)], ends, place.fields)


def _content(prompt: Prompt) -> Json:
    text = messages_of(prompt.text)
    return prompt.text if text is None else text, prompt.parameters, prompt.metadata, prompt.tools, prompt.tool_choice


def probes(place: Place) -> Iterator[tuple[Probe, Dialect, Prompt]]:
    """All that may come there, from every dialect."""
    for probe in PROBES:
        for dialect in DIALECTS.values():
            if (prompt := probe.of(dialect, place)) is not None:
                yield probe, dialect, prompt


# ---- the table -------------------------------------------------------------------------------------------------------


def rows() -> Iterator[tuple[str, Sequence[str]]]:
    """What it is about, and what becomes of it in each of PLACES; the tags of a row that fare alike stand together."""
    told: dict[tuple[str, Sequence[str]], list[str]] = {}
    for probe in PROBES:
        told.setdefault((probe.row, tuple(_cell(probe, place) for place in PLACES)), []).append(probe.tag)
    for (row, cells), tags in told.items():
        yield ": ".join(filter(None, [row, ", ".join(filter(None, dict.fromkeys(tags)))])), cells
    yield "labels", [_labels(place) for place in PLACES]


def _labels(place: Place) -> str:
    return "kept" if place.can.carries("beta") or "labels" in place.fields else "left, with a note"


def _cell(probe: Probe, place: Place) -> str:
    """By what most sources have in common; its own kind counts where no other one has such a thing."""
    ways = [(dialect, prompt) for dialect in DIALECTS.values() if (prompt := probe.of(dialect, place)) is not None]
    foreign = [way for way in ways if not place.speaks(way[0])] or ways
    groups: defaultdict[str, list[tuple[str, Fate]]] = defaultdict(list)
    for dialect, prompt in foreign:
        found = fate(prompt, place)
        groups["" if found.arrives else found.word].append((dialect.registry, found))
    first, *others = sorted(groups.values(), key=len, reverse=True) or [[]]
    return "; ".join(
        [_said(first), *(f"from {', '.join(name for name, _ in group)} {_said(group)}" for group in others)]
    )


def _said(group: Sequence[tuple[str, Fate]]) -> str:
    words = {one.word for _, one in group}
    names = sorted({name for _, one in group for name in one.losses if one.word == "loss"})
    return " ".join(
        [
            "converted" if len(words) > 1 else "".join(words) or "-",
            *[", ".join(f"`{name}`" for name in names)][: len(names)],
        ]
    )


def remarks() -> Iterator[str]:
    """What hangs on several fields, as each registry says it of itself."""
    for place in PLACES:
        if place.can.dialect is not None:
            yield from (f"- {place.title}, {what}: {becomes}." for what, becomes in place.can.dialect.says.items())
