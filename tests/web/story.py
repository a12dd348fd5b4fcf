"""Ledgers that were made up: one whose runs came to every outcome, and hostile names in it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from engine.ledger.file import entries
from engine.ledger.lines import Chain, encode_line, seal, timestamp
from engine.model import Entry, Json
from engine.web.view import Beside, View

START: Final = 1_795_000_000.0
HOSTILE: Final = (
    "</script><script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "<!--<script>",
    "{{ 7 * 7 }} ${7 * 7} <%= 7 %>",
    "line\u2028separator\u2029and paragraph",
    "\u202egnp.exe",
    "مطالبات الدعم",
    "🛟 rescue ☂️ 👩🏽‍🚒",
    "\ud83d half of a character",
    "x" * 500,
    "tab\tand\nnewline",
)
"""Names of prompts, as somebody who wishes the reader ill would choose them."""
MODELS: Final = ("anthropic.claude-3-5-sonnet", "gpt-4o", "claude-3-opus")
FAILURES: Final = {
    "loss": "would lose: response_schema",
    "missing": "provider 'anthropic-old' is not at the target: lead to another one in rewrite.provider",
    "untranslatable": "its template has a loop, and the target's has none",
    "rejected": "the registry refused it: virtual key is blocked",
}
COUNTS: Final = ("created", "updated", "unchanged", "skipped", "failed", "conflicts", "unresolved", "not_started")


def origin(number: int) -> dict[str, Json]:
    """Whose line it is; the first have hostile names."""
    teams = ("support", "legal", "sales", "marketing", "hr")
    name = HOSTILE[number] if number < len(HOSTILE) else f"{teams[number % 5]}-summary-{number:03d}"
    return {"source_id": f"pp-{number:04d}-a3f9c1", "source_name": name, "source_collection": teams[number % 5]}


def intended(number: int, attempt: int = 1) -> Entry:
    """A create is about to leave."""
    more = {"op": "create", "key": "k" * 32, "name": f"{number}-replica", "body_sha256": "b" * 64, "attempt": attempt}
    return Entry("intent", {**origin(number), **more, "base_version": None})


def created(number: int) -> Entry:
    """The replica is there."""
    model = MODELS[number * 7 % 10 // 4]
    changes: list[list[Json]] = [["model", "claude-3-7-sonnet", model], ["provider", "anthropic-prod", "bedrock-prod"]]
    changes += [["parameters.max_tokens", 4096, None], ["parameters.max_completion_tokens", None, 4096]]
    return Entry(
        "created",
        {
            **origin(number),
            "source_slug": f"pp-{number:04d}",
            "source_version": number % 4 + 1,
            "source_updated_at": "2026-11-01T00:00:00Z",
            "name": f"{origin(number)['source_name']}-replica",
            "model": model,
            "source_digest": "5" * 64,
            "replica_digest": "6" * 64,
            "target_id": f"rr-{number:04d}-7be21d",
            "target_slug": f"rr-{number:04d}",
            "how": "response",
            "changes": changes[:2] if number % 5 == 2 else changes,
        },
    )


def failed(number: int, error: str, *, retriable: bool = False) -> Entry:
    """Surely no effect."""
    stage = "create" if error == "rejected" else "rewrite"
    told = {"stage": stage, "error": error, "status": 400 if error == "rejected" else None, "code": None}
    more = {"message": FAILURES[error], "retriable": retriable, "source_updated_at": None, "source_digest": None}
    return Entry("failed", {**origin(number), **told, **more})


def run(*, reason: str | None = None, approvals: list[str] | None = None, **more: Json) -> Entry:
    """A run begins."""
    identity = {"migration": "claude-37-to-35-bedrock", "mode": "replicate", "selects": "published"}
    ends = {"source": "mlflow http://mlflow.test:5000", "target": "portkey https://api.portkey.test/v1 team"}
    who = {"version": "0.1.0", "actor": "alice", "host": "ops-1", "reason": reason, "approvals": approvals}
    return Entry(
        "run", {**identity, **ends, "identity": "1" * 64, "rules": "2" * 64, "rewrites": "3" * 64, **who, **more}
    )


def end(code: int = 0, reason: str = "done", **counts: int) -> Entry:
    """A run ends."""
    books = dict.fromkeys(COUNTS, 0) | counts
    total = sum(books.values())
    throttle = {"rate": 38.2, "limit": 42.5, "concurrency": 12, "paused_s": 12.4, "latency_s": 0.182}
    return Entry(
        "end",
        {
            "reason": reason,
            "counts": {"listed": total + 12, "selected": total, **books},
            "exit_code": code,
            "next": "See why prompts failed with `promptferry status --failed`, mend it, and run it again.",
            "this_run": books,
            "orphaned": 0,
            "requests": {"total": 2 * total + 9, "reads": total + 9, "writes": total, "retries": 3, "throttled": 4},
            "throttle": {"source": throttle, "target": throttle},
            "duration_s": 64.2,
        },
    )


def pace(number: int) -> Entry:
    """How fast it goes."""
    paused = 4.2 if number in (3, 4) else 0.0
    told = {"requests": 60 if paused else 180 + 7 * (number % 3), "throttled": int(paused > 0), "paused_s": paused}
    source = {"requests": 170, "throttled": 0, "paused_s": 0.0, "rate": 100.0, "limit": None}
    return Entry(
        "pace",
        {"seconds": 5.0, "source": source, "target": {**told, "rate": 40.0, "limit": 42.5 if number > 3 else None}},
    )


Batch = tuple[float, str, list[Entry]]


def every_outcome(count: int = 220) -> Iterator[Batch]:
    """Seconds from the start, run, entries: a run that was killed, one that came to an end, a verification."""
    yield (
        0,
        "r1",
        [run(reason="rehearsal"), Entry("listed", {"count": count + 12, "total": count + 12, "selected": count})],
    )
    yield 1, "r1", [intended(number) for number in range(3)]
    yield 1.2, "r1", [created(number) for number in range(2)]  # and it was killed: the third is in doubt
    yield 3600, "r2", [run(reason="claude 3.7 is retired", approvals=["bob", "carol"])]
    yield 3600.4, "r2", [Entry("listed", {"count": count + 12, "total": count + 12, "selected": count})]
    made = {"what": "collection", "source_slug": "support"}
    yield (
        3600.9,
        "r2",
        [Entry("made", {**made, "target_id": "c-1", "target_slug": "support", "how": "response", "name": "Support"})],
    )
    yield from _second_run(count)
    yield 3670, "r3", list(_verified(count))


def _second_run(count: int) -> Iterator[Batch]:
    at, batch = 3601.0, 6
    for start in range(3, count - 15, batch):
        numbers = [number for number in range(start, start + batch) if number < count - 15]
        yield at, "r2", [intended(number) for number in numbers]
        yield at + 0.08 + (start % 7) * 0.05, "r2", [created(number) for number in numbers]
        at += 6.0 if start // batch in (9, 10) else 1.5
    for number in range(12):
        yield 3605.0 + 5 * number, "r2", [pace(number)]
    last = iter(range(count - 15, count))
    ends = [failed(next(last), error, retriable=error == "rejected") for error in FAILURES for _ in range(2)]
    ends += [
        Entry("conflict", {**origin(next(last)), "reason": why, "target_id": "rr-foreign"})
        for why in ("exists", "name_clash")
    ]
    ends += [Entry("skipped", {**origin(next(last)), "reason": "exists"})]
    ends += [Entry("unchanged", {**origin(next(last)), "source_updated_at": None, "target_updated_at": None})]
    doubtful = next(last)
    yield (
        3663.0,
        "r2",
        [*ends, intended(doubtful, 2), Entry("unknown", {**origin(doubtful), "stage": "create", "error": "no_answer"})],
    )
    counts = {
        "created": count - 18,
        "failed": 8,
        "conflicts": 2,
        "skipped": 1,
        "unchanged": 3,
        "unresolved": 2,
        "not_started": 2,
    }
    yield 3664.0, "r2", [end(1, "failures", **counts)]


def _verified(count: int) -> Iterator[Entry]:
    call = {
        "how": "render",
        "answered": True,
        "model": "gpt-4o",
        "finish_reason": "stop",
        "seconds": 0.41,
        "tokens": 77,
        "error": None,
    }
    for number in range(0, count - 15, 2):
        if number == 2:
            continue
        told: dict[str, Json] = {"target_id": f"rr-{number:04d}-7be21d", "result": "same", "fields": []}
        if number % 40 == 8:
            told |= {"result": "differs", "fields": ["parameters.temperature", "labels"]}
        yield Entry("verified", {**origin(number), **told, **({"completions": [call]} if number < 20 else {})})


def finished(count: int = 60) -> list[Batch]:
    """A run that brought all."""
    listed = Entry("listed", {"count": count, "total": count, "selected": count})
    batches: list[Batch] = [(0, "r1", [run(), listed])]
    for number in range(count):
        batches += [(1 + number / 2, "r1", [intended(number + 20)]), (1.2 + number / 2, "r1", [created(number + 20)])]
    return [*batches, (40, "r1", [end(created=count)])]


def states(folder: Path) -> dict[str, Path]:
    """State of a page -> a ledger in that state."""
    batches = list(every_outcome())
    stopped = (3700.0, "r2", [end(75, "interrupted", created=80, not_started=140)])
    found = {"every": batches, "running": batches[:60], "stopped": [*batches[:40], stopped], "finished": finished()}
    paths = {name: write(folder / f"{name}.jsonl", of) for name, of in found.items()} | {
        name: folder / f"{name}.jsonl" for name in ("empty", "damaged")
    }
    paths["empty"].write_bytes(b"")
    whole = bytearray(paths["every"].read_bytes())
    whole[len(whole) // 2] ^= 1
    paths["damaged"].write_bytes(whole)
    return paths


def _sealed(batches: Iterable[Batch]) -> Iterator[bytes]:
    after = Chain()
    for seconds, who, batch in batches:
        data, after = seal([encode_line(entry) for entry in batch], after, ts=timestamp(START + seconds), run=who)
        yield data


def write(path: Path, batches: Iterable[Batch]) -> Path:
    """A ledger."""
    path.write_bytes(b"".join(_sealed(batches)))
    return path


def viewed(path: Path, beside: Beside | None = None) -> View:
    """What the lines of a ledger come to."""
    view = View(path, beside)
    for line in entries(path):
        view.take(line)
    return view
