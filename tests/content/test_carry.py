"""What has no place at a registry travels in its metadata, and gets its place back on the way home."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from engine.connectors import DIALECTS
from engine.connectors.conductor import format as conductor
from engine.connectors.conductor.registry import Conductor
from engine.connectors.langfuse import format as langfuse
from engine.connectors.langfuse.registry import Langfuse
from engine.connectors.mlflow import format as mlflow
from engine.connectors.mlflow.registry import Mlflow
from engine.connectors.phoenix import format as phoenix
from engine.connectors.phoenix.registry import Phoenix
from engine.connectors.portkey.registry import Portkey
from engine.content.carry import CARRY_KEY
from engine.content.chats import messages_of
from engine.content.digest import CONTENT, differences, digest, make_replica, read_mark
from engine.content.rewrite import Ends, Rewritten, rewrite
from engine.errors import Rejected
from engine.lossless_json import decode, encode
from engine.lossless_json.numbers import Number, dumps, loads
from engine.model import MARK_KEY, Catalog, Json, Prompt, Replica, Rule

FIELDS: Final = {
    "portkey": Portkey.fields,
    "mlflow": Mlflow.fields,
    "phoenix": Phoenix.fields,
    "langfuse": Langfuse.fields,
    "conductor": Conductor.fields,
}
WORDS: Final = Catalog(words=frozenset({"collections", "providers", "partials"}))
KEPT: Final = Rule(name="{name}")
LOSSY: Final = (Number("0.1000000000000000055511151231257827"), Number("1E+2"), Number("1e-400"), 2**70, 1.5, 7)


def sent(prompt: Prompt, to: str, *rules: Rule, carry: Any = (), accepted: bool = False) -> Rewritten:
    """What becomes of it on its way; with `carry` all that it would lose, where nothing else is said."""
    ends = Ends(same=False, source=WORDS, target=WORDS, dialects=DIALECTS, dialect=DIALECTS[to])
    done = rewrite(prompt, [KEPT, *rules], ends, FIELDS[to], carry=carry)
    assert accepted or not done.losses, (done.losses, done.uncarried)
    return done


def kept(done: Rewritten, at: str) -> Prompt:
    """As the registry gives it back, by its own forms on the wire."""
    assert not done.refused, done.refused
    return READ_BACK[at](make_replica(done.source, done.prompt, migration="m", registry="r"))


def from_mlflow(replica: Replica) -> Prompt:
    body = decode(mlflow.body_of(replica))
    version = {**body["version"], "version": "1"}
    held = mlflow.held_of({**body["prompt"], "latest_versions": [version], "aliases": []})
    return mlflow.prompt_of(held, version, "production")


def from_phoenix(replica: Replica) -> Prompt:
    body = decode(phoenix.body_of(replica))
    return phoenix.prompt_of(phoenix.head_of(body["prompt"]), {**body["version"], "id": "v1"})


def from_langfuse(replica: Replica) -> Prompt:
    body = decode(langfuse.body_of(replica, labels=(), tags=True, messages=True))
    return langfuse.prompt_of({**body, "version": 1}, published_by="production")


def from_conductor(replica: Replica) -> Prompt:
    return conductor.prompt_of(decode(conductor.body_of(replica)))


READ_BACK: Final[Mapping[str, Callable[[Replica], Prompt]]] = {
    "mlflow": from_mlflow,
    "phoenix": from_phoenix,
    "langfuse": from_langfuse,
    "conductor": from_conductor,
    "portkey": lambda replica: replica.prompt,
}


def portkey(text: str = "Hi {{name}}", **given_fields: Any) -> Prompt:
    return Prompt(id="p", name="p", text=text, **given_fields)


def chat(*messages: Json, **given_fields: Any) -> Prompt:
    return portkey(encode(list(messages)).decode(), **given_fields)


SYSTEM: Final = {"role": "system", "content": "Be {{tone}}."}
NAMED: Final = {"role": "user", "content": "Hi {{who}}", "name": "ada"}
PARTS: Final = {
    "role": "user",
    "content": [
        {"type": "text", "text": "a {{x}}", "cache_control": {"type": "ephemeral"}},
        {"type": "text", "text": "b"},
    ],
}


def cargo(prompt: Prompt) -> Any:
    return loads(str(prompt.metadata[CARRY_KEY]))


def told(prompt: Prompt) -> str:
    """Every field but the text, each number in the form that it is written in."""
    fields = {name: getattr(prompt, name) for name in CONTENT if name != "text" and getattr(prompt, name)}
    metadata = {key: value for key, value in prompt.metadata.items() if key != MARK_KEY}
    return dumps({**fields, "metadata": metadata}, sort_keys=True)


def same(one: Prompt, other: Prompt) -> None:
    """Every field; of a chat its messages, for not every registry keeps how their JSON is laid out."""
    assert [*differences(replace(one, text=""), replace(other, text=""))] == []
    assert told(one) == told(other)
    here, there = messages_of(one.text), messages_of(other.text)
    assert there == here
    assert here is not None or one.text == other.text


# ---- there and back --------------------------------------------------------------------------------------------------

words = st.text("ab{}$ \\\n", max_size=6)
numbers = st.sampled_from(LOSSY)
values = st.recursive(
    st.none() | st.booleans() | numbers | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.text("abc", min_size=1, max_size=2), inner, max_size=2)
    ),
    max_leaves=4,
)
texts = st.lists(st.sampled_from(["Hi ", "{{who}}", "{{tone}}", "\n", "é", '"']), min_size=1, max_size=4).map("".join)
parts = st.fixed_dictionaries(
    {"type": st.just("text"), "text": texts}, optional={"cache_control": st.just({"type": "ephemeral"})}
)
messages = st.fixed_dictionaries(
    {
        "role": st.sampled_from(["system", "user", "assistant"]),
        "content": texts | st.lists(parts, min_size=1, max_size=3),
    },
    optional={"name": st.sampled_from(["ada", "é", "{{who}}"]), "note": numbers},
)
chats = st.lists(messages, min_size=1, max_size=3).map(lambda one: encode(one).decode())
parameters = st.dictionaries(
    st.sampled_from(["temperature", "top_p", "max_tokens", "seed", "who", "tone", "logit_bias", "stop"]),
    st.sampled_from([1, 0.5, ["x"], {"a": 1}, "word"]),
    max_size=4,
)


@st.composite
def prompts(draw: st.DrawFn) -> Prompt:
    is_chat = draw(st.booleans())
    text = draw(chats if is_chat else texts)
    functions = draw(st.none() | st.lists(st.fixed_dictionaries({"name": st.just("f"), "x": numbers}), max_size=2))
    return portkey(
        text,
        model=draw(st.none() | st.just("gpt-4o")),
        parameters=draw(parameters),
        functions=functions or None,
        tools=draw(st.none() | st.just([{"type": "function", "function": {"name": "f"}}])),
        tool_choice=draw(st.none() | st.just("auto") | st.just({"type": "function", "function": {"name": "f"}})),
        raw=is_chat and draw(st.booleans()),
        metadata=draw(
            st.dictionaries(st.sampled_from(["team", "a b", "n"]), st.sampled_from(["x", 1, [1, {"a": None}]]))
        ),
        description=draw(st.none() | st.just("what it is")),
        variables=frozenset(DIALECTS["portkey"].grammar.shown(text)),
    )


PROVIDERS: Final = st.sampled_from([None, "OPENAI", "GOOGLE", "AWS"])
JOINED: Final = "messages.content"
"""No loss, for its words arrive; but what is carried is the same afterwards."""


def around(prompt: Prompt, at: str) -> Prompt:
    losses = sent(prompt, at, accepted=True).losses
    done = sent(prompt, at, carry={*losses, JOINED})
    assert {*losses} <= {*done.carried}
    try:
        found = kept(done, at)
    except Rejected:  # by the registry, with a sentence that says why
        assume(False)
    assert digest(found) == digest(done.prompt), "verify would find a difference"
    mark = read_mark(found.metadata, None)
    assert mark is not None
    assert mark.replica_digest == digest(found)
    return sent(found, "portkey").prompt


@settings(max_examples=150, deadline=None)
@given(prompt=prompts())
@pytest.mark.parametrize("at", ["mlflow", "langfuse"])
def test_all_that_is_carried_is_the_same_when_it_comes_back(at: str, prompt: Prompt) -> None:
    same(prompt, around(prompt, at))


@settings(max_examples=150, deadline=None)
@given(prompt=prompts(), provider=PROVIDERS)
def test_all_that_phoenix_carries_is_the_same_when_it_comes_back(prompt: Prompt, provider: str | None) -> None:
    given_lists = {name: ["x"] if name == "stop" else value for name, value in prompt.parameters.items()}
    prompt = replace(prompt, provider=provider, parameters=given_lists)
    assume(not sent(prompt, "phoenix", accepted=True).refused)
    same(prompt, around(prompt, "phoenix"))
