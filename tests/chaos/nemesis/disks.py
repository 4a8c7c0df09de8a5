"""Disks that are small, full, stalled or slow, and files whose bits have flipped.

A small disk is a file with an ext4 on it, mounted by a loop device; it goes away with the run,
or is swept by the next one.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from random import Random

from nemesis.lab import (
    GUARD_S,
    Fault,
    Lab,
    NemesisError,
    UnavailableError,
    belongs_to_the_dead,
    need_root,
    need_tool,
    run,
)

MOUNT_GUARD_S = 3_600.0
FREEZE_GUARD_S = 60.0
BLKIO = Path("/sys/fs/cgroup/blkio")
CHUNK_BYTES = 1 << 20


class SmallDisk:
    """A file system of its own; `folder` is where it is mounted."""

    def __init__(self, lab: Lab, name: str = "disk", megabytes: int = 32) -> None:
        """Raises: UnavailableError: without root, loop devices, mkfs.ext4 or mount."""
        need_root()
        for tool, package in (("mkfs.ext4", "e2fsprogs"), ("losetup", "mount")):
            need_tool(tool, package)
        if not Path("/dev/loop-control").exists():
            raise UnavailableError("needs loop devices, of the kernel's module loop")
        sweep()
        self.lab = lab
        self.name = name
        self.folder = lab.folder / f"{lab.name}-{name}"
        self._image = lab.folder / f"{lab.name}-{name}.ext4"
        self.folder.mkdir()
        with self._image.open("wb") as image:
            image.truncate(megabytes << 20)
        run(["mkfs.ext4", "-q", "-F", "-m", "0", str(self._image)])
        self.device = run(["losetup", "--find", "--show", str(self._image)]).strip()
        where = str(self.folder)
        actions = [["fsfreeze", "-u", where], ["umount", "-l", where]]
        self._guard = lab.guard([*actions, ["losetup", "-d", self.device]], MOUNT_GUARD_S)
        lab.at_end(self.close)
        try:
            run(["mount", self.device, where])
        except NemesisError as error:
            raise UnavailableError(f"needs the right to mount: {error}") from error

    def fill(self, leave_bytes: int = 0, seconds: float = GUARD_S) -> Fault:
        """Leaves only so much free; heals by removing what filled it."""
        ballast = self.folder / "ballast"

        def fill() -> None:
            with ballast.open("wb") as file:
                at, step = 0, CHUNK_BYTES
                while step >= 4_096:
                    free = shutil.disk_usage(self.folder).free - leave_bytes
                    try:
                        if free < step:
                            raise OSError(errno.ENOSPC, "as much as was wanted")
                        os.posix_fallocate(file.fileno(), at, step)
                        at += step
                    except OSError as error:
                        if error.errno != errno.ENOSPC:
                            raise
                        step //= 4

        def heal() -> None:
            ballast.unlink(missing_ok=True)

        return self.lab.fault(
            f"{self.name} is full", fill, heal, [["@remove", str(ballast)]], seconds
        )

    def stall(self, seconds: float = FREEZE_GUARD_S) -> Fault:
        """Every write waits, in a sleep that not even SIGKILL ends, until it is healed."""
        need_tool("fsfreeze", "util-linux")
        where = str(self.folder)

        def heal() -> None:
            # The watchdog may have been quicker.
            with contextlib.suppress(NemesisError):
                run(["fsfreeze", "-u", where])

        return self.lab.fault(
            f"{self.name} stalls",
            lambda: [run(["fsfreeze", "-f", where])].clear(),
            heal,
            [["fsfreeze", "-u", where]],
            seconds,
        )

    def throttle(self, bytes_per_s: int, pids: Iterable[int], seconds: float = GUARD_S) -> Fault:
        """Limits what these processes write to this disk.

        Raises:
            UnavailableError: without the blkio controller of cgroup v1.
        """
        if not (BLKIO / "blkio.throttle.write_bps_device").exists():
            raise UnavailableError("needs the blkio controller of cgroup v1, with throttling")
        group = BLKIO / f"{self.lab.name}-{self.name}"
        number = Path(self.device).stat().st_rdev
        place = f"{os.major(number)}:{os.minor(number)}"
        members = tuple(pids)

        def make() -> None:
            group.mkdir(exist_ok=True)
            (group / "blkio.throttle.write_bps_device").write_text(f"{place} {bytes_per_s}")
            for pid in members:
                (group / "cgroup.procs").write_text(str(pid))

        def heal() -> None:
            if not group.exists():
                return
            (group / "blkio.throttle.write_bps_device").write_text(f"{place} 0")
            for pid in (group / "cgroup.procs").read_text().split():
                with contextlib.suppress(ProcessLookupError):
                    (BLKIO / "cgroup.procs").write_text(pid)
            group.rmdir()

        undo = f"echo {place} 0 > {group}/blkio.throttle.write_bps_device"
        name = f"{self.name} is slow"
        return self.lab.fault(name, make, heal, [["sh", "-c", undo]], seconds)

    def close(self) -> None:
        """Unmounts it and removes it; its writers have to be ended before."""
        for command in (["umount", str(self.folder)], ["losetup", "-d", self.device]):
            with contextlib.suppress(NemesisError):
                run(command)
        if self.folder.is_mount():
            run(["umount", "-l", str(self.folder)])
        self._image.unlink(missing_ok=True)
        self._guard.release()


def sweep() -> None:
    """Unmounts the disks, and removes the groups, of runs whose process is gone."""
    listed = run(["losetup", "--list", "--json", "--output", "NAME,BACK-FILE"]) or "{}"
    for device in json.loads(listed).get("loopdevices", []):
        if belongs_to_the_dead(device["back-file"] or ""):
            for line in Path("/proc/mounts").read_text().splitlines():
                name, where = line.split()[:2]
                if name == device["name"]:
                    for command in (["fsfreeze", "-u", where], ["umount", "-l", where]):
                        with contextlib.suppress(NemesisError):
                            run(command)
            with contextlib.suppress(NemesisError):
                run(["losetup", "-d", device["name"]])
    for group in BLKIO.glob("agni-*") if BLKIO.exists() else ():
        if belongs_to_the_dead(group.name):
            with contextlib.suppress(OSError):
                group.rmdir()


def flip_bits(path: Path, count: int, chance: Random, start: int = 0) -> list[tuple[int, int]]:
    """Flips that many bits of a file at random places from `start` on; where they are.

    The file must not be in use. To heal it, flip the same bits with `flip`.
    """
    size = path.stat().st_size
    if size <= start:
        raise NemesisError(f"{path.name} has no byte after offset {start}")
    places = {(chance.randrange(start, size), chance.randrange(8)) for _ in range(count)}
    flip(path, places)
    return sorted(places)


def flip(path: Path, places: Iterable[tuple[int, int]]) -> None:
    """Flips these bits, given as (offset, bit)."""
    with path.open("r+b") as file:
        for offset, bit in places:
            file.seek(offset)
            byte = file.read(1)[0]
            file.seek(offset)
            file.write(bytes([byte ^ (1 << bit)]))
