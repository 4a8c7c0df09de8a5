"""What only the fake can do: time by hand, failures by order."""

from __future__ import annotations

from typing import Any

import pytest

from agniregistry import errors
from agniregistry import types as t

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
