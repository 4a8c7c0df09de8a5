"""What a record is, how it is addressed, how alive it is, and how records are selected."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agniregistry.types._answers import Header


class Kind(StrEnum):
    """What a record stands for."""

    GATEWAY = "gateway"
    """A public entry point: a domain, an address, a port and capacity."""
    AGENT = "agent"
    """A worker behind a gateway."""


class Status(StrEnum):
    """How alive a record is."""

    ALIVE = "alive"
    """Its lease is in time, or it has none."""
    SUSPECT = "suspect"
    """Its lease is overdue together with so many others of its region that the fault is likelier
    in between than in them: still listed, removed later."""
    DRAINING = "draining"
    """Its owner has said that it is about to go."""


class Consistency(StrEnum):
    """How fresh an answer has to be."""

    LINEARIZABLE = "linearizable"
    """Never older than anything completed before the request began. The default."""
    LEADER = "leader"
    """The leader's state, without a network round."""
    STALE = "stale"
    """Whatever the asked node has, with its age in the answer."""


@dataclass(frozen=True, slots=True)
class Key:
    """The identity of a record. The three parts together decide its partition."""

    kind: Kind
    """Gateway or agent."""
    name: str = ""
    """1..253 bytes of printable UTF-8; a gateway's defaults to its domain when registering."""
    namespace: str = "default"
    """1..253 bytes of printable UTF-8."""

    @classmethod
    def gateway(cls, name: str = "", namespace: str = "default") -> Key:
        """The key of a gateway; without a name it is registered under its domain."""
        return cls(Kind.GATEWAY, name, namespace)

    @classmethod
    def agent(cls, name: str, namespace: str = "default") -> Key:
        """The key of an agent."""
        return cls(Kind.AGENT, name, namespace)

    def __str__(self) -> str:
        return f"{self.namespace}/{self.kind.value}/{self.name}"


@dataclass(frozen=True, slots=True)
class Capacity:
    """An amount of each resource. Every value is finite and not negative."""

    cpu: float = 0.0
    """CPU, in cores."""
    bandwidth: float = 0.0
    """Network bandwidth, in Mbit/s."""
    memory: float = 0.0
    """Memory, in MiB."""
    storage: float = 0.0
    """Storage, in MiB."""


@dataclass(frozen=True, slots=True)
class Spec:
    """What an owner says about its record: the identity plane, which changes rarely."""

    region: str = ""
    """The region it serves or runs in, 1..63 bytes; must be given when registering."""
    ip: str = ""
    """IPv4 or IPv6 address in text form."""
    domain: str = ""
    """DNS name, at most 253 bytes."""
    port: int = 0
    """TCP port, 1..65535."""
    capacity: Capacity | None = None
    """What it has in total."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """Free text to select by: at most 64 pairs; a key has 1..63 bytes, a value 0..253."""
    owner: str = ""
    """Who is responsible for it, at most 253 bytes; may be empty."""
    gateway: str = ""
    """For an agent: the name of the gateway in front of it; may be empty."""
    public_key: bytes = b""
    """The key to talk to it privately, at most 4 KiB; opaque to the registry."""
    payload: bytes = b""
    """Bytes of the owner's own, at most 8 KiB; opaque to the registry and often sealed."""


@dataclass(frozen=True, slots=True)
class Draining:
    """Says that a record is about to go, so that nobody new is sent to it."""

    deadline_unix_ms: int
    """When it is removed by itself, Unix time in milliseconds."""
    successor: str = ""
    """The name of the record of the same kind that takes over; may be empty."""


@dataclass(frozen=True, slots=True)
class Record:
    """A registered record as it is stored. Every change makes a new one."""

    key: Key
    """Which record this is."""
    spec: Spec
    """What its owner said about it."""
    incarnation: int = 0
    """The owner's incarnation, which grows each time the owner starts again."""
    lease_id: int = 0
    """The lease that keeps it alive; 0 for a record that stays until it is deregistered."""
    ttl_ms: int = 0
    """The lease's time to live, in milliseconds; 0 without a lease."""
    create_revision: int = 0
    """The partition's revision at which the record was created."""
    revision: int = 0
    """The partition's revision of the newest change of this record."""
    version: int = 0
    """How often it has been written since it was created; 1 at first."""
    created_unix_ms: int = 0
    """When it was created, Unix time in milliseconds by the server's clock: for people only."""
    updated_unix_ms: int = 0
    """When it was last changed, Unix time in milliseconds, likewise for people only."""
    draining: Draining | None = None
    """Set while the record is draining."""


@dataclass(frozen=True, slots=True)
class Load:
    """What an owner last reported with a renewal."""

    free: Capacity
    """What is free of the record's capacity."""
    age_ms: int = 0
    """How long ago that was reported, in milliseconds."""


@dataclass(frozen=True, slots=True)
class Instance:
    """A record together with its liveness and load at the moment of the answer."""

    record: Record
    """The stored record."""
    status: Status = Status.ALIVE
    """How alive it is."""
    lease_remaining_ms: int | None = None
    """Time until its lease runs out, in milliseconds; None without a lease."""
    load: Load | None = None
    """What was last reported, if anything was."""
    header: Header | None = field(default=None, compare=False)
    """Where the answer came from; set by `get`, None inside lists."""

    @property
    def key(self) -> Key:
        """The record's key."""
        return self.record.key

    @property
    def spec(self) -> Spec:
        """What the record's owner said about it."""
        return self.record.spec


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """How to read."""

    consistency: Consistency | None = None
    """How fresh the answer has to be; None means the server's default, linearizable."""
    max_staleness_ms: int = 0
    """For stale reads: the oldest that is acceptable, in milliseconds; 0 means any age."""
    at_least: Mapping[int, int] = field(default_factory=dict)
    """For stale reads: the revision that each of these partitions must have reached at least.

    Whoever hands in the revisions of the headers that it has seen never sees a partition go back.
    """


@dataclass(frozen=True, slots=True)
class Filter:
    """Which records are meant. All that is given must hold; an empty filter means all."""

    kind: Kind | None = None
    """Only of this kind; None means both."""
    namespace: str = ""
    """Only in this namespace; empty means "default", "*" means all."""
    regions: tuple[str, ...] = ()
    """Only in one of these regions."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """Only with each of these labels; an empty value means "has the label"."""
    min_capacity: Capacity | None = None
    """Only with at least this total capacity."""
    min_free: Capacity | None = None
    """Only with at least this much free (total capacity where no load was reported)."""
    statuses: tuple[Status, ...] = ()
    """Only with one of these statuses."""
    name_prefix: str = ""
    """Only names that begin with this."""
    gateway: str = ""
    """Only agents behind this gateway."""
