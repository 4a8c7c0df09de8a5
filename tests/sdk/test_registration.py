"""`Registration`: renewed, lost, registered again, superseded, closed; against real failures."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from agniregistry import errors
from agniregistry import types as t
from agniregistry.client import AsyncClient, Client
from agniregistry.client._renewals import RenewalPlan, due_in_s, entry_for
from agniregistry.config import RetryPolicy, Timeout

EVENT = t.RegistrationEventType
STATE = t.RegistrationState
AGENT = t.Spec(region="eu")


class Listener:
    """Remembers what it hears."""

    def __init__(self) -> None:
        self.events: list[t.RegistrationEvent] = []

    def __call__(self, event: t.RegistrationEvent) -> None:
        self.events.append(event)

    def heard(self, kind: t.RegistrationEventType) -> Callable[[], bool]:
        """Whether there was such an event."""
        return lambda: any(event.type is kind for event in self.events)


def test_it_lives_longer_than_its_ttl_and_goes_with_its_block(
    fake: Any, client: Client, eventually: Any
) -> None:
    listener = Listener()
    key = t.Key.agent("a")
    with client.register(key, AGENT, ttl_ms=1000, on_event=listener) as registration:
        eventually(lambda: len(listener.events) >= 4)
        assert {event.type for event in listener.events} == {EVENT.RENEWED}
        assert registration.state is STATE.ACTIVE
        assert registration.error is None
        found = client.get(key)
        assert found.record.lease_id == registration.lease_id
        assert found.record.incarnation == registration.incarnation > 1_600_000_000_000
    assert registration.state is STATE.CLOSED
    with pytest.raises(errors.NotFoundError):
        client.get(key)
    registration.close()
    with pytest.raises(errors.ClientClosedError):
        registration.replace(AGENT)


def test_a_lost_lease_is_registered_again_with_a_higher_incarnation(
    fake: Any, client: Client, eventually: Any
) -> None:
    listener = Listener()
    with client.register(t.Key.agent("a"), AGENT, ttl_ms=1000, on_event=listener) as mine:
        first = (mine.lease_id, mine.incarnation)
        fake.lose_lease(mine.lease_id)
        eventually(listener.heard(EVENT.REREGISTERED))
        lost = next(event for event in listener.events if event.type is EVENT.LOST)
        assert (lost.lease_id, lost.incarnation) == first
        assert mine.incarnation == first[1] + 1
        assert mine.lease_id != first[0]
        assert client.get(mine.key).record.lease_id == mine.lease_id
        assert mine.state is STATE.ACTIVE


def test_a_newer_owner_ends_it(fake: Any, client: Client, eventually: Any) -> None:
    listener = Listener()
    mine = client.register(t.Key.agent("a"), AGENT, ttl_ms=1000, on_event=listener)
    theirs = client.put(mine.key, AGENT, ttl_ms=60_000, incarnation=mine.incarnation + 100)
    eventually(listener.heard(EVENT.FAILED))
    assert mine.state is STATE.FAILED
    assert isinstance(mine.error, errors.StaleIncarnationError)
    with pytest.raises(errors.LeaseLostError):
        mine.check()
    mine.close()
    assert client.get(mine.key).record.lease_id == theirs.lease_id


def test_closing_leaves_a_newer_owners_record_alone(fake: Any, client: Client) -> None:
    mine = client.register(t.Key.agent("a"), AGENT, ttl_ms=60_000)
    client.put(mine.key, AGENT, incarnation=mine.incarnation + 1)
    mine.close()
    assert client.get(mine.key).record.incarnation == mine.incarnation + 1


def test_it_outlives_a_server_that_goes_and_comes_back(fake: Any, eventually: Any) -> None:
    listener = Listener()
    quick = RetryPolicy(max_attempts=2, initial_delay_ms=5, max_delay_ms=50)
    with fake.serve() as address:
        client = Client(address, retry=quick, timeout=Timeout(400, 200))
        mine = client.register(t.Key.agent("a"), AGENT, ttl_ms=1000, on_event=listener)
    # The connection is gone, and stays away until the lease has run out.
    eventually(lambda: mine.state is STATE.UNCERTAIN)
    assert listener.heard(EVENT.UNANSWERED)()
    assert isinstance(mine.error, errors.AgniError)
    with client, fake.serve(address):
        eventually(listener.heard(EVENT.REREGISTERED))
        assert client.get(mine.key).record.incarnation == mine.incarnation
        mine.close()


def test_a_server_away_for_less_than_the_ttl_loses_nothing(fake: Any, eventually: Any) -> None:
    listener = Listener()
    quick = RetryPolicy(max_attempts=2, initial_delay_ms=5, max_delay_ms=50)
    with fake.serve() as address:
        client = Client(address, retry=quick, timeout=Timeout(400, 200))
        mine = client.register(t.Key.agent("a"), AGENT, ttl_ms=4000, on_event=listener)
    eventually(listener.heard(EVENT.UNANSWERED))
    with client, fake.serve(address):
        eventually(listener.heard(EVENT.RENEWED))
        assert not listener.heard(EVENT.LOST)()
        assert client.get(mine.key).record.lease_id == mine.lease_id
        mine.close()


def test_an_exit_without_a_server_lets_the_lease_expire(fake: Any) -> None:
    with fake.serve() as address:
        client = Client(address, retry=RetryPolicy.never(), timeout=Timeout(300, 200))
        mine = client.register(t.Key.agent("a"), AGENT, ttl_ms=60_000)
    with client, mine:
        pass
    assert mine.state is STATE.CLOSED
    assert fake.get(mine.key).record.lease_id == mine.lease_id


def test_draining_on_the_way_out(fake: Any, client: Client) -> None:
    mine = client.register(t.Key.agent("a"), AGENT, ttl_ms=60_000)
    mine.close(drain_ms=60_000, successor="b")
    found = client.get(mine.key)
    assert found.status is t.Status.DRAINING
    assert found.record.draining is not None
    assert found.record.draining.successor == "b"


def test_replacing_the_spec_keeps_lease_and_incarnation(fake: Any, client: Client) -> None:
    with client.register(t.Key.agent("a"), AGENT, ttl_ms=60_000) as mine:
        answer = mine.replace(t.Spec(region="us"))
        assert answer.lease_id == mine.lease_id == mine.result.lease_id
        assert mine.spec.region == client.get(mine.key).spec.region == "us"
        assert mine.revision == answer.revision


def test_one_client_packs_its_renewals(
    fake: Any, client: Client, eventually: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed: list[int] = []
    renew = fake.renew

    def spy(lease_ids: Any, loads: Any = (), **options: Any) -> t.Renewed:
        packed.append(len(lease_ids))
        return renew(lease_ids, loads, **options)

    monkeypatch.setattr(fake, "renew", spy)
    listener = Listener()
    handles = [
        client.register(t.Key.agent(f"n{i}"), AGENT, ttl_ms=1500, on_event=listener)
        for i in range(40)
    ]
    eventually(lambda: len(listener.events) >= 120)
    assert max(packed) == 40
    assert len(packed) <= 12
    for handle in handles:
        handle.close()


def test_load_is_reported_with_renewals(fake: Any, client: Client, eventually: Any) -> None:
    with client.register(
        t.Key.agent("a"), AGENT, ttl_ms=1000, load=lambda: t.Capacity(cpu=0.25)
    ) as mine:
        eventually(lambda: client.get(mine.key).load is not None)
        load = client.get(mine.key).load
        assert load is not None
        assert load.free == t.Capacity(cpu=0.25)


def test_listeners_and_load_sources_that_fail_harm_nobody(
    fake: Any, client: Client, eventually: Any
) -> None:
    calls = []

    def broken(*event: Any) -> Any:
        calls.append(event)
        raise RuntimeError("the program's own fault")

    listener = Listener()
    with (
        client.register(t.Key.agent("a"), AGENT, ttl_ms=1000, on_event=broken, load=broken),
        client.register(t.Key.agent("b"), AGENT, ttl_ms=1000, on_event=listener),
    ):
        eventually(lambda: len(listener.events) >= 4 and len(calls) >= 4)
        assert {event.type for event in listener.events} == {EVENT.RENEWED}


def test_a_handle_may_be_closed_from_its_own_listener(
    fake: Any, client: Client, eventually: Any
) -> None:
    handles: list[Any] = []
    mine = client.register(
        t.Key.agent("a"), AGENT, ttl_ms=1000, on_event=lambda _: handles[0].close()
    )
    handles.append(mine)
    eventually(lambda: mine.state is STATE.CLOSED)
    eventually(lambda: not fake.list(t.Filter()).instances)


def test_a_record_without_a_lease_needs_no_renewing(fake: Any, client: Client) -> None:
    with client.register(t.Key.agent("a"), AGENT, ttl_ms=0) as mine:
        assert mine.lease_id == 0
        assert client.get(mine.key).lease_remaining_ms is None
    with pytest.raises(errors.NotFoundError):
        client.get(mine.key)


def test_the_fakes_own_registrations(frozen: Any) -> None:
    with frozen.register(t.Key.agent("a"), AGENT) as mine:
        assert frozen.get(mine.key).record.lease_id == mine.lease_id
    with pytest.raises(errors.NotFoundError):
        frozen.get(mine.key)


async def until(condition: Callable[[], bool], seconds: float = 10) -> None:
    """Waits for the condition, within the deadline."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


async def test_async_lost_and_registered_again(fake: Any, address: str) -> None:
    listener = Listener()
    async with AsyncClient(address) as client:
        mine = await client.register(t.Key.agent("a"), AGENT, ttl_ms=1000, on_event=listener)
        async with mine:
            await until(listener.heard(EVENT.RENEWED))
            first = mine.incarnation
            fake.lose_lease(mine.lease_id)
            await until(listener.heard(EVENT.REREGISTERED))
            assert mine.incarnation == first + 1
            assert (await client.get(mine.key)).record.lease_id == mine.lease_id
        assert mine.state is STATE.CLOSED
        with pytest.raises(errors.NotFoundError):
            await client.get(mine.key)


async def test_async_a_newer_owner_ends_it(fake: Any, address: str) -> None:
    listener = Listener()
    async with AsyncClient(address) as client:
        mine = await client.register(t.Key.agent("a"), AGENT, ttl_ms=1000, on_event=listener)
        fake.put(mine.key, AGENT, incarnation=mine.incarnation + 100)
        await until(listener.heard(EVENT.FAILED))
        assert mine.state is STATE.FAILED
        with pytest.raises(errors.LeaseLostError):
            mine.check()


async def test_async_outlives_a_server_that_goes_and_comes_back(fake: Any) -> None:
    listener = Listener()
    quick = RetryPolicy(max_attempts=2, initial_delay_ms=5, max_delay_ms=50)
    server = fake.serve()
    address = server.__enter__()
    async with AsyncClient(address, retry=quick, timeout=Timeout(400, 200)) as client:
        mine = await client.register(t.Key.agent("a"), AGENT, ttl_ms=1000, on_event=listener)
        await asyncio.to_thread(server.__exit__, None, None, None)
        await until(lambda: mine.state is STATE.UNCERTAIN)
        with fake.serve(address):
            await until(listener.heard(EVENT.REREGISTERED))
            await mine.aclose()


def test_renewal_times_stay_within_the_lease() -> None:
    assert due_in_s(0, 9000) == 3.0
    assert due_in_s(2500, 9000) == 2.5
    assert due_in_s(50_000, 9000) == 8.1
    assert due_in_s(-5, 9000) == 3.0


def test_a_refused_renewal_is_tried_again_no_sooner_than_the_server_asks() -> None:
    plan = RenewalPlan(RetryPolicy(initial_delay_ms=10, max_delay_ms=10), chance=lambda: 1.0)
    answer = t.Registered(t.Key.agent("a"), 1, lease_id=7, ttl_ms=9000, next_renewal_ms=3000)
    entry = entry_for(answer, AGENT, None, None, now=0.0)
    plan.add(entry)
    assert plan.take(2.0).renew == ()
    work = plan.take(3.0)
    assert work.lease_ids() == (7,)
    plan.failed(work.renew, errors.OverloadedError("busy", retry_delay_ms=700), 3.0)
    assert plan.next_due() == pytest.approx(3.71)
    assert entry.state is STATE.ACTIVE
    plan.failed(work.renew, errors.OverloadedError("busy"), 9.5)
    assert entry.state is STATE.UNCERTAIN
