"""`AsyncCache`: `_cache.Cache` for the async client, with a task for a thread."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from types import TracebackType

from agniregistry import types as t
from agniregistry.client._async_watch import AsyncWatch
from agniregistry.client._cache_core import CacheReads, CacheState, progress_interval_ms
from agniregistry.errors import AgniError, ClientClosedError, DeadlineExceededError

log = logging.getLogger("agniregistry.cache")


class AsyncCache(CacheReads):
    """An async context manager; reads are plain calls, for they never wait."""

    def __init__(
        self,
        open_watch: Callable[..., AsyncWatch],
        filter: t.Filter,
        max_age_ms: int,
        on_close: Callable[[AsyncCache], None],
    ) -> None:
        super().__init__(max_age_ms)
        self._open_watch = open_watch
        self._filter = filter
        self._on_close = on_close
        self._told = asyncio.Event()
        self._task = asyncio.create_task(self._run(), name="agniregistry-cache")

    async def wait_synced(self, timeout_ms: int = 10_000) -> AsyncCache:
        """Waits until the first complete state is here."""
        try:
            await asyncio.wait_for(self._told.wait(), timeout_ms / 1000)
        except TimeoutError as error:
            raise DeadlineExceededError(
                f"the cache did not get its state within {timeout_ms} ms"
            ) from error
        if self.synced:
            return self
        raise self._error or ClientClosedError("the cache is closed")

    async def aclose(self) -> None:
        """Ends the watch and its task; what is known can still be read."""
        self._task.cancel()
        if self._task is not asyncio.current_task():
            await asyncio.gather(self._task, return_exceptions=True)
        self._told.set()
        self._on_close(self)

    async def __aenter__(self) -> AsyncCache:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def _run(self) -> None:
        """Keeps a watch open; a watch that ends for good is followed by a fresh one."""
        while True:
            try:
                await self._follow()
                return
            except AgniError as error:
                self._error = error
                self._told.set()
                if isinstance(error, ClientClosedError):
                    return
                log.warning("the cache's watch ended and is opened again: %s", error)
                await asyncio.sleep(1.0 if error.retryable else 5.0)

    async def _follow(self) -> None:
        fresh = CacheState(gaps=self._state.gaps)
        watch = self._open_watch(
            self._filter,
            include_current=True,
            progress_interval_ms=progress_interval_ms(self.max_age_ms),
        )
        async with watch:
            async for item in watch:
                with self._lock:
                    fresh.apply(item, time.monotonic())
                    if fresh.synced:
                        # Until a new watch has everything, the old state is the better one.
                        self._state, self._error = fresh, None
                if fresh.synced:
                    self._told.set()
