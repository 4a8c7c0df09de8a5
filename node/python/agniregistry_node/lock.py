"""One node to a data folder: two would write over each other's log.

The lock is the kernel's (flock), so it is gone with the process however that ends; the file's
text only tells people whom to look for.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from types import TracebackType
from typing import Self

from agniregistry_node.errors import AgniNodeError

LOCK_FILE = "LOCK"


class DataDirLock:
    """Holds a data folder for as long as the `with` block runs; makes the folder first."""

    def __init__(self, data_dir: str | Path) -> None:
        self.path = Path(data_dir) / LOCK_FILE
        self._descriptor: int | None = None

    def __enter__(self) -> Self:
        """Takes the lock.

        Raises:
            AgniNodeError: DATA_DIR_LOCKED if another node holds it, IO if it can't be made.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            descriptor = os.open(self.path, flags, 0o644)
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            message = f"data_dir {self.path.parent} can't be used: {reason}; choose another"
            raise AgniNodeError("IO", message) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip()
            os.close(descriptor)
            message = (
                f"data_dir {self.path.parent} is in use by process {holder or 'unknown'}; "
                "stop that node or choose another data_dir"
            )
            raise AgniNodeError("DATA_DIR_LOCKED", message) from error
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode("ascii"), 0)
        self._descriptor = descriptor
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Gives the folder up. The file stays: removing it would race with the next holder."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
