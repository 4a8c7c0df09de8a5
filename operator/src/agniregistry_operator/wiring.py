"""Kopf: watches that wake, and nothing else. What wakes is never acted upon by itself.

Kopf is given no handler that writes: it puts no finalizer and no annotation on anything, so a
namespace is never blocked by an operator that is gone (docs/decisions/0008). One task a registry
does the work; it is started when the registry is first heard of and looked after here.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from typing import Any

import kopf

from agniregistry_operator import names
from agniregistry_operator.ending import end
from agniregistry_operator.kube import ApiError, Connection, Kube, path_of
from agniregistry_operator.machine import Machine, departed, machine_of, machines_after
from agniregistry_operator.metrics import Metrics
from agniregistry_operator.runner import LOOKS_AT_ONCE, Runner, Settings

log = logging.getLogger("agniregistry.operator")

VERSION = f"{names.GROUP}/{names.VERSION}"

WATCHED = (
    ("apps", "v1", "statefulsets"),
    ("", "v1", "pods"),
    ("", "v1", "persistentvolumeclaims"),
    ("cert-manager.io", "v1", "certificates"),
)
"""Kinds whose changes wake the registry that they belong to; all others wait for the next look."""
RESTART_S = 10.0
"""Time before a task that ended by a defect is started again."""
LIST_AGAIN_S = 300.0
"""Time between two full lists of registries and of machines, in case a watch lost one."""
STALLED_S = 300.0
"""A look that has not ended for this long makes the operator unhealthy; an error is an end."""
DEAF_S = 120.0
"""A change of a registry that no watch has told for this long does, too."""


class Supervisor:
    """Keeps one task a registry, and what is known of machines."""

    def __init__(
        self, kube: Kube, metrics: Metrics, settings: Settings, *, looks_at_machines: bool = False
    ) -> None:
        self._kube, self._metrics, self._settings = kube, metrics, settings
        self._turn = asyncio.Semaphore(LOOKS_AT_ONCE)
        self._machines: dict[str, Machine] | None = None
        self._runners: dict[tuple[str, str], Runner] = {}
        self._tasks: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._told: dict[tuple[str, str], int] = {}
        self._deaf_since: dict[tuple[str, str], float] = {}
        self._is_stopping = False
        self._machines_known = asyncio.Event()
        """Set once all machines are listed, or it is known that they may not be looked at."""
        if not looks_at_machines:
            self._machines_known.set()

    def machines(self) -> Mapping[str, Machine] | None:
        """The machines by name; None where they may not be looked at."""
        return self._machines

    def heard_of(self, namespace: str, name: str, generation: int, *, gone: bool) -> None:
        """A registry has come, changed or gone."""
        key = (namespace, name)
        self._told[key] = max(generation, self._told.get(key, 0))
        runner = self._runners.get(key)
        if runner is not None:
            runner.wake()
        elif not gone and not self._is_stopping:
            self._start(key)

    async def list_registries(self, namespaces: list[str]) -> None:
        """Begins with the registries that are there, without waiting until watches tell of them.

        Lists them again now and then: a watch may have lost one.
        """
        while True:
            is_whole = True
            for space in namespaces or [""]:
                try:
                    answer = await self._kube.call("GET", path_of(VERSION, names.KIND, space))
                except ApiError as error:
                    log.warning("registries couldn't be listed: %s", error.message)
                    is_whole = False
                    continue
                for plain in answer.get("items") or ():
                    self._found((plain["metadata"]["namespace"], plain["metadata"]["name"]))
            await asyncio.sleep(LIST_AGAIN_S if is_whole else RESTART_S)

    def _found(self, key: tuple[str, str]) -> None:
        """A registry is there."""
        if key not in self._runners and not self._is_stopping:
            self._start(key)

    def _start(self, key: tuple[str, str]) -> None:
        runner = Runner(
            *key,
            kube=self._kube,
            machines=self.machines,
            metrics=self._metrics,
            settings=self._settings,
            turn=self._turn,
        )
        self._runners[key] = runner
        self._tasks[key] = asyncio.create_task(self._supervised(key, runner), name="/".join(key))

    async def _supervised(self, key: tuple[str, str], runner: Runner) -> None:
        """Runs until the registry is gone; a defect is logged, and the task begun again."""
        # A machine that isn't listed yet would count as gone, and a node be given no zone for life.
        await self._machines_known.wait()
        while True:
            try:
                await runner.run()
            except Exception:
                log.exception("%s/%s: the operator has a defect; it goes on", *key)
                await asyncio.sleep(RESTART_S)
                continue
            break
        for known in (self._runners, self._tasks, self._told, self._deaf_since):
            known.pop(key, None)
        await self._look_again(key)

    async def _look_again(self, key: tuple[str, str]) -> None:
        """Begins anew if there is one of the name again: what told of it woke the old runner."""
        try:
            await self._kube.get(VERSION, names.KIND, *key)
        except ApiError as error:
            if not error.is_gone:
                log.warning("%s/%s couldn't be looked for: %s", *key, error.message)
            return
        self._found(key)

    def wake(self, namespace: str, name: str) -> None:
        """Something of a registry's has changed."""
        runner = self._runners.get((namespace, name))
        if runner is not None:
            runner.wake()

    def machine_changed(self, plain: Mapping[str, Any], *, gone: bool) -> None:
        """A machine has come, changed or gone; wakes everybody where it matters."""
        machine = machine_of(plain)
        known = self._machines
        if known is None:
            # The first full list is under way: some of them are no picture of all.
            return
        before = known.get(machine.name)
        known[machine.name] = departed(machine, time.time()) if gone else machine
        if gone or before != machine:
            for runner in self._runners.values():
                runner.wake()

    async def list_machines(self) -> None:
        """Lists all machines now and then; a missing right is no fault."""
        while True:
            try:
                found = await self._all_machines()
            except ApiError as error:
                if error.status == 403:
                    log.info("machines can't be looked at, so no zones are known")
                    self._machines = None
                    self._machines_known.set()
                    return
                log.warning("machines couldn't be listed: %s", error.message)
                await asyncio.sleep(RESTART_S)
                continue
            self._machines = machines_after(self._machines or {}, found, time.time())
            self._machines_known.set()
            await asyncio.sleep(LIST_AGAIN_S)

    async def _all_machines(self) -> list[Machine]:
        found: list[Machine] = []
        query = {"limit": "200"}
        while True:
            answer = await self._kube.call("GET", path_of("v1", "Node", ""), query=query)
            found += [machine_of(plain) for plain in answer.get("items") or ()]
            more = (answer.get("metadata") or {}).get("continue")
            if not more:
                return found
            query = {"limit": "200", "continue": more}

    def faults(self) -> list[str]:
        """Why the operator isn't healthy; empty if it is."""
        now = time.monotonic()
        found = []
        oldest = 0.0
        for key, runner in self._runners.items():
            age = now - runner.finished_at
            oldest = max(oldest, age)
            label = "/".join(key)
            if age > STALLED_S:
                found.append(f"{label} was not looked at to the end for {age:.0f} s")
            if runner.seen_generation > self._told.get(key, 0):
                since = self._deaf_since.setdefault(key, now)
                if now - since > DEAF_S:
                    found.append(f"no watch has told the newest change of {label}")
            else:
                self._deaf_since.pop(key, None)
        self._metrics.age.set(oldest)
        return found

    async def stop(self) -> None:
        """Ends all tasks, between two actions of each."""
        self._is_stopping = True
        await end(self._tasks.values())


def register(supervisor: Supervisor, connection: Connection) -> kopf.OperatorRegistry:
    """The handlers: a login, and an ear for each kind."""
    registry = kopf.OperatorRegistry()

    @kopf.on.login(registry=registry)
    async def login(**_: Any) -> kopf.ConnectionInfo:
        token = connection.authorization().get("Authorization", "").removeprefix("Bearer ")
        return kopf.ConnectionInfo(
            server=connection.server,
            ca_path=str(connection.ca_file) if connection.ca_file else None,
            insecure=connection.insecure or None,
            scheme="Bearer" if token else None,
            token=token or None,
            certificate_path=connection.certificate_file or None,
            private_key_path=connection.key_file or None,
            default_namespace=connection.namespace,
        )

    @kopf.on.event(names.GROUP, names.VERSION, names.PLURAL, registry=registry)
    async def registry_heard(event: Any, meta: Any, **_: Any) -> None:
        gone = event["type"] == "DELETED"
        space, name = meta["namespace"], meta["name"]
        supervisor.heard_of(space, name, int(meta.get("generation", 0)), gone=gone)

    async def child_heard(namespace: str | None, labels: Any, **_: Any) -> None:
        if namespace and (name := labels.get(names.LABEL_REGISTRY)):
            supervisor.wake(namespace, name)

    labels = {names.LABEL_REGISTRY: kopf.PRESENT}
    for group, version, plural in WATCHED:
        kopf.on.event(
            group, version, plural, id=f"wake-{plural}", labels=labels, registry=registry
        )(child_heard)
    return registry


def register_machines(registry: kopf.OperatorRegistry, supervisor: Supervisor) -> None:
    """An ear for machines, where the operator may look at them."""

    @kopf.on.event("", "v1", "nodes", registry=registry)
    async def machine_heard(event: Any, body: Any, **_: Any) -> None:
        supervisor.machine_changed(body, gone=event["type"] == "DELETED")


def kopf_settings(namespaces: list[str]) -> kopf.OperatorSettings:
    """Kopf's settings, against its known traps (docs/decisions/0008)."""
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.peering.standalone = True
    settings.persistence.finalizer = f"{names.GROUP}/operator"
    settings.networking.request_timeout = 30
    settings.networking.connect_timeout = 10
    settings.watching.server_timeout = 300
    settings.watching.client_timeout = 330
    settings.watching.connect_timeout = 10
    # Above the minute after which the API server sends a bookmark where nothing happens.
    settings.watching.inactivity_timeout = 90
    settings.scanning.disabled = bool(namespaces)
    selectors = settings.watching.label_selectors
    for group, version, plural in WATCHED:
        where = f"{plural}.{version}.{group}" if group else f"{plural}.{version}"
        selectors[where] = names.LABEL_REGISTRY
    return settings
