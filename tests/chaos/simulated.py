"""Histories that are right by construction, so that checkers can be tested without nodes.

A tiny registry, written from the API's rules and not from the checkers' model, is used by clients
whose calls, effects and returns are interleaved at random. Its log, its watches and its leases
come out beside the history. Violations are planted into what it makes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random

from event_log import Change, Log, LogEvent, Match
from history import NOTHING_SAID, REFUSALS, Operation, Outcome, Reply, Request
from watch_check import Held, Message, Phase, Positions, Stream, WatchEvent

MS = 1_000_000
NODES = ("n1", "n2", "n3")


@dataclass
class Stored:
    """A record as the tiny registry keeps it."""

    value: str
    incarnation: int
    create_revision: int
    revision: int
    ttl_ms: int


@dataclass
class Registry:
    """One step after the other: what a registry of one node without a network would do."""

    partitions: int = 2
    records: dict[str, Stored] = field(default_factory=dict)
    revisions: dict[int, int] = field(default_factory=dict)
    events: list[LogEvent] = field(default_factory=list)

    def partition(self, key: str) -> int:
        """Where a key lives."""
        return sum(key.encode()) % self.partitions

    def apply(self, f: str, key: str, request: Request, now_ns: int) -> Reply:
        """Carries out one operation; a refusal has a reason."""
        stored = self.records.get(key)
        if f == "get":
            return self._reply(key, stored, stored.value if stored else None)
        reason = self._refusal(f, request, stored)
        if reason:
            return self._reply(key, stored, None, reason=reason)
        if f == "deregister":
            if stored is None:
                return self._reply(key, None, None)
            self.remove(key, Change.DEREGISTERED, now_ns)
            revision = self.revisions[self.partition(key)]
            return self._reply(key, None, None, existed=True, revision=revision)
        created = stored is None
        incarnation = request.incarnation or (stored.incarnation if stored else 0)
        ttl_ms = request.ttl_ms
        if stored is not None and f == "update":
            incarnation, ttl_ms = stored.incarnation, stored.ttl_ms
        if stored is None or (stored.value, stored.incarnation) != (request.value, incarnation):
            revision = self._next(key)
            first = stored.create_revision if stored else revision
            stored = Stored(request.value, incarnation, first, revision, ttl_ms)
            self.records[key] = stored
            self._log(key, revision, Change.PUT, stored, now_ns)
        return self._reply(key, stored, None, created=created)

    def remove(self, key: str, change: Change, now_ns: int) -> None:
        """Removes a record, by its owner or by its lease."""
        del self.records[key]
        self._log(key, self._next(key), change, None, now_ns)

    def _refusal(self, f: str, request: Request, stored: Stored | None) -> str:
        if stored is None:
            if f == "update":
                return "NOT_FOUND"
            expected = request.expected_revision if f == "register" else None
            return "REVISION_MISMATCH" if expected else ""
        if 0 < request.incarnation < stored.incarnation:
            return "STALE_INCARNATION"
        wanted = request.incarnation or stored.incarnation
        if f != "deregister" and (stored.value, stored.incarnation) == (request.value, wanted):
            return ""
        if request.expected_revision in (None, stored.revision):
            return ""
        return "ALREADY_EXISTS" if request.expected_revision == 0 else "REVISION_MISMATCH"

    def _next(self, key: str) -> int:
        partition = self.partition(key)
        self.revisions[partition] = self.revisions.get(partition, 0) + 1
        return self.revisions[partition]

    def _log(
        self, key: str, revision: int, change: Change, stored: Stored | None, now_ns: int
    ) -> None:
        value, ttl_ms = (stored.value, stored.ttl_ms) if stored else (None, 0)
        partition = self.partition(key)
        self.events.append(LogEvent(partition, revision, key, change, value, ttl_ms, now_ns))

    def _reply(
        self,
        key: str,
        stored: Stored | None,
        value: str | None,
        *,
        reason: str = "",
        created: bool = False,
        existed: bool = False,
        revision: int = 0,
    ) -> Reply:
        partition = self.partition(key)
        return Reply(
            partition=partition,
            revision=stored.revision if stored else revision,
            store_revision=self.revisions.get(partition, 0),
            create_revision=stored.create_revision if stored else 0,
            value=value,
            incarnation=stored.incarnation if stored else 0,
            created=created,
            existed=existed,
            reason=reason,
        )


@dataclass
class _Client:
    """A client with at most one call in flight, and what the network may still carry for it."""

    proc: int
    call: tuple[str, str, Request, int] | None = None
    reply: Reply | None = None


def _request(chance: Random, registry: Registry, f: str, key: str, serial: int) -> Request:
    stored = registry.records.get(key)
    guess = [None, None, 0, stored.revision if stored else 3]
    value = f"v{serial}" if f in ("register", "update") else ""
    if f == "register" and stored and chance.random() < 0.1:
        value = stored.value
    if f == "get":
        return Request()
    newest = stored.incarnation if stored else 0
    incarnation = chance.choice((0, 0, newest, newest + 1, max(newest - 1, 0)))
    return Request(value, incarnation, chance.choice(guess))


def run(
    chance: Random, clients: int = 4, keys: int = 3, calls: int = 80, unknown: float = 0.05
) -> tuple[list[Operation], Registry]:
    """A history that is right, and the registry that answered it."""
    registry = Registry()
    people = [_Client(proc) for proc in range(clients)]
    late: list[tuple[str, str, Request]] = []
    done: list[Operation] = []
    now, made = 0, 0
    while made < calls or any(each.call for each in people):
        now += chance.randrange(1, 1_000)
        if late and chance.random() < 0.1:
            f, key, request = late.pop(chance.randrange(len(late)))
            registry.apply(f, key, request, now)
            continue
        person = chance.choice(people)
        if person.call is None:
            if made >= calls:
                continue
            made += 1
            f = chance.choice(("register", "register", "update", "deregister", "get", "get", "get"))
            key = f"key{chance.randrange(keys)}"
            person.call = (f, key, _request(chance, registry, f, key, made), now)
        elif person.reply is None and chance.random() < unknown:
            f, key, request, called = person.call
            # Given up: it is carried out later, or never.
            if chance.random() < 0.7:
                late.append((f, key, request))
            operation = Operation(person.proc, key, f, request, called, now, NOTHING_SAID, INFO)
            done.append(operation)
            person.call = None
        elif person.reply is None:
            f, key, request, _ = person.call
            person.reply = registry.apply(f, key, request, now)
        else:
            f, key, request, called = person.call
            outcome = Outcome.FAIL if person.reply.reason in REFUSALS else Outcome.OK
            done.append(Operation(person.proc, key, f, request, called, now, person.reply, outcome))
            person.call, person.reply = None, None
    return done, registry


INFO = Outcome.INFO


def everything(_key: str, _value: str) -> bool:
    """The filter that shows all."""
    return True


def even(_key: str, value: str) -> bool:
    """A filter by value, so that records come to match and cease to."""
    return int(value[1:]) % 2 == 0


def watch(
    chance: Random,
    log: Log,
    match: Match = everything,
    start: Positions | None = None,
    until: Positions | None = None,
    node: str = "n1",
) -> Stream:
    """A stream that is right, from one position to another, in messages of random size."""
    ends = {p: events[-1].revision for p, events in log.partitions.items()}
    until = until or ends
    at = dict.fromkeys(ends, 0) if start is None else dict(start)
    queue = {
        p: [each for each in log.project(match)[p] if at[p] < each.event.revision <= until[p]]
        for p in ends
    }
    messages = [Message(Phase.CREATED, positions=dict(at))]
    while any(queue.values()):
        events = []
        for partition in [p for p in queue if queue[p] and chance.random() < 0.6]:
            for _ in range(min(len(queue[partition]), chance.randrange(1, 4))):
                item = queue[partition].pop(0)
                at[partition] = item.event.revision
                put = item.change is Change.PUT
                value = item.event.value if put else None
                events.append(
                    WatchEvent(
                        *(partition, item.event.revision, item.event.key, item.change),
                        *(value, item.previous, item.created),
                    )
                )
        if events:
            messages.append(Message(Phase.LIVE, tuple(events), dict(at)))
        elif chance.random() < 0.3:
            messages.append(Message(Phase.PROGRESS, (), dict(at)))
    messages.append(Message(Phase.PROGRESS, (), dict(until)))
    return Stream(node, match, messages, start=start, previous=True)


def middle(chance: Random, log: Log) -> dict[int, int]:
    """Some positions within the log."""
    return {p: chance.randrange(len(events) + 1) for p, events in log.partitions.items()}


def held_at(log: Log, positions: Positions, match: Match = everything) -> Held:
    """What a client holds there, found by applying all events one by one."""
    held: Held = {}
    for events in log.partitions.values():
        for event in events:
            if event.revision > positions[event.partition]:
                break
            held.pop(event.key, None)
            if event.value is not None and match(event.key, event.value):
                held[event.key] = (event.revision, event.value)
    return held


def difference(log: Log, start: Positions, until: Positions, present: bool) -> list[Message]:
    """GAP, SYNC and SYNCED from one position to another; removals by name, or by what's left."""
    before, after = held_at(log, start), held_at(log, until)
    messages = [Message(Phase.GAP, positions=dict(start))]
    for partition, events in log.partitions.items():
        told, kept = [], []
        newest = {each.key: each for each in events if each.revision <= until[partition]}
        for key, event in newest.items():
            if event.revision > start[partition] and (event.is_there or not present):
                place = (partition, event.revision, key, event.change, event.value)
                told.append(WatchEvent(*place))
            elif key in after and before.get(key) == after[key]:
                kept.append(key)
        where = partition if present else None
        names = tuple(kept) if present else ()
        messages.append(Message(Phase.SYNC, tuple(told), dict(start), names, where))
    messages.append(Message(Phase.SYNCED, positions=dict(until)))
    return messages


def mend(messages: Sequence[Message], place: int, message: Message | None) -> list[Message]:
    """The messages with one replaced, or left out."""
    changed = list(messages)
    changed[place : place + 1] = [message] if message else []
    return changed
