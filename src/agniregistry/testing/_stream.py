"""The fake's watches: a cursor in the history, resume tokens, and differences after gaps."""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from agniregistry import types as t
from agniregistry.client._cache_core import matches
from agniregistry.client._watch_core import WatchRequest
from agniregistry.errors import (
    AgniError,
    ResumeTokenForeignError,
    ResumeTokenInvalidError,
    ShuttingDownError,
)
from agniregistry.testing import _validate as validate
from agniregistry.testing._store import Store, seen_through

if TYPE_CHECKING:
    from agniregistry.testing._fake import FakeRegistry

_TOKEN = struct.Struct(">4s16sQ")
_MAGIC = b"FAKE"
_PAGE_RECORDS = 500
"""Records in a message of the current state, at most; as a node has it."""


def make_token(cluster: bytes, revision: int) -> bytes:
    """Resumes after this revision, in this cluster."""
    return _TOKEN.pack(_MAGIC, cluster, revision)


def read_token(token: bytes, cluster: bytes, newest: int) -> int:
    """The revision to go on after."""
    field = "resume_token"
    try:
        magic, owner, revision = _TOKEN.unpack(token)
    except struct.error:
        magic, owner, revision = b"", b"", 0
    if magic != _MAGIC:
        message = "resume_token can't be read, start without one"
        raise ResumeTokenInvalidError(message, field=field)
    if owner != cluster:
        message = "resume_token is of another cluster, start without one"
        raise ResumeTokenForeignError(message, field=field)
    if revision > newest:
        message = "resume_token is ahead of this cluster, start without one"
        raise ResumeTokenInvalidError(message, field=field)
    return int(revision)


class Stream:
    """One watch. Iterates over messages; blocks while there are none; `cancel()` ends it."""

    def __init__(self, registry: FakeRegistry[Any], store: Store, request: WatchRequest) -> None:
        self._registry = registry
        self._store = store
        self._filter = validate.watched(request.filter)
        self._previous = request.include_previous
        self._interval_ms = validate.progress(request.progress_interval_ms)
        self._ready: deque[t.WatchMessage] = deque()
        self._cancelled = False
        self._error: AgniError | None = None
        self._cursor = store.revision
        if request.resume_token:
            self._cursor = read_token(request.resume_token, registry.cluster_bytes, store.revision)
        if request.include_current and not request.resume_token:
            self._send_current()
        else:
            self._say(t.WatchPhase.CREATED)
        self._progress_at = registry.clock.now_ms() + self._interval_ms

    def cancel(self) -> None:
        """Ends the iteration."""
        with self._registry.changed:
            self._cancelled = True
            self._registry.changed.notify_all()

    def interrupt(self, error: AgniError) -> None:
        """Breaks the watch as a lost connection would."""
        with self._registry.changed:
            self._error = error
            self._registry.changed.notify_all()

    def __iter__(self) -> Iterator[t.WatchMessage]:
        return self

    def __next__(self) -> t.WatchMessage:
        registry = self._registry
        with registry.changed:
            while True:
                registry.expire_due()
                if self._cancelled:
                    raise StopIteration
                if self._error is not None:
                    raise self._error
                if registry.closed:
                    raise ShuttingDownError("the fake registry was closed")
                self._collect()
                if self._ready:
                    self._progress_at = registry.clock.now_ms() + self._interval_ms
                    return self._ready.popleft()
                due = self._store.next_due_ms()
                wake = self._progress_at if due is None else min(due, self._progress_at)
                pause = registry.clock.pause_ms(wake)
                registry.changed.wait(None if pause is None else pause / 1000)

    def _collect(self) -> None:
        """Takes what happened since the cursor, or says that nothing did."""
        store = self._store
        if self._cursor < store.revision and not self._ready:
            oldest = store.history[0].revision if store.history else store.revision + 1
            if self._cursor + 1 < oldest:
                self._send_difference()
                return
            seen = [
                self._dressed(shown)
                for change in store.history
                if change.revision > self._cursor
                and (shown := seen_through(change, self._filter)) is not None
            ]
            self._cursor = store.revision
            if seen:
                self._say(t.WatchPhase.LIVE, tuple(seen))
        elif not self._ready and self._registry.clock.now_ms() >= self._progress_at:
            self._say(t.WatchPhase.PROGRESS)

    def _dressed(self, change: t.Change) -> t.Change:
        if self._previous:
            return change
        return t.Change(
            type=change.type,
            key=change.key,
            revision=change.revision,
            partition=change.partition,
            record=change.record,
            created=change.created,
        )

    def _matching(self) -> list[t.Record]:
        instances = self._store.instances()
        return [i.record for i in instances if matches(i.record, self._filter)]

    def _send_current(self) -> None:
        """Without a token until it is whole: resuming in the middle would leave out the rest."""
        self._ready.append(t.WatchMessage(phase=t.WatchPhase.CREATED))
        records = self._matching()
        for start in range(0, len(records), _PAGE_RECORDS):
            changes = tuple(_as_change(record) for record in records[start : start + _PAGE_RECORDS])
            self._ready.append(t.WatchMessage(phase=t.WatchPhase.SYNC, changes=changes))
        self._say(t.WatchPhase.SYNCED)

    def _send_difference(self) -> None:
        after = self._cursor
        self._say(t.WatchPhase.GAP)
        # Until the difference is whole, a token must lead back to its beginning.
        self._cursor = self._store.revision
        records = self._matching()
        self._ready.append(
            t.WatchMessage(
                phase=t.WatchPhase.SYNC,
                changes=tuple(_as_change(r) for r in records if r.revision > after),
                present=tuple(r.key for r in records if r.revision <= after),
                present_complete=True,
            )
        )
        self._say(t.WatchPhase.SYNCED)

    def _say(self, phase: t.WatchPhase, changes: tuple[t.Change, ...] = ()) -> None:
        self._ready.append(t.WatchMessage(phase=phase, changes=changes, resume_token=self._token()))

    def _token(self) -> bytes:
        return make_token(self._registry.cluster_bytes, self._cursor)


def _as_change(record: t.Record) -> t.Change:
    return t.Change(
        type=t.EventType.PUT,
        key=record.key,
        revision=record.revision,
        record=record,
        live=False,
    )
