"""Answers that one registry means otherwise than their status says: its own rows, on a real socket."""

from __future__ import annotations

import pytest

from engine.connectors.conductor.registry import ERRORS as CONDUCTOR
from engine.errors import AnswerError, Exists
from engine.http.responses import Answer, Request, Special, read_answer
from tests.http.test_client import OK, caught, say, wired
from tests.raw_server import RawServer, answer

TAKEN = Special(status=400, codes=frozenset({"RESOURCE_ALREADY_EXISTS"}), read_as=409)
BUSY = (
    Special(status=400, text="too many concurrent", read_as=429),
    Special(status=500, text="Too many concurrent", read_as=429),
)
LARGE = Special(status=413, says="the prompt is larger than the megabyte that is taken: shorten it, or leave it out")
EXISTS = answer(400, b'{"error_code":"RESOURCE_ALREADY_EXISTS","message":"m"}')
WAITS = b'{"message":"unique constraint failure: Too Many Concurrent prompt creations"}'


async def test_a_name_that_is_taken_may_be_told_with_400() -> None:
    async with RawServer(EXISTS) as server:
        async with wired(server.url, errors=(TAKEN,)) as wire:
            error = await caught(wire.create())
            assert isinstance(error, Exists)
            assert (error.status, error.code, error.error) == (400, "RESOURCE_ALREADY_EXISTS", "exists")
            assert len(server.received) == 1
        async with wired(server.url) as wire:
            assert say(await caught(wire.create())) == "Rejected"


@pytest.mark.parametrize("status", [400, 500])
async def test_a_refusal_that_means_later_is_waited_for_and_said_again(status: int) -> None:
    busy = answer(status, WAITS)
    async with RawServer(*[busy] * 4, OK) as server, wired(server.url, attempts=2, errors=BUSY) as wire:
        assert await wire.create() == {"id": "7"}
        assert (wire.intents, len(server.received)) == (1, 5)


@pytest.mark.parametrize(
    ("status", "body"), [(400, b'{"message":"another reason"}'), (409, WAITS), (400, b"<html>"), (400, b"")]
)
async def test_any_other_answer_means_what_it_says(status: int, body: bytes) -> None:
    async with RawServer(answer(status, body)) as server, wired(server.url, errors=BUSY) as wire:
        assert say(await caught(wire.create())) == ("Exists" if status == 409 else "Rejected")
        assert len(server.received) == 1


async def test_a_server_error_of_another_text_is_in_doubt_as_ever() -> None:
    async with RawServer(answer(500, b'{"message":"no"}')) as server, wired(server.url, errors=BUSY) as wire:
        assert say(await caught(wire.create())) == "UnknownOutcome"


@pytest.mark.parametrize("body", [b"Body exceeded 1mb limit", b'{"message":"too large"}', b""])
async def test_what_a_plain_text_means_is_said_in_a_sentence(body: bytes) -> None:
    async with RawServer(answer(413, body)) as server, wired(server.url, errors=(LARGE,)) as wire:
        error = await caught(wire.create())
        assert isinstance(error, AnswerError)
        assert (error.status, error.error) == (413, "rejected")
        assert str(error).endswith(f"answered create with 413: {LARGE.says}")


async def test_a_plain_text_is_told_where_a_row_takes_it() -> None:
    row = Special(status=413, text="exceeded")
    async with RawServer(answer(413, b"Body exceeded 1mb limit")) as server, wired(server.url, errors=(row,)) as wire:
        assert str(await caught(wire.create())).endswith("413: Body exceeded 1mb limit")


async def test_the_first_row_counts() -> None:
    rows = (Special(status=400, text="second"), Special(status=400, read_as=409))
    async with RawServer(answer(400, b'{"message":"the SECOND"}')) as server, wired(server.url, errors=rows) as wire:
        assert say(await caught(wire.create())) == "Rejected"


@pytest.mark.parametrize("code", ["EXPIRED_TOKEN", "INVALID_TOKEN"])
async def test_a_token_that_conductor_refuses_with_403_ends_the_run_as_401_does(code: str) -> None:
    body = f'{{"status":403,"error":"{code}","message":"m"}}'.encode()
    async with RawServer(answer(403, body)) as server:
        async with wired(server.url, errors=CONDUCTOR) as wire:
            assert say(await caught(wire.create())) == "Stop key_refused Rejected"
        async with wired(server.url) as wire:  # nobody else's word
            assert say(await caught(wire.create())) == "Rejected"


def test_an_answer_that_may_quote_a_template_is_judged_by_its_text_and_not_told() -> None:
    request = Request(end="e", call="c", method="POST", url="u", repeatable=False, cap=1, hushed=True)
    verdict = read_answer(request, Answer(status=400, body=WAITS), BUSY)
    assert verdict.error == "throttled"
    assert verdict.said is not None
    assert verdict.said.message == ""
