"""Undoes faults when nobody else does: a process of its own that outlives the test's.

The test tells it by a pipe what to undo before it makes a fault. What wasn't taken back is undone
when its time is over, or when the pipe closes, which happens even if the test is killed with
SIGKILL. Run as a script it is that process, and imports nothing but the standard library.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

UNDO_S_MAX = 10.0
"""How long one command may take: a hanging one must not keep the others from being run."""
READ_BYTES = 1 << 16

Action = Sequence[str]
"""A command, or one of the words below with its arguments; all can be done twice."""
KILL, CONTINUE, REMOVE, WRITE = "@kill", "@continue", "@remove", "@write"


def started_at(pid: int) -> str:
    """When a process started, in ticks: with its pid it names one process for ever; "" if gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    # The name in parentheses may hold anything, also spaces.
    state, *fields = text[text.rindex(")") + 2 :].split()
    return "" if state in "ZX" else fields[18]


def signal_if_same(pid: int, start: str, number: signal.Signals) -> None:
    """Signals a process, unless it is gone or its pid belongs to another one by now."""
    if start and started_at(pid) == start:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def write_whole(path: Path, text: str) -> None:
    """Replaces a file's content at once, so that nobody reads half of it."""
    spare = path.with_name(path.name + ".new")
    spare.write_text(text)
    spare.rename(path)


def undo(action: Action) -> None:
    """Carries out one action; whatever goes wrong, others must follow."""
    word, *rest = action
    try:
        if word in (KILL, CONTINUE):
            number = signal.SIGKILL if word == KILL else signal.SIGCONT
            signal_if_same(int(rest[0]), rest[1], number)
        elif word == REMOVE:
            path = Path(rest[0])
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        elif word == WRITE:
            write_whole(Path(rest[0]), rest[1])
        else:
            nothing = subprocess.DEVNULL
            subprocess.run(action, timeout=UNDO_S_MAX, check=False, stdin=nothing, stdout=nothing)
    except (OSError, ValueError, IndexError, subprocess.SubprocessError) as error:
        sys.stderr.write(f"watchdog: {list(action)}: {error}\n")


class Guard:
    """What is to be undone for one fault, until it is taken back."""

    def __init__(self, watchdog: Watchdog, number: int) -> None:
        self._watchdog = watchdog
        self._number = number

    def release(self) -> None:
        """The fault is healed: nothing is left to undo."""
        self._watchdog.tell({"release": self._number})


class Watchdog:
    """The test's end of the pipe."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        command = [sys.executable, "-I", "-S", str(Path(__file__).resolve())]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, start_new_session=True, bufsize=0
        )

    def guard(self, actions: Sequence[Action], seconds: float) -> Guard:
        """To be called before the fault is made: these actions undo it after that long."""
        number = next(self._numbers)
        due = time.monotonic() + seconds
        self.tell({"guard": number, "due": due, "actions": [list(each) for each in actions]})
        return Guard(self, number)

    def tell(self, message: dict[str, object]) -> None:
        """One line to the process."""
        assert self.process.stdin is not None
        with self._lock:
            self.process.stdin.write(json.dumps(message).encode() + b"\n")

    def close(self) -> None:
        """Undoes what is left and ends the process."""
        assert self.process.stdin is not None
        with self._lock:
            self.process.stdin.close()
        self.process.wait()


def _watch() -> None:
    """Reads guards until the pipe closes, then undoes the rest, the newest first."""
    pending: dict[int, tuple[float, list[Action]]] = {}
    text = b""
    while True:
        now = time.monotonic()
        for number in [each for each, (due, _) in pending.items() if due <= now]:
            for action in pending.pop(number)[1]:
                undo(action)
        next_due = min((due for due, _ in pending.values()), default=None)
        wait = None if next_due is None else max(0.0, next_due - time.monotonic())
        if not select.select([0], [], [], wait)[0]:
            continue
        data = os.read(0, READ_BYTES)
        if not data:
            break
        *lines, text = (text + data).split(b"\n")
        for line in lines:
            message = json.loads(line)
            if "release" in message:
                pending.pop(message["release"], None)
            else:
                pending[message["guard"]] = (message["due"], message["actions"])
    for number in sorted(pending, reverse=True):
        for action in pending[number][1]:
            undo(action)


if __name__ == "__main__":
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    _watch()
