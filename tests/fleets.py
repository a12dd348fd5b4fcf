"""A fleet over many workspaces of one registry, asked by one key: what the tests of fleets share."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.ledger.file import read_ledger
from engine.ledger.report import OUTCOMES
from engine.sandbox import Sandbox, SandboxOptions
from tests.e2e import COMMAND, MARK, Ended, Served, promptferry, served
from tests.forks import environment

FAST: Mapping[str, Any] = {"rate": 2000, "settle": "0.4s", "timeout": 5, "concurrency": 16}


def write_fleet(folder: Path, **parts: Any) -> Path:
    """A fleet file."""
    path = folder / "fleet.yaml"
    path.write_text(json.dumps({"name": "teams", **parts}))  # JSON is YAML
    return path


def source(registry: Served, workspace: str = "{name}", key: str = "${KEY}") -> dict[str, Any]:
    """A workspace of it, by the key of the organisation."""
    return {"kind": "portkey", "base_url": registry.base_url, "api_key": key, "workspace": workspace}


@dataclass(frozen=True)
class Whole:
    """A run that has ended. `files`: the most that it had open; 0 where there is no /proc."""

    code: int
    summary: dict[str, Any]
    peak_kib: int
    files: int


@dataclass(frozen=True)
class Fleet:
    """Workspaces w0, w1, ... and a fleet that makes replicas in each of them."""

    registry: Served
    path: Path
    workspaces: tuple[str, ...]
    prompts: int
    """In each."""

    @property
    def env(self) -> dict[str, str]:
        """The one key."""
        return {"KEY": self.registry.ask(lambda sandbox: sandbox.admin_key)}

    @property
    def ledgers(self) -> Path:
        """The folder of the ledgers."""
        return self.path.parent / "ledgers" / "teams"

    def ask(self, verb: str, *flags: str | Path, **more: Any) -> Ended:
        """`promptferry fleet VERB`."""
        return promptferry("fleet", verb, self.path, *flags, cwd=self.path.parent, env=self.env, **more)

    def run_whole(self) -> Whole:
        """`fleet run` as a process of its own, however long it takes; its summary is larger than a pipe."""
        folder, files = self.path.parent, 0
        with (folder / "out").open("wb") as out, (folder / "err").open("wb") as err:
            command = [*COMMAND, "fleet", "run", str(self.path)]
            process = subprocess.Popen(command, cwd=folder, env=environment(**self.env), stdout=out, stderr=err)
        while not (ended := os.wait4(process.pid, os.WNOHANG))[0]:
            with suppress(OSError):
                files = max(files, len(os.listdir(f"/proc/{process.pid}/fd")))
            time.sleep(0.1)
        process.returncode = os.waitstatus_to_exitcode(ended[1])
        (line,) = (folder / "out").read_text().splitlines()
        return Whole(process.returncode, json.loads(line), ended[2].ru_maxrss, files)

    def replicas(self, workspace: str) -> Counter[str]:
        """Source id -> how many replicas it has."""
        marks = (one["template_metadata"].get(MARK) for one in self.registry.prompts(workspace))
        return Counter(mark["source_id"] for mark in marks if mark)

    def complaints(self) -> Iterator[str]:
        """What is wrong at the end, by what the registry really holds."""
        for name in self.workspaces:
            found, reading = self.replicas(name), read_ledger(self.ledgers / f"{name}.jsonl")
            if doubled := [one for one, count in found.items() if count > 1]:
                yield f"{name}: doubled {doubled}"
            if len(found) != self.prompts:
                yield f"{name}: {len(found)} replicas of {self.prompts} prompts"
            if {one for one, record in reading.state.records.items() if record.made} != found.keys():
                yield f"{name}: the ledger knows other replicas than there are"
            if reading.verdict.kind != "whole":
                yield f"{name}: the ledger is {reading.verdict.kind}"


@contextmanager
def fleet(
    folder: Path,
    workspaces: int,
    prompts: int,
    *,
    options: SandboxOptions | None = None,
    limits: Mapping[str, Any] = FAST,
    **parts: Any,
) -> Iterator[Fleet]:
    """A registry with so many workspaces of so many prompts, and the fleet over all of them by a CSV."""
    names = tuple(f"w{number}" for number in range(workspaces))
    with served(options or SandboxOptions(prompts=0)) as registry:
        for name in names:
            registry.ask(lambda sandbox, name=name: plant(sandbox, name, prompts))  # type: ignore[misc]
        (folder / "teams.csv").write_text("\n".join(["name", *names, ""]))
        defaults = {"source": source(registry), "limits": dict(limits), **parts.pop("defaults", {})}
        path = write_fleet(folder, csv="teams.csv", defaults=defaults, **parts)
        yield Fleet(registry, path, names, prompts)


def plant(sandbox: Sandbox, workspace: str, prompts: int) -> None:
    """Prompts in a workspace, which is made."""
    sandbox.key(workspace)
    for number in range(prompts):
        sandbox.add_prompt(f"prompt-{number}", f"Hello {{{{name}}}}, {workspace} {number}", workspace=workspace)


def balanced(summary: Mapping[str, Any]) -> None:
    """The books of each migration and of all of them."""
    counts: Sequence[Mapping[str, int]] = [one["counts"] for one in summary["migrations"]]
    for one in (summary["counts"], *counts):
        assert one["selected"] == sum(one[name] for name in OUTCOMES)
    for name in summary["counts"]:
        assert summary["counts"][name] == sum(one[name] for one in counts)
    for part in ("this_run", "requests"):
        for name in summary[part]:
            assert summary[part][name] == sum(one[part][name] for one in summary["migrations"])
    assert sum(summary["states"].values()) == len(summary["migrations"])
