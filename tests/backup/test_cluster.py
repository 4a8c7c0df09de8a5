"""Backup and restore on real clusters: while others write, while nodes die, into other sizes."""

from __future__ import annotations

import itertools
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from archive_model import counted, number
from loopback import PATIENCE_S, Cluster, agnictl, wait_until

from agniregistry import AgniError, AsyncClient, Client, Filter, Key, Spec
from agniregistry import types as t
from agniregistry.api.v1 import cluster_pb2
from agniregistry.backup import ArchiveReader, ArchiveWriter, Manifest, StoredRecord, read_record
from agniregistry.client import Backup
from agniregistry.errors import InvalidFieldError, OverloadedError, ResumeTokenForeignError

EVERYTHING = Filter(namespace="*")
RECORDS = 4_000
PARTITIONS = 8


def operation(name: str, number: int, **more: Any) -> t.RegisterOperation:
    """A record with something of everything."""
    spec = Spec(
        region=f"region-{number % 3}",
        ip="192.0.2.1",
        port=4000,
        capacity=t.Capacity(cpu=1, bandwidth=20, memory=4096, storage=40960),
        labels={"zone": f"z{number % 5}", "empty": "", "number": str(number)},
        owner="somebody",
        payload=number.to_bytes(8, "big") * 10,
    )
    key = Key.agent(name, namespace=f"team-{number % 2}")
    return t.RegisterOperation(key, spec, incarnation=number, **more)


def fill(client: Client, count: int, prefix: str = "a") -> None:
    """Registers records that stay."""
    numbers = iter(range(count))
    while batch := list(itertools.islice(numbers, 500)):
        results = client.batch([operation(f"{prefix}-{each}", each) for each in batch])
        assert all(isinstance(result, t.Registered) for result in results)


@contextmanager
def writing(cluster: Cluster, index: int = 0) -> Iterator[list[str]]:
    """Writes go on; yields the names that were acknowledged so far."""
    acknowledged: list[str] = []
    ended = threading.Event()

    def run() -> None:
        with cluster.client(index) as client:
            for number in itertools.count():
                if ended.is_set():
                    return
                batch = [operation(f"w-{number}-{each}", each) for each in range(20)]
                try:
                    results = client.batch(batch)
                except AgniError:
                    continue
                acknowledged.extend(
                    each.key.name
                    for each, result in zip(batch, results, strict=True)
                    if isinstance(result, t.Registered)
                )

    thread = threading.Thread(target=run)
    thread.start()
    try:
        wait_until("writes are acknowledged", lambda: len(acknowledged) > 100)
        yield acknowledged
    finally:
        ended.set()
        thread.join()


def records_of(path: Path) -> dict[str, StoredRecord]:
    """An archive's records by name."""
    with ArchiveReader(path) as reader:
        return {each.name: each for each in map(read_record, reader.records())}


def take(
    client: Client,
    path: Path,
    each: Callable[[t.BackupPart], None],
    rate: int,
    parts: Backup | None = None,
) -> Manifest:
    """A backup by the SDK alone; `each` sees every part before it is written."""
    with ArchiveWriter(path) as writer, parts or client.backup(bytes_per_s=rate) as stream:
        for part in stream:
            each(part)
            match part:
                case t.BackupBegin():
                    writer.begin(
                        cluster_id=part.cluster_id,
                        partition_count=part.partition_count,
                        partitions=part.partitions,
                        region=part.region,
                        version=part.version,
                    )
                case t.BackupSection():
                    writer.section(
                        partition=part.partition,
                        index=part.index,
                        revision=part.revision,
                        records=part.records,
                        bytes=part.bytes,
                    )
                case t.BackupData():
                    list(writer.data(part.data))
        return writer.finish()


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Four nodes and eight partitions of three replicas: no node holds all of them."""
    with Cluster(tmp_path_factory.mktemp("source") / "nodes", 4, PARTITIONS) as cluster:
        with cluster.client() as client:
            fill(client, RECORDS)
        yield cluster


@pytest.fixture(scope="module")
def taken(source: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A backup that was taken while writes went on, with what was acknowledged before it."""
    path = tmp_path_factory.mktemp("taken") / "source.agnibackup"
    with writing(source) as acknowledged:
        before = acknowledged.copy()
        agnictl("backup", str(path), address=source.addresses[1])
        wait_until("writes go on", lambda: len(acknowledged) > len(before))
    (path.parent / "before.json").write_text(json.dumps(before))
    return path


def test_a_backup_under_load_has_all_that_was_acknowledged_before(taken: Path) -> None:
    found = records_of(taken)
    before = json.loads((taken.parent / "before.json").read_text())
    assert len(before) > 100
    assert not set(before) - set(found)
    assert not {f"a-{each}" for each in range(RECORDS)} - set(found)
    told = json.loads(agnictl("backup", "verify", str(taken), "-o", "json"))
    assert told["records"] == len(found)
    assert len(told["partitions"]) == PARTITIONS


@pytest.mark.parametrize(("nodes", "partitions"), [(1, 4), (2, 16)])
def test_a_cluster_of_another_size_gets_the_identical_content(
    taken: Path, tmp_path: Path, nodes: int, partitions: int
) -> None:
    with ArchiveReader(taken) as reader:
        manifest = reader.verify()
    with Cluster(tmp_path / "target", nodes, partitions) as target:
        address = target.addresses[-1]
        told = json.loads(agnictl("restore", str(taken), "-o", "json", address=address))
        assert told["identical"]
        assert told["created"] == manifest.records
        assert told["cluster_id"] != manifest.cluster_id
        # A second opinion: the checksum of the new cluster's own backup, and record by record.
        again = tmp_path / "again"
        agnictl("cluster", "backup", str(again), address=target.addresses[0])
        with ArchiveReader(again) as reader:
            assert reader.verify().content == manifest.content
        old, new = records_of(taken), records_of(again)
        assert new == old
        said = agnictl("restore", str(taken), address=address, code=4)
        assert "holds records already" in said


def test_tokens_of_the_old_cluster_are_refused_by_the_new_one(
    source: Cluster, taken: Path, tmp_path: Path
) -> None:
    with source.client() as client:
        first = client.list(EVERYTHING, page_size=10)
        assert first.next_page_token
        with client.watch(EVERYTHING, progress_interval_ms=100) as watch:
            next(watch)
            token = watch.resume_token
    # As many partitions as before: nothing but the cluster's identity tells the tokens apart.
    with Cluster(tmp_path / "target", 1, PARTITIONS) as target:
        agnictl("restore", str(taken), address=target.addresses[0])
        with target.client() as client:
            with (
                client.watch(EVERYTHING, resume_token=token) as watch,
                pytest.raises(ResumeTokenForeignError),
            ):
                next(watch)
            with pytest.raises(AgniError) as refused:
                client.list(EVERYTHING, page_size=10, page_token=first.next_page_token)
            assert refused.value.reason == "PAGE_TOKEN_INVALID"


def test_every_node_gives_all_partitions(source: Cluster) -> None:
    sums = set()
    for address in source.addresses:
        told = json.loads(agnictl("backup", "checksum", "-o", "json", address=address))
        sums.add((told["records"], told["content"]))
    assert len(sums) == 1
    with source.client() as client:
        held = [len(client.status().partitions) for _ in source.addresses]
        voters = [set(each.voters) for each in client.members().placements]
    assert held
    assert not set.intersection(*voters), "a node that holds all of them proves nothing"


def test_nothing_is_copied_that_nobody_can_vouch_for(tmp_path: Path) -> None:
    """The asked node holds everything, but without a majority it can't know what it missed."""
    with Cluster(tmp_path / "nodes", 3, 2) as cluster, cluster.client() as client:
        fill(client, 100)
        others = cluster.children[1:]
        began = threading.Event()

        def note_section(part: t.BackupPart) -> None:
            if isinstance(part, t.BackupSection):
                began.set()

        for each in others:
            each.send_signal(signal.SIGSTOP)
        try:
            backup = client.backup()
            taking = threading.Thread(
                target=take, args=(client, tmp_path / "archive", note_section, 0, backup)
            )
            taking.start()
            assert not began.wait(4), "a partition was copied without a majority"
        finally:
            for each in others:
                each.send_signal(signal.SIGCONT)
        taking.join(PATIENCE_S)
        assert len(records_of(tmp_path / "archive")) == 100


def test_a_replica_is_not_copied_before_it_has_what_is_asked_for(tmp_path: Path) -> None:
    def copied(cluster: Cluster, cluster_id: str, at_least: int) -> int:
        """The revision of a copy of partition 0, asked for as a node does."""
        asked = counted(1, bytes.fromhex(cluster_id)) + number(3, at_least)
        with grpc.insecure_channel(cluster.addresses[0]) as channel:
            pieces = channel.unary_stream("/agniregistry.node.v1.NodeService/Copy")
            first = next(pieces(asked, timeout=PATIENCE_S))
        return cluster_pb2.BackupPiece.FromString(first).section.revision

    with Cluster(tmp_path / "nodes", 1, 1) as cluster, cluster.client() as client:
        fill(client, 10)
        about = client.status()
        assert copied(cluster, about.cluster_id, 10) == 10
        with pytest.raises(grpc.RpcError, match="the replica is behind"):
            copied(cluster, about.cluster_id, 11)
        with writing(cluster) as acknowledged:
            wanted = len(acknowledged) + 200
            assert copied(cluster, about.cluster_id, wanted) >= wanted


def test_a_backup_outlives_the_node_that_it_comes_from(tmp_path: Path) -> None:
    """The asked node holds nothing; the one that sends to it is killed in the middle."""
    with Cluster(tmp_path / "nodes", 4, 1) as cluster:
        ids = {}
        for index in range(4):
            with cluster.client(index) as client:
                ids[client.status().node_id] = index
        with cluster.client() as client:
            # Far more than what is on its way at any moment, and nothing that packs well.
            for start in range(0, 2_000, 100):
                batch = [large(each) for each in range(start, start + 100)]
                assert all(isinstance(each, t.Registered) for each in client.batch(batch))
            placement = client.members().placements[0]
        sections: list[t.BackupSection] = []
        killed: list[int] = []

        def kill_the_source(part: t.BackupPart) -> None:
            if isinstance(part, t.BackupSection):
                sections.append(part)
            elif isinstance(part, t.BackupData) and not killed:
                killed.append(ids[placement.leader_id])
                cluster.kill(killed[0])

        (asked,) = set(ids) - set(placement.voters)
        with cluster.client(ids[asked]) as client:
            manifest = take(client, tmp_path / "archive", kill_the_source, rate=0)
        assert killed
        assert len(sections) > 1, "it was not interrupted"
        assert manifest.records == 2_000
        assert len(records_of(tmp_path / "archive")) == 2_000


def large(number: int) -> t.RegisterOperation:
    """A record that hardly packs."""
    spec = Spec(region="eu", ip="192.0.2.1", port=80, payload=os.urandom(8_000))
    return t.RegisterOperation(Key.agent(f"large-{number}"), spec)


def test_a_restored_lease_has_its_full_time_and_draining_goes_on(
    source: Cluster, tmp_path: Path
) -> None:
    path = tmp_path / "leases"
    with Cluster(tmp_path / "old", 1, 2) as old, old.client() as client:
        short = [operation(f"short-{each}", each, ttl_ms=3_000) for each in range(50)]
        assert all(isinstance(each, t.Registered) for each in client.batch(short))
        client.batch([operation("going", 1, ttl_ms=60_000), operation("plain", 1)])
        going = Key.agent("going", namespace="team-1")
        client.deregister(going, drain_ms=3_600_000, successor="plain")
        take(client, path, lambda _: None, rate=0)
    with Cluster(tmp_path / "new", 1, 4) as new, new.client() as client:
        told = json.loads(agnictl("restore", str(path), "-o", "json", address=new.addresses[0]))
        ended = time.monotonic()
        assert told["identical"]
        assert told["expired"] == 0
        found = {each.record.key.name: each for each in client.list_all(EVERYTHING)}
        assert len(found) == 52
        passed_ms = (time.monotonic() - ended) * 1000
        assert found["going"].status is t.Status.DRAINING
        draining = found["going"].record.draining
        assert draining is not None
        assert draining.successor == "plain"
        for each in range(50):
            instance = found[f"short-{each}"]
            assert instance.record.incarnation == each
            assert instance.lease_remaining_ms is not None
            # The comparison of the content came in between, and took part of it.
            assert 0 < instance.lease_remaining_ms <= 3_000
        assert passed_ms < 3_000
        wait_until("leases that nobody renews run out", lambda: count(client) == 2, 20)


def count(client: Client) -> int:
    """How many records there are."""
    return sum(1 for _ in client.list_all(EVERYTHING, page_size=1_000))


def test_what_is_missing_is_put_back_and_the_rest_stays(tmp_path: Path) -> None:
    with Cluster(tmp_path / "nodes", 1, 2) as cluster, cluster.client() as client:
        fill(client, 100)
        path, address = tmp_path / "archive", cluster.addresses[0]
        agnictl("backup", str(path), address=address)
        for each in range(0, 100, 10):
            client.deregister(Key.agent(f"a-{each}", namespace=f"team-{each % 2}"))
        changed = operation("a-1", 1, ttl_ms=60_000)
        client.batch([changed])
        assert "is the cluster" in agnictl("restore", str(path), address=address, code=4)
        with client.watch(EVERYTHING) as watch:
            next(iter(watch))
            words = ["restore", str(path), "--into-existing", "-o", "json"]
            told = json.loads(agnictl(*words, address=address))
            seen = list(itertools.islice(watch.changes(), 10))
        assert (told["created"], told["present"], told["kept"]) == (10, 89, 1)
        assert count(client) == 100
        assert client.get(changed.key).record.ttl_ms == 60_000
        assert {each.key.name for each in seen} == {f"a-{each}" for each in range(0, 100, 10)}


def test_backups_are_counted_bounded_and_given_up_with_their_client(source: Cluster) -> None:
    def metric(name: str) -> float:
        return source.metric(2, name)

    failed, finished = metric("agni_backups_failed_total"), metric("agni_backups_total")
    before = metric("agni_backup_bytes_total")
    with source.client(2) as client:
        slow = [client.backup(bytes_per_s=1_000) for _ in range(2)]
        for each in slow:
            assert isinstance(next(each), t.BackupBegin)
        with client.backup() as third, pytest.raises(OverloadedError):
            next(third)
        for each in slow:
            each.close()
        wait_until("they are given up", lambda: metric("agni_backups_failed_total") == failed + 2)
        with client.backup() as whole:
            sizes = [part.bytes for part in whole if isinstance(part, t.BackupSection)]
    assert len(sizes) == PARTITIONS
    assert metric("agni_backups_total") == finished + 1
    assert metric("agni_backup_seconds_count") == finished + 1
    assert metric("agni_backup_bytes_total") >= before + sum(sizes)


async def test_the_async_client_streams_the_same(source: Cluster) -> None:
    async with AsyncClient(source.addresses[0]) as client:
        parts = [part async for part in client.backup([3, 1])]
    begin, end = parts[0], parts[-1]
    assert isinstance(begin, t.BackupBegin)
    assert begin.partitions == (1, 3)
    sections = [part for part in parts if isinstance(part, t.BackupSection)]
    assert [part.partition for part in sections] == [1, 3]
    assert isinstance(end, t.BackupEnd)
    assert end.bytes == sum(part.bytes for part in sections)
    assert end.bytes == sum(len(p.data) for p in parts if isinstance(p, t.BackupData))


def test_requests_that_make_no_sense_are_refused(source: Cluster) -> None:
    with source.client() as client:
        with client.backup([PARTITIONS]) as backup, pytest.raises(InvalidFieldError):
            next(backup)
        with pytest.raises(InvalidFieldError):
            client.backup(bytes_per_s=-1)
        with pytest.raises(InvalidFieldError):
            client.restore([b"\xff"])


@pytest.mark.timeout(3600)
@pytest.mark.skipif(not os.environ.get("AGNI_SOAK"), reason="`make soak` runs it")
def test_a_million_records_under_load(tmp_path: Path) -> None:
    """AGNI_BACKUP_RECORDS makes it larger or smaller; prints what it took."""
    count_wanted = int(os.environ.get("AGNI_BACKUP_RECORDS", "1000000"))
    path = tmp_path / "million.agnibackup"
    with Cluster(tmp_path / "source", 3, 16) as cluster:
        with cluster.client() as client:
            began = time.monotonic()
            fill(client, count_wanted)
            print(f"\n{count_wanted} records written in {time.monotonic() - began:.1f} s")
        with writing(cluster) as acknowledged:
            began, before = time.monotonic(), len(acknowledged)
            agnictl("backup", str(path), address=cluster.addresses[1])
            took, during = time.monotonic() - began, len(acknowledged) - before
        size_mib = path.stat().st_size / (1 << 20)
        print(f"backed up in {took:.1f} s, {size_mib:.0f} MiB, {during} records written meanwhile")
        assert during > 0
    with Cluster(tmp_path / "target", 1, 32) as target:
        began = time.monotonic()
        words = ["--timeout", "60s", "restore", str(path), "-o", "json"]
        told = json.loads(agnictl(*words, address=target.addresses[0]))
        print(f"restored and compared in {time.monotonic() - began:.1f} s: {told}")
    assert told["identical"]
    assert told["created"] >= count_wanted
