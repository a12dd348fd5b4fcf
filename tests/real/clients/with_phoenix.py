"""Phoenix's own client, told what to do by lines of JSON: runs under `.venv-phoenix`, never under ours.

A line `{"url", "do", "arguments"}` on stdin is answered by `{"result"}` or `{"error"}` on stdout.
"""

from __future__ import annotations

import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from phoenix.client import Client
from phoenix.client.types import PromptVersion


def create(client: Client, prompt: dict[str, Any]) -> str:
    """`prompt`: name, prompt_description and prompt_metadata of `prompts.create`, and `openai`, `anthropic` or
    `version` with the arguments of `PromptVersion`; the id of the version."""
    return str(client.prompts.create(version=_version(prompt), **prompt).id)


def _version(prompt: dict[str, Any]) -> PromptVersion:
    more = prompt.pop("more", {})
    if "openai" in prompt:
        return PromptVersion.from_openai(prompt.pop("openai"), **more)
    if "anthropic" in prompt:
        return PromptVersion.from_anthropic(prompt.pop("anthropic"), **more)
    return PromptVersion(prompt.pop("messages"), **more)


def load(client: Client, **which: str) -> dict[str, Any]:
    """A version by `prompt_version_id`, or by `prompt_identifier` and perhaps `tag`, as the client understands it."""
    found = client.prompts.get(**which)
    return {"id": found.id, **found._dumps()}


def render(client: Client, values: dict[str, str], sdk: Any = None, **which: str) -> dict[str, Any]:
    """Arguments of the vendor's own call: messages, model, parameters; Google's are objects of its library. `sdk`: of
    another vendor than the version's.
    """
    return dict(client.prompts.get(**which).format(variables=values, sdk=sdk))


def render_all(client: Client, prompts: list[dict[str, Any]], threads: int) -> list[dict[str, Any]]:
    """`prompts`: the arguments of `render` for each."""
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(lambda one: render(client, **one), prompts))


def set_tag(client: Client, prompt_version_id: str, name: str, description: str | None = None) -> None:
    client.prompts.tags.create(prompt_version_id=prompt_version_id, name=name, description=description)


def tags(client: Client, prompt_version_id: str) -> list[str]:
    """Names."""
    return [found["name"] for found in client.prompts.tags.list(prompt_version_id=prompt_version_id)]


def update(client: Client, **changes: Any) -> dict[str, Any]:
    return dict(client.prompts.update(**changes))


def delete(client: Client, prompt_identifier: str) -> None:
    client.prompts.delete(prompt_identifier=prompt_identifier)


def create_all(client: Client, prompts: list[dict[str, Any]], threads: int) -> dict[str, Any]:
    """Seconds of the whole and of each, with so many threads. `prompts`: as for `create`, with a `tag` to be put on."""

    def one(prompt: dict[str, Any]) -> float:
        began = time.perf_counter()
        tag = prompt.pop("tag", None)
        version = create(client, prompt)
        if tag is not None:
            set_tag(client, version, tag)
        return time.perf_counter() - began

    began = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        each = list(pool.map(one, prompts))
    return {"seconds": time.perf_counter() - began, "each": each}


DO = {one.__name__: one for one in (create, load, render, render_all, set_tag, tags, update, delete, create_all)}


def main() -> None:
    answers, sys.stdout = sys.stdout, sys.stderr
    clients: dict[str, Client] = {}
    for line in sys.stdin:
        order = json.loads(line)
        try:
            client = clients.setdefault(order["url"], Client(base_url=order["url"]))
            answer = {"result": DO[order["do"]](client, **order["arguments"])}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer, default=_plain), file=answers, flush=True)


def _plain(value: Any) -> Any:
    """A model of pydantic, as the vendors' libraries have them."""
    return value.model_dump(mode="json", exclude_none=True)


if __name__ == "__main__":
    main()
