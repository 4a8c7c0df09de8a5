"""Clusters of real nodes on loopback, without TLS, on ports that are free."""

from __future__ import annotations

import json
import os
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from loopback_ports import free_ports

from agniregistry import Client, Timeout, Tls
from agniregistry.identity import DevCa, SpiffeId

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 60.0
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


def wait_until(what: str, holds: Callable[[], Any], seconds: float = PATIENCE_S) -> Any:
    """Waits for a condition; fails after the deadline."""
    deadline = time.monotonic() + seconds
    while not (found := holds()):
        assert time.monotonic() < deadline, f"not in time: {what}"
        time.sleep(0.02)
    return found


class Cluster:
    """Nodes of one cluster; a context manager."""

    def __init__(
        self, folder: Path, nodes: int, partitions: int, *, tls: bool = False, **settings: Any
    ) -> None:
        """Starts them and waits until they serve and every partition is led."""
        folder.mkdir(parents=True)
        self.folder = folder
        self.certificates = folder / "ca" if tls else None
        if tls:
            authority = DevCa.init(folder / "ca")
            for index in range(nodes):
                node = SpiffeId.node(authority.trust_domain, f"n{index}")
                authority.issue(node, ["localhost", "127.0.0.1"])
            authority.issue(SpiffeId.operator(authority.trust_domain), [])
        self.partitions = partitions
        ports = free_ports(2 * nodes)
        self.addresses = [f"127.0.0.1:{port}" for port in ports[:nodes]]
        self._peers = [f"127.0.0.1:{port}" for port in ports[nodes:]]
        self._settings = {"partitions": partitions, **settings}
        self.children: list[subprocess.Popen[bytes]] = []
        try:
            self.children = [self.start(index) for index in range(nodes)]
            wait_until("the cluster serves", self.serves)
        except BaseException:
            self.stop()
            raise

    def start(self, index: int) -> subprocess.Popen[bytes]:
        """Starts one node."""
        settings: dict[str, Any] = {
            **self._settings,
            "name": f"n{index}",
            "data_dir": str(self.folder / f"data-{index}"),
            "listen": self.addresses[index],
        }
        if self.certificates:
            settings |= {"tls_dir": str(self.certificates)}
        if len(self._peers) > 1:
            settings |= {"peer_listen": self._peers[index], "seeds": ",".join(self._peers)}
        config = self.folder / f"n{index}.yaml"
        config.write_text("".join(f"{key}: {json.dumps(v)}\n" for key, v in settings.items()))
        command = [sys.executable, "-m", "agniregistry_node", "run", "--config", str(config)]
        with (self.folder / f"n{index}.log").open("ab") as sink:
            return subprocess.Popen(command, stderr=sink, env=ENVIRONMENT)

    def get(self, index: int, path: str) -> Any:
        """What a node answers over HTTP, as text; None where it doesn't."""
        try:
            scheme = "https" if self.certificates else "http"
            url = f"{scheme}://{self.addresses[index]}{path}"
            with urllib.request.urlopen(url, timeout=5, context=self._context()) as answer:
                return answer.read().decode()
        except (urllib.error.URLError, OSError):
            return None

    def files(self, who: str) -> list[str]:
        """Trust bundle, certificate and key of somebody, as options and in this order."""
        assert self.certificates
        names = ("bundle.pem", f"{who}.pem", f"{who}-key.pem")
        return [str(self.certificates / name) for name in names]

    def _context(self) -> ssl.SSLContext | None:
        if not self.certificates:
            return None
        bundle, certificate, key = self.files("operator")
        context = ssl.create_default_context(cafile=bundle)
        context.load_cert_chain(certificate, key)
        return context

    def serves(self) -> bool:
        """Whether all nodes do, and each knows who leads what it holds."""
        for index, child in enumerate(self.children):
            assert child.poll() is None, (self.folder / f"n{index}.log").read_text()[-3000:]
            if self.get(index, "/readyz") is None:
                return False
        with self.client() as client:
            return all(each.leader_id for each in client.members().placements)

    def metric(self, index: int, name: str) -> float:
        """A figure of one node."""
        lines = (self.get(index, "/metrics") or "").splitlines()
        return sum(float(line.split()[1]) for line in lines if line.startswith(f"{name} "))

    @contextmanager
    def client(self, index: int = 0) -> Iterator[Client]:
        """A client of one node."""
        timeout = Timeout(total_ms=30_000, attempt_ms=10_000)
        tls = Tls(*self.files("operator")) if self.certificates else None
        with Client(self.addresses[index], timeout=timeout, tls=tls) as client:
            yield client

    def kill(self, index: int) -> None:
        """Kill -9."""
        self.children[index].kill()
        self.children[index].wait(PATIENCE_S)

    def stop(self) -> None:
        """Ends all of them."""
        for child in self.children:
            if child.poll() is None:
                child.terminate()
        for child in self.children:
            try:
                child.wait(20)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait(PATIENCE_S)

    def __enter__(self) -> Cluster:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


def agnictl(*words: str, address: str = "", code: int = 0) -> str:
    """What a command says on stdout; its exit code must be as expected, else it fails."""
    where = ["--address", address] if address else []
    done = subprocess.run(
        [sys.executable, "-m", "agniregistry.cli", *where, *words],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    return done.stdout + (done.stderr if code else "")
