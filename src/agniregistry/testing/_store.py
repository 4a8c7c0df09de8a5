"""The fake's records: the rules of a partition's store, in as few lines as they can be read in.

One partition, one revision, +1 per applied change. Not thread-safe: `FakeRegistry` holds a lock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace

from agniregistry import types as t
from agniregistry.client._cache_core import matches
from agniregistry.errors import (
    AlreadyExistsError,
    NotFoundError,
    RevisionMismatchError,
    StaleIncarnationError,
)
from agniregistry.testing import _validate as validate
from agniregistry.testing._clock import Clock
from agniregistry.testing._guard import Guard, Leased


@dataclass(slots=True)
class Stored:
    """A record with its soft state."""

    record: t.Record
    deadline_ms: int | None = None
    """When its lease runs out, on the fake's clock."""
    free: t.Capacity | None = None
    free_at_ms: int = 0
    drain_deadline_ms: int | None = None

    def is_held(self, guard: Guard, now_ms: int) -> bool:
        """Whether it is overdue and stays; one that came due since the last look goes."""
        is_overdue = self.deadline_ms is not None and self.deadline_ms <= now_ms
        return is_overdue and guard.until_ms(self.record) is not None

    def due_ms(self, guard: Guard) -> int | None:
        """When it goes by itself, as far as is known by now."""
        ends = self.deadline_ms
        if ends is not None:
            ends = max(ends, guard.until_ms(self.record) or 0)
        times = [x for x in (ends, self.drain_deadline_ms) if x is not None]
        return min(times, default=None)


class Store:
    """Keeps records and the log of their changes."""

    def __init__(self, clock: Clock, history_max: int, guard: Guard) -> None:
        self._clock = clock
        self.guard = guard
        self._by_key: dict[t.Key, Stored] = {}
        self._by_lease: dict[int, t.Key] = {}
        self.revision = 0
        self.history: deque[t.Change] = deque(maxlen=history_max)

    # -- reads ----------------------------------------------------------------------------

    def find(self, key: t.Key) -> Stored | None:
        """The record, unless its time is over."""
        return self._by_key.get(key)

    def instances(self) -> list[t.Instance]:
        """All of them, in the order of their creation."""
        return [self.instance(stored) for stored in self._by_key.values()]

    def instance(self, stored: Stored) -> t.Instance:
        """The record with its liveness and load."""
        now = self._clock.now_ms()
        status = t.Status.ALIVE
        if stored.record.draining is not None:
            status = t.Status.DRAINING
        elif stored.is_held(self.guard, now):
            status = t.Status.SUSPECT
        return t.Instance(
            record=stored.record,
            status=status,
            lease_remaining_ms=None if stored.deadline_ms is None else stored.deadline_ms - now,
            load=None if stored.free is None else t.Load(stored.free, now - stored.free_at_ms),
        )

    def next_due_ms(self) -> int | None:
        """When the next record goes by itself."""
        times = (stored.due_ms(self.guard) for stored in self._by_key.values())
        return min((due for due in times if due is not None), default=None)

    # -- writes ---------------------------------------------------------------------------

    def put(self, operation: t.RegisterOperation) -> tuple[t.Record, bool]:
        """Registers; answers the stored record and whether it was created."""
        stored = self._by_key.get(operation.key)
        old = stored.record if stored else None
        incarnation = operation.incarnation or (old.incarnation if old else 0)
        if old is not None:
            _check_incarnation(operation.incarnation, old)
            same = (incarnation, operation.spec, operation.ttl_ms)
            if same == (old.incarnation, old.spec, old.ttl_ms) and old.draining is None:
                self._renew(self._by_key[operation.key])
                return old, False
        _check_revision(operation.expected_revision, old)
        self.revision += 1
        keeps_lease = old is not None and old.lease_id and old.incarnation == incarnation
        lease_id = 0
        if operation.ttl_ms:
            lease_id = old.lease_id if old is not None and keeps_lease else self.revision
        now = self._clock.wall_ms()
        record = t.Record(
            key=operation.key,
            spec=operation.spec,
            incarnation=incarnation,
            lease_id=lease_id,
            ttl_ms=operation.ttl_ms,
            create_revision=old.create_revision if old else self.revision,
            revision=self.revision,
            version=old.version + 1 if old else 1,
            created_unix_ms=old.created_unix_ms if old else now,
            updated_unix_ms=now,
        )
        entry = self._replace(record, old)
        entry.drain_deadline_ms = None
        self._renew(entry)
        return record, old is None

    def patch(self, operation: t.UpdateOperation) -> t.Record:
        """Updates the fields of the mask."""
        old = self._existing(operation.key)
        _check_incarnation(operation.incarnation, old)
        spec = _patched(old.spec, operation.spec, operation.update_mask)
        validate.whole_spec(spec)
        if not {"ip", "domain"}.isdisjoint(operation.update_mask):
            validate.gateway(old.key, spec)
        if spec == old.spec:
            return old
        _check_revision(operation.expected_revision, old)
        return self._write(replace(old, spec=spec), old)

    def delete(self, operation: t.DeregisterOperation) -> int:
        """Removes, or lets drain; answers the revision, 0 when there was nothing."""
        stored = self._by_key.get(operation.key)
        if stored is None:
            return 0
        old = stored.record
        _check_incarnation(operation.incarnation, old)
        _check_revision(operation.expected_revision, old)
        if operation.drain_ms == 0:
            self._remove(old, t.EventType.DEREGISTERED)
            return self.revision
        deadline = self._clock.wall_ms() + operation.drain_ms
        draining = t.Draining(deadline, operation.successor)
        record = self._write(replace(old, draining=draining), old)
        stored.drain_deadline_ms = self._clock.now_ms() + operation.drain_ms
        return record.revision

    def renew(self, lease_id: int, free: t.Capacity | None) -> int | None:
        """Extends a lease and answers its time to live; None when it is gone."""
        key = self._by_lease.get(lease_id)
        if key is None:
            return None
        stored = self._by_key[key]
        self._renew(stored)
        if free is not None:
            stored.free, stored.free_at_ms = free, self._clock.now_ms()
        return stored.record.ttl_ms

    def cut(self, lease_id: int) -> None:
        """Ends a lease ahead of its time, whatever the guard says."""
        key = self._by_lease.get(lease_id)
        if key is not None:
            self._remove(self._by_key[key].record, t.EventType.EXPIRED)

    def expire(self) -> bool:
        """Removes what is due and isn't held; tells whether there was any."""
        now = self._clock.now_ms()
        everyone = self._by_key.values()
        leases = (Leased(x.record, x.deadline_ms) for x in everyone if x.deadline_ms is not None)
        self.guard.look(leases, now)
        due = [
            stored
            for stored in everyone
            if (moment := stored.due_ms(self.guard)) is not None and moment <= now
        ]
        for stored in due:
            self._remove(stored.record, t.EventType.EXPIRED)
            if stored.deadline_ms is not None and stored.deadline_ms <= now:
                self.guard.removed(stored.record, now)
        return bool(due)

    # -- inside ---------------------------------------------------------------------------

    def _existing(self, key: t.Key) -> t.Record:
        stored = self._by_key.get(key)
        if stored is None:
            raise not_found(key)
        return stored.record

    def _renew(self, stored: Stored) -> None:
        ttl_ms = stored.record.ttl_ms
        stored.deadline_ms = self._clock.now_ms() + ttl_ms if ttl_ms else None

    def _write(self, record: t.Record, old: t.Record) -> t.Record:
        self.revision += 1
        record = replace(
            record,
            revision=self.revision,
            version=old.version + 1,
            updated_unix_ms=self._clock.wall_ms(),
        )
        self._replace(record, old)
        return record

    def _replace(self, record: t.Record, old: t.Record | None) -> Stored:
        if old is not None and old.lease_id != record.lease_id:
            self._by_lease.pop(old.lease_id, None)
        if record.lease_id:
            self._by_lease[record.lease_id] = record.key
        entry = self._by_key.setdefault(record.key, Stored(record))
        entry.record = record
        self._log(t.EventType.PUT, record, old)
        return entry

    def _remove(self, old: t.Record, kind: t.EventType) -> None:
        self.revision += 1
        del self._by_key[old.key]
        self._by_lease.pop(old.lease_id, None)
        self._log(kind, None, old, old.key)

    def _log(
        self,
        kind: t.EventType,
        record: t.Record | None,
        old: t.Record | None,
        key: t.Key | None = None,
    ) -> None:
        self.history.append(
            t.Change(
                type=kind,
                key=record.key if record is not None else key or t.Key(t.Kind.GATEWAY),
                revision=self.revision,
                record=record,
                previous=old,
                created=record is not None and old is None,
            )
        )


def not_found(key: t.Key, shown: t.Header | None = None) -> NotFoundError:
    """The refusal for a record that isn't there, with the state that a read has shown."""
    state = {"partition": str(shown.partition), "revision": str(shown.revision)} if shown else {}
    message = f'no {key.kind.value} "{key.name}" in namespace "{key.namespace}"'
    return NotFoundError(message, metadata=state)


def seen_through(change: t.Change, wanted: t.Filter) -> t.Change | None:
    """The change as a watch with this filter sees it; None when it does not concern it."""
    before = change.previous is not None and matches(change.previous, wanted)
    if change.record is not None and matches(change.record, wanted):
        return change
    if not before:
        return None
    if change.record is None:
        return change
    return replace(change, type=t.EventType.REMOVED, record=None)


def _check_incarnation(given: int, old: t.Record) -> None:
    if given and given < old.incarnation:
        raise StaleIncarnationError(
            f"incarnation is lower than the stored {old.incarnation}: a newer owner has registered",
            field="incarnation",
            metadata={"stored_incarnation": str(old.incarnation)},
        )


def _check_revision(expected: int | None, old: t.Record | None) -> None:
    stored = old.revision if old else 0
    if expected is None or expected == stored:
        return
    if expected == 0:
        raise AlreadyExistsError(
            f"expected_revision 0 asks for a new record, but it exists at {stored}",
            field="expected_revision",
            metadata={"stored_revision": str(stored)},
        )
    raise RevisionMismatchError(
        f"expected_revision is {expected} but {stored} is stored, read again",
        field="expected_revision",
        metadata={"expected_revision": str(expected), "stored_revision": str(stored)},
    )


def _patched(old: t.Spec, new: t.Spec, paths: Sequence[str]) -> t.Spec:
    for path in paths:
        field, _, part = path.partition(".")
        if not part:
            old = replace(old, **{field: getattr(new, field)})
            continue
        if field == "labels":
            pairs = {name: value for name, value in old.labels.items() if name != part}
            if part in new.labels:
                pairs[part] = new.labels[part]
            old = replace(old, labels=pairs)
            continue
        amounts = replace(
            old.capacity or t.Capacity(), **{part: getattr(new.capacity or t.Capacity(), part)}
        )
        old = replace(old, capacity=amounts)
    return old
