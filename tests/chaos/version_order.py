"""Whether revisions tell one story: cheap enough for every operation of every run.

By the rules of the version order: (a) an operation's revision is at least the greatest one of the
operations that were complete before its call, and greater for a write; (b) nobody reads a revision
whose write began after the read returned; (c) a revision has one value, the log's where there
is a log. On top of them: revisions are never used twice (I5), and stale reads never go back for
one client and are no older than they say (I3).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Sequence
from operator import attrgetter

from event_log import Log
from history import INFINITY, NOTHING_ASKED, NOTHING_SAID, Operation, Outcome, Violation

NS_PER_MS = 1_000_000
FOUND_MAX = 100
"""Violations after which a check stops looking: one cause makes thousands."""

NOTHING = Operation(-1, "", "get", NOTHING_ASKED, 0, 0, NOTHING_SAID, Outcome.INFO)

Place = tuple[int, int]
"""A partition and a revision of it."""


def _revised(operation: Operation) -> bool:
    """Whether it is a write that was answered with a revision of its own."""
    return operation.f in ("register", "update", "deregister") and operation.reply.revision > 0


class _Writes:
    """Who wrote what, and what each revision is."""

    def __init__(self, operations: Sequence[Operation], log: Log | None) -> None:
        self.log = log
        self.found: list[Violation] = []
        self.by_value: dict[tuple[str, str], Operation] = {}
        self.shared: set[tuple[str, str]] = set()
        self.owners: dict[Place, Operation] = {}
        for each in operations:
            if each.f in ("register", "update"):
                name = (each.key, each.request.value)
                if name in self.by_value:
                    # A repeat of the same write: whichever came first made the revision.
                    self.shared.add(name)
                else:
                    self.by_value[name] = each
        for each in operations:
            if each.outcome is Outcome.OK and (_revised(each) or each.reply.value is not None):
                self._note(each)

    def _note(self, each: Operation) -> None:
        """(c) and I5: an answer that names a revision names the same record as all the others."""
        place = (each.reply.partition, each.reply.revision)
        value = shown(each)
        owner = self.owners.setdefault(place, each)
        if owner is not each and (owner.key, shown(owner)) != (each.key, value):
            self.found.append(Violation("I5", f"{_name(place)} is two changes", (owner, each)))
        if self.log is None:
            return
        logged = self.log.by_revision.get(place)
        if logged is None:
            message = f"{_name(place)} was answered but is not in the log: a lost write"
            self.found.append(Violation("I1", message, (each,)))
        elif (logged.key, logged.value) != (each.key, value):
            message = f"{_name(place)} is {logged.value!r} of {logged.key} in the log"
            self.found.append(Violation("version order (c)", message, (each,)))


def shown(operation: Operation) -> str | None:
    """The value that its answer speaks of; none for a removal and for nothing found."""
    if operation.f in ("register", "update"):
        return operation.request.value
    return operation.reply.value


def _name(place: Place) -> str:
    return f"revision {place[1]} of partition {place[0]}"


def check(operations: Sequence[Operation], log: Log | None = None) -> list[Violation]:
    """All rules over all operations; the first violations of each, worst first."""
    acked = [each for each in operations if each.outcome is Outcome.OK and each.f != "renew"]
    acked.sort(key=attrgetter("call_ns"))
    writes = _Writes(operations, log)
    fresh = [each for each in acked if each.request.consistency != "stale"]
    found = writes.found[:FOUND_MAX]
    found += _order(fresh, writes)[:FOUND_MAX]
    found += _reads(acked, writes)[:FOUND_MAX]
    found += _lost(fresh, operations)[:FOUND_MAX]
    stale = [each for each in acked if each.request.consistency == "stale"]
    found += _sessions(stale)[:FOUND_MAX]
    found += _ages(stale, fresh)[:FOUND_MAX]
    if log is not None:
        found += log.check_revisions()[:FOUND_MAX]
        found += _snapshots(acked, log)[:FOUND_MAX]
    return found


def _order(by_call: Sequence[Operation], writes: _Writes) -> list[Violation]:
    """Rule (a), for the partition and for the record."""
    found: list[Violation] = []
    by_return = sorted(by_call, key=attrgetter("end_ns"))
    partitions: dict[int, tuple[int, Operation]] = {}
    keys: dict[str, tuple[int, Operation]] = {}
    done, count = 0, len(by_return)
    for each in by_call:
        call_ns = each.call_ns
        while done < count and by_return[done].end_ns < call_ns:
            before = by_return[done]
            done += 1
            reply = before.reply
            revision = max(reply.revision, reply.store_revision)
            if revision > partitions.get(reply.partition, (-1, before))[0]:
                partitions[reply.partition] = (revision, before)
            if reply.revision > keys.get(before.key, (0, before))[0]:
                keys[before.key] = (reply.revision, before)
        reply = each.reply
        revised = _revised(each)
        own = reply.revision if revised else max(reply.revision, reply.store_revision)
        repeated = revised and (each.key, each.request.value) in writes.shared
        floor, before = partitions.get(reply.partition, (-1, each))
        if not repeated and own and (own < floor or (revised and own == floor)):
            message = f"revision {own} after {floor} was complete in partition {reply.partition}"
            found.append(Violation("version order (a)", message, (before, each)))
        if reply.revision:
            floor, before = keys.get(each.key, (0, each))
            if reply.revision < floor:
                message = f"{each.key} at revision {reply.revision} after {floor} was complete"
                found.append(Violation("version order (a)", message, (before, each)))
    return found


def _reads(acked: Sequence[Operation], writes: _Writes) -> list[Violation]:
    """Rule (b), and (c) where the write's own answer says which revision it made."""
    found: list[Violation] = []
    for each in acked:
        value = each.reply.value
        if each.f != "get" or value is None:
            continue
        write = writes.by_value.get((each.key, value))
        if write is None:
            message = f"{each.key} shows a value that nobody wrote"
            found.append(Violation("version order (c)", message, (each,)))
            continue
        if write.call_ns > each.end_ns and (each.key, value) not in writes.shared:
            message = f"{each.key} was read before its write began"
            found.append(Violation("version order (b)", message, (each, write)))
        if write.outcome is Outcome.FAIL and (each.key, value) not in writes.shared:
            message = f"{each.key} shows a write that was refused"
            found.append(Violation("version order (c)", message, (write, each)))
        made = write.reply.revision
        known = write.outcome is Outcome.OK and (each.key, value) not in writes.shared
        if known and made != each.reply.revision:
            message = f"{each.key} was written at revision {made}, read as {each.reply.revision}"
            found.append(Violation("version order (c)", message, (write, each)))
    return found


def _lost(fresh: Sequence[Operation], operations: Iterable[Operation]) -> list[Violation]:
    """I1: a read finds nothing where a write was complete and nobody can have removed it.

    That needs no revision in the answer that nothing was found. Keys with leases are left out.
    """
    found: list[Violation] = []
    leased = {each.key for each in operations if each.request.ttl_ms}
    calls: dict[str, list[int]] = defaultdict(list)
    removed: dict[str, list[float]] = defaultdict(list)
    for each in sorted(operations, key=attrgetter("call_ns")):
        if each.f == "deregister" and each.outcome is not Outcome.FAIL:
            unknown = each.outcome is Outcome.INFO
            revision = INFINITY if unknown else float(each.reply.revision)
            before = removed[each.key][-1] if removed[each.key] else 0.0
            calls[each.key].append(each.call_ns)
            removed[each.key].append(max(before, revision))
    puts = [each for each in fresh if each.f != "deregister" and each.reply.revision]
    puts.sort(key=attrgetter("end_ns"))
    newest: dict[str, Operation] = {}
    done = 0
    for each in fresh:
        while done < len(puts) and puts[done].end_ns < each.call_ns:
            put = puts[done]
            done += 1
            if put.reply.revision > newest.get(put.key, NOTHING).reply.revision:
                newest[put.key] = put
        if each.f != "get" or each.reply.value is not None or each.key in leased:
            continue
        put = newest.get(each.key, NOTHING)
        place = bisect_right(calls[each.key], each.end_ns)
        gone = removed[each.key][place - 1] if place else 0.0
        if put.reply.revision > gone:
            message = f"{each.key} is gone, though nobody removed it: a lost write"
            found.append(Violation("I1", message, (put, each)))
    return found


def _sessions(stale: Sequence[Operation]) -> list[Violation]:
    """I3: for one client, a partition never goes back."""
    found: list[Violation] = []
    newest: dict[tuple[int, int], Operation] = {}
    for each in stale:
        session = (each.proc, each.reply.partition)
        before = newest.get(session, each)
        if each.reply.store_revision < before.reply.store_revision:
            message = f"the state of partition {session[1]} goes back for proc {each.proc}"
            found.append(Violation("I3", message, (before, each)))
        else:
            newest[session] = each
    return found


def _ages(stale: Sequence[Operation], fresh: Iterable[Operation]) -> list[Violation]:
    """I3: the state was current at some moment between the call less the age and the return."""
    found: list[Violation] = []
    times: dict[int, list[float]] = {}
    newest: dict[int, list[tuple[int, Operation]]] = {}
    if not stale:
        return found
    for each in sorted(fresh, key=attrgetter("end_ns")):
        reply = each.reply
        ends, tops = times.setdefault(reply.partition, []), newest.setdefault(reply.partition, [])
        top = (max(reply.revision, reply.store_revision), each)
        if tops and tops[-1][0] >= top[0]:
            top = tops[-1]
        ends.append(each.end_ns)
        tops.append(top)
    for each in stale:
        reply = each.reply
        at_ns = each.call_ns - reply.age_ms * NS_PER_MS
        place = bisect_left(times.get(reply.partition, []), at_ns)
        if place and newest[reply.partition][place - 1][0] > reply.store_revision:
            floor, before = newest[reply.partition][place - 1]
            message = f"it is older than the {reply.age_ms} ms it says: {floor} was complete then"
            found.append(Violation("I3", message, (before, each)))
    return found


def _snapshots(acked: Sequence[Operation], log: Log) -> list[Violation]:
    """(c) once more: a read shows exactly what the log says for the partition's revision.

    A record with a lease may be hidden before its removal is in the log.
    """
    found: list[Violation] = []
    for each in acked:
        reply = each.reply
        if each.f != "get" or not reply.store_revision:
            continue
        logged = log.at(each.key, reply.store_revision)
        there = logged is not None and logged.is_there
        if reply.value is None:
            wrong = logged is not None and there and not logged.ttl_ms
        else:
            wrong = logged is None or not there or logged.revision != reply.revision
        if wrong:
            message = f"at revision {reply.store_revision} the log has {logged} for {each.key}"
            found.append(Violation("version order (c)", message, (each,)))
    return found
