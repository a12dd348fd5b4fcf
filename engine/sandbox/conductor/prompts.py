"""Conductor's endpoints for tokens, prompts and tags. None is an empty body."""

from __future__ import annotations

from aiohttp import web

from engine.sandbox.answers import Json, Refusal, check, decode, decode_list, invalid
from engine.sandbox.conductor.call import ConductorCall, number_of
from engine.sandbox.conductor.content import check_item, check_tags, render, unquoted
from engine.sandbox.conductor.store import Content

# ---- tokens ----------------------------------------------------------------------------------------------------------


def issue_token(call: ConductorCall) -> Json:
    """The secret is a key of the workspace; the id may be any."""
    body = decode(call.raw)
    check(body, {"keyId": str, "keySecret": str, "expiration": int}, required=("keyId", "keySecret"))
    known = call.conductor.store.key(body["keySecret"])
    if known is None or known[0] is None or not body["keyId"]:
        raise Refusal(401, "UNAUTHORIZED", "the key id and secret are not valid")
    expiration = max(-1, min(body["expiration"], 2**50)) if "expiration" in body else None
    return {"token": call.conductor.tokens.issue(f"app:{body['keyId']}", known[0], expiration)}


def show_user(call: ConductorCall) -> Json:
    user = call.user
    known = {"id": user.sub, "name": user.sub, "roles": ["USER"], "groups": [], "applicationUser": True}
    return known | ({"claims": user._asdict()} if call.flag("claims") else {})


# ---- prompts ---------------------------------------------------------------------------------------------------------


def list_prompts(call: ConductorCall) -> Json:
    return call.cluster.prompts()


def save_prompts(call: ConductorCall) -> None:
    """In list order, one by one; the first failure ends it and names nothing unless the manners say so."""
    items = decode_list(call.raw)
    if not call.cluster.quirks.bulk_rolls_back:
        return _save_each(call, items)
    with call.conductor.store.writing():
        return _save_each(call, items)


def _save_each(call: ConductorCall, items: list[Json]) -> None:
    for item in items:
        try:
            call.cluster.write_item(item)
        except Refusal as refusal:
            if not call.cluster.quirks.names_item:
                raise
            name = item.get("name") if isinstance(item, dict) else None
            raise Refusal(refusal.status, refusal.code, f"prompt {name!r}: {refusal.message}") from refusal


def retrieve_prompt(call: ConductorCall) -> Json:
    wanted, versions = call.version(), call.cluster.versions(call.name)
    found = [one for one in versions if wanted in (None, one["version"])]
    if not found:
        raise Refusal(404, "NOT_FOUND", "the prompt has no such version")
    return found[-1]


def replace_prompt(call: ConductorCall) -> None:
    """The version that is named, else the latest; who made it and when stays."""
    item = _single(call)
    call.cluster.write(item, call.version() or max(1, call.cluster.latest_version(call.name)))


def save_prompt(call: ConductorCall) -> None:
    """A version one higher, else the version that is named, else version 1, as if it had never been there."""
    item = _single(call)
    counted = call.cluster.next_version(call.name) if call.flag("autoIncrement") else None
    call.cluster.write(item, counted or call.version() or 1, founded=False)


def _single(call: ConductorCall) -> Content:
    """What the single calls carry: the raw text as the body, the rest in the query. Refusal: 400, 403, 404."""
    if "description" not in call.query:
        raise invalid('"description" is required')
    try:
        text = call.raw.decode()
    except UnicodeDecodeError as exc:
        raise invalid("the body is not UTF-8") from exc
    call.cluster.check_update(call.name)
    said = {"description": call.query["description"], "integrations": list(call.models)}
    item = check_item({"name": call.name, "template": unquoted(text), **said}, call.cluster.quirks)
    call.cluster.check_integrations(item["integrations"])
    return item


def delete_prompt(call: ConductorCall) -> None:
    call.cluster.delete(call.name)


def list_versions(call: ConductorCall) -> Json:
    return call.cluster.versions(call.name)


def delete_version(call: ConductorCall) -> None:
    call.cluster.delete_version(call.name, number_of(call.path["version"]))


def ask_model(call: ConductorCall) -> web.Response:
    """A model that repeats what it is asked."""
    body = decode(call.raw)
    kinds = {"llmProvider": str, "model": str, "prompt": str, "promptVariables": dict}
    check(body, kinds, required=("llmProvider", "model", "prompt"))
    call.cluster.check_integrations([f"{body['llmProvider']}:{body['model']}"])
    asked = render(body["prompt"], body.get("promptVariables", {}))
    return web.Response(text=f"You asked {body['model']}: {asked}", content_type="text/plain")


# ---- tags ------------------------------------------------------------------------------------------------------------


def list_tags(call: ConductorCall) -> Json:
    return list(call.cluster.head(call.name).tags)


def add_tags(call: ConductorCall) -> None:
    call.cluster.check_update(call.name)
    call.cluster.add_tags(call.name, check_tags(decode_list(call.raw)))


def remove_tags(call: ConductorCall) -> None:
    call.cluster.check_update(call.name)
    call.cluster.remove_tags(call.name, check_tags(decode_list(call.raw)))
