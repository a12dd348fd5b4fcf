"""Two workspaces: what prompts refer to and the target lacks is made there, once, and taken back."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from engine.sandbox import Quirks, Sandbox
from tests.e2e import promptferry
from tests.pair import ALL, ONE_EACH, Two, planted, two


def test_all_that_they_need_is_made_and_taken_back(tmp_path: Path) -> None:
    with two(tmp_path) as found:
        planted(found, 30)
        before = found.stored()
        assert found.do("run").summary["counts"]["created"] == 30
        assert found.names() == ONE_EACH
        assert found.do("run").summary["counts"]["unchanged"] == 30
        assert found.do("verify", "--render", "--json").json["counts"]["same"] == 30
        homes = {one["id"]: one for one in found.listed("collections")}
        inside = {one["name"]: one["parent_collection_id"] for one in homes.values()}
        assert {homes[inside["Urgent"]]["name"], inside["Care"], inside["Deals"]} == {"Care", None}
        assert Counter(homes[one["collection_id"]]["name"] for one in found.replicas()) == dict.fromkeys(inside, 10)
        (label,) = found.listed("labels")
        assert (label["description"], label["color_code"]) == ("the blue one", "#0000ff")
        assert sum(bool(one["prompt_version_labels"]) for one in found.replicas()) == 6
        assert found.do("rollback", "--yes").code == 0
        assert found.stored() == before


def test_an_answer_that_is_lost_doubles_nothing(tmp_path: Path) -> None:
    with two(tmp_path) as found:
        planted(found, 6)
        for path in ("/collections", "/prompts/partials", "/labels"):
            found.registry.ask(
                lambda sandbox, path=path: sandbox.faults.plan(  # type: ignore[misc]
                    "reset_after", method="POST", path_end=path, times=2
                )
            )
        assert found.do("run").summary["counts"]["created"] == 6
        assert found.names() == ONE_EACH
        hows = Counter(line["how"] for line in found.parts if line["kind"] == "made")
        assert hows == {"lookup": 5, "response": 2}
        assert found.do("rollback", "--yes").code == 0
        assert found.is_as_it_was()


def test_what_was_sent_and_never_came_is_sent_again(tmp_path: Path) -> None:
    """A 500 without effect leaves as much doubt as one with it."""
    with two(tmp_path) as found:
        planted(found, 6)
        found.registry.ask(lambda sandbox: sandbox.faults.chances.update({"500": 0.4}))
        found.do("run")
        found.registry.ask(lambda sandbox: sandbox.faults.chances.clear())
        assert found.do("run", "--retry-failed").code == 0
        assert found.names() == ONE_EACH


def test_a_partial_that_is_listed_late_is_found_by_the_second_look(tmp_path: Path) -> None:
    with two(tmp_path, quirks=Quirks(listing_lag_s=0.7)) as found:
        home = found.collection("Home")
        found.prompt("p", home["id"], f"{{{{>{found.partial('Base', 'text')}}}}}")
        found.registry.ask(
            lambda sandbox: sandbox.faults.plan("reset_after", method="POST", path_end="/prompts/partials")
        )
        found.registry.ask(_listed_at_once)
        assert found.do("run").summary["counts"]["created"] == 1
        assert [one["name"] for one in _all_partials(found)] == ["Base"]


def _listed_at_once(sandbox: Sandbox) -> None:
    """Of the source, not of what is made from now on."""
    store = sandbox._registry.store
    with store.writing():
        store._db.execute("UPDATE templates SET visible_at = 0")


def _all_partials(found: Two) -> list[dict[str, Any]]:
    found.registry.ask(_listed_at_once)
    return found.listed("partials")


# ---- what is said beforehand -----------------------------------------------------------------------------------------


def test_plan_and_check_say_what_would_be_made(tmp_path: Path) -> None:
    with two(tmp_path) as found:
        planted(found, 6)
        plan = found.do("plan", "--json").json
        made = [(one["what"], one["name"], one["prompts"]) for one in plan["made"]]
        assert sorted(made) == [
            ("collection", "Care", 4),
            ("collection", "Deals", 2),
            ("collection", "Urgent", 2),
            ("label", "blue", 2),
            ("partial", "Base", 6),
            ("partial", "Middle", 4),
            ("partial", "Top", 2),
        ]
        assert made.index(("collection", "Care", 4)) < made.index(("collection", "Urgent", 2))
        assert [one[1] for one in made if one[0] == "partial"] == ["Base", "Middle", "Top"]
        assert not [one["problem"] for one in plan["prompts"] if one["problem"]]
        text = found.do("plan").out
        assert "make partial Middle (pl-middle-" in text
        checked = found.do("check")
        assert checked.code == 0
        assert checked.out.count("is not in the target workspace: a run makes it first") == 7
        found.write(create_missing=[])
        assert found.do("check").code == 4
        without = found.do("plan", "--json").json
        assert without["made"] == []
        assert plan["requests"] > without["requests"] + 7
        assert found.is_as_it_was()


def test_a_probe_tries_prompts_whose_collection_is_still_to_be_made(tmp_path: Path) -> None:
    with two(tmp_path) as found:
        body = {"name": "p", "string": "Hi", "model": "gpt-4o", "virtual_key": "anthropic-prod"}
        home = found.collection("Home")["id"]
        found.source("POST", "/prompts", {**body, "collection_id": home, "parameters": {"top_k": 5}})
        end = {"kind": "portkey", "base_url": found.registry.base_url, "api_key": "${THERE}"}
        found.write(target={**end, "gateway_key": "${THERE}"})
        (refused,) = found.do("check", "--probe", "--json").json["probe"]["refused"]
        assert (refused["path"], refused["mended_by"]) == ("top_k", "{drop: [top_k]}")


def test_a_run_makes_what_a_plan_has_and_no_more(tmp_path: Path) -> None:
    with two(tmp_path) as found:
        planted(found, 6)
        plan = tmp_path / "plan.json"
        assert found.do("plan", "--out", plan).code == 0
        assert promptferry("approve", plan, "--as", "Ada", cwd=tmp_path).code == 0
        found.prompt("late", found.collection("Afterwards")["id"], "Hi")
        asked = ("--plan", plan, "--require-approvals", "1")
        approved = plan.read_text()
        plan.write_text(approved.replace('["label", "blue"]', '["label", "bluf"]'))
        assert found.do("run", *asked).code == 4, "an approval holds for what is made, too"
        plan.write_text(approved)
        assert found.do("run", *asked).summary["this_run"]["created"] == 6
        assert found.names() == ONE_EACH
        assert found.do("run", "--plan", plan).summary["counts"]["conflicts"] == 0


def test_a_plan_is_followed_though_a_part_of_it_was_made_meanwhile(tmp_path: Path) -> None:
    with two(tmp_path) as found:
        planted(found, 6)
        plan = tmp_path / "plan.json"
        assert found.do("plan", "--out", plan).code == 0
        assert found.do("run", "--plan", plan, "--limit", "2").summary["this_run"]["created"] == 2
        assert found.do("run", "--plan", plan).summary["this_run"]["created"] == 4


# ---- what is not made ------------------------------------------------------------------------------------------------


def test_partials_in_a_circle_are_an_error_before_anything_is_written(tmp_path: Path) -> None:
    with two(tmp_path) as found:
        first = found.partial("First", "x")
        second = found.partial("Second", f"{{{{>{first}}}}}")
        found.source("PUT", f"/prompts/partials/{first}", {"string": f"{{{{>{second}}}}}"})
        found.source("PUT", f"/prompts/partials/{first}/makeDefault", {"version": 2})
        found.prompt("p", found.collection("Home")["id"], f"{{{{>{second}}}}}")
        ended = found.do("run")
        assert (ended.code, ended.reason) == (4, "check_failed")
        assert f"'{first}' -> '{second}' -> '{first}'" in ended.summary["message"]
        assert found.is_as_it_was()
        checked = found.do("check")
        assert (checked.code, f"'{first}'" in checked.out, "Traceback" in checked.err) == (4, True, False)


def test_what_cannot_be_made_fails_its_prompts_by_name_and_no_others(tmp_path: Path) -> None:
    with two(tmp_path) as found:
        home = found.collection("Home")["id"]
        found.prompt("good", home, "Hi")
        found.prompt("bad", home, f"{{{{>{found.partial('Half', '{{>nowhere}}')}}}}}")
        summary = found.do("run").summary
        assert (summary["counts"]["created"], summary["counts"]["failed"]) == (1, 1)
        (failed,) = found.do("status", "--json", "--failed").json["failed"]
        assert "could not be made in the target workspace: partial 'nowhere' is not in" in failed["message"]
        assert found.names()["partials"] == {}
        assert "cannot be made: partial 'nowhere'" in found.do("check").out


def test_a_pin_to_the_published_version_stays_one_and_another_fails_by_name(tmp_path: Path) -> None:
    with two(tmp_path) as found:
        slug, home = found.partial("Base", "old"), found.collection("Home")["id"]
        found.source("PUT", f"/prompts/partials/{slug}", {"string": "new"})
        found.source("PUT", f"/prompts/partials/{slug}/makeDefault", {"version": 2})
        found.prompt("new", home, f"{{{{>{slug}@2}}}}")
        found.prompt("old", home, f"{{{{>{slug}@1}}}}")
        assert found.do("run").summary["counts"]["created"] == 1
        (failed,) = found.do("status", "--json", "--failed").json["failed"]
        assert "is pinned to @1, and of what is made only the published version is there, 2" in failed["message"]
        (replica,), (partial,) = found.replicas(), found.listed("partials")
        assert replica["string"] == f"{{{{>{partial['slug']}@1}}}}"
        assert found.target("GET", f"/prompts/partials/{partial['slug']}")["string"] == "new"
        assert found.do("verify", "--render").code == 0


def test_collections_of_one_name_are_told_apart_by_those_that_they_lie_in(tmp_path: Path) -> None:
    with two(tmp_path) as found:
        for name in ("North", "South"):
            inside = found.collection("Drafts", found.collection(name)["id"])
            found.prompt(f"of {name}", inside["id"], "Hi")
        assert found.do("run").code == 0
        homes = {one["id"]: one for one in found.listed("collections")}
        lies_in = {
            one["name"]: homes[homes[one["collection_id"]]["parent_collection_id"]]["name"] for one in found.replicas()
        }
        assert lies_in == {"of North": "North", "of South": "South"}
        (tmp_path / "ledger.jsonl").rename(tmp_path / "lost")
        assert found.do("run").code == 0
        assert len(found.listed("collections")) == 4


def test_somebody_elses_of_that_name_is_used_and_stays(tmp_path: Path) -> None:
    with two(tmp_path) as found:
        planted(found, 6)
        theirs = found.target("POST", "/collections", {"name": "Care"})["id"]
        base = found.target("POST", "/prompts/partials", {"name": "Base", "string": "ours"})["id"]
        assert found.do("run").summary["counts"]["created"] == 6
        assert found.names() == ONE_EACH
        urgent = next(one for one in found.listed("collections") if one["name"] == "Urgent")
        assert urgent["parent_collection_id"] == theirs
        assert found.do("rollback", "--yes").code == 0
        assert [one["id"] for what in ALL for one in found.listed(what)] == [theirs, base]


def test_nothing_is_made_in_the_same_workspace(tmp_path: Path) -> None:
    with two(tmp_path) as found:
        planted(found, 3)
        found.write(target=None, rewrite={})
        assert found.do("run").summary["counts"]["created"] == 3
        assert found.parts == []
        assert found.is_as_it_was()


def test_what_the_file_asks_for_later_is_made_then(tmp_path: Path) -> None:
    with two(tmp_path) as found:
        found.prompt("p", found.collection("Home")["id"], "Hi")
        found.write(create_missing=["partials", "labels"])
        assert found.do("run").summary["counts"]["failed"] == 1
        found.write()
        assert found.do("run").summary["counts"]["created"] == 1


# ---- taken back ------------------------------------------------------------------------------------------------------


def test_what_somebody_uses_or_edited_since_is_kept_and_said(tmp_path: Path) -> None:
    with two(tmp_path) as found:
        planted(found, 6)
        assert found.do("run").code == 0
        partials = {one["name"]: one["slug"] for one in found.listed("partials")}
        homes = {one["name"]: one["id"] for one in found.listed("collections")}
        body = {"parameters": {}, "model": "gpt-4o", "virtual_key": "openai-prod"}
        text = f"Hi {{{{>{partials['Middle']}}}}}"
        found.target("POST", "/prompts", {**body, "name": "theirs", "collection_id": homes["Urgent"], "string": text})
        found.target("PUT", f"/collections/{homes['Deals']}", {"name": "Bargains"})
        dry = found.do("rollback", "--dry-run", "--json")
        done = found.do("rollback", "--yes", "--json")
        assert (dry.code, done.code) == (1, 1)
        assert done.json["counts"]["deleted"] == 6
        results = {one["name"]: one["result"] for one in done.json["made"]}
        assert results == {one["name"]: one["result"] for one in dry.json["made"]}
        assert results == {
            **dict.fromkeys(("Care", "Urgent", "Deals", "Base", "Middle"), "kept"),
            **dict.fromkeys(("Top", "blue"), "deleted"),
        }
        said = {one["name"]: one["message"] for one in done.json["made"]}
        assert said["Middle"] == "it is used by theirs; it stays as it is"
        assert said["Base"] == "it is used by Middle; it stays as it is"
        assert said["Care"] == "it is used by Urgent; it stays as it is"
        assert said["Deals"] == "it was edited since; it stays as it is"
        (theirs,) = found.replicas()
        found.target("DELETE", f"/prompts/{theirs['id']}")
        assert found.do("rollback", "--yes", "--json").json["counts"]["deleted"] == 0
        assert found.names() == {"collections": {"Bargains": 1}, "partials": {}, "labels": {}}


def test_a_draft_of_a_partial_or_a_label_on_somebody_elses_keeps_them(tmp_path: Path) -> None:
    with two(tmp_path) as found:
        planted(found, 6)
        home = found.before["collections"][0]["id"]
        body = {"name": "theirs", "collection_id": home, "string": "Hi", "parameters": {}, "model": "gpt-4o"}
        made = found.target("POST", "/prompts", {**body, "virtual_key": "openai-prod"})
        assert found.do("run").code == 0
        partials = {one["name"]: one["slug"] for one in found.listed("partials")}
        found.target("PUT", f"/prompts/partials/{partials['Top']}", {"string": "a draft"})
        (label,) = found.listed("labels")
        found.target("PUT", f"/prompts/{made['id']}/versions/{made['version_id']}", {"label_id": label["id"]})
        results = {one["name"]: one["result"] for one in found.do("rollback", "--yes", "--json").json["made"]}
        assert {name for name, result in results.items() if result == "kept"} == {"blue", "Top", "Middle", "Base"}


def test_a_part_of_the_prompts_taken_back_leaves_what_the_others_need(tmp_path: Path) -> None:
    with two(tmp_path) as found:
        planted(found, 6)
        assert found.do("run").code == 0
        assert found.do("rollback", "--yes", "--only", "p0").code == 0
        assert found.names() == ONE_EACH
        assert found.do("run").summary["this_run"]["created"] == 1
        assert found.do("rollback", "--yes", "--run", "last").code == 0
        assert found.names() == ONE_EACH
        assert found.do("rollback", "--yes").code == 0
        assert found.is_as_it_was()


def test_after_a_rollback_it_is_made_again(tmp_path: Path) -> None:
    with two(tmp_path) as found:
        planted(found, 6)
        for _ in range(2):
            assert found.do("run").summary["counts"]["created"] == 6
            assert found.names() == ONE_EACH
            assert found.do("rollback", "--yes").code == 0
            assert found.is_as_it_was()


def test_what_was_deleted_by_hand_is_made_again(tmp_path: Path) -> None:
    with two(tmp_path) as found:
        slug, home = found.partial("Base", "text"), found.collection("Home")["id"]
        found.prompt("first", home, f"{{{{>{slug}}}}}")
        assert found.do("run").code == 0
        (made,) = found.listed("partials")
        found.target("DELETE", f"/prompts/partials/{made['id']}")
        found.prompt("second", home, f"{{{{>{slug}}}}} again")
        found.do("run")
        assert found.names()["partials"] == {"Base": 1}
        assert found.names()["collections"] == {"Home": 1}


def test_a_compacted_ledger_knows_what_was_made(tmp_path: Path) -> None:
    with two(tmp_path) as found:
        planted(found, 6)
        assert found.do("run").code == 0
        assert promptferry("ledger", "compact", "ledger.jsonl", cwd=tmp_path).code == 0
        assert found.do("run").summary["counts"]["unchanged"] == 6
        assert found.do("ids").code == found.do("status").code == 0
        assert found.do("rollback", "--yes").code == 0
        assert found.is_as_it_was()


def test_no_text_of_a_partial_reaches_ledger_or_log(tmp_path: Path) -> None:
    with two(tmp_path) as found:
        slug = found.partial("Base", "canary 5f1c", version_description="canary 5f1c too")
        found.prompt("p", found.collection("Home")["id"], f"{{{{>{slug}}}}}")
        found.registry.ask(lambda sandbox: sandbox.faults.plan("500", method="POST", path_end="/prompts/partials"))
        told = [found.do("check"), found.do("plan", "--json"), found.do("run", "--log-level", "debug")]
        written = "".join(ended.out + ended.err for ended in told) + (tmp_path / "ledger.jsonl").read_text()
        assert "canary" not in written


# ---- other ways ------------------------------------------------------------------------------------------------------


def test_what_only_an_earlier_version_needs_is_made_too(tmp_path: Path) -> None:
    with two(tmp_path) as found:
        home, slug = found.collection("Home")["id"], found.partial("Base", "text")
        prompt = found.prompt("p", home, f"{{{{>{slug}}}}}", found.source("POST", "/labels", {"name": "blue"})["id"])
        found.registry.edit(prompt, string="no partial any more")
        found.write(select={"version": "all"})
        assert found.do("run").summary["counts"]["created"] == 1
        assert found.names() == {"collections": {"Home": 1}, "partials": {"Base": 1}, "labels": {"blue": 1}}
        assert {line["kind"] for line in found.parts} == {"intent", "made"}
        assert found.do("rollback", "--yes").code == 0
        assert found.is_as_it_was()


def test_the_key_of_an_organisation_names_both_workspaces(tmp_path: Path) -> None:
    with two(tmp_path) as found:
        planted(found, 6)
        admin = found.registry.ask(lambda sandbox: sandbox.admin_key)
        end = {"kind": "portkey", "base_url": found.registry.base_url, "api_key": "${ADMIN}"}
        found.write(source={**end, "workspace": "main"}, target={**end, "workspace": "second"})
        env = {"ADMIN": admin}
        assert promptferry("run", "m.yaml", cwd=tmp_path, env=env).summary["counts"]["created"] == 6
        assert found.names() == ONE_EACH
        assert promptferry("rollback", "m.yaml", "--yes", cwd=tmp_path, env=env).code == 0
        assert found.is_as_it_was()


def test_collections_of_files_are_made_by_their_names(tmp_path: Path) -> None:
    with two(tmp_path) as found:
        (tmp_path / "prompts").mkdir()
        text = "---\nname: greeting\nmodel: gpt-4o\ncollection: Letters\nprovider: openai-prod\n---\nHi {{>tone}}\n"
        (tmp_path / "prompts" / "greeting.md").write_text(text.replace(" {{>tone}}", ""))
        (tmp_path / "prompts" / "other.md").write_text(text.replace("greeting", "other"))
        found.write(source={"kind": "files", "path": "prompts"}, rewrite={"name": "{name}", "provider": "openai-prod"})
        summary = found.do("run").summary
        assert (summary["counts"]["created"], summary["counts"]["failed"]) == (1, 1), found.do("status", "--failed").out
        assert found.names() == {"collections": {"Letters": 1}, "partials": {}, "labels": {}}


def test_partials_of_one_name_stay_two(tmp_path: Path) -> None:
    with two(tmp_path) as found:
        home = found.collection("Home")["id"]
        first, second = found.partial("Tone", "be kind"), found.partial("Tone", "be brief")
        found.prompt("p", home, f"{{{{>{first}}}}} {{{{>{second}}}}}")
        found.registry.ask(
            lambda sandbox: sandbox.faults.plan("reset_after", method="POST", path_end="/prompts/partials", times=2)
        )
        assert found.do("run").code == 0
        assert found.names()["partials"] == {"Tone": 2}
        assert found.do("verify", "--render").code == 0
