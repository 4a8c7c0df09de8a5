//! Messages as JSON: keys are the field names of the protos, enums are short words, lease ids are
//! text (they don't fit a JavaScript number), a record's spec lies flat beside its name.

use crate::engine_api::InstanceOwned;
use crate::grpc::status::{RpcError, kind_word};
use crate::http::query::base64;
use crate::token;
use agni_core::proto::api::{self, Kind};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use prost::Message;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// The kind with this name.
pub fn kind_of_word(field: &str, word: &str) -> Result<Kind, RpcError> {
    match word {
        "gateway" => Ok(Kind::Gateway),
        "agent" => Ok(Kind::Agent),
        _ => Err(RpcError::field(field, "must be gateway or agent")),
    }
}

/// Reads a JSON body; errors name the field.
pub fn parse<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, RpcError> {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let path = error.path().to_string();
        let message = error.inner().to_string();
        // What isn't known or comes twice is named in the message, not in the path.
        let named = ["unknown field `", "missing field `", "duplicate field `"]
            .iter()
            .find_map(|start| message.strip_prefix(start)?.split_once('`').map(|(name, _)| name));
        let field = match (&*path, named) {
            ("." | "?", Some(name)) => name.to_owned(),
            (path, Some(name)) if !path.ends_with(name) => format!("{path}.{name}"),
            ("." | "?", None) => "body".to_owned(),
            (path, _) => path.to_owned(),
        };
        RpcError::field(field, format!("can't be read: {message}"))
    })?;
    reader.end().map_err(|error| RpcError::field("body", format!("goes on: {error}")))?;
    Ok(value)
}

/// An amount of each resource.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CapacityBody {
    #[serde(default)]
    cpu: f64,
    #[serde(default)]
    bandwidth: f64,
    #[serde(default)]
    memory: f64,
    #[serde(default)]
    storage: f64,
}

impl From<CapacityBody> for api::Capacity {
    fn from(body: CapacityBody) -> Self {
        let CapacityBody { cpu, bandwidth, memory, storage } = body;
        api::Capacity { cpu, bandwidth, memory, storage }
    }
}

/// What a write of any kind may say; which parts it must or may not is checked afterwards.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WriteBody {
    kind: Option<String>,
    namespace: Option<String>,
    name: Option<String>,
    region: Option<String>,
    ip: Option<String>,
    gateway_ip: Option<String>,
    domain: Option<String>,
    gateway_domain: Option<String>,
    port: Option<u32>,
    gateway_port: Option<u32>,
    capacity: Option<CapacityBody>,
    labels: Option<BTreeMap<String, String>>,
    owner: Option<String>,
    gateway: Option<String>,
    public_key: Option<String>,
    payload: Option<String>,
    ttl_ms: Option<i64>,
    incarnation: Option<u64>,
    expected_revision: Option<u64>,
    update_mask: Option<Vec<String>>,
    drain_ms: Option<i64>,
    successor: Option<String>,
}

fn either<T>(plain: Option<T>, long: Option<T>, name: &str) -> Result<Option<T>, RpcError> {
    match (plain, long) {
        (Some(_), Some(_)) => {
            Err(RpcError::field(name, format!("and gateway_{name} are both given, give one")))
        }
        (plain, long) => Ok(plain.or(long)),
    }
}

fn foreign<T>(value: &Option<T>, field: &str) -> Result<(), RpcError> {
    match value {
        Some(_) => Err(RpcError::field(field, "is no field of this request")),
        None => Ok(()),
    }
}

impl WriteBody {
    /// Takes the key; what the path says must not be said again in another way.
    fn key(&mut self, kind: Option<Kind>, name: Option<String>) -> Result<api::Key, RpcError> {
        let written = match self.kind.take() {
            Some(word) => Some(kind_of_word("kind", &word)?),
            None => None,
        };
        let kind = match (kind, written) {
            (Some(kind), Some(written)) if kind != written => {
                return Err(RpcError::field("kind", "doesn't fit the path"));
            }
            (kind, written) => kind.or(written),
        };
        let kind = kind.ok_or_else(|| RpcError::field("kind", "must be gateway or agent"))?;
        let name = match (name, self.name.take()) {
            (Some(name), Some(written)) if name != written => {
                return Err(RpcError::field("name", "doesn't fit the path"));
            }
            (name, written) => name.or(written).unwrap_or_default(),
        };
        let namespace = self.namespace.take().unwrap_or_default();
        Ok(api::Key { namespace, kind: kind as i32, name })
    }

    /// Takes the spec and says which of its fields were given.
    fn spec(&mut self, kind: i32) -> Result<(api::Spec, Vec<String>), RpcError> {
        if kind != Kind::Gateway as i32 {
            foreign(&self.gateway_ip, "gateway_ip")?;
            foreign(&self.gateway_domain, "gateway_domain")?;
            foreign(&self.gateway_port, "gateway_port")?;
        }
        let port = either(self.port, self.gateway_port, "port")?;
        if port == Some(0) {
            let field = if self.port.is_some() { "port" } else { "gateway_port" };
            return Err(RpcError::field(field, "must be 1..65535"));
        }
        let ip = either(self.ip.take(), self.gateway_ip.take(), "ip")?;
        let domain = either(self.domain.take(), self.gateway_domain.take(), "domain")?;
        let bytes = |field, text: &Option<String>| {
            text.as_ref().map(|text| base64(field, text).map(Bytes::from)).transpose()
        };
        let public_key = bytes("public_key", &self.public_key)?;
        let payload = bytes("payload", &self.payload)?;
        let given = [
            ("region", self.region.is_some()),
            ("ip", ip.is_some()),
            ("domain", domain.is_some()),
            ("port", port.is_some()),
            ("capacity", self.capacity.is_some()),
            ("labels", self.labels.is_some()),
            ("owner", self.owner.is_some()),
            ("gateway", self.gateway.is_some()),
            ("public_key", public_key.is_some()),
            ("payload", payload.is_some()),
        ];
        let given = given.iter().filter(|(_, given)| *given).map(|(name, _)| (*name).to_owned());
        let spec = api::Spec {
            region: self.region.take().unwrap_or_default(),
            ip: ip.unwrap_or_default(),
            domain: domain.unwrap_or_default(),
            port: port.unwrap_or_default(),
            capacity: self.capacity.take().map(api::Capacity::from),
            labels: self.labels.take().unwrap_or_default(),
            owner: self.owner.take().unwrap_or_default(),
            gateway: self.gateway.take().unwrap_or_default(),
            public_key: public_key.unwrap_or_default(),
            payload: payload.unwrap_or_default(),
        };
        Ok((spec, given.collect()))
    }

    /// As a registration.
    pub fn register(mut self, kind: Option<Kind>) -> Result<api::RegisterRequest, RpcError> {
        foreign(&self.update_mask, "update_mask")?;
        foreign(&self.drain_ms, "drain_ms")?;
        foreign(&self.successor, "successor")?;
        let key = self.key(kind, None)?;
        let (spec, _) = self.spec(key.kind)?;
        Ok(api::RegisterRequest {
            key: Some(key),
            spec: Some(spec),
            ttl_ms: self.ttl_ms.unwrap_or_default(),
            incarnation: self.incarnation.unwrap_or_default(),
            expected_revision: self.expected_revision,
        })
    }

    /// As an update of the fields that are given, or of those that a mask names.
    pub fn update(
        mut self,
        kind: Option<Kind>,
        name: Option<String>,
    ) -> Result<api::UpdateRequest, RpcError> {
        foreign(&self.ttl_ms, "ttl_ms")?;
        foreign(&self.drain_ms, "drain_ms")?;
        foreign(&self.successor, "successor")?;
        let key = self.key(kind, name)?;
        let (spec, given) = self.spec(key.kind)?;
        let paths = self.update_mask.take().unwrap_or(given);
        Ok(api::UpdateRequest {
            key: Some(key),
            spec: Some(spec),
            update_mask: Some(prost_types::FieldMask { paths }),
            incarnation: self.incarnation.unwrap_or_default(),
            expected_revision: self.expected_revision,
        })
    }

    /// As a removal.
    pub fn deregister(mut self) -> Result<api::DeregisterRequest, RpcError> {
        foreign(&self.ttl_ms, "ttl_ms")?;
        foreign(&self.update_mask, "update_mask")?;
        let key = self.key(None, None)?;
        let (_, given) = self.spec(key.kind)?;
        if let Some(field) = given.first() {
            return Err(RpcError::field(field.clone(), "is no field of a deregistration"));
        }
        Ok(api::DeregisterRequest {
            key: Some(key),
            incarnation: self.incarnation.unwrap_or_default(),
            expected_revision: self.expected_revision,
            drain_ms: self.drain_ms.unwrap_or_default(),
            successor: self.successor.unwrap_or_default(),
        })
    }
}

/// One write of a batch; exactly one must be given.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct OperationBody {
    register: Option<WriteBody>,
    update: Option<WriteBody>,
    deregister: Option<WriteBody>,
}

/// Several writes.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BatchBody {
    operations: Vec<OperationBody>,
}

impl BatchBody {
    /// As a message; errors name the operation.
    pub fn request(self) -> Result<api::BatchRequest, RpcError> {
        use api::write_operation::Operation;
        let operation = |(index, body): (usize, OperationBody)| {
            let operation = match (body.register, body.update, body.deregister) {
                (Some(body), None, None) => body.register(None).map(Operation::Register),
                (None, Some(body), None) => body.update(None, None).map(Operation::Update),
                (None, None, Some(body)) => body.deregister().map(Operation::Deregister),
                _ => Err(RpcError::field("", "must be one of register, update, deregister")),
            };
            let operation = operation.map_err(|mut error| {
                let field = error.metadata.remove("field").unwrap_or_default();
                let path = format!("operations[{index}].{field}");
                error.message = format!("operations[{index}].{}", error.message).into();
                error.with("field", path.trim_end_matches('.'))
            })?;
            Ok(api::WriteOperation { operation: Some(operation) })
        };
        let operations = self.operations.into_iter().enumerate().map(operation);
        Ok(api::BatchRequest { operations: operations.collect::<Result<_, RpcError>>()? })
    }
}

/// What one lease's owner has left to give.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct LoadBody {
    lease_id: String,
    free: CapacityBody,
}

/// A renewal.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RenewBody {
    lease_ids: Vec<String>,
    #[serde(default)]
    loads: Vec<LoadBody>,
}

fn lease_id(field: &str, text: &str) -> Result<u64, RpcError> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|_| digits).ok_or_else(|| {
        RpcError::field(field, format!("has {text:?}, which is no lease id in decimal digits"))
    })
}

impl RenewBody {
    /// As a message.
    pub fn request(self) -> Result<api::RenewRequest, RpcError> {
        let lease_ids = self.lease_ids.iter().map(|text| lease_id("lease_ids", text));
        let loads = self.loads.into_iter().map(|load| {
            let lease_id = lease_id("loads.lease_id", &load.lease_id)?;
            Ok(api::LeaseLoad { lease_id, free: Some(load.free.into()) })
        });
        Ok(api::RenewRequest {
            lease_ids: lease_ids.collect::<Result<_, _>>()?,
            loads: loads.collect::<Result<_, RpcError>>()?,
        })
    }
}

/// Which partitions to take a snapshot of.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnapshotBody {
    /// Their numbers; none means all.
    #[serde(default)]
    pub partitions: Vec<u32>,
}

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
            let code = crate::grpc::status::code_word(tonic::Code::from_i32(error.code));
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
    })
}

/// The routing table.
pub fn routing(routing: &api::RoutingResponse) -> Value {
    let member = |m: &api::Member| {
        let (node_id, client_address, zone) = (id(m.node_id), &m.client_address, &m.zone);
        json!({ "node_id": node_id, "client_address": client_address, "zone": zone })
    };
    let route = |p: &api::PartitionRoute| {
        let replica_ids: Vec<Value> = p.replica_ids.iter().copied().map(id).collect();
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
    let name = exclusion.reason().as_str_name();
    let word = name.strip_prefix("EXCLUSION_REASON_").unwrap_or(name).to_ascii_lowercase();
    json!({
        "key": key(exclusion.key.as_ref().unwrap_or(&api::Key::default())),
        "reason": word,
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
