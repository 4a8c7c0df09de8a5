//! The HTTP/JSON interface from outside.
#![allow(missing_docs)]

mod support;

use serde_json::{Value, json};
use support::{start, start_with};

const ROADMAP: &str = r#"{"region":"global","gateway_ip":"12.34.56.78",
"gateway_domain":"global.gateway.agnistack.online","gateway_port":4000,
"capacity":{"cpu":1,"bandwidth":20,"memory":4096,"storage":40960}}"#;
const NAME: &str = "global.gateway.agnistack.online";

#[test]
fn the_roadmaps_message_is_a_registration_as_it_stands() {
    let running = start();
    let (status, _, made) = running.http("POST", "/v1/gateways", Some(ROADMAP));
    assert_eq!((status, &made["created"]), (201, &json!(true)));
    assert_eq!(made["key"], json!({"namespace":"default","kind":"gateway","name":NAME}));
    let (status, _, again) = running.http("POST", "/v1/gateways", Some(ROADMAP));
    assert_eq!((status, &again["created"]), (200, &json!(false)));
    let (status, head, found) = running.http("GET", &format!("/v1/gateways/{NAME}"), None);
    assert_eq!(status, 200);
    assert!(head.contains("x-agni-revision: 1") && head.contains("x-agni-partition"));
    let sent: Value = serde_json::from_str(ROADMAP).expect("json");
    for (field, value) in sent.as_object().expect("object") {
        match value {
            Value::Object(parts) => {
                for (part, amount) in parts {
                    assert_eq!(found[field][part].as_f64(), amount.as_f64(), "{field}.{part}");
                }
            }
            value => assert_eq!(&found[field], value, "{field}"),
        }
    }
    let (_, _, page) = running.http("GET", "/v1/gateways?region=global", None);
    assert_eq!(page["instances"].as_array().map(Vec::len), Some(1));
    let patch = Some(r#"{"region":"eu"}"#);
    assert_eq!(running.http("PATCH", &format!("/v1/gateways/{NAME}"), patch).0, 200);
    let (_, _, page) = running.http("GET", "/v1/gateways?region=global", None);
    assert_eq!(page["instances"], json!([]));
    let (_, _, gone) = running.http("DELETE", &format!("/v1/gateways/{NAME}"), None);
    assert_eq!(gone["existed"], json!(true));
    assert_eq!(running.http("GET", &format!("/v1/gateways/{NAME}"), None).0, 404);
}

#[test]
fn each_refusal_has_status_reason_and_field() {
    let running = start();
    let cases = [
        ("POST", "/v1/gateways", "{", 400, "INVALID_FIELD", "body"),
        ("POST", "/v1/gateways", "[]", 400, "INVALID_FIELD", "body"),
        (
            "POST",
            "/v1/gateways",
            r#"{"region":"x","name":"a","nonsense":1}"#,
            400,
            "INVALID_FIELD",
            "nonsense",
        ),
        ("POST", "/v1/gateways", r#"{"region":5}"#, 400, "INVALID_FIELD", "region"),
        (
            "POST",
            "/v1/gateways",
            r#"{"region":"x","capacity":{"cpu":"1"}}"#,
            400,
            "INVALID_FIELD",
            "capacity.cpu",
        ),
        (
            "POST",
            "/v1/gateways",
            r#"{"region":"x","name":"a","port":0}"#,
            400,
            "INVALID_FIELD",
            "port",
        ),
        (
            "POST",
            "/v1/gateways",
            r#"{"region":"x","name":"a","port":1,"gateway_port":1}"#,
            400,
            "INVALID_FIELD",
            "port",
        ),
        (
            "POST",
            "/v1/agents",
            r#"{"region":"x","name":"a","gateway_port":1}"#,
            400,
            "INVALID_FIELD",
            "gateway_port",
        ),
        ("POST", "/v1/agents", r#"{"name":"a"}"#, 400, "INVALID_FIELD", "spec.region"),
        (
            "POST",
            "/v1/agents",
            r#"{"region":"x","name":"a","ttl_ms":1}"#,
            400,
            "INVALID_FIELD",
            "ttl_ms",
        ),
        (
            "POST",
            "/v1/agents",
            r#"{"region":"x","name":"a","payload":"%%"}"#,
            400,
            "INVALID_FIELD",
            "payload",
        ),
        ("POST", "/v1/leases/renew", r#"{"lease_ids":["x"]}"#, 400, "INVALID_FIELD", "lease_ids"),
        (
            "POST",
            "/v1/batch",
            r#"{"operations":[{"register":{"region":"x","kind":"cow"}}]}"#,
            400,
            "INVALID_FIELD",
            "operations[0].kind",
        ),
        ("GET", "/v1/gateways?nonsense=1", "", 400, "INVALID_FIELD", "nonsense"),
        ("GET", "/v1/gateways?page_size=5000", "", 400, "INVALID_FIELD", "page_size"),
        ("GET", "/v1/gateways?page_token=x", "", 400, "PAGE_TOKEN_INVALID", "page_token"),
        ("GET", "/v1/watch?resume_token=x", "", 400, "RESUME_TOKEN_INVALID", "resume_token"),
        ("GET", "/v1/watch?kind=cow", "", 400, "INVALID_FIELD", "kind"),
        ("GET", "/v1/discover", "", 400, "INVALID_FIELD", "filter.kind"),
        ("GET", "/v1/gateways/%ff", "", 400, "INVALID_FIELD", "name"),
    ];
    for (method, path, body, status, reason, field) in cases {
        let (got, _, answer) = running.http(method, path, Some(body));
        let error = &answer["error"];
        assert_eq!(got, status, "{method} {path} {body}: {answer}");
        assert_eq!(
            (&error["reason"], &error["field"]),
            (&json!(reason), &json!(field)),
            "{answer}"
        );
    }
    let (status, head, answer) = running.http("PUT", "/v1/gateways", None);
    assert_eq!((status, &answer["error"]["reason"]), (405, &json!("METHOD_NOT_ALLOWED")));
    assert!(head.contains("allow: get, post"));
    assert_eq!(running.http("GET", "/v1/nothing", None).0, 404);
    let (status, _, _) =
        running.http_raw("POST", "/v1/gateways", "region: x", "content-type: text/yaml\r\n");
    assert_eq!(status, 415);
}

#[test]
fn conflicts_and_large_bodies_have_their_status() {
    let running = start_with(|config| config.max_message_bytes = 64 << 10);
    assert_eq!(running.http("POST", "/v1/gateways", Some(ROADMAP)).0, 201);
    let mut taken: Value = serde_json::from_str(ROADMAP).expect("json");
    taken["region"] = "eu".into();
    taken["expected_revision"] = 0.into();
    let (status, _, answer) = running.http("POST", "/v1/gateways", Some(&taken.to_string()));
    assert_eq!((status, &answer["error"]["reason"]), (409, &json!("ALREADY_EXISTS")));
    taken["expected_revision"] = 9.into();
    let (status, _, answer) = running.http("POST", "/v1/gateways", Some(&taken.to_string()));
    assert_eq!((status, &answer["error"]["reason"]), (409, &json!("REVISION_MISMATCH")));
    assert_eq!(answer["error"]["metadata"]["stored_revision"], json!("1"));
    let large = format!(r#"{{"region":"{}"}}"#, "x".repeat(70 << 10));
    assert_eq!(running.http("POST", "/v1/gateways", Some(&large)).0, 413);
}

#[test]
fn health_figures_and_document_are_served() {
    let running = start();
    running.http("POST", "/v1/gateways", Some(ROADMAP));
    for path in ["/healthz", "/readyz", "/v1/status", "/v1/routing", "/v1/members"] {
        assert_eq!(running.http("GET", path, None).0, 200, "{path}");
    }
    let (_, _, document) = running.http("GET", "/openapi.json", None);
    assert_eq!(document["openapi"], json!("3.1.0"));
    let (_, head, text) = running.http_raw("GET", "/metrics", "", "");
    assert!(head.contains("text/plain; version=0.0.4"));
    // Figures of other nodes, of which this one has none.
    let of_others = [
        "agni_replica_lag_entries",
        "agni_replica_alive",
        "agni_peer_connected",
        "agni_peer_queue_messages",
        "agni_peer_queue_bytes",
    ];
    for (name, kind, _) in agni_server::metrics::METRICS {
        let sample = match kind {
            _ if of_others.contains(name) => format!("\n# TYPE {name}"),
            agni_server::metrics::Kind::Histogram => format!("\n{name}_count"),
            _ => format!("\n{name}"),
        };
        assert!(text.contains(&sample), "{name} is listed but not served");
        assert!(text.contains(&format!("# HELP {name} ")), "{name} has no help");
    }
    assert!(text.contains("agni_rpc_total{method=\"Register\",code=\"OK\"} 1"));
}

#[test]
fn a_drain_ends_watches_and_leaves_nobody_waiting() {
    use std::io::{Read, Write};
    let running = start();
    let address = running.server.local_address();
    let mut stream = std::net::TcpStream::connect(address).expect("connect");
    stream.set_read_timeout(Some(std::time::Duration::from_secs(5))).expect("timeout");
    stream.write_all(b"GET /v1/watch HTTP/1.1\r\nhost: x\r\n\r\n").expect("write");
    // Only a watch that has announced itself is one that a drain must end in words.
    let mut begun = Vec::new();
    while !String::from_utf8_lossy(&begun).contains("event: created") {
        let mut chunk = [0; 4096];
        let length = stream.read(&mut chunk).expect("the watch's first event");
        assert!(length > 0, "the watch ended before its first event");
        begun.extend_from_slice(&chunk[..length]);
    }
    let reader = std::thread::spawn(move || {
        let mut rest = String::new();
        let _ = stream.read_to_string(&mut rest);
        rest
    });
    running.server.drain(5_000);
    assert!(!running.server.ready());
    let rest = reader.join().expect("reader");
    assert!(rest.contains("SHUTTING_DOWN"), "{rest}");
    running.server.stop();
}
