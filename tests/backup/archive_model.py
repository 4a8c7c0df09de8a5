"""Snapshot files and archives as a node and `agnictl` would make them, small and to order."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path

import zstandard

from agniregistry.api.v1 import types_pb2
from agniregistry.backup import ArchiveWriter, Manifest

CLUSTER = bytes(range(16))


def varint(number: int) -> bytes:
    """A protobuf varint."""
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def counted(field: int, data: bytes) -> bytes:
    """A field of bytes."""
    return varint(field << 3 | 2) + varint(len(data)) + data


def number(field: int, value: int) -> bytes:
    """A number field, left out where it is zero."""
    return varint(field << 3) + varint(value) if value else b""


def record(name: str, labels: dict[str, str] | None = None, **more: int) -> bytes:
    """An encoded record."""
    message = types_pb2.Record(
        key=types_pb2.Key(namespace="default", kind=types_pb2.KIND_AGENT, name=name),
        spec=types_pb2.Spec(region="eu", ip="192.0.2.1", port=80, labels=labels or {}),
        **more,
    )
    return message.SerializeToString(deterministic=True)


def block(kind: int, plain: bytes) -> bytes:
    """A block of a snapshot file."""
    packed = zstandard.ZstdCompressor(level=1).compress(plain)
    body = struct.pack(">BII", kind, len(packed), len(plain)) + packed
    return body + struct.pack(">I", zlib.crc32(body))


def snapshot(
    partition: int,
    records: Sequence[bytes],
    revision: int = 7,
    blocks: int = 2,
    tombstones: int = 1,
) -> bytes:
    """A snapshot file, its records over several blocks."""
    header = counted(1, CLUSTER) + number(2, partition) + number(3, 9) + number(5, revision)
    out = b"AGNISNAP" + struct.pack(">I", 1) + block(1, header)
    share = max(1, -(-len(records) // blocks))
    for start in range(0, len(records), share):
        slots = (
            counted(1, number(1, start + index) + counted(2, each))
            for index, each in enumerate(records[start : start + share])
        )
        out += block(2, b"".join(slots))
    if tombstones:
        out += block(2, counted(2, number(1, 3)) * tombstones)
    out += block(3, number(1, len(records)) + number(2, tombstones))
    return out + struct.pack(">I", zlib.crc32(out))


def begin(writer: ArchiveWriter, partitions: int) -> None:
    """The first part of a backup."""
    writer.begin(
        cluster_id=CLUSTER.hex(),
        partition_count=partitions,
        partitions=tuple(range(partitions)),
        region="eu",
        version="0.1.0",
        created_unix_ms=1_700_000_000_000,
    )


def section(
    writer: ArchiveWriter, partition: int, records: Sequence[bytes], pieces: Iterable[int] = ()
) -> None:
    """A partition, its file cut at these places."""
    file = snapshot(partition, records)
    writer.section(partition=partition, index=9, revision=7, records=len(records), bytes=len(file))
    cuts = [0, *sorted({cut % len(file) for cut in pieces} - {0}), len(file)]
    for start, end in pairwise(cuts):
        list(writer.data(file[start:end]))


def archive(path: Path, partitions: Sequence[Sequence[bytes]]) -> Manifest:
    """A whole archive."""
    with ArchiveWriter(path) as writer:
        begin(writer, len(partitions))
        for partition, records in enumerate(partitions):
            section(writer, partition, records)
        return writer.finish()
