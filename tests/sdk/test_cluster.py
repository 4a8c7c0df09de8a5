"""The SDK against three real nodes, any of which ends under load: nobody's call fails."""

from __future__ import annotations

import asyncio
import re
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from loopback_cluster import ClusterNode, ThreeNodes, wait_until

from agniregistry import types as t
from agniregistry.client import AsyncClient, Client
from agniregistry.errors import AgniError

AGENT = t.Spec(region="eu")
STALE = t.ReadOptions(t.Consistency.STALE, max_staleness_ms=60_000)


class Load:
    """Threads that write and read as fast as they are answered; notes what failed."""

    def __init__(self, client: Client, name: str, threads: int = 4) -> None:
        self.client = client
        self.calls = 0
        self.failures: list[str] = []
        self._name = name
        self._ended = threading.Event()
        self._threads = [
            threading.Thread(target=self._work, args=(number,)) for number in range(threads)
        ]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def more(self, count: int = 100) -> None:
        """Waits until so many more calls have ended."""
        wanted = self.calls + count
        wait_until(f"{count} more calls end", lambda: self.calls >= wanted)

    def _work(self, number: int) -> None:
        turn = 0
        while not self._ended.wait(0.002):
            turn += 1
            key = t.Key.agent(f"{self._name}-{number}-{turn % 20}")
            self._note(lambda: self.client.put(key, AGENT, incarnation=turn), "put")  # noqa: B023
            found = self._note(lambda: self.client.get(key), "get")  # noqa: B023
            if found is not None and found.record.incarnation != turn:
                self.failures.append(f"{key} shows {found.record.incarnation}, not {turn}")
            self._note(lambda: self.client.get(key, read=STALE), "stale get")  # noqa: B023
            if turn % 10 == 0:
                self._note(lambda: self.client.list(page_size=5), "list")

    def _note(self, call: Callable[[], Any], what: str) -> Any:
        began = time.monotonic()
        try:
            return call()
        except AgniError as error:
            if error.reason != "NOT_FOUND" or what != "stale get":
                took = time.monotonic() - began
                self.failures.append(f"{what} failed after {took:.2f} s: {error}")
        finally:
            self.calls += 1


def reads_of(node: ClusterNode) -> int:
    """How many Get calls a node has answered, by its own count."""
    lines = re.findall(r"^agni_rpc_total\{.*\bGet\b.*\} (\d+)", node.text("/metrics"), re.MULTILINE)
    return sum(map(int, lines))


def endpoints_up(client: Client | AsyncClient) -> int:
    """How many nodes a client has reached."""
    return sum(each.is_up for each in client._router.endpoints)


def learn(client: Client) -> None:
    """Calls until every node is reached."""

    def reached() -> bool:
        for number in range(20):
            client.put(t.Key.agent(f"learn-{number}"), AGENT)
        return endpoints_up(client) == 3

    wait_until("all three are reached", reached)


@pytest.mark.parametrize("victim", range(3))
def test_any_node_may_be_killed_and_no_call_fails(cluster: ThreeNodes, victim: int) -> None:
    with (
        Client(cluster.addresses) as client,
        Load(client, f"kill-{victim}") as load,
    ):
        load.more(300)
        cluster.nodes[victim].kill()
        load.more(600)
        cluster.nodes[victim].start()
        wait_until("it is back", lambda: cluster.nodes[victim].get("/readyz"))
        load.more(300)
    assert not load.failures


def test_whoever_knows_one_node_learns_of_the_others(cluster: ThreeNodes) -> None:
    with Client(cluster.addresses[0]) as client, Load(client, "one-target") as load:
        wait_until("all three are reached", lambda: endpoints_up(client) == 3)
        cluster.nodes[0].kill()
        load.more(600)
    assert not load.failures


def test_who_is_killed_first_does_not_matter_to_a_list_of_targets(cluster: ThreeNodes) -> None:
    cluster.nodes[1].kill()
    for order in (cluster.addresses, cluster.addresses[::-1]):
        with Client(",".join(order)) as client:
            for number in range(20):
                client.put(t.Key.agent(f"first-{number}"), AGENT)


def test_a_node_that_is_stopped_for_a_while_fails_no_call(cluster: ThreeNodes) -> None:
    """It keeps its connections and says nothing: only patience can tell."""
    with Client(cluster.addresses[1:]) as client, Load(client, "pause") as load:
        learn(client)
        with cluster.nodes[0].paused():
            load.more(600)
        load.more(300)
        with cluster.nodes[1].paused():
            load.more(600)
        load.more(300)
    assert not load.failures


def test_a_sessions_stale_reads_show_its_writes_and_never_go_back(cluster: ThreeNodes) -> None:
    with Client(cluster.addresses) as client:
        learn(client)
        session = client.session()
        asked: set[int] = set()
        for turn in range(1, 301):
            key = t.Key.agent(f"session-{turn % 7}")
            session.put(key, AGENT, incarnation=turn)
            found = session.get(key, read=STALE)
            assert found.record.incarnation == turn
            page = session.list(t.Filter(name_prefix="session-"), read=STALE)
            assert max(each.record.incarnation for each in page.instances) == turn
            asked.update(id(each) for each in client._router.endpoints if each.is_up)
        assert len(asked) == 3


async def test_an_async_session_shows_its_writes(cluster: ThreeNodes) -> None:
    async with AsyncClient(cluster.addresses) as client:
        session = client.session()
        for turn in range(1, 101):
            key = t.Key.agent(f"async-session-{turn % 7}")
            await session.put(key, AGENT, incarnation=turn)
            assert (await session.get(key, read=STALE)).record.incarnation == turn


def test_stale_reads_stay_in_the_zone_that_is_asked_for(cluster: ThreeNodes) -> None:
    with Client(cluster.addresses[0], zone="zone-2") as client:
        learn(client)
        before = {node.address: reads_of(node) for node in cluster.nodes}
        for _ in range(50):
            client.get(t.Key.agent("learn-1"), read=STALE)
        grown = {node.zone: reads_of(node) - before[node.address] for node in cluster.nodes}
        assert grown == {"zone-0": 0, "zone-1": 0, "zone-2": 50}


def test_a_watch_goes_on_elsewhere_when_its_node_is_killed(cluster: ThreeNodes) -> None:
    wanted = t.Filter(namespace="moved")
    with (
        Client(cluster.addresses[0]) as watcher,
        watcher.watch(wanted) as watch,
        Client(cluster.addresses[1:]) as writer,
    ):
        assert isinstance(next(watch), t.Started)
        wait_until("another node is reached", lambda: endpoints_up(watcher) > 1)
        written = []
        for number in range(60):
            if number == 20:
                cluster.nodes[0].kill()
            key = t.Key.agent(f"m{number}", "moved")
            written.append((key.name, writer.put(key, AGENT).revision))
        changes = watch.changes()
        seen = [next(changes) for _ in written]
    assert sorted((each.key.name, each.revision) for each in seen) == sorted(written)


def test_a_watch_goes_on_elsewhere_when_its_node_falls_silent(cluster: ThreeNodes) -> None:
    """Its connection stays open, and only pings that nobody answers can tell."""
    key = t.Key.agent("heard", "silent")
    with (
        Client(cluster.addresses[0]) as watcher,
        watcher.watch(t.Filter(namespace="silent")) as watch,
        Client(cluster.addresses[1:]) as writer,
    ):
        assert isinstance(next(watch), t.Started)
        wait_until("another node is reached", lambda: endpoints_up(watcher) > 1)
        with cluster.nodes[0].paused():
            revision = writer.put(key, AGENT).revision
            change = next(watch.changes())
        assert (change.key, change.revision) == (key, revision)


class AsyncLoad:
    """Tasks that write and read; notes what failed."""

    def __init__(self, client: AsyncClient) -> None:
        self.calls = 0
        self.failures: list[str] = []
        self.written: list[tuple[str, int]] = []
        self._client = client
        self._ended = asyncio.Event()

    async def __aenter__(self) -> AsyncLoad:
        self._tasks = [asyncio.create_task(self._work(number)) for number in range(4)]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._ended.set()
        await asyncio.gather(*self._tasks)

    async def more(self, count: int) -> None:
        """Waits until so many more calls have ended."""
        wanted = self.calls + count
        async with asyncio.timeout(40):
            while self.calls < wanted:
                await asyncio.sleep(0.01)

    async def _work(self, number: int) -> None:
        turn = 0
        while not self._ended.is_set():
            turn += 1
            key = t.Key.agent(f"async-{number}-{turn % 20}", "async")
            try:
                put = await self._client.put(key, AGENT, incarnation=turn)
                self.written.append((key.name, put.revision))
                assert (await self._client.get(key)).record.incarnation == turn
            except AgniError as error:
                self.failures.append(str(error))
            self.calls += 2


async def test_any_node_may_be_killed_and_nothing_async_fails(cluster: ThreeNodes) -> None:
    events: list[t.RegistrationEvent] = []
    seen: list[tuple[str, int]] = []
    async with AsyncClient(cluster.addresses) as client:
        watch = client.watch(t.Filter(namespace="async"))
        assert isinstance(await anext(watch), t.Started)

        async def follow() -> None:
            async for change in watch.changes():
                seen.append((change.key.name, change.revision))

        follower = asyncio.create_task(follow())
        mine = await client.register(
            t.Key.agent("async-kept"), AGENT, ttl_ms=6_000, on_event=events.append
        )
        lease_id = mine.lease_id
        async with AsyncLoad(client) as load:
            await load.more(300)
            assert endpoints_up(client) == 3
            for victim in (2, 0):
                cluster.nodes[victim].kill()
                await load.more(600)
                await asyncio.to_thread(cluster.start)
        async with asyncio.timeout(20):
            while len(seen) < len(load.written):
                await asyncio.sleep(0.01)
        assert (await client.get(mine.key)).record.lease_id == lease_id
        await watch.aclose()
        await follower
        await mine.aclose()
    assert not load.failures
    assert sorted(seen) == sorted(load.written)
    lost = (t.RegistrationEventType.LOST, t.RegistrationEventType.REREGISTERED)
    assert not any(event.type in lost for event in events)


def test_a_rolling_restart_fails_nothing(cluster: ThreeNodes, eventually: Any) -> None:
    """Calls from several threads, a lease and a watch, while every node is stopped and started."""
    events: list[t.RegistrationEvent] = []
    acknowledged: list[tuple[str, int]] = []
    seen: list[tuple[str, int]] = []
    key = t.Key.agent("kept")
    watched = t.Filter(namespace="watched")
    with Client(cluster.addresses) as client, client.watch(watched) as watch:
        assert isinstance(next(watch), t.Started)

        def follow() -> None:
            for item in watch:
                if isinstance(item, t.Gap):
                    seen.append(("gap", 0))
                if isinstance(item, t.Change):
                    seen.append((item.key.name, item.revision))

        follower = threading.Thread(target=follow)
        follower.start()
        mine = client.register(key, AGENT, ttl_ms=3_000, on_event=events.append)
        lease_id = mine.lease_id
        with Load(client, "rolling") as load:
            load.more(200)
            for number, node in enumerate(cluster.nodes):

                def write(count: int, number: int = number) -> None:
                    for turn in range(count):
                        name = t.Key.agent(f"w{number}-{turn}", "watched")
                        put = client.put(name, AGENT, incarnation=len(acknowledged) + 1)
                        acknowledged.append((name.name, put.revision))

                write(20)
                node.stop()
                write(20)
                load.more(300)
                node.start()
                wait_until("it is ready again", lambda: node.get("/readyz"))  # noqa: B023
                write(20)
                load.more(200)
            calls, failures = load.calls, load.failures
        eventually(lambda: {*acknowledged} <= {*seen}, 20)
        assert mine.state is t.RegistrationState.ACTIVE
        assert client.get(key).record.lease_id == lease_id
        mine.close()
        watch.close()
        follower.join()
    assert not failures, failures[:5]
    assert calls > 1_000
    assert sorted(seen) == sorted(acknowledged)
    assert {event.type for event in events} == {t.RegistrationEventType.RENEWED}
