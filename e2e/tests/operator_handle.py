"""An operator's process as a test sees it: its end, its log, its memory, its time."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from agni_e2e.processes import Processes

ACTION = re.compile(r"^([\w.-]+/[\w.-]+): ([A-Z]\w+(?: [^\s:]+)+): ")
SENTENCE = re.compile(r"^[\w.-]+/[\w.-]+: ")
STOP_S = 3.0
"""How long one may take to hand over and go."""


@dataclass(frozen=True)
class Memory:
    """Resident memory, in MiB."""

    now: float
    most: float


class OperatorProcess:
    """One that was started."""

    def __init__(self, processes: Processes, name: str, pid: int) -> None:
        self._processes = processes
        self.name, self.pid = name, pid
        self._code: int | None = None

    def code(self) -> int | None:
        """How it ended; None while it runs."""
        if self._code is None:
            self._code = self._processes.code(self.name)
        return self._code

    def said(self, words: str) -> bool:
        """Whether one of its lines has these words."""
        return any(words in line for line in self.lines())

    def kill(self) -> None:
        """Ends it as the kernel would: without a chance to do anything."""
        os.kill(self.pid, signal.SIGKILL)

    def signal(self, number: signal.Signals) -> None:
        """Sends it a signal."""
        os.kill(self.pid, number)

    def stop(self) -> None:
        """Asks it to stop, and waits; one that has ended already is fine."""
        if self.code() is None:
            self._code = self._processes.stop(self.name)
            assert self._code == 0, f"exit code {self._code}: {self.tail()}"

    def tail(self) -> str:
        """The end of its log."""
        return self._processes.tail(self.name)

    def lines(self) -> Iterator[str]:
        """What it said so far."""
        for line in self._processes.log(self.name).read_text().splitlines():
            if line.startswith("{"):
                yield json.loads(line)["msg"]

    def actions(self) -> list[tuple[str, str]]:
        """What it did so far: the registry, and the action's name."""
        found = (ACTION.match(line) for line in self.lines())
        return [(match[1], match[2]) for match in found if match]

    def memory(self) -> Memory:
        """What it has resident now, and the most that it had."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        fields = dict(line.split(":", 1) for line in status.splitlines())
        now, most = (int(fields[key].split()[0]) / 1024 for key in ("VmRSS", "VmHWM"))
        return Memory(now, most)

    def processor_s(self) -> float:
        """The processor's time that it has used."""
        _, _, fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(") ")
        ticks = sum(map(int, fields.split()[11:13]))
        return ticks / os.sysconf("SC_CLK_TCK")
