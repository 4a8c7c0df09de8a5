"""The local cache: current, honest about its age, correct after gaps and outages."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from agniregistry import errors
from agniregistry import types as t
from agniregistry.client import AsyncClient, Client
from agniregistry.client._cache_core import CacheState, matches
from agniregistry.config import RetryPolicy
from agniregistry.testing import FakeRegistry

AGENT = t.Spec(region="eu", labels={"tier": "edge"})


def test_it_follows_the_registry(fake: Any, client: Client, eventually: Any) -> None:
    fake.put(t.Key.agent("a"), AGENT)
    with client.cache(t.Filter(kind=t.Kind.AGENT)) as cache:
        cache.wait_synced()
        assert not cache.stale
        assert cache.age_ms is not None
        assert cache.age_ms < 5000
        found = cache.get(t.Key.agent("a"))
        assert found is not None
        assert found.spec == AGENT
        fake.put(t.Key.agent("b"), t.Spec(region="us"))
        fake.deregister(t.Key.agent("a"))
        eventually(lambda: {r.key.name for r in cache.list()} == {"b"})
        assert cache.list(t.Filter(regions=("eu",))) == ()
        assert cache.get(t.Key.agent("a")) is None
    assert {record.key.name for record in cache.list()} == {"b"}


def test_an_expiry_reaches_it(fake: Any, client: Client, eventually: Any) -> None:
    fake.put(t.Key.agent("a"), AGENT, ttl_ms=1000)
    with client.cache() as cache:
        cache.wait_synced()
        assert cache.get(t.Key.agent("a")) is not None
        eventually(lambda: cache.get(t.Key.agent("a")) is None)


def test_it_answers_and_calls_itself_stale_while_the_registry_is_away(
    fake: Any, eventually: Any
) -> None:
    fake.put(t.Key.agent("a"), AGENT)
    with fake.serve() as address:
        client = Client(address, retry=RetryPolicy(3, 5, 50))
        cache = client.cache(max_age_ms=300).wait_synced()
        for _ in range(3):
            assert not cache.stale
    eventually(lambda: cache.stale)
    assert cache.get(t.Key.agent("a")) is not None
    assert cache.age_ms is not None
    assert cache.age_ms > 300
    fake.put(t.Key.agent("b"), AGENT)
    with client, fake.serve(address):
        eventually(lambda: cache.get(t.Key.agent("b")) is not None and not cache.stale)


def test_a_gap_drops_what_is_gone(eventually: Any) -> None:
    with FakeRegistry(history_max=2) as small:
        for name in ("kept", "gone", "changed"):
            small.put(t.Key.agent(name), AGENT)
        with small.serve() as address:
            client = Client(address, retry=RetryPolicy(3, 5, 50))
            cache = client.cache().wait_synced()
        small.deregister(t.Key.agent("gone"))
        for number in range(4):
            small.put(t.Key.agent("changed"), t.Spec(region=f"r{number}"))
        with client, small.serve(address):
            eventually(lambda: cache.get(t.Key.agent("gone")) is None and cache.synced)
            assert {record.key.name for record in cache.list()} == {"kept", "changed"}
            changed = cache.get(t.Key.agent("changed"))
            assert changed is not None
            assert changed.spec.region == "r3"


def test_nobody_to_ask_is_an_error_for_who_waits() -> None:
    with Client("127.0.0.1:1", retry=RetryPolicy(2, 1, 5)) as client, client.cache() as cache:
        with pytest.raises(errors.ConnectionFailedError):
            cache.wait_synced()
        assert cache.stale
        assert cache.age_ms is None
        assert isinstance(cache.error, errors.ConnectionFailedError)


def test_older_changes_never_overwrite_newer_ones() -> None:
    state = CacheState()
    key = t.Key.agent("a")

    def change(revision: int, kind: t.EventType = t.EventType.PUT) -> t.Change:
        record = t.Record(key, AGENT, revision=revision)
        return t.Change(kind, key, revision, record=record if kind is t.EventType.PUT else None)

    state.apply(t.Started(), 0.0)
    state.apply(change(5), 1.0)
    state.apply(change(3), 2.0)
    assert state.records[key].revision == 5
    state.apply(t.Synced(), 3.0)
    state.apply(change(6, t.EventType.EXPIRED), 4.0)
    assert not state.records
    assert state.heard == 4.0


@pytest.mark.parametrize(
    ("wanted", "fits"),
    [
        (t.Filter(), True),
        (t.Filter(kind=t.Kind.GATEWAY), False),
        (t.Filter(namespace="*"), True),
        (t.Filter(namespace="x"), False),
        (t.Filter(regions=("us", "eu")), True),
        (t.Filter(labels={"tier": ""}), True),
        (t.Filter(labels={"tier": "core"}), False),
        (t.Filter(min_capacity=t.Capacity(cpu=1)), False),
        (t.Filter(statuses=(t.Status.DRAINING,)), False),
        (t.Filter(statuses=(t.Status.SUSPECT,)), True),
        (t.Filter(name_prefix="a"), True),
        (t.Filter(gateway="g"), False),
    ],
)
def test_local_filters(wanted: t.Filter, fits: bool) -> None:
    assert matches(t.Record(t.Key.agent("abc"), AGENT), wanted) is fits


async def test_async_cache(fake: Any, address: str) -> None:
    fake.put(t.Key.agent("a"), AGENT)
    async with AsyncClient(address) as client, client.cache() as cache:
        await cache.wait_synced()
        assert cache.get(t.Key.agent("a")) is not None
        fake.put(t.Key.agent("b"), AGENT)
        async with asyncio.timeout(10):
            while cache.get(t.Key.agent("b")) is None:
                await asyncio.sleep(0.01)
        assert not cache.stale
    assert len(cache.list()) == 2
