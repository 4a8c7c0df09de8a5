"""A full disk: writes are refused and say so, everything else goes on, and it heals by itself."""

import os
import subprocess

import grpc
import pytest
from fault_support import reason_of, register_many, wait_for

from agniregistry.api.v1 import registry_pb2

DISK_MIB = 24


@pytest.fixture
def small_disk(tmp_path):
    """A file system of its own, small and in memory."""
    if os.geteuid() != 0:
        pytest.skip("needs root to mount a small file system")
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "tmpfs", str(folder)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"can't mount a tmpfs here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def refusal(node, name):
    """Why a registration is refused; empty when it is accepted."""
    try:
        node.register(name, payload=os.urandom(4096), timeout=3)
    except grpc.RpcError as error:
        return f"{error.code().name} {reason_of(error)}"
    return ""


def test_a_full_disk_refuses_writes_only_and_heals(small_disk, start_node):
    node = start_node(data_dir=small_disk / "data", disk_reserve_bytes=2 << 20)
    before = [f"before{number}" for number in range(50)]
    leases = register_many(node, before, ttl_ms=30_000)
    filler = small_disk / "filler"
    with filler.open("wb") as file:
        try:
            while file.write(bytes(1 << 16)):
                file.flush()
        except OSError:
            pass
    accepted = []

    def refused():
        name = f"during{len(accepted)}"
        why = refusal(node, name)
        if not why:
            accepted.append(name)
        return why

    why = ""
    for _ in range(4000):
        if why := refused():
            break
    # The write that met the end of the disk is in the log's queue: its outcome is open until
    # there is space. Whoever comes after it is refused at once.
    if why.startswith("DEADLINE_EXCEEDED"):
        why = refused()
    assert why == "RESOURCE_EXHAUSTED DISK_FULL"

    status = node.status()
    assert not status.writable
    assert status.message
    for name in before:
        assert node.get(name) is not None
    answer = node.registry.Renew(registry_pb2.RenewRequest(lease_ids=leases), timeout=10)
    assert (answer.renewed, list(answer.lost_lease_ids)) == (len(leases), [])

    filler.unlink()
    wait_for("writes are accepted again", lambda: not refusal(node, "after"), 30)
    wait_for("the status says so", lambda: node.status().writable, 10)
    node.kill()
    node.start()
    for name in [*before, *accepted, "after"]:
        assert node.get(name) is not None, f"{name} was acknowledged and is gone"
