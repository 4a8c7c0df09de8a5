"""Processes that a run starts, breaks and ends; no other process is ever touched.

A process is known by its pid and its start, so that a pid that was given anew is left alone.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from nemesis.hosts import Hosts
from nemesis.lab import Fault, Lab, NemesisError
from nemesis.watchdog import CONTINUE, KILL, Guard, signal_if_same, started_at

WAIT_S = 30.0
STOP_S = 10.0
GUARD_S = 3_600.0
PAUSE_GUARD_S = 90.0
_LISTENING = "0A"


def wait_until(what: str, condition: Callable[[], object], seconds: float = WAIT_S) -> None:
    """Waits for a condition with a deadline.

    Raises:
        NemesisError: if it doesn't come true in time.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise NemesisError(f"not within {seconds} s: {what}")
        time.sleep(0.005)


class Process:
    """One command in one host, started as often as it is wanted. Its log goes on growing."""

    def __init__(
        self, lab: Lab, name: str, argv: Sequence[str], log: Path, env: Mapping[str, str]
    ) -> None:
        self.name = name
        self.log = log
        self._lab = lab
        self._argv = list(argv)
        self._env = {**os.environ, **env}
        self._child: subprocess.Popen[bytes] | None = None
        self._guard: Guard | None = None
        self._log_from = 0
        self.start_ticks = ""

    @property
    def pid(self) -> int:
        """Its pid. Raises: NemesisError: if it doesn't run."""
        if self._child is None:
            raise NemesisError(f"{self.name} is not running, start it first")
        return self._child.pid

    @property
    def is_running(self) -> bool:
        """Whether it has started and not ended."""
        return self._child is not None and self._child.poll() is None

    def start(self) -> None:
        """Starts it, with the same command each time."""
        if self.is_running:
            raise NemesisError(f"{self.name} is running already")
        with self.log.open("ab") as log:
            self._log_from = log.tell()
            self._child = subprocess.Popen(
                self._argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._env,
                start_new_session=True,
            )
        self.start_ticks = started_at(self._child.pid)
        actions = [[KILL, str(self._child.pid), self.start_ticks]]
        self._guard = self._lab.guard(actions, GUARD_S)

    def kill(self) -> None:
        """SIGKILL, and waits until it is gone."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """SIGTERM; SIGKILL if that takes too long. Answers the exit status."""
        return self._end(signal.SIGTERM)

    def restart(self) -> None:
        """Kills it if it runs, and starts it again."""
        self.kill()
        self.start()

    def crash(self) -> Fault:
        """SIGKILL; it is healed by starting it again."""
        return self._lab.fault(f"kill {self.name}", self.kill, self._start_again)

    def pause(self, seconds: float | None = None) -> Fault:
        """SIGSTOP; SIGCONT when it is healed, or by itself after that long."""
        pid, ticks = self.pid, self.start_ticks
        timer: list[threading.Timer] = []

        def go_on() -> None:
            for each in timer:
                each.cancel()
            signal_if_same(pid, ticks, signal.SIGCONT)

        def stop() -> None:
            signal_if_same(pid, ticks, signal.SIGSTOP)
            wait_until(f"{self.name} is stopped", lambda: _state(pid) in "TtZX")

        undo = [[CONTINUE, str(pid), ticks]]
        guard_s = PAUSE_GUARD_S if seconds is None else seconds + STOP_S
        fault = self._lab.fault(f"pause {self.name}", stop, go_on, undo, guard_s)
        if seconds is not None:
            timer.append(threading.Timer(seconds, fault.heal))
            timer[0].daemon = True
            timer[0].start()
        return fault

    def text(self) -> str:
        """What it has written since it was last started."""
        with self.log.open("rb") as log:
            log.seek(self._log_from)
            return log.read().decode(errors="replace")

    def wait_for_line(self, pattern: str, seconds: float = WAIT_S) -> re.Match[str]:
        """Waits for a text in what it has written since it was last started."""
        found: list[re.Match[str]] = []

        def look() -> bool:
            match = re.search(pattern, self.text())
            found.extend([match] if match else [])
            return bool(found) or not self.is_running

        wait_until(f"{pattern!r} in the log of {self.name}", look, seconds)
        if not found:
            raise NemesisError(f"{self.name} ended early, it wrote:\n{self.text()[-2_000:]}")
        return found[0]

    def wait_for_port(self, port: int, seconds: float = WAIT_S) -> None:
        """Waits until its host listens on a port, without a connection to it."""
        wait_until(
            f"{self.name} listens on port {port}",
            lambda: not self.is_running or port in _listening(self.pid),
            seconds,
        )
        if not self.is_running:
            raise NemesisError(f"{self.name} ended early, it wrote:\n{self.text()[-2_000:]}")

    def _start_again(self) -> None:
        if not self.is_running:
            self.start()

    def _end(self, how: signal.Signals) -> int:
        if self._child is None:
            return 0
        if self._child.poll() is None:
            self._child.send_signal(how)
            # What is stopped takes no SIGTERM before it goes on.
            self._child.send_signal(signal.SIGCONT)
            try:
                self._child.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self._child.kill()
                self._child.wait(STOP_S)
        code = self._child.wait(STOP_S)
        if self._guard is not None:
            self._guard.release()
            self._guard = None
        return code


class Processes:
    """Starts processes, and ends all of them with the lab."""

    def __init__(self, lab: Lab, hosts: Hosts | None = None) -> None:
        self.lab = lab
        self.hosts = hosts
        self.all: dict[str, Process] = {}
        lab.at_end(self.close)

    def add(
        self,
        name: str,
        argv: Sequence[str],
        host: str | None = None,
        env: Mapping[str, str] | None = None,
    ) -> Process:
        """Knows a process without starting it; `host` is where it will run."""
        if name in self.all:
            raise NemesisError(f"there is a process {name} already, give another name")
        if host is not None:
            if self.hosts is None:
                raise NemesisError(f"{name} can't run in {host}: give hosts to Processes")
            argv = self.hosts.command(host, argv)
        log = self.lab.folder / f"{name}.log"
        self.all[name] = Process(self.lab, name, argv, log, env or {})
        return self.all[name]

    def start(
        self,
        name: str,
        argv: Sequence[str],
        host: str | None = None,
        env: Mapping[str, str] | None = None,
    ) -> Process:
        """Adds a process and starts it."""
        process = self.add(name, argv, host, env)
        process.start()
        return process

    def close(self) -> None:
        """Kills what still runs."""
        for process in self.all.values():
            process.kill()


def _state(pid: int) -> str:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return "X"
    return text[text.rindex(")") + 2]


def _listening(pid: int) -> set[int]:
    """The ports that are listened on in the network of a process."""
    ports = set()
    for name in ("tcp", "tcp6"):
        try:
            lines = Path(f"/proc/{pid}/net/{name}").read_text().splitlines()[1:]
        except OSError:
            continue
        for fields in map(str.split, lines):
            if fields[3] == _LISTENING:
                ports.add(int(fields[1].rsplit(":", 1)[1], 16))
    return ports
