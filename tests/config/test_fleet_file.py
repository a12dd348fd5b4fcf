"""The fleet file: what becomes of it, and every problem of it at once, where a person mends it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.config import Fleet, Migration, fleet_ledgers, load_fleet
from engine.errors import ConfigError, Problem
from tests.config.test_config import FILES, FLEET, VALUES

CANARY = "sk-canary-4711"
ENVIRON = {"KEY": CANARY, "KEY_A": CANARY + "-a", "KEY_B": CANARY + "-b"}
SANDBOX = "defaults: {source: {base_url: sandbox}}\n"

Load = Callable[..., Fleet]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def load_text(text: str, environ: Mapping[str, str] = ENVIRON, *, rows: str = "", **more: Any) -> Fleet:
        (tmp_path / "f.yaml").write_text(text, encoding="utf-8")
        (tmp_path / "rows.csv").write_text(rows, encoding="utf-8")
        return load_fleet(tmp_path / "f.yaml", environ, **more)

    return load_text


@pytest.fixture
def problems(load: Load, tmp_path: Path) -> Callable[..., dict[str, str]]:
    """`file:line: key` -> what is wrong there."""

    def problems_of(text: str, environ: Mapping[str, str] = ENVIRON, *, rows: str = "") -> dict[str, str]:
        with pytest.raises(ConfigError) as caught:
            load(text, environ, rows=rows)
        assert CANARY not in str(caught.value)
        return {place(one): one.message for one in caught.value.problems}

    def place(one: Problem) -> str:
        where = Path(one.file).name if one.line is None else f"{Path(one.file).name}:{one.line}"
        return f"{where}: {one.key}" if one.key else where

    return problems_of


def named(fleet: Fleet) -> dict[str, Migration]:
    return {one.name: one for one in fleet.migrations}


# ---- a list ----------------------------------------------------------------------------------------------------------


def test_a_list_is_laid_over_the_defaults(load: Load, tmp_path: Path) -> None:
    found = load(
        "name: teams\n"
        "defaults:\n"
        "  source: {base_url: sandbox}\n"
        "  limits: {rate: 10, timeout: 5s}\n"
        "  select: {names: [a, b]}\n"
        "  rewrite: {model: {'claude-*': x, '*': y}}\n"
        "migrations:\n"
        "- {name: one}\n"
        "- {name: two, limits: {rate: 20}, select: {names: [c]}, rewrite: {model: {'gpt-*': z}}}\n"
        "- {name: three, limits: {rate: null}, select: null}\n"
    )
    one, two, three = found.migrations
    assert (one.limits.rate, two.limits.rate, three.limits.rate) == (10, 20, None)
    assert {each.limits.timeout for each in found.migrations} == {5}
    assert (one.select.names, two.select.names, three.select.names) == (("a", "b"), ("c",), ())
    assert list(two.rewrite.model) == ["gpt-*", "claude-*", "*"], "its own globs are looked at first"
    assert [each.ledger for each in found.migrations] == [
        tmp_path / "ledgers" / "teams" / f"{name}.jsonl" for name in ("one", "two", "three")
    ]
    assert (found.parallel, found.stop_on) == (4, frozenset())


def test_the_ledgers_may_lie_elsewhere(load: Load, tmp_path: Path) -> None:
    text = f"name: teams\n{SANDBOX}migrations: [{{name: a}}]\n"
    moved = load(text, {"PROMPTFERRY_LEDGER_DIR": str(tmp_path / "x")})
    assert moved.migrations[0].ledger == tmp_path / "x" / "teams" / "a.jsonl"
    given = load(text, {"PROMPTFERRY_LEDGER_DIR": "ignored"}, ledgers=tmp_path / "y")
    assert given.migrations[0].ledger == tmp_path / "y" / "a.jsonl"
    assert given.folder == tmp_path / "y"


def test_problems_of_a_list_are_told_where_they_stand(problems: Callable[..., dict[str, str]]) -> None:
    found = problems(
        "name: teams\n"
        "paralel: 4\n"
        "defaults:\n"
        "  source: {base_url: sandbox, api_key: '${NOPE}'}\n"
        "  rewrit: {}\n"
        "migrations:\n"
        "- name: a\n"
        "- name: A\n"
        "  select: {nmes: [x]}\n"
        "- {}\n"
        "- name: c\n"
        "  source: {api_key: '${ALSO}'}\n"
        "  ledger: x\n"
    )
    assert list(found) == [
        "f.yaml:2: paralel",
        "f.yaml:4: defaults.source.api_key",
        "f.yaml:5: defaults.rewrit",
        "f.yaml:8: migrations[1]",
        "f.yaml:9: migrations[1].select.nmes",
        "f.yaml:10: migrations[2].name",
        "f.yaml:12: migrations[3].source.api_key",
        "f.yaml:13: migrations[3].ledger",
    ]
    assert "did you mean `parallel`?" in found["f.yaml:2: paralel"]
    assert "NOPE is not set" in found["f.yaml:4: defaults.source.api_key"]
    assert "f.yaml:7" in found["f.yaml:8: migrations[1]"]
    assert "ALSO is not set" in found["f.yaml:12: migrations[3].source.api_key"]


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("name: f\n", "f.yaml"),
        ("name: f\nmigrations: [{name: a}]\nmatrix: {a: [1]}\n", "f.yaml:3: matrix"),
        ("name: f\nmigrations: []\n", "f.yaml:2: migrations"),
        ("name: f\nmatrix: {a: []}\n", "f.yaml:2: matrix"),
        ("name: f\nmatrix: {a: [{b: 1}]}\n", "f.yaml:2: matrix.a[0]"),
        ("name: f\nmatrix: {a b!: [1]}\n", "f.yaml:2: matrix.a b!"),
        ("name: f/g\nmigrations: [{name: a}]\n", "f.yaml:1: name"),
        ("migrations: [{name: a}]\n", "f.yaml: name"),
        ("name: f\nmigrations: [{name: a}]\nparallel: 0\n", "f.yaml:3: parallel"),
        ("name: f\nmigrations: [{name: a}]\nstop_on: [2]\n", "f.yaml:3: stop_on[0]"),
        ("name: f\nmigrations: [{name: a/b}]\n", "f.yaml:2: migrations[0].name"),
        ("name: f\nmigrations: [7]\n", "f.yaml:2: migrations[0]"),
        ("name: f\ncsv: nowhere.csv\n", "nowhere.csv"),
    ],
)
def test_what_is_refused(text: str, place: str, problems: Callable[..., dict[str, str]]) -> None:
    assert list(problems(text + SANDBOX)) == [place]


def test_a_program_that_prints_a_secret_is_asked_once(load: Load, tmp_path: Path) -> None:
    (tmp_path / "key.sh").write_text("#!/bin/sh\necho asked >> asked\necho sk-printed\n")
    items = ", ".join(f"{{name: m{number}}}" for number in range(5))
    command = "{command: [sh, key.sh]}"
    found = load(
        f"name: f\ndefaults: {{source: {{base_url: sandbox, api_key: {command}}}}}\nmigrations: [{items}]\n",
        {"PATH": "/usr/bin:/bin"},
    )
    assert found.secrets == {"sk-printed"}
    assert (tmp_path / "asked").read_text() == "asked\n"


# ---- what is filled in -----------------------------------------------------------------------------------------------


def test_a_matrix_is_every_combination(load: Load) -> None:
    found = named(
        load(
            "name: f\n"
            "matrix: {team: [support, sales], publish: [true, false]}\n"
            "defaults:\n"
            "  source: {base_url: 'sandbox:{team}'}\n"
            "  publish: '{publish}'\n"
            "  rewrite: {description: 'for {team}: {publish}'}\n"
        )
    )
    assert list(found) == ["support-true", "support-false", "sales-true", "sales-false"]
    one = found["sales-false"]
    assert (one.source.url, one.publish) == ("sandbox:sales", False), "a value alone keeps its kind"
    assert one.rewrite.description == "for sales: false"


def test_rows_of_a_csv(load: Load) -> None:
    rows = '\ufeffname,workspace,model,note\r\none, A ,m1,"a, quoted\r\nnote"\r\n\r\ntwo,B,m2,\r\n'
    found = named(
        load(
            "name: f\n"
            "csv: rows.csv\n"
            "defaults:\n"
            "  source: {base_url: sandbox, api_key: '${KEY_{workspace}}', workspace: '{workspace}'}\n"
            "  rewrite:\n"
            "    name: '{name}-{model}-{workspace}'\n"
            "    model: '{model}'\n"
            "    provider: {'{workspace}-prod': bedrock}\n"
            "    description: '{note}'\n"
            "  verify: {variables: {greeting: 'Hello {{name}}, {workspace}'}}\n",
            rows=rows,
        )
    )
    one, two = found["one"], found["two"]
    assert [each.source.keys for each in (one, two)] == [(CANARY + "-a",), (CANARY + "-b",)]
    assert one.rewrite.name == "{name}-{model}-A", "a prompt's own name and model are not the row's"
    assert (one.rewrite.model, two.rewrite.model) == ({"*": "m1"}, {"*": "m2"})
    assert one.rewrite.provider == {"A-prod": "bedrock"}
    assert (one.rewrite.description, two.rewrite.description) == ("a, quoted\nnote", None), "empty: left out"
    assert one.verify.variables == {"greeting": "Hello {{name}}, A"}


def test_the_name_of_a_variable_may_come_whole_from_a_column(load: Load) -> None:
    text = "name: f\ncsv: rows.csv\ndefaults: {source: {base_url: sandbox, api_key: '${{key}}'}}\n"
    found = load(text, rows="name,key\na,KEY_A\nb,KEY_B\n")
    assert [one.source.keys for one in found.migrations] == [(CANARY + "-a",), (CANARY + "-b",)]


def test_names_made_of_columns(load: Load) -> None:
    text = "name: f\ncsv: rows.csv\ndefaults: {name: '{team}-{env}', source: {base_url: sandbox}}\n"
    found = load(text, rows="team,env\nsupport,1\nsales,2\n")
    assert [one.name for one in found.migrations] == ["support-1", "sales-2"]
    text = "name: f\nmatrix: {year: [2025, 2026]}\ndefaults: {name: '{year}', source: {base_url: sandbox}}\n"
    assert [one.name for one in load(text).migrations] == ["2025", "2026"]


def test_problems_of_a_csv_are_told_with_their_line(problems: Callable[..., dict[str, str]]) -> None:
    found = problems(
        "name: f\n"
        "csv: rows.csv\n"
        "defaults:\n"
        "  source: {base_url: sandbox, api_key: '${KEY_{workspace}}', workspce: x}\n"
        "  rewrite: {model: '{model}', description: 'for {tema}'}\n",
        rows='name,workspace,model,team\na,A,m1,"x\ny"\na,C,m2,y\nb,A,m3\nd e,D,,z\n',
    )
    assert list(found) == [
        "f.yaml:4: defaults.source.workspce",
        "f.yaml:5: defaults.rewrite.description",
        "rows.csv:4",
        "rows.csv:4: source.api_key",
        "rows.csv:5",
        "rows.csv:6: name",
        "rows.csv:6: source.api_key",
    ]
    assert "did you mean {team}?" in found["f.yaml:5: defaults.rewrite.description"]
    assert "rows.csv:2" in found["rows.csv:4"]
    assert "KEY_C is not set" in found["rows.csv:4: source.api_key"]
    assert "3 cells" in found["rows.csv:5"]


@pytest.mark.parametrize(
    ("rows", "place", "word"),
    [
        ("", "rows.csv", "empty"),
        ("name;team\na;b\n", "rows.csv:1", "commas"),
        ("name,name\na,b\n", "rows.csv:1", "twice"),
        ("name,a/b\na,b\n", "rows.csv:1", "a/b"),
        ("name,\na,b\n", "rows.csv:1", "''"),
        ("team\na\n", "f.yaml:2: csv", "name"),
        ("name\n", "f.yaml:2: csv", "no migration"),
        ('name\n"a\n', "rows.csv:2", "CSV"),
    ],
)
def test_a_csv_that_is_refused(rows: str, place: str, word: str, problems: Callable[..., dict[str, str]]) -> None:
    found = problems(f"name: f\ncsv: rows.csv\n{SANDBOX}", rows=rows)
    assert list(found) == [place]
    assert word in found[place]


def test_a_problem_that_all_rows_have_is_told_once(problems: Callable[..., dict[str, str]]) -> None:
    rows = "".join(f"m{number}\n" for number in range(200))
    found = problems("name: f\ncsv: rows.csv\ndefaults: {source: {api_key: '${NOPE}'}}\n", rows=f"name\n{rows}")
    assert list(found) == ["f.yaml:3: defaults.source.api_key"]


def test_a_combination_that_is_wrong_is_named(problems: Callable[..., dict[str, str]]) -> None:
    text = "name: f\nmatrix: {team: [a, b], kind: [portkey, portkye]}\n"
    text += "defaults:\n  source: {kind: '{kind}', base_url: sandbox}\n"
    found = problems(text)
    assert list(found) == [f"f.yaml:2: matrix (team: {team}, kind: portkye): source.kind" for team in "ab"]


# ---- the rest --------------------------------------------------------------------------------------------------------


def test_who_asks_for_a_status_needs_no_secrets(load: Load, tmp_path: Path) -> None:
    text = "name: f\ncsv: rows.csv\ndefaults: {source: {api_key: '${KEY_{name}}'}}\n"
    load(text, rows="name\nA\nB\n")
    name, found = fleet_ledgers(tmp_path / "f.yaml", {}, only=["B"])
    assert (name, [(one.name, one.ledger) for one in found]) == ("f", [("B", tmp_path / "ledgers" / "f" / "B.jsonl")])


def test_the_ready_file_needs_no_environment() -> None:
    found = load_fleet(FLEET, {})
    assert [one.name for one in found.migrations] == ["support", "sales", "engineering", "hr"]
    assert (found.name, found.folder) == ("teams", FLEET.parent / "ledgers" / "teams")
    assert {one.rewrite.name for one in found.migrations} == {"{name}-replica"}


def test_only_some_of_them(load: Load) -> None:
    fleet = load(f"name: f\n{SANDBOX}migrations: [{{name: a-1}}, {{name: a-2}}, {{name: b}}]\n")
    assert [one.name for one in fleet.only(["a-*"]).migrations] == ["a-1", "a-2"]
    with pytest.raises(ConfigError, match=r"'c'.*a-1, a-2, b"):
        fleet.only(["b", "c"])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=200)
@given(defaults=FILES, matrix=st.dictionaries(st.sampled_from(["a", "b", "c d", "{"]), VALUES, max_size=2), own=FILES)
def test_no_file_makes_it_fail_in_another_way(
    load: Load, defaults: dict[str, Any], matrix: dict[str, Any], own: dict[str, Any]
) -> None:
    for part in ({"matrix": matrix}, {"migrations": [{"name": "m"} | own]}):
        text = json.dumps({"name": "f", "defaults": {"source": {"base_url": "sandbox"}} | defaults} | part)
        found: tuple[Problem, ...] = ()
        try:
            load(text)
        except ConfigError as error:
            found = error.problems
        assert all(one.message and "cannot be used here" not in one.message for one in found)
