"""Nodes that come and go under load: nobody's request fails, and little more moves than has to."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable
from functools import partial

import pytest
from cluster_lab import ClusterLab, p99_ms
from nemesis.lab import Lab
from nemesis.processes import Process, wait_until

PARTITIONS = 16
REPLICATION = 3
MOVED_MAX = 1.2
"""Replicas that may move for each one that has to."""
MOVING_S = 120.0
EXIT_REMOVED = 7
NS_PER_S = 1_000_000_000

Replicas = set[tuple[int, str]]


@pytest.fixture
def cluster(lab: Lab) -> ClusterLab:
    return ClusterLab(lab, partitions=PARTITIONS, spares=2)


def rebalance(cluster: ClusterLab) -> Replicas:
    """Has agnictl move what has to, kills it in the middle, and has another one end it. Answers
    every replica that there was at any time."""
    seen = cluster.replicas()
    began = len(seen)

    def look() -> bool:
        seen.update(cluster.replicas())
        return not process.is_running

    def has_moved() -> bool:
        return look() or len(seen) > began

    process = cluster.agnictl("cluster", "rebalance", "--watch")
    wait_until("a first replica moves", has_moved, MOVING_S)
    process.kill()
    process = cluster.agnictl("cluster", "rebalance", "--watch")
    wait_until("all is where it should be", look, MOVING_S)
    assert process.stop() == 0, process.text()
    return seen | cluster.replicas()


def held(replicas: Replicas) -> Counter[str]:
    """How many replicas each node has."""
    return Counter(name for _, name in replicas)


def has_ended(process: Process) -> bool:
    """Whether it runs no more."""
    return not process.is_running


def grow(cluster: ClusterLab) -> None:
    before = cluster.replicas()
    for name in cluster.spares:
        cluster.nodes[name].start()
    cluster.wait_ready(cluster.spares)
    seen = rebalance(cluster)
    after = held(cluster.replicas())
    moved = len(seen - before)
    has_to = sum(after[name] for name in cluster.spares)
    print(f"3 to 5 nodes: {moved} replicas moved, {has_to} had to; {dict(after)}")
    assert after.total() == PARTITIONS * REPLICATION
    assert max(after.values()) - min(after.values()) <= 1
    assert moved <= MOVED_MAX * has_to


def shrink(cluster: ClusterLab) -> None:
    before = cluster.replicas()
    for name in cluster.spares:
        cluster.in_turn("cluster", "drain", name)
    seen = rebalance(cluster)
    after = held(cluster.replicas())
    moved = len(seen - before)
    has_to = sum(held(before)[name] for name in cluster.spares)
    print(f"5 to 3 nodes: {moved} replicas moved, {has_to} had to; {dict(after)}")
    assert after == dict.fromkeys(cluster.names, PARTITIONS)
    assert moved <= MOVED_MAX * has_to
    for name in cluster.spares:
        cluster.in_turn("cluster", "remove", name)
        wait_until(f"{name} ends by itself", partial(has_ended, cluster.nodes[name]))
        assert cluster.nodes[name].stop() == EXIT_REMOVED


def test_three_to_five_to_three_nodes_under_load(cluster: ClusterLab) -> None:
    load = cluster.load(clients=10)
    callers: Process = cluster.callers()
    load.more(1_000)
    spans: dict[str, tuple[int, int]] = {}

    def timed(what: str, work: Callable[[], None]) -> None:
        began_ns = time.monotonic_ns()
        work()
        spans[what] = began_ns, time.monotonic_ns()

    timed("quiet", lambda: load.more(2_000))
    timed("3 to 5", lambda: cluster.takeover(lambda: grow(cluster)))
    timed("5 to 3", lambda: cluster.takeover(lambda: shrink(cluster)))
    load.more(500)
    assert callers.stop() == 0
    told = json.loads(callers.text().splitlines()[-1])
    print(f"callers with the SDK's retries: {told}")
    run, violations = cluster.judge(load, "scaling")
    for what, (began_ns, ended_ns) in spans.items():
        p99 = p99_ms(run.operations, began_ns, ended_ns)
        print(f"{what}: {(ended_ns - began_ns) / NS_PER_S:.1f} s, p99 {p99:.1f} ms")
    assert not violations
    assert told["calls"] > 500
    assert not told["failed"]
