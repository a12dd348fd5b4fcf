"""588 prompts that people wrote, through four registries: Portkey, MLflow, Phoenix, Langfuse, and Portkey again.

Each arrives as it left the start, its messages and its variables equal, or it is refused by name at the hop that cannot
hold it; nothing in between, counted hop by hop. What is there is read from the databases, and every registry's own
client loads all of it and fills it in as the start would.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest
from langfuse import Langfuse as LangfuseClient

from engine.connectors import DIALECTS
from engine.connectors.mlflow.dialect import UNFILLED
from engine.content.chats import messages_of
from engine.content.templates import TEXT, names_in
from engine.model.dialect import Token
from engine.sandbox import Sandbox, SandboxOptions
from tests.e2e import Served, lines, served
from tests.real.mlflow_end import Mlflow
from tests.real.official import Official
from tests.real.servers import Server
from tests.routes import COLLECTION, LIMITS, PROVIDER, End, Langfuse, Phoenix, Portkey, Route, environ, route
from tests.test_real_prompts import DATA, fields

PATIENCE_S: Final = 900
THREADS: Final = 4
LISTINGS: Final = 40
"""Requests that list both ends, at most."""
MOST_READS: Final = 3
"""Of a prompt by a run that has nothing to do: a time of change of a moment ago is not trusted."""
NOT_HELD: Final = {"untranslatable", "too_long", "loss"}
"""Why a prompt may be refused: its template says what the other one cannot, it is too long, or it has a field without a
place there.
"""
PROVIDERS: Final = {"gpt-4o": "OPENAI", "claude-4": "ANTHROPIC", "gemini-3": "GOOGLE", "nova-2": "AWS"}
"""Model -> its provider in Phoenix: its client has a way of its own to fill in for each of the first three."""

Template = str | list[dict[str, str]]
Said = list[tuple[str, list[Token]]]
Texts = list[tuple[str, str]]
Values = dict[str, str]

pytestmark = [
    pytest.mark.skipif(not DATA.exists(), reason="the collection of real prompts is not beside this checkout"),
    pytest.mark.timeout(2 * PATIENCE_S),
]


# ---- what a prompt says ----------------------------------------------------------------------------------------------


def texts_of(template: Template) -> Texts:
    """Role and text of every message; a text by itself is the message of nobody."""
    return [("", template)] if isinstance(template, str) else [(one["role"], one["content"]) for one in template]


def said(template: Template, dialect: str) -> Said:
    """Every message as who speaks that dialect reads it."""
    grammar = DIALECTS[dialect].grammar
    return [(role, list(grammar.tokens(text))) for role, text in texts_of(template)]


def names_of(content: Said) -> list[str]:
    """Of the variables, in order."""
    return list(dict.fromkeys(name for _, tokens in content for name in names_in(tokens)))


def value(name: str) -> str:
    return f"«{name}»"


def filled_in(content: Said) -> Texts:
    """With each variable's value in its place."""
    pieces = [(role, [one.body if one.kind == TEXT else value(one.body) for one in tokens]) for role, tokens in content]
    return [(role, "".join(each)) for role, each in pieces]


# ---- where a hop leads to --------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class There:
    """`templates`: all that is there by name, each once. `fill_in`: these with their values, by its own client."""

    dialect: str
    templates: Callable[[], dict[str, Template]]
    fill_in: Callable[[dict[str, Values]], dict[str, Template]] | None = None
    unfilled: frozenset[str] = frozenset()
    """Variables that its own client has no way to give a value."""
    rewrite: Mapping[str, Any] = field(default_factory=dict)
    as_message: bool = False
    """A text is kept as the message of a user."""
    reads: int = 0
    """Of each prompt by a run that has nothing to do, at least: it is read where rows tell no time of change."""

    def says(self, template: Template) -> Said:
        """What a template of the start is to say here."""
        return [(role or ("user" if self.as_message else ""), said) for role, said in said(template, "portkey")]


def in_mlflow(server: Server) -> dict[str, Template]:
    assert server.rows("SELECT max(version), count(*) - count(DISTINCT name) FROM model_versions") == [(1, 0)]
    both = "model_version_tags kind JOIN model_version_tags text USING (name, version)"
    keys = "kind.key = '_mlflow_prompt_type' AND text.key = 'mlflow.prompt.text'"
    rows = server.rows(f"SELECT name, kind.value, text.value FROM {both} WHERE {keys}")
    return {name: json.loads(text) if kind == "chat" else text for name, kind, text in rows}


def in_phoenix(server: Server) -> dict[str, Template]:
    rows = server.rows("SELECT name, template FROM prompts JOIN prompt_versions ON prompts.id = prompt_id")
    found = {name: json.loads(template)["messages"] for name, template in rows}
    assert len(found) == len(rows)
    return {name: [_message(one) for one in messages] for name, messages in found.items()}


def _message(kept: Mapping[str, Any]) -> dict[str, str]:
    """A content is a text, or the one part that is a text."""
    content = kept["content"]
    if isinstance(content, list):
        (content,) = (part["text"] for part in content)
        content = content if isinstance(content, str) else content["text"]
    return {"role": _ROLES.get(kept["role"], kept["role"]), "content": content}


_ROLES: Final = {"ai": "assistant", "AI": "assistant", "USER": "user", "SYSTEM": "system"}


def in_langfuse(end: Langfuse) -> dict[str, Template]:
    assert len(end.versions()) == len(end.prompts())
    return {name: one["prompt"] for name, one in end.prompts().items()}


def in_portkey(end: Portkey) -> dict[str, Template]:
    return {name: _read(one["string"]) for name, one in end.prompts().items()}


def _read(text: str) -> Template:
    """A chat is JSON in the string."""
    return json.loads(text) if messages_of(text) else text


# ---- their own clients -----------------------------------------------------------------------------------------------


def by_mlflow(client: Official, wanted: dict[str, Values]) -> dict[str, Template]:
    prompts = [{"uri": f"prompts:/{name}@production", "values": values} for name, values in wanted.items()]
    return dict(zip(wanted, client("render_all", prompts=prompts, threads=THREADS), strict=True))


def by_phoenix(client: Official, server: Server, wanted: dict[str, Values]) -> dict[str, Template]:
    """For AWS it has no way of its own, whoever wrote the prompt: test_official_clients.py. It fills that in for the
    vendor that one names.
    """
    rows = "SELECT name, model_provider FROM prompts JOIN prompt_versions ON prompts.id = prompt_id"
    providers: dict[str, str] = dict(server.rows(rows))
    assert {*providers.values()} == {*PROVIDERS.values()}
    prompts: list[dict[str, Any]] = [
        {
            "prompt_identifier": name,
            "tag": "production",
            "values": values,
            "sdk": "openai" if providers[name] == "AWS" else None,
        }
        for name, values in wanted.items()
    ]
    found = client("render_all", prompts=prompts, threads=THREADS)
    print(f"  of these for each provider: {dict(Counter(providers[name] for name in wanted))}")
    return {name: _of_vendor(providers[name], one) for name, one in zip(wanted, found, strict=True)}


def _of_vendor(provider: str, call: Mapping[str, Any]) -> Template:
    """The messages in the arguments of the vendor's call."""
    if provider == "ANTHROPIC":
        system = call.get("system", [])
        texts = [system] if isinstance(system, str) else [block["text"] for block in system]
        return [*_systems(texts), *call["messages"]]
    if provider == "GOOGLE":
        system = call["config"].get("system_instruction")
        said = [(one["role"], one["parts"][0]["text"]) for one in call["messages"]]
        messages = [{"role": "assistant" if role == "model" else role, "content": text} for role, text in said]
        return [*_systems([] if system is None else [system]), *messages]
    return list(call["messages"])


def _systems(texts: list[str]) -> list[dict[str, str]]:
    return [{"role": "system", "content": text} for text in texts]


def by_langfuse(client: LangfuseClient, wanted: dict[str, Values]) -> dict[str, Template]:
    prompts: dict[str, Any] = {name: client.get_prompt(name, cache_ttl_seconds=0) for name in wanted}
    return {name: prompts[name].compile(**values) for name, values in wanted.items()}


@contextmanager
def langfuse_client(registry: Served) -> Iterator[LangfuseClient]:
    keys = environ(registry)
    url = registry.ask(lambda sandbox: sandbox.langfuse_url)
    client = LangfuseClient(public_key=keys["PUBLIC"], secret_key=keys["SECRET"], base_url=url, tracing_enabled=False)
    try:
        yield client
    finally:
        client.shutdown()


# ---- one hop after the other -----------------------------------------------------------------------------------------


def test_each_arrives_as_it_left_the_start_or_is_refused_by_name(
    mlflow: Server, phoenix: Server, mlflow_client: Official, phoenix_client: Official, tmp_path: Path
) -> None:
    with served(SandboxOptions(prompts=0)) as registry, langfuse_client(registry) as own:
        left = plant(registry)
        middle, end = Langfuse(registry), Portkey(registry, "copy")
        hops: list[tuple[End, There]] = [
            (
                Mlflow(mlflow),
                There(
                    dialect="mlflow",
                    templates=partial(in_mlflow, mlflow),
                    fill_in=partial(by_mlflow, mlflow_client),
                    unfilled=frozenset(UNFILLED),
                    rewrite={"name": "{name|slug}"},
                    reads=1,
                ),
            ),
            (
                Phoenix(phoenix.base_url),
                There(
                    dialect="phoenix",
                    templates=partial(in_phoenix, phoenix),
                    fill_in=partial(by_phoenix, phoenix_client, phoenix),
                    rewrite={"name": "{name|slug}", "rules": rules()},
                    as_message=True,
                    reads=1,
                ),
            ),
            (
                middle,
                There(
                    dialect="langfuse",
                    templates=partial(in_langfuse, middle),
                    fill_in=partial(by_langfuse, own),
                    reads=2,
                ),
            ),
            (end, There(dialect="portkey", templates=partial(in_portkey, end), rewrite={"provider": PROVIDER})),
        ]
        before: End = Portkey(registry)
        for after, there in hops:
            folder = tmp_path / there.dialect
            folder.mkdir()
            rewrite = {"name": "{name}", **there.rewrite}
            way = route(folder, registry, before, after, rewrite=rewrite, limits=LIMITS | {"timeout": 60})
            left, before = hop(way, left, there), after
    assert len(left) > 500


def plant(registry: Served) -> dict[str, Template]:
    """Name -> template of each that is at the start."""
    originals = [json.loads(line) for line in DATA.read_text(encoding="utf-8").split("\n") if line]
    start: dict[str, Template] = {}

    def fill(sandbox: Sandbox) -> None:
        models = [*PROVIDERS]
        for number, one in enumerate(originals):
            given = fields(one)
            # Google and AWS have no place for most parameters: those that have some go to the other two
            model = models[number % (2 if given["parameters"] else len(models))]
            name = f"{number:03} {one['name']}"
            start[name] = one["template"] if one["kind"] == "text" else one["messages"]
            sandbox.add_prompt(name, model=model, collection=COLLECTION, **given)

    registry.ask(fill)
    return start


def rules() -> list[dict[str, Any]]:
    """What Phoenix wants to know besides."""
    needed = {"ANTHROPIC": {"parameters": {"set": {"max_tokens": 1000}}}}
    return [
        {"when": {"model": model}, "provider": provider, **needed.get(provider, {})}
        for model, provider in PROVIDERS.items()
    ]


def hop(way: Route, left: Mapping[str, Template], there: There) -> dict[str, Template]:
    """Runs it, and once more. Gives what arrived: the name that it has there, and its template at the start."""
    ended = way.ask("run", patience_s=PATIENCE_S)
    told = [line for line in lines(way.ledger) if line["kind"] in ("created", "failed")]
    made = {line["source_name"]: line["name"] for line in told if line["kind"] == "created"}
    refused = {line["source_name"]: line["error"] for line in told if line["kind"] == "failed"}
    print(f"to {there.dialect}: {len(left)} went, {len(made)} arrived, refused: {dict(Counter(refused.values()))}")
    assert len(told) == len(left)
    assert {*made, *refused} == {*left}
    assert {*refused.values()} <= NOT_HELD
    assert ended.code == (1 if refused else 0), ended.err
    assert way.ask("verify", patience_s=PATIENCE_S).code == 0

    found = there.templates()
    assert {*found} == {*made.values()}
    for source, name in made.items():
        assert said(found[name], there.dialect) == there.says(left[source]), name
    nothing_to_do(way, len(made), there.reads * len(made), MOST_READS * len(left))
    arrived = {name: left[source] for source, name in made.items()}
    all_filled_in(there, arrived)
    return arrived


def nothing_to_do(way: Route, count: int, least: int, most: int) -> None:
    """A second run writes nothing, and reads so much."""
    again = way.ask("run", patience_s=PATIENCE_S).summary
    requests = again["requests"]
    print(f"  a second run: {requests['reads']} reads, {requests['writes']} writes")
    assert (again["this_run"]["unchanged"], requests["writes"]) == (count, 0)
    assert least <= requests["reads"] <= most + LISTINGS


def all_filled_in(there: There, arrived: Mapping[str, Template]) -> None:
    if there.fill_in is None:
        return
    contents = {name: there.says(template) for name, template in arrived.items()}
    fillable = {name: one for name, one in contents.items() if there.unfilled.isdisjoint(names_of(one))}
    filled = there.fill_in({name: {one: value(one) for one in names_of(said)} for name, said in fillable.items()})
    print(f"  loaded and filled in by its own client: {len(filled)} of {len(arrived)}")
    for name, said in fillable.items():
        assert texts_of(filled[name]) == filled_in(said), name
