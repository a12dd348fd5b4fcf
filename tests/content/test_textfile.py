"""Text that people hand us: in any of their encodings it is read as it is or refused by line, and no key is lost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.config import load_migration, read_ids
from engine.content.textfile import read_text, repeated_key, text_of
from engine.errors import ConfigError
from engine.migrate.plan_file import read as read_plan
from engine.verbs.cases import read_cases

BOM = b"\xef\xbb\xbf"
CASE = '{"prompt": "p", "variables": {"who": "Zo\u00eb"}}\n'
IDS = "a\nZo\u00eb\n"
MIGRATION = "name: m\nsource: {kind: files, path: p}\nrewrite: {description: Zo\u00eb}\n"
PLAN = '{"promptferry_plan": 1, "rules": "r", "identity": {}, "prompts": [\n]}'


def refusal(path: Path) -> str:
    """What each reader of a file of ours says of this one."""
    with pytest.raises(ConfigError) as caught:
        read_by_its_reader(path)
    return str(caught.value)


def read_by_its_reader(path: Path) -> None:
    if path.suffix == ".jsonl":
        read_cases(path)
    elif path.suffix == ".txt":
        read_ids(path)
    else:
        load_migration(path, {})


FILES = pytest.mark.parametrize(
    ("name", "text"),
    [("cases.jsonl", CASE), ("ids.txt", IDS), ("m.yaml", MIGRATION)],
    ids=["cases", "ids", "migration"],
)


@FILES
def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path: Path, name: str, text: str) -> None:
    path = tmp_path / name
    path.write_bytes(BOM + text.replace("\n", "\r\n").encode())
    if name == "cases.jsonl":
        assert read_cases(path)[0].variables == {"who": "Zo\u00eb"}
    elif name == "ids.txt":
        assert read_ids(path) == ("a", "Zo\u00eb")
    else:
        assert load_migration(path, {}).rules()[-1].description == "Zo\u00eb"


@FILES
@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "latin-1"])
def test_another_encoding_is_refused_by_file_and_line(tmp_path: Path, name: str, text: str, encoding: str) -> None:
    path = tmp_path / name
    path.write_bytes(text.encode(encoding))
    line = 1 if encoding != "latin-1" or name == "cases.jsonl" else 2 if name == "ids.txt" else 3
    told = refusal(path)
    assert told.startswith(f"{path}:{line}: is ")
    assert told.endswith("save it as UTF-8 text")


def test_a_file_of_ids_that_the_migration_names_is_refused_by_its_own_line(tmp_path: Path) -> None:
    (tmp_path / "ids.txt").write_bytes(b"a\n\xff\n")
    (tmp_path / "m.yaml").write_text("name: m\nsource: {kind: files, path: p}\nselect: {ids_file: ids.txt}\n")
    assert "ids.txt:2: is not UTF-8" in refusal(tmp_path / "m.yaml")


def test_an_id_may_hold_what_the_name_of_a_file_may(tmp_path: Path) -> None:
    ids = ("c#-helper", "team/a b", "x\u2028y", "\u00e9\x85z", "a\x0cb")
    (tmp_path / "ids.txt").write_text("\n".join(("# all", *ids, "last # why", "#one", "\t# two")), newline="")
    assert read_ids(tmp_path / "ids.txt") == (*ids, "last")


@pytest.mark.parametrize("content", [b"", BOM, b"\r", b"a"])
def test_little_is_text_too(content: bytes) -> None:
    assert text_of(content) == content.removeprefix(BOM).decode()


def test_what_is_no_file_is_said(tmp_path: Path) -> None:
    for path, words in ((tmp_path, "is a folder"), (tmp_path / "nope", "no such file"), (tmp_path / "a\0b", "null")):
        with pytest.raises(ValueError, match=words):
            read_text(path)


# ---- a key twice -----------------------------------------------------------------------------------------------------

keys = st.text(st.sampled_from('ab{}":\\\n\u00e9 '), max_size=3)
values = st.recursive(
    st.none() | st.integers() | keys,
    lambda inner: st.lists(inner, max_size=3) | st.lists(st.tuples(keys, inner), max_size=4).map(tuple),
    max_leaves=12,
)


def dumped(value: Any, *, ascii_only: bool) -> str:
    """JSON in which an object, a tuple of pairs here, may have a key twice."""
    if isinstance(value, tuple):
        pairs = (f"{json.dumps(key, ensure_ascii=ascii_only)} :{dumped(one, ascii_only=True)}" for key, one in value)
        return "{" + ",\n".join(pairs) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(dumped(one, ascii_only=ascii_only) for one in value) + "]"
    return json.dumps(value, ensure_ascii=ascii_only)


@given(values, st.booleans())
def test_every_key_that_stands_twice_in_an_object_is_found_and_no_other(value: Any, ascii_only: bool) -> None:
    text = dumped(value, ascii_only=ascii_only)
    twice: list[str] = []

    def seen(pairs: list[tuple[str, Any]]) -> None:
        twice.extend(key for key, _ in pairs if [one for one, _ in pairs].count(key) > 1)

    json.loads(text, object_pairs_hook=seen)
    found = repeated_key(text)
    assert (found is not None) == bool(twice)
    assert found is None or found[0] in twice


def test_the_line_is_the_one_of_the_second() -> None:
    assert repeated_key('{"a": {"b": 1},\n "b": "a\\": {",\n\n "\\u0061": 2}') == ("a", 4)


def test_a_case_with_a_key_twice_is_refused_by_line_and_key(tmp_path: Path) -> None:
    path = tmp_path / "cases.jsonl"
    path.write_text(f'{CASE}{{"prompt": "p", "variables": {{"who": "secret", "who": 1}}}}\n')
    told = refusal(path)
    assert told.startswith(f"{path}:2: who: is there twice")
    assert "secret" not in told


STEP = '{"source_id": "a", "action": "create", "source_digest": null, "replica_digest": null}'
PLANS = {
    "a key twice": (PLAN.replace(' "identity"', '\n "rules": "r", "identity"'), "plan:2: rules"),
    "a prompt twice": (PLAN.replace("\n", f"{STEP},\n{STEP}"), "a prompt twice"),
    "another encoding": (PLAN.encode("utf-16"), "plan:1: is UTF-16"),
    "too deep": ("[" * 100_000, "is no plan"),
}


@pytest.mark.parametrize(("content", "words"), PLANS.values(), ids=PLANS)
def test_a_plan_that_says_two_things_is_refused(content: str | bytes, words: str) -> None:
    data = content.encode() if isinstance(content, str) else content
    with pytest.raises(ConfigError, match=words):
        read_plan(data, "plan", {}, "r")


def test_a_plan_that_an_editor_saved_is_read() -> None:
    assert read_plan(BOM + PLAN.encode(), "plan", {}, "r").steps == {}
