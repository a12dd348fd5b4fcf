"""What a comparison found, case by case, and what was recorded for one. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from engine.model import Prompt, Reply
from engine.verbs.compare.answers import Recorded
from engine.verbs.compare.asking import Made, Question
from engine.verbs.compare.judging import Judgement, Measure, judge, median_of

RESULTS: Final = ("same", "changed", "failed", "unrecorded", "outdated", "not_started")
MEASURES: Final = ("length", "seconds", "tokens")


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """One case. `original`, `replica`: their answers."""

    question: Question
    target_id: str
    result: str
    """Of RESULTS. failed: the replica gave no answer; unrecorded: there is none of the original, outdated: only of
    another version of it."""
    message: str = ""
    judgement: Judgement | None = None
    original: Sequence[Reply] = ()
    replica: Sequence[Reply] = ()

    @property
    def name(self) -> str:
        """How people call it: the prompt, and which of its cases."""
        return called(self.question)

    def to_json(self) -> dict[str, Any]:
        """Without a word of what was asked or answered."""
        prompt, judged = self.question.prompt, self.judgement
        told: dict[str, Any] = {
            "source_id": prompt.id,
            "name": prompt.name,
            "target_id": self.target_id,
            "case": self.question.case,
            "result": self.result,
            "message": self.message,
            "answers": {"original": len(self.original), "replica": len(self.replica)},
        }
        return told if judged is None else told | asdict(judged)


@dataclass(frozen=True, slots=True)
class MaxChanged:
    """More cases than this are too many: a number, or a percentage of those that were compared."""

    limit: float
    percent: bool

    def exceeded(self, changed: int, compared: int) -> bool:
        """Whether `changed` of `compared` are more."""
        return changed * 100 > self.limit * compared if self.percent else changed > self.limit

    def __str__(self) -> str:
        return f"{self.limit:g}{'%' if self.percent else ''}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """All of it. `notes`: what was not compared, and why."""

    cases: Sequence[Compared]
    made: Made
    notes: Sequence[str] = ()

    @property
    def counts(self) -> dict[str, int]:
        """Cases by result."""
        counted = Counter(one.result for one in self.cases)
        return {name: counted[name] for name in RESULTS}

    @property
    def compared(self) -> int:
        """Cases that could be compared."""
        return self.counts["same"] + self.counts["changed"]

    @property
    def whole(self) -> bool:
        """Every case could be, with every answer."""
        return self.compared == len(self.cases) and not self.made.lost

    @property
    def changed_percent(self) -> float:
        """Of those that were compared."""
        return round(100 * self.counts["changed"] / self.compared, 2) if self.compared else 0.0

    @property
    def flaky(self) -> int:
        """Cases to which the original itself answered now so, now otherwise."""
        return sum(one.flaky for one in self.judgements)

    @property
    def judgements(self) -> list[Judgement]:
        """Of the cases that were compared."""
        return [one.judgement for one in self.cases if one.judgement is not None]

    def measure(self, name: str) -> Measure:
        """The median over all cases of one of MEASURES."""
        both = [getattr(one, name) for one in self.judgements]
        return Measure(median_of(one.original for one in both), median_of(one.replica for one in both))

    @property
    def similarity(self) -> float | None:
        """The median over all cases."""
        return median_of(one.similarity for one in self.judgements)

    def to_json(self, threshold: MaxChanged | None = None) -> dict[str, Any]:
        """The object of `compare --json`."""
        exceeded = threshold is not None and threshold.exceeded(self.counts["changed"], self.compared)
        return {
            "cases": [one.to_json() for one in self.cases],
            "counts": self.counts,
            "changed_percent": self.changed_percent,
            "max_changed": str(threshold) if threshold is not None else None,
            "exceeded": exceeded,
            "flaky": self.flaky,
            **{name: asdict(self.measure(name)) for name in MEASURES},
            "similarity": self.similarity,
            "calls": calls_json(self.made),
            "notes": list(self.notes),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """What `--record` did. `already`: answers that were there."""

    file: str
    prompts: int
    cases: int
    already: int
    made: Made
    notes: Sequence[str] = ()

    @property
    def whole(self) -> bool:
        """Nothing is left to be asked."""
        return not self.made.lost and not self.made.not_started

    def to_json(self) -> dict[str, Any]:
        """The object of `compare --record --json`."""
        told = {name: getattr(self, name) for name in ("file", "prompts", "cases", "already")}
        return told | {"calls": calls_json(self.made), "notes": list(self.notes)}


def calls_json(made: Made) -> dict[str, int]:
    """How the calls of one command ended."""
    told = {"answered": made.answered, "refused": made.refused, "lost": len(made.lost)}
    return told | {"not_started": made.not_started}


def called(question: Question) -> str:
    """The prompt, and which of its cases."""
    return f"{question.prompt.name} [{question.case}]" if question.case else question.prompt.name


# ---- putting together ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Replicas:
    """By the id of their original: the definitions that could be read, and why others could not."""

    ids: Mapping[str, str]
    prompts: Mapping[str, Prompt]
    why: Mapping[str, str] = field(default_factory=dict)


def put_together(
    questions: Iterable[Question], replicas: Replicas, known: Recorded, made: Made, *, repeat: int, ended: bool
) -> Iterator[Compared]:
    """Each case with its answers. `ended`: the command was asked to end before all calls were made."""
    for question in questions:
        yield _compared(question, replicas, known, made, repeat=repeat, ended=ended)


def _compared(
    question: Question, replicas: Replicas, known: Recorded, made: Made, *, repeat: int, ended: bool
) -> Compared:
    source_id = question.prompt.id
    original, replica = known.of(question.asked), replicas.prompts.get(source_id)
    asked = question.asked_of(replica) if replica is not None else None
    found = known.of(asked)[:repeat] if asked is not None else []

    def says(result: str, message: str = "", judgement: Judgement | None = None) -> Compared:
        return Compared(
            question=question,
            target_id=replicas.ids[source_id],
            result=result,
            message=message,
            judgement=judgement,
            original=original,
            replica=found,
        )

    if not original:
        return says(*_without(question, known))
    if asked is None:
        return says("failed", f"the replica cannot be read: {replicas.why.get(source_id, 'it is gone')}")
    if not found:
        lost = next((why for number in range(1, repeat + 1) if (why := made.lost.get((asked, number)))), "")
        return says("not_started" if ended and not lost else "failed", lost)
    judgement = judge(original, found)
    return says("changed" if judgement.fields else "same", "", judgement)


def _without(question: Question, known: Recorded) -> tuple[str, str]:
    if known.others(question.asked):
        version = question.prompt.version
        return "outdated", f"what is recorded was answered by another version than {version}, which the replica is of"
    return "unrecorded", "no answer of the original to these values is recorded"
