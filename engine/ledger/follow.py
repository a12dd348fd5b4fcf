"""Reads a ledger that another process writes, as it grows: takes no lock, writes nothing, and waits for nobody.

A last line that is not whole yet is waited for. A file that is replaced, shortened or written anew is read from its
start: each good line ends with a checksum of all before it, so the last one tells whether the file is still the same.
What was read once is not read again: damage that is done to it later is found by whoever begins later.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import anyio
import anyio.lowlevel

from engine.errors import ConfigError, EngineError
from engine.ledger.file import REST_BYTES, judged, refusal_of, refused
from engine.ledger.holder import Holder, holder_of
from engine.ledger.lines import Chain, Condition
from engine.model import Json

INTERVAL_S: Final = 0.25
"""Between two looks. A look at a file that has not changed asks the system for its size, and for nothing else."""
_REST: Final = 4
"""What a look and what was made of it took of a processor's time, so many times as long a rest follows: it never takes
more than a fifth of a processor, however large the ledger is."""
_PIECE_BYTES: Final = 2**20
"""Lines at a time: whatever else the loop has to do does not wait for a whole ledger."""


@dataclass(frozen=True, slots=True, kw_only=True)
class News:
    """What one look found."""

    lines: Sequence[Mapping[str, Json]] = ()
    """The good lines that are new, first to last."""
    anew: bool = False
    """It is another file than before, or none: nothing that was known holds, and `lines` are its first."""
    behind: bool = False
    """There are more lines already; what all say together is known when this is False."""
    there: bool = True
    """There is a file."""
    condition: Condition
    """How the file ends. `torn`: with a write that is going on, or that never came to its end."""
    refusal: EngineError | None = None
    """Why nobody can go on with it: it is damaged, no ledger, or of a newer version."""
    holder: Holder | None = None
    """Who writes it; `lines` are all that it has written, when it is gone."""


class Follower:
    """The place in a ledger up to which somebody has read it. Close it in the end."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = -1
        self._seen: tuple[int, ...] = ()
        """Which file it was and how it was when it was last read to its end."""
        self._end = Chain()
        self._anew = False
        self._told: Condition | None = None

    def close(self) -> None:
        """May be called twice."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def look(self) -> News | None:
        """What is new since the last look; None: nothing. Raises ConfigError where this is no file, Stop when the disk
        fails.
        """
        try:
            found = self._find()
            return self._read(found) if found is not None else self._missing()
        except OSError as exc:
            raise refused(self.path, exc, "read") from exc

    def _find(self) -> os.stat_result | None:
        """The file that is there now, open; another one than before is read from its start."""
        try:
            there = os.stat(self.path)
            if not stat.S_ISREG(there.st_mode):
                raise ConfigError(f"{self.path}: this is no file: name a ledger")
            if self._fd >= 0 and os.path.samestat(os.fstat(self._fd), there):
                return there
            opened = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        self.close()
        self._begin(opened)
        return os.fstat(opened)

    def _begin(self, fd: int) -> None:
        self._fd, self._end, self._anew, self._told, self._seen = fd, Chain(), True, None, ()

    def _missing(self) -> News | None:
        condition = Condition("whole", 1, 0)
        if self._fd < 0 and self._told is not None:
            return None
        self.close()
        self._begin(-1)
        self._told = condition
        return News(anew=True, there=False, condition=condition)

    def _read(self, found: os.stat_result) -> News | None:
        seen = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
        if seen == self._seen:
            return None
        before = self._end.last_bytes
        if os.pread(self._fd, len(before), self._end.offset - len(before)) != before:
            self._begin(self._fd)
        lines, rest = self._accept(_PIECE_BYTES)
        if rest is None and not lines:
            lines, rest = self._accept(REST_BYTES)
            if rest is None and not lines:  # more than a write can leave behind
                rest = os.pread(self._fd, REST_BYTES, self._end.offset)
        if rest is not None:
            self._seen = seen
        return self._news(lines, rest)

    def _accept(self, size: int) -> tuple[list[Mapping[str, Json]], bytes | None]:
        """The good lines among the next so many bytes, and what stands behind them; None: more may follow.

        Both of one reading: by another one, the line that was not whole yet could be, and would be taken for a bad one.
        """
        data = os.pread(self._fd, size, self._end.offset)
        lines: list[Mapping[str, Json]] = []
        start = 0
        while end := data.find(b"\n", start) + 1:
            if (fields := self._end.accept(data[start:end])) is None:
                whole = len(data) < size
                return lines, data[start:] if whole else os.pread(self._fd, REST_BYTES, self._end.offset)
            lines.append(fields)
            start = end
        return lines, data[start:] if len(data) < size else None

    def _news(self, lines: list[Mapping[str, Json]], rest: bytes | None) -> News | None:
        behind = rest is None
        condition = Condition("torn", self._end.seq + 1, self._end.offset)
        if rest is not None:
            condition = judged(rest, self._end)
        if not lines and not self._anew and condition == self._told:
            return None
        anew, self._anew, self._told = self._anew, False, None if behind else condition
        return News(
            lines=lines,
            anew=anew,
            behind=behind,
            condition=condition,
            refusal=refusal_of(self.path, condition),
        )


async def follow(path: Path, *, interval: float = INTERVAL_S) -> AsyncGenerator[News, None]:
    """All news, without end; the first comes at once, also of a file that is not there yet. That a process has come or
    gone is news, too. Raises what a look raises.

    What the caller makes of them counts as part of a look.
    """
    last: News | None = None
    with closing(Follower(path)) as follower:
        while True:
            began = time.thread_time()
            holder = holder_of(path)  # before the look: of one that is gone, the look finds all there will ever be
            news = follower.look()
            if news is None and last is not None and last.holder != holder:
                news = replace(last, lines=(), anew=False)
            if news is not None:
                last = replace(news, holder=holder)
                yield last
            if news is None or not news.behind:
                await anyio.sleep(max(interval, _REST * (time.thread_time() - began)))
            else:
                await anyio.lowlevel.checkpoint()
