"""A watch of the async client; behaves as `_watch.Watch` does, which explains it."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import Any

import grpc

from agniregistry import types as t
from agniregistry.client._retry import Attempts, pause_ms
from agniregistry.client._watch_core import Course, WatchRequest, decode_message
from agniregistry.config import RetryPolicy, Timeout
from agniregistry.errors import AgniError, ConnectionFailedError

log = logging.getLogger("agniregistry.watch")


class AsyncWatch:
    """Iterates over a watch's items; an async context manager."""

    def __init__(
        self,
        request: WatchRequest,
        open_stream: Callable[[bytes], Any],
        to_error: Callable[[grpc.RpcError], AgniError],
        retry: RetryPolicy,
        timeout: Timeout,
        on_close: Callable[[AsyncWatch], None],
    ) -> None:
        self._request = request
        self._open = open_stream
        self._to_error = to_error
        self._retry = retry
        self._timeout = timeout
        self._on_close = on_close
        self._closed = asyncio.Event()
        self._stream: Any = None
        self._course = Course(request)
        self._items = self._run()

    @property
    def resume_token(self) -> bytes:
        """Resumes right after everything that was yielded so far.

        Empty until the current state is whole (`Synced`), if that was asked for.
        """
        return self._course.token

    def __aiter__(self) -> AsyncIterator[t.WatchItem]:
        return self

    async def __anext__(self) -> t.WatchItem:
        return await anext(self._items)

    async def changes(self) -> AsyncIterator[t.Change]:
        """Only the changes, for whoever reacts to them and keeps no state."""
        async for item in self:
            if isinstance(item, t.Change):
                yield item

    async def aclose(self) -> None:
        """Ends the watch and its iteration; safe to call twice."""
        if not self._closed.is_set():
            self._closed.set()
            self._on_close(self)
        if self._stream is not None:
            self._stream.cancel()

    async def __aenter__(self) -> AsyncWatch:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def _run(self) -> AsyncIterator[t.WatchItem]:
        course, failures = self._course, 0
        attempts = Attempts(self._retry, self._timeout)
        while not self._closed.is_set():
            try:
                self._stream = self._open(course.next_request())
                async for data in self._stream:
                    message = decode_message(data)
                    items = course.items(message)
                    failures = 0
                    for item in items[:-1]:
                        yield item
                    course.passed(message)
                    for item in items[-1:]:
                        yield item
                error: AgniError = ConnectionFailedError("the server ended the watch")
            except grpc.RpcError as failure:
                error = self._to_error(failure)
            except AgniError as failure:
                error = failure
            except asyncio.CancelledError:
                if self._closed.is_set() and not being_cancelled():
                    return  # gRPC raises this out of a stream that `aclose` has cancelled.
                raise
            if self._closed.is_set():
                return
            failures += 1
            pause = self._pause_s(error, failures, None if course.started else attempts)
            if pause is None:
                await self.aclose()
                raise error
            log.info("watch of %s resumes in %.3f s: %s", self._request.filter, pause, error)
            await self._wait(pause)

    def _pause_s(self, error: AgniError, failures: int, first: Attempts | None) -> float | None:
        if first is not None:
            return first.pause_s(error)
        if not error.retryable:
            return None
        return pause_ms(self._retry, failures, error.retry_delay_ms, random.random()) / 1000

    async def _wait(self, pause: float) -> None:
        try:
            await asyncio.wait_for(self._closed.wait(), pause)
        except TimeoutError:
            return


def being_cancelled() -> bool:
    """Whether somebody cancelled this task, rather than gRPC the call that it awaits."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
