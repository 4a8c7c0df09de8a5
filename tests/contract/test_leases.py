"""The contract of leases: granted, renewed, reported with load, lost, expired on time."""

from __future__ import annotations

import time
from typing import Any

import pytest

from agniregistry import errors
from agniregistry import types as t


def test_a_lease_is_granted_and_counts_down(registry: Any, make: Any) -> None:
    answer = make.put(ttl_ms=60_000)
    assert answer.lease_id != 0
    assert answer.ttl_ms == 60_000
    assert 0 < answer.next_renewal_ms < 60_000
    found = registry.get(make.key())
    assert found.record.lease_id == answer.lease_id
    assert found.record.ttl_ms == 60_000
    assert 50_000 < found.lease_remaining_ms <= 60_000


def test_renewing_extends_and_reports_load(registry: Any, make: Any) -> None:
    leases = [make.put(name, ttl_ms=60_000).lease_id for name in ("a", "b", "c")]
    free = t.Capacity(cpu=0.5, bandwidth=10, memory=1024, storage=2048)
    answer = registry.renew(leases, [t.LeaseLoad(leases[0], free)])
    assert answer.renewed == 3
    assert answer.lost_lease_ids == ()
    assert 0 < answer.next_renewal_ms < 60_000
    loaded = registry.get(make.key("a")).load
    assert loaded.free == free
    assert 0 <= loaded.age_ms < 30_000
    assert registry.get(make.key("b")).load is None


def test_renewing_takes_no_revision(registry: Any, make: Any) -> None:
    answer = make.put(ttl_ms=60_000)
    registry.renew([answer.lease_id], [t.LeaseLoad(answer.lease_id, t.Capacity(cpu=0.1))])
    assert registry.get(make.key()).record.revision == answer.revision


def test_unknown_and_ended_leases_are_lost(registry: Any, make: Any) -> None:
    kept, removed = make.put("a", ttl_ms=60_000), make.put("b", ttl_ms=60_000)
    registry.deregister(make.key("b"))
    unknown = kept.lease_id + 1_000_000
    answer = registry.renew([kept.lease_id, removed.lease_id, unknown])
    assert answer.renewed == 1
    assert set(answer.lost_lease_ids) == {removed.lease_id, unknown}


def test_a_changed_spec_keeps_the_lease(make: Any) -> None:
    first = make.put(ttl_ms=60_000, incarnation=4, owner="x")
    second = make.put(ttl_ms=30_000, incarnation=4, owner="y")
    assert second.lease_id == first.lease_id
    assert second.ttl_ms == 30_000


def test_a_silent_record_is_gone_at_its_deadline(registry: Any, make: Any, eventually: Any) -> None:
    before = time.monotonic()
    answer = make.put(ttl_ms=1000)
    make.put("stays", ttl_ms=60_000)
    eventually(lambda: make.names() == {"stays"}, 6)
    assert time.monotonic() - before > 0.95
    with pytest.raises(errors.NotFoundError):
        registry.get(make.key())
    assert registry.renew([answer.lease_id]).lost_lease_ids == (answer.lease_id,)
    # Its owner, started again, may be faster than the removal: it has a lease of its own.
    again = make.put(ttl_ms=60_000, incarnation=1)
    assert again.lease_id != answer.lease_id
    assert registry.get(make.key()).record.lease_id == again.lease_id


def test_a_renewed_record_outlives_its_ttl(registry: Any, make: Any) -> None:
    answer = make.put(ttl_ms=1000)
    deadline = time.monotonic() + 2.5
    while time.monotonic() < deadline:
        assert registry.renew([answer.lease_id]).renewed == 1
        time.sleep(0.25)
    assert registry.get(make.key()).record.lease_id == answer.lease_id


def test_registering_again_renews(registry: Any, make: Any) -> None:
    answer = make.put(ttl_ms=1000, incarnation=1)
    deadline = time.monotonic() + 2.0
    while time.monotonic() < deadline:
        assert make.put(ttl_ms=1000, incarnation=1).revision == answer.revision
        time.sleep(0.25)
    assert registry.get(make.key()).record.version == 1
