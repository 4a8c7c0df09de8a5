"""The process that keeps all of a cluster's processes, and ends them when nobody needs them.

It reads requests (one JSON object a line) from its standard input. When that ends, because the
caller is done or because the caller is dead, it stops everything it started, removes the cluster's
cgroups and its folder, and goes. Should the keeper itself be killed, the kernel kills its children,
and with the first process of the sandbox everything inside it.

Nothing of this package is imported here: it must work whatever state the caller is in.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

CGROUPS = Path("/sys/fs/cgroup")
STOP_GRACE_S = 10.0
CGROUPS_GRACE_S = 10.0
POLL_S = 0.05
PR_SET_PDEATHSIG = 1
NOT_FOR_US = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Signals that the keeper ignores and its children must not."""
libc = ctypes.CDLL(None, use_errno=True)


def die_with_parent() -> None:
    """Runs in each child before its program: the kernel kills it when the keeper is gone."""
    for number in NOT_FOR_US:
        signal.signal(number, signal.SIG_DFL)
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


class Keeper:
    """Processes by name, in the order they were started."""

    def __init__(self) -> None:
        self.children: dict[str, subprocess.Popen[bytes]] = {}
        self.stop_signals: dict[str, int] = {}

    def start(self, request: dict[str, Any]) -> dict[str, Any]:
        """Starts a program; its output is appended to the log."""
        name = str(request["name"])
        if name in self.children and self.children[name].poll() is None:
            return {"error": f"{name} is running already"}
        with Path(request["log"]).open("ab") as log:
            child = subprocess.Popen(
                request["command"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=os.environ | request.get("environment", {}),
                preexec_fn=die_with_parent,
                start_new_session=True,
            )
        self.children.pop(name, None)
        self.children[name] = child
        self.stop_signals[name] = int(request.get("stop_signal", signal.SIGTERM))
        return {"pid": child.pid}

    def status(self, request: dict[str, Any]) -> dict[str, Any]:
        """The exit code, or null while it runs."""
        child = self.children.get(str(request["name"]))
        return {"error": "no such process"} if child is None else {"code": child.poll()}

    def stop(self, request: dict[str, Any]) -> dict[str, Any]:
        """Ends one process, by force after the grace."""
        name = str(request["name"])
        child = self.children.pop(name, None)
        if child is None:
            return {"error": "no such process"}
        signal_group(child, self.stop_signals[name])
        end([child])
        return {"code": child.returncode}

    def stop_all(self) -> None:
        """Ends everything, the youngest first; who needs whom was the order of starting."""
        for name, child in reversed(self.children.items()):
            signal_group(child, self.stop_signals[name])
        end(list(self.children.values()))
        self.children.clear()

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Carries out one request; a fault is an answer, too."""
        operations = {"start": self.start, "status": self.status, "stop": self.stop}
        try:
            return operations[request["operation"]](request)
        except (OSError, KeyError, ValueError, TypeError) as error:
            return {"error": f"{type(error).__name__}: {error}"}


def signal_group(child: subprocess.Popen[bytes], number: int) -> None:
    """Signals a child and what it has forked, if it still lives."""
    if child.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, number)


def end(children: list[subprocess.Popen[bytes]]) -> None:
    """Waits until all have ended; kills those that don't want to."""
    deadline = time.monotonic() + STOP_GRACE_S
    while any(child.poll() is None for child in children) and time.monotonic() < deadline:
        time.sleep(POLL_S)
    for child in children:
        signal_group(child, signal.SIGKILL)
        child.wait()


def remove_cgroups(name: str) -> None:
    """Removes the cluster's groups in every hierarchy, the deepest first.

    Processes of a dead namespace leave their groups a moment after their death.
    """
    deadline = time.monotonic() + CGROUPS_GRACE_S
    while left := [*CGROUPS.glob(name), *CGROUPS.glob(f"*/{name}")]:
        for root in left:
            for folder, _, _ in os.walk(root, topdown=False):
                with contextlib.suppress(OSError):
                    Path(folder).rmdir()
        if time.monotonic() > deadline:
            print(f"cgroups left behind: {left}", file=sys.stderr)
            return
        time.sleep(POLL_S)


def serve(keeper: Keeper) -> None:
    """Answers requests until there are no more, or nobody reads the answers."""
    for line in sys.stdin:
        answer = keeper.answer(json.loads(line))
        try:
            print(json.dumps(answer), flush=True)
        except BrokenPipeError:
            return


def main() -> int:
    """Keeps processes until standard input ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="removed at the end")
    parser.add_argument("--cgroup", required=True, help="removed at the end, in each hierarchy")
    arguments = parser.parse_args()
    # Signals meant for the caller's terminal end the caller; the keeper learns of that by itself.
    for number in NOT_FOR_US:
        signal.signal(number, signal.SIG_IGN)
    keeper = Keeper()
    try:
        serve(keeper)
    finally:
        keeper.stop_all()
        remove_cgroups(arguments.cgroup)
        shutil.rmtree(arguments.folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
