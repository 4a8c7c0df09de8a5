"""The wall clock of one process, moved while it runs; its monotonic clock goes on untouched.

Made by libfaketime, which is preloaded when the process starts and reads the offset from a file
each time the clock is asked.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path

from nemesis.lab import GUARD_S, Fault, Lab, UnavailableError
from nemesis.watchdog import WRITE, write_whole

LIBRARY = "libfaketimeMT.so.1"
FOLDERS = ("/usr/lib", "/usr/lib64", "/usr/local/lib")
TRUE_TIME = "+0"


def library() -> Path:
    """Where libfaketime is.

    Raises:
        UnavailableError: if it isn't installed.
    """
    for folder in map(Path, FOLDERS):
        for pattern in (f"faketime/{LIBRARY}", f"*/faketime/{LIBRARY}"):
            for path in sorted(folder.glob(pattern)):
                return path
    raise UnavailableError("needs libfaketime: install the package libfaketime")


class Clock:
    """One process's wall clock."""

    def __init__(self, lab: Lab, name: str) -> None:
        """Raises: UnavailableError: without libfaketime."""
        self._lab = lab
        self.name = name
        self._library = library()
        self._file = lab.folder / f"{name}.clock"
        write_whole(self._file, TRUE_TIME)

    def environment(self) -> Mapping[str, str]:
        """What the process must be started with."""
        return {
            "LD_PRELOAD": str(self._library),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def jump(self, offset_s: float, seconds: float = GUARD_S) -> Fault:
        """The clock is that much ahead, or behind, until it is healed."""
        return self._lab.fault(
            f"clock of {self.name} {offset_s:+g} s",
            lambda: write_whole(self._file, f"{offset_s:+.3f}"),
            self._heal,
            [[WRITE, str(self._file), TRUE_TIME]],
            seconds,
        )

    def strobe(self, offset_s: float, period_s: float, seconds: float = GUARD_S) -> Fault:
        """The clock jumps there and back again and again, as often as the period says."""
        ended = threading.Event()

        def jump() -> None:
            ahead = False
            while not ended.wait(period_s / 2):
                ahead = not ahead
                write_whole(self._file, f"{offset_s:+.3f}" if ahead else TRUE_TIME)

        thread = threading.Thread(target=jump, daemon=True)

        def heal() -> None:
            ended.set()
            thread.join()
            self._heal()

        undo = [[WRITE, str(self._file), TRUE_TIME]]
        return self._lab.fault(f"strobe of {self.name}", thread.start, heal, undo, seconds)

    def _heal(self) -> None:
        write_whole(self._file, TRUE_TIME)
