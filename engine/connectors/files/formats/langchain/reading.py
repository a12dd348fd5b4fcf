"""A prompt of an object of LangChain. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from engine.connectors.files.format import Document, Unreadable
from engine.connectors.files.formats.langchain.dialect import (
    BOUND,
    DIALECT,
    FIXED,
    FORMAT,
    MODEL_KEYS,
    PLACEHOLDER_ROLE,
    PROMPTS,
    PROVIDERS,
    STOPS,
    TEMPLATES,
    WITH_JINJA,
    WITH_MUSTACHE,
    WRITTEN_MODELS,
    plain,
    texts_of,
)
from engine.connectors.files.formats.parts import REST, json_of, taken_beside, variables_in
from engine.content.chats import spelled
from engine.content.templates import TEXT
from engine.model import Json, Prompt
from engine.model.dialect import Dialect, Token


def read(content: bytes, prompt_id: str, _dialects: Mapping[str, Dialect]) -> list[Document]:
    """The prompt of a file; none, where it holds other JSON. Raises Unreadable."""
    value = json_of(content)
    if not isinstance(value, dict) or value.get("lc") != 1 or not isinstance(value.get("id"), list):
        return []
    return [Document(prompt=_prompt(value, prompt_id))]


def read_one(content: bytes, prompt_id: str) -> Document:
    """The prompt of a file that surely holds one. Raises Unreadable."""
    return Document(prompt=_prompt(json_of(content), prompt_id))


def _class_of(value: Json) -> tuple[str, dict[str, Json]]:
    """Name and arguments of a serialized object; "" where it is none."""
    match value:
        case {"lc": 1, "type": "constructor", "id": [*_, str(name)], "kwargs": dict(kwargs)}:
            return name, {key: one for key, one in kwargs.items() if one is not None}
    return "", {}


def _wrong(what: str) -> Unreadable:
    return Unreadable(1, f"has {what}: leave it out, or save it anew")


def _prompt(value: Json, prompt_id: str) -> Prompt:
    name, kwargs = _class_of(value)
    model: Json = None
    steps: list[Json] = []
    if name == "RunnableSequence":
        first, model, steps = _apart(kwargs)
        name, kwargs = _class_of(first)
    if name not in PROMPTS:
        shown = name if name.isidentifier() else "unknown"
        raise _wrong(f"an object of the class {shown}, which is none of {', '.join(PROMPTS)}")
    reader = _Reader()
    text = reader.text(kwargs) if name == "PromptTemplate" else reader.chat(kwargs)
    dialect = reader.dialect
    variables = variables_in(texts_of(text), dialect.grammar)
    metadata, fields, others = _metadata_of(kwargs)
    told = _model_of(model) if model is not None else _beside_model(others)
    defaults = {key: one for key, one in plain(reader.defaults).items() if key in variables}
    parameters = {**told.parameters, **defaults}
    if name == "StructuredPrompt":
        parameters[FORMAT] = {"schema_": plain(kwargs.pop("schema_", None) or kwargs.pop("schema", None) or {})}
    called = kwargs.pop("name", None)
    return Prompt(
        id=prompt_id,
        name=called if isinstance(called, str) and called else prompt_id.rpartition("/")[2],
        text=text,
        metadata=metadata,
        parameters=parameters,
        variables=variables,
        dialect=dialect.name,
        extra={**told.extra, **_rest(kwargs), **({"steps": steps} if steps else {})},
        **{**told.fields, **fields},
    )


_TAKEN: Final = frozenset(
    "input_variables optional_variables partial_variables metadata tags messages template template_format".split()
)
_EMPTY: Final = frozenset("validate_template input_types output_parser structured_output_kwargs".split())
"""Arguments that say nothing where they are as they are by themselves."""


def _rest(kwargs: Mapping[str, Json]) -> dict[str, Json]:
    others = {key: value for key, value in kwargs.items() if key not in _TAKEN}
    return {f"prompt/{key}": value for key, value in others.items() if value or key not in _EMPTY}


def _apart(kwargs: Mapping[str, Json]) -> tuple[Json, Json, list[Json]]:
    """The prompt of a sequence, its model, and all other steps."""
    middle: Json = kwargs.get("middle")
    between: list[Json] = middle if isinstance(middle, list) else []
    first, *after = [kwargs.get("first"), *between, kwargs.get("last")]
    found = next((at for at, step in enumerate(after) if _model_in(step) is not None), None)
    if found != 0:
        return first, None, after
    return first, after[0], after[1:]


def _model_in(step: Json) -> tuple[Json, dict[str, Json]] | None:
    """A model and what it is bound to; None: it is none."""
    name, kwargs = _class_of(step)
    bound: dict[str, Json] = {}
    if name == "RunnableBinding":
        bound = kwargs.get("kwargs") or {}
        step = kwargs.get("bound")
        name, kwargs = _class_of(step)
    is_model = any(isinstance(kwargs.get(key), str) for key in MODEL_KEYS) or name in PROVIDERS
    return (step, bound) if name and is_model and isinstance(bound, dict) else None


@dataclass(slots=True)
class _Model:
    """What a file says of the model."""

    fields: dict[str, Any] = field(default_factory=dict)
    parameters: dict[str, Json] = field(default_factory=dict)
    extra: dict[str, Json] = field(default_factory=dict)


def _beside_model(others: Mapping[str, Json]) -> _Model:
    """Where it stands among the metadata."""
    told = {name: others[name] for name in ("model", "provider", *BOUND) if name in others}
    if not all(isinstance(told.get(name), str | None) for name in ("model", "provider")):
        raise _wrong(f"metadata with a `{REST}` whose model or provider is no text")
    parameters = others.get("parameters") or {}
    if not isinstance(parameters, dict):
        raise _wrong(f"metadata with a `{REST}.parameters` that is no map")
    return _Model(fields=told, parameters=dict(parameters))


def _model_of(step: Json) -> _Model:
    found = _model_in(step)
    assert found is not None  # else it is no model
    model, bound = found
    name, kwargs = _class_of(model)
    provider = PROVIDERS.get(name, name)
    key = next((key for key in MODEL_KEYS if isinstance(kwargs.get(key), str)), "model")
    back = {theirs: "stop" for whose, theirs in STOPS.items() if whose == provider}
    parameters = {
        back.get(own, own): plain(value) for own, value in kwargs.items() if own != key and not _is_secret(value)
    }
    canonical = WRITTEN_MODELS.get(provider, (None, ""))[0] == model["id"]
    extra: dict[str, Json] = {} if canonical else {"model/id": model["id"]}
    if not canonical and key != "model":
        extra["model/key"] = key
    extra |= {f"bound/{own}": value for own, value in bound.items() if own not in BOUND}
    fields: dict[str, Any] = {own: plain(bound[own]) for own in BOUND if own in bound}
    return _Model({"model": kwargs.get(key), "provider": provider, **fields}, parameters, extra)


def _is_secret(value: Json) -> bool:
    return isinstance(value, dict) and value.get("lc") == 1 and value.get("type") == "secret"


def _metadata_of(kwargs: dict[str, Json]) -> tuple[dict[str, Json], dict[str, Any], dict[str, Json]]:
    metadata = plain(kwargs.get("metadata") or {})
    if not isinstance(metadata, dict):
        raise _wrong("`metadata` that are no map")
    kept, fields, others = taken_beside(metadata, 1)
    tags = kwargs.get("tags")
    if tags:
        if not isinstance(tags, list) or "tags" in kept:
            raise _wrong("`tags` that are no list, or stand among the metadata too")
        kept["tags"] = tags
    if isinstance(description := others.pop("description", None), str):
        fields["description"] = description
    return kept, fields, others


@dataclass(slots=True)
class _Reader:
    """The templates of one prompt, which are all of one format."""

    formats: set[str] = field(default_factory=set)
    defaults: dict[str, Json] = field(default_factory=dict)

    @property
    def dialect(self) -> Dialect:
        """What they are written in."""
        if len(self.formats) > 1:
            raise _wrong("templates of several formats")
        return {"mustache": WITH_MUSTACHE, "jinja2": WITH_JINJA}.get(next(iter(self.formats), ""), DIALECT)

    def text(self, kwargs: Mapping[str, Json]) -> str:
        """The template of a PromptTemplate."""
        template, format = kwargs.get("template"), kwargs.get("template_format", "f-string")
        if not isinstance(template, str):
            raise _wrong("a template that is no text")
        if format not in ("f-string", "mustache", "jinja2"):
            raise _wrong("a template_format that is none of f-string, mustache, jinja2")
        self.formats.add(format)
        self._default(kwargs)
        return template

    def _default(self, kwargs: Mapping[str, Json]) -> None:
        values = kwargs.get("partial_variables") or {}
        if isinstance(values, dict):
            self.defaults.update(values)

    def chat(self, kwargs: Mapping[str, Json]) -> str:
        """The messages of a ChatPromptTemplate."""
        self._default(kwargs)
        several = kwargs.get("messages")
        if not isinstance(several, list):
            raise _wrong("`messages` that are no list")
        objects = [_class_of(one) for one in several]
        messages = [self._message(at, name, own) for at, (name, own) in enumerate(objects, 1)]
        grammar = self.dialect.grammar
        told = [
            {"role": role, "content": grammar.text([Token(TEXT, content)]) if fixed else content, **own}
            for role, content, own, fixed in messages
        ]
        for (_, content, _, fixed), one in zip(messages, told, strict=True):
            if fixed and list(grammar.tokens(one["content"])) != ([Token(TEXT, content)] if content else []):
                raise _wrong("a message with a fixed text that no template of its format can say")
        return spelled(told)

    def _message(self, at: int, name: str, kwargs: dict[str, Json]) -> tuple[str, Any, dict[str, Json], bool]:
        """Role, content, other keys, and whether the content is fixed."""
        if name == "MessagesPlaceholder" and isinstance(kwargs.get("variable_name"), str):
            own = {key: value for key, value in kwargs.items() if key != "variable_name" and value}
            return PLACEHOLDER_ROLE, f"{{*{kwargs['variable_name']}}}", own, False
        if name in FIXED and isinstance(kwargs.get("content"), str) and not _more(kwargs):
            return FIXED[name], kwargs["content"], {}, True
        if name == "ChatMessage" and isinstance(kwargs.get("content"), str) and isinstance(kwargs.get("role"), str):
            return kwargs["role"], kwargs["content"], {}, True
        role = TEMPLATES.get(name) or (kwargs.get("role") if name == "ChatMessagePromptTemplate" else None)
        if not isinstance(role, str) or kwargs.get("additional_kwargs"):
            shown = name if name.isidentifier() else "unknown"
            raise _wrong(f"a message {at} of the class {shown}, or with arguments, that no template is made of")
        prompt = kwargs.get("prompt")
        parts = [self._part(at, one) for one in prompt] if isinstance(prompt, list) else None
        return role, parts if parts is not None else self._template(at, prompt), {}, False

    def _template(self, at: int, value: Json) -> str:
        name, kwargs = _class_of(value)
        if name != "PromptTemplate":
            raise _wrong(f"a message {at} whose template is no PromptTemplate")
        return self.text(kwargs)

    def _part(self, at: int, value: Json) -> Json:
        name, kwargs = _class_of(value)
        template = kwargs.get("template")
        if name != "ImagePromptTemplate" or not isinstance(template, dict):
            return {"type": "text", "text": self._template(at, value)}
        self.formats.add(str(kwargs.get("template_format", "f-string")))
        return {"type": "image_url", "image_url": template}


_OF_A_MESSAGE: Final = frozenset({"content", "type"})


def _more(kwargs: Mapping[str, Json]) -> list[str]:
    return [key for key, value in kwargs.items() if value and key not in _OF_A_MESSAGE]
