"""Watches under load, across a kill, and with a token that is too old."""

import json
import subprocess
import threading
import time

import grpc
import pytest
from fault_support import (
    GATEWAY,
    SOAK,
    bench_tool,
    register_many,
    registration,
    wait_for,
    write_bodies,
)

from agniregistry.api.v1 import cluster_pb2, registry_pb2, types_pb2

WATCHERS = 2_000 if SOAK else 200
RATE = 1_000 if SOAK else 200
SECONDS = 10 if SOAK else 4
P99_MS = 100
DEAF = 1_000 if SOAK else 100
RESIDENT_BYTES_MAX = 200 << 20


@pytest.mark.timeout(300)
def test_every_watcher_gets_each_event_once_and_in_order(start_node, tmp_path):
    """Others never read: they must not hold these up, and what waits for them is bounded."""
    node = start_node(max_watches=10_000, max_concurrent_streams=WATCHERS)
    before = node.resident_bytes()
    requests = (registration(f"gw{number}", payload=bytes(8)) for number in range(500))
    # The payload must come last for the generator: the key first, then the spec.
    bodies = write_bodies(
        tmp_path / "bodies",
        (
            registry_pb2.RegisterRequest(key=request.key).SerializeToString()
            + registry_pb2.RegisterRequest(spec=request.spec).SerializeToString()
            for request in requests
        ),
    )
    command = [
        *(str(bench_tool("watchload")), "--address", node.address, "--bodies", str(bodies)),
        *("--watchers", str(WATCHERS), "--connections", "8", "--deaf", str(DEAF)),
        *("--rate", str(RATE), "--seconds", str(SECONDS)),
    ]
    most = 0
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as load:
        while load.poll() is None:
            most = max(most, node.resident_bytes())
            time.sleep(0.1)
        out, err = load.communicate(timeout=200)
    assert load.returncode == 0, err
    seen = json.loads(out)
    grown = most - before
    print(
        f"{WATCHERS} watchers at {RATE} writes/s: {seen}\n{DEAF} more that never read: p99 of the"
        f" others {seen['p99_us'] / 1000:.1f} ms, resident memory grew by {grown >> 20} MiB"
    )
    assert grown < RESIDENT_BYTES_MAX
    assert seen["writes"] == RATE * SECONDS
    assert seen["refused"] == seen["out_of_order"] == seen["gaps"] == seen["ended"] == 0
    assert seen["complete"]
    assert seen["unequal"] == 0
    if SOAK:
        assert seen["p99_us"] <= P99_MS * 1000


def watch_of(token=b"", **more):
    """A watch of all gateways."""
    return registry_pb2.WatchRequest(
        filter=types_pb2.Filter(kind=GATEWAY),
        resume_token=token,
        progress_interval_ms=100,
        **more,
    )


class Follower:
    """Follows a node through breaks, by the newest token."""

    def __init__(self):
        self.token = b""
        self.last = {}
        self.faults = []
        self.events = 0
        self.differences = 0
        self.state = {}

    def take(self, message):
        """Notes one message."""
        self.differences += message.phase == registry_pb2.WATCH_PHASE_GAP
        for event in message.events:
            before = self.last.get(event.partition, 0)
            live = message.phase == registry_pb2.WATCH_PHASE_LIVE
            if live and before and event.revision != before + 1:
                self.faults.append((event.partition, before, event.revision))
            self.last[event.partition] = max(before, event.revision)
            self.events += 1
            if event.type == registry_pb2.EVENT_TYPE_PUT:
                self.state[event.key.name] = event.record.spec.payload
            else:
                self.state.pop(event.key.name, None)
        if message.resume_token:
            self.token = message.resume_token

    def follow(self, node, messages):
        """Takes some messages, then drops the watch in the middle."""
        call = node.registry.Watch(watch_of(self.token), timeout=30)
        try:
            for count, message in enumerate(call, 1):
                self.take(message)
                if count >= messages:
                    break
        except grpc.RpcError as error:
            if error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED):
                raise
        finally:
            call.cancel()


@pytest.mark.timeout(180)
def test_a_watch_resumes_without_gap_or_duplicate(start_node, chance):
    node = start_node()
    follower = Follower()
    follower.follow(node, 1)
    written = {}
    lock = threading.Lock()
    stop = threading.Event()

    def write():
        number = 0
        while not stop.is_set():
            number += 1
            name, payload = f"gw{number % 40}", b"%d" % number
            try:
                node.registry.Register(registration(name, payload=payload), timeout=10)
                with lock:
                    written[name] = payload
            except grpc.RpcError:
                stop.wait(0.02)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(40):
            follower.follow(node, chance.randrange(1, 12))
        between = follower.differences
        assert between == 0, "nothing was slow or old: every event must have come live"
        node.process.kill()
        node.process.wait()
        node.start()
        for _ in range(10):
            follower.follow(node, chance.randrange(1, 12))
    finally:
        stop.set()
        writer.join(15)
    assert not follower.faults
    end = node.register("end", payload=b"end")
    partition = end.header.partition
    for _ in range(200):
        if follower.last.get(partition, 0) >= end.revision:
            break
        follower.follow(node, 3)
    revisions = {part.partition: part.revision for part in node.status().partitions}
    for _ in range(200):
        if all(follower.last.get(part, 0) >= at for part, at in revisions.items() if at):
            break
        follower.follow(node, 3)
    assert not follower.faults
    # A write whose answer was lost may be newer than what the writer knows: ask the node.
    for name in written:
        assert follower.state[name] == node.get(name).record.spec.payload, name
    print(f"{follower.events} events, {follower.differences} differences after the restart")


def test_a_token_that_is_too_old_is_answered_with_a_difference(start_node):
    node = start_node(snapshot_wal_bytes=1 << 20)
    for number in range(20):
        node.register(f"gw{number}", payload=b"old")
    call = node.registry.Watch(watch_of(), timeout=30)
    token = next(call).resume_token
    call.cancel()
    for number in range(5):
        node.registry.Deregister(
            registry_pb2.DeregisterRequest(key=registration(f"gw{number}").key), timeout=10
        )
    for number in range(5, 10):
        node.register(f"gw{number}", payload=b"new")
    # A restart from a snapshot forgets the single events before it.
    node.cluster.Snapshot(cluster_pb2.SnapshotRequest(), timeout=30)
    node.stop()
    node.start()

    state = {f"gw{number}": b"old" for number in range(20)}
    phases, touched, present, complete = [], [], {}, set()
    call = node.registry.Watch(watch_of(token), timeout=30)
    for message in call:
        phases.append(message.phase)
        for event in message.events:
            touched.append(event.key.name)
            if event.type == registry_pb2.EVENT_TYPE_PUT:
                state[event.key.name] = event.record.spec.payload
            else:
                state.pop(event.key.name, None)
        for key in message.present:
            present.setdefault(message.present_partition, set()).add(key.name)
        if message.present_complete:
            complete.add(message.present_partition)
        if message.phase == registry_pb2.WATCH_PHASE_SYNCED:
            break
    assert registry_pb2.WATCH_PHASE_GAP in phases
    assert len(touched) == len(set(touched)), "each record's newest state comes once"
    known = set(touched).union(*present.values()) if present else set(touched)
    if complete:
        state = {name: payload for name, payload in state.items() if name in known}
    expected = {f"gw{number}": b"new" if number < 10 else b"old" for number in range(5, 20)}
    assert state == expected

    # After the difference it goes on live.
    node.register("later", payload=b"x")
    seen = []

    def arrived():
        message = next(call)
        seen.extend(event.key.name for event in message.events)
        return "later" in seen

    wait_for("the next event", arrived, 15)
    call.cancel()


def test_a_watcher_that_did_not_read_is_told_what_it_missed(start_node):
    """More is written than its buffers and the event log hold: a gap is explicit, then all is
    there."""
    node = start_node(partitions=1, max_message_bytes=8 << 20)
    call = node.registry.Watch(watch_of(), timeout=60)
    next(call)
    names = [f"gw{number}" for number in range(24_000)]
    register_many(node, names, payload=bytes(1024))
    node.registry.Deregister(
        registry_pb2.DeregisterRequest(key=registration("gw7").key), timeout=10
    )
    node.register("gw8", payload=b"newest")

    state, phases = {}, []
    for message in call:
        phases.append(message.phase)
        for event in message.events:
            if event.type == registry_pb2.EVENT_TYPE_PUT:
                state[event.key.name] = event.record.spec.payload
            else:
                state.pop(event.key.name, None)
        if message.phase == registry_pb2.WATCH_PHASE_SYNCED:
            break
    call.cancel()
    gap = phases.index(registry_pb2.WATCH_PHASE_GAP)
    assert registry_pb2.WATCH_PHASE_LIVE in phases[:gap], "what was buffered came first"
    assert registry_pb2.WATCH_PHASE_LIVE not in phases[gap:]
    assert set(state) == set(names) - {"gw7"}
    assert state["gw8"] == b"newest"
