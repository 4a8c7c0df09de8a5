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


def fleet(make: Any, prefix: str, count: int, region: str, ttl_ms: int) -> dict[str, int]:
    """Registers so many agents; answers their leases by name."""
    names = [f"{prefix}-{number}" for number in range(count)]
    agent = {"kind": t.Kind.AGENT, "region": region, "ttl_ms": ttl_ms}
    return {name: make.put(name, **agent).lease_id for name in names}


def statuses(registry: Any, make: Any) -> dict[str, t.Status]:
    page = registry.list(make.filter(), page_size=1000)
    return {instance.key.name: instance.status for instance in page.instances}


def test_who_falls_silent_together_is_suspect_and_comes_back(
    registry: Any, make: Any, eventually: Any
) -> None:
    region = f"region-{make.namespace}"
    leases = fleet(make, "silent", 10, region, 2_000)
    fleet(make, "other", 1, f"other-{make.namespace}", 60_000)
    registry.renew([*leases.values()])
    eventually(lambda: [*statuses(registry, make).values()].count(t.Status.SUSPECT) == 10, 6)
    found = registry.get(make.key("silent-0", t.Kind.AGENT))
    assert found.status is t.Status.SUSPECT
    assert found.lease_remaining_ms < 0
    wanted = make.filter(kind=t.Kind.AGENT)
    candidates = registry.discover(wanted, region=region, limit=100).candidates
    assert len(candidates) == 11
    assert candidates[0].instance.key.name == "other-0", "behind whoever is alive"
    assert {each.instance.status for each in candidates[1:]} == {t.Status.SUSPECT}
    assert {each.score.total for each in candidates[1:]} == {0.0}
    alive = make.filter(kind=t.Kind.AGENT, statuses=(t.Status.ALIVE,))
    left_out = registry.discover(alive, explain=True, explain_names=["silent-0"])
    assert [each.instance.key.name for each in left_out.candidates] == ["other-0"]
    assert left_out.exclusions[0].reason is t.ExclusionReason.SUSPECT
    assert registry.renew([*leases.values()]).lost_lease_ids == ()
    assert set(statuses(registry, make).values()) == {t.Status.ALIVE}


def test_suspects_that_stay_silent_go_in_the_end(make: Any, eventually: Any) -> None:
    began = time.monotonic()
    fleet(make, "silent", 6, f"region-{make.namespace}", 1_000)
    eventually(lambda: make.names() == set(), 10)
    assert time.monotonic() - began > 1.8, "held for about one more time to live"


def test_few_of_many_are_gone_at_their_deadline(registry: Any, make: Any, eventually: Any) -> None:
    region = f"region-{make.namespace}"
    stays = fleet(make, "stays", 20, region, 60_000)
    fleet(make, "goes", 4, region, 1_000)
    seen: set[t.Status] = set()

    def are_gone() -> bool:
        found = statuses(registry, make)
        seen.update(found.values())
        return found.keys() == stays.keys()

    eventually(are_gone, 6)
    assert seen == {t.Status.ALIVE}


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
