//! What is counted, told to Prometheus in its text format.

use crate::call::Call;
use crate::metrics::{BackupMetrics, Kind, METRICS, PeerMetrics, ServerMetrics};
use crate::node::Node;
use crate::ops::cluster::build_profile;
use crate::peer::queue::Depth;
use crate::process;
use crate::status::{Code, code_word};
use crate::tls::{Reason, Tls, TlsMetrics};
use agni_core::engine::PartitionState;
use agni_core::env::{Disk, RealDisk};
use agni_core::metrics::{EngineMetrics, HISTOGRAM_BUCKETS, Histogram};
use agni_core::proto::node::{MemberState, PartitionPlacement};
use agni_core::raft::cell::Follower;
use agni_core::system::{self, SYSTEM_PARTITION};
use std::fmt::Write as _;
use std::sync::atomic::Ordering::Relaxed;

struct Text {
    out: String,
    scale: f64,
}

impl Text {
    fn head(&mut self, name: &str) {
        let Some((_, kind, help)) = METRICS.iter().find(|(known, ..)| *known == name) else {
            debug_assert!(false, "{name} is not in METRICS");
            return;
        };
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        let _ = writeln!(self.out, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn value(&mut self, name: &str, labels: &str, value: f64) {
        let _ = writeln!(self.out, "{name}{labels} {value}");
    }

    fn single(&mut self, name: &str, value: u64) {
        self.head(name);
        self.value(name, "", value as f64);
    }

    fn buckets(&mut self, name: &str, label: &str, histogram: &Histogram) {
        let (counts, sum) = histogram.read();
        let comma = if label.is_empty() { "" } else { "," };
        let mut total = 0;
        for (i, count) in counts.iter().enumerate().take(HISTOGRAM_BUCKETS) {
            total += count;
            let bound = match Histogram::bound(i) {
                Some(bound) => format!("{}", bound as f64 / self.scale),
                None => "+Inf".to_owned(),
            };
            let _ = writeln!(self.out, "{name}_bucket{{{label}{comma}le=\"{bound}\"}} {total}");
        }
        let braces = if label.is_empty() { String::new() } else { format!("{{{label}}}") };
        self.value(&format!("{name}_sum"), &braces, sum as f64 / self.scale);
        self.value(&format!("{name}_count"), &braces, total as f64);
    }

    fn histogram(&mut self, name: &str, scale: f64, histogram: &Histogram) {
        self.head(name);
        self.scale = scale;
        self.buckets(name, "", histogram);
    }
}

/// Everything that is counted, in Prometheus' text format.
pub fn text(node: &Node) -> String {
    let mut text = Text { out: String::with_capacity(32 << 10), scale: 1e6 };
    calls(&mut text, &node.metrics);
    engine(&mut text, node.engine.metrics());
    let metrics = &node.metrics;
    backups(&mut text, &metrics.backup);
    text.single("agni_connections", node.open_connections() as u64);
    text.single("agni_connections_total", metrics.accepted.load(Relaxed));
    text.single("agni_connections_refused_total", metrics.refused.load(Relaxed));
    tls(&mut text, node.tls.as_deref());
    text.single("agni_watches", metrics.watches.load(Relaxed) as u64);
    text.single("agni_watch_messages_total", metrics.watch_messages.load(Relaxed));
    text.single("agni_watch_rounds_total", metrics.watch_rounds.load(Relaxed));
    text.single("agni_watch_gaps_total", metrics.watch_gaps.load(Relaxed));
    state(&mut text, node);
    cluster(&mut text, node);
    text.single("agni_forwarded_total", metrics.forwarded.load(Relaxed));
    text.single("agni_forward_failures_total", metrics.forward_failures.load(Relaxed));
    peers(&mut text, &metrics.peer);
    process(&mut text);
    text.out
}

/// Figures of TLS, zeros without it: who watches them need not know which nodes speak it.
fn tls(text: &mut Text, tls: Option<&Tls>) {
    let none = TlsMetrics::default();
    let metrics = tls.map_or(&none, |tls| &tls.metrics);
    text.head("agni_tls_handshake_failures_total");
    for (reason, count) in Reason::ALL.iter().zip(&metrics.handshake_failures) {
        let labels = format!("{{reason=\"{}\"}}", reason.word());
        text.value("agni_tls_handshake_failures_total", &labels, count.load(Relaxed) as f64);
    }
    text.head("agni_tls_certificate_expiry_seconds");
    let left = tls.map_or("+Inf".to_owned(), |tls| tls.expires_in_s().to_string());
    let _ = writeln!(text.out, "agni_tls_certificate_expiry_seconds {left}");
    text.single("agni_tls_reloads_total", metrics.reloads.load(Relaxed));
    text.single("agni_tls_reload_failures_total", metrics.reload_failures.load(Relaxed));
}

fn calls(text: &mut Text, metrics: &ServerMetrics) {
    text.head("agni_rpc_seconds");
    text.scale = 1e6;
    for (call, method) in Call::ALL.into_iter().zip(&metrics.methods) {
        text.buckets(
            "agni_rpc_seconds",
            &format!("method=\"{}\"", call.name()),
            &method.microseconds,
        );
    }
    text.head("agni_rpc_total");
    for (call, method) in Call::ALL.into_iter().zip(&metrics.methods) {
        for (code, count) in method.codes.iter().enumerate() {
            let count = count.load(Relaxed);
            if count > 0 {
                let code = code_word(Code::from_i32(code as i32));
                let name = call.name();
                let labels = format!("{{method=\"{name}\",code=\"{code}\"}}");
                text.value("agni_rpc_total", &labels, count as f64);
            }
        }
    }
}

fn engine(text: &mut Text, metrics: &EngineMetrics) {
    text.histogram("agni_queue_seconds", 1e6, &metrics.queue_us);
    text.histogram("agni_fsync_seconds", 1e6, &metrics.fsync_us);
    text.histogram("agni_apply_seconds", 1e6, &metrics.apply_us);
    text.histogram("agni_snapshot_seconds", 1e6, &metrics.snapshot_us);
    text.histogram("agni_expiry_lag_seconds", 1e3, &metrics.expiry_lag_ms);
    text.histogram("agni_batch_entries", 1.0, &metrics.batch_entries);
    text.histogram("agni_batch_bytes", 1.0, &metrics.batch_bytes);
    let counters = [
        ("agni_proposals_total", &metrics.proposals),
        ("agni_overloaded_total", &metrics.overloaded),
        ("agni_disk_full_total", &metrics.disk_full),
        ("agni_renewals_total", &metrics.renewals),
        ("agni_renewals_lost_total", &metrics.renewals_lost),
        ("agni_expired_total", &metrics.expired),
        ("agni_expiry_spared_total", &metrics.expiry_spared),
        ("agni_leases_voided_total", &metrics.leases_voided),
        ("agni_quorum_rounds_total", &metrics.rounds),
        ("agni_mass_expiries_total", &metrics.mass_expiries),
        ("agni_snapshots_total", &metrics.snapshots),
        ("agni_snapshots_failed_total", &metrics.snapshots_failed),
    ];
    for (name, counter) in counters {
        text.single(name, counter.load(Relaxed));
    }
    text.head("agni_stalled_seconds_total");
    let stalled_s = metrics.stalled_us.load(Relaxed) as f64 / 1e6;
    text.value("agni_stalled_seconds_total", "", stalled_s);
}

/// The cluster, as this node knows it.
fn cluster(text: &mut Text, node: &Node) {
    let state = node.engine.system_state();
    type Count = fn(&PartitionPlacement) -> usize;
    let gauges: [(&str, Count); 2] = [
        ("agni_voters", |p| p.reported.as_ref().map_or(0, |set| set.voters.len())),
        ("agni_replicas_wanted", |p| p.wanted.len()),
    ];
    for (name, count) in gauges {
        text.head(name);
        for placement in &state.partitions {
            let labels = format!("{{partition=\"{}\"}}", placement.partition);
            text.value(name, &labels, count(placement) as f64);
        }
    }
    text.single("agni_replication", u64::from(state.replication));
    text.head("agni_members");
    for (word, wanted) in [
        ("active", MemberState::Active),
        ("draining", MemberState::Draining),
        ("left", MemberState::Left),
    ] {
        let count = state.members.iter().filter(|member| member.state() == wanted).count();
        text.value("agni_members", &format!("{{state=\"{word}\"}}"), count as f64);
    }
    let me = node.engine.node_id();
    text.single("agni_system_leader", u64::from(node.engine.leader_of(SYSTEM_PARTITION) == me));
    let own = system::member(&state, me);
    let labels = [
        ("node_id", me.to_string()),
        ("name", own.map_or(String::new(), |member| member.name.clone())),
        ("zone", own.map_or(String::new(), |member| member.zone.clone())),
        ("region", node.config.region.clone()),
        ("cluster_id", node.cluster_id.clone()),
        ("version", node.config.version.clone()),
        ("build_profile", build_profile().to_owned()),
    ];
    let labels: Vec<String> =
        labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
    text.head("agni_node_info");
    text.value("agni_node_info", &format!("{{{}}}", labels.join(",")), 1.0);
}

/// A label's value as the text format wants it.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// The process, under the names that every Prometheus client gives these figures.
fn process(text: &mut Text) {
    let figures = process::look();
    text.head("process_cpu_seconds_total");
    text.value("process_cpu_seconds_total", "", figures.cpu_s);
    text.single("process_resident_memory_bytes", figures.resident_bytes);
    text.single("process_open_fds", figures.open_fds);
    text.single("process_max_fds", figures.fds_max);
}

fn backups(text: &mut Text, metrics: &BackupMetrics) {
    text.single("agni_backups_total", metrics.finished.load(Relaxed));
    text.single("agni_backups_failed_total", metrics.failed.load(Relaxed));
    text.single("agni_backup_bytes_total", metrics.bytes.load(Relaxed));
    text.histogram("agni_backup_seconds", 1e6, &metrics.microseconds);
}

fn peers(text: &mut Text, metrics: &PeerMetrics) {
    text.head("agni_peer_connected");
    for (node_id, is_connected) in &*metrics.connected.lock() {
        let labels = format!("{{node_id=\"{node_id}\"}}");
        text.value("agni_peer_connected", &labels, f64::from(u8::from(*is_connected)));
    }
    type Look = fn(&Depth) -> usize;
    let depths: [(&str, Look); 2] = [
        ("agni_peer_queue_messages", |depth| depth.messages.load(Relaxed)),
        ("agni_peer_queue_bytes", |depth| depth.bytes.load(Relaxed)),
    ];
    for (name, look) in depths {
        text.head(name);
        for (node_id, depth) in &*metrics.queues.lock() {
            text.value(name, &format!("{{node_id=\"{node_id}\"}}"), look(depth) as f64);
        }
    }
    let counters = [
        ("agni_peer_messages_sent_total", &metrics.sent),
        ("agni_peer_messages_received_total", &metrics.received),
        ("agni_peer_messages_dropped_total", &metrics.dropped),
        ("agni_peer_refused_total", &metrics.refused),
        ("agni_peer_connects_total", &metrics.connects),
        ("agni_peer_snapshots_sent_total", &metrics.snapshots_sent),
        ("agni_peer_snapshots_failed_total", &metrics.snapshots_failed),
        ("agni_peer_snapshot_bytes_sent_total", &metrics.snapshot_bytes_sent),
        ("agni_peer_snapshot_bytes_received_total", &metrics.snapshot_bytes_received),
    ];
    for (name, counter) in counters {
        text.single(name, counter.load(Relaxed));
    }
}

fn state(text: &mut Text, node: &Node) {
    let status = node.engine.status();
    text.single("agni_ready", u64::from(node.ready()));
    text.single("agni_disk_state", status.disk as u64);
    // One that can't be asked says so when it is written to.
    let free = RealDisk.free_bytes(&node.config.engine.data_dir).unwrap_or(0);
    text.single("agni_disk_free_bytes", free);
    text.single("agni_wal_bytes", status.wal_bytes);
    text.single("agni_queue_depth", status.waiting as u64);
    text.single("agni_queue_limit", node.config.engine.queue_limit as u64);
    text.head("agni_uptime_seconds");
    text.value("agni_uptime_seconds", "", status.uptime_ms as f64 / 1000.0);
    let me = node.engine.node_id();
    type Read = fn(&PartitionState, u64) -> u64;
    let gauges: [(&str, Read); 10] = [
        ("agni_records", |p, _| p.records),
        ("agni_leases", |p, _| p.leases),
        ("agni_revision", |p, _| p.revision),
        ("agni_store_bytes", |p, _| p.memory_bytes),
        ("agni_suspect_domains", |p, _| u64::from(p.suspect_domains)),
        ("agni_leader", |p, me| u64::from(p.leader_id == me)),
        ("agni_replica", |p, _| u64::from(p.is_held)),
        ("agni_term", |p, _| p.term),
        ("agni_commit_index", |p, _| p.commit_index),
        ("agni_applied_index", |p, _| p.applied_index),
    ];
    for (name, read) in gauges {
        text.head(name);
        for partition in &status.partitions {
            let labels = format!("{{partition=\"{}\"}}", partition.partition);
            text.value(name, &labels, read(partition, me) as f64);
        }
    }
    type Compare = fn(&PartitionState) -> u64;
    let compared: [(&str, Compare); 3] = [
        ("agni_state_mismatches_total", |p| p.state_mismatches),
        ("agni_state_checked_index", |p| p.state_checked_index),
        ("agni_state_suspect", |p| u64::from(p.is_suspect)),
    ];
    for (name, read) in compared {
        text.head(name);
        for partition in &status.partitions {
            let labels = format!("{{partition=\"{}\"}}", partition.partition);
            text.value(name, &labels, read(partition) as f64);
        }
        text.value(name, "{partition=\"system\"}", read(&status.system) as f64);
    }
    type Look = fn(&Follower) -> u64;
    let gauges: [(&str, Look); 2] = [
        ("agni_replica_lag_entries", |follower| follower.behind),
        ("agni_replica_alive", |follower| u64::from(follower.is_alive)),
    ];
    for (name, look) in gauges {
        text.head(name);
        for partition in &status.partitions {
            for follower in &partition.followers {
                let (number, node_id) = (partition.partition, follower.node_id);
                let labels = format!("{{partition=\"{number}\",node_id=\"{node_id}\"}}");
                text.value(name, &labels, look(follower) as f64);
            }
        }
    }
}
