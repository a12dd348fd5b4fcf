"""Every task is in one place at a time, whoever is lost."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.cluster.pages import Book
from engine.migrate.task import Rest, Task
from engine.model import Row


def task(number: int) -> Task:
    return Task(Row(id=f"p-{number}", name=f"prompt {number}"), "create")


def book(tasks: int, size: int = 10) -> Book:
    return Book(Rest([task(number) for number in range(tasks)]), size=size)


def test_pages_are_handed_out_until_there_are_none() -> None:
    pages = book(25)
    first, second = pages.hand_out("a", 2, 1)
    assert [one.row.id for one in first.tasks] == [f"p-{number}" for number in range(10)]
    assert (first.number, second.number, len(pages)) == (1, 2, 5)
    assert list(pages.hand_out("a", 2, 1)) == []  # it has two
    (third,) = pages.hand_out("b", 2, 1)
    assert (len(third.tasks), len(pages), pages.whole) == (5, 0, False)
    for worker, page in (("a", first), ("b", third), ("a", second)):
        pages.ended(worker, page.number)
    assert pages.whole


def test_the_last_pages_are_small_so_that_all_have_something() -> None:
    pages = book(12)
    sizes = [len(page.tasks) for place in range(4) for page in pages.hand_out(place, 1, 4)]
    assert sizes == [3, 3, 2, 1]


def test_what_a_lost_worker_had_comes_first_again_but_for_what_was_told() -> None:
    pages = book(30)
    (page,) = pages.hand_out("a", 1, 1)
    (other,) = pages.hand_out("b", 1, 1)
    told = pages.lost("a", lambda one: one.row.id in ("p-3", "p-4"))
    assert [one.row.id for one in told] == ["p-3", "p-4"]
    assert (pages.held("a"), pages.held("b"), len(pages)) == (0, 1, 18)
    (again,) = pages.hand_out("c", 1, 1)
    assert again.number > other.number > page.number
    assert [one.row.id for one in again.tasks][:8] == [f"p-{number}" for number in (0, 1, 2, 5, 6, 7, 8, 9)]


def test_a_page_that_nobody_has_cannot_end() -> None:
    pages = book(3)
    (page,) = pages.hand_out("a", 1, 1)
    pages.lost("a", lambda _: False)
    with pytest.raises(KeyError):
        pages.ended("a", page.number)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["take", "end", "lose"])), max_size=60))
def test_nothing_is_ever_twice_or_nowhere(steps: list[tuple[str, str]]) -> None:
    pages, has, done = book(40, size=7), dict[str, dict[int, set[str]]](a={}, b={}, c={}), set[str]()
    for worker, step in steps:
        if step == "take":
            for page in pages.hand_out(worker, 2, 3):
                has[worker][page.number] = {one.row.id for one in page.tasks}
        elif step == "end" and has[worker]:
            number, ids = has[worker].popitem()
            assert not done & ids
            done |= ids
            pages.ended(worker, number)
        elif step == "lose":
            told = {one.row.id for one in pages.lost(worker, lambda one: one.row.id.endswith("1"))}
            assert told <= set().union(*has[worker].values())
            done |= told
            has[worker] = {}
        held = [ids for those in has.values() for ids in those.values()]
        assert len(pages) + sum(map(len, held)) + len(done) == 40
    assert pages.whole == (len(done) == 40)
