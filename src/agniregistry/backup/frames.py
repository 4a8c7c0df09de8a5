"""The frames of an archive, as docs/formats/backup.md has them."""

from __future__ import annotations

import struct
import zlib
from enum import IntEnum

MAGIC = b"AGNIBKUP"
VERSION = 1
START = struct.Struct(">8sI")
HEAD = struct.Struct(">BI")
CRC = struct.Struct(">I")
DIGEST_BYTES = 32
"""The file ends with the SHA-256 of everything before."""
PAYLOAD_BYTES_MAX = 8 * 1024 * 1024
"""No frame is longer: a larger length is damage. The longest is the manifest of 1,024 partitions;
a node's pieces are of 256 KiB."""


class FrameKind(IntEnum):
    """What a frame holds."""

    BEGIN = 1
    """JSON: what the backup is of."""
    SECTION = 2
    """JSON: a partition's snapshot file begins."""
    DATA = 3
    """Bytes of that file."""
    MANIFEST = 4
    """JSON: what there was in all; the last frame."""


def frame(kind: FrameKind, payload: bytes) -> bytes:
    """Kind, length, payload, and the CRC-32 of all that."""
    body = HEAD.pack(kind, len(payload)) + payload
    return body + CRC.pack(zlib.crc32(body))
