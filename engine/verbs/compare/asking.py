"""Which calls are to be made, and making them: each answer is on the disk before its worker makes the next call."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from engine.content.digest import digest
from engine.content.filter import Chosen
from engine.content.selection import selects
from engine.errors import Gone, Rejected, Transient
from engine.ledger.writes import Writes
from engine.migrate.context import Context
from engine.migrate.job import Job
from engine.migrate.listing import inventoried, rows_of
from engine.migrate.pipeline import until_stopped
from engine.model import Gateway, Json, Prompt, Reply, Row, version_ref
from engine.taskgroup import for_each
from engine.verbs.cases import Case, cases_for
from engine.verbs.compare.answers import AnswersFile, Asked, Recorded, digest_of

EVENTS: Final = {"answered": "case.answered", "refused": "case.refused", "lost": "case.lost"}


@dataclass(frozen=True, slots=True)
class Question:
    """One case of one original. `case`: how it is called, "" where the prompt has only one."""

    prompt: Prompt
    case: str
    variables: Mapping[str, Json] = field(repr=False)

    @property
    def asked(self) -> Asked:
        """As the original is asked it."""
        return Asked("original", self.prompt.id, edition(self.prompt), digest_of(self.variables))

    def asked_of(self, replica: Prompt) -> Asked:
        """As its replica is."""
        return Asked("replica", replica.id, edition(replica), digest_of(self.variables))


@dataclass(frozen=True, slots=True)
class Call:
    """One call that is to be made. `told`: what the file says of it besides."""

    asked: Asked
    number: int
    prompt: Prompt
    variables: Mapping[str, Json] = field(repr=False)
    case: str


@dataclass(slots=True)
class Originals:
    """What is asked, and what there is to say of it."""

    questions: list[Question] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def prompts(self) -> list[Prompt]:
        """Each original once."""
        return list({one.prompt.id: one.prompt for one in self.questions}.values())


def edition(prompt: Prompt) -> str:
    """What tells it from the same prompt at another time: a version never changes."""
    return prompt.version or digest(prompt)


# ---- which originals -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """Whose answers, to what: `cases` of a file; without them values that are made up. `shared`: values for all."""

    job: Job
    made: Sequence[Writes]
    """What the ledger says was made."""
    chosen: Chosen
    cases: Sequence[Case]
    shared: Mapping[str, Json] = field(repr=False)

    async def selected(self, targets: Collection[str]) -> Originals:
        """The prompts that are selected, and those that have a replica. `targets`: ids of all that was made. Raises
        Stop.
        """
        rows = await self._rows(self.job.replicas_among(targets))
        selected = {row.id: self._version(None) for row in rows if self._is_meant(row.id, row.slug, row.name)}
        return await self._asked(selected | self._migrated())

    async def migrated(self) -> Originals:
        """Those that have a replica. Raises Stop."""
        return await self._asked(self._migrated())

    def _migrated(self) -> dict[str, str]:
        made = [one for one in self.made if one.writes]
        return {
            one.source_id: self._version(one)
            for one in made
            if self._is_meant(one.source_id, one.last.get("source_slug"), one.name)
        }

    def notes(self, known: Recorded) -> list[str]:
        """What to say of prompts that have no replica yet that could be asked."""
        doubtful = [one.name for one in self.made if not one.writes]
        there = {one.source_id for one in self.made}
        without = {asked.prompt for asked in known.replies if asked.side == "original"} - there
        notes = [f"{name}: its update is in doubt: run the migration again first" for name in doubtful]
        if without and self.chosen.everything:
            notes.append(
                f"{len(without)} originals whose answers are recorded have no replica: see `promptferry status`"
            )
        return notes

    async def _rows(self, replicas: Collection[str]) -> list[Row]:
        job = self.job
        listed, _ = await rows_of(job.source)
        homes = job.ends.source.collections
        labelled, told = await inventoried(job.source, listed, job.select, homes, replicas, concurrency=job.concurrency)
        left_out = {*replicas, *labelled.unlabelled}
        return [
            row
            for row in told.rows
            if row.id not in left_out and selects(job.select, row, homes) and self.chosen.takes_row(row, homes)
        ]

    def _is_meant(self, *names: str | None) -> bool:
        """Prompts that no case names are not even read."""
        return not self.cases or any(case.prompt in names for case in self.cases)

    def _version(self, made: Writes | None) -> str:
        """The one that its replica is made of, or would be."""
        if made is None:
            return self.job.select.speaking
        line = made.writes[0] if self.job.in_place else made.last
        return version_ref(line.get("source_version")) or self.job.select.speaking

    async def _asked(self, versions: Mapping[str, str]) -> Originals:
        prompts, notes = await read_all(self.job.source.fetch, versions, limit=self.job.concurrency)
        own = [prompts[one] for one in versions if one in prompts and not self.job.is_replica(prompts[one])]
        unread = [f"{prompt_id}: it cannot be asked: {why}" for prompt_id, why in notes.items()]
        questions = [question for prompt in own for question in self._questions(prompt)]
        return Originals(questions, [*unread, *self._unmet(own)])

    def _questions(self, prompt: Prompt) -> Iterator[Question]:
        cases = cases_for(prompt, self.cases, self.shared)
        for number, case in enumerate(cases, 1):
            yield Question(prompt, case.label or (f"case {number}" if len(cases) > 1 else ""), case.variables)

    def _unmet(self, prompts: Iterable[Prompt]) -> list[str]:
        known = {name for prompt in prompts for name in (prompt.id, prompt.slug, prompt.name)}
        unmet = list(dict.fromkeys(case.prompt for case in self.cases if case.prompt not in known))
        return [f"verify.cases has cases of {name!r}, which is no prompt that is compared" for name in unmet]


async def read_all(
    fetch: Callable[[str, str], Awaitable[Prompt]], versions: Mapping[str, str], *, limit: int
) -> tuple[dict[str, Prompt], dict[str, str]]:
    """The definitions of these versions, and why some could not be read. Raises Stop."""
    prompts: dict[str, Prompt] = {}
    why: dict[str, str] = {}

    async def read(prompt_id: str) -> None:
        try:
            prompts[prompt_id] = await fetch(prompt_id, versions[prompt_id])
        except Gone:
            why[prompt_id] = "it is gone"
        except (Rejected, Transient) as error:
            why[prompt_id] = str(error)

    await for_each(versions, read, limit=limit)
    return prompts, why


# ---- the calls -------------------------------------------------------------------------------------------------------


def calls_of(questions: Iterable[tuple[Question, Prompt, Asked]], known: Recorded, repeat: int) -> list[Call]:
    """Those that are not settled, `repeat` for each question. The same question is asked once, whoever asks it."""
    calls = {
        (asked, number): Call(asked, number, prompt, question.variables, question.case)
        for question, prompt, asked in questions
        for number in range(1, repeat + 1)
        if not known.settled(asked, number)
    }
    return list(calls.values())


def cost(key: str, calls: Sequence[Call], known: Recorded) -> str:
    """What the calls will take, said before they are made. `key`: the one of the migration file that they need.

    Prices are not known here; tokens are those that the recorded answers of the same case took, or of all of them.
    """
    side, prompts = calls[0].asked.side, len({call.prompt.id for call in calls})
    took = {asked.values: reply.tokens for asked in known.replies for reply in known.of(asked) if reply.tokens}
    usual = sum(took.values()) / len(took) if took else 0.0
    tokens = sum(took.get(call.asked.values, usual) for call in calls)
    about = f"; going by the answers that are recorded, about {_rounded(tokens):,} tokens" if tokens else ""
    left = sum((call.asked, call.number) in known.left for call in calls)
    again = f"; {left} of them left before and got no answer that was kept: they may be paid for twice" if left else ""
    whose = f"{prompts} {side if prompts == 1 else side + 's'}"
    return f"{len(calls)} calls of {whose} will be made with {key}; models cost money{about}{again}"


def _rounded(tokens: float) -> int:
    """Two digits say all that is known."""
    return int(float(f"{tokens:.1e}"))


@dataclass(slots=True)
class Made:
    """What came of the calls. `lost`: why, by call."""

    answered: int = 0
    refused: int = 0
    lost: dict[tuple[Asked, int], str] = field(default_factory=dict)
    not_started: int = 0


async def make_calls(
    context: Context, gateway: Gateway, calls: Sequence[Call], file: AnswersFile, *, limit: int
) -> Made:
    """Makes them all, or as many as there is time for until the end is asked for: then `context.halt` says so."""
    made = Made(not_started=len(calls))

    async def one(call: Call) -> None:
        if context.halt.stop is not None:
            return
        reply = await _ask(gateway, call, file)
        told = {"side": call.asked.side, "prompt": call.prompt.id, "name": call.prompt.name, "case": call.case}
        context.log.info(EVENTS[reply.outcome], **told, number=call.number, error=reply.error)
        _count(made, call, reply, ended=context.halt.stop is not None)

    await until_stopped(context, partial(for_each, calls, one, limit=limit))
    if context.halt.stop is None and calls:
        await file.ended(calls[0].asked.side)
    return made


async def _ask(gateway: Gateway, call: Call, file: AnswersFile) -> Reply:
    told = {"name": call.prompt.name, "case": call.case}
    prompt = call.prompt
    ref = f"{prompt.id}@{prompt.version}" if prompt.version is not None else prompt.id
    streamed = prompt.parameters.get("stream") is True
    sending = partial(file.asked, call.asked, call.number, **told)
    reply = await gateway.ask(ref, call.variables, stream=streamed, sending=sending)
    if reply.outcome != "lost":
        await file.answered(call.asked, call.number, reply, **told)
    return reply


def _count(made: Made, call: Call, reply: Reply, *, ended: bool) -> None:
    if reply.outcome == "lost" and ended:
        return
    made.not_started -= 1
    match reply.outcome:
        case "answered":
            made.answered += 1
        case "refused":
            made.refused += 1
        case "lost":
            made.lost[call.asked, call.number] = str(reply.error)
