"""Starts and stops the sandbox, and tells tests the truth about it."""

from __future__ import annotations

import hashlib
import uuid
from collections import deque
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Final

from aiohttp import web

from engine.sandbox.answers import Json
from engine.sandbox.conductor.cluster import Cluster, Conductor
from engine.sandbox.conductor.content import check_item
from engine.sandbox.conductor.library import plant_conductor_library, plant_integrations
from engine.sandbox.conductor.store import Integration
from engine.sandbox.conductor.tokens import Tokens
from engine.sandbox.faults import Faults
from engine.sandbox.langfuse.content import check_creation
from engine.sandbox.langfuse.library import plant_langfuse_library
from engine.sandbox.langfuse.project import Langfuse, Project
from engine.sandbox.options import SandboxOptions
from engine.sandbox.portkey.call import Model, Registry
from engine.sandbox.portkey.catalog import plant_integration, plant_provider
from engine.sandbox.portkey.content import check_prompt, first_content, flat, next_content
from engine.sandbox.portkey.planting import default_collection, plant_library, plant_organisation, plant_workspace
from engine.sandbox.portkey.prompts import add_version, plant_prompt, published
from engine.sandbox.server import Seen, Server
from engine.sandbox.store import Store, Template, Version, Window

FIRST_WORKSPACE: Final = "main"
_GRACE_S: Final = 1.0


class Sandbox:
    """A running sandbox. Workspaces are named by their slugs; the first one is `main`. Each is a cluster of Conductor
    too: any key id with the key of the workspace as secret; and a project of Langfuse with a pair of keys of its own.
    """

    def __init__(self, server: Server, registry: Registry, conductor: Conductor, langfuse: Langfuse, port: int) -> None:
        self._server = server
        self._registry = registry
        self._conductor = conductor
        self._langfuse = langfuse
        self.base_url = f"http://127.0.0.1:{port}/v1"
        self.conductor_url = f"http://127.0.0.1:{port}/api"
        self.langfuse_url = f"http://127.0.0.1:{port}"
        self.urls = {"portkey": self.base_url, "conductor": self.conductor_url, "langfuse": self.langfuse_url}
        """By kind of registry."""
        self.api_key = self.key(FIRST_WORKSPACE)
        self.admin_key = self._kept_key("organisation", None, None)
        self.langfuse_public_key, self.langfuse_secret_key = self.langfuse_keys(FIRST_WORKSPACE)

    @property
    def requests(self) -> deque[Seen]:
        """The last 100,000 requests as (method, path, status), oldest first; status 0: the connection was reset."""
        return self._server.requests

    @property
    def faults(self) -> Faults:
        """`chances` may be changed and single faults planned while it runs."""
        return self._server.faults

    def answer_with(self, model: Model | None) -> None:
        """What models answer to completions from now on; None: the sentence that they know."""
        self._registry.model = model

    def key(self, workspace: str, scopes: Collection[str] | None = None) -> str:
        """A key locked to the workspace, the same for every start of a store. A workspace that is new is made, with
        collections, providers and partials of its own. None: every scope.
        """
        return self._kept_key(f"workspace {workspace}", self._home(workspace), scopes)

    def credential(self, kind: str, workspace: str = FIRST_WORKSPACE) -> str:
        """What a registry of this kind takes as the key of the workspace; of Langfuse the pair, `public:secret`."""
        return ":".join(self.langfuse_keys(workspace)) if kind == "langfuse" else self.key(workspace)

    def langfuse_keys(self, workspace: str) -> tuple[str, str]:
        """Public and secret key of the workspace's project, the same for every start of a store, and no others' in the
        world: the official SDK remembers addresses by public key. A workspace that is new is made.
        """
        store, home = self._registry.store, self._home(workspace)
        keys = store.langfuse.keys(home)
        if keys is None:
            keys = (f"pk-lf-{uuid.uuid4()}", f"sk-lf-{uuid.uuid4()}")
            with store.writing():
                store.langfuse.add_keys(*keys, home)
        return keys

    def _home(self, workspace: str) -> str:
        """The id of a workspace, which is made when it is new."""
        store = self._registry.store
        home = store.workspace(workspace)
        if home is None:
            with store.writing():
                home = plant_workspace(store, workspace)
                plant_integrations(store.conductor, home)
        return home

    def workspace_id(self, workspace: str = FIRST_WORKSPACE) -> str:
        """Raises LookupError when there is none of that slug."""
        found = self._registry.store.workspace(workspace)
        if found is None:
            raise LookupError(f"there is no workspace {workspace!r}")
        return found

    def add_prompt(
        self,
        name: str,
        string: str = "Hello {{name}}",
        *,
        workspace: str = FIRST_WORKSPACE,
        collection: str | None = "default",
        archived: bool = False,
        **fields: Json,
    ) -> str:
        """The id of a new prompt, listed at once. `collection`: slug or id, `default`, or None for none at all;
        `fields` as a create has them, by default a Claude 3.7 of `anthropic-prod`; only their types are checked.
        """
        home = self.workspace_id(workspace)
        store, registry = self._registry.store, self._registry
        defaults: dict[str, Json] = {"model": "claude-3-7-sonnet-20250219", "virtual_key": "anthropic-prod"}
        body = {**defaults, "parameters": {}, "name": name, "string": string, **fields}
        check_prompt(body)
        content = first_content(body, body["virtual_key"], registry.quirks)
        with store.writing():
            place = self._collection(home, collection)
            at, visible_at = registry.now(), registry.clock()
            template, _ = plant_prompt(store, home, name, content, place, at=at, visible_at=visible_at)
            if archived:
                store.change_template(replace(template, status="archived"))
        return template.id

    def add_version(self, prompt_id: str, *, publish: bool = False, **fields: Json) -> int:
        """The number of a new version with those fields changed; a draft unless published."""
        store, registry = self._registry.store, self._registry
        template, newest = self._prompt(prompt_id)
        check_prompt(fields)
        provider, metadata = fields.get("virtual_key"), fields.get("template_metadata")
        content = next_content(newest.content, fields, provider, metadata, registry.quirks)
        with store.writing():
            step = registry.quirks.version_step
            version = add_version(store, template, content, at=registry.now(), step=step)
            if publish:
                head, _ = self._prompt(prompt_id)
                store.change_template(published(head, version, at=registry.now()))
        return version.number

    def add_provider(self, slug: str, integration: str, *models: str, workspace: str = FIRST_WORKSPACE) -> None:
        """A provider of the workspace; an integration that is new has these models, any other keeps its own."""
        home = self.workspace_id(workspace)
        store, at = self._registry.store, self._registry.now()
        with store.writing():
            if store.thing("integration", None, integration) is None:
                plant_integration(store, integration, list(models), at=at)
            plant_provider(store, home, slug, integration, at=at)

    def prompts(self, workspace: str = FIRST_WORKSPACE) -> list[dict[str, Json]]:
        """Every prompt as it is retrieved (published version), oldest first, whatever listings and reads still hide."""
        window = Window(now=float("inf"))
        templates, _ = self._registry.store.templates("prompt", self.workspace_id(workspace), window)
        return [self._flat(template, template.published) for template in reversed(templates)]

    def versions(self, prompt_id: str) -> list[dict[str, Json]]:
        """Every version of a prompt as it is retrieved, oldest first. Raises LookupError."""
        template, _ = self._prompt(prompt_id)
        return [self._flat(template, version.number) for version in reversed(self._registry.store.versions(template))]

    # ---- Conductor ---------------------------------------------------------------------------------------------------

    @property
    def token_count(self) -> int:
        """Tokens that were issued since the start."""
        return self._conductor.tokens.issued

    def expire_tokens(self) -> None:
        """Every token that was issued since the start meets EXPIRED_TOKEN from now on."""
        self._conductor.tokens.expire()

    def conductor_prompts(self, workspace: str = FIRST_WORKSPACE) -> list[dict[str, Json]]:
        """The newest version of every prompt with its `tags`, oldest name first, whatever the manners hide."""
        cluster = self._cluster(workspace)
        return [content | {"tags": list(head.tags)} for head, content in cluster.tables.newest(cluster.id)]

    def conductor_versions(self, name: str, workspace: str = FIRST_WORKSPACE) -> list[dict[str, Json]]:
        """Every version of a prompt, oldest first; none when there is no such prompt."""
        cluster = self._cluster(workspace)
        return cluster.tables.versions(cluster.id, name)

    def add_conductor_prompt(
        self,
        name: str,
        template: str = "Hello ${name}",
        *,
        workspace: str = FIRST_WORKSPACE,
        integrations: Collection[str] = (),
        tags: Mapping[str, str] | None = None,
        **fields: Json,
    ) -> None:
        """Writes a version (1 unless said) in somebody else's name. `fields` as a bulk item has them; integrations need
        not be there.
        """
        cluster = self._cluster(workspace)
        item = {"name": name, "template": template, "integrations": list(integrations), **fields}
        kept = check_item(item, cluster.quirks)
        cluster.write(kept, kept.get("version", 1))
        cluster.add_tags(name, [{"key": key, "value": value} for key, value in (tags or {}).items()])

    def edit_conductor_prompt(self, name: str, *, workspace: str = FIRST_WORKSPACE, **fields: Json) -> None:
        """Changes those fields of the newest version, in somebody else's name, whoever may not; `version` makes it
        another one. Raises LookupError.
        """
        cluster = self._cluster(workspace)
        versions = self.conductor_versions(name, workspace)
        if not versions:
            raise LookupError(f"there is no prompt {name!r}")
        kept = check_item(versions[-1] | fields, cluster.quirks)
        cluster.write(kept, kept["version"])

    def forbid_update(self, name: str, workspace: str = FIRST_WORKSPACE) -> None:
        """Takes the UPDATE permission on a prompt away: from everybody who comes over the wire. Raises LookupError."""
        self._grant(name, workspace, updatable=False)

    def allow_update(self, name: str, workspace: str = FIRST_WORKSPACE) -> None:
        """Gives it back. Raises LookupError."""
        self._grant(name, workspace, updatable=True)

    def add_integration(
        self, ref: str, *, enabled: bool = True, readable: bool = True, workspace: str = FIRST_WORKSPACE
    ) -> None:
        """`provider:model`, made or changed. `readable`: callers may see and use it."""
        provider, _, model = ref.partition(":")
        one = Integration(provider=provider, model=model, enabled=enabled, readable=readable)
        with self._registry.store.writing():
            self._registry.store.conductor.keep_integration(self.workspace_id(workspace), one)

    def disable_integration(self, ref: str, workspace: str = FIRST_WORKSPACE) -> None:
        """Raises LookupError."""
        self._integration(ref, workspace)
        self.add_integration(ref, enabled=False, workspace=workspace)

    def remove_integration(self, ref: str, workspace: str = FIRST_WORKSPACE) -> None:
        """Prompts that name it stay as they are. Raises LookupError."""
        one = self._integration(ref, workspace)
        with self._registry.store.writing():
            self._registry.store.conductor.delete_integration(self.workspace_id(workspace), one)

    def _integration(self, ref: str, workspace: str) -> Integration:
        one = self._registry.store.conductor.integration(self.workspace_id(workspace), ref)
        if one is None:
            raise LookupError(f"there is no integration {ref!r}")
        return one

    def _grant(self, name: str, workspace: str, *, updatable: bool) -> None:
        store, cluster = self._registry.store, self.workspace_id(workspace)
        head = store.conductor.head(cluster, name)
        if head is None:
            raise LookupError(f"there is no prompt {name!r}")
        with store.writing():
            store.conductor.keep_head(cluster, replace(head, updatable=updatable))

    def _cluster(self, workspace: str) -> Cluster:
        return Cluster(conductor=self._conductor, id=self.workspace_id(workspace), user="somebody")

    # ---- Langfuse ----------------------------------------------------------------------------------------------------

    def langfuse_versions(self, workspace: str = FIRST_WORKSPACE, name: str | None = None) -> list[dict[str, Json]]:
        """Every version as it is stored, of one prompt or of all of them, whatever listings still hide; in the order of
        names, oldest first.
        """
        project = self._project(workspace)
        return [project.shown(version) for version in project.tables.versions(project.id, name)]

    def add_langfuse_prompt(self, name: str, *, workspace: str = FIRST_WORKSPACE, **fields: Json) -> dict[str, Json]:
        """A new version in somebody else's name, as it is stored. `fields` as a create has them, a text unless said."""
        project = self._project(workspace)
        body = {"prompt": "Hello {{name}}", **fields, "name": name}
        return project.write(project.draft(check_creation(body, project.quirks)))

    def _project(self, workspace: str) -> Project:
        return Project(langfuse=self._langfuse, id=self.workspace_id(workspace), user="somebody")

    # ---- all of them -------------------------------------------------------------------------------------------------

    def _flat(self, template: Template, number: int) -> dict[str, Json]:
        version = self._registry.store.version(template.id, number)
        if version is None:
            raise LookupError(f"prompt {template.id} has no version {number}")
        return flat(template, version, self._registry.store.labels(version.id))

    def _prompt(self, prompt_id: str) -> tuple[Template, Version]:
        """A prompt and its newest version."""
        template = self._registry.store.template("prompt", prompt_id)
        if template is None:
            raise LookupError(f"there is no prompt {prompt_id}")
        return template, self._registry.store.versions(template)[0]

    def _collection(self, workspace: str, ref: str | None) -> str | None:
        if ref is None:
            return None
        if ref == "default":
            return default_collection(self._registry.store, workspace)
        found = self._registry.store.thing("collection", workspace, ref)
        if found is None:
            raise LookupError(f"there is no collection {ref!r}")
        return str(found["id"])

    def _kept_key(self, owner: str, workspace: str | None, scopes: Collection[str] | None) -> str:
        store = self._registry.store
        known = None if scopes is None else sorted(scopes)
        digest = hashlib.sha256(f"{store.seed} {owner} {known}".encode()).hexdigest()
        key = f"sandbox-{digest[:32]}"
        if store.key(key) is None:
            with store.writing():
                store.add_key(key, workspace, known)
        return key


@asynccontextmanager
async def serve(options: SandboxOptions | None = None) -> AsyncIterator[Sandbox]:
    """A sandbox on 127.0.0.1 for as long as the block lasts. OSError: the port or the store cannot be
    used. ValueError: there is no such fault.
    """
    options = options or SandboxOptions()
    store = Store(options.store, options.seed)
    try:
        registry = Registry(store=store, quirks=options.quirks, clock=options.clock)
        tokens = Tokens(store.seed, options.conductor, options.clock)
        conductor = Conductor(store=store, quirks=options.conductor, clock=options.clock, tokens=tokens)
        langfuse = Langfuse(store=store, quirks=options.langfuse, clock=options.clock, sleep=options.sleep)
        _seed(conductor, langfuse, options)
        server = Server(registry, conductor, langfuse, options)
        runner = web.AppRunner(server.app(), access_log=None, shutdown_timeout=_GRACE_S)
        await runner.setup()
        try:
            site = web.TCPSite(runner, "127.0.0.1", options.port)
            await site.start()
            port: int = runner.addresses[0][1]
            yield Sandbox(server, registry, conductor, langfuse, port)
        finally:
            await runner.cleanup()
    finally:
        store.close()


def _seed(conductor: Conductor, langfuse: Langfuse, options: SandboxOptions) -> None:
    store = conductor.store
    if not store.fresh:
        return
    with store.writing():
        plant_organisation(store)
        workspace = plant_workspace(store, FIRST_WORKSPACE)
        plant_library(store, workspace, options.prompts, options.quirks)
        plant_integrations(store.conductor, workspace)
        plant_conductor_library(conductor, workspace, options.prompts)
        plant_langfuse_library(langfuse, workspace, options.prompts)
        store.finish_seeding()
