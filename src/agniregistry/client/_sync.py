"""`Client`: the synchronous SDK. Its twin with the same names is `AsyncClient`.

Thread-safe: one client serves any number of threads over one connection. It does not survive a
fork (gRPC's threads and connections don't): make clients after forking, as the pid check says.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Any, TypeVar

import grpc

from agniregistry import types as t
from agniregistry.client import _backup_calls as backups
from agniregistry.client import _calls as calls
from agniregistry.client._backup import Backup
from agniregistry.client._base import ALL, DEFAULT_READ, DEFAULT_TTL_MS, ClientBase
from agniregistry.client._cache import Cache
from agniregistry.client._channels import Channels, Link, SyncFlavour
from agniregistry.client._registration import Registration, Renewer
from agniregistry.client._renewals import LoadSource, OnEvent, entry_for
from agniregistry.client._retry import Attempts
from agniregistry.client._watch import Watch
from agniregistry.client._watch_core import WatchRequest
from agniregistry.config import DEFAULT_TARGET, RetryPolicy, Timeout
from agniregistry.errors import ClientClosedError
from agniregistry.identity import Tls

T = TypeVar("T")


class Client(ClientBase):
    """A connection to the registry.

    Every method raises an `AgniError`, retries what may succeed later, and takes `timeout_ms`
    for itself in place of the client's `timeout.total_ms`. With `tls` the connection is
    encrypted, both sides prove themselves, and the files may be replaced at any time.
    """

    def __init__(
        self,
        target: str = DEFAULT_TARGET,
        *,
        timeout: Timeout | None = None,
        retry: RetryPolicy | None = None,
        tls: Tls | None = None,
        credentials: grpc.ChannelCredentials | None = None,
        metadata: Sequence[tuple[str, str]] = (),
    ) -> None:
        super().__init__(target, timeout, retry, metadata)
        self._channels = Channels(target, tls, credentials, SyncFlavour())
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._open: set[Watch | Cache | Backup] = set()
        self._renewer = Renewer(self)

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
        """Registers once and keeps nothing alive: see `register` for that.

        Without `ttl_ms` the record stays until it is deregistered. `incarnation` 0 means the
        stored one; `expected_revision` 0 means that the record must not exist.
        """
        operation = t.RegisterOperation(key, spec, ttl_ms, incarnation, expected_revision)
        return self._call(calls.put(operation), timeout_ms)

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
        """Registers and keeps the record alive until the returned handle is closed.

        The incarnation defaults to the current Unix time in milliseconds, so that an owner
        that starts again supersedes itself. `load` and `on_event` are called in the renewing
        thread: they must be quick.
        """
        result = self.put(
            key,
            spec,
            ttl_ms=ttl_ms,
            incarnation=time.time_ns() // 1_000_000 if incarnation is None else incarnation,
            timeout_ms=timeout_ms,
        )
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
        """Changes the fields named in the mask, such as "capacity.cpu", to those of the spec."""
        operation = t.UpdateOperation(key, spec, tuple(update_mask), incarnation, expected_revision)
        return self._call(calls.update(operation), timeout_ms)

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
        """Removes the record, at once or after `drain_ms` as DRAINING."""
        operation = t.DeregisterOperation(key, incarnation, expected_revision, drain_ms, successor)
        return self._call(calls.deregister(operation), timeout_ms)

    def batch(
        self, operations: Sequence[t.BatchOperation], *, timeout_ms: int | None = None
    ) -> tuple[calls.BatchResult, ...]:
        """Several writes, 1..1,000, each for itself: a refused one is an error in its place."""
        return self._call(calls.batch(operations), timeout_ms)

    def renew(
        self,
        lease_ids: Sequence[int],
        loads: Sequence[t.LeaseLoad] = (),
        *,
        timeout_ms: int | None = None,
    ) -> t.Renewed:
        """Extends leases, at most 10,000, and reports loads. Handles do this by themselves."""
        return self._call(calls.renew(lease_ids, loads), timeout_ms)

    # -- reads ----------------------------------------------------------------------------

    def get(
        self,
        key: t.Key,
        *,
        read: t.ReadOptions = DEFAULT_READ,
        timeout_ms: int | None = None,
    ) -> t.Instance:
        """The record with its liveness and load; `NotFoundError` where there is none."""
        return self._call(calls.get(key, read), timeout_ms)

    def list(
        self,
        filter: t.Filter = ALL,
        *,
        page_size: int = 0,
        page_token: str = "",
        read: t.ReadOptions = DEFAULT_READ,
        timeout_ms: int | None = None,
    ) -> t.Page:
        """One page of the records that match; `list_all` walks through the pages."""
        return self._call(calls.list_page(filter, page_size, page_token, read), timeout_ms)

    def list_all(
        self,
        filter: t.Filter = ALL,
        *,
        page_size: int = 0,
        read: t.ReadOptions = DEFAULT_READ,
        timeout_ms: int | None = None,
    ) -> Iterator[t.Instance]:
        """All records that match, as of one moment, page by page."""
        token = ""
        while True:
            page = self.list(
                filter, page_size=page_size, page_token=token, read=read, timeout_ms=timeout_ms
            )
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
        """The best records for a need, best first; the filter's kind must be given.

        `region` is preferred, not demanded. `explain` says why records were left out.
        """
        call = calls.discover(filter, region, limit, choices, explain, explain_names, read)
        return self._call(call, timeout_ms)

    def watch(
        self,
        filter: t.Filter = ALL,
        *,
        resume_token: bytes = b"",
        include_current: bool = False,
        include_previous: bool = False,
        progress_interval_ms: int | None = None,
    ) -> Watch:
        """Changes as they happen; resumes by itself until it is closed.

        `progress_interval_ms` makes it yield `Progress` too, at least that often.
        """
        self._check_open()
        request = WatchRequest(
            filter, resume_token, include_current, include_previous, progress_interval_ms
        )
        request.encode()  # Refuses what can't be sent before anything is opened.
        watch = Watch(
            request, self._open_watch, self._error, self.retry, self.timeout, self._forget
        )
        with self._lock:
            self._open.add(watch)
        return watch

    def cache(self, filter: t.Filter = ALL, *, max_age_ms: int = 30_000) -> Cache:
        """A local copy of what matches, kept by a watch in a thread, with a known age.

        It calls itself stale when nothing was heard from the registry for `max_age_ms`.
        """
        self._check_open()
        cache = Cache(self.watch, filter, max_age_ms, self._forget)
        with self._lock:
            self._open.add(cache)
        return cache

    # -- the cluster ----------------------------------------------------------------------

    def status(self, *, timeout_ms: int | None = None) -> t.ClusterStatus:
        """How the asked node and its partitions do."""
        return self._call(calls.status(), timeout_ms)

    def routing(self, *, timeout_ms: int | None = None) -> t.RoutingTable:
        """How keys map to partitions, and partitions to nodes."""
        return self._call(calls.routing(), timeout_ms)

    def snapshot(
        self, partitions: Sequence[int] = (), *, timeout_ms: int | None = None
    ) -> tuple[t.SnapshotTaken, ...]:
        """Takes snapshots of the partitions (none given: all) and waits until they are durable."""
        return self._call(calls.snapshot(partitions), timeout_ms)

    def backup(self, partitions: Sequence[int] = (), *, bytes_per_s: int = 0) -> Backup:
        """A copy of the partitions (none given: all), streamed while the cluster works.

        What was acknowledged before the call is in it. `agniregistry.backup` writes and reads
        archives of it; `bytes_per_s` slows it down below the node's own limit.
        """
        self._check_open()
        stream = self._open_stream(backups.PATH, backups.request(partitions, bytes_per_s))
        backup = Backup(stream, self._error, self._forget)
        with self._lock:
            self._open.add(backup)
        return backup

    def restore(
        self, records: Sequence[bytes], *, timeout_ms: int | None = None
    ) -> tuple[calls.BatchResult, ...]:
        """Registers records of a backup, 1..1,000, as they were, unless they exist.

        Each is answered for itself; those with a time to live get all of it from now on. What
        exists with another content is an `AlreadyExistsError` and stays as it is.
        """
        return self._call(backups.restore(records), timeout_ms)

    def members(self, *, timeout_ms: int | None = None) -> t.ClusterMembers:
        """The members with their state, and where each partition is wanted and where it is."""
        return self._call(calls.members(), timeout_ms)

    def drain_member(
        self, node_id: int, *, author_epoch: int = 0, timeout_ms: int | None = None
    ) -> int:
        """Has a member hand over what it leads, and gives it nothing new; answers the version.

        Its replicas stay until they are placed elsewhere.
        """
        return self._call(calls.change_member(node_id, "drain", author_epoch), timeout_ms)

    def return_member(
        self, node_id: int, *, author_epoch: int = 0, timeout_ms: int | None = None
    ) -> int:
        """Takes the draining of a member back; answers the version."""
        return self._call(calls.change_member(node_id, "return", author_epoch), timeout_ms)

    def remove_member(
        self, node_id: int, *, author_epoch: int = 0, timeout_ms: int | None = None
    ) -> int:
        """Lets a member go for ever; refused while it holds replicas; answers the version."""
        return self._call(calls.change_member(node_id, "remove", author_epoch), timeout_ms)

    def place_partition(
        self,
        partition: int,
        node_ids: Sequence[int],
        *,
        expected_version: int | None = None,
        author_epoch: int = 0,
        timeout_ms: int | None = None,
    ) -> int:
        """Says where a partition is wanted, the preferred leader first; answers the version.

        Its leader then moves it there step by step: `members` shows how far it is.
        """
        call = calls.place(partition, node_ids, expected_version, author_epoch)
        return self._call(call, timeout_ms)

    def transfer_leader(
        self, partition: int, node_id: int, *, timeout_ms: int | None = None
    ) -> None:
        """Hands a partition's leadership to another of its voters."""
        self._call(calls.transfer_leader(partition, node_id), timeout_ms)

    # -- lifecycle ------------------------------------------------------------------------

    def close(self) -> None:
        """Ends renewals, watches, caches and the connection; safe to call twice.

        Registrations are not deregistered: close their handles for that, or let them expire.
        """
        with self._lock:
            self._closing = True
            self._closed.set()
            opened = tuple(self._open)
        self._renewer.stop()
        for item in opened:
            item.close()
        for channel in self._channels.close():
            channel.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # -- inside ---------------------------------------------------------------------------

    def _call(self, call: calls.Call[T], timeout_ms: int | None) -> T:
        self._check_open()
        attempts = Attempts(self.retry, self._timeout(timeout_ms))
        while True:
            link = self._channels.acquire()
            try:
                method = _method(link, call.path)
                data = method(call.request, timeout=attempts.timeout_s(), metadata=self._metadata)
                return call.answer(data)
            except grpc.RpcError as failure:
                error = self._error(failure)
                pause = attempts.pause_s(error)
                if pause is None:
                    raise error from failure
            except ValueError as failure:  # gRPC's word for a closed channel
                raise ClientClosedError("the client is closed") from failure
            finally:
                self._channels.release(link)
            self._closed.wait(pause)
            self._check_open()

    def _open_watch(self, request: bytes) -> Any:
        return self._open_stream(calls.REGISTRY + "Watch", request)

    def _open_stream(self, path: str, request: bytes) -> Any:
        link = self._channels.acquire()
        stream = link.channel.unary_stream(path, None, None)
        call: Any = stream(request, metadata=self._metadata)
        if not call.add_callback(lambda: self._channels.release(link)):
            self._channels.release(link)  # It has ended already.
        return call

    def _forget(self, item: Watch | Cache | Backup) -> None:
        with self._lock:
            self._open.discard(item)

    def _check_open(self) -> None:
        if self._closed.is_set():
            raise ClientClosedError("the client is closed")
        if os.getpid() != self._pid:
            raise ClientClosedError("the client was made before a fork; make one in the child")


def _method(link: Link[grpc.Channel], path: str) -> Callable[..., bytes]:
    method = link.methods.get(path)
    if method is None:
        method = link.methods[path] = link.channel.unary_unary(path, None, None)
    return method
