//! The gRPC interface from outside, with tonic's client: what others' clients will see.
#![allow(missing_docs)]

mod support;

use agni_core::proto::api;
use agni_server::services::cluster_service_client::ClusterServiceClient;
use support::{key, raw_call, register, start};
use tonic::Code;
use tonic::transport::Channel;

#[tokio::test]
async fn a_record_lives_through_all_calls() {
    let running = start();
    let mut client = running.client().await;
    let mut request = register("a", "eu");
    request.ttl_ms = 60_000;
    let made = client.register(request.clone()).await.expect("register").into_inner();
    assert!(made.created && made.lease_id != 0 && made.next_renewal_ms > 0);
    let again = client.register(request).await.expect("repeat").into_inner();
    assert!(!again.created);
    assert_eq!((again.revision, again.lease_id), (made.revision, made.lease_id));

    let get = api::GetRequest { key: Some(key("a")), read: None };
    let found = client.get(get.clone()).await.expect("get").into_inner();
    let header = found.header.expect("header");
    assert_eq!(header.cluster_id.len(), 32);
    let instance = found.instance.expect("instance");
    assert!(instance.lease_remaining_ms.expect("lease") > 50_000);
    let record = instance.record.expect("record");
    assert_eq!(record.spec, Some(support::spec("eu")));
    assert_eq!(record.revision, made.revision);

    let free = api::Capacity { cpu: 0.5, ..api::Capacity::default() };
    let renew = api::RenewRequest {
        lease_ids: vec![made.lease_id, 77],
        loads: vec![api::LeaseLoad { lease_id: made.lease_id, free: Some(free) }],
    };
    let renewed = client.renew(renew).await.expect("renew").into_inner();
    assert_eq!((renewed.renewed, &renewed.lost_lease_ids[..]), (1, &[77][..]));
    let load =
        client.get(get.clone()).await.expect("get").into_inner().instance.and_then(|i| i.load);
    assert_eq!(load.and_then(|load| load.free), Some(free));

    let update = api::UpdateRequest {
        key: Some(key("a")),
        spec: Some(api::Spec { region: "us".into(), ..api::Spec::default() }),
        update_mask: Some(prost_types::FieldMask { paths: vec!["region".into()] }),
        ..api::UpdateRequest::default()
    };
    assert!(client.update(update).await.expect("update").into_inner().revision > made.revision);
    let gone = api::DeregisterRequest { key: Some(key("a")), ..api::DeregisterRequest::default() };
    assert!(client.deregister(gone.clone()).await.expect("deregister").into_inner().existed);
    assert!(!client.deregister(gone).await.expect("deregister").into_inner().existed);
    assert_eq!(client.get(get).await.expect_err("gone").code(), Code::NotFound);
}

#[tokio::test]
async fn a_batch_answers_each_write_for_itself() {
    use api::write_operation::Operation;
    use api::write_result::Result as R;
    let running = start();
    let mut client = running.client().await;
    let operation = |operation| api::WriteOperation { operation: Some(operation) };
    let mut bad = register("b", "eu");
    bad.ttl_ms = 5;
    let missing =
        api::DeregisterRequest { key: Some(key("none")), ..api::DeregisterRequest::default() };
    let operations = vec![
        operation(Operation::Register(register("a", "eu"))),
        operation(Operation::Register(bad)),
        operation(Operation::Deregister(missing)),
        api::WriteOperation { operation: None },
    ];
    let request = api::BatchRequest { operations };
    let results = client.batch(request).await.expect("batch").into_inner().results;
    let results: Vec<R> = results.into_iter().filter_map(|result| result.result).collect();
    assert!(matches!(&results[0], R::Register(made) if made.created));
    assert!(matches!(&results[1], R::Error(e) if e.metadata["field"] == "ttl_ms"));
    assert!(matches!(&results[2], R::Deregister(gone) if !gone.existed));
    assert!(matches!(&results[3], R::Error(e) if e.code == Code::InvalidArgument as i32));
}

#[tokio::test]
async fn pages_show_one_state_and_end_with_a_resume_token() {
    let running = start();
    let mut client = running.client().await;
    for i in 0..25 {
        client.register(register(&format!("g{i}"), "eu")).await.expect("register");
    }
    let (mut names, mut token, mut pages) = (Vec::new(), String::new(), 0);
    let resume = loop {
        let request =
            api::ListRequest { page_size: 7, page_token: token, ..api::ListRequest::default() };
        let page = client.list(request).await.expect("list").into_inner();
        names.extend(page.instances.into_iter().filter_map(|i| Some(i.record?.key?.name)));
        // What comes in between isn't seen by later pages.
        client.register(register(&format!("later{pages}"), "eu")).await.expect("register");
        pages += 1;
        token = page.next_page_token;
        if token.is_empty() {
            break page.resume_token;
        }
    };
    names.sort();
    names.dedup();
    assert_eq!((names.len(), pages), (25, 4));
    let request = api::WatchRequest { resume_token: resume, ..api::WatchRequest::default() };
    let mut watch = client.watch(request).await.expect("watch").into_inner();
    let mut seen = Vec::new();
    while seen.len() < pages {
        let message = watch.message().await.expect("message").expect("more");
        seen.extend(message.events.into_iter().filter_map(|event| Some(event.key?.name)));
    }
    seen.sort();
    assert_eq!(seen, ["later0", "later1", "later2", "later3"]);
}

#[tokio::test]
async fn discover_prefers_the_region_and_explains() {
    let running = start();
    let mut client = running.client().await;
    for (name, region) in [("eu1", "eu"), ("eu2", "eu"), ("us1", "us")] {
        client.register(register(name, region)).await.expect("register");
    }
    let filter = api::Filter { kind: api::Kind::Gateway as i32, ..api::Filter::default() };
    let request = api::DiscoverRequest {
        filter: Some(filter),
        region: "eu".into(),
        limit: 3,
        explain: true,
        explain_names: vec!["nobody".into()],
        ..api::DiscoverRequest::default()
    };
    let found = client.discover(request).await.expect("discover").into_inner();
    let regions: Vec<String> = found
        .candidates
        .iter()
        .filter_map(|c| Some(c.instance.clone()?.record?.spec?.region))
        .collect();
    assert_eq!(regions, ["eu", "eu", "us"]);
    assert_eq!(found.matched, 3);
    assert_eq!(found.exclusions[0].reason(), api::ExclusionReason::NotRegistered);
    assert!(found.candidates[0].score.expect("score").total > 0.5);
}

#[tokio::test]
async fn keep_alive_answers_in_order() {
    let running = start();
    let mut client = running.client().await;
    let mut request = register("a", "eu");
    request.ttl_ms = 60_000;
    let lease = client.register(request).await.expect("register").into_inner().lease_id;
    let renewal = |ids: Vec<u64>| api::RenewRequest { lease_ids: ids, loads: Vec::new() };
    let requests = vec![renewal(vec![lease]), renewal(vec![5]), renewal(vec![lease, lease])];
    let mut answers =
        client.keep_alive(tokio_stream::iter(requests)).await.expect("stream").into_inner();
    let mut renewed = Vec::new();
    while let Some(answer) = answers.message().await.expect("answer") {
        renewed.push(answer.renewed);
    }
    assert_eq!(renewed, [1, 0, 2]);
}

#[tokio::test]
async fn refusals_carry_reason_field_and_trace() {
    let running = start();
    let mut client = running.client().await;
    client.register(register("a", "eu")).await.expect("register");
    let mut taken = register("a", "us");
    taken.expected_revision = Some(0);
    let status = client.register(taken).await.expect_err("exists");
    assert_eq!(status.code(), Code::AlreadyExists);
    assert_eq!(support::reason_in(status.details()).as_deref(), Some("ALREADY_EXISTS"));
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let path = "/agniregistry.api.v1.RegistryService/Get";
    let headers = [("traceparent", parent)];
    let answer = raw_call(&running.address(), path, &headers, support::frame(&[])).await;
    assert_eq!(answer.grpc_status, Some(Code::InvalidArgument as i32));
    assert_eq!(answer.headers["traceparent"], parent);
    let details = String::from_utf8_lossy(&answer.metadata).into_owned();
    assert!(details.contains("4bf92f3577b34da6a3ce929d0e0e4736") && details.contains("field"));
}

#[tokio::test]
async fn cluster_calls_and_standard_services_answer() {
    let running = start();
    let channel = Channel::from_shared(format!("http://{}", running.address())).expect("uri");
    let mut client = ClusterServiceClient::new(channel.connect().await.expect("connect"));
    let status = client.status(api::StatusRequest {}).await.expect("status").into_inner();
    assert_eq!((status.partitions.len(), status.writable), (4, true));
    let routing = client.routing(api::RoutingRequest {}).await.expect("routing").into_inner();
    assert_eq!(routing.partition_count, 4);
    let request = api::SnapshotRequest { partitions: vec![1, 3] };
    let taken = client.snapshot(request).await.expect("snapshot").into_inner().snapshots;
    assert_eq!(taken.iter().map(|s| s.partition).collect::<Vec<_>>(), [1, 3]);
    let path = "/grpc.health.v1.Health/Check";
    let health = raw_call(&running.address(), path, &[], support::frame(&[])).await;
    assert_eq!((health.grpc_status, &health.data[..]), (Some(0), &[0, 0, 0, 0, 2, 8, 1][..]));
}
