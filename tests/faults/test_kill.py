"""kill -9 at random moments under load: nothing that was acknowledged is lost or undone."""

import os
import random
import threading
import time
from dataclasses import dataclass, field

import grpc
import pytest
from fault_support import SOAK, key_of, registration

from agniregistry.api.v1 import cluster_pb2, registry_pb2, types_pb2

ROUNDS = int(os.environ.get("AGNI_KILL_ROUNDS", "200" if SOAK else "15"))
WRITERS = 6
KEYS_EACH = 12


@dataclass
class Believed:
    """What a writer knows of its key: the last acknowledged state, and what is unanswered."""

    payload: bytes | None = None
    revision: int = 0
    create_revision: int = 0
    pending: list[bytes | None] = field(default_factory=list)


@dataclass
class Model:
    """All that the writers were told, over all rounds."""

    keys: dict[str, Believed] = field(default_factory=dict)
    revisions: dict[int, set[int]] = field(default_factory=dict)
    highest: dict[int, int] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)
    acknowledged: int = 0
    faults: list[str] = field(default_factory=list)

    def told(self, partition, revision, floor):
        """A write was acknowledged at a revision; nobody may have had it before."""
        with self.lock:
            self.acknowledged += 1
            seen = self.revisions.setdefault(partition, set())
            if revision in seen:
                self.faults.append(f"revision {revision} of partition {partition} was used twice")
            if revision <= floor.get(partition, 0):
                self.faults.append(
                    f"partition {partition}: revision {revision} is not above"
                    f" {floor[partition]}, which was acknowledged before the restart"
                )
            seen.add(revision)
            self.highest[partition] = max(self.highest.get(partition, 0), revision)


def write(node, model, names, chance, stop, floor):
    """Writes to its own keys, one after the other, until the node is gone."""
    number = 0
    while not stop.is_set():
        name = chance.choice(names)
        believed = model.keys[name]
        number += 1
        payload = f"{name}/{chance.randrange(1 << 40)}/{number}".encode()
        delete = believed.payload is not None and chance.random() < 0.15
        update = believed.payload is not None and not delete and chance.random() < 0.3
        believed.pending.append(None if delete else payload)
        try:
            if delete:
                request = registry_pb2.DeregisterRequest(key=key_of(name))
                answer = node.registry.Deregister(request, timeout=10)
            elif update:
                request = registry_pb2.UpdateRequest(
                    key=key_of(name),
                    spec=types_pb2.Spec(payload=payload, owner=payload.decode()),
                )
                request.update_mask.paths.extend(["payload", "owner"])
                answer = node.registry.Update(request, timeout=10)
            else:
                request = registration(name, payload=payload)
                request.spec.owner = payload.decode()
                answer = node.registry.Register(request, timeout=10)
        except grpc.RpcError as error:
            if error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED):
                model.faults.append(f"{name}: {error.code()} {error.details()}")
            return
        model.told(answer.header.partition, answer.revision, floor)
        believed.pending.clear()
        believed.payload = None if delete else payload
        believed.revision = answer.revision


def check(node, model):
    """Every key shows what was acknowledged, or what was under way, and nothing in between."""
    for name, believed in model.keys.items():
        instance = node.get(name)
        stored = None if instance is None else instance.record.spec.payload
        allowed = [believed.payload, *believed.pending]
        assert stored in allowed, f"{name}: {stored!r} is none of {allowed!r}"
        if instance is not None:
            record = instance.record
            assert record.spec.owner.encode() == stored, f"{name}: half a write is stored"
            assert record.spec.port == 4000
            assert record.create_revision <= record.revision
            if stored == believed.payload:
                assert record.revision == believed.revision, f"{name}: other revision"
            else:
                assert record.revision > believed.revision, f"{name}: revision went back"
        # From here on the stored state is the known one.
        believed.payload = stored
        believed.revision = believed.revision if instance is None else record.revision
        believed.pending.clear()


@pytest.mark.timeout(60 + ROUNDS * 20)
def test_every_acknowledged_write_survives_kill_9(start_node, chance):
    node = start_node(snapshot_wal_bytes=1 << 20, wal_segment_bytes=1 << 18)
    model = Model()
    groups = [[f"w{w}-k{k}" for k in range(KEYS_EACH)] for w in range(WRITERS)]
    for name in (name for names in groups for name in names):
        model.keys[name] = Believed()
    for number in range(ROUNDS):
        floor = {}
        for partition in node.status().partitions:
            floor[partition.partition] = partition.revision
            told = model.highest.get(partition.partition, 0)
            assert partition.revision >= told, f"round {number}: revisions went back"
        stop = threading.Event()
        seeds = [random.Random(chance.random()) for _ in groups]
        threads = [
            threading.Thread(target=write, args=(node, model, names, seed, stop, floor))
            for names, seed in zip(groups, seeds, strict=True)
        ]
        for thread in threads:
            thread.start()
        if number % 3 == 1:
            node.cluster.Snapshot.future(cluster_pb2.SnapshotRequest(), timeout=5)
        time.sleep(chance.uniform(0.02, 0.5))
        node.process.kill()
        node.process.wait()
        stop.set()
        for thread in threads:
            thread.join(15)
            assert not thread.is_alive()
        assert not model.faults, (number, model.faults[:5])
        node.start()
        check(node, model)
    print(f"{ROUNDS} rounds, {model.acknowledged} acknowledged writes, none lost")
    assert model.acknowledged > ROUNDS * 20
