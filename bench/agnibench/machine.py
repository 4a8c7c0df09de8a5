"""What the machine is and what else it does while a cell is measured."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import time
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
SERVER_CORE = 0
LOAD_CORE = 1


def busy_seconds() -> float:
    """CPU seconds that all cores have spent so far on anything but waiting."""
    numbers = [int(part) for part in Path("/proc/stat").read_text().split("\n")[0].split()[1:9]]
    user, nice, system, _idle, _wait, interrupts, soft, steal = numbers
    return (user + nice + system + interrupts + soft + steal) / TICKS


def process_seconds(pid: int) -> float:
    """CPU seconds of a process and its children that ended."""
    parts = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return sum(int(part) for part in parts[11:15]) / TICKS


def resident_bytes(pid: int) -> int:
    """Resident memory of a process."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    return 0


def wait_quiet(limit: float, patience_s: float) -> None:
    """Waits until others use less than `limit` of a core, or the patience is over."""
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        before, start = busy_seconds(), time.monotonic()
        time.sleep(0.3)
        if (busy_seconds() - before) / (time.monotonic() - start) < limit:
            return


def fdatasync_us(folder: Path, rounds: int = 400, size: int = 512) -> dict[str, float]:
    """Microseconds of appending `size` bytes and making them durable, one after the other."""
    path = folder / "fdatasync"
    took = []
    with path.open("wb", buffering=0) as file:
        for _ in range(rounds):
            start = time.perf_counter()
            file.write(bytes(size))
            os.fdatasync(file.fileno())
            took.append((time.perf_counter() - start) * 1e6)
    path.unlink()
    took.sort()
    return {
        "p50_us": round(statistics.median(took), 1),
        "p99_us": round(took[len(took) * 99 // 100], 1),
        "max_us": round(took[-1], 1),
    }


def describe(folder: Path) -> dict[str, str | int]:
    """The machine, as far as it explains figures; no names of hosts or paths."""
    model = "unknown"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    best, kind = "", "unknown"
    for line in Path("/proc/mounts").read_text().splitlines():
        _device, mount, name = line.split()[:3]
        if str(folder.resolve()).startswith(mount) and len(mount) > len(best):
            best, kind = mount, name
    return {
        "cpu": model,
        "cores": os.cpu_count() or 0,
        "memory_mib": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20,
        "kernel": platform.release().split("-")[0],
        "file_system": kind,
        "python": platform.python_version(),
    }


def version_of(binary: Path) -> str:
    """What `--version` says first: "etcd Version: 3.7.3" becomes "3.7.3"."""
    text = subprocess.run([str(binary), "--version"], capture_output=True, text=True, check=True)
    return text.stdout.split("\n")[0].rsplit(" ", 1)[-1]
