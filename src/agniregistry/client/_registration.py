"""`Registration`: a record that stays alive for as long as its handle is open (sync client).

One thread a client renews all of them, and only while there are any. It must never raise: what
goes wrong is told to the owner as an event, and tried again.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Protocol

from agniregistry import types as t
from agniregistry.client._calls import BatchResult
from agniregistry.client._renewals import Entry, Notice, RenewalPlan, Work
from agniregistry.config import RetryPolicy, Timeout
from agniregistry.errors import (
    AgniError,
    ClientClosedError,
    DeadlineExceededError,
    InternalError,
    LeaseLostError,
    StaleIncarnationError,
    UnavailableError,
)

log = logging.getLogger("agniregistry.registration")


class Registry(Protocol):
    """What keeping a registration alive needs of a client; the fake offers it as well."""

    timeout: Timeout
    retry: RetryPolicy

    def put(
        self,
        key: t.Key,
        spec: t.Spec,
        *,
        ttl_ms: int = ...,
        incarnation: int = ...,
        expected_revision: int | None = ...,
        timeout_ms: int | None = ...,
    ) -> t.Registered: ...

    def renew(
        self,
        lease_ids: Sequence[int],
        loads: Sequence[t.LeaseLoad] = ...,
        *,
        timeout_ms: int | None = ...,
    ) -> t.Renewed: ...

    def batch(
        self, operations: Sequence[t.BatchOperation], *, timeout_ms: int | None = ...
    ) -> tuple[BatchResult, ...]: ...

    def deregister(
        self,
        key: t.Key,
        *,
        incarnation: int = ...,
        expected_revision: int | None = ...,
        drain_ms: int = ...,
        successor: str = ...,
        timeout_ms: int | None = ...,
    ) -> t.Deregistered: ...


class Renewer:
    """The thread that renews all registrations of one client."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._changed = threading.Condition()
        self._plan = RenewalPlan(registry.retry)
        self._thread: threading.Thread | None = None
        self._stopped = False

    def add(self, entry: Entry) -> None:
        """Begins to keep it alive; the first one starts the thread."""
        with self._changed:
            if self._stopped:
                raise ClientClosedError("the client is closed")
            self._plan.add(entry)
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name="agniregistry-renewals", daemon=True
                )
                self._thread.start()
            self._changed.notify_all()

    def remove(self, entry: Entry, state: t.RegistrationState) -> bool:
        """Forgets it and tells whether it was still being kept alive."""
        with self._changed:
            alive = entry.state not in (t.RegistrationState.FAILED, t.RegistrationState.CLOSED)
            self._plan.remove(entry)
            if alive:
                entry.state = state
            self._changed.notify_all()
            return alive

    def replace(self, entry: Entry, answer: t.Registered, spec: t.Spec) -> None:
        """Takes over what a replaced spec changed."""
        with self._changed:
            entry.spec, entry.lease_id, entry.revision = spec, answer.lease_id, answer.revision

    def stop(self) -> None:
        """Ends the thread and waits for it, unless called by it."""
        with self._changed:
            self._stopped = True
            thread = self._thread
            self._changed.notify_all()
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                work = self._wait_for_work()
                if work is None:
                    self._thread = None
                    return
            self._renew(work)
            self._register(work)

    def _wait_for_work(self) -> Work | None:
        """Waits under the lock; None when there is nothing left to keep alive."""
        while not self._stopped and len(self._plan) > 0:
            now = time.monotonic()
            due = self._plan.next_due()
            if due is not None and due <= now:
                return self._plan.take(now)
            self._changed.wait(None if due is None else due - now)
        return None

    def _renew(self, work: Work) -> None:
        if not work.renew:
            return
        try:
            answer = self._registry.renew(
                work.lease_ids(),
                loads_of(work.renew),
                timeout_ms=work.timeout_ms(self._registry.timeout.total_ms),
            )
        except AgniError as error:
            self._tell_failed(work.renew, error)
            return
        with self._changed:
            notices = self._plan.renewed(work.renew, answer, time.monotonic())
        tell(notices)

    def _register(self, work: Work) -> None:
        if not work.register:
            return
        try:
            results = self._registry.batch(
                work.operations(),
                timeout_ms=work.timeout_ms(self._registry.timeout.total_ms),
            )
            pairs = list(zip(work.register, results, strict=True))
        except AgniError as error:
            self._tell_failed(work.register, error)
            return
        except ValueError:
            self._tell_failed(work.register, InternalError("a batch got too few answers"))
            return
        for entry, result in pairs:
            if isinstance(result, t.Registered):
                with self._changed:
                    notices = self._plan.registered(entry, result, time.monotonic())
                tell(notices)
            elif isinstance(result, AgniError):
                self._tell_failed((entry,), result)

    def _tell_failed(self, entries: Sequence[Entry], error: AgniError) -> None:
        with self._changed:
            if self._stopped:
                return
            notices = self._plan.failed(entries, error, time.monotonic())
        tell(notices)


def loads_of(entries: Sequence[Entry]) -> tuple[t.LeaseLoad, ...]:
    """The load figures that their owners have to report; a failing source reports nothing."""
    loads = []
    for entry in entries:
        if entry.load is None:
            continue
        try:
            free = entry.load()
        except Exception:
            log.exception("the load source of %s failed; nothing is reported", entry.key)
            continue
        if free is not None:
            loads.append(t.LeaseLoad(entry.lease_id, free))
    return tuple(loads)


def tell(notices: Sequence[Notice]) -> None:
    """Tells the owners; a listener's exception is its own and stops nobody else."""
    for notice in notices:
        event = notice.event
        level = logging.DEBUG if event.error is None else logging.WARNING
        log.log(level, "%s: %s %s", event.key, event.type.value, event.error or "")
        if notice.listener is None:
            continue
        try:
            notice.listener(event)
        except Exception:
            log.exception("the on_event listener of %s failed", event.key)


class Registration:
    """The handle of a record that is kept alive; a context manager that deregisters on exit."""

    def __init__(
        self, registry: Registry, renewer: Renewer, entry: Entry, result: t.Registered
    ) -> None:
        self._registry = registry
        self._renewer = renewer
        self._entry = entry
        self.result = result
        """The answer to the first registration."""

    @property
    def key(self) -> t.Key:
        """The record's key, with its defaults filled in."""
        return self._entry.key

    @property
    def spec(self) -> t.Spec:
        """What the record says."""
        return self._entry.spec

    @property
    def state(self) -> t.RegistrationState:
        """How the registration does."""
        return self._entry.state

    @property
    def lease_id(self) -> int:
        """The current lease; another one after a re-registration."""
        return self._entry.lease_id

    @property
    def incarnation(self) -> int:
        """The current incarnation; higher after a re-registration."""
        return self._entry.incarnation

    @property
    def revision(self) -> int:
        """The record's revision as of this handle's newest write."""
        return self._entry.revision

    @property
    def error(self) -> AgniError | None:
        """Why the newest renewal did not succeed; None after one that did."""
        return self._entry.error

    def replace(self, spec: t.Spec, *, timeout_ms: int | None = None) -> t.Registered:
        """Registers another spec under the same lease and incarnation."""
        self.check()
        entry = self._entry
        answer = self._registry.put(
            entry.key,
            spec,
            ttl_ms=entry.ttl_ms,
            incarnation=entry.incarnation,
            timeout_ms=timeout_ms,
        )
        self._renewer.replace(entry, answer, spec)
        return answer

    def check(self) -> None:
        """Raises unless the registration is being kept alive."""
        state = self._entry.state
        if state is t.RegistrationState.CLOSED:
            raise ClientClosedError(f"the registration of {self.key} is closed")
        if state is t.RegistrationState.FAILED:
            raise LeaseLostError(
                f"the registration of {self.key} has ended: {self._entry.error}"
            ) from self._entry.error

    def close(
        self, *, drain_ms: int = 0, successor: str = "", timeout_ms: int | None = None
    ) -> None:
        """Stops renewing and deregisters; safe to call twice.

        A record that a newer incarnation has taken over is left alone.
        """
        if not self._renewer.remove(self._entry, t.RegistrationState.CLOSED):
            return
        try:
            self._registry.deregister(
                self._entry.key,
                incarnation=self._entry.incarnation,
                drain_ms=drain_ms,
                successor=successor,
                timeout_ms=timeout_ms,
            )
        except StaleIncarnationError:
            log.info("%s belongs to a newer incarnation and stays", self.key)

    def __enter__(self) -> Registration:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.close()
        except (UnavailableError, DeadlineExceededError) as failure:
            log.warning("%s could not be deregistered and will expire: %s", self.key, failure)
