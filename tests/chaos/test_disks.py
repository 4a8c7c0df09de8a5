"""Disks that fail the node that leads: others lead then, and it comes back by itself."""

from __future__ import annotations

import time

from cluster_lab import ClusterLab
from nemesis.disks import SmallDisk
from nemesis.lab import Lab
from nemesis.processes import wait_until
from nemesis.shim import FailingDisk

VICTIM = "n1"
SLOW_SYNC_MS = 1_500


def leads(cluster: ClusterLab) -> bool:
    """Whether the victim leads anything."""
    return VICTIM in cluster.leaders().values()


def wait_until_it_leads(cluster: ClusterLab, is_leader: bool) -> None:
    """Says how long it took."""
    began = time.monotonic()
    what = f"{VICTIM} leads {'again' if is_leader else 'nothing any more'}"
    wait_until(what, lambda: leads(cluster) is is_leader)
    print(f"{what} after {time.monotonic() - began:.1f} s")


def failing(lab: Lab) -> tuple[ClusterLab, FailingDisk]:
    """A cluster one of whose disks fails when it is told to."""
    folder = lab.folder / "failing"
    disk = FailingDisk(lab, VICTIM, folder)
    cluster = ClusterLab(lab, data_dirs={VICTIM: folder}, environments={VICTIM: disk.environment()})
    return cluster, disk


def test_a_leader_whose_disk_is_full_hands_over(lab: Lab) -> None:
    disk = SmallDisk(lab, megabytes=64)
    cluster = ClusterLab(lab, data_dirs={VICTIM: disk.folder / "data"})
    load, probe = cluster.load(clients=5), cluster.probe()
    load.more(200)
    wait_until_it_leads(cluster, is_leader=True)

    def while_it_is_full() -> None:
        wait_until_it_leads(cluster, is_leader=False)
        load.more(300)
        assert not leads(cluster), "it was given back what it can't write"

    cluster.fault(disk.fill, while_it_is_full)
    wait_until_it_leads(cluster, is_leader=True)
    cluster.tell_gaps(probe)
    _, violations = cluster.judge(load, "full-disk")
    assert not violations


def test_a_leader_whose_disk_is_slow_hands_over(lab: Lab) -> None:
    cluster, disk = failing(lab)
    load, probe = cluster.load(clients=5), cluster.probe()
    load.more(200)
    wait_until_it_leads(cluster, is_leader=True)

    def while_it_is_slow() -> None:
        wait_until_it_leads(cluster, is_leader=False)
        load.more(300)
        assert not leads(cluster), "it was given back what it writes slowly"

    cluster.fault(lambda: disk.slow_sync(SLOW_SYNC_MS), while_it_is_slow)
    cluster.tell_gaps(probe)
    _, violations = cluster.judge(load, "slow-disk")
    assert not violations


def test_a_leader_whose_disk_fails_to_sync_ends_and_others_lead(lab: Lab) -> None:
    cluster, disk = failing(lab)
    load, probe = cluster.load(clients=5), cluster.probe()
    load.more(200)
    wait_until_it_leads(cluster, is_leader=True)
    node = cluster.nodes[VICTIM]

    def fail() -> None:
        with disk.fail_sync():
            wait_until("it ends by itself", lambda: not node.is_running)
            load.more(300)
        assert node.stop() != 0
        node.start()

    cluster.takeover(fail)
    load.more(100)
    cluster.tell_gaps(probe)
    _, violations = cluster.judge(load, "failed-sync")
    assert not violations
