"""The registry's JSON and the SDK's types, for the contract tests over HTTP: both directions."""

from __future__ import annotations

import base64
import re
from typing import Any

from agniregistry import errors
from agniregistry import types as t

OWN_NAMES = {"ip": "gateway_ip", "domain": "gateway_domain", "port": "gateway_port"}
FIELDS = {
    "gateway_ip": "spec.ip",
    "gateway_domain": "spec.domain",
    "gateway_port": "spec.port",
    "port": "spec.port",
    "kind": "key.kind",
}


def encode(data: bytes) -> str:
    """Bytes of a record, as JSON has them."""
    return base64.b64encode(data).decode()


def token_text(token: bytes) -> str:
    """A resume token, as addresses have it."""
    return base64.urlsafe_b64encode(token).decode().rstrip("=")


def token_bytes(text: str) -> bytes:
    """A resume token, as `Client` has it."""
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def spec_body(kind: str, spec: t.Spec) -> dict[str, Any]:
    """A spec's fields, flat; a gateway's address under its own names."""
    given: dict[str, Any] = {
        "region": spec.region,
        "ip": spec.ip,
        "domain": spec.domain,
        "owner": spec.owner,
        "gateway": spec.gateway,
        "labels": dict(spec.labels),
        "public_key": encode(spec.public_key),
        "payload": encode(spec.payload),
    }
    body = {name: value for name, value in given.items() if value}
    if spec.port or spec.ip or spec.domain:
        body["port"] = spec.port
    if spec.capacity is not None:
        body["capacity"] = amounts(spec.capacity)
    if kind == "gateway":
        return {OWN_NAMES.get(name, name): value for name, value in body.items()}
    return body


def amounts(capacity: t.Capacity) -> dict[str, float]:
    """The four resources."""
    return {name: getattr(capacity, name) for name in ("cpu", "bandwidth", "memory", "storage")}


def key_of(body: dict[str, Any]) -> t.Key:
    """A key."""
    return t.Key(t.Kind(body["kind"]), body["name"], body["namespace"])


def record_of(body: dict[str, Any]) -> t.Record:
    """A record from its flat form."""
    prefix = "gateway_" if body["kind"] == "gateway" else ""
    draining = body.get("draining")
    return t.Record(
        key=key_of(body),
        spec=t.Spec(
            region=body["region"],
            ip=body.get(prefix + "ip", ""),
            domain=body.get(prefix + "domain", ""),
            port=body.get(prefix + "port", 0),
            capacity=t.Capacity(**body["capacity"]) if "capacity" in body else None,
            labels=body.get("labels", {}),
            owner=body.get("owner", ""),
            gateway=body.get("gateway", ""),
            public_key=base64.b64decode(body.get("public_key", "")),
            payload=base64.b64decode(body.get("payload", "")),
        ),
        incarnation=body["incarnation"],
        lease_id=int(body["lease_id"]),
        ttl_ms=body["ttl_ms"],
        create_revision=body["create_revision"],
        revision=body["revision"],
        version=body["version"],
        created_unix_ms=body["created_unix_ms"],
        updated_unix_ms=body["updated_unix_ms"],
        draining=t.Draining(**draining) if draining else None,
    )


def instance_of(body: dict[str, Any], header: t.Header | None = None) -> t.Instance:
    """A record with its liveness and load."""
    load = body.get("load")
    return t.Instance(
        record=record_of(body),
        status=t.Status(body["status"]),
        lease_remaining_ms=body.get("lease_remaining_ms"),
        load=t.Load(t.Capacity(**load["free"]), load["age_ms"]) if load else None,
        header=header,
    )


def registered_of(body: dict[str, Any]) -> t.Registered:
    """The answer to a registration."""
    return t.Registered(
        key=key_of(body["key"]),
        revision=body["revision"],
        create_revision=body["create_revision"],
        lease_id=int(body["lease_id"]),
        ttl_ms=body["ttl_ms"],
        next_renewal_ms=body["next_renewal_ms"],
        created=body["created"],
        incarnation=body["incarnation"],
        header=t.Header(partition=body["partition"], revision=body["revision"]),
    )


def error_of(body: dict[str, Any]) -> errors.AgniError:
    """The SDK's error for HTTP's."""
    metadata = dict(body.get("metadata", {}))
    field = body.get("field", metadata.get("field"))
    if field is not None:
        field = re.sub(r"^operations\[\d+\]\.", "", field)
        metadata["field"] = FIELDS.get(field, field)
    return errors.error_for(
        body["reason"], body["code"], body["message"], metadata, body.get("retry_delay_ms")
    )


def filter_query(wanted: t.Filter, region: str = "region") -> list[tuple[str, Any]]:
    """A filter as parameters."""
    query: list[tuple[str, Any]] = [("namespace", wanted.namespace)] if wanted.namespace else []
    query += [(region, value) for value in wanted.regions]
    query += [("label", f"{name}={value}") for name, value in wanted.labels.items()]
    query += [("status", status.value) for status in wanted.statuses]
    for prefix, capacity in (("min_", wanted.min_capacity), ("min_free_", wanted.min_free)):
        if capacity is not None:
            query += [(prefix + name, value) for name, value in amounts(capacity).items() if value]
    for name in ("name_prefix", "gateway"):
        if getattr(wanted, name):
            query.append((name, getattr(wanted, name)))
    return query


def read_query(read: t.ReadOptions | None) -> list[tuple[str, Any]]:
    """How to read, as parameters."""
    query: list[tuple[str, Any]] = []
    if read is not None and read.consistency is not None:
        query.append(("consistency", read.consistency.value))
    if read is not None and read.max_staleness_ms:
        query.append(("max_staleness_ms", read.max_staleness_ms))
    return query


def given(**parameters: Any) -> list[tuple[str, Any]]:
    """The parameters that say something."""
    return [(name, value) for name, value in parameters.items() if value not in (None, "", 0)]


def members_of(answer: dict[str, Any]) -> t.ClusterMembers:
    """The members and the placement, without a field that isn't known."""

    def ids(texts: list[str]) -> tuple[int, ...]:
        return tuple(map(int, texts))

    def member(item: dict[str, Any]) -> t.ClusterMember:
        numbers = {name: int(item[name]) for name in ("node_id", "replaces")}
        return t.ClusterMember(**{**item, **numbers, "state": t.MemberState(item["state"])})

    def placement(item: dict[str, Any]) -> t.Placement:
        lists = {name: ids(item[name]) for name in ("wanted", "voters", "learners")}
        return t.Placement(**{**item, **lists, "leader_id": int(item["leader_id"])})

    return t.ClusterMembers(
        **{
            **answer,
            "system_leader_id": int(answer["system_leader_id"]),
            "system_voters": ids(answer["system_voters"]),
            "members": tuple(map(member, answer["members"])),
            "placements": tuple(map(placement, answer["placements"])),
        }
    )
