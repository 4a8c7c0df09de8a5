"""The mass-expiry guard of a real node with its default settings: whoever goes silent together is
kept as SUSPECT, one or two of many are not."""

import re
import time
import urllib.request

import pytest
from fault_support import GATEWAY, register_many, wait_for

from agniregistry.api.v1 import registry_pb2, types_pb2

GATEWAYS = 50
TTL_MS = 3_000
LONG_MS = 600_000
PARTITIONS = 16
"""Those of a node that isn't told otherwise: few leases of a region are in any one of them."""


@pytest.fixture
def node(start_node):
    """A node as it is without settings, as far as leases are concerned."""
    return start_node(partitions=PARTITIONS)


def metric(node, name):
    """The sum of a metric over its labels."""
    with urllib.request.urlopen(f"http://{node.address}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    return sum(
        float(value) for value in re.findall(rf"^{name}(?:{{.*}})? (\S+)$", text, re.MULTILINE)
    )


def renew(node, leases):
    """Renews leases; answers those that are lost."""
    answer = node.registry.Renew(registry_pb2.RenewRequest(lease_ids=leases), timeout=10)
    return list(answer.lost_lease_ids)


def listed(node, *, statuses=(), **match):
    """The status of each record that List answers, by name."""
    wanted = types_pb2.Filter(statuses=statuses, **match)
    request = registry_pb2.ListRequest(filter=wanted, page_size=1000)
    answer = node.registry.List(request, timeout=10)
    return {each.record.key.name: each.status for each in answer.instances}


def discovered(node, region):
    """What Discover answers, best first."""
    wanted = types_pb2.Filter(kind=GATEWAY)
    request = registry_pb2.DiscoverRequest(filter=wanted, region=region, limit=100)
    return node.registry.Discover(request, timeout=10).candidates


def test_a_fleet_that_goes_silent_at_once_is_suspect_and_comes_back(node):
    names = [f"gw{number}" for number in range(GATEWAYS)]
    leases = register_many(node, names, region="eu", ttl_ms=TTL_MS)
    other = node.register("elsewhere", region="us", ttl_ms=LONG_MS)
    assert other.lease_id
    assert not renew(node, leases)
    silent_since = time.monotonic()
    # At no moment is one of them gone: neither at the deadline nor between it and anything else.
    statuses = set()
    while time.monotonic() < silent_since + TTL_MS / 1000 + 1.0:
        seen = listed(node, regions=["eu"])
        assert len(seen) == GATEWAYS
        statuses.update(seen.values())
        assert node.get("gw7") is not None
        time.sleep(0.005)
    assert statuses == {types_pb2.STATUS_ALIVE, types_pb2.STATUS_SUSPECT}
    suspects = listed(node, statuses=[types_pb2.STATUS_SUSPECT])
    assert sorted(suspects) == sorted(names)
    got = node.get("gw7")
    assert got.status == types_pb2.STATUS_SUSPECT
    assert got.lease_remaining_ms < 0
    assert node.get("elsewhere").status == types_pb2.STATUS_ALIVE
    found = discovered(node, "eu")
    assert len(found) == GATEWAYS + 1, "they are answered"
    assert found[0].instance.record.key.name == "elsewhere", "behind whoever is alive"
    assert all(each.instance.status == types_pb2.STATUS_SUSPECT for each in found[1:])
    assert metric(node, "agni_suspect_domains") > 0
    assert metric(node, "agni_mass_expiries_total") == 1
    assert "region eu" in node.log_text()

    assert not renew(node, leases), "a suspect may come back"
    assert set(listed(node, regions=["eu"]).values()) == {types_pb2.STATUS_ALIVE}
    wait_for("the guard to end by itself", lambda: metric(node, "agni_suspect_domains") == 0, 5)
    assert metric(node, "agni_expired_total") == 0


def test_a_fleet_that_stays_silent_goes_in_the_end(node):
    names = [f"gw{number}" for number in range(GATEWAYS)]
    register_many(node, names, region="eu", ttl_ms=TTL_MS)
    silent_since = time.monotonic()
    wait_for("the first of them to be gone", lambda: node.get("gw0") is None, 60)
    held = time.monotonic() - silent_since
    assert held > 2 * TTL_MS / 1000, "held for one more time to live"
    wait_for("all of them to be gone", lambda: node.records() == 0, 10)
    wait_for("the guard to end by itself", lambda: metric(node, "agni_suspect_domains") == 0, 5)
    print(f"{GATEWAYS} silent leases of {TTL_MS} ms went {held:.1f} s after their registration")


@pytest.mark.parametrize("silent", [1, 2])
def test_one_or_two_of_fifty_run_out_at_their_deadline(node, silent):
    names = [f"gw{number}" for number in range(GATEWAYS)]
    leases = register_many(node, names, region="eu", ttl_ms=TTL_MS)
    registered = time.monotonic()
    deadline = registered + TTL_MS / 1000
    while time.monotonic() < deadline:
        assert not renew(node, leases[silent:])
        time.sleep(TTL_MS / 1000 / 6)
    assert set(listed(node).values()) == {types_pb2.STATUS_ALIVE}
    assert sorted(listed(node)) == sorted(names[silent:]), "at the deadline, for every reader"
    assert renew(node, leases[:silent]) == leases[:silent]
    assert metric(node, "agni_mass_expiries_total") == 0


def test_share_minimum_and_rate_are_settings(start_node):
    node = start_node(
        partitions=PARTITIONS,
        mass_expiry_share_percent=90,
        mass_expiry_min_leases=20,
        mass_expiry_leases_per_s=10,
    )
    few, most = [f"few{number}" for number in range(19)], [f"gw{number}" for number in range(30)]
    register_many(node, few, region="few", ttl_ms=TTL_MS)
    register_many(node, most, region="eu", ttl_ms=TTL_MS)
    register_many(node, [f"stays{number}" for number in range(10)], region="us", ttl_ms=LONG_MS)
    time.sleep(TTL_MS / 1000 + 0.05)
    assert not listed(node, regions=["few"]), "below the minimum"
    assert len(listed(node, regions=["eu"])) == 30, "all of a region"
    wait_for("the first to go", lambda: len(listed(node, regions=["eu"])) < 30, 30)
    begun = time.monotonic()
    wait_for("the last to go", lambda: not listed(node, regions=["eu"]), 30)
    assert time.monotonic() - begun > 1.5, "ten a second"


def test_what_is_behind_one_gateway_is_held_although_its_region_lives(node):
    def agents(gateway, count):
        operations = [
            registry_pb2.WriteOperation(
                register=registry_pb2.RegisterRequest(
                    key=types_pb2.Key(kind=types_pb2.KIND_AGENT, name=f"{gateway}-{number}"),
                    spec=types_pb2.Spec(region="eu", gateway=gateway),
                    ttl_ms=TTL_MS,
                )
            )
            for number in range(count)
        ]
        answer = node.registry.Batch(registry_pb2.BatchRequest(operations=operations), timeout=10)
        return [result.register.lease_id for result in answer.results]

    living = agents("near", 40)
    agents("far", 8)
    deadline = time.monotonic() + TTL_MS / 1000
    while time.monotonic() < deadline + 0.5:
        assert not renew(node, living)
        time.sleep(TTL_MS / 1000 / 6)
    suspects = listed(node, statuses=[types_pb2.STATUS_SUSPECT])
    assert sorted(suspects) == [f"far-{number}" for number in range(8)]
    assert "gateway default/far" in node.log_text()
