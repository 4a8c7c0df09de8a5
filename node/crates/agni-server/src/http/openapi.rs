//! The OpenAPI 3.1 document of the HTTP interface: its paths. Schemas are in `openapi_schemas`.

use crate::http::openapi_schemas::{self as schemas, object, reference};
use crate::limits;
use serde_json::{Map, Value, json};

/// The whole document.
pub fn document(version: &str) -> Value {
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "AgniRegistry",
            "version": version,
            "description": "Where gateways and agents announce themselves, stay alive and are \
                found. The same operations are served over gRPC on the same port.",
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "servers": [{ "url": "/" }],
        "tags": [
            { "name": "records", "description": "Register, read, change and remove records." },
            { "name": "leases", "description": "Stay alive." },
            { "name": "find", "description": "Discover and watch." },
            { "name": "cluster", "description": "Status, routing, snapshots, health." },
        ],
        "paths": paths(),
        "components": {
            "schemas": schemas::all(),
            "responses": { "Error": error_response() },
        },
    })
}

fn error_response() -> Value {
    json!({
        "description": "It was refused: reason is stable, message says what to do.",
        "headers": {
            "Retry-After": {
                "description": "When to try again, in seconds.",
                "schema": { "type": "integer" },
            },
        },
        "content": { "application/json": { "schema": reference("Error") } },
    })
}

/// The status codes of a refusal that any operation may answer with.
const REFUSALS: [&str; 11] =
    ["400", "404", "405", "409", "410", "413", "415", "429", "503", "504", "507"];

fn responses(good: &[(&str, &str, Value)]) -> Value {
    let mut out = Map::new();
    for (status, description, content) in good {
        let response = json!({ "description": description, "content": content });
        out.insert((*status).to_owned(), response);
    }
    for status in REFUSALS {
        out.insert(status.to_owned(), json!({ "$ref": "#/components/responses/Error" }));
    }
    out.insert("default".to_owned(), json!({ "$ref": "#/components/responses/Error" }));
    Value::Object(out)
}

fn json_content(schema: Value) -> Value {
    json!({ "application/json": { "schema": schema } })
}

struct Operation {
    id: &'static str,
    tag: &'static str,
    summary: &'static str,
    parameters: Vec<Value>,
    body: Option<&'static str>,
    good: Vec<(&'static str, &'static str, Value)>,
}

impl Operation {
    fn new(id: &'static str, tag: &'static str, summary: &'static str) -> Self {
        Operation { id, tag, summary, parameters: Vec::new(), body: None, good: Vec::new() }
    }

    fn parameters(mut self, parameters: Vec<Value>) -> Self {
        self.parameters.extend(parameters);
        self
    }

    fn body(mut self, schema: &'static str) -> Self {
        self.body = Some(schema);
        self
    }

    fn ok(self, schema: &'static str) -> Self {
        let content = json_content(reference(schema));
        self.answers("200", "It is done.", content)
    }

    fn answers(mut self, status: &'static str, description: &'static str, content: Value) -> Self {
        self.good.push((status, description, content));
        self
    }

    fn value(self) -> Value {
        let mut out = json!({
            "operationId": self.id,
            "tags": [self.tag],
            "summary": self.summary,
            "parameters": self.parameters,
            "responses": responses(&self.good),
        });
        if let Some(schema) = self.body {
            out["requestBody"] =
                json!({ "required": true, "content": json_content(reference(schema)) });
        }
        out
    }
}

fn query(name: &str, description: &str, schema: Value) -> Value {
    json!({ "name": name, "in": "query", "description": description, "schema": schema })
}

fn repeated(name: &str, description: &str, items: Value) -> Value {
    let schema = json!({ "type": "array", "items": items, "maxItems": limits::FILTER_VALUES_MAX });
    json!({
        "name": name,
        "in": "query",
        "description": description,
        "style": "form",
        "explode": true,
        "schema": schema,
    })
}

fn integer(least: i64, most: i64) -> Value {
    json!({ "type": "integer", "minimum": least, "maximum": most })
}

fn namespace() -> Value {
    query("namespace", "Empty means \"default\".", schemas::name(0))
}

fn path_name() -> Value {
    json!({
        "name": "name",
        "in": "path",
        "required": true,
        "description": "The record's name.",
        "schema": schemas::name(1),
    })
}

fn read_parameters() -> Vec<Value> {
    let consistency = json!({ "type": "string", "enum": ["linearizable", "leader", "stale"] });
    vec![
        query("consistency", "How fresh the answer has to be.", consistency),
        query(
            "max_staleness_ms",
            "For stale reads: the oldest that is acceptable, in milliseconds; 0 means any age.",
            integer(0, i64::MAX),
        ),
    ]
}

fn filter_parameters(region: &str, watch: bool) -> Vec<Value> {
    let amount = || json!({ "type": "number", "minimum": 0 });
    let mut out = vec![
        query("namespace", "Empty means \"default\", * means all.", schemas::name(0)),
        repeated(
            region,
            "Only in one of these regions.",
            schemas::text(1, limits::REGION_BYTES_MAX),
        ),
        repeated(
            "label",
            "key=value: only with this label; key alone: only with any value of it.",
            schemas::text(1, limits::NAME_BYTES_MAX),
        ),
        query("name_prefix", "Only names that begin with this.", schemas::name(0)),
        query("gateway", "Only agents behind this gateway.", schemas::name(0)),
    ];
    let resources = ["cpu", "bandwidth", "memory", "storage"];
    for resource in resources {
        let text = format!("Only with at least this much {resource} in total.");
        out.push(query(&format!("min_{resource}"), &text, amount()));
    }
    if !watch {
        for resource in resources {
            let text = format!("Only with at least this much {resource} free.");
            out.push(query(&format!("min_free_{resource}"), &text, amount()));
        }
        let status = json!({ "type": "string", "enum": ["alive", "suspect", "draining"] });
        out.push(repeated("status", "Only with one of these.", status));
    }
    out
}

fn kind_parameter(required: bool) -> Value {
    json!({
        "name": "kind",
        "in": "query",
        "required": required,
        "description": "Gateway or agent.",
        "schema": reference("Kind"),
    })
}

fn write_parameters() -> Vec<Value> {
    vec![
        namespace(),
        query("incarnation", "The owner's; 0 means as stored.", integer(0, i64::MAX)),
        query("expected_revision", "The revision that must be stored.", integer(0, i64::MAX)),
    ]
}

fn record_paths(plural: &str, kind: &str, body: &'static str) -> [(String, Value); 2] {
    let id = |verb: &str| -> &'static str {
        match (verb, kind) {
            ("register", "gateway") => "registerGateway",
            ("register", _) => "registerAgent",
            ("list", "gateway") => "listGateways",
            ("list", _) => "listAgents",
            ("get", "gateway") => "getGateway",
            ("get", _) => "getAgent",
            ("update", "gateway") => "updateGateway",
            ("update", _) => "updateAgent",
            (_, "gateway") => "deregisterGateway",
            _ => "deregisterAgent",
        }
    };
    let patch_body = if kind == "gateway" { "GatewayPatch" } else { "AgentPatch" };
    let created = json_content(reference("Registered"));
    let register = Operation::new(id("register"), "records", "Create a record or replace it.")
        .body(body)
        .ok("Registered")
        .answers("201", "It did not exist before.", created);
    let page = [
        query("page_size", "At most this many; 0 means 100.", integer(0, 1000)),
        query("page_token", "From the page before.", json!({ "type": "string" })),
    ];
    let list = Operation::new(id("list"), "records", "Read the records that match, in pages.")
        .parameters(filter_parameters("region", false))
        .parameters(page.to_vec())
        .parameters(read_parameters())
        .ok("Page");
    let get = Operation::new(id("get"), "records", "Read one record.")
        .parameters(vec![path_name(), namespace()])
        .parameters(read_parameters())
        .ok("Instance");
    let update = Operation::new(id("update"), "records", "Change the fields that are given.")
        .parameters(vec![path_name()])
        .body(patch_body)
        .ok("Updated");
    let drain = [
        query("drain_ms", "Stay as draining for this long.", integer(0, 3_600_000)),
        query("successor", "While draining: who takes over.", schemas::name(0)),
    ];
    let remove = Operation::new(id("deregister"), "records", "Remove a record.")
        .parameters(vec![path_name()])
        .parameters(write_parameters())
        .parameters(drain.to_vec())
        .ok("Deregistered");
    [
        (format!("/v1/{plural}"), json!({ "post": register.value(), "get": list.value() })),
        (
            format!("/v1/{plural}/{{name}}"),
            json!({ "get": get.value(), "patch": update.value(), "delete": remove.value() }),
        ),
    ]
}

fn find_paths() -> [(String, Value); 2] {
    let flag = || json!({ "type": "boolean" });
    let discover = Operation::new("discover", "find", "Find the best records for a need.")
        .parameters(vec![
            kind_parameter(true),
            query("region", "Preferred, not demanded.", schemas::text(0, limits::REGION_BYTES_MAX)),
            query("limit", "How many; 0 means 3.", integer(0, 100)),
            query("choices", "Candidates for each place; 0 means 2.", integer(0, 16)),
            query("explain", "Say what was left out, and why.", flag()),
            repeated("explain_name", "Names to explain.", schemas::name(1)),
        ])
        .parameters(filter_parameters("require_region", false))
        .parameters(read_parameters())
        .ok("Discovered");
    let stream = json!({ "text/event-stream": { "schema": { "type": "string" } } });
    let watch = Operation::new("watch", "find", "Follow changes as Server-Sent Events.")
        .parameters(vec![
            kind_parameter(false),
            query("include_current", "First send all that matches now.", flag()),
            query("include_previous", "Send records as they were before, too.", flag()),
            query("resume_token", "Go on after this.", json!({ "type": "string" })),
            query("progress_interval_ms", "0 means 10,000.", integer(0, 600_000)),
            json!({
                "name": "Last-Event-ID",
                "in": "header",
                "description": "As resume_token; sent by browsers that connect again.",
                "schema": { "type": "string" },
            }),
        ])
        .parameters(filter_parameters("region", true))
        .answers("200", "The stream: see WatchMessage for its data.", stream);
    [
        ("/v1/discover".to_owned(), json!({ "get": discover.value() })),
        ("/v1/watch".to_owned(), json!({ "get": watch.value() })),
    ]
}

fn paths() -> Value {
    let mut out = Map::new();
    out.extend(record_paths("gateways", "gateway", "GatewayRegistration"));
    out.extend(record_paths("agents", "agent", "AgentRegistration"));
    out.extend(find_paths());
    let renew = Operation::new("renew", "leases", "Extend leases.").body("Renewal").ok("Renewed");
    let batch = Operation::new("batch", "records", "Several writes, each with its own answer.")
        .body("Batch")
        .ok("BatchResults");
    let status = Operation::new("status", "cluster", "How this node does.").ok("Status");
    let routing = Operation::new("routing", "cluster", "The routing table.").ok("Routing");
    let members =
        Operation::new("members", "cluster", "Who is in the cluster, and where partitions are.")
            .ok("Members");
    let snapshots = Operation::new("snapshot", "cluster", "Take snapshots now.")
        .body("SnapshotRequest")
        .ok("Snapshots");
    let health = Operation::new("healthz", "cluster", "Whether the process lives.").ok("Health");
    let ready = Operation::new("readyz", "cluster", "Whether requests may be sent.").ok("Health");
    let text = json!({ "text/plain": { "schema": { "type": "string" } } });
    let metrics = Operation::new("metrics", "cluster", "Figures for Prometheus.").answers(
        "200",
        "Prometheus' text format.",
        text,
    );
    let document = Operation::new("openapi", "cluster", "This document.").answers(
        "200",
        "It.",
        json_content(object(&[], &[], true)),
    );
    let rest = [
        ("/v1/leases/renew", "post", renew),
        ("/v1/batch", "post", batch),
        ("/v1/status", "get", status),
        ("/v1/routing", "get", routing),
        ("/v1/members", "get", members),
        ("/v1/snapshots", "post", snapshots),
        ("/healthz", "get", health),
        ("/readyz", "get", ready),
        ("/metrics", "get", metrics),
        ("/openapi.json", "get", document),
    ];
    for (path, method, operation) in rest {
        out.insert(path.to_owned(), json!({ method: operation.value() }));
    }
    Value::Object(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn references(value: &Value, out: &mut Vec<String>) {
        match value {
            Value::Object(map) => {
                for (key, value) in map {
                    match value {
                        Value::String(text) if key == "$ref" => out.push(text.clone()),
                        value => references(value, out),
                    }
                }
            }
            Value::Array(items) => items.iter().for_each(|item| references(item, out)),
            _ => {}
        }
    }

    #[test]
    fn every_reference_leads_somewhere() {
        let document = document("1");
        let mut all = Vec::new();
        references(&document, &mut all);
        assert!(all.len() > 50);
        for reference in all {
            let path = reference.strip_prefix('#').expect("local");
            assert!(document.pointer(path).is_some(), "{reference}");
        }
    }

    #[test]
    fn operation_ids_are_unique() {
        let document = document("1");
        let mut ids = std::collections::BTreeSet::new();
        for (path, methods) in document["paths"].as_object().expect("paths") {
            for (method, operation) in methods.as_object().expect("methods") {
                let id = operation["operationId"].as_str().expect("id");
                assert!(ids.insert(id.to_owned()), "{method} {path}: {id}");
            }
        }
    }
}
