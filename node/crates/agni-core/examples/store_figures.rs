//! Prints what records of the roadmap's size cost: memory a record, and records applied in a
//! second of processor time.
//!
//! `cargo run --release -p agni-core --example store_figures [records] [ttl_ms]`

use std::time::Duration;

use agni_core::key::KeyRef;
use agni_core::lease::{GuardSettings, MassExpiry};
use agni_core::limits::EXPIRY_BATCH_LEASES_MAX;
use agni_core::proto::api::{Capacity, Key, Kind, Spec};
use agni_core::proto::node::command::Operation;
use agni_core::proto::node::{Command, Expire, Put, ReplicaSet};
use agni_core::ring::partition_of;
use agni_core::store::Store;
use bytes::Bytes;
use prost::Message;

const PARTITIONS: u32 = 16;

fn gateway(number: u64, ttl_ms: i64) -> Command {
    let domain = format!("g{number:07}.gateway.agnistack.online");
    let capacity = Capacity { cpu: 1.0, bandwidth: 20.0, memory: 4096.0, storage: 40960.0 };
    let spec = Spec {
        region: "global".into(),
        ip: "12.34.56.78".into(),
        domain: domain.clone(),
        port: 4000,
        capacity: Some(capacity),
        ..Spec::default()
    };
    let key = Key { namespace: "default".into(), kind: Kind::Gateway as i32, name: domain };
    let put = Put {
        key: Some(key),
        spec: Bytes::from(spec.encode_to_vec()),
        ttl_ms,
        incarnation: 1_795_000_000_000 + number,
        expected_revision: None,
    };
    Command { operation: Some(Operation::Put(put)), proposed_unix_ms: 1_795_000_000_000 }
}

/// Resident bytes of this process.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).unwrap_or(0) * 4096
}

/// Time that this thread has had on a processor: others on the machine don't count.
fn processor_time() -> Duration {
    let statistics = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let first = statistics.split(' ').next().and_then(|nanoseconds| nanoseconds.parse().ok());
    Duration::from_nanos(first.unwrap_or(0))
}

fn main() {
    let mut arguments = std::env::args().skip(1).map(|text| text.parse::<u64>().expect("a number"));
    let records = arguments.next().unwrap_or(1_000_000);
    let ttl_ms = arguments.next().unwrap_or(30_000) as i64;
    let before = resident();
    let mut stores: Vec<Store> = (0..PARTITIONS).map(Store::new).collect();
    let (mut elapsed, mut next) = (Duration::ZERO, 0);
    while next < records {
        // Commands are made in small batches outside the time that is taken.
        let commands: Vec<Command> =
            (next..records.min(next + 1_000)).map(|number| gateway(number, ttl_ms)).collect();
        let begun = processor_time();
        for command in &commands {
            let Some(Operation::Put(Put { key: Some(key), .. })) = &command.operation else {
                continue;
            };
            let partition = partition_of(KeyRef::of(key).hash(), PARTITIONS);
            let store = &mut stores[partition as usize];
            store.apply(store.applied().0 + 1, 1, command, 1_000_000);
        }
        elapsed += processor_time() - begun;
        next += commands.len() as u64;
    }
    let grown = resident() - before;
    let estimate: usize = stores.iter().map(Store::memory_bytes).sum();
    println!("records                 {records}");
    println!("applied a second        {:.0}", records as f64 / elapsed.as_secs_f64());
    println!("resident bytes a record {}", grown as u64 / records);
    println!("own estimate a record   {}", estimate as u64 / records);
    let begun = processor_time();
    stores.iter_mut().for_each(|store| store.grant_all(2_000_000));
    println!("grant_all               {:?}", processor_time() - begun);
    snapshot_and_restore(&mut stores);
    expire_all(&mut stores, 2_000_000 + ttl_ms as u64 + 50);
}

/// Removes what all falls due at once, in the batches of the engine.
fn expire_all(stores: &mut [Store], now_ms: u64) {
    let (mut removed, mut longest) = (0, Duration::ZERO);
    let mut guard = MassExpiry::new(GuardSettings { is_on: false, ..GuardSettings::default() });
    let begun = processor_time();
    guard.look(now_ms, &mut |look| stores.iter_mut().for_each(&mut *look), &mut vec![]);
    println!("looked at               {:?}", processor_time() - begun);
    for store in stores {
        loop {
            let taking = processor_time();
            let leases = store.take_due(now_ms, EXPIRY_BATCH_LEASES_MAX);
            if leases.is_empty() {
                break;
            }
            removed += leases.len();
            let operation =
                Some(Operation::Expire(Expire { proposer_term: 1, leases, claim: None }));
            let command = Command { operation, proposed_unix_ms: 0 };
            store.apply(store.applied().0 + 1, 1, &command, now_ms);
            longest = longest.max(processor_time() - taking);
        }
    }
    println!("expired                 {removed} in {:?}", processor_time() - begun);
    println!("longest batch           {longest:?}");
}

fn snapshot_and_restore(stores: &mut [Store]) {
    let begun = processor_time();
    let mut blocks = Vec::new();
    for store in stores {
        let mut cursor = store.begin_snapshot();
        let header = cursor.header([0; 16], ReplicaSet::default());
        let mut taken = Vec::new();
        while let Some(block) = store.snapshot_block(&mut cursor, 256 << 10) {
            taken.push(Bytes::from(block.encode_to_vec()));
        }
        store.end_snapshot(cursor);
        blocks.push((header, taken));
    }
    println!("snapshot, encoded       {:?}", processor_time() - begun);
    let begun = processor_time();
    for (header, taken) in blocks {
        let mut store = Store::new(header.partition);
        store.restore_header(&header);
        for block in taken {
            let block = prost::Message::decode(block).expect("it was just encoded");
            store.restore_block(block).expect("it was just taken");
        }
    }
    println!("restored, one thread    {:?}", processor_time() - begun);
}
