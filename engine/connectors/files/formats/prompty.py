r"""Prompts in prompty files: front matter, then a template with `system:`, `user:` and `assistant:` on lines of their
own. Pure.

Sources: prompty.ai, and `prompty` 2.1.0, which the tests read everything with; files of its first generation
(`model.configuration`, `model.parameters`, `template: jinja2`, `sample`) are read too, and what is written is of the
second.

- `NAME.prompty`; the template is Jinja2, in a file that says so mustache, which stays what it is.
- `model` has `id`, `provider` and `options`; what `options` has no key for, as tools, tool_choice, the response format
  and parameters with other names, stands in `options.additionalProperties`, which its runtime hands on. Default values
  of variables are those of `inputs`.
- Metadata stand in `metadata`, and there the mark under `promptferry`, and what there is no key for (collection, slug,
  labels, functions) under `promptferry.file`. Every other key is kept as extra.
- A template without heads is one text, which its runtime takes for a message of the system. A head inside a block is
  known only when it is rendered: then all of it is one text, and `raw`, which no other registry can hold.
- Its runtime knows line feeds alone, and drops blank lines around a message; where a prompt has others, that is the
  loss `string.line_ends` or `string.outer_lines`. A line of a text that looks like a head cannot be escaped.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final

from engine.connectors.files.fileformat import FileFormat
from engine.connectors.files.format import Document, Unreadable
from engine.connectors.files.formats import jinja
from engine.connectors.files.formats.parts import (
    Values,
    as_list,
    beside,
    checked,
    cut,
    fitting,
    sayable,
    simple_messages,
    taken_beside,
    templates_of,
    variables_in,
)
from engine.connectors.files.yaml import write_yaml
from engine.content.chats import messages_of, spelled
from engine.content.digest import CONTENT
from engine.content.templates import MUSTACHE, TEXT
from engine.content.translate import own_name
from engine.lossless_json.numbers import Number
from engine.model import Json, Prompt
from engine.model.dialect import Chat, Dialect, Fitted, Grammar, MetadataRule, Parameter, ParameterNames

_FIELDS: Final = frozenset({*CONTENT, "extra", "labels"}) - {"integrations"}
_KEYS: Final = frozenset("name description model inputs metadata template".split())
_BESIDE: Final = ("collection", "slug", "source_version", "labels", "functions")
_TEXTS: Final = frozenset({"name", "description"})
_ROLES: Final = {role: role for role in ("system", "user", "assistant", "developer")}
_HEAD: Final = re.compile(r"\s*#?\s*(system|user|assistant|developer)\s*:\s*", re.IGNORECASE)
_LIKE_A_HEAD: Final = re.compile(
    r"\s*#?\s*(?:(?:system|user|assistant|developer)(?:\[.*\])?|\{\{.*\}\})\s*:\s*", re.IGNORECASE
)
"""Also one with attributes, and one whose role is a variable."""
_END: Final = re.compile(r"---|\+\+\+")
"""Its reader takes it for the end of the front matter wherever it stands."""
_REFERENCE: Final = re.compile(r"\$\{.*\}", re.DOTALL)
"""A value that its reader replaces by that of a variable, or by a file."""
_LINE: Final = re.compile("\r\n|[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]")

# ---- parameters ------------------------------------------------------------------------------------------------------


_OPTIONS: Final[Mapping[str, Parameter]] = {
    "frequencyPenalty": Parameter(neutral="frequency_penalty"),
    "maxOutputTokens": Parameter(neutral="max_tokens"),
    "presencePenalty": Parameter(neutral="presence_penalty"),
    "topK": Parameter(neutral="top_k"),
    "topP": Parameter(neutral="top_p"),
    "stopSequences": Parameter(neutral="stop", write=as_list, own=", a list of texts"),
    "allowMultipleToolCalls": Parameter(neutral="parallel_tool_calls"),
}
_OWN: Final = frozenset({*_OPTIONS, "temperature", "seed"})
"""What stands in the options themselves; all others among their additional properties."""
_ADDITIONAL: Final = "additionalProperties"
_CALLED: Final = ("tools", "tool_choice")
"""Fields of Prompt that stand there too."""
PARAMETERS: Final = ParameterNames(known=_OPTIONS, open=True, defaults=True)


# ---- writing ---------------------------------------------------------------------------------------------------------


def _write(document: Document) -> bytes:
    prompt = document.prompt
    dialect = _dialect_of(prompt)
    body, form = _body(prompt)
    alone = prompt.provider if not prompt.model else None  # a model has an id, or a reader does not know it
    front: dict[str, Json] = {
        "name": prompt.name,
        "description": prompt.description or None,
        "model": _model(prompt, alone),
        "inputs": _inputs(prompt, dialect.grammar),
        "template": _TEMPLATES[dialect.name],
        **_of_extra(prompt.extra),
        "metadata": beside(prompt, *_BESIDE, provider=alone, form=form),
    }
    kept = {key: value for key, value in front.items() if value or key == "name" or key not in _KEYS}
    file = f"---\n{write_yaml(kept, never=_END, old=True)}---\n{sayable(body)}\n".encode()
    return checked(prompt, file, partial(_read_one, prompt_id=prompt.id), dialect, _FIELDS)


def _body(prompt: Prompt) -> tuple[str, str | None]:
    messages = simple_messages(prompt, "prompty", _ROLES)
    if messages is None:
        if not prompt.text.strip():
            raise ValueError("a text that is blank, which its reader takes for no prompt: leave it out")
        for at in _like_heads(prompt.text) if not prompt.raw else ():
            raise ValueError(_head(at, "the text"))
        return prompt.text, None
    for at, (_, said) in enumerate(messages, 1):
        for number in _like_heads(said):
            raise ValueError(_head(number, f"message {at}"))
    return "\n".join(f"{role}:\n{said}\n" for role, said in messages), None


def _like_heads(text: str) -> Iterator[int]:
    return (at for at, line in enumerate(_LINE.split(text), 1) if _LIKE_A_HEAD.fullmatch(line))


def _head(number: int, where: str) -> str:
    return f"a line {number} of {where} that would be read as the head of a message: reword it at the source"


def _plain(value: Json, what: str) -> Json:
    if isinstance(value, str) and _REFERENCE.fullmatch(value):
        raise ValueError(f"a {what} in ${{ }}, which its reader replaces by something else: reword it at the source")
    return value


def _model(prompt: Prompt, alone: str | None) -> Json:
    variables = _variables(prompt)
    named = {name: value for name, value in sorted(prompt.parameters.items()) if value is not None}
    options = {name: _plain(value, name) for name, value in named.items() if name not in variables and name in _OWN}
    more = {name: value for name, value in named.items() if name not in variables and name not in _OWN}
    fields = {name: getattr(prompt, name) for name in _CALLED if getattr(prompt, name)}
    if taken := sorted(more.keys() & {*_CALLED, _ADDITIONAL}):
        raise ValueError(f"parameters called {', '.join(taken)}, which prompty has for something else")
    inside, given = _inside(prompt.extra, "model"), _inside(prompt.extra, "model.options")
    options |= given
    additional = {**more, **fields, **_inside(prompt.extra, f"model.options.{_ADDITIONAL}")}
    options |= {_ADDITIONAL: additional} if additional else {}
    model = {"id": _plain(prompt.model, "model"), "provider": _plain(None if alone else prompt.provider, "provider")}
    found = {**model, **inside, "options": options}
    return {key: value for key, value in found.items() if value}


def _inside(extra: Mapping[str, Json], place: str) -> dict[str, Json]:
    """Of the fields that nobody knows those that stand directly in this map."""
    keys = (key for key in sorted(extra) if key.rpartition("/")[0] == place)
    return {key.rpartition("/")[2]: extra[key] for key in keys}


def _variables(prompt: Prompt) -> frozenset[str]:
    return variables_in(templates_of(prompt.text), _dialect_of(prompt).grammar)


def _dialect_of(prompt: Prompt) -> Dialect:
    """What it is written in: what is in none of these was not translated, and counts as the first."""
    return _VARIANTS.get(prompt.dialect, DIALECT)


_KINDS: Final[Sequence[tuple[type | tuple[type, ...], str]]] = (
    (bool, "boolean"),
    (int, "integer"),
    ((float, Number), "float"),
    (str, "string"),
    (dict, "object"),
    (list, "array"),
)


def _kind(value: Json) -> str:
    return next(word for kind, word in _KINDS if isinstance(value, kind))


def _inputs(prompt: Prompt, grammar: Grammar) -> Json:
    given: dict[str, Json] = dict(prompt.extra.get("inputs") or {})
    for name in sorted(_variables(prompt) & prompt.parameters.keys()):
        value = prompt.parameters[name]
        if value is not None:
            if isinstance(value, dict | list):
                raise ValueError(f"a default of the variable {name} that is no text, number or truth: drop it")
            given[name] = {"kind": _kind(value), **(given.get(name) or {}), "default": _plain(value, "default")}
    return given


def _of_extra(extra: Mapping[str, Json]) -> dict[str, Json]:
    """Those that stand outermost."""
    if taken := sorted(extra.keys() & (_KEYS - {"inputs"})):
        raise ValueError(f"fields called {', '.join(taken)}, which prompty has keys of its own for")
    return {key: value for key, value in sorted(extra.items()) if "/" not in key and key != "inputs"}


# ---- reading ---------------------------------------------------------------------------------------------------------


def _read(content: bytes, prompt_id: str, _dialects: Mapping[str, Dialect]) -> list[Document]:
    return [_read_one(content, prompt_id)]


def _read_one(content: bytes, prompt_id: str) -> Document:
    found = cut(content, _TEXTS)
    if found is None:
        raise Unreadable(1, "is no prompt: it does not begin with front matter between two lines of ---")
    return Document(prompt=_prompt(Values(dict(found.front.values), found.front.lines), found.body, prompt_id))


def _prompt(front: Values, body: str, prompt_id: str) -> Prompt:
    dialect = _dialect(front)
    metadata, fields, _ = taken_beside(front.take("metadata", dict) or {}, front.line_of("metadata"))
    text = _text(body, dialect)
    later = messages_of(text) is None and any(True for _ in _like_heads(text))
    variables = variables_in(templates_of(text), _VARIANTS[dialect].grammar)
    model, parameters, called, more = _model_of(front, variables)
    defaults, asked = _inputs_of(front, variables)
    name = front.take("name", str) or prompt_id.rpartition("/")[2]
    description = front.take("description", str)
    told = {key: value for key, value in front.values.items() if value is not None}
    return Prompt(
        id=prompt_id,
        name=name,
        text=text,
        description=description,
        parameters={**parameters, **defaults},
        metadata=metadata,
        variables=variables,
        dialect=dialect,
        raw=later,
        extra={**told, **more, **asked},
        **{**model, **called, **fields},
    )


def _dialect(front: Values) -> str:
    """Its name. Raises Unreadable for a template of another sort."""
    template = front.take("template", str, dict)
    if isinstance(template, str):
        template = {"format": template, "parser": "prompty"}
    told = dict(template or {})
    engine, parser = told.pop("format", None) or "jinja2", told.pop("parser", None) or "prompty"
    engine, parser = (dict(one) if isinstance(one, dict) else {"kind": one} for one in (engine, parser))
    word = {"jinja2": DIALECT.name, "mustache": WITH_MUSTACHE.name}.get(engine.pop("kind", "jinja2"))
    if word is None or parser.pop("kind", "prompty") != "prompty":
        raise Unreadable(front.line_of("template"), "has a `template` that is neither jinja2 nor mustache for prompty")
    if engine or parser or told:
        raise Unreadable(front.line_of("template"), "has a `template` with options, which change what it says")
    return word


def _model_of(front: Values, variables: frozenset[str]) -> tuple[dict[str, Any], dict[str, Json], dict[str, Any], Any]:
    """Fields of the model, parameters, tools and their choice, and what nobody knows."""
    line = front.line_of("model")
    model = front.take("model", str, dict)
    told = {"id": model} if isinstance(model, str) else dict(model or {})
    first = told.keys() & {"configuration", "parameters"} and not told.keys() & {"id", "options"}
    named, options, extra = _of_first(told) if first else _of_second(told, line)
    for key in ("id", "provider"):
        if not isinstance(named.get(key), str | None):
            raise Unreadable(line, f"has a `model.{key}` that is no text")
    called = {name: options.pop(name) for name in _CALLED if options.get(name) is not None}
    taken = {f"model.options.{_ADDITIONAL}/{name}": options.pop(name) for name in list(options) if name in variables}
    return {"model": named.get("id"), "provider": named.get("provider")}, options, called, {**extra, **taken}


def _of_second(told: dict[str, Json], line: int) -> tuple[dict[str, Json], dict[str, Json], dict[str, Json]]:
    options = told.pop("options", None) or {}
    if not isinstance(options, dict) or not isinstance(options.get(_ADDITIONAL) or {}, dict):
        raise Unreadable(line, "has `model.options` of another kind than they should be")
    additional = dict(options.get(_ADDITIONAL) or {})
    own = {name: value for name, value in options.items() if name in _OWN and value is not None}
    extra = {
        f"model.options/{name}": value
        for name, value in options.items()
        if name not in own and name != _ADDITIONAL and value is not None
    }
    twice = additional.keys() & _OWN
    extra |= {f"model.options.{_ADDITIONAL}/{name}": additional.pop(name) for name in twice}
    named = {key: told.pop(key, None) for key in ("id", "provider")}
    return named, {**own, **additional}, {**extra, **{f"model/{key}": value for key, value in told.items() if value}}


_DEPLOYED: Final = ("azure_deployment", "model", "name")


def _of_first(told: dict[str, Json]) -> tuple[dict[str, Json], dict[str, Json], dict[str, Json]]:
    """Of the first generation: parameters have the names of OpenAI."""
    configuration, parameters = told.pop("configuration", None), told.pop("parameters", None)
    configured = dict(configuration) if isinstance(configuration, dict) else {}
    known = next((name for name in _DEPLOYED if isinstance(configured.get(name), str)), "")
    named = {"id": configured.pop(known, None), "provider": configured.pop("type", None)}
    options = {
        own_name(name, PARAMETERS) or name: value
        for name, value in (parameters if isinstance(parameters, dict) else {}).items()
        if value is not None
    }
    rest = {**told, "configuration": configured}
    return named, options, {f"model/{key}": value for key, value in rest.items() if value and value != "chat"}


def _inputs_of(front: Values, variables: frozenset[str]) -> tuple[dict[str, Json], dict[str, Json]]:
    """Defaults of variables, and what else is said of them."""
    line = front.line_of("inputs")
    inputs = front.take("inputs", dict, list)
    if isinstance(inputs, list):
        if not all(isinstance(one, dict) and isinstance(one.get("name"), str) for one in inputs):
            raise Unreadable(line, "has `inputs` of which one has no name")
        inputs = {one["name"]: {key: value for key, value in one.items() if key != "name"} for one in inputs}
    defaults: dict[str, Json] = {}
    others: dict[str, Json] = {}
    for name, said in (inputs or {}).items():
        if isinstance(said, dict) and "kind" not in said and isinstance(said.get("type"), str):
            said = {"kind": said["type"], **{key: value for key, value in said.items() if key != "type"}}
        default = said.get("default") if isinstance(said, dict) else None
        if name in variables and isinstance(default, str | int | float | Number):
            defaults[name] = default
            said = {key: value for key, value in said.items() if key != "default"}
            if said == {"kind": _kind(default)}:
                continue
        others[name] = said
    return defaults, {"inputs": others} if others else {}


# ---- messages --------------------------------------------------------------------------------------------------------


def _text(body: str, dialect: str) -> str:
    """The text, or its messages, as its runtime has them: it knows line feeds alone, and no blank lines around them."""
    sections = _sections(body.lstrip(), dialect)
    if sections is None:
        return _trimmed(body.lstrip())
    return spelled([{"role": role, "content": said} for role, said in sections])


def _trimmed(text: str) -> str:
    return "\n".join(_LINE.split(text)).strip("\n")


def _sections(body: str, dialect: str) -> list[tuple[str, str]] | None:
    """Role and template of each message; None: it has none, or who says what is known only when it is rendered."""
    lines = _LINE.split(body)
    if not any(_LIKE_A_HEAD.fullmatch(line) for line in lines) or _is_dynamic(body, dialect):
        return None
    found: list[tuple[str, list[str]]] = [("system", [])]
    for line in lines:
        if (head := _HEAD.fullmatch(line)) is not None:
            found.append((head[1].lower(), []))
        else:
            found[-1][1].append(line)
    return [(role, "\n".join(said).strip("\n")) for role, said in found if said]


def _is_dynamic(body: str, dialect: str) -> bool:
    """Whether a head stands in a block or in a tag, has attributes, or a variable for its role."""
    heads = [found for found in re.finditer(r"^.*$", body, re.M) if _LIKE_A_HEAD.fullmatch(found[0])]
    if any(_HEAD.fullmatch(head[0]) is None for head in heads):
        return True
    if dialect != DIALECT.name:
        return any(_open_sections(body[: head.start()]) for head in heads)
    pieces = jinja.pieces(body)
    return any(
        jinja.deep(piece for piece in pieces if piece.end <= head.start()) != 0
        or any(piece.start < head.end() and head.start() < piece.end for piece in pieces if piece.kind != TEXT)
        for head in heads
    )


def _open_sections(before: str) -> int:
    """How many sections of mustache are open behind it."""
    return len(re.findall(r"\{\{[#^]", before)) - len(re.findall(r"\{\{/", before))


# ---- the format ------------------------------------------------------------------------------------------------------


def _fit(prompt: Prompt) -> Fitted:
    losses = []
    for loss, change in (("string.line_ends", _with_line_feeds), ("string.outer_lines", _without_outer_lines)):
        after = _changed(prompt, change)
        losses += [loss] if after.text != prompt.text else []
        prompt = after
    return replace(fitting(_write, prompt), losses=tuple(losses))


def _changed(prompt: Prompt, change: Any) -> Prompt:
    messages = messages_of(prompt.text)
    if messages is None:
        return replace(prompt, text=change(prompt.text, text=True))
    after = [
        {**one, "content": change(one["content"], text=False)} if isinstance(one.get("content"), str) else one
        for one in messages
    ]
    return replace(prompt, text=spelled(after)) if after != messages else prompt


def _with_line_feeds(said: str, *, text: bool) -> str:
    return _LINE.sub("\n", said)


def _without_outer_lines(said: str, *, text: bool) -> str:
    return said.lstrip().strip("\n") if text and said.strip() else said.strip("\n")


_CHAT: Final = Chat(messages=True, keys=frozenset({"role", "content"}), parts=frozenset(), spelled=False)
_METADATA: Final = MetadataRule(says="metadata")
WITH_MUSTACHE: Final = Dialect(
    name="prompty-mustache",
    registry="prompty (mustache)",
    grammar=MUSTACHE,
    parameters=PARAMETERS,
    chat=_CHAT,
    metadata=_METADATA,
)
DIALECT: Final = Dialect(
    name="prompty",
    registry="prompty",
    grammar=jinja.JINJA,
    parameters=PARAMETERS,
    chat=_CHAT,
    metadata=_METADATA,
    variants=(WITH_MUSTACHE,),
    fit=_fit,
    says={
        "line ends besides line feeds": "line feeds, the loss string.line_ends",
        "blank lines around a message": "dropped, the loss string.outer_lines",
        "messages with another role than system, user, assistant, developer": "refused",
        "a line that is system:, user:, assistant: or developer:": "refused",
    },
)
_VARIANTS: Final = {one.name: one for one in (DIALECT, WITH_MUSTACHE)}
_TEMPLATES: Final[Mapping[str, Json]] = {
    DIALECT.name: None,
    WITH_MUSTACHE.name: {"format": {"kind": "mustache"}, "parser": {"kind": "prompty"}},
}
PROMPTY: Final = FileFormat(
    name="prompty",
    endings=(".prompty",),
    read=_read,
    write=_write,
    spares="they are no prompts",
    dialect=DIALECT,
    fields=_FIELDS,
)
