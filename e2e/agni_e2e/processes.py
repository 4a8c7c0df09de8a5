"""The caller's end of the keeper: starts and stops a cluster's processes, and shows their logs."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from agni_e2e import keeper, places
from agni_e2e.errors import PlatformError

LOGS_KEPT = 5
"""Log folders of earlier clusters that stay for reading."""
LOCK = "keeper.lock"
STOP_TIMEOUT_S = 180.0
LOG_TAIL_BYTES = 2_000


class Processes:
    """All processes of one cluster, ended together.

    Args:
        name: The cluster's name: of its folders and of its cgroups.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.folder = places.runs() / name
        self.logs = places.logs() / name
        self._lock = threading.Lock()
        sweep()
        self.logs.mkdir(parents=True)
        forget_old_logs()
        self.folder.mkdir(parents=True)
        command = (sys.executable, keeper.__file__, "--folder", str(self.folder), "--cgroup", name)
        # The keeper has the lock for as long as it lives, and nobody has to let it go.
        with (self.folder / LOCK).open("w") as lock, (self.logs / "keeper.log").open("wb") as log:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self._keeper = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
                pass_fds=(lock.fileno(),),
                text=True,
            )

    def start(
        self,
        name: str,
        command: Sequence[str],
        *,
        environment: Mapping[str, str] | None = None,
        stop_signal: signal.Signals = signal.SIGTERM,
    ) -> int:
        """Starts a program under a name; answers its process id."""
        request = {
            "operation": "start",
            "name": name,
            "command": list(command),
            "environment": dict(environment or {}),
            "log": str(self.log(name)),
            "stop_signal": int(stop_signal),
        }
        return int(self._ask(request)["pid"])

    def stop(self, name: str) -> int:
        """Ends one process; answers its exit code, which is negative where a signal ended it."""
        return int(self._ask({"operation": "stop", "name": name})["code"])

    def code(self, name: str) -> int | None:
        """The exit code of a process that has ended; None while it runs."""
        code = self._ask({"operation": "status", "name": name})["code"]
        return None if code is None else int(code)

    def check(self, name: str) -> None:
        """Does nothing while the process runs.

        Raises:
            PlatformError: It has ended; the text holds the end of its log.
        """
        code = self.code(name)
        if code is not None:
            raise PlatformError(f"{name} ended with {code}:\n{self.tail(name)}")

    def log(self, name: str) -> Path:
        """The log of one process; it stays after the cluster, for a while."""
        return self.logs / f"{name}.log"

    def tail(self, name: str) -> str:
        """The end of a process's log."""
        return self.log(name).read_bytes()[-LOG_TAIL_BYTES:].decode(errors="replace")

    def close(self) -> None:
        """Ends all processes and removes what they left; returns when that is done."""
        if self._keeper.stdin is not None and not self._keeper.stdin.closed:
            self._keeper.stdin.close()
        try:
            self._keeper.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired as error:
            self._keeper.kill()
            self._keeper.wait()
            raise PlatformError(f"the keeper didn't end within {STOP_TIMEOUT_S:g} s") from error
        finally:
            if self._keeper.stdout is not None:
                self._keeper.stdout.close()

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        pipes = self._keeper.stdin, self._keeper.stdout
        if pipes[0] is None or pipes[1] is None or pipes[0].closed:
            raise PlatformError("the cluster is closed")
        with self._lock:
            try:
                pipes[0].write(json.dumps(request) + "\n")
                pipes[0].flush()
                line = pipes[1].readline()
            except OSError as error:
                raise PlatformError("the cluster's keeper is gone") from error
        if not line:
            raise PlatformError("the cluster's keeper is gone")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise PlatformError(f"{request['operation']} {request['name']}: {answer['error']}")
        return answer


def forget_old_logs() -> None:
    """Removes all but the newest few log folders."""
    folders = sorted(places.logs().iterdir(), key=lambda path: path.stat().st_mtime, reverse=True)
    for folder in folders[LOGS_KEPT:]:
        if not (places.runs() / folder.name).exists():
            shutil.rmtree(folder, ignore_errors=True)


def sweep() -> None:
    """Removes what clusters left whose keeper was killed: folders and cgroups (no processes)."""
    for folder in places.runs().glob("*/"):
        try:
            with (folder / LOCK).open("r") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            continue
        keeper.remove_cgroups(folder.name)
        shutil.rmtree(folder, ignore_errors=True)


def new_name(tier: str) -> str:
    """A name that no other running cluster has."""
    return f"agni-e2e-{tier}-{os.getpid()}-{os.urandom(2).hex()}"


def start_time(pid: int) -> str | None:
    """When a process began, in the kernel's ticks: with its number, it names one process only."""
    try:
        _, _, fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")
    except OSError:
        return None
    return None if fields.startswith("Z") else fields.split()[19]
