"""A cluster of three real nodes on loopback, whose processes a test may end and start again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from loopback_ports import free_ports

COUNT = 3
PARTITIONS = 8
PATIENCE_S = 40.0


def wait_until(what: str, holds: Callable[[], Any], seconds: float = PATIENCE_S) -> None:
    """Waits for a condition; fails with what it was after the deadline."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.02)


class ClusterNode:
    """One node; its address and its data stay when its process ends."""

    def __init__(self, number: int, folder: Path, port: int, peers: list[int], zone: str) -> None:
        self.address = f"127.0.0.1:{port}"
        self.zone = zone
        self.log = folder / f"n{number}.log"
        seeds = ",".join(f"127.0.0.1:{peer}" for peer in peers)
        self._command = [sys.executable, "-m", "agniregistry_node", "run", "--preset", "dev"]
        self._command += ["--listen", self.address, "--name", f"n{number}", "--zone", zone]
        self._command += ["--peer-listen", f"127.0.0.1:{peers[number]}", "--seeds", seeds]
        self._command += ["--data-dir", str(folder / f"n{number}")]
        self._command += ["--partitions", str(PARTITIONS), "--access-log", "true"]
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts its process; `wait_ready` waits until it serves."""
        path = os.pathsep.join(filter(None, sys.path))
        with self.log.open("ab") as sink:
            self.process = subprocess.Popen(
                self._command, stderr=sink, env={**os.environ, "PYTHONPATH": path}
            )

    def kill(self) -> None:
        """Ends it at once."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """Asks it to end, as a rolling restart does."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(PATIENCE_S) == 0, self.log.read_text()[-3_000:]

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Keeps it from doing anything meanwhile; nobody is told."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)

    @property
    def runs(self) -> bool:
        """Whether its process is there."""
        return self.process is not None and self.process.poll() is None

    def text(self, path: str) -> str:
        """What it answers over HTTP; empty where it doesn't."""
        try:
            with urllib.request.urlopen(f"http://{self.address}{path}", timeout=2) as answer:
                return str(answer.read().decode())
        except (urllib.error.URLError, OSError):
            return ""

    def get(self, path: str) -> Any:
        """The same as a value; None where there is none."""
        text = self.text(path)
        return json.loads(text) if text else None


class ThreeNodes:
    """All three."""

    def __init__(self, folder: Path) -> None:
        ports = free_ports(2 * COUNT)
        self.nodes = [
            ClusterNode(number, folder, ports[number], ports[COUNT:], f"zone-{number}")
            for number in range(COUNT)
        ]
        self.addresses = [node.address for node in self.nodes]

    def start(self) -> None:
        """Starts those that don't run, and waits until all serve and every partition is led."""
        for node in self.nodes:
            if not node.runs:
                node.start()
        for node in self.nodes:
            wait_until(f"{node.address} is ready", lambda: node.get("/readyz"))  # noqa: B023
        wait_until("all nodes know all leaders", self.is_led)

    def is_led(self) -> bool:
        """Whether all nodes name the same leader for every partition."""
        seen = []
        for node in self.nodes:
            routing = node.get("/v1/routing") or {"partitions": []}
            seen.append([int(route["leader_id"]) for route in routing["partitions"]])
        return len(seen[0]) == PARTITIONS and all(seen[0]) and all(each == seen[0] for each in seen)

    def close(self) -> None:
        """Ends what runs."""
        for node in self.nodes:
            if node.runs:
                node.kill()
