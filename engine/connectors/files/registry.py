"""Prompts in files: a folder with a file for each, in one of several formats, or one `.jsonl` file that keeps
everything. Source and target.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, TypeVar

import anyio
from anyio import to_thread

from engine import lossless_json as wire
from engine.connectors.endpoint import Opening
from engine.connectors.files.endpoint import FilesEndpoint
from engine.connectors.files.fileformat import FileFormat
from engine.connectors.files.folder import Folder
from engine.connectors.files.format import Document
from engine.connectors.files.formats.table import PROMPTFERRY
from engine.connectors.files.lines import Lines
from engine.connectors.files.store import Store, Written
from engine.content.digest import differences, read_mark
from engine.errors import AnswerError, ConfigError, Gone, Problem, Rejected, Stop
from engine.log import log
from engine.model import (
    Abilities,
    Catalog,
    Created,
    Failed,
    Finding,
    Mark,
    Named,
    Outcome,
    Page,
    Parts,
    Prompt,
    Replica,
    Sending,
    Updated,
    Version,
)
from engine.model.dialect import Dialect

T = TypeVar("T")

_THE_VERSION: Final = "1"
_WORDS: Final = frozenset({"collections", "providers", "partials"})


def connect(end: FilesEndpoint, opening: Opening) -> AbstractAsyncContextManager[Files]:
    """The prompts of a `.jsonl` file or of a folder; see `open_files`."""
    more: dict[str, Any] = {"dialects": opening.dialects, "format": end.file_format}
    return open_files(end.place, name=opening.name, writes=opening.writes, **more)


@asynccontextmanager
async def open_files(
    path: Path, *, name: str, writes: bool, dialects: Mapping[str, Dialect], format: FileFormat = PROMPTFERRY
) -> AsyncIterator[Files]:
    """The prompts at `path`: a `.jsonl` file, or a folder. `writes`: it is made when it is not there. `name`: source or
    target; a target that is not there yet is empty to those who only look. `dialects`: what prompts may be written in
    that are in our own `format`. Raises ConfigError when there is none, or when something in it is no prompt.

    At the end, also after an error, what a `.jsonl` file got is sorted.
    """
    with _there(path, name=name, writes=writes) as place:
        opened: dict[str, Any] = {"name": name, "writes": writes, "dialects": dialects, "format": format}
        store = await to_thread.run_sync(lambda: _open(place, **opened))
        try:
            yield Files(store, name=name, format=format)
        except BaseException:
            with anyio.CancelScope(shield=True):
                try:
                    await to_thread.run_sync(store.close)
                except Stop as stop:  # what ended the run is said; the lines are there, and the next run sorts them
                    log.warning("files.not_sorted", path=str(path), message=str(stop))
            raise
        with anyio.CancelScope(shield=True):
            await to_thread.run_sync(store.close)


@contextmanager
def _there(path: Path, *, name: str, writes: bool) -> Iterator[Path]:
    """The path, or an empty place instead of a target that a run has yet to make."""
    if writes or name != "target" or path.exists():
        yield path
        return
    with TemporaryDirectory(prefix="promptferry-") as folder:
        empty = Path(folder, path.name)
        if path.suffix == ".jsonl":
            empty.touch()
        else:
            empty.mkdir()
        yield empty


class Files:
    """Each prompt has one version, which is published."""

    can = Abilities(
        asked=False,
        own_ids=False,
        labels="none",
        history=False,
        published="newest",
        moves=True,
    )
    parts: Parts | None = None
    fields: Collection[str] = PROMPTFERRY.fields

    def __init__(self, store: Store, *, name: str = "source", format: FileFormat = PROMPTFERRY) -> None:
        self._store = store
        self.can = replace(type(self).can, dialect=format.dialect)
        self.fields = format.fields
        self._is_source = name == "source"
        self.batch = store.batch

    async def pages(self) -> AsyncIterator[Page]:
        """The whole listing as one page, newest first."""
        rows = await to_thread.run_sync(self._store.rows)
        yield Page(rows=rows, total=len(rows))

    async def fetch(self, prompt_id: str, version: str = "published") -> Prompt:
        """The prompt of that file or line."""
        document, updated_at = await to_thread.run_sync(self._store.read, prompt_id)
        if version not in ("published", "latest", _THE_VERSION):
            raise Gone(f"there is no version {version} of {prompt_id}: files keep one", error="gone", status=404)
        prompt = document.prompt
        return replace(prompt, version="1", slug=prompt.slug or prompt.id, updated_at=updated_at)

    async def versions(self, prompt_id: str) -> list[Version]:
        """The one that there is."""
        await to_thread.run_sync(self._store.read, prompt_id)
        return [Version(ref="1", ordinal=1, id=_THE_VERSION)]

    async def catalog(self, kinds: Collection[str]) -> Catalog:
        """What prompts refer to are words here. Of a source the collections that there are, since no other one can be
        selected, and what was passed over.
        """
        if not self._is_source:
            return Catalog(words=_WORDS)
        names = sorted(self._store.collections())
        collections = [Named(id=name, slug=name, name=name) for name in names]
        return Catalog(words=_WORDS, collections=collections, notes=self._store.notes())

    def encode(self, replica: Replica) -> bytes:
        """Whose it is, in a line; then the file or the line itself."""
        return self._body(replica, {})

    async def named(self, names: Collection[str]) -> dict[str, Prompt | None]:
        """Rejected: a create changes nothing that is there."""
        raise Rejected("a create changes nothing that is there, so nothing is looked for", error="not_asked")

    async def create(self, bodies: Sequence[bytes], sending: Sending) -> list[Outcome]:
        """All of them, or Stop. One whose mark is there already takes the place of that."""
        several = [_written(body)[0] for body in bodies]
        await sending()
        ids = await to_thread.run_sync(self._store.add, several)
        return [
            Created(target_id=target_id, target_slug=one.slug or target_id, version_id=_THE_VERSION)
            for target_id, one in zip(ids, several, strict=True)
        ]

    async def complete(self, target_id: str, body: bytes, sending: Sending) -> Outcome:
        """Failed: a create leaves nothing undone."""
        return Failed(error="not_asked", message="a create leaves nothing undone")

    def encode_update(self, replica: Replica, changed: Collection[str] | None) -> bytes:
        """The same, and which fields of it count."""
        mark = read_mark(replica.prompt.metadata, replica.prompt.description)
        ours = mark is not None and mark.key == replica.mark.key
        return self._body(replica, {"changed": None if changed is None else sorted(changed), "ours": ours})

    async def update(self, target_id: str, body: bytes, sending: Sending) -> Outcome:
        """What is there is replaced; what is the same stays untouched."""
        written, told = _written(body)
        wanted = self._store.parse(written.content).prompt
        await sending()
        return await self._changed(target_id, lambda there: _over(there, wanted, told["changed"], ours=told["ours"]))

    async def publish(self, target_id: str, version: str) -> None:
        """Nothing: what is there is published."""

    async def retract(self, target_id: str, version: str) -> None:
        """Refused."""
        raise Rejected("files keep one version of each prompt, which cannot be taken out", error="no_history")

    async def label(self, target_id: str, version_id: str, label_id: str) -> None:
        """Refused."""
        raise Rejected("files keep one version of each prompt, which no label can be put on", error="no_labels")

    async def create_label(self, name: str) -> str:
        """Refused."""
        raise Rejected("files have no labels to be made", error="no_labels")

    async def describe(self, target_id: str, description: str) -> None:
        """The prompt with another description."""
        outcome = await self._changed(target_id, lambda there: replace(there, description=description))
        if isinstance(outcome, Failed):
            raise Rejected(outcome.message, error=outcome.error, status=outcome.status)

    async def delete(self, target_id: str) -> None:
        """Removes the file or the line."""
        await to_thread.run_sync(self._store.remove, target_id)

    async def write_test(self, collection: str | None) -> AsyncIterator[Finding]:
        """A scratch prompt is written, read, changed and removed."""
        prompt = Prompt(id="write-test", name="promptferry write test", text="Hello {{name}}", collection=collection)
        mark = Mark(migration="", key="write-test", source_id="write-test")
        try:
            body = self.encode(Replica(source=prompt, prompt=prompt, mark=mark))
            (target_id,) = await to_thread.run_sync(self._store.add, [_written(body)[0]])
            try:
                await self.describe(target_id, "changed")
                found = await self.fetch(target_id)
            finally:
                await self.delete(target_id)
        except (Stop, AnswerError) as error:
            yield Finding(level="problem", where="target", text=f"a scratch prompt was not kept: {error}")
            return
        wrong = differences(replace(prompt, description="changed"), found)
        text = f"a scratch prompt came back otherwise: {', '.join(wrong)}" if wrong else "prompts can be written here"
        yield Finding(level="problem" if wrong else "ok", where="target", text=text)

    def _body(self, replica: Replica, more: dict[str, Any]) -> bytes:
        mark, prompt = replica.mark, replica.prompt
        told = {"key": mark.key, "source_id": mark.source_id, "name": prompt.name, "slug": prompt.slug, **more}
        try:
            content = self._store.form(Document(prompt=replace(prompt, id=mark.source_id)))
            return wire.encode(told) + b"\n" + content
        except ValueError as error:
            raise Rejected(
                f"the prompt cannot be written without loss: it has {error}", error="not_encodable"
            ) from error

    async def _changed(self, target_id: str, change: Callable[[Prompt], Prompt]) -> Outcome:
        def work() -> None:
            document, _ = self._store.read(target_id)
            self._store.change(target_id, Document(prompt=change(document.prompt)))

        try:
            await to_thread.run_sync(work)
        except Rejected as error:
            return Failed(error=error.error, message=str(error), status=error.status)
        except ValueError as error:  # what stands there and what changes do not go together
            return Failed(error="not_encodable", message=f"the prompt cannot be written without loss: it has {error}")
        return Updated(version_id=_THE_VERSION)


def _written(body: bytes) -> tuple[Written, dict[str, Any]]:
    """What `encode` or `encode_update` made, taken apart."""
    line, _, content = body.partition(b"\n")
    told = wire.decode(line)
    return Written(content=content, **{name: told[name] for name in ("key", "source_id", "name", "slug")}), told


def _over(there: Prompt, wanted: Prompt, changed: Collection[str] | None, *, ours: bool) -> Prompt:
    """What is to stand there. Of a prompt that is changed where it stands, what it was at its source stays known."""
    if changed is not None:
        return replace(there, **{field: getattr(wanted, field) for field in changed})
    if not ours:  # as it was read from here, so these are those of the file
        wanted = replace(wanted, version=there.version, slug=there.slug, updated_at=there.updated_at)
    return replace(wanted, id=there.id)


def _open(path: Path, *, name: str, writes: bool, dialects: Mapping[str, Dialect], format: FileFormat) -> Store:
    """The file or folder at `path`. Raises ConfigError that names every file and line that is no prompt."""
    try:
        if format.lines and path.suffix == ".jsonl":
            return Lines(path, name=name, writes=writes, dialects=dialects)
        return Folder(path, name=name, writes=writes, dialects=dialects, format=format)
    except OSError as error:
        why = error.strerror or "the system refused it"
        message = f"cannot be opened ({why}): name another place, or mend its rights"
        raise ConfigError([Problem(message, file=str(path), key=name)]) from error
