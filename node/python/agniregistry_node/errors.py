"""What can go wrong with a node, and the exit code that tells a supervisor about it.

    AgniNodeError            code, message
    └── ConfigError          faults: every fault of the settings, not only the first

The codes of the engine and the server (CONFIG_INVALID, IDENTITY_INVALID, CORRUPT, …) come through
the boundary unchanged; those of Python (DATA_DIR_LOCKED, FORKED, STOPPED) join them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_CONFIG = 3
EXIT_LOCKED = 4
EXIT_DATA = 5
EXIT_SYSTEM = 6
EXIT_REMOVED = 7

EXIT_CODES: Mapping[str, int] = {
    "CONFIG_INVALID": EXIT_CONFIG,
    "IDENTITY_INVALID": EXIT_CONFIG,
    "IDENTITY_MISSING": EXIT_CONFIG,
    "DATA_DIR_LOCKED": EXIT_LOCKED,
    "DATA_DIRECTORY": EXIT_DATA,
    "CORRUPT": EXIT_DATA,
    "INCONSISTENT": EXIT_DATA,
    "IO": EXIT_SYSTEM,
    "LISTEN": EXIT_SYSTEM,
}


class AgniNodeError(Exception):
    """A node that can't start or go on: `code` is stable, `message` says what to do."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message

    def __str__(self) -> str:
        return self.message

    @property
    def exit_code(self) -> int:
        """What the process ends with: see docs/operations.md."""
        return EXIT_CODES.get(self.code, EXIT_FAILED)


class ConfigError(AgniNodeError):
    """Settings that can't be used; `faults` lists all that is wrong with them."""

    def __init__(self, faults: Sequence[str]) -> None:
        super().__init__("CONFIG_INVALID", "; ".join(faults))
        self.faults = tuple(faults)
