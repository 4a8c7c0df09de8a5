"""Reads and writes of records, as the client and its sessions offer them.

How they reach a node is the business of whoever inherits.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import TypeVar

from agniregistry import types as t
from agniregistry.client import _calls as calls
from agniregistry.client._base import ALL, DEFAULT_READ

T = TypeVar("T")


class DataCalls(ABC):
    """What can be done with records."""

    @abstractmethod
    def _call(self, call: calls.Call[T], timeout_ms: int | None) -> T:
        """Sends a call until it is answered."""

    def _read(self, read: t.ReadOptions) -> t.ReadOptions:
        """The options of a read as they are sent."""
        return read

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

    def get(
        self,
        key: t.Key,
        *,
        read: t.ReadOptions = DEFAULT_READ,
        timeout_ms: int | None = None,
    ) -> t.Instance:
        """The record with its liveness and load; `NotFoundError` where there is none."""
        return self._call(calls.get(key, self._read(read)), timeout_ms)

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
        call = calls.list_page(filter, page_size, page_token, self._read(read))
        return self._call(call, timeout_ms)

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
        read = self._read(read)
        call = calls.discover(filter, region, limit, choices, explain, explain_names, read)
        return self._call(call, timeout_ms)
