"""What `check` says before anything is written: every problem once, and the one sentence that stops a run."""

from __future__ import annotations

import json
import shutil
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest

from engine.content.references import Ends, kinds_needed
from engine.errors import Rejected, Stop, Transient
from engine.model import Catalog, Finding, Named, Page, Row, Rule, Select
from engine.sandbox import SandboxOptions
from engine.verbs.check import Report, examine_ends, exit_code, named_in_file, stop_on_problems, unknown_ids
from tests.e2e import promptferry, served, write_migration
from tests.workspaces import CATALOG, Wrapped, job_of, memory, prompt

ANOTHERS: Final = Path(__file__).parents[1] / "data" / "ledgers-0.1.0" / "replicate.jsonl"
DOWN: Final = Stop("registry_down", "it is down", next="Later.")
REFUSED: Final = Stop("key_refused", "the key is refused", next="Another key.")


def ends(*, same: bool = True, source: Catalog = CATALOG, target: Catalog = CATALOG) -> Ends:
    return Ends(same=same, source=source, target=target)


def problems(findings: list[Finding]) -> list[tuple[str, str]]:
    return [(finding.where, finding.text) for finding in findings if finding.level == "problem"]


@pytest.mark.parametrize(
    ("rules", "same", "kinds"),
    [
        ((), True, {"collections"}),
        ((), False, {"collections", "providers", "partials"}),
        ((Rule(provider=(("*", "p"),)),), True, {"collections", "providers"}),
        ((Rule(), Rule(partials=(("a", "b"),))), True, {"collections", "partials"}),
        ((Rule(collection=(("*", "c"),)),), True, {"collections"}),
    ],
)
def test_only_the_catalogs_that_the_rules_need_are_asked_for(
    rules: tuple[Rule, ...], same: bool, kinds: set[str]
) -> None:
    assert kinds_needed(rules, same=same) == kinds


def test_everything_that_the_file_names_and_is_not_there_is_named() -> None:
    rules = (
        Rule(collection=(("*", "support"), ("x", "nowhere")), provider=(("*", "nobody"),)),
        Rule(partials=(("old", "new"),)),
    )
    job = job_of(memory(), rules=rules, select=Select(collections=("sales", "suport")))
    found = problems(list(named_in_file(job)))
    assert [where for where, _ in found] == [
        "select.collections",
        "rewrite.collection",
        "rewrite.provider",
        "rewrite.partials",
    ]
    texts = " ".join(text for _, text in found)
    for name in ("'suport'", "'support'", "'nowhere'", "'nobody'", "'new'"):
        assert name in texts


def test_what_the_file_names_by_its_name_is_there_as_a_run_takes_it() -> None:
    named = [Named(id="c-1", slug="sales-1", name="Sales"), Named(id="c-2", slug="twin-1", name="Twin")]
    twins = Catalog(collections=[*named, Named(id="c-3", slug="twin-2", name="Twin")])
    rules = [Rule(collection=(("*", name),)) for name in ("Sales", "sales-1", "c-1", "Twin")]
    job = job_of(memory(), rules=tuple(rules), ends=ends(target=twins))
    ((where, text),) = problems(list(named_in_file(job)))
    assert where == "rewrite.collection"
    assert text == "2 collections at the target are called 'Twin': give the slug of one"


def test_what_the_key_may_not_list_is_a_note_and_no_problem() -> None:
    blind = Catalog(collections=CATALOG.collections)
    job = job_of(memory(), rules=(Rule(provider=(("*", "anyone"),)),), ends=ends(target=blind))
    (finding,) = named_in_file(job)
    assert (finding.level, finding.where) == ("note", "rewrite.provider")


def test_an_id_that_is_nowhere_is_a_problem_and_one_that_the_ledger_has_is_not() -> None:
    job = job_of(memory(), select=Select(ids=("a", "pp-b", "gone", "done")))
    rows = [Row(id="a", name="A"), Row(id="b", name="B", slug="pp-b")]
    assert [finding.text for finding in unknown_ids(job, rows, {"done"})] == ["there is no prompt 'gone' at the source"]
    assert list(unknown_ids(job_of(memory()), [], ())) == []


async def test_a_workspace_where_all_is_there_has_no_problem() -> None:
    findings = (await examine_ends(job_of(memory(prompt("a"), prompt("b"))), (), ())).findings
    assert problems(findings) == []
    assert any("lists prompts: 2" in finding.text for finding in findings)
    assert any("takes 2 of 2" in finding.text for finding in findings)


async def test_a_check_writes_nothing_and_reads_one_prompt_of_a_workspace_that_stays() -> None:
    there = Wrapped(memory(*(prompt(f"p{number}") for number in range(20))))
    await examine_ends(job_of(there), (), ())
    assert there.inner.creates == 0
    assert len(there.fetched) == 1


async def test_what_prompts_refer_to_and_the_other_workspace_lacks_is_told_once_with_its_count() -> None:
    elsewhere = Catalog(collections=(Named(id="z1", slug="sales", name="Sales"),), providers=(), partials=())
    source = memory(*(prompt(f"p{number}", provider="anthropic-prod") for number in range(3)))
    job = job_of(source, memory(), ends=ends(same=False, target=elsewhere))
    found = {text: where for where, text in problems((await examine_ends(job, (), ())).findings)}
    assert len(found) == 2
    for word in ("collection 'support'", "provider 'anthropic-prod'"):
        (text,) = [text for text in found if word in text]
        assert "(3 prompts)" in text
        assert found[text] == "target"


@pytest.mark.parametrize("error", [Rejected("it is refused", error="x"), Transient("it is down", error="x")])
async def test_definitions_that_cannot_be_read_are_a_problem_of_the_source(error: Exception) -> None:
    async def on_fetch(prompt_id: str) -> None:
        raise error

    job = job_of(Wrapped(memory(prompt("a"), prompt("b")), on_fetch=on_fetch), memory())
    assert problems((await examine_ends(job, (), ())).findings) == [("source", f"{error} (2 prompts)")]


async def test_a_selection_that_takes_nothing_is_noted() -> None:
    findings = (await examine_ends(job_of(memory(prompt("a")), select=Select(names=("x*",))), (), ())).findings
    assert Finding(level="note", where="select", text="takes 0 of 1 prompts") in findings


async def test_replicas_of_this_migration_are_not_counted_among_the_selected() -> None:
    findings = (await examine_ends(job_of(memory(prompt("a"), prompt("b"))), {"b"}, ())).findings
    assert any("takes 1 of 2" in finding.text for finding in findings)


def test_problems_stop_a_run_together_and_notes_do_not() -> None:
    note = Finding(level="note", where="x", text="only said")
    stop_on_problems([note, replace(note, level="ok")])
    first = Finding(level="problem", where="rewrite.provider", text="first")
    with pytest.raises(Stop) as caught:
        stop_on_problems([note, first, replace(first, where="select.ids", text="second")])
    assert (caught.value.reason, caught.value.exit_code) == ("check_failed", 4)
    assert str(caught.value) == "rewrite.provider: first; select.ids: second"


# ---- an end that cannot be asked -------------------------------------------------------------------------------------


class Mute(Wrapped):
    """A workspace that cannot be listed."""

    def __init__(self, stop: Stop) -> None:
        super().__init__(memory())
        self.stop = stop

    async def pages(self) -> AsyncIterator[Page]:
        raise self.stop
        yield  # it is a generator


async def test_both_ends_that_cannot_be_listed_are_two_problems() -> None:
    found = (await examine_ends(job_of(Mute(REFUSED), Mute(DOWN)), (), ())).findings
    assert problems(found) == [("source", "the key is refused"), ("target", "it is down")]
    assert [one.advice for one in found if one.level == "problem"] == ["Another key.", "Later."]


async def test_the_end_that_answers_is_looked_at_whole_beside_one_that_does_not() -> None:
    select, rules = Select(ids=("gone",), collections=("suport",)), (Rule(provider=(("*", "nobody"),)),)
    known = {"select": select, "rules": rules, "ends": ends(same=False)}
    found = (await examine_ends(job_of(memory(prompt("a")), Mute(DOWN), **known), (), ())).findings
    assert [where for where, _ in problems(found)] == ["target", "select.collections", "rewrite.provider", "select.ids"]
    found = (await examine_ends(job_of(Mute(DOWN), memory(), **known), (), ())).findings
    assert [where for where, _ in problems(found)] == ["source", "select.collections", "rewrite.provider"]
    assert any("lists prompts: 0" in one.text for one in found if one.where == "target")


async def test_of_an_end_whose_catalog_is_not_known_nothing_is_said_to_be_missing() -> None:
    report = Report([], {"target"})
    job = job_of(
        memory(prompt("a")),
        memory(),
        rules=(Rule(provider=(("*", "nobody"),)),),
        ends=ends(same=False, target=Catalog()),
    )
    found = (await examine_ends(job, (), (), report=report)).findings
    assert (problems(found), [one for one in found if one.where in ("target", "rewrite.provider")]) == ([], [])
    assert any("reads prompts: 1 read" in one.text for one in found)


async def test_a_source_that_falls_silent_while_definitions_are_read_keeps_what_was_found() -> None:
    async def on_fetch(_prompt_id: str) -> None:
        raise DOWN

    job = job_of(
        Wrapped(memory(prompt("a")), on_fetch=on_fetch),
        memory(),
        rules=(Rule(provider=(("*", "nobody"),)),),
        ends=ends(same=False),
    )
    found = (await examine_ends(job, (), ())).findings
    assert problems(found) == [
        ("rewrite.provider", "there is no provider 'nobody' at the target"),
        ("source", "it is down"),
    ]
    assert any("takes 1 of 1" in one.text for one in found)


@pytest.mark.parametrize(
    ("reasons", "code"),
    [
        ([], 0),
        (["registry_down"], 75),
        (["registry_down", "key_refused"], 4),
        (["registry_down", ""], 4),
        (["disk"], 75),
    ],
)
def test_anything_wrong_is_4_before_an_end_that_may_answer_later(reasons: list[str], code: int) -> None:
    note = Finding(level="note", where="target", text="only said")
    assert exit_code([note, *(replace(note, level="problem", reason=reason) for reason in reasons)]) == code


def test_the_command_prints_one_report_with_every_end_that_refuses_or_cannot_be_reached(tmp_path: Path) -> None:
    def checked(target: str, key: str, *flags: str, **parts: Any) -> tuple[int, dict[str, list[tuple[str, str]]]]:
        there = {"kind": "portkey", "base_url": target, "api_key": "${TARGET}"}
        path = write_migration(tmp_path, registry.base_url, target=there, limits={"attempts": 1}, **parts)
        env = {"KEY": key, "TARGET": "another-wrong-key"}
        ended = promptferry("check", path, "--json", *flags, cwd=tmp_path, env=env)
        assert "another-wrong-key" not in ended.out + ended.err
        found = json.loads(ended.out)
        assert found["ok"] is False
        told = {
            level: [(one["where"], one["text"]) for one in found["findings"] if one["level"] == level]
            for level in ("ok", "problem")
        }
        assert [text for _, text in told["problem"] if f"error: {text}" not in ended.err.splitlines()] == []
        return ended.code, told

    nowhere = "http://127.0.0.1:1/v1"
    with served(SandboxOptions(prompts=3)) as registry:
        code, told = checked(registry.base_url, "wrong-key")
        assert (code, [where for where, _ in told["problem"]]) == (4, ["source", "target"])
        assert all("refused the key" in text for _, text in told["problem"])
        code, told = checked(nowhere, "wrong-key")
        assert (code, sorted(where for where, _ in told["problem"])) == (4, ["source", "target"])
        code, told = checked(nowhere, registry.api_key, "--write-test")
        assert (code, [where for where, _ in told["problem"]]) == (75, ["target"])
        assert ("select", "takes 3 of 3 prompts") in told["ok"]
        shutil.copy(ANOTHERS, tmp_path / "ledger.jsonl")
        code, told = checked(nowhere, registry.api_key)
        assert (code, [where for where, _ in told["problem"]]) == (4, ["ledger", "target"])
