"""What the registry answers to reads and writes, and the operations of a batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from agniregistry.types._records import Capacity, Instance, Key, Spec


@dataclass(frozen=True, slots=True)
class Header:
    """Where an answer comes from and which state it shows."""

    cluster_id: str = ""
    """The cluster's identity, as hexadecimal text."""
    partition: int = 0
    """The partition that answered."""
    revision: int = 0
    """The partition's revision at that moment."""
    term: int = 0
    """The Raft term of the partition."""
    age_ms: int = 0
    """The age of the state shown, in milliseconds; 0 unless the read was stale."""


@dataclass(frozen=True, slots=True)
class Registered:
    """Says that a record is durable."""

    key: Key
    """The record's key, with its defaults filled in."""
    revision: int
    """The record's revision; unchanged where the request changed nothing."""
    create_revision: int = 0
    """The revision at which it was created."""
    lease_id: int = 0
    """Its lease; 0 without a time to live."""
    ttl_ms: int = 0
    """The granted time to live, in milliseconds."""
    next_renewal_ms: int = 0
    """When to renew, in milliseconds from now; chosen by the server, with jitter."""
    created: bool = False
    """Whether it did not exist before."""
    incarnation: int = 0
    """The incarnation now stored."""
    header: Header = Header()
    """Where and at which revision."""


@dataclass(frozen=True, slots=True)
class Updated:
    """Says that a change is durable."""

    revision: int
    """The record's new revision."""
    header: Header = Header()
    """Where and at which revision."""


@dataclass(frozen=True, slots=True)
class Deregistered:
    """Says that a removal, or the draining before it, is durable."""

    existed: bool
    """Whether there was such a record."""
    revision: int = 0
    """The revision of the removal or of the draining; 0 when there was nothing to remove."""
    header: Header = Header()
    """Where and at which revision."""
    maybe_removed: bool = False
    """An earlier attempt whose answer was lost may have removed what did not exist now."""


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a list."""

    instances: tuple[Instance, ...] = ()
    """The records. Their order is stable over pages, but not by name."""
    next_page_token: str = ""
    """For the next page; empty on the last."""
    resume_token: bytes = b""
    """On the last page: a token to watch from exactly the state shown, without a gap."""
    headers: tuple[Header, ...] = ()
    """One for each partition that this page shows."""


@dataclass(frozen=True, slots=True)
class LeaseLoad:
    """What one lease's owner has left to give."""

    lease_id: int
    """The lease."""
    free: Capacity
    """What is free of its record's capacity."""


@dataclass(frozen=True, slots=True)
class Renewed:
    """What became of renewed leases."""

    renewed: int
    """How many were extended."""
    lost_lease_ids: tuple[int, ...] = ()
    """Those that are gone: their owners must register again."""
    next_renewal_ms: int = 0
    """When to renew next, in milliseconds from now; chosen by the server, with jitter."""


@dataclass(frozen=True, slots=True)
class RegisterOperation:
    """One registration of a batch; the fields are those of `Client.put`."""

    key: Key
    """Which record."""
    spec: Spec
    """What it says about itself."""
    ttl_ms: int = 0
    """Time to live in milliseconds, 1,000..86,400,000; 0 means no lease."""
    incarnation: int = 0
    """The owner's incarnation; 0 means "the one that is stored"."""
    expected_revision: int | None = None
    """Compare-and-set: the revision it must have; 0 means that it must not exist."""


@dataclass(frozen=True, slots=True)
class UpdateOperation:
    """One update of a batch; the fields are those of `Client.update`."""

    key: Key
    """Which record; it must exist."""
    spec: Spec
    """The new values."""
    update_mask: Sequence[str]
    """Which fields of the spec change, such as "capacity.cpu" or "labels"."""
    incarnation: int = 0
    """The owner's incarnation; 0 means "the one that is stored"."""
    expected_revision: int | None = None
    """Compare-and-set: the revision that the record must have."""


@dataclass(frozen=True, slots=True)
class DeregisterOperation:
    """One removal of a batch; the fields are those of `Client.deregister`."""

    key: Key
    """Which record."""
    incarnation: int = 0
    """The owner's incarnation; 0 means "the one that is stored"."""
    expected_revision: int | None = None
    """Compare-and-set: the revision that the record must have."""
    drain_ms: int = 0
    """Stay for this long as DRAINING before going, in milliseconds, 0..3,600,000."""
    successor: str = ""
    """While draining: the name of the record that takes over."""


BatchOperation = RegisterOperation | UpdateOperation | DeregisterOperation
"""One write of a batch."""
