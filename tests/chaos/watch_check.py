"""What a watch promises, compared with the replayed log.

The nine guarantees go by their names: Ordered, Unique, Atomic, Reliable, Resumable, Bookmarkable,
Filter, PrevKV and IsCreate; beside them I22 (no gap at the seam of list and watch), I23 (a
difference is marked and exact), I24 (each removal once, with its type) and I25 (resuming on
another node). Between GAP and SYNCED, and before the first SYNCED of a watch that asked for
the current state, single changes are not promised: there the state at SYNCED is judged.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from event_log import Change, Expected, Log, LogEvent, Match
from history import Violation

Positions = Mapping[int, int]
"""The revision of each partition, as a resume token has it."""
Held = dict[str, tuple[int, str]]
"""What a client holds: revision and value by key."""


class Phase(StrEnum):
    """What a message means, as in the API."""

    CREATED = "created"
    LIVE = "live"
    PROGRESS = "progress"
    GAP = "gap"
    SYNC = "sync"
    SYNCED = "synced"


@dataclass(frozen=True, slots=True)
class WatchEvent:
    """One event as it came. `previous` is the value before it, if that was asked for."""

    partition: int
    revision: int
    key: str
    change: Change
    value: str | None = None
    previous: str | None = None
    created: bool = False


@dataclass(frozen=True, slots=True)
class Message:
    """One message as it came. `positions` is its token; none where it has none."""

    phase: Phase
    events: tuple[WatchEvent, ...] = ()
    positions: Positions | None = None
    present: tuple[str, ...] = ()
    present_partition: int | None = None
    """The partition that `present` is complete for; none where `present` isn't in use."""
    at_ns: int = 0


@dataclass(frozen=True, slots=True)
class Stream:
    """One watch on one node, from its opening to its end.

    `start` is the token that it was opened with, none for a new one; `held` is what its client
    had from before, by key as (revision, value), and `whole` says that this is all that matched
    at the token, as after a listing.
    """

    node: str
    match: Match
    messages: Sequence[Message]
    start: Positions | None = None
    held: Held = field(default_factory=dict)
    whole: bool = False
    resumed_from: str = ""
    previous: bool = False
    name: str = "watch"


def check(stream: Stream, log: Log) -> list[Violation]:
    """Judges one stream, and what its client holds at the end."""
    return _Judge(stream, log).run()


def check_chain(streams: Sequence[Stream], log: Log) -> list[Violation]:
    """Judges streams of which each resumes where the one before ended, on whatever node."""
    found: list[Violation] = []
    held: Held = {}
    whole = False
    sent: dict[tuple[int, int], int] = {}
    for number, stream in enumerate(streams):
        if number:
            stream = replace(stream, held=held, whole=whole)
        judge = _Judge(stream, log)
        found += judge.run()
        start = stream.start or {}
        for partition, revision in judge.live:
            again = sent.setdefault((partition, revision), number) != number
            if again and revision > start.get(partition, 0):
                message = f"{stream.name}: {partition}/{revision} was sent before the resume"
                found.append(Violation("Unique", message))
        held, whole = judge.held, judge.whole
    return found


def check_seam(listing: Held, positions: Positions, match: Match, log: Log) -> list[Violation]:
    """I22, its first half: a listing shows exactly the state at its token.

    The second half is `check` of a stream with the same `start` and `held`.
    """
    return _compare("I22", "the listing", listing, positions, match, log)


def _compare(
    rule: str,
    what: str,
    held: Held,
    positions: Positions,
    match: Match,
    log: Log,
    known_from: Positions | None = None,
) -> list[Violation]:
    """A client's state against the log's at these positions.

    Of a partition in `known_from`, the client need not hold what is older than that.
    """
    standing: dict[str, LogEvent] = {}
    for partition, revision in positions.items():
        standing |= log.state(partition, revision, match)
    found = []
    for key, event in standing.items():
        if key in held and held[key] == (event.revision, event.value):
            continue
        older = (known_from or {}).get(event.partition, 0) >= event.revision
        if key not in held and older:
            continue
        # An overdue record is hidden before its removal, or its next registration, is logged.
        if key not in held and event.ttl_ms and log.after(key, event.revision) is not None:
            continue
        has = held.get(key, "nothing")
        message = f"{what} has {has} for {key}, the log {(event.revision, event.value)}"
        found.append(Violation(rule, message))
    for key in held.keys() - standing.keys():
        if log.keys.get(key) and log.keys[key][0].partition not in positions:
            continue
        found.append(Violation(rule, f"{what} still has {key}: {held[key]}"))
    return found


class _Judge:
    """Goes through one stream's messages with the log beside them."""

    def __init__(self, stream: Stream, log: Log) -> None:
        self.stream, self.log = stream, log
        self.held = dict(stream.held)
        self.whole = stream.whole
        self.expected = log.project(stream.match)
        self.by_place = {
            (partition, item.event.revision): item
            for partition, items in self.expected.items()
            for item in items
        }
        self.at: dict[int, int] = dict(stream.start or {})
        self.floor: dict[int, int] = {}
        self.live: dict[tuple[int, int], str] = {}
        self.seen: set[tuple[int, int]] = set()
        self.next: dict[int, int] = {}
        self.syncing = False
        self.told: set[str] = set()
        self.named: set[int] = set()
        self.found: list[Violation] = []

    def run(self) -> list[Violation]:
        """All violations of the stream."""
        for number, message in enumerate(self.stream.messages):
            match message.phase:
                case Phase.CREATED:
                    self._created(message, first=number == 0)
                case Phase.LIVE:
                    self._live(message)
                case Phase.PROGRESS:
                    self._progress(message)
                case Phase.GAP | Phase.SYNC:
                    self._sync(message)
                case Phase.SYNCED:
                    self._synced(message)
        return self.found

    def _fail(self, rule: str, message: str) -> None:
        where = f"{self.stream.name} on {self.stream.node}" if self.stream.node else "a watch"
        self.found.append(Violation(rule, f"{where}: {message}"))

    def _created(self, message: Message, first: bool) -> None:
        if not first:
            self._fail("Ordered", "created comes in the middle")
        positions = message.positions or {}
        if self.stream.start is None:
            self.at = dict(positions)
            return
        for partition, revision in positions.items():
            if revision != self.stream.start.get(partition, revision):
                rule = "I25" if self._moved() else "Resumable"
                self._fail(rule, f"partition {partition} resumes at {revision}, not at its token")

    def _moved(self) -> bool:
        return self.stream.resumed_from not in ("", self.stream.node)

    def _live(self, message: Message) -> None:
        if self.syncing:
            self._fail("I23", "a live message before the difference is complete")
        for event in message.events:
            place = (event.partition, event.revision)
            sent = self.live.setdefault(place, event.key)
            if sent != event.key:
                self._fail("Atomic", f"{place} comes in parts: of {sent}, then of {event.key}")
            elif place in self.seen:
                self._fail("Unique", f"{event.change} of {event.key} at {place} comes again")
            else:
                self._event(event, place)
            self.seen.add(place)
        self._advance(message)

    def _event(self, event: WatchEvent, place: tuple[int, int]) -> None:
        partition, revision = place
        before = self.at.get(partition)
        if before is not None and revision <= before:
            start = (self.stream.start or {}).get(partition, -1)
            if revision <= start:
                self._fail("Unique", f"{place} was sent before the resume at {start}")
            elif revision <= self.floor.get(partition, -1):
                self._fail("Bookmarkable", f"{place} comes after progress at {before}")
            else:
                self._fail("Ordered", f"{place} comes after {before}")
        elif before is not None:
            self._missing(partition, before, revision - 1)
        self.at[partition] = max(revision, before or 0)
        self._content(event, self.by_place.get(place))
        self._apply(event)

    def _missing(self, partition: int, after: int, until: int) -> None:
        """Reports what should have been sent of the revisions after..until."""
        items = self.expected.get(partition, [])
        place = self.next.get(partition, 0)
        start = (self.stream.start or {}).get(partition)
        while place < len(items) and items[place].event.revision <= until:
            item = items[place]
            place += 1
            if item.event.revision <= after:
                continue
            lost = f"{item.change} of {item.event.key} at {partition}/{item.event.revision}"
            if start is not None and after == start:
                rule = "I25" if self._moved() else "Resumable"
                self._fail(rule, f"resumed after {start}, but {lost} is left out")
            elif item.change in (Change.EXPIRED, Change.DEREGISTERED, Change.REMOVED):
                self._fail("I24", f"{lost} gives no event")
            else:
                self._fail("Reliable", f"{lost} is left out")
        self.next[partition] = place

    def _content(self, event: WatchEvent, item: Expected | None) -> None:
        place = f"{event.partition}/{event.revision}"
        if item is None:
            known = (event.partition, event.revision) in self.log.by_revision
            what = "does not match the filter" if known else "is not in the log"
            rule = "Filter" if known else "Reliable"
            self._fail(rule, f"{event.change} of {event.key} at {place} {what}")
            return
        if event.key != item.event.key:
            self._fail("Reliable", f"{place} is of {item.event.key}, not of {event.key}")
        if event.change != item.change:
            removal = item.change is not Change.PUT
            rule = "I24" if removal else "Filter"
            self._fail(rule, f"{place} is {item.change}, not {event.change}")
        wanted = item.event.value if item.change is Change.PUT else None
        if event.value != wanted:
            self._fail("Reliable", f"{place} has {event.value!r}, the log {wanted!r}")
        if self.stream.previous and event.previous != item.previous:
            self._fail("PrevKV", f"{place} was {item.previous!r} before, not {event.previous!r}")
        if event.created != (item.created and item.change is Change.PUT):
            self._fail("IsCreate", f"{place} says created={event.created}")

    def _apply(self, event: WatchEvent) -> None:
        if event.change is Change.PUT:
            self.held[event.key] = (event.revision, event.value or "")
        else:
            self.held.pop(event.key, None)

    def _advance(self, message: Message) -> None:
        """A token says that everything up to it has been sent."""
        for partition, revision in (message.positions or {}).items():
            before = self.at.get(partition, revision)
            if revision < before:
                self._fail("Bookmarkable", f"the token of partition {partition} goes back")
                continue
            self._missing(partition, before, revision)
            self.at[partition] = revision

    def _progress(self, message: Message) -> None:
        if self.syncing:
            self._fail("I23", "progress before the difference is complete")
            return
        if message.events:
            self._fail("Bookmarkable", "a progress message carries events")
        for partition, revision in (message.positions or {}).items():
            if revision < self.floor.get(partition, 0):
                self._fail("Bookmarkable", f"progress of partition {partition} goes back")
        self._advance(message)
        self.floor.update(self.at)

    def _sync(self, message: Message) -> None:
        if not self.syncing and message.phase is Phase.SYNC:
            # Without a gap before it, it is the current state, all of it.
            self.whole = True
        self.syncing = True
        for event in message.events:
            before = self.held.get(event.key)
            if before is not None and before[0] > event.revision:
                self._fail("I23", f"{event.key} at {event.revision} is older than what was sent")
                continue
            self._apply(event)
            self.told.add(event.key)
        if message.present_partition is not None:
            self.named.add(message.present_partition)
            self.told.update(message.present)

    def _synced(self, message: Message) -> None:
        for key in [each for each in self.held if self._partition(each) in self.named]:
            if key not in self.told:
                del self.held[key]
        self.told, self.named, self.syncing = set(), set(), False
        positions = message.positions or {}
        for partition, revision in positions.items():
            if revision < self.at.get(partition, 0):
                self._fail("I23", f"partition {partition} goes back to {revision} by a difference")
        known_from = None if self.whole else dict(self.at)
        what, match = f"{self.stream.name} at SYNCED", self.stream.match
        self.found += _compare("I23", what, self.held, positions, match, self.log, known_from)
        self.at.update(positions)

    def _partition(self, key: str) -> int | None:
        events = self.log.keys.get(key)
        return events[0].partition if events else None


def check_ends(streams: Iterable[Stream], log: Log, until: Positions) -> list[Violation]:
    """After the last fault is healed: each watch has told everything up to these positions."""
    found = []
    for stream in streams:
        judge = _Judge(stream, log)
        judge.run()
        for partition, revision in until.items():
            judge.found = []
            judge._missing(partition, judge.at.get(partition, 0), revision)
            found += judge.found
    return found
