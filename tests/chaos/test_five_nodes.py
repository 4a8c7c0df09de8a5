"""Five nodes: two may be gone at once, and a network may fall apart in more ways."""

from __future__ import annotations

import os
import random
from contextlib import ExitStack
from functools import partial

import pytest
from cluster_lab import ClusterLab
from history import Outcome
from nemesis.lab import Lab
from nemesis.partition import between, ring

NODES = 5
IS_LONG = bool(os.environ.get("AGNI_CHAOS"))
ROUNDS = 10 if IS_LONG else 1
PAUSE_S = 20.0 if IS_LONG else 3.0


@pytest.fixture
def cluster(lab: Lab) -> ClusterLab:
    return ClusterLab(lab, count=NODES, replication=NODES)


def two_that_lead(cluster: ClusterLab) -> list[str]:
    """The two nodes that lead most."""
    led = list(cluster.leaders().values())
    return sorted(cluster.names, key=led.count)[-2:]


def test_two_of_five_at_once(cluster: ClusterLab) -> None:
    """Killed, stopped, and cut off from the three others, two together; and a ring, in which each
    reaches a majority and no two the same one."""
    chance = random.Random(5)
    calm = cluster.names[0]
    load = cluster.load(clients=10, leases=20, leases_at=cluster.address(calm), ttl_ms=6_000)
    probe = cluster.probe()
    load.more(300)

    def both(how: str) -> None:
        def make() -> ExitStack:
            stack = ExitStack()
            for name in two_that_lead(cluster):
                node = cluster.nodes[name]
                fault = node.crash() if how == "kill" else node.pause(chance.uniform(0.5, PAUSE_S))
                stack.enter_context(fault)
            return stack

        cluster.fault(make, partial(load.go_on, PAUSE_S))
        load.more(200)

    def cut(name: str) -> None:
        pair = two_that_lead(cluster)
        rest = [each for each in cluster.names if each not in pair]
        pairs = ring(cluster.names) if name == "ring" else between(pair, rest)
        cluster.fault(lambda: cluster.network.cut(pairs, name), lambda: load.more(300))
        load.more(200)

    for _ in range(ROUNDS):
        both("kill")
        both("pause")
        cut("two of five")
        cut("ring")
    cluster.tell_gaps(probe)
    run, violations = cluster.judge(load, "five-nodes")
    assert not violations
    lost = [each for each in run.operations if each.f == "renew" and each.outcome is Outcome.FAIL]
    assert not lost, "a lease that was renewed in time has been lost"
