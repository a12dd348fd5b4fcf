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
from engine.content.carry import CARRY_KEY, never_lost
from engine.content.chats import messages_of
from engine.content.digest import CONTENT, differences, digest, make_replica, read_mark
from engine.content.references import Ends
from engine.content.rewrite import Rewritten, rewrite
from engine.errors import Rejected
from engine.lossless_json import decode, encode
from engine.lossless_json.numbers import Number, dumps, loads
from engine.model import MARK_KEY, Catalog, Clamp, Json, ParameterRules, Prompt, Replica, Rule, When

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

numbers = st.sampled_from(LOSSY)
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


# ---- what is carried, and how ----------------------------------------------------------------------------------------


def test_a_key_of_a_message_is_carried_by_the_number_of_the_message() -> None:
    prompt = chat(SYSTEM, NAMED)
    assert sent(prompt, "langfuse", accepted=True).losses == ("messages.name",)
    done = sent(prompt, "langfuse", carry={"messages.name"})
    assert (done.losses, done.carried) == ((), ("messages.name",))
    assert "ada" not in done.prompt.text
    assert cargo(done.prompt)["messages"] == {"2": {"name": "ada"}}
    assert "{{who}}" not in done.prompt.metadata[CARRY_KEY], "the text itself is not written twice"
    assert messages_of(sent(kept(done, "langfuse"), "portkey").prompt.text) == [SYSTEM, NAMED]


def test_without_its_name_nothing_is_carried() -> None:
    done = sent(chat(SYSTEM, NAMED, raw=True), "langfuse", carry={"raw", "parameters.seed"}, accepted=True)
    assert (done.losses, done.carried) == (("messages.name",), ("raw",))
    done = sent(portkey(), "langfuse", carry={"raw", "parameters.seed"})
    assert (done.carried, dict(done.prompt.metadata)) == ((), {})


@pytest.mark.parametrize("names", [{"messages.content"}, {"messages.content.cache_control"}])
def test_a_content_of_several_parts_comes_back_in_parts(names: set[str]) -> None:
    prompt = chat(SYSTEM, PARTS)
    done = sent(prompt, "langfuse", carry=names, accepted=True)
    written = messages_of(done.prompt.text) or []
    assert written[1]["content"] == "a {{x}}\nb"
    assert messages_of(sent(kept(done, "langfuse"), "portkey").prompt.text) == [SYSTEM, PARTS]


def test_a_chat_of_which_conductor_keeps_one_text_comes_back_as_a_chat() -> None:
    prompt = chat(SYSTEM, NAMED, model="m", provider="v")
    for how in ("transcript", "system-only"):
        done = sent(prompt, "conductor", Rule(messages=how), carry={"messages"})
        assert done.carried == ("messages",)
        assert "${who}" in str(cargo(done.prompt)["chat"])
        back = sent(kept(done, "conductor"), "portkey")
        assert messages_of(back.prompt.text) == [SYSTEM, NAMED]
        assert CARRY_KEY not in back.prompt.metadata
        plain = sent(prompt, "conductor", Rule(messages=how))
        assert messages_of(sent(kept(plain, "conductor"), "portkey").prompt.text) is None


def test_all_of_a_prompt_goes_to_conductor_and_back() -> None:
    prompt = chat(
        SYSTEM,
        NAMED,
        model="m",
        provider="v",
        parameters={"max_tokens": 5, "temperature": 0.5, "stop": "END", "who": "Ada"},
        tools=[{"a": Number("1E+2")}],
        tool_choice="auto",
        functions=[{"name": "f"}],
        raw=True,
        metadata={"team": "docs", "n": Number("1.50"), "o": {"a": None}},
        variables=frozenset({"who", "tone"}),
    )
    losses = sent(prompt, "conductor", Rule(messages="transcript"), accepted=True).losses
    done = sent(prompt, "conductor", Rule(messages="transcript"), carry={*losses, "messages"})
    same(prompt, sent(kept(done, "conductor"), "portkey").prompt)


def test_a_text_is_a_text_again_behind_phoenix_which_keeps_chats_alone() -> None:
    found = kept(sent(portkey("Hi {{who}}", functions=[{"n": 1}]), "phoenix", carry={"functions"}), "phoenix")
    assert sent(found, "portkey").prompt.text == "Hi {{who}}"


def test_a_number_that_no_float_can_hold_stays_as_it_is_written() -> None:
    functions = [{"name": "f", "parameters": {"maximum": number}} for number in LOSSY]
    for at in ("phoenix", "mlflow"):
        found = kept(sent(portkey(functions=functions), at, carry={"functions"}), at)
        assert dumps(sent(found, "portkey").prompt.functions) == dumps(functions)


def test_a_text_with_half_a_character_is_carried_where_the_registry_could_not_keep_it() -> None:
    prompt = portkey(functions=[{"name": "\ud83d and a NUL \0"}])
    back = sent(kept(sent(prompt, "phoenix", carry={"functions"}), "phoenix"), "portkey").prompt
    assert back.functions == prompt.functions


def test_parameters_are_called_at_each_registry_as_it_calls_them() -> None:
    """From Conductor's words to Phoenix, which has no place for one on GOOGLE, to MLflow."""
    source = Prompt(
        id="p", name="p", text="Hi", dialect="portkey", provider="GOOGLE", parameters={"logit_bias": {"1": 2}}
    )
    done = sent(source, "phoenix", carry={"parameters.logit_bias"})
    assert cargo(done.prompt)["parameters"] == {"logit_bias": {"1": 2}}
    assert sent(kept(done, "phoenix"), "mlflow").prompt.parameters == {"logit_bias": {"1": 2}}
    own = Prompt(id="p", name="p", text="${top_p}", dialect="conductor", parameters={"topP": 0.5, "topK": 1})
    there = sent(own, "portkey", carry={"parameters.topP", "parameters.topK"})
    assert cargo(there.prompt) == {"parameters": {"top_p": 0.5}, "own": {"conductor": {"topK": 1}}}
    assert sent(there.prompt, "conductor").prompt.parameters == {"topP": 0.5, "topK": 1}
    assert sent(there.prompt, "mlflow", carry={"parameters.topK"}).prompt.parameters == {"top_p": 0.5}


# ---- on from there ---------------------------------------------------------------------------------------------------


def test_what_has_no_place_at_the_next_one_is_carried_on_or_is_a_loss_by_name() -> None:
    prompt = chat(SYSTEM, NAMED, raw=True, functions=[{"name": "f"}])
    names = {"messages.name", "raw", "functions"}
    there = kept(sent(prompt, "langfuse", carry=names), "langfuse")
    done = sent(there, "phoenix", accepted=True)
    assert done.losses == ("functions", "messages.name", "raw")
    assert CARRY_KEY not in done.prompt.metadata
    on = kept(sent(there, "phoenix", carry=names), "phoenix")
    further = sent(on, "mlflow", carry=names)
    assert further.carried == ("raw",), "it has a place for all others"
    assert (messages_of(further.prompt.text), further.prompt.functions) == ([SYSTEM, NAMED], [{"name": "f"}])
    same(prompt, sent(kept(further, "mlflow"), "portkey").prompt)


def test_a_prompt_that_stays_in_its_dialect_is_copied_with_all_that_it_carries() -> None:
    there = kept(sent(chat(SYSTEM, NAMED, raw=True), "langfuse", carry={"messages.name", "raw"}), "langfuse")
    copy = sent(there, "langfuse")
    assert copy.prompt.metadata[CARRY_KEY] == there.metadata[CARRY_KEY]
    ends = Ends(same=False, source=WORDS, target=WORDS, dialects=DIALECTS)
    into_files = rewrite(there, [KEPT], ends, {*CONTENT, "extra"})
    assert (into_files.prompt.metadata, into_files.losses) == (there.metadata, ())
    same(sent(into_files.prompt, "portkey").prompt, chat(SYSTEM, NAMED, raw=True))


def test_what_a_copy_loses_is_added_to_what_it_carries() -> None:
    there = replace(portkey(metadata={CARRY_KEY: '{"parameters":{"seed":1}}'}), integrations=("a:b",))
    assert cargo(sent(there, "portkey", carry={"integrations"}).prompt) == {
        "parameters": {"seed": 1},
        "fields": {"integrations": ["a:b"]},
    }


def test_a_field_that_nobody_knows_is_carried_too() -> None:
    done = sent(portkey(extra={"guardrails": ["g"]}), "mlflow", carry={"guardrails"})
    assert (done.carried, cargo(done.prompt)) == (("guardrails",), {"extra": {"guardrails": ["g"]}})
    assert sent(kept(done, "mlflow"), "portkey", accepted=True).losses == ("guardrails",)


def test_messages_that_the_next_one_would_refuse_stay_as_they_are_and_what_was_carried_of_them_is_a_loss() -> None:
    names = {"messages.content", "raw"}
    there = kept(sent(chat(SYSTEM, PARTS, raw=True), "langfuse", carry=names, accepted=True), "langfuse")
    on = sent(there, "phoenix", carry=names, accepted=True)
    assert (on.losses, on.carried, on.refused) == (("messages.content",), ("raw",), ())
    assert "with the messages as they were carried: message 2 has a content" in str(on.notes)
    assert messages_of(on.prompt.text) == messages_of(there.text)
    kept(on, "phoenix")


# ---- what does not fit any more --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    ['[{"role": "system", "content": "Be {{tone}}!"}, {"role": "user", "content": "Hi {{who}}"}]', "one text", "[]"],
)
def test_messages_that_somebody_edited_are_merged_with_nothing(text: str) -> None:
    there = kept(sent(chat(SYSTEM, NAMED), "langfuse", carry={"messages.name"}), "langfuse")
    back = sent(replace(there, text=text), "portkey", carry={"messages.name"}, accepted=True)
    assert back.losses == ("messages.name",)
    assert "ada" not in back.prompt.text
    assert "does not fit what is there" in str(back.uncarried)


def test_a_chat_of_a_text_that_somebody_edited_is_lost_by_name() -> None:
    done = sent(
        chat(SYSTEM, NAMED, model="m", provider="v"), "conductor", Rule(messages="transcript"), carry={"messages"}
    )
    back = sent(replace(kept(done, "conductor"), text="edited"), "portkey", accepted=True)
    assert (back.losses, back.prompt.text) == (("messages",), "edited")


def test_a_default_of_a_variable_that_is_gone_is_lost_by_name() -> None:
    prompt = portkey("Hi {{who}}", parameters={"who": "Ada"}, variables={"who"})
    there = kept(sent(prompt, "mlflow", carry={"parameters.who"}), "mlflow")
    assert sent(there, "portkey").prompt.parameters == {"who": "Ada"}
    assert sent(replace(there, text="Hello {{who}}"), "portkey").prompt.parameters == {"who": "Ada"}
    assert sent(replace(there, text="Hi"), "portkey", accepted=True).losses == ("parameters.who",)


def test_a_default_of_a_variable_that_only_the_server_knows_comes_back_with_the_same_text() -> None:
    prompt = portkey("Hi", parameters={"inside": "Ada"}, variables={"inside"})
    there = kept(sent(prompt, "mlflow", carry={"parameters.inside"}), "mlflow")
    assert sent(there, "portkey").prompt.parameters == {"inside": "Ada"}


def test_a_flag_of_a_chat_is_not_put_on_a_text() -> None:
    there = kept(sent(chat(SYSTEM, raw=True), "mlflow", carry={"raw"}), "mlflow")
    back = sent(replace(there, text="Hi"), "portkey", accepted=True)
    assert (back.losses, back.prompt.raw, back.refused) == (("raw",), False, ())


def test_what_somebody_gave_a_value_meanwhile_keeps_it_with_a_note() -> None:
    prompt = portkey(functions=[{"n": 1}], provider="GOOGLE", parameters={"seed": 1})
    there = kept(sent(prompt, "phoenix", carry={"functions", "parameters.seed"}), "phoenix")
    edited = replace(there, parameters={"seed": 2})
    back = sent(edited, "portkey")
    assert (back.prompt.parameters, back.prompt.functions) == ({"seed": 2}, [{"n": 1}])
    assert "parameters.seed was carried, and has another value by now, which is kept" in back.notes


@pytest.mark.parametrize(
    "value",
    ["", "no JSON", "[]", '{"other": 1}', '{"fields": []}', '{"messages": {"1": 2}}', '{"of": 1}', 7, {"fields": {}}],
)
def test_what_somebody_else_has_put_there_is_metadata_like_any_other(value: Json) -> None:
    there = Prompt(id="p", name="p", text="Hi", dialect="mlflow", metadata={CARRY_KEY: value})
    assert sent(there, "portkey").prompt.metadata == {CARRY_KEY: value}
    other = portkey(functions=[1], metadata={CARRY_KEY: value})
    done = sent(other, "phoenix", carry={"functions"}, accepted=True)
    assert (done.losses, done.prompt.metadata[CARRY_KEY]) == (("functions",), value)
    assert "is somebody else's" in str(done.uncarried)


@pytest.mark.parametrize("messages", [{"9": {"name": "x"}}, {"0": {"name": "x"}}, {"x": {"name": "x"}}])
def test_messages_that_are_not_there_are_lost_by_name(messages: Json) -> None:
    there = kept(sent(chat(SYSTEM, NAMED), "langfuse", carry={"messages.name"}), "langfuse")
    broken = encode({**cargo(there), "messages": messages}).decode()
    back = sent(replace(there, metadata={CARRY_KEY: broken}), "portkey", accepted=True)
    assert back.losses == ("messages.name",)


def test_rules_hold_for_parameters_that_are_brought_back() -> None:
    names = ("seed", "logit_bias", "n", "echo")
    prompt = portkey(provider="GOOGLE", parameters=dict.fromkeys(names, 9))
    there = kept(sent(prompt, "phoenix", carry={f"parameters.{name}" for name in names}), "phoenix")
    rules = ParameterRules(
        drop=("seed",), rename=(("echo", "other"),), clamp=(("n", Clamp(max=4)),), set=(("logit_bias", 1),)
    )
    back = sent(there, "portkey", Rule(parameters=rules))
    assert back.prompt.parameters == {"n": 4, "logit_bias": 1, "other": 9}
    assert sent(there, "portkey", Rule(when=When(name="q"), parameters=rules)).prompt.parameters == prompt.parameters


# ---- where it does not go --------------------------------------------------------------------------------------------


def test_what_is_too_large_for_a_tag_of_mlflow_stays_a_loss_and_the_rest_is_carried() -> None:
    prompt = chat(SYSTEM, raw=True, extra={"large": "x" * 100_001, "small": 1})
    done = sent(prompt, "mlflow", carry={"large", "small", "raw"}, accepted=True)
    assert (done.losses, done.carried) == (("large",), ("raw", "small"))
    assert "large: MLflow keeps 100,000 characters in a tag" in str(done.uncarried)
    kept(done, "mlflow")
    fits = sent(replace(prompt, extra={"large": "x" * 99_900}), "mlflow", carry={"large", "raw"})
    assert len(fits.prompt.metadata[CARRY_KEY]) <= 100_000
    kept(fits, "mlflow")


def test_what_langfuse_does_not_take_in_one_body_stays_a_loss() -> None:
    prompt = chat({**NAMED, "content": "x" * 600_000, "name": "y" * 500_000}, raw=True)
    done = sent(prompt, "langfuse", carry={"messages.name", "raw"}, accepted=True)
    assert (done.losses, done.carried) == (("messages.name",), ("raw",))
    assert "Langfuse takes 1,048,576 bytes" in str(done.uncarried)
    kept(done, "langfuse")


def test_a_target_without_metadata_carries_nothing_and_says_so() -> None:
    ends = Ends(same=False, source=WORDS, target=WORDS, dialects=DIALECTS, dialect=DIALECTS["mlflow"])
    done = rewrite(chat(SYSTEM, raw=True), [KEPT], ends, {*Mlflow.fields} - {"metadata"}, carry={"raw"})
    assert (done.losses, done.carried) == (("raw",), ())
    assert done.uncarried == ("the target has no metadata of its own",)


def test_what_is_no_json_is_not_carried() -> None:
    done = sent(portkey(functions=[float("nan")]), "phoenix", carry={"functions"}, accepted=True)
    assert done.losses == ("functions",)
    assert "functions cannot be written as JSON without loss" in str(done.uncarried)


# ---- names in the file -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    "raw tools functions tool_choice integrations version_description model provider collection messages "
    "messages.name messages.content.cache_control parameters.top_k parameters.a.b metadata.owner guardrails "
    "model_config.provider".split(),
)
def test_a_name_that_may_be_a_loss_is_taken(name: str) -> None:
    assert never_lost(name, ("top_k", "temperature")) is None


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("tolls", "did you mean `tools`"),
        ("tool_choise", "did you mean `tool_choice`"),
        ("parameter.top_k", "did you mean `parameters.top_k`"),
        ("parameters", "name each: parameters.NAME"),
        ("parameters.", "did you mean `parameters.NAME`"),
        ("metadata", "name each: metadata.KEY"),
        ("message.name", "did you mean `messages.name`"),
        ("top_k", "did you mean `parameters.top_k`"),
        ("description", "did you mean `version_description`"),
        ("labels", "notes, and no losses"),
        ("name", "always arrives"),
        ("string", "always arrives"),
        ("slug", "the registry's own"),
    ],
)
def test_a_name_that_can_never_be_a_loss_is_told_with_the_nearest_that_can(name: str, says: str) -> None:
    assert says in str(never_lost(name, ("top_k", "temperature")))
