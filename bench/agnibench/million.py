"""Memory and restart with a million gateways of the roadmap's size."""

from __future__ import annotations

import http.client
import json
import shutil
import signal
import time
from pathlib import Path

from . import wire
from .compare import BATCH_RECORDS, TXN_KEYS, Bench
from .drive import Load
from .servers import Server


def settle(server: Server, patience_s: float = 30.0) -> None:
    """Waits until a server has nothing to do any more."""
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        before = server.cpu_seconds()
        time.sleep(0.5)
        if server.cpu_seconds() - before < 0.05:
            return


def snapshot(address: str) -> float:
    """Asks the node for a snapshot of everything; seconds until it was durable."""
    start = time.monotonic()
    connection = http.client.HTTPConnection(address, timeout=300)
    connection.request("POST", "/v1/snapshots", "{}", {"content-type": "application/json"})
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    if answer.status >= 300:
        raise RuntimeError(f"snapshot: {answer.status} {body[:300]!r}")
    return time.monotonic() - start


def records_of(address: str) -> int:
    """How many records the node says it holds."""
    connection = http.client.HTTPConnection(address, timeout=60)
    connection.request("GET", "/v1/status")
    status = json.load(connection.getresponse())
    connection.close()
    return sum(int(partition.get("records", 0)) for partition in status["partitions"])


def mib(count: int) -> int:
    """Bytes in MiB."""
    return count >> 20


def folder_mib(path: Path) -> int:
    """What a folder holds."""
    return mib(sum(file.stat().st_size for file in path.rglob("*") if file.is_file()))


def ours(bench: Bench, records: int) -> dict[str, float]:
    """Our node: loaded without snapshots, restarted from the log alone, then from snapshots."""
    node = bench.node(snapshot_wal_bytes=64 << 30)
    node.start()
    try:
        empty = node.resident_bytes()
        starts = range(0, records, BATCH_RECORDS)
        bodies = wire.write_bodies(
            node.folder / "batches",
            (wire.batch(range(at, min(at + BATCH_RECORDS, records))) for at in starts),
        )
        load = Load(path=wire.REGISTRY + "Batch", bodies=bodies, streams=8)
        took = bench.driver.load_all(node.address, load, len(starts))
        if (stored := records_of(node.address)) != records:
            raise RuntimeError(f"{stored} records are stored instead of {records}")
        settle(node)
        loaded = node.resident_bytes()
        disk = folder_mib(node.folder / "data")
        node.stop(signal.SIGKILL)
        from_wal = node.start()
        after_wal = node.resident_bytes()
        taken = snapshot(node.address)
        node.stop()
        from_snapshot = node.start()
        if (stored := records_of(node.address)) != records:
            raise RuntimeError(f"{stored} records are back instead of {records}")
        settle(node)
        return {
            "records": records,
            "load_seconds": round(took["seconds"], 2),
            "resident_empty_mib": mib(empty),
            "resident_mib": mib(loaded),
            "resident_after_wal_mib": mib(after_wal),
            "resident_after_snapshot_mib": mib(node.resident_bytes()),
            "disk_wal_mib": disk,
            "restart_wal_seconds": round(from_wal, 2),
            "snapshot_seconds": round(taken, 2),
            "restart_snapshot_seconds": round(from_snapshot, 2),
        }
    finally:
        node.stop()
        shutil.rmtree(node.folder, ignore_errors=True)


def theirs(bench: Bench, records: int) -> dict[str, float]:
    """etcd: the same records; its restart always uses its database file and its log."""
    etcd = bench.etcd()
    etcd.start()
    try:
        empty = etcd.resident_bytes()
        starts = range(0, records, TXN_KEYS)
        bodies = wire.write_bodies(
            etcd.folder / "transactions",
            (wire.put_many(range(at, min(at + TXN_KEYS, records))) for at in starts),
        )
        load = Load(path=wire.ETCD_KV + "Txn", bodies=bodies, streams=8)
        took = bench.driver.load_all(etcd.address, load, len(starts))
        settle(etcd)
        loaded, disk = etcd.resident_bytes(), folder_mib(etcd.folder / "data")
        etcd.stop(signal.SIGKILL)
        restart = etcd.start()
        settle(etcd)
        return {
            "records": records,
            "load_seconds": round(took["seconds"], 2),
            "resident_empty_mib": mib(empty),
            "resident_mib": mib(loaded),
            "resident_after_restart_mib": mib(etcd.resident_bytes()),
            "disk_mib": disk,
            "restart_seconds": round(restart, 2),
        }
    finally:
        etcd.stop()
        shutil.rmtree(etcd.folder, ignore_errors=True)
