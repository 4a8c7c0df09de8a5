"""Between wire messages and `agniregistry.types`: the one place where both are known.

Values that a wire field cannot hold (a negative port, a lone surrogate) are refused here with
the same error that the server gives for a bad value, so that callers see one kind of refusal.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from google.protobuf.message import Message

from agniregistry import types as t
from agniregistry.api.v1 import registry_pb2 as r
from agniregistry.api.v1 import types_pb2 as p
from agniregistry.errors import InvalidFieldError

KINDS: Mapping[t.Kind, p.Kind.ValueType] = {
    t.Kind.GATEWAY: p.KIND_GATEWAY,
    t.Kind.AGENT: p.KIND_AGENT,
}
STATUSES: Mapping[t.Status, p.Status.ValueType] = {
    t.Status.ALIVE: p.STATUS_ALIVE,
    t.Status.SUSPECT: p.STATUS_SUSPECT,
    t.Status.DRAINING: p.STATUS_DRAINING,
}
CONSISTENCIES: Mapping[t.Consistency, p.Consistency.ValueType] = {
    t.Consistency.LINEARIZABLE: p.CONSISTENCY_LINEARIZABLE,
    t.Consistency.LEADER: p.CONSISTENCY_LEADER,
    t.Consistency.STALE: p.CONSISTENCY_STALE,
}
EVENT_TYPES: Mapping[t.EventType, r.EventType.ValueType] = {
    t.EventType.PUT: r.EVENT_TYPE_PUT,
    t.EventType.DEREGISTERED: r.EVENT_TYPE_DEREGISTERED,
    t.EventType.EXPIRED: r.EVENT_TYPE_EXPIRED,
    t.EventType.REMOVED: r.EVENT_TYPE_REMOVED,
}
_KINDS_BACK = {wire: kind for kind, wire in KINDS.items()}
_STATUSES_BACK = {wire: status for status, wire in STATUSES.items()}
_EVENT_TYPES_BACK = {wire: event for event, wire in EVENT_TYPES.items()}


def put_field(message: Message, name: str, value: Any, field: str) -> None:
    """Sets a scalar, or refuses it by the name under which the caller knows it."""
    try:
        setattr(message, name, value)
    except (ValueError, TypeError) as error:
        raise InvalidFieldError(
            f"{field} does not accept {value!r}; give a value of its type and range", field=field
        ) from error


def _put_map(target: Any, values: Mapping[str, str], field: str) -> None:
    try:
        for name, value in values.items():
            target[name] = value
    except (ValueError, TypeError, AttributeError) as error:
        raise InvalidFieldError(f"{field} must map text to text", field=field) from error


def key_to_wire(key: t.Key) -> p.Key:
    """A key; an unknown kind stays unspecified, for the server to refuse."""
    message = p.Key(kind=KINDS.get(key.kind, p.KIND_UNSPECIFIED))
    put_field(message, "namespace", key.namespace, "key.namespace")
    put_field(message, "name", key.name, "key.name")
    return message


def key_from_wire(message: p.Key) -> t.Key:
    """A key as the server names it."""
    return t.Key(
        _KINDS_BACK.get(message.kind, t.Kind.GATEWAY), message.name, message.namespace or "default"
    )


def capacity_to_wire(capacity: t.Capacity, field: str = "spec.capacity") -> p.Capacity:
    """An amount of each resource."""
    message = p.Capacity()
    for name in ("cpu", "bandwidth", "memory", "storage"):
        put_field(message, name, getattr(capacity, name), f"{field}.{name}")
    return message


def capacity_from_wire(message: p.Capacity) -> t.Capacity:
    """An amount of each resource."""
    return t.Capacity(message.cpu, message.bandwidth, message.memory, message.storage)


def spec_to_wire(spec: t.Spec) -> p.Spec:
    """What an owner says."""
    message = p.Spec()
    for name in ("region", "ip", "domain", "port", "owner", "gateway", "public_key", "payload"):
        put_field(message, name, getattr(spec, name), f"spec.{name}")
    if spec.capacity is not None:
        message.capacity.CopyFrom(capacity_to_wire(spec.capacity))
    _put_map(message.labels, spec.labels, "spec.labels")
    return message


def spec_from_wire(message: p.Spec) -> t.Spec:
    """What an owner said."""
    return t.Spec(
        region=message.region,
        ip=message.ip,
        domain=message.domain,
        port=message.port,
        capacity=capacity_from_wire(message.capacity) if message.HasField("capacity") else None,
        labels=dict(message.labels),
        owner=message.owner,
        gateway=message.gateway,
        public_key=message.public_key,
        payload=message.payload,
    )


def record_to_wire(record: t.Record) -> p.Record:
    """A stored record (only a server needs this)."""
    message = p.Record(
        key=key_to_wire(record.key),
        spec=spec_to_wire(record.spec),
        incarnation=record.incarnation,
        lease_id=record.lease_id,
        ttl_ms=record.ttl_ms,
        create_revision=record.create_revision,
        revision=record.revision,
        version=record.version,
        created_unix_ms=record.created_unix_ms,
        updated_unix_ms=record.updated_unix_ms,
    )
    if record.draining is not None:
        message.draining.deadline_unix_ms = record.draining.deadline_unix_ms
        message.draining.successor = record.draining.successor
    return message


def record_from_wire(message: p.Record) -> t.Record:
    """A stored record."""
    draining = None
    if message.HasField("draining"):
        draining = t.Draining(message.draining.deadline_unix_ms, message.draining.successor)
    return t.Record(
        key=key_from_wire(message.key),
        spec=spec_from_wire(message.spec),
        incarnation=message.incarnation,
        lease_id=message.lease_id,
        ttl_ms=message.ttl_ms,
        create_revision=message.create_revision,
        revision=message.revision,
        version=message.version,
        created_unix_ms=message.created_unix_ms,
        updated_unix_ms=message.updated_unix_ms,
        draining=draining,
    )


def instance_to_wire(instance: t.Instance) -> p.Instance:
    """A record with its liveness (only a server needs this)."""
    message = p.Instance(record=record_to_wire(instance.record), status=STATUSES[instance.status])
    if instance.lease_remaining_ms is not None:
        message.lease_remaining_ms = instance.lease_remaining_ms
    if instance.load is not None:
        message.load.free.CopyFrom(capacity_to_wire(instance.load.free))
        message.load.age_ms = instance.load.age_ms
    return message


def instance_from_wire(message: p.Instance, header: p.ResponseHeader | None = None) -> t.Instance:
    """A record with its liveness and load."""
    load = None
    if message.HasField("load"):
        load = t.Load(capacity_from_wire(message.load.free), message.load.age_ms)
    has_lease = message.HasField("lease_remaining_ms")
    return t.Instance(
        record=record_from_wire(message.record),
        status=_STATUSES_BACK.get(message.status, t.Status.ALIVE),
        lease_remaining_ms=message.lease_remaining_ms if has_lease else None,
        load=load,
        header=header_from_wire(header) if header is not None else None,
    )


def header_to_wire(header: t.Header) -> p.ResponseHeader:
    """Where an answer comes from (only a server needs this)."""
    return p.ResponseHeader(
        cluster_id=header.cluster_id,
        partition=header.partition,
        revision=header.revision,
        term=header.term,
        age_ms=header.age_ms,
    )


def header_from_wire(message: p.ResponseHeader) -> t.Header:
    """Where an answer comes from."""
    return t.Header(
        message.cluster_id, message.partition, message.revision, message.term, message.age_ms
    )


def read_to_wire(read: t.ReadOptions) -> p.ReadOptions:
    """How to read."""
    message = p.ReadOptions()
    if read.consistency is not None:
        message.consistency = CONSISTENCIES.get(read.consistency, p.CONSISTENCY_UNSPECIFIED)
    put_field(message, "max_staleness_ms", read.max_staleness_ms, "read.max_staleness_ms")
    try:
        message.at_least.update(read.at_least)
    except (ValueError, TypeError) as error:
        raise InvalidFieldError(
            f"read.at_least must have partitions and revisions: {error}",
            metadata={"field": "read.at_least"},
        ) from error
    return message


def read_from_wire(message: p.ReadOptions) -> t.ReadOptions:
    """How to read (only a server needs this)."""
    back = {wire: consistency for consistency, wire in CONSISTENCIES.items()}
    return t.ReadOptions(
        back.get(message.consistency), message.max_staleness_ms, dict(message.at_least)
    )


def filter_to_wire(wanted: t.Filter) -> p.Filter:
    """Which records are meant."""
    message = p.Filter()
    if wanted.kind is not None:
        message.kind = KINDS.get(wanted.kind, p.KIND_UNSPECIFIED)
    for name in ("namespace", "name_prefix", "gateway"):
        put_field(message, name, getattr(wanted, name), f"filter.{name}")
    try:
        message.regions.extend(wanted.regions)
    except (ValueError, TypeError) as error:
        raise InvalidFieldError("filter.regions must be texts", field="filter.regions") from error
    _put_map(message.labels, wanted.labels, "filter.labels")
    if wanted.min_capacity is not None:
        message.min_capacity.CopyFrom(capacity_to_wire(wanted.min_capacity, "filter.min_capacity"))
    if wanted.min_free is not None:
        message.min_free.CopyFrom(capacity_to_wire(wanted.min_free, "filter.min_free"))
    message.statuses.extend(STATUSES[status] for status in wanted.statuses)
    return message


def filter_from_wire(message: p.Filter) -> t.Filter:
    """Which records are meant (only a server needs this)."""
    has = message.HasField
    return t.Filter(
        kind=_KINDS_BACK.get(message.kind),
        namespace=message.namespace,
        regions=tuple(message.regions),
        labels=dict(message.labels),
        min_capacity=capacity_from_wire(message.min_capacity) if has("min_capacity") else None,
        min_free=capacity_from_wire(message.min_free) if has("min_free") else None,
        statuses=tuple(_STATUSES_BACK[s] for s in message.statuses if s in _STATUSES_BACK),
        name_prefix=message.name_prefix,
        gateway=message.gateway,
    )


def change_to_wire(change: t.Change) -> r.Event:
    """A change (only a server needs this)."""
    message = r.Event(
        type=EVENT_TYPES[change.type],
        revision=change.revision,
        partition=change.partition,
        key=key_to_wire(change.key),
        created=change.created,
    )
    if change.record is not None:
        message.record.CopyFrom(record_to_wire(change.record))
    if change.previous is not None:
        message.previous.CopyFrom(record_to_wire(change.previous))
    return message


def change_from_wire(message: r.Event, live: bool) -> t.Change:
    """A change."""
    return t.Change(
        type=_EVENT_TYPES_BACK.get(message.type, t.EventType.PUT),
        key=key_from_wire(message.key),
        revision=message.revision,
        partition=message.partition,
        record=record_from_wire(message.record) if message.HasField("record") else None,
        previous=record_from_wire(message.previous) if message.HasField("previous") else None,
        created=message.created,
        live=live,
    )
