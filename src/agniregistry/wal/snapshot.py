"""Reads snapshot files: one group's records and tombstones, or the system group's state, at one
index of its log.

    "AGNISNAP" [version:4]  block...  [crc32 of all that:4]                    all big-endian
    block = [kind:1][packed length:4][plain length:4][zstd payload][crc32 of the block:4]

The first block is the header, the last the footer, with blocks of records in between.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agniregistry.wal import wire
from agniregistry.wal.errors import CorruptError, MissingError
from agniregistry.wal.records import WireError, read_key, read_record, read_replicas

MAGIC = b"AGNISNAP"
VERSION = 1
BLOCK_BYTES_MAX = 64 * 1024 * 1024
"""No block is longer, packed or not: a larger length is damage."""

REMEDY = (
    "remove the file: the node starts from the older snapshot and the log, which have what it held"
)

_HEADER, _RECORDS, _FOOTER = 1, 2, 3
_START = struct.Struct(">8sI")
_BLOCK = struct.Struct(">BII")
_CRC = struct.Struct(">I")
_NAME = re.compile(r"(?:p(\d{4})|system)-(\d{20})\.snap")
_SYSTEM_PARTITION = (1 << 32) - 1


@dataclass(slots=True)
class SnapshotHeader:
    """What a snapshot is of."""

    cluster_id: str = ""
    """The cluster, as hexadecimal text."""
    partition: int = 0
    """The partition."""
    index: int = 0
    """The newest log index in it."""
    term: int = 0
    """The term of that entry."""
    revision: int = 0
    """The partition's revision."""
    compacted_revision: int = 0
    """Removals at or below this revision are no longer known one by one."""
    replicas: dict[str, Any] = field(default_factory=dict)
    """Who votes at that index: voters, learners and, in a joint configuration, more."""


@dataclass(slots=True)
class SnapshotReader:
    """Reads one file; `header` and the counts are complete once all of it was read."""

    path: Path
    """The file."""
    header: SnapshotHeader = field(default_factory=SnapshotHeader)
    """What it is of."""
    records: int = 0
    """How many records have been read."""
    tombstones: int = 0
    """How many removals have been read."""
    blocks: int = 0
    """How many blocks have been read."""
    file_bytes: int = 0
    """The file's size."""

    def read(self) -> SnapshotReader:
        """Reads everything for its own sake, as verify does."""
        for _ in self.items():
            pass
        return self

    def items(self) -> Iterator[dict[str, Any]]:
        """Yields the records (with their slot) in order; raises CorruptError at damage."""
        unpack = decompressor()
        data = memoryview(self.path.read_bytes())
        self.file_bytes = len(data)
        end = len(data) - _CRC.size
        if end < _START.size or bytes(data[:8]) != MAGIC:
            raise self._corrupt(0, "it does not begin like a snapshot, or is cut short")
        version = _START.unpack_from(data)[1]
        if version != VERSION:
            raise self._corrupt(8, f"its version is {version}, this reader knows {VERSION}")
        offset, kind = _START.size, 0
        while kind != _FOOTER:
            expected = kind
            start = offset
            kind, plain, offset = self._block(data, offset, end, unpack)
            if (kind == _HEADER) != (expected == 0):
                raise self._corrupt(start, "the header is not the first block")
            self.blocks += 1
            try:
                yield from self._content(kind, memoryview(plain))
            except (WireError, ValueError) as error:
                raise self._corrupt(start, f"a block can't be decoded: {error}") from error
        if offset != end:
            raise self._corrupt(offset, "bytes follow after the footer")
        if zlib.crc32(data[:end]) != _CRC.unpack_from(data, end)[0]:
            raise self._corrupt(end, "the checksum of the whole file is wrong")

    def _content(self, kind: int, plain: memoryview) -> Iterator[dict[str, Any]]:
        if kind == _HEADER:
            self.header = _read_header(plain)
        elif kind == _FOOTER:
            counts = {number: wire.unsigned(value) for number, _, value in wire.fields(plain)}
            if (counts.get(1, 0), counts.get(2, 0)) != (self.records, self.tombstones):
                raise WireError("the footer counts other records than came before it")
        else:
            for number, _, value in wire.fields(plain):
                if number == 1:
                    self.records += 1
                    yield _read_slot(wire.message(value))
                elif number == 2:
                    self.tombstones += 1
                    _check_tombstone(wire.message(value))

    def _block(
        self, data: memoryview, offset: int, end: int, unpack: Callable[[bytes, int], bytes]
    ) -> tuple[int, bytes, int]:
        """A block's kind and plain bytes, and where the next one begins."""
        if end - offset < _BLOCK.size:
            raise self._corrupt(offset, "a block is cut short")
        kind, packed, size = _BLOCK.unpack_from(data, offset)
        if kind not in (_HEADER, _RECORDS, _FOOTER):
            raise self._corrupt(offset, f"block kind {kind} is unknown")
        if max(packed, size) > BLOCK_BYTES_MAX:
            raise self._corrupt(offset, f"a block's length is above {BLOCK_BYTES_MAX} bytes")
        body = offset + _BLOCK.size + packed
        if body + _CRC.size > end:
            raise self._corrupt(offset, "a block is cut short")
        if zlib.crc32(data[offset:body]) != _CRC.unpack_from(data, body)[0]:
            raise self._corrupt(offset, "a block's checksum is wrong")
        try:
            plain = unpack(bytes(data[offset + _BLOCK.size : body]), size)
        except ValueError as error:
            raise self._corrupt(offset, f"a block can't be unpacked: {error}") from error
        if len(plain) != size:
            raise self._corrupt(offset, f"a block has {len(plain)} bytes, not {size}")
        return kind, plain, body + _CRC.size

    def _corrupt(self, offset: int, reason: str) -> CorruptError:
        return CorruptError(self.path, offset, reason, REMEDY)


def _read_header(plain: memoryview) -> SnapshotHeader:
    header = SnapshotHeader()
    for number, _, value in wire.fields(plain):
        match number:
            case 1:
                header.cluster_id = wire.message(value).hex()
            case 2:
                header.partition = wire.unsigned(value)
            case 3:
                header.index = wire.unsigned(value)
            case 4:
                header.term = wire.unsigned(value)
            case 5:
                header.revision = wire.unsigned(value)
            case 6:
                header.compacted_revision = wire.unsigned(value)
            case 8:
                header.replicas = read_replicas(value)
    return header


def _read_slot(data: memoryview) -> dict[str, Any]:
    slot, record = 0, {}
    for number, _, value in wire.fields(data):
        if number == 1:
            slot = wire.unsigned(value)
        elif number == 2:
            record = read_record(wire.message(value))
    return {"slot": slot, **record}


def _check_tombstone(data: memoryview) -> None:
    for number, _, value in wire.fields(data):
        if number == 2:
            read_key(wire.message(value))


def decompressor() -> Callable[[bytes, int], bytes]:
    """Unpacks a block; zstd isn't in Python's library before 3.14, so it is asked for late."""
    try:
        import zstandard
    except ImportError as error:
        raise MissingError(
            "snapshots are packed with zstd, which this Python cannot read",
            "pip install 'agniregistry[cli]', or pip install zstandard",
        ) from error

    def unpack(packed: bytes, size: int) -> bytes:
        try:
            return zstandard.ZstdDecompressor().decompress(packed, max_output_size=max(size, 1))
        except zstandard.ZstdError as error:
            raise ValueError(str(error)) from error

    return unpack


def find_snapshots(path: Path) -> list[Path]:
    """The snapshots of a data directory, of its snapshots/ folder, or one file.

    Ordered by partition, the system group last, newest first.
    """
    if path.is_file():
        return [path]
    folder = path / "snapshots" if (path / "snapshots").is_dir() else path
    if not folder.is_dir():
        raise MissingError(f"{path} does not exist", "give a node's data directory")
    found = [
        (int(match[1] or _SYSTEM_PARTITION), -int(match[2]), file)
        for file in folder.iterdir()
        if (match := _NAME.fullmatch(file.name))
    ]
    return [file for _, _, file in sorted(found)]
