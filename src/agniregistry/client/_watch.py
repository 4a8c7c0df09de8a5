"""A watch of the sync client: an iterator that resumes by itself.

Opening it is bounded by the client's timeout and retry policy, so that a wrong address is an
error and not silence. Once it has started, it resumes after every interruption, with growing
pauses, until it is closed: an outage is what a watch has to outlive. Only a refusal that
repeating can't cure ends it.
"""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any

import grpc

from agniregistry import types as t
from agniregistry.client._retry import Attempts, pause_ms
from agniregistry.client._watch_core import Course, WatchRequest, decode_message
from agniregistry.config import RetryPolicy, Timeout
from agniregistry.errors import AgniError, ConnectionFailedError

log = logging.getLogger("agniregistry.watch")

OpenStream = Callable[[bytes], Any]
"""Opens the stream for an encoded request: an iterator of bytes with `cancel()`."""


class Watch:
    """Iterates over a watch's items; a context manager; `close()` works from any thread."""

    def __init__(
        self,
        request: WatchRequest,
        open_stream: OpenStream,
        to_error: Callable[[grpc.RpcError], AgniError],
        retry: RetryPolicy,
        timeout: Timeout,
        on_close: Callable[[Watch], None],
    ) -> None:
        self._request = request
        self._open = open_stream
        self._to_error = to_error
        self._retry = retry
        self._timeout = timeout
        self._on_close = on_close
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._stream: Any = None
        self._course = Course(request)
        self._items = self._run()

    @property
    def resume_token(self) -> bytes:
        """Resumes right after everything that was yielded so far.

        Empty until the current state is whole (`Synced`), if that was asked for.
        """
        return self._course.token

    def __iter__(self) -> Iterator[t.WatchItem]:
        return self

    def __next__(self) -> t.WatchItem:
        return next(self._items)

    def changes(self) -> Iterator[t.Change]:
        """Only the changes, for whoever reacts to them and keeps no state."""
        return (item for item in self if isinstance(item, t.Change))

    def close(self) -> None:
        """Ends the watch and its iteration; safe to call twice."""
        with self._lock:
            already, stream = self._closed.is_set(), self._stream
            self._closed.set()
        if stream is not None:
            stream.cancel()
        if not already:
            self._on_close(self)

    def __enter__(self) -> Watch:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _run(self) -> Iterator[t.WatchItem]:
        course, failures = self._course, 0
        attempts = Attempts(self._retry, self._timeout)
        while not self._closed.is_set():
            try:
                for data in self._connect():
                    message = decode_message(data)
                    items = course.items(message)
                    failures = 0
                    yield from items[:-1]
                    course.passed(message)
                    yield from items[-1:]
                error: AgniError = ConnectionFailedError("the server ended the watch")
            except grpc.RpcError as failure:
                error = self._to_error(failure)
            except AgniError as failure:
                error = failure
            if self._closed.is_set():
                return
            failures += 1
            pause = self._pause_s(error, failures, None if course.started else attempts)
            if pause is None:
                self.close()
                raise error
            log.info("watch of %s resumes in %.3f s: %s", self._request.filter, pause, error)
            self._closed.wait(pause)

    def _pause_s(self, error: AgniError, failures: int, first: Attempts | None) -> float | None:
        if first is not None:
            return first.pause_s(error)
        if not error.retryable:
            return None
        return pause_ms(self._retry, failures, error.retry_delay_ms, random.random()) / 1000

    def _connect(self) -> Any:
        with self._lock:
            if self._closed.is_set():
                return ()
            self._stream = self._open(self._course.next_request())
            return self._stream
