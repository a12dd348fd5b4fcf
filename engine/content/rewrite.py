"""From a source prompt to its replica: name, model, provider, collection, partials, parameters, description. Pure.

What cannot arrive is returned, never dropped: losses, what is missing at the target, and notes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import field, replace
from itertools import count
from typing import Final, NamedTuple

from engine.content.carry import CARRY_KEY, Cargo, Unpacked, pack, unpack
from engine.content.digest import CONTENT, changed, changed_inside, filled, short_digest, user_name, without_nulls
from engine.content.parameters import change_parameters
from engine.content.references import COLLECTION, PROVIDER, Ends, Reference, map_partials, partial_tag, refer
from engine.content.selection import find, takes
from engine.content.translate import brought_back, left_by, translate
from engine.content.way import Left
from engine.lossless_json.numbers import dumps
from engine.model import Choice, Json, ParameterRules, PartKey, Prompt, Row, Rule, When, altered
from engine.model.dialect import Dialect, Fitted, MetadataRule, NameRule
from engine.model.frozen import frozen

ALWAYS: Final = Rule().when
TOOLS: Final = ("functions", "tools", "tool_choice")
NO_CHANGE: Final = ParameterRules()
_BLANK: Final = Prompt(id="", name="", text="")
_PLACEHOLDER: Final = re.compile(r"\{(name|id|slug|model|collection)(\|slug)?\}")
_ANY_NAME: Final = NameRule(says="every name is taken", takes=lambda name: True)


class Placement(NamedTuple):
    """Name and collection id that a replica gets."""

    name: str
    collection: str | None


@frozen()
class Change:
    """One value that the rules change, by the name users know; the template as digests only."""

    field: str
    before: Json
    after: Json


@frozen()
class Rewritten:
    """The prompt as the rules want it, not yet marked, and all there is to say about the way there.

    `losses`: names of what has a value and no place at the target. `missing`: sentences on what it refers to that is
    not there; such a prompt must not be written, and the reference is as it was at the source. `notes`: sentences
    that fail nothing, those of the source prompt first. `refused`: sentences on what cannot be said or
    called so there; such a prompt must not be written either. `carried`: names of what would be losses, and travels in
    the metadata; `uncarried`: sentences on what should, and cannot. `lacks`: what is missing and is to be made.
    """

    source: Prompt = field(repr=False)
    prompt: Prompt = field(repr=False)
    losses: tuple[str, ...]
    notes: tuple[str, ...]
    missing: tuple[str, ...]
    refused: tuple[str, ...] = ()
    carried: tuple[str, ...] = ()
    uncarried: tuple[str, ...] = ()
    lacks: tuple[PartKey, ...] = ()

    @property
    def changes(self) -> tuple[Change, ...]:
        """What the rules changed. Worked out each time: a run asks once for each outcome that it writes down."""
        return tuple(_changes(self.source, self.prompt))


def rewrite(
    source: Prompt, rules: Sequence[Rule], ends: Ends, fields: Collection[str], *, carry: Collection[str] = ()
) -> Rewritten:
    """Applies the rules that are for this prompt as it is at the source, in order; later ones override. What it carries
    is a part of it, where it goes to another dialect.

    `fields`: the fields of Prompt that have a place at the target; `carry`: names of losses that are to be carried.
    """
    unpacked = _unpacked(source, ends)
    done = _rewritten(source, unpacked, rules, ends, fields, carry)
    if not done.refused or unpacked.prompt.text == source.text:
        return done
    # as it stands it may be said there, without what it carries of its messages
    bare = _rewritten(source, _unpacked(source, ends, messages=False), rules, ends, fields, carry)
    why = [f"with the messages as they were carried: {reason}" for reason in done.refused]
    return done if bare.refused else replace(bare, notes=(*bare.notes, *why))


def _rewritten(
    source: Prompt,
    unpacked: Unpacked,
    rules: Sequence[Rule],
    ends: Ends,
    fields: Collection[str],
    carry: Collection[str],
) -> Rewritten:
    dialect, prompt = ends.dialect, unpacked.prompt
    applied = [rule for rule in rules if _fits(rule.when, prompt, ends) and _has(rule.when, prompt, ends)]
    name, collection = _placed(prompt, applied, ends)
    provider = _provider(prompt.provider, applied, ends)
    mapped = map_partials(prompt.text, partial_tag(ends.dialects.get(prompt.dialect)), applied, ends)
    parameters, notes = _parameters(prompt, applied)
    after = altered(
        prompt,
        name=name,
        collection=collection.value,
        provider=provider.value,
        text=mapped.text,
        model=_chosen([rule.model for rule in applied], prompt.model) or prompt.model,
        parameters=parameters,
        description=_last([rule.description for rule in applied]) or prompt.description,
        integrations=_integrations(prompt, applied),
        **_dropped(prompt, applied),
    )
    references = [one for one, where in ((collection, "collection"), (provider, "provider")) if where in fields]
    said = (*prompt.notes, *unpacked.notes, *(one.note for one in references if one.note), *mapped.notes, *notes)
    done = Rewritten(
        source=source,
        prompt=after,
        losses=unpacked.losses,
        notes=tuple(dict.fromkeys(said)),
        missing=(
            *(one.missing for one in references if one.missing),
            *mapped.missing,
            *_absent_integrations(after, ends),
        ),
        lacks=(*(one.lacks for one in references if one.lacks), *mapped.lacks),
    )
    left: list[Left] = []
    if dialect is not None and not (dialect.takes(prompt.dialect) and dialect.chat.spelled):
        done = _translated(done, unpacked, ends, applied, left)
    if dialect is not None and dialect.fit is not None and not (done.refused or done.missing):
        done = _fitted(done, dialect, dialect.fit, left)
    if ends.names is not None and (why := ends.names.refuses(name)) is not None:
        done = replace(done, refused=(why, *done.refused))
    lost = filled(done.prompt, [name for name in CONTENT if name not in fields])
    losses = _losses(done, lost, fields)
    if not losses and not (carry and left):
        return done
    left += _left(done.prompt, lost, fields)
    # with a loss that is accepted, what is left is what arrives
    done = replace(done, losses=losses, prompt=altered(done.prompt, **{name: getattr(_BLANK, name) for name in lost}))
    return _carrying(done, left, carry, ends, fields) if carry else done


def place(row: Row, rules: Sequence[Rule], ends: Ends) -> Placement | None:
    """Name and collection of the replica as `rewrite` will give them, from a row of the listing alone.

    None when a rule that changes either may be for this prompt but asks what it `has`, or for a model or collection
    that the row does not tell: then the definition is needed.
    """
    untold = () if row.whole else tuple(part for part in ("model", "collection") if getattr(row, part) is None)
    fitting = [rule for rule in rules if (rule.name or rule.collection) and _fits(rule.when, row, ends, untold)]
    if any(rule.when.has or (untold and _asks(rule, untold)) for rule in fitting):
        return None
    name, collection = _placed(row, fitting, ends)
    return Placement(name, collection.value)


def _asks(rule: Rule, untold: Collection[str]) -> bool:
    """Whether what this rule makes of name and collection hangs on one of these parts."""
    asked = (
        getattr(rule.when, part) != "*"
        or any(one[1] == part for one in _PLACEHOLDER.finditer(rule.name or ""))
        or (part == "collection" and any(glob != "*" for glob, _ in rule.collection))
        for part in untold
    )
    return any(asked)


def clashes(placements: Iterable[tuple[Row, Placement]], *, twins: bool = True) -> set[str]:
    """Source ids of the prompts whose replicas would share a name in one collection though their own names differ.

    Prompts that share a name at the source already are no clash. Without `twins` the target has each name once.
    """
    first: dict[Placement, Row] = {}
    shared: dict[Placement, list[Row]] = {}  # a list for each of all the others would be most of the memory
    for row, placement in placements:
        where = placement if twins else placement._replace(collection=None)
        if (other := first.setdefault(where, row)).id != row.id:
            shared.setdefault(where, [other]).append(row)
    clashing = [rows for rows in shared.values() if not twins or len({row.name for row in rows}) > 1]
    return {row.id for rows in clashing for row in rows}


def free_name(name: str, taken: Collection[str]) -> str:
    """The first of `name-2`, `name-3`, ... that is not taken."""
    return next(free for number in count(2) if (free := f"{name}-{number}") not in taken)


def _unpacked(prompt: Prompt, ends: Ends, *, messages: bool = True) -> Unpacked:
    """The prompt with what it carries in its place; as it is, where it stays in its dialect."""
    if CARRY_KEY not in prompt.metadata or ends.dialect is None or ends.dialect.takes(prompt.dialect):
        return Unpacked(prompt=prompt)
    return unpack(prompt, ends.dialects[prompt.dialect], messages=messages)


def _translated(
    done: Rewritten, unpacked: Unpacked, ends: Ends, applied: Sequence[Rule], left: list[Left]
) -> Rewritten:
    """The same in the dialect of the target. That a chat becomes one text, as the file says, is no loss, but a note."""
    source, target = ends.dialects[done.prompt.dialect], ends.dialect
    assert target is not None  # else nothing is translated
    if unpacked.chat:
        source = replace(source, chat=replace(source.chat, messages=True))
    messages = _last([rule.messages for rule in applied]) or "refuse"
    translated = translate(done.prompt, source, target, messages=messages)
    back = brought_back(translated.prompt, _ruled(unpacked, applied), target)
    left += (*translated.left, *back.left)
    return replace(
        done,
        prompt=back.prompt,
        losses=(*done.losses, *(loss for loss in translated.losses if loss != "messages"), *back.losses),
        notes=(*done.notes, *translated.notes, *back.notes),
        refused=translated.refused,
    )


def _ruled(unpacked: Unpacked, applied: Sequence[Rule]) -> Cargo:
    """What was carried of the parameters; what a rule sets is among the others."""
    if "parameters" not in unpacked.rest:
        return unpacked.rest
    parameters = unpacked.rest["parameters"]
    for rule in applied:
        parameters, _ = change_parameters(parameters, replace(rule.parameters, set=()), unpacked.prompt.variables)
    return {**unpacked.rest, "parameters": parameters}


def _fitted(done: Rewritten, dialect: Dialect, fit: Callable[[Prompt], Fitted], left: list[Left]) -> Rewritten:
    """What of it the target can hold as a whole."""
    fitted = fit(done.prompt)
    if fitted.prompt is done.prompt and not (fitted.losses or fitted.notes or fitted.refused):
        return done
    left += left_by(fitted, done.prompt, dialect)
    return replace(
        done,
        prompt=fitted.prompt,
        losses=(*done.losses, *fitted.losses),
        notes=(*done.notes, *fitted.notes),
        refused=fitted.refused,
    )


def _left(prompt: Prompt, lost: Collection[str], fields: Collection[str]) -> Iterator[Left]:
    """Whole fields without a place, and what is none of ours."""
    for name in lost:
        yield Left(user_name(name), ("fields", user_name(name)), getattr(prompt, name))
    if "extra" not in fields:
        yield from (Left(name, ("extra", name), value) for name, value in prompt.extra.items())


def _carrying(
    done: Rewritten, left: Collection[Left], carry: Collection[str], ends: Ends, fields: Collection[str]
) -> Rewritten:
    """The same with what is to be carried, which is no loss by that."""
    rule = ends.dialect.metadata if ends.dialect is not None else MetadataRule()
    packed = pack(done.prompt, left, carry, rule if "metadata" in fields else None)
    unsaid = sorted({*done.losses}.intersection(carry) - {one.name for one in left})
    more = [f"{name} does not fit what is there, or cannot be said in the target's templates" for name in unsaid]
    return replace(
        done,
        prompt=packed.prompt,
        losses=tuple(name for name in done.losses if name not in packed.carried),
        carried=packed.carried,
        uncarried=(*packed.uncarried, *more),
    )


# ---- which rules, which values ---------------------------------------------------------------------------------------


def _fits(when: When, prompt: Prompt | Row, ends: Ends, untold: Collection[str] = ()) -> bool:
    """Whether all parts of `when` but `has` hold, or may hold: nobody knows what is `untold`."""
    return when == ALWAYS or (
        ("model" in untold or takes(when.model, prompt.model))
        and takes(when.name, prompt.name)
        and ("collection" in untold or any(takes(when.collection, text) for text in _collection_texts(prompt, ends)))
    )


def _has(when: When, prompt: Prompt, ends: Ends) -> bool:
    return not when.has or all(
        _has_partials(prompt, ends) if name == "partials" else getattr(prompt, name) for name in when.has
    )


def _has_partials(prompt: Prompt, ends: Ends) -> bool:
    tag = partial_tag(ends.dialects.get(prompt.dialect))
    return tag is not None and tag.search(prompt.text) is not None


def _collection_texts(prompt: Prompt | Row, ends: Ends) -> tuple[str | None, ...]:
    """What the globs of a rule may match of the source's collection."""
    home = find(ends.source.collections, prompt.collection)
    return (home.id, home.slug, home.name) if home else (prompt.collection,)


def _chosen(choices: Iterable[Choice], *texts: str | None) -> str | None:
    """The value of the last choice in which a glob takes one of the texts, and in it of the first such glob."""
    chosen = None
    for choice in choices:
        for glob, value in choice:
            if any(takes(glob, text) for text in texts):
                chosen = value or chosen
                break
    return chosen


def _last(values: Sequence[str | None]) -> str | None:
    return next(filter(None, reversed(values)), None)


def _filled(template: str, prompt: Prompt | Row, ends: Ends) -> str:
    def value(placeholder: re.Match[str]) -> str:
        text = getattr(prompt, placeholder[1]) or ""
        if placeholder[1] == "collection" and (home := find(ends.source.collections, prompt.collection)):
            text = home.slug
        return (ends.names or _ANY_NAME).slug(text) if placeholder[2] else text

    # one pass, so that braces in a value are never read as a placeholder
    return _PLACEHOLDER.sub(value, template)


def _integrations(prompt: Prompt, applied: Sequence[Rule]) -> tuple[str, ...]:
    """The further ones, their halves mapped as model and provider are."""
    if not prompt.integrations:
        return ()
    renewed = set()
    for pair in prompt.integrations:
        provider, _, model = pair.partition(":")
        provider = _chosen([rule.provider for rule in applied], provider) or provider
        renewed.add(f"{provider}:{_chosen([rule.model for rule in applied], model) or model}")
    return tuple(sorted(renewed))


def _absent_integrations(prompt: Prompt, ends: Ends) -> Iterator[str]:
    there = ends.target.integrations
    if there is None:
        return
    if prompt.model is not None and prompt.provider is None:
        yield f"model '{prompt.model}' has no integration at the target: name one in rewrite.provider"
        return
    own = [] if prompt.model is None else [f"{prompt.provider}:{prompt.model}"]
    for pair in (*own, *prompt.integrations):
        if pair not in there:
            advice = "add or enable it there, or mend rewrite.provider and rewrite.model"
            yield f"integration '{pair}' is not at the target, or is disabled there: {advice}"


def _parameters(prompt: Prompt, applied: Sequence[Rule]) -> tuple[Mapping[str, Json], list[str]]:
    parameters, notes = prompt.parameters, list[str]()
    for rule in applied:
        if rule.parameters is NO_CHANGE or rule.parameters == NO_CHANGE:
            continue
        parameters, more = change_parameters(parameters, rule.parameters, prompt.variables)
        notes += more
    return parameters, notes


def _dropped(prompt: Prompt, applied: Sequence[Rule]) -> dict[str, None]:
    """Tools are no parameters of a prompt, but at a model they are: what drops those drops these too."""
    dropped: dict[str, None] = {}
    for rule in applied:
        if rule.parameters.drop:
            dropped |= {name: None for name in TOOLS if name in rule.parameters.drop and name not in prompt.parameters}
    return dropped


def _placed(prompt: Prompt | Row, applied: Sequence[Rule], ends: Ends) -> tuple[str, Reference]:
    template = _last([rule.name for rule in applied]) or "{name}"
    choices = [rule.collection for rule in applied if rule.collection]
    chosen = _chosen(choices, *_collection_texts(prompt, ends)) if choices else None
    return _filled(template, prompt, ends), refer(COLLECTION, prompt.collection, chosen, ends)


def _provider(kept: str | None, applied: Sequence[Rule], ends: Ends) -> Reference:
    return refer(PROVIDER, kept, _chosen([rule.provider for rule in applied], kept), ends)


# ---- what there is to say --------------------------------------------------------------------------------------------


def _changes(before: Prompt, after: Prompt) -> Iterator[Change]:
    for name in ("name", "model", "provider", "collection", "integrations"):
        if getattr(before, name) != getattr(after, name):
            yield Change(name, getattr(before, name), getattr(after, name))
    if before.text != after.text:
        yield Change(user_name("text"), short_digest(before.text), short_digest(after.text))
    if before.parameters is not after.parameters:
        for path, old, new in changed_inside("parameters", *map(without_nulls, (before.parameters, after.parameters))):
            yield Change(path, old, new)
    for name in TOOLS:
        if getattr(after, name) is None and getattr(before, name) is not None:
            yield Change(name, short_digest(dumps(getattr(before, name))), None)
    if changed(before.description, after.description):
        yield Change(user_name("description"), before.description, after.description)


def _losses(done: Rewritten, lost: Collection[str], fields: Collection[str]) -> tuple[str, ...]:
    unknown = () if "extra" in fields else done.prompt.extra
    return tuple(sorted({*done.losses, *unknown, *map(user_name, lost)}))
