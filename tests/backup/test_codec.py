"""Archives as they are written and read: whatever the records, the partitions and the pieces."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path

import pytest
from archive_model import CLUSTER, archive, begin, record, section, snapshot
from hypothesis import given, settings
from hypothesis import strategies as st

from agniregistry.api.v1 import types_pb2
from agniregistry.backup import (
    ArchiveReader,
    ArchiveWriter,
    ContentSum,
    Intake,
    SourceError,
    canonical,
    read_record,
)

# Each example is synced to a disk, which takes as long as it takes.
SLOW_DISK = settings(deadline=None, max_examples=50)
NAMES = st.text(st.characters(codec="utf-8", exclude_categories=["C"]), min_size=1, max_size=20)
RECORDS = st.builds(
    record,
    NAMES,
    st.dictionaries(NAMES, NAMES, max_size=4),
    incarnation=st.integers(0, 2**64 - 1),
    ttl_ms=st.sampled_from([0, 1_000, 86_400_000]),
    revision=st.integers(1, 2**40),
)
PARTITIONS = st.lists(st.lists(RECORDS, max_size=6), min_size=1, max_size=4)


@SLOW_DISK
@given(PARTITIONS, st.lists(st.integers(0, 2**16), max_size=5))
def test_what_is_written_is_read(partitions: list[list[bytes]], pieces: list[int]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a"
        with ArchiveWriter(path) as writer:
            begin(writer, len(partitions))
            for partition, records in enumerate(partitions):
                section(writer, partition, records, pieces)
            written = writer.finish()
        with ArchiveReader(path) as reader:
            assert reader.verify() == written
            assert list(reader.records()) == [each for part in partitions for each in part]
        assert written.records == sum(map(len, partitions))
        assert written.cluster_id == CLUSTER.hex()
        assert [part.partition for part in written.partitions] == list(range(len(partitions)))
        assert list(Path(folder).iterdir()) == [path]


@SLOW_DISK
@given(PARTITIONS, st.data())
def test_a_partition_that_begins_anew_leaves_no_trace(
    partitions: list[list[bytes]], data: st.DataObject
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        plain, again = Path(folder) / "plain", Path(folder) / "again"
        expected = archive(plain, partitions)
        with ArchiveWriter(again) as writer:
            begin(writer, len(partitions))
            for partition, records in enumerate(partitions):
                lost = snapshot(partition, [*records, record("lost")])
                for _ in range(data.draw(st.integers(0, 2))):
                    writer.section(
                        partition=partition,
                        index=1,
                        revision=7,
                        records=len(records) + 1,
                        bytes=len(lost),
                    )
                    list(writer.data(lost[: data.draw(st.integers(0, len(lost) - 1))]))
                section(writer, partition, records)
            assert writer.finish() == expected
        assert again.read_bytes() == plain.read_bytes()


@SLOW_DISK
@given(st.lists(RECORDS, max_size=12), st.randoms(use_true_random=False))
def test_the_checksum_knows_neither_order_nor_partitions(
    records: list[bytes], chance: random.Random
) -> None:
    shuffled = records.copy()
    chance.shuffle(shuffled)
    half = len(shuffled) // 2
    with tempfile.TemporaryDirectory() as folder:
        one = archive(Path(folder) / "one", [records])
        two = archive(Path(folder) / "two", [shuffled[:half], shuffled[half:]])
    assert one.content == two.content == ContentSum(shuffled).text()


def spec_with(labels: list[tuple[str, str]]) -> bytes:
    """A record whose labels stand in this order."""
    plain = types_pb2.Record.FromString(record("a"))
    spec = plain.spec.SerializeToString(deterministic=True)
    for key, value in labels:
        entry = types_pb2.Spec(labels={key: value}).SerializeToString(deterministic=True)
        spec += entry
    rest = types_pb2.Record(key=plain.key).SerializeToString()
    return rest + b"\x12" + bytes([len(spec)]) + spec


def test_labels_have_no_order() -> None:
    one = spec_with([("x", "1"), ("y", "2")])
    two = spec_with([("y", "2"), ("x", "1")])
    assert one != two
    assert canonical(read_record(one)) == canonical(read_record(two))


def test_where_and_when_a_record_was_stored_does_not_count() -> None:
    here = record("a", revision=5, create_revision=2, version=3, lease_id=9, ttl_ms=1_000)
    there = record("a", revision=6, create_revision=1, version=1, lease_id=8, ttl_ms=1_000,
                   created_unix_ms=7, updated_unix_ms=8)  # fmt: skip
    assert ContentSum([here]).text() == ContentSum([there]).text()


@pytest.mark.parametrize(
    "other",
    [
        record("b"),
        record("a", {"x": "1"}),
        record("a", ttl_ms=1_000),
        record("a", incarnation=1),
        types_pb2.Record(
            key=types_pb2.Key(namespace="default", kind=types_pb2.KIND_AGENT, name="a"),
            spec=types_pb2.Spec(region="eu", ip="192.0.2.1", port=80),
            draining=types_pb2.Draining(successor="b"),
        ).SerializeToString(),
    ],
)
def test_whatever_a_restore_brings_back_counts(other: bytes) -> None:
    assert ContentSum([record("a")]).text() != ContentSum([other]).text()


def test_the_same_record_twice_is_not_none() -> None:
    assert ContentSum([record("a"), record("a")]).text() != ContentSum().text()


def fed(*sections: tuple[int, bytes], count: int = 2) -> Intake:
    """An intake that got these files."""
    intake = Intake()
    intake.begin(
        cluster_id=CLUSTER.hex(),
        partition_count=count,
        partitions=tuple(range(count)),
        region="",
        version="",
    )
    for partition, file in sections:
        intake.section(partition=partition, index=9, revision=7, records=1, bytes=len(file))
        list(intake.data(file))
    return intake


ONE = snapshot(0, [record("a")])


@pytest.mark.parametrize(
    ("sections", "count", "says"),
    [
        ([(1, ONE)], 2, "out of order"),
        ([(0, ONE)], 2, "cut short"),
        ([(0, ONE[:-1])], 1, "cut short"),
        ([(0, ONE), (1, ONE)], 2, "of another partition"),
        ([(0, snapshot(0, [record("a")], revision=8))], 1, "other|another"),
        ([(0, snapshot(0, []))], 1, "another partition, cluster or state"),
        ([(0, ONE), (1, ONE)], 1, "after the last"),
        ([(0, ONE[:40] + b"x" + ONE[41:])], 1, "checksum|unpacked"),
    ],
)
def test_what_is_no_backup_is_refused(
    sections: list[tuple[int, bytes]], count: int, says: str
) -> None:
    with pytest.raises(SourceError, match=says):
        fed(*sections, count=count).end()
