"""The cluster as operators and smart clients see it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


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
    state_hash: str = ""
    """The hash of what is replicated, as of `applied_index`: the same on every replica that has
    applied as much."""
    is_suspect: bool = False
    """Whether another replica holds something else, and this one may be wrong."""


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
    trust_sha256: str = ""
    """SHA-256 of the trust bundle that the node uses, in hexadecimal; empty without TLS."""
    certificate_sha256: str = ""
    """SHA-256 of the node's certificate in DER, in hexadecimal; empty without TLS."""
    certificate_not_after_unix_ms: int = 0
    """When the node's certificate ends; 0 without TLS."""


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


class MemberState(Enum):
    """Where a member is in its life."""

    ACTIVE = "active"
    """It takes part."""
    DRAINING = "draining"
    """It takes part but leads nothing and is given nothing new."""
    LEFT = "left"
    """It was removed or replaced."""


@dataclass(frozen=True, slots=True)
class ClusterMember:
    """A member in full."""

    node_id: int
    """Its identity, never given twice."""
    name: str = ""
    """What its configuration calls it."""
    client_address: str = ""
    """host:port for clients."""
    peer_address: str = ""
    """host:port for other nodes."""
    region: str = ""
    """The region that it serves."""
    zone: str = ""
    """The zone it runs in; may be empty."""
    state: MemberState = MemberState.ACTIVE
    """Where it is in its life."""
    replaces: int = 0
    """The member whose place it took because that one's data was gone; 0 for nobody."""


@dataclass(frozen=True, slots=True)
class Placement:
    """Where one partition is wanted, and where it is."""

    partition: int
    """Which partition."""
    wanted: tuple[int, ...] = ()
    """The nodes that should hold it, the preferred leader first."""
    wanted_version: int = 0
    """Grows whenever `wanted` is set."""
    voters: tuple[int, ...] = ()
    """Who votes, as its leader last reported."""
    learners: tuple[int, ...] = ()
    """Who catches up, as its leader last reported."""
    leader_id: int = 0
    """Who leads, as far as the asked node could find out; 0 for nobody."""
    reached_version: int = 0
    """The newest `wanted_version` that its leader found to be reached; 0 when a node of an older
    version leads it or was asked."""

    @property
    def is_moving(self) -> bool:
        """Whether its replicas are on the way to where they are wanted, as far as is known."""
        is_told_of = not self.reached_version or self.reached_version >= self.wanted_version
        is_there = set(self.voters) == set(self.wanted) and not self.learners
        return not (is_told_of and is_there)


@dataclass(frozen=True, slots=True)
class ClusterMembers:
    """The members and the placement."""

    version: int = 0
    """Grows with every change of what follows."""
    author_epoch: int = 0
    """The highest epoch of an author that changed anything."""
    replication: int = 3
    """How many replicas a partition should have."""
    system_leader_id: int = 0
    """Who leads the group that keeps all this; 0 when unknown."""
    members: tuple[ClusterMember, ...] = ()
    """Everybody who ever joined."""
    placements: tuple[Placement, ...] = ()
    """All partitions in their order."""
    system_voters: tuple[int, ...] = ()
    """Who votes in the group that keeps all this, as the asked node knows it."""
