//! One simulated node: the real core over the real log, on a simulated disk and clock.

use crate::clock::SimClock;
use crate::disk::SimDisk;
use crate::random::Random;
use crate::snapshots::{self, Worker};
use agni_core::clock::Clock;
use agni_core::lease::{GuardSettings, LeaseClock};
use agni_core::limits;
use agni_core::metrics::EngineMetrics;
use agni_core::proto::node::{ReplicaSet, SystemState};
use agni_core::raft::cell::PartitionCell;
use agni_core::raft::core::{Append, Core, CoreSettings, Effects, Event};
use agni_core::raft::group::{Group, GroupSettings, Snapshots};
use agni_core::raft::log_tail::TailLimits;
use agni_core::raft::recovery::{RecoveredGroup, RecoverySettings};
use agni_core::raft::restart::{NodeRecovery, group_numbers};
use agni_core::raft::state_check::StateNotice;
use agni_core::raft::work::{Answer, PeerMessage, SnapshotTransfer, Submission, Ticket};
use agni_core::store::StoreLimits;
use agni_core::wal::{
    self, DiskState, Identity, RecoverError, Recovered, WalError, WalOptions, WalWriter,
};
use raft::eraftpb::Message;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

pub const CLUSTER_ID: [u8; 16] = *b"simulatedcluster";
const WAL: &str = "/wal";
/// Bytes of a segment: few, so that the log often goes on in a new one.
const SEGMENT_BYTES: u64 = 16 << 10;
/// Messages that wait in the sockets of a paused node.
const MAILBOX_MAX: usize = 4_096;

/// What all nodes of a run are started with.
#[derive(Debug, Clone)]
pub struct NodeSettings {
    /// How many partitions there are.
    pub partitions: u32,
    /// Of the elections.
    pub seed: u64,
    /// Whether leaders answer under their clock-bound lease.
    pub lease_reads: bool,
    /// What a store keeps besides its records.
    pub store: StoreLimits,
    /// How much of the log is kept for followers that lag.
    pub tail: TailLimits,
    /// Bytes of log that start a round of snapshots.
    pub snapshot_wal_bytes: u64,
    /// Time between two comparisons of the replicas' states, in milliseconds.
    pub state_check_ms: u64,
}

/// How an append ended.
#[derive(Debug)]
pub enum Appending {
    /// It is durable, or nobody waits for it.
    Done,
    /// There was no room: it is to be tried again.
    Full,
    /// The disk failed: the process ends.
    Failed(String),
}

/// What a turn of a node led to.
#[derive(Default)]
pub struct Turn {
    /// Messages to be carried to other nodes.
    pub messages: Vec<PeerMessage>,
    /// Answers to clients.
    pub answers: Vec<(Ticket, Answer)>,
    /// Whether an append was begun; `appended` is to be called after a while.
    pub append_begun: bool,
    /// Whether the snapshot thread has begun something; `work` is to be called after a while.
    pub work_begun: bool,
    /// Snapshots to be sent.
    pub transfers: Vec<SnapshotTransfer>,
    /// What came of comparisons of states.
    pub notices: Vec<StateNotice>,
}

/// A node that runs.
pub struct Life {
    core: Core,
    writer: WalWriter,
    append: Option<Append>,
    /// What the core shares with readers: the partitions in their order, then the system group.
    pub cells: Vec<Arc<PartitionCell>>,
    /// The snapshot thread.
    pub worker: Worker,
    recovery: RecoverySettings,
    disk: DiskState,
    next_disk_check_us: u64,
    /// The time of its leases.
    pub lease_clock: Arc<LeaseClock>,
    /// The newest revision of each group that was looked at.
    pub seen_revision: Vec<u64>,
    last_tick_us: u64,
}

/// A machine: what outlives the process.
pub struct SimNode {
    /// Its identity.
    pub id: u64,
    /// Its disk.
    pub disk: SimDisk,
    /// Its clock.
    pub clock: Arc<SimClock>,
    /// The running process, if there is one.
    pub life: Option<Life>,
    /// Whether the process is stopped (SIGSTOP).
    pub paused: bool,
    /// Whether the machine is gone for ever, with its disk.
    pub is_lost: bool,
    /// Counts the processes, so that what was meant for one doesn't reach the next.
    pub lives: u64,
    mailbox: Vec<Event>,
}

impl SimNode {
    /// A machine that is switched off.
    pub fn new(id: u64, clock: SimClock) -> Self {
        SimNode {
            id,
            disk: SimDisk::default(),
            clock: Arc::new(clock),
            life: None,
            paused: false,
            is_lost: false,
            lives: 0,
            mailbox: Vec::new(),
        }
    }

    /// Starts the process. `founding` is what a founder's disk has about the cluster; a node that
    /// joins has nothing.
    ///
    /// # Errors
    /// Says why it can't start; `None` when its disk has no room, so that it will try again.
    pub fn start(
        &mut self,
        settings: &NodeSettings,
        founding: Option<&Arc<SystemState>>,
    ) -> Result<(), Option<String>> {
        let now_us = self.clock.boot_us();
        let recovery = RecoverySettings {
            node_id: self.id,
            now_ms: now_us / 1000,
            founding: founding.cloned(),
            store: settings.store.clone(),
            tail: settings.tail,
        };
        let failed =
            |error: &dyn std::fmt::Display| Some(format!("node {} can't start: {error}", self.id));
        let (mut recoveries, mut kept) = (Vec::new(), Vec::new());
        for number in group_numbers(settings.partitions) {
            let (group, files) = snapshots::restore(&self.disk, number, &recovery)
                .map_err(|error| failed(&error))?;
            recoveries.push(group);
            kept.push(files);
        }
        let mut groups = NodeRecovery::new(recoveries);
        let mut writer = self.recover(&mut groups)?;
        if writer.sequence() == 0
            && let Some(founding) = founding
        {
            let mut batch = groups.found(founding, self.id).map_err(|error| failed(&error))?;
            writer.append(&mut batch, true).map_err(|error| match error {
                WalError::DiskFull => None,
                error => failed(&error),
            })?;
        }
        let groups = groups.finish().map_err(|error| failed(&error))?;
        let groups = self.groups(settings, groups.into_iter().zip(kept))?;
        let cells: Vec<_> = groups.iter().map(|group| group.cell().clone()).collect();
        let core = CoreSettings {
            node_id: self.id,
            cluster_id: CLUSTER_ID,
            snapshot_wal_bytes: settings.snapshot_wal_bytes,
            state_check_ms: settings.state_check_ms,
            mass_expiry: GuardSettings::default(),
        };
        let lease_clock = Arc::new(LeaseClock::new(self.clock.clone()));
        let metrics = Arc::new(EngineMetrics::default());
        self.life = Some(Life {
            core: Core::new(core, groups, lease_clock.clone(), metrics),
            writer,
            append: None,
            seen_revision: vec![0; cells.len()],
            cells,
            worker: Worker::default(),
            recovery,
            disk: DiskState::Ok,
            next_disk_check_us: now_us,
            lease_clock,
            last_tick_us: now_us,
        });
        self.lives += 1;
        self.paused = false;
        self.mailbox.clear();
        Ok(())
    }

    fn recover(&self, groups: &mut NodeRecovery) -> Result<WalWriter, Option<String>> {
        let identity = Identity { cluster_id: CLUSTER_ID, node_id: self.id, salt: self.id };
        let options = WalOptions { segment_bytes: SEGMENT_BYTES, reserve_bytes: 0 };
        let failed = |error: String| format!("node {} can't start: {error}", self.id);
        let mut fault = None;
        let mut visit = |record: Recovered<'_>| {
            if let Err(error) = groups.record(record) {
                fault.get_or_insert(error.to_string());
            }
        };
        let disk = Arc::new(self.disk.clone());
        let writer = wal::recover_on(disk, Path::new(WAL), &identity, options, &mut visit);
        let writer = writer.map_err(|error| match error {
            RecoverError::Io { source, .. } if agni_core::env::is_disk_full(&source) => None,
            error => Some(failed(error.to_string())),
        })?;
        fault.map_or(Ok(writer), |fault| Err(Some(failed(fault))))
    }

    fn groups(
        &self,
        settings: &NodeSettings,
        recovered: impl Iterator<Item = ((u32, RecoveredGroup), Snapshots)>,
    ) -> Result<Vec<Group>, Option<String>> {
        let group = |((partition, recovered), files)| {
            let RecoveredGroup { store, tail, applied } = recovered;
            let cell = Arc::new(PartitionCell::new(store));
            let settings = GroupSettings {
                partition,
                node_id: self.id,
                seed: settings.seed ^ (self.lives << 8),
                started_us: self.clock.boot_us(),
                lease_reads: settings.lease_reads,
                tail: settings.tail,
            };
            Group::new(settings, tail, applied, files, cell)
                .map_err(|error| Some(format!("node {}: {error}", self.id)))
        };
        recovered.map(group).collect()
    }

    /// The process is killed. An append that is under way may have been written in part; with
    /// `power` gone, too, what was never synced may be lost.
    pub fn kill(&mut self, power: bool, random: &mut Random) {
        if let Some(mut life) = self.life.take() {
            // Nothing is tidied up, and the last batch is written in part at most.
            self.disk.fail_syncs();
            if let Some(mut append) = life.append.take()
                && random.chance(500)
            {
                // It fails by design: the bytes are written, but not synced.
                let _ = life.writer.append(&mut append.batch, append.sync);
            }
        }
        match power {
            true => self.disk.crash(random),
            false => self.disk.keep_all(),
        }
        self.clock.go_on();
        self.paused = false;
        self.mailbox.clear();
    }

    /// Something reaches the node. A paused one finds it when it wakes up.
    pub fn event(&mut self, event: Event, turn: &mut Turn) {
        if self.paused {
            if self.mailbox.len() < MAILBOX_MAX {
                self.mailbox.push(event);
            }
            return;
        }
        if let Some(life) = &mut self.life {
            life.core.handle(event);
            life.finish(turn);
        }
    }

    /// Requests of clients.
    pub fn submit(&mut self, submission: Submission, turn: &mut Turn) {
        self.event(Event::Work(vec![submission]), turn);
    }

    /// The process goes on: first what waits for it, then the ticks it has missed, as the driver
    /// does.
    pub fn resume(&mut self, turn: &mut Turn) {
        self.paused = false;
        self.clock.go_on();
        let Some(life) = &mut self.life else { return };
        for event in std::mem::take(&mut self.mailbox) {
            life.core.handle(event);
        }
        life.finish(turn);
        self.tick(turn);
    }

    /// Time has passed.
    pub fn tick(&mut self, turn: &mut Turn) {
        let now_us = self.clock.boot_us();
        let Some(life) = self.life.as_mut().filter(|_| !self.paused) else { return };
        let tick_us = limits::TICK_MS * 1000;
        let ticks = now_us.saturating_sub(life.last_tick_us) / tick_us;
        if ticks > 0 {
            life.last_tick_us += ticks * tick_us;
            life.core.handle(Event::Ticks(ticks));
        }
        life.core.handle(Event::ExpiryScan);
        if now_us >= life.next_disk_check_us {
            life.next_disk_check_us = now_us + limits::DISK_CHECK_MS * 1000;
            let state = life.writer.disk_state();
            life.report(state);
        }
        life.finish(turn);
    }

    /// The append that was begun has come to its end. An error of the disk ends the process.
    pub fn appended(&mut self, turn: &mut Turn) -> Appending {
        let Some(life) = &mut self.life else { return Appending::Done };
        let Some(Append { mut batch, sync, entries }) = life.append.take() else {
            return Appending::Done;
        };
        let bytes = batch.len() as u64;
        match life.writer.append(&mut batch, sync) {
            Ok(_) => {
                batch.clear();
                self.event(Event::Appended { batch, bytes }, turn);
                Appending::Done
            }
            Err(WalError::DiskFull) => {
                life.append = Some(Append { batch, sync, entries });
                life.report(DiskState::Full);
                life.finish(turn);
                Appending::Full
            }
            Err(error) => Appending::Failed(error.to_string()),
        }
    }

    /// The snapshot thread does its next step.
    pub fn work(&mut self, turn: &mut Turn) {
        let Some(life) = &mut self.life else { return };
        life.recovery.now_ms = self.clock.boot_us() / 1000;
        let heard = life.worker.step(&self.disk, &life.cells, &life.recovery);
        turn.work_begun |= life.worker.wakes();
        if let Some(event) = heard {
            self.event(event, turn);
        }
    }

    /// A snapshot of another node has arrived whole, and is durable.
    pub fn snapshot_arrived(&mut self, partition: u32, message: Message, file: String) -> bool {
        let Some(life) = &mut self.life else { return false };
        life.worker.arrived(partition, message, file);
        life.worker.wakes()
    }

    /// The disk has no room for anything new. What the log thread has in hand by then does not
    /// depend on how fast this machine is.
    pub fn fill_disk(&mut self) {
        let Some(life) = self.life.as_mut().filter(|_| !self.disk.is_full()) else { return };
        life.writer.disk_state();
        // It may find no way to make one: waiting for the file itself, seeds of a disk that had
        // begun to fail never ended.
        life.writer.settle();
        self.disk.fill();
    }
}

impl Life {
    /// How a partition does, for people.
    pub fn describe(&self, partition: usize) -> String {
        let cell = &self.cells[partition];
        format!(
            "{:?} appending {} {}",
            (
                cell.term.load(Relaxed),
                cell.leader.load(Relaxed),
                cell.commit.load(Relaxed),
                cell.store.read().applied()
            ),
            self.append.is_some(),
            self.core.describe(partition)
        )
    }

    /// Who votes in a group and who follows, as this node knows.
    pub fn replicas(&self, partition: usize) -> ReplicaSet {
        self.core.replicas(partition)
    }

    /// The cluster as this node knows it.
    pub fn system(&self) -> Option<Arc<SystemState>> {
        self.core.system_state()
    }

    fn report(&mut self, state: DiskState) {
        if state != self.disk {
            self.disk = state;
            self.core.handle(Event::Disk(state));
        }
    }

    fn finish(&mut self, turn: &mut Turn) {
        let mut effects = Effects::default();
        self.core.finish(&mut effects);
        turn.transfers.append(&mut effects.transfers);
        turn.notices.append(&mut effects.notices);
        effects.forget.drain(..).for_each(|partition| self.worker.forget(partition));
        if let Some(job) = effects.snapshot.take() {
            self.worker.start(job);
        }
        turn.work_begun |= self.worker.wakes();
        if let Some(keep_from) = effects.release.take() {
            let kept = |group: u32| keep_from.iter().find(|(of, _)| *of == group);
            // What can't be removed now is removed in a later round.
            let _ = self.writer.release(&|group| kept(group).map_or(0, |(_, from)| *from));
        }
        turn.messages.append(&mut effects.messages);
        turn.answers.append(&mut effects.answers);
        if let Some(append) = effects.append.take() {
            self.append = Some(append);
            turn.append_begun = true;
        }
    }
}
