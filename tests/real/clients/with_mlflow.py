"""MLflow's own client, told what to do by lines of JSON: runs under `.venv-mlflow`, never under ours.

A line `{"url", "do", "arguments"}` on stdin is answered by `{"result"}` or `{"error"}` on stdout.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import mlflow
from mlflow.tracking import MlflowClient


def register(prompt: dict[str, Any]) -> int:
    """`prompt`: the arguments of `register_prompt`; the number of the version."""
    return int(mlflow.genai.register_prompt(**prompt).version)


def load(uri: str) -> dict[str, Any]:
    """A version by `prompts:/NAME/VERSION` or `prompts:/NAME@ALIAS`, as the client understands it."""
    found = mlflow.genai.load_prompt(uri, cache_ttl_seconds=0)
    return {
        "name": found.name,
        "version": int(found.version),
        "template": found.template,
        "is_text": found.is_text_prompt,
        "commit_message": found.commit_message,
        "tags": found.tags,
        "response_format": found.response_format,
        "model_config": found.model_config,
        "variables": sorted(found.variables),
        "aliases": sorted(found.aliases),
    }


def render(uri: str, values: dict[str, Any]) -> Any:
    """Text, or messages."""
    return mlflow.genai.load_prompt(uri, cache_ttl_seconds=0).format(**values)


def render_all(prompts: list[dict[str, Any]], threads: int) -> list[Any]:
    """`prompts`: the arguments of `render` for each."""
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(lambda one: render(**one), prompts))


def set_alias(name: str, alias: str, version: int) -> None:
    mlflow.genai.set_prompt_alias(name, alias, version)


def delete_alias(name: str, alias: str) -> None:
    mlflow.genai.delete_prompt_alias(name, alias)


def search(filter_string: str | None = None) -> list[str]:
    """Names."""
    return [found.name for found in mlflow.genai.search_prompts(filter_string)]


def versions(name: str) -> list[int]:
    """Numbers, as the client lists them."""
    return [int(found.version) for found in MlflowClient().search_prompt_versions(name)]


def register_all(prompts: list[dict[str, Any]], threads: int) -> dict[str, Any]:
    """Seconds of the whole and of each, with so many threads."""

    def one(prompt: dict[str, Any]) -> float:
        began = time.perf_counter()
        register(prompt)
        return time.perf_counter() - began

    began = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        each = list(pool.map(one, prompts))
    return {"seconds": time.perf_counter() - began, "each": each}


DO = {
    one.__name__: one
    for one in (register, load, render, render_all, set_alias, delete_alias, search, versions, register_all)
}


def settled() -> None:
    """Until what the calls left to threads of their own is done: they note the experiment in a tag of the prompt."""
    for thread in threading.enumerate():
        if thread.name.startswith("link_prompt"):
            thread.join()


def main() -> None:
    answers, sys.stdout = sys.stdout, sys.stderr
    for line in sys.stdin:
        order = json.loads(line)
        mlflow.set_tracking_uri(order["url"])
        try:
            answer = json.dumps({"result": DO[order["do"]](**order["arguments"])})
        except Exception as error:
            answer = json.dumps({"error": f"{type(error).__name__}: {error}"})
        settled()
        print(answer, file=answers, flush=True)


if __name__ == "__main__":
    main()
