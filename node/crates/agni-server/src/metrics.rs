//! What the server counts, and how all of it is told to Prometheus. `METRICS` is the one list of
//! names; `docs/operations.md` is made from it.

use crate::engine_api::{EngineMetrics, HISTOGRAM_BUCKETS, Histogram};
use crate::grpc::status::{Code, code_word};
use crate::node::Node;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Calls that are counted, by name.
pub const METHODS: [&str; 14] = [
    "Register",
    "Get",
    "List",
    "Update",
    "Deregister",
    "Batch",
    "Renew",
    "Discover",
    "KeepAlive",
    "Watch",
    "Status",
    "Routing",
    "Snapshot",
    "Other",
];
const CODES: usize = 17;

/// How a metric is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It only grows.
    Counter,
    /// It goes up and down.
    Gauge,
    /// Counts by size.
    Histogram,
}

/// Name, kind and meaning of every metric.
pub const METRICS: &[(&str, Kind, &str)] = &[
    (
        "agni_rpc_seconds",
        Kind::Histogram,
        "Time of a unary call from its message to its answer, by method; HTTP and gRPC alike.",
    ),
    ("agni_rpc_total", Kind::Counter, "Calls that ended, by method and gRPC status code."),
    ("agni_queue_seconds", Kind::Histogram, "Time that a submission waited for the driver."),
    ("agni_fsync_seconds", Kind::Histogram, "Time of one append to the log with its fdatasync."),
    (
        "agni_apply_seconds",
        Kind::Histogram,
        "Time to apply one partition's committed entries of a turn.",
    ),
    ("agni_snapshot_seconds", Kind::Histogram, "Time that one snapshot took."),
    (
        "agni_expiry_lag_seconds",
        Kind::Histogram,
        "Time between a lease's deadline and its removal.",
    ),
    ("agni_batch_entries", Kind::Histogram, "Entries in one fdatasync."),
    ("agni_batch_bytes", Kind::Histogram, "Bytes in one fdatasync."),
    ("agni_proposals_total", Kind::Counter, "Commands proposed."),
    ("agni_overloaded_total", Kind::Counter, "Submissions refused because a queue was full."),
    ("agni_disk_full_total", Kind::Counter, "Commands refused because the disk was full."),
    ("agni_renewals_total", Kind::Counter, "Leases renewed."),
    ("agni_renewals_lost_total", Kind::Counter, "Renewals of leases that were gone."),
    ("agni_expired_total", Kind::Counter, "Records removed because their lease ran out."),
    (
        "agni_expiry_spared_total",
        Kind::Counter,
        "Records named for expiry that had been renewed or changed in time.",
    ),
    ("agni_snapshots_total", Kind::Counter, "Snapshots taken."),
    ("agni_snapshots_failed_total", Kind::Counter, "Snapshots that failed."),
    ("agni_connections", Kind::Gauge, "Open connections."),
    ("agni_connections_total", Kind::Counter, "Connections accepted."),
    (
        "agni_connections_refused_total",
        Kind::Counter,
        "Connections closed at once because there were too many.",
    ),
    ("agni_watches", Kind::Gauge, "Open watches."),
    ("agni_watch_messages_total", Kind::Counter, "Messages sent to watches."),
    ("agni_watch_rounds_total", Kind::Counter, "Rounds in which changes were given to watches."),
    (
        "agni_watch_gaps_total",
        Kind::Counter,
        "Watches that fell so far behind that they were sent a difference.",
    ),
    ("agni_ready", Kind::Gauge, "1 while requests can be served."),
    (
        "agni_disk_state",
        Kind::Gauge,
        "0 while there is room, 1 while there is little, 2 while the disk is full.",
    ),
    ("agni_wal_bytes", Kind::Gauge, "Bytes of the write-ahead log on disk."),
    ("agni_uptime_seconds", Kind::Gauge, "Time since the start."),
    ("agni_records", Kind::Gauge, "Records, by partition."),
    ("agni_leases", Kind::Gauge, "Records with a lease, by partition."),
    ("agni_revision", Kind::Gauge, "Revision, by partition."),
    (
        "agni_store_bytes",
        Kind::Gauge,
        "Estimated memory of the records and their indexes, by partition.",
    ),
    (
        "agni_suspect_domains",
        Kind::Gauge,
        "Regions that the mass-expiry guard spares, by partition.",
    ),
];

/// One method's figures.
#[derive(Default)]
struct Method {
    microseconds: Histogram,
    codes: [AtomicU64; CODES],
}

/// What the server counts.
#[derive(Default)]
pub struct ServerMetrics {
    methods: [Method; METHODS.len()],
    /// Connections accepted.
    pub accepted: AtomicU64,
    /// Connections closed at once.
    pub refused: AtomicU64,
    /// Messages sent to watches.
    pub watch_messages: AtomicU64,
    /// Rounds in which changes were given to watches.
    pub watch_rounds: AtomicU64,
    /// Differences begun.
    pub watch_gaps: AtomicU64,
}

impl ServerMetrics {
    /// Counts a unary call that ended.
    pub fn call(&self, method: usize, code: Code, microseconds: u64) {
        let method = &self.methods[method.min(METHODS.len() - 1)];
        method.microseconds.observe(microseconds);
        method.codes[code as usize].fetch_add(1, Relaxed);
    }
}

/// The index of a method's figures.
pub fn method_index(name: &str) -> usize {
    METHODS.iter().position(|method| *method == name).unwrap_or(METHODS.len() - 1)
}

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
pub fn text(node: &Node, watches: usize) -> String {
    let mut text = Text { out: String::with_capacity(32 << 10), scale: 1e6 };
    calls(&mut text, &node.metrics);
    engine(&mut text, node.engine.metrics());
    let metrics = &node.metrics;
    text.single("agni_connections", node.open_connections() as u64);
    text.single("agni_connections_total", metrics.accepted.load(Relaxed));
    text.single("agni_connections_refused_total", metrics.refused.load(Relaxed));
    text.single("agni_watches", watches as u64);
    text.single("agni_watch_messages_total", metrics.watch_messages.load(Relaxed));
    text.single("agni_watch_rounds_total", metrics.watch_rounds.load(Relaxed));
    text.single("agni_watch_gaps_total", metrics.watch_gaps.load(Relaxed));
    state(&mut text, node);
    text.out
}

fn calls(text: &mut Text, metrics: &ServerMetrics) {
    text.head("agni_rpc_seconds");
    text.scale = 1e6;
    for (name, method) in METHODS.iter().zip(&metrics.methods) {
        text.buckets("agni_rpc_seconds", &format!("method=\"{name}\""), &method.microseconds);
    }
    text.head("agni_rpc_total");
    for (name, method) in METHODS.iter().zip(&metrics.methods) {
        for (code, count) in method.codes.iter().enumerate() {
            let count = count.load(Relaxed);
            if count > 0 {
                let code = code_word(Code::from_i32(code as i32));
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
        ("agni_snapshots_total", &metrics.snapshots),
        ("agni_snapshots_failed_total", &metrics.snapshots_failed),
    ];
    for (name, counter) in counters {
        text.single(name, counter.load(Relaxed));
    }
}

fn state(text: &mut Text, node: &Node) {
    let status = node.engine.status();
    text.single("agni_ready", u64::from(node.ready()));
    text.single("agni_disk_state", status.disk as u64);
    text.single("agni_wal_bytes", status.wal_bytes);
    text.head("agni_uptime_seconds");
    text.value("agni_uptime_seconds", "", status.uptime_ms as f64 / 1000.0);
    type Read = fn(&crate::engine_api::PartitionState) -> u64;
    let gauges: [(&str, Read); 5] = [
        ("agni_records", |p| p.records),
        ("agni_leases", |p| p.leases),
        ("agni_revision", |p| p.revision),
        ("agni_store_bytes", |p| p.memory_bytes),
        ("agni_suspect_domains", |p| u64::from(p.suspect_domains)),
    ];
    for (name, read) in gauges {
        text.head(name);
        for partition in &status.partitions {
            let labels = format!("{{partition=\"{}\"}}", partition.partition);
            text.value(name, &labels, read(partition) as f64);
        }
    }
}
