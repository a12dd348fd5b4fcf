"""Whose a prompt is when several machines share one migration."""

from __future__ import annotations

from collections import Counter

import pytest

from engine.content.shard import Shard, names_a_shard, shard_from, shard_of, whole_name


@pytest.mark.parametrize(
    ("source_id", "count", "shard"),
    [("pp-support-1", 8, 2), ("pp-support-1", 3, 2), ("", 8, 4), ("préamble/naïve.md", 8, 0), ("\ud800", 8, 4)],
)
def test_it_is_the_same_everywhere_and_for_ever(source_id: str, count: int, shard: int) -> None:
    """These numbers are a promise: another hash would move every prompt to another ledger."""
    assert shard_of(source_id, count) == shard


def test_each_prompt_is_of_one_shard_and_they_are_about_as_large() -> None:
    ids = [f"pp-{number}" for number in range(8000)]
    sizes = Counter(index for one in ids for index in range(8) if Shard(index, 8).takes(one))
    assert sizes.total() == len(ids)
    assert all(900 < size < 1100 for size in sizes.values())


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("3", "such as 0/4"),
        ("1/2/3", "such as 0/4"),
        ("-1/2", "such as 0/4"),
        ("a/b", "such as 0/4"),
        ("0/0", "one shard at least"),
        ("4/4", "the last of 4 is 3/4"),
    ],
)
def test_what_is_no_shard_is_told(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        shard_from(text)


@pytest.mark.parametrize(
    ("name", "own"),
    [
        ("m.jsonl", "m.1-of-3.jsonl"),
        ("a.b.jsonl", "a.b.1-of-3.jsonl"),
        ("ledger", "ledger.1-of-3"),
        (".jsonl", ".jsonl.1-of-3"),
    ],
)
def test_its_ledger_lies_beside_that_of_the_whole(name: str, own: str) -> None:
    shard = shard_from("1/3")
    assert shard.ledger_name(name) == own
    assert (names_a_shard(own), names_a_shard(name), whole_name(own), whole_name(name)) == (True, False, name, name)


def test_what_is_to_be_done_now_names_it() -> None:
    sentence = "See it with `promptferry status --failed`, mend it, then `promptferry ledger check x` and run it again."
    said = Shard(0, 2).said(sentence)
    assert said == sentence.replace("--failed", "--failed --shard 0/2")
