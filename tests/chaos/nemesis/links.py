"""Slow links: less bandwidth for a host, and delay, jitter and more for each direction.

The kernel's netem isn't everywhere. A host whose packets are to be delayed gets a TUN device and
a process behind it (`delayer`), through which routing sends what goes to the chosen addresses.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from nemesis.hosts import Hosts
from nemesis.lab import GUARD_S, Fault, NemesisError, UnavailableError, need_tool, run
from nemesis.partition import Pair

DEVICE = "delayer"
TABLE = "510"
PREFERENCE = "510"
BURST_BYTES = 16_384


@dataclass(frozen=True, slots=True)
class Profile:
    """What happens on the way in one direction."""

    delay_ms: float = 0.0
    jitter_ms: float = 0.0
    """Added or taken away at most, evenly; packets stay in order."""
    loss: float = 0.0
    """The share of packets that is lost, 0..1."""
    duplicate: float = 0.0
    """The share that arrives twice."""
    reorder: float = 0.0
    """The share that isn't delayed and so overtakes others."""
    bytes_per_s: float = 0.0
    """The bandwidth; 0 means as much as there is."""

    def message(self, seconds: float) -> dict[str, float]:
        """As the delayer reads it; after that long it is void."""
        return {
            "delay_s": self.delay_ms / 1000,
            "jitter_s": self.jitter_ms / 1000,
            "loss": self.loss,
            "duplicate": self.duplicate,
            "reorder": self.reorder,
            "bytes_per_s": self.bytes_per_s,
            "until": time.monotonic() + seconds,
        }


class Links:
    """The links between the hosts of a lab."""

    def __init__(self, hosts: Hosts) -> None:
        self.hosts = hosts
        self._delayers: dict[str, _Delayer] = {}
        self._shaped: set[Pair] = set()
        hosts.lab.at_end(self.close)

    def shape(
        self,
        pairs: Iterable[Pair],
        profile: Profile,
        name: str = "",
        seed: int = 0,
        seconds: float = GUARD_S,
    ) -> Fault:
        """Applies a profile to directions that have none.

        Raises:
            UnavailableError: without /dev/net/tun.
        """
        if not Path("/dev/net/tun").exists():
            raise UnavailableError("needs /dev/net/tun, of the kernel's module tun")
        wanted = sorted(set(pairs))
        taken = self._shaped.intersection(wanted)
        if taken:
            raise NemesisError(f"these directions have a profile already: {sorted(taken)}")

        def make() -> None:
            self._shaped.update(wanted)
            for number, (source, target) in enumerate(wanted):
                if source not in self._delayers:
                    self._delayers[source] = _Delayer(self.hosts, source)
                shape = profile.message(seconds)
                self._delayers[source].set(self.hosts.address(target), shape, seed + number)

        def heal() -> None:
            self._shaped.difference_update(wanted)
            for source, target in wanted:
                if source in self._delayers:
                    self._delayers[source].unset(self.hosts.address(target))

        # The delayer itself ends with this process, and a profile with its time.
        return self.hosts.lab.fault(name or f"delay {profile.delay_ms:g} ms", make, heal)

    def slow(self, host: str, bytes_per_s: int, seconds: float = GUARD_S) -> Fault:
        """Limits all that a host sends, by the kernel's token bucket."""
        need_tool("tc", "iproute2")
        namespace = self.hosts.namespace(host)
        # Half a second's worth may wait; what is more is lost, as on a real link.
        limit = max(bytes_per_s // 2, 2 * BURST_BYTES)
        bucket = ["tbf", "rate", f"{bytes_per_s * 8}bit"]
        bucket += ["burst", str(BURST_BYTES), "limit", str(limit)]
        add = ["tc", "-n", namespace, "qdisc", "add", "dev", "eth0", "root", *bucket]
        remove = ["tc", "-n", namespace, "qdisc", "del", "dev", "eth0", "root"]

        def heal() -> None:
            # After the watchdog there is nothing left to remove.
            with contextlib.suppress(NemesisError):
                run(remove)

        name = f"slow {host}"
        return self.hosts.lab.fault(name, lambda: _ignore(run(add)), heal, [remove], seconds)

    def close(self) -> None:
        """Ends the delayers."""
        for delayer in self._delayers.values():
            delayer.close()
        self._delayers.clear()


class _Delayer:
    """The process behind one host's TUN device, and the routes that lead there."""

    def __init__(self, hosts: Hosts, name: str) -> None:
        self._namespace = hosts.namespace(name)
        script = str(Path(__file__).with_name("delayer.py"))
        command = hosts.command(name, [sys.executable, "-I", "-S", script, DEVICE])
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
        )
        self._answer("ready")
        for path, value in (
            ("ipv4/ip_forward", "1"),
            ("ipv4/conf/all/rp_filter", "0"),
            (f"ipv4/conf/{DEVICE}/rp_filter", "0"),
            # What comes back from the device has an address of this host as its source.
            (f"ipv4/conf/{DEVICE}/accept_local", "1"),
        ):
            with hosts.entered(name):
                (Path("/proc/sys/net") / path).write_text(value)
        lines = [
            f"link set {DEVICE} mtu 1500 up",
            f"route add default dev {DEVICE} src {hosts.address(name)} table {TABLE}",
        ]
        run(["ip", "-n", self._namespace, "-batch", "-"], "\n".join(lines))

    def set(self, address: str, profile: dict[str, float], seed: int) -> None:
        """Delays what goes to an address from now on."""
        self._tell(address, profile, seed)
        self._rule("add", address)

    def unset(self, address: str) -> None:
        """Sends it the direct way again; what still waits arrives."""
        with contextlib.suppress(NemesisError):
            self._rule("del", address)
        if self._process.poll() is None:
            self._tell(address, {}, 0)

    def close(self) -> None:
        """Ends the process; its device and the routes through it go with it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()

    def _rule(self, what: str, address: str) -> None:
        # Of this host's own packets alone: they have no device that they came in by.
        rule = ["pref", PREFERENCE, "iif", "lo", "to", address, "lookup", TABLE]
        run(["ip", "-n", self._namespace, "rule", what, *rule])

    def _tell(self, address: str, profile: dict[str, float], seed: int) -> None:
        assert self._process.stdin is not None
        message = {"address": address, "profile": profile, "seed": seed}
        self._process.stdin.write(json.dumps(message).encode() + b"\n")
        self._process.stdin.flush()
        self._answer("done")

    def _answer(self, expected: str) -> None:
        assert self._process.stdout is not None
        line = self._process.stdout.readline().decode().strip()
        if line != expected:
            raise NemesisError(f"the delayer of {self._namespace} said {line!r}")


def _ignore(_: object) -> None:
    """For commands whose output says nothing."""
