"""How many system calls a durable write costs."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import time

from . import wire
from .compare import KEYS, Bench
from .drive import Load
from .servers import Server

PARTS = 8
"""How many of the most frequent calls are named."""


def count(bench: Bench, server: Server, load: Load) -> dict[str, object]:
    """Traces a running server while a fixed number of writes arrives."""
    requests = 40_000
    bench.driver.load_all(server.address, load, 20_000)
    report = server.folder / "strace"
    tracer = subprocess.Popen(
        ["strace", "-c", "-f", "-p", str(server.pid), "-o", str(report)],
        stderr=subprocess.PIPE,
    )
    assert tracer.stderr is not None
    tracer.stderr.readline()  # says that it is attached
    time.sleep(0.3)
    bench.driver.load_all(server.address, load, requests)
    tracer.send_signal(signal.SIGINT)
    tracer.wait(30)
    calls = {
        found[2]: int(found[1])
        for found in re.finditer(
            r"^\s*[\d.]+\s+[\d.]+\s+\d+\s+(\d+)(?:\s+\d+)?\s+(\w+)$",
            report.read_text(),
            re.MULTILINE,
        )
        if found[2] != "total"
    }
    most = sorted(calls.items(), key=lambda item: -item[1])[:PARTS]
    return {
        "requests": requests,
        "per_request": round(sum(calls.values()) / requests, 3),
        "calls": {name: round(number / requests, 4) for name, number in most},
    }


def both(bench: Bench) -> dict[str, object]:
    """The node and etcd, each at 1×128."""
    if shutil.which("strace") is None:
        return {"skipped": "strace is not installed"}
    out: dict[str, object] = {}
    pairs = (
        (bench.node(), wire.REGISTRY + "Register", wire.register),
        (bench.etcd(), wire.ETCD_KV + "Put", wire.put),
    )
    for server, path, encode in pairs:
        bodies = wire.bodies_of(server.folder / "bodies", encode, KEYS)
        load = Load(path=path, bodies=bodies, streams=128, counter_bytes=8)
        server.start()
        try:
            out[server.name] = count(bench, server, load)
        finally:
            server.stop()
    return out
