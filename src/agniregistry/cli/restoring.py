"""Puts a backup's records into a running cluster by ordinary writes, many at a time.

Nothing is overwritten: a record that exists stays as it is. Leases are kept alive while the
restore goes on, and renewed once at its end, so that every owner has a full time to live from
then on to come back.
"""

from __future__ import annotations

import heapq
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field

from agniregistry import types as t
from agniregistry.backup.content import fields, read_record
from agniregistry.client import Client
from agniregistry.errors import AgniError, AlreadyExistsError

BATCH_RECORDS_MAX = 500
"""Records of one call."""
BATCH_BYTES_MAX = 512 * 1024
"""Bytes of the records of one call; a node takes messages of 1 MiB unless it is told otherwise."""
WORKERS = 4
"""Calls at the same time."""
PATIENCE_S = 60.0
"""How long a write that can't be made just now is tried again."""
PAUSE_S = 0.2
"""The pause before that."""
RENEW_LEASES_MAX = 10_000
"""Leases of one renewal."""
REFUSALS_KEPT_MAX = 20
"""Refused records that are named one by one."""
_DRAINING = 11
_KINDS = {1: t.Kind.GATEWAY, 2: t.Kind.AGENT}


@dataclass(slots=True)
class Restored:
    """What became of the records."""

    created: int = 0
    """How many were put back."""
    present: int = 0
    """How many existed with the same content."""
    kept: int = 0
    """How many existed with another content, and stay as they are."""
    refused: int = 0
    """How many the registry refused."""
    refusals: list[str] = field(default_factory=list)
    """What it said to the first of them."""
    expired: int = 0
    """How many ran out before the restore had ended, because their leases could not be renewed
    in time."""

    def add(self, other: Restored) -> None:
        """Adds another count."""
        self.created += other.created
        self.present += other.present
        self.kept += other.kept
        self.refused += other.refused
        self.refusals = (self.refusals + other.refusals)[:REFUSALS_KEPT_MAX]


class Keeper:
    """Renews the leases of restored records until `finish`, which renews all of them once more."""

    def __init__(self, client: Client) -> None:
        """Begins; has nothing to do at first."""
        self.lost = 0
        """How many leases were gone when they were to be renewed."""
        self._client = client
        self._due: list[tuple[float, list[int]]] = []
        self._changed = threading.Condition()
        self._ended = False
        self._thread = threading.Thread(target=self._run, name="agni-restore-leases", daemon=True)
        self._thread.start()

    def add(self, lease_ids: list[int], in_ms: int) -> None:
        """Takes leases over, first to be renewed after that time."""
        if lease_ids:
            with self._changed:
                heapq.heappush(self._due, (time.monotonic() + in_ms / 1000, lease_ids))
                self._changed.notify()

    def stop(self) -> None:
        """Ends and leaves the leases to themselves."""
        with self._changed:
            self._ended = True
            self._changed.notify()
        self._thread.join()

    def finish(self) -> None:
        """Ends with one renewal of everything."""
        self.stop()
        deadline = time.monotonic() + PATIENCE_S
        for leases in _portions([lease for _, group in self._due for lease in group]):
            while self._renew(leases) is None and time.monotonic() < deadline:
                time.sleep(PAUSE_S)

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._ended and not (self._due and self._due[0][0] <= time.monotonic()):
                    pause = self._due[0][0] - time.monotonic() if self._due else None
                    self._changed.wait(pause)
                if self._ended:
                    return
                leases: list[int] = []
                soon = time.monotonic() + PAUSE_S
                while self._due and self._due[0][0] <= soon:
                    if leases and len(leases) + len(self._due[0][1]) > RENEW_LEASES_MAX:
                        break
                    leases += heapq.heappop(self._due)[1]
            renewed = self._renew(leases)
            next_ms = round(PAUSE_S * 1000) if renewed is None else renewed.next_renewal_ms
            lost = set(renewed.lost_lease_ids) if renewed is not None else set()
            self.add([lease for lease in leases if lease not in lost], next_ms)

    def _renew(self, leases: list[int]) -> t.Renewed | None:
        try:
            renewed = self._client.renew(leases)
        except AgniError as error:
            if not error.retryable:
                raise
            return None
        self.lost += len(renewed.lost_lease_ids)
        return renewed


def _portions(leases: list[int]) -> Iterator[list[int]]:
    for start in range(0, len(leases), RENEW_LEASES_MAX):
        yield leases[start : start + RENEW_LEASES_MAX]


def batches(records: Iterable[bytes]) -> Iterator[list[bytes]]:
    """The records in portions that one call can take."""
    batch: list[bytes] = []
    size = 0
    for record in records:
        full = len(batch) >= BATCH_RECORDS_MAX or size + len(record) > BATCH_BYTES_MAX
        if batch and full:
            yield batch
            batch, size = [], 0
        batch.append(record)
        size += len(record)
    if batch:
        yield batch


def restore(client: Client, records: Iterable[bytes], advance: Callable[[int], None]) -> Restored:
    """Puts all of them back; `advance` is told how many more are done."""
    done = Restored()
    keeper = Keeper(client)
    with ThreadPoolExecutor(WORKERS, thread_name_prefix="agni-restore") as pool:
        running: set[Future[Restored]] = set()

        def collect(least: int) -> None:
            nonlocal running
            while len(running) > least:
                ended, running = wait(running, return_when=FIRST_COMPLETED)
                for each in ended:
                    done.add(each.result())

        try:
            for batch in batches(records):
                running.add(pool.submit(_write, client, keeper, batch))
                # One batch more than there are workers waits, so that none of them does.
                collect(WORKERS)
                advance(len(batch))
            collect(0)
            keeper.finish()
        finally:
            for each in running:
                each.cancel()
            keeper.stop()
    done.expired = keeper.lost
    return done


def _write(client: Client, keeper: Keeper, batch: list[bytes]) -> Restored:
    """Writes one batch, those that can't be written just now again and again."""
    done = Restored()
    draining: list[t.DeregisterOperation] = []
    deadline = time.monotonic() + PATIENCE_S
    pending, is_first = batch, True
    while pending:
        again: list[bytes] = []
        failure: AgniError | None = None
        leases: list[int] = []
        next_ms = 0
        try:
            results = client.restore(pending)
        except AgniError as error:
            if not error.retryable:
                raise
            results, again, failure = (), pending, error
        for record, result in zip(pending, results, strict=False):
            if isinstance(result, t.Registered):
                done.created += result.created
                done.present += not result.created
                ours = result.created or not is_first
                if result.lease_id and ours:
                    leases.append(result.lease_id)
                    next_ms = min(next_ms or result.next_renewal_ms, result.next_renewal_ms)
                if ours:
                    draining += _draining(record)
            elif isinstance(result, AlreadyExistsError):
                done.kept += 1
            elif isinstance(result, AgniError) and result.retryable:
                again.append(record)
                failure = result
            else:
                done.refused += 1
                done.refusals.append(_refusal(record, result))
        keeper.add(leases, next_ms)
        if again and failure is not None:
            if time.monotonic() >= deadline:
                raise failure
            time.sleep(PAUSE_S)
        pending, is_first = again, False
    if draining:
        _drain(client, draining, done)
    return done


def _drain(client: Client, operations: list[t.DeregisterOperation], done: Restored) -> None:
    """Has those drain that were draining, for the whole time that they were given."""
    deadline = time.monotonic() + PATIENCE_S
    while operations:
        again = []
        for operation, result in zip(operations, client.batch(operations), strict=True):
            if not isinstance(result, AgniError):
                continue
            if result.retryable and time.monotonic() < deadline:
                again.append(operation)
                continue
            done.refused += 1
            done.refusals.append(f"{operation.key} could not be drained: {result.message}")
        if again:
            time.sleep(PAUSE_S)
        operations = again


def _draining(record: bytes) -> list[t.DeregisterOperation]:
    if all(number != _DRAINING for number, _, _ in fields(record)):
        return []
    stored = read_record(record)
    key = t.Key(_KINDS[stored.kind], stored.name, stored.namespace)
    drain_ms = min(max(stored.drain_ms, 1), 3_600_000)
    return [t.DeregisterOperation(key, drain_ms=drain_ms, successor=stored.successor)]


def _refusal(record: bytes, result: object) -> str:
    stored = read_record(record)
    kind = _KINDS[stored.kind].value if stored.kind in _KINDS else str(stored.kind)
    return f"{stored.namespace}/{kind}/{stored.name}: {result}"
