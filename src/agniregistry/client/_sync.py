"""`Client`: the synchronous SDK. Its twin with the same names is `AsyncClient`.

Thread-safe: one client serves any number of threads over one connection. It does not survive a
fork (gRPC's threads and connections don't): make clients after forking, as the pid check says.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from types import TracebackType
from typing import Any, TypeVar

import grpc

from agniregistry import types as t
from agniregistry.client import _backup_calls as backups
from agniregistry.client import _calls as calls
from agniregistry.client._backup import Backup
from agniregistry.client._base import ALL, DEFAULT_TTL_MS, ClientBase, Trace, after_lost_answer
from agniregistry.client._cache import Cache
from agniregistry.client._channels import Channels, Link, SyncFlavour
from agniregistry.client._endpoints import Endpoint
from agniregistry.client._registration import Registration, Renewer
from agniregistry.client._renewals import LoadSource, OnEvent, entry_for
from agniregistry.client._retry import Attempts
from agniregistry.client._router import Router, Streams
from agniregistry.client._session import Session
from agniregistry.client._sync_calls import DataCalls
from agniregistry.client._target import Target, parse_targets
from agniregistry.client._watch import Watch
from agniregistry.client._watch_core import WatchRequest
from agniregistry.config import DEFAULT_TARGET, RetryPolicy, Timeout
from agniregistry.errors import AgniError, ClientClosedError
from agniregistry.identity import Tls

T = TypeVar("T")


class Client(ClientBase, DataCalls):
    """The way to the registry: to any of the targets, and to the nodes that they name.

    Every method raises an `AgniError`, retries what may succeed later, and takes `timeout_ms`
    for itself in place of the client's `timeout.total_ms`. With `tls` the connection is
    encrypted, both sides prove themselves, and the files may be replaced at any time. Several
    targets are given in a sequence or with commas; `zone` is where the caller runs: stale reads
    prefer replicas there. `trace` is asked with each call for headers to send along, such as
    `traceparent`; it must be quick and not raise.
    """

    def __init__(
        self,
        target: str | Sequence[str] = DEFAULT_TARGET,
        *,
        timeout: Timeout | None = None,
        retry: RetryPolicy | None = None,
        tls: Tls | None = None,
        credentials: grpc.ChannelCredentials | None = None,
        metadata: Sequence[tuple[str, str]] = (),
        zone: str = "",
        trace: Trace | None = None,
    ) -> None:
        super().__init__(target, timeout, retry, metadata, trace)
        flavour = SyncFlavour()

        def open_channels(where: Target) -> Channels[grpc.Channel]:
            return Channels(where, tls, credentials, flavour)

        self._router = Router(parse_targets(target), open_channels, flavour, metadata, zone)
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._open: set[Watch | Cache | Backup] = set()
        self._renewer = Renewer(self)

    # -- what goes on in the background ---------------------------------------------------

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
        streams = Streams(self._router, self._error)
        open_stream = partial(self._open_stream, calls.REGISTRY + "Watch", streams)
        watch = Watch(request, open_stream, streams.error, self.retry, self.timeout, self._forget)
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

    def session(self) -> Session:
        """Reads and writes that never see the registry go back, whichever replica answers."""
        return Session(self._call)

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
        streams = Streams(self._router, self._error)
        stream = self._open_stream(backups.PATH, streams, backups.request(partitions, bytes_per_s))
        backup = Backup(stream, streams.error, self._forget)
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
        self,
        partition: int,
        node_id: int,
        *,
        author_epoch: int = 0,
        timeout_ms: int | None = None,
    ) -> None:
        """Hands a partition's leadership to another of its voters."""
        self._call(calls.transfer_leader(partition, node_id, author_epoch), timeout_ms)

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
        for channel in self._router.close():
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
        headers = self._headers()
        tried: set[Endpoint[grpc.Channel]] = set()
        while True:
            way = self._router.begin(call.where, call.key, tried)
            error: AgniError | None = None
            try:
                limit_s = self._router.timeout_s(way, attempts)
                method = _method(way.link, call.path)
                data = method(call.request, timeout=limit_s, metadata=headers)
                answer = call.answer(data)
                if attempts.answer_lost:
                    answer = after_lost_answer(answer)
                self._router.learn(way, getattr(answer, "header", None))
                return answer
            except grpc.RpcError as failure:
                cause, error = failure, self._error(failure)
            except ValueError as failure:  # gRPC's word for a closed channel
                raise ClientClosedError("the client is closed") from failure
            finally:
                self._router.end(way, error)
            elsewhere = self._router.goes_on(call.where, way, tried, error)
            pause = attempts.pause_s(error, elsewhere=elsewhere)
            if pause is None:
                raise error from cause
            if not elsewhere:
                tried.clear()
                self._closed.wait(pause)
            self._check_open()

    def _open_stream(self, path: str, streams: Streams[grpc.Channel], request: bytes) -> Any:
        way = streams.begin()
        stream = way.link.channel.unary_stream(path, None, None)
        call: Any = stream(request, metadata=self._headers())
        if not call.add_callback(lambda: self._router.end_stream(way)):
            self._router.end_stream(way)  # It has ended already.
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
