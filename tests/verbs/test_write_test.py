"""`check --write-test`: what a registry really does, found out on scratch prompts that are removed again."""

from __future__ import annotations

from collections.abc import Collection

import pytest

from engine.connectors.portkey.registry import connect
from engine.model import Catalog, Finding
from engine.sandbox import Quirks, Sandbox, SandboxOptions, serve
from engine.verbs.check import write_test
from tests import ends

USUAL = {
    "its key creates prompts",
    "a new prompt can be read at once",
    "the mark survives in template_metadata and in version_description",
    "model wins over the other when model and parameters.model differ",
    "its key changes prompts; a new version can be read at once",
    "a new prompt is listed at once",
    "prompts are paged from 0; pages hold at most 100 rows",
    "names are not unique: a second prompt of one name is accepted",
    "a prompt without collection is refused (AB01)",
    "its key deletes prompts; all 2 scratch prompts were removed",
}


async def found_out(
    sandbox: Sandbox, collection: str | None = None, scopes: Collection[str] | None = None
) -> list[Finding]:
    key = sandbox.key("main", scopes) if scopes is not None else sandbox.api_key
    async with connect(ends.portkey(sandbox.base_url, key), ends.opening(attempts=2)) as target:
        return [finding async for finding in target.write_test(collection)]


async def test_a_registry_as_it_usually_is() -> None:
    async with serve(SandboxOptions(prompts=150)) as sandbox:
        before = sandbox.prompts("main")
        assert {finding.text for finding in await found_out(sandbox)} == USUAL
        assert sandbox.prompts("main") == before


async def test_every_manner_is_told() -> None:
    quirks = Quirks(
        first_page=1,
        page_cap=50,
        metadata_survives=False,
        unique_names=True,
        collection_required=False,
        listing_lag_s=2.0,
        stale_reads_s=0.2,
        model_wins="parameters",
    )
    async with serve(SandboxOptions(prompts=150, quirks=quirks)) as sandbox:
        texts = {finding.text.partition(" after ")[0] for finding in await found_out(sandbox)}
        assert len(sandbox.prompts("main")) == 150
    assert texts == {
        "its key creates prompts",
        "a new prompt can be read at once",
        "the mark survives in version_description, not in template_metadata: runs put it there",
        "parameters.model wins over the other when model and parameters.model differ",
        "its key changes prompts; a new version can be read",
        "a new prompt is listed",
        "prompts are paged from 1; pages hold at most 50 rows",
        "names are unique: a second prompt of one name is refused",
        "a prompt without collection is accepted and lies in none",
        "its key deletes prompts; all 2 scratch prompts were removed",
    }


async def test_a_scratch_prompt_that_stays_is_named() -> None:
    async with serve(SandboxOptions(prompts=3)) as sandbox:
        found = await found_out(sandbox, scopes=["prompts.list", "prompts.read", "prompts.create"])
        (left,) = [one for one in sandbox.prompts("main") if one["name"].startswith("promptferry-write-test-")]
    problems = [finding.text for finding in found if finding.level == "problem"]
    assert "could not go on" in problems[0]
    assert "prompts.update" in problems[0]
    assert left["id"] in problems[1]
    assert left["name"] in problems[1]


async def test_a_create_whose_answer_is_lost_leaves_nothing_behind() -> None:
    async with serve(SandboxOptions(prompts=3)) as sandbox:
        sandbox.faults.plan("reset_after", method="POST", path_end="/prompts")
        found = await found_out(sandbox)
        assert len(sandbox.prompts("main")) == 3
    assert [finding.level for finding in found] == ["problem", "ok"]


async def test_it_goes_into_the_collection_of_choice_or_says_that_there_is_none() -> None:
    async with serve(SandboxOptions(prompts=0)) as sandbox:
        (finding,) = await found_out(sandbox)
        assert finding.level == "problem"
        assert "--collection" in finding.text


@pytest.mark.parametrize("known", [True, False])
async def test_a_collection_that_is_not_there_is_a_problem_before_anything_is_written(known: bool) -> None:
    from engine.content.references import Ends
    from tests.workspaces import job_of, memory

    catalog = Catalog(collections=() if known else None)
    job = job_of(memory(), ends=Ends(same=True, source=catalog, target=catalog))
    findings = [finding async for finding in write_test(job, "nowhere")]
    assert [finding.level for finding in findings] == (["problem"] if known else ["ok"])


async def test_a_quota_in_the_middle_leaves_nothing_behind() -> None:
    async with serve(SandboxOptions(prompts=3, quirks=Quirks(prompt_quota=4))) as sandbox:
        found = await found_out(sandbox)
        assert len(sandbox.prompts("main")) == 3
    assert any("402" in finding.text for finding in found if finding.level == "problem")
    assert "scratch prompts were removed" in found[-1].text
