"""`verify`: every replica is read back, rendered and called; what is not as it should be is named by its field."""

from __future__ import annotations

import json
import signal
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest

from engine.ledger.lines import RESERVED, Chain, encode_line, seal, timestamp
from engine.model import Entry
from engine.sandbox import Quirks, Sandbox, SandboxOptions
from tests.e2e import Ended, lines, promptferry, served, started, wait_for_lines, write_migration
from tests.e2e import Place as Migrated

MANY: Final = 500
FEW: Final = 26
"""Two of each shape that the library has."""
TEXTS: Final = ("You are a ", " assistant of the ", "{{", "tampered with", "canned answer")
"""What templates and answers of models have, and nothing else."""
TOOL: Final = {"type": "function", "function": {"name": "find_customer"}}

Prompt = dict[str, Any]


@dataclass(frozen=True)
class Place(Migrated):
    """A migration in a registry, and everything that its commands have printed."""

    ended: list[Ended] = field(default_factory=list)

    def ask(self, command: str, *flags: str | Path, **env: str) -> Ended:
        keys = {"KEY": self.registry.api_key, **env}
        self.ended.append(promptferry(command, self.path, *flags, cwd=self.path.parent, env=keys))
        return self.ended[-1]

    def verify(self, *flags: str | Path, **env: str) -> Ended:
        return self.ask("verify", *flags, **env)

    def change_file(self, **parts: Any) -> None:
        write_migration(self.path.parent, self.registry.base_url, **parts)

    def replicas(self) -> dict[str, Prompt]:
        """Id of the source -> its replica, as the registry has it."""
        marked = [one for one in self.registry.prompts() if "promptferry" in one["template_metadata"]]
        return {one["template_metadata"]["promptferry"]["source_id"]: one for one in marked}

    def with_section(self) -> Prompt:
        """An original with a section, and something else where that has nothing."""
        return next(one for one in self.originals() if "{{#products}}" in one["string"])

    def verified(self) -> list[dict[str, Any]]:
        return [line for line in lines(self.ledger) if line["kind"] == "verified"]

    def requests(self) -> int:
        return self.registry.ask(lambda sandbox: len(sandbox.requests))

    def a_day_later(self) -> None:
        """The ledger is a day older: a difference is believed at once where no read can be stale any more."""
        chain, data = Chain(), b""
        for line in lines(self.ledger):
            entry = Entry(line["kind"], {name: line[name] for name in line.keys() - RESERVED})
            before = datetime.fromisoformat(line["ts"]) - timedelta(days=1)
            batch, chain = seal([encode_line(entry)], chain, ts=timestamp(before.timestamp()), run=line["run"])
            data += batch
        self.ledger.write_bytes(data)

    def silent(self) -> None:
        """Neither a template nor an answer nor the key in what was printed or is in the ledger."""
        written = [self.ledger.read_text(), *(one.out + one.err for one in self.ended)]
        for text in (*TEXTS, self.registry.api_key):
            assert not [place for place in written if text in place], text


@contextmanager
def migrated(folder: Path, count: int, **parts: Any) -> Iterator[Place]:
    """A library that has been replicated, a day ago."""
    with served(SandboxOptions(prompts=count)) as registry:
        found = Place(registry, write_migration(folder, registry.base_url, **parts))
        assert found.ask("run").code == 0
        found.a_day_later()
        yield found
        found.silent()


@pytest.fixture(scope="module")
def unaltered(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """For all who change nothing at the server."""
    with migrated(tmp_path_factory.mktemp("unaltered"), FEW) as found:
        yield found


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with migrated(tmp_path, FEW) as found:
        yield found


def results(ended: Ended) -> dict[str, tuple[str, list[str]]]:
    """Id of the source -> result and fields, of all that are not `same`."""
    found = {one["source_id"]: (one["result"], one["fields"]) for one in ended.json["prompts"]}
    assert ended.json["counts"] == {
        name: sum(result == name for result, _ in found.values())
        for name in ("same", "differs", "missing", "source_changed")
    }
    return {source_id: one for source_id, one in found.items() if one[0] != "same"}


# ---- reading back ----------------------------------------------------------------------------------------------------


def alterations(place: Place) -> dict[str, tuple[str, list[str]]]:
    """Alters ten replicas at the server, each in another way; id of the source -> what is to be said of it."""
    edit, call = place.registry.edit, place.registry.call
    ten = [(one, place.replicas()[one["id"]]) for one in place.plain(9)]
    armed = next(one for one in place.originals() if one["tools"])
    (text, tools, parameter, model, provider, raw, metadata, collection, gone) = (replica for _, replica in ten)
    elsewhere = next(
        one["collection_id"] for one in place.originals() if one["collection_id"] != collection["collection_id"]
    )
    edit(text["id"], string=text["string"][:-1] + "~")
    edit(tools["id"], tools=[TOOL])
    edit(place.replicas()[armed["id"]]["id"], tool_choice="none")
    edit(parameter["id"], parameters={**parameter["parameters"], "temperature": 0.123})
    edit(model["id"], model="another-model")
    edit(
        provider["id"],
        virtual_key=next(one for one in ("openai-prod", "bedrock-prod") if one != provider["virtual_key"]),
    )
    edit(raw["id"], is_raw_template=1)
    edit(metadata["id"], template_metadata={**metadata["template_metadata"], "owner": "somebody"})
    call("PUT", f"/prompts/{collection['id']}", {"collection_id": elsewhere})
    call("DELETE", f"/prompts/{gone['id']}")
    fields = ("string", "tools", "parameters.temperature", "model", "provider", "raw", "metadata", "collection")
    said = {one["id"]: ("differs", [name]) for (one, _), name in zip(ten, fields, strict=False)}
    return {**said, armed["id"]: ("differs", ["tool_choice"]), ten[-1][0]["id"]: ("missing", ["deleted"])}


def test_ten_altered_replicas_are_named_with_their_field(tmp_path: Path) -> None:
    with migrated(tmp_path, MANY) as place:
        before = place.requests()
        clean = place.verify("--json")
        assert (clean.code, results(clean)) == (0, {})
        assert len(clean.json["prompts"]) == len(place.verified()) == MANY
        # each end once for each prompt, and the listings
        assert 2 * MANY < place.requests() - before <= 2 * MANY + 30

        altered = alterations(place)
        assert len(altered) == 10
        found = place.verify("--json")
        assert (found.code, results(found)) == (3, altered)
        told = place.verified()[MANY:]
        assert {one["source_id"]: (one["result"], one["fields"]) for one in told if one["result"] != "same"} == altered
        assert len({one["source_id"] for one in told}) == len(told) == MANY

        replicas = {one["source_id"]: one["target_id"] for one in told}
        names = {one["id"]: one["name"] for one in place.originals()}
        said = place.verify()
        *differing, total = said.out.splitlines()
        assert said.code == 3
        assert sorted(differing) == sorted(
            f"{result.upper()} {names[source_id]} ({replicas[source_id]}): {field}"
            for source_id, (result, (field,)) in altered.items()
        )
        assert total == "500 replicas compared: 490 same, 9 differs, 1 missing"


def test_a_verify_that_was_killed_is_made_again(tmp_path: Path) -> None:
    with migrated(tmp_path, 100) as place:
        altered = alterations(place)
        for more in (1, 40):
            with started("verify", place.path, cwd=tmp_path, env={"KEY": place.registry.api_key}) as process:
                assert wait_for_lines(place.ledger, len(lines(place.ledger)) + more, process)
                process.kill()
                assert process.wait() == -signal.SIGKILL
        assert len(place.verified()) < 200
        found = place.verify("--json")
        assert (found.code, results(found)) == (3, altered)
        assert len(found.json["prompts"]) == 100


def test_what_somebody_changed_at_the_source_is_no_difference_of_the_replica(place: Place) -> None:
    text, name, both, gone = place.plain(4)
    place.registry.edit(text["id"], string=text["string"] + " And tampered with.")
    place.registry.call("PUT", f"/prompts/{name['id']}", {"name": "another name"})
    place.registry.edit(both["id"], string="tampered with {{name}}", model="another-model")
    place.registry.call("DELETE", f"/prompts/{gone['id']}")
    found = place.verify("--json")
    assert (found.code, results(found)) == (
        0,
        {
            text["id"]: ("source_changed", ["string"]),
            name["id"]: ("source_changed", ["name"]),
            both["id"]: ("source_changed", ["model", "string"]),
            gone["id"]: ("source_changed", ["deleted"]),
        },
    )
    rendered = place.verify("--render", "--json")
    assert rendered.code == 0
    assert {source_id: result for source_id, (result, _) in results(rendered).items()} == dict.fromkeys(
        (text["id"], name["id"], both["id"], gone["id"]), "source_changed"
    )


Edit = Callable[[Place, Prompt], object]
EDITS: Final[dict[str, Edit]] = {
    "string": lambda place, one: place.registry.edit(one["id"], string="tampered with {{name}}"),
    "name": lambda place, one: place.registry.call("PUT", f"/prompts/{one['id']}", {"name": "by somebody"}),
    "collection": lambda place, one: place.registry.call(
        "PUT", f"/prompts/{one['id']}", {"collection_id": "escalations"}
    ),
    "deleted": lambda place, one: place.registry.call("DELETE", f"/prompts/{one['id']}"),
}


def test_a_source_that_changed_hides_no_edit_of_its_replica(place: Place) -> None:
    chosen = place.plain(len(EDITS))
    for one, edit in zip(chosen, EDITS.values(), strict=True):
        edit(place, place.replicas()[one["id"]])
        place.registry.edit(one["id"], string=one["string"] + " And tampered with.")
    found = place.verify("--json")
    assert (found.code, results(found)) == (
        3,
        {
            one["id"]: ("missing" if name == "deleted" else "differs", [name])
            for one, name in zip(chosen, EDITS, strict=True)
        },
    )


def test_a_source_that_is_gone_hides_no_edit_of_its_replica(place: Place) -> None:
    chosen = place.plain(len(EDITS))
    for one, edit in zip(chosen, EDITS.values(), strict=True):
        edit(place, place.replicas()[one["id"]])
        place.registry.call("DELETE", f"/prompts/{one['id']}")
    found = place.verify("--json")
    assert found.code == 3
    assert {source_id: result for source_id, (result, _) in results(found).items()} == {
        one["id"]: "missing" if name == "deleted" else "differs" for one, name in zip(chosen, EDITS, strict=True)
    }


def test_a_second_replica_that_came_late_is_found(place: Place) -> None:
    (one,) = place.plain(1)
    first = place.replicas()[one["id"]]
    fields = {name: first[name] for name in ("string", "parameters", "model", "virtual_key", "template_metadata")}
    late = place.registry.ask(
        lambda sandbox: sandbox.add_prompt(first["name"], collection=first["collection_id"], **fields)
    )
    other = place.registry.ask(lambda sandbox: sandbox.add_prompt(first["name"], "tampered with {{name}}"))
    found = place.verify("--json")
    assert (found.code, results(found)) == (3, {one["id"]: ("differs", [f"second replica {late}"])})
    assert other not in found.out


def test_stale_reads_are_waited_for(tmp_path: Path) -> None:
    """Somebody put the replica right a moment ago, and the next two reads of it still are what it was before."""
    seen: deque[Any] = deque()
    path = ""
    begun = time.time()

    def clock() -> float:
        return begun + sum(one.path == path for one in seen) if path else begun

    def watched(sandbox: Sandbox) -> deque[Any]:
        return sandbox.requests

    options = SandboxOptions(prompts=FEW, clock=clock, quirks=Quirks(stale_reads_s=2))
    with served(options) as registry:
        place = Place(registry, write_migration(tmp_path, registry.base_url))
        assert place.ask("run").code == 0
        replica = place.replicas()[place.plain(1)[0]["id"]]
        registry.edit(replica["id"], string="tampered with {{name}}")
        seen = registry.ask(watched)
        seen.clear()
        path = f"/v1/prompts/{replica['id']}"
        registry.call("PUT", f"/prompts/{replica['id']}/makeDefault", {"version": 1})
        found = place.verify("--json")
        assert (found.code, results(found)) == (0, {})
        assert sum(one.path == path for one in seen) == 3
        place.silent()


def test_only_what_was_chosen_is_verified(unaltered: Place) -> None:
    first, second, third, *_ = unaltered.originals()
    (unaltered.path.parent / "ids.txt").write_text(f"{second['id']}\n{third['slug']}\n")
    sales = next(one for one in unaltered.registry.call("GET", "/collections")["data"] if one["slug"] == "sales")
    chosen: dict[tuple[str, ...], set[str]] = {
        ("--only", first["id"], "--only", "hr-*"): {first["id"]}
        | {one["id"] for one in unaltered.originals() if one["name"].startswith("hr-")},
        ("--ids-file", "ids.txt"): {second["id"], third["id"]},
        **{
            ("--collection", word): {one["id"] for one in unaltered.originals() if one["collection_id"] == sales["id"]}
            for word in (sales["slug"], sales["id"])
        },
    }
    for flags, wanted in chosen.items():
        before = len(unaltered.verified())
        found = unaltered.verify(*flags, "--json")
        assert 0 < len(wanted) < FEW
        assert (found.code, {one["source_id"] for one in found.json["prompts"]}) == (0, wanted)
        assert {line["source_id"] for line in unaltered.verified()[before:]} == wanted


def test_flags_that_take_none_say_so_and_prove_nothing(unaltered: Place) -> None:
    said = f"--only takes none of the {len(unaltered.originals())} prompts that were written"
    found = unaltered.verify("--only", "typo-*", "--json")
    assert (found.code, found.json["prompts"], found.json["notes"]) == (3, [], [said])
    sales = next(one for one in unaltered.registry.call("GET", "/collections")["data"] if one["slug"] == "sales")
    of_sales = [one["id"] for one in unaltered.originals() if one["collection_id"] == sales["id"]]
    for verb, *flags in (("publish", "--yes"), ("rollback", "--dry-run"), ("ids",), ("status",)):
        found = unaltered.ask(verb, *flags, "--only", "typo-*", "--collection", sales["id"])
        assert (found.code, "note: --only and --collection take none of the" in found.out + found.err) == (0, True)
        found = unaltered.ask(verb, *flags, "--collection", sales["id"], "--json")
        assert "none of the" not in found.out + found.err
        if verb != "publish":  # nothing is staged
            told = found.json["counts"]["selected"] if verb == "status" else len(results_of(found.json))
            assert told == len(of_sales)
    planned = unaltered.ask("plan", "--only", "typo-*", "--json")
    assert planned.code == 0
    assert planned.json["notes"] == [f"--only takes none of the {len(unaltered.originals())} selected prompts"]


def results_of(told: Any) -> list[Any]:
    """Of `ids` the pairs, of `rollback` the prompts."""
    return list(told if isinstance(told, list) else told["prompts"])


def test_a_registry_that_is_down_while_cases_are_written_is_asked_again_later(tmp_path: Path) -> None:
    with served(SandboxOptions(prompts=2)) as registry:
        path = write_migration(tmp_path, registry.base_url, limits={"rate": 2000, "settle": "0.5s", "attempts": 2})
        place = Place(registry, path)
        assert place.ask("run").code == 0
        one = place.originals()[0]["id"]
        registry.ask(lambda sandbox: sandbox.faults.plan("503", method="GET", path_end=one, times=9))
        ended = place.verify("--write-cases", "never.jsonl")
        assert (ended.code, ended.out) == (75, "")
        assert f"the variables of {place.originals()[0]['name']} could not be read" in ended.sentence()
        assert not (tmp_path / "never.jsonl").exists()


def test_of_a_whole_history_every_version_is_compared(tmp_path: Path) -> None:
    with served(SandboxOptions(prompts=0)) as registry:
        sources = registry.ask(lambda sandbox: [sandbox.add_prompt(name) for name in "abcd"])
        for count, source in enumerate(sources, start=2):
            for number in range(2, count + 1):
                registry.edit(source, string=f"tampered with {number} {{{{name}}}}", publish=number == 2)
        place = Place(registry, write_migration(tmp_path, registry.base_url, select={"version": "all"}))
        assert place.ask("run").code == 0
        place.a_day_later()
        clean = place.verify("--json")
        assert (clean.code, results(clean)) == (0, {})

        replicas = place.replicas()
        # a description goes to the newest version, which is not the published one
        registry.call("PUT", f"/prompts/{replicas[sources[3]]['id']}", {"version_description": "by somebody"})
        registry.call("PUT", f"/prompts/{replicas[sources[2]]['id']}", {"name": "by somebody"})
        registry.call("PUT", f"/prompts/{replicas[sources[1]]['id']}/makeDefault", {"version": 1})
        found = place.verify("--json")
        assert found.code == 3
        said = results(found)
        assert said.keys() == set(sources[1:])
        assert said[sources[3]] == ("differs", ["version_description (version 5)"])
        assert said[sources[2]] == ("differs", ["name"])
        assert said[sources[1]] == ("differs", ["string"])
        place.silent()


# ---- rendering -------------------------------------------------------------------------------------------------------


def test_what_the_rules_drop_is_no_difference_and_a_lost_section_is(tmp_path: Path) -> None:
    rules = {
        "model": "gpt-4o",
        "provider": "openai-prod",
        "parameters": {"drop": ["thinking"], "rename": {"max_tokens": "max_completion_tokens"}},
    }
    with migrated(tmp_path, FEW, rewrite=rules) as place:
        clean = place.verify("--render", "--json")
        assert (clean.code, results(clean)) == (0, {})
        assert any("thinking" in one["parameters"] for one in place.originals())
        rendered = Counter(
            one.path.rpartition("/")[2] for one in place.registry.ask(lambda sandbox: list(sandbox.requests))
        )
        assert (rendered["render"], rendered["completions"]) == (2 * FEW, 0)

        one = place.with_section()
        replica = place.replicas()[one["id"]]
        lost = replica["string"].partition("{{#products}}")[0] + replica["string"].partition("{{/products}}")[2]
        place.registry.edit(replica["id"], string=lost)
        dropped = place.plain(1)[0]
        other = place.replicas()[dropped["id"]]
        place.registry.edit(other["id"], parameters={**other["parameters"], "temperature": 0.123})
        found = place.verify("--render", "--json")
        assert (found.code, results(found)) == (
            3,
            {
                one["id"]: ("differs", ["string", "render.prompt"]),
                dropped["id"]: ("differs", ["parameters.temperature", "render.temperature"]),
            },
        )


def test_variables_come_from_the_file_of_cases(place: Place) -> None:
    """The replica differs only where there are no products, which no made-up value shows."""
    written = place.verify("--write-cases", "cases.jsonl")
    cases = place.path.parent / "cases.jsonl"
    skeleton = [json.loads(line) for line in cases.read_text().splitlines()]
    assert (written.code, len(skeleton)) == (0, FEW)
    one = place.with_section()
    (own,) = (case for case in skeleton if case["prompt"] in (one["id"], one["slug"]))
    assert own["variables"]["products"] == []
    assert place.verified() == []

    replica = place.replicas()[one["id"]]
    place.registry.edit(replica["id"], string=replica["string"].replace("No products.", "tampered with"))
    assert results(place.verify("--render", "--json")) == {one["id"]: ("differs", ["string"])}

    filled = [{**own, "label": "none"}, {**own, "label": "one", "variables": {"products": [{"name": "a", "price": 1}]}}]
    cases.write_text("".join(f"{json.dumps(case)}\n" for case in filled))
    place.change_file(verify={"cases": "cases.jsonl"})
    found = place.verify("--render", "--json")
    assert (found.code, results(found)) == (3, {one["id"]: ("differs", ["string", "render.prompt [none]"])})

    again = place.verify("--write-cases", "cases.jsonl")
    assert (again.code, len(cases.read_text().splitlines())) == (2, 2)
    assert "cases.jsonl" in again.sentence()


# ---- completions -----------------------------------------------------------------------------------------------------


def test_replicas_are_called_and_what_they_answered_is_kept_without_a_word_of_it(unaltered: Place) -> None:
    count = 8
    asked, told = unaltered.requests(), len(unaltered.verified())
    found = unaltered.verify("--completions", str(count), "--json")
    assert (found.code, results(found)) == (0, {})
    called = {one["target_id"]: one["completions"] for one in found.json["prompts"] if one["completions"]}
    assert len(called) == count
    models = {one["id"]: one["model"] for one in unaltered.replicas().values()}
    assert {models[target_id] for target_id in called} == set(models.values())
    for target_id, completions in called.items():
        assert [one["how"] for one in completions] == ["plain", "streamed", "plain @1", "streamed @latest"]
        for one in completions:
            assert (one["answered"], one["error"], one["finish_reason"]) == (True, None, "stop")
            assert one["model"] == models[target_id]
            assert one["seconds"] >= 0
            assert (one["tokens"] is None) is one["how"].startswith("streamed")  # the sandbox counts only plain ones
    paths = [one.path for one in unaltered.registry.ask(lambda sandbox: list(sandbox.requests))[asked:]]
    assert sum(path.endswith("/completions") for path in paths) == 4 * count
    kept = {line["target_id"]: line["completions"] for line in unaltered.verified()[told:] if "completions" in line}
    assert kept == called
    assert f"{4 * count} completions of {count} prompts" in found.err


def test_a_stored_stream_flag_is_answered_in_every_way(unaltered: Place) -> None:
    one = next(one for one in unaltered.originals() if one["parameters"].get("stream"))
    found = unaltered.verify("--completions", "1", "--only", one["id"])
    assert found.code == 0
    for how in ("plain:", "streamed:", "plain @1:", "streamed @latest:"):
        (line,) = (line for line in found.out.splitlines() if line.strip().startswith(how))
        assert "answered in" in line


def test_a_replica_that_is_not_answered_differs(place: Place) -> None:
    one, *_ = place.plain(1)
    replica = place.replicas()[one["id"]]
    place.registry.ask(lambda sandbox: sandbox.faults.plan("500", path_end=f"{replica['id']}@1/completions", times=99))
    found = place.verify("--completions", "1", "--only", one["id"], "--json")
    assert (found.code, results(found)) == (3, {one["id"]: ("differs", ["completions.plain @1"])})


def test_many_calls_need_a_yes(unaltered: Place) -> None:
    before, lines_before, told = unaltered.requests(), len(lines(unaltered.ledger)), len(unaltered.verified())
    refused = unaltered.verify("--completions", "13")
    assert (refused.code, unaltered.requests(), len(lines(unaltered.ledger))) == (2, before, lines_before)
    assert "--yes" in refused.sentence()
    assert unaltered.verify("--completions", "13", "--yes").code == 0
    assert sum("completions" in line for line in unaltered.verified()[told:]) == 13


def test_a_key_that_may_not_complete_is_told_so(place: Place) -> None:
    scopes = ("prompts.list", "prompts.read", "prompts.render")
    weak = place.registry.ask(lambda sandbox: sandbox.key("main", scopes))
    end = {"kind": "portkey", "base_url": place.registry.base_url, "api_key": "${KEY}", "gateway_key": "${GATEWAY}"}
    place.change_file(source=end)
    found = place.verify("--completions", "2", GATEWAY=weak)
    assert found.code == 4
    assert found.sentence().endswith("answered completions with 403 AB03.")
    assert "completions.write" in found.err.splitlines()[-1]
    assert "8 completions of 2 prompts will be called with gateway_key" in found.err
    assert weak not in found.out + found.err + place.ledger.read_text()
    assert place.verify("--completions", "2", GATEWAY=place.registry.api_key).code == 0
