"""What the log hides."""

from __future__ import annotations

import json

import pytest

from engine.log import scrub


@pytest.mark.parametrize("secrets", [("sk-live", "sk-live-abcdefghij"), ("sk-live-abcdefghij", "sk-live")])
def test_a_key_that_begins_as_another_does_leaves_none_of_its_rest(secrets: tuple[str, ...]) -> None:
    assert scrub("asked with sk-live-abcdefghij", secrets) == "asked with ***"


@pytest.mark.parametrize("secret", ['with"quotes', "back\\slash", "größe\n"])
def test_a_key_is_found_as_json_writes_it(secret: str) -> None:
    for ascii_only in (True, False):
        line = json.dumps({"error": f"key {secret} refused"}, ensure_ascii=ascii_only)
        assert json.loads(scrub(line, {secret})) == {"error": "key *** refused"}


def test_no_key_hides_nothing() -> None:
    assert scrub("as it is", {""}) == "as it is"
