"""Values that are packed come back as they were, and take a fraction of their memory."""

from __future__ import annotations

import sys
import tracemalloc
from collections.abc import Callable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from engine.ledger.record import Doubt, Failure, Rare, Record, Records
from engine.migrate.task import Task, packed_tasks
from engine.model import ROW, Failed, Row, packed_rows
from engine.model.packed import PAGE, PackedDict

MANY = 20_000

texts = st.text(st.characters(), max_size=8)  # lone surrogates too: registries send them
rows = st.builds(
    Row,
    id=texts,
    name=texts,
    slug=st.none() | texts,
    collection=st.none() | texts,
    model=st.none() | texts,
    created_at=st.none() | texts,
    updated_at=st.none() | texts,
    archived=st.booleans(),
    whole=st.booleans(),
    labels=st.none() | st.lists(texts).map(tuple) | st.lists(texts).map(dict.fromkeys),
)
tasks = st.builds(
    Task,
    row=rows,
    action=st.sampled_from(["create", "update", "unchanged", "unread"]),
    reason=st.none() | texts,
    name=st.none() | texts,
    target_id=st.none() | texts,
    adopt=st.none(),
    note=st.none() | texts,
    look=st.sampled_from(["", "replica"]),
    failure=st.none() | st.just(Failed(error="refused", message="no")),
)
records = st.builds(
    Record,
    status=st.sampled_from(["created", "updated", "failed", "intent", "rolled_back"]),
    target_id=st.none() | texts,
    run=texts,
    retriable=st.booleans(),
    reason=st.none() | texts,
    updated_at=st.none() | texts,
    rules=st.none() | texts,
    digests=st.none() | st.binary(min_size=32, max_size=32),
    doubt=st.none() | st.builds(Doubt, name=texts),
    rare=st.just(Record().rare) | st.builds(Rare, edited=st.booleans()),
    told=texts,
    failure=st.none() | st.builds(Failure, texts, texts, texts),
    ours=st.booleans(),
)


def bytes_each(make: Callable[[], object]) -> float:
    """What is kept of it, by the value."""
    tracemalloc.start()
    kept = make()
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept is not None
    return size / MANY


def row(number: int, **more: Any) -> Row:
    """As registries write them: ids and times take the most."""
    at = f"2026-01-{1 + number % 28:02d}T{number:010d}Z"
    row_id = f"{number * 2_654_435_761 % 2**64:016x}-{number:016x}"
    return Row(id=row_id, name=f"prompt {number}", slug=f"pp-{number}", created_at=at, updated_at=at, **more)


@given(st.lists(tasks, max_size=5), st.integers(0, 3))
def test_a_list_gives_back_what_it_was_given(some: list[Task], pages: int) -> None:
    """Across the ends of pages, and with values among them that cannot be packed."""
    given_ = [Task(row=row(number), action="create") for number in range(pages * PAGE - len(some) // 2)] + some
    packed = packed_tasks(given_)
    assert list(packed) == given_
    assert len(packed) == len(given_)
    assert [packed[index] for index in (0, -1) if given_] == [given_[index] for index in (0, -1) if given_]
    assert packed[-3:] == given_[-3:]
    assert [one for page in packed.pages() for one in page] == given_


@given(st.lists(rows, max_size=5))
def test_rows_come_back_as_they_were(some: list[Row]) -> None:
    listed = [*some, *(row(number) for number in range(PAGE))]
    packed = packed_rows(listed)
    assert list(packed) == listed
    assert all(isinstance(one, Row) for one in packed)
    packed.extend(packed_rows(listed))  # the pages of another one, behind values that are not packed yet
    whole = packed_rows(listed[:PAGE])
    whole.extend(packed)  # behind whole pages, as they are packed
    assert list(whole) == [*listed[:PAGE], *listed, *listed]


class Odd(str):
    """No text that can be packed: it would come back as another kind."""


def test_a_value_that_cannot_be_packed_is_kept_among_the_others() -> None:
    listed = [row(number)._replace(name=Odd(number) if number % 3 == 0 else "plain") for number in range(2 * PAGE)]
    packed = packed_rows(listed)
    packed.extend(packed_rows(listed))
    assert list(packed) == [*listed, *listed]
    assert [type(one.name) for one in packed] == 2 * [type(one.name) for one in listed]
    assert packed[-2 * PAGE].name is listed[0].name
    by_id = PackedDict(ROW, ((one.id, one) for one in listed[:4]))
    assert [type(by_id[one.id].name) for one in listed[:4]] == [Odd, str, str, Odd]


@given(st.dictionaries(texts, records, max_size=8))
def test_records_come_back_as_they_were(some: dict[str, Record]) -> None:
    known = Records(some.items())
    assert dict(known) == some
    assert {one: known[one].ours for one in known} == {one: record.ours for one, record in some.items()}
    assert known.replicas() == {record.target_id for record in some.values() if record.target_id is not None}
    assert known.replicas(ours=True) == {
        one.target_id for one in some.values() if one.ours and one.target_id is not None
    }
    assert [one for one in some if known.is_made(one)] == [one for one, record in some.items() if record.made]
    listed = list(some)[::2]
    assert known.made_beside([*listed, "of no record"]) == sum(some[one].made for one in some if one not in listed)
    for one in some:
        assert one in known
        del known[one]
    assert len(known) == 0
    assert known.get("a") is None


def test_a_change_of_a_record_stays_when_it_is_put_back() -> None:
    known = Records([("a", Record("created", "A", "r1", told="r1"))])
    record = known["a"]
    record.rare = Rare(pending=True)
    known["a"] = record
    assert known["a"].rare.pending
    record.rare.pending = False  # what is not packed is no copy
    assert not known["a"].rare.pending


def test_what_a_prompt_takes() -> None:
    plain = bytes_each(lambda: [row(number) for number in range(MANY)])
    packed = bytes_each(lambda: packed_rows(row(number) for number in range(MANY)))
    assert packed < plain / 6
    settled = bytes_each(
        lambda: Records(
            (
                row(number).id,
                Record("created", row(number).id, sys.intern("run-1"), updated_at=row(number).updated_at,
                       digests=number.to_bytes(32, "big"), told=sys.intern("run-1"), ours=True),
            )
            for number in range(MANY)
        )
    )  # fmt: skip
    assert settled < 350
    print(f"{plain:.0f} bytes a row, {packed:.0f} packed; {settled:.0f} a record")
