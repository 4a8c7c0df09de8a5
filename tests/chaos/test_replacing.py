"""Every node gets a new self, one after the other, under load; and one whose log was damaged."""

from __future__ import annotations

import os
import random
import shutil
import time

import pytest
from cluster_lab import ClusterLab, p99_ms
from nemesis.disks import flip_bits
from nemesis.lab import Lab
from nemesis.processes import wait_until

IS_LONG = bool(os.environ.get("AGNI_CHAOS"))
RECORDS = 100_000 if IS_LONG else 10_000
WHOLE_S = 60.0
BITS = 8


@pytest.fixture
def cluster(lab: Lab) -> ClusterLab:
    return ClusterLab(lab)


def start_until_whole(cluster: ClusterLab, victim: str) -> None:
    """Starts a node, and says how long it takes until it has everything."""
    began = time.monotonic()
    cluster.nodes[victim].start()
    wait_until(f"{victim} is whole", lambda: cluster.is_whole(victim, RECORDS), WHOLE_S)
    print(f"{victim}, {RECORDS:,} records: whole after {time.monotonic() - began:.1f} s")


def test_every_node_is_replaced_in_turn(cluster: ClusterLab) -> None:
    """Its directory is gone, so it comes as somebody new: learner, voter, and the old one out."""
    cluster.fill(RECORDS)
    load = cluster.load(clients=10)
    load.more(500)
    began_ns = time.monotonic_ns()
    load.more(1_000)
    quiet = began_ns, time.monotonic_ns()
    began_ns = time.monotonic_ns()
    for victim in cluster.names:

        def wipe(victim: str = victim) -> None:
            cluster.nodes[victim].kill()
            shutil.rmtree(cluster.data_dir(victim))
            load.more(200)
            start_until_whole(cluster, victim)

        cluster.takeover(wipe)
        cluster.wait_settled()
    replacing = began_ns, time.monotonic_ns()
    load.more(200)
    run, violations = cluster.judge(load, "replaced-nodes")
    for what, span in (("quiet", quiet), ("replacing", replacing)):
        print(f"{what}: p99 {p99_ms(run.operations, *span):.1f} ms")
    assert not violations


def test_a_log_with_flipped_bits_is_put_aside_and_the_node_made_whole(cluster: ClusterLab) -> None:
    cluster.fill(RECORDS)
    load = cluster.load(clients=10)
    load.more(500)
    victim = cluster.names[-1]

    def damage() -> None:
        cluster.nodes[victim].kill()
        oldest = min((cluster.data_dir(victim) / "wal").glob("*.wal"))
        # In a segment that others follow, so that no torn end is to be seen in it.
        flip_bits(oldest, BITS, random.Random(7), start=4_096)
        load.more(200)
        start_until_whole(cluster, victim)

    cluster.takeover(damage)
    said = cluster.nodes[victim].text()
    assert ".wal" in said, said[-2_000:]
    load.more(200)
    _, violations = cluster.judge(load, "damaged-log")
    assert not violations
