"""`AsyncRegistration`: `_registration.Registration` for the async client, with a task for a thread.

The decisions are `_renewals.RenewalPlan`'s, the same as the sync client's.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType

from agniregistry import types as t
from agniregistry.client._calls import BatchResult
from agniregistry.client._registration import loads_of, tell
from agniregistry.client._renewals import Entry, RenewalPlan, Work
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


class AsyncRenewer:
    """The task that renews all registrations of one client."""

    def __init__(
        self,
        renew: Callable[..., Awaitable[t.Renewed]],
        batch: Callable[..., Awaitable[tuple[BatchResult, ...]]],
        retry: RetryPolicy,
        timeout: Timeout,
    ) -> None:
        self._send_renew = renew
        self._send_batch = batch
        self._usual_ms = timeout.total_ms
        self._plan = RenewalPlan(retry)
        self._task: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self._stopped = False

    def add(self, entry: Entry) -> None:
        """Begins to keep it alive; the first one starts the task."""
        if self._stopped:
            raise ClientClosedError("the client is closed")
        self._plan.add(entry)
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="agniregistry-renewals")
        self._changed.set()

    def remove(self, entry: Entry, state: t.RegistrationState) -> bool:
        """Forgets it and tells whether it was still being kept alive."""
        alive = entry.state not in (t.RegistrationState.FAILED, t.RegistrationState.CLOSED)
        self._plan.remove(entry)
        if alive:
            entry.state = state
        self._changed.set()
        return alive

    async def stop(self) -> None:
        """Ends the task and waits for it."""
        self._stopped = True
        task, self._task = self._task, None
        if task is None or task is asyncio.current_task():
            return
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    async def _run(self) -> None:
        try:
            while not self._stopped and len(self._plan) > 0:
                due = self._plan.next_due()
                if due is None or due > time.monotonic():
                    await self._sleep_until(due)
                    continue
                work = self._plan.take(time.monotonic())
                await self._renew(work)
                await self._register(work)
        finally:
            if self._task is asyncio.current_task():
                self._task = None

    async def _sleep_until(self, due: float | None) -> None:
        self._changed.clear()
        try:
            pause = None if due is None else due - time.monotonic()
            await asyncio.wait_for(self._changed.wait(), pause)
        except TimeoutError:
            return

    async def _renew(self, work: Work) -> None:
        if not work.renew:
            return
        try:
            answer = await self._send_renew(
                work.lease_ids(),
                loads_of(work.renew),
                timeout_ms=work.timeout_ms(self._usual_ms),
            )
        except AgniError as error:
            tell(self._plan.failed(work.renew, error, time.monotonic()))
            return
        tell(self._plan.renewed(work.renew, answer, time.monotonic()))

    async def _register(self, work: Work) -> None:
        if not work.register:
            return
        try:
            results: Sequence[BatchResult] = await self._send_batch(
                work.operations(), timeout_ms=work.timeout_ms(self._usual_ms)
            )
            if len(results) != len(work.register):
                raise InternalError("a batch got another number of answers than it had writes")
        except AgniError as error:
            tell(self._plan.failed(work.register, error, time.monotonic()))
            return
        for entry, result in zip(work.register, results, strict=True):
            now = time.monotonic()
            if isinstance(result, t.Registered):
                tell(self._plan.registered(entry, result, now))
            elif isinstance(result, AgniError):
                tell(self._plan.failed((entry,), result, now))


class AsyncRegistration:
    """The handle of a record that is kept alive; deregisters when its `async with` ends."""

    def __init__(
        self,
        put: Callable[..., Awaitable[t.Registered]],
        deregister: Callable[..., Awaitable[t.Deregistered]],
        renewer: AsyncRenewer,
        entry: Entry,
        result: t.Registered,
    ) -> None:
        self._put = put
        self._deregister = deregister
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

    async def replace(self, spec: t.Spec, *, timeout_ms: int | None = None) -> t.Registered:
        """Registers another spec under the same lease and incarnation."""
        self.check()
        entry = self._entry
        answer = await self._put(
            entry.key,
            spec,
            ttl_ms=entry.ttl_ms,
            incarnation=entry.incarnation,
            timeout_ms=timeout_ms,
        )
        entry.spec, entry.lease_id, entry.revision = spec, answer.lease_id, answer.revision
        return answer

    def check(self) -> None:
        """Raises unless the registration is being kept alive."""
        if self.state is t.RegistrationState.CLOSED:
            raise ClientClosedError(f"the registration of {self.key} is closed")
        if self.state is t.RegistrationState.FAILED:
            raise LeaseLostError(
                f"the registration of {self.key} has ended: {self.error}"
            ) from self.error

    async def aclose(
        self, *, drain_ms: int = 0, successor: str = "", timeout_ms: int | None = None
    ) -> None:
        """Stops renewing and deregisters; safe to call twice.

        A record that a newer incarnation has taken over is left alone.
        """
        if not self._renewer.remove(self._entry, t.RegistrationState.CLOSED):
            return
        try:
            await self._deregister(
                self._entry.key,
                incarnation=self._entry.incarnation,
                drain_ms=drain_ms,
                successor=successor,
                timeout_ms=timeout_ms,
            )
        except StaleIncarnationError:
            log.info("%s belongs to a newer incarnation and stays", self.key)

    async def __aenter__(self) -> AsyncRegistration:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            await self.aclose()
        except (UnavailableError, DeadlineExceededError) as failure:
            log.warning("%s could not be deregistered and will expire: %s", self.key, failure)
