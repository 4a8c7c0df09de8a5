//! The schemas of the OpenAPI document.

use crate::limits;
use serde_json::{Map, Value, json};

/// Points to a schema of the document.
pub fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

/// An object; unless it is open, other fields are refused.
pub fn object(fields: &[(&str, Value)], required: &[&str], open: bool) -> Value {
    let properties: Map<String, Value> =
        fields.iter().map(|(name, schema)| ((*name).to_owned(), schema.clone())).collect();
    let mut out = json!({ "type": "object", "properties": properties });
    if !required.is_empty() {
        out["required"] = json!(required);
    }
    if !open {
        out["additionalProperties"] = json!(false);
    }
    out
}

/// Printable text; its limits are in bytes of UTF-8, so a client of the schema may be a bit freer.
pub fn text(least: usize, most: usize) -> Value {
    json!({ "type": "string", "minLength": least, "maxLength": most })
}

/// A part of a key.
pub fn name(least: usize) -> Value {
    text(least, limits::NAME_BYTES_MAX)
}

fn number() -> Value {
    json!({ "type": "number", "minimum": 0 })
}

fn unsigned() -> Value {
    json!({ "type": "integer", "minimum": 0 })
}

fn boolean() -> Value {
    json!({ "type": "boolean" })
}

fn list(items: Value) -> Value {
    json!({ "type": "array", "items": items })
}

fn node_id() -> Value {
    json!({ "type": "string", "pattern": "^[0-9]{1,20}$", "description": "Decimal digits; 0 is \
        nobody." })
}

fn lease_id() -> Value {
    json!({ "type": "string", "pattern": "^[0-9]{1,20}$", "description": "Decimal digits." })
}

fn base64(most: usize) -> Value {
    json!({ "type": "string", "contentEncoding": "base64", "maxLength": most.div_ceil(3) * 4 })
}

fn labels() -> Value {
    json!({
        "type": "object",
        "maxProperties": limits::LABELS_MAX,
        "propertyNames": { "minLength": 1, "maxLength": limits::LABEL_KEY_BYTES_MAX },
        "additionalProperties": text(0, limits::NAME_BYTES_MAX),
    })
}

fn spec_fields(gateway: bool) -> Vec<(&'static str, Value)> {
    let (ip, domain, port) = match gateway {
        true => ("gateway_ip", "gateway_domain", "gateway_port"),
        false => ("ip", "domain", "port"),
    };
    vec![
        ("region", text(1, limits::REGION_BYTES_MAX)),
        (
            ip,
            json!({ "anyOf": [
            { "type": "string", "format": "ipv4" },
            { "type": "string", "format": "ipv6" },
        ] }),
        ),
        (domain, json!({ "type": "string", "format": "hostname", "maxLength": 253 })),
        (port, json!({ "type": "integer", "minimum": 1, "maximum": 65535 })),
        ("capacity", reference("Capacity")),
        ("labels", labels()),
        ("owner", name(0)),
        ("gateway", name(0)),
        ("public_key", base64(limits::PUBLIC_KEY_BYTES_MAX)),
        ("payload", base64(limits::PAYLOAD_BYTES_MAX)),
    ]
}

fn write_fields() -> Vec<(&'static str, Value)> {
    vec![("namespace", name(0)), ("incarnation", unsigned()), ("expected_revision", unsigned())]
}

fn registration(gateway: bool) -> Value {
    let mut fields = spec_fields(gateway);
    fields.extend(write_fields());
    fields.push(("name", name(if gateway { 0 } else { 1 })));
    let ttl = json!({ "anyOf": [
        { "const": 0 },
        { "type": "integer", "minimum": limits::TTL_MS_MIN, "maximum": limits::TTL_MS_MAX },
    ] });
    fields.push(("ttl_ms", ttl));
    match gateway {
        true => object(&fields, &["region", "gateway_domain", "gateway_port"], false),
        false => object(&fields, &["region", "name"], false),
    }
}

fn patch(gateway: bool) -> Value {
    let mut fields = spec_fields(gateway);
    fields.extend(write_fields());
    fields.push(("update_mask", list(json!({ "type": "string" }))));
    object(&fields, &[], false)
}

fn kinded(schema: &str, extra: &[(&str, Value)]) -> Value {
    let mut fields = vec![("kind", reference("Kind")), ("name", name(0))];
    fields.extend(extra.iter().cloned());
    json!({ "type": "object", "properties": object(&fields, &[], true)["properties"],
        "required": ["kind"], "description": format!("As {schema}, with its kind.") })
}

fn record_fields() -> Vec<(&'static str, Value)> {
    let mut fields = spec_fields(true);
    fields.extend(
        spec_fields(false)
            .into_iter()
            .filter(|(name, _)| matches!(*name, "ip" | "domain" | "port")),
    );
    fields.extend([
        ("namespace", name(1)),
        ("kind", reference("Kind")),
        ("name", name(1)),
        ("incarnation", unsigned()),
        ("lease_id", lease_id()),
        ("ttl_ms", unsigned()),
        ("create_revision", unsigned()),
        ("revision", unsigned()),
        ("version", unsigned()),
        ("created_unix_ms", unsigned()),
        ("updated_unix_ms", unsigned()),
        (
            "draining",
            object(
                &[("deadline_unix_ms", json!({ "type": "integer" })), ("successor", name(0))],
                &["deadline_unix_ms"],
                false,
            ),
        ),
    ]);
    fields
}

const RECORD_REQUIRED: [&str; 8] =
    ["namespace", "kind", "name", "region", "incarnation", "lease_id", "revision", "version"];

fn instance() -> Value {
    let mut fields = record_fields();
    fields.push(("status", json!({ "enum": ["alive", "suspect", "draining"] })));
    fields.push(("lease_remaining_ms", json!({ "type": "integer" })));
    let load = object(
        &[("free", reference("Capacity")), ("age_ms", json!({ "type": "integer" }))],
        &["free", "age_ms"],
        false,
    );
    fields.push(("load", load));
    let mut required = RECORD_REQUIRED.to_vec();
    required.push("status");
    object(&fields, &required, false)
}

fn error() -> Value {
    let fields = [
        ("code", json!({ "type": "string" })),
        ("reason", json!({ "type": "string" })),
        ("message", json!({ "type": "string" })),
        ("field", json!({ "type": "string" })),
        ("metadata", json!({ "type": "object", "additionalProperties": { "type": "string" } })),
        ("retry_delay_ms", unsigned()),
    ];
    object(&fields, &["code", "reason", "message", "metadata"], false)
}

fn answers() -> Vec<(&'static str, Value)> {
    let registered = [
        ("key", reference("Key")),
        ("revision", unsigned()),
        ("create_revision", unsigned()),
        ("lease_id", lease_id()),
        ("ttl_ms", unsigned()),
        ("next_renewal_ms", unsigned()),
        ("created", boolean()),
        ("incarnation", unsigned()),
        ("partition", unsigned()),
    ];
    let names: Vec<&str> = registered.iter().map(|(name, _)| *name).collect();
    let removed = [("existed", boolean()), ("revision", unsigned())];
    let page = [
        ("instances", list(reference("Instance"))),
        ("next_page_token", json!({ "type": "string" })),
        ("resume_token", json!({ "type": "string" })),
    ];
    let result = [
        ("register", reference("Registered")),
        ("update", reference("Updated")),
        ("deregister", reference("Deregistered")),
        ("error", reference("ErrorBody")),
    ];
    let renewed = [
        ("renewed", unsigned()),
        ("lost_lease_ids", list(lease_id())),
        ("next_renewal_ms", unsigned()),
    ];
    vec![
        ("Registered", object(&registered, &names, false)),
        ("Updated", object(&[("revision", unsigned())], &["revision"], false)),
        ("Deregistered", object(&removed, &["existed", "revision"], false)),
        ("Page", object(&page, &["instances", "next_page_token", "resume_token"], false)),
        (
            "BatchResults",
            object(&[("results", list(object(&result, &[], false)))], &["results"], false),
        ),
        ("Renewed", object(&renewed, &["renewed", "lost_lease_ids", "next_renewal_ms"], false)),
    ]
}

fn find() -> Vec<(&'static str, Value)> {
    let score = [
        ("total", number()),
        ("region_match", number()),
        ("free_capacity", number()),
        ("freshness", number()),
    ];
    let candidate = [("instance", reference("Instance")), ("score", reference("Score"))];
    let exclusion = [
        ("key", reference("Key")),
        ("reason", json!({ "type": "string" })),
        ("detail", json!({ "type": "string" })),
    ];
    let discovered = [
        ("candidates", list(object(&candidate, &["instance", "score"], false))),
        ("exclusions", list(object(&exclusion, &["key", "reason", "detail"], false))),
        ("matched", unsigned()),
    ];
    let event = [
        ("type", json!({ "enum": ["put", "deregistered", "expired", "removed"] })),
        ("revision", unsigned()),
        ("partition", unsigned()),
        ("key", reference("Key")),
        ("record", reference("Record")),
        ("previous", reference("Record")),
        ("created", boolean()),
    ];
    let message = [
        ("events", list(object(&event, &["type", "revision", "partition", "key"], false))),
        ("resume_token", json!({ "type": "string" })),
        ("present", list(reference("Key"))),
        ("present_partition", unsigned()),
    ];
    vec![
        ("Score", object(&score, &["total"], false)),
        ("Discovered", object(&discovered, &["candidates", "exclusions", "matched"], false)),
        ("WatchMessage", object(&message, &["events", "resume_token"], false)),
    ]
}

fn cluster() -> Vec<(&'static str, Value)> {
    let text = || json!({ "type": "string" });
    let partition = [
        "partition",
        "term",
        "leader_id",
        "commit_index",
        "applied_index",
        "revision",
        "records",
        "leases",
        "snapshot_index",
        "suspect_domains",
        "state_hash",
        "is_suspect",
    ];
    let schema = |name: &str| match name {
        "leader_id" => node_id(),
        "state_hash" => json!({ "type": "string" }),
        "is_suspect" => boolean(),
        _ => unsigned(),
    };
    let partition: Vec<(&str, Value)> = partition.iter().map(|n| (*n, schema(n))).collect();
    let status = [
        ("cluster_id", text()),
        ("node_id", node_id()),
        ("version", text()),
        ("build_profile", json!({ "enum": ["release", "debug"] })),
        ("uptime_ms", unsigned()),
        ("writable", boolean()),
        ("message", text()),
        ("partitions", list(object(&partition, &["partition"], false))),
        ("wal_bytes", unsigned()),
        ("region", text()),
        ("trust_sha256", text()),
        ("certificate_sha256", text()),
        ("certificate_not_after_unix_ms", unsigned()),
    ];
    let member = [("node_id", node_id()), ("client_address", text()), ("zone", text())];
    let route =
        [("partition", unsigned()), ("replica_ids", list(node_id())), ("leader_id", node_id())];
    let routing = [
        ("epoch", unsigned()),
        ("partition_count", unsigned()),
        ("members", list(object(&member, &["node_id"], false))),
        ("partitions", list(object(&route, &["partition"], false))),
    ];
    let taken = [
        ("partition", unsigned()),
        ("index", unsigned()),
        ("revision", unsigned()),
        ("records", unsigned()),
        ("bytes", unsigned()),
        ("file", text()),
    ];
    let snapshots = [("snapshots", list(object(&taken, &["partition", "file"], false)))];
    let which = json!({ "type": "array", "items": { "type": "integer", "minimum": 0,
        "maximum": 1023 } });
    vec![
        ("Members", members()),
        ("Status", object(&status, &["cluster_id", "node_id", "partitions"], false)),
        ("Routing", object(&routing, &["epoch", "partition_count", "partitions"], false)),
        ("SnapshotRequest", object(&[("partitions", which)], &[], false)),
        ("Snapshots", object(&snapshots, &["snapshots"], false)),
        ("Health", object(&[("status", text())], &["status"], false)),
    ]
}

/// Everybody who ever joined, and where the partitions are.
fn members() -> Value {
    let text = || json!({ "type": "string" });
    let member = [
        ("node_id", node_id()),
        ("name", text()),
        ("client_address", text()),
        ("peer_address", text()),
        ("region", text()),
        ("zone", text()),
        ("state", json!({ "enum": ["active", "draining", "left"] })),
        ("replaces", node_id()),
    ];
    let placement = [
        ("partition", unsigned()),
        ("wanted", list(node_id())),
        ("wanted_version", unsigned()),
        ("voters", list(node_id())),
        ("learners", list(node_id())),
        ("leader_id", node_id()),
        ("reached_version", unsigned()),
    ];
    let fields = [
        ("version", unsigned()),
        ("author_epoch", unsigned()),
        ("replication", unsigned()),
        ("system_leader_id", node_id()),
        ("system_voters", list(node_id())),
        ("members", list(object(&member, &["node_id", "client_address", "state"], false))),
        ("placements", list(object(&placement, &["partition", "leader_id"], false))),
    ];
    object(&fields, &["version", "replication", "members", "placements"], false)
}

/// All schemas by name.
pub fn all() -> Value {
    let amounts = ["cpu", "bandwidth", "memory", "storage"].map(|name| (name, number()));
    let key = [("namespace", name(0)), ("kind", reference("Kind")), ("name", name(0))];
    let load = [("lease_id", lease_id()), ("free", reference("Capacity"))];
    let mut ids = list(lease_id());
    ids["maxItems"] = json!(limits::RENEW_LEASES_MAX);
    let renewal =
        [("lease_ids", ids), ("loads", list(object(&load, &["lease_id", "free"], false)))];
    let drain = [("drain_ms", unsigned()), ("successor", name(0))];
    let one_of = |field: &str, schema: Value| object(&[(field, schema)], &[field], false);
    let operation = json!({ "oneOf": [
        one_of("register", kinded("GatewayRegistration or AgentRegistration", &[])),
        one_of("update", kinded("GatewayPatch or AgentPatch", &[])),
        one_of("deregister", kinded("a deregistration", &drain)),
    ] });
    let operations = json!({ "type": "array", "items": operation, "minItems": 1,
        "maxItems": limits::BATCH_OPERATIONS_MAX });
    let mut out: Vec<(&str, Value)> = vec![
        ("Kind", json!({ "type": "string", "enum": ["gateway", "agent"] })),
        ("Key", object(&key, &["namespace", "kind", "name"], false)),
        ("Capacity", object(&amounts, &[], false)),
        ("GatewayRegistration", registration(true)),
        ("AgentRegistration", registration(false)),
        ("GatewayPatch", patch(true)),
        ("AgentPatch", patch(false)),
        ("Batch", object(&[("operations", operations)], &["operations"], false)),
        ("Renewal", object(&renewal, &["lease_ids"], false)),
        ("Record", object(&record_fields(), &RECORD_REQUIRED, false)),
        ("Instance", instance()),
        ("ErrorBody", error()),
        ("Error", object(&[("error", reference("ErrorBody"))], &["error"], false)),
    ];
    out.extend(answers());
    out.extend(find());
    out.extend(cluster());
    Value::Object(out.into_iter().map(|(name, schema)| (name.to_owned(), schema)).collect())
}
