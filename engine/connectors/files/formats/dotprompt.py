r"""Prompts in dotprompt files, as Genkit and the dotprompt libraries load them: front matter, then Handlebars. Pure.

Sources: google.github.io/dotprompt/reference, and `dotpromptz` 0.2.0, which the tests read everything with.

- `NAME.prompt`; a file whose name begins with `_` is a partial of others and is passed over.
- `model` is `PROVIDER/MODEL`, as Genkit calls its models; `config` has the parameters, `input.default` the default
  values of variables, `output` the response format, `toolDefs` the tools.
- Messages stand behind `{{role "system"}}`, whose `~` takes the line break that is there for people. Role `model` is
  `assistant` elsewhere. A template that says who speaks only while it is rendered, in a block or by `{{history}}`, is
  one text, which no other registry can hold.
- Metadata stand in `metadata`, and there the mark under `promptferry`; what dotprompt has no key for (collection, slug,
  labels, functions, tool_choice) stands in `metadata.promptferry.file`. Every other key is kept as extra.
- Its readers drop blanks at both ends of the template, where there is front matter. A text that has some stands behind
  a role, is remembered as a text, and a role without a message keeps those at its end.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Final

from engine.connectors.files.fileformat import FileFormat
from engine.connectors.files.format import Document, Unreadable, file_stem
from engine.connectors.files.formats import handlebars
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
    text_of,
    variables_in,
)
from engine.connectors.files.formats.picoschema import NoSchema, is_json_schema, json_schema
from engine.connectors.files.yaml import write_yaml
from engine.content.chats import spelled
from engine.content.digest import CONTENT
from engine.content.textfile import BOM
from engine.model import Json, Prompt
from engine.model.dialect import Chat, Dialect, Fitted, MetadataRule, Parameter, ParameterNames

_FIELDS: Final = frozenset({*CONTENT, "extra", "labels"}) - {"raw", "integrations"}
_KEYS: Final = frozenset("name description model config input output toolDefs metadata".split())
"""Outermost keys that a prompt has a field for."""
_BESIDE: Final = ("collection", "slug", "source_version", "labels", "functions", "tool_choice")
"""What stands in one map among the metadata."""
_TEXTS: Final = frozenset("name variant version description model".split())
_ROLES: Final = {"system": "system", "user": "user", "assistant": "model", "tool": "tool"}
_NEUTRAL: Final = {own: neutral for neutral, own in _ROLES.items()}
_MARKER: Final = "<<<dotprompt:"
"""What tags are rendered to; in a text it would be read as one of them."""
_UNSAFE: Final = re.compile(r"[^a-z0-9_-]+")
"""A dot in a file name stands before its variant."""

# ---- parameters ------------------------------------------------------------------------------------------------------

_OUTPUT: Final = "output"
_NAMELESS: Final = "response"
"""What a schema without a name is called where it needs one."""
_SCHEMA: Final = "json_schema"


def _to_output(value: Json) -> Json:
    match value:
        case {"type": "text", **more} if not more:
            return {"format": "text"}
        case {"type": "json_object", **more} if not more:
            return {"format": "json"}
        case {"type": "json_schema", "json_schema": {"schema": dict(schema), **own}, **more} if (
            not more and is_json_schema(schema) and not own.keys() & {"format", "schema"}
        ):
            named = {} if own.get("name") == _NAMELESS else {"name": own.get("name")}
            return {"format": "json", "schema": schema, **named, **{k: v for k, v in own.items() if k != "name"}}
    return None


def _from_output(value: Json) -> Json:
    match value:
        case {"format": "text", **more} if not more:
            return {"type": "text"}
        case {"format": "json", **more} if not more:
            return {"type": "json_object"}
        case {"schema": schema, **own} if own.pop("format", "json") == "json":
            try:
                return {"type": _SCHEMA, _SCHEMA: {"name": _NAMELESS, **own, "schema": json_schema(schema)}}
            except NoSchema:
                return None
    return None


PARAMETERS: Final = ParameterNames(
    known={
        "maxOutputTokens": Parameter(neutral="max_tokens"),
        "topP": Parameter(neutral="top_p"),
        "topK": Parameter(neutral="top_k"),
        "stopSequences": Parameter(neutral="stop", write=as_list, own=", a list of texts"),
        "presencePenalty": Parameter(neutral="presence_penalty"),
        "frequencyPenalty": Parameter(neutral="frequency_penalty"),
        _OUTPUT: Parameter(
            neutral="response_format",
            read=_from_output,
            write=_to_output,
            own=": its format is text or json, its schema JSON schema or Picoschema",
            advice="it has no form in output, so set it where the prompt is called",
        ),
    },
    open=True,
    defaults=True,
)
"""What Genkit calls them; all others keep their names."""

# ---- tools -----------------------------------------------------------------------------------------------------------

_OF_A_TOOL: Final = frozenset({"name", "inputSchema", "outputSchema", "parameters"})


def _to_tools(tools: Json) -> list[Json] | None:
    """As `toolDefs`; None: that has no place for some of it."""
    if not isinstance(tools, list):
        return None
    defined = [_to_tool(tool) for tool in tools]
    return None if None in defined else defined


def _to_tool(tool: Json) -> Json:
    match tool:
        case {"type": "function", "function": {"name": str(name), "parameters": dict(schema), **more}, **others} if (
            not others and not more.keys() & _OF_A_TOOL
        ):
            return {"name": name, **more, "inputSchema": schema}
    return None


def _from_tools(tools: Json) -> list[Json] | None:
    """As OpenAI writes them; None: that has no place for some of it."""
    if not isinstance(tools, list):
        return None
    defined = [_from_tool(tool) for tool in tools]
    return None if None in defined else defined


def _from_tool(tool: Json) -> Json:
    match tool:
        case {"name": str(name), "inputSchema": schema, **more} if not more.keys() & _OF_A_TOOL:
            try:
                parameters = json_schema(schema)
            except NoSchema:
                return None
            function = {"name": name, **more, "parameters": parameters}
            return {"type": "function", "function": function} if parameters == schema else None
    return None


# ---- writing ---------------------------------------------------------------------------------------------------------


def _write(document: Document) -> bytes:
    prompt = document.prompt
    body, form = _body(prompt)
    model, provider = _model(prompt)
    metadata = beside(prompt, *_BESIDE, provider=provider, form=form)
    front = {
        "name": prompt.name,
        "description": prompt.description or None,
        "model": model,
        **_of_parameters(prompt),
        "toolDefs": _tools(prompt),
        **_of_extra(prompt.extra),
    }
    _lay(front, prompt.extra)
    front["metadata"] = metadata
    kept = {
        key: value for key, value in front.items() if value or (value is not None and key not in _KEYS) or key == "name"
    }
    file = f"---\n{write_yaml(kept, old=True)}---\n{sayable(body)}".encode()
    return checked(prompt, file, partial(_read_one, prompt_id=prompt.id), DIALECT, _FIELDS)


def _body(prompt: Prompt) -> tuple[str, str | None]:
    """The template, and that it is one text though it looks like a message."""
    messages = simple_messages(prompt, "dotprompt", _ROLES)
    form = None
    if messages is None:
        if _MARKER in prompt.text or (prompt.text and not prompt.text.strip()):
            raise ValueError(_unsaid("a text"))
        if not (handlebars.is_blank(prompt.text[:1]) or handlebars.is_blank(prompt.text[-1:])):
            return f"{prompt.text}\n", None
        messages, form = [("user", prompt.text)], "text"
    for at, (_, said) in enumerate(messages, 1):
        if _MARKER in said or not said.strip():
            raise ValueError(_unsaid(f"a message {at}"))
    return f"{handlebars.written(messages)}\n", form


def _unsaid(what: str) -> str:
    return f"{what} that is blank or holds {_MARKER}, which dotprompt takes for something else: change it at the source"


def _model(prompt: Prompt) -> tuple[str | None, str | None]:
    """The model as one word, and the provider where that word does not tell it."""
    joined = f"{prompt.provider}/{prompt.model}" if prompt.provider and prompt.model else prompt.model
    if _of_model(joined) == (prompt.provider or None, prompt.model or None):
        return joined or None, None
    return prompt.model, prompt.provider or ""


def _of_model(model: str | None) -> tuple[str | None, str | None]:
    """Provider and model."""
    provider, slash, rest = (model or "").partition("/")
    return (provider, rest) if slash and provider and rest else (None, model or None)


def _of_parameters(prompt: Prompt) -> dict[str, Json]:
    variables = variables_in(templates_of(prompt.text), handlebars.GRAMMAR)
    named = dict(sorted((name, value) for name, value in prompt.parameters.items() if value is not None))
    defaults = {name: named.pop(name) for name in list(named) if name in variables}
    output = named.pop(_OUTPUT, None)
    return {"config": named, "input": {"default": defaults} if defaults else None, "output": output}


def _tools(prompt: Prompt) -> Json:
    if not prompt.tools:
        return None
    tools = _to_tools(prompt.tools)
    if tools is None:
        raise ValueError("tools that are no functions with a name and a schema of parameters, as toolDefs has them")
    return tools


_INSIDE: Final = ("config", "input")
"""Maps in which a key without a field may stand: `input.schema`."""


def _of_extra(extra: Mapping[str, Json]) -> dict[str, Json]:
    """Those that stand outermost."""
    if taken := sorted(extra.keys() & (_KEYS - {"output", "toolDefs"})):
        raise ValueError(f"fields called {', '.join(taken)}, which dotprompt has keys of its own for")
    return {key: value for key, value in sorted(extra.items()) if key.partition(".")[0] not in _INSIDE}


def _lay(front: dict[str, Json], extra: Mapping[str, Json]) -> None:
    """Puts those that stand inside where they belong."""
    for key, value in sorted(extra.items()):
        outer, _, inner = key.partition(".")
        if outer in _INSIDE:
            front[outer] = {**(front[outer] or {}), inner: value}


# ---- reading ---------------------------------------------------------------------------------------------------------


def _read(content: bytes, prompt_id: str, _dialects: Mapping[str, Dialect]) -> list[Document]:
    if prompt_id.rpartition("/")[2].startswith("_"):
        return []
    return [_read_one(content, prompt_id)]


def _read_one(content: bytes, prompt_id: str) -> Document:
    found = cut(content, _TEXTS)
    if found is None:
        return Document(prompt=_prompt(Values({}, {}), text_of(content.removeprefix(BOM)), prompt_id))
    front = Values(dict(found.front.values), found.front.lines)
    return Document(prompt=_prompt(front, found.body.strip(handlebars.BLANKS), prompt_id))


def _prompt(front: Values, body: str, prompt_id: str) -> Prompt:
    provider, model = _of_model(front.take("model", str))
    metadata, fields, others = taken_beside(front.take("metadata", dict) or {}, front.line_of("metadata"))
    if "provider" in fields:
        model, provider = "/".join(filter(None, (provider, model))) or None, fields.pop("provider") or None
    text = _text(body, one=others.get("form") == "text")
    variables = variables_in(templates_of(text), handlebars.GRAMMAR)
    name = front.take("name", str) or prompt_id.rpartition("/")[2]
    description = front.take("description", str)
    tools, extra = _tools_of(front)
    parameters, more = _parameters(front, variables)
    return Prompt(
        id=prompt_id,
        name=name,
        text=text,
        model=model,
        provider=provider,
        description=description,
        tools=tools,
        parameters=parameters,
        metadata=metadata,
        variables=variables,
        dialect=DIALECT.name,
        extra={**{key: value for key, value in front.values.items() if value is not None}, **extra, **more},
        **fields,
    )


def _text(body: str, *, one: bool) -> str:
    messages = handlebars.sections(body)
    if messages is None or any(role not in _NEUTRAL for role, _ in messages):
        return body
    if one and len(messages) == 1:
        return messages[0][1]
    return spelled([{"role": _NEUTRAL[role], "content": said} for role, said in messages])


def _tools_of(front: Values) -> tuple[Json, dict[str, Json]]:
    """The tools, and what of them is none."""
    defined = front.take("toolDefs", list)
    tools = _from_tools(defined)
    return tools or None, {} if tools is not None or not defined else {"toolDefs": defined}


def _parameters(front: Values, variables: frozenset[str]) -> tuple[dict[str, Json], dict[str, Json]]:
    """Parameters with defaults of variables, and what is neither."""
    config = front.take("config", dict) or {}
    inputs = dict(front.take("input", dict) or {})
    defaults = inputs.pop("default", None) or {}
    if not isinstance(defaults, dict):
        raise Unreadable(front.line_of("input"), "has an `input.default` that is no map of variables")
    output = front.take(_OUTPUT, dict)
    named = {name: value for name, value in config.items() if name not in variables and name != _OUTPUT}
    asked = {name: value for name, value in defaults.items() if name in variables}
    unasked = {name: value for name, value in defaults.items() if name not in variables}
    inside: dict[str, Any] = {f"config.{name}": value for name, value in config.items() if name not in named}
    inside |= {f"input.{name}": value for name, value in inputs.items()}
    inside |= {"input.default": unasked} if unasked else {}
    return {**named, **asked, **({_OUTPUT: output} if output else {})}, inside


# ---- the format ------------------------------------------------------------------------------------------------------


def _fit(prompt: Prompt) -> Fitted:
    if prompt.tools and _to_tools(prompt.tools) is None:
        return _without(prompt)
    return fitting(_write, prompt)


def _without(prompt: Prompt) -> Fitted:
    fitted = fitting(_write, replace(prompt, tools=None))
    return replace(fitted, losses=("tools",))


DIALECT: Final = Dialect(
    name="dotprompt",
    registry="dotprompt",
    grammar=handlebars.GRAMMAR,
    parameters=PARAMETERS,
    chat=Chat(messages=True, keys=frozenset({"role", "content"}), parts=frozenset(), spelled=False),
    metadata=MetadataRule(says="metadata, which its readers pass over"),
    fit=_fit,
    says={
        "tools that are functions with a schema of parameters": "toolDefs",
        "other tools": "a loss",
        "messages with another role than system, user, assistant, tool": "refused",
        "blank messages, and a text with <<<dotprompt:": "refused",
    },
)
DOTPROMPT: Final = FileFormat(
    name="dotprompt",
    endings=(".prompt",),
    read=_read,
    write=_write,
    spares="a file whose name begins with _ is a partial of others",
    dialect=DIALECT,
    fields=_FIELDS,
    stem=partial(file_stem, unsafe=_UNSAFE, edges="-_"),
)
