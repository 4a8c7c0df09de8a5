"""What only the fake can do: time by hand, failures by order."""

from __future__ import annotations

from typing import Any

import pytest

from agniregistry import errors
from agniregistry import types as t
from agniregistry.testing import FakeClock, FakeRegistry

AGENT = t.Spec(region="eu")


def test_time_moves_by_hand(frozen: Any) -> None:
    frozen.put(t.Key.agent("a"), AGENT, ttl_ms=10_000)
    frozen.clock.advance(9_999)
    assert frozen.get(t.Key.agent("a")).lease_remaining_ms == 1
    frozen.clock.advance(1)
    with pytest.raises(errors.NotFoundError):
        frozen.get(t.Key.agent("a"))


def test_a_watch_sees_what_falls_due(frozen: Any) -> None:
    with frozen.watch(progress_interval_ms=60_000) as watch:
        assert isinstance(next(watch), t.Started)
        frozen.put(t.Key.agent("a"), AGENT, ttl_ms=10_000)
        assert next(watch).type is t.EventType.PUT
        frozen.clock.advance(10_000)
        assert next(watch).type is t.EventType.EXPIRED
        frozen.clock.advance(60_000)
        assert isinstance(next(watch), t.Progress)


def test_draining_ends_by_hand(frozen: Any) -> None:
    frozen.put(t.Key.agent("a"), AGENT)
    frozen.deregister(t.Key.agent("a"), drain_ms=5_000)
    frozen.clock.advance(4_999)
    assert frozen.get(t.Key.agent("a")).status is t.Status.DRAINING
    frozen.clock.advance(1)
    assert frozen.list().instances == ()


def agents(registry: Any, count: int, **spec: Any) -> list[int]:
    fields = {"region": "eu", **spec}
    keys = [t.Key.agent(f"{fields}-{number}") for number in range(count)]
    return [registry.put(key, t.Spec(**fields), ttl_ms=10_000).lease_id for key in keys]


def shown(registry: Any) -> list[t.Status]:
    return [instance.status for instance in registry.list(page_size=1000).instances]


def test_who_is_held_goes_one_time_to_live_later(frozen: Any) -> None:
    leases = agents(frozen, 5)
    frozen.clock.advance(10_000)
    assert shown(frozen) == [t.Status.SUSPECT] * 5
    assert frozen.status().partitions[0].suspect_domains == 1
    frozen.renew(leases[:2])
    frozen.clock.advance(9_999)
    assert shown(frozen).count(t.Status.SUSPECT) == 3
    frozen.clock.advance(1)
    assert shown(frozen) == []
    agents(frozen, 4)
    assert frozen.status().partitions[0].suspect_domains == 0
    frozen.clock.advance(10_000)
    assert shown(frozen) == [], "a fleet below the minimum"


def test_what_is_behind_one_gateway_is_held_although_its_region_lives(frozen: Any) -> None:
    living = agents(frozen, 40, gateway="near")
    agents(frozen, 8, gateway="far")
    frozen.clock.advance(5_000)
    frozen.renew(living)
    frozen.clock.advance(5_000)
    assert shown(frozen).count(t.Status.SUSPECT) == 8


def test_a_share_that_goes_silent_little_by_little_counts(frozen: Any) -> None:
    silent, living = agents(frozen, 6), agents(frozen, 12, owner="x")
    frozen.clock.advance(5_000)
    frozen.renew([*living, *silent[:3]])
    frozen.clock.advance(5_000)
    assert len(shown(frozen)) == 15, "three of eighteen are gone"
    frozen.renew(living)
    frozen.clock.advance(5_000)
    assert shown(frozen).count(t.Status.SUSPECT) == 3, "with those that went before"


def test_the_guard_can_be_left_out() -> None:
    with FakeRegistry(clock=FakeClock(), mass_expiry_guard=False) as registry:
        agents(registry, 50)
        registry.clock.advance(10_000)
        assert shown(registry) == []


def test_a_lease_that_a_test_takes_away_is_lost_at_once(frozen: Any) -> None:
    leases = agents(frozen, 10)
    for lease in leases:
        frozen.lose_lease(lease)
    assert shown(frozen) == []


def test_failures_come_when_ordered(fake: Any) -> None:
    fake.fail_next(errors.DiskFullError("full", retry_delay_ms=5), times=2)
    for _ in range(2):
        with pytest.raises(errors.DiskFullError):
            fake.put(t.Key.agent("a"), AGENT)
    assert fake.put(t.Key.agent("a"), AGENT).created


def test_a_closed_fake_says_so(frozen: Any) -> None:
    frozen.close()
    with pytest.raises(errors.ClientClosedError):
        frozen.list()


def test_what_a_caller_changes_later_does_not_reach_the_records(fake: Any) -> None:
    labels = {"a": "1"}
    fake.put(t.Key.agent("a"), t.Spec(region="eu", labels=labels))
    labels["a"] = "2"
    assert fake.get(t.Key.agent("a")).spec.labels == {"a": "1"}


def test_a_stale_read_may_demand_a_revision(fake: Any) -> None:
    revision = fake.put(t.Key.agent("a"), AGENT).revision
    for read in (
        t.ReadOptions(t.Consistency.STALE, at_least={0: revision}),
        t.ReadOptions(at_least={0: revision + 1}),
    ):
        assert fake.get(t.Key.agent("a"), read=read).spec == AGENT
    ahead = t.ReadOptions(t.Consistency.STALE, at_least={0: revision + 1})
    for call in (lambda: fake.get(t.Key.agent("a"), read=ahead), lambda: fake.list(read=ahead)):
        with pytest.raises(errors.StalenessExceededError):
            call()
