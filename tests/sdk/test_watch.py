"""Watches that resume by themselves: over broken streams, restarted servers, and gaps."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from agniregistry import errors
from agniregistry import types as t
from agniregistry.client import AsyncClient, Client
from agniregistry.config import RetryPolicy
from agniregistry.testing import FakeRegistry

AGENT = t.Spec(region="eu")


def put(registry: Any, number: int) -> None:
    """Registers the nth agent."""
    registry.put(t.Key.agent(f"n{number}"), AGENT)


def test_broken_streams_leave_neither_gap_nor_repeat(fake: Any, client: Client) -> None:
    names = []
    with client.watch() as watch:
        assert isinstance(next(watch), t.Started)
        for number in range(30):
            put(fake, number)
            if number % 5 == 0:
                fake.break_watches()
            item = next(watch)
            assert isinstance(item, t.Change)
            names.append(item.key.name)
    assert names == [f"n{number}" for number in range(30)]


def test_a_restarted_server_is_resumed_on(fake: Any) -> None:
    with fake.serve() as address:
        client = Client(address, retry=RetryPolicy(3, 5, 50))
        watch = client.watch()
        next(watch)
        put(fake, 0)
        assert next(watch).key.name == "n0"
    put(fake, 1)
    with client, fake.serve(address):
        put(fake, 2)
        assert [next(watch).key.name for _ in range(2)] == ["n1", "n2"]


def test_a_gap_is_said_and_closed_by_a_difference() -> None:
    with FakeRegistry(history_max=3) as small, small.serve() as address, Client(address) as mine:
        for number in range(4):
            put(small, number)
        with mine.watch() as watch:
            token = next(watch).resume_token
        small.deregister(t.Key.agent("n0"))
        for number in range(1, 3):
            small.put(t.Key.agent(f"n{number}"), t.Spec(region="us"))
        for number in range(4, 9):
            put(small, number)
        with mine.watch(resume_token=token) as watch:
            items = [next(watch) for _ in range(11)]
            put(small, 9)
            live = next(watch)
    kinds = [type(item) for item in items]
    assert kinds == [t.Started, t.Gap, *[t.Change] * 7, t.Present, t.Synced]
    changed = {item.key.name for item in items if isinstance(item, t.Change)}
    assert changed == {"n1", "n2", "n4", "n5", "n6", "n7", "n8"}
    present = items[-2]
    assert isinstance(present, t.Present)
    assert {key.name for key in present.keys} == {"n3"}
    assert isinstance(live, t.Change)
    assert live.live


def test_a_token_resumes_after_what_was_yielded(fake: Any, client: Client) -> None:
    put(fake, 0)
    with client.watch(include_current=True) as watch:
        while not isinstance(next(watch), t.Synced):
            pass
        put(fake, 1)
        next(watch)
        token = watch.resume_token
    put(fake, 2)
    with client.watch(resume_token=token) as watch:
        assert next(watch.changes()).key.name == "n2"


def test_a_foreign_token_ends_the_watch(client: Client) -> None:
    with (
        FakeRegistry() as other,
        other.serve() as address,
        Client(address) as theirs,
        theirs.watch() as foreign,
    ):
        token = next(foreign).resume_token
    watch = client.watch(resume_token=token)
    with pytest.raises(errors.ResumeTokenForeignError):
        next(watch)
    assert list(watch) == []


def test_a_watch_of_nobody_fails_instead_of_waiting() -> None:
    with (
        Client("127.0.0.1:1", retry=RetryPolicy(2, 1, 5)) as client,
        pytest.raises(errors.ConnectionFailedError),
    ):
        next(client.watch())


def test_closing_from_another_thread_ends_the_iteration(client: Client, fake: Any) -> None:
    watch = client.watch()
    next(watch)
    ended = threading.Event()

    def read() -> None:
        for _ in watch:
            pass
        ended.set()

    thread = threading.Thread(target=read)
    thread.start()
    watch.close()
    assert ended.wait(10)
    thread.join()


def test_closing_the_client_ends_its_watches(address: str) -> None:
    client = Client(address)
    watch = client.watch()
    next(watch)
    client.close()
    assert list(watch) == []


async def test_async_broken_streams(fake: Any, address: str) -> None:
    async with AsyncClient(address, retry=RetryPolicy(3, 1, 10)) as client:
        names = []
        async with client.watch() as watch:
            assert isinstance(await anext(watch), t.Started)
            for number in range(20):
                await asyncio.to_thread(put, fake, number)
                if number % 5 == 0:
                    await asyncio.to_thread(fake.break_watches)
                item = await anext(watch)
                assert isinstance(item, t.Change)
                names.append(item.key.name)
        assert names == [f"n{number}" for number in range(20)]
        assert [item async for item in watch] == []


async def test_async_a_cancelled_reader_is_cancelled(fake: Any, address: str) -> None:
    async with AsyncClient(address) as client:
        watch = client.watch()
        await anext(watch)
        task = asyncio.create_task(anext(watch))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await watch.aclose()
