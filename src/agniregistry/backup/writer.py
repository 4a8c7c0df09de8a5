"""Writes an archive: into a file of another name, made durable, then given its own."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from agniregistry.backup.frames import MAGIC, START, VERSION, FrameKind, frame
from agniregistry.backup.intake import Intake, Manifest
from agniregistry.wal.errors import WalError


class ArchiveExistsError(WalError):
    """There is a file of that name already."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path} exists already", "choose another name, or --force to replace it")


class ArchiveWriter:
    """An archive on its way to the disk; nothing of it stays unless `finish` was reached."""

    def __init__(self, path: Path, *, force: bool = False) -> None:
        """Begins beside `path`; a file that is there already is refused without `force`."""
        self.path = path
        """Where the archive will be."""
        self.intake = Intake()
        """What has come so far."""
        self._force = force
        self._check_free()
        number, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        self._temporary = Path(name)
        self._file = os.fdopen(number, "wb")
        self._sha256 = hashlib.sha256()
        # Where the partition began that is being written, to go back there.
        self._mark = (0, self._sha256.copy())
        self._write(START.pack(MAGIC, VERSION))

    def begin(self, **about: Any) -> None:
        """As `Intake.begin`."""
        self._frame(FrameKind.BEGIN, _json(self.intake.begin(**about)))

    def section(self, **about: int) -> None:
        """As `Intake.section`: one that begins anew takes the place of what was written of it."""
        if self.intake.section(**about):
            offset, sha256 = self._mark
            self._file.seek(offset)
            self._file.truncate()
            self._sha256 = sha256.copy()
        self._mark = (self._file.tell(), self._sha256.copy())
        self._frame(FrameKind.SECTION, _json(about))

    def data(self, data: bytes) -> Iterator[bytes]:
        """As `Intake.data`; written once all records were taken."""
        yield from self.intake.data(data)
        self._frame(FrameKind.DATA, data)

    def finish(self) -> Manifest:
        """Writes the end, makes the file durable and gives it its name."""
        manifest = self.intake.end()
        self._frame(FrameKind.MANIFEST, _json(manifest.plain()))
        self._file.write(self._sha256.digest())
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._check_free()
        self._temporary.replace(self.path)
        folder = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        return manifest

    def discard(self) -> None:
        """Removes what was written; does nothing after `finish`."""
        self._file.close()
        self._temporary.unlink(missing_ok=True)

    def __enter__(self) -> ArchiveWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.discard()

    def _check_free(self) -> None:
        if not self._force and self.path.exists():
            raise ArchiveExistsError(self.path)

    def _frame(self, kind: FrameKind, payload: bytes) -> None:
        self._write(frame(kind, payload))

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self._sha256.update(data)


def _json(data: object) -> bytes:
    return json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode()
