"""What MLflow's prompt registry does, as far as a connector stands on it: the contract, held to a real server."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.real.servers import Server

PROMPTS = "tags.`mlflow.prompt.is_prompt` = 'true'"
IS_PROMPT = {"key": "mlflow.prompt.is_prompt", "value": "true"}
TEXT = "mlflow.prompt.text"
LONGEST_TEXT = 100_000
AT_ONCE = 32


@pytest.fixture
def api(mlflow: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"{mlflow.base_url}/api/2.0/mlflow/", trust_env=False, timeout=120) as client:
        yield client


def tags(**more: str) -> list[dict[str, str]]:
    return [IS_PROMPT, *({"key": key, "value": value} for key, value in more.items())]


def post(api: httpx.Client, path: str, **body: Any) -> httpx.Response:
    return api.post(path, json=body)


def create(api: httpx.Client, name: str, **more: Any) -> httpx.Response:
    """The first step: a prompt without versions."""
    return post(api, "registered-models/create", **{"name": name, "tags": tags()} | more)


def add(api: httpx.Client, name: str, text: str | None = "Hi {{ name }}", **more: Any) -> httpx.Response:
    """The second step: a version."""
    found = tags() if text is None else tags(**{TEXT: text})
    return post(api, "model-versions/create", **{"name": name, "source": "dummy-source", "tags": found} | more)


def made(api: httpx.Client, *names: str) -> None:
    """Prompts of one version each."""
    for name in names:
        assert create(api, name).status_code == 200
        assert add(api, name).status_code == 200


def search(api: httpx.Client, **query: Any) -> httpx.Response:
    return api.get("registered-models/search", params={"filter": PROMPTS} | query)


def names(response: httpx.Response) -> list[str]:
    return [row["name"] for row in response.json().get("registered_models", [])]


def one(api: httpx.Client, name: str) -> dict[str, Any]:
    found: dict[str, Any] = api.get("registered-models/get", params={"name": name}).json()["registered_model"]
    return found


def version(api: httpx.Client, name: str, number: str) -> dict[str, Any]:
    answer = api.get("model-versions/get", params={"name": name, "version": number})
    found: dict[str, Any] = answer.json()["model_version"]
    return found


def versions(api: httpx.Client, name: str, **query: Any) -> list[dict[str, Any]]:
    params = {"filter": f"name='{name}' AND {PROMPTS}", "order_by": "version_number ASC"} | query
    found: list[dict[str, Any]] = api.get("model-versions/search", params=params).json().get("model_versions", [])
    return found


def numbers(found: Sequence[Mapping[str, Any]]) -> list[str]:
    return [row["version"] for row in found]


def tagged(found: Mapping[str, Any]) -> dict[str, str]:
    return {tag["key"]: tag["value"] for tag in found["tags"]}


def refusal(response: httpx.Response) -> tuple[int, str]:
    return response.status_code, response.json()["error_code"]


def delete(api: httpx.Client, path: str, **body: Any) -> httpx.Response:
    return api.request("DELETE", path, json=body)


# ---- listing ---------------------------------------------------------------------------------------------------------


def test_nothing_is_an_answer_without_the_key(api: httpx.Client) -> None:
    assert search(api).json() == {}


def test_prompts_are_hidden_unless_their_tag_is_asked_for(api: httpx.Client) -> None:
    made(api, "a")
    assert api.get("registered-models/search").json() == {}
    assert api.get("model-versions/search", params={"filter": "name='a'"}).json() == {}
    assert names(search(api)) == ["a"]
    assert numbers(versions(api, "a")) == ["1"]


def test_models_that_are_no_prompts_are_not_listed(api: httpx.Client) -> None:
    post(api, "registered-models/create", name="model")
    made(api, "prompt")
    assert names(search(api)) == ["prompt"]


def test_pages_are_in_order_of_names_and_the_last_one_has_no_token(api: httpx.Client) -> None:
    made(api, "c", "B", "a", "d")
    first = search(api, max_results=3)
    assert names(first) == ["B", "a", "c"]  # by code point
    assert json.loads(base64.b64decode(first.json()["next_page_token"])) == {"offset": 3}
    last = search(api, max_results=3, page_token=first.json()["next_page_token"])
    assert names(last) == ["d"]
    assert "next_page_token" not in last.json()
    assert "next_page_token" not in search(api, max_results=4).json()


def test_a_prompt_deleted_between_pages_hides_another_one(api: httpx.Client) -> None:
    made(api, "a", "b", "c", "d")
    first = search(api, max_results=2)
    delete(api, "registered-models/delete", name="a")
    assert names(search(api, max_results=2, page_token=first.json()["next_page_token"])) == ["d"]


def test_a_prompt_created_between_pages_shows_another_one_twice(api: httpx.Client) -> None:
    made(api, "b", "c", "d")
    first = search(api, max_results=2)
    made(api, "a")
    assert names(search(api, max_results=2, page_token=first.json()["next_page_token"])) == ["c", "d"]


@pytest.mark.parametrize(("most", "status"), [(1, 200), (1000, 200), (1001, 400)])
def test_a_page_holds_a_thousand_at_most(api: httpx.Client, most: int, status: int) -> None:
    assert search(api, max_results=most).status_code == status


def test_a_token_that_is_none_is_refused(api: httpx.Client) -> None:
    assert refusal(search(api, page_token="x")) == (400, "INVALID_PARAMETER_VALUE")


def test_a_row_carries_the_newest_version_whole_and_the_aliases(api: httpx.Client) -> None:
    """So that a list is enough to read what is newest."""
    made(api, "a")
    add(api, "a", "newest", description="why")
    post(api, "registered-models/alias", name="a", alias="production", version="1")
    (row,) = search(api).json()["registered_models"]
    (newest,) = row["latest_versions"]
    assert (newest["version"], newest["description"], tagged(newest)[TEXT]) == ("2", "why", "newest")
    assert row.get("aliases") == [{"alias": "production", "version": "1"}]


def test_of_each_stage_a_row_carries_the_newest_version(api: httpx.Client) -> None:
    """Stages are of models, but nothing keeps them from prompts: the newest version is that of the largest number."""
    made(api, "a")
    add(api, "a", "two")
    post(api, "model-versions/transition-stage", name="a", version="1", stage="Production")
    (row,) = search(api).json()["registered_models"]
    assert sorted(numbers(row["latest_versions"])) == ["1", "2"]  # in any order


QUOTED = ["a\\b", "a`b", "it's", 'say "x"']


@pytest.mark.parametrize("name", QUOTED)
def test_a_name_that_is_asked_for_stands_in_the_quotes_that_it_lacks(api: httpx.Client, name: str) -> None:
    """There is no escape."""
    made(api, *QUOTED)
    quote = '"' if "'" in name else "'"
    assert names(search(api, filter=f"{PROMPTS} AND name = {quote}{name}{quote}")) == [name]
    assert names(search(api, filter=f"{PROMPTS} AND name = 'it''s'")) == []


def test_names_in_a_list_are_literals_of_python(api: httpx.Client) -> None:
    made(api, *QUOTED)
    condition = f"name IN ({', '.join(map(repr, QUOTED))})"
    assert names(search(api, filter=f"{PROMPTS} AND {condition}")) == QUOTED
    assert names(search(api, filter=f"{PROMPTS} AND name IN ('a\\b', 'none')")) == []  # a backspace


@pytest.mark.parametrize(
    ("condition", "found"),
    [
        ("name = 'a-1'", ["a-1"]),
        ("name IN ('a-1', 'b', 'none')", ["a-1", "b"]),
        ("name LIKE 'a-%'", ["a-1", "a-2"]),
        ("name ILIKE 'A-1'", ["a-1"]),
        ("tags.`promptferry.migration` = 'm'", ["b"]),
    ],
)
def test_a_list_can_be_of_names_and_of_tags(api: httpx.Client, condition: str, found: list[str]) -> None:
    made(api, "a-1", "a-2", "b")
    post(api, "registered-models/set-tag", name="b", key="promptferry.migration", value="m")
    assert names(search(api, filter=f"{PROMPTS} AND {condition}")) == found


def test_a_thousand_names_can_be_asked_for_at_once(api: httpx.Client) -> None:
    made(api, "name-000007")
    asked = ", ".join(f"'name-{number:06}'" for number in range(1000))
    assert names(search(api, filter=f"{PROMPTS} AND name IN ({asked})", max_results=1000)) == ["name-000007"]


# ---- a create in two steps -------------------------------------------------------------------------------------------


def test_a_prompt_is_a_model_and_its_versions_carry_the_text(api: httpx.Client) -> None:
    first = create(api, "greeting", description="says hello", tags=tags(team="support"))
    assert first.status_code == 200
    second = add(api, "greeting", description="first words")
    assert second.status_code == 200
    found = second.json()["model_version"]
    assert (found["version"], found["description"], found["source"]) == ("1", "first words", "dummy-source")
    assert tagged(found) == {IS_PROMPT["key"]: "true", TEXT: "Hi {{ name }}"}
    whole = one(api, "greeting")
    assert (whole["name"], whole["description"], tagged(whole)["team"]) == ("greeting", "says hello", "support")


def test_a_prompt_without_versions_is_listed_and_has_no_latest_ones(api: httpx.Client) -> None:
    create(api, "half")
    (row,) = search(api).json()["registered_models"]
    assert row["name"] == "half"
    assert "latest_versions" not in row
    assert "latest_versions" not in one(api, "half")
    assert versions(api, "half") == []


def test_a_prompt_without_versions_can_be_finished(api: httpx.Client) -> None:
    create(api, "half")
    assert add(api, "half").json()["model_version"]["version"] == "1"


def test_a_name_that_is_taken_is_refused_as_400(api: httpx.Client) -> None:
    made(api, "a")
    assert refusal(create(api, "a")) == (400, "RESOURCE_ALREADY_EXISTS")
    post(api, "registered-models/create", name="model")
    assert refusal(create(api, "model")) == (400, "RESOURCE_ALREADY_EXISTS")


def test_of_many_creates_at_once_one_wins(api: httpx.Client) -> None:
    with ThreadPoolExecutor(AT_ONCE) as pool:
        answers = list(pool.map(lambda _: create(api, "a").status_code, range(AT_ONCE)))
    assert sorted(answers) == [200] + [400] * (AT_ONCE - 1)


def test_versions_created_at_once_all_succeed_and_share_the_numbers(api: httpx.Client) -> None:
    """Which one gets which number is chance: one prompt's versions have to be written one after another."""
    create(api, "a")
    with ThreadPoolExecutor(AT_ONCE) as pool:
        answers = list(pool.map(lambda number: add(api, "a", f"text {number}"), range(AT_ONCE)))
    assert {answer.status_code for answer in answers} == {200}
    assert numbers(versions(api, "a")) == [str(number + 1) for number in range(AT_ONCE)]


@pytest.mark.parametrize(("source", "status"), [("dummy-source", 200), ("prompt-template", 200), ("s3://x", 400)])
def test_the_source_of_a_version_is_a_placeholder(api: httpx.Client, source: str, status: int) -> None:
    create(api, "a")
    assert add(api, "a", source=source).status_code == status


def test_a_version_of_nothing_is_refused(api: httpx.Client) -> None:
    assert refusal(add(api, "none")) == (404, "RESOURCE_DOES_NOT_EXIST")


@pytest.mark.parametrize("text", ["", None])
def test_a_version_may_have_no_text(api: httpx.Client, text: str | None) -> None:
    create(api, "a")
    assert add(api, "a", text).status_code == 200
    assert tagged(version(api, "a", "1")).get(TEXT) == text


@pytest.mark.parametrize(
    "text", ["ü😀", " \r\n\ttrailing  \n", "\\ \" ' ` %", "a\u2028b\u0000c", "{{ a.b }} {% if x %}"]
)
def test_a_text_comes_back_as_it_was(api: httpx.Client, text: str) -> None:
    create(api, "a")
    add(api, "a", text)
    assert tagged(version(api, "a", "1"))[TEXT] == text


def test_a_text_with_half_a_character_is_lost_without_a_word(api: httpx.Client) -> None:
    """A lone surrogate empties the whole value: it must be refused before it is sent."""
    create(api, "a")
    body = {"name": "a", "source": "dummy-source", "tags": tags(**{TEXT: "before \ud800 after"})}
    as_ascii = json.dumps(body).encode()
    answer = api.post("model-versions/create", content=as_ascii, headers={"Content-Type": "application/json"})
    assert answer.status_code == 200
    assert tagged(version(api, "a", "1"))[TEXT] == ""


def test_of_a_key_that_stands_twice_the_last_value_counts(api: httpx.Client) -> None:
    create(api, "a")
    add(api, "a", tags=[*tags(k="first"), {"key": "k", "value": "last"}])
    assert tagged(version(api, "a", "1"))["k"] == "last"


def test_fields_that_it_does_not_know_are_passed_over(api: httpx.Client) -> None:
    assert create(api, "a", unknown=1).status_code == 200
    assert add(api, "a", unknown=1).status_code == 200


# ---- names and lengths -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["A.b_c-9", "ü 😀", " a", "a ", "it's", 'say "x"', "a`b", "100%"])
def test_names_that_it_takes_as_they_are(api: httpx.Client, name: str) -> None:
    """Its own client takes `[a-zA-Z0-9_.-]+` only: see test_official_mlflow.py."""
    assert create(api, name).status_code == 200
    assert one(api, name)["name"] == name


@pytest.mark.parametrize("name", ["a/b", "a:b", ".", "..", ""])
def test_names_that_it_refuses(api: httpx.Client, name: str) -> None:
    assert refusal(create(api, name)) == (400, "INVALID_PARAMETER_VALUE")


def test_names_differ_by_case(api: httpx.Client) -> None:
    made(api, "Case", "case")
    assert names(search(api)) == ["Case", "case"]


def test_the_length_of_a_text_is_counted_in_characters(api: httpx.Client) -> None:
    create(api, "a")
    assert add(api, "a", "ü" * LONGEST_TEXT).status_code == 200
    assert refusal(add(api, "a", "x" * (LONGEST_TEXT + 1))) == (400, "INVALID_PARAMETER_VALUE")
    assert numbers(versions(api, "a")) == ["1"]


def test_a_text_that_is_too_long_leaves_a_prompt_without_versions(api: httpx.Client) -> None:
    create(api, "a")
    add(api, "a", "x" * (LONGEST_TEXT + 1))
    assert "latest_versions" not in one(api, "a")


@pytest.mark.parametrize(
    ("key", "value", "status"),
    [
        ("k" * 250, "v", 200),
        ("k" * 251, "v", 400),
        ("k", "v" * 100_000, 200),
        ("k", "v" * 100_001, 400),
        ("k", "", 200),
        ("a b/c:d.e-f_ü", "v", 200),
        ("a,b", "v", 400),
        ("", "v", 400),
    ],
)
def test_tags_have_rules(api: httpx.Client, key: str, value: str, status: int) -> None:
    made(api, "a")
    assert post(api, "registered-models/set-tag", name="a", key=key, value=value).status_code == status
    assert post(api, "model-versions/set-tag", name="a", version="1", key=key, value=value).status_code == status


def test_names_and_descriptions_may_be_longer_than_its_columns(api: httpx.Client) -> None:
    """256 and 5,000 characters: sqlite does not hold to them, other databases do."""
    assert create(api, "n" * 300, description="d" * 6_000).status_code == 200


# ---- versions --------------------------------------------------------------------------------------------------------


def test_versions_come_oldest_first_when_asked_so_and_in_pages(api: httpx.Client) -> None:
    create(api, "a")
    for number in range(12):
        add(api, "a", str(number))
    assert numbers(versions(api, "a")) == [str(number + 1) for number in range(12)]  # as numbers: 9, 10, 11
    params: dict[str, Any] = {"filter": f"name='a' AND {PROMPTS}", "order_by": "version_number ASC", "max_results": 5}
    first = api.get("model-versions/search", params=params).json()
    assert numbers(first["model_versions"]) == list("12345")
    second = api.get("model-versions/search", params=params | {"page_token": first["next_page_token"]}).json()
    assert numbers(second["model_versions"]) == ["6", "7", "8", "9", "10"]


def test_versions_of_all_prompts_come_in_one_list(api: httpx.Client) -> None:
    made(api, "a", "b")
    found = api.get("model-versions/search", params={"filter": PROMPTS, "max_results": 200_000}).json()
    assert sorted((row["name"], row["version"]) for row in found["model_versions"]) == [("a", "1"), ("b", "1")]
    assert api.get("model-versions/search", params={"filter": PROMPTS, "max_results": 200_001}).status_code == 400


def test_aliases_are_told_of_one_version_and_not_in_a_list_of_versions(api: httpx.Client) -> None:
    made(api, "a")
    post(api, "registered-models/alias", name="a", alias="production", version="1")
    assert version(api, "a", "1")["aliases"] == ["production"]
    assert "aliases" not in versions(api, "a")[0]


def test_numbers_are_never_used_again(api: httpx.Client) -> None:
    made(api, "a")
    add(api, "a", "two")
    assert delete(api, "model-versions/delete", name="a", version="2").status_code == 200
    assert add(api, "a", "three").json()["model_version"]["version"] == "3"
    assert numbers(versions(api, "a")) == ["1", "3"]


def test_the_newest_version_is_the_one_before_when_it_is_deleted(api: httpx.Client) -> None:
    made(api, "a")
    add(api, "a", "two")
    delete(api, "model-versions/delete", name="a", version="2")
    assert numbers(one(api, "a")["latest_versions"]) == ["1"]


@pytest.mark.parametrize(
    ("number", "status", "code"),
    [("9", 404, "RESOURCE_DOES_NOT_EXIST"), ("latest", 400, "INVALID_PARAMETER_VALUE")],
)
def test_a_version_that_is_not_there(api: httpx.Client, number: str, status: int, code: str) -> None:
    made(api, "a")
    assert refusal(api.get("model-versions/get", params={"name": "a", "version": number})) == (status, code)


def test_a_prompt_that_is_not_there(api: httpx.Client) -> None:
    assert refusal(api.get("registered-models/get", params={"name": "a"})) == (404, "RESOURCE_DOES_NOT_EXIST")


# ---- aliases ---------------------------------------------------------------------------------------------------------


def test_an_alias_moves_and_leads_to_its_version(api: httpx.Client) -> None:
    made(api, "a")
    add(api, "a", "two")
    for number in "12":
        assert post(api, "registered-models/alias", name="a", alias="production", version=number).json() == {}
        found = api.get("registered-models/alias", params={"name": "a", "alias": "production"})
        assert found.json()["model_version"]["version"] == number
    assert one(api, "a")["aliases"] == [{"alias": "production", "version": "2"}]


def test_an_alias_that_is_not_there_is_400(api: httpx.Client) -> None:
    made(api, "a")
    answer = api.get("registered-models/alias", params={"name": "a", "alias": "production"})
    assert refusal(answer) == (400, "INVALID_PARAMETER_VALUE")


def test_the_number_of_an_alias_is_a_string(api: httpx.Client) -> None:
    made(api, "a")
    assert post(api, "registered-models/alias", name="a", alias="x", version=1).status_code == 400


def test_an_alias_of_a_version_that_is_not_there_is_refused(api: httpx.Client) -> None:
    made(api, "a")
    answer = post(api, "registered-models/alias", name="a", alias="x", version="9")
    assert refusal(answer) == (404, "RESOURCE_DOES_NOT_EXIST")


@pytest.mark.parametrize("alias", ["latest", "Latest", "v1", "V30", "a b", "a.b", "a/b", "x" * 256])
def test_aliases_that_it_refuses(api: httpx.Client, alias: str) -> None:
    made(api, "a")
    answer = post(api, "registered-models/alias", name="a", alias=alias, version="1")
    assert refusal(answer) == (400, "INVALID_PARAMETER_VALUE")


@pytest.mark.parametrize("alias", ["PROD", "1", "prod-1_x", "ü", "version", "x" * 255])
def test_aliases_that_it_takes(api: httpx.Client, alias: str) -> None:
    made(api, "a")
    assert post(api, "registered-models/alias", name="a", alias=alias, version="1").status_code == 200


def test_an_alias_is_deleted_by_a_body_and_not_by_a_query(api: httpx.Client) -> None:
    made(api, "a")
    post(api, "registered-models/alias", name="a", alias="x", version="1")
    query = api.delete("registered-models/alias", params={"name": "a", "alias": "x"})
    assert refusal(query) == (400, "INVALID_PARAMETER_VALUE")
    assert delete(api, "registered-models/alias", name="a", alias="x").status_code == 200
    assert "aliases" not in one(api, "a")
    assert delete(api, "registered-models/alias", name="a", alias="x").status_code == 200  # nothing to delete is well


def test_an_alias_goes_with_its_version(api: httpx.Client) -> None:
    made(api, "a")
    add(api, "a", "two")
    post(api, "registered-models/alias", name="a", alias="x", version="2")
    delete(api, "model-versions/delete", name="a", version="2")
    assert "aliases" not in one(api, "a")


# ---- changes ---------------------------------------------------------------------------------------------------------


def test_a_description_is_replaced_and_its_absence_clears_it(api: httpx.Client) -> None:
    create(api, "a", description="old")
    assert api.patch("registered-models/update", json={"name": "a", "description": "new"}).status_code == 200
    assert one(api, "a")["description"] == "new"
    api.patch("registered-models/update", json={"name": "a"})
    assert "description" not in one(api, "a")


def test_a_commit_message_can_be_replaced(api: httpx.Client) -> None:
    made(api, "a")
    answer = api.patch("model-versions/update", json={"name": "a", "version": "1", "description": "better"})
    assert answer.json()["model_version"]["description"] == "better"


def test_tags_are_set_and_deleted_and_nothing_is_protected(api: httpx.Client) -> None:
    """That a text does not change is the word of its own client only."""
    made(api, "a")
    where = {"name": "a", "version": "1"}
    assert post(api, "model-versions/set-tag", **where, key=TEXT, value="overwritten").status_code == 200
    assert tagged(version(api, "a", "1"))[TEXT] == "overwritten"
    post(api, "model-versions/set-tag", **where, key="k", value="v")
    assert delete(api, "model-versions/delete-tag", **where, key="k").status_code == 200
    assert "k" not in tagged(version(api, "a", "1"))
    post(api, "registered-models/set-tag", name="a", key="k", value="v")
    assert delete(api, "registered-models/delete-tag", name="a", key="k").status_code == 200
    assert "k" not in tagged(one(api, "a"))


def test_times_tell_of_versions_and_descriptions_but_neither_of_tags_nor_of_aliases(api: httpx.Client) -> None:
    """A text that was overwritten, or an alias that moved, does not show in any time."""
    made(api, "a")

    def times() -> tuple[int, int]:
        found = one(api, "a")
        return found["last_updated_timestamp"], found["latest_versions"][0]["last_updated_timestamp"]

    before = times()
    post(api, "model-versions/set-tag", name="a", version="1", key=TEXT, value="overwritten")
    post(api, "registered-models/set-tag", name="a", key="k", value="v")
    post(api, "registered-models/alias", name="a", alias="x", version="1")
    assert times() == before
    api.patch("registered-models/update", json={"name": "a", "description": "new"})
    described = times()
    assert described[0] > before[0]
    add(api, "a", "two")
    assert times()[0] > described[0]


def test_a_new_name_takes_everything_along(api: httpx.Client) -> None:
    made(api, "a")
    post(api, "registered-models/alias", name="a", alias="x", version="1")
    assert post(api, "registered-models/rename", name="a", new_name="b").status_code == 200
    assert names(search(api)) == ["b"]
    assert numbers(versions(api, "b")) == ["1"]
    assert one(api, "b")["aliases"] == [{"alias": "x", "version": "1"}]


def test_a_deleted_prompt_is_gone_with_its_versions_and_its_name_is_free(api: httpx.Client) -> None:
    made(api, "a")
    add(api, "a", "two")
    assert delete(api, "registered-models/delete", name="a").status_code == 200
    assert search(api).json() == {}
    assert refusal(delete(api, "registered-models/delete", name="a")) == (404, "RESOURCE_DOES_NOT_EXIST")
    made(api, "a")
    assert numbers(versions(api, "a")) == ["1"]


def test_a_path_that_it_does_not_know_is_404_and_no_json(api: httpx.Client) -> None:
    answer = api.get("prompts")
    assert answer.status_code == 404
    assert not answer.headers["content-type"].startswith("application/json")
