"""What a run leaves for those who watch it: `--metrics FILE`, and `GITHUB_STEP_SUMMARY`."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from engine.cli.fleet import no_fleet
from engine.cli.metrics import FAMILIES, exposition, write_metrics
from engine.cli.run import nothing_done
from engine.cli.step_summary import append_step_summary, markdown, plain
from engine.ledger.remedies import remedy
from engine.ledger.report import OUTCOMES
from engine.ledger.sink import Sink
from tests.e2e import promptferry

NAME = "promptferry_"


def told(name: str = "m", exit_code: int = 0, *, requests: int = 5, throttled: int = 1, **more: Any) -> dict[str, Any]:
    """A summary."""
    summary = nothing_done("done", "", exit_code).to_json() | {"migration": name, "run": "r1", "duration_s": 2.5}
    summary["requests"] = summary["requests"] | {"total": requests, "throttled": throttled}
    summary["counts"] = summary["counts"] | {"selected": 3, "created": 2, "failed": 1}
    return summary | more


def samples(text: str) -> dict[str, dict[tuple[str, ...], float]]:
    """Name -> values of the labels -> value, as Prometheus' own parser reads them; each family says what it is."""
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(text):
        whole = f"{family.name}_total" if family.type == "counter" else family.name
        assert FAMILIES[whole] == (family.type, family.documentation)
        for one in family.samples:
            found.setdefault(one.name.removeprefix(NAME), {})[tuple(one.labels.values())] = one.value
    return found


def write(file: Path, summary: Mapping[str, Any], shard: str = "") -> dict[str, dict[tuple[str, ...], float]]:
    write_metrics(file, summary, shard)
    return samples(file.read_text())


def test_a_folder_whose_name_is_no_utf_8_ends_no_run(tmp_path: Path) -> None:
    """Its summary names the ledger by its path, and was told as a bug when all was done."""
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    (folder / "source").mkdir(parents=True)
    (folder / "source" / "hello.md").write_text("---\nname: hello\n---\nHello\n")
    ends = {end: {"kind": "files", "path": end} for end in ("source", "target")}
    (folder / "m.yaml").write_text(json.dumps({"name": "m", **ends}))
    ended = promptferry("run", "m.yaml", "--summary", "summary.json", cwd=folder)
    assert (ended.code, ended.summary["counts"]["created"]) == (0, 1), ended.err
    assert json.loads((folder / "summary.json").read_text())["exit_code"] == 0


# ---- metrics ---------------------------------------------------------------------------------------------------------


def test_the_last_run_and_the_last_success(tmp_path: Path) -> None:
    first = samples(exposition([told()], {}, now=100.25))
    assert first["last_run_timestamp_seconds"] == first["last_success_timestamp_seconds"] == {("m",): 100.25}
    assert (first["last_run_duration_seconds"], first["last_run_exit_code"]) == ({("m",): 2.5}, {("m",): 0})
    assert first["prompts"] == {("m", name): {"created": 2, "failed": 1}.get(name, 0) for name in OUTCOMES}
    assert (first["requests_total"], first["throttled_requests_total"]) == ({("m",): 5}, {("m",): 1})

    file = tmp_path / "m.prom"
    succeeded = write(file, told())["last_success_timestamp_seconds"]
    for code in (1, 4, 75):
        failed = write(file, told(exit_code=code))
        assert failed["last_success_timestamp_seconds"] == succeeded
        assert failed["last_run_exit_code"] == {("m",): code}
    assert failed["requests_total"] == {("m",): 20}  # counters never go back
    assert write(file, told())["last_success_timestamp_seconds"][("m",)] > succeeded[("m",)]
    assert [path.name for path in tmp_path.iterdir()] == ["m.prom"]


def test_without_a_success_there_is_no_time_of_one(tmp_path: Path) -> None:
    assert "last_success_timestamp_seconds" not in write(tmp_path / "m.prom", told(exit_code=4))


def test_a_fleet_has_one_file_and_what_it_says_of_others_stays(tmp_path: Path) -> None:
    file = tmp_path / "fleet.prom"
    write(file, {"migrations": [told("a"), told("b", 4)]})
    found = write(file, {"migrations": [told("b", 0)]})
    assert found["last_run_exit_code"] == {("a",): 0, ("b",): 0}
    assert found["requests_total"] == {("a",): 5, ("b",): 10}
    refused = write(file, no_fleet("config", "no such file", 2).to_json())  # nobody knows what it was about
    assert refused["last_run_exit_code"] == {("a",): 2, ("b",): 2}
    assert refused["last_success_timestamp_seconds"] == found["last_success_timestamp_seconds"]


def test_who_could_not_be_named_is_forgotten_by_the_next_run(tmp_path: Path) -> None:
    file, refused = tmp_path / "m.prom", nothing_done("config", "", 2).to_json()
    assert write(file, refused)["last_run_exit_code"] == {("",): 2}
    assert write(file, told("a"))["last_run_exit_code"] == {("a",): 0}  # else an alert on it would never end
    write(file, told("b"))
    assert write(file, refused)["last_run_exit_code"] == {("a",): 0, ("b",): 0, ("",): 2}  # it may be neither


def test_a_part_of_a_fleet_that_has_no_migration_succeeds_for_none(tmp_path: Path) -> None:
    file = tmp_path / "fleet.prom"
    before = write(file, {"fleet": "teams", "migrations": [told("a", 4)]})
    assert write(file, no_fleet("done", "", 0).to_json() | {"fleet": "teams"}) == before


def test_each_shard_has_its_own_figures_in_one_file(tmp_path: Path) -> None:
    file = tmp_path / "m.prom"
    write(file, told("other"))
    write(file, told(exit_code=4), "0/2")
    both = write(file, told(requests=7), "1/2")
    assert both["last_run_exit_code"] == {("m", "0/2"): 4, ("m", "1/2"): 0, ("other",): 0}
    assert both["last_success_timestamp_seconds"].keys() == {("m", "1/2"), ("other",)}
    assert {key[:2] for key in both["prompts"] if key[0] == "m"} == {("m", "0/2"), ("m", "1/2")}
    again = write(file, told(requests=1), "0/2")["requests_total"]
    assert again == {("m", "0/2"): 6, ("m", "1/2"): 7, ("other",): 5}
    refused = write(file, nothing_done("config", "", 2, migration="m").to_json(), "1/2")["last_run_exit_code"]
    assert refused == {("m", "0/2"): 0, ("m", "1/2"): 2, ("other",): 0}
    # a run of another number of shards, or of none: nobody would ever tell of these again
    assert write(file, told(), "0/3")["last_run_exit_code"] == {("m", "0/3"): 0, ("other",): 0}
    assert write(file, told())["last_run_exit_code"] == {("m",): 0, ("other",): 0}


def test_a_fleet_s_shard_that_is_refused_speaks_of_its_own_migrations(tmp_path: Path) -> None:
    file = tmp_path / "fleet.prom"
    write(file, {"migrations": [told("a")]}, "0/2")
    write(file, {"migrations": [told("b")]}, "1/2")
    refused = write(file, no_fleet("config", "no such file", 2).to_json(), "1/2")["last_run_exit_code"]
    assert refused == {("a", "0/2"): 0, ("b", "1/2"): 2}


def test_a_migration_that_a_fleet_did_not_come_to_had_no_last_run(tmp_path: Path) -> None:
    file = tmp_path / "fleet.prom"
    write(file, {"migrations": [told("a"), told("b")]})
    before = file.read_text()
    left, unusable = told("a", 75, run=""), told("b", 4, run="")
    write(file, {"migrations": [left]})
    assert file.read_text() == before
    after = write(file, {"migrations": [left, unusable, told("c", 75)]})
    assert after["last_run_exit_code"] == {("a",): 0, ("b",): 4, ("c",): 75}


def test_labels_are_escaped_and_read_again(tmp_path: Path) -> None:
    odd, file = 'a "b" \\n \\ c\nd{},=', tmp_path / "odd.prom"
    write(file, told(odd))
    assert write(file, told(odd))["requests_total"] == {(odd,): 10}
    assert write(file, nothing_done("config", "", 2).to_json())["last_run_exit_code"] == {(odd,): 2}


@pytest.mark.parametrize("before", [b"", b"hello {\xff\n", b'promptferry_requests_total{migration="m"} many\n'])
def test_what_is_none_of_ours_does_not_disturb_it(before: bytes, tmp_path: Path) -> None:
    file = tmp_path / "m.prom"
    file.write_bytes(before)
    assert write(file, told())["requests_total"] == {("m",): 5}


def test_where_it_cannot_be_written_that_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_metrics(tmp_path / "no" / "m.prom", told())
    write_metrics(tmp_path, told())
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith(f"warning: --metrics {tmp_path}/no/m.prom: cannot be written: No such file")
    assert second.startswith(f"warning: --metrics {tmp_path}: cannot be written")


# ---- the step summary ------------------------------------------------------------------------------------------------


def test_a_run_as_a_page() -> None:
    why = {"failed": {"bad_name": 1}, "conflicts": {"exists": 2}}
    page = markdown(told(message="it broke", notes=["one `note`"], next="Run it again.", reasons=why))
    assert "\n| why | prompts | what to do |\n" in page
    assert f"\n| failed: bad name | 1 | {plain(remedy('failed', 'bad_name').advice)} |\n" in page
    assert page.startswith("### promptferry m: done (exit code 0)\n\nit broke\n\n| prompts |  |\n|---|---|\n")
    for line in ("| created | 2 |", "| failed | 1 |", "Run it again.", "- one \\`note\\`"):
        assert f"\n{line}\n" in page
    assert "| unchanged" not in page  # what there is none of


def test_a_fleet_as_a_page() -> None:
    summary = no_fleet("failures", "", 4).to_json() | {"fleet": "teams", "migrations": [told("a"), told("b", 4)]}
    summary["counts"] = summary["counts"] | {"selected": 6, "created": 4, "failed": 2}
    lines = markdown(summary).splitlines()
    assert lines[0] == "### promptferry teams: failures (exit code 4)"
    assert lines[2] == "| migration | exit code | reason | selected | created | failed |"
    assert lines[4:7] == [
        "| a | 0 | done | 3 | 2 | 1 |",
        "| b | 4 | done | 3 | 2 | 1 |",
        "| total | 4 |  | 6 | 4 | 2 |",
    ]
    many = markdown(summary | {"migrations": [told(f"m{number}") for number in range(2000)]})
    assert "and 1500 more" in many
    assert len(many) < 2**19


def test_nothing_in_it_is_markup(tmp_path: Path) -> None:
    odd = "a|b `c` <img src=x> [d](e) *f* \\ \n# g\ud800"
    page = tmp_path / "page.md"
    page.write_text("before\n")
    append_step_summary(page, told(message=odd, notes=[odd], next=odd))
    before, *found = page.read_text().splitlines()
    assert before == "before"
    lines = [line.removeprefix("- ") for line in found if "src" in line]
    assert len(lines) == 3
    for line in lines:
        assert line.startswith("a\\|b \\`c\\` \\<img src=x\\> \\[d\\]\\(e\\) \\*f\\* \\\\ \\# g")


# ---- the command -----------------------------------------------------------------------------------------------------


def test_every_end_of_a_run_leaves_both(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "hello.md").write_text("---\nname: hello\nmodel: old\n---\nHello secret-text\n")
    ends = {end: {"kind": "files", "path": end} for end in ("source", "target")}
    file = tmp_path / "m.yaml"
    file.write_text(json.dumps({"name": "m", **ends, "ledger": "m.jsonl"}))
    page, metrics, summary = (tmp_path / name for name in ("page.md", "m.prom", "summary.json"))

    def run(*more: str) -> tuple[int, float, str]:
        before = page.read_text() if page.exists() else ""
        left = ("--metrics", metrics, f"--summary={summary}")
        ended = promptferry("run", file, *more, *left, cwd=tmp_path, env={"GITHUB_STEP_SUMMARY": str(page)})
        assert json.loads(summary.read_text()) == ended.summary
        assert page.read_text().startswith(before)
        code = samples(metrics.read_text())["last_run_exit_code"][("m",)]
        return ended.code, code, page.read_text()[len(before) :].partition("\n")[0]

    assert run() == (0, 0, "### promptferry m: done (exit code 0)")
    succeeded = samples(metrics.read_text())["last_success_timestamp_seconds"]
    assert run("--shards", "0") == (2, 2, "### promptferry: config (exit code 2)")  # before the command is reached
    text = file.read_text()
    file.write_text("no migration")
    promptferry("run", file, "--shards", "2", "--metrics", metrics, cwd=tmp_path, env={"JOB_COMPLETION_INDEX": "1"})
    promptferry("run", file, "--shard", "0/2", "--no-such-flag", "--metrics", metrics, cwd=tmp_path)
    told = samples(metrics.read_text())["last_run_exit_code"]
    assert told == {("m",): 2, ("m", "0/2"): 2, ("m", "1/2"): 2}
    file.write_text(text)
    other = Sink.open(tmp_path / "m.jsonl", run="other")
    assert run() == (75, 75, "### promptferry m: ledger in use (exit code 75)")
    other.close()
    file.write_text(text.replace('"m"', '"m", "mode": "update"', 1).replace('"target"', '"nowhere"'))
    assert run() == (2, 2, "### promptferry m: config (exit code 2)")
    file.write_text(text)
    os.unlink(tmp_path / "m.jsonl")
    os.mkdir(tmp_path / "m.jsonl")
    assert run()[0] == 2
    assert samples(metrics.read_text())["last_success_timestamp_seconds"] == succeeded
    assert "secret-text" not in page.read_text() + metrics.read_text()
