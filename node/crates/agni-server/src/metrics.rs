//! What the server counts. `METRICS` is the one list of names; `docs/operations.md` is made from
//! it, and `http::metrics` tells it to Prometheus.

use crate::call::Call;
use crate::peer::queue::Depth;
use crate::status::Code;
use agni_core::metrics::Histogram;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

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
        "Time to a call's answer, or until a stream is open, by method; HTTP and gRPC alike.",
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
    ("agni_queue_depth", Kind::Gauge, "Requests that wait for the driver."),
    (
        "agni_queue_limit",
        Kind::Gauge,
        "Requests that may wait for the driver; registrations get three quarters of it.",
    ),
    ("agni_disk_full_total", Kind::Counter, "Commands refused because the disk was full."),
    ("agni_renewals_total", Kind::Counter, "Leases renewed."),
    ("agni_renewals_lost_total", Kind::Counter, "Renewals of leases that were gone."),
    ("agni_expired_total", Kind::Counter, "Records removed because their lease ran out."),
    (
        "agni_expiry_spared_total",
        Kind::Counter,
        "Records named for expiry that had been renewed or changed in time.",
    ),
    (
        "agni_mass_expiries_total",
        Kind::Counter,
        "Times that the mass-expiry guard began to hold a region, or what is behind a gateway.",
    ),
    (
        "agni_stalled_seconds_total",
        Kind::Counter,
        "Time in which the process stood still; leases don't count it.",
    ),
    (
        "agni_leases_voided_total",
        Kind::Counter,
        "Leases of leaders given up because the node stood still or its wall clock jumped.",
    ),
    (
        "agni_quorum_rounds_total",
        Kind::Counter,
        "Rounds in which a leader asked a quorum whether it still leads.",
    ),
    ("agni_snapshots_total", Kind::Counter, "Snapshots taken."),
    ("agni_snapshots_failed_total", Kind::Counter, "Snapshots that failed."),
    ("agni_backups_total", Kind::Counter, "Backups streamed to their end."),
    ("agni_backups_failed_total", Kind::Counter, "Backups that broke off."),
    (
        "agni_backup_bytes_total",
        Kind::Counter,
        "Bytes of snapshot files streamed into backups, those of other nodes included.",
    ),
    ("agni_backup_seconds", Kind::Histogram, "Time of a backup that was streamed to its end."),
    ("agni_connections", Kind::Gauge, "Open connections."),
    ("agni_connections_total", Kind::Counter, "Connections accepted."),
    (
        "agni_connections_refused_total",
        Kind::Counter,
        "Connections closed at once because there were too many.",
    ),
    (
        "agni_tls_handshake_failures_total",
        Kind::Counter,
        "TLS handshakes that came to nothing, as server and as client, by reason.",
    ),
    (
        "agni_tls_certificate_expiry_seconds",
        Kind::Gauge,
        "Time until the node's certificate ends, negative afterwards; +Inf without TLS.",
    ),
    ("agni_tls_reloads_total", Kind::Counter, "Times that new TLS files were taken."),
    (
        "agni_tls_reload_failures_total",
        Kind::Counter,
        "New TLS files that could not be used; the node stays with those before.",
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
    ("agni_disk_free_bytes", Kind::Gauge, "Free bytes where the data directory is."),
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
        "Regions and gateways whose silent leases the mass-expiry guard holds, by partition.",
    ),
    ("agni_leader", Kind::Gauge, "1 where this node leads the partition, else 0."),
    ("agni_replica", Kind::Gauge, "1 where this node holds a replica of the partition, else 0."),
    ("agni_term", Kind::Gauge, "Raft term, by partition."),
    ("agni_commit_index", Kind::Gauge, "Newest committed log index, by partition."),
    ("agni_applied_index", Kind::Gauge, "Newest applied log index, by partition."),
    (
        "agni_state_mismatches_total",
        Kind::Counter,
        "Comparisons in which another replica held something else than this one, by partition.",
    ),
    (
        "agni_state_checked_index",
        Kind::Gauge,
        "Newest log index at which this replica was compared with another one, by partition.",
    ),
    (
        "agni_state_suspect",
        Kind::Gauge,
        "1 where this replica differs from another one and may be wrong, else 0, by partition.",
    ),
    (
        "agni_replica_lag_entries",
        Kind::Gauge,
        "Log entries that another replica lacks, by partition and its node, as the leader knows.",
    ),
    (
        "agni_replica_alive",
        Kind::Gauge,
        "1 while the leader hears of another replica, by partition and its node.",
    ),
    ("agni_voters", Kind::Gauge, "Voting replicas as last agreed upon, by partition."),
    ("agni_replicas_wanted", Kind::Gauge, "Replicas that the placement wants, by partition."),
    ("agni_replication", Kind::Gauge, "Replicas that every partition should have."),
    ("agni_members", Kind::Gauge, "Members of the cluster, by state."),
    (
        "agni_system_leader",
        Kind::Gauge,
        "1 where this node leads the group that knows members and placement, else 0.",
    ),
    (
        "agni_node_info",
        Kind::Gauge,
        "Always 1: the node's id, name, zone and region, its cluster and its version.",
    ),
    (
        "agni_forwarded_total",
        Kind::Counter,
        "Requests carried to the node that leads their partition.",
    ),
    (
        "agni_forward_failures_total",
        Kind::Counter,
        "Requests carried to a node that refused or didn't answer; most are tried again.",
    ),
    (
        "agni_peer_connected",
        Kind::Gauge,
        "1 while there is a connection to another node, by its node id.",
    ),
    (
        "agni_peer_queue_messages",
        Kind::Gauge,
        "Raft messages that wait for another node, by its node id.",
    ),
    ("agni_peer_queue_bytes", Kind::Gauge, "Bytes of these, by node id."),
    ("agni_peer_messages_sent_total", Kind::Counter, "Raft messages sent to other nodes."),
    ("agni_peer_messages_received_total", Kind::Counter, "Raft messages of other nodes taken."),
    (
        "agni_peer_messages_dropped_total",
        Kind::Counter,
        "Raft messages that found no place or no connection; Raft repeats them.",
    ),
    (
        "agni_peer_refused_total",
        Kind::Counter,
        "Messages of other nodes that were refused: wrong cluster, removed or wrong sender.",
    ),
    (
        "agni_peer_connects_total",
        Kind::Counter,
        "Connections made to other nodes; several to each where many packets are lost.",
    ),
    ("agni_peer_snapshots_sent_total", Kind::Counter, "Snapshots that another node has taken."),
    (
        "agni_peer_snapshots_failed_total",
        Kind::Counter,
        "Snapshots for another node that could not be sent to their end.",
    ),
    ("agni_peer_snapshot_bytes_sent_total", Kind::Counter, "Bytes of snapshots sent."),
    ("agni_peer_snapshot_bytes_received_total", Kind::Counter, "Bytes of snapshots received."),
    ("process_cpu_seconds_total", Kind::Counter, "Processor time of the process."),
    ("process_resident_memory_bytes", Kind::Gauge, "Memory of the process that is in RAM."),
    ("process_open_fds", Kind::Gauge, "Open file descriptors."),
    ("process_max_fds", Kind::Gauge, "File descriptors that may be open."),
];

/// One method's figures.
#[derive(Default)]
pub struct Method {
    /// How long its calls took, in microseconds.
    pub microseconds: Histogram,
    /// How many ended with which status.
    pub codes: [AtomicU64; CODES],
}

/// What is counted of the traffic between nodes.
#[derive(Default)]
pub struct PeerMetrics {
    /// Raft messages sent.
    pub sent: AtomicU64,
    /// Raft messages taken.
    pub received: AtomicU64,
    /// Raft messages that found no place.
    pub dropped: AtomicU64,
    /// What was refused of others.
    pub refused: AtomicU64,
    /// Connections made.
    pub connects: AtomicU64,
    /// Snapshots taken by others.
    pub snapshots_sent: AtomicU64,
    /// Snapshots that didn't arrive.
    pub snapshots_failed: AtomicU64,
    /// Bytes of snapshots sent.
    pub snapshot_bytes_sent: AtomicU64,
    /// Bytes of snapshots received.
    pub snapshot_bytes_received: AtomicU64,
    /// The other nodes, and whether there is a connection to each.
    pub connected: Mutex<BTreeMap<u64, bool>>,
    /// The other nodes, and what waits for each.
    pub queues: Mutex<BTreeMap<u64, Arc<Depth>>>,
}

/// What is counted of backups.
#[derive(Default)]
pub struct BackupMetrics {
    /// Streamed to their end.
    pub finished: AtomicU64,
    /// Broken off.
    pub failed: AtomicU64,
    /// Bytes of files.
    pub bytes: AtomicU64,
    /// How long those took that were streamed to their end, in microseconds.
    pub microseconds: Histogram,
}

/// What the server counts.
#[derive(Default)]
pub struct ServerMetrics {
    /// The traffic between nodes.
    pub peer: Arc<PeerMetrics>,
    /// Backups.
    pub backup: BackupMetrics,
    /// By method, in the order of `Call::ALL`.
    pub methods: [Method; Call::ALL.len()],
    /// Connections accepted.
    pub accepted: AtomicU64,
    /// Connections closed at once.
    pub refused: AtomicU64,
    /// Open watches, of all runtimes.
    pub watches: AtomicUsize,
    /// Messages sent to watches.
    pub watch_messages: AtomicU64,
    /// Rounds in which changes were given to watches.
    pub watch_rounds: AtomicU64,
    /// Differences begun.
    pub watch_gaps: AtomicU64,
    /// Requests carried to another node.
    pub forwarded: AtomicU64,
    /// Those of them that it refused or didn't answer.
    pub forward_failures: AtomicU64,
}

impl ServerMetrics {
    /// Counts a unary call that ended.
    pub fn call(&self, call: Call, code: Code, microseconds: u64) {
        let method = &self.methods[call as usize];
        method.microseconds.observe(microseconds);
        method.codes[code as usize].fetch_add(1, Relaxed);
    }
}
