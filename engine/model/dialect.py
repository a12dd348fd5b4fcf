"""How a registry writes its prompts, as data: template grammar, names of parameters, form of a chat, names of prompts.

Each connector has one `Dialect`, and a prompt goes from any of them to any other by the neutral form between them: see
`content/translate.py`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from engine.lossless_json import Json
from engine.model.frozen import frozen
from engine.model.prompt import Prompt


@dataclass(frozen=True, slots=True)
class Token:
    """A piece of a template: literal text, or a tag. `kind` is a word for people; see `content/templates.py`."""

    kind: str
    body: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Construct:
    """Tags that not every grammar has: `words` shows them, `otherwise` says what becomes of them elsewhere, `instead`
    what to do with one.
    """

    name: str
    kinds: frozenset[str]
    words: str
    otherwise: str = "refused"
    instead: str = "take it out at the source"


@dataclass(frozen=True, slots=True, kw_only=True)
class Grammar:
    """How a template is cut into tokens, of which no literal stands beside another, and how it is written of them. What
    `tokens` does not find again in what `text` has written cannot be said in it.
    """

    name: str
    tokens: Callable[[str], Sequence[Token]] = field(repr=False)
    text: Callable[[Iterable[Token]], str] = field(repr=False)
    shown: Callable[[str], Collection[str]] = field(repr=False)
    """The names that seem to be asked for, also in a text that is not well formed."""
    variable: str
    """How a variable looks."""
    opening: str
    """What a tag begins with."""
    constructs: Sequence[Construct] = ()
    """What it has besides literals and variables."""
    names: Mapping[str, str] = field(default_factory=dict)
    """Kind of name, of those in `content/templates.py` -> how it is read, where that is not as it stands."""
    partials: re.Pattern[str] | None = field(default=None, repr=False)
    """Finds the tag of a partial that lies in the workspace: what stands before its slug, the slug, what stands behind.
    None: it has none.
    """
    literal: Sequence[tuple[str, str]] = ()
    """Text that it takes for a tag and that cannot be escaped, and what would become of it."""

    @property
    def kinds(self) -> frozenset[str]:
        """Of the tags that it has besides variables."""
        return frozenset[str]().union(*(construct.kinds for construct in self.constructs))


def as_it_is(value: Json) -> Json:
    """The same value."""
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """One parameter and its neutral name, which is OpenAI's. `read`: from the registry's value to the neutral one;
    `write`: back; None: it has no place. `own` and `values` say which values these are, `advice` what to do with
    others.
    """

    neutral: str
    read: Callable[[Json], Json] = field(default=as_it_is, repr=False)
    write: Callable[[Json], Json] = field(default=as_it_is, repr=False)
    own: str = ""
    values: str = ""
    advice: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ParameterNames:
    """What parameters are called. `open`: any other is kept under its neutral name; `defaults`: default values of the
    template's variables stand among them, under their names.
    """

    known: Mapping[str, Parameter] = field(default_factory=dict)
    open: bool = False
    defaults: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Chat:
    """What is kept of a chat. In `Prompt.text` it is always a JSON list of messages, each with `role` and `content`."""

    messages: bool
    """Messages are kept; else one text."""
    text: bool = True
    """A text is kept as such; else it becomes the message of a user."""
    keys: frozenset[str] | None = None
    """Keys of a message that are kept; None: all."""
    parts: frozenset[str] | None = None
    """Types of the parts that a content may be a list of; None: all; empty: a content is one text."""
    spelled: bool = True
    """The JSON of a chat is kept as it is spelled; else its messages are, and `content/chats.py` spells them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MetadataRule:
    """Which values of metadata are kept, and that in words. `room`: why a prompt cannot be kept with one more value,
    which is this text, because it is too large; None: it can, or there is no limit.
    """

    says: str = "metadata"
    keeps: Callable[[Json], bool] | None = field(default=None, repr=False)
    """None: all."""
    room: Callable[[Prompt, str], str | None] | None = field(default=None, repr=False)


@frozen(kw_only=True)
class Fitted:
    """What of a prompt a registry can hold. `losses`: names, as users know them, of what it cannot; `refused`:
    sentences on what it must not be written with; `notes`: sentences that fail nothing. None of them quotes a template.
    """

    prompt: Prompt = field(repr=False)
    losses: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """How a registry writes its prompts. `name` is its word in files, `registry` the one in sentences."""

    name: str
    registry: str
    grammar: Grammar
    parameters: ParameterNames
    chat: Chat
    metadata: MetadataRule = MetadataRule()
    escaped: bool = False
    """Some of its clients write newlines, quotes and other characters out when they save a text."""
    variants: Sequence[Dialect] = ()
    """Other ways to write a prompt that the same registry has: what is in one of them is taken as it is."""
    fit: Callable[[Prompt], Fitted] | None = field(default=None, repr=False)
    """What a prompt, which is in this dialect, is as a whole, where that hangs on several fields: which parameters
    there are on its provider. None: what each field keeps is all there is to it.
    """
    says: Mapping[str, str] = field(default_factory=dict)
    """What of `fit` people are told: thing -> what becomes of it."""

    def takes(self, dialect: str) -> bool:
        """Whether a prompt in the dialect of this name needs no translation."""
        return dialect == self.name or any(dialect == one.name for one in self.variants)


@dataclass(frozen=True, slots=True, kw_only=True)
class NameRule:
    """Which names a registry takes: `says` in words, `takes` of a whole name. An `a` may stand anywhere in a name."""

    says: str
    takes: Callable[[str], object] = field(repr=False)

    def refuses(self, name: str) -> str | None:
        """Why it cannot have that name: a sentence with what to do. None: it can."""
        if self.takes(name):
            return None
        return f"the name {name!r} cannot be used: {self.says}; use rewrite.name, as with {{name|slug}}"

    def slug(self, name: str) -> str:
        """The name in lower case, a dash for each run of characters that are not taken, and nothing at the ends that
        may not stand there. Empty, where nothing of it is taken; and what the rule says of a name as a whole, as of a
        lone dot, may still refuse it.
        """
        taken = "".join(char if self.takes(f"a{char}a") else "-" for char in name.lower())
        slug = re.sub("-+", "-", taken).strip("-")
        while slug and not self.takes(f"{slug[0]}a"):
            slug = slug[1:].lstrip("-")
        while slug and not self.takes(f"a{slug[-1]}"):
            slug = slug[:-1].rstrip("-")
        return slug
