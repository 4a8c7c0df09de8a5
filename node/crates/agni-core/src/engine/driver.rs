//! The driver thread: a thin shell that feeds the core and carries out its effects.

use super::inbox::{Mail, overload};
use super::log_thread::{LogSlot, spawn_log};
use super::open::Opened;
use super::peers::Peers;
use super::snapshot_thread::{SnapshotSettings, SnapshotSlot, spawn_snapshots};
use super::{EngineConfig, Shared, disk_code};
use crate::fatal::AbortOnPanic;
use crate::limits;
use crate::raft::core::{Core, CoreSettings, Effects, Event};
use crate::raft::state_check::StateNotice;
use crate::raft::work::{Answer, Deliver, Refuse};
use crate::system::SYSTEM_PARTITION;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

/// Starts the three threads.
pub fn spawn(
    config: &EngineConfig,
    opened: Opened,
    shared: Arc<Shared>,
    deliver: Box<dyn Deliver>,
    peers: Box<dyn Peers>,
) -> std::io::Result<Vec<JoinHandle<()>>> {
    let settings = CoreSettings {
        node_id: opened.meta.node_id,
        cluster_id: opened.meta.cluster_id,
        snapshot_wal_bytes: config.snapshot_wal_bytes,
        state_check_ms: config.state_check_ms,
        mass_expiry: config.mass_expiry.clone(),
    };
    let clock = shared.lease_clock.clone();
    let core = Core::new(settings, opened.groups, clock, shared.metrics.clone());
    let (log, log_thread) = spawn_log(opened.writer, shared.clone())?;
    let settings = SnapshotSettings {
        dir: config.data_dir.join("snapshots"),
        node_id: shared.node_id,
        store: config.store.clone(),
    };
    let snapshots = shared.snapshots.clone();
    let snapshot_thread = spawn_snapshots(settings, shared.clone())?;
    let driver = Builder::new().name("agni-driver".into()).spawn(move || {
        let _abort = AbortOnPanic;
        let effects = Effects::default();
        Driver { core, shared, deliver, peers, log, snapshots, effects }.run();
    })?;
    Ok(vec![driver, log_thread, snapshot_thread])
}

/// Says what came of a comparison of states.
fn tell_notice(notice: &StateNotice) {
    match notice {
        StateNotice::Differs { .. } => {
            crate::fatal::error("two replicas hold different states", notice);
        }
        StateNotice::IsWrong { .. } => {
            crate::fatal::error("the state of this replica is wrong: it will be replaced", notice);
        }
        StateNotice::IsReplaced { .. } => {
            crate::fatal::warn("the state of this replica was replaced", notice);
        }
    }
}

struct Driver {
    core: Core,
    shared: Arc<Shared>,
    deliver: Box<dyn Deliver>,
    peers: Box<dyn Peers>,
    log: Arc<LogSlot>,
    snapshots: Arc<SnapshotSlot>,
    effects: Effects,
}

impl Driver {
    fn run(mut self) {
        let clock = self.shared.clock.clone();
        let mut mail = Mail::default();
        let mut next_tick_us = clock.boot_us();
        let mut next_scan_us = next_tick_us;
        let mut next_batch_us = u64::MAX;
        let mut ready = false;
        loop {
            let now_us = clock.boot_us();
            self.shared.driver_at_us.store(now_us, Relaxed);
            // Messages first, then ticks: after a pause the other way round would start
            // elections that what waits in the inbox makes needless. What these ticks may count
            // for behind such a message, each group decides.
            self.take(&mut mail, now_us);
            if now_us >= next_tick_us {
                let ticks = 1 + (now_us - next_tick_us) / (limits::TICK_MS * 1000);
                next_tick_us += ticks * limits::TICK_MS * 1000;
                self.core.handle(Event::Ticks(ticks));
            }
            let expiry = if now_us >= next_scan_us {
                next_scan_us = now_us + limits::EXPIRY_SCAN_MS * 1000;
                Some(Event::ExpiryScan)
            } else {
                (now_us >= next_batch_us).then_some(Event::ExpiryGoesOn)
            };
            if let Some(event) = expiry {
                self.core.handle(event);
                let goes_on = self.core.is_expiring();
                next_batch_us = if goes_on { now_us + limits::EXPIRY_PACE_US } else { u64::MAX };
            }
            self.core.finish(&mut self.effects);
            self.carry_out();
            self.tell_fitness();
            let is_ready = self.core.is_ready();
            if ready != is_ready {
                ready = is_ready;
                self.shared.inbox.set_ready(ready);
            }
            if mail.abandoned || (mail.stop && !self.core.is_appending()) {
                break;
            }
            let wake_us = next_tick_us.min(next_scan_us).min(next_batch_us);
            let wait_us = wake_us.saturating_sub(clock.boot_us());
            self.shared.inbox.wait(Duration::from_micros(wait_us), &mut mail);
        }
        self.finish_log();
        self.snapshots.stop();
        self.log.stop();
    }

    fn tell_fitness(&mut self) {
        let told = match self.core.fitness_changed() {
            None => return,
            Some(true) => "this node may lead again",
            Some(false) => "this node gives away what it leads",
        };
        crate::fatal::warn(told, &"its disk is full, or an append has taken a second, or no more");
    }

    fn take(&mut self, mail: &mut Mail, now_us: u64) {
        if let Some((batch, bytes)) = mail.appended.take() {
            self.core.handle(Event::Appended { batch, bytes });
        }
        if !mail.messages.is_empty() {
            self.core.handle(Event::Messages(std::mem::take(&mut mail.messages)));
        }
        for event in mail.events.drain(..) {
            self.core.handle(event);
        }
        if let Some(state) = mail.disk.take() {
            self.shared.disk.store(disk_code(state), Relaxed);
            self.core.handle(Event::Disk(state));
        }
        if let Some(done) = mail.snapshot.take() {
            self.core.handle(Event::SnapshotDone(Box::new(done)));
        }
        if !mail.work.is_empty() {
            let waited_us = now_us.saturating_sub(mail.first_us);
            self.shared.metrics.queue_us.observe_many(waited_us, mail.work.len() as u64);
            self.core.handle(Event::Work(std::mem::take(&mut mail.work)));
        }
        let refuse = if mail.stop { Refuse::ShuttingDown } else { overload() };
        self.shared.metrics.overloaded.fetch_add(mail.refused.len() as u64, Relaxed);
        let refused = mail.refused.drain(..).map(|ticket| (ticket, Answer::Refused(refuse)));
        self.effects.answers.extend(refused);
    }

    fn carry_out(&mut self) {
        // The disk first: its wait is what the rest of the turn can overlap with.
        if let Some(append) = self.effects.append.take() {
            self.shared.metrics.batch_entries.observe(append.entries);
            self.shared.metrics.batch_bytes.observe(append.batch.len() as u64);
            self.log.append(append);
        }
        if !self.effects.messages.is_empty() {
            self.peers.send(&mut self.effects.messages);
        }
        for news in self.effects.mass_expiries.drain(..) {
            let told = match news.has_begun() {
                true => "so many leases went silent at once that they are kept as SUSPECT",
                false => "no lease is kept as SUSPECT any more",
            };
            crate::fatal::warn(told, &news);
        }
        for transfer in self.effects.transfers.drain(..) {
            self.peers.send_snapshot(transfer);
        }
        for group in self.effects.forget.drain(..) {
            self.snapshots.forget(group);
        }
        // Before those who wait for it are told.
        if self.effects.changed.contains(&SYSTEM_PARTITION)
            && let Some(state) = self.core.system_state()
        {
            self.shared.set_system_state(state);
        }
        self.effects.changed.retain(|partition| *partition != SYSTEM_PARTITION);
        if !self.effects.answers.is_empty() {
            self.deliver.answers(&mut self.effects.answers);
        }
        if !self.effects.changed.is_empty() {
            self.deliver.changed(&self.effects.changed);
            self.effects.changed.clear();
        }
        for notice in self.effects.notices.drain(..) {
            tell_notice(&notice);
        }
        if let Some(job) = self.effects.snapshot.take() {
            self.snapshots.start(job);
        }
        if let Some(keep_from) = self.effects.release.take() {
            self.log.release(keep_from);
        }
    }

    /// Commits that moved without a sync are written at the end, so that the next start applies
    /// them without asking Raft.
    fn finish_log(&mut self) {
        if let Some(append) = self.core.take_append(true) {
            self.log.append(append);
        }
    }
}
