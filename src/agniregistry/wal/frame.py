"""The frame: how one record lies in a segment, and how bad bytes are told from good ones.

    [magic CA FE:2][version:1][op:1][payload length:4][payload][crc32:4]      all big-endian

The CRC-32 (IEEE) covers header and payload. The length is checked before anything trusts it.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from enum import IntEnum

MAGIC = 0xCAFE
VERSION = 1
PAYLOAD_BYTES_MAX = 64 * 1024 * 1024
"""No frame is longer: a larger length is damage, not data."""

HEADER = struct.Struct(">HBBI")
TRAILER = struct.Struct(">I")
OVERHEAD = HEADER.size + TRAILER.size
"""Bytes of a frame beside its payload."""


class Op(IntEnum):
    """What a frame's payload says."""

    PUT = 1
    PATCH = 2
    DELETE = 3
    DRAIN = 4
    EXPIRE = 5
    NO_OP = 6
    CONF_CHANGE = 7
    SYSTEM = 8
    HARD_STATE = 16
    SNAPSHOT_MARK = 17
    REPLICA_SET = 18
    DISCARD = 19
    BATCH_COMMIT = 32
    SEGMENT_HEADER = 33

    @property
    def is_entry(self) -> bool:
        """Whether it is an entry of a group's Raft log."""
        return self <= Op.SYSTEM


_OPS = {int(op): op for op in Op}
_COMMIT_START = HEADER.pack(MAGIC, VERSION, Op.BATCH_COMMIT, 0)[:4]


class FrameError(ValueError):
    """The bytes at an offset are not a frame; says why."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame whose checksum holds."""

    op: Op
    """What its payload says."""
    offset: int
    """Where it begins in its file, in bytes."""
    payload: memoryview
    """The encoded WalRecord, a slice of the segment."""

    @property
    def end(self) -> int:
        """Where the next frame begins."""
        return self.offset + OVERHEAD + len(self.payload)


def read_frame(data: memoryview, offset: int) -> Frame:
    """The frame at the offset; raises FrameError where there is none."""
    room = len(data) - offset
    if room < OVERHEAD:
        raise FrameError(f"only {room} bytes are left, a frame has at least {OVERHEAD}")
    magic, version, op, length = HEADER.unpack_from(data, offset)
    if magic != MAGIC:
        raise FrameError(f"the magic is {magic:04X}, not {MAGIC:04X}")
    if version != VERSION:
        raise FrameError(f"the frame's version is {version}, this reader knows {VERSION}")
    if length > PAYLOAD_BYTES_MAX:
        raise FrameError(f"the length {length} exceeds the limit of {PAYLOAD_BYTES_MAX} bytes")
    if length > room - OVERHEAD:
        raise FrameError(f"the frame needs {length + OVERHEAD} bytes, {room} are left")
    end = offset + HEADER.size + length
    found, stored = zlib.crc32(data[offset:end]), TRAILER.unpack_from(data, end)[0]
    if found != stored:
        raise FrameError(f"the checksum is {found:08x}, the frame says {stored:08x}")
    if op not in _OPS:
        raise FrameError(f"the op {op} is unknown; a newer version may have written it")
    return Frame(_OPS[op], offset, data[offset + HEADER.size : end])


def find_commits(data: memoryview, offset: int) -> Iterator[Frame]:
    """Every whole batch-commit frame at or after the offset, wherever it lies.

    This is what tells damage in the middle of a log from a write that a crash cut short.
    """
    raw = data.obj
    assert isinstance(raw, bytes)
    while (offset := raw.find(_COMMIT_START, offset)) >= 0:
        with suppress(FrameError):
            yield read_frame(data, offset)
        offset += 1
