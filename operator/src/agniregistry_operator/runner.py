"""One task a registry: look, plan, act, write the status; then wait until something happens.

It never ends by itself while the registry is there: what fails is tried again, later and later.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agniregistry.errors import AgniError
from agniregistry_operator import failpoint, names
from agniregistry_operator.events import Events
from agniregistry_operator.executor import Executor
from agniregistry_operator.identity import Identity
from agniregistry_operator.kube import ApiError, Kube
from agniregistry_operator.link import Link
from agniregistry_operator.metrics import Metrics
from agniregistry_operator.model import actions as a
from agniregistry_operator.model.desired import Desired, desired_of
from agniregistry_operator.model.observed import Observed
from agniregistry_operator.model.status import INVALID_SPEC, STALLED, Status, rejected, status_of
from agniregistry_operator.model.times import seconds_of
from agniregistry_operator.observer import Machines, Memory, Observer
from agniregistry_operator.planning.planner import Plan, plan

log = logging.getLogger("agniregistry.operator")

RESYNC_S = 30.0
"""Time after which a registry is looked at again, whatever is heard of it."""
BUSY_S = 2.0
"""The same while an operation is in progress."""
SOON_S = 0.5
"""The same while a certificate of the operator's own is issued, by which it takes over."""
GATHER_S = 0.2
"""Time in which several wake-ups become one."""
LOOKS_AT_ONCE = 8
"""Registries that are looked at and acted upon at the same time; others wait for their turn."""
BACKOFF_MAX_S = 60.0
"""Longest pause after looks that failed."""


@dataclass(frozen=True)
class Settings:
    """What all registries share."""

    image: str
    scratch: Path
    epoch: int
    pod: str = ""
    link: Callable[[int], Link] = Link
    """How registries are reached, given the operator's epoch; tests play one."""
    leads: Callable[[], bool] = lambda: True
    """Whether the lease is this operator's still, as far as it can know."""


class Runner:
    """Looks after one registry."""

    def __init__(
        self,
        namespace: str,
        name: str,
        *,
        kube: Kube,
        machines: Machines,
        metrics: Metrics,
        settings: Settings,
        turn: asyncio.Semaphore,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.namespace, self.name = namespace, name
        self._kube, self._metrics, self._settings, self._now = kube, metrics, settings, now
        self._turn = turn
        self._wake = asyncio.Event()
        self._memory = Memory(
            Identity(settings.scratch / f"{namespace}.{name}"), settings.link(settings.epoch)
        )
        self._observer = Observer(kube, machines, now)
        self._executor = Executor(kube, self._told, settings.leads)
        self._events = Events(kube, settings.pod)
        self._done: list[tuple[a.Action, str]] = []
        self._sentence = ""
        self.finished_at = time.monotonic()
        """When a look last ended, well or with an error, by the monotonic clock."""
        self._uid = ""
        self.seen_generation = 0
        """The generation that the last look found."""

    def wake(self) -> None:
        """Something has happened."""
        self._wake.set()

    async def run(self) -> None:
        """Goes on until the registry is gone, or it is cancelled."""
        failures = 0
        try:
            while True:
                self._wake.clear()
                try:
                    async with self._turn:
                        began = time.monotonic()
                        try:
                            pause = await self._once()
                        finally:
                            self.finished_at = time.monotonic()
                        self._metrics.seconds.observe(time.monotonic() - began)
                except (ApiError, AgniError, OSError, TimeoutError, ValueError, KeyError) as error:
                    failures += 1
                    pause = min(BACKOFF_MAX_S, 2.0**failures)
                    self._metrics.reconciles.labels("failed").inc()
                    log.warning("%s/%s: %s", self.namespace, self.name, error)
                else:
                    if pause is None:
                        return
                    failures = 0
                    self._metrics.reconciles.labels("done").inc()
                await self._wait(pause, failing=failures > 0)
        finally:
            self._metrics.forget(self.namespace, self.name)
            await self._memory.link.aclose()
            self._memory.identity.forget()

    async def _wait(self, pause: float, *, failing: bool) -> None:
        """Waits for a wake-up, or until the pause is over; a failing one isn't hurried."""
        if failing:
            await asyncio.sleep(pause)
            return
        try:
            await asyncio.wait_for(self._wake.wait(), pause)
        except TimeoutError:
            return
        await asyncio.sleep(GATHER_S)

    async def _once(self) -> float | None:
        """One look with its actions; answers the pause after it, None when the registry is gone."""
        version = f"{names.GROUP}/{names.VERSION}"
        try:
            resource = await self._kube.get(version, names.KIND, self.namespace, self.name)
        except ApiError as error:
            if error.is_gone:
                log.info("%s/%s is gone", self.namespace, self.name)
                return None
            raise
        meta = resource["metadata"]
        if self._uid not in ("", meta["uid"]):
            # What is known of the old one says nothing of the new: another runner begins with it.
            log.info("%s/%s was made anew", self.namespace, self.name)
            return None
        self._uid = meta["uid"]
        self.seen_generation = int(meta.get("generation", 1))
        try:
            desired = desired_of(resource, self._settings.image)
        except (ValueError, KeyError, TypeError) as error:
            await self._reject(resource, error)
            return RESYNC_S
        if desired.deleting:
            return RESYNC_S
        observed = await self._observer.look(resource, desired, self._memory)
        made = plan(observed, desired, self._now())
        if made.sentence != self._sentence:
            log.info("%s/%s: %s", self.namespace, self.name, made.sentence)
            self._sentence = made.sentence
        count = await self._executor.run(made.actions, desired, self._memory)
        if not made.keeps_status:
            await self._write(resource, made.status)
            self._measure(desired, observed, made.status)
        await self._speak(resource, made)
        if made.keeps_status:
            return SOON_S
        if count:
            return GATHER_S
        return BUSY_S if made.status.operation or made.actions else RESYNC_S

    async def _write(self, resource: dict[str, Any], status: Status) -> None:
        """Writes the status, if it says something new."""
        await self._write_plain(resource, status.to_dict(), _step_of(status))

    async def _reject(self, resource: dict[str, Any], error: Exception) -> None:
        """Says that a spec can't be understood; everything stays as it is until it is mended."""
        words = f"spec can't be understood: {error}; nothing is changed until it is mended"
        if words != self._sentence:
            log.warning("%s/%s: %s", self.namespace, self.name, words)
            self._sentence = words
        before = resource.get("status") or {}
        plain = rejected(before, self.seen_generation, words, self._now())
        await self._write_plain(resource, plain, INVALID_SPEC)
        self._measure_conditions(status_of(plain))
        await self._events.say(resource, INVALID_SPEC, words, warning=True)

    async def _write_plain(
        self, resource: dict[str, Any], plain: dict[str, Any], step: str
    ) -> None:
        if plain == (resource.get("status") or {}):
            return
        point = f"WriteStatus {step}"
        failpoint.reach(point)
        log.debug("%s/%s: %s: it says something new", self.namespace, self.name, point)
        try:
            await self._kube.write_status(resource, plain)
        except ApiError as error:
            if error.is_gone:
                return
            if not error.is_conflict:
                raise
            # Somebody has changed the resource: the next look begins with what it is now.
            self.wake()

    def _told(self, action: a.Action, fault: str) -> None:
        result = "refused" if fault else "done"
        self._metrics.actions.labels(type(action).__name__, result).inc()
        self._done.append((action, fault))

    async def _speak(self, resource: dict[str, Any], made: Plan) -> None:
        """Writes Events about what was done, and about what is in the way."""
        done, self._done = self._done, []
        moves = [action for action, fault in done if isinstance(action, a.MoveStep) and not fault]
        for action, fault in done:
            if isinstance(action, a.MoveStep):
                continue
            text = f"{a.key_of(action)}: {fault or action.why}"
            reason = type(action).__name__
            await self._events.say(resource, reason, text, warning=bool(fault))
        if moves:
            await self._events.say(resource, "MoveReplicas", made.sentence)
        stalled = made.status.condition(STALLED)
        if stalled is not None and stalled.holds:
            await self._events.say(resource, stalled.reason, stalled.message, warning=True)

    def _measure(self, desired: Desired, observed: Observed, status: Status) -> None:
        labels = (self.namespace, self.name)
        self._metrics.nodes.labels(*labels).set(0 if desired.hibernate else desired.nodes)
        self._metrics.ready.labels(*labels).set(status.ready_nodes)
        self._metrics.writes.set(self._kube.writes)
        self._measure_conditions(status)
        kept = [node.certificate_expiry for node in status.nodes]
        kept += [client.not_after for client in observed.own_clients.values()]
        if ends := [end for end in kept if end is not None]:
            self._metrics.certificate.labels(*labels).set(min(ends))
            due = min(ends) - seconds_of(desired.tls.renew_before) / 2
            self._metrics.due.labels(*labels).set(due)

    def _measure_conditions(self, status: Status) -> None:
        for found in status.conditions:
            value = -1 if found.holds is None else int(found.holds)
            self._metrics.condition.labels(self.namespace, self.name, found.type).set(value)


def _step_of(status: Status) -> str:
    """What is being done, in a word."""
    operation = status.operation
    return f"{operation.kind}/{operation.step}" if operation else "Settled"
