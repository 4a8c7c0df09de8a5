"""A world of its own for a whole cluster: processes, mounts, network and names.

No port or firewall rule can clash with the machine's, nothing leads out, the machine's settings
can't be changed from inside, and killing its first process ends all of it.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

from agni_e2e.errors import PlatformError
from agni_e2e.processes import Processes
from agni_e2e.waiting import until

START_TIMEOUT_S = 20.0
COMMAND_TIMEOUT_S = 60.0
FIRST = "pause"
"""The name of a namespace's first process, once it has been set up."""

SETUP = """
set -e
mount --make-rshared /
ip link set lo up
for folder in kernel vm; do
  mount --bind /proc/sys/$folder /proc/sys/$folder
  mount -o remount,ro,bind /proc/sys/$folder
done
exec "$1"
"""
FLAGS = ("--mount", "--net", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc")


class Namespaces:
    """The namespaces of one first process, and how to run something in them."""

    def __init__(self, processes: Processes, name: str, pid: int) -> None:
        self.processes = processes
        self.name = name
        self.pid = pid

    def command(self, *words: str) -> tuple[str, ...]:
        """A command line that runs these words inside."""
        flags = ("--mount", "--net", "--uts", "--ipc", "--pid")
        return ("nsenter", f"--target={self.pid}", *flags, "--", *words)

    def start(self, name: str, words: Sequence[str]) -> int:
        """Starts a program inside that is kept; answers the id of what is outside.

        It ends by force: nothing inside is worth an end in good order.
        """
        return self.processes.start(name, self.command(*words), stop_signal=signal.SIGKILL)

    def run(self, *words: str) -> str:
        """Runs a program inside to its end."""
        return checked(self.command(*words))

    def run_in_network(self, *words: str) -> str:
        """Runs a program of the machine in this network only: it sees the machine's processes."""
        return checked(("nsenter", f"--target={self.pid}", "--net", "--", *words))


def checked(command: tuple[str, ...]) -> str:
    """What a program prints.

    Raises:
        PlatformError: It failed; the text is what it said.
    """
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=COMMAND_TIMEOUT_S, check=False
    )
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip()
        raise PlatformError(f"{' '.join(command)}: exit {done.returncode}: {said}")
    return done.stdout


def process_table() -> dict[int, tuple[int, str]]:
    """The parent and the command of every process of the machine."""
    table = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # The command is in brackets and may hold some itself.
            pid, _, rest = path.read_text().partition(" (")
            command, _, fields = rest.rpartition(") ")
            table[int(pid)] = (int(fields.split()[1]), command)
    return table


def first_process(processes: Processes, name: str, outer_pid: int) -> int:
    """The process below one that was started which is the first of new namespaces."""

    def found() -> int | None:
        processes.check(name)
        table = process_table()
        wanted = {outer_pid}
        # A child's number is above its parent's but for a wrap of the counter: two rounds do.
        for pid, (parent, command) in sorted(table.items()) * 2:
            if parent in wanted:
                wanted.add(pid)
                if command == FIRST:
                    return pid
        return None

    pid = until(f"{name} is set up", found, timeout_s=START_TIMEOUT_S)
    if pid is None:
        raise PlatformError(f"{name} has no first process")
    return pid


def open_sandbox(processes: Processes, pause: str) -> Namespaces:
    """Makes the sandbox."""
    shell = ("sh", "-c", SETUP, "sandbox", pause)
    outer = processes.start(
        "sandbox", ("unshare", *FLAGS, "--ipc", *shell), stop_signal=signal.SIGKILL
    )
    return Namespaces(processes, "sandbox", first_process(processes, "sandbox", outer))
