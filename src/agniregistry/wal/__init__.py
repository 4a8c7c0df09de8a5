"""Reads a node's files without the node: the write-ahead log and snapshots.

Written from docs/formats/ alone, with `struct` and `zlib`, and shares no code with the engine:
so it is a second opinion on what is on disk, works while no engine can start, and shows that
the formats are described well enough for anybody to read them.
"""

from agniregistry.wal.errors import CorruptError, MissingError, WalError
from agniregistry.wal.frame import Frame, Op
from agniregistry.wal.log import Batch, Entry, LogReader, Tail, find_segments
from agniregistry.wal.records import Command, WalRecord
from agniregistry.wal.snapshot import SnapshotReader, find_snapshots

__all__ = [
    "Batch",
    "Command",
    "CorruptError",
    "Entry",
    "Frame",
    "LogReader",
    "MissingError",
    "Op",
    "SnapshotReader",
    "Tail",
    "WalError",
    "WalRecord",
    "find_segments",
    "find_snapshots",
]
