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

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.connectors import DIALECTS, REGISTRIES
from engine.connectors.conductor.registry import Conductor
from engine.connectors.files.registry import Files, open_files
from engine.connectors.langfuse.registry import Langfuse
from engine.connectors.memory import Memory
from engine.connectors.portkey.registry import Portkey
from engine.content.digest import differences, filled, key_of, make_replica, read_mark
from engine.errors import Gone, Rejected
from engine.model import Created, Failed, Outcome, Page, Prompt, Row, Target
from engine.sandbox import Quirks, SandboxOptions, serve
from tests import ends
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
    draft: Callable[[str, str], None] | None = None
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
async def open_place(where: str) -> AsyncIterator[End]:
    with TemporaryDirectory() as folder:
        async with open_files(Path(folder, where), name="target", writes=True, dialects=DIALECTS) as target:

            async def count() -> int:
                return sum([len(page.rows) async for page in target.pages()])

            async def plant(prompt: Prompt) -> str:
                outcome = await made(opened, prompt)
                assert isinstance(outcome, Created)
                return outcome.target_id

            opened = End(target, "support", "anthropic-prod", plant, count)
            yield opened


# ---- what each of them keeps -----------------------------------------------------------------------------------------


TEXT = st.text()
NUMBER = st.integers() | st.floats(allow_nan=False, allow_infinity=False)


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
    refuses: Collection[str] = ()
    """Texts, by name, that it cannot keep."""
    texts: st.SearchStrategy[str] = TEXT
    """What a text may be."""
    numbers: st.SearchStrategy[Any] = NUMBER
    """And a number."""
    exact: bool = True
    """Whole numbers of any size are kept."""

    def keeps(self, fields: Mapping[str, Any]) -> bool:
        """Whether these fields of Prompt have a place, with these values."""
        prompt = Prompt(**{"id": "p", "name": "n", "text": "t"} | dict(fields))
        return (
            {*self.target.fields} >= {*filled(prompt)}
            and (self.parameters is None or self.parameters.keys() >= prompt.parameters.keys())
            and not (self.words and any(not isinstance(value, str) for value in prompt.metadata.values()))
            and not (self.names and "/" in prompt.name)
            and (self.exact or str(BIG) not in repr((prompt.parameters, prompt.metadata)))
        )

    @property
    def values(self) -> st.SearchStrategy[Any]:
        """Of JSON."""
        return st.recursive(
            st.none() | st.booleans() | self.numbers | self.texts,
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(self.texts, inner, max_size=3),
            max_leaves=8,
        )


BIG = 2**70 + 1
OTHERS = ("openai-prod:gpt-4o", "zhipu-prod:glm:4")
NUMBERS = st.floats(0, 2) | st.integers(0, 2)
CONDUCTORS = {"temperature": NUMBERS, "topP": NUMBERS, "responseFormat": st.text(), "stopWords": st.lists(st.text())}
KINDS = {
    "memory": Kind(open=open_memory, target=Memory),
    "portkey": Kind(open=open_portkey, target=Portkey),
    "conductor": Kind(open=open_conductor, target=Conductor, names=True, words=True, parameters=CONDUCTORS),
    "langfuse": Kind(
        open=open_langfuse,
        target=Langfuse,
        names=True,
        refuses={"nul", "lone surrogate", "chat"},
        texts=st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
        numbers=st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False),
        exact=False,
    ),
    "files folder": Kind(open=partial(open_place, "prompts"), target=Files),
    "files lines": Kind(open=partial(open_place, "prompts.jsonl"), target=Files),
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
SILENT = {kind.target: [(None, None)] for kind in KINDS.values() if not kind.tells}
STAGED = [name for name, kind in KINDS.items() if kind.target.can.stages]


def test_every_connector_of_the_table_is_held_to_this() -> None:
    assert {*REGISTRIES, "memory"} == {name.partition(" ")[0] for name in KINDS}


def prompt_at(end: End, number: int = 1, **fields: Any) -> Prompt:
    known: dict[str, Any] = {
        "id": f"p{number}",
        "name": f"prompt {number}",
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
    prompt_id = await end.plant(prompt_at(end, name="support-reply 🧪", model="gpt-4o"))
    (row,) = await rows_of(end)
    assert (row.id, row.name, row.archived) == (prompt_id, "support-reply 🧪", False)
    assert (row.model, row.collection) in (("gpt-4o", end.collection), *SILENT.get(type(end.target), ()))


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


@pytest.mark.parametrize("version", ["published", "latest"])
async def test_an_unknown_id_is_gone(end: End, version: str) -> None:
    with pytest.raises(Gone) as caught:
        await end.target.fetch("00000000-0000-4000-8000-000000000000", version)
    assert caught.value.status == 404


@only(STAGED)
async def test_published_is_what_applications_get_and_latest_may_be_a_draft(end: End) -> None:
    prompt_id = await end.plant(prompt_at(end, text="in use"))
    assert end.draft
    end.draft(prompt_id, "not yet")
    assert (await end.target.fetch(prompt_id)).text == "in use"
    assert (await end.target.fetch(prompt_id, "latest")).text == "not yet"


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
KEPT = [
    pytest.param(name, fields, id=f"{name}-{title}")
    for name, kind in KINDS.items()
    for title, fields in FIELDS.items()
    if kind.keeps(fields)
]


TEXTS_KEPT = [
    pytest.param(name, text, id=f"{name}-{title}")
    for name, kind in KINDS.items()
    for title, text in TEXTS.items()
    if title not in kind.refuses
]
TEXTS_REFUSED = [
    pytest.param(name, TEXTS[title], id=f"{name}-{title}") for name, kind in KINDS.items() for title in kind.refuses
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


@pytest.mark.parametrize(("end", "text"), TEXTS_KEPT, indirect=["end"])
async def test_a_text_comes_back_byte_for_byte(end: End, text: str) -> None:
    source = prompt_at(end, text=text)
    found = await read_back(end, source)
    assert found.text.encode("utf-8", "surrogatepass") == text.encode("utf-8", "surrogatepass")
    assert differences(source, found) == ()


@pytest.mark.parametrize(("end", "text"), TEXTS_REFUSED, indirect=["end"])
async def test_a_text_that_cannot_be_kept_is_refused_before_anything_is_sent(end: End, text: str) -> None:
    source = prompt_at(end, text=text)
    with pytest.raises(Rejected) as caught:
        end.target.encode(make_replica(source, source, migration="m", registry=REGISTRY))
    assert caught.value.error == "loss"


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


def contents(kind: Kind) -> st.SearchStrategy[dict[str, Any]]:
    """Whatever has a place, under the names of Prompt's fields."""
    names = kind.texts.filter(lambda name: name not in ("", "model"))
    keys = kind.texts.filter(lambda name: name not in ("promptferry", "collection"))
    known, json_values = kind.parameters, kind.values
    fields = {
        "text": kind.texts,
        "parameters": st.dictionaries(names, json_values, max_size=4) if known is None else optional(known),
        "metadata": st.dictionaries(keys, kind.texts if kind.words else json_values, max_size=3),
        "tools": st.none() | st.lists(st.dictionaries(kind.texts, json_values, max_size=2), min_size=1, max_size=2),
        "raw": st.booleans(),
        "integrations": st.sets(st.sampled_from(OTHERS)).map(sorted).map(tuple),
    }
    return optional({name: values for name, values in fields.items() if name in kind.target.fields})


def optional(values: Mapping[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=dict(values))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
async def test_any_content_arrives(kind: Kind, data: st.DataObject) -> None:
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
