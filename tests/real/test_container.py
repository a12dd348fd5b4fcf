"""The Containerfile, built by buildah on a Debian that is made for it, since no registry of images is asked.

Made and built by root only. What the image says of its user, its first process and its environment is then kept to by
chroot into its own files: no root, a root file system that is mounted read-only, a ledger on a volume.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from engine.sandbox import SandboxOptions
from tests.e2e import Ended, Served, served, write_migration
from tests.real.servers import surroundings
from tests.real.tools import PATIENCE_S, RECIPES, ROOT, needed, passed

UV = Path(sys.executable).with_name("uv")
PACKAGES = "python3-minimal,python3-venv,ca-certificates,dash,coreutils"
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
USER = 10001
PROMPTS = 60
POLL_S = 0.02

INSIDE = """
set -eu
files=$1 ledgers=$2 migration=$3; shift 3
mkdir -p "$files/mnt" "$files/tmp" ${ledgers:+"$files/ledgers"}
mount --bind "$files" "$files"
mount --bind "$migration" "$files/mnt"
[ -z "$ledgers" ] || mount --bind "$ledgers" "$files/ledgers"
mount -o remount,bind,ro "$files"
mount -o remount,bind,ro "$files/mnt"
mount -t tmpfs tmpfs "$files/tmp"
exec chroot --userspec="$USER" "$files" /usr/bin/env -i "$@"
"""
"""What a runtime does with the image before its first process begins."""


@dataclass(frozen=True)
class Image:
    """What was built: its configuration, and the folder of its files."""

    config: dict[str, Any]
    files: Path

    def start(self, migration: Path, ledgers: Path | None, key: str, *flags: str) -> subprocess.Popen[str]:
        """The container's first process, with `run` and these flags."""
        variables = [*self.config["Env"], f"KEY={key}", "PYTHONUNBUFFERED=1"]
        command = [*variables, *self.config["Entrypoint"], "run", f"/mnt/{migration.name}", *flags]
        places = (self.files, "" if ledgers is None else ledgers, migration.parent)
        return subprocess.Popen(
            [needed("unshare"), "--mount", "sh", "-c", INSIDE, "sh", *map(str, places), *command],
            env=surroundings(USER=self.config["User"]),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )


def ended(process: subprocess.Popen[str]) -> Ended:
    out, err = process.communicate(timeout=PATIENCE_S)
    return Ended(process.returncode, out, err)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    if os.geteuid() != 0:
        pytest.skip("only root may make an image of Debian here")
    bootstrap, builder = needed("mmdebstrap"), needed("buildah")
    folder = tmp_path_factory.mktemp("image")
    base = folder / "base.tar"
    passed(bootstrap, "--quiet", "--variant=extract", f"--include={PACKAGES}", "bookworm", base, cwd=folder)
    stores = ("--root", folder / "root", "--runroot", folder / "run")

    def buildah(*arguments: str | Path) -> str:
        return passed(builder, *stores, *arguments, cwd=folder).strip()

    empty = buildah("from", "scratch")
    buildah("add", "--quiet", empty, base, "/")
    buildah("commit", "--quiet", "--rm", empty, "localhost/debian")
    how = ("--isolation", "chroot", "--build-arg", "BASE=localhost/debian", *trusting(folder))
    recipe = ("--file", RECIPES / "Containerfile", "--tag", "localhost/promptferry")
    buildah("build", *how, *recipe, context(folder / "context"))
    container = buildah("from", "localhost/promptferry")
    config = json.loads(buildah("inspect", "--type", "image", "localhost/promptferry"))["OCIv1"]["config"]
    yield Image(config, Path(buildah("mount", container)))
    buildah("umount", container)


def context(folder: Path) -> Path:
    """What it is built from: the wheel, as `make dist` leaves it."""
    left_out = shutil.ignore_patterns(".*", "*.egg-info", "ledgers", "build", "dist", "tests", "__pycache__")
    source = shutil.copytree(ROOT, folder / "source", ignore=left_out)
    passed(UV, "build", "--quiet", "--system-certs", "--wheel", "--out-dir", folder / "dist", source, cwd=folder)
    return folder


def trusting(folder: Path) -> Sequence[str | Path]:
    """Flags that let pip in the image trust whom this host trusts."""
    if not CERTIFICATES.exists():
        return ()
    settings = folder / "pip.conf"
    settings.write_text(f"[global]\ncert = {CERTIFICATES}\n")
    return ("--volume", f"{CERTIFICATES.parent}:{CERTIFICATES.parent}:ro", "--volume", f"{settings}:/etc/pip.conf:ro")


@pytest.fixture
def registry() -> Iterator[Served]:
    with served(SandboxOptions(prompts=PROMPTS)) as found:
        yield found


@pytest.mark.timeout(900)
def test_an_image_that_runs_as_nobody_and_hears_of_its_end(image: Image, registry: Served, tmp_path: Path) -> None:
    assert image.config["User"] == f"{USER}:{USER}"
    assert image.config["Entrypoint"] == ["/opt/promptferry/bin/promptferry"]  # no shell between us and SIGTERM
    assert image.config["StopSignal"] in ("SIGTERM", "15")

    (tmp_path / "migration").mkdir()
    migration = write_migration(tmp_path / "migration", registry.base_url, name="m")
    without = ended(image.start(migration, None, registry.api_key))
    assert (without.code, "/ledgers" in without.err) == (75, True), without.err
    assert [one for one in registry.prompts() if "promptferry" in one["template_metadata"]] == []

    (ledgers := tmp_path / "ledgers").mkdir()
    os.chown(ledgers, USER, USER)
    ledger = ledgers / "ledger.jsonl"
    with image.start(migration, ledgers, registry.api_key, "--rate", "20") as process:
        while not ledger.exists() or ledger.read_bytes().count(b"\n") < 10:
            with suppress(subprocess.TimeoutExpired):
                pytest.fail(f"it ended with {process.wait(POLL_S)}")
        process.send_signal(signal.SIGTERM)
        stopped = ended(process)
    assert (stopped.code, stopped.summary["reason"]) == (75, "interrupted"), stopped.err
    done = ended(image.start(migration, ledgers, registry.api_key))
    assert (done.code, done.summary["reason"]) == (0, "done"), done.err
    assert sum("promptferry" in one["template_metadata"] for one in registry.prompts()) == PROMPTS
    assert ledger.stat().st_uid == USER
