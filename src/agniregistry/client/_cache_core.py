"""What a cache holds, how a watch's items change it, and how it is read.

`CacheState` is pure: time is handed in. The thread and the task around it only feed it.

Liveness is what the watch tells: a record is there until its removal or expiry arrives. What
only the server knows at the moment of an answer (SUSPECT, load, remaining lease) is not here;
ask `get` or `discover` for it.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

from agniregistry import types as t
from agniregistry.errors import AgniError


@dataclass(slots=True)
class CacheState:
    """The records by key, and how current they are."""

    records: dict[t.Key, t.Record] = field(default_factory=dict)
    """What is known."""
    synced: bool = False
    """Whether the current state is complete; False at first, and between a gap and its end."""
    heard: float | None = None
    """When the watch last yielded anything, on the owner's clock in seconds."""
    gaps: int = 0
    """How many gaps there were."""
    _partitions: dict[t.Key, int] = field(default_factory=dict)
    _seen: set[t.Key] = field(default_factory=set)
    _complete: set[int] = field(default_factory=set)

    def apply(self, item: t.WatchItem, now: float) -> None:
        """Takes what the watch yielded."""
        self.heard = now
        match item:
            case t.Started(resume_token=b""):
                self._begin()
            case t.Change():
                self._change(item)
            case t.Gap():
                self.gaps += 1
                self._begin_difference()
            case t.Present():
                self._complete.add(item.partition)
                self._seen.update(item.keys)
            case t.Synced():
                self._end_difference()
            case _:
                pass

    def _change(self, change: t.Change) -> None:
        known = self.records.get(change.key)
        if known is not None and change.revision < known.revision:
            return
        if not self.synced:
            self._seen.add(change.key)
        if change.type is t.EventType.PUT and change.record is not None:
            self.records[change.key] = change.record
            self._partitions[change.key] = change.partition
        else:
            self.records.pop(change.key, None)
            self._partitions.pop(change.key, None)

    def _begin(self) -> None:
        """The state comes as a whole: what was sent of it before a break may be gone by now."""
        self.records.clear()
        self._partitions.clear()
        self._begin_difference()

    def _begin_difference(self) -> None:
        self.synced = False
        self._seen.clear()
        self._complete.clear()

    def _end_difference(self) -> None:
        """Drops what the difference accounted for nowhere, in partitions that list all keys."""
        gone = [
            key
            for key, partition in self._partitions.items()
            if partition in self._complete and key not in self._seen
        ]
        for key in gone:
            self.records.pop(key, None)
            self._partitions.pop(key, None)
        self.synced = True
        self._seen.clear()
        self._complete.clear()


def matches(record: t.Record, wanted: t.Filter) -> bool:
    """Whether a record matches, as far as a record alone can say.

    Statuses other than DRAINING, and free capacity, are the server's knowledge: SUSPECT counts
    as ALIVE here, and `min_free` is held against the total.
    """
    spec, key = record.spec, record.key
    status = t.Status.DRAINING if record.draining is not None else t.Status.ALIVE
    statuses = {t.Status.ALIVE if s is t.Status.SUSPECT else s for s in wanted.statuses}
    return (
        (wanted.kind is None or key.kind is wanted.kind)
        and (wanted.namespace == "*" or key.namespace == (wanted.namespace or "default"))
        and (not wanted.regions or spec.region in wanted.regions)
        and labels_match(spec, wanted)
        and covers(spec.capacity, wanted.min_capacity)
        and covers(spec.capacity, wanted.min_free)
        and (not statuses or status in statuses)
        and key.name.startswith(wanted.name_prefix)
        and (not wanted.gateway or spec.gateway == wanted.gateway)
    )


def labels_match(spec: t.Spec, wanted: t.Filter) -> bool:
    """Whether each wanted label is there; an empty value asks only for its presence."""
    return all(
        name in spec.labels and value in ("", spec.labels[name])
        for name, value in wanted.labels.items()
    )


def covers(have: t.Capacity | None, need: t.Capacity | None) -> bool:
    """Whether there is at least as much of each resource as needed."""
    if need is None:
        return True
    have = have or t.Capacity()
    return (
        have.cpu >= need.cpu
        and have.bandwidth >= need.bandwidth
        and have.memory >= need.memory
        and have.storage >= need.storage
    )


PROGRESS_SHARE = 3
"""Progress is asked for this many times within the age at which the cache becomes stale."""

PROGRESS_MS_MIN, PROGRESS_MS_MAX = 100, 600_000
"""The bounds that the server sets to the progress interval, in milliseconds."""


def progress_interval_ms(max_age_ms: int) -> int:
    """How often the server has to say that nothing changed, in milliseconds."""
    return min(PROGRESS_MS_MAX, max(PROGRESS_MS_MIN, max_age_ms // PROGRESS_SHARE))


class CacheReads:
    """What can be asked of a cache; never waits, also while the registry is away."""

    def __init__(self, max_age_ms: int) -> None:
        self.max_age_ms = max_age_ms
        """From this age on the cache is stale, in milliseconds."""
        self._lock = threading.RLock()
        self._state = CacheState()
        self._error: AgniError | None = None

    def get(self, key: t.Key) -> t.Record | None:
        """The record, or None where there is none as far as this cache knows."""
        with self._lock:
            return self._state.records.get(key)

    def list(self, filter: t.Filter | None = None) -> tuple[t.Record, ...]:
        """The records that match; without a filter all that the cache holds."""
        with self._lock:
            records = tuple(self._state.records.values())
        if filter is None:
            return records
        return tuple(record for record in records if matches(record, filter))

    @property
    def age_ms(self) -> int | None:
        """How old the state shown may be, in milliseconds; None before the first one."""
        with self._lock:
            heard = self._state.heard
            if not self._state.synced and self._state.gaps == 0:
                return None
        return None if heard is None else int((time.monotonic() - heard) * 1000)

    @property
    def synced(self) -> bool:
        """Whether the state is complete; False at first, and while a gap is being closed."""
        with self._lock:
            return self._state.synced

    @property
    def stale(self) -> bool:
        """Whether the state is missing, incomplete, or older than `max_age_ms`."""
        age = self.age_ms
        return age is None or age > self.max_age_ms or not self.synced

    @property
    def error(self) -> AgniError | None:
        """Why the watch does not run at the moment; None while it does."""
        return self._error
