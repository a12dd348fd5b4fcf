"""A prompt as an object of LangChain. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from engine.connectors.files.format import Document
from engine.connectors.files.formats.langchain.dialect import (
    BESIDE,
    BINDING,
    BOUND,
    DIALECT,
    FIELDS,
    FORMAT,
    OF_A_ROLE,
    PLACE,
    PLACEHOLDER_ROLE,
    PROMPT_IDS,
    PROVIDERS,
    SEQUENCE,
    STOPS,
    VARIANTS,
    WITH_JINJA,
    WITH_MUSTACHE,
    WRITTEN_MODELS,
    escaped,
    texts_of,
)
from engine.connectors.files.formats.langchain.reading import read_one
from engine.connectors.files.formats.parts import beside, checked, variables_in
from engine.content.chats import messages_of
from engine.lossless_json.numbers import dumps
from engine.model import Json, Prompt
from engine.model.dialect import Dialect


def _object(path: Sequence[str], kwargs: Mapping[str, Json]) -> dict[str, Json]:
    kept = {key: value for key, value in kwargs.items() if value is not None}
    return {"lc": 1, "type": "constructor", "id": list(path), "kwargs": kept, "name": path[-1]}


def write(document: Document) -> bytes:
    """The file. Raises ValueError for what would not come back as it is."""
    prompt = document.prompt
    dialect = VARIANTS.get(prompt.dialect, DIALECT)
    writer = _Writer(prompt, dialect)
    value = writer.prompt()
    model = writer.model()
    behind = [*([model] if model is not None else ()), *(prompt.extra.get("steps") or ())]
    if behind:
        value = _object(SEQUENCE, _steps([value, *behind]))
    text = dumps(value, ensure_ascii=False, indent=2)
    try:
        file = f"{text}\n".encode()
    except UnicodeEncodeError:
        file = f"{dumps(value, ensure_ascii=True, indent=2)}\n".encode()
    return checked(prompt, file, partial(read_one, prompt_id=prompt.id), dialect, FIELDS)


def _steps(steps: Sequence[Json]) -> dict[str, Json]:
    first, *middle, last = steps
    return {"first": first, **({"middle": middle} if middle else {}), "last": last}


@dataclass(frozen=True, slots=True)
class _Writer:
    """What of a prompt stands where."""

    source: Prompt
    dialect: Dialect

    @property
    def _path(self) -> list[str] | None:
        """Of the model's class; None: there is none to be written."""
        if not self.source.model:
            return None
        own = self.source.extra.get("model/id")
        return own if isinstance(own, list) else WRITTEN_MODELS.get(self.source.provider or "", (None, ""))[0]

    @property
    def _variables(self) -> frozenset[str]:
        return variables_in(texts_of(self.source.text), self.dialect.grammar)

    def _named(self, *, defaults: bool) -> dict[str, Json]:
        """Parameters, or default values of variables."""
        held = {name: value for name, value in self.source.parameters.items() if value is not None}
        return {name: held[name] for name in sorted(held) if (name in self._variables) is defaults}

    def prompt(self) -> dict[str, Json]:
        """A template alone."""
        messages = messages_of(self.source.text)
        kwargs: dict[str, Json] = {"name": self.source.name, "input_variables": sorted(self._variables)}
        defaults = self._named(defaults=True)
        asked = [name for name in kwargs["input_variables"] if name not in defaults]
        kwargs |= {"input_variables": asked, "partial_variables": escaped(defaults) or None}
        tags, metadata = self._metadata()
        kwargs |= {"tags": tags, "metadata": escaped(metadata) or None, **_extra_of(self.source.extra, "prompt")}
        if messages is None:
            own = {"template": self.source.text, "template_format": self._format}
            return _object(PROMPT_IDS["PromptTemplate"], kwargs | own)
        kwargs["messages"] = [self._message(at, one) for at, one in enumerate(messages, 1)]
        if (schema := self._schema) is not None:
            return _object(PROMPT_IDS["StructuredPrompt"], kwargs | {"schema_": escaped(schema)})
        return _object(PROMPT_IDS["ChatPromptTemplate"], kwargs)

    @property
    def _format(self) -> str:
        return {WITH_MUSTACHE.name: "mustache", WITH_JINJA.name: "jinja2"}.get(self.dialect.name, "f-string")

    @property
    def _schema(self) -> Json:
        held = self.source.parameters.get(FORMAT)
        return held["schema_"] if isinstance(held, dict) and held.keys() == {"schema_"} else None

    def _metadata(self) -> tuple[Json, dict[str, Json]]:
        """Tags, and all that has no other place."""
        tags = self.source.metadata.get("tags")
        words = isinstance(tags, list) and bool(tags) and all(isinstance(tag, str) for tag in tags)
        rest = {key: value for key, value in self.source.metadata.items() if key != "tags" or not words}
        told: dict[str, Json] = {"description": self.source.description or None}
        if self._path is None:
            parameters = self._parameters()
            told |= {name: getattr(self.source, name) for name in ("model", "provider", *BOUND)}
            told |= {"parameters": parameters or None}
        return tags if words else None, beside(replace(self.source, metadata=rest), *BESIDE, **told)

    def _parameters(self) -> dict[str, Json]:
        named = self._named(defaults=False)
        return {name: value for name, value in named.items() if name != FORMAT or self._schema is None}

    def model(self) -> Json:
        """The next step; None: the prompt stands alone."""
        path = self._path
        if path is None:
            return None
        provider = PROVIDERS.get(path[-1], path[-1])
        key = "model_name" if path[-1] == "ChatOpenAI" else str(self.source.extra.get("model/key") or "model")
        parameters = {_stop(name, provider): value for name, value in self._parameters().items()}
        if taken := sorted(parameters.keys() & {key, *BOUND}):
            raise ValueError(f"parameters called {', '.join(taken)}, which a model has for something else: rename them")
        secret = WRITTEN_MODELS.get(provider, ((), ""))[1]
        secrets = {secret.lower(): {"lc": 1, "type": "secret", "id": [secret]}} if secret else {}
        model = _object(path, {key: self.source.model, **escaped(parameters), **secrets})
        bound = {name: getattr(self.source, name) for name in BOUND if getattr(self.source, name)}
        bound |= _extra_of(self.source.extra, "bound")
        return _object(BINDING, {"bound": model, "kwargs": escaped(bound), "config": {}}) if bound else model

    # ---- messages

    def _message(self, at: int, message: Mapping[str, Json]) -> Json:
        role, content = message["role"], message.get("content")
        own = {key: value for key, value in message.items() if key not in ("role", "content")}
        if role == PLACEHOLDER_ROLE and isinstance(content, str) and (place := PLACE.fullmatch(content)):
            return _object(_path_of("MessagesPlaceholder"), {"variable_name": place[1], **own})
        if own or not isinstance(role, str) or role == PLACEHOLDER_ROLE:
            raise ValueError(f"a message {at} that is more than a role and a content, as LangChain's templates are")
        prompt: Json = self._template(content) if isinstance(content, str) else self._parts(at, content)
        if role in OF_A_ROLE:
            return _object(_path_of(OF_A_ROLE[role]), {"prompt": prompt})
        if not isinstance(content, str):
            raise ValueError(f"a message {at} in parts with a role other than {', '.join(OF_A_ROLE)}")
        return _object(_path_of("ChatMessagePromptTemplate"), {"prompt": prompt, "role": role})

    def _template(self, text: str) -> Json:
        variables = sorted(variables_in(iter([text]), self.dialect.grammar))
        kwargs = {"input_variables": variables, "template": text, "template_format": self._format}
        return _object(PROMPT_IDS["PromptTemplate"], kwargs)

    def _parts(self, at: int, content: Json) -> list[Json]:
        if not isinstance(content, list) or not content:
            raise ValueError(f"a message {at} with a content that is neither a text nor a list of parts")
        return [self._part(at, part) for part in content]

    def _part(self, at: int, part: Json) -> Json:
        match part:
            case {"type": "text", "text": str(text), **more} if not more:
                return self._template(text)
            case {"type": "image_url", "image_url": {"url": str(url), **detail}, **more} if (
                not more and detail.keys() <= {"detail"} and all(isinstance(one, str) for one in detail.values())
            ):
                variables = sorted(variables_in(iter([url]), self.dialect.grammar))
                kwargs = {
                    "input_variables": variables,
                    "template": {"url": url, **detail},
                    "template_format": self._format,
                }
                return _object(PROMPT_IDS["ImagePromptTemplate"], kwargs)
        raise ValueError(f"a message {at} with a part that is neither a text nor the address of an image")


def _path_of(name: str) -> list[str]:
    return ["langchain", "prompts", "chat", name]


def _stop(name: str, provider: str) -> str:
    return STOPS.get(provider, name) if name == "stop" else name


def _extra_of(extra: Mapping[str, Json], place: str) -> dict[str, Json]:
    return {key.partition("/")[2]: value for key, value in sorted(extra.items()) if key.startswith(f"{place}/")}
