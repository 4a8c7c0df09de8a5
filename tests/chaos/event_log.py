"""The log that a run left behind, replayed: what watches and revisions are compared with.

It comes from a node's log or from a watch of everything; its events carry each change of each
partition once, in order.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise

from history import Violation


class Change(StrEnum):
    """What happened to a record; `removed` is known to watches alone."""

    PUT = "put"
    DEREGISTERED = "deregistered"
    EXPIRED = "expired"
    REMOVED = "removed"


@dataclass(frozen=True, slots=True)
class LogEvent:
    """One change of one record. `seen_ns` is when the harness knew of it, 0 where it doesn't."""

    partition: int
    revision: int
    key: str
    change: Change
    value: str | None = None
    ttl_ms: int = 0
    seen_ns: int = 0

    @property
    def is_there(self) -> bool:
        """Whether the record exists after it."""
        return self.change is Change.PUT


Match = Callable[[str, str], bool]
"""A watch's filter: whether it shows a record of this key with this value."""


@dataclass(frozen=True, slots=True)
class Expected:
    """What a watch with a filter has to show of a change."""

    event: LogEvent
    change: Change
    previous: str | None
    created: bool


class Log:
    """The replayed log: by partition, by key, and what stood where at a revision."""

    def __init__(self, events: Iterable[LogEvent]) -> None:
        self.partitions: dict[int, list[LogEvent]] = defaultdict(list)
        self.keys: dict[str, list[LogEvent]] = defaultdict(list)
        self.by_revision: dict[tuple[int, int], LogEvent] = {}
        for event in events:
            self.partitions[event.partition].append(event)
            self.by_revision.setdefault((event.partition, event.revision), event)
        for listed in self.partitions.values():
            for event in sorted(listed, key=lambda each: each.revision):
                self.keys[event.key].append(event)
        self._revisions = {
            key: [event.revision for event in events] for key, events in self.keys.items()
        }

    def at(self, key: str, revision: int) -> LogEvent | None:
        """The newest change of a key up to a revision of its partition."""
        place = bisect_right(self._revisions.get(key, ()), revision)
        return self.keys[key][place - 1] if place else None

    def after(self, key: str, revision: int) -> LogEvent | None:
        """The first change of a key after a revision of its partition."""
        place = bisect_right(self._revisions.get(key, ()), revision)
        events = self.keys.get(key, [])
        return events[place] if place < len(events) else None

    def state(self, partition: int, revision: int, match: Match) -> dict[str, LogEvent]:
        """The records of a partition that match, as they stood at a revision."""
        standing: dict[str, LogEvent] = {}
        for event in self.partitions.get(partition, ()):
            if event.revision > revision:
                continue
            standing.pop(event.key, None)
            if event.value is not None and event.is_there and match(event.key, event.value):
                standing[event.key] = event
        return standing

    def project(self, match: Match) -> dict[int, list[Expected]]:
        """What a watch has to show, by partition and in order."""
        shown: dict[int, list[Expected]] = defaultdict(list)
        standing: dict[str, str] = {}
        for partition, events in self.partitions.items():
            for event in sorted(events, key=lambda each: each.revision):
                before = standing.pop(event.key, None)
                if event.is_there and event.value is not None:
                    standing[event.key] = event.value
                matched = before is not None and match(event.key, before)
                matches = event.value is not None and match(event.key, event.value)
                if event.is_there and matches:
                    change = Change.PUT
                elif matched:
                    change = Change.REMOVED if event.is_there else event.change
                else:
                    continue
                shown[partition].append(Expected(event, change, before, before is None))
        return shown

    def check_revisions(self) -> list[Violation]:
        """I5: in each partition revisions go up by one and none is used twice."""
        found = []
        for partition, events in self.partitions.items():
            for before, event in pairwise(events):
                if event.revision == before.revision + 1:
                    continue
                used = event.revision <= before.revision
                what = "was used before" if used else "leaves a hole"
                where = f"revision {event.revision} of partition {partition}"
                found.append(Violation("I5", f"{where} {what}: it follows {before.revision}"))
        return found

    def check_resurrections(self, registered: set[tuple[str, str]]) -> list[Violation]:
        """I11: what was removed comes back only by a register; these are the (key, value)s."""
        found = []
        for key, events in self.keys.items():
            for before, event in pairwise(events):
                back = event.is_there and not before.is_there
                if back and (key, event.value or "") not in registered:
                    how = f"{before.change} at {before.revision}, there again at {event.revision}"
                    message = f"{key} was {how} with {event.value!r}, which nobody registered"
                    found.append(Violation("I11", message))
        return found


def position_of(token: bytes) -> dict[int, int]:
    """Where a resume token stands: the revision of each partition. For checkers, not clients."""
    place = 2 + 16

    def number() -> int:
        nonlocal place
        value, shift = 0, 0
        while True:
            byte = token[place]
            place += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7

    number()
    return {partition: number() for partition in range(number())}
