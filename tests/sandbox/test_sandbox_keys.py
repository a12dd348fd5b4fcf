"""Who may do what on the sandbox: keys, workspaces, scopes; collections and labels."""

from __future__ import annotations

from tests.sandbox_api import api, code


async def test_unknown_keys_and_unknown_routes() -> None:
    async with api() as portkey:
        for key in ("", "sandbox-other", "\u00fc"):
            status, answer = await portkey.ask("GET", "/prompts", key=key)
            assert (status, code(answer)) == (401, "AB05")
        status, answer = await portkey.ask("POST", "/prompts/x/publish", {})
        assert (status, code(answer)) == (404, "AB02")


async def test_a_workspace_key_is_locked_to_its_workspace() -> None:
    async with api(prompts=5) as portkey:
        other = portkey.sandbox.key("other")
        mine = portkey.sandbox.prompts()[0]
        assert (await portkey.ask("GET", "/prompts", key=other))[1]["total"] == 0
        for path in (f"/prompts/{mine['id']}", f"/prompts?workspace_id={portkey.sandbox.workspace_id()}"):
            status, answer = await portkey.ask("GET", path, key=other)
            assert (status, code(answer)) == (403, "AB03")
        body = (await portkey.body()) | {"collection_id": "support"}
        assert (await portkey.ask("POST", "/prompts", body, key=other))[0] == 200
        assert len(portkey.sandbox.prompts("other")) == 1
        assert len(portkey.sandbox.prompts()) == 5


async def test_workspaces_have_things_of_their_own() -> None:
    async with api() as portkey:
        other = portkey.sandbox.key("other")
        for path in ("/collections", "/providers", "/prompts/partials"):
            mine = (await portkey.get(path))["data"]
            theirs = (await portkey.ask("GET", path, key=other))[1]["data"]
            assert [row["name"] for row in mine] == [row["name"] for row in theirs]
            assert not {row["id"] for row in mine} & {row["id"] for row in theirs}


async def test_an_organisation_key_names_the_workspace() -> None:
    async with api(prompts=5) as portkey:
        admin = portkey.sandbox.admin_key
        status, answer = await portkey.ask("GET", "/prompts", key=admin)
        assert (status, code(answer)) == (400, "AB01")
        for ref in ("main", portkey.sandbox.workspace_id()):
            assert (await portkey.ask("GET", f"/prompts?workspace_id={ref}", key=admin))[1]["total"] == 5
        body = await portkey.body()
        assert (await portkey.ask("POST", "/prompts", body, key=admin))[0] == 400
        assert (await portkey.ask("POST", "/prompts", body | {"workspace_id": "main"}, key=admin))[0] == 200
        prompt = portkey.sandbox.prompts()[0]["id"]
        assert (await portkey.ask("GET", f"/prompts/{prompt}", key=admin))[0] == 200
        status, answer = await portkey.ask("POST", f"/prompts/{prompt}/render", {"variables": {}}, key=admin)
        assert (status, code(answer)) == (403, "AB03")
        assert (await portkey.ask("GET", "/prompts?workspace_id=none", key=admin))[0] == 404


async def test_a_scope_that_lacks_is_forbidden() -> None:
    async with api(prompts=3) as portkey:
        reader = portkey.sandbox.key("main", ["prompts.list", "prompts.read"])
        assert reader != portkey.key
        prompt = portkey.sandbox.prompts()[0]["id"]
        assert (await portkey.ask("GET", "/prompts", key=reader))[0] == 200
        assert (await portkey.ask("GET", f"/prompts/{prompt}", key=reader))[0] == 200
        for method, path in (("POST", "/prompts"), ("DELETE", f"/prompts/{prompt}"), ("GET", "/providers")):
            status, answer = await portkey.ask(method, path, {} if method == "POST" else None, key=reader)
            assert (status, code(answer)) == (403, "AB03")
        assert len(portkey.sandbox.prompts()) == 3


async def test_the_data_plane_takes_a_bearer_token() -> None:
    async with api() as portkey:
        path = f"{portkey.sandbox.base_url}/prompts/{portkey.sandbox.add_prompt('x')}/render"
        headers = {"Authorization": f"Bearer {portkey.key}"}
        async with portkey.session.post(path, json={"variables": {}}, headers=headers) as response:
            assert response.status == 200


async def test_collections_that_cannot_be_deleted() -> None:
    async with api() as portkey:
        collections = {doc["slug"]: doc for doc in (await portkey.get("/collections"))["data"]}
        default = next(slug for slug, doc in collections.items() if doc["is_default"])
        assert sum(doc["is_default"] for doc in collections.values()) == 1
        await portkey.create(collection_id="hr")
        for slug, status in ((default, 404), ("hr", 409), ("support", 409), ("sales", 200)):
            assert (await portkey.ask("DELETE", f"/collections/{slug}"))[0] == status
        page = await portkey.get("/collections?current_page=1&page_size=2")
        assert (len(page["data"]), page["total"]) == (2, len(collections) - 1)


async def test_label_names_and_default_labels() -> None:
    async with api() as portkey:
        for name in ("latest", "default", "12", "a b", "", "production"):
            status, _ = await portkey.ask("POST", "/labels", {"name": name})
            assert status == (409 if name == "production" else 400), name
        label = (await portkey.get("/labels?search=stag"))["data"][0]
        assert (await portkey.ask("DELETE", f"/labels/{label['id']}"))[0] == 400
