"""Everything that ends a run: its exit code, its reason, one clear sentence, and nothing written that should not be."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import urlsplit

import pytest

from engine.sandbox import Quirks, SandboxOptions
from tests.e2e import (
    Ended,
    Served,
    Started,
    lines,
    promptferry,
    replicas,
    separate,
    served,
    started,
    truth,
    wait_for_lines,
    write_migration,
)

PROMPTS = 20


@pytest.fixture
def registry() -> Iterator[Served]:
    with served(SandboxOptions(prompts=PROMPTS)) as found:
        yield found


def run(path: Path, key: str, *flags: str | Path, **more: Any) -> Ended:
    return promptferry("run", path, *flags, cwd=path.parent, env={"KEY": key}, **more)


def stopped(found: Ended, code: int, reason: str) -> str:
    """The sentence of a stop, after everything that is true of each of them."""
    assert (found.code, found.summary["reason"]) == (code, reason), found.err
    sentence = found.sentence()
    assert sentence == found.summary["message"]
    assert len(found.summary["next"]) > 20
    return sentence


def closed_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


# ---- the key ---------------------------------------------------------------------------------------------------------


def test_a_wrong_key(tmp_path: Path, registry: Served) -> None:
    found = run(write_migration(tmp_path, registry.base_url), "not-a-key-of-this-registry")
    sentence = stopped(found, 4, "key_refused")
    assert sentence.startswith("The source (127.0.0.1) refused the key")
    assert "not-a-key-of-this-registry" not in found.out + found.err
    assert not (tmp_path / "ledger.jsonl").exists()
    for command in ("check", "plan", "inventory"):
        looked = promptferry(command, "e2e.yaml", cwd=tmp_path, env={"KEY": "not-a-key-of-this-registry"})
        assert looked.code == 4
        assert looked.sentence().startswith("The source (127.0.0.1) refused the key")


ALL = {"prompts.list", "prompts.read", "prompts.create", "providers.list", "virtual_keys.list"}


@pytest.mark.parametrize(("missing", "verb"), [("list", "list"), ("read", "retrieve"), ("create", "create")])
def test_a_key_that_may_not_do_it(missing: str, verb: str, tmp_path: Path, registry: Served) -> None:
    key = registry.ask(lambda sandbox: sandbox.key("main", scopes=ALL - {f"prompts.{missing}"}))
    found = run(write_migration(tmp_path, registry.base_url), key)
    sentence = stopped(found, 4, "forbidden")
    assert verb in sentence + found.summary["next"]
    assert "403" in sentence
    assert len(registry.prompts()) == PROMPTS
    counts = found.summary["counts"]
    assert counts["created"] == counts["unresolved"] == 0
    # what was refused can be taken up by the same command once the key may do it
    again = run(tmp_path / "e2e.yaml", registry.api_key, *(["--retry-failed"] if missing != "list" else []))
    assert (again.code, len(replicas(registry.prompts()))) == (0, PROMPTS)


def test_quota_used_up_in_the_middle(tmp_path: Path) -> None:
    with served(SandboxOptions(prompts=PROMPTS, quirks=Quirks(prompt_quota=PROMPTS + 7))) as registry:
        path = write_migration(tmp_path, registry.base_url)
        found = run(path, registry.api_key)
        assert "quota" in stopped(found, 4, "quota")
        assert (found.summary["counts"]["created"], len(replicas(registry.prompts()))) == (7, 7)
        assert found.summary["counts"]["unresolved"] == 0


# ---- the file --------------------------------------------------------------------------------------------------------


def test_collections_and_providers_that_are_not_there(tmp_path: Path, registry: Served) -> None:
    rewrite = {"collection": "not-a-collection", "provider": "not-a-provider"}
    path = write_migration(tmp_path, registry.base_url, select={"collections": ["not-there"]}, rewrite=rewrite)
    sentence = stopped(run(path, registry.api_key), 4, "check_failed")
    assert all(name in sentence for name in ("'not-there'", "'not-a-collection'", "'not-a-provider'"))
    assert len(registry.prompts()) == PROMPTS
    assert not (tmp_path / "ledger.jsonl").exists()


def test_an_unknown_key_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "m.yaml").write_text("name: m\nsource:\n  base_url: sandbox\nlimits:\n  ratte: 5\n")
    found = promptferry("run", "m.yaml", cwd=tmp_path)
    sentence = stopped(found, 2, "config")
    assert "m.yaml:5" in sentence
    assert "limits.ratte" in sentence
    assert "rate" in sentence.replace("ratte", "")
    assert [path.name for path in tmp_path.iterdir()] == ["m.yaml"]


def test_an_environment_variable_that_is_not_set(tmp_path: Path) -> None:
    write_migration(tmp_path, "http://127.0.0.1:1/v1")
    assert "KEY" in stopped(promptferry("run", "e2e.yaml", cwd=tmp_path, env={"KEY": ""}), 2, "config")


# ---- the ledger ------------------------------------------------------------------------------------------------------


def test_a_damaged_ledger_is_refused_and_left_as_it_is(tmp_path: Path, registry: Served) -> None:
    path, ledger = write_migration(tmp_path, registry.base_url), tmp_path / "ledger.jsonl"
    run(path, registry.api_key, "--limit", "5")
    whole = ledger.read_bytes().splitlines(keepends=True)
    damaged = b"".join([*whole[:4], whole[4].replace(b'"ts":"2', b'"ts":"3', 1), *whole[5:]])
    ledger.write_bytes(damaged)
    sentence = stopped(run(path, registry.api_key), 4, "ledger_damaged")
    assert str(ledger) in sentence
    assert "line 5" in sentence
    assert ledger.read_bytes() == damaged
    assert len(replicas(registry.prompts())) == 5


def test_a_ledger_of_another_migration_is_refused_and_says_which_part(tmp_path: Path, registry: Served) -> None:
    run(write_migration(tmp_path, registry.base_url), registry.api_key, "--limit", "5")
    before = (tmp_path / "ledger.jsonl").read_bytes()
    renamed = write_migration(tmp_path, registry.base_url, name="another")
    assert "name" in stopped(run(renamed, registry.api_key), 4, "ledger_mismatch")
    latest = write_migration(tmp_path, registry.base_url, select={"version": "latest"})
    assert "version" in stopped(run(latest, registry.api_key), 4, "ledger_mismatch")
    assert (tmp_path / "ledger.jsonl").read_bytes() == before
    assert len(replicas(registry.prompts())) == 5


def test_a_ledger_in_use_is_left_to_its_run(tmp_path: Path, registry: Served) -> None:
    path, ledger = write_migration(tmp_path, registry.base_url), tmp_path / "ledger.jsonl"
    with started("run", path, "--rate", "3", cwd=tmp_path, env={"KEY": registry.api_key}) as first:
        assert wait_for_lines(ledger, 4, first)
        assert "ledger.jsonl" in stopped(run(path, registry.api_key), 75, "ledger_in_use")
        assert first.poll() is None
        first.terminate()
        assert first.end().code == 75
    assert run(path, registry.api_key).code == 0
    assert [len(found) for found in replicas(registry.prompts()).values()] == [1] * PROMPTS


@pytest.mark.parametrize("place", ["folder", "file/below.jsonl"])
def test_a_ledger_where_none_can_be(place: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("")
    path = write_migration(tmp_path, "http://127.0.0.1:1/v1")
    named = run(path, "key-for-tests", "--ledger", place)
    assert str(tmp_path / place) in stopped(named, 2, "config")
    write_migration(tmp_path, "http://127.0.0.1:1/v1", ledger=place)
    assert stopped(run(path, "key-for-tests"), 2, "config")


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder in which not even root may write")
def test_a_folder_in_which_nobody_may_write() -> None:
    found = promptferry("run", "configs/sandbox.yaml", "--ledger", "/proc/ledger.jsonl", cwd=Path(__file__).parents[2])
    assert "/proc/ledger.jsonl" in stopped(found, 75, "disk")


@pytest.mark.parametrize("limit", [0, 300, 2_000, 9_999])
def test_a_full_disk_under_the_ledger(limit: int, tmp_path: Path, registry: Served) -> None:
    path, ledger = write_migration(tmp_path, registry.base_url), tmp_path / "ledger.jsonl"
    found = run(path, registry.api_key, file_limit=limit)
    assert "ledger.jsonl" in stopped(found, 75, "disk")
    made = len(replicas(registry.prompts()))
    if ledger.exists():
        begun = {line["source_id"] for line in lines(ledger) if line["kind"] == "intent"}
        assert made <= len(begun)
    else:
        assert made == 0
    rest = run(path, registry.api_key)
    assert (rest.code, rest.summary["counts"]["unresolved"]) == (0, 0)
    assert [len(found) for found in replicas(registry.prompts()).values()] == [1] * PROMPTS


def test_a_full_disk_under_everything(tmp_path: Path) -> None:
    (tmp_path / "m.yaml").write_text("{name: m, source: {base_url: sandbox}}")
    stopped(promptferry("run", "m.yaml", cwd=tmp_path, file_limit=20_000), 75, "disk")
    assert promptferry("run", "m.yaml", "--rate", "3000", cwd=tmp_path).code == 0


# ---- the registry ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "limits"),
    [(f"http://127.0.0.1:{closed_port()}/v1", {"attempts": 3}), ("https://registry.invalid/v1", {"attempts": 2})],
    ids=["closed port", "unknown name"],
)
def test_a_host_that_cannot_be_reached(address: str, limits: dict[str, int], tmp_path: Path) -> None:
    path = write_migration(tmp_path, address, limits=limits)
    sentence = stopped(run(path, "key-for-tests"), 75, "registry_down")
    assert str(urlsplit(address).hostname) in sentence
    assert not (tmp_path / "ledger.jsonl").exists()
    looked = promptferry("check", path, cwd=tmp_path, env={"KEY": "key-for-tests"})
    assert looked.code == 75
    assert str(urlsplit(address).hostname) in looked.sentence()


@contextmanager
def website(status: int, body: bytes, headers: dict[str, str]) -> Iterator[str]:
    """The address of a server that answers everything with that."""

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET  # noqa: N815 - as http.server calls it

        def log_message(self, *_: object) -> None:
            """Nobody reads it."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


HTML = {"Content-Type": "text/html; charset=utf-8"}
PAGE = b"<!doctype html><html><body>Welcome</body></html>"
JSON = {"Content-Type": "application/json"}
WEBSITES = {
    "a page": (200, PAGE, HTML),
    "a text": (200, b"OK", {"Content-Type": "text/plain"}),
    "a login": (302, b"", {"Location": "https://login.example/?next=/v1"}),
    "no such path": (404, PAGE, HTML),
    "another api": (200, b'{"message":"ok"}', JSON),
    "an empty list": (200, b"[]", JSON),
    "an api of models": (404, b'{"error":{"message":"Invalid URL (GET /prompts)"}}', JSON),
}
CONDUCTOR = {"kind": "conductor", "key_id": "${KEY}", "key_secret": "${KEY}"}


@pytest.mark.parametrize("kind", ["portkey", "conductor"])
@pytest.mark.parametrize("site", WEBSITES)
def test_an_address_where_no_registry_is(site: str, kind: str, tmp_path: Path) -> None:
    with website(*WEBSITES[site]) as address:
        end = {"base_url": address, **(CONDUCTOR if kind == "conductor" else {"api_key": "${KEY}"})}
        found = run(write_migration(tmp_path, "", source=end, limits={"attempts": 2, "timeout": 5}), "key-for-tests")
    assert stopped(found, 4, found.summary["reason"])
    assert found.summary["reason"] in ("check_failed", "key_refused")
    assert "base_url" in found.summary["next"]
    assert not (tmp_path / "ledger.jsonl").exists()


def test_a_target_where_no_registry_is(tmp_path: Path, registry: Served) -> None:
    with website(200, PAGE, HTML) as address:
        target = {"kind": "portkey", "base_url": address, "api_key": "${KEY}"}
        path = write_migration(tmp_path, registry.base_url, target=target, limits={"attempts": 2, "timeout": 5})
        sentence = stopped(run(path, registry.api_key), 4, "check_failed")
    assert "The target (127.0.0.1)" in sentence
    assert "base_url" in sentence


@pytest.mark.parametrize("status", [502, 503])
def test_a_page_of_a_load_balancer_is_a_registry_that_is_down(status: int, tmp_path: Path) -> None:
    with website(status, PAGE, {**HTML, "Retry-After": "0"}) as address:
        path = write_migration(tmp_path, address, limits={"attempts": 2, "timeout": 5})
        found = run(path, "key-for-tests")
    assert (found.code, found.summary["reason"]) == (75, "registry_down")


@contextmanager
def dying(folder: Path) -> Iterator[tuple[Path, str, str, Started]]:
    """A run whose registry was killed in its middle and counts as down: its file, port and key, and the run."""
    store = folder / "store.sqlite"
    with ExitStack() as stack:
        registry = stack.enter_context(separate(store, "--prompts", "200"))
        path = write_migration(folder, registry.base_url)
        process = stack.enter_context(started("run", path, cwd=folder, env={"KEY": registry.api_key}))
        assert wait_for_lines(folder / "ledger.jsonl", 60, process)
        registry.process.kill()
        while "throttle.closed" not in process.logged():
            assert process.poll() is None
            time.sleep(0.01)
        yield path, registry.base_url.split(":")[2].partition("/")[0], registry.api_key, process


def test_a_registry_that_dies_and_comes_back_costs_nobody_anything(tmp_path: Path) -> None:
    with dying(tmp_path) as (_, port, _, process):
        store = tmp_path / "store.sqlite"
        with separate(store, "--port", port):
            found = process.end()
    assert found.code == 0, found.err
    assert found.summary["counts"]["failed"] == 0
    assert [len(found) for found in replicas(truth(store)).values()] == [1] * 200


def test_a_run_that_waits_for_its_registry_ends_at_once_when_it_is_asked_to(tmp_path: Path) -> None:
    with dying(tmp_path) as (path, port, key, process):
        process.send_signal(signal.SIGINT)
        found = process.end()
        stopped(found, 75, "interrupted")
        failed = [line for line in lines(tmp_path / "ledger.jsonl") if line["kind"] == "failed"]
        assert all((line["error"], line["retriable"]) == ("not_sent", True) for line in failed)
        assert found.summary["duration_s"] < 9, "nothing is in flight that is worth a grace"
        store = tmp_path / "store.sqlite"
        with separate(store, "--port", port):
            assert run(path, key).code == 0
    assert [len(found) for found in replicas(truth(store)).values()] == [1] * 200


# ---- signals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_in_the_middle(number: signal.Signals, tmp_path: Path, registry: Served) -> None:
    path = write_migration(tmp_path, registry.base_url)
    with started("run", path, "--rate", "20", cwd=tmp_path, env={"KEY": registry.api_key}) as process:
        assert wait_for_lines(tmp_path / "ledger.jsonl", 6, process)
        process.send_signal(number)
        found = process.end()
    assert number.name in stopped(found, 75, "interrupted")
    counts = found.summary["counts"]
    assert counts["created"] == len(replicas(registry.prompts())) >= 1
    assert (counts["unresolved"], counts["failed"]) == (0, 0)
    assert lines(tmp_path / "ledger.jsonl")[-1]["kind"] == "end"
    assert run(path, registry.api_key).code == 0
    assert [len(found) for found in replicas(registry.prompts()).values()] == [1] * PROMPTS


def test_a_second_signal_drops_what_is_in_flight(tmp_path: Path, registry: Served) -> None:
    path, ledger = write_migration(tmp_path, registry.base_url), tmp_path / "ledger.jsonl"
    run(path, registry.api_key, "--limit", "3")
    registry.ask(lambda sandbox: sandbox.faults.plan("slow", method="POST"))
    before = len(lines(ledger))
    with started("run", path, "--limit", "1", cwd=tmp_path, env={"KEY": registry.api_key}) as process:
        assert wait_for_lines(ledger, before + 3, process)  # run, listed, and the intent of a create that hangs
        for number in (signal.SIGINT, signal.SIGTERM):  # two of one number may arrive as one
            process.send_signal(number)
        found = process.end()
    stopped(found, 75, "interrupted")
    assert found.summary["counts"]["unresolved"] == 1
    assert run(path, registry.api_key).summary["counts"]["unresolved"] == 0
    assert [len(found) for found in replicas(registry.prompts()).values()] == [1] * PROMPTS


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_before_the_first_request(number: signal.Signals, tmp_path: Path) -> None:
    pipe = tmp_path / "e2e.yaml"
    os.mkfifo(pipe)  # the command is surely still reading its file
    with started("run", pipe, cwd=tmp_path) as process, pipe.open("w"):
        process.send_signal(number)
        found = process.end()
    assert (found.code, found.summary["reason"]) == (75, "interrupted")
    assert "Traceback" not in found.err


@pytest.mark.parametrize("seed", range(6))
def test_a_signal_at_any_moment_leaves_a_summary(seed: int, tmp_path: Path, registry: Served) -> None:
    path, ledger = write_migration(tmp_path, registry.base_url), tmp_path / "ledger.jsonl"
    with started("run", path, "--rate", "100", cwd=tmp_path, env={"KEY": registry.api_key}) as process:
        wait_for_lines(ledger, (1, 3, 12, 25, 40, 43)[seed], process)
        process.terminate()
        found = process.end()
    assert found.code in (0, 75)
    assert found.summary["reason"] in ("interrupted", "done")
    assert run(path, registry.api_key).code == 0
    assert [len(found) for found in replicas(registry.prompts()).values()] == [1] * PROMPTS
