"""Watches that break before they have told the whole state, or a whole difference."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from agniregistry import errors
from agniregistry import types as t
from agniregistry.client import AsyncClient, Client
from agniregistry.client._cache_core import CacheState
from agniregistry.config import RetryPolicy
from agniregistry.testing import FakeRegistry

QUICK = RetryPolicy(5, 1, 10)
RECORDS = 600
"""So many that a node needs several messages for them."""


class Breaking:
    """Opens streams that break: the first ones after so many messages, the others never."""

    def __init__(self, open_stream: Callable[[bytes], Any], *after: int) -> None:
        self._open = open_stream
        self._after = list(after)
        self.on_break: Callable[[], None] = lambda: None

    def __call__(self, request: bytes) -> Any:
        stream = self._open(request)
        if not self._after:
            return stream
        return Broken(stream, self._after.pop(0), self.on_break)


class Broken:
    """A stream that ends after so many messages, as a lost connection does."""

    def __init__(self, stream: Any, after: int, on_break: Callable[[], None]) -> None:
        self._stream = stream
        self._left = after
        self._on_break = on_break
        self.cancel = stream.cancel

    def _lost(self) -> errors.AgniError:
        self._stream.cancel()
        self._on_break()
        return errors.ConnectionFailedError("the connection was lost")

    def __iter__(self) -> Iterator[bytes]:
        for _, message in zip(range(self._left), self._stream, strict=False):
            yield message
        raise self._lost()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        left = self._left
        async for message in self._stream:
            yield message
            left -= 1
            if left == 0:
                break
        raise await asyncio.to_thread(self._lost)


@pytest.fixture(params=["fake", "node"])
def where(request: pytest.FixtureRequest) -> str:
    """The address of a fake, and of a node."""
    if request.param == "fake":
        address: str = request.getfixturevalue("address")
        return address
    return str(request.getfixturevalue("node_process").address)


@pytest.fixture
def filled(where: str, request: pytest.FixtureRequest) -> Iterator[tuple[Client, t.Filter]]:
    """A namespace with many records, and a client of it."""
    namespace = "".join(filter(str.isalnum, request.node.name))
    spec = t.Spec(region="eu")
    keys = [t.Key.agent(f"n{number}", namespace) for number in range(RECORDS)]
    with Client(where, retry=QUICK) as client:
        client.batch([t.RegisterOperation(key, spec) for key in keys])
        yield client, t.Filter(namespace=namespace)


def change_some(client: Client, wanted: t.Filter) -> Callable[[], None]:
    """Removes a record that was told already, and makes another one."""
    numbers = iter(range(100))

    def change() -> None:
        number = next(numbers)
        client.deregister(t.Key.agent(f"n{number}", wanted.namespace))
        client.put(t.Key.agent(f"late{number}", wanted.namespace), t.Spec(region="eu"))

    return change


def names(client: Client, wanted: t.Filter) -> set[str]:
    """What is there."""
    return {each.key.name for each in client.list_all(wanted)}


def names_in(state: CacheState) -> set[str]:
    """What a copy holds."""
    return {key.name for key in state.records}


@pytest.mark.parametrize("after", [(1,), (2,), (3, 2, 1)])
def test_a_state_that_breaks_begins_anew(
    filled: tuple[Client, t.Filter], after: tuple[int, ...]
) -> None:
    client, wanted = filled
    with client.watch(wanted, include_current=True) as watch:
        watch._open = opened = Breaking(watch._open, *after)
        opened.on_break = change_some(client, wanted)
        state, starts = CacheState(), 0
        for item in watch:
            assert bool(watch.resume_token) is isinstance(item, t.Synced)
            state.apply(item, 0.0)
            starts += isinstance(item, t.Started)
            if isinstance(item, t.Synced):
                break
        assert starts == 1 + len(after)
        assert names_in(state) == names(client, wanted)
        client.put(t.Key.agent("live", wanted.namespace), t.Spec(region="eu"))
        assert next(watch.changes()).key.name == "live"


@pytest.mark.parametrize("after", [(1,), (2,), (3, 2, 1)])
async def test_async_a_state_that_breaks_begins_anew(
    filled: tuple[Client, t.Filter], where: str, after: tuple[int, ...]
) -> None:
    writer, wanted = filled
    async with AsyncClient(where, retry=QUICK) as client:
        watch = client.watch(wanted, include_current=True)
        watch._open = opened = Breaking(watch._open, *after)
        opened.on_break = change_some(writer, wanted)
        state = CacheState()
        async with asyncio.timeout(20):
            async for item in watch:
                assert bool(watch.resume_token) is isinstance(item, t.Synced)
                state.apply(item, 0.0)
                if isinstance(item, t.Synced):
                    break
        await watch.aclose()
    assert names_in(state) == names(writer, wanted)


@pytest.mark.parametrize("after", [(1,), (2,), (3, 2, 1)])
def test_a_cache_whose_watch_breaks_gets_its_state(
    filled: tuple[Client, t.Filter], monkeypatch: pytest.MonkeyPatch, after: tuple[int, ...]
) -> None:
    client, wanted = filled
    watch_of = client.watch

    def broken(*args: Any, **kwargs: Any) -> Any:
        watch = watch_of(*args, **kwargs)
        watch._open = opened = Breaking(watch._open, *after)
        opened.on_break = change_some(client, wanted)
        return watch

    monkeypatch.setattr(client, "watch", broken)
    with client.cache(wanted) as cache:
        cache.wait_synced()
        assert {record.key.name for record in cache.list()} == names(client, wanted)


async def test_async_a_cache_whose_watch_breaks_gets_its_state(
    filled: tuple[Client, t.Filter], where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer, wanted = filled
    async with AsyncClient(where, retry=QUICK) as client:
        watch_of = client.watch

        def broken(*args: Any, **kwargs: Any) -> Any:
            watch = watch_of(*args, **kwargs)
            watch._open = opened = Breaking(watch._open, 3, 2, 1)
            opened.on_break = change_some(writer, wanted)
            return watch

        monkeypatch.setattr(client, "watch", broken)
        async with client.cache(wanted) as cache:
            await cache.wait_synced()
            found = {record.key.name for record in cache.list()}
    assert found == names(writer, wanted)


def late_watch(small: FakeRegistry[Any], client: Client) -> bytes:
    """A token that is too old for a fake that remembers five changes."""
    for name in ("kept", "gone"):
        small.put(t.Key.agent(name), t.Spec(region="eu"))
    with client.watch() as watch:
        token = next(watch).resume_token
    small.deregister(t.Key.agent("gone"))
    for number in range(5):
        small.put(t.Key.agent(f"n{number}"), t.Spec(region="eu"))
    return token


def record(name: str) -> t.Record:
    """What a copy knew of an agent."""
    return t.Record(t.Key.agent(name), t.Spec(region="eu"), revision=1)


@pytest.mark.parametrize("after", [2, 3])
def test_a_difference_that_breaks_is_told_anew(after: int) -> None:
    with (
        FakeRegistry(history_max=5) as small,
        small.serve() as address,
        Client(address, retry=QUICK) as client,
    ):
        token = late_watch(small, client)
        state = CacheState()
        for name in ("kept", "gone"):
            state.apply(t.Change(t.EventType.PUT, t.Key.agent(name), 1, record=record(name)), 0.0)
        with client.watch(resume_token=token) as watch:
            watch._open = Breaking(watch._open, after)
            for item in watch:
                state.apply(item, 0.0)
                assert (watch.resume_token == token) is not isinstance(item, t.Synced)
                if isinstance(item, t.Synced):
                    break
        assert names_in(state) == {"kept", *(f"n{number}" for number in range(5))}


def test_a_difference_is_closed_by_a_node_that_remembers_each_change() -> None:
    """Another node may know more of the past: it sends changes, and no difference follows."""
    with (
        FakeRegistry(history_max=5) as small,
        small.serve() as address,
        Client(address, retry=QUICK) as client,
    ):
        token = late_watch(small, client)
        with client.watch(resume_token=token, progress_interval_ms=100) as watch:
            watch._open = opened = Breaking(watch._open, 3)
            forgotten = tuple(small._store.history)

            def remember() -> None:
                gone, revision = t.Key.agent("gone"), forgotten[0].revision - 1
                removal = t.Change(t.EventType.DEREGISTERED, gone, revision)
                small._store.history = deque([removal, *forgotten])

            opened.on_break = remember
            items = []
            for item in watch:
                items.append(item)
                if isinstance(item, t.Progress):
                    break
    kinds = [type(item) for item in items]
    again = kinds[kinds.index(t.Gap) + 1 :]
    assert again[again.index(t.Gap) : again.index(t.Gap) + 2] == [t.Gap, t.Synced]
