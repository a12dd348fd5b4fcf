"""Mode update: prompts get a new version where they stand; it is staged first, and published when its owner says so."""

from __future__ import annotations

import json
import signal
import stat
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from engine.sandbox import Quirks, SandboxOptions
from tests.e2e import Ended, Served, Started, lines, served, started, wait_for_lines, write_migration
from tests.e2e import Place as Migrated

COUNT = 24
OLD, NEW = "*claude-3-7*", "anthropic.claude-3-5-sonnet"
CONTENT = (
    *("string", "functions", "tools", "tool_choice", "is_raw_template", "template_metadata", "virtual_key"),
    "prompt_version_description",
)
"""What a change of the model leaves as it is."""

Prompt = dict[str, Any]


@dataclass(frozen=True)
class Place(Migrated):
    def publish(self, *flags: str) -> Ended:
        return self.ask("publish", "--yes", "--json", *flags)

    def write(self, base_url: str | None = None, **parts: Any) -> None:
        """The migration file anew."""
        update(self.path.parent, base_url or self.registry.base_url, **parts)

    def all(self) -> dict[str, Prompt]:
        return {one["id"]: one for one in self.registry.prompts()}

    def selected(self) -> dict[str, Prompt]:
        return {key: one for key, one in self.all().items() if "claude-3-7" in one["model"]}

    def numbers(self, prompt_id: str) -> list[int]:
        return [one["prompt_version"] for one in self.registry.versions(prompt_id)]

    def newest(self, prompt_id: str) -> Prompt:
        return self.registry.versions(prompt_id)[-1]

    def writes(self, path_end: str = "") -> int:
        """Requests so far that write, to paths that end like that."""
        seen = self.registry.ask(lambda sandbox: list(sandbox.requests))
        return sum(method != "GET" and path.endswith(path_end) for method, path, _ in seen)

    def updates(self) -> dict[str, list[dict[str, Any]]]:
        """Prompt id -> its lines `updated`."""
        found: dict[str, list[dict[str, Any]]] = {}
        for line in lines(self.ledger):
            if line["kind"] == "updated":
                found.setdefault(line["source_id"], []).append(line)
        return found


def update(folder: Path, base_url: str, **parts: Any) -> Path:
    value = {
        "mode": "update",
        "select": {"models": [OLD]},
        "rewrite": {"model": NEW},
        "limits": {"rate": 2000, "settle": "0.1s", "timeout": 5},
    }
    return write_migration(folder, base_url, **value | parts)


@contextmanager
def placed(folder: Path, *, count: int = COUNT, quirks: Quirks | None = None, **parts: Any) -> Iterator[Place]:
    with served(SandboxOptions(prompts=count, quirks=quirks or Quirks())) as registry:
        yield Place(registry, update(folder, registry.base_url, **parts))


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with placed(tmp_path) as found:
        yield found


def did(ended: Ended) -> dict[str, int]:
    counts = ended.summary["this_run"]
    return {name: counts[name] for name in ("updated", "unchanged", "conflicts", "failed", "unresolved")}


def only(**counts: int) -> dict[str, int]:
    return dict.fromkeys(("updated", "unchanged", "conflicts", "failed", "unresolved"), 0) | counts


def content(prompt: Mapping[str, Any]) -> dict[str, Any]:
    parameters = {name: value for name, value in prompt["parameters"].items() if name != "model"}
    return {name: prompt[name] for name in CONTENT} | {"parameters": parameters}


# ---- what the registry was sent --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sent:
    method: str
    path: str
    body: dict[str, Any]

    @property
    def makes_a_version(self) -> bool:
        return self.method == "PUT" and self.path.count("/") == 3


@dataclass
class Wire:
    """Passes requests on to a registry and keeps them. `before` and `after` are called around the passing on."""

    base_url: str
    sent: list[Sent] = field(default_factory=list)
    before: Callable[[Sent], None] = lambda sent: None
    after: Callable[[Sent], None] = lambda sent: None

    def versions_sent(self) -> dict[str, dict[str, Any]]:
        """Prompt id -> the body of its only update."""
        bodies = [(sent.path.rpartition("/")[2], sent.body) for sent in self.sent if sent.makes_a_version]
        assert len(bodies) == len(dict(bodies))
        return dict(bodies)


@contextmanager
def wire(registry: Served) -> Iterator[Wire]:
    class Passing(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            super().setup()
            self.onward = HTTPConnection(urlsplit(registry.base_url).netloc)

        def finish(self) -> None:
            self.onward.close()
            super().finish()

        def __getattr__(self, name: str) -> Callable[[], None]:
            if name.startswith("do_"):
                return self.pass_on
            raise AttributeError(name)

        def pass_on(self) -> None:
            data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            sent = Sent(self.command, self.path, json.loads(data or b"{}"))
            found.sent.append(sent)
            found.before(sent)
            kept = {name: value for name, value in self.headers.items() if name.lower() != "host"}
            self.onward.request(self.command, self.path, data or None, kept)
            answer = self.onward.getresponse()
            body = answer.read()
            found.after(sent)
            self.send_response(answer.status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: Any) -> None:
            """Nobody reads it."""

    class Server(ThreadingHTTPServer):
        request_queue_size = 100

        def handle_error(self, request: Any, client_address: Any) -> None:
            """A process that was killed leaves broken connections."""

    with Server(("127.0.0.1", 0), Passing) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        found = Wire(f"http://127.0.0.1:{server.server_port}/v1")
        try:
            yield found
        finally:
            server.shutdown()
            thread.join()


def test_only_what_changes_is_sent(place: Place) -> None:
    before = place.selected()
    drafts = {key for key in before if len(place.numbers(key)) > 1}
    assert drafts
    with wire(place.registry) as between:
        place.write(between.base_url)
        assert did(place.run()) == only(updated=len(before))
        bodies = between.versions_sent()
    assert bodies.keys() == before.keys()
    for key, body in bodies.items():
        parameters = before[key]["parameters"] | {"model": NEW}
        if key in drafts:  # a patch would be filled from the draft
            assert "patch" not in body
            assert (body["string"], body["model"], body["parameters"]) == (before[key]["string"], NEW, parameters)
        else:
            assert body == {"model": NEW, "parameters": parameters, "patch": True}


def test_a_draft_that_comes_between_the_look_and_the_update_does_not_leak(place: Place) -> None:
    before = place.selected()
    victim = next(key for key in before if len(place.numbers(key)) == 1)
    with wire(place.registry) as between:

        def draft(sent: Sent) -> None:
            if sent.makes_a_version and sent.path.endswith(victim) and len(place.numbers(victim)) == 1:
                place.registry.edit(victim, publish=False, string="not yet {{name}}")

        between.before = draft
        place.write(between.base_url)
        assert did(place.run()) == only(updated=len(before))
        between.before = lambda sent: None
        assert place.publish().code == 0
        now = place.all()[victim]
        assert (now["model"], content(now)) == (NEW, content(before[victim]))
        assert "not yet {{name}}" in [one["string"] for one in place.registry.versions(victim)]
        assert did(place.run()) == only(unchanged=len(before))


# ---- staged, and published -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [1, 3])
def test_nothing_is_published_before_publish_and_then_the_right_numbers(step: int, tmp_path: Path) -> None:
    with placed(tmp_path, quirks=Quirks(version_step=step)) as place:
        everything, before = place.all(), place.selected()
        history = {key: place.registry.versions(key) for key in before}
        drafts = [key for key in before if len(history[key]) > 1]
        assert drafts
        planned = place.ask("plan", "--json").json
        assert planned["counts"]["update"] == len(before)
        assert place.writes() == 0

        assert did(place.run()) == only(updated=len(before))
        for key, was in before.items():
            now = place.all()[key]
            assert (now["prompt_version"], now["model"]) == (was["prompt_version"], was["model"])
            *earlier, made = place.registry.versions(key)
            assert earlier == [one | {"last_updated_at": now["last_updated_at"]} for one in history[key]]
            assert (made["model"], content(made)) == (NEW, content(was))
            assert made["prompt_version"] == history[key][-1]["prompt_version"] + step
        assert place.writes("makeDefault") == 0
        assert {key: one for key, one in place.all().items() if key not in before} == {
            key: one for key, one in everything.items() if key not in before
        }

        published = place.publish()
        assert (published.code, published.json["counts"]["published"]) == (0, len(before))
        assert place.writes("makeDefault") == len(before)
        for key, was in before.items():
            now = place.all()[key]
            assert (now["prompt_version"], now["model"]) == (place.numbers(key)[-1], NEW)
            assert content(now) == content(was)
        told = {line["source_id"]: line for line in lines(place.ledger) if line["kind"] == "published"}
        assert {key: (line["before_version"], line["version"]) for key, line in told.items()} == {
            key: (was["prompt_version"], place.numbers(key)[-1]) for key, was in before.items()
        }


def test_the_nights_after_write_nothing(place: Place) -> None:
    selected = len(place.selected())
    place.run()
    after_run = place.writes()
    night = place.run()
    assert (night.code, did(night), place.writes()) == (0, only(unchanged=selected), after_run)
    place.publish()
    after_publish = place.writes()
    assert place.selected() == {}  # the new model is none that the file selects
    night = place.run()
    assert (night.code, did(night), place.writes()) == (0, only(unchanged=selected), after_publish)
    again = place.publish()
    assert (again.code, again.json["prompts"], place.writes()) == (0, [], after_publish)


def test_each_definition_is_kept_as_it_was_before(place: Place) -> None:
    before = place.selected()
    place.run()
    place.publish()
    copies = place.ledger.with_name("ledger.jsonl.before.jsonl")
    assert stat.S_IMODE(copies.stat().st_mode) == 0o600
    told = [json.loads(line) for line in copies.read_bytes().splitlines()]
    kept = {line["source_id"]: line["prompt"] for line in told}
    assert kept.keys() == before.keys()
    assert len(told) == len(before)
    for key, was in before.items():
        copy = kept[key]
        assert copy["parameters"] == {name: value for name, value in was["parameters"].items() if name != "model"}
        assert (copy["text"], copy["model"], copy["version"]) == (was["string"], was["model"], was["prompt_version"])
        assert (copy["tools"], copy["tool_choice"], copy["raw"]) == (
            was["tools"],
            was["tool_choice"],
            bool(was["is_raw_template"]),
        )
        assert (copy["name"], copy["collection"]) == (was["name"], was["collection_id"])
        assert copy["metadata"] == was["template_metadata"]
    for line in lines(place.ledger):
        assert not any(was["string"] in json.dumps(line) for was in before.values() if len(was["string"]) > 20)


def test_publish_in_the_file_publishes_at_once(place: Place) -> None:
    before = place.selected()
    place.write(publish=True)
    assert did(place.run()) == only(updated=len(before))
    for key, was in before.items():
        now = place.all()[key]
        assert (now["prompt_version"], now["model"]) == (place.numbers(key)[-1], NEW)
        assert content(now) == content(was)
    assert place.publish().json["prompts"] == []
    assert did(place.run()) == only(unchanged=len(before))


def test_only_what_was_verified_is_published_when_that_is_asked_for(place: Place) -> None:
    selected = sorted(place.selected())
    place.run()
    none = place.publish("--verified-only")
    assert (none.code, none.json["counts"]["not_verified"], place.writes("makeDefault")) == (1, len(selected), 0)
    assert place.ask("verify", *(flag for key in selected[:3] for flag in ("--only", key))).code == 0
    some = place.publish("--verified-only")
    assert (some.code, some.json["counts"]["published"]) == (1, 3)
    assert [key for key in selected if place.all()[key]["model"] == NEW] == selected[:3]
    assert place.ask("verify").code == 0
    rest = place.publish("--verified-only")
    assert (rest.code, rest.json["counts"]["published"]) == (0, len(selected) - 3)
    assert {place.all()[key]["model"] for key in selected} == {NEW}


def test_what_somebody_else_published_since_stays(place: Place) -> None:
    before = place.selected()
    selected = sorted(before, key=lambda key: before[key]["is_raw_template"])
    place.run()
    theirs = place.registry.edit(selected[0], string="by hand {{name}}", model=before[selected[0]]["model"])
    published = place.publish()
    results = {one["source_id"]: one["result"] for one in published.json["prompts"]}
    assert published.code == 1
    assert results == dict.fromkeys(selected, "published") | {selected[0]: "edited"}
    now = place.all()[selected[0]]
    assert (now["prompt_version"], now["string"]) == (theirs, "by hand {{name}}")
    # a later run follows what is published now
    assert place.run().code == 0
    assert place.publish().code == 0
    now = place.all()[selected[0]]
    assert (now["string"], now["model"]) == ("by hand {{name}}", NEW)


def test_a_draft_can_be_what_carries_on(tmp_path: Path) -> None:
    with placed(tmp_path, select={"models": [OLD], "version": "latest"}) as place:
        before = place.selected()
        newest = {key: place.newest(key) for key in before}
        drafts = [key for key in before if newest[key]["prompt_version"] > 1]
        assert drafts
        assert did(place.run()) == only(updated=len(before))
        assert {key: place.all()[key]["prompt_version"] for key in before} == dict.fromkeys(before, 1)
        assert did(place.run()) == only(unchanged=len(before))
        assert {line["before_version"] for (line,) in place.updates().values()} == {1}
        published = place.publish()
        assert (published.code, published.json["counts"]["published"]) == (0, len(before))
        for key in before:
            now = place.all()[key]
            assert (now["model"], content(now)) == (NEW, content(newest[key]))


# ---- what may change -------------------------------------------------------------------------------------------------

TOOL = {"type": "function", "function": {"name": "find_order", "parameters": {"type": "object"}}}


@pytest.mark.parametrize("knows_patch", [True, False])
def test_an_old_back_end_loses_nothing(knows_patch: bool, tmp_path: Path) -> None:
    with placed(tmp_path, quirks=Quirks(knows_patch=knows_patch)) as place:
        place.registry.ask(
            lambda sandbox: sandbox.add_prompt(
                "with everything",
                '[{"role": "user", "content": "{{question}}"}, {{rest}}]',
                tools=[TOOL],
                tool_choice="auto",
                functions=[{"name": "weather"}],
                is_raw_template=1,
                template_metadata={"owner": "team"},
                version_description="as it was",
                parameters={"temperature": 0.5},
            )
        )
        before = place.selected()
        assert did(place.run()) == only(updated=len(before))
        place.publish()
        for key, was in before.items():
            now = place.all()[key]
            assert (now["model"], content(now)) == (NEW, content(was))
        assert did(place.run()) == only(unchanged=len(before))


@pytest.mark.parametrize(
    ("rewrite", "changes", "knows_patch"),
    [
        ({"description": "for the new model"}, {"prompt_version_description": "for the new model"}, True),
        ({"description": "for the new model"}, {"prompt_version_description": "for the new model"}, False),
        ({"provider": "bedrock-prod"}, {"virtual_key": "bedrock-prod"}, True),
        ({"provider": "bedrock-prod"}, {"virtual_key": "bedrock-prod"}, False),
    ],
    ids=["description", "description, no patch", "provider", "provider, no patch"],
)
def test_a_change_of_one_field_waits_for_publish(
    rewrite: dict[str, Any], changes: dict[str, str], knows_patch: bool, tmp_path: Path
) -> None:
    quirks = Quirks(knows_patch=knows_patch)
    with placed(tmp_path, count=10, quirks=quirks, rewrite=rewrite, select={"models": ["claude-3-7*"]}) as place:
        before = {key: one for key, one in place.all().items() if one["model"].startswith("claude-3-7")}
        assert did(place.run()) == only(updated=len(before))
        for key, was in before.items():
            now = place.all()[key]
            assert now | {"last_updated_at": ""} == was | {"last_updated_at": ""}
        place.publish()
        for key, was in before.items():
            now = place.all()[key]
            assert (content(now), now["model"]) == (content(was) | changes, was["model"])
        assert did(place.run()) == only(unchanged=len(before))


def test_a_new_name_is_given_once(tmp_path: Path) -> None:
    with placed(tmp_path, count=14, rewrite={"model": NEW, "name": "{name} (new)"}) as place:
        before = place.selected()
        names = {key: f"{was['name']} (new)" for key, was in before.items()}
        assert did(place.run()) == only(updated=len(before))
        assert did(place.run()) == only(unchanged=len(before))
        assert {key: place.all()[key]["name"] for key in before} == names
        assert place.publish().json["counts"]["published"] == len(before)
        assert did(place.run()) == only(unchanged=len(before))
        assert {key: place.all()[key]["name"] for key in before} == names
        assert {place.all()[key]["model"] for key in before} == {NEW}


def test_a_new_name_alone_makes_no_version(tmp_path: Path) -> None:
    with placed(tmp_path, count=14, rewrite={"name": "{name} (new)"}) as place:
        before = place.selected()
        history = {key: place.numbers(key) for key in before}
        assert did(place.run()) == only(updated=len(before))
        assert did(place.run()) == only(unchanged=len(before))
        assert {key: place.numbers(key) for key in before} == history
        assert {key: place.all()[key]["name"] for key in before} == {
            key: f"{was['name']} (new)" for key, was in before.items()
        }
        assert {key: content(place.all()[key]) for key in before} == {key: content(was) for key, was in before.items()}
        assert place.publish().json["prompts"] == []


@pytest.mark.parametrize("published", [False, True], ids=["staged", "published"])
def test_new_rules_start_from_what_was_there_before_us(published: bool, tmp_path: Path) -> None:
    with placed(tmp_path, count=14, rewrite={"model": {OLD: NEW}}) as place:
        before = place.selected()
        place.run()
        if published:
            place.publish()
        place.write(rewrite={"model": {OLD: "anthropic.claude-3-opus"}})
        assert did(place.run()) == only(updated=len(before))
        assert place.publish().json["counts"]["published"] == len(before)
        for key, was in before.items():
            now = place.all()[key]
            assert (now["model"], content(now)) == ("anthropic.claude-3-opus", content(was))
        assert did(place.run()) == only(unchanged=len(before))


def test_what_is_staged_behind_what_we_published_stays_and_new_rules_still_start_from_before_us(tmp_path: Path) -> None:
    dropped = {"parameters": {"drop": ["max_tokens"]}}
    with placed(tmp_path, count=14, rewrite={"model": NEW, **dropped}) as place:
        before = place.selected()
        place.run()
        place.publish()
        place.write(rewrite={"model": "anthropic.claude-3-opus", **dropped})
        assert did(place.run()) == only(updated=len(before))
        staged = place.writes()
        night = place.run()
        assert (did(night), place.writes()) == (only(unchanged=len(before)), staged)
        place.write(rewrite={"model": "anthropic.claude-3-haiku"})
        assert did(place.run()) == only(updated=len(before))
        place.publish()
        for key, was in before.items():
            now = place.all()[key]
            assert (now["model"], content(now)) == ("anthropic.claude-3-haiku", content(was))


def test_a_prompt_that_changed_since_is_updated_again(place: Place) -> None:
    before = place.selected()
    place.run()
    place.publish()
    victim = next(key for key, was in before.items() if not was["is_raw_template"] and was["string"][0] != "[")
    place.registry.edit(victim, string="by hand {{name}}", model=before[victim]["model"])
    again = place.run()
    assert did(again) == only(updated=1, unchanged=len(before) - 1)
    assert place.all()[victim]["model"] == before[victim]["model"]
    assert place.publish().json["counts"]["published"] == 1
    assert (place.all()[victim]["string"], place.all()[victim]["model"]) == ("by hand {{name}}", NEW)


# ---- lost and killed -------------------------------------------------------------------------------------------------


def one_new_version_each(place: Place, history: Mapping[str, list[int]], before: Mapping[str, Prompt]) -> None:
    for key, numbers in history.items():
        *earlier, made = place.registry.versions(key)
        assert [one["prompt_version"] for one in earlier] == numbers
        assert (made["model"], content(made)) == (NEW, content(before[key]))


def ends_told_rightly(place: Place, before: Mapping[str, Prompt]) -> None:
    """The ledger says of each what was published before it and what was made, once."""
    updates = place.updates()
    assert {key: len(told) for key, told in updates.items()} == dict.fromkeys(before, 1)
    told = {
        key: [line["before_version"], line["before_name"], line["after_version"]] for key, (line,) in updates.items()
    }
    assert told == {key: [was["prompt_version"], was["name"], place.numbers(key)[-1]] for key, was in before.items()}


def test_a_lost_ledger_makes_no_second_version(place: Place) -> None:
    before, history = place.selected(), {key: place.numbers(key) for key in place.selected()}
    place.run()
    writes = place.writes()
    place.ledger.unlink()
    again = place.run()
    assert (again.code, did(again)["failed"], place.writes()) == (0, 0, writes)
    one_new_version_each(place, history, before)
    assert place.publish().json["counts"]["published"] == len(before)
    assert {place.all()[key]["model"] for key in before} == {NEW}


@pytest.mark.parametrize("publish", [False, True], ids=["staged", "published"])
def test_killed_at_many_moments(publish: bool, tmp_path: Path) -> None:
    with placed(tmp_path, count=14, publish=publish, rewrite={"model": NEW, "name": "{name} (new)"}) as place:
        before, history = place.selected(), {key: place.numbers(key) for key in place.selected()}
        kills = 0
        for more in range(1, 12, 3):
            written = place.ledger.read_bytes().count(b"\n") if place.ledger.exists() else 0
            with started("run", place.path, cwd=place.path.parent, env=place.env) as process:
                wait_for_lines(place.ledger, written + more, process)
                process.kill()
                process.wait()
            kills += process.returncode == -signal.SIGKILL
        assert kills > 2
        ends_as_without(place, before, history, name="{name} (new)")


@pytest.mark.parametrize(
    ("landed", "publish", "rewrite"),
    [
        (False, False, {"model": NEW}),
        (True, False, {"model": NEW, "name": "{name} (new)"}),
        (True, True, {"model": NEW, "name": "{name} (new)"}),
    ],
    ids=["before", "after", "published"],
)
def test_killed_around_a_write(landed: bool, publish: bool, rewrite: dict[str, Any], tmp_path: Path) -> None:
    """At the second write of every run: just before it is carried out, or after it and before the answer."""
    with placed(tmp_path, count=10) as place, wire(place.registry) as between:
        place.write(between.base_url, publish=publish, rewrite=rewrite)
        before, history = place.selected(), {key: place.numbers(key) for key in place.selected()}
        kills = 0
        while kills < 20:
            with started("run", place.path, cwd=place.path.parent, env=place.env) as process:
                kill_at_a_write(between, process, number=2, landed=landed)
                process.wait(60)
            if process.returncode != -signal.SIGKILL:
                break
            kills += 1
        assert kills > 1
        between.before = between.after = lambda sent: None
        ends_as_without(place, before, history, name=rewrite.get("name", "{name}"))


def kill_at_a_write(between: Wire, process: Started, *, number: int, landed: bool) -> None:
    left = iter(range(number - 1, -1, -1))

    def kill(sent: Sent) -> None:
        if sent.method != "GET" and next(left, 0) == 0:
            process.kill()
            process.wait()

    between.before, between.after = (lambda sent: None, kill) if landed else (kill, lambda sent: None)


def ends_as_without(
    place: Place, before: Mapping[str, Prompt], history: Mapping[str, list[int]], *, name: str = "{name}"
) -> None:
    last = place.run()
    if did(last)["unchanged"] != len(before):
        last = place.run()
    assert (last.code, did(last)) == (0, only(unchanged=len(before)))
    one_new_version_each(place, history, before)
    assert place.publish().code == 0
    now = place.all()
    assert {key: now[key]["prompt_version"] for key in before} == {key: place.numbers(key)[-1] for key in before}
    assert {key: now[key]["name"] for key in before} == {key: name.format(**was) for key, was in before.items()}
    ends_told_rightly(place, before)


@pytest.mark.parametrize("fault", ["reset_after", "truncate"])
def test_answers_that_are_lost_double_nothing(fault: str, place: Place) -> None:
    before, history = place.selected(), {key: place.numbers(key) for key in place.selected()}
    place.registry.ask(lambda sandbox: sandbox.faults.plan(fault, method="PUT", times=5))
    first = place.run()
    assert (first.code, did(first)) == (0, only(updated=len(before)))
    assert sum(line["kind"] == "unknown" for line in lines(place.ledger)) == 5
    one_new_version_each(place, history, before)
    ends_told_rightly(place, before)
    assert place.publish().json["counts"]["published"] == len(before)


def test_publish_killed_and_repeated(tmp_path: Path) -> None:
    with placed(tmp_path, count=20) as place, wire(place.registry) as between:
        slowly = {"rate": 2000, "settle": "0.5s", "timeout": 5, "concurrency": 3}
        place.write(between.base_url, limits=slowly)
        before = place.selected()
        place.run()
        kills = 0
        while kills < 30:
            command = ("publish", place.path, "--yes")
            with started(*command, cwd=place.path.parent, env=place.env) as process:
                kill_at_a_write(between, process, number=4, landed=kills % 2 == 0)
                process.wait(60)
            if process.returncode != -signal.SIGKILL:
                break
            kills += 1
        assert kills > 1
        assert process.returncode == 0
        assert {key: (place.all()[key]["prompt_version"], place.all()[key]["model"]) for key in before} == {
            key: (place.numbers(key)[-1], NEW) for key in before
        }
        assert {len(told) for told in place.updates().values()} == {1}
        assert {line["source_id"] for line in lines(place.ledger) if line["kind"] == "published"} == before.keys()
        assert did(place.run()) == only(unchanged=len(before))


def test_stale_reads_are_waited_for(tmp_path: Path) -> None:
    with placed(tmp_path, count=10, quirks=Quirks(stale_reads_s=0.4)) as place:
        before, history = place.selected(), {key: place.numbers(key) for key in place.selected()}
        assert did(place.run()) == only(updated=len(before))
        one_new_version_each(place, history, before)
