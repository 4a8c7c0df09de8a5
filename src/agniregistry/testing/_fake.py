"""`FakeRegistry`: the methods of `Client` over records in memory."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from types import TracebackType
from typing import Generic, TypeVar, cast

from agniregistry import types as t
from agniregistry.client._base import ALL, DEFAULT_READ, DEFAULT_TTL_MS
from agniregistry.client._cache import Cache
from agniregistry.client._calls import BatchResult
from agniregistry.client._registration import Registration, Renewer
from agniregistry.client._renewals import LoadSource, OnEvent, entry_for
from agniregistry.client._serve import serve
from agniregistry.client._watch import Watch
from agniregistry.client._watch_core import WatchRequest, encode_message, request_from_wire
from agniregistry.config import RetryPolicy, Timeout
from agniregistry.errors import (
    AgniError,
    ClientClosedError,
    ConnectionFailedError,
    InternalError,
)
from agniregistry.testing import _rank as rank
from agniregistry.testing import _validate as validate
from agniregistry.testing._clock import Clock, SystemClock
from agniregistry.testing._guard import Guard
from agniregistry.testing._pages import Matched, Pages
from agniregistry.testing._store import Store, not_found
from agniregistry.testing._stream import Stream, make_token

C = TypeVar("C", bound=Clock)

HISTORY_DEFAULT = 10_000
"""So many changes can be resumed over; a watch that is further behind gets a gap."""


class FakeRegistry(Generic[C]):
    """One partition in memory, on real time or on a clock that the test moves.

    Leases of one region, or behind one gateway, that fall silent together are SUSPECT at first, as
    at a node; `mass_expiry_guard=False` removes them at their deadline.

    Thread-safe. Beyond `Client`'s methods: `clock`, `serve`, `fail_next`, `lose_lease` and
    `break_watches`.
    """

    def __init__(
        self,
        clock: C | None = None,
        *,
        history_max: int = HISTORY_DEFAULT,
        mass_expiry_guard: bool = True,
    ) -> None:
        self.clock: C = cast("C", SystemClock()) if clock is None else clock
        """The clock that leases live by."""
        self.timeout = Timeout()
        """As a client has one; nothing here takes time."""
        self.retry = RetryPolicy()
        """How fast registrations try again after a failure."""
        self.cluster_bytes = os.urandom(16)
        """The identity of this cluster."""
        self.changed = threading.Condition(threading.RLock())
        """Guards everything, and wakes the watches."""
        self.closed = False
        """Whether `close` was called."""
        guard = Guard(is_on=mass_expiry_guard)
        self._store = Store(self.clock, history_max, guard)
        self._started_ms = self.clock.now_ms()
        self._pages = Pages()
        self._failures: list[AgniError] = []
        self._streams: set[Stream] = set()
        self._open: set[Watch | Cache] = set()
        self._renewer = Renewer(self)
        self.clock.on_advance(self._advanced)

    # -- writes ---------------------------------------------------------------------------

    def put(
        self,
        key: t.Key,
        spec: t.Spec,
        *,
        ttl_ms: int = 0,
        incarnation: int = 0,
        expected_revision: int | None = None,
        timeout_ms: int | None = None,
    ) -> t.Registered:
        """As `Client.put`."""
        full = validate.key(key, spec)
        validate.whole_spec(spec)
        validate.ttl(ttl_ms)
        validate.gateway(full, spec)
        spec = replace(spec, labels=dict(spec.labels))
        operation = t.RegisterOperation(full, spec, ttl_ms, incarnation, expected_revision)
        with self._change():
            record, created = self._store.put(operation)
            return t.Registered(
                key=full,
                revision=record.revision,
                create_revision=record.create_revision,
                lease_id=record.lease_id,
                ttl_ms=record.ttl_ms,
                next_renewal_ms=record.ttl_ms // 3,
                created=created,
                incarnation=record.incarnation,
                header=self._header(),
            )

    def register(
        self,
        key: t.Key,
        spec: t.Spec,
        *,
        ttl_ms: int = DEFAULT_TTL_MS,
        incarnation: int | None = None,
        load: LoadSource | None = None,
        on_event: OnEvent | None = None,
        timeout_ms: int | None = None,
    ) -> Registration:
        """As `Client.register`. Renewals go by real time, also under a `FakeClock`."""
        given = self.clock.wall_ms() if incarnation is None else incarnation
        result = self.put(key, spec, ttl_ms=ttl_ms, incarnation=given)
        entry = entry_for(result, spec, load, on_event, time.monotonic())
        if result.lease_id:
            self._renewer.add(entry)
        return Registration(self, self._renewer, entry, result)

    def update(
        self,
        key: t.Key,
        spec: t.Spec,
        update_mask: Sequence[str],
        *,
        incarnation: int = 0,
        expected_revision: int | None = None,
        timeout_ms: int | None = None,
    ) -> t.Updated:
        """As `Client.update`."""
        full = validate.key(key)
        validate.mask(spec, update_mask)
        operation = t.UpdateOperation(full, spec, update_mask, incarnation, expected_revision)
        with self._change():
            return t.Updated(self._store.patch(operation).revision, self._header())

    def deregister(
        self,
        key: t.Key,
        *,
        incarnation: int = 0,
        expected_revision: int | None = None,
        drain_ms: int = 0,
        successor: str = "",
        timeout_ms: int | None = None,
    ) -> t.Deregistered:
        """As `Client.deregister`."""
        full = validate.key(key)
        validate.drain(drain_ms, successor)
        operation = t.DeregisterOperation(full, incarnation, expected_revision, drain_ms, successor)
        with self._change():
            existed = self._store.find(full) is not None
            return t.Deregistered(existed, self._store.delete(operation), self._header())

    def batch(
        self, operations: Sequence[t.BatchOperation], *, timeout_ms: int | None = None
    ) -> tuple[BatchResult, ...]:
        """As `Client.batch`."""
        if not 1 <= len(operations) <= validate.BATCH_OPERATIONS_MAX:
            raise validate.refuse(
                "operations", f"must be 1..{validate.BATCH_OPERATIONS_MAX} writes"
            )
        with self._change():
            return tuple(self._one(operation) for operation in operations)

    def _one(self, operation: t.BatchOperation) -> BatchResult:
        try:
            match operation:
                case t.RegisterOperation():
                    return self.put(
                        operation.key,
                        operation.spec,
                        ttl_ms=operation.ttl_ms,
                        incarnation=operation.incarnation,
                        expected_revision=operation.expected_revision,
                    )
                case t.UpdateOperation():
                    return self.update(
                        operation.key,
                        operation.spec,
                        operation.update_mask,
                        incarnation=operation.incarnation,
                        expected_revision=operation.expected_revision,
                    )
                case t.DeregisterOperation():
                    return self.deregister(
                        operation.key,
                        incarnation=operation.incarnation,
                        expected_revision=operation.expected_revision,
                        drain_ms=operation.drain_ms,
                        successor=operation.successor,
                    )
        except AgniError as error:
            return error

    def renew(
        self,
        lease_ids: Sequence[int],
        loads: Sequence[t.LeaseLoad] = (),
        *,
        timeout_ms: int | None = None,
    ) -> t.Renewed:
        """As `Client.renew`."""
        validate.leases(lease_ids, loads)
        free = {load.lease_id: load.free for load in loads}
        with self._change():
            granted = {x: self._store.renew(x, free.get(x)) for x in lease_ids}
        lost = tuple(x for x, ttl_ms in granted.items() if ttl_ms is None)
        shortest = min((x for x in granted.values() if x is not None), default=30_000)
        return t.Renewed(len(granted) - len(lost), lost, shortest // 3)

    # -- reads ----------------------------------------------------------------------------

    def get(
        self, key: t.Key, *, read: t.ReadOptions = DEFAULT_READ, timeout_ms: int | None = None
    ) -> t.Instance:
        """As `Client.get`."""
        full = validate.key(key)
        validate.read(read, self._store.revision)
        with self._change():
            stored = self._store.find(full)
            if stored is None:
                raise not_found(full, self._header())
            return replace(self._store.instance(stored), header=self._header())

    def list(
        self,
        filter: t.Filter = ALL,
        *,
        page_size: int = 0,
        page_token: str = "",
        read: t.ReadOptions = DEFAULT_READ,
        timeout_ms: int | None = None,
    ) -> t.Page:
        """As `Client.list`."""
        wanted = validate.wanted(filter)
        validate.whole("page_size", page_size, 0, validate.PAGE_RECORDS_MAX)
        validate.read(read, self._store.revision)
        size = page_size or validate.PAGE_RECORDS_DEFAULT
        with self._change():
            if page_token:
                return self._pages.following(page_token, wanted, size)
            matched = tuple(i for i in self._store.instances() if rank.passes(i, wanted))
            state = Matched(wanted, matched, self._header(), self._token())
            return self._pages.first(state, size)

    def list_all(
        self,
        filter: t.Filter = ALL,
        *,
        page_size: int = 0,
        read: t.ReadOptions = DEFAULT_READ,
        timeout_ms: int | None = None,
    ) -> Iterator[t.Instance]:
        """As `Client.list_all`."""
        token = ""
        while True:
            page = self.list(filter, page_size=page_size, page_token=token, read=read)
            yield from page.instances
            token = page.next_page_token
            if not token:
                return

    def discover(
        self,
        filter: t.Filter,
        *,
        region: str = "",
        limit: int = 0,
        choices: int = 0,
        explain: bool = False,
        explain_names: Sequence[str] = (),
        read: t.ReadOptions = DEFAULT_READ,
        timeout_ms: int | None = None,
    ) -> t.Discovery:
        """As `Client.discover`, but without chance: always the highest scores."""
        wanted = validate.wanted(filter)
        if wanted.kind is None:
            raise validate.refuse("filter.kind", "must be gateway or agent")
        validate.text("region", region, 0, validate.REGION_BYTES_MAX)
        validate.whole("limit", limit, 0, validate.DISCOVER_RECORDS_MAX)
        validate.whole("choices", choices, 0, validate.DISCOVER_CHOICES_MAX)
        validate.explained(explain_names, wanted.namespace)
        validate.read(read, self._store.revision)
        with self._change():
            statuses = wanted.statuses or rank.DISCOVERED
            everyone = self._store.instances()
            matched = [
                t.Candidate(i, rank.score(i, region))
                for i in everyone
                if rank.passes(i, replace(wanted, statuses=statuses))
            ]
            matched.sort(key=rank.place)
            best = tuple(matched[: limit or validate.DISCOVER_RECORDS_DEFAULT])
            exclusions: tuple[t.Exclusion, ...] = ()
            if explain:
                exclusions = rank.exclusions(everyone, best, wanted, explain_names)
            return t.Discovery(best, exclusions, len(matched), (self._header(),))

    def watch(
        self,
        filter: t.Filter = ALL,
        *,
        resume_token: bytes = b"",
        include_current: bool = False,
        include_previous: bool = False,
        progress_interval_ms: int | None = None,
    ) -> Watch:
        """As `Client.watch`."""
        request = WatchRequest(
            filter, resume_token, include_current, include_previous, progress_interval_ms
        )
        watch = Watch(
            request,
            lambda data: _Encoded(self.stream(request_from_wire(data))),
            lambda failure: InternalError(str(failure)),
            self.retry,
            self.timeout,
            self._open.discard,
        )
        self._open.add(watch)
        return watch

    def stream(self, request: WatchRequest) -> Stream:
        """One watch without resumption, as a server's connection has it."""
        with self._change():
            stream = Stream(self, self._store, request)
            self._streams.add(stream)
            return stream

    def cache(self, filter: t.Filter = ALL, *, max_age_ms: int = 30_000) -> Cache:
        """As `Client.cache`."""
        cache = Cache(self.watch, filter, max_age_ms, self._open.discard)
        self._open.add(cache)
        return cache

    def session(self) -> FakeRegistry[C]:
        """As `Client.session`: what the fake shows never goes back anyway."""
        return self

    # -- the cluster ----------------------------------------------------------------------

    def status(self, *, timeout_ms: int | None = None) -> t.ClusterStatus:
        """As `Client.status`. No `fail_next` is for it: clients ask for it by themselves."""
        with self._change(may_fail=False):
            instances = self._store.instances()
            return t.ClusterStatus(
                cluster_id=self.cluster_bytes.hex(),
                node_id=1,
                version="fake",
                build_profile="fake",
                uptime_ms=self.clock.now_ms() - self._started_ms,
                partitions=(
                    t.PartitionStatus(
                        partition=0,
                        term=1,
                        leader_id=1,
                        commit_index=self._store.revision,
                        applied_index=self._store.revision,
                        revision=self._store.revision,
                        records=len(instances),
                        leases=sum(1 for i in instances if i.record.lease_id),
                        suspect_domains=self._store.guard.held,
                    ),
                ),
            )

    def routing(self, *, timeout_ms: int | None = None) -> t.RoutingTable:
        """As `Client.routing`. Never fails, as clients ask for it by themselves at any time."""
        return t.RoutingTable(
            epoch=1,
            partition_count=1,
            members=(t.Member(1),),
            partitions=(t.PartitionRoute(0, (1,), 1),),
        )

    def snapshot(
        self, partitions: Sequence[int] = (), *, timeout_ms: int | None = None
    ) -> tuple[t.SnapshotTaken, ...]:
        """As `Client.snapshot`; nothing is written anywhere."""
        if any(partition != 0 for partition in partitions):
            raise validate.refuse("partitions", "names one that does not exist")
        with self._change():
            revision = self._store.revision
            return (t.SnapshotTaken(0, revision, revision, len(self._store.instances())),)

    # -- what only a fake can do ----------------------------------------------------------

    def serve(self, address: str = "127.0.0.1:0") -> serve:
        """Serves this registry over gRPC on loopback; a context manager that gives host:port."""
        return serve(self, address)

    def fail_next(self, error: AgniError, times: int = 1) -> None:
        """Lets the next calls fail with this error before they do anything; but not `status` and
        `routing`, for which clients ask by themselves."""
        with self.changed:
            self._failures.extend([error] * times)

    def lose_lease(self, lease_id: int) -> None:
        """Lets the record of this lease expire right now."""
        with self.changed:
            self._store.cut(lease_id)
            self._advanced()

    def break_watches(self) -> None:
        """Breaks all watches as lost connections would; they resume."""
        with self.changed:
            for stream in tuple(self._streams):
                stream.interrupt(ConnectionFailedError("the fake broke the connection"))
            self._streams.clear()

    def close(self) -> None:
        """Ends renewals, watches and caches, as `Client.close`."""
        self._renewer.stop()
        for item in tuple(self._open):
            item.close()
        with self.changed:
            self.closed = True
            self.changed.notify_all()

    def __enter__(self) -> FakeRegistry[C]:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # -- inside ---------------------------------------------------------------------------

    @contextmanager
    def _change(self, *, may_fail: bool = True) -> Iterator[None]:
        """Holds the lock, expires what is due, and wakes the watches afterwards."""
        with self.changed:
            if self.closed:
                raise ClientClosedError("the fake registry is closed")
            if may_fail and self._failures:
                raise self._failures.pop(0)
            self.expire_due()
            before = self._store.revision
            try:
                yield
            finally:
                if self._store.revision != before:
                    self.changed.notify_all()

    def expire_due(self) -> None:
        """Removes what is due; the lock must be held."""
        if self._store.expire():
            self.changed.notify_all()

    def _advanced(self) -> None:
        with self.changed:
            self.expire_due()
            self.changed.notify_all()

    def _header(self) -> t.Header:
        return t.Header(self.cluster_bytes.hex(), 0, self._store.revision, 1)

    def _token(self) -> bytes:
        return make_token(self.cluster_bytes, self._store.revision)


class _Encoded:
    """A stream of encoded messages, as `Watch` reads them from gRPC."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self.cancel = stream.cancel

    def __iter__(self) -> Iterator[bytes]:
        return (encode_message(message) for message in self._stream)
