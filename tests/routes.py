"""The ends of a migration as a test holds them: what is there, who changes it, how a migration file names it.

Texts have their variables as `<name>` here, whatever the registry writes for that.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol

import httpx

from engine.connectors import DIALECTS
from engine.connectors.files.format import Document, from_line, from_markdown
from engine.sandbox import Sandbox
from tests.e2e import Ended, Served, promptferry, write_migration

KEY_ID: Final = "id-of-an-application"
MODEL: Final = "claude-3-7-sonnet-20250219"
PROVIDER: Final = "anthropic-prod"
COLLECTION: Final = "sales"
LIMITS: Final = {"rate": 2000, "settle": "0.2s", "timeout": 5}

Prompt = dict[str, Any]


class End(Protocol):
    """A place for prompts."""

    @property
    def part(self) -> Mapping[str, Any]:
        """Its map in a migration file."""
        ...

    def add(self, name: str, text: str) -> None:
        """A prompt that somebody makes."""
        ...

    def edit(self, name: str, text: str) -> None:
        """Somebody gives it another text."""
        ...

    def texts(self) -> dict[str, str]:
        """Name -> text of every prompt there; each name once."""
        ...


def shown(text: str) -> str:
    """With its variables as `<name>`."""
    return re.sub(r"\{\{(\w+)\}\}|\$\{(\w+)\}", lambda tag: f"<{tag[1] or tag[2]}>", text)


def mustache(text: str) -> str:
    """With its variables as Portkey has them."""
    return re.sub(r"<(\w+)>", r"{{\1}}", text)


def dollars(text: str) -> str:
    """With its variables as Conductor has them."""
    return re.sub(r"<(\w+)>", r"${\1}", text)


# ---- registries ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Portkey:
    """A workspace of Portkey."""

    registry: Served
    workspace: str = "main"

    @property
    def part(self) -> Mapping[str, Any]:
        """KEY is for the first workspace, COPY_KEY for the one called copy."""
        key = "${KEY}" if self.workspace == "main" else "${COPY_KEY}"
        return {"kind": "portkey", "base_url": self.registry.base_url, "api_key": key}

    def prompts(self) -> dict[str, Prompt]:
        """Name -> what is published."""
        return _once((one["name"], one) for one in self.registry.prompts(self.workspace))

    def add(self, name: str, text: str) -> None:
        self.registry.ask(
            partial(
                Sandbox.add_prompt,
                name=name,
                string=mustache(text),
                workspace=self.workspace,
                collection=COLLECTION,
                model=MODEL,
            )
        )

    def edit(self, name: str, text: str) -> None:
        self.registry.edit(self.prompts()[name]["id"], string=mustache(text))

    def texts(self) -> dict[str, str]:
        return {name: shown(one["string"]) for name, one in self.prompts().items()}


@dataclass(frozen=True)
class Conductor:
    """A cluster of Conductor."""

    registry: Served

    @property
    def part(self) -> Mapping[str, Any]:
        url = self.registry.ask(lambda sandbox: sandbox.conductor_url)
        return {"kind": "conductor", "base_url": url, "key_id": "${KEY_ID}", "key_secret": "${KEY_SECRET}"}

    def prompts(self) -> dict[str, Prompt]:
        """Name -> the newest version with its tags."""
        return _once((one["name"], one) for one in self.registry.ask(Sandbox.conductor_prompts))

    def versions(self, name: str) -> list[Prompt]:
        """Oldest first."""
        return self.registry.ask(lambda sandbox: sandbox.conductor_versions(name))

    def add(self, name: str, text: str, **fields: Any) -> None:
        known: Prompt = {"integrations": [f"{PROVIDER}:{MODEL}"], "tags": {"collection": COLLECTION}, **fields}
        self.registry.ask(partial(Sandbox.add_conductor_prompt, name=name, template=dollars(text), **known))

    def edit(self, name: str, text: str) -> None:
        newest = self.prompts()[name]["version"]
        change = partial(Sandbox.edit_conductor_prompt, name=name, template=dollars(text), version=newest + 1)
        self.registry.ask(change)

    def texts(self) -> dict[str, str]:
        return {name: shown(one["template"]) for name, one in self.prompts().items()}


@dataclass(frozen=True)
class Phoenix:
    """A server of Phoenix, in memory or a real one."""

    url: str
    tag: str = "production"

    @property
    def part(self) -> Mapping[str, Any]:
        return {"kind": "phoenix", "base_url": self.url, "published_by": self.tag}

    @property
    def _api(self) -> httpx.Client:
        return httpx.Client(base_url=f"{self.url}/v1/", trust_env=False, timeout=60)

    def rows(self) -> dict[str, Prompt]:
        """Name -> what a listing says of it."""
        with self._api as api:
            rows = api.get("prompts", params={"limit": 10_000}).json()["data"]
        return _once((one["name"], one) for one in rows)

    def versions(self, name: str) -> list[Prompt]:
        """Oldest first."""
        with self._api as api:
            found: list[Prompt] = api.get(f"prompts/{name}/versions", params={"limit": 1_000}).json()["data"]
        return found[::-1]

    def published(self, name: str) -> Prompt:
        """What has the tag, else the newest version."""
        with self._api as api:
            answer = api.get(f"prompts/{name}/tags/{self.tag}")
            found: Prompt = (answer if answer.is_success else api.get(f"prompts/{name}/latest")).json()["data"]
        return found

    def tags(self, version: str) -> set[str]:
        with self._api as api:
            rows = api.get(f"prompt_versions/{version}/tags", params={"limit": 1_000}).json()["data"]
        return {row["name"] for row in rows}

    def add(self, name: str, text: str, **version: Any) -> None:
        with self._api as api:
            body = {"prompt": {"name": name}, "version": phoenix_version(mustache(text), **version)}
            assert api.post("prompts", json=body).status_code == 200

    def edit(self, name: str, text: str) -> None:
        """As in its web interface: one more version, which gets the tag."""
        with self._api as api:
            tags = [{"name": self.tag}]
            body = {"version": phoenix_version(mustache(text)), "tags": tags}
            answer = api.post(f"prompts/{name}/versions", json=body)
            assert answer.status_code == 201, answer.text
            made = answer.json()["data"]["id"]
            assert api.post(f"prompt_versions/{made}/tags", json=tags[0]).status_code == 204

    def texts(self) -> dict[str, str]:
        found = {name: self.published(name)["template"]["messages"] for name in self.rows()}
        return {name: shown(messages[0]["content"]) for name, messages in found.items()}


def phoenix_version(text: str, **fields: Any) -> Prompt:
    """A version that the official client could have made."""
    known = {
        "model_provider": "OPENAI",
        "model_name": "gpt-4o",
        "template_type": "CHAT",
        "template_format": "MUSTACHE",
        "template": {"type": "chat", "messages": [{"role": "user", "content": text}]},
        "invocation_parameters": {"type": "openai", "openai": {}},
    }
    return known | fields


@dataclass(frozen=True)
class Langfuse:
    """A project of Langfuse: of the first workspace, or of the one called copy."""

    registry: Served
    workspace: str = "main"
    published_by: str = "production"

    @property
    def part(self) -> Mapping[str, Any]:
        url = self.registry.ask(lambda sandbox: sandbox.langfuse_url)
        keys = ("PUBLIC", "SECRET") if self.workspace == "main" else ("COPY_PUBLIC", "COPY_SECRET")
        own = {"published_by": self.published_by, "public_key": f"${{{keys[0]}}}", "secret_key": f"${{{keys[1]}}}"}
        return {"kind": "langfuse", "base_url": url, **own}

    def versions(self, name: str | None = None) -> list[Prompt]:
        """Oldest first; None: of all prompts."""
        return self.registry.ask(lambda sandbox: sandbox.langfuse_versions(self.workspace, name))

    def prompts(self) -> dict[str, Prompt]:
        """Name -> the version in production, else the newest."""
        newest = {one["name"]: one for one in self.versions()}
        return newest | {one["name"]: one for one in self.versions() if "production" in one["labels"]}

    def add(self, name: str, text: str, **fields: Any) -> None:
        known = {"prompt": mustache(text), "labels": ["production"], **fields}
        self.registry.ask(partial(Sandbox.add_langfuse_prompt, name=name, workspace=self.workspace, **known))

    def edit(self, name: str, text: str) -> None:
        self.add(name, text, config=self.prompts()[name]["config"])

    def texts(self) -> dict[str, str]:
        return {name: shown(one["prompt"]) for name, one in self.prompts().items()}


def _once(pairs: Any) -> dict[str, Prompt]:
    several = list(pairs)
    found = dict(several)
    assert len(found) == len(several), "a name is there twice"
    return found


# ---- files -----------------------------------------------------------------------------------------------------------


def _read(path: Path) -> Document:
    return from_markdown(path.read_bytes(), "", DIALECTS)


@dataclass(frozen=True)
class Folder:
    """A folder beside the migration file, with a file for each prompt."""

    path: Path

    @property
    def part(self) -> Mapping[str, Any]:
        return {"kind": "files", "path": str(self.path)}

    def files(self) -> dict[str, Path]:
        """Name of the prompt -> its file."""
        several = [(_read(path).prompt.name, path) for path in self.path.glob("*.md")]
        found = dict(several)
        assert len(found) == len(several), "a name is there twice"
        return found

    def add(self, name: str, text: str) -> None:
        self.path.mkdir(exist_ok=True)
        front = {"name": name, "collection": COLLECTION, "model": MODEL, "provider": PROVIDER}
        head = "".join(f"{key}: {value}\n" for key, value in front.items())
        (self.path / f"{name}.md").write_text(f"---\n{head}---\n{mustache(text)}")

    def edit(self, name: str, text: str) -> None:
        path = self.files()[name]
        document = _read(path)
        written = dollars(text) if document.prompt.dialect == "conductor" else mustache(text)
        path.write_text(path.read_text().removesuffix(document.prompt.text) + written)

    def texts(self) -> dict[str, str]:
        if not self.path.exists():
            return {}
        return {name: shown(_read(path).prompt.text) for name, path in self.files().items()}

    def contents(self) -> dict[str, bytes]:
        """File name -> its bytes, of every file that is there."""
        return {path.name: path.read_bytes() for path in self.path.iterdir()}


@dataclass(frozen=True)
class Lines:
    """A file beside the migration file, with a line for each prompt."""

    path: Path

    @property
    def part(self) -> Mapping[str, Any]:
        return {"kind": "files", "path": str(self.path)}

    def add(self, name: str, text: str) -> None:
        fields = {"name": name, "collection": COLLECTION, "model": MODEL, "provider": PROVIDER}
        self._write([*self._lines(), {"id": f"id-{name}", **fields, "string": mustache(text)}])

    def edit(self, name: str, text: str) -> None:
        lines = self._lines()
        (line,) = (line for line in lines if line["name"] == name)
        line["string"] = dollars(text) if line.get("dialect") == "conductor" else mustache(text)
        line.pop("digest", None)
        self._write(lines)

    def texts(self) -> dict[str, str]:
        read = [from_line(line, 1, DIALECTS).prompt for line in self._raw()]
        found = {prompt.name: shown(prompt.text) for prompt in read}
        assert len(found) == len(read), "a name is there twice"
        return found

    def _lines(self) -> list[Prompt]:
        return [json.loads(line) for line in self._raw()]

    def _raw(self) -> list[bytes]:
        return self.path.read_bytes().splitlines() if self.path.exists() else []

    def _write(self, lines: list[Prompt]) -> None:
        self.path.write_text("".join(json.dumps(line) + "\n" for line in lines))


# ---- a migration between two of them ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Route:
    """A migration that keeps names, with its ledger beside its file."""

    folder: Path
    path: Path
    environ: Mapping[str, str]

    @property
    def ledger(self) -> Path:
        return self.folder / "ledger.jsonl"

    def ask(self, command: str, *flags: str | Path, **more: Any) -> Ended:
        """The command to its end."""
        return promptferry(command, self.path, *flags, cwd=self.folder, env=self.environ, **more)

    def run(self, *flags: str) -> Ended:
        return self.ask("run", *flags)


def environ(registry: Served) -> dict[str, str]:
    """The secrets of both registries."""
    copy = registry.ask(lambda sandbox: sandbox.key("copy"))
    public, secret = registry.ask(lambda sandbox: sandbox.langfuse_keys("main"))
    copy_public, copy_secret = registry.ask(lambda sandbox: sandbox.langfuse_keys("copy"))
    return {
        "KEY": registry.api_key,
        "COPY_KEY": copy,
        "KEY_ID": KEY_ID,
        "KEY_SECRET": registry.api_key,
        "PUBLIC": public,
        "SECRET": secret,
        "COPY_PUBLIC": copy_public,
        "COPY_SECRET": copy_secret,
    }


def route(folder: Path, registry: Served, source: End, target: End | None, **parts: Any) -> Route:
    """The migration between these; no target: where they stand."""
    known = {"source": source.part, "rewrite": {"name": "{name}"}, "limits": LIMITS}
    known |= {} if target is None else {"target": target.part}
    return Route(folder, write_migration(folder, "", **known | parts), environ(registry))


def results(ended: Ended) -> dict[str, str]:
    """Name at the source -> what a rollback or a verification says."""
    return {one["name"]: one["result"] for one in ended.json["prompts"]}


def did(ended: Ended) -> dict[str, int]:
    """What this run did, but for what it did to none."""
    counts = ended.summary["this_run"]
    return {name: count for name, count in counts.items() if count}
