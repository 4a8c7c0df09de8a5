"""Three real nodes with mTLS on loopback, some records, leases that run out, and a watch."""

from __future__ import annotations

import json
import os
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from loopback_ports import free_ports

from agniregistry.identity import DevCa, SpiffeId, Tls

NODES = 3
PATIENCE_S = 60.0
LOOPBACK = ["localhost", "127.0.0.1"]


def wait_for(what: str, holds: Callable[[], Any]) -> Any:
    """Waits until it holds; fails after a deadline."""
    deadline = time.monotonic() + PATIENCE_S
    while not (found := holds()):
        assert time.monotonic() < deadline, f"not in time: {what}"
        time.sleep(0.05)
    return found


@dataclass
class ThreeNodes:
    """A cluster of three, each in a process of its own."""

    folder: Path
    addresses: list[str] = field(default_factory=list)
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def ca(self) -> Path:
        """Where the certificates are."""
        return self.folder / "ca"

    def tls(self) -> Tls:
        """The operator's."""
        names = ("bundle.pem", "operator.pem", "operator-key.pem")
        return Tls(*(self.ca / name for name in names))

    def start(self) -> None:
        """Founds the cluster and waits until all serve and every partition is led."""
        authority = DevCa.init(self.ca)
        for number in range(1, NODES + 1):
            authority.issue(SpiffeId.node(authority.trust_domain, f"n{number}"), LOOPBACK)
        authority.issue(SpiffeId.operator(authority.trust_domain), [])
        ports = free_ports(2 * NODES)
        peers = [f"127.0.0.1:{port}" for port in ports[NODES:]]
        self.addresses = [f"127.0.0.1:{port}" for port in ports[:NODES]]
        for number in range(NODES):
            self.processes.append(self._run(number, peers))
        for number in range(NODES):
            wait_for(f"n{number + 1} is ready", lambda: self.get(number, "/readyz"))  # noqa: B023
        wait_for("every partition is led and held thrice", self._is_whole)

    def _run(self, number: int, peers: list[str]) -> subprocess.Popen[bytes]:
        name = f"n{number + 1}"
        flags = ["--preset", "dev", "--partitions", "4", "--listen", self.addresses[number]]
        flags += ["--name", name, "--peer-listen", peers[number], "--seeds", ",".join(peers)]
        flags += ["--data-dir", str(self.folder / name), "--tls-dir", str(self.ca)]
        flags += ["--region", "eu", "--zone", f"zone-{number + 1}"]
        with (self.folder / f"{name}.log").open("wb") as sink:
            return subprocess.Popen(
                [sys.executable, "-m", "agniregistry_node", "run", *flags],
                stderr=sink,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            )

    def _is_whole(self) -> bool:
        found = self.get(0, "/v1/members") or {"placements": []}
        placements = found["placements"]
        led = all(p["leader_id"] != "0" and len(p["voters"]) == NODES for p in placements)
        return bool(placements) and led

    def text(self, number: int, path: str, body: str | None = None) -> str:
        """What a node answers over HTTPS.

        Raises:
            OSError: When it doesn't.
        """
        context = ssl.create_default_context(cafile=str(self.tls().ca_file))
        context.load_cert_chain(str(self.tls().cert_file), str(self.tls().key_file))
        data = None if body is None else body.encode()
        url = f"https://{self.addresses[number]}{path}"
        request = urllib.request.Request(url, data, {"content-type": "application/json"})
        with urllib.request.urlopen(request, timeout=10, context=context) as answer:
            return str(answer.read().decode())

    def get(self, number: int, path: str) -> Any:
        """Its JSON; None where there is none."""
        try:
            return json.loads(self.text(number, path))
        except (urllib.error.URLError, OSError, ValueError):
            return None

    def work(self) -> None:
        """Records through every node, leases that are renewed, and one that runs out."""
        for number in range(30):
            body = {"name": f"g{number}", "region": "eu", "gateway_ip": "10.0.0.1"}
            body |= {"gateway_port": 4000, "ttl_ms": 1_000 if number == 0 else 60_000}
            made = json.loads(self.text(number % NODES, "/v1/gateways", json.dumps(body)))
            leases = json.dumps({"lease_ids": [made["lease_id"]]})
            self.text((number + 1) % NODES, "/v1/leases/renew", leases)
            self.text((number + 2) % NODES, "/v1/discover?kind=gateway")
        wait_for("the lease ran out", lambda: self.get(1, "/v1/gateways/g0") is None)

    def kill(self, number: int) -> None:
        """Kill -9."""
        self.processes[number].kill()
        self.processes[number].wait()

    def stop(self) -> None:
        """Ends what runs."""
        for process in self.processes:
            if process.poll() is None:
                process.terminate()
        for process in self.processes:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
