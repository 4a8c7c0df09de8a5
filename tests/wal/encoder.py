"""Writes logs and snapshots by their description, independently of engine and reader.

Deliberately naive: it shares no code with what it tests.
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

CLUSTER_ID = bytes(range(16))
SALT = 0x0102030405060708
NODE_ID = 7


def varint(number: int) -> bytes:
    """A protobuf varint."""
    out = b""
    while number > 0x7F:
        out += bytes([number & 0x7F | 0x80])
        number >>= 7
    return out + bytes([number])


def number_field(field: int, value: int) -> bytes:
    """A varint field."""
    return varint(field << 3) + varint(value) if value else b""


def bytes_field(field: int, value: bytes) -> bytes:
    """A counted field."""
    return varint(field << 3 | 2) + varint(len(value)) + value


def key(name: str, kind: int = 1, namespace: str = "default") -> bytes:
    """An api.v1.Key."""
    return (
        bytes_field(1, namespace.encode()) + number_field(2, kind) + bytes_field(3, name.encode())
    )


def put(name: str, spec: bytes = b"", ttl_ms: int = 0) -> bytes:
    """A Command with a Put."""
    inner = bytes_field(1, key(name)) + bytes_field(2, spec) + number_field(3, ttl_ms)
    return bytes_field(1, inner) + number_field(6, 1_700_000_000_000)


def frame(op: int, payload: bytes) -> bytes:
    """A frame of the log."""
    body = struct.pack(">HBBI", 0xCAFE, 1, op, len(payload)) + payload
    return body + struct.pack(">I", zlib.crc32(body))


def entry(partition: int, term: int, index: int, op: int, data: bytes) -> bytes:
    """An entry's frame."""
    record = number_field(1, partition) + number_field(2, term) + number_field(3, index)
    return frame(op, record + bytes_field(4, data))


def hard_state(partition: int, term: int, vote: int, commit: int) -> bytes:
    """A hard state's frame."""
    inner = number_field(1, term) + number_field(2, vote) + number_field(3, commit)
    return frame(16, number_field(1, partition) + bytes_field(5, inner))


def batch(sequence: int, *frames: bytes) -> bytes:
    """Frames with the commit that ends them."""
    body = b"".join(frames)
    inner = number_field(1, sequence) + number_field(2, len(body))
    inner += varint(3 << 3 | 5) + struct.pack("<I", zlib.crc32(SALT.to_bytes(8, "big") + body))
    return body + frame(32, bytes_field(6, inner))


def header(segment: int, previous_sequence: int = 0, node_id: int = NODE_ID) -> bytes:
    """A segment's first frame."""
    inner = number_field(1, segment) + number_field(2, node_id) + bytes_field(3, CLUSTER_ID)
    inner += number_field(4, previous_sequence) + varint(5 << 3 | 1) + struct.pack("<Q", SALT)
    return frame(33, bytes_field(7, inner))


def write_segment(folder: Path, number: int, content: bytes, zeros: int = 0) -> Path:
    """A segment file, with room set aside behind it."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{number:020d}.wal"
    path.write_bytes(content + bytes(zeros))
    return path


def block(kind: int, plain: bytes) -> bytes:
    """A block of a snapshot."""
    import zstandard

    packed = zstandard.ZstdCompressor(level=1).compress(plain)
    body = struct.pack(">BII", kind, len(packed), len(plain)) + packed
    return body + struct.pack(">I", zlib.crc32(body))


def snapshot(names: list[str], partition: int = 3, index: int = 42) -> bytes:
    """A snapshot file with a record of each name and one tombstone."""
    head = bytes_field(1, CLUSTER_ID) + number_field(2, partition) + number_field(3, index)
    head += number_field(4, 2) + number_field(5, 99) + bytes_field(7, varint(7))
    records = b"".join(
        bytes_field(1, number_field(1, slot) + bytes_field(2, bytes_field(1, key(name))))
        for slot, name in enumerate(names)
    )
    tombstone = bytes_field(2, number_field(1, 98) + bytes_field(2, key("gone")))
    footer = number_field(1, len(names)) + number_field(2, 1)
    body = b"AGNISNAP" + struct.pack(">I", 1)
    body += block(1, head) + block(2, records + tombstone) + block(3, footer)
    return body + struct.pack(">I", zlib.crc32(body))
