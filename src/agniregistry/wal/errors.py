"""What can be wrong with files on disk, always with the file, the offset, and what to do.

WalError
├── CorruptError   the bytes are not what was written
└── MissingError   there is no such file, or nothing that can read it
"""

from __future__ import annotations

from pathlib import Path


class WalError(Exception):
    """The root: whatever this package raises on purpose is one of these."""

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        """What is wrong."""
        self.remedy = remedy
        """What to do about it; may be empty."""


class CorruptError(WalError):
    """A file does not hold what was written to it."""

    def __init__(self, file: Path, offset: int, reason: str, remedy: str) -> None:
        super().__init__(f"{file} is corrupt at offset {offset}: {reason}", remedy)
        self.file = file
        """Which file."""
        self.offset = offset
        """Where in it, in bytes from its start."""
        self.reason = reason
        """What is wrong there."""


class MissingError(WalError):
    """There is nothing to read, or a library to read it with is not installed."""
