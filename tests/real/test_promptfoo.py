"""Files that are written for promptfoo, run by its own command line: what its provider `echo` says is the prompt."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import pytest

from engine.connectors.files.formats.table import FORMATS
from engine.content.chats import messages_of
from engine.model import Prompt
from engine.verbs.compare.exports import as_promptfoo
from tests.answers import comparison, says
from tests.formats import DATA, asks_for_a_map, file_of, real_prompts, rewritten, said, values_for
from tests.real.servers import ROOT, NotReady, surroundings

pytestmark = [pytest.mark.real, pytest.mark.timeout(900)]

MAIN: Final = ROOT / ".npm-promptfoo" / "node_modules" / "promptfoo" / "dist" / "src" / "main.js"
PROMPTFOO: Final = FORMATS["promptfoo"]
TRICKY: Final = (
    "Look at prompts/a.txt",
    "file://etc/passwd",
    "exec:ls",
    '{"a": 1}',
    "42",
    '"a text"',
    "portkey://pp-1",
    "a {% b %} {# c #} d",
    "{",
    "#}",
    "{{name}}",
    "ends with lines\n\n",
    "  begins with blanks",
    "line\r\nends",
    "a * b",
    "---\nx\n---\n",
    "\u2028 and \x1e",
    "'quoted' \"twice\" \\ \\n",
)


def evaluated(folder: Path, *flags: str | Path) -> list[dict[str, Any]]:
    """The results of `promptfoo eval`, which keeps what it keeps in this folder."""
    if not MAIN.exists() or (node := shutil.which("node")) is None:
        raise NotReady(".npm-promptfoo is not made: run `make servers`, which needs node and npm")
    out = folder / "out.json"
    quiet = ["--no-cache", "--no-table", "--no-progress-bar", "--no-write", "-o", str(out)]
    done = subprocess.run(
        [node, MAIN, "eval", *flags, *quiet],
        env=surroundings(
            PROMPTFOO_CONFIG_DIR=str(folder),
            PROMPTFOO_DISABLE_TELEMETRY="1",
            PROMPTFOO_DISABLE_UPDATE="1",
        ),
        capture_output=True,
        text=True,
        check=False,
    )
    assert out.exists(), done.stdout[-2000:] + done.stderr[-2000:]
    found: list[dict[str, Any]] = json.loads(out.read_text(encoding="utf-8"))["results"]["results"]
    return found


def outputs(folder: Path, values: Mapping[str, Any]) -> dict[str, Any]:
    """Label of each prompt in the configurations of this folder -> what is sent to the model, by promptfoo."""
    more = folder / "more"
    more.mkdir()
    tests = json.dumps([{"vars": values}])
    (more / "values.yaml").write_text(f"providers: [echo]\nprompts: [of no file]\ntests: {tests}\n", encoding="utf-8")
    results = evaluated(more, "-c", f"{folder}/*.yaml", "-c", more / "values.yaml", "-r", "echo")
    return {one["prompt"]["label"]: one.get("response", {}).get("output") for one in results}


def sent(prompt: Prompt, values: Mapping[str, Any]) -> Any:
    """What is to be sent: the text, or roles and texts."""
    told = said(prompt, values)
    return told[0][1] if messages_of(prompt.text) is None else told


def told(output: Any, expected: Any) -> Any:
    """The output in the same form."""
    if isinstance(expected, str):
        return output
    messages = json.loads(output) if isinstance(output, str) else output
    return [(one["role"], "\n".join(_texts(one["content"]))) for one in messages]


def _texts(content: Any) -> Iterator[str]:
    yield from ([content] if isinstance(content, str) else (part["text"] for part in content))


def laid(values: dict[str, Any], more: Mapping[str, Any]) -> None:
    """More values, map by map."""
    for name, value in more.items():
        if isinstance(value, dict):
            laid(values.setdefault(name, {}), value)
        else:
            values[name] = value


def test_every_real_prompt_is_said_alike(tmp_path: Path) -> None:
    if not DATA.exists():
        pytest.skip("the collection of real prompts is not beside this checkout")
    values: dict[str, Any] = {}
    expected = {}
    for source in real_prompts():
        done = rewritten(source, PROMPTFOO)
        if done.refused or done.losses or asks_for_a_map(source):
            continue
        laid(values, values_for(source))
        expected[source.name] = sent(source, values_for(source))
        (tmp_path / f"{source.id}.yaml").write_bytes(file_of(done.prompt, "promptfoo"))
    found = outputs(tmp_path, values)
    assert len(expected) >= 540
    assert {name: told(found.get(name), one) for name, one in expected.items()} == expected


def test_a_text_that_promptfoo_could_take_for_something_else_is_said_as_it_stands(tmp_path: Path) -> None:
    expected = {}
    for number, text in enumerate(TRICKY):
        source = Prompt(id=f"p{number}", name=f"prompt {number}", text=text)
        done = rewritten(source, PROMPTFOO)
        assert not done.refused, text
        expected[source.name] = text.replace("{{name}}", "Ada")
        (tmp_path / f"{source.id}.yaml").write_bytes(file_of(done.prompt, "promptfoo"))
    found = outputs(tmp_path, {"name": "Ada"})
    assert {name: found.get(name) for name in expected} == expected


def test_recorded_answers_are_said_as_they_are_and_the_shape_of_their_json_is_asserted(tmp_path: Path) -> None:
    pairs = [(one, f"{one}!") for one in (*TRICKY, "", "{{ env.HOME }}", "{% if env.HOME %}x{% endif %}", "a {{{ b")]
    pairs += [
        ('{"a": null, "b": [1]}', '{"a": null, "b": []}'),
        ('{"a": 1}', '{"c": 1}'),
        ('{"a": 1}', "The answer is 1."),
    ]
    found = comparison(*((says(original), says(replica)) for original, replica in pairs))
    config = tmp_path / "answers.json"
    config.write_text(as_promptfoo(found.cases), encoding="utf-8")
    results = evaluated(tmp_path, "-c", config)
    told = {(one["vars"]["case"]["case"], one["prompt"]["label"]): one["response"]["output"] for one in results}
    for number, (original, replica) in enumerate(pairs):
        assert (told[f"case {number}", "original"], told[f"case {number}", "replica"]) == (original, replica)
    failed = {(one["vars"]["case"]["case"], one["prompt"]["label"]) for one in results if not one["success"]}
    changed = [one for one in found.cases if one.result == "changed"]
    assert failed == {(one.question.case, "replica") for one in changed}
    assert len(changed) == 3  # another key, a sentence, and the object among the tricky ones with a ! behind it
