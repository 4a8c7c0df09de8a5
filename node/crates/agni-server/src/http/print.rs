//! Messages as JSON: keys are the field names of the protos, enums are short words, ids are text
//! (they don't fit a JavaScript number), a record's spec lies flat beside its name.

use crate::status::{Code, code_word, kind_word};
use crate::token;
use agni_core::proto::api::{self, Kind};
use agni_core::store::InstanceOwned;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use prost::Message;
use serde_json::{Map, Value, json};

/// A key.
pub fn key(key: &api::Key) -> Value {
    json!({ "namespace": key.namespace, "kind": kind_word(key.kind), "name": key.name })
}

/// A whole number as one, so that what was sent as 1 does not come back as 1.0.
fn amount(amount: f64) -> Value {
    const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
    if amount.fract() == 0.0 && amount.abs() < EXACT_MAX {
        return json!(amount as i64);
    }
    json!(amount)
}

/// An id as text: a number above 2^53 would be rounded by JavaScript and many others.
fn id(id: u64) -> Value {
    Value::String(id.to_string())
}

fn capacity(capacity: &api::Capacity) -> Value {
    json!({
        "cpu": amount(capacity.cpu),
        "bandwidth": amount(capacity.bandwidth),
        "memory": amount(capacity.memory),
        "storage": amount(capacity.storage),
    })
}

fn put_spec(out: &mut Map<String, Value>, kind: i32, spec: api::Spec) {
    let (ip, domain, port) = match kind == Kind::Gateway as i32 {
        true => ("gateway_ip", "gateway_domain", "gateway_port"),
        false => ("ip", "domain", "port"),
    };
    out.insert("region".into(), spec.region.into());
    for (name, text) in [
        (ip, spec.ip),
        (domain, spec.domain),
        ("owner", spec.owner),
        ("gateway", spec.gateway),
        ("public_key", STANDARD.encode(&spec.public_key)),
        ("payload", STANDARD.encode(&spec.payload)),
    ] {
        if !text.is_empty() {
            out.insert(name.into(), text.into());
        }
    }
    if spec.port != 0 {
        out.insert(port.into(), spec.port.into());
    }
    if let Some(amounts) = &spec.capacity {
        out.insert("capacity".into(), capacity(amounts));
    }
    if !spec.labels.is_empty() {
        out.insert("labels".into(), json!(spec.labels));
    }
}

/// A record.
pub fn record(record: api::Record) -> Map<String, Value> {
    let key = record.key.unwrap_or_default();
    let mut out = Map::new();
    out.insert("namespace".into(), key.namespace.into());
    out.insert("kind".into(), kind_word(key.kind).into());
    out.insert("name".into(), key.name.into());
    put_spec(&mut out, key.kind, record.spec.unwrap_or_default());
    out.insert("incarnation".into(), record.incarnation.into());
    out.insert("lease_id".into(), record.lease_id.to_string().into());
    out.insert("ttl_ms".into(), record.ttl_ms.into());
    out.insert("create_revision".into(), record.create_revision.into());
    out.insert("revision".into(), record.revision.into());
    out.insert("version".into(), record.version.into());
    out.insert("created_unix_ms".into(), record.created_unix_ms.into());
    out.insert("updated_unix_ms".into(), record.updated_unix_ms.into());
    if let Some(draining) = record.draining {
        let value = json!({
            "deadline_unix_ms": draining.deadline_unix_ms,
            "successor": draining.successor,
        });
        out.insert("draining".into(), value);
    }
    out
}

/// A record with its liveness and load. JSON is for people: here a record is decoded.
pub fn instance(instance: &InstanceOwned) -> Value {
    let mut out = record(api::Record::decode(instance.record.clone()).unwrap_or_default());
    let status = match instance.status {
        api::Status::Suspect => "suspect",
        api::Status::Draining => "draining",
        _ => "alive",
    };
    out.insert("status".into(), status.into());
    if let Some(ms) = instance.lease_remaining_ms {
        out.insert("lease_remaining_ms".into(), ms.into());
    }
    if let Some((free, age_ms)) = &instance.load {
        out.insert("load".into(), json!({ "free": capacity(free), "age_ms": age_ms }));
    }
    Value::Object(out)
}

fn partition_of(header: &Option<api::ResponseHeader>) -> u32 {
    header.as_ref().map_or(0, |header| header.partition)
}

/// The answer to a registration.
pub fn registered(response: &api::RegisterResponse) -> Value {
    json!({
        "key": key(response.key.as_ref().unwrap_or(&api::Key::default())),
        "revision": response.revision,
        "create_revision": response.create_revision,
        "lease_id": response.lease_id.to_string(),
        "ttl_ms": response.ttl_ms,
        "next_renewal_ms": response.next_renewal_ms,
        "created": response.created,
        "incarnation": response.incarnation,
        "partition": partition_of(&response.header),
    })
}

/// The answers to a batch.
pub fn batch(response: &api::BatchResponse) -> Value {
    use api::write_result::Result as R;
    let result = |result: &api::WriteResult| match &result.result {
        Some(R::Register(response)) => json!({ "register": registered(response) }),
        Some(R::Update(response)) => json!({ "update": { "revision": response.revision } }),
        Some(R::Deregister(response)) => json!({
            "deregister": { "existed": response.existed, "revision": response.revision }
        }),
        Some(R::Error(error)) => {
            let code = code_word(Code::from_i32(error.code));
            let mut out = json!({
                "code": code,
                "reason": error.reason,
                "message": error.message,
                "metadata": error.metadata,
            });
            if let Some(field) = error.metadata.get("field") {
                out["field"] = field.as_str().into();
            }
            if error.retry_delay_ms > 0 {
                out["retry_delay_ms"] = error.retry_delay_ms.into();
            }
            json!({ "error": out })
        }
        None => json!({}),
    };
    json!({ "results": response.results.iter().map(result).collect::<Vec<_>>() })
}

/// The answer to a renewal.
pub fn renewed(response: &api::RenewResponse) -> Value {
    let lost = response.lost_lease_ids.iter().map(u64::to_string).collect::<Vec<_>>();
    json!({
        "renewed": response.renewed,
        "lost_lease_ids": lost,
        "next_renewal_ms": response.next_renewal_ms,
    })
}

fn event(event: api::Event) -> Value {
    let word = match event.r#type() {
        api::EventType::Put => "put",
        api::EventType::Deregistered => "deregistered",
        api::EventType::Expired => "expired",
        api::EventType::Removed => "removed",
        api::EventType::Unspecified => "unspecified",
    };
    let mut out = json!({
        "type": word,
        "revision": event.revision,
        "partition": event.partition,
        "key": key(event.key.as_ref().unwrap_or(&api::Key::default())),
        "created": event.created,
    });
    if let Some(after) = event.record {
        out["record"] = Value::Object(record(after));
    }
    if let Some(before) = event.previous {
        out["previous"] = Value::Object(record(before));
    }
    out
}

/// A message of a watch.
pub fn watch(response: api::WatchResponse) -> Value {
    let mut out = json!({
        "events": response.events.into_iter().map(event).collect::<Vec<_>>(),
        "resume_token": token::to_text(&response.resume_token),
    });
    if response.present_complete {
        out["present"] = response.present.iter().map(key).collect::<Vec<_>>().into();
        out["present_partition"] = response.present_partition.into();
    }
    out
}

/// How this node does.
pub fn status(status: &api::StatusResponse) -> Value {
    let partition = |p: &api::PartitionStatus| {
        json!({
            "partition": p.partition,
            "term": p.term,
            "leader_id": id(p.leader_id),
            "commit_index": p.commit_index,
            "applied_index": p.applied_index,
            "revision": p.revision,
            "records": p.records,
            "leases": p.leases,
            "snapshot_index": p.snapshot_index,
            "suspect_domains": p.suspect_domains,
            "state_hash": p.state_hash,
            "is_suspect": p.is_suspect,
        })
    };
    json!({
        "cluster_id": status.cluster_id,
        "node_id": id(status.node_id),
        "version": status.version,
        "build_profile": status.build_profile,
        "uptime_ms": status.uptime_ms,
        "writable": status.writable,
        "message": status.message,
        "partitions": status.partitions.iter().map(partition).collect::<Vec<_>>(),
        "wal_bytes": status.wal_bytes,
        "region": status.region,
        "trust_sha256": status.trust_sha256,
        "certificate_sha256": status.certificate_sha256,
        "certificate_not_after_unix_ms": status.certificate_not_after_unix_ms,
    })
}

/// The routing table.
pub fn routing(routing: &api::RoutingResponse) -> Value {
    let member = |m: &api::Member| {
        let (node_id, client_address, zone) = (id(m.node_id), &m.client_address, &m.zone);
        json!({ "node_id": node_id, "client_address": client_address, "zone": zone })
    };
    let route = |p: &api::PartitionRoute| {
        let replica_ids = ids(&p.replica_ids);
        let (partition, leader_id) = (p.partition, id(p.leader_id));
        json!({ "partition": partition, "replica_ids": replica_ids, "leader_id": leader_id })
    };
    json!({
        "epoch": routing.epoch,
        "partition_count": routing.partition_count,
        "members": routing.members.iter().map(member).collect::<Vec<_>>(),
        "partitions": routing.partitions.iter().map(route).collect::<Vec<_>>(),
    })
}

fn ids(ids: &[u64]) -> Vec<Value> {
    ids.iter().copied().map(id).collect()
}

/// The members, and where each partition is wanted and where it is.
pub fn members(found: &api::MembersResponse) -> Value {
    let member = |m: &api::ClusterMemberInfo| {
        json!({
            "node_id": id(m.node_id),
            "name": m.name,
            "client_address": m.client_address,
            "peer_address": m.peer_address,
            "region": m.region,
            "zone": m.zone,
            "state": word(m.state().as_str_name(), "MEMBER_STATE_"),
            "replaces": id(m.replaces),
        })
    };
    let placement = |p: &api::Placement| {
        json!({
            "partition": p.partition,
            "wanted": ids(&p.wanted),
            "wanted_version": p.wanted_version,
            "voters": ids(&p.voters),
            "learners": ids(&p.learners),
            "leader_id": id(p.leader_id),
            "reached_version": p.reached_version,
        })
    };
    json!({
        "version": found.version,
        "author_epoch": found.author_epoch,
        "replication": found.replication,
        "system_leader_id": id(found.system_leader_id),
        "system_voters": ids(&found.system_voters),
        "members": found.members.iter().map(member).collect::<Vec<_>>(),
        "placements": found.placements.iter().map(placement).collect::<Vec<_>>(),
    })
}

/// The short word of an enum's value.
fn word(name: &str, prefix: &str) -> String {
    name.strip_prefix(prefix).unwrap_or(name).to_ascii_lowercase()
}

/// Snapshots that were taken.
pub fn snapshots(response: &api::SnapshotResponse) -> Value {
    let taken = |s: &api::snapshot_response::Taken| {
        json!({
            "partition": s.partition,
            "index": s.index,
            "revision": s.revision,
            "records": s.records,
            "bytes": s.bytes,
            "file": s.file,
        })
    };
    json!({ "snapshots": response.snapshots.iter().map(taken).collect::<Vec<_>>() })
}

/// A key of a record that wasn't answered, and why.
pub fn exclusion(exclusion: &api::Exclusion) -> Value {
    json!({
        "key": key(exclusion.key.as_ref().unwrap_or(&api::Key::default())),
        "reason": word(exclusion.reason().as_str_name(), "EXCLUSION_REASON_"),
        "detail": exclusion.detail,
    })
}

/// How a rank came about.
pub fn score(score: &api::Score) -> Value {
    let part = |part: f64| amount((part * 1e6).round() / 1e6);
    json!({
        "total": part(score.total),
        "region_match": part(score.region_match),
        "free_capacity": part(score.free_capacity),
        "freshness": part(score.freshness),
    })
}
