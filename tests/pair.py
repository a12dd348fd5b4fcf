"""Two workspaces of one registry: what the prompts of the first one need is not in the second one."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.sandbox import Sandbox, SandboxOptions
from tests.e2e import Ended, Served, lines, promptferry, served

PATHS = {"collections": "/collections", "partials": "/prompts/partials", "labels": "/labels"}
ALL = tuple(PATHS)
PROVIDERS = {"openai-prod": "bedrock-prod", "*": "openai-prod"}


@dataclass
class Two:
    """A workspace with what its prompts need, and another one that has nothing of it."""

    registry: Served
    folder: Path
    there: str
    """Key of the other one."""
    before: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """What the other one had at first."""
    theirs: list[dict[str, Any]] = field(default_factory=list)
    """The prompts that it had."""

    def source(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        return self.registry.call(method, path, body)

    def target(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        return self.registry.call(method, path, body, key=self.there)

    def listed(self, what: str) -> list[dict[str, Any]]:
        """What the target has of these, without what it had at first."""
        had = {one["id"] for one in self.before.get(what, ())}
        return [one for one in self.target("GET", PATHS[what])["data"] if one["id"] not in had]

    def names(self) -> dict[str, Counter[str]]:
        return {what: Counter(one["name"] for one in self.listed(what)) for what in ALL}

    def is_as_it_was(self) -> bool:
        return not any(self.listed(what) for what in ALL) and not self.replicas()

    def stored(self) -> dict[str, Counter[tuple[Any, ...]]]:
        """Every row of every table of the registry, of both workspaces."""
        return self.registry.ask(_stored)

    def replicas(self) -> list[dict[str, Any]]:
        had = {one["id"] for one in self.theirs}
        return [one for one in self.registry.prompts("second") if one["id"] not in had]

    def write(self, **parts: Any) -> None:
        end = {"kind": "portkey", "base_url": self.registry.base_url}
        value = {
            "name": "m",
            "source": {**end, "api_key": "${KEY}"},
            "target": {**end, "api_key": "${THERE}"},
            "create_missing": list(ALL),
            "rewrite": {"name": "{name}", "provider": PROVIDERS},
            "limits": {"rate": 2000, "settle": "0.5s", "timeout": 5, "concurrency": 8},
            "ledger": "ledger.jsonl",
            **parts,
        }
        (self.folder / "m.yaml").write_text(json.dumps(value))

    def do(self, command: str, *flags: str | Path, **more: Any) -> Ended:
        return promptferry(command, "m.yaml", *flags, cwd=self.folder, env=self.env, **more)

    @property
    def env(self) -> dict[str, str]:
        """Both keys."""
        return {"KEY": self.registry.api_key, "THERE": self.there}

    @property
    def parts(self) -> list[dict[str, Any]]:
        """The lines of the ledger that are about no prompt."""
        return [line for line in lines(self.folder / "ledger.jsonl") if "what" in line]

    # ---- what stands there

    def collection(self, name: str, parent: str | None = None) -> dict[str, Any]:
        found: dict[str, Any] = self.source(
            "POST", "/collections", {"name": name, **({"parent_collection_id": parent} if parent else {})}
        )
        return found

    def partial(self, name: str, text: str, **more: str) -> str:
        return str(self.source("POST", "/prompts/partials", {"name": name, "string": text, **more})["slug"])

    def prompt(self, name: str, collection: str, text: str, label: str | None = None, provider: str = "") -> str:
        body = {"name": name, "collection_id": collection, "string": text, "parameters": {}, "model": "gpt-4o"}
        made = self.source("POST", "/prompts", {**body, "virtual_key": provider or "openai-prod"})
        if label is not None:
            self.source("PUT", f"/prompts/{made['id']}/versions/{made['version_id']}", {"label_id": label})
        return str(made["id"])


def _stored(sandbox: Sandbox) -> dict[str, Counter[tuple[Any, ...]]]:
    db = sandbox._registry.store._db
    tables = [str(name) for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    return {table: Counter(tuple(row) for row in db.execute(f"SELECT * FROM {table}")) for table in tables}


@contextmanager
def two(folder: Path, **options: Any) -> Iterator[Two]:
    with served(SandboxOptions(prompts=0, **options)) as registry:
        found = Two(registry, folder, registry.ask(lambda sandbox: sandbox.key("second")))
        found.before = {what: found.listed(what) for what in ALL}
        found.write()
        yield found


def planted(found: Two, count: int) -> None:
    """Three collections, one of them in another one; partials three deep; a label; two providers; and at the target
    something of somebody else's.
    """
    theirs = found.target("POST", "/collections", {"name": "Theirs"})["id"]
    tone = found.target("POST", "/prompts/partials", {"name": "Tone", "string": "Be yourself."})["slug"]
    body = {
        "name": "theirs",
        "collection_id": theirs,
        "string": f"{{{{>{tone}}}}}",
        "parameters": {},
        "model": "gpt-4o",
    }
    found.target("POST", "/prompts", {**body, "virtual_key": "openai-prod"})
    found.before = {what: found.target("GET", path)["data"] for what, path in PATHS.items()}
    found.theirs = found.replicas()
    support = found.collection("Care")
    urgent = found.collection("Urgent", support["id"])
    sales = found.collection("Deals")
    base = found.partial("Base", "We are {{company}}.", version_description="agreed in March")
    middle = found.partial("Middle", f"{{{{>{base}}}}} Be kind.")
    top = found.partial("Top", f"{{{{> {middle} }}}} And {{{{>{base}@1}}}}, {{{{>>House rules}}}}")
    label = found.source("POST", "/labels", {"name": "blue", "description": "the blue one", "color_code": "#0000ff"})
    homes, texts = (support, urgent, sales), (base, middle, top)
    for number in range(count):
        found.prompt(
            f"p{number}",
            homes[number % 3]["id"],
            f"Hi {{{{name}}}} {{{{>{texts[number % 3]}}}}}",
            label["id"] if number % 5 == 0 else None,
            provider=("openai-prod", "anthropic-prod")[number % 2],
        )


ONE_EACH = {
    "collections": Counter({"Care": 1, "Urgent": 1, "Deals": 1}),
    "partials": Counter({"Base": 1, "Middle": 1, "Top": 1}),
    "labels": Counter({"blue": 1}),
}
