"""The contract of reads: filters, pages of one state, consistency, the cluster's own state."""

from __future__ import annotations

from typing import Any

import pytest

from agniregistry import errors
from agniregistry import types as t


@pytest.fixture
def fleet(make: Any) -> Any:
    """Three gateways and an agent that differ in what filters look at."""
    make.put("eu-1", region="eu", labels={"tier": "edge", "os": "linux"})
    make.put("eu-2", region="eu", labels={"tier": "core"}, capacity=t.Capacity(cpu=8))
    make.put("us-1", region="us", labels={"tier": "edge"})
    make.registry.put(
        make.key("worker", t.Kind.AGENT),
        t.Spec(region="us", gateway="us-1", labels={"os": "bsd"}),
    )
    return make


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        ({}, {"eu-1", "eu-2", "us-1", "worker"}),
        ({"kind": t.Kind.GATEWAY}, {"eu-1", "eu-2", "us-1"}),
        ({"kind": t.Kind.AGENT}, {"worker"}),
        ({"regions": ("eu",)}, {"eu-1", "eu-2"}),
        ({"regions": ("eu", "us")}, {"eu-1", "eu-2", "us-1", "worker"}),
        ({"regions": ("asia",)}, set()),
        ({"labels": {"tier": "edge"}}, {"eu-1", "us-1"}),
        ({"labels": {"tier": "edge", "os": "linux"}}, {"eu-1"}),
        ({"labels": {"os": ""}}, {"eu-1", "worker"}),
        ({"labels": {"tier": "EDGE"}}, set()),
        ({"min_capacity": t.Capacity(cpu=2)}, {"eu-2"}),
        ({"min_capacity": t.Capacity(memory=4096)}, {"eu-1", "us-1"}),
        ({"min_free": t.Capacity(cpu=1)}, {"eu-1", "eu-2", "us-1"}),
        ({"name_prefix": "eu-"}, {"eu-1", "eu-2"}),
        ({"gateway": "us-1"}, {"worker"}),
        ({"statuses": (t.Status.ALIVE,)}, {"eu-1", "eu-2", "us-1", "worker"}),
        ({"statuses": (t.Status.DRAINING,)}, set()),
        ({"regions": ("eu",), "labels": {"tier": "core"}, "kind": t.Kind.GATEWAY}, {"eu-2"}),
    ],
)
def test_filters(fleet: Any, fields: dict[str, Any], names: set[str]) -> None:
    assert fleet.names(**fields) == names


def test_draining_records_are_found_by_status(fleet: Any, registry: Any) -> None:
    registry.deregister(fleet.key("us-1"), drain_ms=60_000)
    assert fleet.names(kind=t.Kind.GATEWAY, statuses=(t.Status.DRAINING,)) == {"us-1"}
    assert "us-1" not in fleet.names(kind=t.Kind.GATEWAY, statuses=(t.Status.ALIVE,))
    assert "us-1" in fleet.names(kind=t.Kind.GATEWAY)


def test_reported_load_decides_on_free_capacity(registry: Any, make: Any) -> None:
    lease = make.put("busy", ttl_ms=60_000).lease_id
    make.put("idle")
    registry.renew([lease], [t.LeaseLoad(lease, t.Capacity(cpu=0.1))])
    assert make.names(kind=t.Kind.GATEWAY, min_free=t.Capacity(cpu=0.5)) == {"idle"}


def test_another_namespace_is_not_listed(registry: Any, make: Any) -> None:
    make.put()
    page = registry.list(t.Filter(kind=t.Kind.GATEWAY, namespace=make.namespace + "-x"))
    assert page.instances == ()
    assert page.next_page_token == ""


def test_all_namespaces(registry: Any, make: Any) -> None:
    make.put("one")
    wanted = t.Filter(kind=t.Kind.GATEWAY, namespace="*", name_prefix="one")
    keys = {instance.key for instance in registry.list_all(wanted)}
    assert make.key("one") in keys


def test_pages_hold_all_records_once(registry: Any, make: Any) -> None:
    registry.batch([t.RegisterOperation(make.key(f"n{i:03}"), make.spec()) for i in range(53)])
    wanted = make.filter(kind=t.Kind.GATEWAY)
    sizes, names, token = [], [], ""
    while True:
        page = registry.list(wanted, page_size=10, page_token=token)
        sizes.append(len(page.instances))
        names.extend(instance.key.name for instance in page.instances)
        token = page.next_page_token
        assert bool(page.resume_token) == (not token)
        if not token:
            break
    assert max(sizes) <= 10
    assert sorted(names) == [f"n{i:03}" for i in range(53)]
    assert sorted(i.key.name for i in registry.list_all(wanted, page_size=7)) == sorted(names)


def test_pages_show_one_state_while_records_change(registry: Any, make: Any) -> None:
    count = 30
    writes = [
        t.RegisterOperation(make.key(f"n{i:02}"), make.spec(owner="old")) for i in range(count)
    ]
    registry.batch(writes)
    wanted = make.filter(kind=t.Kind.GATEWAY)
    page = registry.list(wanted, page_size=5)
    instances = list(page.instances)
    make.put("n00", owner="new")
    make.put("n29", owner="new")
    make.put("later")
    registry.deregister(make.key("n15"))
    while page.next_page_token:
        page = registry.list(wanted, page_size=5, page_token=page.next_page_token)
        instances.extend(page.instances)
    assert sorted(i.key.name for i in instances) == [f"n{i:02}" for i in range(count)]
    assert {i.spec.owner for i in instances} == {"old"}


def test_a_page_token_belongs_to_its_filter(registry: Any, make: Any) -> None:
    registry.batch([t.RegisterOperation(make.key(f"n{i}"), make.spec()) for i in range(5)])
    token = registry.list(make.filter(kind=t.Kind.GATEWAY), page_size=2).next_page_token
    other = make.filter(kind=t.Kind.GATEWAY, regions=("eu",))
    with pytest.raises(errors.PageTokenInvalidError) as caught:
        registry.list(other, page_size=2, page_token=token)
    assert caught.value.reason == "PAGE_TOKEN_INVALID"
    assert caught.value.field == "page_token"


@pytest.mark.parametrize("consistency", list(t.Consistency))
def test_every_consistency_reads_what_was_written(
    registry: Any, make: Any, consistency: t.Consistency
) -> None:
    make.put(owner="me")
    found = registry.get(make.key(), read=t.ReadOptions(consistency))
    assert found.spec.owner == "me"


def test_a_missing_record_is_not_found(registry: Any, make: Any) -> None:
    with pytest.raises(errors.NotFoundError) as caught:
        registry.get(make.key("none"))
    assert caught.value.reason == "NOT_FOUND"
    assert not caught.value.retryable


def test_a_missing_record_is_missing_from_a_state(registry: Any, make: Any) -> None:
    """Whoever reads on must know it, to be shown nothing older."""
    put = make.put("none")
    registry.deregister(make.key("none"))
    with pytest.raises(errors.NotFoundError) as caught:
        registry.get(make.key("none"))
    state = caught.value.metadata
    assert int(state["partition"]) == put.header.partition
    assert int(state["revision"]) > put.revision


def test_the_status_tells_of_partitions(registry: Any, make: Any) -> None:
    answer = make.put(ttl_ms=60_000)
    status = registry.status()
    assert status.writable
    assert len(status.cluster_id) == 32
    own = {item.partition: item for item in status.partitions}[answer.header.partition]
    assert own.revision >= answer.revision
    assert own.records >= 1
    assert own.leases >= 1
    assert own.leader_id == status.node_id


def test_the_routing_table_covers_all_partitions(registry: Any) -> None:
    table = registry.routing()
    assert table.partition_count & (table.partition_count - 1) == 0
    assert [route.partition for route in table.partitions] == list(range(table.partition_count))
    nodes = {member.node_id for member in table.members}
    assert all(set(route.replica_ids) <= nodes for route in table.partitions)


def test_a_snapshot_is_taken(registry: Any, make: Any) -> None:
    answer = make.put()
    (taken,) = registry.snapshot([answer.header.partition])
    assert taken.partition == answer.header.partition
    assert taken.revision >= answer.revision
    assert taken.records >= 1
