//! Watches from outside: order, once, resuming, gaps, filters.
#![allow(missing_docs)]

mod support;

use agni_core::proto::api::{self, EventType, WatchPhase};
use agni_server::services::registry_service_client::RegistryServiceClient;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::time::Duration;
use support::{Running, key, register, start, start_with};
use tonic::transport::Channel;
use tonic::{Code, Streaming};

type Client = RegistryServiceClient<Channel>;
type Watch = Streaming<api::WatchResponse>;

async fn open(client: &mut Client, request: api::WatchRequest) -> Watch {
    let mut watch = client.watch(request).await.expect("watch").into_inner();
    assert_eq!(next(&mut watch).await.phase(), WatchPhase::Created);
    watch
}

async fn next(watch: &mut Watch) -> api::WatchResponse {
    let message = tokio::time::timeout(Duration::from_secs(10), watch.message());
    message.await.expect("in time").expect("message").expect("more")
}

async fn deregister(client: &mut Client, name: &str) {
    let request = api::DeregisterRequest { key: Some(key(name)), ..Default::default() };
    client.deregister(request).await.expect("deregister");
}

fn name_of(event: &api::Event) -> String {
    event.key.as_ref().map(|key| key.name.clone()).unwrap_or_default()
}

async fn clients(running: &Running) -> (Client, Client) {
    (running.client().await, running.client().await)
}

#[tokio::test]
async fn every_change_comes_once_and_in_order_to_each_watch() {
    let running = start();
    let (mut writer, mut reader) = clients(&running).await;
    let mut watches = Vec::new();
    for _ in 0..20 {
        watches.push(open(&mut reader, api::WatchRequest::default()).await);
    }
    for round in 0..50 {
        writer
            .register(register(&format!("g{}", round % 10), &format!("r{round}")))
            .await
            .expect("register");
    }
    for watch in &mut watches {
        let (mut last, mut count) = (BTreeMap::new(), 0);
        while count < 50 {
            let message = next(watch).await;
            assert_eq!(message.phase(), WatchPhase::Live);
            for event in message.events {
                let before = last.insert(event.partition, event.revision).unwrap_or(0);
                assert_eq!(event.revision, before + 1, "partition {}", event.partition);
                assert!(event.record.is_some());
                count += 1;
            }
        }
    }
}

#[tokio::test]
async fn a_watch_resumes_without_gap_or_repetition() {
    let running = start();
    let (mut writer, mut reader) = clients(&running).await;
    let mut token = Vec::new().into();
    let mut seen = Vec::new();
    let mut watch = open(&mut reader, api::WatchRequest::default()).await;
    for i in 0..5 {
        writer.register(register(&format!("a{i}"), "eu")).await.expect("register");
    }
    while seen.len() < 3 {
        let message = next(&mut watch).await;
        seen.extend(message.events.iter().map(name_of));
        token = message.resume_token;
    }
    drop(watch);
    for i in 0..5 {
        writer.register(register(&format!("b{i}"), "eu")).await.expect("register");
    }
    let request = api::WatchRequest { resume_token: token, ..Default::default() };
    let mut watch = open(&mut reader, request).await;
    while seen.len() < 10 {
        seen.extend(next(&mut watch).await.events.iter().map(name_of));
    }
    seen.sort();
    let expected: Vec<String> =
        ["a", "b"].iter().flat_map(|c| (0..5).map(move |i| format!("{c}{i}"))).collect();
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn what_no_longer_matches_is_removed_and_removals_say_why() {
    let running = start();
    let (mut writer, mut reader) = clients(&running).await;
    let filter = api::Filter { regions: vec!["eu".into()], ..Default::default() };
    let request =
        api::WatchRequest { filter: Some(filter), include_previous: true, ..Default::default() };
    let mut watch = open(&mut reader, request).await;
    writer.register(register("other", "us")).await.expect("register");
    writer.register(register("a", "eu")).await.expect("register");
    writer.register(register("a", "us")).await.expect("register");
    writer.register(register("a", "eu")).await.expect("register");
    deregister(&mut writer, "a").await;
    let mut events = Vec::new();
    while events.len() < 4 {
        events.extend(next(&mut watch).await.events);
    }
    let kinds: Vec<EventType> = events.iter().map(api::Event::r#type).collect();
    use EventType::{Deregistered, Put, Removed};
    assert_eq!(kinds, [Put, Removed, Put, Deregistered]);
    assert!(events.iter().all(|event| name_of(event) == "a"));
    assert!(events[0].created && !events[2].created);
    assert!(events[1].record.is_none() && events[1].previous.is_some());
}

#[tokio::test]
async fn the_current_state_comes_first_if_it_is_asked_for() {
    let running = start();
    let (mut writer, mut reader) = clients(&running).await;
    for i in 0..700 {
        writer.register(register(&format!("g{i}"), "eu")).await.expect("register");
    }
    let request = api::WatchRequest { include_current: true, ..Default::default() };
    let mut watch = reader.watch(request).await.expect("watch").into_inner();
    let mut names = Vec::new();
    loop {
        let message = next(&mut watch).await;
        names.extend(message.events.iter().map(name_of));
        let is_whole = message.phase() == WatchPhase::Synced;
        assert_eq!(message.resume_token.is_empty(), !is_whole, "a token leaves out the rest");
        match message.phase() {
            WatchPhase::Created | WatchPhase::Sync => {}
            WatchPhase::Synced => break,
            other => panic!("{other:?} in the current state"),
        }
    }
    names.sort();
    names.dedup();
    assert_eq!(names.len(), 700);
    writer.register(register("new", "eu")).await.expect("register");
    assert_eq!(name_of(&next(&mut watch).await.events[0]), "new");
}

#[tokio::test]
async fn a_token_that_is_too_old_gets_the_difference() {
    let running = start_with(|config| config.engine.partitions = 1);
    let (mut writer, mut reader) = clients(&running).await;
    let mut watch = reader.watch(api::WatchRequest::default()).await.expect("watch").into_inner();
    writer.register(register("kept", "eu")).await.expect("register");
    writer.register(register("gone", "eu")).await.expect("register");
    let mut token = next(&mut watch).await.resume_token;
    let mut known = 0;
    while known < 2 {
        let message = next(&mut watch).await;
        known += message.events.len();
        token = message.resume_token;
    }
    drop(watch);
    deregister(&mut writer, "gone").await;
    // Enough bytes to push the beginning out of the event log.
    for i in 0..700_u32 {
        let mut request = register("large", "eu");
        request.spec.as_mut().expect("spec").payload = vec![i as u8; 8 << 10].into();
        request.incarnation = u64::from(i) + 1;
        writer.register(request).await.expect("register");
    }
    let request = api::WatchRequest { resume_token: token, ..Default::default() };
    let mut watch = open(&mut reader, request).await;
    assert_eq!(next(&mut watch).await.phase(), WatchPhase::Gap);
    let mut changes = BTreeMap::new();
    loop {
        let message = next(&mut watch).await;
        for event in &message.events {
            assert!(changes.insert(name_of(event), event.r#type()).is_none(), "told twice");
        }
        if message.phase() == WatchPhase::Synced {
            break;
        }
        assert_eq!(message.phase(), WatchPhase::Sync);
    }
    assert_eq!(changes.get("large"), Some(&EventType::Put));
    assert_eq!(changes.get("gone"), Some(&EventType::Deregistered));
    assert_eq!(changes.len(), 2);
    deregister(&mut writer, "kept").await;
    let message = next(&mut watch).await;
    assert_eq!((message.phase(), name_of(&message.events[0])), (WatchPhase::Live, "kept".into()));
}

#[tokio::test]
async fn a_difference_of_large_records_comes_in_messages_that_any_client_takes() {
    // gRPC's own limit is 4 MiB; ours leaves room.
    const MESSAGE_BYTES_MAX: usize = 1 << 20;
    const RECORDS: usize = 600;
    let running = start_with(|config| config.engine.partitions = 1);
    let (mut writer, mut reader) = clients(&running).await;
    let mut watch = reader.watch(api::WatchRequest::default()).await.expect("watch").into_inner();
    let token = next(&mut watch).await.resume_token;
    drop(watch);
    for i in 0..RECORDS {
        let mut request = register(&format!("g{i}"), "eu");
        request.spec.as_mut().expect("spec").payload = vec![i as u8; 8 << 10].into();
        writer.register(request).await.expect("register");
    }
    let request = api::WatchRequest { resume_token: token, ..Default::default() };
    let mut watch = open(&mut reader, request).await;
    assert_eq!(next(&mut watch).await.phase(), WatchPhase::Gap);
    let mut names = std::collections::BTreeSet::new();
    loop {
        let message = next(&mut watch).await;
        assert!(prost::Message::encoded_len(&message) <= MESSAGE_BYTES_MAX);
        for event in &message.events {
            assert!(names.insert(name_of(event)), "told twice");
        }
        if message.phase() == WatchPhase::Synced {
            break;
        }
    }
    assert_eq!(names.len(), RECORDS);
}

#[tokio::test]
async fn tokens_of_others_and_filters_on_load_are_refused() {
    let running = start();
    let other = start();
    let mut client = running.client().await;
    let mut there = other.client().await;
    let mut watch = there.watch(api::WatchRequest::default()).await.expect("watch").into_inner();
    let foreign = next(&mut watch).await.resume_token;
    let free = api::Capacity { cpu: 1.0, ..Default::default() };
    let filter = api::Filter { min_free: Some(free), ..Default::default() };
    let cases = [
        (api::WatchRequest { resume_token: foreign, ..Default::default() }, "RESUME_TOKEN_FOREIGN"),
        (
            api::WatchRequest { resume_token: vec![1, 2].into(), ..Default::default() },
            "RESUME_TOKEN_INVALID",
        ),
        (api::WatchRequest { filter: Some(filter), ..Default::default() }, "INVALID_FIELD"),
        (api::WatchRequest { progress_interval_ms: 1, ..Default::default() }, "INVALID_FIELD"),
    ];
    for (request, reason) in cases {
        let status = client.watch(request).await.expect_err(reason);
        assert_eq!(status.code(), Code::InvalidArgument);
        assert_eq!(support::reason_in(status.details()).as_deref(), Some(reason));
    }
    assert_eq!(running.server.watches(), 0);
}

#[tokio::test]
async fn progress_comes_when_nothing_else_does() {
    let running = start();
    let mut client = running.client().await;
    let request = api::WatchRequest { progress_interval_ms: 100, ..Default::default() };
    let mut watch = open(&mut client, request).await;
    for _ in 0..3 {
        assert_eq!(next(&mut watch).await.phase(), WatchPhase::Progress);
    }
}

#[tokio::test]
async fn a_reader_that_stops_reading_holds_nobody_up() {
    let running = start_with(|config| config.engine.partitions = 1);
    let (mut writer, mut reader) = clients(&running).await;
    let mut slow_client = running.client().await;
    let mut slow = open(&mut slow_client, api::WatchRequest::default()).await;
    let mut quick = open(&mut reader, api::WatchRequest::default()).await;
    let mut seen = 0;
    for i in 0..1_000_u32 {
        let mut request = register("large", "eu");
        request.spec.as_mut().expect("spec").payload = vec![i as u8; 8 << 10].into();
        request.incarnation = u64::from(i) + 1;
        writer.register(request).await.expect("register");
        if i % 50 == 49 {
            while seen < i + 1 {
                let message = next(&mut quick).await;
                assert_eq!(message.phase(), WatchPhase::Live);
                seen += message.events.len() as u32;
            }
        }
    }
    // The slow one has lost its place: it is told so, and ends up at the same state.
    let (mut gap, mut newest) = (false, 0);
    while newest < 1_000 {
        let message = next(&mut slow).await;
        gap |= message.phase() == WatchPhase::Gap;
        for event in message.events {
            newest = newest.max(event.record.map_or(0, |record| record.incarnation));
        }
    }
    assert!(gap, "8 MB can't all have been under way");
}

/// A copy of what matches, kept by the rules that docs/api.md gives.
#[derive(Default)]
struct Copy {
    token: bytes::Bytes,
    records: BTreeMap<String, u32>,
    seen: BTreeSet<String>,
    complete: BTreeSet<u32>,
    gaps: usize,
}

impl Copy {
    fn take(&mut self, message: api::WatchResponse) -> WatchPhase {
        let phase = message.phase();
        if phase == WatchPhase::Gap {
            self.gaps += 1;
            self.seen.clear();
            self.complete.clear();
        }
        for event in &message.events {
            self.seen.insert(name_of(event));
            match event.r#type() {
                EventType::Put => self.records.insert(name_of(event), event.partition),
                _ => self.records.remove(&name_of(event)),
            };
        }
        self.seen.extend(message.present.iter().map(|key| key.name.clone()));
        if message.present_complete {
            self.complete.insert(message.present_partition);
        }
        if phase == WatchPhase::Synced {
            let (seen, complete) = (&self.seen, &self.complete);
            self.records.retain(|name, part| !complete.contains(part) || seen.contains(name));
        }
        if !message.resume_token.is_empty() {
            self.token = message.resume_token;
        }
        phase
    }

    async fn until(&mut self, watch: &mut Watch, enough: impl Fn(&Copy, WatchPhase) -> bool) {
        loop {
            let phase = self.take(next(watch).await);
            if enough(self, phase) {
                return;
            }
        }
    }
}

/// A server that forgets removals and single changes at once.
fn forgetful(partitions: u32) -> Running {
    start_with(|config| {
        config.engine.partitions = partitions;
        let store = &mut config.engine.store;
        (store.events_max, store.tombstones_max) = (8, 2);
    })
}

/// Registers, or removes, those with these numbers.
async fn write_all(client: &mut Client, numbers: Range<usize>, payload: Option<Vec<u8>>) {
    use api::write_operation::Operation::{Deregister, Register};
    for number in numbers.clone().step_by(100) {
        let part = number..numbers.end.min(number + 100);
        let operations = part.map(|number| {
            let name = format!("g{number}");
            let operation = Some(match payload.clone() {
                Some(payload) => {
                    let mut request = register(&name, "eu");
                    // The newest content wins by its incarnation.
                    request.incarnation = payload.len() as u64 + 1;
                    request.spec.as_mut().expect("spec").payload = payload.into();
                    Register(request)
                }
                None => Deregister(api::DeregisterRequest {
                    key: Some(key(&name)),
                    ..Default::default()
                }),
            });
            api::WriteOperation { operation }
        });
        let request = api::BatchRequest { operations: operations.collect() };
        client.batch(request).await.expect("batch");
    }
}

async fn names_listed(client: &mut Client) -> BTreeSet<String> {
    let (mut names, mut page_token) = (BTreeSet::new(), String::new());
    loop {
        let request = api::ListRequest { page_size: 1_000, page_token, ..Default::default() };
        let page = client.list(request).await.expect("list").into_inner();
        let records = page.instances.into_iter().filter_map(|instance| instance.record);
        names.extend(records.filter_map(|record| record.key).map(|key| key.name));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return names;
        }
    }
}

/// A copy of so many records, of which the server has removed the first 80 since, and changed all
/// but the last 40.
async fn outdated(running: &Running, records: usize) -> Copy {
    let (mut writer, mut reader) = clients(running).await;
    write_all(&mut writer, 0..records, Some(Vec::new())).await;
    let request = api::WatchRequest { include_current: true, ..Default::default() };
    let mut watch = open(&mut reader, request).await;
    let mut copy = Copy::default();
    copy.until(&mut watch, |_, phase| phase == WatchPhase::Synced).await;
    assert_eq!(copy.records.len(), records);
    drop(watch);
    write_all(&mut writer, 0..80, None).await;
    write_all(&mut writer, 80..records - 40, Some(vec![7; 8 << 10])).await;
    copy
}

#[tokio::test]
async fn a_difference_that_breaks_in_the_middle_begins_again_as_a_whole() {
    let running = forgetful(4);
    let mut copy = outdated(&running, 160).await;
    let mut client = running.client().await;
    for complete in [1, 2, 3, 4] {
        let request = api::WatchRequest { resume_token: copy.token.clone(), ..Default::default() };
        let mut watch = open(&mut client, request).await;
        copy.until(&mut watch, |copy, _| copy.complete.len() == complete).await;
    }
    let request = api::WatchRequest { resume_token: copy.token.clone(), ..Default::default() };
    let mut watch = open(&mut client, request).await;
    copy.until(&mut watch, |_, phase| phase == WatchPhase::Synced).await;
    let names: BTreeSet<String> = copy.records.keys().cloned().collect();
    assert_eq!(names, names_listed(&mut client).await);
    assert_eq!(copy.gaps, 5);
}

#[tokio::test]
async fn a_difference_whose_state_was_lost_begins_again_as_a_whole() {
    let running = forgetful(2);
    // A partition takes more than a page, and the first one more than the connection holds.
    let mut copy = outdated(&running, 1_400).await;
    let (mut writer, mut reader) = clients(&running).await;
    let request = api::WatchRequest { resume_token: copy.token.clone(), ..Default::default() };
    let mut watch = open(&mut reader, request).await;
    copy.until(&mut watch, |copy, _| !copy.complete.is_empty()).await;
    // What was shown is removed, so that it is neither shown nor present in the pages to come.
    write_all(&mut writer, 80..200, None).await;
    copy.until(&mut watch, |_, phase| phase == WatchPhase::Synced).await;
    assert_eq!(copy.gaps, 2);
    let names: BTreeSet<String> = copy.records.keys().cloned().collect();
    assert_eq!(names, names_listed(&mut writer).await);
}
