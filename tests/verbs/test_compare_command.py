"""`compare`: originals are asked, their replicas are asked the same, and what is answered otherwise is named."""

from __future__ import annotations

import json
import stat
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest

from engine.cli.common import amount
from engine.errors import ConfigError
from engine.ledger.file import entries
from engine.sandbox import SandboxOptions
from tests.e2e import Ended, Place, Started, promptferry, served, started, write_migration

CASES: Final = 100
ODD: Final = (3, 17, 31, 55, 68, 90)
"""Cases that the new model answers with JSON of another shape."""
NEW: Final = "anthropic.claude-3-5-sonnet"
WORDS: Final = "Canary words of an answer"
TEMPLATE: Final = "Canary words of a template"

SLOWLY: Final = ("--yes", "--rate", "60")
"""So that there is time to end it."""

Json = Any


def chat(question: str) -> str:
    return json.dumps([{"role": "system", "content": TEMPLATE}, {"role": "user", "content": question}])


@dataclass
class Model:
    """Answers in JSON, or calls a tool; the new model answers `odd` cases otherwise. `asked`: (model, question)."""

    odd: tuple[int, ...] = ODD
    asked: list[tuple[str, str]] = field(default_factory=list)

    def __call__(self, request: Mapping[str, Json]) -> Mapping[str, Json] | None:
        question = request["messages"][-1]["content"]
        self.asked.append((request["model"], question))
        number, new = int(question.rsplit(" ", 1)[1]), request["model"] == NEW
        if new and number in self.odd:
            return {"content": json.dumps({"reply": WORDS, "sources": "one"})}
        if number % 10 == 9:  # equal as JSON
            arguments = '{"deep": {"x": 1.0}, "n": 1}' if new else '{"n": 1, "deep": {"x": 1}}'
            function = {"name": "find_customer", "arguments": arguments}
            return {"content": None, "tool_calls": [{"id": "c", "type": "function", "function": function}]}
        return {"content": json.dumps({"answer": f"{WORDS} {'anew' if new else ''}", "sources": ["a"] * (number % 3)})}

    def twice(self) -> int:
        """Questions that one model was asked more than once."""
        return sum(count > 1 for count in Counter(self.asked).values())


@dataclass(frozen=True)
class Asked(Place):
    """A library of two prompts, one of which streams, and what its commands have printed."""

    model: Model = field(default_factory=Model)
    ended: list[Ended] = field(default_factory=list)

    @property
    def answers(self) -> Path:
        return self.ledger.with_name("ledger.jsonl.answers.jsonl")

    def ask(self, command: str, *flags: str | Path) -> Ended:
        self.ended.append(super().ask(command, *flags))
        return self.ended[-1]

    def compare(self, *flags: str | Path) -> Ended:
        return self.ask("compare", *flags)

    def lines(self, kind: str) -> list[dict[str, Json]]:
        return [line for line in map(json.loads, self.answers.read_text().splitlines()) if line["kind"] == kind]

    def silent(self) -> None:
        """Neither a template nor an answer nor the key in what was printed or is in the ledger."""
        told = [self.ledger.read_text(), *(one.out + one.err for one in self.ended)]
        for text in (WORDS, TEMPLATE, self.registry.api_key):
            assert not [one for one in told if text in one], text
        assert self.registry.api_key not in self.answers.read_text()


@contextmanager
def library(folder: Path, model: Model, cases: int = CASES, **parts: Json) -> Iterator[Asked]:
    """The last tenth of the cases is for a prompt that streams."""
    tenth = cases - cases // 10
    lines = [{"prompt": "plain", "variables": {"n": n}, "label": f"q{n}"} for n in range(tenth)]
    lines += [{"prompt": "streamed", "variables": {"n": n}} for n in range(tenth, cases)]
    (folder / "cases.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    with served(SandboxOptions(prompts=3)) as registry:

        def plant(sandbox: Any) -> None:
            sandbox.answer_with(model)
            sandbox.add_prompt("plain", chat("question {{n}}"), parameters={"stream": False})
            sandbox.add_prompt("streamed", chat("question {{n}}"), parameters={"stream": True})

        registry.ask(plant)
        rewrite = {"model": NEW, "provider": "bedrock-prod"}
        path = write_migration(
            folder, registry.base_url, **{"rewrite": rewrite, "verify": {"cases": "cases.jsonl"}, **parts}
        )
        yield Asked(registry, path, model)


def names(ended: Ended, result: str) -> list[str]:
    return sorted(f"{one['name']} {one['case']}" for one in ended.json["cases"] if one["result"] == result)


def test_six_of_a_hundred_cases_are_answered_in_another_shape(tmp_path: Path) -> None:
    model = Model()
    with library(tmp_path, model) as place:
        assert place.compare().sentence().endswith(f"type `promptferry compare {place.path} --record`")
        refused = place.compare("--record")
        assert (refused.code, model.asked) == (2, [])
        assert "100 calls of 2 originals will be made with api_key" in refused.sentence()

        killed_while(place, "--record", lambda: len(model.asked) >= 20)
        before, kept = len(model.asked), len(place.lines("answer"))
        place.answers.write_bytes(place.answers.read_bytes() + b'{"v":1,"kind":"ans')  # torn by another kill
        recorded = place.compare("--record", "--yes", "--json")
        left = len(place.lines("asked")) - CASES
        assert (recorded.code, recorded.json["already"], recorded.json["calls"]["answered"]) == (0, kept, CASES - kept)
        assert (f"{left} of them left before" in recorded.err) == (left > 0)
        assert len(model.asked) == before + CASES - kept
        assert stat.S_IMODE(place.answers.stat().st_mode) == 0o600
        values = {one["values"] for one in place.lines("answer")}
        assert len(place.lines("answer")) == len(values) == CASES

        assert "nothing was migrated yet" in place.compare().sentence()
        assert place.run().code == 0
        asked = len(model.asked)
        interrupted_while(place, lambda: len(model.asked) >= asked + 10)
        found = place.compare("--yes", "--max-changed", "5%", "--json")
        assert (found.code, Counter(model.asked[asked:]).most_common(1)[0][1]) == (3, 1)
        assert len(model.asked) == asked + CASES
        assert names(found, "changed") == [*(f"plain q{n}" for n in sorted(map(str, ODD[:5]))), "streamed case 1"]
        changed = next(one for one in found.json["cases"] if one["case"] == "q3")
        assert changed["fields"] == ["json"]
        assert changed["details"] == ["json: $.answer is missing, $.reply is new, $.sources is string, was array"]
        assert (found.json["counts"]["same"], found.json["changed_percent"], found.json["exceeded"]) == (94, 6.0, True)
        assert [line["counts"] for line in entries(place.ledger) if line["kind"] == "answers"][-1] == found.json[
            "counts"
        ]

        within = place.compare("--max-changed", "7%", "--html", "page.html", "--export", "csv", "--out", "all.csv")
        assert within.code == 0
        assert "6 % of 100 compared cases changed, within --max-changed 7%" in within.out
        assert [place.compare("--max-changed", most).code for most in ("5", "6")] == [3, 0]
        for name in ("page.html", "all.csv"):
            written = place.path.with_name(name)
            assert WORDS in written.read_text()
            assert stat.S_IMODE(written.stat().st_mode) == 0o600
        assert len(model.asked) == asked + CASES  # nothing of it asked anybody
        assert WORDS in promptferry("compare", place.path, "--export", "jsonl", cwd=tmp_path, env=place.env).out
        place.silent()


def killed_while(place: Asked, flag: str, enough: Callable[[], bool]) -> None:
    with started("compare", place.path, flag, *SLOWLY, cwd=place.path.parent, env=place.env) as process:
        wait_until(enough, process)
        process.kill()


def interrupted_while(place: Asked, enough: Callable[[], bool]) -> None:
    with started("compare", place.path, *SLOWLY, cwd=place.path.parent, env=place.env) as process:
        wait_until(enough, process)
        process.terminate()
        ended = process.end()
    place.ended.append(ended)
    assert ended.code == 75
    assert ended.sentence().startswith("SIGTERM")


def wait_until(enough: Callable[[], bool], process: Started) -> None:
    while not enough() and process.poll() is None:
        time.sleep(0.002)


def test_answers_of_another_version_or_to_other_values_are_never_compared(tmp_path: Path) -> None:
    model = Model(odd=())
    with library(tmp_path, model, cases=10) as place:
        assert place.compare("--record").code == 0
        assert place.run().code == 0
        assert place.compare().code == 0
        (plain,) = (one for one in place.originals() if one["name"] == "plain")
        place.registry.edit(plain["id"], string=chat("another question {{n}}"))
        assert place.compare().code == 0  # the replica is of the version whose answers are recorded
        assert place.run().code == 0
        cases = (tmp_path / "cases.jsonl").read_text().replace('"n": 9', '"n": 19')
        (tmp_path / "cases.jsonl").write_text(cases)
        asked = len(model.asked)
        found = place.compare("--json")
        assert (found.code, len(model.asked)) == (1, asked)
        assert (len(names(found, "outdated")), names(found, "unrecorded")) == (9, ["streamed "])
        assert place.compare("--record").code == 0
        assert (place.compare().code, len(model.asked)) == (0, asked + 20)
        place.silent()


def test_what_is_refused_or_lost_is_told_and_asked_again(tmp_path: Path) -> None:
    model = Model(odd=())
    with library(tmp_path, model, cases=10) as place:
        plan = place.registry.ask(lambda sandbox: sandbox.faults.plan)
        plan("429", path_end="/completions", times=2)  # Retry-After: 1
        plan("500", path_end="/completions", times=1)
        recorded = place.compare("--record", "--json")
        assert recorded.code == 1
        assert (recorded.json["calls"]["lost"], recorded.json["calls"]["answered"]) == (1, 9)
        assert recorded.err.count('"event": "case.answered"') == 9
        assert recorded.err.count('"event": "case.lost"') == 1
        assert "1 of them left before" in (again := place.compare("--record")).err
        assert again.code == 0
        assert place.run().code == 0
        replica = next(one for one in place.registry.prompts() if one["name"] == "streamed-replica")
        place.registry.call("DELETE", f"/prompts/{replica['id']}")
        found = place.compare("--json")
        assert (found.code, found.json["counts"]["same"], names(found, "failed")) == (1, 9, ["streamed "])
        place.silent()


def test_in_place_the_staged_version_is_beside_the_one_before(tmp_path: Path) -> None:
    model = Model(odd=(1,))
    with library(tmp_path, model, cases=10, mode="update") as place:
        assert place.run().code == 0
        assert place.compare("--record").code == 0  # also after the run: the version that was there before
        for ended in (place.compare("--json"), place.ask("publish", "--yes"), place.compare("--json")):
            assert ended.code == 0
        assert names(ended, "changed") == ["plain q1"]
        assert Counter(one for one, _ in model.asked) == {"claude-3-7-sonnet-20250219": 10, NEW: 10}
        assert model.twice() == 0


def test_an_original_that_is_asked_often_shows_what_it_may_answer(tmp_path: Path) -> None:
    turns = Counter[str]()

    def flaky(request: Mapping[str, Json]) -> Mapping[str, Json]:
        turns[request["model"]] += 1
        key = "answer" if request["model"] == NEW or turns[request["model"]] % 2 else "reply"
        return {"content": json.dumps({key: 1})}

    with library(tmp_path, Model(), cases=1) as place:
        place.registry.ask(lambda sandbox: sandbox.answer_with(flaky))
        (tmp_path / "cases.jsonl").write_text('{"prompt": "plain", "variables": {"n": 1}}\n{"prompt": "gone"}\n')
        assert place.compare("--record", "--repeat", "2").code == 0
        assert place.run().code == 0
        found = place.compare("--repeat", "3", "--json")
        (case,) = found.json["cases"]
        assert (case["result"], case["flaky"], case["answers"]) == ("same", True, {"original": 2, "replica": 3})
        assert found.json["notes"] == ["verify.cases has cases of 'gone', which is no prompt that is compared"]
        assert "where the original itself answers now so" in place.compare("--repeat", "3").out
        assert turns == {"claude-3-7-sonnet-20250219": 2, NEW: 3}


def test_without_cases_values_are_made_up_for_every_prompt(tmp_path: Path) -> None:
    with library(tmp_path, Model(), verify={"variables": {"n": 5}}) as place:
        recorded = place.compare("--record", "--only", "plain", "--only", "streamed", "--json")
        assert (recorded.code, recorded.json["prompts"], recorded.json["calls"]["answered"]) == (0, 2, 2)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (
            ["--max-changed", "some"],
            "--max-changed 'some': must be a number of cases such as 20, or a share such as 5%",
        ),
        (["--record", "--html", "a.html"], "--record: only asks the originals"),
        (["--export", "csv", "--json"], "--json and --export both print"),
    ],
)
def test_flags_that_make_no_sense_are_refused(flags: list[str], words: str, tmp_path: Path) -> None:
    ended = promptferry("compare", write_migration(tmp_path, "sandbox"), *flags, cwd=tmp_path, env={"KEY": "k"})
    assert ended.code == 2
    assert words in ended.sentence()


@pytest.mark.parametrize("text", ["", "2.5", "101%", "5 %", "-1", "1e2%", "%", "٣%", "5%\n"])
def test_an_amount_is_a_number_or_a_share(text: str) -> None:
    with pytest.raises(ConfigError, match="must be a number of cases"):
        amount("--max-changed", text, "cases")
    assert [amount("--max-changed", good, "cases") for good in ("3", "0", "2.5%")] == [
        (3, False),
        (0, False),
        (2.5, True),
    ]


def test_a_registry_without_gateway_cannot_be_compared(tmp_path: Path) -> None:
    path = write_migration(tmp_path, "sandbox", target={"kind": "files", "path": "out"})
    ended = promptferry("compare", path, "--record", cwd=tmp_path, env={"KEY": "k"})
    assert ended.code == 2
    assert ended.sentence() == "compare asks models through the gateway of each end, and kind files has none"
