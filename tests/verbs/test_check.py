"""What `check` says before anything is written: every problem once, and the one sentence that stops a run."""

from __future__ import annotations

from dataclasses import replace

import pytest

from engine.content.references import Ends, kinds_needed
from engine.errors import Rejected, Stop, Transient
from engine.model import Catalog, Finding, Named, Row, Rule, Select
from engine.verbs.check import examine_ends, named_in_file, stop_on_problems, unknown_ids
from tests.workspaces import CATALOG, Wrapped, job_of, memory, prompt


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
