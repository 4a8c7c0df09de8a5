"""The partition map as a client holds it: where a key lives, and who answers for it.

Pure and immutable, but for the leader that a refusal has named. What the map says is a hint and no
more: whoever is asked wrongly passes the request on, so an old map costs a hop and never a fault.
"""

from __future__ import annotations

from enum import Enum

from agniregistry import types as t
from agniregistry.client._xxh3 import BYTES_MAX, BYTES_MIN, xxh3_64

PARTITIONS_MAX = 1024
"""The most partitions that a registry has."""

_KINDS = {t.Kind.GATEWAY: b"\0\1\0", t.Kind.AGENT: b"\0\2\0"}
_NOWHERE = ("", "0.0.0.0", "[::]", "::")  # noqa: S104 - what is never connected to


class Where(Enum):
    """Which nodes a call is for."""

    GIVEN = "given"
    """One of the targets: the answer is about the node that gives it."""
    ANY = "any"
    """Any node; the targets come first."""
    LEADER = "leader"
    """Whoever leads the key's partition."""
    REPLICA = "replica"
    """Any node that holds the key's partition; without a key any node at all."""


class Routes:
    """The map as of one answer to Routing.

    Raises:
        ValueError: When it can't be used.
    """

    def __init__(self, table: t.RoutingTable) -> None:
        count = table.partition_count
        if not 1 <= count <= PARTITIONS_MAX or count & (count - 1):
            raise ValueError(f"partition_count must be a power of two in 1..{PARTITIONS_MAX}")
        self.epoch = table.epoch
        """The version of the members and the placement."""
        self._shift = 65 - count.bit_length()
        self._leaders = [0] * count
        self._replicas: list[tuple[int, ...]] = [()] * count
        for route in table.partitions:
            if route.partition < count:
                self._leaders[route.partition] = route.leader_id
                self._replicas[route.partition] = route.replica_ids
        self.members = {
            member.node_id: member
            for member in table.members
            if member.client_address.rpartition(":")[0] not in _NOWHERE
        }
        """The nodes that say where they are, by their identity."""
        self.is_whole = all(self._leaders)
        """Whether every partition has a leader."""

    @property
    def is_plural(self) -> bool:
        """Whether there is anything to choose from."""
        return len(self.members) > 1

    def partition_of(self, key: t.Key) -> int | None:
        """The partition of a key; None for one that no registry accepts."""
        kind = _KINDS.get(key.kind)
        if kind is None:
            return None
        namespace = key.namespace or "default"
        try:
            data = namespace.encode() + kind + key.name.encode()
        except UnicodeEncodeError:
            return None
        return xxh3_64(data) >> self._shift if BYTES_MIN <= len(data) <= BYTES_MAX else None

    def leader(self, partition: int) -> int:
        """Who leads it; 0 when unknown."""
        return self._leaders[partition]

    def replicas(self, partition: int) -> tuple[int, ...]:
        """Who holds it."""
        return self._replicas[partition]

    def set_leader(self, partition: int, node_id: int) -> None:
        """A refusal has said who leads it."""
        if partition < len(self._leaders):
            self._leaders[partition] = node_id
