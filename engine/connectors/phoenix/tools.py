"""Tools as Phoenix keeps them: functions in its own form, any other one raw, as it is. Pure.

Source: `db/types/prompts.py` of arize-phoenix 20.26.1; `Tool` of google-genai, which its official client makes of a raw
tool of Google's, and which takes no other key.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from engine.model import Json

_OF_FUNCTION: Final[Mapping[str, type]] = {"name": str, "description": str, "parameters": dict, "strict": bool}
_OF_GOOGLE: Final = frozenset(
    "retrieval computer_use file_search google_search google_maps code_execution enterprise_web_search "
    "function_declarations google_search_retrieval parallel_ai_search url_context mcp_servers exa_ai_search".split()
)


def is_function(tool: Mapping[str, Any]) -> bool:
    """Whether it is what the server keeps as a function; any other tool it keeps as it is."""
    asked = tool.get("function")
    if tool.keys() != {"type", "function"} or tool["type"] != "function" or not isinstance(asked, dict):
        return False
    return "name" in asked and all(
        key in _OF_FUNCTION and isinstance(value, _OF_FUNCTION[key]) for key, value in asked.items()
    )


def foreign_to_google(tools: Json) -> Iterator[str]:
    """Which of these the client could not render for Google."""
    for at, tool in enumerate(tools if isinstance(tools, list) else (), 1):
        if isinstance(tool, dict) and not is_function(tool) and not _OF_GOOGLE.issuperset(map(_snake, tool)):
            why = f"tools: number {at} is neither a function nor a tool of Google's: Phoenix's client cannot render it"
            yield f"{why}; change it at the source, or leave the prompt out"


def _snake(key: str) -> str:
    """The other of the two spellings that Google takes."""
    return "".join(f"_{sign.lower()}" if sign.isupper() else sign for sign in key)
