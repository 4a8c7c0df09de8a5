"""Processes, clocks and disks: each fault is made to a small process and seen from outside."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from itertools import pairwise
from pathlib import Path
from random import Random

import pytest
from nemesis import disks
from nemesis.clocks import Clock
from nemesis.lab import Lab, NemesisError
from nemesis.processes import Processes, wait_until
from nemesis.shim import FailingDisk
from nemesis.watchdog import started_at

HEARTBEAT = textwrap.dedent("""
    import json, select, time
    print("ready", flush=True)
    while True:
        print(json.dumps([time.monotonic(), time.time()]), flush=True)
        # time.sleep waits for a moment, which libfaketime gets wrong; a duration it leaves alone.
        select.select([], [], [], 0.02)
""")
"""Says its clocks fifty times a second."""

WRITER = textwrap.dedent("""
    import errno, os, sys, time
    files = [os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND) for path in sys.argv[1:]]
    print("ready", flush=True)
    while True:
        said = [f"{time.monotonic():.4f}"]
        for file in files:
            for what in (lambda: os.write(file, b"x" * 4096), lambda: os.fdatasync(file)):
                try:
                    what()
                    said.append("ok")
                except OSError as error:
                    said.append(errno.errorcode[error.errno])
        print(*said, flush=True)
        time.sleep(0.01)
""")
"""Says what became of a write and a sync to each of its files."""


def python(processes, name, code, *arguments, env=None):
    started = processes.start(name, [sys.executable, "-c", code, *map(str, arguments)], env=env)
    started.wait_for_line("ready")
    return started


def ticks(process):
    return [json.loads(line) for line in process.text().splitlines() if line.endswith("]")]


def test_kill_and_start_again_with_the_same_command(lab):
    heart = python(Processes(lab), "heart", HEARTBEAT)
    first = heart.pid
    with heart.crash():
        assert not heart.is_running
        with pytest.raises(NemesisError):
            heart.wait_for_line("never", 5)
    heart.wait_for_line("ready")
    assert heart.pid != first
    heart.restart()
    heart.wait_for_line("ready")
    assert heart.log.read_text().count("ready") == 3


def test_a_pause_ends_by_itself(lab):
    heart = python(Processes(lab), "heart", HEARTBEAT)
    fault = heart.pause(0.4)
    count = len(ticks(heart))
    wait_until("it goes on", lambda: len(ticks(heart)) > count + 2, 10)
    fault.heal()
    gap = max(after[0] - before[0] for before, after in pairwise(ticks(heart)))
    assert 0.35 < gap < 5
    assert fault.name == "pause heart"
    assert lab.spans()[0][2] - lab.spans()[0][1] >= 350_000_000


def test_what_is_paused_can_be_killed_or_stopped(lab):
    processes = Processes(lab)
    heart = python(processes, "heart", HEARTBEAT)
    with heart.pause():
        assert heart.stop() == -signal.SIGTERM
    other = python(processes, "other", HEARTBEAT)
    with other.pause():
        other.kill()
    assert not other.is_running


def test_the_lab_ends_its_processes_and_no_others(tmp_path):
    with subprocess.Popen(["sleep", "1000"]) as stranger:
        with Lab(tmp_path) as lab:
            heart = python(Processes(lab), "heart", HEARTBEAT)
            pid = heart.pid
        assert not started_at(pid)
        assert stranger.poll() is None
        stranger.kill()


DIES = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from nemesis.lab import Lab
from nemesis.processes import Processes
lab = Lab(Path(sys.argv[2]))
processes = Processes(lab)
children = [processes.start(f"child{n}", ["sleep", "1000"]) for n in range(2)]
children[0].pause()
print(*(child.pid for child in children), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_processes_of_a_killed_test_are_killed(tmp_path):
    command = [sys.executable, "-c", DIES, str(Path(__file__).parent), str(tmp_path)]
    said = subprocess.run(command, capture_output=True, text=True, timeout=30)
    pids = [int(pid) for pid in said.stdout.split()]
    assert len(pids) == 2, said.stderr
    wait_until("they are gone", lambda: not any(started_at(pid) for pid in pids), 10)


def test_the_wall_clock_jumps_and_the_monotonic_one_does_not(lab):
    clock = Clock(lab, "heart")
    heart = python(Processes(lab), "heart", HEARTBEAT, env=clock.environment())

    def ahead():
        now = len(ticks(heart))
        wait_until("another tick", lambda: len(ticks(heart)) > now + 1, 10)
        return ticks(heart)[-1][1] - time.time()

    assert abs(ahead()) < 5
    for offset in (7_200, -3_600):
        with clock.jump(offset):
            assert abs(ahead() - offset) < 5
        assert abs(ahead()) < 5
    with clock.strobe(100, 0.1):
        wait_until("it is ahead", lambda: ahead() > 90, 10)
        wait_until("it is right", lambda: ahead() < 10, 10)
    assert abs(ahead()) < 5
    times = [monotonic for monotonic, _ in ticks(heart)]
    assert all(0.01 < after - before < 3 for before, after in pairwise(times))


def test_a_clock_is_healed_by_the_watchdog(lab):
    clock = Clock(lab, "heart")
    clock.jump(50, seconds=0.2)
    file = Path(clock.environment()["FAKETIME_TIMESTAMP_FILE"])
    wait_until("it is right again", lambda: file.read_text() == "+0", 10)


def results(process, columns):
    """What became of the newest attempt."""
    lines = [line.split() for line in process.text().splitlines(keepends=True) if line[-1] == "\n"]
    whole = [line[1:] for line in lines if len(line) == columns + 1]
    return whole[-1] if whole else []


def test_syncs_and_writes_fail_below_one_folder_only(lab, tmp_path):
    inside, outside = tmp_path / "data", tmp_path / "database"
    inside.mkdir()
    outside.mkdir()
    disk = FailingDisk(lab, "writer", inside)
    files = [inside / "log", outside / "log"]
    writer = python(Processes(lab), "writer", WRITER, *files, env=disk.environment())

    def becomes(*wanted):
        wait_until(f"{wanted}", lambda: results(writer, 4) == list(wanted), 10)

    becomes("ok", "ok", "ok", "ok")
    with disk.fail_sync():
        becomes("ok", "EIO", "ok", "ok")
    becomes("ok", "ok", "ok", "ok")
    with disk.fail_write(errno.ENOSPC):
        becomes("ENOSPC", "ok", "ok", "ok")
    becomes("ok", "ok", "ok", "ok")
    with disk.slow_sync(300):
        before = len(writer.text().splitlines())
        wait_until("slow", lambda: len(writer.text().splitlines()) > before + 2, 10)
    times = [float(line.split()[0]) for line in writer.text().splitlines()[1:-1]]
    assert max(after - before for before, after in pairwise(times)) >= 0.3


@pytest.fixture
def disk(lab):
    made = disks.SmallDisk(lab, megabytes=16)
    # Made after the disk, so that they end before it.
    made.processes = Processes(lab)
    return made


def test_a_full_disk(disk):
    file = disk.folder / "log"
    writer = python(disk.processes, "writer", WRITER, file)
    with disk.fill():
        wait_until("it is full", lambda: results(writer, 2)[:1] == ["ENOSPC"], 10)
        assert shutil.disk_usage(disk.folder).free < 8_192
    wait_until("there is space", lambda: results(writer, 2) == ["ok", "ok"], 10)
    with disk.fill(leave_bytes=2 << 20):
        assert (1 << 20) < shutil.disk_usage(disk.folder).free < (3 << 20)


def test_a_stalled_disk(disk):
    writer = python(disk.processes, "writer", WRITER, disk.folder / "log")
    wait_until("it writes", lambda: results(writer, 2), 10)
    with disk.stall():
        # One attempt may be past its write already; from then on nothing comes back.
        stat = Path(f"/proc/{writer.pid}/stat")
        wait_until("it waits", lambda: stat.read_text().split(") ")[1][0] == "D", 10)
        count = len(writer.text())
        wait = time.monotonic() + 0.3
        wait_until("time passes", lambda: time.monotonic() > wait)
        assert len(writer.text()) == count
    wait_until("it goes on", lambda: len(writer.text()) > count, 10)


def test_a_stall_ends_with_its_time_and_with_the_test(disk):
    writer = python(disk.processes, "writer", WRITER, disk.folder / "log")
    disk.stall(seconds=0.3)
    count = len(writer.text())
    wait_until("it goes on", lambda: len(writer.text()) > count + 100, 10)


def test_a_throttled_disk(disk):
    file = disk.folder / "log"
    code = WRITER.replace("4096", "65536")
    writer = python(disk.processes, "writer", code, file)

    def rate():
        size, began = file.stat().st_size, time.monotonic()
        wait_until("half a MiB", lambda: file.stat().st_size > size + (1 << 19), 30)
        return (file.stat().st_size - size) / (time.monotonic() - began)

    before = rate()
    fault = disk.throttle(400_000, [writer.pid])
    assert rate() < min(800_000, before)
    fault.heal()
    wait_until("it is quick again", lambda: rate() > 800_000, 20)


def test_flipped_bits(tmp_path):
    path = tmp_path / "file"
    data = os.urandom(5_000)
    path.write_bytes(data)
    places = disks.flip_bits(path, 20, Random(3), start=100)
    flipped = path.read_bytes()
    assert len(places) == 20
    assert flipped[:100] == data[:100]
    changed = sum((a ^ b).bit_count() for a, b in zip(data, flipped, strict=True))
    assert changed == 20
    disks.flip(path, places)
    assert path.read_bytes() == data
    with pytest.raises(NemesisError):
        disks.flip_bits(path, 1, Random(3), start=5_000)


FILLS = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from nemesis.disks import SmallDisk
from nemesis.lab import Lab
lab = Lab(Path(sys.argv[2]))
disk = SmallDisk(lab, megabytes=16)
disk.stall()
if sys.argv[3] == "both":
    lab.watchdog.process.kill()
print(disk.folder, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("killed", ["itself", "both"])
def test_disks_of_a_killed_test_go_away(disk, tmp_path, killed):
    command = [sys.executable, "-c", FILLS, str(Path(__file__).parent), str(tmp_path / "x"), killed]
    said = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert said.stdout, said.stderr
    folder = said.stdout.strip()
    if killed == "both":
        assert Path(folder).is_mount()
        disks.sweep()
    wait_until("it is unmounted", lambda: not Path(folder).is_mount(), 10)
    wait_until(
        "the device is free",
        lambda: f"{folder}.ext4" not in subprocess.check_output(["losetup", "-a"], text=True),
        10,
    )
    assert disk.folder.is_mount()
