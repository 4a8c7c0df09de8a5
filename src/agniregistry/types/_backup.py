"""What a backup's stream consists of."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class BackupBegin:
    """First: what the backup is of."""

    cluster_id: str
    """The cluster, as hexadecimal text."""
    partition_count: int
    """How many partitions the cluster has."""
    partitions: tuple[int, ...]
    """Those that follow, in this order."""
    region: str
    """The region that the cluster serves."""
    version: str
    """The version of the node that was asked."""


@dataclass(frozen=True, slots=True)
class BackupSection:
    """A partition's snapshot file begins.

    Another one of the same partition, before all bytes of the first have come, means that the
    node it came from was lost: what came of the first is void.
    """

    partition: int
    """Which partition."""
    index: int
    """The newest log index in it."""
    revision: int
    """The partition's revision."""
    records: int
    """How many records it holds."""
    bytes: int
    """How many bytes of data follow."""


@dataclass(frozen=True, slots=True)
class BackupData:
    """The next bytes of the partition's snapshot file."""

    data: bytes
    """The bytes."""


@dataclass(frozen=True, slots=True)
class BackupEnd:
    """Last: all has come."""

    partitions: int
    """How many partitions were sent."""
    bytes: int
    """How many bytes their files have."""


BackupPart = BackupBegin | BackupSection | BackupData | BackupEnd
"""What a backup yields, in this order."""
