"""Runs the load generator for one cell, and again where the machine was disturbed."""

from __future__ import annotations

import json
import re
import struct
import subprocess
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from . import machine
from .servers import Server

DISTURBED_CORES = 0.15
"""CPU of others, in cores, from which on a cell is measured again."""


@dataclass(frozen=True, kw_only=True)
class Load:
    """What one cell sends."""

    path: str
    bodies: Path
    connections: int = 1
    streams: int = 1
    counter_bytes: int = 0
    keep_open: bool = False
    per_request: int = 1
    """How many operations one request stands for."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """What one cell measured."""

    rate: float
    """Operations per second."""
    p50_us: int
    p99_us: int
    max_us: int
    refused: int
    server_cpu: float
    load_cpu: float
    other_cpu: float
    """Cores that other processes used meanwhile."""
    tries: int

    def as_dict(self) -> dict[str, float]:
        """For the result file."""
        return asdict(self)


class Driver:
    """The load generator with its settings for a whole run."""

    def __init__(self, binary: Path, *, seconds: float, warmup: float, tries: int) -> None:
        self.binary = binary
        self.seconds = seconds
        self.warmup = warmup
        self.tries = tries
        self.counter = time.time_ns() // 1000

    def call(self, address: str, load: Load, *more: str) -> dict[str, float]:
        """Runs the generator once."""
        # Each run continues the numbers of the one before: no write repeats an older one.
        self.counter += 1 << 32
        command = [
            *("taskset", "-c", str(machine.LOAD_CORE), str(self.binary)),
            *("--address", address, "--path", load.path, "--bodies", str(load.bodies)),
            *("--connections", str(load.connections), "--streams", str(load.streams)),
            *("--counter-bytes", str(load.counter_bytes), "--counter-start", str(self.counter)),
            *("--keep-open", str(int(load.keep_open)), *more),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"{load.path}: {done.stderr.strip()}")
        answer: dict[str, float] = json.loads(done.stdout)
        return answer

    def load_all(self, address: str, load: Load, requests: int) -> dict[str, float]:
        """Sends a fixed number of requests, to fill a server."""
        answer = self.call(address, load, "--requests", str(requests))
        if answer["refused"]:
            raise RuntimeError(f"{load.path}: {answer['refused']:.0f} requests were refused")
        return answer

    def cell(self, server: Server, load: Load) -> Result:
        """Measures one cell; the least disturbed of a few tries counts."""
        best: Result | None = None
        for attempt in range(1, self.tries + 1):
            machine.wait_quiet(DISTURBED_CORES, 3.0)
            result = self._once(server, load, attempt)
            if result.refused:
                raise RuntimeError(f"{load.path}: {result.refused} requests were refused")
            if best is None or result.other_cpu < best.other_cpu:
                best = result
            if best.other_cpu < DISTURBED_CORES:
                break
        assert best is not None
        return best

    def _once(self, server: Server, load: Load, attempt: int) -> Result:
        busy, own, start = machine.busy_seconds(), server.cpu_seconds(), time.monotonic()
        answer = self.call(
            server.address, load, "--seconds", str(self.seconds), "--warmup", str(self.warmup)
        )
        elapsed = time.monotonic() - start
        server_cpu = (server.cpu_seconds() - own) / elapsed
        others = (machine.busy_seconds() - busy) / elapsed - server_cpu - answer["cpu"]
        return Result(
            rate=round(answer["rps"] * load.per_request, 1),
            p50_us=int(answer["p50_us"]),
            p99_us=int(answer["p99_us"]),
            max_us=int(answer["max_us"]),
            refused=int(answer["refused"]),
            server_cpu=round(server_cpu, 2),
            load_cpu=round(answer["cpu"], 2),
            other_cpu=round(max(0.0, others), 2),
            tries=attempt,
        )


def h2load_rate(address: str, load: Load, seconds: float) -> float | None:
    """Requests per second that h2load reaches with the first body; none where it is missing."""
    data = load.bodies.read_bytes()
    (length,) = struct.unpack_from("<I", data)
    with tempfile.NamedTemporaryFile() as body:
        body.write(b"\0" + struct.pack(">I", length) + data[4 : 4 + length])
        body.flush()
        command = [
            *("taskset", "-c", str(machine.LOAD_CORE), "h2load", "-D", f"{seconds:.0f}"),
            *("--warm-up-time", "1", "-c", str(load.connections), "-m", str(load.streams)),
            *("-d", body.name, "-H", "content-type: application/grpc", "-H", "te: trailers"),
            f"http://{address}{load.path}",
        ]
        try:
            text = subprocess.run(command, capture_output=True, text=True, check=False).stdout
        except FileNotFoundError:
            return None
    found = re.search(r"finished in [\d.]+m?s, ([\d.]+) req/s", text)
    return float(found[1]) if found else None
