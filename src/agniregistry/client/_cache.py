"""`Cache`: a local copy of matching records, kept by a watch in a thread, with a known age.

Reads never wait and never fail: they answer from memory, also while the registry is away. The
cache says how old its knowledge may be, and calls itself stale beyond a bound.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from types import TracebackType

from agniregistry import types as t
from agniregistry.client._cache_core import CacheReads, CacheState, progress_interval_ms
from agniregistry.client._watch import Watch
from agniregistry.errors import AgniError, ClientClosedError, DeadlineExceededError

log = logging.getLogger("agniregistry.cache")


class Cache(CacheReads):
    """A context manager; `close()` ends the thread."""

    def __init__(
        self,
        open_watch: Callable[..., Watch],
        filter: t.Filter,
        max_age_ms: int,
        on_close: Callable[[Cache], None],
    ) -> None:
        super().__init__(max_age_ms)
        self._open_watch = open_watch
        self._filter = filter
        self._on_close = on_close
        self._changed = threading.Condition(self._lock)
        self._stopped = threading.Event()
        self._watch: Watch | None = None
        self._thread = threading.Thread(target=self._run, name="agniregistry-cache", daemon=True)
        self._thread.start()

    def wait_synced(self, timeout_ms: int = 10_000) -> Cache:
        """Waits until the first complete state is here."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._state.synced or self._stopped.is_set() or self._error is not None,
                timeout_ms / 1000,
            )
            if self._stopped.is_set():
                raise ClientClosedError("the cache is closed")
            if self._state.synced:
                return self
            if self._error is not None:
                raise self._error
        raise DeadlineExceededError(f"the cache did not get its state within {timeout_ms} ms")

    def close(self) -> None:
        """Ends the watch and its thread; what is known can still be read."""
        self._stopped.set()
        with self._changed:
            watch = self._watch
            self._changed.notify_all()
        if watch is not None:
            watch.close()
        if self._thread is not threading.current_thread():
            self._thread.join()
        self._on_close(self)

    def __enter__(self) -> Cache:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _run(self) -> None:
        """Keeps a watch open; a watch that ends for good is followed by a fresh one."""
        while not self._stopped.is_set():
            try:
                self._follow()
            except AgniError as error:
                with self._changed:
                    self._error = error
                    self._changed.notify_all()
                if self._stopped.is_set():
                    return
                log.warning("the cache's watch ended and is opened again: %s", error)
                self._stopped.wait(1.0 if error.retryable else 5.0)

    def _follow(self) -> None:
        with self._changed:
            if self._stopped.is_set():
                return
            fresh = CacheState(gaps=self._state.gaps)
            self._watch = watch = self._open_watch(
                self._filter,
                include_current=True,
                progress_interval_ms=progress_interval_ms(self.max_age_ms),
            )
        with watch:
            for item in watch:
                with self._changed:
                    fresh.apply(item, time.monotonic())
                    if fresh.synced:
                        # Until a new watch has everything, the old state is the better one.
                        self._state, self._error = fresh, None
                    self._changed.notify_all()
