"""What a grown library of prompts looks like: the same one for the same count and seed. Pure."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from engine.sandbox.answers import Json

Fields = dict[str, Json]
"""Fields of a create."""

PARTIALS: Final = {
    "Tone of voice": "Write in short, friendly sentences. Never promise what {{company}} cannot keep.",
    "JSON only": 'Answer with one JSON object and nothing else, like {"answer": "..."}.',
    "Safety": "Never repeat card numbers, passwords or health data.",
}
INTEGRATIONS: Final = {
    "anthropic": [
        *("claude-3-7-sonnet-20250219", "claude-3-5-sonnet-20241022", "claude-3-opus-20240229", "claude-3-opus"),
    ],
    "bedrock": [
        *("us.anthropic.claude-3-7-sonnet-20250219-v1:0", "anthropic.claude-3-5-sonnet-20240620-v1:0"),
        *("anthropic.claude-3-5-sonnet", "anthropic.claude-3-opus"),
    ],
    "openai": ["gpt-4o", "gpt-4o-mini"],
}
PROVIDERS: Final = {"anthropic-prod": "anthropic", "bedrock-prod": "bedrock", "openai-prod": "openai"}
_MODELS: Final = (
    ("claude-3-7-sonnet-20250219", "anthropic-prod", 45),
    ("us.anthropic.claude-3-7-sonnet-20250219-v1:0", "bedrock-prod", 20),
    ("claude-3-opus", "anthropic-prod", 15),
    ("gpt-4o", "openai-prod", 20),
)
_TASKS: Final = {
    "support": ("refund reply", "ticket triage", "escalation summary", "outage notice", "macro rewrite"),
    "sales": ("cold outreach", "call summary", "proposal outline", "objection handling", "renewal reminder"),
    "engineering": ("code review", "release notes", "incident timeline", "test ideas", "SQL explainer"),
    "hr": ("job description", "interview questions", "onboarding plan", "policy answer", "feedback draft"),
    "marketing": ("blog outline", "ad variants", "newsletter", "product naming"),
    "legal": ("clause summary", "NDA check", "plain language rewrite"),
}
_AUDIENCES: Final = ("formal", "short", "de", "enterprise", "beta", "v2", "internal", "old")
_MOST_TOKENS: Final = {"claude-3-opus": 4096}
"""What these models write at most; the others write more than any of these prompts asks for."""
_FIRST_DAY: Final = 1_709_280_000
_DAYS: Final = 80_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Seed:
    """One prompt. `draft`: fields of a newer version that was never published. `at`: seconds since 1970."""

    name: str
    collection: str
    at: int
    fields: Fields
    draft: Fields = field(default_factory=dict)
    label: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Topic:
    system: str
    user: str
    partials: Mapping[str, str]
    random: random.Random


def library(count: int, seed: int, partials: Mapping[str, str]) -> Iterator[Seed]:
    """`count` prompts with unique names, oldest first; `partials` gives the slugs of PARTIALS in this workspace."""
    rng = random.Random(seed)
    used: dict[str, int] = {}
    step = min(21_600, _DAYS // max(count, 1))
    models = rng.choices(_MODELS, [weight for _, _, weight in _MODELS], k=count)
    for index, (model, provider, _) in enumerate(models):
        team = rng.choice(tuple(_TASKS))
        task = rng.choice(_TASKS[team])
        shape = _SHAPES[index % len(_SHAPES)]
        fields = _fields(shape(_topic(team, task, partials, rng)), model, provider, rng)
        yield Seed(
            name=_name(index, team, task, rng.choice(_AUDIENCES), used),
            collection=team if team in ("support", "sales", "engineering", "hr") else "default",
            at=_FIRST_DAY + (index - index % 2) * step,  # pairs of one second: paging must bear ties
            fields=fields,
            draft=_draft(fields) if index % 9 == 4 else {},
            label=("production", "staging")[index % 2] if index % 5 == 0 else None,
        )


def _fields(shaped: Fields, model: str, provider: str, rng: random.Random) -> Fields:
    parameters = {"temperature": rng.choice((0, 0.2, 0.7, 1.0)), "max_tokens": rng.choice((256, 1024, 4096))}
    return shaped | {
        "model": model,
        "virtual_key": provider,
        "parameters": _taken(parameters | shaped.get("parameters", {}), model),
        "version_description": rng.choice((None, "first version", 'says "please" now')),
    }


def _taken(parameters: Fields, model: str) -> Fields:
    """Those that the model takes: a library that is in use is answered."""
    unknown = {"thinking"} if "claude-3-7-" not in model else set[str]()
    unknown |= {"logit_bias"} if "claude" in model else set()
    taken = {name: value for name, value in parameters.items() if name not in unknown}
    taken["max_tokens"] = min(taken["max_tokens"], _MOST_TOKENS.get(model, taken["max_tokens"]))
    if "thinking" in taken:
        taken["temperature"] = 1.0
    return taken


def _draft(fields: Fields) -> Fields:
    """A text, whatever the prompt was: no raw template, which would have to be JSON."""
    text: str = fields["string"]
    draft = {"string": f"{'Hello {{name}}' if text.startswith('[') else text} (draft)"}
    return draft | ({"is_raw_template": 0} if fields.get("is_raw_template") else {})


def _name(index: int, team: str, task: str, audience: str, used: dict[str, int]) -> str:
    plain = f"{team}-{task.replace(' ', '-').lower()}-{audience}"
    name = plain if index % 7 else f"{'🧪 ' * (index % 2)}{team.capitalize()}: {task} ({audience})"
    used[name] = used.get(name, 0) + 1
    return name if used[name] == 1 else f"{name} #{used[name]:04d}"


def _topic(team: str, task: str, partials: Mapping[str, str], rng: random.Random) -> _Topic:
    tone = rng.choice(("calm", "precise", "warm", "brief"))
    system = f"You are a {tone} assistant of the {team} team of {{{{company}}}}. Your task: {task}."
    user = rng.choice(("Here is what we know:\n{{context}}", "{{customer_name}} wrote:\n\n{{message}}\n", "{{input}}"))
    return _Topic(system=system, user=user, partials=partials, random=rng)


# ---- shapes: each gives the fields that make a prompt of its sort ----------------------------------------------------


def _chat_of(topic: _Topic) -> list[Json]:
    return [{"role": "system", "content": topic.system}, {"role": "user", "content": topic.user}]


def _text(topic: _Topic) -> Fields:
    return {"string": f"{topic.system}\n\n{topic.user}"}


def _chat(topic: _Topic) -> Fields:
    return {"string": json.dumps(_chat_of(topic), indent=2), "template_metadata": {"template_type": "chat"}}


def _parts(topic: _Topic) -> Fields:
    image = {"type": "image_url", "image_url": {"url": "{{picture_url}}"}}
    user = {"role": "user", "content": [{"type": "text", "text": topic.user}, image]}
    return {"string": json.dumps([_chat_of(topic)[0], user], separators=(",", ":"), ensure_ascii=False)}


def _sections(topic: _Topic) -> Fields:
    listed = "{{#products}}\n- {{name}}: {{price}}\n{{/products}}{{^products}}No products.{{/products}}"
    return {"string": f"{topic.system}\n{{{{>{topic.partials['Tone of voice']}}}}}\n{listed}\n{{{{! ask legal }}}}"}


def _pinned_partial(topic: _Topic) -> Fields:
    system = f"{topic.system} {{{{>{topic.partials['Safety']}@1}}}} {{{{>>House rules}}}}"
    return {"string": json.dumps([{"role": "system", "content": system}, _chat_of(topic)[1]])}


def _raw(topic: _Topic) -> Fields:
    return {"string": json.dumps(_chat_of(topic)), "is_raw_template": 1}


def _raw_invalid(topic: _Topic) -> Fields:
    system = json.dumps(_chat_of(topic)[0])
    last = '{{#question}}, {"role": "user", "content": "{{question}}"}{{/question}}'
    return {"string": f"[{system}, {{{{chat_history}}}}{last}]", "is_raw_template": 1}


def _tools(topic: _Topic) -> Fields:
    number = {"type": "object", "properties": {"id": {"type": "integer", "maximum": 2**70}}, "required": ["id"]}
    tool = {"type": "function", "function": {"name": "find_order", "description": topic.system, "parameters": number}}
    choice = topic.random.choice(("auto", {"type": "function", "function": {"name": "find_order"}}))
    return _chat(topic) | {"tools": [tool], "tool_choice": choice}


def _functions(topic: _Topic) -> Fields:
    city = {"type": "object", "properties": {"city": {"type": "string"}}}
    return _chat(topic) | {"functions": [{"name": "weather", "parameters": city}]}


def _streaming(topic: _Topic) -> Fields:
    return _chat(topic) | {"parameters": {"stream": True, "top_p": 0.9}}


def _thinking(topic: _Topic) -> Fields:
    return _chat(topic) | {"parameters": {"thinking": {"type": "enabled", "budget_tokens": 2048}, "max_tokens": 8192}}


def _defaults(topic: _Topic) -> Fields:
    return _text(topic) | {"parameters": {"company": "Example Ltd", "stop": ["###"], "logit_bias": {"50256": -100}}}


def _unusual(topic: _Topic) -> Fields:
    marked = {"owner": {"team": topic.system[:20], "since": 1.10}, "template_type": "text"}
    return {"string": f"Grüße ☕\r\n\u2028{topic.user}\t\u200b<b>&amp;</b> ", "template_metadata": marked}


_SHAPES: Final[Sequence[Callable[[_Topic], Fields]]] = (
    *(_text, _chat, _parts, _sections, _pinned_partial, _raw, _raw_invalid),
    *(_tools, _functions, _streaming, _thinking, _defaults, _unusual),
)
