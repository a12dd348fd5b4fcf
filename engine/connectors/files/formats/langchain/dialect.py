"""How prompts are written in LangChain: the classes of its objects, its templates, parameters and models. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Final

from engine.connectors.files.formats.jinja import JINJA
from engine.connectors.files.formats.parts import as_list
from engine.content.chats import messages_of
from engine.content.digest import CONTENT
from engine.content.templates import F_STRING, MUSTACHE
from engine.model import Json
from engine.model.dialect import Chat, Construct, Dialect, Grammar, MetadataRule, Parameter, ParameterNames, Token

FIELDS: Final = frozenset({*CONTENT, "extra", "labels"}) - {"raw", "integrations"}
BESIDE: Final = ("collection", "slug", "source_version", "labels", "functions")
PROMPTS: Final = ("PromptTemplate", "ChatPromptTemplate", "StructuredPrompt")
PROMPT_IDS: Final[Mapping[str, list[str]]] = {
    "PromptTemplate": ["langchain", "prompts", "prompt", "PromptTemplate"],
    "ChatPromptTemplate": ["langchain", "prompts", "chat", "ChatPromptTemplate"],
    "StructuredPrompt": ["langchain_core", "prompts", "structured", "StructuredPrompt"],
    "ImagePromptTemplate": ["langchain", "prompts", "image", "ImagePromptTemplate"],
}
TEMPLATES: Final = {
    "SystemMessagePromptTemplate": "system",
    "HumanMessagePromptTemplate": "user",
    "AIMessagePromptTemplate": "assistant",
}
FIXED: Final = {"SystemMessage": "system", "HumanMessage": "user", "AIMessage": "assistant"}
OF_A_ROLE: Final = {role: name for name, role in TEMPLATES.items()}
PLACEHOLDER_ROLE: Final = "placeholder"
SEQUENCE: Final = ["langchain", "schema", "runnable", "RunnableSequence"]
BINDING: Final = ["langchain", "schema", "runnable", "RunnableBinding"]

# ---- models ----------------------------------------------------------------------------------------------------------

WRITTEN_MODELS: Final[Mapping[str, tuple[list[str], str]]] = {
    "openai": (["langchain", "chat_models", "openai", "ChatOpenAI"], "OPENAI_API_KEY"),
    "anthropic": (["langchain", "chat_models", "anthropic", "ChatAnthropic"], "ANTHROPIC_API_KEY"),
}
"""Provider -> the class of its model, and the variable of its key."""
PROVIDERS: Final = {
    "ChatOpenAI": "openai",
    "ChatAnthropic": "anthropic",
    "AzureChatOpenAI": "azure_openai",
    "ChatGoogleGenerativeAI": "google_genai",
    "ChatVertexAI": "google_vertexai",
    "ChatBedrock": "bedrock",
    "ChatBedrockConverse": "bedrock_converse",
    "ChatCohere": "cohere",
    "ChatDeepSeek": "deepseek",
    "ChatFireworks": "fireworks",
    "ChatGroq": "groq",
    "ChatMistralAI": "mistralai",
    "ChatOllama": "ollama",
    "ChatTogether": "together",
    "ChatXAI": "xai",
}
"""Class -> provider, as `init_chat_model` calls it."""
MODEL_KEYS: Final = ("model_name", "model", "model_id", "deployment_name", "azure_deployment")
STOPS: Final = {"anthropic": "stop_sequences"}
BOUND: Final = ("tools", "tool_choice")
"""Fields of Prompt that a model is bound to."""
FORMAT: Final = "response_format"
_SCHEMA: Final = "json_schema"


def _from_format(value: Json) -> Json:
    """A StructuredPrompt holds a bare schema, whose title is its name."""
    match value:
        case {"schema_": dict(schema), **more} if not more:
            name = schema.get("title")
            called = re.sub(r"[^a-zA-Z0-9_-]", "_", name) if isinstance(name, str) and name else "response"
            return {"type": _SCHEMA, _SCHEMA: {"name": called, "schema": schema}}
        case {"schema_": _}:
            return None
    return value


PARAMETERS: Final = ParameterNames(
    known={
        "stop": Parameter(neutral="stop", write=as_list, own=", a list of texts"),
        FORMAT: Parameter(neutral=FORMAT, read=_from_format, own=", also the schema of a StructuredPrompt"),
    },
    open=True,
    defaults=True,
)

# ---- templates -------------------------------------------------------------------------------------------------------

PLACEHOLDER: Final = "placeholder for messages"
PLACE: Final = re.compile(r"\{\*([A-Za-z_]\w*)\}")
"""The content of a message that stands for a MessagesPlaceholder: no template could hold it."""


def _with_places(grammar: Grammar, name: str, *, trims: bool = False) -> Grammar:
    def tokens(text: str) -> Sequence[Token]:
        place = PLACE.fullmatch(text)
        if place is not None:
            return [Token(PLACEHOLDER, place[1])]
        return grammar.tokens(re.sub("\r\n?", "\n", text).removesuffix("\n") if trims else text)

    def text(tokens: Iterable[Token]) -> str:
        several = list(tokens)
        places = [f"{{*{token.body}}}" for token in several if token.kind == PLACEHOLDER]
        return "".join(places) if places else grammar.text(several)

    places = Construct(
        name="placeholders",
        kinds=frozenset({PLACEHOLDER}),
        words="placeholders for messages",
        otherwise="refused: write messages, or a variable",
        instead="put messages or a variable in its place at the source",
    )
    return replace(grammar, name=name, tokens=tokens, text=text, constructs=(*grammar.constructs, places))


_CHAT: Final = Chat(
    messages=True, keys=frozenset({"role", "content"}), parts=frozenset({"text", "image_url"}), spelled=False
)
_METADATA: Final = MetadataRule(says="metadata; a list of words called tags becomes the tags")
_SAYS: Final = {
    "a model of openai or anthropic": "an object behind the prompt, with parameters, tools and tool_choice",
    "any other model, its parameters and tools": "among the metadata, where LangChain passes over them",
}


def _variant(word: str, grammar: Grammar, *, trims: bool = False) -> Dialect:
    return Dialect(
        name=f"langchain-{word}",
        registry=f"LangChain ({word})",
        grammar=_with_places(grammar, f"{word} of LangChain", trims=trims),
        parameters=PARAMETERS,
        chat=_CHAT,
        metadata=_METADATA,
    )


WITH_MUSTACHE: Final = _variant("mustache", MUSTACHE)
WITH_JINJA: Final = _variant("jinja2", JINJA, trims=True)


def texts_of(text: str) -> Iterator[str]:
    """Every template of a prompt."""
    messages = messages_of(text)
    if messages is None:
        yield text
        return
    for one in messages:
        content = one.get("content")
        parts = content if isinstance(content, list) else [content]
        yield from (said for part in parts if (said := _said(part)) is not None)


def _said(part: Json) -> str | None:
    match part:
        case str(text) | {"type": "text", "text": str(text)} | {"image_url": {"url": str(text)}}:
            return None if PLACE.fullmatch(text) else text
    return None


ESCAPE: Final = "__lc_escaped__"


def escaped(value: Json) -> Json:
    """As `dumps` writes maps that look like a serialized object."""
    if isinstance(value, dict):
        inner = {key: escaped(one) for key, one in value.items()}
        return {ESCAPE: inner} if "lc" in value or value.keys() == {ESCAPE} else inner
    return [escaped(one) for one in value] if isinstance(value, list | tuple) else value


def plain(value: Json) -> Json:
    """The same back."""
    if isinstance(value, dict):
        inner = value[ESCAPE] if value.keys() == {ESCAPE} and isinstance(value[ESCAPE], dict) else value
        return {key: plain(one) for key, one in inner.items()}
    return [plain(one) for one in value] if isinstance(value, list) else value


DIALECT: Final = Dialect(
    name="langchain",
    registry="LangChain",
    grammar=_with_places(F_STRING, "f-string of LangChain"),
    parameters=PARAMETERS,
    chat=_CHAT,
    metadata=_METADATA,
    variants=(WITH_MUSTACHE, WITH_JINJA),
    says=_SAYS,
)
VARIANTS: Final = {one.name: one for one in (DIALECT, WITH_MUSTACHE, WITH_JINJA)}
"""By name; `format.py` has the first one with what holds of a prompt as a whole."""
