"""The catalogue of the target, and one small call for each shape; and what is to be said of both."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any, Final

from engine.errors import Stop, Transient
from engine.ledger.report import several
from engine.lossless_json import Json
from engine.migrate.job import Job
from engine.migrate.listing import down
from engine.model import Finding, ModelGateway, Tried
from engine.taskgroup import for_each
from engine.verbs.probe.mending import Mend, mends, rules_file, written
from engine.verbs.probe.shapes import Called, Kind, Kinds, Shape, request_of, shapes_of

SHOWN: Final = 8
"""Prompts that are named in one sentence."""
_WHY: Final = {
    "unknown": "which it does not know",
    "unsupported": "which this model does not take",
    "value": "which it does not take as it is here",
    "too_large": "which is too large",
    "too_small": "which is too small",
}
_OURS: Final = ("too_small", "value")
"""Why a limit of one token is refused that stands in the place of the prompt's own."""

Confirm = Callable[[str, int], Awaitable[bool]]
"""Asked once with what is to be done, and how many calls that is at most, before the first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Probed:
    """`listed`: the catalogue, None where the key may not list it; `calls`: made; `called`: whether any were to be."""

    shapes: Sequence[Shape]
    mends: Sequence[Mend]
    listed: Collection[str] | None
    calls: int
    called: bool
    unlike: Sequence[str]

    @property
    def unjudged(self) -> list[Shape]:
        """Those that were called, and nobody can tell whether they are taken."""
        return [shape for shape in self.shapes if shape.tried is not None and shape.tried.answered is None]

    @property
    def rules(self) -> str:
        """What mends it, as a part of a migration file; "" where nothing does, or nothing need be."""
        return rules_file(self.mends)

    def findings(self) -> list[Finding]:
        """What there is to say, in the order of the report."""
        return [*_of_catalogue(self), *_of_calls(self), *_of_mends(self), *_of_rest(self)]

    def to_json(self) -> dict[str, Json]:
        """For `--json`: every shape and every refusal with all of its prompts."""
        models = [
            {"model": model, "provider": provider, "listed": _is_listed(self.listed, (model, provider))}
            for model, provider in dict.fromkeys(shape.called for shape in self.shapes)
        ]
        return {
            "calls": self.calls,
            "models": models,
            "shapes": [_shape_json(shape) for shape in self.shapes],
            "refused": [_mend_json(mend) for mend in self.mends],
            "rules": self.rules or None,
        }


async def probe(job: Job, kinds: Kinds, gateway: ModelGateway, *, may_call: bool, key: str, confirm: Confirm) -> Probed:
    """Whether the models of the target take these prompts as they would arrive. Raises Stop; also when it is not
    confirmed.

    `may_call`: there is a key for calls, called `key` in the file; without it only the catalogue is asked.
    """
    shapes = shapes_of(kinds)
    try:
        listed = await gateway.models()
    except Transient as error:
        raise down("the models could not be listed", error) from error
    calls = Counter[str]()
    if may_call and shapes:
        if not await confirm(_said(kinds, shapes, key), _most(shapes)):
            raise Stop("interrupted", "it was not confirmed; nothing was called", next="Run it again to be asked.")

        async def one(shape: Shape) -> None:
            shape.tried = await _try(shape, gateway, calls)

        await for_each(shapes, one, limit=job.concurrency)

    def again(kind: Kind, rules: Sequence[Any]) -> dict[str, Json] | None:
        rewritten = replace(job, rules=(*job.rules, *rules)).rewritten(kind.source)
        return None if rewritten.missing or rewritten.refused else request_of(rewritten.prompt)

    return Probed(
        shapes=shapes,
        mends=mends(shapes, again),
        listed=listed,
        calls=calls.total(),
        called=may_call,
        unlike=kinds.unlike,
    )


def _most(shapes: Sequence[Shape]) -> int:
    """Calls at most: a limit under a name of ours may have to be tried under another one."""
    return len(shapes) + sum(shape.added for shape in shapes)


def _said(kinds: Kinds, shapes: Sequence[Shape], key: str) -> str:
    """What is to be done, before it is."""
    own = sum(shape.limit is None for shape in shapes)
    prompts = sum(len(kind.prompts) for kind in kinds)
    most = _most(shapes)
    calls = f"{'at most ' if most > len(shapes) else ''}{several(most, 'call')}, one for each shape of"
    twice = " and one more where the model has another name for the limit" if most > len(shapes) else ""
    longer = f", or in {own} with the prompts' own limit, which can only be tried so" if own else ""
    return (
        f"{calls} {several(prompts, 'prompt')}{twice}, will be made with {key} of the target, which needs the "
        f"right to complete (completions.write), with a limit of 1 token{longer}; models cost money"
    )


async def _try(shape: Shape, gateway: ModelGateway, calls: Counter[str]) -> Tried:
    call, limit = dict(shape.call), shape.limit
    calls["made"] += 1
    tried = await gateway.attempt(shape.provider, call)
    other = next((one.instead for one in tried.refused if shape.added and one.path == limit), None)
    if other is not None and limit is not None:  # the model has another name for what we have put in
        call[other], limit = call.pop(limit), other
        calls["made"] += 1
        tried = await gateway.attempt(shape.provider, call)
    kept = [one for one in tried.refused if one.path != limit or not (shape.added or one.why in _OURS)]
    if tried.refused and not kept:
        return Tried(answered=None, error="it takes no limit of one token, so that it was not tried what else it takes")
    return replace(tried, refused=kept)


# ---- what there is to say --------------------------------------------------------------------------------------------


def _of_catalogue(found: Probed) -> Iterator[Finding]:
    if found.listed is None and found.shapes:
        text = "nobody can tell whether the models are there: this key may not list them"
        yield Finding(level="note", where="models", text=text)
        return
    for called, shapes in _by_model(found.shapes).items():
        if _is_listed(found.listed, called):
            yield Finding(level="ok", where="models", text=f"{_name(called)} is in the catalogue of the target")
            continue
        answered = any(shape.tried is not None and shape.tried.answered for shape in shapes)
        near = _nearest(called, found.listed or ())
        text = f"{_name(called)} is not in the catalogue of the target"
        advice = " and answers all the same" if answered else f"{near}: mend rewrite.model, or enable it there"
        yield Finding(
            level="note" if answered else "problem", where="models", text=f"{text}{advice} {_prompts_of(shapes)}"
        )


def _of_calls(found: Probed) -> Iterator[Finding]:
    if not found.called and found.shapes:
        text = (
            "no call was made, so that nobody knows whether the models take the parameters, tools and formats: give "
            "the target a gateway_key that may complete"
        )
        yield Finding(level="note", where="probe", text=text)
    elif found.called:
        answered = [shape for shape in found.shapes if shape.tried is not None and shape.tried.answered]
        text = f"{several(found.calls, 'call')}: {len(answered)} of {several(len(found.shapes), 'shape')} answered"
        yield Finding(level="ok", where="probe", text=text)


def _of_mends(found: Probed) -> Iterator[Finding]:
    for mend in found.mends:
        named = _named(mend.prompts)
        if mend.refused.why == "model":
            if not _is_listed(found.listed, mend.called) and found.listed is not None:
                continue  # said already
            text = f"{_name(mend.called)} is refused itself: name another model, or enable it there {named}"
            yield Finding(level="problem", where="rewrite.model", text=text)
            continue
        why = _WHY[mend.refused.why]
        text = f"{_name(mend.called)} refuses {mend.refused.path}, {why} {named}"
        yield Finding(level="problem", where="rewrite.parameters", text=text, advice=_advice(mend))


def _advice(mend: Mend) -> str:
    if mend.change is None:
        return "no change of parameters mends that: change these prompts, or name another model for them"
    line = f"mended by `parameters: {written(mend.change)}`"
    if "tools" in mend.change.drop:
        line += ", if they can do without tools; else name another model for them"
    if not mend.rules:
        return f"{line}, but others of the same name and model are answered as they are: rename these first"
    if mend.by_name:
        return f"{line} in rules for these alone, as others of their model are answered as they are"
    models = ", ".join(rule.when.model for rule in mend.rules)
    return f"{line} in a rule for {models}"


def _of_rest(found: Probed) -> Iterator[Finding]:
    for shape in found.shapes:
        tried = shape.tried
        if tried is None or tried.answered or tried.refused:
            continue
        if tried.answered is None:
            text = f"a call of {_name(shape.called)} could not be judged: {tried.error} {_prompts_of([shape])}"
            yield Finding(level="note", where="probe", text=text)
        else:
            text = f"{_name(shape.called)} refuses a call, and nobody can read for what: {tried.error}"
            yield Finding(level="problem", where="probe", text=f"{text} {_prompts_of([shape])}")
    if any(mend.rules for mend in found.mends):
        text = "a vendor names one thing at a time: with these rules, probe again"
        yield Finding(level="note", where="probe", text=text)
    if found.unlike:
        text = f"{several(len(found.unlike), 'prompt')} without a model, or nested too deep to be called, not tried"
        yield Finding(level="note", where="probe", text=text)


def _by_model(shapes: Sequence[Shape]) -> dict[Called, list[Shape]]:
    found: dict[Called, list[Shape]] = {}
    for shape in shapes:
        found.setdefault(shape.called, []).append(shape)
    return found


def _is_listed(listed: Collection[str] | None, called: Called) -> bool | None:
    """Whether the catalogue has it, of this provider; None: nobody knows."""
    model, provider = called
    if listed is None:
        return None
    if provider is not None:
        return f"@{provider}/{model}" in listed
    return any(one == model or one.partition("/")[2] == model for one in listed)


def _nearest(called: Called, listed: Collection[str]) -> str:
    model, provider = called
    own = [one.removeprefix(f"@{provider}/") for one in listed if one.startswith(f"@{provider}/")]
    near = get_close_matches(model, own, n=1)
    return f", which has {near[0]}" if near else ""


def _name(called: Called) -> str:
    model, provider = called
    return f"{model} at {provider}" if provider else model


def _prompts_of(shapes: Sequence[Shape]) -> str:
    return _named([prompt for shape in shapes for kind in shape.kinds for prompt in kind.prompts])


def _named(prompts: Sequence[tuple[str, str]]) -> str:
    names = ", ".join(sorted(name for _, name in prompts)[:SHOWN])
    more = f" and {len(prompts) - SHOWN} more" if len(prompts) > SHOWN else ""
    return f"({several(len(prompts), 'prompt')}: {names}{more})"


# ---- as JSON ---------------------------------------------------------------------------------------------------------


def _shape_json(shape: Shape) -> dict[str, Json]:
    tried = shape.tried
    results = {None: "unjudged", True: "answered", False: "refused"}
    model, provider = shape.called
    return {
        "model": model,
        "provider": provider,
        "parameters": sorted(name for name in shape.call if name != "model"),
        "result": results[tried.answered] if tried is not None else "not_called",
        "error": tried.error if tried is not None and not tried.refused else None,
        "prompts": _prompts_json(prompt for kind in shape.kinds for prompt in kind.prompts),
    }


def _mend_json(mend: Mend) -> dict[str, Json]:
    model, provider = mend.called
    return {
        "model": model,
        "provider": provider,
        "path": mend.refused.path,
        "why": mend.refused.why,
        "bound": mend.refused.bound,
        "mended_by": written(mend.change) if mend.change is not None else None,
        "rules": len(mend.rules),
        "prompts": _prompts_json(mend.prompts),
    }


def _prompts_json(prompts: Any) -> list[dict[str, str]]:
    return [{"id": prompt_id, "name": name} for prompt_id, name in prompts]
