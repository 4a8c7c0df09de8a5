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

IS_LONG = bool(os.environ.get("AGNI_CHAOS"))
RECORDS = 100_000 if IS_LONG else 10_000
WHOLE_S = 60.0
BITS = 8


@pytest.fixture
def cluster(lab: Lab) -> ClusterLab:
    return ClusterLab(lab)


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
            cluster.start_until_whole(victim, RECORDS, WHOLE_S)

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
        cluster.start_until_whole(victim, RECORDS, WHOLE_S)

    cluster.takeover(damage)
    said = cluster.nodes[victim].text()
    assert ".wal" in said, said[-2_000:]
    load.more(200)
    _, violations = cluster.judge(load, "damaged-log")
    assert not violations
