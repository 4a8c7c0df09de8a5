//! All partitions of a node as one state machine: `handle(event)` fills `Effects`. It reads no
//! file and starts no thread; time comes from an injected clock.

use crate::lease::{Gap, GuardSettings, LeaseClock, MassExpiry, MassExpiryNews};
use crate::limits;
use crate::metrics::EngineMetrics;
use crate::planted::{Bug, is_planted};
use crate::proto::node::ReplicaSet;
use crate::raft::expiry::Naming;
use crate::raft::fitness::Fitness;
use crate::raft::group::{ArrivedSnapshot, Group, Turn};
use crate::raft::rounds::Claim;
use crate::raft::snapshots::{SnapshotDone, SnapshotJob, SnapshotQueue};
use crate::raft::state_check::StateNotice;
use crate::raft::work::{
    Answer, PeerMessage, Priority, Refuse, SnapshotTransfer, Submission, Ticket, Work,
};
use crate::system::SYSTEM_PARTITION;
use crate::wal::{Batch, DiskState};
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
    /// It is time to name more of what was found then.
    ExpiryGoesOn,
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
    SnapshotDone(Box<SnapshotDone>),
    /// A snapshot that the group's leader sent is durable and loaded.
    SnapshotArrived {
        /// The group.
        partition: u32,
        /// What arrived.
        arrived: Box<ArrivedSnapshot>,
    },
    /// The sending of a snapshot ended.
    SnapshotSent {
        /// The group.
        partition: u32,
        /// The receiver.
        to: u64,
        /// Whether all of it is durable there.
        ok: bool,
    },
    /// No file of a group that was let go is left.
    Forgotten(u32),
    /// The node is about to stop: it hands over what it leads, and leads nothing any more.
    StepDown,
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
    /// Say this of the comparison of states.
    pub notices: Vec<StateNotice>,
    /// Write this snapshot, then report it.
    pub snapshot: Option<SnapshotJob>,
    /// Send these snapshots, then report each.
    pub transfers: Vec<SnapshotTransfer>,
    /// Remove the snapshot files of these groups, then report it.
    pub forget: Vec<u32>,
    /// The mass-expiry guard has begun or ended to hold these: to be told to people.
    pub mass_expiries: Vec<MassExpiryNews>,
    /// Files that hold only entries before these indexes (one a group) may go.
    pub release: Option<Vec<(u32, u64)>>,
}

/// How the core is set up.
pub struct CoreSettings {
    /// This node.
    pub node_id: u64,
    /// The cluster.
    pub cluster_id: [u8; 16],
    /// Bytes of log that start a round of snapshots.
    pub snapshot_wal_bytes: u64,
    /// Time between two comparisons of the replicas' states, in milliseconds; 0 for none.
    pub state_check_ms: u64,
    /// When leases that run out together are held.
    pub mass_expiry: GuardSettings,
}

/// All groups of a node.
pub struct Core {
    pub(super) settings: CoreSettings,
    /// The partitions in their order, then the system group.
    pub(super) groups: Vec<Group>,
    pub(super) clock: Arc<LeaseClock>,
    pub(super) metrics: Arc<EngineMetrics>,
    pub(super) turn: Turn,
    /// What the append that is under way makes durable; none while nothing is.
    in_flight: Option<InFlight>,
    /// Answers to those who asked for the snapshots whose marks stand in the turn's batch.
    pub(super) marks: Vec<Option<(Ticket, Answer)>>,
    pub(super) fitness: Fitness,
    pub(super) snapshots: SnapshotQueue,
    pub(super) mass_expiry: MassExpiry,
    pub(super) mass_expiry_news: Vec<MassExpiryNews>,
    pub(super) naming: Naming,
    /// A snapshot's mark has become durable, so older files may go.
    release_due: bool,
    /// Ticks since the groups' members were looked at.
    pub(super) membership_ticks: u64,
    /// Ticks since the replicas' states were compared.
    state_check_ticks: u64,
    /// The node is about to stop, and leads nothing that another one can lead.
    pub(super) is_leaving: bool,
}

/// What waits for one append.
struct InFlight {
    readies: Vec<(u32, u64)>,
    promises: Vec<PeerMessage>,
    marks: Vec<Option<(Ticket, Answer)>>,
    forget: Vec<u32>,
}

impl Core {
    /// A core over recovered groups: the partitions in their order, then the system group.
    pub fn new(
        settings: CoreSettings,
        groups: Vec<Group>,
        clock: Arc<LeaseClock>,
        metrics: Arc<EngineMetrics>,
    ) -> Self {
        let mass_expiry = MassExpiry::new(settings.mass_expiry.clone());
        Core {
            settings,
            groups,
            clock,
            metrics,
            turn: Turn::default(),
            in_flight: None,
            marks: Vec::new(),
            fitness: Fitness::default(),
            snapshots: SnapshotQueue::default(),
            mass_expiry,
            mass_expiry_news: Vec::new(),
            naming: Naming::default(),
            release_due: false,
            membership_ticks: 0,
            state_check_ticks: 0,
            is_leaving: false,
        }
    }

    /// Takes what happened. Effects come from `finish`, after all events of a turn.
    pub fn handle(&mut self, event: Event) {
        let Gap { stalled_us, is_doubtful } = self.clock.turn();
        self.metrics.stalled_us.fetch_add(stalled_us, Relaxed);
        if is_doubtful && !is_planted(Bug::LeaseKeptInDoubt) {
            let now_us = self.clock.boot_us();
            for group in &mut self.groups {
                let voided = u64::from(group.void_lease(now_us));
                self.metrics.leases_voided.fetch_add(voided, Relaxed);
            }
        }
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
                self.membership_ticks += ticks;
                if self.membership_ticks >= limits::MEMBERSHIP_TICKS {
                    self.membership_ticks = 0;
                    self.look_at_members();
                }
                self.check_states(ticks);
            }
            Event::ExpiryScan => self.scan_expiry(),
            Event::ExpiryGoesOn => self.name_due(),
            Event::Appended { batch, bytes } => self.appended(batch, bytes),
            Event::Disk(state) => self.fitness.disk(state),
            Event::SnapshotDone(done) => self.snapshot_done(*done),
            Event::SnapshotArrived { partition, arrived } => {
                let now_us = self.clock.boot_us();
                if let Some(group) = self.group(partition) {
                    group.arrived(*arrived, now_us);
                }
            }
            Event::SnapshotSent { partition, to, ok } => {
                if let Some(group) = self.group(partition) {
                    group.snapshot_sent(to, ok);
                }
            }
            Event::StepDown => self.is_leaving = true,
            Event::Forgotten(partition) => self.forgotten(partition),
        }
    }

    /// Whether this node's disk has just become too bad for it to lead, or good enough again.
    pub fn fitness_changed(&mut self) -> Option<bool> {
        self.fitness.has_changed(self.clock.boot_us())
    }

    /// Ends a turn: moves every group and says what is to be done.
    pub fn finish(&mut self, effects: &mut Effects) {
        for group in &mut self.groups {
            group.advance(&mut self.turn, &self.metrics, &self.clock);
        }
        let may_lead = self.fitness.may_lead(self.clock.boot_us());
        self.turn.messages.iter_mut().for_each(|message| message.sender_is_unfit = !may_lead);
        effects.messages.append(&mut self.turn.messages);
        effects.answers.append(&mut self.turn.answers);
        effects.changed.append(&mut self.turn.changed);
        effects.notices.append(&mut self.turn.notices);
        effects.transfers.append(&mut self.turn.transfers);
        effects.forget.append(&mut self.turn.forget);
        effects.mass_expiries.append(&mut self.mass_expiry_news);
        effects.append = self.take_append(false);
        self.start_snapshot(effects);
        if std::mem::take(&mut self.release_due) {
            effects.release =
                Some(self.groups.iter().map(|g| (g.partition(), g.keep_from())).collect());
        }
    }

    /// Has the groups that are led here compare their replicas, when it is time. A full disk has no
    /// room for what can wait.
    fn check_states(&mut self, ticks: u64) {
        self.state_check_ticks += ticks;
        let is_due = self.state_check_ticks * limits::TICK_MS >= self.settings.state_check_ms;
        if self.settings.state_check_ms == 0 || !is_due || !self.fitness.has_room() {
            return;
        }
        self.state_check_ticks = 0;
        let unix_ms = self.clock.unix_ms();
        for group in &mut self.groups {
            group.check_state(&mut self.turn, unix_ms);
        }
    }

    /// The group with this number, if there is one.
    pub(super) fn group(&mut self, partition: u32) -> Option<&mut Group> {
        let position = self.position(partition)?;
        self.groups.get_mut(position)
    }

    fn position(&self, partition: u32) -> Option<usize> {
        let partitions = self.groups.len() - 1;
        match partition {
            SYSTEM_PARTITION => Some(partitions),
            _ => Some(partition as usize).filter(|position| *position < partitions),
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
        let forget = std::mem::take(&mut self.turn.forget_once_durable);
        self.fitness.appending(Some(self.clock.boot_us()));
        self.in_flight = Some(InFlight { readies, promises, marks, forget });
        let entries = std::mem::take(&mut self.turn.entries);
        let sync = std::mem::take(&mut self.turn.sync) || even_if_lazy;
        Some(Append { batch: std::mem::take(&mut self.turn.batch), sync, entries })
    }

    /// Whether an append is under way.
    pub fn is_appending(&self) -> bool {
        self.in_flight.is_some()
    }

    /// Whether every group that this node holds has a leader; where it leads itself, it must have
    /// applied an entry of its own term.
    pub fn is_ready(&self) -> bool {
        self.groups.iter().all(Group::is_led)
    }

    /// How a group does, for people. The system group stands behind the partitions.
    pub fn describe(&self, position: usize) -> String {
        self.groups[position].describe()
    }

    /// Who votes in a group and who follows, as this node knows; nobody where it holds nothing.
    pub fn replicas(&self, position: usize) -> ReplicaSet {
        self.groups[position].replicas()
    }

    fn step(&mut self, messages: Vec<PeerMessage>) {
        let now_us = self.clock.boot_us();
        for message in messages {
            self.fitness.heard(&message);
            if let Some(group) = self.group(message.partition) {
                group.step(message.message, now_us);
            }
        }
    }

    fn submit(&mut self, submission: Submission, unix_ms: i64) {
        let Submission { ticket, partition, work } = submission;
        let Some(position) = self.position(partition) else {
            self.turn.answers.push((ticket, Answer::Refused(Refuse::NotLeader { leader: 0 })));
            return;
        };
        let refused = match work {
            Work::Write(mut command) => {
                command.proposed_unix_ms = unix_ms;
                if !self.fitness.has_room() && grows(&command) {
                    self.metrics.disk_full.fetch_add(1, Relaxed);
                    Some(Refuse::DiskFull)
                } else {
                    self.metrics.proposals.fetch_add(1, Relaxed);
                    let proposed = self.groups[position].propose(Some(ticket), command);
                    if proposed.is_ok() && is_planted(Bug::AcknowledgeBeforeQuorum) {
                        let answer = self.groups[position].presumed_answer();
                        self.turn.answers.push((ticket, answer));
                    }
                    proposed.err()
                }
            }
            Work::Renew(leases) => self.renew(ticket, position, leases).err(),
            Work::Read(priority) => self.read(ticket, position, priority).err(),
            Work::Snapshot => self.queue_snapshot(position, ticket).err(),
            Work::Transfer { to } => self.transfer(ticket, position, to).err(),
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
        position: usize,
        leases: Vec<(u64, Option<crate::proto::api::Capacity>)>,
    ) -> Result<(), Refuse> {
        let group = &mut self.groups[position];
        group.check_leader()?;
        let cell = group.cell();
        cell.lease_is_used.store(true, Relaxed);
        if cell.read_as_leader(self.clock.boot_us()).is_some() {
            let answer = group.renew(&leases, &self.metrics, &self.clock);
            self.turn.answers.push((ticket, answer));
            return Ok(());
        }
        group.rounds.ask(Claim::Renew(ticket, leases), Priority::Renew).map_err(overloaded)
    }

    fn read(&mut self, ticket: Ticket, position: usize, priority: Priority) -> Result<(), Refuse> {
        let group = &mut self.groups[position];
        group.check_leader()?;
        group.rounds.ask(Claim::Read(ticket), priority).map_err(overloaded)
    }

    fn transfer(&mut self, ticket: Ticket, position: usize, to: u64) -> Result<(), Refuse> {
        if self.fitness.unfit().contains(&to) {
            // It would give it away again.
            return Err(Refuse::Unfit);
        }
        self.groups[position].transfer(to)?;
        self.turn.answers.push((ticket, Answer::Transferring));
        Ok(())
    }

    fn appended(&mut self, batch: Batch, bytes: u64) {
        if let Some(in_flight) = self.in_flight.take() {
            self.fitness.appending(None);
            for (partition, number) in in_flight.readies {
                if let Some(group) = self.group(partition) {
                    group.persisted(number);
                }
            }
            self.turn.messages.extend(in_flight.promises);
            self.turn.forget.extend(in_flight.forget);
            self.release_due |= !in_flight.marks.is_empty();
            self.turn.answers.extend(in_flight.marks.into_iter().flatten());
        }
        // The buffers go round; the new turn may have begun in another one.
        if self.turn.batch.is_empty() {
            self.turn.batch = batch;
        }
        self.log_grew(bytes);
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
