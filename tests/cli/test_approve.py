"""`approve`, and `run --require-approvals`: so many different people approved exactly the plan that is done."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from engine.sandbox import SandboxOptions
from tests.e2e import Ended, Served, lines, promptferry, replicas, served, write_migration
from tests.forks import environment

COUNT = 3
PUBLIC = (serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
PEM = serialization.Encoding.PEM
Private = serialization.PrivateFormat


class Place:
    """A migration that is planned, and the people who may approve it."""

    def __init__(self, folder: Path, registry: Served) -> None:
        self.folder, self.registry = folder, registry
        self.path = folder / "e2e.yaml"

    def do(self, *arguments: str, key: str | None = None) -> Ended:
        keys = {} if key is None else {"PROMPTFERRY_SIGNING_KEY": key}
        return promptferry(*arguments, cwd=self.folder, env={"KEY": self.registry.api_key, **keys})

    def approve(self, name: str, *flags: str, key: str | None = None) -> Ended:
        return self.do("approve", "plan.json", "--as", name, *flags, key=key)

    def run(self, wanted: int, *, key: str | None = None) -> Ended:
        flags = ("--plan", "plan.json", "--require-approvals", str(wanted), "--limit", "0")
        return self.do("run", str(self.path), *flags, key=key)

    def refused(self, wanted: int, *, key: str | None = None) -> str:
        """Why the run did not begin."""
        ran = self.run(wanted, key=key)
        assert (ran.code, ran.summary["reason"], ran.summary["requests"]["total"]) == (4, "check_failed", 0), ran.err
        assert "promptferry approve plan.json" in ran.summary["next"]
        assert ran.sentence() == ran.summary["message"]
        return ran.sentence()

    @property
    def plan(self) -> Path:
        return self.folder / "plan.json"

    @property
    def approvals(self) -> Path:
        return self.folder / "plan.json.approvals.jsonl"

    def add(self, line: str | bytes) -> None:
        with self.approvals.open("ab") as file:
            file.write(line if isinstance(line, bytes) else f"{line}\n".encode())

    def key(self, name: str, form: Private = Private.OpenSSH) -> Ed25519PrivateKey:
        """Makes a key; its file has that name."""
        key = Ed25519PrivateKey.generate()
        (self.folder / name).write_bytes(key.private_bytes(PEM, form, serialization.NoEncryption()))
        return key


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """Which no test changes."""
    folder = tmp_path_factory.mktemp("planned")
    with served(SandboxOptions(prompts=COUNT)) as registry:
        place = Place(folder, registry)
        write_migration(folder, registry.base_url)
        assert place.do("plan", "e2e.yaml", "--out", "plan.json").code == 0
        yield place


@pytest.fixture
def place(planned: Place, tmp_path: Path) -> Place:
    return Place(shutil.copytree(planned.folder, tmp_path, dirs_exist_ok=True), planned.registry)


# ---- names -----------------------------------------------------------------------------------------------------------


def test_a_plan_is_done_when_enough_different_people_approved_it(place: Place) -> None:
    digest = sha256(place.plan.read_bytes()).hexdigest()
    assert f"has 0 of 2 approvals of exactly this plan, SHA-256 {digest}" in place.refused(2)
    first = place.approve("Ada", "--reason", "ticket 12", "--json")
    assert (first.code, first.json["names"], first.json["sha256"]) == (0, ["Ada"], digest)
    assert place.approve(" ADA ").code == 0
    assert "has 1 of 2 approvals (Ada)" in place.refused(2)
    assert place.approve("Grace Hopper").out.splitlines()[-1] == "named so far: Ada, Grace Hopper"
    written = [json.loads(line) for line in place.approvals.read_text().splitlines()]
    assert [(one["name"], one["sha256"], one["reason"]) for one in written] == [
        ("Ada", digest, "ticket 12"),
        ("ADA", digest, None),
        ("Grace Hopper", digest, None),
    ]
    assert all(one["time"].endswith("Z") for one in written)
    assert not replicas(place.registry.prompts())
    ran = place.do("run", str(place.path), "--plan", "plan.json", "--require-approvals", "2")
    assert (ran.code, ran.summary["this_run"]["created"]) == (0, COUNT)
    assert lines(place.folder / "ledger.jsonl")[0]["approvals"] == ["Ada", "Grace Hopper"]
    assert place.do("run", str(place.path)).code == 0
    assert lines(place.folder / "ledger.jsonl")[-3]["approvals"] is None


def test_a_plan_that_changed_by_a_byte_has_no_approvals(place: Place) -> None:
    place.approve("Ada")
    assert place.run(1).code == 0
    place.plan.write_bytes(place.plan.read_bytes() + b"\n")
    assert "has 0 of 1 approvals" in (why := place.refused(1))
    assert "line 1 is of another plan, or of this one before it was changed" in why
    place.approve("Ada")
    assert place.run(1).code == 0


def test_what_is_damaged_is_named_and_does_not_count(place: Place) -> None:
    place.approve("Ada")
    whole = place.approvals.read_bytes()
    place.add("{}")
    place.add('{"name": "Eve", "time": "x"')
    place.add("[1]")
    place.add(b"\xff\xfe\n")
    place.add("")
    place.add(json.dumps({**json.loads(whole), "name": " "}))
    place.add(whole[:40])  # torn
    why = place.refused(2)
    assert [number for number in range(1, 10) if f"line {number} is damaged" in why] == [2, 3, 4, 5, 7, 8]
    assert place.approve("Bob").code == 0
    assert place.run(2).code == 0


@pytest.mark.parametrize("name", ["", "  ", "\t", "a\nb\x07", "Ada\u200b"])
def test_a_name_that_nobody_can_read_is_refused(place: Place, name: str) -> None:
    ended = place.approve(name)
    assert (ended.code, ended.out) == (2, "")
    assert "--as" in ended.sentence()
    assert not place.approvals.exists()


@pytest.mark.parametrize(
    "data", [None, b"{}", b"x", b'{"promptferry_plan": 9, "rules": "", "identity": {}, "prompts": []}']
)
def test_what_is_no_plan_is_not_approved(place: Place, data: bytes | None) -> None:
    place.plan.unlink()
    if data is not None:
        place.plan.write_bytes(data)
    ended = place.approve("Ada")
    assert (ended.code, ended.out) == (2, "")
    assert "plan.json" in ended.sentence()
    assert not place.approvals.exists()


def test_approvals_are_of_a_plan(place: Place) -> None:
    ran = place.do("run", str(place.path), "--require-approvals", "1")
    assert (ran.code, ran.summary["reason"]) == (2, "config")
    assert "--plan" in ran.sentence()
    assert place.run(0).code == 2


def test_where_no_line_can_be_added_it_is_said(place: Place) -> None:
    place.approvals.mkdir()
    ended = place.approve("Ada")
    assert (ended.code, "cannot be written" in ended.sentence()) == (2, True)
    ran = place.run(1)
    assert (ran.code, "cannot be read" in ran.sentence()) == (2, True)


# ---- signatures ------------------------------------------------------------------------------------------------------


def public(*keys: Ed25519PrivateKey) -> str:
    """Lines as `ssh-keygen` writes them."""
    return "".join(f"{key.public_key().public_bytes(*PUBLIC).decode()} somebody\n" for key in keys)


def test_where_keys_are_trusted_only_their_signatures_count(place: Place) -> None:
    ada, grace, _ = place.key("ada"), place.key("grace", Private.PKCS8), place.key("eve")
    (place.folder / "trusted").write_text(f"# who may approve\n\n{public(ada, grace)}")
    place.approve("Unsigned")
    signed = place.approve("Ada", "--json", key="ada")
    assert signed.json["key"].startswith("ed25519:")
    place.approve("Eve", key="eve")
    why = place.refused(2, key="trusted")
    assert "has 1 of 2 approvals (Ada)" in why
    assert "line 1 is not signed" in why
    assert "line 3 is signed with a key that is not trusted here" in why
    place.approve("Grace", key="grace")
    assert place.run(2, key="trusted").code == 0
    assert lines(place.folder / "ledger.jsonl")[0]["approvals"] == ["Ada", "Grace"]
    assert place.run(4).code == 0, "where no key is named, names are what counts"
    for name in ("ada", "grace", "eve"):
        secret = (place.folder / name).read_text().splitlines()[1]
        assert secret not in place.approvals.read_text() + why


def test_a_key_approves_under_one_name(place: Place) -> None:
    ada = place.key("ada")
    (place.folder / "trusted").write_text(public(ada))
    place.approve("Ada", key="ada")
    place.approve("Grace", key="ada")
    why = place.refused(2, key="trusted")
    assert "has 1 of 2 approvals (Ada)" in why
    assert "line 2 is signed with the key of 'Ada'" in why


@pytest.mark.parametrize("field", ["name", "time", "sha256", "reason", "signature", "key", "more"])
def test_a_line_that_was_changed_since_it_was_signed_does_not_count(place: Place, field: str) -> None:
    ada, grace = place.key("ada"), place.key("grace")
    (place.folder / "trusted").write_text(public(ada, grace))
    place.approve("Ada", "--reason", "r", key="ada")
    line: dict[str, Any] = json.loads(place.approvals.read_text())
    place.approve("Grace", key="grace")
    other = json.loads(place.approvals.read_text().splitlines()[1])
    if field == "sha256":  # approved another plan
        place.plan.write_bytes(place.plan.read_bytes() + b"\n")
        line["sha256"] = sha256(place.plan.read_bytes()).hexdigest()
    else:
        line[field] = other[field] if field in ("signature", "key") else "changed"
    place.approvals.write_text(json.dumps(line) + "\n")
    assert "line 1 was changed since it was signed" in place.refused(1, key="trusted")


def test_keys_are_read_as_ssh_keygen_and_openssl_write_them(place: Place) -> None:
    """Private ones, too: of those the public half counts."""
    keys = [
        place.key(name, form) for name, form in (("a", Private.OpenSSH), ("b", Private.PKCS8), ("c", Private.PKCS8))
    ]
    as_pem = keys[1].public_key().public_bytes(PEM, serialization.PublicFormat.SubjectPublicKeyInfo).decode()
    for name in "abc":
        place.approve(name, key=name)
    own = json.loads(place.approvals.read_text().splitlines()[2])["key"]
    (place.folder / "trusted").write_text(f"{public(keys[0])}\n{as_pem}# c\n{own}\n")
    assert place.run(3, key="trusted").code == 0
    (place.folder / "private").write_bytes(b"".join((place.folder / name).read_bytes() for name in "abc"))
    assert place.run(3, key="private").code == 0


def encrypted() -> bytes:
    return Ed25519PrivateKey.generate().private_bytes(PEM, Private.PKCS8, serialization.BestAvailableEncryption(b"x"))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (None, "cannot be read"),
        (b"", "has no key"),
        (b"hello\n", ":1: is no key"),
        (b"# x\nssh-rsa AAAA\n", ":2: is no key"),
        (b"ed25519:AAAA\n", ":1: is no key"),
        (encrypted(), "encrypted"),
        (b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "key 1: is damaged"),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "must be ed25519"),
    ],
)
def test_a_key_file_that_is_none_is_refused_and_nothing_is_approved_or_sent(
    place: Place, data: bytes | None, words: str
) -> None:
    if data is not None:
        (place.folder / "keys").write_bytes(data)
    ran = place.run(1, key="keys")
    assert (ran.code, ran.summary["reason"]) == (2, "config")
    assert words in ran.sentence()
    approved = place.approve("Ada", key="keys")
    assert (approved.code, approved.out, place.approvals.exists()) == (2, "", False)
    assert "AAAA" not in approved.err + ran.err


def test_to_approve_needs_one_private_key(place: Place) -> None:
    ada = place.key("ada")
    place.key("grace")
    (place.folder / "public").write_text(public(ada))
    (place.folder / "two").write_bytes((place.folder / "ada").read_bytes() + (place.folder / "grace").read_bytes())
    for name, count in (("public", 0), ("two", 2)):
        assert f"has {count} private keys" in place.approve("Ada", key=name).sentence()


def test_a_variable_that_is_set_and_empty_is_no_way_around_signatures(place: Place) -> None:
    place.approve("Ada")
    for key in ("", " "):
        assert "PROMPTFERRY_SIGNING_KEY" in place.run(1, key=key).sentence()
        assert place.approve("Ada", key=key).code == 2


def test_without_the_extra_it_is_named(place: Place) -> None:
    place.key("ada")
    hidden = place.folder / "hidden" / "cryptography"
    hidden.mkdir(parents=True)
    (hidden / "__init__.py").write_text("raise ModuleNotFoundError('hidden', name='cryptography')")
    paths = os.pathsep.join([str(hidden.parent), *sys.path])
    env = environment(PROMPTFERRY_SIGNING_KEY="ada") | {"PYTHONPATH": paths}
    command = [sys.executable, "-m", "engine", "approve", "plan.json", "--as", "Ada"]
    done = subprocess.run(command, cwd=place.folder, env=env, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (2, "")
    assert "pip install 'promptferry[sign]'" in done.stderr
    assert "Traceback" not in done.stderr
    assert not place.approvals.exists()
