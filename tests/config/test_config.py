"""The migration file: what it means, and everything that can be wrong with it, told at once and in plain words."""

from __future__ import annotations

import json
import re
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
from ruamel.yaml import YAML

from engine.cli.common import Common
from engine.cli.starter import starter
from engine.config import Migration, json_schema, load_migration, read_ids, seconds
from engine.connectors.files.endpoint import FilesEndpoint
from engine.content.shard import Shard
from engine.errors import ConfigError, Problem
from engine.lossless_json.numbers import Number
from engine.model import Clamp, ParameterRules, Rule, Select, When

CANARY = "sk-canary-4711"
ENVIRON = {
    "PORTKEY_API_KEY": CANARY,
    "PORTKEY_TARGET_API_KEY": CANARY + "-target",
    "CONDUCTOR_KEY_ID": CANARY + "-id",
    "CONDUCTOR_KEY_SECRET": CANARY + "-secret",
    "LANGFUSE_PUBLIC_KEY": CANARY + "-public",
    "LANGFUSE_SECRET_KEY": CANARY + "-langfuse",
}
HEAD = "name: m\nsource: {base_url: sandbox}\n"
FLEET = Path(__file__).parents[2] / "configs" / "fleet.yaml"
CONFIGS = sorted({*FLEET.parent.glob("*.yaml")} - {FLEET})
INTERFACE = Path(__file__).parents[3] / "shared" / "INTERFACE.md"

Load = Callable[..., Migration]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def load_text(text: str, environ: Mapping[str, str] = ENVIRON) -> Migration:
        (tmp_path / "m.yaml").write_text(text, encoding="utf-8")
        return load_migration(tmp_path / "m.yaml", environ)

    return load_text


@pytest.fixture
def problems(load: Load) -> Callable[..., dict[str, Problem]]:
    def problems_of(text: str, environ: Mapping[str, str] = ENVIRON) -> dict[str, Problem]:
        with pytest.raises(ConfigError) as caught:
            load(text, environ)
        told = "".join(traceback.format_exception(caught.value)) + repr(caught.value.problems)
        assert CANARY not in told
        assert "pydantic" not in told
        found = {problem.key: problem for problem in caught.value.problems}
        assert len(found) == len(caught.value.problems), "a key is complained about once"
        return found

    return problems_of


Problems = Callable[..., dict[str, Problem]]


# ---- what it means ---------------------------------------------------------------------------------------------------


def test_what_is_left_out_has_the_documented_defaults(load: Load, tmp_path: Path) -> None:
    migration = load("name: m\nsource: {kind: portkey, api_key: '${PORTKEY_API_KEY}'}\n")
    assert migration.source.url == "https://api.portkey.ai/v1"
    assert migration.source.identity == "portkey https://api.portkey.ai/v1"
    assert migration.target is None
    assert migration.ends == (migration.source, migration.source)
    assert migration.same_workspace
    assert (migration.mode, migration.allow_loss, migration.publish) == ("replicate", (), None)
    assert (migration.on_existing, migration.on_change, migration.on_edited) == ("fail", "update", "conflict")
    assert migration.selection() == Select()
    assert migration.rules() == (Rule(name="{name}-replica"),)
    limits = migration.limits
    assert (limits.rate, limits.reads, limits.writes, limits.share) == (None, None, None, 0.9)
    assert (limits.concurrency, limits.timeout, limits.attempts, limits.batch) == (64, 30.0, 5, 50)
    assert (limits.settle, limits.settle_seconds) == (None, 60.0)
    assert migration.ledger == tmp_path / "ledgers" / "m.jsonl"
    verify = migration.verify
    assert (verify.after_run, verify.render, verify.completions, verify.variables) == (False, False, 0, {})


def test_escapes_as_in_json_are_characters(load: Load) -> None:
    migration = load(HEAD + 'rewrite: {partials: {"\\ud83d\\ude00": "\\ud83d\\ude01"}}\n')
    assert migration.rewrite.partials == {"\U0001f600": "\U0001f601"}


def test_null_is_the_same_as_left_out(load: Load) -> None:
    plain = load(HEAD)
    assert load(HEAD + "target:\nselect:\nrewrite: {parameters: }\nlimits: {rate: null, timeout: }\nledger:\n") == plain


def test_rules_are_the_general_part_and_then_the_others_in_order(load: Load) -> None:
    migration = load(
        HEAD
        + """
rewrite:
  model: {"b*": one, "a*": two, "*": three}
  provider: bedrock-prod
  partials: {old: new}
  description: "for {anything} and ${ANYTHING}"
  parameters:
    drop: [thinking, a.b]
    rename: {max_tokens: max_completion_tokens}
    clamp: {max_completion_tokens: 8192, temperature: {min: 0, max: 0.5}}
    set: {stop: null, deep.er: {x: [1, no]}}
  rules:
    - when: {model: "*opus*", has: [tools, partials]}
      name: "{slug}-opus"
    - when: {name: "a*", collection: sales}
      collection: {"s*": new}
"""
    )
    general, opus, sales = migration.rules()
    assert general == Rule(
        name="{name}-replica",
        model=(("b*", "one"), ("a*", "two"), ("*", "three")),
        provider=(("*", "bedrock-prod"),),
        partials=(("old", "new"),),
        description="for {anything} and ${ANYTHING}",
        parameters=ParameterRules(
            drop=("thinking", "a.b"),
            rename=(("max_tokens", "max_completion_tokens"),),
            clamp=(("max_completion_tokens", Clamp(max=8192)), ("temperature", Clamp(min=0, max=0.5))),
            set=(("stop", None), ("deep.er", {"x": [1, "no"]})),
        ),
    )
    assert isinstance(general.parameters.clamp[0][1].max, int)
    assert opus == Rule(when=When(model="*opus*", has=("tools", "partials")), name="{slug}-opus")
    assert sales == Rule(when=When(name="a*", collection="sales"), collection=(("s*", "new"),))


def test_numbers_of_more_digits_than_a_float_has_are_kept_in_rules_and_rounded_in_limits(load: Load) -> None:
    parameters = "clamp: {a: 0.12345678901234567890, b: {min: 1e-400, max: 1}}, set: {c: [-.1000000000000000055]}"
    limits = "limits: {rate: 33.333333333333333333, share: 0.50000000000000000001, timeout: 12.345678901234567890}"
    migration = load(f"{HEAD}rewrite: {{parameters: {{{parameters}}}}}\n{limits}\n")
    assert repr(migration.rules()[0].parameters.clamp) == repr(
        (("a", Clamp(max=Number("0.12345678901234567890"))), ("b", Clamp(min=Number("1e-400"), max=1)))
    )
    assert repr(migration.rules()[0].parameters.set) == repr((("c", [Number("-0.1000000000000000055")]),))
    told = migration.limits
    assert (told.rate, told.share, told.timeout) == (33.333333333333336, 0.5, 12.345678901234567)
    assert len(migration.rules_digest()) == 64


def test_bounds_are_in_order_down_to_the_last_digit(problems: Problems) -> None:
    clamp = "{a: {min: 0.1000000000000000055, max: 0.1}}"
    found = problems(f"{HEAD}rewrite: {{parameters: {{clamp: {clamp}}}}}\n")
    assert "min must not be above max" in found["rewrite.parameters.clamp.a"].message


def test_rules_that_could_be_read_before_have_the_digest_that_they_had(load: Load) -> None:
    rules = """
rewrite:
  parameters:
    clamp: {a: 1.50, b: {min: 1e-3, max: 1E+2}}
    set: {a: 1.0, b: 1.50, c: [1e2, 1e23, 0.00001], d: 123456789012345678901234567890}
"""
    expected = "a910b515e978d9973dbc4f29d11c005e317a8abd185bb7c4203f42fc973432cb"
    assert load(HEAD + rules).rules_digest() == expected


def test_selection(load: Load, tmp_path: Path) -> None:
    text = "select: {names: ['a*', '!*-old'], models: [no], collections: [2024-01-01], version: latest, ids: [x]}\n"
    expected = Select(
        ids=frozenset({"x"}), collections=("2024-01-01",), names=("a*", "!*-old"), models=("no",), version="latest"
    )
    assert load(HEAD + text).selection() == expected
    (tmp_path / "some.txt").write_bytes(b"\xef\xbb\xbf# mine\r\n\r\n a \r\nb # why\r\na\r\n")
    assert load(HEAD + "select: {ids_file: some.txt}\n").selection() == Select(ids=frozenset("ab"))


def test_ids_of_a_file_by_themselves(tmp_path: Path) -> None:
    (tmp_path / "ids.txt").write_text("a\n#b\nc # d\n")
    assert read_ids(tmp_path / "ids.txt") == ("a", "c")
    (tmp_path / "ids.txt").write_text("#b\n")
    with pytest.raises(ConfigError, match=r"ids\.txt: the file holds no ids"):
        read_ids(tmp_path / "ids.txt")
    with pytest.raises(ConfigError, match=r"nope\.txt: no such file"):
        read_ids(tmp_path / "nope.txt")


@pytest.mark.parametrize(
    ("text", "expected"), [("90s", 90), ("15m", 900), ("2h", 7200), ("1.5h", 5400), ("7", 7), (0.5, 0.5)]
)
def test_times(load: Load, text: str | float, expected: float) -> None:
    limits = load(f"{HEAD}limits: {{timeout: {text}, settle: {text}}}\n").limits
    assert (limits.timeout, limits.settle, limits.settle_seconds) == (expected, expected, expected)
    assert seconds(text) == expected


def test_an_unanswered_create_waits_at_least_ten_seconds(load: Load) -> None:
    assert load(HEAD + "limits: {timeout: 2}\n").limits.settle_seconds == 10.0


def test_nothing_can_be_changed_afterwards(load: Load) -> None:
    migration = load(HEAD)
    with pytest.raises(ValueError, match="frozen"):
        migration.name = "other"


def test_the_ledger_lies_beside_the_file_or_where_the_environment_says(load: Load, tmp_path: Path) -> None:
    assert load(HEAD + "ledger: ../x/{name}-1.jsonl\n").ledger == tmp_path.parent / "x" / "m-1.jsonl"
    assert load(HEAD + "ledger: /var/x.jsonl\n").ledger == Path("/var/x.jsonl")
    assert load(HEAD, {"PROMPTFERRY_LEDGER_DIR": "/elsewhere"}).ledger == Path("/elsewhere/m.jsonl")


# ---- addresses -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("https://cp.example.com/v1/", "https://cp.example.com/v1"),
        ("http://127.0.0.1:8080/v1", "http://127.0.0.1:8080/v1"),
        ("http://[::1]:1/", "http://[::1]:1"),
        ("http://10.1.2.3/v1", "http://10.1.2.3/v1"),
        ("http://localhost/v1", "http://localhost/v1"),
        ("http://portkey:8787/v1", "http://portkey:8787/v1"),
        ("http://cp.team.svc.cluster.local", "http://cp.team.svc.cluster.local"),
        ("https://${HOST}/v1", "https://from.env/v1"),
    ],
)
def test_addresses_that_may_be_used(load: Load, written: str, read: str) -> None:
    text = f"name: m\nsource: {{base_url: '{written}', api_key: '${{K}}', workspace: 'w-${{HOST}}'}}\n"
    source = load(text, {"K": CANARY, "HOST": "from.env"}).source
    assert source.identity == f"portkey {read} w-from.env"
    assert not source.is_sandbox


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://example.com/v1", "clear"),
        ("http://8.8.8.8/v1", "clear"),
        ("http://134744072/v1", "clear"),
        (f"https://u:{CANARY}@example.com", "password"),
        (f"https://example.com?key={CANARY}", "without ?"),
        ("https://user@example.com", "password"),
        ("https://example.com?", "without ?"),
        ("https://example.com#x", "without ?"),
        ("ftp://example.com", "such as https://"),
        ("example.com", "such as https://"),
        ("https://", "such as https://"),
        ("https://a:port", "such as https://"),
        ("https://[::1", "such as https://"),
        ("https://a b", "such as https://"),
        ("sandbox:", "such as https://"),
        ("", "such as https://"),
        ("https://${NOPE}/", "NOPE is not set"),
        ("https://${A-B}/", "name of an environment variable"),
    ],
)
def test_addresses_that_are_refused(problems: Problems, url: str, words: str) -> None:
    found = problems(f"name: m\nsource:\n  api_key: ${{PORTKEY_API_KEY}}\n  base_url: '{url}'\n")
    assert list(found) == ["source.base_url"]
    assert words in found["source.base_url"].message
    assert found["source.base_url"].line == 4


def test_the_sandbox_needs_no_key_and_everything_else_does(load: Load, problems: Problems) -> None:
    migration = load(HEAD + "target: {base_url: 'sandbox:other'}\n")
    assert (migration.source.is_sandbox, migration.source.keys) == (True, ("",))
    assert (migration.ends[1].is_sandbox, migration.ends[1].url) == (True, "sandbox:other")
    found = problems("name: m\nsource: {kind: portkey}\ntarget: {base_url: 'https://x.example'}\n")
    assert {key: problem.line for key, problem in found.items()} == {"source.api_key": 2, "target.api_key": 3}


def test_same_workspace(load: Load) -> None:
    def same(source: str, target: str) -> bool:
        return load(f"name: m\nsource: {{{source}}}\ntarget: {{{target}}}\n").same_workspace

    key, other = "api_key: '${PORTKEY_API_KEY}'", "api_key: '${PORTKEY_TARGET_API_KEY}'"
    assert same(key, key)
    assert same("base_url: sandbox", "base_url: sandbox")
    assert not same("base_url: sandbox", "base_url: 'sandbox:other'")
    assert not same(key + ", workspace: a", key + ", workspace: b")
    assert not same(key, other), "a key may be locked to another workspace"


# ---- secrets ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "form",
    [
        "${PORTKEY_API_KEY}",
        "{file: key.txt}",
        "{command: [cat, key.txt]}",
        "{command: [sh, -c, 'echo \" $PORTKEY_API_KEY \"; echo oops >&2']}",
    ],
)
def test_secrets_are_read_and_never_shown(load: Load, tmp_path: Path, form: str) -> None:
    (tmp_path / "key.txt").write_text(CANARY + "\n")
    migration = load(f"name: m\nsource:\n  api_key: {form}\n", {**ENVIRON, "PATH": "/usr/bin:/bin"})
    (key,) = migration.source.keys
    assert key == CANARY
    shown = [repr(migration), str(migration), str(migration.model_dump()), migration.model_dump_json()]
    shown += [str(migration.identity()), migration.rules_digest(), str(migration.ends)]
    assert not [text for text in shown if CANARY in text]


def test_the_log_is_told_which_secrets_to_hide(load: Load) -> None:
    key, other = "{api_key: '${PORTKEY_API_KEY}'}", "{api_key: '${PORTKEY_TARGET_API_KEY}'}"
    assert load(f"name: m\nsource: {key}\ntarget: {other}\n").secrets == {CANARY, CANARY + "-target"}
    assert load(HEAD).secrets == frozenset()


def test_a_command_runs_once_and_without_a_shell(load: Load, tmp_path: Path) -> None:
    script = tmp_path / "key"
    script.write_text('#!/bin/sh\necho x >> ran\necho "$1"\n')
    script.chmod(0o700)
    migration = load("name: m\nsource: {api_key: {command: [./key, '$HOME;a|b']}}\n", {"PATH": "/usr/bin:/bin"})
    (key,) = migration.source.keys
    assert key == "$HOME;a|b"
    assert (tmp_path / "ran").read_text() == "x\n"


@pytest.mark.parametrize(
    ("form", "words"),
    [
        (CANARY, "never written here"),
        (f"{CANARY}${{PORTKEY_API_KEY}}", "never written here"),
        (f"{{file: key.txt, literal: {CANARY}}}", "never written here"),
        (f"{{value: {CANARY}}}", "never written here"),
        ("{command: cat}", "never written here"),
        ("{command: []}", "never written here"),
        ("{command: [cat, 1]}", "never written here"),
        ("4711", "never written here"),
        ("${NOPE}", "NOPE is not set"),
        ("${EMPTY}", "EMPTY is empty"),
        ("${SPACES}", "spaces"),
        ("${LINES}", "more than one line"),
        ("{file: nope.txt}", "no such file"),
        ("{file: .}", "is a folder"),
        ("{file: empty.txt}", "is empty"),
        ("{file: bytes.txt}", "UTF-8"),
        (f"{{command: [sh, -c, 'echo {CANARY}; echo {CANARY} >&2; exit 7']}}", "code 7"),
        (f"{{command: [./{CANARY}]}}", "cannot be started"),
        ('{command: ["a\\0b"]}', "cannot be started"),
        ("{command: ['true']}", "is empty"),
    ],
)
def test_secrets_that_are_refused(problems: Problems, tmp_path: Path, form: str, words: str) -> None:
    (tmp_path / "empty.txt").write_text("\n")
    (tmp_path / "bytes.txt").write_bytes(CANARY.encode() + b"\xff")
    environ = {**ENVIRON, "PATH": "/usr/bin:/bin", "EMPTY": "", "SPACES": f"{CANARY} x", "LINES": f"{CANARY}\nx"}
    found = problems(f"name: m\nsource:\n  kind: portkey\n  api_key: {form}\n", environ)
    assert list(found) == ["source.api_key"]
    assert words in found["source.api_key"].message
    assert found["source.api_key"].line == 4


def test_a_command_that_hangs_is_ended(problems: Problems, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.connectors.fields.COMMAND_SECONDS", 0.05)
    found = problems("name: m\nsource: {api_key: {command: [sleep, '50']}}\n", {"PATH": "/usr/bin:/bin"})
    assert "took longer than 0.05 s" in found["source.api_key"].message


def test_the_environment_is_the_process_s_when_none_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FERRY_TEST_KEY", CANARY)
    (tmp_path / "m.yaml").write_text("name: m\nsource: {api_key: '${FERRY_TEST_KEY}'}\n")
    assert load_migration(str(tmp_path / "m.yaml")).source.keys == (CANARY,)


# ---- what is wrong ---------------------------------------------------------------------------------------------------


def test_all_problems_are_told_at_once_with_their_lines(problems: Problems, tmp_path: Path) -> None:
    found = problems(
        f"""nmae: x
source:
  api_key: {CANARY}
  base_ulr: https://x.example
select:
  names: support
rewrite:
  parameters:
    drp: [x]
  rules:
    - when: {{modle: a}}
limits: {{rate: fast, qqq: 1}}
limits: {{rate: 1}}
mode: update
"""
    )
    assert {key: (problem.line, problem.message.partition(";")[2]) for key, problem in found.items()} == {
        "name": (None, ""),
        "nmae": (1, " did you mean `name`?"),
        "source.api_key": (3, ""),
        "source.base_ulr": (4, " did you mean `base_url`?"),
        "select.names": (6, ""),
        "rewrite.parameters.drp": (9, " did you mean `drop`?"),
        "rewrite.rules[0].when.modle": (11, " did you mean `model`?"),
        "limits.rate": (12, ""),
        "limits.qqq": (12, " known here are rate, reads, writes, share, concurrency, timeout, attempts, settle, batch"),
        "limits": (13, " take one of them out"),
    }
    assert str(found["source.base_ulr"]) == (
        f"{tmp_path / 'm.yaml'}:4: source.base_ulr: unknown key; did you mean `base_url`?"
    )
    assert "first in line 12" in found["limits"].message
    lines = [problem.line or 0 for problem in found.values()]
    assert lines == sorted(lines), "in the order of the file"


@pytest.mark.parametrize(
    ("text", "key", "words"),
    [
        ("name: 12", "name", "must be a text"),
        ("name: a b", "name", "letters, digits"),
        ("name: ''", "name", "letters, digits"),
        ("name: ${X}", "name", "letters, digits"),
        ("name: ä", "name", "letters, digits"),
        ("source: [x]", "source", "must be a map"),
        ("source: ", "source", "is required"),
        ("source: {base_url: sandbox, workspace: 'a b'}", "source.workspace", "one word"),
        ("source: {base_url: sandbox, kind: portky}", "source.kind", "must be `portkey`, `conductor`,"),
        ("mode: copy", "mode", "must be `replicate` or `update`"),
        ("select: {names: ['']}", "select.names[0]", "must not be empty"),
        ("select: {models: [1]}", "select.models[0]", "put quotes around"),
        ("select: {ids: [a], ids_file: ids.txt}", "select.ids", "either ids or ids_file"),
        ("select: {ids_file: nope.txt}", "select.ids_file", "no such file"),
        ("select: {ids_file: none.txt}", "select.ids_file", "holds no ids"),
        ("select: {ids_file: 3}", "select.ids_file", "path of a file"),
        ("rewrite: {name: '{nmae}-{id}'}", "rewrite.name", "{nmae} cannot be filled in"),
        ("rewrite: {name: '{name}}'}", "rewrite.name", "lone brace"),
        ("rewrite: {name: '{name|slag}'}", "rewrite.name", "{name|slag} has a filter that is not known"),
        ("rewrite: {name: '{name|slug|slug}'}", "rewrite.name", "filter that is not known; there is {name|slug}"),
        ("rewrite: {name: '{name|}'}", "rewrite.name", "filter that is not known"),
        ("rewrite: {name: '{nmae|slug}'}", "rewrite.name", "{nmae} cannot be filled in"),
        ("rewrite: {rules: [{when: {}, name: '{id|x}'}]}", "rewrite.rules[0].name", "{id|x} has a filter"),
        ("rewrite: {rules: [{model: x}]}", "rewrite.rules[0].when", "is required"),
        ("rewrite: {rules: [{when: {}, rules: []}]}", "rewrite.rules[0].rules", "unknown key"),
        ("rewrite: {rules: [{when: {has: [tool]}}]}", "rewrite.rules[0].when.has[0]", "must be `tools`"),
        ("rewrite: {model: 3}", "rewrite.model", "one text for all"),
        ("rewrite: {model: {'*': }}", "rewrite.model.*", "must be a text"),
        ("rewrite: {model: '${MODEL}'}", "rewrite.model.*", "is replaced only in"),
        ("rewrite: {parameters: {drop: [model]}}", "rewrite.parameters.drop[0]", "use rewrite.model"),
        ("rewrite: {parameters: {set: {model: x}}}", "rewrite.parameters.set.model", "use rewrite.model"),
        ("rewrite: {parameters: {set: {model.x: x}}}", "rewrite.parameters.set.model.x", "use rewrite.model"),
        ("rewrite: {parameters: {clamp: {model: 1}}}", "rewrite.parameters.clamp.model", "use rewrite.model"),
        ("rewrite: {parameters: {rename: {model: x}}}", "rewrite.parameters.rename.model", "use rewrite.model"),
        ("rewrite: {parameters: {rename: {x: model}}}", "rewrite.parameters.rename.x", "use rewrite.model"),
        ("rewrite: {parameters: {drop: [a..b]}}", "rewrite.parameters.drop[0]", "dotted path"),
        ("rewrite: {parameters: {set: {x: .nan}}}", "rewrite.parameters.set.x", "not a number"),
        ("rewrite: {parameters: {clamp: {x: no}}}", "rewrite.parameters.clamp.x", "must be a number"),
        ("rewrite: {parameters: {clamp: {x: {}}}}", "rewrite.parameters.clamp.x", "min, max or both"),
        ("rewrite: {parameters: {clamp: {x: {min: a}}}}", "rewrite.parameters.clamp.x.min", "must be a number"),
        ("rewrite: {parameters: {clamp: {x: {min: 2, max: 1}}}}", "rewrite.parameters.clamp.x", "not be above"),
        ("rewrite: {parameters: {clamp: {min: {mix: 1}}}}", "rewrite.parameters.clamp.min.mix", "did you mean `min`"),
        ("limits: {rate: 0}", "limits.rate", "must be above 0"),
        ("limits: {rate: '5'}", "limits.rate", "must be a number"),
        ("limits: {rate: 1.0e-320}", "limits.rate", "must be at least 0.001"),
        ("limits: {reads: 0.00099}", "limits.reads", "must be at least 0.001"),
        ("limits: {writes: 1.0e-9}", "limits.writes", "must be at least 0.001"),
        ("limits: {share: 1.0e-300}", "limits.share", "must be at least 0.001"),
        ("source: {base_url: sandbox, gateway_url: sandbox}", "source.gateway_url", "leave it out at the sandbox"),
        ("target: {base_url: sandbox, gateway_url: 'sandbox:b'}", "target.gateway_url", "leave it out at the sandbox"),
        ("target: {kind: files, path: ledgers/m.jsonl}", "ledger", "prompts of the target are read from"),
        ("source: {kind: files, path: x.jsonl}\nledger: a/../x.jsonl", "ledger", "prompts of the source are read from"),
        ("target: {kind: files, path: out}\nledger: out/deep/x.MD", "ledger", "prompts of the target are read from"),
        ("target: {kind: files, path: out, format: prompty}\nledger: out/x.prompty", "ledger", "name another file"),
        ("limits: {share: 1.5}", "limits.share", "must be at most 1"),
        ("limits: {concurrency: 1.5}", "limits.concurrency", "must be a whole number"),
        ("limits: {attempts: 0}", "limits.attempts", "must be at least 1"),
        ("limits: {attempts: true}", "limits.attempts", "must be a whole number"),
        ("limits: {timeout: 0}", "limits.timeout", "must be a time above zero"),
        ("limits: {timeout: 5 s}", "limits.timeout", "must be a time above zero"),
        ("limits: {settle: true}", "limits.settle", "must be a time above zero"),
        (f"limits: {{timeout: 1{'0' * 400}}}", "limits.timeout", "must be a time above zero"),
        ("on_existing: no", "on_existing", "must be `fail`, `skip` or `rename`"),
        ("verify: {render: no}", "verify.render", "must be true or false"),
        ("mode: update\ntarget: {base_url: sandbox}", "target", "where they stand"),
        ("mode: update\nselect: {version: all}", "select", "published or latest"),
        ("verify: {cases: none.jsonl}", "verify.cases", "--write-cases"),
        ("ledger: .", "ledger", "is a folder"),
        ("ledger: x/", "ledger", "is a folder"),
        ("ledger: '{id}.jsonl'", "ledger", "only {name}"),
        ('ledger: "a\\0b"', "ledger", "path of a file"),
        ("allow_loss: all", "allow_loss", "must be a list"),
        ("carry: all", "carry", "must be a list"),
        ("carry: [tolls]", "carry[0]", "did you mean `tools`?"),
        ("carry: [raw, labels]", "carry[1]", "labels are notes, and no losses"),
        ("carry: [top_k]", "carry[0]", "did you mean `parameters.top_k`?"),
        ("create_missing: collections", "create_missing", "must be a list"),
        ("create_missing: [colections]", "create_missing[0]", "did you mean `collections`?"),
        ("create_missing: [labels, tags]", "create_missing[1]", "must be `collections`, `partials` or `labels`"),
        ("create_missing: [providers]", "create_missing[0]", "hold keys and are never made"),
        ('rewrite: {description: "\\ud800"}', "rewrite.description", "half a character"),
    ],
)
def test_wrong_values(problems: Problems, tmp_path: Path, text: str, key: str, words: str) -> None:
    (tmp_path / "ids.txt").write_text("x\n")
    (tmp_path / "none.txt").write_text("# nothing\n")
    rest = "".join(line + "\n" for line in HEAD.splitlines() if line.split(":")[0] != text.split(":")[0])
    found = problems(rest + text + "\n")
    assert list(found) == [key]
    assert words in found[key].message


@pytest.mark.parametrize("ledger", ["out/x.jsonl", "out/.kept/x.md", "x.md", "out.md", "out/x"])
def test_a_ledger_beside_prompts_that_is_none_of_them_is_fine(load: Load, tmp_path: Path, ledger: str) -> None:
    found = load(f"{HEAD}target: {{kind: files, path: out}}\nledger: {ledger}\n")
    assert found.ledger == tmp_path / ledger


def test_a_ledger_that_is_named_elsewhere_is_none_of_the_prompts_either(load: Load, tmp_path: Path) -> None:
    text = f"{HEAD}target: {{kind: files, path: there/m.jsonl}}\n"
    (tmp_path / "link").symlink_to(tmp_path / "there")
    with pytest.raises(ConfigError, match="read from"):
        load(text, {**ENVIRON, "PROMPTFERRY_LEDGER_DIR": str(tmp_path / "link")})
    assert load(text).ledger == tmp_path / "ledgers" / "m.jsonl"
    with pytest.raises(ConfigError, match="read from"):
        Common(ledger=tmp_path / "there" / "m.jsonl").load(tmp_path / "m.yaml")
    with pytest.raises(ConfigError, match="read from"):
        load(text.replace("m.jsonl", "m.0-of-2.jsonl")).of_shard(Shard(0, 2), tmp_path / "there" / "m.0-of-2.jsonl")


@pytest.mark.parametrize("least", [0.001, 1])
def test_the_least_that_limits_may_be(load: Load, least: float) -> None:
    limits = load(f"{HEAD}limits: {{rate: {least}, reads: {least}, writes: {least}, share: {least}}}\n").limits
    assert (limits.rate, limits.reads, limits.writes, limits.share) == (least, least, least, least)


@pytest.mark.parametrize(
    "target",
    [
        "{kind: mlflow, base_url: 'http://127.0.0.1:1'}",
        "{kind: phoenix, base_url: 'http://127.0.0.1:1'}",
        "{kind: langfuse, base_url: sandbox}",
        "{kind: conductor, base_url: sandbox}",
        "{kind: files, path: there}",
    ],
)
def test_a_registry_that_has_no_such_things_makes_none(problems: Problems, load: Load, target: str) -> None:
    found = problems(f"{HEAD}target: {target}\ncreate_missing: [labels, partials]\n")
    assert list(found) == ["create_missing"]
    assert "labels and partials cannot be made in kind" in found["create_missing"].message
    assert load(f"{HEAD}target: {target}\ncreate_missing: []\n").create_missing == ()
    source = f"name: m\nsource: {target}\ntarget: {{base_url: sandbox}}\n"
    assert load(f"{source}create_missing: [labels, labels]\n").create_missing == ("labels",)


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("", None, "the file is empty"),
        ("# nothing\n", None, "the file is empty"),
        ("~", None, "must be a map"),
        ("- a\n", None, "must be a map"),
        ("name: [a\nb: c\n", 2, "is not YAML"),
        (f"name: m\nsource: {{api_key: {CANARY}: x}}\n", 2, "is not YAML"),
        ("name: m\n\tmode: x\n", 2, "is not YAML"),
        ("name: m\nselect:\n  names: [*-old]\n", 3, "begins with * needs quotes"),
        ("name: m\n---\nname: n\n", 2, "one YAML document"),
        ("name: \x01\n", None, "control characters"),
        ("name: " + "[" * 5000, None, "nested too deeply"),
        ("&a\nname: *a\n", None, "nested too deeply"),
    ],
)
def test_files_that_cannot_be_read_as_yaml(problems: Problems, text: str, line: int | None, words: str) -> None:
    (problem,) = problems(text).values()
    assert words in problem.message
    assert problem.line == line


@pytest.mark.parametrize(
    ("text", "key", "words"),
    [
        ("name: n\n", "name", "first in line 1"),
        ("select: {names: [!*-old ]}\n", "select.names[0]", "begins with ! needs quotes"),
        ("select: !x {}\n", "select", "tags"),
        ("rewrite: {parameters: {set: {? [a] : b}}}\n", "rewrite.parameters.set", "a key must be a text"),
        (f"rewrite: {{parameters: {{set: {{a: {'9' * 5000}}}}}}}\n", "rewrite.parameters.set.a", "not a number"),
    ],
)
def test_yaml_that_is_no_migration(problems: Problems, text: str, key: str, words: str) -> None:
    found = problems(HEAD + text)
    assert list(found) == [key]
    assert words in found[key].message


def test_files_that_are_not_there_or_not_text(tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes("name: ä".encode("latin-1"))
    for path, words in [("nope.yaml", "no such file"), (".", "is a folder"), ("latin.yaml", "not UTF-8")]:
        with pytest.raises(ConfigError, match=words) as caught:
            load_migration(tmp_path / path, {})
        assert caught.value.problems[0].file == str(tmp_path / path)


OF_A_KIND = {
    "source: {kind: conductor}": "source.base_url",
    "source: {kind: conductor, base_url: 'https://x.example/api'}": "source.key_id",
    "source: {kind: conductor, base_url: sandbox, api_key: '${PORTKEY_API_KEY}'}": "source.api_key",
    "source: {kind: conductor, base_url: sandbox, workspace: w}": "source.workspace",
    "source: {kind: files}": "source.path",
    "source: {kind: files, path: prompts, base_url: 'https://x.example/v1'}": "source.base_url",
    "source: {base_url: sandbox, path: x.jsonl}": "source.path",
    "source: {base_url: sandbox, key_id: '${PORTKEY_API_KEY}'}": "source.key_id",
    "target: {base_url: sandbox, key_secret: '${PORTKEY_API_KEY}'}": "target.key_secret",
    "publish: false\ntarget: {kind: files, path: x}": "publish",
    "publish: false\ntarget: {kind: conductor, base_url: sandbox}": "publish",
    "select: {version: all}\ntarget: {kind: files, path: x}": "select",
    "verify: {render: true}\ntarget: {kind: conductor, base_url: sandbox}": "verify",
    "verify: {completions: 2}\ntarget: {kind: files, path: x}": "verify",
    "rewrite: {messages: shout}": "rewrite.messages",
}


@pytest.mark.parametrize(("text", "key"), OF_A_KIND.items())
def test_what_a_kind_of_registry_cannot_do_is_refused_at_its_key(problems: Problems, text: str, key: str) -> None:
    first = {line.split(":")[0] for line in text.splitlines()}
    rest = "".join(line + "\n" for line in HEAD.splitlines() if line.split(":")[0] not in first)
    assert key in problems(rest + text + "\n")


def test_mode_update_publishes_where_nothing_can_wait(problems: Problems, load: Load) -> None:
    text = "name: m\nmode: update\nsource: {kind: conductor, base_url: sandbox}\n"
    assert "say publish: true" in problems(text)["publish"].message
    assert load(text + "publish: true\n").publishes


def test_each_kind_is_identified_by_where_it_is(load: Load) -> None:
    found = load(
        "name: m\nsource: {kind: conductor, base_url: sandbox}\ntarget: {kind: files, path: out/prompts}\n"
        "rewrite: {messages: transcript}\nlimits: {batch: 10}\n"
    )
    assert found.identity()["source"] == "conductor sandbox"
    assert found.identity()["target"] == "files out/prompts"
    assert isinstance(found.target, FilesEndpoint)
    assert found.target.place.is_absolute()
    assert found.rules()[0].messages == "transcript"


def test_every_default_may_be_written_out(load: Load) -> None:
    text = """
mode: replicate
target: {kind: portkey, base_url: sandbox, gateway_url: null, gateway_key: null}
select: {version: published}
rewrite: {messages: refuse}
on_change: skip
on_edited: conflict
publish: null
limits: {reads: null, writes: null, share: 0.9, batch: 50}
verify: {after_run: false, render: false, completions: 0, variables: {}}
"""
    assert load(HEAD + text).same_workspace


# ---- identity and digest ---------------------------------------------------------------------------------------------

FULL = """
name: m
source: {base_url: 'https://a.example/v1', api_key: '${PORTKEY_API_KEY}', workspace: one}
target: {base_url: 'https://a.example/v1', api_key: '${PORTKEY_API_KEY}', workspace: two}
select: {models: [a]}
rewrite: {model: {a: b, c: d}}
"""


def test_identity_is_what_makes_it_another_migration(load: Load) -> None:
    assert load(FULL).identity() == {
        "migration": "m",
        "mode": "replicate",
        "source": "portkey https://a.example/v1 one",
        "target": "portkey https://a.example/v1 two",
        "selects": "published",
    }
    other_key = FULL.replace("PORTKEY_API_KEY", "PORTKEY_TARGET_API_KEY")
    assert load(other_key).identity() == load(FULL).identity()
    assert load(FULL + "limits: {rate: 3}\non_existing: skip\n").identity() == load(FULL).identity()
    changes = [("name: m", "name: n"), ("one}", "1a}"), ("two}", "2a}"), ("[a]", "[a], version: latest")]
    for before, after in changes:
        differing = set(load(FULL.replace(before, after)).identity().items()) - set(load(FULL).identity().items())
        assert len(differing) == 1, after


def test_a_target_written_out_as_the_source_is_the_same_migration(load: Load) -> None:
    assert load(HEAD + "target: {base_url: sandbox}\n").identity() == load(HEAD).identity()


def test_rules_digest_changes_with_what_decides_a_result_and_with_nothing_else(load: Load, tmp_path: Path) -> None:
    digest = load(FULL).rules_digest()
    assert re.fullmatch("[0-9a-f]{64}", digest)
    (tmp_path / "ids.txt").write_text("x\n")
    same = [
        ("name: m", "name: n"),
        ("workspace: one", "workspace: three"),
        ("[a]", "[a], version: latest"),
        ("select:", "limits: {rate: 3}\nledger: other.jsonl\nselect:"),
        ("select:", "on_existing: fail\nselect:"),
        ("select:", "carry: []\nselect:"),
        ("select:", "create_missing: []\nselect:"),
    ]
    assert {load(FULL.replace(*change)).rules_digest() for change in same} == {digest}
    other = [
        ("[a]", "[b]"),
        ("[a]", "[a], ids: [x]"),
        ("{a: b, c: d}", "{c: d, a: b}"),
        ("{a: b, c: d}", "{a: b, c: d}, parameters: {set: {x: 1}}"),
        ("{a: b, c: d}", "{a: b, c: d}, rules: [{when: {}, model: z}]"),
        ("select:", "on_existing: skip\nselect:"),
        ("select:", "allow_loss: [x]\nselect:"),
        ("select:", "carry: [raw]\nselect:"),
        ("select:", "create_missing: [labels]\nselect:"),
    ]
    assert len({load(FULL.replace(*change)).rules_digest() for change in other} | {digest}) == len(other) + 1
    with_ids = load(FULL.replace("[a]", "[a], ids: [x]")).rules_digest()
    assert load(FULL.replace("[a]", "[a], ids_file: ids.txt")).rules_digest() == with_ids


# ---- schema, starter, configs ----------------------------------------------------------------------------------------


def valid(text: str) -> bool:
    return not list(Draft202012Validator(json_schema()).iter_errors(YAML(typ="safe", pure=True).load(text)))


def nested(value: Any) -> list[dict[str, Any]]:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return ([value] if isinstance(value, dict) else []) + [found for item in inner for found in nested(item)]


def test_the_schema_describes_every_key() -> None:
    schema = json_schema()
    Draft202012Validator.check_schema(schema)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["title"] == "Promptferry migration"
    assert json.loads(json.dumps(schema)) == schema
    keys = [item for part in nested(schema) if "properties" in part for item in part["properties"].items()]
    assert len(keys) > 60
    assert [key for key, value in keys if not value.get("description")] == []


@pytest.mark.parametrize(
    "text",
    [
        FULL,
        HEAD + "target:\nselect:\nlimits: {timeout: 90s, settle: 2h, rate: 1.5}\n",
        HEAD + "limits: {timeout: 3, settle: null}\nrewrite: {model: x, provider: {a: b}, collection: null}\n",
        HEAD + "rewrite: {parameters: {clamp: {a: 1, b: {min: 1}, c: {min: 1, max: 2.5}}, set: {x: [1, {y: null}]}}}\n",
        "name: m\nsource: {api_key: {command: [echo, x]}}\ntarget: {api_key: {file: key.txt}}\n",
    ],
)
def test_the_schema_takes_what_the_loader_takes(load: Load, tmp_path: Path, text: str) -> None:
    (tmp_path / "key.txt").write_text("key")
    load(text, {**ENVIRON, "PATH": "/usr/bin:/bin"})
    assert valid(text)


@pytest.mark.parametrize(
    "text",
    [
        "name: m\n",
        HEAD + "nmae: x\n",
        f"name: m\nsource: {{api_key: {CANARY}}}\n",
        HEAD + "limits: {timeout: 5x}\n",
        HEAD + "rewrite: {parameters: {clamp: {a: {mix: 1}}}}\n",
        HEAD + "rewrite: {rules: [{model: x}]}\n",
        HEAD + "on_existing: no\n",
    ],
)
def test_the_schema_refuses_what_an_editor_should_mark(text: str) -> None:
    assert not valid(text)


def test_the_interface_s_example(load: Load) -> None:
    if not INTERFACE.exists():
        pytest.skip("the interface description is not beside this checkout")
    fence = re.search(r"```yaml\n(.*?)```", INTERFACE.read_text(encoding="utf-8"), re.DOTALL)
    assert fence is not None
    assert valid(fence[1])
    assert load(fence[1]).name == "claude-37-to-35-bedrock"


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_the_ready_files_load(path: Path) -> None:
    migration = load_migration(path, ENVIRON)
    assert valid(path.read_text(encoding="utf-8"))
    assert migration.ledger == path.parent / "ledgers" / f"{migration.name}.jsonl"


def test_there_are_ready_files_and_the_sandbox_needs_no_environment() -> None:
    assert [path.stem for path in CONFIGS] == [
        "conductor-to-files",
        "conductor-to-portkey",
        "files-to-portkey",
        "langfuse-to-files",
        "langfuse-to-portkey",
        "langsmith-to-langfuse",
        "mlflow-to-files",
        "mlflow-to-portkey",
        "phoenix-to-files",
        "phoenix-to-mlflow",
        "portkey-collections-rules",
        "portkey-in-place",
        "portkey-new-model",
        "portkey-to-conductor",
        "portkey-to-files",
        "portkey-to-langfuse",
        "portkey-to-mlflow",
        "portkey-to-phoenix",
        "portkey-two-workspaces",
        "sandbox",
    ]
    migration = load_migration(CONFIGS[-1], {})
    assert (migration.name, migration.selection(), migration.limits.rate) == ("demo", Select(), 100)


def test_the_starter_loads_without_change(load: Load) -> None:
    migration = load(starter(), {"PORTKEY_API_KEY": CANARY})
    assert migration.name == "my-migration"
    assert migration.target is None
    assert migration.select.models == ("*claude-3-7-*",)
    assert migration.rewrite.model == {"*": "anthropic.claude-3-5-sonnet"}
    assert valid(starter())


def test_the_starter_with_another_target(load: Load) -> None:
    text = starter(base_url="sandbox", target_base_url="https://x.example/v1", provider="bedrock-prod")
    migration = load(text, {"PORTKEY_TARGET_API_KEY": CANARY})
    assert migration.source.is_sandbox
    assert migration.ends[1].url == "https://x.example/v1"
    assert migration.rewrite.provider == {"*": "bedrock-prod"}


WORDS = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Zl", "Zp"]), min_size=1).filter(
    lambda text: bool(text.strip()) and "${" not in text
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=50)
@given(model=WORDS, glob=WORDS, provider=WORDS)
def test_the_starter_takes_any_text(load: Load, model: str, glob: str, provider: str) -> None:
    migration = load(starter(model=model, models=glob, provider=provider))
    assert migration.rewrite.model == {"*": model}
    assert migration.select.models == (glob,)
    assert migration.rewrite.provider == {"*": provider}


# ---- whatever is written, it is told in plain words ------------------------------------------------------------------

KEYS = sorted({key for part in nested(json_schema()) for key in part.get("properties", {})} - {"file", "command"})
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.sampled_from([CANARY, "${X}", "{x}", "*", "a.b"]),
    st.text(),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS) | st.text(), inner, max_size=4),
    max_leaves=20,
)
FILES = st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=8)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=300)
@given(data=FILES)
@example(data={"name": "m", "source": {"api_key": {"file": CANARY + "\0"}}})
@example(data={"name": "m", "source": {"base_url": "sandbox"}, "ledger": "x" * 5000})
@example(data={"name": "m", "source": {"base_url": "sandbox"}, "select": {"ids_file": "x" * 5000}})
def test_no_file_makes_it_fail_in_another_way(load: Load, data: dict[str, Any]) -> None:
    found: tuple[Problem, ...] = ()
    try:
        load(json.dumps({"name": "m", "source": {"base_url": "sandbox"}} | data))
    except ConfigError as error:
        found = error.problems
    assert [problem for problem in found if not problem.message or "cannot be used here" in problem.message] == []
