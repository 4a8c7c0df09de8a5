"""The cluster as operators and smart clients see it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PartitionStatus:
    """How one partition does on the asked node."""

    partition: int
    """Which partition."""
    term: int = 0
    """The Raft term."""
    leader_id: int = 0
    """The node that leads; 0 when unknown."""
    commit_index: int = 0
    """The newest log index that is committed."""
    applied_index: int = 0
    """The newest log index that is applied."""
    revision: int = 0
    """The revision."""
    records: int = 0
    """How many records it holds."""
    leases: int = 0
    """How many of them have a lease."""
    snapshot_index: int = 0
    """The log index of the newest snapshot; 0 without one."""
    suspect_domains: int = 0
    """How many regions are being spared by the mass-expiry guard."""


@dataclass(frozen=True, slots=True)
class ClusterStatus:
    """How the asked node does."""

    cluster_id: str = ""
    """The cluster's identity."""
    node_id: int = 0
    """The node's identity in it."""
    version: str = ""
    """The software's version."""
    build_profile: str = ""
    """How it was compiled: "release" or "debug"."""
    uptime_ms: int = 0
    """Time since the start, in milliseconds."""
    writable: bool = True
    """Whether it accepts writes; False while its disk is full."""
    message: str = ""
    """Why it does not, for people."""
    partitions: tuple[PartitionStatus, ...] = ()
    """Its partitions."""
    wal_bytes: int = 0
    """Bytes of the write-ahead log on disk."""
    region: str = ""
    """The region that this cluster serves."""


@dataclass(frozen=True, slots=True)
class Member:
    """One node and how to reach it."""

    node_id: int
    """Its identity."""
    client_address: str = ""
    """host:port for clients."""
    zone: str = ""
    """The zone it runs in; may be empty."""


@dataclass(frozen=True, slots=True)
class PartitionRoute:
    """Where one partition lives."""

    partition: int
    """Which partition."""
    replica_ids: tuple[int, ...] = ()
    """The nodes that have a replica."""
    leader_id: int = 0
    """The one that leads; 0 when unknown."""


@dataclass(frozen=True, slots=True)
class RoutingTable:
    """How keys map to partitions, and partitions to nodes."""

    epoch: int = 0
    """Grows with every change of the table."""
    partition_count: int = 1
    """How many partitions there are: a power of two, 1..1024."""
    members: tuple[Member, ...] = ()
    """The nodes."""
    partitions: tuple[PartitionRoute, ...] = ()
    """The partitions."""


@dataclass(frozen=True, slots=True)
class SnapshotTaken:
    """One snapshot that is durable now."""

    partition: int
    """Of which partition."""
    index: int = 0
    """At which log index."""
    revision: int = 0
    """At which revision."""
    records: int = 0
    """How many records it holds."""
    bytes: int = 0
    """Its size on disk, in bytes."""
    file: str = ""
    """The file's name in the data directory."""
