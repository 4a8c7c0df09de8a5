"""Reads and verifies archives. Damage is named by file and offset before anything is used."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from agniregistry.backup.frames import (
    CRC,
    DIGEST_BYTES,
    HEAD,
    MAGIC,
    PAYLOAD_BYTES_MAX,
    START,
    VERSION,
    FrameKind,
)
from agniregistry.backup.intake import Intake, Manifest, SourceError
from agniregistry.wal.errors import CorruptError

REMEDY = "nothing was restored from it: use another copy of this archive, or an older one"

Advance = Callable[[int], None]
"""Told how many bytes were read since the last time."""


def _ignore(_: int) -> None:
    return


class ArchiveReader:
    """Reads one archive. Its file stays open: what is verified is what is read."""

    def __init__(self, path: Path) -> None:
        """Opens it; raises OSError where that fails."""
        self.path = path
        """The file."""
        self._file: BinaryIO = path.open("rb")
        self.file_bytes = path.stat().st_size
        """The file's size."""

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def __enter__(self) -> ArchiveReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def verify(self, advance: Advance = _ignore) -> Manifest:
        """Reads all of it and checks everything; raises CorruptError at the first damage."""
        for _ in self._read(advance):
            pass
        return self._manifest

    def records(self, advance: Advance = _ignore) -> Iterator[bytes]:
        """The encoded agniregistry.api.v1.Records; verify first. Checks everything again."""
        return self._read(advance)

    def _read(self, advance: Advance) -> Iterator[bytes]:
        intake = Intake()
        named: Manifest | None = None
        for offset, kind, payload in self._frames(advance):
            try:
                if kind is FrameKind.DATA:
                    yield from intake.data(payload)
                elif kind is FrameKind.BEGIN:
                    about = _object(payload)
                    intake.begin(**{**about, "partitions": tuple(about["partitions"])})
                elif kind is FrameKind.SECTION:
                    if intake.section(**_object(payload)):
                        raise SourceError("a partition is cut short")
                else:
                    named = Manifest.of_plain(_object(payload))
                    if named != intake.end():
                        raise SourceError("the manifest is not that of what came before it")
            except (SourceError, TypeError, KeyError, ValueError) as error:
                raise self._corrupt(offset, str(error) or type(error).__name__) from error
        if named is None:
            raise self._corrupt(self.file_bytes, "the manifest is missing")
        self._manifest = named

    def _frames(self, advance: Advance) -> Iterator[tuple[int, FrameKind, bytes]]:
        self._file.seek(0)
        start = self._file.read(START.size)
        if len(start) < START.size or not start.startswith(MAGIC):
            raise self._corrupt(0, "it does not begin like a backup archive, or is cut short")
        version = START.unpack(start)[1]
        if version != VERSION:
            raise self._corrupt(8, f"its version is {version}, this reader knows {VERSION}")
        sha256, offset = hashlib.sha256(start), START.size
        kind = None
        while kind is not FrameKind.MANIFEST:
            kind, payload, taken = self._frame(offset)
            sha256.update(taken)
            yield offset, kind, payload
            offset += len(taken)
            advance(len(taken))
        digest = self._file.read(DIGEST_BYTES + 1)
        if len(digest) < DIGEST_BYTES:
            raise self._corrupt(offset, "the checksum of the whole file is cut short")
        if len(digest) > DIGEST_BYTES:
            raise self._corrupt(offset + DIGEST_BYTES, "bytes follow after the end")
        if digest != sha256.digest():
            raise self._corrupt(offset, "the checksum of the whole file is wrong")

    def _frame(self, offset: int) -> tuple[FrameKind, bytes, bytes]:
        head = self._file.read(HEAD.size)
        if len(head) < HEAD.size:
            raise self._corrupt(offset, "it is cut short")
        number, length = HEAD.unpack(head)
        if length > PAYLOAD_BYTES_MAX:
            raise self._corrupt(offset, f"a frame's length is above {PAYLOAD_BYTES_MAX} bytes")
        rest = self._file.read(length + CRC.size)
        if len(rest) < length + CRC.size:
            raise self._corrupt(offset, "it is cut short in this frame")
        payload = rest[:length]
        if zlib.crc32(payload, zlib.crc32(head)) != CRC.unpack(rest[length:])[0]:
            raise self._corrupt(offset, "a frame's checksum is wrong")
        try:
            return FrameKind(number), payload, head + rest
        except ValueError as error:
            raise self._corrupt(offset, f"frame kind {number} is unknown") from error

    def _corrupt(self, offset: int, reason: str) -> CorruptError:
        return CorruptError(self.path, offset, reason, REMEDY)


def _object(payload: bytes) -> dict[str, Any]:
    found = json.loads(payload)
    if not isinstance(found, dict):
        raise SourceError("a JSON object was expected")
    return found
