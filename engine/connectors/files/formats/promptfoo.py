r"""Prompts as promptfoo's configuration has them. Pure.

Sources: promptfoo.dev/docs/configuration, and promptfoo 0.121.20, whose command line the tests run on what is written.

- What is written is a configuration for each prompt, `NAME.yaml`: `promptfoo eval -c NAME.yaml`, or `-c 'DIR/*.yaml'`
  for all of them. `prompts` holds one entry with `label`, `raw` and `config`; `providers` holds `PROVIDER:MODEL`, and
  behind it the integrations; `defaultTest.vars` the default values of variables; `description` and `metadata` are the
  configuration's own. `config` has the parameters, tools, tool_choice and functions, which promptfoo lays over those
  of the provider. The mark is `metadata.promptferry`, and what there is no key for stands in
  `metadata.promptferry.file`.
- What is read are such configurations of others too (`.yaml`, `.yml`, `.json`), where each entry that holds its text is
  a prompt, `NAME#2`, and a path stands for a file that is read by itself; files with a list of messages (`.json`,
  `.yaml`); and `.txt`, which holds a prompt between each two lines of `---`. Other JSON and YAML is passed over. A file
  of another shape than we write is never changed.
- A chat is JSON, of which promptfoo renders every string by itself. A text in one line that it would take for the path
  of a file, or lay out anew because it is JSON, has the tag `{{ '}' if false\n}}` before it, which says nothing.
- `env` is no variable there, but the environment; what would be replaced while the configuration is loaded (`$ref`,
  `file://`, `{{ env.X }}`) is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any, Final

from engine.connectors.files.fileformat import FileFormat
from engine.connectors.files.format import Document, Unreadable
from engine.connectors.files.formats.jinja import JINJA, pieces
from engine.connectors.files.formats.parts import (
    TEXTS_KEPT,
    Piece,
    Values,
    beside,
    checked,
    fitting,
    json_of,
    sayable,
    taken_beside,
    templates_of,
    text_of,
    variables_in,
)
from engine.connectors.files.yaml import read_yaml, write_yaml
from engine.content.chats import messages_of, spelled
from engine.content.digest import CONTENT
from engine.content.templates import JINJA_BLOCK, JINJA_COMMENT, JINJA_EXPRESSION, TEXT, UNCLOSED, VARIABLE
from engine.content.textfile import BOM, other_encoding
from engine.lossless_json.numbers import dumps, loads
from engine.model import Json, Prompt
from engine.model.dialect import Chat, Construct, Dialect, Fitted, MetadataRule, ParameterNames, Token

_FIELDS: Final = frozenset({*CONTENT, "extra", "labels"}) - {"raw"}
_KEYS: Final = frozenset("description prompts providers defaultTest metadata".split())
_BESIDE: Final = ("collection", "slug", "source_version", "labels")
_CALLED: Final = ("tools", "tool_choice", "functions")
"""Fields of Prompt that stand among the parameters."""

# ---- templates -------------------------------------------------------------------------------------------------------

_KINDS: Final = {
    JINJA_BLOCK: "Nunjucks block",
    JINJA_EXPRESSION: "Nunjucks expression",
    JINJA_COMMENT: "Nunjucks comment",
}
_BACK: Final = {own: theirs for theirs, own in _KINDS.items()}
_PARTIAL: Final = re.compile(r"\{%[^%]*$|\{\{[^}]*$|\{#[^#]*$", re.M)
"""A text in which a tag does not end on its line is said as it stands, all of it."""
_ENVIRONMENT: Final = re.compile(r"env(?:\..*)?")


@lru_cache(maxsize=TEXTS_KEPT)
def _tokens(text: str) -> tuple[Token, ...]:
    # nor can the end of a comment stand by itself
    partial = _PARTIAL.search(text) and not re.search(r"\{%\s*raw\s*%\}", text)
    if partial or (
        "#}" in text and any("#}" in text[piece.start : piece.end] for piece in pieces(text) if _stands_as_it_is(piece))
    ):
        return (Token(UNCLOSED, ""),)
    return tuple(_own(token) for token in JINJA.tokens(text))


def _stands_as_it_is(piece: Piece) -> bool:
    return piece.kind == TEXT and len(piece.token.body) == piece.end - piece.start


def _own(token: Token) -> Token:
    if token.kind == VARIABLE and _ENVIRONMENT.fullmatch(token.body):
        return Token(_KINDS[JINJA_EXPRESSION], token.body)
    return Token(_KINDS.get(token.kind, token.kind), token.body)


def _text(tokens: Iterable[Token]) -> str:
    return JINJA.text(part for token in tokens for part in _parts(Token(_BACK.get(token.kind, token.kind), token.body)))


def _parts(token: Token) -> Iterator[Token]:
    """The end of a comment must not stand in a text by itself."""
    first, *rest = token.body.split("#}") if token.kind == TEXT else [token.body]
    yield Token(token.kind, first + ("#" if rest else ""))
    for at, said in enumerate(rest):
        yield Token(JINJA_EXPRESSION, "'}'")
        yield Token(TEXT, said + ("#" if at < len(rest) - 1 else ""))


GRAMMAR: Final = replace(
    JINJA,
    name="Nunjucks",
    tokens=_tokens,
    text=_text,
    shown=lambda text: [token.body for token in _tokens(text) if token.kind == VARIABLE],
    constructs=(
        Construct(
            name="Nunjucks",
            kinds=frozenset(_KINDS.values()),
            words="all of Nunjucks: {% if x %}, {{ x | upper }}, {{ env.X }}",
        ),
    ),
)

# ---- writing ---------------------------------------------------------------------------------------------------------

_NOTHING: Final = "{{ '}' if false\n}}"
"""A tag that says nothing, with a line break: what has one is no path and no JSON."""
_MAY_BE_PATH: Final = re.compile(r"[./*\\:]")
_FETCHED: Final = ("exec:", "file://", "portkey://", "langfuse://", "helicone://")
_REPLACED: Final = re.compile(r"\{\{[^}]*\benv\b[^}]*\}\}")


def _write(document: Document) -> bytes:
    prompt = document.prompt
    providers, alone = _providers(prompt)
    extra = _of_extra(prompt.extra)
    own = {key.removeprefix("prompts/"): value for key, value in prompt.extra.items() if key.startswith("prompts/")}
    entry = {**own, "label": prompt.name, "raw": sayable(_raw(prompt)), "config": _config(prompt) or None}
    values: dict[str, Json] = {
        "description": prompt.description or None,
        "prompts": [{key: value for key, value in entry.items() if value is not None}],
        "providers": extra.pop("providers", None) or providers,
        "defaultTest": _default_test(prompt) or None,
        **extra,
        "metadata": beside(prompt, *_BESIDE, **alone) or None,
    }
    kept = {key: value for key, value in values.items() if value is not None}
    _check_loaded({key: value for key, value in kept.items() if key != "prompts"})
    _check_loaded(entry["config"])
    file = write_yaml(kept, old=True).encode()
    return checked(prompt, file, partial(_read_one, prompt_id="written"), DIALECT, _FIELDS)


def _raw(prompt: Prompt) -> str:
    messages = messages_of(prompt.text)
    if messages is not None:
        return dumps(messages, ensure_ascii=False, indent=2)
    text = prompt.text
    if not text:
        raise ValueError("an empty text, which promptfoo takes for no prompt: leave it out")
    is_path = "\n" not in text and _MAY_BE_PATH.search(text)
    return f"{_NOTHING}{text}" if is_path or text.startswith((*_FETCHED, _NOTHING)) or _is_json(text) else text


def _is_json(text: str) -> bool:
    try:
        loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _config(prompt: Prompt) -> dict[str, Json]:
    variables = _variables(prompt)
    named = {name: value for name, value in sorted(prompt.parameters.items()) if value is not None}
    kept = {name: value for name, value in named.items() if name not in variables}
    if taken := sorted(kept.keys() & {*_CALLED}):
        raise ValueError(f"parameters called {', '.join(taken)}, which promptfoo has for something else: rename them")
    called = {name: getattr(prompt, name) for name in _CALLED if getattr(prompt, name)}
    return {**kept, **called, **(prompt.extra.get("config") or {})}


def _variables(prompt: Prompt) -> frozenset[str]:
    return variables_in(templates_of(prompt.text), GRAMMAR)


def _default_test(prompt: Prompt) -> dict[str, Json]:
    given = {name: prompt.parameters[name] for name in sorted(_variables(prompt) & prompt.parameters.keys())}
    for name, value in given.items():
        if isinstance(value, list) or (isinstance(value, str) and (GRAMMAR.opening in value or value.endswith("\n"))):
            raise ValueError(f"a default of the variable {name} that promptfoo reads otherwise: drop it")
    test = dict(prompt.extra.get("defaultTest") or {})
    values = {**{name: value for name, value in given.items() if value is not None}, **(test.pop("vars", None) or {})}
    return {**test, **({"vars": values} if values else {})}


def _providers(prompt: Prompt) -> tuple[list[Json], dict[str, Json]]:
    """What runs it, and what of that one word cannot tell."""
    word = f"{prompt.provider}:{prompt.model}"
    if prompt.provider and prompt.model and _of_provider(word) == (prompt.provider, prompt.model):
        return [word, *prompt.integrations], {}
    alone = {"provider": prompt.provider or None, "model": prompt.model or None}
    return ["echo", *prompt.integrations], alone


_HOW: Final = frozenset("chat completion completions embedding embeddings messages realtime responses".split())
"""What stands between provider and model."""


def _of_provider(word: str) -> tuple[str | None, str | None]:
    """Provider and model."""
    first, _, rest = word.partition(":")
    how, colon, model = rest.partition(":")
    if how in _HOW and colon:
        return f"{first}:{how}", model
    return first, rest or None


def _of_extra(extra: Mapping[str, Json]) -> dict[str, Json]:
    if taken := sorted(extra.keys() & {"description", "prompts", "metadata"}):
        raise ValueError(f"fields called {', '.join(taken)}, which promptfoo has keys of its own for")
    apart = ("config", "defaultTest")
    return {key: value for key, value in sorted(extra.items()) if key not in apart and not key.startswith("prompts/")}


def _check_loaded(value: Json) -> None:
    """Raises ValueError for what promptfoo replaces while it loads a configuration."""
    if isinstance(value, Mapping):
        if "$ref" in value:
            raise ValueError("a $ref, which promptfoo looks up in its configuration: write out what it stands for")
        for inner in value.values():
            _check_loaded(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            _check_loaded(inner)
    elif isinstance(value, str) and (value.startswith("file://") or _REPLACED.search(value)):
        raise ValueError("a value that promptfoo replaces by a file or by the environment: reword it at the source")


# ---- reading ---------------------------------------------------------------------------------------------------------

_PATHS: Final = (
    *".csv .j2 .json .jsonl .md .py .txt .yml .yaml .cjs .cts .js .mjs .mts .ts".split(),
    *".sh .bash .exe .bat .cmd .ps1 .rb .pl".split(),
)


def _is_path(text: str) -> bool:
    """As promptfoo tells the path of a file from a text."""
    if "\n" in text or any(scheme in text for scheme in _FETCHED[2:]):
        return False
    ends = any(part.endswith(_PATHS) for part in text.split(":")[-2:])
    return (
        text.startswith(_FETCHED[:2])
        or ends
        or text[-3:-2] == "."
        or text[-4:-3] == "."
        or bool(re.search(r"[*/\\]", text))
    )


def _read(content: bytes, prompt_id: str, _dialects: Mapping[str, Dialect]) -> list[Document]:
    if (other := other_encoding(content)) is not None:
        raise Unreadable(1, other)
    if prompt_id.lower().endswith(".txt"):
        return _named(_of_text(text_of(content.removeprefix(BOM))), prompt_id, loose=True)
    value, lines = _value(content, prompt_id)
    if isinstance(value, list) and value and all(isinstance(one, dict) and "role" in one for one in value):
        return _named([Prompt(id="", name="", text=spelled(value))], prompt_id, loose=True)
    if not isinstance(value, dict) or "prompts" not in value:
        return []
    return _named(_of_config(Values(dict(value), lines)), prompt_id, loose=False)


def _read_one(content: bytes, prompt_id: str) -> Document:
    (document,) = _read(content, prompt_id, {})
    return document


def _value(content: bytes, prompt_id: str) -> tuple[Json, Mapping[str, int]]:
    if prompt_id.lower().endswith(".json"):
        return json_of(content), {}
    return read_yaml(text_of(content.removeprefix(BOM)), texts=("description",))


def _named(several: Sequence[Prompt], prompt_id: str, *, loose: bool) -> list[Document]:
    """Each with its id, and with its variables."""
    stem = prompt_id.rpartition("/")[2]
    documents = []
    for at, one in enumerate(several, 1):
        mark = f"#{at}" if len(several) > 1 else ""
        named = replace(one, id=f"{prompt_id}{mark}", name=one.name or f"{stem}{mark}", dialect=DIALECT.name)
        documents.append(Document(prompt=replace(named, variables=_variables(named)), loose=loose))
    return documents


def _of_text(text: str) -> list[Prompt]:
    pieces = re.split(r"^[^\S\n]*---[^\S\n]*$", text.replace("\r\n", "\n"), flags=re.M)
    return [Prompt(id="", name="", text=_template(piece.strip())) for piece in pieces if piece.strip()]


def _template(raw: str) -> str:
    """The text of a prompt, or its messages in the one form that they have here."""
    messages = messages_of(raw)
    return raw.removeprefix(_NOTHING) if messages is None else spelled(messages)


def _of_config(config: Values) -> list[Prompt]:
    """The prompts that stand in a configuration themselves."""
    prompts = config.take("prompts", str, list, dict)
    given: Any = [prompts] if isinstance(prompts, str) else prompts
    entries = [{"raw": raw, "label": label} for raw, label in given.items()] if isinstance(given, dict) else given
    held = [entry for one in entries or () if (entry := _entry(one, config.line_of("prompts"))) is not None]
    if not held:
        return []
    common = _common(config)
    return [_prompt(entry, *common, config.line_of("prompts")) for entry in held]


def _entry(value: Json, line: int) -> dict[str, Json] | None:
    """None: it stands in a file of its own."""
    entry = {"raw": value} if isinstance(value, str) else dict(value) if isinstance(value, dict) else {}
    raw = entry.get("raw") or entry.get("id")
    if not isinstance(raw, str) or not isinstance(entry.get("label"), str | None):
        raise Unreadable(line, "has an entry of `prompts` that is neither a text nor a map with `raw` and `label`")
    return None if _is_path(raw) else {**entry, "raw": raw}


_Common = tuple[dict[str, Any], dict[str, Json], dict[str, Json], dict[str, Json]]


def _common(config: Values) -> _Common:
    """What all its prompts have: fields, parameters, default values, and what nobody knows."""
    line = config.line_of("metadata")
    metadata, fields, others = taken_beside(config.take("metadata", dict) or {}, line)
    description = config.take("description", str)
    extra: dict[str, Json] = {}
    if "targets" in config.values and "providers" not in config.values:
        config.values["providers"] = config.values.pop("targets")
    named, parameters = _of_providers(config.values.pop("providers", None), extra)
    told = {name: others[name] for name in ("model",) if isinstance(others.get(name), str)}
    test = config.take("defaultTest", dict, str)
    values: dict[str, Json] = {}
    if isinstance(test, dict):
        values = dict(asked) if isinstance(asked := test.get("vars"), dict) else {}
        test = {key: value for key, value in test.items() if key != "vars"}
    extra |= {"defaultTest": test} if test else {}
    extra |= {key: value for key, value in config.values.items() if value is not None}
    fields = {**named, **told, **fields, "metadata": metadata, "description": description}
    return fields, parameters, values, extra


def _of_providers(value: Json, extra: dict[str, Json]) -> tuple[dict[str, Any], dict[str, Json]]:
    """Fields and parameters; what is more than that goes into `extra`."""
    given = value if isinstance(value, list) else [value] if value is not None else []
    words = [_provider(one) for one in given]
    plain = all(word is not None for word in words) and (len(words) == 1 or not any(word[1] for word in words if word))
    if not words or not plain:
        extra |= {"providers": value} if words else {}
        return {}, {}
    (word, config), *rest = (found for found in words if found is not None)
    provider, model = _of_provider(word) if word != "echo" else (None, None)
    integrations = tuple(sorted(other for other, _ in rest))
    return {"provider": provider, "model": model, "integrations": integrations}, config


def _provider(value: Json) -> tuple[str, dict[str, Json]] | None:
    """Its word and its configuration; None: it says more."""
    if isinstance(value, str):
        return None if _is_path(value) and value.startswith("file://") else (value, {})
    match value:
        case {"id": str(word), "config": dict(config), **more} if not more:
            return word, dict(config)
        case {"id": str(word), **more} if not more:
            return word, {}
    return None


def _prompt(
    entry: Mapping[str, Json],
    fields: Mapping[str, Any],
    parameters: Mapping[str, Json],
    values: Mapping[str, Json],
    extra: Mapping[str, Json],
    line: int,
) -> Prompt:
    own = entry.get("config") or {}
    if not isinstance(own, dict):
        raise Unreadable(line, "has an entry of `prompts` whose `config` is no map")
    text = _template(entry["raw"])
    variables = variables_in(templates_of(text), GRAMMAR)
    merged = {**parameters, **own}
    called = {name: merged.pop(name) for name in _CALLED if name in merged}
    inside = {name: merged.pop(name) for name in list(merged) if name in variables}
    defaults = {name: value for name, value in values.items() if name in variables}
    unasked = {name: value for name, value in values.items() if name not in variables}
    more = {
        key: value for key, value in entry.items() if key not in ("raw", "label", "config") and value != entry["raw"]
    }
    others = dict(extra)
    others |= {"config": inside} if inside else {}
    others |= {"defaultTest": {**(extra.get("defaultTest") or {}), "vars": unasked}} if unasked else {}
    others |= {f"prompts/{key}": value for key, value in more.items()}
    label = entry.get("label")
    return Prompt(
        id="",
        name=label if isinstance(label, str) else "",
        text=text,
        parameters={**merged, **defaults},
        extra=others,
        **{**fields, **called},
    )


# ---- the format ------------------------------------------------------------------------------------------------------


def _fit(prompt: Prompt) -> Fitted:
    return fitting(_write, prompt)


DIALECT: Final = Dialect(
    name="promptfoo",
    registry="promptfoo",
    grammar=GRAMMAR,
    parameters=ParameterNames(open=True, defaults=True),
    chat=Chat(messages=True, spelled=False),
    metadata=MetadataRule(says="metadata of the configuration"),
    fit=_fit,
    says={"$ref, file:// and {{ env.X }} outside of a template": "refused"},
)
PROMPTFOO: Final = FileFormat(
    name="promptfoo",
    endings=(".yaml", ".yml", ".json", ".txt"),
    read=_read,
    write=_write,
    spares="they hold no prompts of their own: no list of messages, and no configuration with a text",
    dialect=DIALECT,
    fields=_FIELDS,
)
