"""Answers as plain data for `-o json` and `-o yaml`, in the shape that HTTP/JSON has.

Names are the protocol's. A lease id is text, since JSON readers lose digits of 64-bit numbers;
a gateway's address fields are called gateway_ip, gateway_domain and gateway_port, as in HTTP.
"""

from __future__ import annotations

import base64
from dataclasses import asdict
from typing import Any

from agniregistry import types as t

Plain = dict[str, Any]


def key_data(key: t.Key) -> Plain:
    """A key."""
    return {"namespace": key.namespace, "kind": key.kind.value, "name": key.name}


def spec_data(spec: t.Spec, kind: t.Kind) -> Plain:
    """A spec's fields that say something."""
    prefix = "gateway_" if kind is t.Kind.GATEWAY else ""
    data: Plain = {
        "region": spec.region,
        f"{prefix}ip": spec.ip,
        f"{prefix}domain": spec.domain,
        f"{prefix}port": spec.port,
        "capacity": asdict(spec.capacity) if spec.capacity else None,
        "labels": dict(sorted(spec.labels.items())),
        "owner": spec.owner,
        "gateway": spec.gateway,
        "public_key": base64.b64encode(spec.public_key).decode(),
        "payload": base64.b64encode(spec.payload).decode(),
    }
    return {name: value for name, value in data.items() if value or name == "region"}


def record_data(record: t.Record) -> Plain:
    """A stored record."""
    data = {**key_data(record.key), **spec_data(record.spec, record.key.kind)}
    data.update(
        incarnation=record.incarnation,
        lease_id=str(record.lease_id),
        ttl_ms=record.ttl_ms,
        create_revision=record.create_revision,
        revision=record.revision,
        version=record.version,
        created_unix_ms=record.created_unix_ms,
        updated_unix_ms=record.updated_unix_ms,
    )
    if record.draining:
        data["draining"] = asdict(record.draining)
    return data


def instance_data(instance: t.Instance) -> Plain:
    """A record with its liveness and load."""
    data = record_data(instance.record)
    data["status"] = instance.status.value
    if instance.lease_remaining_ms is not None:
        data["lease_remaining_ms"] = instance.lease_remaining_ms
    if instance.load:
        data["load"] = asdict(instance.load)
    return data


def registered_data(answer: t.Registered) -> Plain:
    """What came of a registration."""
    return {
        "key": key_data(answer.key),
        "revision": answer.revision,
        "create_revision": answer.create_revision,
        "lease_id": str(answer.lease_id),
        "ttl_ms": answer.ttl_ms,
        "next_renewal_ms": answer.next_renewal_ms,
        "created": answer.created,
        "incarnation": answer.incarnation,
        "partition": answer.header.partition,
    }


def discovery_data(found: t.Discovery) -> Plain:
    """What discovery found and left out."""
    return {
        "candidates": [
            {"instance": instance_data(each.instance), "score": asdict(each.score)}
            for each in found.candidates
        ],
        "exclusions": [exclusion_data(each) for each in found.exclusions],
        "matched": found.matched,
    }


def exclusion_data(exclusion: t.Exclusion) -> Plain:
    """Why a record was left out."""
    return {
        "key": key_data(exclusion.key),
        "reason": exclusion.reason.value,
        "detail": exclusion.detail,
    }


def change_data(change: t.Change) -> Plain:
    """One change of a watch."""
    data: Plain = {
        "type": change.type.value,
        "live": change.live,
        "revision": change.revision,
        "partition": change.partition,
        "key": key_data(change.key),
        "created": change.created,
    }
    if change.record:
        data["record"] = record_data(change.record)
    if change.previous:
        data["previous"] = record_data(change.previous)
    return data


def status_data(status: t.ClusterStatus) -> Plain:
    """How a node does."""
    data = asdict(status)
    data["partitions"] = list(data["partitions"])
    return data
