"""What a run would come to, as it is asked before its first write."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from engine.migrate.job import Job
from engine.migrate.needs import Need
from engine.migrate.reconcile import is_short
from engine.migrate.task import Task


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """Numbers of prompts. `creates` to `short`: of those that the run is about, what may come to a write."""

    listed: int
    selected: int
    chosen: int
    """Of the selected, by flags and plan."""
    creates: int = 0
    compared: int = 0
    doubtful: int = 0
    """An earlier run wrote them and heard no answer: looked up first, and written again where nothing arrived."""
    short: int = 0
    """Their replicas were found by their marks, and may lack labels or versions."""
    limit: int | None = None
    """Of `creates` and `compared` together no more than so many are written."""
    needs: Sequence[Need] = ()
    """What is made at the target before the first prompt."""

    @property
    def prompts(self) -> int:
        """All that may come to a write."""
        return self.creates + self.compared + self.doubtful + self.short


def counted(job: Job, writes: Iterable[Task], told: Iterable[Task]) -> dict[str, int]:
    """What may come to a write. `writes`: within the limit; `told`: of what else there is something to tell."""
    actions = Counter(task.action for task in writes)
    others = Counter("wait" if task.action == "wait" else "short" for task in told if _may_write(job, task))
    return {
        "creates": actions["create"],
        "compared": actions["update"],
        "doubtful": others["wait"],
        "short": others["short"],
    }


def _may_write(job: Job, task: Task) -> bool:
    return task.action == "wait" or is_short(job, task)
