"""Rules that mend what models refuse: the smallest change, for the prompts that need it and no other. Pure.

A rule is proved on the prompts before it is told: with it they come to a call without what was refused, and the call of
no prompt that was not refused changes.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from engine.lossless_json.numbers import dumps
from engine.model import Clamp, Json, ParameterRules, Refused, Rule, When
from engine.verbs.probe.shapes import BESIDE, Called, Kind, Shape

Again = Callable[[Kind, Sequence[Rule]], Mapping[str, Json] | None]
"""What a kind of prompts would call with these rules behind those of the file; None: they would not arrive."""

_WORD: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_NO_WORDS: Final = frozenset({"true", "false", "null", "True", "False", "Null", "TRUE", "FALSE", "NULL"})
_HEAD: Final = """\
# What the models of the target refused, by `promptferry check --probe`. These are rules for a migration file: they go
# behind its own `rewrite.rules`; where it has none, `rules` goes under its `rewrite`.
rewrite:
  rules:
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mend:
    """One thing that a model refuses of these kinds of prompts. `change`: the parameters that mend it, None: none do;
    `rules`: the change for exactly those prompts, none where no rule can tell them from others.
    """

    called: Called
    refused: Refused
    kinds: Sequence[Kind]
    change: ParameterRules | None
    rules: Sequence[Rule]

    @property
    def prompts(self) -> list[tuple[str, str]]:
        """Id and name of each."""
        return [prompt for kind in self.kinds for prompt in kind.prompts]

    @property
    def by_name(self) -> bool:
        """Whether the rules name the prompts."""
        return any(rule.when.name != "*" for rule in self.rules)


def mends(shapes: Sequence[Shape], again: Again) -> list[Mend]:
    """Everything that was refused of the shapes, each once for whom it was called."""
    found: dict[tuple[Called, Refused], list[Kind]] = defaultdict(list)
    for shape in shapes:
        for refused in shape.tried.refused if shape.tried is not None and shape.refused else ():
            found[shape.called, refused] += shape.kinds
    spared = [kind for shape in shapes if not shape.refused for kind in shape.kinds]
    return [_mend(called, refused, kinds, spared, again) for (called, refused), kinds in found.items()]


def _mend(called: Called, refused: Refused, kinds: Sequence[Kind], spared: Sequence[Kind], again: Again) -> Mend:
    change = next((one for one in _changes(refused, kinds) if _mended(one, refused, kinds, again)), None)
    rules = _rules(change, kinds, spared, again) if change is not None else ()
    return Mend(called=called, refused=refused, kinds=kinds, change=change, rules=rules)


# ---- which change ----------------------------------------------------------------------------------------------------


def _changes(refused: Refused, kinds: Sequence[Kind]) -> Iterator[ParameterRules]:
    """The change under the name that the call has it by; then by each that it may have had before, at the source."""
    if refused.why == "model":
        return
    yield _change(refused, refused.path, kinds)
    first, dot, rest = refused.path.partition(".")
    for name in dict.fromkeys(name for kind in kinds for name in kind.source.parameters if name != first):
        yield _change(refused, f"{name}{dot}{rest}", kinds)
        if dot:
            yield _change(refused, name, kinds)


def _change(refused: Refused, path: str, kinds: Sequence[Kind]) -> ParameterRules:
    if refused.instead is not None:
        return ParameterRules(rename=((path, refused.instead),))
    if refused.bound is not None:
        low = refused.why == "too_small"
        return ParameterRules(clamp=((path, Clamp(**{"min" if low else "max": refused.bound})),))
    if path == "tools":  # one without the other is refused too
        return ParameterRules(drop=("tools", *(("tool_choice",) if _has(kinds, "tool_choice") else ())))
    return ParameterRules(drop=(path,))


def _has(kinds: Sequence[Kind], name: str) -> bool:
    return any(name in kind.request for kind in kinds)


def _mended(change: ParameterRules, refused: Refused, kinds: Sequence[Kind], again: Again) -> bool:
    """Whether each of them comes to a call that is without it, and as it was in everything else."""
    touched = {refused.path.partition(".")[0], refused.instead, *(BESIDE if refused.path in BESIDE else ())}
    for kind in kinds:
        after = again(kind, (Rule(parameters=change),))
        if after is None or _value(after, refused.path) == _value(kind.request, refused.path):
            return False
        others = (kind.request.keys() | after.keys()) - touched
        if any(kind.request.get(name) != after.get(name) for name in others):
            return False
    return True


def _value(request: Mapping[str, Json], path: str) -> Json:
    value: Json = request
    for part in path.split("."):
        if not isinstance(value, Mapping) or part not in value:
            return None
        value = value[part]
    return value


# ---- for which prompts -----------------------------------------------------------------------------------------------


def _rules(change: ParameterRules, kinds: Sequence[Kind], spared: Sequence[Kind], again: Again) -> Sequence[Rule]:
    """By the model at the source, where that is enough to tell them from those that were not refused; else by name."""
    models = sorted({kind.source.model or "" for kind in kinds})
    by_model = [Rule(when=When(model=_exactly(model)), parameters=change) for model in models]
    beside = [kind for kind in spared if again(kind, by_model) != kind.request]
    if not beside:
        return by_model
    pairs = {(kind.source.model or "", name) for kind in kinds for _, name in kind.prompts}
    if not pairs.isdisjoint((kind.source.model or "", name) for kind in beside for _, name in kind.prompts):
        return ()
    return [
        Rule(when=When(model=_exactly(model), name=_exactly(name)), parameters=change) for model, name in sorted(pairs)
    ]


def _exactly(text: str) -> str:
    """The glob that takes this text alone; of no text at all any."""
    return re.sub(r"([\[*?])", r"[\1]", text) or "*"


# ---- as YAML ---------------------------------------------------------------------------------------------------------


def rules_file(found: Sequence[Mend]) -> str:
    """The rules as a part of a migration file; "" where there are none."""
    lines, seen = [], set[str]()
    for mend in found:
        rules = [text for rule in mend.rules if (text := _rule(rule)) not in seen]
        seen.update(rules)
        if rules:
            lines += [f"    # {_why(mend)}", *rules]
    return _HEAD + "".join(f"{line}\n" for line in lines) if lines else ""


def _why(mend: Mend) -> str:
    model, provider = mend.called
    where = f" at {provider}" if provider else ""
    number = len(mend.prompts)
    return (
        f"{_quoted(model + where)} refuses {_quoted(mend.refused.path)} of {number} prompt{'s' if number > 1 else ''}"
    )


def _rule(rule: Rule) -> str:
    when = {name: value for name in ("model", "name") if (value := getattr(rule.when, name)) != "*"}
    said = ", ".join(f"{name}: {_quoted(value, always=True)}" for name, value in when.items())
    return f"    - when: {{{said}}}\n      parameters: {written(rule.parameters)}"


def written(change: ParameterRules) -> str:
    """As the file has it: `{drop: [thinking]}`."""
    parts = []
    if change.drop:
        parts.append(f"drop: [{', '.join(map(_quoted, change.drop))}]")
    if change.rename:
        parts.append(f"rename: {{{', '.join(f'{_quoted(old)}: {_quoted(new)}' for old, new in change.rename)}}}")
    if change.clamp:
        parts.append(f"clamp: {{{', '.join(f'{_quoted(path)}: {_bounds(clamp)}' for path, clamp in change.clamp)}}}")
    return f"{{{', '.join(parts)}}}"


def _bounds(clamp: Clamp) -> str:
    return dumps(clamp.max) if clamp.max is not None else f"{{min: {dumps(clamp.min)}}}"


def _quoted(text: str, *, always: bool = False) -> str:
    """A text as YAML has it."""
    if not always and _WORD.fullmatch(text) and text not in _NO_WORDS:
        return text
    return dumps(text, ensure_ascii=not text.isprintable())
