"""Real nodes for fault tests: processes that are started, killed and read from outside."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Self

import grpc
import pytest
from loopback_ports import free_port

from agniregistry.api.v1 import (
    cluster_pb2,
    cluster_pb2_grpc,
    registry_pb2,
    registry_pb2_grpc,
    types_pb2,
)

REPOSITORY = Path(__file__).resolve().parents[2]
SOAK = os.environ.get("AGNI_SOAK", "") == "1"
"""Whether sizes are those of the requirement, instead of those that fit into `make test`."""
START_SECONDS = 60.0
GATEWAY = types_pb2.KIND_GATEWAY


def wait_for(what: str, condition: Callable[[], object], seconds: float = 30.0) -> None:
    """Waits for a condition with a deadline."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"not within {seconds} s: {what}")
        time.sleep(0.01)


class Background:
    """Work in a thread, `run`, from the beginning of a `with` until its end."""

    def __init__(self) -> None:
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self.run)

    def __enter__(self) -> Self:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self.thread.join(30)

    def run(self) -> None:
        """Goes on until `stop` is set."""
        raise NotImplementedError


class NodeProcess:
    """A node as users run it, in a process of its own."""

    def __init__(self, folder: Path, data_dir: Path, settings: dict[str, object]) -> None:
        self.folder = folder
        self.data_dir = data_dir
        # A fixed port, so that clients find the node again after a restart.
        self.address = f"127.0.0.1:{free_port()}"
        values = {
            "data_dir": str(data_dir),
            "listen": self.address,
            "partitions": 4,
            "wal_segment_bytes": 1 << 20,
            "disk_reserve_bytes": 1 << 20,
            **settings,
        }
        self.config = folder / "node.yaml"
        self.config.write_text("".join(f"{k}: {json.dumps(v)}\n" for k, v in values.items()))
        self.log = folder / "log"
        self.process: subprocess.Popen[bytes] | None = None
        self.channel: grpc.Channel | None = None

    def spawn(self) -> subprocess.Popen[bytes]:
        """Starts the process without waiting for it."""
        paths = [str(REPOSITORY / "src"), str(REPOSITORY / "node" / "python")]
        environment = {k: v for k, v in os.environ.items() if not k.startswith("AGNI_")}
        environment["PYTHONPATH"] = os.pathsep.join([*paths, os.environ.get("PYTHONPATH", "")])
        command = [sys.executable, "-m", "agniregistry_node", "run", "--config", str(self.config)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        return self.process

    def start(self) -> None:
        """Starts it and waits until it answers."""
        process = self.spawn()
        deadline = time.monotonic() + START_SECONDS
        host, port = self.address.split(":")
        while True:
            if process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"the node did not start:\n{self.log_text()[-3000:]}")
            with contextlib.suppress(OSError):
                socket.create_connection((host, int(port)), 1).close()
                break
            time.sleep(0.01)
        self.connect()
        self.cluster.Status(cluster_pb2.StatusRequest(), timeout=START_SECONDS)

    def connect(self) -> None:
        """A new channel: an old one would back off after the node was away."""
        if self.channel is not None:
            self.channel.close()
        options = [("grpc.use_local_subchannel_pool", 1)]
        self.channel = grpc.insecure_channel(self.address, options=options)
        self.registry = registry_pb2_grpc.RegistryServiceStub(self.channel)
        self.cluster = cluster_pb2_grpc.ClusterServiceStub(self.channel)

    def log_text(self) -> str:
        """What the node wrote."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def kill(self) -> None:
        """Ends it as the kernel would: kill -9."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """A graceful stop; answers the exit code."""
        return self._end(signal.SIGTERM)

    def _end(self, how: signal.Signals) -> int:
        code = 0
        if self.process is not None:
            self.process.send_signal(how)
            try:
                code = self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.process.kill()
                code = self.process.wait()
            self.process = None
        if self.channel is not None:
            self.channel.close()
            self.channel = None
        return code

    def status(self) -> cluster_pb2.StatusResponse:
        """How it does."""
        return self.cluster.Status(cluster_pb2.StatusRequest(), timeout=10)

    def resident_bytes(self) -> int:
        """Its memory that is in RAM."""
        if self.process is None:
            return 0
        statm = Path(f"/proc/{self.process.pid}/statm").read_text()
        return int(statm.split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def records(self) -> int:
        """How many records it holds, expired ones that are not yet deleted included."""
        return sum(partition.records for partition in self.status().partitions)

    def register(self, name: str, *, timeout: float = 10, **more: object):
        """Registers a gateway of the roadmap."""
        return self.registry.Register(registration(name, **more), timeout=timeout)

    def get(self, name: str) -> types_pb2.Instance | None:
        """A gateway, or None."""
        try:
            request = registry_pb2.GetRequest(key=key_of(name))
            return self.registry.Get(request, timeout=10).instance
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.NOT_FOUND:
                return None
            raise


def key_of(name: str) -> types_pb2.Key:
    """A gateway's key."""
    return types_pb2.Key(namespace="default", kind=GATEWAY, name=name)


def registration(
    name: str, *, payload: bytes = b"", ttl_ms: int = 0, region: str = "global", **labels: str
) -> registry_pb2.RegisterRequest:
    """A request to register the roadmap's gateway."""
    spec = types_pb2.Spec(
        region=region,
        ip="12.34.56.78",
        domain="global.gateway.agnistack.online",
        port=4000,
        capacity=types_pb2.Capacity(cpu=1, bandwidth=20, memory=4096, storage=40960),
        labels=labels,
        payload=payload,
    )
    return registry_pb2.RegisterRequest(key=key_of(name), spec=spec, ttl_ms=ttl_ms)


def register_many(node: NodeProcess, names: Iterable[str], **more: object) -> list[int]:
    """Registers gateways by batches; answers their leases."""
    leases: list[int] = []
    wanted = list(names)
    for start in range(0, len(wanted), 1000):
        operations = [
            registry_pb2.WriteOperation(register=registration(name, **more))
            for name in wanted[start : start + 1000]
        ]
        answer = node.registry.Batch(registry_pb2.BatchRequest(operations=operations), timeout=60)
        for result in answer.results:
            assert result.HasField("register"), result
            leases.append(result.register.lease_id)
    return leases


def reason_of(error: grpc.RpcError) -> str:
    """The stable reason of a refusal, from its google.rpc.ErrorInfo."""
    for name, value in error.trailing_metadata() or ():
        if name == "grpc-status-details-bin":
            # Status.details (3) → Any.value (2) → ErrorInfo.reason (1): found without the
            # googleapis package, which the SDK does not need either.
            for detail in _chunks(value, 3):
                if b"ErrorInfo" in b"".join(_chunks(detail, 1)):
                    for info in _chunks(detail, 2):
                        return b"".join(_chunks(info, 1)).decode()
    return ""


def _chunks(message: bytes, wanted: int) -> list[bytes]:
    found, at = [], 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while at < len(message):
        tag = varint()
        if tag & 7 == 2:
            length = varint()
            if tag >> 3 == wanted:
                found.append(message[at : at + length])
            at += length
        else:
            varint()
    return found


def bench_tool(name: str) -> Path:
    """A tool of node/crates/agni-bench, built once if it isn't there."""
    target = Path(os.environ.get("CARGO_TARGET_DIR", REPOSITORY / "node" / "target"))
    for profile in ("release", "debug"):
        if (target / profile / name).exists():
            return target / profile / name
    cargo = shutil.which("cargo")
    if cargo is None:
        pytest.skip("needs cargo to build the load generator")
    command = [cargo, "build", "--release", "--locked", "-p", "agni-bench"]
    subprocess.run(command, cwd=REPOSITORY / "node", check=True, timeout=600)
    return target / "release" / name


def write_bodies(path: Path, messages: Iterable[bytes]) -> Path:
    """A file for the load generators."""
    with path.open("wb") as file:
        for message in messages:
            file.write(struct.pack("<I", len(message)) + message)
    return path


BATCH_COMMIT = 32


def batches_of(segment: bytes) -> list[tuple[int, int]]:
    """Start and end of each batch of a segment, as docs/formats/wal.md says."""
    spans, at, start = [], 0, 0
    while segment[at : at + 2] == b"\xca\xfe":
        op, length = segment[at + 3], int.from_bytes(segment[at + 4 : at + 8], "big")
        end = at + 8 + length + 4
        stored = int.from_bytes(segment[end - 4 : end], "big")
        assert zlib.crc32(segment[at : end - 4]) == stored, f"frame at {at}"
        at = end
        if start == 0:
            start = at  # after the segment's header
        elif op == BATCH_COMMIT:
            spans.append((start, at))
            start = at
    return spans


def segments_of(data_dir: Path) -> list[Path]:
    """The log's segments, oldest first."""
    return sorted((data_dir / "wal").glob("*.wal"))
