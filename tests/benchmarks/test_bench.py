"""The benchmark itself works: every client moves every prompt once. Its figures are for people."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from tests.benchmarks import scale, soak
from tests.benchmarks.__main__ import LEAST_BYTES, lost, main, ran, table
from tests.benchmarks.clients import CLIENTS, LEDGER_TIMED, replica_name


@pytest.mark.parametrize("client", CLIENTS)
def test_every_client_creates_every_prompt_once(client: str) -> None:
    assert ran(client, 9).keys() == {"cpu_s", "wall_s", "peak_mib"}


def test_the_ledger_takes_a_part_of_the_engines_time() -> None:
    took = ran(LEDGER_TIMED, 9)
    assert 0 < took["ledger_s"] < took["cpu_s"]


def test_the_table_has_a_row_for_each(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--quick"])
    rows = [line.split("|")[1].strip() for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert rows[2:] == list(CLIENTS)


def test_one_run_over_a_library_is_measured_and_gone_on_with(capsys: pytest.CaptureFixture[str]) -> None:
    scale.main(["--prompts", "40"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("40 of 40 prompts created (done): ")
    assert "the server saw every prompt once" in lines
    assert any(" 40 prompts: " in line for line in lines)
    assert lines[-1].startswith("a second run, with nothing to do: ")


def test_a_run_that_is_ended_has_no_second_one(capsys: pytest.CaptureFixture[str]) -> None:
    scale.main(["--prompts", "3000", "--minutes", "0.01"])
    out = capsys.readouterr().out
    assert "(time_box): " in out
    assert "a second run" not in out


def test_the_last_tenth_is_measured_beside_the_first() -> None:
    seen = [scale.Seen(100 * tenth, 2.0 * tenth, 1.0 * tenth, 0.5 * tenth) for tenth in range(10)]
    assert scale.tenths(seen[:9]) is None
    assert scale.tenths([*seen, scale.Seen(1_000, 22.0, 10.25, 5.5)]) == (
        "last tenth beside the first: 25 prompts/s and 50 (50 %), 80 and 100 by the second of CPU time (80 %); "
        "the server 50 % by the second of its own"
    )


def test_ratios_are_taken_within_a_round() -> None:
    slow_then_fast = {"bare aiohttp": (0.0002, 0.0001), "engine": (0.0003, 0.00015)}
    rounds = {
        client: [
            {"cpu_s": cpu, "wall_s": 0.001, "ledger_s": 0.1 * cpu} for cpu in slow_then_fast.get(client, (0.001, 0.001))
        ]
        for client in (*CLIENTS, LEDGER_TIMED)
    }
    text = table(rounds)
    assert "| engine | 225 us | 150-300 | 1.50 | 1,000 |" in text
    assert "Ledger and sink: 10.0 %" in text


ONCE = {replica_name(number): 1 for number in range(3)}


@pytest.mark.parametrize(
    ("created", "least_bytes", "complaint"),
    [
        (ONCE, LEAST_BYTES, None),
        ({**ONCE, replica_name(1): 2}, LEAST_BYTES, "2 of 3 prompts were created once, under 3 names"),
        ({replica_name(0): 1, replica_name(2): 1}, LEAST_BYTES, "2 of 3 prompts were created once, under 2 names"),
        ({**ONCE, "another": 1}, LEAST_BYTES, "3 of 3 prompts were created once, under 4 names"),
        (ONCE, LEAST_BYTES - 1, f"a body has only {LEAST_BYTES - 1} bytes"),
        ({}, 0, "0 of 3 prompts were created once, under 0 names"),
    ],
)
def test_a_run_that_loses_work_is_no_result(
    created: Mapping[str, int], least_bytes: int, complaint: str | None
) -> None:
    assert lost(3, created, least_bytes) == complaint


def test_what_a_sink_holds_is_looked_at_ten_times(capsys: pytest.CaptureFixture[str]) -> None:
    soak.main(["--entries", "2000"])
    *tenths, last = capsys.readouterr().out.splitlines()
    assert [line.partition(" entries")[0] for line in tenths] == [f"{200 * tenth:,}" for tenth in range(1, 11)]
    before, after = (last.partition(f"{when} it ")[2].partition(",")[0] for when in ("before", "after"))
    assert before == after  # no descriptor is lost
