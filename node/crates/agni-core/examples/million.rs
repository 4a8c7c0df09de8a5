//! Memory and restart times of an engine with many of the roadmap's gateways:
//! `cargo run --release -p agni-core --example million -- DIR [RECORDS]`.

use agni_core::engine::{Engine, EngineConfig, NoPeers};
use agni_core::key::KeyRef;
use agni_core::proto::api::{Capacity, Key, Kind, Spec};
use agni_core::proto::node::{Command, Put, command::Operation};
use agni_core::raft::work::{Answer, Deliver, Submission, Ticket, Work};
use prost::Message as _;
use std::sync::mpsc::{Sender, channel};
use std::time::Instant;

struct Post(Sender<usize>);

impl Deliver for Post {
    fn answers(&mut self, answers: &mut Vec<(Ticket, Answer)>) {
        let failed = answers
            .iter()
            .find(|(_, answer)| !matches!(answer, Answer::Written { .. } | Answer::Snapshot(_)));
        assert!(failed.is_none(), "{failed:?}");
        let _ = self.0.send(answers.drain(..).count());
    }

    fn changed(&mut self, _partitions: &[u32]) {}
}

fn resident_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().split(' ').next()?.parse::<u64>().ok()).unwrap_or(0) / 1024
}

fn submission(engine: &Engine, number: usize) -> Submission {
    let name = format!("g{number:07}.gateway.agnistack.online");
    let spec = Spec {
        region: "global".into(),
        ip: "12.34.56.78".into(),
        domain: name.clone(),
        port: 4000,
        capacity: Some(Capacity { cpu: 1.0, bandwidth: 20.0, memory: 4096.0, storage: 40960.0 }),
        ..Spec::default()
    };
    let kind = Kind::Gateway;
    let partition = engine.partition_of(&KeyRef { namespace: "default", kind, name: &name });
    let key = Some(Key { namespace: "default".into(), kind: kind.into(), name });
    let spec = spec.encode_to_vec().into();
    let put = Put { key, spec, ttl_ms: 0, incarnation: 0, expected_revision: None };
    let command = Command { proposed_unix_ms: 0, operation: Some(Operation::Put(put)) };
    Submission { ticket: number as u64, partition, work: Work::Write(command) }
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let data_dir = arguments.next().expect("a folder for the data").into();
    let records: usize = arguments.next().map_or(1_000_000, |count| count.parse().expect("count"));
    let config = EngineConfig { data_dir, ..EngineConfig::default() };
    let (sender, answers) = channel();
    let started = Instant::now();
    let engine = Engine::start(config, Box::new(Post(sender)), Box::new(NoPeers)).expect("start");
    let held: u64 = engine.status().partitions.iter().map(|p| p.records).sum();
    println!("start {:?}, {held} records, {} MiB", started.elapsed(), resident_mib());
    if held == 0 {
        let started = Instant::now();
        let (mut sent, mut done) = (0, 0);
        while done < records {
            while sent < records && sent - done < 4096 {
                let last = (sent + 512).min(records);
                let mut batch = (sent..last).map(|n| submission(&engine, n)).collect();
                engine.submit(&mut batch);
                sent = last;
            }
            done += answers.recv().expect("answers");
        }
        println!("loaded in {:?}, {} MiB", started.elapsed(), resident_mib());
    } else if engine.status().partitions.iter().all(|p| p.snapshot_index == 0) {
        let started = Instant::now();
        for partition in 0..engine.partition_count() {
            let ticket = u64::from(partition);
            let mut batch = vec![Submission { ticket, partition, work: Work::Snapshot }];
            engine.submit(&mut batch);
        }
        let mut done = 0;
        while done < engine.partition_count() as usize {
            done += answers.recv().expect("answers");
        }
        println!("snapshots in {:?}, {} MiB", started.elapsed(), resident_mib());
    }
    engine.stop();
}
