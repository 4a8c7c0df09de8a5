"""Hosts: network namespaces with real addresses, joined by a bridge in a namespace of its own.

Nothing is added to the machine's own network: even the bridge is inside, so runs can't disturb
each other or anything else, and deleting the namespaces removes everything.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from nemesis.lab import Lab, NemesisError, belongs_to_the_dead, need_root, need_tool, run
from nemesis.watchdog import signal_if_same, started_at

FOLDER = Path("/run/netns")
SUBNET = "10.77.0"
CONTROL = "control"
CONTROL_NUMBER = 250
HOSTS_MAX = 200
GUARD_S = 3_600.0
CLONE_NEWNET = 0x40000000

_libc = ctypes.CDLL(None, use_errno=True)


class Hosts:
    """Hosts n1, n2, ... and `control`, where clients run and which no fault ever touches."""

    def __init__(self, lab: Lab, count: int) -> None:
        """Raises: UnavailableError: without root or iproute2."""
        need_root()
        need_tool("ip", "iproute2")
        need_tool("nsenter", "util-linux")
        if not 1 <= count <= HOSTS_MAX:
            raise NemesisError(f"count must be within 1..{HOSTS_MAX}, not {count}")
        sweep()
        self.lab = lab
        self.names = tuple(f"n{number}" for number in range(1, count + 1))
        self._numbers = {name: number for number, name in enumerate(self.names, 1)}
        self._numbers[CONTROL] = CONTROL_NUMBER
        everyone = ["switch", *self._numbers]
        self._guard = lab.guard(
            [["ip", "netns", "del", self.namespace(name)] for name in everyone], GUARD_S
        )
        lab.at_end(self.close)
        for name in everyone:
            run(["ip", "netns", "add", self.namespace(name)])
            with self.entered(name):
                # Addresses of version 6 would only make noise.
                _set("net/ipv6/conf/all/disable_ipv6", "1")
        switch = self.namespace("switch")
        lines = ["link add bridge type bridge", "link set bridge up"]
        for name in self._numbers:
            peer = f"netns {self.namespace(name)} name eth0"
            lines += [f"link add port-{name} type veth peer {peer}"]
            lines += [f"link set port-{name} master bridge up"]
        run(["ip", "-n", switch, "-batch", "-"], "\n".join(lines))
        for name in self._numbers:
            lines = ["link set lo up", f"addr add {self.address(name)}/24 dev eth0"]
            lines += ["link set eth0 up"]
            run(["ip", "-n", self.namespace(name), "-batch", "-"], "\n".join(lines))

    def namespace(self, name: str) -> str:
        """The name of a host's namespace."""
        return f"{self.lab.name}-{name}"

    def address(self, name: str) -> str:
        """A host's address, which is known inside only."""
        return f"{SUBNET}.{self._numbers[name]}"

    def command(self, name: str, argv: Sequence[str]) -> list[str]:
        """The command that runs another one in a host; its process is that of the other one."""
        return ["nsenter", f"--net={FOLDER / self.namespace(name)}", "--", *argv]

    def run(self, name: str, argv: Sequence[str], text: str = "") -> str:
        """Runs a command in a host to its end; answers what it printed."""
        return run(self.command(name, argv), text)

    @contextlib.contextmanager
    def entered(self, name: str) -> Iterator[None]:
        """The calling thread is in a host: sockets that it makes there stay there."""
        with Path("/proc/thread-self/ns/net").open() as home:
            _enter(FOLDER / self.namespace(name))
            try:
                yield
            finally:
                if _libc.setns(home.fileno(), CLONE_NEWNET):
                    raise NemesisError("the thread can't go back to its own network")

    def close(self) -> None:
        """Removes all hosts; their processes have to be ended before."""
        for name in ("switch", *self._numbers):
            if (FOLDER / self.namespace(name)).exists():
                run(["ip", "netns", "del", self.namespace(name)])
        self._guard.release()


def sweep() -> list[str]:
    """Removes hosts, and ends processes inside, of runs whose process is gone; their names."""
    swept = []
    for path in FOLDER.glob("agni-*") if FOLDER.exists() else ():
        if not belongs_to_the_dead(path.name):
            continue
        inside = subprocess.run(
            ["ip", "netns", "pids", path.name], capture_output=True, text=True, check=False
        )
        for pid in map(int, inside.stdout.split()):
            signal_if_same(pid, started_at(pid), signal.SIGKILL)
        # Another run may be sweeping, too.
        with contextlib.suppress(NemesisError):
            run(["ip", "netns", "del", path.name])
            swept.append(path.name)
    return swept


def _enter(namespace: Path) -> None:
    with namespace.open() as file:
        if _libc.setns(file.fileno(), CLONE_NEWNET):
            why = os.strerror(ctypes.get_errno())
            raise NemesisError(f"the thread can't enter {namespace.name}: {why}")


def _set(name: str, value: str) -> None:
    """A kernel setting of the network that the thread is in, if the kernel has it."""
    with contextlib.suppress(FileNotFoundError):
        (Path("/proc/sys") / name).write_text(value)
