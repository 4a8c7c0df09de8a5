"""Leases that are kept, lost and taken over rightly, beside `simulated`."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from event_log import Change, Log, LogEvent
from history import Operation, Outcome, Reply, Request
from lease_check import LEASE_LOST, Takeover

MS = 1_000_000
TTL_MS = 3_000
LEASE = 77


@dataclass
class Lease:
    """One key's life in the making; times in ms of the harness's clock."""

    chance: Random
    key: str
    operations: list[Operation]
    revision: int = 1

    def trip(self, call_ms: float) -> tuple[int, float, int]:
        """When it is called, takes effect and returns."""
        there, back = self.chance.uniform(0.1, 20), self.chance.uniform(0.1, 20)
        return int(call_ms * MS), call_ms + there, int((call_ms + there + back) * MS)

    def add(self, f: str, call_ns: int, return_ns: int, outcome: Outcome, reply: Reply) -> None:
        """Notes an operation."""
        asked = {"register": Request(self.key, 1, ttl_ms=TTL_MS), "get": Request()}
        request = asked.get(f, Request(lease_id=LEASE, ttl_ms=TTL_MS))
        proc = {"register": 0, "renew": 0, "get": 1, "deregister": 2}[f]
        self.operations.append(
            Operation(proc, self.key, f, request, call_ns, return_ns, reply, outcome)
        )


def life(
    chance: Random, key: str = "gw", renewals: int = 6, outage: bool = False
) -> tuple[list[Operation], Log, list[Takeover]]:
    """A record that is kept alive for a while and then let go.

    With an outage, no renewal is answered for longer than the time to live, until another leader
    takes over and grants all of it again.
    """
    made = Lease(chance, key, [])
    call, at_ms, end = made.trip(10)
    alive = Reply(revision=1, store_revision=1, create_revision=1, lease_id=LEASE, ttl_ms=TTL_MS)
    made.add("register", call, end, Outcome.OK, alive)
    takeovers = []
    out_from, out_until = -1.0, -1.0
    if outage:
        out_from = TTL_MS / 3 * max(renewals // 2, 1) + 40
        out_until = out_from + chance.uniform(500, 2_000)
        takeovers.append(Takeover(int((out_until - 10) * MS), int(out_until * MS)))
    due = at_ms + TTL_MS
    for number in range(1, renewals + 1):
        call, at_ms, end = made.trip(TTL_MS / 3 * number + chance.uniform(0, 30))
        if out_from < call / MS < out_until:
            made.add("renew", call, call + 100 * MS, Outcome.INFO, Reply())
            continue
        due = at_ms + TTL_MS
        made.add("renew", call, end, Outcome.OK, Reply(lease_id=LEASE))
    if outage:
        due = max(due, out_until + TTL_MS)
    gone = due + chance.uniform(0, 500)
    shown = Reply(
        revision=1, store_revision=1, create_revision=1, value=key, incarnation=1, status="alive"
    )
    time_ms = 100.0
    while time_ms < gone + 3 * TTL_MS:
        call, at_ms, end = made.trip(time_ms)
        if not out_from < at_ms < out_until:
            # Hidden at its time, removed a little later.
            reply = shown if at_ms < due else Reply(store_revision=1 if at_ms < gone else 2)
            made.add("get", call, end, Outcome.OK, reply)
        time_ms = end / MS + chance.uniform(10, 400)
    call, at_ms, end = made.trip(gone + 500)
    made.add("renew", call, end, Outcome.FAIL, Reply(reason=LEASE_LOST))
    seen = int((gone + 5) * MS)
    events = [
        LogEvent(0, 1, key, Change.PUT, key, TTL_MS, 40 * MS),
        LogEvent(0, 2, key, Change.EXPIRED, seen_ns=seen),
    ]
    return made.operations, Log(events), takeovers
