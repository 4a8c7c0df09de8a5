"""The figures of `cluster top`, from what the nodes tell: pure, so that tests need no cluster."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from agniregistry import types as t
from agniregistry.cli.exposition import Page, quantile, rate

READS = ("Get", "List", "Discover")
"""The calls that count as reads."""


@dataclass(frozen=True, slots=True)
class Look:
    """What one round of questions brought."""

    members: t.ClusterMembers
    """The cluster, as one of the nodes knows it."""
    pages: Mapping[int, Page]
    """The figures of those nodes that answered."""
    failures: Mapping[int, str]
    """Why others didn't."""


@dataclass(frozen=True, slots=True)
class NodeFigures:
    """How a node does. None stands where it can't be known."""

    node_id: int
    name: str
    state: str
    """active, draining, or unreachable: it did not answer."""
    zone: str
    ready: bool | None = None
    leaders: int | None = None
    """Partitions that it leads."""
    replicas: int | None = None
    """Partitions that it holds."""
    writes_per_s: float | None = None
    """Commands that it proposed as a leader."""
    renewals_per_s: float | None = None
    """Leases that it extended as a leader."""
    reads_per_s: float | None = None
    """Get, List and Discover that it answered, whoever leads."""
    forwarded_per_s: float | None = None
    """Requests that it carried to other nodes."""
    queue_depth: int | None = None
    """Requests that wait for its driver."""
    queue_p99_ms: float | None = None
    """How long they waited."""
    fsync_p99_ms: float | None = None
    """How long its disk took to make a batch durable."""
    expiry_lag_p99_ms: float | None = None
    """How late leases were found to have run out; None where none did."""
    lag_entries: int | None = None
    """Entries that it lacks in the partition where it lacks most, as the leaders know."""
    disk_free_bytes: int | None = None
    wal_bytes: int | None = None
    memory_bytes: int | None = None
    cpu_cores: float | None = None
    """Cores that it keeps busy."""
    watches: int | None = None
    connections: int | None = None
    error: str = ""
    """Why it is unreachable."""


@dataclass(frozen=True, slots=True)
class PartitionFigures:
    """How a partition does, as its leader tells."""

    partition: int
    leader_id: int
    """0 for nobody."""
    voters: tuple[int, ...]
    term: int | None = None
    revision: int | None = None
    records: int | None = None
    leases: int | None = None
    store_bytes: int | None = None
    """Estimated memory of its records, in bytes."""
    lag_entries: Mapping[int, int] | None = None
    """Log entries that each other replica lacks, by node."""
    silent: tuple[int, ...] = ()
    """Replicas of which the leader hasn't heard lately."""


def nodes(now: Look, before: Look | None) -> list[NodeFigures]:
    """The figures of every node that takes part."""
    lags = _lags(now.pages.values())
    figures = []
    for member in now.members.members:
        if member.state is t.MemberState.LEFT:
            continue
        page = now.pages.get(member.node_id)
        lag = lags.get(member.node_id)
        if page is None:
            figures.append(
                NodeFigures(
                    node_id=member.node_id,
                    name=member.name,
                    state="unreachable",
                    zone=member.zone,
                    lag_entries=lag,
                    error=now.failures.get(member.node_id, ""),
                )
            )
            continue
        earlier = before.pages.get(member.node_id) if before else None
        figures.append(_node(member, page, earlier, lag))
    return figures


def _node(member: t.ClusterMember, now: Page, before: Page | None, lag: int | None) -> NodeFigures:
    def total(name: str) -> int:
        return int(now.total(name))

    def p99_ms(name: str) -> float | None:
        value = quantile(name, 0.99, now, before) if before else None
        return None if value is None else value * 1_000

    reads = [rate("agni_rpc_seconds_count", now, before, method=method) for method in READS]
    known = [each for each in reads if each is not None]
    return NodeFigures(
        node_id=member.node_id,
        name=member.name,
        state=member.state.value,
        zone=member.zone,
        ready=now.total("agni_ready") > 0,
        leaders=total("agni_leader"),
        replicas=total("agni_replica"),
        writes_per_s=rate("agni_proposals_total", now, before),
        renewals_per_s=rate("agni_renewals_total", now, before),
        reads_per_s=sum(known) if known else None,
        forwarded_per_s=rate("agni_forwarded_total", now, before),
        queue_depth=total("agni_queue_depth"),
        queue_p99_ms=p99_ms("agni_queue_seconds"),
        fsync_p99_ms=p99_ms("agni_fsync_seconds"),
        expiry_lag_p99_ms=p99_ms("agni_expiry_lag_seconds"),
        lag_entries=lag,
        disk_free_bytes=total("agni_disk_free_bytes"),
        wal_bytes=total("agni_wal_bytes"),
        memory_bytes=total("process_resident_memory_bytes"),
        cpu_cores=rate("process_cpu_seconds_total", now, before),
        watches=total("agni_watches"),
        connections=total("agni_connections"),
    )


def partitions(now: Look) -> list[PartitionFigures]:
    """The figures of every partition."""
    return [_partition(now, placement) for placement in now.members.placements]


def _partition(now: Look, placement: t.Placement) -> PartitionFigures:
    label = str(placement.partition)
    leader_id = _leader(now, label) or placement.leader_id
    page = now.pages.get(leader_id)
    if page is None:
        return PartitionFigures(placement.partition, leader_id, placement.voters)

    def figure(name: str) -> int:
        return int(page.total(name, partition=label))

    lags = page.by("agni_replica_lag_entries", "node_id", partition=label)
    alive = page.by("agni_replica_alive", "node_id", partition=label)
    return PartitionFigures(
        partition=placement.partition,
        leader_id=leader_id,
        voters=placement.voters,
        term=figure("agni_term"),
        revision=figure("agni_revision"),
        records=figure("agni_records"),
        leases=figure("agni_leases"),
        store_bytes=figure("agni_store_bytes"),
        lag_entries={int(node): int(lag) for node, lag in lags.items()},
        silent=tuple(int(node) for node, heard in alive.items() if not heard),
    )


def _leader(now: Look, partition: str) -> int:
    """Who says that it leads, in the highest term; 0 for nobody. A deposed leader may still say
    so."""
    claims = [
        (page.total("agni_term", partition=partition), node_id)
        for node_id, page in now.pages.items()
        if page.total("agni_leader", partition=partition)
    ]
    return max(claims)[1] if claims else 0


def _lags(pages: Iterable[Page]) -> dict[int, int]:
    """What each node lacks most, by node."""
    worst: dict[int, int] = {}
    for page in pages:
        for labels, value in page.samples.get("agni_replica_lag_entries", ()):
            node_id = int(labels["node_id"])
            worst[node_id] = max(worst.get(node_id, 0), int(value))
    return worst
