"""Control groups for machines: one below the cluster's own, in every hierarchy of the kernel.

The keeper removes them, for they are the one thing that outlives a namespace.
"""

from __future__ import annotations

from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
V1 = ("cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids", "systemd")
CPUSET_FILES = ("cpuset.cpus", "cpuset.mems")
CPU_SHARE = 8
"""What all machines together count for beside a process of this machine that has no group: as much
as so many such processes, not as one of them."""
SHARES_OF_ONE, WEIGHT_OF_ONE = 1024, 100
V2_CONTROLLERS = ("cpu", "cpuset", "io", "memory", "pids")


def make(cluster: str, machine: str) -> None:
    """The groups of one machine."""
    if (ROOT / "cgroup.controllers").exists():
        make_v2(cluster, machine)
        return
    for controller in V1:
        if (ROOT / controller).is_dir():
            (ROOT / controller / cluster / machine).mkdir(parents=True, exist_ok=True)
    shares = ROOT / "cpu" / cluster / "cpu.shares"
    if shares.exists():
        shares.write_text(str(CPU_SHARE * SHARES_OF_ONE))
    # A new cpuset is empty, and nothing can enter an empty one.
    above = ROOT / "cpuset"
    for level in (cluster, machine):
        for name in CPUSET_FILES:
            (above / level / name).write_text((above / name).read_text())
        above /= level


def make_v2(cluster: str, machine: str) -> None:
    """The one group of a machine, with the controllers that its level above has."""
    folder = ROOT
    for level in (cluster, machine):
        have = set((folder / "cgroup.controllers").read_text().split())
        for controller in V2_CONTROLLERS:
            if controller in have:
                (folder / "cgroup.subtree_control").write_text(f"+{controller}")
        folder /= level
        folder.mkdir(exist_ok=True)
        if level == cluster and (folder / "cpu.weight").exists():
            (folder / "cpu.weight").write_text(str(CPU_SHARE * WEIGHT_OF_ONE))
