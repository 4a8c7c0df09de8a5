"""A disk on which every write waits: of the node that leads, and of one that follows.

The process can't even be killed meanwhile; it must not hold anybody up, and no lease may be lost.
"""

from __future__ import annotations

import os
import time

from cluster_lab import ClusterLab, p99_ms
from history import Outcome
from nemesis.disks import SmallDisk
from nemesis.lab import Lab

VICTIM = "n1"
IS_LONG = bool(os.environ.get("AGNI_CHAOS"))
LEADER_STALL_S = 30.0 if IS_LONG else 6.0
FOLLOWER_STALL_S = 10.0 if IS_LONG else 4.0
TTL_MS = 4_000
"""Short against the stall, so that a lease that isn't renewed is lost within it."""


def test_the_disk_of_a_leader_stalls(lab: Lab) -> None:
    disk = SmallDisk(lab, megabytes=64)
    cluster = ClusterLab(lab, data_dirs={VICTIM: disk.folder / "data"})
    cluster.wait_settled()
    assert VICTIM in cluster.leaders().values()
    load = cluster.load(clients=10, leases=20, leases_at=cluster.address("n2"), ttl_ms=TTL_MS)
    probe = cluster.probe()
    load.more(300)

    def while_it_stalls() -> None:
        load.go_on(LEADER_STALL_S)
        assert VICTIM not in cluster.leaders().values()

    cluster.fault(disk.stall, while_it_stalls)
    if not cluster.nodes[VICTIM].is_running:
        # Whose disk stands still for too long ends by itself; whoever runs it starts it again.
        cluster.takeover(cluster.nodes[VICTIM].start)
    load.more(200)
    cluster.tell_gaps(probe)
    run, violations = cluster.judge(load, "stalled-leader")
    assert not violations
    renewals = [each for each in run.operations if each.f == "renew"]
    assert renewals
    assert not [each for each in renewals if each.outcome is Outcome.FAIL], "a live lease was lost"


def test_the_disk_of_a_follower_stalls(lab: Lab) -> None:
    """It leads nothing when its disk begins to stall: two of three go on as if nothing was."""
    disk = SmallDisk(lab, megabytes=64)
    cluster = ClusterLab(lab, data_dirs={VICTIM: disk.folder / "data"})
    cluster.wait_settled()
    cluster.in_turn("cluster", "drain", VICTIM, "--wait")
    load = cluster.load(clients=10)
    load.more(300)
    spans: dict[str, tuple[int, int, int]] = {}

    def timed(what: str, seconds: float) -> None:
        began_ns, before = time.monotonic_ns(), load.ok
        load.go_on(seconds)
        spans[what] = began_ns, time.monotonic_ns(), load.ok - before

    timed("quiet", FOLLOWER_STALL_S)
    cluster.fault(disk.stall, lambda: timed("stalled", FOLLOWER_STALL_S))
    load.more(200)
    run, violations = cluster.judge(load, "stalled-follower")
    for what, (began_ns, ended_ns, count) in spans.items():
        rate = count / ((ended_ns - began_ns) / 1e9)
        p99 = p99_ms(run.operations, began_ns, ended_ns)
        print(f"{what}: {rate:.0f} operations a second, p99 {p99:.1f} ms")
    assert not violations
