"""The other verbs over a fleet: plan, status, verify, rollback; each gives what its migrations gave and a code."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

from engine.config import Fleet, Migration, Planned
from engine.content.filter import Chosen
from engine.errors import EXIT_DIFFERENT, EXIT_OK, EXIT_UNFINISHED, ConfigError, EngineError, Stop
from engine.fleet.common import Done, each, exit_code_of, shared_by, worst
from engine.ledger.file import is_there, read_ledger
from engine.ledger.report import nothing
from engine.ledger.status import NOT_BEGUN, Status, read_status
from engine.ledger.writes import read_made
from engine.migrate.interrupt import asked_to_end
from engine.migrate.plan import Plan
from engine.run import plan_migration
from engine.run.after import parts_sentence, rollback_migration, unmake_migration, verify_migration
from engine.session import VerbOptions
from engine.session.connect import Shared
from engine.verbs.completions import CALLS_EACH
from engine.verbs.rollback import Rollback, undoing
from engine.verbs.unmake import TAKEN_BACK, Unmade, made_parts
from engine.verbs.verify import Verification

Confirm = Callable[[str], Awaitable[bool]]


class Result(Protocol):
    """What a verb gives for one migration."""

    @property
    def counts(self) -> Mapping[str, int]:
        """Word -> prompts."""
        ...

    def to_json(self) -> dict[str, Any]:
        """Its object of `--json`."""
        ...


R = TypeVar("R", bound=Result)


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetResult(Generic[R]):
    """What a verb gives for a fleet. `codes`: the exit code of each migration."""

    fleet: str
    migrations: Sequence[Done[R]]
    codes: Sequence[int]

    @property
    def exit_code(self) -> int:
        """The worst of all."""
        return worst(self.codes)

    @property
    def counts(self) -> Mapping[str, int]:
        """The totals."""
        total: Counter[str] = Counter()
        for one in self.migrations:
            total.update(one.value.counts if one.value is not None else {})
        return dict(total)

    def to_json(self) -> dict[str, Any]:
        """The object of `--json`: that of each migration, with its name and exit code."""
        told = [_told(one, code) for one, code in zip(self.migrations, self.codes, strict=True)]
        return {"fleet": self.fleet, "exit_code": self.exit_code, "counts": dict(self.counts), "migrations": told}


def _told(done: Done[Any], code: int) -> dict[str, Any]:
    value = done.value.to_json() if done.value is not None else {}
    error: dict[str, Any] = {}
    if done.error is not None:
        error = {"reason": "config", "message": str(done.error), "next": ""}
        if isinstance(done.error, Stop):
            error |= {"reason": done.error.reason, "next": done.error.next}
    return {"migration": done.name, "exit_code": code} | value | error


# ---- plan and status -------------------------------------------------------------------------------------------------


async def plan_fleet(fleet: Fleet, *, rate: float | None = None) -> FleetResult[Plan]:
    """What `fleet run` would do now."""
    found: list[Done[Plan]] = []
    async with shared_by(fleet, rate=rate) as shared:
        await each(fleet, shared, lambda one: plan_migration(one, chosen=Chosen(), shared=shared), found.append)
    return _result(fleet, found, lambda _: EXIT_OK)


def fleet_status(name: str, ledgers: Iterable[Planned]) -> FleetResult[Status]:
    """What the ledgers say; a migration without one has not been run. One that nobody may go on with is told as the
    error of its migration.
    """
    found = [_status_or_error(one) for one in ledgers]
    codes = [EXIT_OK if one.error is None else exit_code_of(one.error) for one in found]
    return FleetResult(fleet=name, migrations=found, codes=codes)


def _status_or_error(planned: Planned) -> Done[Status]:
    try:
        return Done(name=planned.name, value=_status(planned))
    except EngineError as error:
        return Done(name=planned.name, error=error)


def _status(planned: Planned) -> Status:
    if is_there(planned.ledger):
        return read_status(planned.ledger, Chosen())
    counts, this_run = nothing()
    return Status(
        migration=planned.name,
        run="",
        mode="",
        going_on=False,
        exit_code=None,
        reason=None,
        next=NOT_BEGUN,
        counts=counts,
        this_run=this_run,
        reasons={},
        orphaned=None,
        verified=None,
        requests=None,
        throttle=None,
        duration_s=0.0,
        rate=0.0,
        failed=(),
        why={},
        ledger=str(planned.ledger),
    )


# ---- verify and rollback ---------------------------------------------------------------------------------------------


async def verify_fleet(
    fleet: Fleet,
    *,
    confirm: Confirm,
    render: bool = False,
    rate: float | None = None,
    signals: bool = False,
    lock_wait: float = 0.0,
) -> FleetResult[Verification]:
    """Reads the replicas of all back. A migration that was not run proves nothing, and counts as one that differs."""
    calls = sum(one.verify.completions for one in fleet.migrations) * CALLS_EACH

    async def work(shared: Shared, migration: Migration) -> Verification:
        return await verify_migration(migration, VerbOptions(shared=shared, lock_wait=lock_wait), render=render)

    sentence = f"up to {calls} completions will be called; models cost money" if calls else ""
    found = await _asked(fleet, work, sentence, confirm=confirm, rate=rate, signals=signals)
    return _result(fleet, found, lambda one: EXIT_OK if one.proved else EXIT_DIFFERENT, without_ledger=EXIT_DIFFERENT)


async def rollback_fleet(
    fleet: Fleet,
    *,
    confirm: Confirm,
    dry_run: bool = False,
    rate: float | None = None,
    signals: bool = False,
    lock_wait: float = 0.0,
) -> FleetResult[Rollback]:
    """Takes back what the ledgers of all say was done."""
    stops: dict[str, Stop] = {}

    async def work(shared: Shared, migration: Migration) -> Rollback:
        options = VerbOptions(shared=shared, lock_wait=lock_wait)
        done = await rollback_migration(migration, options, dry_run=dry_run, alone=False)
        if options.halt.stop is not None:
            stops[migration.name] = options.halt.stop
        return done

    sentence = "" if dry_run else _to_be_undone(fleet)
    after = partial(_unmake, fleet, dry_run=dry_run, lock_wait=lock_wait)
    found = await _asked(fleet, work, sentence, after, confirm=confirm, rate=rate, signals=signals)
    found = [Done(name=one.name, value=one.value, error=one.error or stops.get(one.name)) for one in found]
    return _result(fleet, found, lambda one: EXIT_OK if one.whole else EXIT_UNFINISHED)


async def _unmake(
    fleet: Fleet, shared: Shared, found: Sequence[Done[Rollback]], *, dry_run: bool, lock_wait: float
) -> list[Done[Rollback]]:
    """What was made for prompts, once those of all are gone: what one migration made, another one may use. Whatever is
    kept is looked at again when others were taken back after it.
    """
    done = {one.name: one for one in found}
    targets = {one.name: one.ends[1].identity for one in fleet.migrations}
    gone: defaultdict[str, frozenset[str]] = defaultdict(frozenset)
    for one in found:
        gone[targets[one.name]] |= one.value.gone if one.value is not None else frozenset()

    async def work(migration: Migration) -> list[Unmade]:
        options = VerbOptions(shared=shared, lock_wait=lock_wait)
        return await unmake_migration(migration, options, gone[targets[migration.name]], dry_run=dry_run)

    def ended(one: Done[list[Unmade]]) -> None:
        before, value = done[one.name].value, one.value or []
        assert before is not None  # it had something to take back
        gone[targets[one.name]] |= {part.target_id for part in value if part.result in TAKEN_BACK}
        done[one.name] = Done(name=one.name, value=before.with_made(value), error=one.error)

    looked_at: Mapping[str, frozenset[str]] | None = None
    while gone != looked_at and (left := _with_parts_left(fleet, done)):
        looked_at = dict(gone)
        await each(replace(fleet, migrations=left), shared, work, ended)
    return list(done.values())


def _with_parts_left(fleet: Fleet, done: Mapping[str, Done[Rollback]]) -> tuple[Migration, ...]:
    values = {name: one.value for name, one in done.items() if one.error is None and one.value is not None}
    left = {name for name, one in values.items() if any(part.result in ("kept", "not_started") for part in one.made)}
    return tuple(one for one in fleet.migrations if one.name in left)


def _to_be_undone(fleet: Fleet) -> str:
    actions: Counter[str] = Counter()
    begun = [one.ledger for one in fleet.migrations if _begun(one)]
    for ledger in begun:
        actions.update(undo.action for undo in undoing(read_made(ledger, Chosen()), None))
    made = [key for ledger in begun for key in made_parts(read_ledger(ledger).state, None)]
    sentences = []
    if actions["delete"]:
        sentences.append(
            f"{actions['delete']} replicas are deleted: applications that already call these replicas will break."
        )
    if restores := actions["restore"]:
        sentences.append(f"{restores} prompts get back what was published before, where the registry keeps it.")
    if made:
        sentences.append(parts_sentence(made))
    return " ".join(sentences)


def _begun(migration: Migration) -> bool:
    return is_there(migration.ledger)


async def _asked(
    fleet: Fleet,
    work: Callable[[Shared, Migration], Awaitable[R]],
    sentence: str,
    after: Callable[[Shared, list[Done[R]]], Awaitable[list[Done[R]]]] | None = None,
    *,
    confirm: Confirm,
    rate: float | None,
    signals: bool,
) -> list[Done[R]]:
    """Asked once for all, when there is a sentence to ask with. Raises Stop when the answer is no."""
    found: list[Done[R]] = []
    async with (
        shared_by(fleet, rate=rate) as shared,
        asked_to_end(shared.halt, signals=signals),
    ):
        if sentence:
            await shared.halt.confirm(confirm(sentence))
        await each(fleet, shared, partial(work, shared), found.append)
        return found if after is None else await after(shared, found)


def _result(
    fleet: Fleet, found: Iterable[Done[R]], code: Callable[[R], int], *, without_ledger: int = EXIT_OK
) -> FleetResult[R]:
    """In the order of the file."""
    by_name = {one.name: one for one in found}
    done = [by_name[one.name] for one in fleet.migrations]
    codes = []
    for migration, one in zip(fleet.migrations, done, strict=True):
        if one.error is not None:
            missing = isinstance(one.error, ConfigError) and not _begun(migration)
            codes.append(without_ledger if missing else exit_code_of(one.error))
        else:
            assert one.value is not None  # one of both is there
            codes.append(code(one.value))
    return FleetResult(fleet=fleet.name, migrations=done, codes=codes)
