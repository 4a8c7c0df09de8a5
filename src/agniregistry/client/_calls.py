"""Each call of the API as a value: its path, its request's bytes, and how to read the answer.

Both clients send these; only the waiting differs between them. The bytes are made once, so that
a retry repeats exactly what was sent before.

All calls may be retried. Reads change nothing. A write repeated with the same key and
incarnation finds its own work done and answers success without a new revision; with
`expected_revision` a repeat is a no-op where the first one was stored. A renewal only extends.
So a lost answer is never a lost write, and a retry never a second one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from google.protobuf.message import DecodeError

from agniregistry import types as t
from agniregistry.api.v1 import cluster_pb2 as c
from agniregistry.api.v1 import registry_pb2 as r
from agniregistry.client import _convert as convert
from agniregistry.client._routes import Where
from agniregistry.errors import AgniError, InternalError, InvalidFieldError, error_for

REGISTRY = "/agniregistry.api.v1.RegistryService/"
CLUSTER = "/agniregistry.api.v1.ClusterService/"

T = TypeVar("T")

BatchResult = t.Registered | t.Updated | t.Deregistered | AgniError
"""The answer to one write of a batch: what the single call would return, or would raise."""


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One unary call, ready to be sent any number of times."""

    path: str
    """The gRPC path of the method."""
    request: bytes
    """The encoded request."""
    read: Callable[[bytes], T]
    """Turns the encoded answer into a value."""
    where: Where = Where.ANY
    """Which nodes it is for."""
    key: t.Key | None = None
    """The key whose partition it is about, if it is about one."""

    def answer(self, data: bytes) -> T:
        """The answer as a value; bytes that are no answer are a fault of the server."""
        try:
            return self.read(data)
        except DecodeError as error:
            raise InternalError(f"the answer to {self.path} can't be decoded") from error


def _register_request(operation: t.RegisterOperation) -> r.RegisterRequest:
    message = r.RegisterRequest(
        key=convert.key_to_wire(operation.key), spec=convert.spec_to_wire(operation.spec)
    )
    convert.put_field(message, "ttl_ms", operation.ttl_ms, "ttl_ms")
    convert.put_field(message, "incarnation", operation.incarnation, "incarnation")
    _put_expected(message, operation.expected_revision)
    return message


def _update_request(operation: t.UpdateOperation) -> r.UpdateRequest:
    message = r.UpdateRequest(
        key=convert.key_to_wire(operation.key), spec=convert.spec_to_wire(operation.spec)
    )
    message.update_mask.paths.extend(operation.update_mask)
    convert.put_field(message, "incarnation", operation.incarnation, "incarnation")
    _put_expected(message, operation.expected_revision)
    return message


def _deregister_request(operation: t.DeregisterOperation) -> r.DeregisterRequest:
    message = r.DeregisterRequest(key=convert.key_to_wire(operation.key))
    convert.put_field(message, "incarnation", operation.incarnation, "incarnation")
    convert.put_field(message, "drain_ms", operation.drain_ms, "drain_ms")
    convert.put_field(message, "successor", operation.successor, "successor")
    _put_expected(message, operation.expected_revision)
    return message


def _put_expected(
    message: r.RegisterRequest | r.UpdateRequest | r.DeregisterRequest, expected: int | None
) -> None:
    if expected is not None:
        convert.put_field(message, "expected_revision", expected, "expected_revision")


def _registered(message: r.RegisterResponse) -> t.Registered:
    return t.Registered(
        key=convert.key_from_wire(message.key),
        revision=message.revision,
        create_revision=message.create_revision,
        lease_id=message.lease_id,
        ttl_ms=message.ttl_ms,
        next_renewal_ms=message.next_renewal_ms,
        created=message.created,
        incarnation=message.incarnation,
        header=convert.header_from_wire(message.header),
    )


def _updated(message: r.UpdateResponse) -> t.Updated:
    return t.Updated(message.revision, convert.header_from_wire(message.header))


def _deregistered(message: r.DeregisterResponse) -> t.Deregistered:
    return t.Deregistered(
        message.existed, message.revision, convert.header_from_wire(message.header)
    )


def put(operation: t.RegisterOperation) -> Call[t.Registered]:
    """Register."""
    key = operation.key
    return Call(
        REGISTRY + "Register",
        _register_request(operation).SerializeToString(),
        lambda data: _registered(r.RegisterResponse.FromString(data)),
        Where.LEADER,
        key if key.name else t.Key(key.kind, operation.spec.domain, key.namespace),
    )


def update(operation: t.UpdateOperation) -> Call[t.Updated]:
    """Update."""
    return Call(
        REGISTRY + "Update",
        _update_request(operation).SerializeToString(),
        lambda data: _updated(r.UpdateResponse.FromString(data)),
        Where.LEADER,
        operation.key,
    )


def deregister(operation: t.DeregisterOperation) -> Call[t.Deregistered]:
    """Deregister."""
    return Call(
        REGISTRY + "Deregister",
        _deregister_request(operation).SerializeToString(),
        lambda data: _deregistered(r.DeregisterResponse.FromString(data)),
        Where.LEADER,
        operation.key,
    )


def batch(operations: Sequence[t.BatchOperation]) -> Call[tuple[BatchResult, ...]]:
    """Batch."""
    message = r.BatchRequest()
    for operation in operations:
        item = message.operations.add()
        if isinstance(operation, t.RegisterOperation):
            item.register.CopyFrom(_register_request(operation))
        elif isinstance(operation, t.UpdateOperation):
            item.update.CopyFrom(_update_request(operation))
        else:
            item.deregister.CopyFrom(_deregister_request(operation))
    return batch_call(message)


def batch_call(message: r.BatchRequest) -> Call[tuple[BatchResult, ...]]:
    """Batch, of writes that are put together already."""
    return Call(REGISTRY + "Batch", message.SerializeToString(), _read_batch)


def _read_batch(data: bytes) -> tuple[BatchResult, ...]:
    return tuple(_write_result(item) for item in r.BatchResponse.FromString(data).results)


def _write_result(item: r.WriteResult) -> BatchResult:
    match item.WhichOneof("result"):
        case "register":
            return _registered(item.register)
        case "update":
            return _updated(item.update)
        case "deregister":
            return _deregistered(item.deregister)
    failed = item.error
    return error_for(
        failed.reason,
        code_name(failed.code),
        failed.message,
        dict(failed.metadata),
        failed.retry_delay_ms or None,
    )


_CODE_NAMES = (
    "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND",
    "ALREADY_EXISTS", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED",
    "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
)  # fmt: skip


def code_name(number: int) -> str:
    """The name of a gRPC status code."""
    return _CODE_NAMES[number] if 0 <= number < len(_CODE_NAMES) else "UNKNOWN"


def code_number(name: str) -> int:
    """The number of a gRPC status code."""
    return _CODE_NAMES.index(name)


def _read_where(read: t.ReadOptions, otherwise: Where) -> Where:
    return Where.REPLICA if read.consistency is t.Consistency.STALE else otherwise


def get(key: t.Key, read: t.ReadOptions) -> Call[t.Instance]:
    """Get."""
    message = r.GetRequest(key=convert.key_to_wire(key), read=convert.read_to_wire(read))

    def decode(data: bytes) -> t.Instance:
        response = r.GetResponse.FromString(data)
        return convert.instance_from_wire(response.instance, response.header)

    where = _read_where(read, Where.LEADER)
    return Call(REGISTRY + "Get", message.SerializeToString(), decode, where, key)


def list_page(
    wanted: t.Filter, page_size: int, page_token: str, read: t.ReadOptions
) -> Call[t.Page]:
    """List."""
    message = r.ListRequest(filter=convert.filter_to_wire(wanted), read=convert.read_to_wire(read))
    convert.put_field(message, "page_size", page_size, "page_size")
    convert.put_field(message, "page_token", page_token, "page_token")

    def decode(data: bytes) -> t.Page:
        response = r.ListResponse.FromString(data)
        return t.Page(
            instances=tuple(convert.instance_from_wire(i) for i in response.instances),
            next_page_token=response.next_page_token,
            resume_token=response.resume_token,
            headers=tuple(convert.header_from_wire(h) for h in response.headers),
        )

    where = _read_where(read, Where.ANY)
    return Call(REGISTRY + "List", message.SerializeToString(), decode, where)


def renew_request(lease_ids: Sequence[int], loads: Sequence[t.LeaseLoad]) -> r.RenewRequest:
    """The packed renewal."""
    message = r.RenewRequest()
    try:
        message.lease_ids.extend(lease_ids)
    except (ValueError, TypeError) as error:
        raise InvalidFieldError(
            "lease_ids must be integers of 64 bits", field="lease_ids"
        ) from error
    for load in loads:
        item = message.loads.add()
        convert.put_field(item, "lease_id", load.lease_id, "loads.lease_id")
        item.free.CopyFrom(convert.capacity_to_wire(load.free, "loads.free"))
    return message


def renew(lease_ids: Sequence[int], loads: Sequence[t.LeaseLoad]) -> Call[t.Renewed]:
    """Renew."""

    def decode(data: bytes) -> t.Renewed:
        response = r.RenewResponse.FromString(data)
        return t.Renewed(response.renewed, tuple(response.lost_lease_ids), response.next_renewal_ms)

    return Call(REGISTRY + "Renew", renew_request(lease_ids, loads).SerializeToString(), decode)


def discover(
    wanted: t.Filter,
    region: str,
    limit: int,
    choices: int,
    explain: bool,
    explain_names: Sequence[str],
    read: t.ReadOptions,
) -> Call[t.Discovery]:
    """Discover."""
    message = r.DiscoverRequest(
        filter=convert.filter_to_wire(wanted), explain=explain, read=convert.read_to_wire(read)
    )
    convert.put_field(message, "region", region, "region")
    convert.put_field(message, "limit", limit, "limit")
    convert.put_field(message, "choices", choices, "choices")
    message.explain_names.extend(explain_names)
    where = _read_where(read, Where.ANY)
    return Call(REGISTRY + "Discover", message.SerializeToString(), _read_discovery, where)


EXCLUSIONS = {
    r.ExclusionReason.Value(f"EXCLUSION_REASON_{reason.name}"): reason
    for reason in t.ExclusionReason
}


def _read_discovery(data: bytes) -> t.Discovery:
    response = r.DiscoverResponse.FromString(data)
    return t.Discovery(
        candidates=tuple(
            t.Candidate(
                convert.instance_from_wire(item.instance),
                t.Score(
                    item.score.total,
                    item.score.region_match,
                    item.score.free_capacity,
                    item.score.freshness,
                ),
            )
            for item in response.candidates
        ),
        exclusions=tuple(
            t.Exclusion(
                convert.key_from_wire(item.key),
                EXCLUSIONS.get(item.reason, t.ExclusionReason.FILTER),
                item.detail,
            )
            for item in response.exclusions
        ),
        matched=response.matched,
        headers=tuple(convert.header_from_wire(h) for h in response.headers),
    )


def status() -> Call[t.ClusterStatus]:
    """Status."""
    request = c.StatusRequest().SerializeToString()
    return Call(CLUSTER + "Status", request, _read_status, Where.GIVEN)


def _read_status(data: bytes) -> t.ClusterStatus:
    response = c.StatusResponse.FromString(data)
    return t.ClusterStatus(
        cluster_id=response.cluster_id,
        node_id=response.node_id,
        version=response.version,
        build_profile=response.build_profile,
        uptime_ms=response.uptime_ms,
        writable=response.writable,
        message=response.message,
        partitions=tuple(
            t.PartitionStatus(
                partition=item.partition,
                term=item.term,
                leader_id=item.leader_id,
                commit_index=item.commit_index,
                applied_index=item.applied_index,
                revision=item.revision,
                records=item.records,
                leases=item.leases,
                snapshot_index=item.snapshot_index,
                suspect_domains=item.suspect_domains,
                state_hash=item.state_hash,
                is_suspect=item.is_suspect,
            )
            for item in response.partitions
        ),
        wal_bytes=response.wal_bytes,
        region=response.region,
        trust_sha256=response.trust_sha256,
        certificate_sha256=response.certificate_sha256,
        certificate_not_after_unix_ms=response.certificate_not_after_unix_ms,
    )


def routing() -> Call[t.RoutingTable]:
    """Routing."""

    def decode(data: bytes) -> t.RoutingTable:
        response = c.RoutingResponse.FromString(data)
        return t.RoutingTable(
            epoch=response.epoch,
            partition_count=response.partition_count,
            members=tuple(
                t.Member(item.node_id, item.client_address, item.zone) for item in response.members
            ),
            partitions=tuple(
                t.PartitionRoute(item.partition, tuple(item.replica_ids), item.leader_id)
                for item in response.partitions
            ),
        )

    return Call(CLUSTER + "Routing", c.RoutingRequest().SerializeToString(), decode)


def snapshot(partitions: Sequence[int]) -> Call[tuple[t.SnapshotTaken, ...]]:
    """Snapshot."""

    def decode(data: bytes) -> tuple[t.SnapshotTaken, ...]:
        return tuple(
            t.SnapshotTaken(
                partition=item.partition,
                index=item.index,
                revision=item.revision,
                records=item.records,
                bytes=item.bytes,
                file=item.file,
            )
            for item in c.SnapshotResponse.FromString(data).snapshots
        )

    message = c.SnapshotRequest()
    try:
        message.partitions.extend(partitions)
    except (ValueError, TypeError) as error:
        raise InvalidFieldError(
            "partitions must be numbers of partitions", field="partitions"
        ) from error
    return Call(CLUSTER + "Snapshot", message.SerializeToString(), decode, Where.GIVEN)


_MEMBER_STATES = {
    c.MEMBER_STATE_ACTIVE: t.MemberState.ACTIVE,
    c.MEMBER_STATE_DRAINING: t.MemberState.DRAINING,
    c.MEMBER_STATE_LEFT: t.MemberState.LEFT,
}


def members() -> Call[t.ClusterMembers]:
    """Members."""
    return Call(CLUSTER + "Members", c.MembersRequest().SerializeToString(), _read_members)


def _read_members(data: bytes) -> t.ClusterMembers:
    response = c.MembersResponse.FromString(data)
    return t.ClusterMembers(
        version=response.version,
        author_epoch=response.author_epoch,
        replication=response.replication,
        system_leader_id=response.system_leader_id,
        members=tuple(
            t.ClusterMember(
                node_id=item.node_id,
                name=item.name,
                client_address=item.client_address,
                peer_address=item.peer_address,
                region=item.region,
                zone=item.zone,
                state=_MEMBER_STATES.get(item.state, t.MemberState.ACTIVE),
                replaces=item.replaces,
            )
            for item in response.members
        ),
        placements=tuple(
            t.Placement(
                partition=item.partition,
                wanted=tuple(item.wanted),
                wanted_version=item.wanted_version,
                voters=tuple(item.voters),
                learners=tuple(item.learners),
                leader_id=item.leader_id,
                reached_version=item.reached_version,
            )
            for item in response.placements
        ),
        system_voters=tuple(response.system_voters),
    )


def _changed(data: bytes) -> int:
    return c.ClusterChanged.FromString(data).version


def change_member(node_id: int, action: str, author_epoch: int) -> Call[int]:
    """ChangeMember: drain, return or remove."""
    message = c.ChangeMemberRequest(
        node_id=node_id,
        action=c.ChangeMemberRequest.Action.Value(f"ACTION_{action.upper()}"),
        author_epoch=author_epoch,
    )
    return Call(CLUSTER + "ChangeMember", message.SerializeToString(), _changed)


def place(
    partition: int, node_ids: Sequence[int], expected_version: int | None, author_epoch: int
) -> Call[int]:
    """PlacePartition."""
    message = c.PlacePartitionRequest(
        partition=partition,
        node_ids=node_ids,
        expected_version=expected_version,
        author_epoch=author_epoch,
    )
    return Call(CLUSTER + "PlacePartition", message.SerializeToString(), _changed)


def transfer_leader(partition: int, node_id: int, author_epoch: int) -> Call[int]:
    """TransferLeader."""
    message = c.TransferLeaderRequest(
        partition=partition, node_id=node_id, author_epoch=author_epoch
    )
    return Call(CLUSTER + "TransferLeader", message.SerializeToString(), _changed)
