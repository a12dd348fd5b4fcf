"""What a project of Langfuse holds at first: a small library of texts and chats, with folders, labels and drafts."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Final, Literal

from engine.sandbox.answers import Json
from engine.sandbox.langfuse.content import check_creation
from engine.sandbox.langfuse.project import Langfuse, Project

_LARGEST_LIBRARY: Final = 20
_FOUNDED: Final = 1_704_067_200.0
_DAY: Final = 86_400.0
_JOBS: Final = ("refund reply", "ticket triage", "call summary", "release notes", "policy answer", "clause summary")
_TEAMS: Final = ("support", "sales", "legal")
_MODELS: Final = ("gpt-4o", "gpt-4o-mini", "claude-3-7-sonnet-20250219")
_TEXTS: Final = (
    "You handle the {{job}} of {{customer_name}}.\n\nThe message was: {{ input }}\n",
    'Answer with JSON like {"decision": "...", "reason": "..."} about {{input}}. Grüße ☕',
    "Costs stand as $5; ${this} is no variable. Classify {{message}}.",
)
_LOOK_UP: Final = {
    "type": "function",
    "function": {
        "name": "look_up",
        "parameters": {"type": "object", "properties": {"id": {"type": "string"}}, "required": ["id"]},
    },
}


def plant_langfuse_library(langfuse: Langfuse, workspace: str, portkey_prompts: int) -> None:
    """A tenth of the prompts that Portkey's side has, 20 at most; made long ago, by somebody else, a version a day."""
    count = min(_LARGEST_LIBRARY, -(-portkey_prompts // 10))
    creates = langfuse_library(count, langfuse.store.seed, langfuse.quirks.manner)
    for day, body in enumerate(creates):
        then = replace(langfuse, clock=partial(_dawn, day))
        project = Project(langfuse=then, id=workspace, user="somebody")
        project.write(project.draft(check_creation(body, then.quirks)))


def langfuse_library(count: int, seed: int, manner: Literal[2, 3]) -> Iterator[dict[str, Json]]:
    """Bodies of creates, one a version, the same for the same arguments; `count` names. Some have no
    version in production, the newest of three versions is a draft, and some refer to the first prompt.
    """
    rng = random.Random(f"langfuse {seed}")
    for index in range(count):
        job, team = _JOBS[index % len(_JOBS)], rng.choice(_TEAMS)
        name = f"{team}/{job.replace(' ', '-')}-{index + 1}" if index % 4 else f"{job.capitalize()} {index + 1}"
        if index == 0:
            name = "Tone of voice"
        body: dict[str, Json] = {"name": name, "labels": [] if index % 6 == 5 else ["production"]}
        body |= {"tags": [team, "reviewed"]} if index % 2 else {}
        body |= {"config": _config(index, rng)} if index % 3 else {}
        body |= _chat(index, manner) if index % 3 == 1 else {"prompt": _text(index)}
        yield body
        if index % 5 == 2:
            yield body | {"commitMessage": "shorter", "labels": ["production", "staging"]}
            yield body | {"commitMessage": "not agreed yet", "labels": ["dev"]}


def _dawn(day: int) -> float:
    return _FOUNDED + day * _DAY


def _text(index: int) -> str:
    text = _TEXTS[index % len(_TEXTS)]
    return f"@@@langfusePrompt:name=Tone of voice|label=production@@@\n\n{text}" if index % 5 == 3 else text


def _chat(index: int, manner: Literal[2, 3]) -> dict[str, Json]:
    messages = [{"role": "system", "content": _text(index)}, {"role": "user", "content": "{{question}}"}]
    if manner == 3 and index % 2:
        messages.insert(1, {"type": "placeholder", "name": "history"})
    return {"type": "chat", "prompt": messages}


def _config(index: int, rng: random.Random) -> dict[str, Json]:
    config: dict[str, Json] = {"model": rng.choice(_MODELS), "temperature": rng.choice((0, 0.2, 0.7))}
    if index % 4 == 1:
        config |= {"tools": [_LOOK_UP], "tool_choice": "auto"}
    if index % 4 == 2:
        config |= {"response_format": {"type": "json_object"}, "max_tokens": 1024}
    return config
