"""Load under which faults are made: every operation is recorded as it is called and answered.

Few clients share a key and a key has few operations, because the search for a linearization is
exponential in both; many groups of clients make the load. The leases driver stands for owners that
renew as they should. Both run in threads of this process, or in one of their own in a host:
`python -m nemesis.load --help`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from history import Outcome, Recorder, Request

from agniregistry.client import Client
from agniregistry.errors import AgniError
from agniregistry.identity import Tls
from nemesis import access
from nemesis.calls import connect, perform
from nemesis.watches import Watcher

GROUP_CLIENTS_MAX = 5
KEY_OPERATIONS_MAX = 500
ENDS_S_MAX = 10.0
CONNECTION_FAILED = "CONNECTION_FAILED"
LEASES_FROM = 1_000
"""The first client number of the leases driver."""
PAUSE_S = (0.01, 0.08)
"""How long a client waits after no answer, or a refusal that has nothing to do with the record."""


@dataclass(frozen=True, slots=True)
class Shape:
    """How much load, and of what kind."""

    clients: int = 10
    keys: int = 6
    """Keys that a group uses at a time."""
    timeout_ms: int = 1_000
    pace_s: float = 0.002
    """The longest pause of a client between two operations; half of it on average."""
    stale: float = 0.1
    """The share of reads that may be stale."""
    leader: float = 0.3
    """The share of reads that the leader answers under its lease: as good as linearizable."""
    operations: tuple[tuple[str, int], ...] = (
        *(("register", 4), ("update", 3), ("deregister", 1), ("get", 8)),
    )


class _Group:
    """Keys that at most five clients use, and what these know of them."""

    def __init__(self, number: int, keys: int) -> None:
        self._number = number
        self._lock = threading.Lock()
        self._counts = [0] * keys
        self._generations = [0] * keys
        self.known: dict[str, tuple[int, int]] = {}

    def take(self, chance: Random) -> str:
        """A key for one operation; a new one where one has had enough."""
        with self._lock:
            slot = chance.randrange(len(self._counts))
            if self._counts[slot] == KEY_OPERATIONS_MAX:
                self._counts[slot] = 0
                self._generations[slot] += 1
            self._counts[slot] += 1
            return f"g{self._number}-{slot}-{self._generations[slot]}"


class _Connections:
    """One client of the SDK for each address; another address after one that didn't answer."""

    def __init__(
        self, addresses: Sequence[str], first: int, timeout_ms: int, tls: Tls | None
    ) -> None:
        self._addresses = tuple(addresses)
        self._at = first % len(addresses)
        self._timeout_ms = timeout_ms
        self._tls = tls
        self._clients: dict[str, Client] = {}

    def get(self) -> Client:
        """The one to use now."""
        address = self._addresses[self._at]
        if address not in self._clients:
            self._clients[address] = connect(address, self._timeout_ms, self._tls)
        return self._clients[address]

    def move(self, broken: bool) -> None:
        """Another one from now on. A broken connection is made anew when its turn comes.

        Otherwise gRPC's own waiting would be measured instead of the registry's absence.
        """
        if broken:
            self._clients.pop(self._addresses[self._at]).close()
        self._at = (self._at + 1) % len(self._addresses)

    def close(self) -> None:
        """Closes them all."""
        for client in self._clients.values():
            client.close()


class Load:
    """Clients that register, update, read and deregister until they are stopped."""

    def __init__(
        self,
        addresses: Sequence[str],
        recorder: Recorder,
        seed: int,
        shape: Shape | None = None,
        tls: Tls | None = None,
    ) -> None:
        self._addresses = tuple(addresses)
        self._recorder = recorder
        self._shape = shape or Shape()
        self._tls = tls
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self.counts: Counter[str] = Counter()
        """Operations so far, by the reason of a refusal, else by outcome."""
        groups = [
            _Group(number, self._shape.keys)
            for number in range(-(-self._shape.clients // GROUP_CLIENTS_MAX))
        ]
        self._threads = [
            threading.Thread(
                target=self._work,
                args=(proc, groups[proc // GROUP_CLIENTS_MAX], Random(f"{seed}/{proc}")),
                daemon=True,
            )
            for proc in range(self._shape.clients)
        ]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Lets every client finish what it has begun."""
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def _work(self, proc: int, group: _Group, chance: Random) -> None:
        connections = _Connections(self._addresses, proc, self._shape.timeout_ms, self._tls)
        names, weights = zip(*self._shape.operations, strict=True)
        number = 0
        seen: dict[int, int] = {}
        while not self._ended.is_set():
            number += 1
            key = group.take(chance)
            f = chance.choices(names, weights)[0]
            request = self._request(f, chance, f"{proc}.{number}", group.known.get(key, (0, 0)))
            self._recorder.call(proc, key, f, request)
            outcome, reply = perform(connections.get(), f, key, request, seen)
            self._recorder.answer(proc, outcome, reply)
            with self._lock:
                self.counts[reply.reason or outcome.value] += 1
            if outcome is Outcome.OK and reply.revision:
                group.known[key] = (reply.revision, reply.incarnation)
            pause = chance.uniform(0, self._shape.pace_s)
            if outcome is not Outcome.OK and reply.reason not in _OF_THE_RECORD:
                connections.move(broken=reply.reason == CONNECTION_FAILED)
                pause = chance.uniform(*PAUSE_S)
            self._ended.wait(pause)
        connections.close()

    def _request(self, f: str, chance: Random, value: str, known: tuple[int, int]) -> Request:
        if f == "get":
            lot = chance.random() - self._shape.stale
            if lot < 0:
                return Request(consistency="stale")
            return Request(consistency="leader" if lot < self._shape.leader else "linearizable")
        revision, incarnation = known
        # Mostly unconditional; else what was seen last, which others may have changed.
        expected = chance.choice((None, None, None, revision, 0 if f == "register" else None))
        own = 0
        if f == "register":
            own = chance.choice((0, 0, incarnation, incarnation + 1, max(incarnation - 1, 0)))
        return Request("" if f == "deregister" else value, own, expected)


_OF_THE_RECORD = frozenset(
    {"NOT_FOUND", "STALE_INCARNATION", "REVISION_MISMATCH", "ALREADY_EXISTS"}
)


class Leases:
    """Owners that keep their records alive through one node, and a reader at another one."""

    def __init__(
        self,
        address: str,
        recorder: Recorder,
        count: int = 20,
        ttl_ms: int = 3_000,
        read_from: str = "",
        tls: Tls | None = None,
    ) -> None:
        self._address = address
        self._recorder = recorder
        self._ttl_ms = ttl_ms
        self._tls = tls
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self.lost: list[str] = []
        """Keys whose lease the registry said was lost."""
        self.held: set[str] = set()
        """Keys that have been registered."""
        self.renewed = 0
        """Acknowledged renewals so far."""
        self._keys = [f"lease-{number}" for number in range(count)]
        # As a gateway with many agents does it: one connection for all.
        self._client = connect(address, max(ttl_ms // 4, 100), tls)
        self._threads = [
            threading.Thread(target=self._keep, args=(LEASES_FROM + number, key), daemon=True)
            for number, key in enumerate(self._keys)
        ]
        reader = (LEASES_FROM + count, read_from or address)
        self._threads.append(threading.Thread(target=self._read, args=reader, daemon=True))
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Ends the renewals; the leases will run out."""
        self._ended.set()
        for thread in self._threads:
            thread.join()
        self._client.close()

    def _keep(self, proc: int, key: str) -> None:
        lease_id, incarnation = 0, 0
        while not self._ended.is_set():
            f, request = "renew", Request(lease_id=lease_id, ttl_ms=self._ttl_ms)
            if not lease_id:
                incarnation += 1
                value = f"{key}.{incarnation}"
                f, request = "register", Request(value, incarnation, ttl_ms=self._ttl_ms)
            self._recorder.call(proc, key, f, request)
            outcome, reply = perform(self._client, f, key, request)
            self._recorder.answer(proc, outcome, reply)
            pause_s = self._ttl_ms / 3_000
            if outcome is Outcome.OK:
                lease_id = reply.lease_id
                with self._lock:
                    self.held.add(key)
                    self.renewed += f == "renew"
            elif outcome is Outcome.FAIL and f == "renew":
                self.lost.append(key)
                lease_id, pause_s = 0, 0.0
            else:
                # Unanswered: soon again, as a renewal that was lost costs a part of the time.
                pause_s /= 10
            self._ended.wait(pause_s)

    def _read(self, proc: int, address: str) -> None:
        client = connect(address, 1_000, self._tls)
        for turn in range(1 << 30):
            if self._ended.wait(PAUSE_S[0]):
                break
            key = self._keys[turn % len(self._keys)]
            self._recorder.call(proc, key, "get")
            outcome, reply = perform(client, "get", key, Request())
            self._recorder.answer(proc, outcome, reply)
        client.close()


def last_revisions(addresses: Sequence[str], tls: Tls | None = None) -> dict[int, int]:
    """Each partition's newest revision, of the nodes that answer: watches must come that far."""
    ends: dict[int, int] = {}
    for address in addresses:
        with connect(address, 2_000, tls) as client, contextlib.suppress(AgniError):
            for each in client.status().partitions:
                ends[each.partition] = max(ends.get(each.partition, 0), each.revision)
    return ends


def main(arguments: Sequence[str] | None = None) -> None:
    """Load from a process of its own, until SIGTERM or for some time."""
    parser = argparse.ArgumentParser(prog="nemesis.load", description=main.__doc__)
    parser.add_argument("--addresses", required=True, help="host:port,host:port,...")
    parser.add_argument("--folder", required=True, type=Path, help="where the history goes")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=3_600.0)
    parser.add_argument("--clients", type=int, default=10)
    parser.add_argument("--timeout-ms", type=int, default=1_000)
    parser.add_argument("--leases", type=int, default=0, help="kept alive through --leases-at")
    parser.add_argument("--leases-at", default="", help="host:port; the first address if not given")
    parser.add_argument("--ttl-ms", type=int, default=3_000)
    access.add_argument(parser)
    given = parser.parse_args(arguments)
    addresses = given.addresses.split(",")
    tls = access.tls_of(given.tls_dir)
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    given.folder.mkdir(parents=True, exist_ok=True)
    log = Watcher(addresses, given.folder / "log.watch", tls=tls)
    other = Watcher(list(reversed(addresses)), given.folder / "g0.watch", "g0-", tls)
    for watcher in (log, other):
        watcher.created.wait()
    with Recorder(given.folder / "history.jsonl") as recorder:
        shape = Shape(clients=given.clients, timeout_ms=given.timeout_ms)
        load = Load(addresses, recorder, given.seed, shape, tls)
        at = given.leases_at or addresses[0]
        leases = None
        if given.leases:
            leases = Leases(at, recorder, given.leases, given.ttl_ms, addresses[-1], tls)
        print("ready", flush=True)
        ended.wait(given.seconds)
        load.stop()
        if leases is not None:
            leases.stop()
    ends = last_revisions(addresses, tls)
    (given.folder / "ends.json").write_text(json.dumps(ends))
    for watcher in (log, other):
        watcher.wait_for(ends, ENDS_S_MAX)
        watcher.close()
    print(dict(load.counts), flush=True)


if __name__ == "__main__":
    main()
