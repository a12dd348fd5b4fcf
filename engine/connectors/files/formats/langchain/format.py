"""Prompts of LangChain as JSON, as its hub (LangSmith) gives them and `langchain_core.load` writes them. Pure.

Sources: `langchain-core` 1.7.2, which the tests read everything with, and manifests of LangSmith with their model.

- `NAME.json` holds one serialized object: a PromptTemplate, a ChatPromptTemplate or StructuredPrompt, alone or as the
  first step of a RunnableSequence whose next one is a model, perhaps bound to tools. JSON that is no such object is
  passed over.
- Templates are f-strings, and in a file that says so mustache or Jinja2, which stay what they are. A message whose text
  is fixed becomes a template that says it; a MessagesPlaceholder is a message of role `placeholder`.
- A model that is written as an object is one of OpenAI or Anthropic, or the one that was read: then its parameters are
  among its arguments, and tools and tool_choice are bound to it; keys are the names of their variables. For any other
  provider all of that stands in `metadata.promptferry.file`, and the prompt alone can be loaded.
- Default values of variables are `partial_variables`; `tags` are `metadata.tags`. Metadata stand in `metadata`, and
  there the mark under `promptferry`, and what there is no place for (description, collection, slug, labels, functions)
  under `promptferry.file`. Other arguments are kept as extra.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from engine.connectors.files.fileformat import FileFormat
from engine.connectors.files.formats.langchain.dialect import DIALECT, FIELDS
from engine.connectors.files.formats.langchain.reading import read
from engine.connectors.files.formats.langchain.writing import write
from engine.connectors.files.formats.parts import fitting
from engine.model import Prompt
from engine.model.dialect import Fitted


def _fit(prompt: Prompt) -> Fitted:
    return fitting(write, prompt)


LANGCHAIN: Final = FileFormat(
    name="langchain",
    endings=(".json",),
    read=read,
    write=write,
    spares="they hold JSON that is no object of LangChain",
    dialect=replace(DIALECT, fit=_fit),
    fields=FIELDS,
)
