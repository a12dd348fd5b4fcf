"""`--metrics FILE`: how a run ended, as Prometheus text for node_exporter's textfile collector or the like.

Gauges speak of the last run; counters go on from what the file says, as does the time of the last success. What it says
of migrations that this run was not about stays, and of one that goes in shards what it says of the others of as many.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from engine.cli.common import write_file
from engine.errors import EXIT_OK, EXIT_RETRY, ConfigError
from engine.ledger.report import OUTCOMES

LAST_SUCCESS: Final = "promptferry_last_success_timestamp_seconds"
REQUESTS: Final = "promptferry_requests_total"
THROTTLED: Final = "promptferry_throttled_requests_total"
FAMILIES: Final[Mapping[str, tuple[str, str]]] = {
    "promptferry_last_run_timestamp_seconds": ("gauge", "When the last run ended, in seconds since the epoch."),
    LAST_SUCCESS: ("gauge", "When a run last ended with exit code 0, in seconds since the epoch."),
    "promptferry_last_run_duration_seconds": ("gauge", "How long the last run took."),
    "promptferry_last_run_exit_code": ("gauge", "Exit code of the last run: 0, 1, 2, 3, 4 or 75."),
    "promptferry_prompts": ("gauge", "Selected prompts by what became of them, as the last run has them."),
    REQUESTS: ("counter", "Requests that were sent to both ends."),
    THROTTLED: ("counter", "Answers that asked for a pause."),
}
_LABELS: Final = re.compile(r'\{migration="((?:[^"\\]|\\.)*)"(?:,shard="([0-9/]*)")?')
_SAMPLE: Final = re.compile(r'(promptferry_[a-z_]+)(\{migration="((?:[^"\\]|\\.)*)"[^\n]*\}) ([0-9.e+-]+)')


def write_metrics(file: Path, summary: Mapping[str, Any], shard: str = "") -> None:
    """Of a run or of a fleet's. `shard`: as `0/3`; empty: it was about all prompts, or migrations. That it cannot be
    written is said on stderr and changes nothing else.
    """
    try:
        earlier = dict(_read(file))
        text = exposition(_runs(earlier, summary, shard), earlier, now=time.time(), shard=shard)
        write_file(file, text.encode(), f"--metrics {file}", over=True)
    except (ConfigError, OSError) as error:
        said = error if isinstance(error, ConfigError) else f"--metrics {file}: cannot be read: {error.strerror}"
        print(f"warning: {said}; what it was to tell is in the summary", file=sys.stderr)


def exposition(
    runs: Sequence[Mapping[str, Any]], earlier: Mapping[tuple[str, str], float], *, now: float, shard: str = ""
) -> str:
    """The text. `runs`: summaries; `earlier`: what the file said before."""
    about = {escaped(run["migration"]): bool(run.get("run")) for run in runs}
    about.setdefault("", True)  # of one that nobody could name there is no word later
    samples = {key: value for key, value in earlier.items() if _stays(key[1], about, shard)}
    for run in runs:
        samples.update(_samples(run, earlier, now, shard))
    return "".join(_family(name, samples) for name in FAMILIES)


def escaped(label: str) -> str:
    """A value of a label."""
    return label.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _stays(labels: str, about: Mapping[str, bool], shard: str) -> bool:
    """Whether it is another migration's, or that of another shard of as many; once one of another number of them has
    run, all that was said of the migration is over. `about`: migration -> whether it has.
    """
    migration, its = _named(labels)
    if migration not in about:
        return True
    return its != shard and (not about[migration] or its.partition("/")[2] == shard.partition("/")[2])


def _samples(run: Mapping[str, Any], earlier: Mapping[tuple[str, str], float], now: float, shard: str) -> Iterator[Any]:
    named = f'migration="{escaped(run["migration"])}"' + (f',shard="{shard}"' if shard else "")
    labels = f"{{{named}}}"
    yield ("promptferry_last_run_timestamp_seconds", labels), now
    success = now if run["exit_code"] == EXIT_OK else earlier.get((LAST_SUCCESS, labels))
    if success is not None:
        yield (LAST_SUCCESS, labels), success
    yield ("promptferry_last_run_duration_seconds", labels), run["duration_s"]
    yield ("promptferry_last_run_exit_code", labels), run["exit_code"]
    for outcome in OUTCOMES:
        yield ("promptferry_prompts", f'{{{named},outcome="{outcome}"}}'), run["counts"][outcome]
    for name, count in ((REQUESTS, "total"), (THROTTLED, "throttled")):
        yield (name, labels), earlier.get((name, labels), 0) + run["requests"][count]


def _family(name: str, samples: Mapping[tuple[str, str], float]) -> str:
    kind, about = FAMILIES[name]
    lines = [f"{name}{labels} {_number(value)}" for (one, labels), value in sorted(samples.items()) if one == name]
    return "\n".join([f"# HELP {name} {about}", f"# TYPE {name} {kind}", *lines, ""]) if lines else ""


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)


# ---- what the file said before ---------------------------------------------------------------------------------------


def _read(file: Path) -> Iterator[tuple[tuple[str, str], float]]:
    """Nothing where there is no file of ours. Raises OSError."""
    text = file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""
    for line in text.splitlines():
        if (match := _SAMPLE.fullmatch(line)) is not None:
            yield (match[1], match[2]), float(match[4])


def _named(labels: str) -> tuple[str, str]:
    """Migration and shard as they are written there."""
    match = _LABELS.match(labels)
    return (match[1], match[2] or "") if match is not None else ("", "")


def _was_begun(run: Mapping[str, Any]) -> bool:
    """Whether it is the end of a run: not that of a fleet's migration to which the fleet did not come."""
    return bool(run["run"]) or run["exit_code"] != EXIT_RETRY


def _runs(earlier: Iterable[tuple[str, str]], summary: Mapping[str, Any], shard: str) -> Sequence[Mapping[str, Any]]:
    """What it is about. Of a run or a fleet that has no name: what this file is about, where that is clear."""
    if summary.get("fleet") or summary.get("migrations"):
        return [one for one in summary["migrations"] if _was_begun(one)]
    if summary.get("migration"):
        return [summary]
    of_fleet = "migrations" in summary
    named = [_named(key[1]) for key in earlier]  # a migration of a fleet is one shard's
    known = sorted({_unescaped(name) for name, its in named if its == shard or not of_fleet} - {""})
    clear = known if of_fleet or len(known) == 1 else [""]
    return [{**summary, "migration": name} for name in clear or [""]]


def _unescaped(label: str) -> str:
    return re.sub(r"\\(.)", lambda one: "\n" if one[1] == "n" else one[1], label)
