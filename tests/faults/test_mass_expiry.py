"""Many leases that stop being renewed at once: gone for readers in time, deleted soon after."""

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fault_support import GATEWAY, SOAK, register_many, wait_for

from agniregistry.api.v1 import registry_pb2, types_pb2

LEASES = 100_000 if SOAK else 5_000
TTL_MS = 10_000 if SOAK else 5_000
DELETED_SECONDS = 2.0
READ_SECONDS = 1.5
"""How long a reader is watched; about as long as the removal takes."""


class Reader:
    """Gets a record without a lease, over and over, from the beginning of a `with` to its end."""

    def __init__(self, node, name):
        self.command = [sys.executable, str(Path(__file__).parent / "getting.py")]
        self.command += [node.address, name]

    def __enter__(self):
        pipe = subprocess.PIPE
        env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
        self.process = subprocess.Popen(self.command, stdin=pipe, stdout=pipe, text=True, env=env)
        assert self.process.stdout.readline() == "ready\n"
        return self

    def __exit__(self, *_):
        with self.process:
            out, _ = self.process.communicate(timeout=60)
        assert self.process.returncode == 0
        self.p99_ms = statistics.quantiles(json.loads(out), n=100)[98]


def listed(node):
    """The names that List answers, over all pages."""
    names, token = set(), ""
    while True:
        request = registry_pb2.ListRequest(page_size=1000, page_token=token)
        answer = node.registry.List(request, timeout=30)
        names.update(each.record.key.name for each in answer.instances)
        token = answer.next_page_token
        if not token:
            return names


def discovered(node):
    """The names that Discover answers."""
    request = registry_pb2.DiscoverRequest(filter=types_pb2.Filter(kind=GATEWAY), limit=100)
    answer = node.registry.Discover(request, timeout=30)
    return {each.instance.record.key.name for each in answer.candidates}


@pytest.fixture
def node(start_node):
    """One with a record that has no lease."""
    # The guard against mass expiry would rightly hold the others: test_mass_expiry_guard.
    node = start_node(mass_expiry_guard=False, partitions=16)
    node.register("stays")
    return node


def leases_that_all_end(node):
    """Registers many at once. Their names, and between which two moments all of them run out."""
    names = [f"gw{number}" for number in range(LEASES)]
    # Long at first, so that none runs out while the others are being registered.
    register_many(node, names, ttl_ms=600_000)
    leases = register_many(node, names, ttl_ms=TTL_MS)
    first = time.monotonic()
    for start in range(0, LEASES, 10_000):
        request = registry_pb2.RenewRequest(lease_ids=leases[start : start + 10_000])
        assert node.registry.Renew(request, timeout=30).renewed == len(request.lease_ids)
    last = time.monotonic()
    assert last - first < TTL_MS / 1000 / 2, "renewing took too long for this test to mean much"
    return names, first + TTL_MS / 1000, last + TTL_MS / 1000


@pytest.mark.timeout(300)
def test_leases_that_stop_at_once(node, chance):
    names, begin, deadline = leases_that_all_end(node)
    while time.monotonic() < begin - 0.3:
        for name in chance.sample(names, 20):
            assert node.get(name) is not None or time.monotonic() > begin
        assert node.records() == LEASES + 1
        time.sleep(0.05)
    time.sleep(max(0.0, deadline - time.monotonic()))
    assert listed(node) == {"stays"}, "listed after their deadline"
    assert discovered(node) == {"stays"}, "discovered after their deadline"
    for name in chance.sample(names, 200):
        assert node.get(name) is None, f"{name} is shown after its deadline"
    wait_for("all are deleted", lambda: node.records() == 1, 30)
    lag = time.monotonic() - deadline
    print(f"{LEASES} leases of {TTL_MS} ms: all deleted {lag:.2f} s after the deadline")
    # In `make test` the machine may be busy with other tests: there only the order counts.
    assert lag < (DELETED_SECONDS if SOAK else 20)


@pytest.mark.timeout(300)
def test_others_hardly_notice_leases_that_stop_at_once(node):
    """Nobody but the reader asks anything meanwhile: it is the removal that is measured."""
    _, begin, deadline = leases_that_all_end(node)
    time.sleep(max(0.0, begin - READ_SECONDS - 2 - time.monotonic()))
    with Reader(node, "stays") as idle:
        time.sleep(READ_SECONDS)
    time.sleep(max(0.0, begin - time.monotonic()))
    with Reader(node, "stays") as busy:
        time.sleep(max(0.0, deadline - time.monotonic()) + READ_SECONDS)
    if SOAK:
        assert node.records() == 1
    print(f"Get p99 idle {idle.p99_ms:.2f} ms, while {LEASES} leases go {busy.p99_ms:.2f} ms")
    if SOAK:
        assert busy.p99_ms < idle.p99_ms * 3
