//! The threads around the sans-IO core: one drives it, one appends to the log, one writes
//! snapshots. Readers run on their own threads, under a partition's read lock.

mod config;
mod driver;
mod inbox;
mod log_thread;
mod meta;
mod open;
mod snapshot_thread;

pub use config::EngineConfig;

use crate::clock::{Clock, SystemClock};
use crate::error::StartError;
use crate::key::KeyRef;
use crate::lease::LeaseClock;
use crate::metrics::EngineMetrics;
use crate::raft::cell::PartitionCell;
use crate::raft::work::{Deliver, Refuse, Submission};
use crate::ring;
use crate::store::Store;
use crate::wal::DiskState;
use inbox::Inbox;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;

/// How fresh a read has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    /// Never older than what was complete when the read began.
    Linearizable,
    /// The leader's state under its clock-bound lease.
    Leader,
    /// At most this many milliseconds old; 0 means any age.
    Stale {
        /// The bound.
        max_ms: u64,
    },
    /// Whatever is here: for watches, which order themselves by revision.
    Local,
}

/// Which state a read shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadPoint {
    /// The partition's revision.
    pub revision: u64,
    /// The Raft term.
    pub term: u64,
    /// How old the state is, in milliseconds.
    pub age_ms: u64,
}

/// How one partition does.
#[derive(Debug, Clone, Default)]
pub struct PartitionState {
    /// The partition.
    pub partition: u32,
    /// The Raft term.
    pub term: u64,
    /// The leader; 0 when unknown.
    pub leader_id: u64,
    /// The newest committed index.
    pub commit_index: u64,
    /// The newest applied index.
    pub applied_index: u64,
    /// The revision.
    pub revision: u64,
    /// Records held.
    pub records: u64,
    /// Records with a lease.
    pub leases: u64,
    /// The newest snapshot's index; 0 without one.
    pub snapshot_index: u64,
    /// Regions that the mass-expiry guard spares.
    pub suspect_domains: u32,
    /// Memory of the store, in bytes, estimated.
    pub memory_bytes: u64,
}

/// How the node does.
#[derive(Debug, Clone)]
pub struct EngineStatus {
    /// Whether every partition is led and applied, and the engine isn't stopping.
    pub ready: bool,
    /// The disk.
    pub disk: DiskState,
    /// Bytes of the log on disk.
    pub wal_bytes: u64,
    /// Time since the start, in milliseconds.
    pub uptime_ms: u64,
    /// The partitions.
    pub partitions: Vec<PartitionState>,
}

/// A running engine; cheap to clone.
#[derive(Clone)]
pub struct Engine {
    shared: Arc<Shared>,
    threads: Arc<Mutex<Vec<JoinHandle<()>>>>,
}

/// What the threads and the readers share.
pub(crate) struct Shared {
    cells: Vec<Arc<PartitionCell>>,
    inbox: Inbox,
    metrics: Arc<EngineMetrics>,
    clock: Arc<dyn Clock>,
    lease_clock: Arc<LeaseClock>,
    cluster_id: [u8; 16],
    node_id: u64,
    disk: AtomicU8,
    wal_bytes: AtomicU64,
    started_ms: u64,
}

impl Engine {
    /// Recovers what the data directory holds and starts to serve it. Returns once every
    /// partition is led and has applied all that is committed.
    ///
    /// # Errors
    /// When the configuration, the directory or a file in it can't be used; nothing is changed
    /// on disk then but a torn tail that was cut, with a copy kept.
    pub fn start(config: EngineConfig, deliver: Box<dyn Deliver>) -> Result<Engine, StartError> {
        config.validate()?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let opened = open::open(&config, &clock)?;
        let metrics = Arc::new(EngineMetrics::default());
        let shared = Arc::new(Shared {
            cells: opened.groups.iter().map(|group| group.cell().clone()).collect(),
            inbox: Inbox::new(config.queue_limit),
            metrics: metrics.clone(),
            lease_clock: Arc::new(LeaseClock::new(clock.clone())),
            clock: clock.clone(),
            cluster_id: opened.meta.cluster_id,
            node_id: opened.meta.node_id,
            disk: AtomicU8::new(disk_code(DiskState::Ok)),
            wal_bytes: AtomicU64::new(opened.writer.bytes_on_disk()),
            started_ms: clock.boot_us() / 1000,
        });
        let threads = driver::spawn(&config, opened, shared.clone(), deliver)
            .map_err(|error| StartError::io(&config.data_dir, error))?;
        shared.inbox.wait_ready();
        Ok(Engine { shared, threads: Arc::new(Mutex::new(threads)) })
    }

    /// Hands over the work of one runtime turn. Never blocks; what finds no place is answered as
    /// overload. Leaves `batch` empty.
    pub fn submit(&self, batch: &mut Vec<Submission>) {
        self.shared.inbox.submit(batch, &*self.shared.clock);
    }

    /// The partition that a key belongs to.
    pub fn partition_of(&self, key: &KeyRef<'_>) -> u32 {
        ring::partition_of(key.hash(), self.partition_count())
    }

    /// How many partitions there are.
    pub fn partition_count(&self) -> u32 {
        self.shared.cells.len() as u32
    }

    /// The cluster's identity.
    pub fn cluster_id(&self) -> [u8; 16] {
        self.shared.cluster_id
    }

    /// This node's identity.
    pub fn node_id(&self) -> u64 {
        self.shared.node_id
    }

    /// Reads a partition on the caller's thread, under its read lock: keep `f` short.
    ///
    /// # Errors
    /// When the node can't vouch for the freshness asked for.
    pub fn read<T>(
        &self,
        partition: u32,
        freshness: Freshness,
        f: impl FnOnce(&Store, ReadPoint, u64) -> T,
    ) -> Result<T, Refuse> {
        let cell = &self.shared.cells[partition as usize];
        match freshness {
            Freshness::Local | Freshness::Stale { max_ms: 0 } => {}
            Freshness::Linearizable if cell.leads_alone() => {}
            Freshness::Linearizable => return Err(Refuse::RoundNeeded),
            _ if cell.leads_for_certain(self.shared.clock.boot_us()) => {
                cell.lease_is_used.store(true, Relaxed);
            }
            Freshness::Leader => return Err(Refuse::RoundNeeded),
            Freshness::Stale { .. } => return Err(Refuse::StalenessExceeded),
        }
        let store = cell.store.read();
        let now_ms = self.shared.lease_clock.lease_ms();
        let term = cell.term.load(Relaxed);
        Ok(f(&store, ReadPoint { revision: store.revision(), term, age_ms: 0 }, now_ms))
    }

    /// Time since boot in milliseconds.
    pub fn now_ms(&self) -> u64 {
        self.shared.clock.boot_us() / 1000
    }

    /// What the engine counts.
    pub fn metrics(&self) -> &EngineMetrics {
        &self.shared.metrics
    }

    /// How the node and its partitions do.
    pub fn status(&self) -> EngineStatus {
        let partitions = self.shared.cells.iter().enumerate().map(partition_state).collect();
        EngineStatus {
            ready: self.is_ready(),
            disk: disk_state(self.shared.disk.load(Relaxed)),
            wal_bytes: self.shared.wal_bytes.load(Relaxed),
            uptime_ms: self.now_ms() - self.shared.started_ms,
            partitions,
        }
    }

    /// Whether requests can be served.
    pub fn is_ready(&self) -> bool {
        !self.shared.inbox.is_stopping()
            && self.shared.cells.iter().all(|cell| cell.is_current.load(Relaxed))
    }

    /// Stops: refuses new work, makes durable what was accepted, joins the threads. Safe to
    /// repeat.
    pub fn stop(&self) {
        self.shared.inbox.stop();
        for thread in self.threads.lock().drain(..) {
            // A panic on these threads aborts the process, so there is no error to see.
            let _ = thread.join();
        }
    }
}

fn partition_state((partition, cell): (usize, &Arc<PartitionCell>)) -> PartitionState {
    let store = cell.store.read();
    PartitionState {
        partition: partition as u32,
        term: cell.term.load(Relaxed),
        leader_id: cell.leader.load(Relaxed),
        commit_index: cell.commit.load(Relaxed),
        applied_index: store.applied().0,
        revision: store.revision(),
        records: store.len() as u64,
        leases: store.lease_count() as u64,
        snapshot_index: cell.snapshot_index.load(Relaxed),
        suspect_domains: store.suspect_domains(),
        memory_bytes: store.memory_bytes() as u64,
    }
}

fn disk_code(state: DiskState) -> u8 {
    match state {
        DiskState::Ok => 0,
        DiskState::Low => 1,
        DiskState::Full => 2,
    }
}

fn disk_state(code: u8) -> DiskState {
    match code {
        0 => DiskState::Ok,
        1 => DiskState::Low,
        _ => DiskState::Full,
    }
}
