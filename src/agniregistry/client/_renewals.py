"""Decides which leases to renew, and when, and what an answer means for their registrations.

Pure: time is handed in, nothing waits, nothing is sent. The sync thread and the async task
around it (`_registration.py`, `_async_registration.py`) do as it says. All registrations of one
client share one plan, so that a gateway with a thousand agents sends one packed renewal.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from agniregistry import types as t
from agniregistry.client._retry import pause_ms
from agniregistry.config import RetryPolicy
from agniregistry.errors import AgniError

LEASES_PER_RENEWAL_MAX = 10_000
"""The most leases in one call; the server refuses more."""

OPERATIONS_PER_BATCH_MAX = 1_000
"""The most writes in one batch; the server refuses more."""

EARLY_MAX_S = 1.0
"""Leases due within this time of each other are renewed together, in seconds."""

LoadSource = Callable[[], t.Capacity | None]
"""Tells what is free right now; None reports nothing this time."""

OnEvent = Callable[[t.RegistrationEvent], None]
"""Hears what happens to a registration."""


@dataclass(slots=True, eq=False)
class Entry:
    """One registration that is being kept alive. Guarded by its owner's lock."""

    key: t.Key
    spec: t.Spec
    ttl_ms: int
    incarnation: int
    lease_id: int
    revision: int
    due: float
    """When to renew, or to register again, on the plan's clock in seconds."""
    answered: float
    """When the newest successful answer came."""
    load: LoadSource | None = None
    on_event: OnEvent | None = None
    state: t.RegistrationState = t.RegistrationState.ACTIVE
    failures: int = 0
    error: AgniError | None = None

    def event(self, kind: t.RegistrationEventType, error: AgniError | None = None) -> Notice:
        """What to tell the owner."""
        return Notice(
            self.on_event,
            t.RegistrationEvent(kind, self.key, self.lease_id, self.incarnation, error),
        )


@dataclass(frozen=True, slots=True)
class Notice:
    """An event together with whoever wants to hear it; told outside of any lock."""

    listener: OnEvent | None
    event: t.RegistrationEvent


@dataclass(frozen=True, slots=True)
class Work:
    """What is due."""

    renew: tuple[Entry, ...] = ()
    """At most `LEASES_PER_RENEWAL_MAX`, to be renewed in one call."""
    register: tuple[Entry, ...] = ()
    """At most `OPERATIONS_PER_BATCH_MAX`, to be registered again in one batch."""

    def lease_ids(self) -> tuple[int, ...]:
        """What to send to Renew."""
        return tuple(entry.lease_id for entry in self.renew)

    def operations(self) -> tuple[t.RegisterOperation, ...]:
        """What to send to Batch."""
        return tuple(
            t.RegisterOperation(
                entry.key, entry.spec, ttl_ms=entry.ttl_ms, incarnation=entry.incarnation
            )
            for entry in self.register
        )

    def timeout_ms(self, usual_ms: int) -> int:
        """Answers that come after half a lease are of little use: then rather ask again."""
        shortest = min((entry.ttl_ms for entry in (*self.renew, *self.register)), default=usual_ms)
        return max(500, min(usual_ms, shortest // 2))


class RenewalPlan:
    """All registrations of one client, by when they are due."""

    def __init__(self, retry: RetryPolicy, chance: Callable[[], float] = random.random) -> None:
        self._retry = retry
        self._chance = chance
        self._entries: set[Entry] = set()

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, entry: Entry) -> None:
        """Begins to keep it alive."""
        self._entries.add(entry)

    def remove(self, entry: Entry) -> None:
        """Forgets it."""
        self._entries.discard(entry)

    def next_due(self) -> float | None:
        """When something is to be done next; None when never."""
        return min((entry.due for entry in self._entries), default=None)

    def take(self, now: float) -> Work:
        """What is due now, with what would be due in a moment anyway."""
        if (self.next_due() or now + 1) > now:
            return Work()
        due = sorted(
            (
                entry
                for entry in self._entries
                if entry.due <= now + min(EARLY_MAX_S, entry.ttl_ms / 10_000)
            ),
            key=lambda entry: entry.due,
        )
        lost = t.RegistrationState.LOST
        return Work(
            tuple(e for e in due if e.state is not lost)[:LEASES_PER_RENEWAL_MAX],
            tuple(e for e in due if e.state is lost and e.due <= now)[:OPERATIONS_PER_BATCH_MAX],
        )

    def renewed(self, entries: Sequence[Entry], answer: t.Renewed, now: float) -> list[Notice]:
        """Takes the answer to a packed renewal."""
        lost = set(answer.lost_lease_ids)
        notices = []
        for entry in entries:
            if entry not in self._entries:
                continue
            if entry.lease_id in lost:
                entry.state, entry.due, entry.failures = t.RegistrationState.LOST, now, 0
                notices.append(entry.event(t.RegistrationEventType.LOST))
                entry.incarnation += 1
                continue
            self._succeeded(entry, answer.next_renewal_ms, now)
            notices.append(entry.event(t.RegistrationEventType.RENEWED))
        return notices

    def registered(self, entry: Entry, answer: t.Registered, now: float) -> list[Notice]:
        """Takes the answer to registering again."""
        if entry not in self._entries:
            return []
        entry.lease_id, entry.incarnation = answer.lease_id, answer.incarnation
        entry.revision = answer.revision
        self._succeeded(entry, answer.next_renewal_ms, now)
        return [entry.event(t.RegistrationEventType.REREGISTERED)]

    def failed(self, entries: Sequence[Entry], error: AgniError, now: float) -> list[Notice]:
        """Takes a failure: tries again later, or gives up where that can't help."""
        notices = []
        for entry in entries:
            if entry not in self._entries:
                continue
            entry.error = error
            registering = entry.state is t.RegistrationState.LOST
            if registering and not error.retryable:
                entry.state = t.RegistrationState.FAILED
                self._entries.discard(entry)
                notices.append(entry.event(t.RegistrationEventType.FAILED, error))
                continue
            entry.failures += 1
            pause = pause_ms(self._retry, entry.failures, error.retry_delay_ms, self._chance())
            entry.due = now + max(pause, 20.0) / 1000
            if not registering and now - entry.answered >= entry.ttl_ms / 1000:
                entry.state = t.RegistrationState.UNCERTAIN
            notices.append(entry.event(t.RegistrationEventType.UNANSWERED, error))
        return notices

    @staticmethod
    def _succeeded(entry: Entry, next_renewal_ms: int, now: float) -> None:
        entry.state, entry.failures, entry.error = t.RegistrationState.ACTIVE, 0, None
        entry.answered = now
        entry.due = now + due_in_s(next_renewal_ms, entry.ttl_ms)


def due_in_s(next_renewal_ms: int, ttl_ms: int) -> float:
    """When to renew, in seconds from now: as the server says, but before the lease runs out."""
    wanted = next_renewal_ms if next_renewal_ms > 0 else ttl_ms // 3
    return max(20, min(wanted, ttl_ms * 9 // 10)) / 1000


def entry_for(
    result: t.Registered,
    spec: t.Spec,
    load: LoadSource | None,
    on_event: OnEvent | None,
    now: float,
) -> Entry:
    """What is kept about a record that was just registered."""
    return Entry(
        key=result.key,
        spec=spec,
        ttl_ms=result.ttl_ms,
        incarnation=result.incarnation,
        lease_id=result.lease_id,
        revision=result.revision,
        due=now + due_in_s(result.next_renewal_ms, result.ttl_ms),
        answered=now,
        load=load,
        on_event=on_event,
    )
