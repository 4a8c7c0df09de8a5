"""The process from outside: one start line, signals, the lock, exit codes, what survives."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from node_process import WAIT_SECONDS, Process

from agniregistry import Capacity, Client, Key, Kind, Spec

SPEC = Spec(region="global", domain="a.example", port=4000, capacity=Capacity(cpu=1))


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Process]:
    process = Process(tmp_path)
    yield process
    process.child.kill()
    process.child.wait()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_and_ends_with_0(started: Process, number: int) -> None:
    first = started.wait_for("node started")
    assert first["pid"] == started.child.pid
    assert first["data_dir"] == str(started.data)
    assert first["settings"]["wal_segment_bytes"] == 1_048_576
    assert {"version", "build_profile", "address", "start_ms", "ts", "level"} <= set(first)
    started.signal(number)
    assert started.wait() == 0
    messages = [line["msg"] for line in started.lines()]
    assert messages[-1] == "node stopped"
    assert "draining" in messages


def test_a_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    process = Process(tmp_path, "--drain-timeout-ms", "600000")
    try:
        with socket.create_connection(split(process.address())) as held:
            # An open request keeps the drain waiting.
            held.sendall(b"POST /v1/gateways HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n{")
            process.signal(signal.SIGTERM)
            process.wait_for("draining")
            deadline = time.monotonic() + WAIT_SECONDS
            while process.child.poll() is None and time.monotonic() < deadline:
                process.signal(signal.SIGTERM)
                time.sleep(0.02)
            assert process.wait() in (-signal.SIGTERM, 0)
    finally:
        process.child.kill()
        process.child.wait()


def test_acknowledged_writes_survive_kill_9(tmp_path: Path) -> None:
    process = Process(tmp_path)
    names = [f"g{index}" for index in range(50)]
    try:
        with Client(process.address()) as client:
            for name in names:
                client.put(Key(kind=Kind.GATEWAY, name=name), SPEC)
        process.signal(signal.SIGKILL)
        process.wait()
        process = Process(tmp_path)
        with Client(process.address()) as client:
            for name in names:
                assert client.get(Key(kind=Kind.GATEWAY, name=name)).record.spec == SPEC
    finally:
        process.child.kill()
        process.child.wait()


def test_a_second_node_on_the_same_folder_is_refused(started: Process, tmp_path: Path) -> None:
    started.wait_for("node started")
    second = run_node("--data-dir", str(started.data), "--listen", "127.0.0.1:0")
    assert second.returncode == 4
    assert f"in use by process {started.child.pid}" in second.stderr
    assert "DATA_DIR_LOCKED" in second.stderr
    with urllib.request.urlopen(f"http://{started.address()}/readyz", timeout=10) as answer:
        assert answer.status == 200


def test_a_taken_address_is_refused_by_name(started: Process, tmp_path: Path) -> None:
    taken = started.address()
    done = run_node("--data-dir", str(tmp_path / "other"), "--listen", taken)
    assert done.returncode == 6
    assert taken in done.stderr
    assert "LISTEN" in done.stderr


def test_other_partitions_than_the_folder_has_are_refused(tmp_path: Path) -> None:
    process = Process(tmp_path)
    process.address()
    process.signal(signal.SIGTERM)
    assert process.wait() == 0
    done = run_node("--data-dir", str(process.data), "--partitions", "4")
    assert done.returncode == 5
    assert "partitions" in done.stderr


def test_a_data_dir_that_is_a_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("not a folder")
    done = run_node("--data-dir", str(path))
    assert done.returncode == 6
    assert str(path) in done.stderr


def run_node(*flags: str) -> subprocess.CompletedProcess[str]:
    clean = {key: value for key, value in os.environ.items() if not key.startswith("AGNI_")}
    return subprocess.run(
        [sys.executable, "-m", "agniregistry_node", "run", *flags],
        env=clean,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def split(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host, int(port)
