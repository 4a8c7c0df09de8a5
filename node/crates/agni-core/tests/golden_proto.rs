//! Bytes that both languages agree on; tests/proto/test_golden.py is the other half.
//! AGNI_WRITE_GOLDEN=1 writes the files of this language anew, which is only right where the wire
//! is meant to change.

use agni_core::proto::api;
use prost::Message;
use std::path::PathBuf;

fn path(name: &str) -> PathBuf {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../tests/golden/proto");
    PathBuf::from(folder).join(format!("{name}.bin"))
}

fn read(name: &str) -> Vec<u8> {
    let path = path(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Decodes what the other language wrote, and encodes it to the very same bytes.
fn round_trip<M: Message + Default>(name: &str) -> M {
    let bytes = read(name);
    let message = M::decode(bytes.as_slice()).expect("the other language's bytes");
    assert_eq!(message.encode_to_vec(), bytes, "{name}");
    message
}

/// Holds what this language writes equal to what the other one reads.
fn written<M: Message + Default + PartialEq + std::fmt::Debug>(name: &str, message: &M) {
    let bytes = message.encode_to_vec();
    if std::env::var_os("AGNI_WRITE_GOLDEN").is_some() {
        std::fs::write(path(name), &bytes).expect("a writable folder");
    }
    assert_eq!(read(name), bytes, "{name}");
    assert_eq!(&round_trip::<M>(name), message, "{name}");
}

#[test]
fn what_python_wrote_is_read() {
    let request: api::RegisterRequest = round_trip("register_roadmap");
    let spec = request.spec.expect("a spec");
    assert_eq!(spec.domain, "global.gateway.agnistack.online");
    assert_eq!((spec.ip.as_str(), spec.port), ("12.34.56.78", 4000));
    let capacity = spec.capacity.expect("a capacity");
    assert_eq!((capacity.cpu, capacity.storage), (1.0, 40960.0));
    assert_eq!(request.expected_revision, None);

    let request: api::RegisterRequest = round_trip("register_everything");
    let (key, spec) = (request.key.expect("a key"), request.spec.expect("a spec"));
    assert_eq!((key.namespace.as_str(), key.name.as_str()), ("höhle", "agent-√"));
    assert_eq!(spec.labels.get("tier").map(String::as_str), Some("gold"));
    assert_eq!(spec.public_key.as_ref(), &[0, 1, 2, 3, 4, 255]);
    assert_eq!(request.incarnation, u64::MAX);
    // "Must not exist" and "doesn't matter" are different wishes.
    assert_eq!(request.expected_revision, Some(0));

    let request: api::UpdateRequest = round_trip("update_mask");
    assert_eq!(request.update_mask.expect("a mask").paths, ["port", "capacity.cpu"]);
    assert_eq!(request.expected_revision, Some((1 << 53) + 1));

    let request: api::RenewRequest = round_trip("renew_packed");
    assert_eq!(request.lease_ids, [1, (1 << 53) + 1, u64::MAX, 0]);

    let request: api::BatchRequest = round_trip("batch");
    let writes: Vec<_> = request.operations.into_iter().filter_map(|each| each.operation).collect();
    use api::write_operation::Operation::{Deregister, Register, Update};
    let [Register(register), Update(_), Deregister(deregister)] = &writes[..] else {
        panic!("{writes:?}");
    };
    assert_eq!(register.ttl_ms, 10_000);
    assert_eq!((deregister.drain_ms, deregister.expected_revision), (60_000, Some(0)));
}

/// Answers that agni-server writes by hand: its own tests hold them equal to these.
#[test]
fn answers_are_read_as_python_wrote_them() {
    let list: api::ListResponse = round_trip("list");
    assert_eq!(list.headers[1].age_ms, 5_000);
    assert_eq!(list.instances[0].lease_remaining_ms, Some(-1));
    assert_eq!(list.instances[1].lease_remaining_ms, None);
    let discover: api::DiscoverResponse = round_trip("discover");
    assert_eq!(discover.candidates[0].score.map(|score| score.freshness), Some(0.125));
    assert_eq!(discover.matched, 1 << 32);
    let live: api::WatchResponse = round_trip("watch_live");
    assert_eq!(live.events[2].r#type(), api::EventType::Expired);
    let sync: api::WatchResponse = round_trip("watch_present");
    assert!(sync.present_complete && sync.resume_token.is_empty());
}

#[test]
fn what_rust_writes_is_what_python_reads() {
    let key = |kind: api::Kind, namespace: &str, name: &str| api::Key {
        namespace: namespace.into(),
        kind: kind.into(),
        name: name.into(),
    };
    let spec = api::Spec {
        region: "global".into(),
        port: 4000,
        labels: [("tier".to_owned(), "gold".to_owned())].into(),
        ..Default::default()
    };
    let record = api::Record {
        key: Some(key(api::Kind::Gateway, "default", "a.example")),
        spec: Some(spec),
        incarnation: 7,
        lease_id: (3 << 53) + 1,
        ttl_ms: 10_000,
        create_revision: 1,
        revision: 5,
        version: 3,
        created_unix_ms: 1_795_443_408_007,
        updated_unix_ms: -1,
        draining: Some(api::Draining {
            deadline_unix_ms: 1_795_443_418_007,
            successor: "b.example".into(),
        }),
    };
    written("record", &record);
    let instance = api::Instance {
        record: Some(api::Record {
            key: Some(key(api::Kind::Agent, "", "x")),
            ..Default::default()
        }),
        status: api::Status::Suspect.into(),
        lease_remaining_ms: Some(0),
        load: Some(api::Load {
            free: Some(api::Capacity { cpu: 0.25, ..Default::default() }),
            age_ms: 1_500,
        }),
    };
    written("instance", &instance);
    let header = api::ResponseHeader {
        cluster_id: "000102030405060708090a0b0c0d0e0f".into(),
        partition: 1_023,
        revision: u64::MAX,
        term: 1,
        age_ms: 12,
    };
    written("header", &header);
}
