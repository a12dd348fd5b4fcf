"""One suite for every connector: what `Source` and `Target` promise holds whatever registry stands behind them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.connectors import DIALECTS, REGISTRIES
from engine.connectors.conductor.registry import Conductor
from engine.connectors.files.format import Document
from engine.connectors.files.formats.table import FORMATS
from engine.connectors.files.registry import Files, open_files
from engine.connectors.langfuse.registry import Langfuse
from engine.connectors.memory import Memory
from engine.connectors.mlflow.registry import Mlflow
from engine.connectors.phoenix.registry import Phoenix
from engine.connectors.portkey.registry import Portkey
from engine.content.chats import messages_of
from engine.content.digest import CONTENT, differences, filled, key_of, make_replica, read_mark
from engine.errors import Gone, Rejected
from engine.model import Created, Failed, Mark, Outcome, Page, Prompt, Replica, Row, Target
from engine.sandbox import Quirks, SandboxOptions, serve
from tests import ends
from tests.mlflow_server import serve_mlflow
from tests.phoenix_server import running as phoenix_in_memory
from tests.workspaces import CATALOG, REGISTRY


@dataclass(frozen=True, slots=True)
class End:
    """A connector, and the workspace behind it: `collection` and `provider` are there, `count` says how much is."""

    target: Target
    collection: str
    provider: str
    plant: Callable[[Prompt], Awaitable[str]]
    """Puts a prompt there, where there is a wire by another way than the connector; its id."""
    count: Callable[[], Awaitable[int]]
    draft: Callable[[str, str], Awaitable[None] | None] | None = None
    """Gives a prompt a newer text that is not published; None: what is there is published."""
    mark: tuple[str, str] = ("m", "p1")
    """Migration and source as the mark of a replica of `p1` gives them back."""


@asynccontextmanager
async def open_memory() -> AsyncIterator[End]:
    inner = Memory((), CATALOG)

    async def plant(prompt: Prompt) -> str:
        inner.prompts[prompt.id] = prompt
        return prompt.id

    def draft(prompt_id: str, text: str) -> None:
        first = replace(inner.prompts[prompt_id], version="1")
        inner.history[prompt_id] = [first, replace(first, version="2", text=text)]

    async def count() -> int:
        return len(inner.prompts)

    yield End(inner, "c1", "anthropic-prod", plant, count, draft)


@asynccontextmanager
async def open_portkey() -> AsyncIterator[End]:
    options = SandboxOptions(prompts=0, quirks=Quirks(collection_required=False))
    async with serve(options) as sandbox:
        end = ends.portkey(sandbox.base_url, sandbox.api_key)
        async with REGISTRIES["portkey"].connect(end, ends.opening()) as target:
            collections = (await target.catalog({"collections"})).collections
            assert collections

            async def plant(prompt: Prompt) -> str:
                fields: dict[str, Any] = {
                    "model": prompt.model,
                    "virtual_key": prompt.provider,
                    "parameters": dict(prompt.parameters),
                    "functions": prompt.functions,
                    "tools": prompt.tools,
                    "tool_choice": prompt.tool_choice,
                    "is_raw_template": int(prompt.raw),
                    "template_metadata": dict(prompt.metadata),
                    "version_description": prompt.description,
                }
                given = {name: value for name, value in fields.items() if value is not None}
                return sandbox.add_prompt(prompt.name, prompt.text, collection=prompt.collection, **given)

            def draft(prompt_id: str, text: str) -> None:
                sandbox.add_version(prompt_id, string=text)

            async def count() -> int:
                return len(sandbox.prompts())

            yield End(target, collections[0].id, "anthropic-prod", plant, count, draft)


@asynccontextmanager
async def open_conductor() -> AsyncIterator[End]:
    async with serve(SandboxOptions(prompts=0)) as sandbox:
        connect = REGISTRIES["conductor"].connect(
            ends.conductor(sandbox.conductor_url, sandbox.api_key), ends.opening()
        )
        for pair in ("anthropic-prod:claude-3-7-sonnet-20250219", *OTHERS):
            sandbox.add_integration(pair)

        async def plant(prompt: Prompt) -> str:
            sandbox.add_conductor_prompt(
                prompt.name,
                prompt.text,
                integrations=[f"{prompt.provider}:{prompt.model}", *prompt.integrations],
                tags={**prompt.metadata, **({"collection": prompt.collection} if prompt.collection else {})},
                description=prompt.description or "",
                **prompt.parameters,
            )
            return prompt.name

        async def count() -> int:
            return len(sandbox.conductor_prompts())

        async with connect as target:
            yield End(target, "support", "anthropic-prod", plant, count, mark=("", ""))


@asynccontextmanager
async def open_phoenix() -> AsyncIterator[End]:
    with phoenix_in_memory() as server:
        async with phoenix_at(server.url) as opened:
            yield opened


@asynccontextmanager
async def phoenix_at(url: str) -> AsyncIterator[End]:
    """A server, whichever it is, that is empty."""
    with httpx.Client(base_url=f"{url}/v1/", trust_env=False, timeout=60) as api:
        async with REGISTRIES["phoenix"].connect(ends.phoenix(url), ends.opening()) as target:

            def post(prompt: Prompt) -> str:
                nobody = Mark(migration="", key="", source_id="")
                body = target.encode(Replica(source=prompt, prompt=prompt, mark=nobody))
                answer = api.post("prompts", content=body, headers={"Content-Type": "application/json"})
                assert answer.status_code == 200, answer.text
                return str(answer.json()["data"]["id"])

            def publish(version: str) -> None:
                answer = api.post(f"prompt_versions/{version}/tags", json={"name": "production"})
                assert answer.status_code == 204, answer.text

            def listed() -> int:
                return len(api.get("prompts", params={"limit": 10_000}).json()["data"])

            async def plant(prompt: Prompt) -> str:
                publish(post(prompt))
                return prompt.name

            def draft(prompt_id: str, text: str) -> None:
                post(Prompt(id=prompt_id, name=prompt_id, text=text))

            async def count() -> int:
                return listed()

            yield End(target, "support", "OPENAI", plant, count, draft)


@asynccontextmanager
async def open_mlflow() -> AsyncIterator[End]:
    async with serve_mlflow() as server, mlflow_at(server.url) as opened:
        yield opened


@asynccontextmanager
async def mlflow_at(url: str) -> AsyncIterator[End]:
    """A server, whichever it is, that is empty: what is planted is written as its own client would."""
    connect = REGISTRIES["mlflow"].connect(ends.mlflow(url), ends.opening())
    is_prompt = "mlflow.prompt.is_prompt"

    async with httpx.AsyncClient(base_url=f"{url}/api/2.0/mlflow/", trust_env=False, timeout=60) as api:

        async def post(path: str, **body: Any) -> None:
            sent = json.dumps({name: value for name, value in body.items() if value is not None})
            (await api.post(path, content=sent, headers={"Content-Type": "application/json"})).raise_for_status()

        async def add(name: str, description: str | None, **tags: str) -> None:
            given = [{"key": key, "value": value} for key, value in {is_prompt: "true", **tags}.items()]
            await post("model-versions/create", name=name, source="dummy-source", description=description, tags=given)

        async def plant(prompt: Prompt) -> str:
            await post("registered-models/create", name=prompt.name, tags=[{"key": is_prompt, "value": "true"}])
            config = {"model_name": prompt.model, "provider": prompt.provider, **prompt.parameters}
            config |= {name: getattr(prompt, name) for name in ("tools", "tool_choice", "functions")}
            words = {
                key: value for key, value in prompt.metadata.items() if isinstance(value, str) and key.isidentifier()
            }
            rest = {key: value for key, value in prompt.metadata.items() if key not in words}
            tags = {"mlflow.prompt.text": prompt.text, "_mlflow_prompt_type": type_of(prompt.text), **words}
            tags["_mlflow_prompt_model_config"] = json.dumps({k: v for k, v in config.items() if v is not None})
            tags |= {"promptferry.metadata": json.dumps(rest)} if rest else {}
            tags |= {"collection": prompt.collection} if prompt.collection else {}
            await add(prompt.name, prompt.description, **tags)
            await post("registered-models/alias", name=prompt.name, alias="production", version="1")
            return prompt.name

        async def draft(prompt_id: str, text: str) -> None:
            await add(prompt_id, None, **{"mlflow.prompt.text": text})

        async def count() -> int:
            query = {"filter": f"tags.`{is_prompt}` = 'true'", "max_results": "1000"}
            return len((await api.get("registered-models/search", params=query)).json().get("registered_models", ()))

        async with connect as target:
            yield End(target, "support", "anthropic-prod", plant, count, draft)


def type_of(text: str) -> str:
    return "chat" if text.startswith('[\n  {\n    "role"') else "text"


@asynccontextmanager
async def open_langfuse() -> AsyncIterator[End]:
    async with serve(SandboxOptions(prompts=0)) as sandbox:
        keys = (sandbox.langfuse_public_key, sandbox.langfuse_secret_key)

        async def plant(prompt: Prompt) -> str:
            own = {name: getattr(prompt, name) for name in ("model", "provider", "collection", "tools", "tool_choice")}
            config = {**prompt.parameters, **{name: value for name, value in own.items() if value is not None}}
            fields = {"functions": prompt.functions, "metadata": dict(prompt.metadata)}
            sandbox.add_langfuse_prompt(
                prompt.name,
                prompt=prompt.text,
                config=config | {name: value for name, value in fields.items() if value},
                labels=["production"],
                commitMessage=prompt.description,
            )
            return prompt.name

        def draft(prompt_id: str, text: str) -> None:
            sandbox.add_langfuse_prompt(prompt_id, prompt=text)

        async def count() -> int:
            return len({one["name"] for one in sandbox.langfuse_versions()})

        connect = REGISTRIES["langfuse"].connect(ends.langfuse(sandbox.langfuse_url, keys), ends.opening())
        async with connect as target:
            yield End(target, "support", "anthropic-prod", plant, count, draft)


@asynccontextmanager
async def open_place(where: str, format: str = "promptferry") -> AsyncIterator[End]:
    with TemporaryDirectory() as folder:
        place: Any = {"name": "target", "writes": True, "dialects": DIALECTS, "format": FORMATS[format]}
        async with open_files(Path(folder, where), **place) as target:

            async def count() -> int:
                return sum([len(page.rows) async for page in target.pages()])

            async def plant(prompt: Prompt) -> str:
                outcome = await made(opened, prompt)
                assert isinstance(outcome, Created)
                return outcome.target_id

            opened = End(target, "support", "anthropic-prod", plant, count)
            yield opened


# ---- what each of them keeps -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """What stands on a connector, and what more its tests have to know of the registry."""

    open: Callable[[], AbstractAsyncContextManager[End]]
    target: type[Target]
    names: bool = False
    """A prompt is its name: there is no slug, no second one of that name, no order in which they were made."""
    tells: bool = True
    """Rows tell model and collection."""
    words: bool = False
    """Metadata are words, and a mark is its key alone."""
    parameters: Mapping[str, st.SearchStrategy[Any]] | None = None
    """The parameters that have a place, and their values; None: all."""
    longest: int | None = None
    """Characters of a text; None: any number."""
    halves: bool = True
    """It keeps half a character, which JSON can have and UTF-8 cannot."""
    holds: Callable[[Prompt], bool] = lambda prompt: True
    """What more decides whether a prompt has a place."""

    def keeps(self, fields: Mapping[str, Any]) -> bool:
        """Whether these fields of Prompt have a place, with these values."""
        prompt = Prompt(**{"id": "p", "name": "n", "text": "t"} | dict(fields))
        names = self.target.can.names
        return (
            {*self.target.fields} >= {*filled(prompt, CONTENT)}
            and (self.parameters is None or self.parameters.keys() >= prompt.parameters.keys())
            and not (self.words and any(not isinstance(value, str) for value in prompt.metadata.values()))
            and (names is None or bool(names.takes(prompt.name)))
            and self.holds(prompt)
        )

    def keeps_text(self, text: str) -> bool:
        """Whether it comes back as it was."""
        whole = self.halves or text.isascii() or text.encode(errors="ignore").decode() == text
        return whole and (self.longest is None or len(text) <= self.longest)


BIG = 2**70 + 1
OTHERS = ("openai-prod:gpt-4o", "zhipu-prod:glm:4")
NUMBERS = st.floats(0, 2) | st.integers(0, 2)
CONDUCTORS = {"temperature": NUMBERS, "topP": NUMBERS, "responseFormat": st.text(), "stopWords": st.lists(st.text())}


def fits_into_phoenix(prompt: Prompt) -> bool:
    """Whole characters, integers of 64 bits, and a choice of tools only where there are some."""
    values = (prompt.text, dict(prompt.parameters), dict(prompt.metadata), prompt.tools)
    return all(map(is_plain, values)) and not (prompt.tool_choice and not prompt.tools)


def is_plain(value: Any, least: int = -(2**63), most: int = 2**64 - 1) -> bool:
    """Down to the bottom."""
    if isinstance(value, dict | list):
        inside = [*value, *value.values()] if isinstance(value, dict) else value
        return all(is_plain(one, least, most) for one in inside)
    if isinstance(value, str):
        return value == value.encode(errors="replace").decode()
    return not isinstance(value, int) or least <= value <= most


def fits_into_langfuse(prompt: Prompt) -> bool:
    """Whole characters without a NUL, integers that JavaScript has; a chat is not kept as its JSON is spelled."""
    values = [prompt.text, dict(prompt.parameters), dict(prompt.metadata), prompt.tools, prompt.description]
    plain = is_plain(values, -(2**53), 2**53) and "\0" not in str(values)
    return plain and "\\x00" not in repr(values) and messages_of(prompt.text) is None


def fits_into(format: str, prompt: Prompt) -> bool:
    """What a file of that format can say; a chat is not kept as its JSON is spelled."""
    try:
        FORMATS[format].write(Document(prompt=prompt))
    except ValueError:
        return False
    return {*filled(prompt, CONTENT)} <= FORMATS[format].fields and messages_of(prompt.text) is None


KINDS = {
    "memory": Kind(open=open_memory, target=Memory),
    "portkey": Kind(open=open_portkey, target=Portkey),
    "conductor": Kind(open=open_conductor, target=Conductor, names=True, words=True, parameters=CONDUCTORS),
    "mlflow": Kind(open=open_mlflow, target=Mlflow, names=True, longest=100_000, halves=False),
    "phoenix": Kind(open=open_phoenix, target=Phoenix, names=True, tells=False, holds=fits_into_phoenix),
    "langfuse": Kind(open=open_langfuse, target=Langfuse, names=True, holds=fits_into_langfuse),
    "files folder": Kind(open=partial(open_place, "prompts"), target=Files),
    "files lines": Kind(open=partial(open_place, "prompts.jsonl"), target=Files),
    **{
        f"files {name}": Kind(open=partial(open_place, name, name), target=Files, holds=partial(fits_into, name))
        for name in FORMATS
        if name != "promptferry"
    },
}


@pytest.fixture(params=KINDS)
async def end(request: pytest.FixtureRequest) -> AsyncIterator[End]:
    async with KINDS[request.param].open() as opened:
        yield opened


def only(kinds: Collection[str]) -> pytest.MarkDecorator:
    """The test is for these kinds alone."""
    return pytest.mark.parametrize("end", kinds, indirect=True)


NAMED = [name for name, kind in KINDS.items() if kind.names]
NUMBERED = [name for name, kind in KINDS.items() if not kind.names]
CARELESS = [name for name, kind in KINDS.items() if kind.target.can.careless]
SILENT = {kind.target: [None] for kind in KINDS.values() if not kind.tells}
WITH_LABELS = [name for name, kind in KINDS.items() if kind.target.can.labels != "none"]
STAGED = [name for name, kind in KINDS.items() if kind.target.can.stages]


def test_every_connector_of_the_table_is_held_to_this() -> None:
    assert {*REGISTRIES, "memory"} == {name.partition(" ")[0] for name in KINDS}


def fit(end: End, name: str) -> str:
    """The name, or what comes next to it where it is not taken."""
    rule = end.target.can.names
    return name if rule is None or rule.takes(name) else rule.slug(name)


def prompt_at(end: End, number: int = 1, **fields: Any) -> Prompt:
    known: dict[str, Any] = {
        "id": f"p{number}",
        "name": fit(end, f"prompt {number}"),
        "text": "Hello {{name}}",
        "collection": end.collection,
        "provider": end.provider,
        "model": "claude-3-7-sonnet-20250219",
    }
    return Prompt(**known | fields)


async def pages_of(end: End) -> list[Page]:
    return [page async for page in end.target.pages()]


async def rows_of(end: End) -> list[Row]:
    return [row for page in await pages_of(end) for row in page.rows]


# ---- reading ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, 100, 230])
async def test_the_listing_is_whole_and_each_row_comes_once(end: End, count: int) -> None:
    ids = [await end.plant(prompt_at(end, number)) for number in range(count)]
    pages = await pages_of(end)
    rows = [row for page in pages for row in page.rows]
    assert sorted(row.id for row in rows) == sorted(ids)
    assert {page.total for page in pages} <= {count}


async def test_a_row_says_what_can_be_selected_by(end: End) -> None:
    name = fit(end, "support-reply 🧪")
    prompt_id = await end.plant(prompt_at(end, name=name, model="gpt-4o"))
    (row,) = await rows_of(end)
    assert (row.id, row.name, row.archived) == (prompt_id, name, False)
    silent = SILENT.get(type(end.target), ())
    assert row.model in ("gpt-4o", *silent)
    assert row.collection in (end.collection, *silent)


@only(NUMBERED)
async def test_what_was_created_is_listed_newest_first(end: End) -> None:
    ids = [await end.plant(prompt_at(end, number)) for number in range(3)]
    assert [row.id for row in await rows_of(end)] == ids[::-1]


async def test_rows_and_definitions_agree_on_when_a_prompt_was_changed(end: End) -> None:
    prompt_id = await end.plant(prompt_at(end))
    (row,) = await rows_of(end)
    assert row.updated_at == (await end.target.fetch(prompt_id)).updated_at


async def test_a_prompt_without_a_collection_is_read(end: End) -> None:
    prompt_id = await end.plant(prompt_at(end, collection=None))
    assert (await end.target.fetch(prompt_id)).collection is None
    assert (await rows_of(end))[0].collection is None


@pytest.mark.parametrize("version", ["published", "latest", "label:canary"])
async def test_an_unknown_id_is_gone(end: End, version: str) -> None:
    with pytest.raises(Gone) as caught:
        await end.target.fetch("00000000-0000-4000-8000-000000000000", version)
    assert caught.value.status == 404


@only(STAGED)
async def test_published_is_what_applications_get_and_latest_may_be_a_draft(end: End) -> None:
    prompt_id = await end.plant(prompt_at(end, text="in use"))
    assert end.draft
    if (drafting := end.draft(prompt_id, "not yet")) is not None:
        await drafting
    assert (await end.target.fetch(prompt_id)).text == "in use"
    assert (await end.target.fetch(prompt_id, "latest")).text == "not yet"


@only(WITH_LABELS)
async def test_the_version_that_carries_a_label_is_read_by_it(end: End) -> None:
    prompt_id = await end.plant(prompt_at(end, text="in use"))
    with pytest.raises(Gone) as caught:
        await end.target.fetch(prompt_id, "label:canary")
    assert caught.value.status == 404
    assert (await rows_of(end))[0].labels is None or "canary" not in ((await rows_of(end))[0].labels or ())
    assert end.draft
    if (drafting := end.draft(prompt_id, "not yet")) is not None:
        await drafting
    newest = (await end.target.versions(prompt_id))[-1]
    await end.target.label(prompt_id, newest.id, await end.target.create_label("canary"))
    found = await end.target.fetch(prompt_id, "label:canary")
    assert (found.text, found.version, [*found.labels]) == ("not yet", newest.ref, ["canary"])
    assert (await end.target.fetch(prompt_id)).text == "in use"
    (row,) = await rows_of(end)
    assert row.labels is None or "canary" in row.labels
    for nobody in ("label:Nobody's", "label:none"):
        with pytest.raises(Gone):
            await end.target.fetch(prompt_id, nobody)


@pytest.mark.parametrize("kinds", [set(), {"collections"}, {"collections", "providers", "partials"}])
async def test_a_catalog_has_the_kinds_that_were_asked_for(end: End, kinds: set[str]) -> None:
    found = await end.target.catalog(kinds)
    told = {kind for kind in ("collections", "providers", "partials") if getattr(found, kind) is not None}
    assert told == kinds - {*found.words}
    if found.collections is not None:
        assert end.collection in {one.id for one in found.collections}
    if found.providers is not None:
        assert end.provider in {one.slug for one in found.providers}


# ---- writing ---------------------------------------------------------------------------------------------------------

ENOUGH = 6_000
"""Characters that say whether a text has a place: a megabyte takes seconds, whenever tests are collected."""
TEXTS = {
    "crlf": "one\r\ntwo\r\n\tthree \n",
    "separators": "a\u2028b\u2029c\x85d\x1ee",
    "nul": "before\0after",
    "emoji": "👩‍👩‍👧‍👦 🧪 e\u0301",
    "lone surrogate": "\ud83d alone",
    "raw template": '{"messages": [{{#each}} {"role": {{role}}}, {{/each}}]',
    "chat": json.dumps([{"role": "user", "content": [{"type": "text", "text": "{{q}}"}]}], indent=2),
    "one megabyte": "ä{{x}}" * 143_000,
    "blanks": "  \n ",
}
FIELDS: dict[str, dict[str, Any]] = {
    "integers above 64 bits": {"parameters": {"seed": BIG, "deep": {"seed": [-BIG, {"n": BIG}]}}},
    "nested parameters": {
        "parameters": {"thinking": {"type": "enabled", "budget": {"tokens": 1024}}, "stop": ["a", ""]}
    },
    "numbers": {"parameters": {"temperature": 0.1, "top_p": 1e-7, "max_tokens": 0, "stream": False}},
    "no parameters": {"parameters": {}},
    "functions": {"functions": [{"name": "f", "parameters": {"type": "object", "properties": {}}}]},
    "tools": {"tools": [{"type": "function", "function": {"name": "f", "strict": True}}]},
    "tool choice in a word": {"tools": [{"type": "function"}], "tool_choice": "required"},
    "tool choice as object": {"tool_choice": {"type": "function", "function": {"name": "f"}}},
    "metadata beside the mark": {"metadata": {"template_type": "chat", "owner": {"team": "support", "n": BIG}}},
    "description": {"description": 'says "please"\r\nnow 🧪'},
    "raw": {"raw": True, "text": "{{#if x}} not JSON [{ {{/if}}"},
    "another name": {"name": "a/b?c#d %41 \u2028 🧪"},
    "a name without a slash": {"name": 'a?b#c %41 "d" 🧪 é'},
    "Conductor's parameters": {
        "parameters": {"temperature": 0.1, "topP": 1, "responseFormat": "json", "stopWords": ["#", "", "ü"]}
    },
    "metadata in words": {"metadata": {"template_type": "chat", "": "", "owner 🧪": "a\nb"}},
    "other integrations": {"integrations": OTHERS},
}
KEPT_TEXTS = [
    pytest.param(name, text, id=f"{name}-{title}")
    for name, kind in KINDS.items()
    for title, text in TEXTS.items()
    if kind.keeps_text(text) and kind.keeps({"text": text[:ENOUGH]})
]
KEPT = [
    pytest.param(name, fields, id=f"{name}-{title}")
    for name, kind in KINDS.items()
    for title, fields in FIELDS.items()
    if kind.keeps(fields)
]


TEXTS_REFUSED = [
    pytest.param(name, TEXTS["lone surrogate"], id=name)
    for name, kind in KINDS.items()
    if not (kind.keeps_text(TEXTS["lone surrogate"]) and kind.keeps({"text": TEXTS["lone surrogate"]}))
]


async def made(end: End, source: Prompt, calls: list[str] | None = None) -> Outcome:
    """The outcome of a create of the replica of this prompt."""
    replica = make_replica(source, source, migration="m", registry=REGISTRY)

    async def sending() -> None:
        if calls is not None:
            calls.append(f"sending, {await end.count()} there")

    (outcome,) = await end.target.create([end.target.encode(replica)], sending)
    return outcome


async def read_back(end: End, source: Prompt) -> Prompt:
    outcome = await made(end, source)
    assert isinstance(outcome, Created), outcome
    return await end.target.fetch(outcome.target_id)


@pytest.mark.parametrize(("end", "text"), KEPT_TEXTS, indirect=["end"])
async def test_a_text_comes_back_byte_for_byte(end: End, text: str) -> None:
    source = prompt_at(end, text=text)
    found = await read_back(end, source)
    assert found.text.encode("utf-8", "surrogatepass") == text.encode("utf-8", "surrogatepass")
    assert differences(source, found) == ()


@pytest.mark.parametrize(("end", "text"), TEXTS_REFUSED, indirect=["end"])
async def test_a_text_that_cannot_be_kept_is_refused_before_anything_is_sent(end: End, text: str) -> None:
    source = prompt_at(end, text=text)
    with pytest.raises(Rejected):
        end.target.encode(make_replica(source, source, migration="m", registry=REGISTRY))


@pytest.mark.parametrize(("end", "fields"), KEPT, indirect=["end"])
async def test_every_field_that_the_registry_keeps_comes_back(end: End, fields: dict[str, Any]) -> None:
    source = prompt_at(end, **fields)
    found = await read_back(end, source)
    for name in set(end.target.fields) - {"metadata"}:
        assert getattr(found, name) == getattr(source, name), name
    mark = read_mark(found.metadata, None)
    assert mark is not None
    assert mark.key == key_of("m", REGISTRY, "p1")
    assert (mark.migration, mark.source_id) == end.mark
    assert {key: value for key, value in found.metadata.items() if key != "promptferry"} == source.metadata
    assert not found.extra
    assert not found.notes


async def test_a_description_that_is_missing_stays_missing(end: End) -> None:
    found = await read_back(end, prompt_at(end))
    assert (found.description, found.functions, found.tools, found.tool_choice) == (None, None, None, None)


@pytest.mark.parametrize(("end", "fields"), KEPT, indirect=["end"])
async def test_what_is_planted_is_what_is_read(end: End, fields: dict[str, Any]) -> None:
    source = prompt_at(end, **fields)
    assert differences(source, await end.target.fetch(await end.plant(source))) == ()


async def test_sending_is_awaited_once_and_before_anything_is_stored(end: End) -> None:
    calls: list[str] = []
    outcome = await made(end, prompt_at(end), calls)
    assert isinstance(outcome, Created)
    assert calls == ["sending, 0 there"]
    assert await end.count() == 1


async def test_when_sending_fails_nothing_is_stored(end: End) -> None:
    class Full(Exception):
        pass

    async def sending() -> None:
        raise Full

    source = prompt_at(end)
    body = end.target.encode(make_replica(source, source, migration="m", registry=REGISTRY))
    with pytest.raises(Full):
        await end.target.create([body], sending)
    assert await end.count() == 0


async def test_a_create_says_id_and_slug_as_the_listing_has_them(end: End) -> None:
    outcome = await made(end, prompt_at(end))
    (row,) = await rows_of(end)
    assert isinstance(outcome, Created)
    assert (outcome.target_id, outcome.target_slug) == (row.id, row.slug)


@only(NUMBERED)
async def test_a_prompt_that_is_not_its_name_has_a_slug(end: End) -> None:
    outcome = await made(end, prompt_at(end))
    assert isinstance(outcome, Created)
    assert outcome.target_slug


@only(NUMBERED)
async def test_two_prompts_of_one_name_are_two_prompts(end: End) -> None:
    first = await made(end, prompt_at(end, 1, name="same"))
    second = await made(end, prompt_at(end, 2, name="same"))
    assert isinstance(first, Created)
    assert isinstance(second, Created)
    assert first.target_id != second.target_id
    assert await end.count() == 2


@only(CARELESS)
async def test_what_a_create_would_change_can_be_looked_at_before(end: End) -> None:
    prompt_id = await end.plant(prompt_at(end, 1, name="same", text="first"))
    await rows_of(end)
    found = await end.target.named(["other", "same"])
    assert {name: one.text for name, one in found.items() if one} == {"same": "first"}
    assert found["same"] == await end.target.fetch(prompt_id)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def contents(kind: Kind) -> st.SearchStrategy[dict[str, Any]]:
    """Whatever has a place, under the names of Prompt's fields."""
    names = st.text(min_size=1).filter(lambda name: name != "model")
    keys = st.text().filter(lambda name: name not in ("promptferry", "collection"))
    known = kind.parameters
    fields = {
        "text": st.text(),
        "parameters": st.dictionaries(names, json_values, max_size=4) if known is None else optional(known),
        "metadata": st.dictionaries(keys, st.text() if kind.words else json_values, max_size=3),
        "tools": st.none() | st.lists(st.dictionaries(st.text(), json_values, max_size=2), min_size=1, max_size=2),
        "raw": st.booleans(),
        "integrations": st.sets(st.sampled_from(OTHERS)).map(sorted).map(tuple),
    }
    return optional({name: values for name, values in fields.items() if name in kind.target.fields}).filter(kind.keeps)


def optional(values: Mapping[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=dict(values))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
@pytest.mark.parametrize("name", KINDS)
async def test_any_content_arrives(name: str, data: st.DataObject) -> None:
    kind = KINDS[name]
    fields = data.draw(contents(kind))
    async with kind.open() as opened:
        source = prompt_at(opened, **fields)
        found = await read_back(opened, source)
        assert found.text == source.text
        assert differences(source, found) == ()


# ---- what only a registry on a wire does -----------------------------------------------------------------------------


async def test_a_refused_create_is_failed_and_leaves_nothing() -> None:
    async with open_portkey() as opened:
        outcome = await made(opened, prompt_at(opened, provider="nobody-has-it"))
        assert isinstance(outcome, Failed)
        assert (outcome.status, outcome.code, outcome.retriable) == (400, "AB01", False)
        assert await opened.count() == 0
