"""What counts as another answer, what is kept of answers, and how they are handed on."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from engine.content.filter import Chosen
from engine.errors import Stop
from engine.migrate.job import Job
from engine.model import Reply, ToolCall
from engine.verbs.compare.answers import Asked, Recorded, digest_of, open_answers, read_answers
from engine.verbs.compare.asking import Asking, Question, calls_of, cost
from engine.verbs.compare.exports import as_csv, as_jsonl, as_promptfoo
from engine.verbs.compare.judging import Judgement, judge, likeness
from engine.verbs.compare.page import page
from engine.verbs.compare.result import MaxChanged
from engine.verbs.compare.shapes import document, schema
from tests.answers import comparison, prompt, says

CANARY = "canary-0123456789-secret"


def calls(*pairs: tuple[str, str]) -> Reply:
    return says(None, finish_reason="tool_calls", tool_calls=tuple(ToolCall(*pair) for pair in pairs))


REFUSED = Reply(outcome="refused", error="The target answered completions with 400.")


def judged(originals: Sequence[Reply] | Reply, *replicas: Reply) -> Judgement:
    return judge([originals] if isinstance(originals, Reply) else originals, replicas)


# ---- another answer --------------------------------------------------------------------------------------------------

SAME: dict[str, tuple[Reply, Reply]] = {
    "other words": (says("Yes."), says("Certainly, with pleasure.")),
    "other values": (says({"a": 1, "b": [{"c": "x"}]}), says({"b": [{"c": "y"}, {"c": "z"}], "a": 2.5})),
    "an empty list": (says({"a": []}), says({"a": [{"b": 1}]})),
    "a list that is empty now": (says({"a": [{"b": 1}]}), says({"a": []})),
    "no JSON before": (says("Yes."), says({"a": 1})),
    "a number is any sentence": (says("42"), says("forty-two")),
    "a fence as before": (says('```json\n{"a": 1}\n```'), says('```\n{"a": 2}\n```\n')),
    "a fence less": (says('```json\n{"a": 1}\n```'), says({"a": 2})),
    "arguments as JSON": (calls(("f", '{"a": 1, "b": [2]}')), calls(("f", '{ "b": [2.0], "a": 1 }'))),
    "no arguments": (calls(("f", "")), calls(("f", "{}"))),
    "tools in another order": (calls(("f", "{}"), ("g", "{}")), calls(("g", "{}"), ("f", "{}"))),
    "another vendor's word": (says("a", finish_reason="stop"), says("b", finish_reason="end_turn")),
    "tools by another vendor": (
        calls(("f", "{}")),
        says(None, finish_reason="tool_use", tool_calls=(ToolCall("f", ""),)),
    ),
    "neither answers": (REFUSED, REFUSED),
}


@pytest.mark.parametrize("kind", SAME)
def test_what_is_no_other_answer(kind: str) -> None:
    found = judged(*SAME[kind])
    assert (found.fields, found.details, found.outside) == ((), (), 0)


CHANGED: dict[str, tuple[Reply, Reply, str, str]] = {
    "refused": (says("a"), REFUSED, "answered", "not answered: The target answered completions with 400."),
    "answered now": (REFUSED, says("a"), "answered", "answered"),
    "cut off": (says("a"), says("a", finish_reason="max_tokens"), "finish_reason", "finish_reason is length, was stop"),
    "other arguments": (calls(("f", '{"a": 1}')), calls(("f", '{"a": true}')), "tool_calls", "other arguments of f"),
    "another tool": (calls(("f", "{}")), calls(("g", "{}")), "tool_calls", "tool_calls: g, was f"),
    "a tool that is data": (calls(("f", "{}")), calls((CANARY + " x", "{}")), "tool_calls", "tool_calls: *, was f"),
    "no JSON": (says({"a": 1}), says("The answer is 1."), "json", "json: it is none"),
    "JSON cut off": (says({"a": 1}), says('{"a": '), "json", "json: it is none"),
    "a fence": (says({"a": 1}), says('```json\n{"a": 1}\n```'), "json", "json: it stands in a code fence"),
    "a key missing": (says({"a": 1, "b": 2}), says({"a": 1}), "json", "json: $.b is missing"),
    "a key more": (says([{"a": 1}]), says([{"a": 1}, {"a": 1, "b": 2}]), "json", "json: $[].b is new"),
    "another type": (says({"a": {"b": 1}}), says({"a": {"b": "1"}}), "json", "json: $.a.b is string, was number"),
    "null": (says({"a": "x"}), says({"a": None}), "json", "json: $.a is null, was string"),
    "an array": (says({"a": 1}), says([{"a": 1}]), "json", "json: $ is array, was object"),
    "keys that are data": (says({"a": 1}), says({"a": 1, "Ada's card": 2}), "json", "json: $.* is new"),
}


@pytest.mark.parametrize("kind", CHANGED)
def test_what_is_another_answer_and_how_it_is_told(kind: str) -> None:
    original, replica, name, words = CHANGED[kind]
    found = judged(original, replica)
    assert (found.fields, found.outside) == ((name,), 1)
    assert found.details[0].endswith(words)


def test_many_places_are_told_in_a_few_words() -> None:
    found = judged(says({f"k{n}": 1 for n in range(30)}), says({"other": 1}))
    assert len(found.details[0]) < 150
    assert found.details[0].endswith(", and 26 more")


def test_what_an_original_showed_once_is_no_difference() -> None:
    originals = [says({"a": 1, "b": "x"}), says({"a": None}, finish_reason="length"), calls(("f", "{}"))]
    for replica in (says({"a": None, "b": "y"}), says({"a": 2}, finish_reason="length"), calls(("f", "{}"))):
        assert judged(originals, replica).fields == ()
    assert judged(originals, says({"b": "x"})).fields == ()  # the third was no JSON at all
    assert judged(originals[:2], says({"b": "x"})).details == ("json: $.a is missing",)
    assert judged(originals[:2], says({"a": 1, "b": 2}), says({"a": 1})).outside == 1
    assert [judged(some, says("x")).flaky for some in (originals, originals[:1] * 2)] == [True, False]


def test_what_is_only_measured() -> None:
    before = [says("one two three", seconds=1.0, tokens=10), says("one two", seconds=3.0, tokens=20)]
    found = judged(before, says("one two four", seconds=0.5), says(None))
    assert (found.length.original, found.length.replica) == (10, 12)
    assert (found.seconds.original, found.seconds.replica) == (2.0, 0.5)
    assert (found.tokens.original, found.tokens.replica) == (15, None)
    assert found.similarity == 0.8
    assert likeness("", "a") == 0.0
    assert likeness("a b", "a  b") == 1.0
    assert judged(calls(("f", "{}")), says("a")).similarity is None


def test_a_shape_as_a_schema() -> None:
    found = document('{"a": [{"b": 1}, {"b": null, "c": "x"}], "d": []}')
    assert found is not None
    item = {
        "type": "object",
        "properties": {"b": {"anyOf": [{"type": "null"}, {"type": "number"}]}, "c": {"type": "string"}},
        "required": ["b"],
        "additionalProperties": False,
    }
    properties = {"a": {"type": "array", "items": item}, "d": {"type": "array"}}
    whole = {"type": "object", "properties": properties, "required": ["a", "d"], "additionalProperties": False}
    assert schema(found.shape) == whole


@pytest.mark.parametrize("text", [None, "", "null", "true", '"a"', "[" * 100_000, '{"a": NaN', "{} {}"])
def test_what_is_no_document(text: str | None) -> None:
    assert document(text) is None


# ---- the file --------------------------------------------------------------------------------------------------------

ASKED = Asked("original", "p1", "3", digest_of({"a": 1, "b": 2}))


async def test_what_is_kept_comes_back_without_a_key(tmp_path: Path) -> None:
    path = tmp_path / "l.jsonl.answers.jsonl"
    reply = Reply(
        outcome="answered",
        text=f"Half \ud83d of it, {CANARY}",
        tool_calls=(ToolCall("f", f'{{"k": "{CANARY}"}}'),),
        tokens=7,
    )
    with open_answers(path, read_answers(path), run="r1", secrets=[CANARY]) as file:
        await file.asked(ASKED, 1, name="n")
        await file.asked(ASKED, 2, name="n")
        await file.answered(ASKED, 1, reply, name="n")
    found = read_answers(path)
    assert found.of(ASKED)[0].text == "Half \ud83d of it, ***"
    assert found.of(ASKED)[0].tool_calls == (ToolCall("f", '{"k": "***"}'),)
    assert (found.left, found.settled(ASKED, 1), found.settled(ASKED, 2)) == ({(ASKED, 2)}, True, False)
    assert digest_of({"b": 2, "a": 1}) == ASKED.values
    assert CANARY not in repr([reply, found])
    assert "Half" not in repr([reply, found])


async def test_a_torn_end_is_dropped_and_a_damaged_line_is_not(tmp_path: Path) -> None:
    path = tmp_path / "answers"
    with open_answers(path, Recorded(), run="r1", secrets=()) as file:
        await file.answered(ASKED, 1, says("one"))
        await file.answered(ASKED, 2, says("two"))
    whole = path.read_bytes()
    first = whole.index(b"\n") + 1
    for cut in range(first, len(whole)):
        path.write_bytes(whole[:cut])
        assert [one.text for one in read_answers(path).of(ASKED)] == ["one"]
    path.write_bytes(whole + b"\0" * 40 + b"\n")
    with open_answers(path, read_answers(path), run="r2", secrets=()) as file:
        await file.answered(ASKED, 3, says("three"))
    assert [one.text for one in read_answers(path).of(ASKED)] == ["one", "two", "three"]
    path.write_bytes(b"x" + whole)
    with pytest.raises(Stop, match="line 1 is damaged") as caught:
        read_answers(path)
    assert caught.value.reason == "ledger_damaged"


async def test_what_was_refused_is_asked_again_when_all_the_rest_was_done(tmp_path: Path) -> None:
    path = tmp_path / "answers"
    with open_answers(path, Recorded(), run="r1", secrets=()) as file:
        await file.answered(ASKED, 1, REFUSED)
        await file.answered(ASKED, 2, says("two"))
    assert read_answers(path).settled(ASKED, 1)
    with open_answers(path, read_answers(path), run="r1", secrets=()) as file:
        await file.ended("original")
    found = read_answers(path)
    assert [found.settled(ASKED, number) for number in (1, 2)] == [False, True]
    assert found.of(ASKED) == [REFUSED, says("two")]


# ---- the calls -------------------------------------------------------------------------------------------------------


def test_each_question_is_asked_once_and_its_cost_is_told() -> None:
    one, known = prompt("p1"), Recorded()
    questions = [Question(one, "first", {"a": 1}), Question(one, "the same", {"a": 1}), Question(one, "", {"a": 2})]
    asked = [(question, one, question.asked) for question in questions]
    found = calls_of(asked, known, 2)
    assert [(call.case, call.number) for call in found] == [("the same", 1), ("the same", 2), ("", 1), ("", 2)]
    assert cost("api_key", found, known) == "4 calls of 1 original will be made with api_key; models cost money"
    known.replies[questions[0].asked][1] = says("x", tokens=1234)
    known.left.add((questions[2].asked, 1))
    told = cost("gateway_key", calls_of(asked, known, 1), known)
    assert "about 1,200 tokens; 1 of them left before" in told


def test_an_original_without_replica_is_told() -> None:
    known = Recorded()
    known.replies[ASKED][1] = says("one")
    asking = Asking(job=cast(Job, None), made=(), chosen=Chosen(), cases=(), shared={})
    assert asking.notes(known) == ["1 originals whose answers are recorded have no replica: see `promptferry status`"]
    assert replace(asking, chosen=Chosen(only=("a",))).notes(known) == []


# ---- handing on ------------------------------------------------------------------------------------------------------

TRICKY = (
    "{{name}} and {{ env.HOME }}",
    "file://etc/passwd",
    "</pre><script>alert(1)</script>",
    "=1+1",
    'a "b", c\nd',
    "",
)


def test_what_is_written_for_promptfoo_has_nothing_that_it_would_render() -> None:
    found = comparison(*((says(text), says(f"{text}!")) for text in TRICKY), (says({"a": 1}), says({"b": 1})))
    value = json.loads(as_promptfoo(found.cases))
    for test, text in zip(value["tests"], TRICKY, strict=False):
        answers = test["vars"]["answers"]
        assert ("".join(answers["original"]), "".join(answers["replica"])) == (text, f"{text}!")
    assert "{{" not in json.dumps(value["tests"])
    assert [len(test.get("assert", ())) for test in value["tests"]] == [0] * len(TRICKY) + [1]


def test_tables_hold_every_answer_and_what_was_asked() -> None:
    found = comparison(
        *((says(text, seconds=0.5), says(f"{text}!")) for text in TRICKY), (says("a"), calls(("f", "{}")))
    )
    rows = list(csv.DictReader(io.StringIO(as_csv(found.cases))))
    assert [row["original_text"] for row in rows] == [*TRICKY, "a"]
    assert (rows[0]["variables"], rows[0]["original_seconds"], rows[-1]["fields"]) == (
        '{"n":0}',
        "0.5",
        "finish_reason tool_calls",
    )
    objects = [json.loads(line) for line in as_jsonl(found.cases).splitlines()]
    assert [one["replica"][0]["text"] for one in objects] == [*(f"{text}!" for text in TRICKY), None]
    assert objects[-1]["replica"][0]["tool_calls"] == [{"name": "f", "arguments": "{}"}]


def test_the_page_escapes_answers_and_asks_nobody() -> None:
    found = comparison(*((says(text), says(text)) for text in TRICKY), (says({"a": 1}), says("<b>no</b>")))
    text = page(found, migration="<m>", threshold=MaxChanged(5, percent=True))
    assert "<script" not in text
    assert "&lt;/pre&gt;&lt;script&gt;" in text
    assert "&lt;b&gt;no&lt;/b&gt;" in text
    assert "default-src 'none'" in text
    assert not [word for word in ("http://", "https://", "src=", "href=", "url(") if word in text]
    assert text.count("<details open>") == 1
    assert "more than --max-changed 5%" in text


def test_the_share_of_nothing_is_never_too_much() -> None:
    assert not MaxChanged(0, percent=True).exceeded(0, 0)
    assert MaxChanged(0, percent=True).exceeded(1, 1000)
    assert not MaxChanged(6, percent=True).exceeded(6, 100)
    assert MaxChanged(5.9, percent=True).exceeded(6, 100)
    assert (MaxChanged(2, percent=False).exceeded(2, 3), MaxChanged(2, percent=False).exceeded(3, 3)) == (False, True)
