"""Reads a ledger as it is now, with a run that writes it or without, for its page."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from engine.errors import ConfigError, EngineError
from engine.ledger.file import is_there, no_ledger, uncollected
from engine.ledger.follow import Follower, News
from engine.ledger.holder import Life, holder_of, life_of
from engine.model import Json
from engine.web.encoding import encoded
from engine.web.page import page
from engine.web.view import Beside, View


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A ledger at one moment."""

    view: View
    news: News
    now: float
    life: Life

    def summary(self) -> dict[str, Json]:
        """See `View.summary`."""
        news = self.news
        return self.view.summary(news.condition, there=news.there, now=self.now, life=self.life)

    @property
    def title(self) -> str:
        """What it is about, in a few words."""
        counts = self.view.fold.status(self.view.path).counts
        name = self.view.fold.run.get("migration") or ("no good line" if self.refusal else "no run yet")
        return f"{name}, {counts['selected']:,} prompts"

    def html(self) -> bytes:
        """The page, with its data."""
        with uncollected():
            return page(self.summary(), self.view.rows())

    @property
    def refusal(self) -> EngineError | None:
        """Why nobody can go on with this ledger."""
        return self.news.refusal

    def json(self) -> bytes:
        """The data of the page, row by row, for whatever reads it."""
        with uncollected():
            return encoded({**self.summary(), "prompts": list(self.view.prompts())})


def read_report(path: Path, beside: Beside, *, now: float, alone: bool = True) -> Report:
    """Takes no lock. Raises Stop when the disk fails. `alone`: nothing else is told; then it raises ConfigError where
    there is no ledger, or a file that is none.
    """
    if alone and not is_there(path):
        raise no_ledger(path)
    with uncollected():
        found = _read(path, beside, now)
    if alone and isinstance(found.refusal, ConfigError):
        raise found.refusal
    return found


def _read(path: Path, beside: Beside, now: float) -> Report:
    holder = holder_of(path)
    view = View(path, beside)
    with closing(Follower(path)) as follower:
        while (news := follower.look()) is not None:
            if news.anew:
                view = View(path, beside)
            view.take_all(news.lines)
            if not news.behind:
                return Report(view=view, news=news, now=now, life=life_of(view.fold.run, view.fold.end, holder))
    raise AssertionError("a first look always has news")
