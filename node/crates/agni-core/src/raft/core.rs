//! All partitions of a node as one state machine: `handle(event)` fills `Effects`. It reads no
//! file and starts no thread; time comes from an injected clock.

use crate::lease::LeaseClock;
use crate::limits;
use crate::metrics::EngineMetrics;
use crate::planted::{Bug, is_planted};
use crate::proto::node::SnapshotHeader;
use crate::raft::group::{Group, Turn};
use crate::raft::rounds::Claim;
use crate::raft::work::{Answer, PeerMessage, Refuse, Submission, Ticket, Work};
use crate::snapshot::SnapshotMeta;
use crate::store::SnapshotCursor;
use crate::wal::{Batch, DiskState};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// What happened.
pub enum Event {
    /// Requests arrived.
    Work(Vec<Submission>),
    /// Messages of other replicas.
    Messages(Vec<PeerMessage>),
    /// Messages to this node did not arrive.
    Unreachable(u64),
    /// This many Raft ticks passed.
    Ticks(u64),
    /// It is time to look for leases that ran out.
    ExpiryScan,
    /// The append with this number is durable; its batch comes back, empty.
    Appended {
        /// The batch, to be filled again.
        batch: Batch,
        /// How many bytes were appended.
        bytes: u64,
    },
    /// The disk's state was looked at.
    Disk(DiskState),
    /// A snapshot was written, or wasn't.
    SnapshotDone(SnapshotDone),
}

/// How a snapshot ended.
pub struct SnapshotDone {
    /// The partition.
    pub partition: u32,
    /// The cursor, to be closed.
    pub cursor: SnapshotCursor,
    /// Who asked for it, if anybody did.
    pub ticket: Option<Ticket>,
    /// The file, or why there is none.
    pub result: Result<SnapshotMeta, String>,
}

/// A snapshot to be written by a thread of its own.
pub struct SnapshotJob {
    /// The partition.
    pub partition: u32,
    /// Where the copy begins.
    pub cursor: SnapshotCursor,
    /// What it is of.
    pub header: SnapshotHeader,
    /// Who asked for it, if anybody did.
    pub ticket: Option<Ticket>,
}

/// A batch to be appended.
pub struct Append {
    /// The frames.
    pub batch: Batch,
    /// Whether it must be synced.
    pub sync: bool,
    /// Entries in it.
    pub entries: u64,
}

/// What is to be done now.
#[derive(Default)]
pub struct Effects {
    /// Append this, then report it.
    pub append: Option<Append>,
    /// Send these.
    pub messages: Vec<PeerMessage>,
    /// Deliver these.
    pub answers: Vec<(Ticket, Answer)>,
    /// These partitions have new revisions.
    pub changed: Vec<u32>,
    /// Write this snapshot, then report it.
    pub snapshot: Option<SnapshotJob>,
    /// Files that hold only entries before these indexes (one a partition) may go.
    pub release: Option<Vec<u64>>,
}

/// How the core is set up.
pub struct CoreSettings {
    /// This node.
    pub node_id: u64,
    /// The cluster.
    pub cluster_id: [u8; 16],
    /// Bytes of log that start a round of snapshots.
    pub snapshot_wal_bytes: u64,
}

/// All partitions of a node.
pub struct Core {
    settings: CoreSettings,
    groups: Vec<Group>,
    clock: Arc<LeaseClock>,
    metrics: Arc<EngineMetrics>,
    turn: Turn,
    /// What the append that is under way makes durable; none while nothing is.
    in_flight: Option<InFlight>,
    /// Answers to those who asked for the snapshots whose marks stand in the turn's batch.
    marks: Vec<Option<(Ticket, Answer)>>,
    disk: DiskState,
    log_bytes_since_round: u64,
    snapshot_running: bool,
    snapshot_queue: VecDeque<(u32, Option<Ticket>)>,
    /// A snapshot's mark has become durable, so older files may go.
    release_due: bool,
}

/// What waits for one append.
struct InFlight {
    readies: Vec<(u32, u64)>,
    promises: Vec<PeerMessage>,
    marks: Vec<Option<(Ticket, Answer)>>,
}

impl Core {
    /// A core over recovered groups, one a partition in their order.
    pub fn new(
        settings: CoreSettings,
        groups: Vec<Group>,
        clock: Arc<LeaseClock>,
        metrics: Arc<EngineMetrics>,
    ) -> Self {
        Core {
            settings,
            groups,
            clock,
            metrics,
            turn: Turn::default(),
            in_flight: None,
            marks: Vec::new(),
            disk: DiskState::Ok,
            log_bytes_since_round: 0,
            snapshot_running: false,
            snapshot_queue: VecDeque::new(),
            release_due: false,
        }
    }

    /// Takes what happened. Effects come from `finish`, after all events of a turn.
    pub fn handle(&mut self, event: Event) {
        self.metrics.stalled_us.fetch_add(self.clock.turn(), Relaxed);
        match event {
            Event::Work(work) => {
                let unix_ms = self.clock.unix_ms();
                for submission in work {
                    self.submit(submission, unix_ms);
                }
            }
            Event::Messages(messages) => self.step(messages),
            Event::Unreachable(node) => {
                self.groups.iter_mut().for_each(|group| group.unreachable(node));
            }
            Event::Ticks(ticks) => {
                let now_us = self.clock.boot_us();
                for _ in 0..ticks.min(limits::CATCH_UP_TICKS_MAX) {
                    self.groups.iter_mut().for_each(|group| group.tick(now_us));
                }
            }
            Event::ExpiryScan => self.scan_expiry(),
            Event::Appended { batch, bytes } => self.appended(batch, bytes),
            Event::Disk(state) => self.disk = state,
            Event::SnapshotDone(done) => self.snapshot_done(done),
        }
    }

    /// Ends a turn: moves every group and says what is to be done.
    pub fn finish(&mut self, effects: &mut Effects) {
        for group in &mut self.groups {
            group.advance(&mut self.turn, &self.metrics, &self.clock);
        }
        effects.messages.append(&mut self.turn.messages);
        effects.answers.append(&mut self.turn.answers);
        effects.changed.append(&mut self.turn.changed);
        effects.append = self.take_append(false);
        self.start_snapshot(effects);
        if std::mem::take(&mut self.release_due) {
            // Both snapshots must be usable, so the log is kept back to the older one.
            effects.release = Some(self.groups.iter().map(|g| g.snapshots.1 + 1).collect());
        }
    }

    /// What is left to append when the node stops, even if nothing in it must be synced.
    pub fn take_append(&mut self, even_if_lazy: bool) -> Option<Append> {
        let due = self.turn.sync || (even_if_lazy && !self.turn.batch.is_empty());
        if self.in_flight.is_some() || !due {
            return None;
        }
        let readies = std::mem::take(&mut self.turn.readies);
        let promises = std::mem::take(&mut self.turn.promises);
        let marks = std::mem::take(&mut self.marks);
        self.in_flight = Some(InFlight { readies, promises, marks });
        let entries = std::mem::take(&mut self.turn.entries);
        let sync = std::mem::take(&mut self.turn.sync) || even_if_lazy;
        Some(Append { batch: std::mem::take(&mut self.turn.batch), sync, entries })
    }

    /// Whether an append is under way.
    pub fn is_appending(&self) -> bool {
        self.in_flight.is_some()
    }

    /// Whether this node leads every partition and has applied an entry of its own term.
    pub fn is_ready(&self) -> bool {
        self.groups.iter().all(|group| group.is_current())
    }

    /// How a group does, for people.
    pub fn describe(&self, partition: usize) -> String {
        self.groups[partition].describe()
    }

    fn step(&mut self, messages: Vec<PeerMessage>) {
        let now_us = self.clock.boot_us();
        for PeerMessage { partition, message } in messages {
            if let Some(group) = self.groups.get_mut(partition as usize) {
                group.step(message, now_us);
            }
        }
    }

    fn submit(&mut self, submission: Submission, unix_ms: i64) {
        let Submission { ticket, partition, work } = submission;
        let refused = match work {
            Work::Write(mut command) => {
                command.proposed_unix_ms = unix_ms;
                if self.disk != DiskState::Ok && grows(&command) {
                    self.metrics.disk_full.fetch_add(1, Relaxed);
                    Some(Refuse::DiskFull)
                } else {
                    self.metrics.proposals.fetch_add(1, Relaxed);
                    let proposed = self.groups[partition as usize].propose(Some(ticket), command);
                    if proposed.is_ok() && is_planted(Bug::AcknowledgeBeforeQuorum) {
                        let answer = self.groups[partition as usize].presumed_answer();
                        self.turn.answers.push((ticket, answer));
                    }
                    proposed.err()
                }
            }
            Work::Renew(leases) => self.renew(ticket, partition, leases).err(),
            Work::Read => self.read(ticket, partition).err(),
            Work::Snapshot => self.queue_snapshot(partition, ticket).err(),
            Work::Transfer { to } => self.transfer(ticket, partition, to).err(),
        };
        if let Some(refuse) = refused {
            if matches!(refuse, Refuse::Overloaded { .. }) {
                self.metrics.overloaded.fetch_add(1, Relaxed);
            }
            self.turn.answers.push((ticket, Answer::Refused(refuse)));
        }
    }

    /// A renewal never touches the log. It needs proof that this node still leads: the clock-bound
    /// lease, or a quorum round that begins after the renewal arrived.
    fn renew(
        &mut self,
        ticket: Ticket,
        partition: u32,
        leases: Vec<(u64, Option<crate::proto::api::Capacity>)>,
    ) -> Result<(), Refuse> {
        let group = &mut self.groups[partition as usize];
        group.check_leader()?;
        let cell = group.cell();
        cell.lease_is_used.store(true, Relaxed);
        if cell.leads_for_certain(self.clock.boot_us()) {
            let answer = group.renew(&leases, &self.metrics, &self.clock);
            self.turn.answers.push((ticket, answer));
            return Ok(());
        }
        group.rounds.ask(Claim::Renew(ticket, leases)).map_err(overloaded)
    }

    fn read(&mut self, ticket: Ticket, partition: u32) -> Result<(), Refuse> {
        let group = &mut self.groups[partition as usize];
        group.check_leader()?;
        group.rounds.ask(Claim::Read(ticket)).map_err(overloaded)
    }

    fn transfer(&mut self, ticket: Ticket, partition: u32, to: u64) -> Result<(), Refuse> {
        self.groups[partition as usize].transfer(to)?;
        self.turn.answers.push((ticket, Answer::Transferring));
        Ok(())
    }

    /// Looks for what ran out. Its removal is proposed only after a quorum round that begins after
    /// the deadline: a leader that was paused finds out that it leads no longer.
    fn scan_expiry(&mut self) {
        let now_ms = self.clock.lease_ms();
        for group in &mut self.groups {
            if !group.is_current() && !is_planted(Bug::ExpiryWithoutProof) {
                continue;
            }
            for _ in 0..limits::EXPIRY_BATCHES_PER_SCAN_MAX {
                let mut store = group.cell().store.write();
                let due = store.take_due(now_ms, limits::EXPIRY_BATCH_LEASES_MAX);
                drop(store);
                if due.is_empty() {
                    break;
                }
                if is_planted(Bug::ExpiryWithoutProof) {
                    group.expire(due, self.clock.unix_ms());
                    continue;
                }
                if let Err(Claim::Expire(due)) = group.rounds.ask(Claim::Expire(due)) {
                    group.cell().store.write().expiry_failed(&due);
                    break;
                }
            }
        }
    }

    fn appended(&mut self, batch: Batch, bytes: u64) {
        if let Some(in_flight) = self.in_flight.take() {
            for (partition, number) in in_flight.readies {
                self.groups[partition as usize].persisted(number);
            }
            self.turn.messages.extend(in_flight.promises);
            self.release_due |= !in_flight.marks.is_empty();
            self.turn.answers.extend(in_flight.marks.into_iter().flatten());
        }
        // The buffers go round; the new turn may have begun in another one.
        if self.turn.batch.is_empty() {
            self.turn.batch = batch;
        }
        self.log_bytes_since_round += bytes;
        if self.log_bytes_since_round >= self.settings.snapshot_wal_bytes {
            self.log_bytes_since_round = 0;
            for group in &self.groups {
                let queued = self.snapshot_queue.iter().any(|(p, _)| *p == group.partition());
                if !queued && group.applied() > group.snapshots.0 {
                    self.snapshot_queue.push_back((group.partition(), None));
                }
            }
        }
    }

    fn queue_snapshot(&mut self, partition: u32, ticket: Ticket) -> Result<(), Refuse> {
        let asked = self.snapshot_queue.iter().filter(|(_, ticket)| ticket.is_some()).count();
        if asked >= limits::SNAPSHOT_REQUESTS_MAX.max(self.groups.len()) {
            return Err(Refuse::Overloaded { retry_ms: limits::OVERLOAD_RETRY_MS });
        }
        self.snapshot_queue.push_back((partition, Some(ticket)));
        Ok(())
    }

    fn start_snapshot(&mut self, effects: &mut Effects) {
        if self.snapshot_running {
            return;
        }
        let Some((partition, ticket)) = self.snapshot_queue.pop_front() else { return };
        self.snapshot_running = true;
        let group = &self.groups[partition as usize];
        let mut store = group.cell().store.write();
        let (index, term) = store.applied();
        let header = SnapshotHeader {
            cluster_id: bytes::Bytes::copy_from_slice(&self.settings.cluster_id),
            partition,
            index,
            term,
            revision: store.revision(),
            compacted_revision: store.compacted_revision(),
            voters: group.voters(),
        };
        let cursor = store.begin_snapshot();
        effects.snapshot = Some(SnapshotJob { partition, cursor, header, ticket });
    }

    fn snapshot_done(&mut self, done: SnapshotDone) {
        self.snapshot_running = false;
        let group = &mut self.groups[done.partition as usize];
        group.cell().store.write().end_snapshot(done.cursor);
        let meta = match done.result {
            Ok(meta) => meta,
            Err(message) => {
                self.metrics.snapshots_failed.fetch_add(1, Relaxed);
                let failed = done.ticket.map(|ticket| (ticket, Answer::SnapshotFailed(message)));
                self.turn.answers.extend(failed);
                return;
            }
        };
        self.metrics.snapshots.fetch_add(1, Relaxed);
        if meta.index > group.snapshots.0 {
            group.snapshots = (meta.index, group.snapshots.0);
        }
        group.cell().snapshot_index.store(group.snapshots.0, Relaxed);
        let (partition, voters) = (done.partition, group.voters());
        self.turn.batch.snapshot_mark(partition, meta.index, meta.term, &meta.file, &voters);
        self.turn.sync = true;
        self.marks.push(done.ticket.map(|ticket| (ticket, Answer::Snapshot(meta))));
    }
}

/// Whether a command makes the data grow. What shrinks it goes on while the disk is full.
fn grows(command: &crate::proto::node::Command) -> bool {
    use crate::proto::node::command::Operation;
    matches!(command.operation, Some(Operation::Put(_) | Operation::Patch(_)) | None)
}

fn overloaded(_: Claim) -> Refuse {
    Refuse::Overloaded { retry_ms: limits::OVERLOAD_RETRY_MS }
}
