"""Listings of the sandbox, and the manners that can be switched."""

from __future__ import annotations

from typing import Any

import pytest

from engine.sandbox import Quirks
from tests.sandbox_api import Clock, api, code


@pytest.mark.parametrize("first", [0, 1])
async def test_pages_cover_the_list_once_newest_first(first: int) -> None:
    async with api(prompts=55, quirks=Quirks(first_page=first)) as portkey:
        rows: list[Any] = []
        for number in range(first, first + 6):
            rows += (await portkey.get(f"/prompts?current_page={number}&page_size=10"))["data"]
        everything = (await portkey.get("/prompts"))["data"]
        assert [row["id"] for row in rows] == [row["id"] for row in everything]
        assert [row["id"] for row in reversed(rows)] == [prompt["id"] for prompt in portkey.sandbox.prompts()]
        times = [row["created_at"] for row in rows]
        assert times == sorted(times, reverse=True)
        assert len(set(times)) < len(times)
        zero = (await portkey.get("/prompts?current_page=0&page_size=10"))["data"]
        assert zero == everything[:10]


async def test_page_sizes_are_cut_and_defaulted() -> None:
    async with api(prompts=55, quirks=Quirks(page_cap=20, default_page_size=10)) as portkey:
        assert len((await portkey.get("/prompts"))["data"]) == 10
        page = await portkey.get("/prompts?page_size=1000")
        assert (len(page["data"]), page["total"]) == (20, 55)
        for query in ("page_size=0", "page_size=-1", "page_size=x", "current_page=-1"):
            assert (await portkey.ask("GET", f"/prompts?{query}"))[0] == 400


async def test_filters_by_collection_and_part_of_the_name() -> None:
    async with api(prompts=60) as portkey:
        collections = (await portkey.get("/collections"))["data"]
        counted = {doc["slug"]: doc["collection_details"]["prompts_count"] for doc in collections}
        assert sum(counted.values()) == 60
        for doc in collections:
            by_id = await portkey.get(f"/prompts?collection_id={doc['id']}")
            assert by_id["total"] == counted[doc["slug"]]
            assert by_id == await portkey.get(f"/prompts?collection_id={doc['slug']}")
        found = await portkey.get("/prompts?search=SUPPORT&page_size=3")
        assert found["total"] == sum("support" in prompt["name"].lower() for prompt in portkey.sandbox.prompts()) > 3


async def test_new_rows_are_listed_later() -> None:
    clock = Clock()
    async with api(clock=clock, quirks=Quirks(listing_lag_s=4)) as portkey:
        made = await portkey.create()
        assert await portkey.get("/prompts") == {"object": "list", "total": 0, "data": []}
        assert (await portkey.get(f"/prompts/{made['id']}"))["name"] == "New"
        assert len(portkey.sandbox.prompts()) == 1
        clock.now += 4
        assert (await portkey.get("/prompts"))["total"] == 1


async def test_reads_after_an_update_are_stale_for_a_while() -> None:
    clock = Clock()
    async with api(clock=clock, quirks=Quirks(stale_reads_s=3)) as portkey:
        path = f"/prompts/{(await portkey.create())['id']}"
        await portkey.put(path, {"patch": True, "string": "second"})
        await portkey.put(f"{path}/makeDefault", {"version": 2})
        assert (await portkey.get(path))["prompt_version"] == 1
        assert (await portkey.get(f"{path}/versions"))["total"] == 1
        clock.now += 3
        assert (await portkey.get(path))["string"] == "second"


async def test_archived_prompts_may_be_hidden_from_listings() -> None:
    for listed in (True, False):
        async with api(quirks=Quirks(archived_listed=listed)) as portkey:
            prompt = portkey.sandbox.add_prompt("old", archived=True)
            assert (await portkey.get("/prompts"))["total"] == int(listed)
            assert (await portkey.get(f"/prompts/{prompt}"))["status"] == "archived"


# ---- other manners -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("wins", "model"), [("model", "gpt-4o"), ("parameters", "claude-3-opus")])
async def test_which_model_wins(wins: Any, model: str) -> None:
    async with api(quirks=Quirks(model_wins=wins)) as portkey:
        made = await portkey.create(model="gpt-4o", parameters={"model": "claude-3-opus"})
        prompt = await portkey.get(f"/prompts/{made['id']}")
        assert prompt["model"] == prompt["parameters"]["model"] == model


async def test_metadata_may_not_survive() -> None:
    async with api(quirks=Quirks(metadata_survives=False)) as portkey:
        made = await portkey.create(template_metadata={"mine": 1, "template_type": "chat"})
        assert (await portkey.get(f"/prompts/{made['id']}"))["template_metadata"] == {"template_type": "chat"}


async def test_names_may_have_to_be_unique() -> None:
    async with api(quirks=Quirks(unique_names=True)) as portkey:
        await portkey.create(name="Taken")
        other = await portkey.create(name="Other")
        status, answer = await portkey.ask("POST", "/prompts", await portkey.body(name="Taken"))
        assert (status, code(answer)) == (409, "AB07")
        assert (await portkey.ask("PUT", f"/prompts/{other['id']}", {"name": "Taken"}))[0] == 409
        assert (await portkey.ask("PUT", f"/prompts/{other['id']}", {"name": "Other"}))[0] == 200


async def test_a_collection_may_be_left_out() -> None:
    async with api(quirks=Quirks(collection_required=False)) as portkey:
        body = await portkey.body()
        del body["collection_id"]
        made = await portkey.post("/prompts", body)
        assert (await portkey.get(f"/prompts/{made['id']}"))["collection_id"] is None


async def test_the_quota_ends() -> None:
    async with api(quirks=Quirks(prompt_quota=1)) as portkey:
        await portkey.create()
        status, answer = await portkey.ask("POST", "/prompts", await portkey.body())
        assert (status, code(answer)) == (402, "AB09")
        assert len(portkey.sandbox.prompts()) == 1


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ("data", {"success": False, "data": {"message": "prompt not found", "errorCode": "AB08"}}),
        ("message", {"success": False, "message": "prompt not found", "errorCode": "AB08"}),
        ("gateway", {"status": "failure", "message": "prompt not found"}),
    ],
)
async def test_error_bodies(shape: Any, expected: Any) -> None:
    async with api(quirks=Quirks(error_shape=shape)) as portkey:
        assert await portkey.ask("GET", "/prompts/none") == (404, expected)


async def test_the_error_body_with_a_status_code() -> None:
    async with api(quirks=Quirks(error_shape="error", echo_key=True)) as portkey:
        status, answer = await portkey.ask("GET", "/prompts", key="sandbox-wrong")
        assert (status, answer["status_code"], answer["error"]["code"]) == (401, 401, "AB05")
        assert "sandbox-wrong" in answer["error"]["message"]
