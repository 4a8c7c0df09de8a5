"""The SDK against a real node that is killed and started again: the promises users live by."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from agniregistry import errors
from agniregistry import types as t
from agniregistry.client import Client
from agniregistry.config import RetryPolicy, Timeout

AGENT = t.Spec(region="eu")
STUBBORN = RetryPolicy(max_attempts=100, initial_delay_ms=20, max_delay_ms=200)
PATIENT = Timeout(total_ms=30_000, attempt_ms=2_000)


def test_a_registration_outlives_a_killed_node(
    own_node: Callable[..., Any], eventually: Any
) -> None:
    events: list[t.RegistrationEvent] = []
    node = own_node()
    with Client(node.address, retry=STUBBORN, timeout=PATIENT) as client:
        with client.register(t.Key.agent("a"), AGENT, ttl_ms=5000, on_event=events.append) as mine:
            eventually(lambda: bool(events))
            node.kill()
            own_node(node.address)
            eventually(lambda: client.get(mine.key).record.lease_id == mine.lease_id, 20)
            heard = len(events)
            eventually(lambda: len(events) > heard, 20)
            assert {event.type for event in events} <= {
                t.RegistrationEventType.RENEWED,
                t.RegistrationEventType.UNANSWERED,
            }
            assert mine.state is t.RegistrationState.ACTIVE
        eventually(lambda: not client.list(t.Filter(kind=t.Kind.AGENT)).instances)


def test_a_watch_over_killed_nodes_sees_each_acknowledged_write_once(
    own_node: Callable[..., Any],
) -> None:
    node = own_node()
    acknowledged: list[tuple[str, int]] = []
    with Client(node.address, retry=STUBBORN, timeout=PATIENT) as client:
        watch = client.watch()
        assert isinstance(next(watch), t.Started)

        def write() -> None:
            for number in range(300):
                key = t.Key.agent(f"n{number}")
                acknowledged.append((key.name, client.put(key, AGENT).revision))

        writer = threading.Thread(target=write)
        writer.start()
        seen: list[tuple[str, int]] = []
        missing = {f"n{number}" for number in range(300)}
        for change in watch.changes():
            seen.append((change.key.name, change.revision))
            missing.discard(change.key.name)
            if len(seen) in (60, 180):
                node.kill()
                node = own_node(node.address)
            # Order holds within a partition: the last one written need not come last.
            if not missing:
                break
        writer.join(60)
        watch.close()
    assert sorted(seen) == sorted(acknowledged)
    assert len({name for name, _ in seen}) == 300


def test_a_cache_is_right_again_after_a_killed_node(
    own_node: Callable[..., Any], eventually: Any
) -> None:
    node = own_node()
    with Client(node.address, retry=STUBBORN, timeout=PATIENT) as client:
        client.put(t.Key.agent("a"), AGENT)
        client.put(t.Key.agent("b"), AGENT)
        with client.cache(t.Filter(kind=t.Kind.AGENT), max_age_ms=1000) as cache:
            cache.wait_synced()
            node.kill()
            eventually(lambda: cache.stale)
            assert {record.key.name for record in cache.list()} == {"a", "b"}
            own_node(node.address)
            client.deregister(t.Key.agent("a"))
            eventually(
                lambda: {record.key.name for record in cache.list()} == {"b"} and not cache.stale,
                20,
            )


def test_a_token_of_another_cluster_is_foreign(own_node: Callable[..., Any]) -> None:
    node = own_node()
    with Client(node.address) as client, client.watch() as watch:
        token = next(watch).resume_token
    other = own_node(folder="other")
    with (
        Client(other.address) as client,
        pytest.raises(errors.ResumeTokenForeignError) as caught,
    ):
        next(client.watch(resume_token=token))
    assert caught.value.field == "resume_token"


def test_a_stale_read_may_demand_a_revision(own_node: Callable[..., Any]) -> None:
    with Client(own_node().address, retry=RetryPolicy.never()) as client:
        put = client.put(t.Key.agent("a"), AGENT)
        partition, revision = put.header.partition, put.revision
        reached = t.ReadOptions(t.Consistency.STALE, at_least={partition: revision})
        assert client.get(t.Key.agent("a"), read=reached).spec == AGENT
        ahead = t.ReadOptions(t.Consistency.STALE, at_least={partition: revision + 1})
        with pytest.raises(errors.StalenessExceededError):
            client.get(t.Key.agent("a"), read=ahead)
