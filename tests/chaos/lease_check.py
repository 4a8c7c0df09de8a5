"""What a lease promises, judged by the harness's clock alone.

I6 nothing expires early, I7 nothing dead stays, I10 a takeover grants a full time to live, I11
what is gone stays gone, I28 an owner that goes on renewing never loses its record. A server
counts from some moment between a call and its return, so what must not happen early is counted
from the call, and what must not happen late from the return: no allowance is made beyond that.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from operator import attrgetter

from event_log import Change, Log, LogEvent
from history import INFINITY, HistoryError, Operation, Outcome, Violation

NS_PER_MS = 1_000_000
NS_PER_S = 1_000_000_000
LEASE_LOST = "LEASE_LOST"


@dataclass(frozen=True, slots=True)
class Bounds:
    """How late a dead record may go, in nanoseconds beyond what its time to live allows."""

    gone_ns: int = NS_PER_S
    failover_ns: int = 3 * NS_PER_S
    more_failovers_ns: int = 2 * NS_PER_S
    late_delivery_ns: int = 0
    """How long after its client gave up an unknown renewal may arrive, as behind a pause."""


@dataclass(frozen=True, slots=True)
class Takeover:
    """A partition's leader changed, somewhere between these times; none means all partitions."""

    from_ns: int
    until_ns: int
    partition: int | None = None


@dataclass(slots=True)
class _Life:
    """What is known of one key: what its owner did and what others saw, by time of the call."""

    key: str
    grants: list[Operation] = field(default_factory=list)
    removals: list[Operation] = field(default_factory=list)
    reads: list[Operation] = field(default_factory=list)
    gone: list[LogEvent] = field(default_factory=list)

    @property
    def acked(self) -> list[Operation]:
        """The registrations and renewals that gave it a time to live."""
        return [each for each in self.grants if each.outcome is Outcome.OK]


@dataclass(frozen=True, slots=True)
class _Loss:
    """Somebody saw that a record is gone, though nobody deregistered it."""

    called_ns: int
    seen_ns: int
    how: str
    operations: tuple[Operation, ...] = ()


def check(
    operations: Iterable[Operation],
    log: Log | None = None,
    takeovers: Sequence[Takeover] = (),
    bounds: Bounds | None = None,
    server_faults_only: bool = True,
) -> list[Violation]:
    """Judges all leases of a history.

    Renewals are operations of their key with f = renew, one a lease, whose request has the ttl_ms
    of its registration; a lost lease is the outcome fail with the reason LEASE_LOST. Stale reads
    know nothing of renewals and are left out. With `server_faults_only` no client was cut off or
    paused, which is what I28 speaks of.
    """
    found: list[Violation] = []
    for life in _lives(operations, log).values():
        if any(_ttl_ns(each) for each in life.grants):
            losses = _losses(life)
            found += _early(life, losses, takeovers)
            found += _zombies(life, takeovers, bounds or Bounds())
            if server_faults_only:
                found += _lost_streams(life, losses)
        found += _resurrected(life, log)
    return found


def _is_stale(operation: Operation) -> bool:
    return operation.request.consistency == "stale"


def _ttl_ns(operation: Operation) -> int:
    return (operation.reply.ttl_ms or operation.request.ttl_ms) * NS_PER_MS


def _lives(operations: Iterable[Operation], log: Log | None) -> dict[str, _Life]:
    lives: dict[str, _Life] = {}
    for each in sorted(operations, key=attrgetter("call_ns")):
        life = lives.setdefault(each.key, _Life(each.key))
        if each.f in ("register", "renew"):
            if each.f == "renew" and not _ttl_ns(each):
                raise HistoryError(f"ttl_ms must be given with a renewal: {each}")
            life.grants.append(each)
        elif each.f == "deregister" and each.outcome is not Outcome.FAIL:
            life.removals.append(each)
        elif each.f == "get" and each.outcome is Outcome.OK and not _is_stale(each):
            life.reads.append(each)
    for key, events in (log.keys if log else {}).items():
        if key in lives:
            lives[key].gone = [event for event in events if not event.is_there]
    return lives


def _last_acked(life: _Life, before_ns: float) -> Operation | None:
    """The last acknowledged grant that was complete by then; of overlapping ones the shorter."""
    done = [each for each in life.acked if each.end_ns <= before_ns]
    last_ns = max((each.call_ns for each in done), default=0)
    last = [each for each in done if each.end_ns >= last_ns]
    return min(last, key=lambda each: each.call_ns + _ttl_ns(each), default=None)


def _excused(life: _Life, grant: Operation, seen_ns: float) -> bool:
    """Whether somebody may have deregistered it after this grant."""
    return any(each.call_ns <= seen_ns and each.end_ns >= grant.call_ns for each in life.removals)


def _losses(life: _Life) -> list[_Loss]:
    losses = []
    for each in life.reads:
        if each.reply.value is None and each.return_ns is not None:
            losses.append(_Loss(each.call_ns, each.return_ns, "a read finds nothing", (each,)))
    for each in life.grants:
        if each.reply.reason == LEASE_LOST and each.return_ns is not None:
            losses.append(_Loss(each.call_ns, each.return_ns, "its lease is lost", (each,)))
    for event in life.gone:
        if event.change is Change.EXPIRED and event.seen_ns:
            how = f"it expired at revision {event.revision}"
            losses.append(_Loss(event.seen_ns, event.seen_ns, how))
    return sorted(losses, key=attrgetter("seen_ns"))


def _early(life: _Life, losses: Iterable[_Loss], takeovers: Sequence[Takeover]) -> list[Violation]:
    """I6, and I10 where a leader that took over is what should have given it longer."""
    found = []
    for loss in losses:
        grant = _last_acked(life, loss.called_ns)
        if grant is None or _excused(life, grant, loss.seen_ns):
            continue
        ttl_ns = _ttl_ns(grant)
        due_ns, rule = grant.call_ns + ttl_ns, "I6"
        first = _first_takeover(grant, takeovers)
        # Where the lease may have run out before it, a takeover gives nothing.
        if first is not None and first.until_ns < due_ns:
            rule = "I10" if loss.seen_ns >= due_ns else rule
            due_ns = max(due_ns, first.from_ns + ttl_ns)
        if loss.seen_ns < due_ns:
            early_ms = (due_ns - loss.seen_ns) / NS_PER_MS
            message = f"{life.key}: {loss.how} {early_ms:.3f} ms before its time"
            found.append(Violation(rule, message, (grant, *loss.operations)))
    return found


def _first_takeover(grant: Operation, takeovers: Sequence[Takeover]) -> Takeover | None:
    """The first one since a grant, which gives all of the time again.

    Later ones needn't: repeated ones must not keep the dead alive. Nor does one count that may
    have come before the grant.
    """
    since = [
        each
        for each in takeovers
        if each.until_ns >= grant.call_ns and each.partition in (None, grant.reply.partition)
    ]
    first = min(since, key=attrgetter("from_ns"), default=None)
    return first if first is not None and grant.end_ns <= first.from_ns else None


def _zombies(life: _Life, takeovers: Sequence[Takeover], bounds: Bounds) -> list[Violation]:
    """I7: whoever reads it alive must do so within the time its last grant allows."""
    found = []
    ends: list[float] = []
    longest: list[tuple[float, int, Operation]] = []
    for each in sorted(life.grants, key=attrgetter("call_ns")):
        if each.outcome is Outcome.FAIL:
            continue
        ttl_ns = _ttl_ns(each)
        end = INFINITY if each.return_ns is None or not ttl_ns else float(each.return_ns)
        if each.outcome is Outcome.INFO:
            end += bounds.late_delivery_ns
        top = (end + ttl_ns, ttl_ns, each)
        ends.append(each.call_ns)
        longest.append(max(top, longest[-1], key=lambda item: item[0]) if longest else top)
    for read in life.reads:
        place = bisect_right(ends, read.end_ns)
        if read.reply.value is None or read.reply.status == "suspect" or not place:
            continue
        end_ns, ttl_ns, grant = longest[place - 1]
        given_ns = end_ns - ttl_ns
        changes = sum(
            each.partition in (None, read.reply.partition)
            and each.until_ns >= given_ns
            and each.from_ns <= read.call_ns
            for each in takeovers
        )
        due_ns = end_ns + bounds.gone_ns
        if changes:
            more_ns = (changes - 1) * bounds.more_failovers_ns
            due_ns = end_ns + ttl_ns + bounds.failover_ns + more_ns
        if read.call_ns > due_ns:
            late_ms = (read.call_ns - due_ns) / NS_PER_MS
            message = f"{life.key} is read {late_ms:.3f} ms after it had to be gone"
            found.append(Violation("I7", message, (grant, read)))
    return found


def _lost_streams(life: _Life, losses: Iterable[_Loss]) -> list[Violation]:
    """I28: an owner that tried at least twice in each time to live, whatever it was answered."""
    found = []
    calls = [each.call_ns for each in life.grants]
    for loss in losses:
        grant = _last_acked(life, loss.called_ns)
        if grant is None or _excused(life, grant, loss.seen_ns):
            continue
        tries = calls[bisect_left(calls, grant.call_ns) : bisect_right(calls, loss.seen_ns)]
        gaps = (after - before for before, after in pairwise((*tries, loss.seen_ns)))
        if max(gaps) <= _ttl_ns(grant) / 2:
            message = f"{life.key}: {loss.how} though its owner renewed all the time"
            found.append(Violation("I28", message, (grant, *loss.operations)))
    return found


def _resurrected(life: _Life, log: Log | None) -> list[Violation]:
    """I11: after a removal was known, it is neither seen nor renewed without a new register."""
    found = []
    removed: dict[int, list[tuple[float, int]]] = defaultdict(list)
    for each in life.removals:
        if each.outcome is Outcome.OK and each.reply.existed:
            removed[each.reply.partition].append((each.end_ns, each.reply.revision))
    for event in life.gone:
        if event.seen_ns:
            removed[event.partition].append((event.seen_ns, event.revision))
    for known in removed.values():
        known.sort()
    for read in life.reads:
        reply = read.reply
        if reply.value is None or not reply.create_revision:
            continue
        before = [at for ns, at in removed[reply.partition] if ns < read.call_ns]
        by_log = log.at(life.key, reply.store_revision) if log and reply.store_revision else None
        if by_log is not None and not by_log.is_there:
            before.append(by_log.revision)
        if before and reply.create_revision < max(before):
            message = f"{life.key}, removed at revision {max(before)}, is there again"
            found.append(Violation("I11", message, (read,)))
    created: dict[int, int] = {}
    for each in life.grants:
        if each.f == "register" and each.outcome is Outcome.OK and each.reply.lease_id:
            created[each.reply.lease_id] = each.reply.create_revision
    for each in life.grants:
        if each.f != "renew" or each.outcome is not Outcome.OK:
            continue
        before = [at for ns, at in removed[each.reply.partition] if ns < each.call_ns]
        made = created.get(each.request.lease_id)
        if before and made is not None and made < max(before):
            message = f"a lease of {life.key} is renewed after the removal at {max(before)}"
            found.append(Violation("I11", message, (each,)))
    return found
