"""The contract of writes: registering, updating, removing, comparing, batches, repeats."""

from __future__ import annotations

from typing import Any

import pytest

from agniregistry import errors
from agniregistry import types as t


def test_a_registered_record_can_be_read_back_whole(registry: Any, make: Any) -> None:
    spec = make.spec(
        labels={"tier": "edge", "empty": ""},
        owner="team-a",
        public_key=b"\x00\x01\xff",
        payload=b"sealed \x80",
    )
    answer = registry.put(make.key(), spec, incarnation=7)
    assert answer.created
    assert answer.key == make.key()
    assert answer.revision == answer.create_revision > 0
    assert answer.incarnation == 7
    assert (answer.lease_id, answer.ttl_ms) == (0, 0)
    found = registry.get(make.key())
    assert found.record.spec == spec
    assert found.record.key == make.key()
    assert found.record.incarnation == 7
    assert found.record.version == 1
    assert found.record.revision == found.record.create_revision == answer.revision
    assert found.status is t.Status.ALIVE
    assert found.lease_remaining_ms is None
    assert found.load is None
    assert found.record.created_unix_ms > 1_600_000_000_000
    assert found.header.revision >= answer.revision
    assert found.header.partition == answer.header.partition


def test_a_gateway_without_a_name_is_called_by_its_domain(registry: Any, make: Any) -> None:
    answer = registry.put(make.key(""), make.spec(domain="named.example.org"))
    assert answer.key.name == "named.example.org"
    assert registry.get(make.key("named.example.org")).spec.domain == "named.example.org"


def test_an_agent_needs_only_a_name_and_a_region(registry: Any, make: Any) -> None:
    key = make.key("worker", t.Kind.AGENT)
    registry.put(key, t.Spec(region="eu", gateway="g1"))
    assert registry.get(key).spec == t.Spec(region="eu", gateway="g1")


def test_kinds_and_namespaces_keep_names_apart(registry: Any, make: Any) -> None:
    registry.put(make.key("same"), make.spec(owner="gateway"))
    registry.put(make.key("same", t.Kind.AGENT), make.spec(owner="agent"))
    assert registry.get(make.key("same")).spec.owner == "gateway"
    assert registry.get(make.key("same", t.Kind.AGENT)).spec.owner == "agent"
    with pytest.raises(errors.NotFoundError):
        registry.get(t.Key.gateway("same", make.namespace + "-other"))


def test_registering_again_replaces_the_spec(registry: Any, make: Any) -> None:
    first = make.put(owner="one")
    second = make.put(owner="two")
    assert not second.created
    assert second.revision > first.revision
    assert second.create_revision == first.revision
    found = registry.get(make.key())
    assert found.spec.owner == "two"
    assert found.record.version == 2


@pytest.mark.parametrize("ttl_ms", [0, 60_000])
def test_a_repeated_registration_changes_nothing(registry: Any, make: Any, ttl_ms: int) -> None:
    first = make.put(incarnation=5, ttl_ms=ttl_ms)
    again = make.put(incarnation=5, ttl_ms=ttl_ms)
    assert not again.created
    assert again.revision == first.revision
    assert again.lease_id == first.lease_id
    assert registry.get(make.key()).record.version == 1


def test_a_repeat_succeeds_even_where_its_expectation_is_now_wrong(make: Any) -> None:
    first = make.put(expected_revision=0)
    again = make.put(expected_revision=0)
    assert again.revision == first.revision


def test_a_lower_incarnation_is_refused(registry: Any, make: Any) -> None:
    make.put(incarnation=10, owner="new")
    for call in (
        lambda: make.put(incarnation=9, owner="old"),
        lambda: registry.update(make.key(), make.spec(owner="old"), ["owner"], incarnation=9),
        lambda: registry.deregister(make.key(), incarnation=9),
    ):
        with pytest.raises(errors.StaleIncarnationError) as caught:
            call()
        assert caught.value.reason == "STALE_INCARNATION"
    assert registry.get(make.key()).spec.owner == "new"


def test_a_higher_incarnation_takes_over_under_a_new_lease(registry: Any, make: Any) -> None:
    first = make.put(incarnation=1, ttl_ms=60_000)
    second = make.put(incarnation=2, ttl_ms=60_000)
    assert second.lease_id not in (0, first.lease_id)
    assert not second.created
    assert registry.renew([first.lease_id]).lost_lease_ids == (first.lease_id,)
    assert registry.renew([second.lease_id]).renewed == 1


def test_incarnation_zero_means_the_stored_one(registry: Any, make: Any) -> None:
    make.put(incarnation=3)
    assert make.put(owner="changed").incarnation == 3
    assert registry.get(make.key()).record.incarnation == 3


def test_compare_and_set_on_register(make: Any) -> None:
    first = make.put(expected_revision=0)
    with pytest.raises(errors.AlreadyExistsError) as exists:
        make.put(expected_revision=0, owner="other")
    assert exists.value.reason == "ALREADY_EXISTS"
    with pytest.raises(errors.RevisionMismatchError) as mismatch:
        make.put(expected_revision=first.revision + 1000, owner="other")
    assert mismatch.value.reason == "REVISION_MISMATCH"
    assert mismatch.value.stored_revision == first.revision
    assert make.put(expected_revision=first.revision, owner="other").revision > first.revision


def test_compare_and_set_of_what_is_not_there(make: Any) -> None:
    with pytest.raises(errors.RevisionMismatchError):
        make.put(expected_revision=12345)


def test_compare_and_set_on_update_and_deregister(registry: Any, make: Any) -> None:
    revision = make.put().revision
    key, spec = make.key(), make.spec(owner="x")
    with pytest.raises(errors.RevisionMismatchError):
        registry.update(key, spec, ["owner"], expected_revision=revision + 1)
    with pytest.raises(errors.RevisionMismatchError):
        registry.deregister(key, expected_revision=revision + 1)
    updated = registry.update(key, spec, ["owner"], expected_revision=revision)
    assert updated.revision > revision
    assert registry.deregister(key, expected_revision=updated.revision).existed


def test_an_update_changes_what_its_mask_names_and_nothing_else(registry: Any, make: Any) -> None:
    make.put(labels={"a": "1"}, owner="before")
    spec = t.Spec(owner="ignored", capacity=t.Capacity(cpu=8), labels={"b": "2"})
    answer = registry.update(make.key(), spec, ["capacity.cpu", "labels"])
    found = registry.get(make.key())
    assert found.record.revision == answer.revision
    assert found.spec.capacity == t.Capacity(cpu=8, bandwidth=20, memory=4096, storage=40960)
    assert dict(found.spec.labels) == {"b": "2"}
    assert found.spec.owner == "before"
    assert found.record.version == 2


def test_an_update_that_changes_nothing_takes_no_revision(registry: Any, make: Any) -> None:
    revision = make.put(owner="same").revision
    assert registry.update(make.key(), make.spec(owner="same"), ["owner"]).revision == revision


def test_an_update_needs_a_record(registry: Any, make: Any) -> None:
    with pytest.raises(errors.NotFoundError) as caught:
        registry.update(make.key("none"), make.spec(), ["owner"])
    assert caught.value.reason == "NOT_FOUND"


def test_deregistering_removes_and_may_be_repeated(registry: Any, make: Any) -> None:
    put = make.put()
    gone = registry.deregister(make.key())
    assert gone.existed
    assert gone.revision > put.revision
    with pytest.raises(errors.NotFoundError):
        registry.get(make.key())
    again = registry.deregister(make.key())
    assert (again.existed, again.revision) == (False, 0)


def test_what_was_removed_can_be_created_anew(registry: Any, make: Any) -> None:
    make.put(incarnation=9)
    registry.deregister(make.key())
    again = make.put(incarnation=1)
    assert again.created
    assert again.incarnation == 1
    assert registry.get(make.key()).record.version == 1


def test_a_draining_record_says_so_and_then_goes(registry: Any, make: Any, eventually: Any) -> None:
    make.put()
    answer = registry.deregister(make.key(), drain_ms=700, successor="b")
    assert answer.existed
    found = registry.get(make.key())
    assert found.status is t.Status.DRAINING
    assert found.record.draining.successor == "b"
    assert found.record.draining.deadline_unix_ms > found.record.updated_unix_ms
    assert make.names() == {"a"}
    eventually(lambda: make.names() == set())


def test_registering_ends_the_draining(registry: Any, make: Any) -> None:
    make.put(incarnation=1)
    registry.deregister(make.key(), drain_ms=60_000)
    make.put(incarnation=2)
    found = registry.get(make.key())
    assert found.status is t.Status.ALIVE
    assert found.record.draining is None


def test_draining_what_is_not_there_is_no_fault(registry: Any, make: Any) -> None:
    assert not registry.deregister(make.key("none"), drain_ms=1000).existed


def test_each_write_of_a_batch_stands_for_itself(registry: Any, make: Any) -> None:
    make.put("old", owner="before")
    results = registry.batch(
        [
            t.RegisterOperation(make.key("new"), make.spec(), ttl_ms=60_000),
            t.RegisterOperation(make.key("bad"), make.spec(region="")),
            t.UpdateOperation(make.key("old"), make.spec(owner="after"), ("owner",)),
            t.UpdateOperation(make.key("none"), make.spec(), ("owner",)),
            t.RegisterOperation(make.key("old"), make.spec(), expected_revision=0),
            t.DeregisterOperation(make.key("none")),
        ]
    )
    kinds = [type(result) for result in results]
    assert kinds == [
        t.Registered,
        errors.InvalidFieldError,
        t.Updated,
        errors.NotFoundError,
        errors.AlreadyExistsError,
        t.Deregistered,
    ]
    assert results[0].lease_id != 0
    assert results[1].field == "spec.region"
    assert results[1].reason == "INVALID_FIELD"
    assert not results[5].existed
    assert make.names() == {"new", "old"}
    assert registry.get(make.key("old")).spec.owner == "after"


def test_a_batch_applies_in_its_order(registry: Any, make: Any) -> None:
    writes = [t.RegisterOperation(make.key(), make.spec(owner=str(number))) for number in range(20)]
    results = registry.batch(writes)
    revisions = [result.revision for result in results]
    assert revisions == sorted(set(revisions))
    assert registry.get(make.key()).spec.owner == "19"


def test_revisions_of_a_partition_grow_by_one(registry: Any, make: Any) -> None:
    first = make.put(owner="0")
    seen = [make.put(owner=str(number)).revision for number in range(1, 6)]
    assert seen == sorted(set(seen))
    assert seen[0] > first.revision
