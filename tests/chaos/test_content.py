"""Content that is hard to carry, through whole runs: equal at the target or failed by name, and the rest goes on."""

from __future__ import annotations

import json
import random
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from engine.ledger.file import read_ledger
from engine.sandbox import Sandbox
from tests.chaos.campaign import SCALE, Campaign, Tally, campaign, each
from tests.e2e import MARK
from tests.test_fidelity import HARD, SAME

DEPTH: Final = 500
DEEP: Final = json.loads("[" * DEPTH + "]" * DEPTH)
MAY_FAIL: Final[dict[str, dict[str, Any]]] = {
    "too deep: parameters": {"string": "x", "parameters": {"a": DEEP}},
    "too deep: tools": {"string": "x", "tools": [{"type": "function", "function": {"parameters": DEEP}}]},
    "homeless": {"string": "x", "collection": None},
}
"""These must arrive or fail by name; all others must arrive."""
PLAIN: Final = 10
MADE_UP: Final = 40
LETTERS: Final = (
    "aZ0 \"\\/<>&'`$%\t\n\r\0\x1b\x7f\x85\xa0éß\u0301\u200d\u2028\u2029\ufeff\uffff\ud800\udfff\U0001f600{}}}"
)


@dataclass(frozen=True)
class Case:
    """`homeless`: the registry takes prompts without a collection."""

    folder: Path
    seed: int
    homeless: bool


def carried(case: Case) -> Tally:
    quirks = {"collection_required": not case.homeless}
    with campaign(case.folder, prompts=PLAIN, seed=case.seed, quirks=quirks) as one:
        one.registry.ask(partial(plant, seed=case.seed))
        one.sources = frozenset(prompt["id"] for prompt in one.registry.prompts())
        first = one.run()
        one.disturbed(len(one.sources) - PLAIN)
        again = one.run()
        if first.code not in (0, 1) or again.code != first.code:
            one.complain(f"exit codes {first.code} and {again.code}", undetected=1)
        compare(one, case)
        one.judge()
    return one.tally


def plant(sandbox: Sandbox, *, seed: int) -> None:
    """The known hard ones, and some that nobody has thought of."""
    for name, fields in (HARD | MAY_FAIL).items():
        sandbox.add_prompt(name, **fields)
    rng = random.Random(seed)
    for number in range(MADE_UP):
        sandbox.add_prompt(f"{number} {text(rng)}", **made_up(rng))


def made_up(rng: random.Random) -> dict[str, Any]:
    """The fields of a prompt that nobody wrote."""
    return {
        "string": text(rng, 200),
        "parameters": {text(rng): value(rng) for _ in range(4)},
        "tools": [{text(rng): value(rng)} for _ in range(rng.randrange(3))],
        "template_metadata": {text(rng): value(rng)},
        "version_description": text(rng),
        "is_raw_template": rng.randrange(2),
    }


def value(rng: random.Random, depth: int = 0) -> Any:
    """A JSON value, deep at times."""
    kinds = (text, number, lambda _rng: rng.choice((None, True, False)))
    if depth > 5 or rng.random() < 0.6:
        return rng.choice(kinds)(rng)
    if rng.random() < 0.5:
        return [value(rng, depth + 1) for _ in range(rng.randrange(4))]
    return {text(rng): value(rng, depth + 1) for _ in range(rng.randrange(4))}


def number(rng: random.Random) -> int | float:
    """Small, above 64 bits, or a float of any size."""
    if rng.random() < 0.5:
        return rng.choice((1, -1)) * rng.getrandbits(rng.choice((4, 53, 63, 64, 65, 200)))
    return rng.choice((1, -1)) * rng.random() * 10.0 ** rng.randint(-300, 300)


def text(rng: random.Random, most: int = 12) -> str:
    """Letters that give trouble; two halves of a surrogate pair side by side are one letter, as JSON has it."""
    drawn = "".join(rng.choice(LETTERS) for _ in range(rng.randint(1, most)))
    return str(json.loads(json.dumps(drawn)))


def compare(one: Campaign, case: Case) -> None:
    """Each replica with its source, field by field and as JSON: 1, 1.0 and true are three things."""
    prompts = one.registry.prompts()
    replicas = {prompt["template_metadata"].pop(MARK)["source_id"]: prompt for prompt in prompts if is_replica(prompt)}
    records = read_ledger(one.ledger).state.records
    for source in (prompt for prompt in prompts if prompt["id"] in one.sources):
        replica = replicas.get(source["id"])
        if replica is None:
            record = records.get(source["id"])
            allowed = source["name"] in MAY_FAIL and not (case.homeless and source["name"] == "homeless")
            if not allowed or record is None or record.status != "failed":
                one.complain(f"{source['name']!r} has no replica", lost=1)
        elif changed := [field for field in SAME if same(source[field]) != same(replica[field])]:
            one.complain(f"{source['name']!r} arrived with another {', '.join(changed)}", undetected=1)


def is_replica(prompt: dict[str, Any]) -> bool:
    return MARK in prompt["template_metadata"]


def same(content: Any) -> str:
    return json.dumps(content, sort_keys=True)


def cases(folder: Path, count: int) -> list[Case]:
    return [Case(folder / f"{seed}", seed, bool(seed % 2)) for seed in range(count)]


def test_hard_content_arrives_as_it_was_or_fails_by_name(tmp_path: Path) -> None:
    tally = each(carried, cases(tmp_path, 4 * SCALE))
    assert tally.clean, tally


def long_content(scale: int, jobs: int) -> Tally:
    """8,000 prompts that nobody wrote."""
    with tempfile.TemporaryDirectory() as folder:
        return each(carried, cases(Path(folder), 200 * scale), jobs=jobs, told="hard content")
