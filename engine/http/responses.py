"""What an answer means: one table for every outcome, how a body is read, which error it makes. No await in here."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC
from email.utils import parsedate_to_datetime
from enum import Enum
from functools import cache
from typing import Final, NamedTuple

from engine.errors import AnswerError, Exists, Gone, Rejected, Transient, UnknownOutcome
from engine.http.redact import clean
from engine.lossless_json import Json, NotKept, decode

FIRST_BACKOFF: Final = 0.5
LONGEST_BACKOFF: Final = 30.0
LONGEST_DATE: Final = 1e9
LONGEST_PAUSE: Final = 10 * 60.0
"""Seconds."""
CODE_LENGTH: Final = 64
NETWORK_LOGIN: Final = 511
"""RFC 6585, section 6: sent by a network in between, never by the registry."""
_CODE: Final = re.compile(rf"[A-Za-z0-9_.-]{{1,{CODE_LENGTH}}}")
_SURELY_CODE: Final = re.compile(r"[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+")


class Fate(Enum):
    """What became of one try."""

    DONE = "done"
    RETRY = "try again"
    WAIT = "try again, and this try does not count"
    ONCE = "try once more, then give up"
    FAILED = "surely no effect, and repeating it will not help"
    GONE = "not there"
    EXISTS = "there already"
    UNKNOWN = "it may have happened"


class Run(Enum):
    """What it means for everybody else."""

    GO = "nothing"
    PAUSE = "no request for a while"
    STOP = "the end"


class NoStatus(Enum):
    """Outcomes that no status tells."""

    BAD_BODY = "a 2xx, but truncated, blank, not JSON, or over the cap"
    NOT_KEPT = "a 2xx with JSON that cannot be kept without loss"
    NOT_SENT = "no connection, or out of time before the headers left"
    CUT_OFF = "the headers left and no whole answer came"


Outcome = int | NoStatus


class Meaning(NamedTuple):
    """A row of the table. `error` names the kind; `create` goes for every request that must not be sent twice."""

    outcomes: Collection[Outcome]
    error: str
    read: Fate
    create: Fate
    run: Run


TABLE: Final = tuple(
    Meaning(*row)
    for row in (
        # outcome             error           a read       a create      the run
        (range(200, 300), "", Fate.DONE, Fate.DONE, Run.GO),
        ((302, 303), "redirected", Fate.FAILED, Fate.UNKNOWN, Run.STOP),
        (range(300, 400), "redirected", Fate.FAILED, Fate.FAILED, Run.STOP),
        ((401,), "key_refused", Fate.FAILED, Fate.FAILED, Run.STOP),
        ((402,), "quota", Fate.FAILED, Fate.FAILED, Run.STOP),
        ((403,), "forbidden", Fate.FAILED, Fate.FAILED, Run.GO),
        ((404,), "gone", Fate.GONE, Fate.GONE, Run.GO),
        ((408,), "server_timeout", Fate.RETRY, Fate.UNKNOWN, Run.GO),
        ((409,), "exists", Fate.ONCE, Fate.EXISTS, Run.GO),
        ((429,), "throttled", Fate.WAIT, Fate.WAIT, Run.PAUSE),
        (range(400, 500), "rejected", Fate.FAILED, Fate.FAILED, Run.GO),
        ((503,), "unavailable", Fate.RETRY, Fate.UNKNOWN, Run.PAUSE),
        (range(500, 600), "server_error", Fate.RETRY, Fate.UNKNOWN, Run.GO),
        ((NoStatus.NOT_KEPT,), "not_kept", Fate.FAILED, Fate.UNKNOWN, Run.GO),
        ((NoStatus.NOT_SENT,), "not_sent", Fate.RETRY, Fate.RETRY, Run.GO),
        ((NoStatus.CUT_OFF,), "no_answer", Fate.RETRY, Fate.UNKNOWN, Run.GO),
        ((NoStatus.BAD_BODY,), "bad_answer", Fate.RETRY, Fate.UNKNOWN, Run.GO),
    )
)
"""The first row that holds the outcome counts; the last one also for statuses that do not exist (1xx, 600)."""

INFRASTRUCTURE: Final = frozenset({"unavailable", "server_error", "not_sent", "no_answer", "bad_answer"})
"""Errors that say nothing of the request: the registry, or the way to it, is not well."""


@cache
def meaning_of(outcome: Outcome) -> Meaning:
    """The row of the table for `outcome`."""
    return next((row for row in TABLE if outcome in row.outcomes), TABLE[-1])


class ErrorBody(NamedTuple):
    """What an error body says, as it says it. `message` may be blank."""

    message: str
    code: str | None


def error_body(body: bytes) -> ErrorBody | None:
    """Reads the shapes that registries and gateways use: `error`, `data`, the root, `detail`. None: not JSON."""
    try:
        root = decode(body)
    except ValueError:
        return None
    if not isinstance(root, dict):
        return ErrorBody(root if isinstance(root, str) else "", None)
    error = root.get("error")
    places = [place for place in (error, root.get("data"), root) if isinstance(place, dict)]
    message = _first(place.get("message") for place in places)
    if isinstance(error, list):
        message = ": ".join(part for part in (message, _issues(error)) if part)
    code = _first(place.get(key) for place in places for key in ("errorCode", "error_code", "code"))
    if not message:
        message = _detail(root.get("detail"))
    if isinstance(error, str):
        # {"error": "NO_SUCH_THING", "message": ..., "code": "403"} and {"error": "what went wrong"}
        own = error if _SURELY_CODE.fullmatch(error) else code or (error if message else None)
        return ErrorBody(message or error, own)
    return ErrorBody(message or "", code)


def _issues(issues: Sequence[Json]) -> str:
    """What is wrong with which field, as validators list it."""
    found = [one for one in issues if isinstance(one, dict) and isinstance(one.get("message"), str)]
    ways = [one["path"] if isinstance(one.get("path"), list) else [] for one in found]
    told = [
        ": ".join([*filter(None, [".".join(map(str, way))]), one["message"]])
        for way, one in zip(ways, found, strict=True)
    ]
    return "; ".join(told)


@dataclass(frozen=True, slots=True, kw_only=True)
class Special:
    """An answer that one registry means otherwise than its status says; of several rows the first that takes it counts.

    It takes those of this status whose code is one of `codes` and whose message, or whole text where it is no JSON,
    holds `text`, whatever its case; empty: any. `read_as`: the status that says what it means, None: its own;
    `says`: what people are told in the place of its message.
    """

    status: int
    codes: frozenset[str] = frozenset()
    text: str = ""
    read_as: int | None = None
    says: str = ""

    def takes(self, status: int, said: ErrorBody) -> bool:
        """Whether the row is for this answer."""
        coded = not self.codes or said.code in self.codes
        return status == self.status and coded and self.text.lower() in said.message.lower()


_MOST_DETAILS: Final = 3


def _detail(value: Json) -> str:
    """`detail` as FastAPI sends it: a sentence, or what is wrong and where, of which `input` may quote a template."""
    if isinstance(value, str):
        return value
    found = [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []
    told = [f"{_place(one.get('loc'))}: {one.get('msg')}" for one in found[:_MOST_DETAILS]]
    return "; ".join([*told, *([f"and {len(found) - len(told)} more"] if len(found) > len(told) else [])])


def _place(loc: Json) -> str:
    return ".".join(str(part) for part in loc if isinstance(part, str | int)) if isinstance(loc, list) else "it"


def _first(values: Iterable[Json]) -> str | None:
    texts = (str(value) for value in values if isinstance(value, str | int) and not isinstance(value, bool))
    return next((text for text in texts if text), None)


@dataclass(slots=True, kw_only=True)
class Request:
    """What is sent. `call` names its kind; `end` names the registry, `GET` or not tells whether a body went along."""

    end: str
    call: str
    method: str
    url: str
    body: bytes | None = field(default=None, repr=False)
    content_type: str = ""
    repeatable: bool = True
    cap: int
    """Bytes of the answer's body that are taken, decompressed."""
    listing: bool = False
    """A body over the cap stops the run."""
    blank: bool = False
    """A blank body is a whole one."""
    hushed: bool = False
    """The answer may quote a template that `body` does not hold: of what an error says, only the code is told."""
    completion: bool = False
    """A call of a model: the value of a 2xx is a `Whole`, and a 429 may be the model's own, which need never end."""


class Whole(NamedTuple):
    """A body that came whole, whatever it holds. `media_type`: without parameters, in lower case; `seconds`: until its
    last byte, from the moment the request left.
    """

    media_type: str
    body: bytes
    seconds: float = 0.0


@dataclass(slots=True, kw_only=True)
class Answer:
    """What came back. `fault`: why it is not whole, or why none came."""

    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes = field(default=b"", repr=False)
    fault: str = ""
    over_cap: bool = False
    """A 2xx with more than `Request.cap` bytes."""
    left: bool = True
    """The headers of the request left, or may have."""
    timed_out: bool = False
    stale: bool = False
    """A kept connection broke before any answer: the server had most likely closed it."""
    held: bool = False
    """It was not let leave: a pause had begun by the time a connection was there."""
    seconds: float = 0.0
    """From the moment the request left until the last byte of an answer."""


@dataclass(slots=True, kw_only=True)
class Verdict:
    """What became of one try. `value`: the decoded body of a 2xx; `said`: what an error body says."""

    request: Request
    answer: Answer
    outcome: Outcome
    value: Json = field(default=None, repr=False)
    said: ErrorBody | None = field(default=None, repr=False)

    meaning: Meaning = field(init=False)
    fate: Fate = field(init=False)

    def __post_init__(self) -> None:
        self.meaning = meaning_of(self.outcome)
        self.fate = self.meaning.read if self.request.repeatable else self.meaning.create

    @property
    def firewalled(self) -> bool:
        """A 403 that the registry did not write."""
        return self.outcome == 403 and self.said is None

    @property
    def foreign(self) -> bool:
        """Whether no API wrote it: a whole page or text in place of JSON, or what a network says before its login."""
        if self.answer.status == NETWORK_LOGIN:
            return True
        begin = self.answer.body.lstrip()[:1]
        return self.outcome is NoStatus.BAD_BODY and not self.answer.fault and begin not in (b"", b"{", b"[")

    @property
    def error(self) -> str:
        """Names the kind of failure."""
        return "firewall" if self.firewalled else self.meaning.error


def read_answer(request: Request, answer: Answer, errors: Sequence[Special] = ()) -> Verdict:
    """Judges by the status, by whether the request left, and by the body; `errors`: the registry's own rows."""
    # these three are values like all others; only that they are not frozen, which would double what they cost
    if answer.status is None:
        return Verdict(request=request, answer=answer, outcome=NoStatus.CUT_OFF if answer.left else NoStatus.NOT_SENT)
    if meaning_of(answer.status).read is not Fate.DONE:
        return _refusal(request, answer, answer.status, errors)
    if answer.fault:
        return Verdict(request=request, answer=answer, outcome=NoStatus.BAD_BODY)
    if request.blank and not answer.body.strip():
        return Verdict(request=request, answer=answer, outcome=answer.status)
    if request.completion:
        return Verdict(request=request, answer=answer, outcome=answer.status, value=_whole(answer))
    try:
        return Verdict(request=request, answer=answer, outcome=answer.status, value=decode(answer.body))
    except NotKept:
        return Verdict(request=request, answer=answer, outcome=NoStatus.NOT_KEPT)
    except ValueError:
        return Verdict(request=request, answer=answer, outcome=NoStatus.BAD_BODY)


def _refusal(request: Request, answer: Answer, status: int, errors: Sequence[Special]) -> Verdict:
    said = error_body(answer.body)
    whole = said or ErrorBody(answer.body.decode(errors="replace").strip(), None)
    row = next((row for row in errors if row.takes(status, whole)), None)
    if row is not None:
        said = whole  # known to be the registry's own, though it may be no JSON
    if request.hushed:
        said = _hushed(said)
    if said is not None and row is not None and row.says:
        said = said._replace(message=row.says)
    outcome = status if row is None or row.read_as is None else row.read_as
    return Verdict(request=request, answer=answer, outcome=outcome, said=said)


def _whole(answer: Answer) -> Whole:
    media_type = answer.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    return Whole(media_type, answer.body, answer.seconds)


def _hushed(said: ErrorBody | None) -> ErrorBody | None:
    # some send a sentence where the code belongs
    return said and ErrorBody("", said.code if said.code and _CODE.fullmatch(said.code) else None)


_ERRORS: Final[Mapping[Fate, type[AnswerError]]] = {
    Fate.RETRY: Transient,
    Fate.WAIT: Transient,
    Fate.ONCE: Rejected,
    Fate.FAILED: Rejected,
    Fate.GONE: Gone,
    Fate.EXISTS: Exists,
    Fate.UNKNOWN: UnknownOutcome,
}


def error_of(verdict: Verdict, secrets: Collection[str]) -> AnswerError:
    """The error to raise when the request is not sent again; in one line of at most 500 bytes, without `secrets`."""
    said, sent = verdict.said, verdict.request.body or b""
    return _ERRORS[verdict.fate](
        clean(_sentence(verdict), secrets, sent),
        error=verdict.error,
        status=verdict.answer.status,
        code=clean(said.code, secrets, sent)[:CODE_LENGTH] if said and said.code else None,
        body=b"" if verdict.request.hushed or not verdict.request.completion else verdict.answer.body,
    )


def _sentence(verdict: Verdict) -> str:
    end, call, answer, said = verdict.request.end, verdict.request.call, verdict.answer, verdict.said
    doubt = "; it may have happened" if verdict.fate is Fate.UNKNOWN else ""
    if verdict.firewalled:
        cause = "" if verdict.request.method == "GET" else ", probably because of the prompt's text"
        return f"A firewall in front of the {end} refused {call} with 403{cause}: have its owner let it through."
    if answer.status is None:
        verb = f"did not answer {call}" if answer.left else f"could not be reached for {call}"
        return f"The {end} {verb}: {answer.fault}{doubt}."
    if isinstance(verdict.outcome, NoStatus):
        lost = "a number in it cannot be kept" if verdict.outcome is NoStatus.NOT_KEPT else "it is blank or not JSON"
        return f"The answer {answer.status} of the {end} to {call} cannot be used: {answer.fault or lost}{doubt}."
    code, message = (f" {said.code}" if said and said.code else ""), (said.message if said else "")
    return f"The {end} answered {call} with {answer.status}{code}{doubt}" + (f": {message}" if message else ".")


def rate_hint(headers: Mapping[str, str], now: float) -> tuple[float, float] | None:
    """How many more requests the registry takes in how many seconds, where its headers say so; None: they do not.

    `X-RateLimit-Remaining` and `-Reset`, with or without the `X-`; a reset is a number of seconds or a moment. What is
    no number, or lies further off than the longest pause, is no hint.
    """
    for remaining, reset_at in _RATE_HEADERS:
        if (written := headers.get(remaining)) is not None:
            left, reset = _number(written), _number(headers.get(reset_at, ""))
            if left is None or reset is None:
                return None
            seconds = reset - now if reset > LONGEST_DATE else reset
            return (left, seconds) if 0 < seconds <= LONGEST_PAUSE else None
    return None


_RATE_HEADERS: Final = tuple((f"{x}RateLimit-Remaining", f"{x}RateLimit-Reset") for x in ("X-", ""))


def _number(written: str) -> float | None:
    return min(float(written), 10 * LONGEST_DATE) if re.fullmatch(r"[0-9]{1,12}(\.[0-9]+)?", written.strip()) else None


def retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """Seconds that an answer asks to wait; None: it does not say. `now`: the wall clock, where it has no Date."""
    written = headers.get("Retry-After", "").strip()
    if re.fullmatch(r"[0-9]+(\.[0-9]+)?", written):
        return min(float(written), LONGEST_DATE)
    moment = _seconds_of(written)
    if moment is None:
        return None
    # by the registry's own clock, which need not agree with ours
    begin = _seconds_of(headers.get("Date", ""))
    return min(max(0.0, moment - (now if begin is None else begin)), LONGEST_DATE)


def _seconds_of(written: str) -> float | None:
    try:
        moment = parsedate_to_datetime(written)
    except ValueError:
        return None
    return float((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())


def backoff(tries: int, draw: float) -> float:
    """Seconds to wait after `tries` failures: exponential, capped, full jitter; `draw` is a number from 0 to 1."""
    return draw * min(LONGEST_BACKOFF, FIRST_BACKOFF * 2.0 ** min(tries - 1, 16))
