"""The keeper: starts, watches and ends processes, and is gone with its caller."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agni_e2e import PlatformError
from agni_e2e.processes import Processes, new_name, start_time
from agni_e2e.waiting import until

SLEEP = ("sleep", "60")
IGNORE = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
time.sleep(60)
"""
STUBBORN = (sys.executable, "-c", IGNORE)


@pytest.fixture
def processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Processes]:
    monkeypatch.setenv("E2E_CACHE", str(tmp_path))
    processes = Processes(new_name("test"))
    yield processes
    processes.close()


def is_alive(pid: int) -> bool:
    return start_time(pid) is not None


def test_process_is_started_logged_and_ended(processes: Processes) -> None:
    pid = processes.start(
        "hello", ("sh", "-c", "echo $WORD; exec sleep 60"), environment={"WORD": "hi"}
    )
    until("it has spoken", lambda: processes.tail("hello") == "hi\n", timeout_s=10)
    processes.check("hello")
    processes.stop("hello")
    assert not is_alive(pid)
    with pytest.raises(PlatformError, match="no such process"):
        processes.check("hello")


def test_end_of_a_process_is_told_with_its_last_words(processes: Processes) -> None:
    processes.start("short", ("sh", "-c", "echo out of luck; exit 3"))

    def last_words() -> str:
        try:
            processes.check("short")
        except PlatformError as error:
            return str(error)
        return ""

    said = until("it has ended", last_words, timeout_s=10)
    assert "short ended with 3" in said
    assert "out of luck" in said
    processes.start("short", SLEEP)
    processes.check("short")


def test_program_that_is_not_there_is_an_error(processes: Processes) -> None:
    with pytest.raises(PlatformError, match="FileNotFoundError"):
        processes.start("nothing", ("no-such-program",))
    processes.start("something", SLEEP)


def test_two_processes_cannot_have_one_name(processes: Processes) -> None:
    processes.start("one", SLEEP)
    with pytest.raises(PlatformError, match="running already"):
        processes.start("one", SLEEP)


def test_close_ends_all_and_removes_the_folder_but_not_the_logs(processes: Processes) -> None:
    pids = [processes.start(str(number), SLEEP) for number in range(3)]
    pids.append(processes.start("forced", STUBBORN, stop_signal=signal.SIGKILL))
    processes.close()
    assert not any(is_alive(pid) for pid in pids)
    assert not processes.folder.exists()
    assert processes.log("forced").exists()
    with pytest.raises(PlatformError, match="closed"):
        processes.start("late", SLEEP)


def test_children_die_with_a_killed_keeper(processes: Processes) -> None:
    pid = processes.start("orphan", STUBBORN)
    keeper = int(Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[1])
    os.kill(keeper, signal.SIGKILL)
    until("the child is dead", lambda: not is_alive(pid), timeout_s=10)


def test_deadline_is_a_sentence() -> None:
    began = time.monotonic()
    with pytest.raises(PlatformError, match=r"the moon is blue: not within 0\.2 s"):
        until("the moon is blue", lambda: False, timeout_s=0.2)
    assert time.monotonic() - began < 5
