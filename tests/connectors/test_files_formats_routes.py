"""Files in the formats of other tools as a source and a target, as a user sees it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import pytest

from engine.config import load_migration
from engine.connectors import DIALECTS
from engine.connectors.files.format import Document
from engine.connectors.files.formats.table import FORMATS
from engine.errors import ConfigError
from engine.model import Prompt
from engine.sandbox import SandboxOptions
from tests.e2e import Served, served
from tests.routes import COLLECTION, MODEL, PROVIDER, Portkey, did, mustache, results, route, shown

NAMES: Final = [name for name in FORMATS if name != "promptferry"]
VARIABLE: Final = {"langchain": "{%s}"}


@dataclass(frozen=True)
class Formatted:
    """A folder beside the migration file, with files of one format."""

    path: Path
    format: str

    @property
    def part(self) -> Mapping[str, Any]:
        return {"kind": "files", "path": str(self.path), "format": self.format}

    def prompts(self) -> dict[str, tuple[Path, Prompt]]:
        """Name -> its file, and what that says."""
        found = {}
        for path in sorted(self.path.glob(f"*{FORMATS[self.format].endings[0]}")) if self.path.exists() else ():
            for document in FORMATS[self.format].read(path.read_bytes(), path.stem, DIALECTS):
                assert document.prompt.name not in found, "a name is there twice"
                found[document.prompt.name] = (path, document.prompt)
        return found

    def add(self, name: str, text: str) -> None:
        self.path.mkdir(exist_ok=True)
        self._write(
            self.path / FORMATS[self.format].file_name(name),
            Prompt(id=name, name=name, text="", collection=COLLECTION, model=MODEL, provider=PROVIDER),
            text,
        )

    def edit(self, name: str, text: str) -> None:
        path, prompt = self.prompts()[name]
        self._write(path, prompt, text)

    def _write(self, path: Path, prompt: Prompt, text: str) -> None:
        dialect = FORMATS[self.format].dialect
        assert dialect is not None
        own = text.replace("<", "{").replace(">", "}") if self.format == "langchain" else mustache(text)
        content = FORMATS[self.format].write(Document(prompt=replace(prompt, text=own, dialect=dialect.name)))
        path.write_bytes(content)

    def texts(self) -> dict[str, str]:
        return {
            name: shown(prompt.text.replace("{", "{{").replace("}", "}}"))
            if self.format == "langchain"
            else shown(prompt.text)
            for name, (_, prompt) in self.prompts().items()
        }

    def contents(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self.path.iterdir()}


@pytest.fixture
def registry() -> Iterator[Served]:
    with served(SandboxOptions(prompts=0)) as found:
        yield found


def hellos(source: Any, count: int) -> None:
    for number in range(count):
        source.add(f"p{number}", f"Hello <who>, this is {number} of <all>. Yours")


@pytest.mark.parametrize("format", NAMES)
def test_the_nights_of_a_migration_into_files(format: str, tmp_path: Path, registry: Served) -> None:
    source, target = Portkey(registry), Formatted(tmp_path / "prompts", format)
    hellos(source, 4)
    target.add("p3", "Somebody's <own>")
    way = route(tmp_path, registry, source, target)
    assert way.ask("check", "--write-test").code == 0
    planned = way.ask("plan", "--json").json
    assert (planned["counts"]["create"], planned["counts"]["conflict"]) == (3, 1)
    wanted = source.texts() | target.texts()
    assert did(way.run()) == {"created": 3, "conflicts": 1}
    assert target.texts() == wanted
    assert way.ask("verify").code == 0
    before = target.contents()
    assert did(way.run()) == {"unchanged": 3, "conflicts": 1}
    assert target.contents() == before

    way.ledger.unlink()  # what is ours is known by its mark
    assert did(way.run()) == {"created": 3, "conflicts": 1}
    assert target.contents() == before
    source.edit("p0", "Good morning <who>")
    assert did(way.run()) == {"updated": 1, "unchanged": 2, "conflicts": 1}
    target.edit("p1", "By hand for <who>")
    source.edit("p1", "Good evening <who>")
    assert did(way.run()) == {"unchanged": 2, "conflicts": 2}
    wanted |= {"p0": "Good morning <who>", "p1": "By hand for <who>"}
    assert target.texts() == wanted
    back = way.ask("rollback", "--yes", "--json")
    assert results(back) == {"p0": "deleted", "p1": "kept", "p2": "deleted"}
    assert target.texts() == {name: wanted[name] for name in ("p1", "p3")}


@pytest.mark.parametrize("format", NAMES)
def test_files_go_into_a_registry_and_come_back_alike(format: str, tmp_path: Path, registry: Served) -> None:
    source, target = Formatted(tmp_path / "prompts", format), Portkey(registry)
    hellos(source, 3)
    (tmp_path / "prompts" / "team").mkdir()
    name = FORMATS[format].file_name("inside")
    (source.path / "team" / name).write_bytes((source.path / FORMATS[format].file_name("p0")).read_bytes())
    (source.path / "notes.md").write_text("no prompt")
    broken = source.path / FORMATS[format].file_name("broken")
    broken.write_text(
        '{"lc": 1,\n' if format == "langchain" else "---\nname: [\n---\n" if format != "promptfoo" else "a: ["
    )
    way = route(tmp_path, registry, source, target, rewrite={"name": "{id}"}, select={"names": ["p*", "broken*"]})
    inventory = way.ask("inventory").out
    assert "notes.md" in inventory
    ended = way.run()
    assert did(ended) == {"created": 4, "failed": 1}
    (failed,) = (one for one in way.ask("status", "--failed", "--json").json["failed"])
    assert broken.name in failed["message"]
    assert {"p0", "p1", "p2", "team/inside"} == {*target.prompts()}
    assert target.texts()["p1"] == "Hello <who>, this is 1 of <all>. Yours"
    assert target.prompts()["p1"]["model"] == MODEL
    assert way.ask("verify").code == 0


@pytest.mark.parametrize("format", NAMES)
def test_files_are_changed_where_they_stand(format: str, tmp_path: Path, registry: Served) -> None:
    end = Formatted(tmp_path / "prompts", format)
    hellos(end, 2)
    texts = end.texts()
    rules = {"model": "gpt-4o", "parameters": {"set": {"temperature": 0}}}
    way = route(tmp_path, registry, end, None, mode="update", rewrite=rules, publish=True)
    assert did(way.run()) == {"updated": 2}
    assert {(one.model, one.parameters["temperature"]) for _, one in end.prompts().values()} == {("gpt-4o", 0)}
    assert end.texts() == texts
    assert way.ask("verify").code == 0
    assert did(way.run()) == {"unchanged": 2}


def test_what_is_no_file_of_ours_is_read_and_never_changed(tmp_path: Path, registry: Served) -> None:
    end = Formatted(tmp_path / "prompts", "promptfoo")
    end.path.mkdir()
    (end.path / "two.yaml").write_text("prompts: ['Hello {{who}}', 'Bye {{who}}']\nproviders: ['openai:gpt-4']\n")
    (end.path / "chat.json").write_text(json.dumps([{"role": "user", "content": "Hello {{who}}"}]))
    (end.path / "text.txt").write_text("Hello {{who}}\n---\nBye {{who}}\n")
    before = end.contents()
    way = route(tmp_path, registry, end, None, mode="update", rewrite={"model": "gpt-4o"}, publish=True)
    assert did(way.run()) == {"failed": 5}
    messages = {one["message"] for one in way.ask("status", "--failed", "--json").json["failed"]}
    assert [one for one in messages if "holds several prompts" not in one and "never changed" not in one] == []
    assert end.contents() == before
    there = Portkey(registry)
    kept = {"name": "{id}", "collection": COLLECTION, "provider": PROVIDER, "model": MODEL}
    copy = route(tmp_path, registry, end, there, rewrite=kept, ledger="other.jsonl", name="copy")
    assert did(copy.run()) == {"created": 5}
    assert {*there.prompts()} == {"two#1", "two#2", "chat.json", "text.txt#1", "text.txt#2"}


def test_partials_of_dotprompt_are_passed_over_and_names_make_neither_partials_nor_variants(
    tmp_path: Path, registry: Served
) -> None:
    source, target = Portkey(registry), Formatted(tmp_path / "prompts", "dotprompt")
    source.add("_card.v2", "Hello <who>")
    assert did(route(tmp_path, registry, source, target).run()) == {"created": 1}
    ((path, prompt),) = target.prompts().values()
    assert (prompt.name, path.stem[0] != "_", "." not in path.stem) == ("_card.v2", True, True)
    (target.path / "_partial.prompt").write_text("Part of others")
    back = route(tmp_path, registry, target, Portkey(registry, "copy"), name="back", ledger="back.jsonl")
    assert "_partial.prompt" in back.ask("inventory").out
    assert did(back.run()) == {"created": 1}


@pytest.mark.parametrize(
    ("end", "says"),
    [
        ({"path": "prompts", "format": "liquid"}, "dotprompt"),
        ({"path": "prompts.jsonl", "format": "prompty"}, "prompty has no .jsonl files"),
        ({"path": "prompts.jsonl", "format": "promptferry"}, ""),
    ],
)
def test_a_format_is_one_that_there_is_and_of_a_folder(end: dict[str, str], says: str, tmp_path: Path) -> None:
    path = tmp_path / "m.yaml"
    path.write_text(json.dumps({"name": "a", "source": {"kind": "files", **end}}))
    if not says:
        load_migration(path, {})
        return
    with pytest.raises(ConfigError) as error:
        load_migration(path, {})
    assert says in str(error.value)


def test_a_file_in_the_place_of_a_folder_is_refused(tmp_path: Path, registry: Served) -> None:
    (tmp_path / "promptfooconfig.yaml").write_text("prompts: [a]\n")
    end = Formatted(tmp_path / "promptfooconfig.yaml", "promptfoo")
    ended = route(tmp_path, registry, end, Portkey(registry)).ask("check")
    assert "name the folder that it is in" in ended.out + ended.err
