"""`Session`: reads and writes after which nothing older is shown, whichever replica answers.

A stale read may come from any replica, and two replicas may be at different revisions. A session
remembers the highest revision of each partition that an answer of its own has shown, and asks
stale reads for at least that. So its reads never go back, and show its own writes. It costs a few
bytes a partition; a replica that is behind passes the read on to one that is not.
"""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Protocol, TypeVar

from agniregistry import types as t
from agniregistry.client import _calls as calls
from agniregistry.client._sync_calls import DataCalls
from agniregistry.errors import NotFoundError

T = TypeVar("T")


class Seen:
    """The highest revision of each partition that was shown. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._cluster_id = ""
        self._revisions: dict[int, int] = {}

    def demand(self, read: t.ReadOptions) -> t.ReadOptions:
        """The options with what was seen, where the read may be stale."""
        if read.consistency is not t.Consistency.STALE:
            return read
        with self._lock:
            wanted = dict(self._revisions)
        for partition, revision in read.at_least.items():
            wanted[partition] = max(revision, wanted.get(partition, 0))
        return replace(read, at_least=wanted)

    def see(self, answer: object) -> None:
        """Takes an answer of whatever type; one of another registry begins anew."""
        headers = (getattr(answer, "header", None), *getattr(answer, "headers", ()))
        with self._lock:
            for header in headers:
                if header is None:
                    continue
                if header.cluster_id != self._cluster_id:
                    self._cluster_id = header.cluster_id
                    self._revisions.clear()
                if header.revision > self._revisions.get(header.partition, 0):
                    self._revisions[header.partition] = header.revision
        if isinstance(answer, tuple):
            for part in answer:
                self.see(part)

    def see_missing(self, error: NotFoundError) -> None:
        """Takes "there is none", which shows a state as well."""
        partition, revision = (error.metadata.get(each, "") for each in ("partition", "revision"))
        if partition.isdigit() and revision.isdigit():
            self.see(t.Updated(0, t.Header(self._cluster_id, int(partition), int(revision))))


class SendCall(Protocol):
    """What sends a call for a session."""

    def __call__(self, call: calls.Call[T], timeout_ms: int | None, /) -> T:
        """Sends it until it is answered."""
        ...


class Session(DataCalls):
    """Reads and writes as the client's, remembering what they have shown; never to be closed.

    Threads that share a session share what it has seen.
    """

    def __init__(self, send: SendCall) -> None:
        self._send = send
        self._seen = Seen()

    def _call(self, call: calls.Call[T], timeout_ms: int | None) -> T:
        try:
            answer = self._send(call, timeout_ms)
        except NotFoundError as error:
            self._seen.see_missing(error)
            raise
        self._seen.see(answer)
        return answer

    def _read(self, read: t.ReadOptions) -> t.ReadOptions:
        return self._seen.demand(read)
