"""Takes a snapshot file apart while its bytes arrive: docs/formats/snapshot.md, piece by piece.

`agniregistry.wal` reads such a file whole; a backup must never hold one in memory.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

from agniregistry.backup.content import RecordError, fields
from agniregistry.wal.snapshot import BLOCK_BYTES_MAX, MAGIC, VERSION, decompressor

_START = struct.Struct(">8sI")
_BLOCK = struct.Struct(">BII")
_CRC = struct.Struct(">I")
_HEADER, _RECORDS, _FOOTER = 1, 2, 3


class SnapshotDamageError(ValueError):
    """The bytes are not what a node wrote."""


class SnapshotStream:
    """Reads one file: `feed` it all bytes in order, then `finish`."""

    def __init__(self) -> None:
        """Nothing has come yet."""
        self.cluster_id = ""
        """Of the header: the cluster, as hexadecimal text."""
        self.partition = 0
        """Of the header: the partition."""
        self.revision = 0
        """Of the header: the revision."""
        self.records = 0
        """How many records have come."""
        self._tombstones = 0
        self._kind = 0
        self._started = False
        self._buffer = bytearray()
        self._checksum = 0
        self._unpack = decompressor()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yields the encoded records that are complete with these bytes."""
        self._buffer += data
        if not self._started:
            if len(self._buffer) < _START.size:
                return
            magic, version = _START.unpack_from(self._buffer)
            if magic != MAGIC or version != VERSION:
                raise SnapshotDamageError("it does not begin like a snapshot that is known here")
            self._take(_START.size)
            self._started = True
        while self._kind != _FOOTER and len(self._buffer) >= _BLOCK.size:
            kind, packed, size = _BLOCK.unpack_from(self._buffer)
            if max(packed, size) > BLOCK_BYTES_MAX:
                raise SnapshotDamageError(f"a block's length is above {BLOCK_BYTES_MAX} bytes")
            length = _BLOCK.size + packed + _CRC.size
            if len(self._buffer) < length:
                return
            block = self._take(length)
            if zlib.crc32(block[: -_CRC.size]) != _CRC.unpack(block[-_CRC.size :])[0]:
                raise SnapshotDamageError("a block's checksum is wrong")
            yield from self._content(kind, self._plain(block[_BLOCK.size : -_CRC.size], size))

    def finish(self) -> None:
        """Checks that all of it has come."""
        if self._kind != _FOOTER or len(self._buffer) != _CRC.size:
            raise SnapshotDamageError("a snapshot is cut short, or bytes follow after it")
        if self._checksum != _CRC.unpack(self._buffer)[0]:
            raise SnapshotDamageError("the checksum of a whole snapshot is wrong")

    def _take(self, length: int) -> bytes:
        taken = bytes(self._buffer[:length])
        del self._buffer[:length]
        self._checksum = zlib.crc32(taken, self._checksum)
        return taken

    def _plain(self, packed: bytes, size: int) -> bytes:
        try:
            plain = self._unpack(packed, size)
        except ValueError as error:
            raise SnapshotDamageError(f"a block can't be unpacked: {error}") from error
        if len(plain) != size:
            raise SnapshotDamageError(f"a block has {len(plain)} bytes, not {size}")
        return plain

    def _content(self, kind: int, plain: bytes) -> Iterator[bytes]:
        if (kind == _HEADER) != (self._kind == 0) or kind not in (_HEADER, _RECORDS, _FOOTER):
            raise SnapshotDamageError("its blocks are not in their order")
        self._kind = kind
        try:
            found = fields(plain)
            if kind == _RECORDS:
                yield from self._records(found)
                return
            values = {number: value for number, value, _ in found}
        except RecordError as error:
            raise SnapshotDamageError(f"a block can't be decoded: {error}") from error
        if kind == _HEADER:
            cluster = values.get(1, b"")
            self.cluster_id = cluster.hex() if isinstance(cluster, bytes) else ""
            self.partition = int(values.get(2, 0))
            self.revision = int(values.get(5, 0))
        elif (values.get(1, 0), values.get(2, 0)) != (self.records, self._tombstones):
            raise SnapshotDamageError("the footer counts other records than came before it")

    def _records(self, found: list[tuple[int, int | bytes, bytes]]) -> Iterator[bytes]:
        for number, value, _ in found:
            if number == 2:
                self._tombstones += 1
            elif number == 1 and isinstance(value, bytes):
                self.records += 1
                record = next((v for n, v, _ in fields(value) if n == 2), None)
                if not isinstance(record, bytes):
                    raise RecordError("a slot without a record")
                yield record
