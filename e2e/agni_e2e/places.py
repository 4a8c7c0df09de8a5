"""Where the platform keeps things: one git-ignored folder, named once."""

from __future__ import annotations

import os
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
SOURCES = REPOSITORY / "e2e" / "cluster"
IMAGES = REPOSITORY / "build" / "images"
NODE_IMAGE, OPERATOR_IMAGE = IMAGES / "node.tar", IMAGES / "operator.tar"
"""What `make images` makes."""


def cache() -> Path:
    """The folder of everything that is built or written here (`E2E_CACHE` moves it)."""
    return Path(os.environ.get("E2E_CACHE") or REPOSITORY / "build" / "e2e").resolve()


def binaries() -> Path:
    """Built programs, one folder for each content of their sources."""
    return cache() / "bin"


def go_folder() -> Path:
    """Go's own caches while something is built."""
    return cache() / "go"


def runs() -> Path:
    """One folder for each running cluster."""
    return cache() / "run"


def logs() -> Path:
    """The logs of the last few clusters."""
    return cache() / "logs"
