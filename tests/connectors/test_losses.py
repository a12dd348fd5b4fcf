"""The table of what arrives where, in configs/README.md, is what `plan` and `run` do: every prompt of it is sent."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import pytest

from engine.connectors import DIALECTS
from engine.connectors.files.format import Document, to_line
from engine.model import Prompt, altered
from tests.e2e import promptferry, write_migration
from tests.losses import ONE_TEXT, PLACES, PROBES, ROWS, Fate, Place, fate, probes
from tests.routes import LIMITS, results
from tests.stand_ins import StandIns, stand_ins

UNKNOWN: Final = "a field that nobody knows"
HOME: Final = "sales"
"""The collection that every prompt of the other rows is in: some registries want one."""


def told(prompt: Prompt, number: int) -> Prompt:
    name = f"p-{number}"
    return altered(prompt, id=name, name=name, collection=prompt.collection or HOME)


def sent(place: Place) -> dict[str, tuple[Prompt, Fate]]:
    """Name -> a prompt of the table, and what it says becomes of it there; but those that name what has to be there."""
    ways = [(prompt, fate(prompt, place)) for probe, _, prompt in probes(place) if not probe.refers]
    return {f"p-{number}": (told(prompt, number), one) for number, (prompt, one) in enumerate(ways)}


WANTED: Final[dict[str, dict[str, str]]] = {"portkey": {"provider": "openai-prod", "model": "gpt-4o"}}
"""What a registry wants of every prompt, and not every source has."""


def migration(folder: Path, there: StandIns, place: Place, *, messages: str = "refuse", **parts: Any) -> Path:
    target = {**there.part(place.end.kind), **({"format": place.end.format} if hasattr(place.end, "format") else {})}
    source = {"kind": "files", "path": str(folder / "source.jsonl")}
    rewrite = {"name": "{name}", "messages": messages, **WANTED.get(place.end.kind, {})}
    return write_migration(folder, "", source=source, target=target, rewrite=rewrite, limits=LIMITS, **parts)


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.title)
def test_plan_and_run_do_what_the_table_says(place: Place, tmp_path: Path) -> None:
    expected = sent(place)
    lines = [to_line(Document(prompt=prompt)) for prompt, _ in expected.values()]
    (tmp_path / "source.jsonl").write_bytes(b"".join(lines))
    with stand_ins(tmp_path) as there:
        path = migration(tmp_path, there, place)
        planned = promptferry("plan", path, "--json", cwd=tmp_path, env=there.env).json["prompts"]
        assert {one["name"] for one in planned} == expected.keys()
        for one in planned:
            prompt, becomes = expected[one["name"]]
            says = (prompt, becomes, one)
            assert tuple(one["losses"]) == becomes.losses, says
            assert (one["problem"] is None) == becomes.arrives, says

        accepted = sorted({name for _, one in expected.values() for name in one.losses})
        path = migration(tmp_path, there, place, allow_loss=accepted, messages="transcript")
        run = promptferry("run", path, cwd=tmp_path, env=there.env)
        refused = [name for name, (_, one) in expected.items() if one.word == "refused"]
        counts = run.summary["counts"]
        assert (counts["created"], counts["failed"]) == (len(expected) - len(refused), len(refused))
        verified = promptferry("verify", path, "--json", cwd=tmp_path, env=there.env)
        assert set(results(verified).values()) == {"same"}


OF_THEIR_OWN: Final = {
    "dotprompt": ["helpers"],  # {{role "user"}} begins a message, and is no text
    "prompty": [ROWS["raw"]],  # raw are there templates whose roles are made while rendering, and no others
}


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.title)
def test_from_one_to_another_of_its_kind_all_that_it_knows_is_kept(place: Place) -> None:
    own = [(probe, prompt) for probe, dialect, prompt in probes(place) if place.speaks(dialect)]
    lost = {probe.row for probe, prompt in own if not fate(prompt, place).arrives}
    known = {"`provider`", *OF_THEIR_OWN.get(place.title, ())}  # a list of names, which a registry knows of itself
    assert lost - known <= ({UNKNOWN} if place.can.dialect is not None else set())


def test_every_dialect_and_every_row_is_there() -> None:
    shown = {(probe.row, dialect.name) for place in PLACES for probe, dialect, _ in probes(place)}
    assert {name for _, name in shown} == DIALECTS.keys()
    assert {row for row, _ in shown} == {probe.row for probe in PROBES}
    assert any(fate(prompt, place).word == ONE_TEXT for place in PLACES for _, _, prompt in probes(place))


def test_what_portkey_wants_of_each_prompt_is_noted_before_a_create_is_refused(tmp_path: Path) -> None:
    (tmp_path / "source.jsonl").write_bytes(to_line(Document(prompt=Prompt(id="p", name="p", text="Hello"))))
    with stand_ins(tmp_path) as there:
        parts: dict[str, Any] = {"source": {"kind": "files", "path": "source.jsonl"}, "target": there.part("portkey")}
        path = write_migration(tmp_path, "", limits=LIMITS, **parts)
        (planned,) = promptferry("plan", path, "--json", cwd=tmp_path, env=there.env).json["prompts"]
        wanted = ("collection", "provider", "model")
        assert all(any(f"name it in rewrite.{one}" in note for note in planned["notes"]) for one in wanted)
        named = {"name": "{name}", "collection": HOME, **WANTED["portkey"]}
        write_migration(tmp_path, "", limits=LIMITS, rewrite=named, **parts)
        (planned,) = promptferry("plan", path, "--json", cwd=tmp_path, env=there.env).json["prompts"]
        assert not planned["notes"]
        assert promptferry("run", path, cwd=tmp_path, env=there.env).summary["counts"]["created"] == 1
