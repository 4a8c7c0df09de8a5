//! One simulated node: the real core over the real log, on a simulated disk and clock.

use crate::clock::SimClock;
use crate::disk::SimDisk;
use crate::random::Random;
use agni_core::clock::Clock;
use agni_core::lease::{LeaseClock, LeaseSettings};
use agni_core::limits;
use agni_core::metrics::EngineMetrics;
use agni_core::proto::node::SystemState;
use agni_core::raft::cell::PartitionCell;
use agni_core::raft::core::{Append, Core, CoreSettings, Effects, Event};
use agni_core::raft::group::{Group, GroupSettings, Snapshots};
use agni_core::raft::recovery::{GroupRecovery, RecoveredGroup, RecoverySettings};
use agni_core::raft::restart::{NodeRecovery, group_numbers};
use agni_core::raft::work::{Answer, PeerMessage, Submission, Ticket};
use agni_core::wal::{self, Identity, Recovered, WalOptions, WalWriter};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

pub const CLUSTER_ID: [u8; 16] = *b"simulatedcluster";
const WAL: &str = "/wal";
/// Messages that wait in the sockets of a paused node.
const MAILBOX_MAX: usize = 4_096;

/// What a turn of a node led to.
#[derive(Default)]
pub struct Turn {
    /// Messages to be carried to other nodes.
    pub messages: Vec<PeerMessage>,
    /// Answers to clients.
    pub answers: Vec<(Ticket, Answer)>,
    /// Whether an append was begun; `appended` is to be called after a while.
    pub append_begun: bool,
}

/// A node that runs.
pub struct Life {
    core: Core,
    writer: WalWriter,
    append: Option<Append>,
    /// What the core shares with readers, one a partition.
    pub cells: Vec<Arc<PartitionCell>>,
    /// The time of its leases.
    pub lease_clock: Arc<LeaseClock>,
    /// Events that each partition's watcher on this node has seen.
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
            lives: 0,
            mailbox: Vec::new(),
        }
    }

    /// Starts the process.
    pub fn start(
        &mut self,
        partitions: u32,
        founding: &Arc<SystemState>,
        seed: u64,
    ) -> Result<(), String> {
        let now_us = self.clock.boot_us();
        let settings = RecoverySettings {
            node_id: self.id,
            leases: LeaseSettings::default(),
            now_ms: now_us / 1000,
            founding: Some(founding.clone()),
        };
        let blank = |number| GroupRecovery::new(number, settings.clone());
        let mut recovery = NodeRecovery::new(group_numbers(partitions).map(blank).collect());
        let identity = Identity { cluster_id: CLUSTER_ID, node_id: self.id, salt: self.id };
        let options = WalOptions { segment_bytes: 256 << 10, reserve_bytes: 0 };
        let mut fault = None;
        let mut visit = |record: Recovered<'_>| {
            if let Err(error) = recovery.record(record) {
                fault.get_or_insert(error.to_string());
            }
        };
        let disk = Arc::new(self.disk.clone());
        let failed =
            |error: &dyn std::fmt::Display| format!("node {} can't start: {error}", self.id);
        let mut writer = wal::recover_on(disk, Path::new(WAL), &identity, options, &mut visit)
            .map_err(|error| failed(&error))?;
        if let Some(fault) = fault {
            return Err(failed(&fault));
        }
        if writer.sequence() == 0 {
            let mut batch = recovery.found(founding, self.id).map_err(|error| failed(&error))?;
            writer.append(&mut batch, true).map_err(|error| failed(&error))?;
        }
        let mut groups = Vec::new();
        let mut cells = Vec::new();
        for (partition, recovered) in recovery.finish().map_err(|error| failed(&error))? {
            let RecoveredGroup { store, tail, applied } = recovered;
            let cell = Arc::new(PartitionCell::new(store));
            cells.push(cell.clone());
            let settings = GroupSettings {
                partition,
                node_id: self.id,
                seed: seed ^ (self.lives << 8),
                started_us: now_us,
            };
            let group = Group::new(settings, tail, applied, Snapshots::default(), cell);
            groups.push(group.map_err(|error| format!("node {}: {error}", self.id))?);
        }
        // The clients know of the partitions alone.
        cells.truncate(partitions as usize);
        let settings =
            CoreSettings { node_id: self.id, cluster_id: CLUSTER_ID, snapshot_wal_bytes: u64::MAX };
        let lease_clock = Arc::new(LeaseClock::new(self.clock.clone()));
        let metrics = Arc::new(EngineMetrics::default());
        let core = Core::new(settings, groups, lease_clock.clone(), metrics);
        let seen_revision = vec![0; cells.len()];
        self.life = Some(Life {
            core,
            writer,
            append: None,
            cells,
            lease_clock,
            seen_revision,
            last_tick_us: now_us,
        });
        self.lives += 1;
        self.paused = false;
        self.mailbox.clear();
        Ok(())
    }

    /// The process is killed. An append that is under way may have been written in part; with
    /// `power` gone, too, what was never synced may be lost.
    pub fn kill(&mut self, power: bool, random: &mut Random) {
        if let Some(mut life) = self.life.take()
            && let Some(mut append) = life.append.take()
            && random.chance(500)
        {
            self.disk.fail_syncs();
            // It fails by design: the bytes are written, but not synced.
            let _ = life.writer.append(&mut append.batch, append.sync);
        }
        match power {
            true => self.disk.crash(random),
            false => self.disk.keep_all(),
        }
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
        life.finish(turn);
    }

    /// The append that was begun has come to its end. An error of the disk ends the process.
    pub fn appended(&mut self, turn: &mut Turn) -> Result<(), String> {
        let Some(life) = &mut self.life else { return Ok(()) };
        let Some(Append { mut batch, sync, .. }) = life.append.take() else { return Ok(()) };
        let bytes = batch.len() as u64;
        life.writer.append(&mut batch, sync).map_err(|error| error.to_string())?;
        batch.clear();
        self.event(Event::Appended { batch, bytes }, turn);
        Ok(())
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

    fn finish(&mut self, turn: &mut Turn) {
        let mut effects = Effects::default();
        self.core.finish(&mut effects);
        turn.messages.append(&mut effects.messages);
        turn.answers.append(&mut effects.answers);
        if let Some(append) = effects.append.take() {
            self.append = Some(append);
            turn.append_begun = true;
        }
    }
}
