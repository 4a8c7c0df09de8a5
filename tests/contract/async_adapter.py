"""Drives `AsyncClient` from synchronous tests, over an event loop in a thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any

from agniregistry import types as t
from agniregistry.client import AsyncClient, AsyncWatch


class AsyncAdapter:
    """Has `Client`'s methods; each one awaits the async client's."""

    def __init__(self, target: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="async-adapter")
        self._thread.start()
        self._client = self._run(self._make(target))

    async def _make(self, target: str) -> AsyncClient:
        return AsyncClient(target)

    def _run(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(60)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._client, name)
        return lambda *args, **kwargs: self._run(method(*args, **kwargs))

    def list_all(self, *args: Any, **kwargs: Any) -> Iterator[t.Instance]:
        """All at once: the pages are what matters here."""

        async def collect() -> list[t.Instance]:
            return [instance async for instance in self._client.list_all(*args, **kwargs)]

        return iter(self._run(collect()))

    def watch(self, *args: Any, **kwargs: Any) -> WatchAdapter:
        """A watch whose items are awaited one by one."""

        async def make() -> AsyncWatch:
            return self._client.watch(*args, **kwargs)

        return WatchAdapter(self._run, self._run(make()))

    def close(self) -> None:
        """Closes the client and ends the loop."""
        self._run(self._client.aclose())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class WatchAdapter:
    """`Watch`, over an `AsyncWatch`."""

    def __init__(self, run: Callable[[Any], Any], watch: AsyncWatch) -> None:
        self._run = run
        self._watch = watch

    @property
    def resume_token(self) -> bytes:
        """As `Watch.resume_token`."""
        return self._watch.resume_token

    def __iter__(self) -> WatchAdapter:
        return self

    def __next__(self) -> t.WatchItem:
        async def item() -> t.WatchItem | None:
            return await anext(self._watch, None)

        found: t.WatchItem | None = self._run(item())
        if found is None:
            raise StopIteration
        return found

    def __enter__(self) -> WatchAdapter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """As `Watch.close`."""
        self._run(self._watch.aclose())
