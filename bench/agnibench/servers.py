"""Starts and stops the servers that are compared, each on its own core."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from . import machine, wire

READY_SECONDS = 120.0


def free_port() -> int:
    """A port of loopback that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Server:
    """A server process on loopback."""

    name = ""
    probe_path = ""
    """A method that answers as soon as the server serves."""

    def __init__(self, folder: Path, loadgen: Path) -> None:
        self.folder = folder
        self.loadgen = loadgen
        self.address = f"127.0.0.1:{free_port()}"
        self.process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)
        self._probe = wire.write_bodies(folder / "probe.bodies", [self.probe()])

    def command(self) -> list[str]:
        """How to start it."""
        raise NotImplementedError

    def probe(self) -> bytes:
        """The message for `probe_path`."""
        raise NotImplementedError

    @property
    def pid(self) -> int:
        """The running process."""
        if self.process is None:
            raise RuntimeError(f"{self.name} is not running")
        return self.process.pid

    def start(self, prefix: tuple[str, ...] = ()) -> float:
        """Starts it and answers the seconds until it answered the first request."""
        log = (self.folder / "log").open("ab")
        pinned = ["taskset", "-c", str(machine.SERVER_CORE), *prefix, *self.command()]
        start = time.monotonic()
        self.process = subprocess.Popen(pinned, stdout=log, stderr=log)
        log.close()
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() - start > READY_SECONDS:
                tail = (self.folder / "log").read_text(errors="replace")[-2000:]
                self.stop()
                raise RuntimeError(f"{self.name} did not start:\n{tail}")
            time.sleep(0.01)
        return time.monotonic() - start

    def _answers(self) -> bool:
        host, port = self.address.split(":")
        try:
            socket.create_connection((host, int(port)), 0.5).close()
        except OSError:
            return False
        command = [
            *(str(self.loadgen), "--address", self.address, "--path", self.probe_path),
            *("--bodies", str(self._probe), "--requests", "1"),
        ]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        except subprocess.TimeoutExpired:
            return False
        return done.returncode == 0 and json.loads(done.stdout)["refused"] == 0

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """Ends it and waits for that."""
        if self.process is not None:
            self.process.send_signal(how)
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            self.process = None

    def cpu_seconds(self) -> float:
        """CPU that it has used."""
        return machine.process_seconds(self.pid)

    def resident_bytes(self) -> int:
        """Its resident memory."""
        return machine.resident_bytes(self.pid)


class AgniNode(Server):
    """Our node, as users start it."""

    name = "agniregistry"
    probe_path = wire.CLUSTER + "Status"

    def __init__(self, folder: Path, loadgen: Path, **settings: str | int | bool) -> None:
        super().__init__(folder, loadgen)
        self.config = folder / "node.yaml"
        # The widest cell has 128 requests at a time on one connection.
        streams = {"max_concurrent_streams": 256}
        values = {"data_dir": str(folder / "data"), "listen": self.address, **streams, **settings}
        lines = [f"{field}: {json.dumps(value)}\n" for field, value in values.items()]
        self.config.write_text("".join(lines))

    def command(self) -> list[str]:
        """As `make run` does it."""
        python = os.environ.get("AGNI_BENCH_PYTHON", sys.executable)
        return [python, "-m", "agniregistry_node", "run", "--config", str(self.config)]

    def probe(self) -> bytes:
        """An empty `StatusRequest`."""
        return b""


class Etcd(Server):
    """etcd with its defaults, but for room for a long run."""

    name = "etcd"
    probe_path = wire.ETCD_KV + "Range"

    def __init__(self, folder: Path, loadgen: Path, binary: Path) -> None:
        super().__init__(folder, loadgen)
        self.binary = binary
        self.peer = f"http://127.0.0.1:{free_port()}"
        self.http = f"http://127.0.0.1:{free_port()}"

    def command(self) -> list[str]:
        """A cluster of one, on loopback."""
        client = f"http://{self.address}"
        return [
            *(str(self.binary), "--data-dir", str(self.folder / "data"), "--log-level", "error"),
            *("--listen-client-urls", client, "--advertise-client-urls", client),
            # With a port of its own for HTTP, gRPC is served without a multiplexer: faster.
            *("--listen-client-http-urls", self.http),
            *("--listen-peer-urls", self.peer, "--initial-advertise-peer-urls", self.peer),
            *("--initial-cluster", f"default={self.peer}"),
            *("--quota-backend-bytes", str(16 << 30)),
        ]

    def probe(self) -> bytes:
        """A linearizable read of a key that may be missing."""
        return wire.range_one(0)


class Echo(Server):
    """A tonic server that answers each message with itself."""

    name = "echo"
    probe_path = "/agniregistry.bench.Echo/Call"

    def __init__(self, folder: Path, loadgen: Path, binary: Path) -> None:
        super().__init__(folder, loadgen)
        self.binary = binary

    def command(self) -> list[str]:
        """One thread."""
        return [str(self.binary), "--listen", self.address]

    def probe(self) -> bytes:
        """Anything."""
        return wire.chunk(1, b"probe")
