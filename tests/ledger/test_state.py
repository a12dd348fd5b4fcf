"""Lines, verdicts and the fold."""

from __future__ import annotations

import json
import tempfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.ledger.file import read_ledger
from engine.ledger.lines import Chain, condition_of, encode_line, seal, timestamp
from engine.ledger.state import Failure, Record, State, mismatch
from engine.model import Entry, Json

NOON = 1_795_176_000.0
TS = timestamp(NOON)

# ---- entries, as the verbs write them --------------------------------------------------------------------------------


def intent(source_id: str, *, op: str = "create", attempt: int = 1) -> Entry:
    return Entry("intent", {"source_id": source_id, "op": op, "name": f"{source_id}-replica", "attempt": attempt})


def created(source_id: str, target_id: str) -> Entry:
    return Entry("created", {"source_id": source_id, "target_id": target_id, "source_updated_at": "2026-01-01"})


def updated(source_id: str, target_id: str) -> Entry:
    return Entry("updated", {"source_id": source_id, "target_id": target_id})


def failed(source_id: str, *, retriable: bool = False) -> Entry:
    return Entry("failed", {"source_id": source_id, "stage": "create", "error": "http_400", "retriable": retriable})


def unknown(source_id: str) -> Entry:
    return Entry("unknown", {"source_id": source_id, "stage": "create", "error": "timeout"})


def skipped(source_id: str) -> Entry:
    return Entry("skipped", {"source_id": source_id, "reason": "exists"})


def conflict(source_id: str) -> Entry:
    return Entry("conflict", {"source_id": source_id, "reason": "name_clash", "target_id": "somebody's"})


def rolled_back(source_id: str, target_id: str) -> Entry:
    return Entry("rolled_back", {"source_id": source_id, "target_id": target_id, "result": "deleted"})


def sealed(batches: Sequence[Sequence[Entry]], after: Chain | None = None) -> bytes:
    chain, data = after or Chain(), b""
    for batch in batches:
        lines, chain = seal([encode_line(entry) for entry in batch], chain, ts=TS, run="r1")
        data += lines
    return data


def good_part(data: bytes) -> tuple[list[dict[str, Json]], Chain]:
    chain, found = Chain(), []
    for line in data.splitlines(keepends=True):
        fields = chain.accept(line)
        if fields is None:
            break
        found.append(fields)
    return found, chain


def verdict_of(data: bytes) -> tuple[str, int]:
    """Its kind, and how many lines are good."""
    _, chain = good_part(data)
    verdict = condition_of(data[chain.offset :], chain)
    assert (verdict.offset, verdict.line) == (chain.offset, chain.seq + 1)
    return verdict.kind, chain.seq


def folded(*entries: Entry) -> State:
    state = State()
    for entry in entries:
        state.fold({**entry.fields, "ts": TS, "run": "r1", "kind": entry.kind})
    return state


# ---- lines -----------------------------------------------------------------------------------------------------------


def test_a_line_has_its_fields_in_order_and_its_checksum_continues_the_line_before() -> None:
    first, second = sealed([[intent("a"), created("a", "A")]]).splitlines()
    assert list(json.loads(first)) == [
        "v", "seq", "ts", "run", "kind", "source_id", "op", "name", "attempt", "b", "n", "crc",
    ]  # fmt: skip
    assert first.startswith(b'{"v":1,"seq":1,"ts":"2026-11-20T12:00:00.000Z","run":"r1","kind":"intent",')
    assert [(json.loads(line)["seq"], json.loads(line)["b"], json.loads(line)["n"]) for line in (first, second)] == [
        (1, 1, 1),
        (2, 1, 0),
    ]
    crc = 0
    for line in (first, second):
        crc = zlib.crc32(line[: line.rindex(b',"crc":')], crc)
        assert json.loads(line)["crc"] == f"{crc:08x}"


@pytest.mark.parametrize(
    "name", ['","crc":"00000000"}', "a\nb\r\u2028\0", "\ud800 lone", "日本 \U0001f600", "\\", '"b":9,"n":0']
)
def test_any_name_comes_back_as_it_was(name: str) -> None:
    data = sealed([[Entry("created", {"source_id": name, "target_id": name, "big": 2**70})]])
    lines, chain = good_part(data)
    assert data.count(b"\n") == 1
    assert lines[0]["source_id"] == lines[0]["target_id"] == name
    assert condition_of(data[chain.offset :], chain).kind == "whole"


def test_an_entry_cannot_take_the_ledgers_own_fields() -> None:
    with pytest.raises(ValueError, match="belongs to the ledger"):
        encode_line(Entry("created", {"seq": 5}))


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "1970-01-01T00:00:00.000Z"), (NOON + 0.1239, "2026-11-20T12:00:00.123Z")]
)
def test_times_are_utc_with_milliseconds(seconds: float, text: str) -> None:
    assert timestamp(seconds) == text


# ---- verdicts --------------------------------------------------------------------------------------------------------

BATCHES = [
    [Entry("run", {"migration": "m"})],
    [intent("a"), intent("b")],
    [created("a", "A"), failed("b")],
    [intent("c"), intent("d"), intent("e")],
]
DATA = sealed(BATCHES)
LINES = DATA.splitlines(keepends=True)


def spoiled(number: int) -> bytes:
    """A line with one letter changed; numbers from 1."""
    return LINES[number - 1].replace(b'"kind":"', b'"kind":"x', 1)


def without(*numbers: int) -> bytes:
    return b"".join(line for number, line in enumerate(LINES, 1) if number not in numbers)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        pytest.param(b"", ("whole", 0), id="empty"),
        pytest.param(DATA, ("whole", 8), id="whole"),
        pytest.param(DATA[:-1], ("torn", 7), id="no final newline"),
        pytest.param(DATA[:-40], ("torn", 7), id="cut inside the last line"),
        pytest.param(b"".join(LINES[:7]), ("torn", 7), id="cut between two lines of a batch"),
        pytest.param(b"".join(LINES[:5]), ("whole", 5), id="cut between two batches"),
        pytest.param(DATA + b"\0" * 5000, ("torn", 8), id="NULs behind"),
        pytest.param(DATA[:-30] + b"\0" * 30, ("torn", 7), id="NULs at the end of the last line"),
        pytest.param(without(8) + spoiled(8), ("torn", 7), id="last line spoiled"),
        pytest.param(without(6, 7, 8) + spoiled(6) + LINES[6] + LINES[7], ("torn", 5), id="last batch spoiled"),
        pytest.param(
            b"".join(LINES[:2]) + spoiled(3) + b"".join(LINES[3:]), ("damaged", 2), id="earlier batch spoiled"
        ),
        pytest.param(spoiled(1) + without(1), ("damaged", 0), id="first line spoiled"),
        pytest.param(without(4), ("damaged", 3), id="a line taken out"),
        pytest.param(without(4, 5), ("damaged", 3), id="a batch taken out"),
        pytest.param(without(1), ("damaged", 0), id="the first batch taken out"),
        pytest.param(LINES[0][:9], ("torn", 0), id="cut inside the first line, early"),
        pytest.param(LINES[0][:-9], ("torn", 0), id="cut inside the first line, late"),
        pytest.param(b"\0" * 100, ("torn", 0), id="only NULs"),
        pytest.param(b'{"id": "pp-1"}\n', ("foreign", 0), id="other JSON lines"),
        pytest.param(b"name: m\n", ("foreign", 0), id="a migration file"),
        pytest.param(b"\n", ("foreign", 0), id="an empty line"),
        pytest.param(b"\x89PNG\r\n\0\0", ("foreign", 0), id="a picture"),
        pytest.param(LINES[0].replace(b'"v":1', b'"v":2'), ("newer", 0), id="a later format"),
        pytest.param(DATA + b'{"v":12,"seq":9}\n', ("newer", 8), id="a later format behind ours"),
    ],
)
def test_verdicts(data: bytes, expected: tuple[str, int]) -> None:
    assert verdict_of(data) == expected


def test_every_cut_is_whole_or_torn_and_keeps_the_good_lines_before_it() -> None:
    for size in range(len(DATA)):
        assert verdict_of(DATA[:size])[0] in ("whole", "torn"), size
        assert verdict_of(DATA[:size])[1] == DATA[:size].count(b"\n"), size


@pytest.mark.parametrize("last", [3, 1], ids=["three lines last", "one line last"])
@pytest.mark.parametrize("change", [lambda old: old ^ 1, lambda old: old ^ 0x80, lambda _: 10], ids=["1", "128", "LF"])
def test_a_flip_in_the_last_batch_is_torn_and_one_before_it_is_damage(change: Callable[[int], int], last: int) -> None:
    whole = sealed([*BATCHES[:-1], BATCHES[-1][:last]])
    last_batch = sum(map(len, whole.splitlines(keepends=True)[:-last]))
    for place in range(len(whole)):
        data = bytearray(whole)
        data[place] = change(data[place])
        kind, good = verdict_of(bytes(data))
        if data != whole:
            assert good == whole[:place].count(b"\n"), place
            assert kind == ("torn" if place >= last_batch else "damaged"), (place, bytes(data[place - 20 : place + 20]))


def test_a_batch_taken_out_before_the_last_line_is_damage() -> None:
    data = sealed([*BATCHES, [created("c", "C")]])
    assert verdict_of(without(6, 7, 8) + data[len(DATA) :]) == ("damaged", 5)


def test_after_a_cut_within_a_batch_the_ledger_goes_on_and_stays_readable() -> None:
    lines, end = good_part(b"".join(LINES[:7]))
    more = sealed([[created("c", "C")], [created("d", "D")]], after=end)
    assert verdict_of(b"".join(LINES[:7]) + more) == ("whole", 9)
    assert len(lines) == 7


# ---- the fold --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entries", "status", "targets"),
    [
        ([intent("a")], "intent", set()),
        ([intent("a"), unknown("a")], "unknown", set()),
        ([intent("a"), created("a", "A")], "created", {"A"}),
        ([intent("a"), unknown("a"), created("a", "A")], "created", {"A"}),
        ([intent("a"), failed("a")], "failed", set()),
        ([intent("a"), failed("a"), intent("a", attempt=2)], "intent", set()),
        ([skipped("a")], "skipped", set()),
        ([conflict("a")], "conflict", set()),
        # a created line is the last word, unless it was rolled back
        ([created("a", "A"), failed("a")], "created", {"A"}),
        ([created("a", "A"), unknown("a")], "created", {"A"}),
        ([created("a", "A"), skipped("a")], "created", {"A"}),
        ([created("a", "A"), conflict("a")], "created", {"A"}),
        ([created("a", "A"), intent("a")], "created", {"A"}),
        ([created("a", "A"), rolled_back("a", "A")], "rolled_back", set()),
        ([created("a", "A"), rolled_back("a", "A"), failed("a")], "failed", set()),
        ([created("a", "A"), rolled_back("a", "A"), intent("a"), created("a", "B")], "created", {"B"}),
        ([created("a", "A"), created("a", "B"), rolled_back("a", "A")], "created", {"B"}),
        # an update is in doubt like a create; what it fails to change is there all the same
        ([updated("a", "a")], "updated", set()),
        ([created("a", "A"), intent("a", op="update")], "intent", {"A"}),
        ([created("a", "A"), intent("a", op="update"), unknown("a")], "unknown", {"A"}),
        ([created("a", "A"), intent("a", op="update"), failed("a")], "failed", {"A"}),
        ([created("a", "A"), intent("a", op="update"), updated("a", "A")], "updated", {"A"}),
        ([updated("a", "a"), intent("a", op="update"), failed("a")], "failed", set()),
        # what a later version may add
        ([created("a", "A"), Entry("polished", {"source_id": "a"}), Entry("created", {})], "created", {"A"}),
    ],
)
def test_what_becomes_of_a_prompt(entries: list[Entry], status: str, targets: set[str]) -> None:
    state = folded(*entries)
    assert state.records["a"].status == status
    assert state.records["a"].doubtful == (status in ("intent", "unknown"))
    assert state.targets == targets


def test_name_and_time_are_kept_only_while_in_doubt() -> None:
    doubtful = folded(intent("a", attempt=2), unknown("a")).records["a"]
    assert (doubtful.name, doubtful.since, doubtful.attempt, doubtful.reason) == ("a-replica", NOON, 2, "timeout")
    settled = folded(intent("a", attempt=2), unknown("a"), created("a", "A")).records["a"]
    assert settled == Record("created", "A", "r1", updated_at="2026-01-01", told="r1")
    assert (settled.name, settled.since) == (None, 0.0)
    assert folded(failed("a", retriable=True)).records["a"] == Record(
        "failed", run="r1", retriable=True, reason="http_400", told="r1", failure=Failure(None, None, None)
    )


def test_runs_and_ends() -> None:
    run = Entry("run", {"mode": "replicate", "rules": "d1"})
    state = folded(run, Entry("end", {"reason": "interrupted", "counts": {"created": 2}}), run)
    assert (state.runs, state.last_run, state.rules) == (2, "r1", "d1")
    assert state.identity is not None
    assert state.identity["mode"] == "replicate"


IDS = st.sampled_from(["a", "b", "c\ud800", "日本"])
ENTRIES = st.one_of(
    st.builds(intent, IDS, op=st.sampled_from(["create", "update"]), attempt=st.integers(1, 9)),
    st.builds(created, IDS, st.sampled_from(["A", "B"])),
    st.builds(updated, IDS, st.sampled_from(["A", "B"])),
    st.builds(rolled_back, IDS, st.sampled_from(["A", "B"])),
    st.builds(failed, IDS, retriable=st.booleans()),
    *(st.builds(make, IDS) for make in (unknown, skipped, conflict)),
    st.builds(lambda count: Entry("listed", {"count": count}), st.integers(0, 9)),
    st.builds(lambda reason: Entry("end", {"reason": reason, "counts": {}}), st.sampled_from(["done", "limit"])),
    st.builds(lambda name: Entry("run", {"migration": name, "rules": "d"}), st.text()),
)


@given(st.lists(st.lists(ENTRIES, min_size=1, max_size=6), max_size=8), st.data())
def test_the_fold_of_the_file_is_the_state_from_any_point_on(batches: list[list[Entry]], draw: st.DataObject) -> None:
    live = folded(*(entry for batch in batches for entry in batch))
    data = sealed(batches)
    lines, _ = good_part(data)
    cut = draw.draw(st.integers(0, len(data)))
    state = State()
    prefix, end = good_part(data[:cut])
    for line in prefix + lines[end.seq :]:
        state.fold(line)
    assert prefix == lines[: end.seq]
    assert state == live


MOVED = st.builds(
    lambda was, now, target_id: Entry("moved", {"was": was, "source_id": now, "target_id": target_id}),
    IDS, IDS, st.sampled_from(["A", "B"]),
)  # fmt: skip


DIGESTS = st.sampled_from([None, "0" * 64, "f" * 64])
SAID_MORE = st.builds(
    lambda source_id, fields: Entry("created", {"source_id": source_id, **fields}),
    IDS,
    st.fixed_dictionaries(
        {"target_id": st.sampled_from(["A", "B", None])},
        optional={
            "source_digest": DIGESTS,
            "replica_digest": DIGESTS,
            "source_updated_at": st.sampled_from([None, "2026-01-01"]),
            "target_updated_at": st.sampled_from([None, "2026-01-02"]),
            "pending": st.booleans(),
            "retriable": st.booleans(),
            "reason": st.sampled_from([None, "adopted"]),
            "error": st.just("odd"),
        },
    ),
)
RULED = st.builds(lambda rules: Entry("run", {"migration": "m", "rewrites": rules}), st.sampled_from(["one", "two"]))
ODD = st.builds(
    lambda kind, odd: Entry(kind, {"source_id": odd, "target_id": "A"}),
    st.sampled_from(["created", "intent", "verified"]),
    st.sampled_from([None, 1, ["a"], {"a": 1}]),
)

PARTS = st.builds(
    lambda kind, fields: Entry(kind, {"op": "create", **fields}),
    st.sampled_from(["intent", "unknown", "made", "failed", "skipped", "unmade"]),
    st.fixed_dictionaries(
        {"what": st.sampled_from(["collection", "label"]), "source_slug": IDS},
        optional={"target_id": st.sampled_from(["A", "B"]), "error": st.just("exists")},
    ),
)


@given(st.lists(st.lists(ENTRIES | MOVED | SAID_MORE | RULED | ODD | PARTS, min_size=1, max_size=6), max_size=8))
def test_a_ledger_that_is_read_says_what_its_entries_say(batches: list[list[Entry]]) -> None:
    """Though intents that a create settled are passed over in it, and no record is made for what was created once."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ledger.jsonl"
        path.write_bytes(sealed(batches))
        read, told = read_ledger(path).state, folded(*(entry for batch in batches for entry in batch))
        assert read == told
        assert read.targets == told.targets  # of records that are the same, one may be ours and the other not


@pytest.mark.parametrize(
    ("name", "value"),
    [("pending", True), ("target_updated_at", "2026-01-02"), ("retriable", True), ("reason", "x"), ("error", "x")],
)
def test_what_few_created_lines_say_is_read_as_well(name: str, value: Json) -> None:
    line = {"kind": "created", "source_id": "a", "target_id": "A", "ts": TS, "run": "r1", name: value}
    read, plain = State(), State()
    read.fold_all([line])
    plain.fold_all([{part: line[part] for part in line if part != name}])
    assert read == folded(Entry("created", {"source_id": "a", "target_id": "A", name: value}))
    assert read != plain


@pytest.mark.parametrize("named", ["source_slug", "source_id"])
def test_what_was_made_for_prompts_is_read_as_it_was_told(named: str) -> None:
    """And is no prompt, whatever else its lines say; it keeps the order in which it was begun."""
    told = [("intent", "support"), ("intent", "sales"), ("made", "sales"), ("created", "sales")]
    common = {"what": "collection", "op": "create", "target_id": "A"}
    entries = [Entry(kind, {**common, "source_slug": slug, named: slug}) for kind, slug in told]
    read, each = State(), folded(*entries)
    read.fold_all([{**entry.fields, "ts": TS, "run": "r1", "kind": entry.kind} for entry in entries])
    assert read == each
    assert list(read.parts) == list(each.parts) == [("collection", "support"), ("collection", "sales")]
    assert not read.records


def test_a_replica_that_was_rolled_back_and_is_created_again_is_there() -> None:
    """Though another prompt had it."""
    entries = (created("a", "A"), rolled_back("a", "A"), created("b", "A"))
    read = State()
    read.fold_all([{**entry.fields, "ts": TS, "run": "r1", "kind": entry.kind} for entry in entries])
    assert read.targets == folded(*entries).targets == {"A"}


@given(st.lists(ENTRIES, max_size=30))
def test_a_created_prompt_stays_on_the_target_until_it_is_rolled_back(entries: list[Entry]) -> None:
    there: set[str] = set()
    for entry in entries:
        if entry.kind == "created":
            there.add(entry.fields["target_id"])
        if entry.kind == "rolled_back":
            there.discard(entry.fields["target_id"])
    assert folded(*entries).targets == there


# ---- whose ledger ----------------------------------------------------------------------------------------------------

SAME = {"migration": "m", "mode": "replicate", "source": "s1", "target": "t1", "selects": "published"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, None),
        ({"migration": "n"}, "the name of the migration is 'm' there and 'n' here"),
        ({"mode": "update", "selects": "latest"}, "the mode is 'replicate' there and 'update' here"),
        ({"source": "s2"}, "the source (kind, base_url or workspace) is 's1' there and 's2' here"),
        ({"target": "t2"}, "the target (kind, base_url or workspace) is 't1' there and 't2' here"),
        ({"selects": "latest"}, "select.version is 'published' there and 'latest' here"),
    ],
)
def test_mismatch_names_the_first_part_that_differs(change: dict[str, str], words: str | None) -> None:
    assert mismatch(SAME, {**SAME, **change}) == words
    assert (mismatch({**SAME, **change}, SAME) is None) == (words is None)


# ---- what a run found of a registry ----------------------------------------------------------------------------------


def ended(throttle: Json) -> Entry:
    return Entry("end", {"reason": "completed", "throttle": throttle})


def test_the_newest_limit_and_latency_of_each_end_are_remembered() -> None:
    found = {"rate": 45.0, "limit": 50.0, "concurrency": 9, "paused_s": 1.1, "latency_s": 0.1}
    state = folded(
        ended({"source": found, "target": found | {"limit": 20}}), ended({"source": found | {"limit": 40.5}})
    )
    assert state.throttle == {"source": {"limit": 40.5, "latency_s": 0.1}, "target": {"limit": 20.0, "latency_s": 0.1}}


def test_a_run_that_met_no_limit_does_not_forget_one() -> None:
    state = folded(ended({"source": {"limit": 50.0}}), ended({"source": {"limit": None, "latency_s": 0.2}}))
    assert state.throttle == {"source": {"limit": 50.0, "latency_s": 0.2}}


@pytest.mark.parametrize(
    "throttle",
    [None, [], {}, "50", {"source": None}, {"source": 50}, {"source": {"limit": "50", "latency_s": True}}]
    + [{"source": {"limit": limit, "latency_s": None}} for limit in (0, -1, None)],
)
def test_an_end_that_tells_nothing_of_it_is_no_memory(throttle: Json) -> None:
    assert not any(folded(ended(throttle)).throttle.values())
    assert folded(Entry("end", {"reason": "completed"})).throttle == {}
