//! The threads around the sans-IO core: one drives it, one appends to the log, one writes
//! snapshots. Readers run on their own threads, under a partition's read lock.

mod config;
mod driver;
mod inbox;
mod log_thread;
mod meta;
mod open;
mod peers;
mod seed;
mod snapshot_thread;

pub use config::{Beginning, EngineConfig};
pub use meta::Meta;
pub use peers::{NoPeers, Peers};
pub use seed::Seed;

use crate::clock::{Clock, SystemClock};
use crate::error::StartError;
use crate::key::KeyRef;
use crate::lease::LeaseClock;
use crate::limits;
use crate::metrics::EngineMetrics;
use crate::proto::node::SystemState;
use crate::raft::cell::{Follower, PartitionCell};
use crate::raft::core::Event;
use crate::raft::group::Group;
use crate::raft::work::{Deliver, PeerMessage, Refuse, Submission};
use crate::ring;
use crate::store::Store;
use crate::system::SYSTEM_PARTITION;
use crate::wal::DiskState;
use ::raft::eraftpb::Message;
use inbox::Inbox;
use parking_lot::{Mutex, RwLock};
use snapshot_thread::SnapshotSlot;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;

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
        /// The revision that it must show at least.
        at_least: u64,
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
    /// How old the state is at most, in milliseconds; `AGE_UNKNOWN_MS` where that isn't known.
    pub age_ms: u64,
}

/// How one partition does.
#[derive(Debug, Clone, Default)]
pub struct PartitionState {
    /// The partition.
    pub partition: u32,
    /// Whether this node holds a replica.
    pub is_held: bool,
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
    /// The other replicas, where this node leads.
    pub followers: Vec<Follower>,
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
    /// Requests that wait for the driver.
    pub waiting: usize,
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
    /// The partitions in their order.
    cells: Vec<Arc<PartitionCell>>,
    /// The system group.
    system: Arc<PartitionCell>,
    system_state: RwLock<Arc<SystemState>>,
    system_version: AtomicU64,
    is_alone: AtomicBool,
    inbox: Inbox,
    snapshots: Arc<SnapshotSlot>,
    metrics: Arc<EngineMetrics>,
    clock: Arc<dyn Clock>,
    lease_clock: Arc<LeaseClock>,
    cluster_id: [u8; 16],
    node_id: u64,
    disk: AtomicU8,
    wal_bytes: AtomicU64,
    started_ms: u64,
    /// When the driver last turned, in microseconds since boot.
    driver_at_us: AtomicU64,
}

impl Shared {
    fn cell(&self, partition: u32) -> Option<&Arc<PartitionCell>> {
        match partition {
            SYSTEM_PARTITION => Some(&self.system),
            _ => self.cells.get(partition as usize),
        }
    }

    fn set_system_state(&self, state: Arc<SystemState>) {
        let version = state.version;
        self.is_alone.store(is_alone(&state, self.node_id), Relaxed);
        *self.system_state.write() = state;
        self.system_version.store(version, Relaxed);
    }
}

impl Engine {
    /// Recovers what the data directory holds and starts to serve it. A node that is the only
    /// voter everywhere returns once it leads and has applied all that is committed; one that needs
    /// others returns at once.
    ///
    /// # Errors
    /// When the configuration, the directory or a file in it can't be used; nothing is changed
    /// on disk then but a torn tail that was cut, with a copy kept.
    pub fn start(
        config: EngineConfig,
        deliver: Box<dyn Deliver>,
        peers: Box<dyn Peers>,
    ) -> Result<Engine, StartError> {
        config.validate()?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let opened = open::open(&config, &clock)?;
        let metrics = Arc::new(EngineMetrics::default());
        let mut cells: Vec<_> = opened.groups.iter().map(|group| group.cell().clone()).collect();
        let system = cells.pop().ok_or(StartError::Config {
            field: "partitions",
            message: "must be at least 1".into(),
        })?;
        let known = system.store.read().system().cloned();
        let state = known.unwrap_or_else(|| Arc::new(opened.seed.state.clone()));
        let is_alone = opened.groups.iter().all(Group::is_alone);
        let shared = Arc::new(Shared {
            cells,
            system,
            system_version: AtomicU64::new(state.version),
            is_alone: AtomicBool::new(self::is_alone(&state, opened.meta.node_id)),
            system_state: RwLock::new(state),
            snapshots: Arc::default(),
            inbox: Inbox::new(config.queue_limit),
            metrics: metrics.clone(),
            lease_clock: Arc::new(LeaseClock::new(clock.clone())),
            clock: clock.clone(),
            cluster_id: opened.meta.cluster_id,
            node_id: opened.meta.node_id,
            disk: AtomicU8::new(disk_code(DiskState::Ok)),
            wal_bytes: AtomicU64::new(opened.writer.bytes_on_disk()),
            started_ms: clock.boot_us() / 1000,
            driver_at_us: AtomicU64::new(clock.boot_us()),
        });
        let threads = driver::spawn(&config, opened, shared.clone(), deliver, peers)
            .map_err(|error| StartError::io(&config.data_dir, error))?;
        if is_alone {
            shared.inbox.wait_ready();
        }
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
        let now_us = self.shared.clock.boot_us();
        let mut age_ms = 0;
        let store = match freshness {
            Freshness::Local => cell.store.read(),
            Freshness::Linearizable if cell.leads_alone() => cell.store.read(),
            Freshness::Linearizable => return Err(Refuse::RoundNeeded),
            Freshness::Leader | Freshness::Stale { .. } => {
                // A leader prolongs its lease from now on; a follower asks for its age.
                cell.lease_is_used.store(true, Relaxed);
                match (cell.read_as_leader(now_us), freshness) {
                    (Some(store), _) => store,
                    (None, Freshness::Stale { max_ms, .. }) => {
                        cell.age_is_used.store(true, Relaxed);
                        age_ms = cell.age_us(now_us).map_or(limits::AGE_UNKNOWN_MS, as_ms);
                        if max_ms > 0 && age_ms > max_ms {
                            return Err(Refuse::StalenessExceeded);
                        }
                        cell.store.read()
                    }
                    (None, _) => return Err(Refuse::RoundNeeded),
                }
            }
        };
        if let Freshness::Stale { at_least, .. } = freshness
            && store.revision() < at_least
        {
            return Err(Refuse::StalenessExceeded);
        }
        let now_ms = self.shared.lease_clock.lease_ms();
        let term = cell.term.load(Relaxed);
        Ok(f(&store, ReadPoint { revision: store.revision(), term, age_ms }, now_ms))
    }

    /// How long ago the driver turned; it turns with every tick at least.
    pub fn driver_age(&self) -> Duration {
        let at_us = self.shared.driver_at_us.load(Relaxed);
        Duration::from_micros(self.shared.clock.boot_us().saturating_sub(at_us))
    }

    /// Messages of other nodes arrived, from whom they say. Never blocks; answers how many found no
    /// place.
    pub fn receive(&self, messages: Vec<PeerMessage>) -> usize {
        self.shared.inbox.receive(messages)
    }

    /// Messages to this node don't arrive.
    pub fn unreachable(&self, node_id: u64) {
        self.shared.inbox.event(Event::Unreachable(node_id));
    }

    /// The sending of a snapshot ended; `ok` says that all of it is durable at the receiver.
    pub fn snapshot_sent(&self, partition: u32, to: u64, ok: bool) {
        self.shared.inbox.event(Event::SnapshotSent { partition, to, ok });
    }

    /// A snapshot that another node sent is durable as a file below `snapshots/`.
    pub fn snapshot_received(&self, partition: u32, message: Message, file: String) {
        self.shared.snapshots.arrived(partition, message, file);
    }

    /// The cluster, as far as this node knows.
    pub fn system_state(&self) -> Arc<SystemState> {
        self.shared.system_state.read().clone()
    }

    /// The version of what `system_state` answers: cheap to look at.
    pub fn system_version(&self) -> u64 {
        self.shared.system_version.load(Relaxed)
    }

    /// Whether the cluster is this node and nobody else.
    pub fn is_alone(&self) -> bool {
        self.shared.is_alone.load(Relaxed)
    }

    /// Who leads a group, as far as this node knows; 0 for nobody. A node that holds no replica
    /// doesn't know.
    pub fn leader_of(&self, partition: u32) -> u64 {
        self.shared.cell(partition).map_or(0, |cell| cell.leader.load(Relaxed))
    }

    /// Who votes in a group, as far as it is applied here; nobody where there is no replica.
    pub fn voters_of(&self, partition: u32) -> Vec<u64> {
        self.shared.cell(partition).map_or_else(Vec::new, |cell| cell.voters.lock().clone())
    }

    /// Whether this node holds a replica of a group.
    pub fn holds(&self, partition: u32) -> bool {
        self.shared.cell(partition).is_some_and(|cell| cell.is_held.load(Relaxed))
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
            waiting: self.shared.inbox.waiting(),
            partitions,
        }
    }

    /// Whether requests can be served.
    pub fn is_ready(&self) -> bool {
        !self.shared.inbox.is_stopping() && self.shared.inbox.is_ready()
    }

    /// The node is about to stop: it hands what it leads to others, while it goes on serving.
    pub fn step_down(&self) {
        self.shared.inbox.event(Event::StepDown);
    }

    /// Whether this node leads any group.
    pub fn leads_any(&self) -> bool {
        let cells = self.shared.cells.iter().chain([&self.shared.system]);
        cells.into_iter().any(|cell| cell.leader.load(Relaxed) == self.node_id())
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

/// Rounded up: what is younger than said does no harm.
fn as_ms(age_us: u64) -> u64 {
    age_us.div_ceil(1000)
}

fn is_alone(state: &SystemState, node_id: u64) -> bool {
    crate::system::present(state).all(|member| member.node_id == node_id)
}

fn partition_state((partition, cell): (usize, &Arc<PartitionCell>)) -> PartitionState {
    let store = cell.store.read();
    PartitionState {
        partition: partition as u32,
        is_held: cell.is_held.load(Relaxed),
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
        followers: cell.followers.lock().clone(),
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
