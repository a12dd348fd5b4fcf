"""From a source prompt to its replica: name, model, provider, collection, partials, parameters, description. Pure.

What cannot arrive is returned, never dropped: losses, what is missing at the target, and notes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from operator import attrgetter
from typing import Final, NamedTuple

from engine.content.carry import CARRY_KEY, Cargo, Unpacked, pack, unpack
from engine.content.digest import CONTENT, changed, changed_inside, filled, short_digest, user_name, without_nulls
from engine.content.parameters import change_parameters, copied
from engine.content.selection import find, meant, takes
from engine.content.templates import MUSTACHE
from engine.content.translate import brought_back, left_by, translate
from engine.content.way import Left
from engine.lossless_json.numbers import dumps
from engine.model import Catalog, Choice, Json, Named, ParameterRules, Prompt, Row, Rule, When, altered
from engine.model.dialect import Dialect, Fitted, MetadataRule, NameRule

ALWAYS: Final = Rule().when
TOOLS: Final = ("functions", "tools", "tool_choice")
NO_CHANGE: Final = ParameterRules()
_BLANK: Final = Prompt(id="", name="", text="")
_PLACEHOLDER: Final = re.compile(r"\{(name|id|slug|model|collection)(\|slug)?\}")
_ANY_NAME: Final = NameRule(says="every name is taken", takes=lambda name: True)


@dataclass(frozen=True, slots=True)
class Ends:
    """Both workspaces and what is in them. `same`: they are one, so what is kept needs no mapping. `dialects`: those
    that prompts of the source may be written in, by name; `dialect`: the target's, None: they go as they come; `names`:
    which it takes, None: any.
    """

    same: bool
    source: Catalog
    target: Catalog
    dialects: Mapping[str, Dialect] = field(default_factory=dict)
    dialect: Dialect | None = None
    names: NameRule | None = None


class Placement(NamedTuple):
    """Name and collection id that a replica gets."""

    name: str
    collection: str | None


@dataclass(frozen=True, slots=True)
class Change:
    """One value that the rules change, by the name users know; the template as digests only."""

    field: str
    before: Json
    after: Json


@dataclass(frozen=True, slots=True)
class Rewritten:
    """The prompt as the rules want it, not yet marked, and all there is to say about the way there.

    `losses`: names of what has a value and no place at the target. `missing`: sentences on what it refers to that is
    not there; such a prompt must not be written, and the reference is as it was at the source. `notes`: sentences
    that fail nothing, those of the source prompt first. `refused`: sentences on what cannot be said or
    called so there; such a prompt must not be written either. `carried`: names of what would be losses, and travels in
    the metadata; `uncarried`: sentences on what should, and cannot.
    """

    source: Prompt = field(repr=False)
    prompt: Prompt = field(repr=False)
    losses: tuple[str, ...]
    notes: tuple[str, ...]
    missing: tuple[str, ...]
    refused: tuple[str, ...] = ()
    carried: tuple[str, ...] = ()
    uncarried: tuple[str, ...] = ()

    @property
    def changes(self) -> tuple[Change, ...]:
        """What the rules changed. Worked out when it is asked for: a run never does."""
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
    text, partials, pinned = _map_partials(prompt, applied, ends)
    parameters, notes = _parameters(prompt, applied)
    after = altered(
        prompt,
        name=name,
        collection=collection.value,
        provider=provider.value,
        text=text,
        model=_chosen([rule.model for rule in applied], prompt.model) or prompt.model,
        parameters=parameters,
        description=_last(rule.description for rule in applied) or prompt.description,
        integrations=_integrations(prompt, applied),
        **_dropped(prompt, applied),
    )
    references = [one for one, where in ((collection, "collection"), (provider, "provider")) if where in fields]
    references += partials
    said = (*prompt.notes, *unpacked.notes, *(one.note for one in references if one.note), *pinned, *notes)
    done = Rewritten(
        source=source,
        prompt=after,
        losses=unpacked.losses,
        notes=tuple(dict.fromkeys(said)),
        missing=(*(one.missing for one in references if one.missing), *_absent_integrations(after, ends)),
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
    if any(rule.when.has or _asks(rule, untold) for rule in fitting):
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
    messages = _last(rule.messages for rule in applied) or "refuse"
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
    return all(_has_partials(prompt, ends) if name == "partials" else getattr(prompt, name) for name in when.has)


def _has_partials(prompt: Prompt, ends: Ends) -> bool:
    tag = _partial_tag(prompt, ends)
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


def _last(values: Iterable[str | None]) -> str | None:
    last = None
    for value in values:
        last = value or last
    return last


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
    parameters: Mapping[str, Json] = copied(prompt.parameters)
    notes: list[str] = []
    for rule in applied:
        if rule.parameters is NO_CHANGE or rule.parameters == NO_CHANGE:
            continue
        parameters, more = change_parameters(parameters, rule.parameters, prompt.variables)
        notes += more
    return parameters, notes


def _dropped(prompt: Prompt, applied: Sequence[Rule]) -> dict[str, None]:
    """Tools are no parameters of a prompt, but at a model they are: what drops those drops these too."""
    named = {path for rule in applied for path in rule.parameters.drop}
    return {name: None for name in TOOLS if name in named and name not in prompt.parameters}


# ---- what a prompt refers to -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Kind:
    """`key` is its place in the file, `of` finds them in a catalog, `held` is what a prompt holds of one."""

    word: str
    key: str
    of: Callable[[Catalog], Sequence[Named] | None]
    held: Callable[[Named], str]


@dataclass(frozen=True, slots=True)
class _Reference:
    """What a reference becomes; left as it is when something is missing."""

    value: str | None
    missing: str = ""
    note: str = ""


_COLLECTION: Final = _Kind("collection", "rewrite.collection", attrgetter("collections"), attrgetter("id"))
_PROVIDER: Final = _Kind("provider", "rewrite.provider", attrgetter("providers"), attrgetter("slug"))
_PARTIAL: Final = _Kind("partial", "rewrite.partials", attrgetter("partials"), attrgetter("slug"))


def _placed(prompt: Prompt | Row, applied: Sequence[Rule], ends: Ends) -> tuple[str, _Reference]:
    template = _last(rule.name for rule in applied) or "{name}"
    chosen = _chosen([rule.collection for rule in applied], *_collection_texts(prompt, ends))
    return _filled(template, prompt, ends), _refer(_COLLECTION, prompt.collection, chosen, ends)


def _provider(kept: str | None, applied: Sequence[Rule], ends: Ends) -> _Reference:
    return _refer(_PROVIDER, kept, _chosen([rule.provider for rule in applied], kept), ends)


def _partial(slug: str, mapped: str | None, ends: Ends) -> _Reference:
    if mapped or ends.same or ends.target.partials is not None or "partials" in ends.target.words:
        return _refer(_PARTIAL, slug, mapped, ends)
    advice = "map it in rewrite.partials, or use a key that may list partials"
    # unlike a collection or a provider it would not be refused: it would render as nothing
    return _Reference(slug, missing=f"partial '{slug}' cannot be looked up in the target workspace: {advice}")


def _refer(kind: _Kind, kept: str | None, chosen: str | None, ends: Ends) -> _Reference:
    if f"{kind.word}s" in ends.target.words:
        own = find(kind.of(ends.source), kept) if kept is not None else None
        return _Reference(chosen or (own.slug if own is not None else kept))
    target = kind.of(ends.target)
    if chosen is not None:
        return _Reference(chosen) if target is None else _named_in_file(kind, kept, chosen, target)
    if kept is None or ends.same:
        return _Reference(kept)
    if target is None:
        return _Reference(kept, note=f"{kind.word} '{kept}' is kept unchecked: the target's {kind.word}s are not known")
    return _same_in(kind, kept, find(kind.of(ends.source), kept), target)


def _named_in_file(kind: _Kind, kept: str | None, chosen: str, target: Sequence[Named]) -> _Reference:
    if len(found := meant(target, chosen)) == 1:
        return _Reference(kind.held(found[0]))
    return _Reference(kept, missing=_absent(kind, chosen, found, f"mend {kind.key}"))


def _same_in(kind: _Kind, kept: str, own: Named | None, target: Sequence[Named]) -> _Reference:
    """Of the same slug at the target, else of the same name; what the source does not list, by id or slug alone."""
    found = _alike(own, target) if own else [one for one in (find(target, kept),) if one]
    if len(found) == 1:
        return _Reference(kind.held(found[0]))
    return _Reference(kept, missing=_absent(kind, own.slug if own else kept, found, f"map it in {kind.key}"))


def _alike(own: Named, target: Sequence[Named]) -> list[Named]:
    same_slug = [one for one in target if one.slug == own.slug]
    return same_slug or [one for one in target if one.name == own.name]


def _absent(kind: _Kind, label: str, found: Sequence[Named], advice: str) -> str:
    if found:
        several = f"{len(found)} {kind.word}s of that name are in the target workspace"
        return f"{kind.word} '{label}' is ambiguous, {several}: give the slug of one in {kind.key}"
    return f"{kind.word} '{label}' is not in the target workspace: create it there, or {advice}"


def _partial_tag(prompt: Prompt, ends: Ends) -> re.Pattern[str] | None:
    """As the dialect of the prompt writes it; where nobody knows that one, as mustache does. None: there is none."""
    known = ends.dialects.get(prompt.dialect)
    return (MUSTACHE if known is None else known.grammar).partials


def _map_partials(prompt: Prompt, applied: Sequence[Rule], ends: Ends) -> tuple[str, list[_Reference], list[str]]:
    """The text with the partials' slugs at the target, every other byte as it was; and notes on pinned versions."""
    text = prompt.text
    # no tag of a partial, which is sooner told so by its sign
    if ">" not in text or (partial_tag := _partial_tag(prompt, ends)) is None:
        return text, [], []
    mapped = {old: new for rule in applied for old, new in rule.partials}
    tags = list(partial_tag.finditer(text))
    references = {slug: _partial(slug, mapped.get(slug), ends) for slug in dict.fromkeys(tag[2] for tag in tags)}
    pinned = [(tag[2], tag[3].removesuffix("}}").strip()) for tag in tags if "@" in tag[3]]
    notes = [
        f"partial '{slug}' is pinned to {version}: the versions of '{references[slug].value}' may be numbered otherwise"
        for slug, version in pinned
        if not (references[slug].missing or (ends.same and references[slug].value == slug))
    ]
    renewed = partial_tag.sub(lambda tag: f"{tag[1]}{references[tag[2]].value}{tag[3]}", text)
    return renewed, list(references.values()), notes


# ---- what there is to say --------------------------------------------------------------------------------------------


def _changes(before: Prompt, after: Prompt) -> Iterator[Change]:
    for name in ("name", "model", "provider", "collection", "integrations"):
        if getattr(before, name) != getattr(after, name):
            yield Change(name, getattr(before, name), getattr(after, name))
    if before.text != after.text:
        yield Change(user_name("text"), short_digest(before.text), short_digest(after.text))
    for path, old, new in changed_inside("parameters", *map(without_nulls, (before.parameters, after.parameters))):
        yield Change(path, old, new)
    for name in TOOLS:
        if getattr(before, name) is not None and getattr(after, name) is None:
            yield Change(name, short_digest(dumps(getattr(before, name))), None)
    if changed(before.description, after.description):
        yield Change(user_name("description"), before.description, after.description)


def _losses(done: Rewritten, lost: Collection[str], fields: Collection[str]) -> tuple[str, ...]:
    unknown = () if "extra" in fields else done.prompt.extra
    return tuple(sorted({*done.losses, *unknown, *map(user_name, lost)}))


def kinds_needed(rules: Sequence[Rule], *, same: bool) -> frozenset[str]:
    """Which catalogs these rules need to be judged; collections always, because results are told apart by them."""
    kinds = {"providers", "partials"} if not same else set()
    for rule in rules:
        if rule.provider:
            kinds.add("providers")
        if rule.partials:
            kinds.add("partials")
    return frozenset(kinds | {"collections"})
