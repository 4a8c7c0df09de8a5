//! Each bad value is refused with its field's name; whatever is accepted holds what is promised.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn register() -> api::RegisterRequest {
    let capacity = api::Capacity { cpu: 1.0, bandwidth: 20.0, memory: 4096.0, storage: 40960.0 };
    api::RegisterRequest {
        key: Some(api::Key { kind: 1, ..api::Key::default() }),
        spec: Some(api::Spec {
            region: "global".into(),
            ip: "12.34.56.78".into(),
            domain: "global.gateway.agnistack.online".into(),
            port: 4000,
            capacity: Some(capacity),
            ..api::Spec::default()
        }),
        ttl_ms: 10_000,
        ..api::RegisterRequest::default()
    }
}

/// The field that is refused after a change of a good registration.
fn refused(change: impl FnOnce(&mut api::RegisterRequest, &mut api::Spec)) -> String {
    let mut request = register();
    let mut spec = request.spec.take().unwrap();
    change(&mut request, &mut spec);
    request.spec = request.spec.or(Some(spec));
    validate_register(&request).expect_err("must be refused").field
}

fn capacity(spec: &mut api::Spec) -> &mut api::Capacity {
    spec.capacity.get_or_insert_default()
}

#[test]
fn the_roadmaps_gateway_is_accepted_and_named_by_its_domain() {
    let key = validate_register(&register()).unwrap();
    assert_eq!(
        (key.namespace.as_str(), key.name.as_str()),
        ("default", "global.gateway.agnistack.online")
    );
}

#[test]
fn each_bad_field_of_a_registration_is_named() {
    let key = |request: &mut api::RegisterRequest| request.key.get_or_insert_default().clone();
    assert_eq!(refused(|r, _| r.key = None), "key");
    assert_eq!(refused(|r, _| r.key = Some(api::Key { kind: 3, ..key(r) })), "key.kind");
    assert_eq!(refused(|r, _| r.key = Some(api::Key { kind: 0, ..key(r) })), "key.kind");
    assert_eq!(refused(|r, _| r.key = Some(api::Key { kind: 2, ..key(r) })), "key.name");
    assert_eq!(refused(|r, _| r.key.as_mut().unwrap().name = "x".repeat(254)), "key.name");
    assert_eq!(refused(|r, _| r.key.as_mut().unwrap().name = "a\u{7}".into()), "key.name");
    assert_eq!(refused(|r, _| r.key.as_mut().unwrap().namespace = "a\0".into()), "key.namespace");
    assert_eq!(refused(|r, _| r.key.as_mut().unwrap().namespace = "*".into()), "key.namespace");
    assert_eq!(refused(|_, s| s.region.clear()), "spec.region");
    let name = |request: &mut api::RegisterRequest| {
        request.key.get_or_insert_default().name = "named".into();
    };
    let nowhere = |spec: &mut api::Spec| {
        (spec.ip, spec.domain, spec.port) = Default::default();
    };
    assert_eq!(refused(|r, s| (name(r), nowhere(s)).0), "spec.ip");
    assert_eq!(refused(|r, s| (name(r), s.port = 0).0), "spec.port");
    assert_eq!(refused(|_, s| s.region = "r".repeat(64)), "spec.region");
    for ip in ["300.1.1.1", "1.2.3", "host", "1.2.3.4 ", "::g", "01.2.3.4"] {
        assert_eq!(refused(|_, s| s.ip = ip.into()), "spec.ip", "{ip}");
    }
    for domain in ["a..b", "-a.b", "a b", "a/b", &"x".repeat(64)] {
        assert_eq!(refused(|_, s| s.domain = domain.into()), "spec.domain", "{domain}");
    }
    assert_eq!(refused(|_, s| s.port = 0), "spec.port");
    assert_eq!(refused(|_, s| s.port = 65_536), "spec.port");
    for bad in [-1.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        assert_eq!(refused(|_, s| capacity(s).cpu = bad), "spec.capacity.cpu");
        assert_eq!(refused(|_, s| capacity(s).storage = bad), "spec.capacity.storage");
    }
    let many = (0..65).map(|n| (format!("k{n}"), String::new())).collect::<BTreeMap<_, _>>();
    assert_eq!(refused(|_, s| s.labels = many), "spec.labels");
    assert_eq!(refused(|_, s| drop(s.labels.insert(String::new(), "v".into()))), "spec.labels");
    let long = "v".repeat(254);
    assert_eq!(refused(|_, s| drop(s.labels.insert("k".into(), long))), "spec.labels.k");
    assert_eq!(refused(|_, s| s.public_key = vec![0; 4_097].into()), "spec.public_key");
    assert_eq!(refused(|_, s| s.payload = vec![0; 8_193].into()), "spec.payload");
    for ttl_ms in [-1, 1, 999, 86_400_001, i64::MAX, i64::MIN] {
        assert_eq!(refused(|r, _| r.ttl_ms = ttl_ms), "ttl_ms");
    }
}

fn update(paths: &[&str], spec: api::Spec) -> api::UpdateRequest {
    api::UpdateRequest {
        key: Some(api::Key { kind: 2, name: "a".into(), ..api::Key::default() }),
        spec: Some(spec),
        update_mask: Some(prost_types::FieldMask {
            paths: paths.iter().map(|&path| path.to_owned()).collect(),
        }),
        ..api::UpdateRequest::default()
    }
}

#[test]
fn an_update_names_known_fields_and_checks_only_those() {
    let field = |request| validate_update(&request).map_err(|error| error.field);
    let spec = api::Spec::default;
    assert_eq!(field(update(&[], spec())).unwrap_err(), "update_mask");
    assert_eq!(field(update(&["colour"], spec())).unwrap_err(), "update_mask");
    assert_eq!(field(update(&["capacity.gpu"], spec())).unwrap_err(), "update_mask");
    assert_eq!(field(update(&["region"], spec())).unwrap_err(), "spec.region");
    let bad = api::Capacity { cpu: f64::NAN, ..api::Capacity::default() };
    let bad = api::Spec { capacity: Some(bad), ..spec() };
    assert_eq!(field(update(&["capacity.cpu"], bad)).unwrap_err(), "spec.capacity.cpu");
    for path in ["ip", "labels", "labels.a.b", "capacity", "capacity.memory", "payload"] {
        assert_eq!(field(update(&[path], spec())).unwrap().namespace, "default");
    }
}

#[test]
fn removals_renewals_and_filters_name_what_is_wrong() {
    let removal = |drain_ms, successor: &str| {
        let request = api::DeregisterRequest {
            key: Some(api::Key { kind: 2, name: "a".into(), ..api::Key::default() }),
            drain_ms,
            successor: successor.into(),
            ..api::DeregisterRequest::default()
        };
        validate_deregister(&request).map_err(|error| error.field)
    };
    assert!(removal(3_600_000, "b").is_ok());
    assert_eq!(removal(-1, "").unwrap_err(), "drain_ms");
    assert_eq!(removal(3_600_001, "").unwrap_err(), "drain_ms");
    assert_eq!(removal(0, "b").unwrap_err(), "successor");
    let renewal = api::RenewRequest { lease_ids: vec![1; 10_001], loads: Vec::new() };
    assert_eq!(validate_renew(&renewal).unwrap_err().field, "lease_ids");
    let loads = vec![api::LeaseLoad { lease_id: 1, free: None }];
    let renewal = api::RenewRequest { lease_ids: Vec::new(), loads };
    assert_eq!(validate_renew(&renewal).unwrap_err().field, "loads[0].free");
    let filter = |change: fn(&mut api::Filter)| {
        let mut filter = api::Filter::default();
        change(&mut filter);
        validate_filter(&filter).unwrap_err().field
    };
    assert!(validate_filter(&api::Filter { namespace: "*".into(), ..Default::default() }).is_ok());
    assert_eq!(filter(|f| f.kind = 9), "filter.kind");
    assert_eq!(filter(|f| f.regions = vec![String::new()]), "filter.regions");
    assert_eq!(filter(|f| f.statuses = vec![0]), "filter.statuses");
    assert_eq!(filter(|f| f.name_prefix = "\n".into()), "filter.name_prefix");
    let nan = |f: &mut api::Filter| {
        f.min_free = Some(api::Capacity { memory: f64::NAN, ..api::Capacity::default() });
    };
    assert_eq!(filter(nan), "filter.min_free.memory");
}

proptest! {
    #[test]
    fn an_accepted_key_is_within_its_bounds_and_printable(
        (namespace, name) in (".{0,90}", "\\PC{0,90}|.{0,90}"),
        kind in -1i32..4, domain in "[a-z.]{0,9}",
    ) {
        let given = api::Key { namespace: namespace.clone(), kind, name: name.clone() };
        match validate_key(Some(&given), &domain) {
            Ok(key) => {
                prop_assert!((1..=2).contains(&key.kind));
                for part in [&key.namespace, &key.name] {
                    prop_assert!((1..=NAME_BYTES_MAX).contains(&part.len()));
                    prop_assert!(!part.chars().any(char::is_control));
                }
                prop_assert!(key.name == name || (name.is_empty() && key.name == domain));
                prop_assert_eq!(validate_key(Some(&key), ""), Ok(key), "a checked key is good");
            }
            Err(error) => {
                let parts = ["key.namespace", "key.kind", "key.name"];
                prop_assert!(parts.contains(&error.field.as_str()));
                prop_assert!(!error.message.is_empty() && !error.message.ends_with('.'));
            }
        }
    }
}
