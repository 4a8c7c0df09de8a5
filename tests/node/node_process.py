"""A node as users run it: a process of its own whose log can be read."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

WAIT_SECONDS = 30


class Process:
    """A node in a process of its own, its log in a file."""

    def __init__(self, folder: Path, *flags: str) -> None:
        self.log = folder / f"node-{time.monotonic_ns()}.log"
        self.data = folder / "data"
        command = [sys.executable, "-m", "agniregistry_node", "run", "--listen", "127.0.0.1:0"]
        command += ["--data-dir", str(self.data), "--wal-segment-bytes", "1048576"]
        with self.log.open("wb") as sink:
            self.child = subprocess.Popen([*command, *flags], stderr=sink)

    def lines(self) -> list[dict[str, Any]]:
        text = self.log.read_text()
        return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]

    def wait_for(self, message: str) -> dict[str, Any]:
        deadline = time.monotonic() + WAIT_SECONDS
        while time.monotonic() < deadline:
            for line in self.lines():
                if line["msg"] == message:
                    return line
            assert self.child.poll() is None or self.lines(), self.log.read_text()
            time.sleep(0.02)
        raise AssertionError(f"no line {message!r} in\n{self.log.read_text()}")

    def address(self) -> str:
        return str(self.wait_for("node started")["address"])

    def signal(self, number: int) -> None:
        self.child.send_signal(number)

    def wait(self) -> int:
        return self.child.wait(WAIT_SECONDS)
