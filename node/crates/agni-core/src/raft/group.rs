//! One partition: its Raft group, the store behind it, and who waits for which entry.

use crate::clock::Clock;
use crate::limits;
use crate::metrics::EngineMetrics;
use crate::proto::node::{Command, Expire, ExpiredLease, command::Operation};
use crate::raft::cell::PartitionCell;
use crate::raft::log_tail::LogTail;
use crate::raft::work::{Answer, Refuse, Ticket};
use crate::store::{Outcome, Store};
use crate::wal::{Batch, Op};
use prost::Message as _;
use raft::eraftpb::{Entry, EntryType};
use raft::{Config, RawNode, StateRole};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// What the groups of one turn produce together.
#[derive(Default)]
pub struct Turn {
    /// What is to be made durable.
    pub batch: Batch,
    /// Whether it must be durable before anything that waits for it goes on.
    pub sync: bool,
    /// Entries in it.
    pub entries: u64,
    /// The Readies it makes durable: (partition, number).
    pub readies: Vec<(u32, u64)>,
    /// Answers to be delivered.
    pub answers: Vec<(Ticket, Answer)>,
    /// Partitions with new revisions.
    pub changed: Vec<u32>,
}

/// A proposal on its way: found again by (term, index), never by its order alone, because a new
/// leader may have put something else at the index.
struct Waiting {
    term: u64,
    index: u64,
    ticket: Option<Ticket>,
    command: Command,
}

/// One partition's replication on this node.
pub struct Group {
    partition: u32,
    node_id: u64,
    node: RawNode<LogTail>,
    cell: Arc<PartitionCell>,
    waiting: VecDeque<Waiting>,
    applied: u64,
    /// Indexes of the newest snapshot and of the one before it; 0 without one.
    pub snapshots: (u64, u64),
}

fn raft_config(node_id: u64, applied: u64) -> Config {
    Config {
        id: node_id,
        applied,
        election_tick: limits::ELECTION_TICKS,
        heartbeat_tick: limits::HEARTBEAT_TICKS,
        max_size_per_msg: limits::APPEND_MESSAGE_BYTES_MAX,
        max_inflight_msgs: limits::APPEND_MESSAGES_IN_FLIGHT_MAX,
        max_uncommitted_size: limits::UNCOMMITTED_BYTES_MAX,
        max_committed_size_per_ready: limits::COMMITTED_BYTES_PER_TURN_MAX,
        check_quorum: true,
        pre_vote: true,
        batch_append: true,
        read_only_option: raft::ReadOnlyOption::Safe,
        ..Config::default()
    }
}

impl Group {
    /// A group over what recovery found. `applied` is what the cell's store contains.
    pub fn new(
        partition: u32,
        node_id: u64,
        tail: LogTail,
        applied: u64,
        snapshots: (u64, u64),
        cell: Arc<PartitionCell>,
    ) -> raft::Result<Self> {
        let alone = tail.voters() == [node_id];
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let mut node = RawNode::new(&raft_config(node_id, applied), tail, &logger)?;
        if alone {
            // Nobody else can win, so there is nothing to wait for.
            node.campaign()?;
        }
        cell.snapshot_index.store(snapshots.0, Relaxed);
        let waiting = VecDeque::new();
        Ok(Group { partition, node_id, node, cell, waiting, applied, snapshots })
    }

    /// The partition that this group replicates.
    pub fn partition(&self) -> u32 {
        self.partition
    }

    /// The newest applied index.
    pub fn applied(&self) -> u64 {
        self.applied
    }

    /// What this group shares with readers.
    pub fn cell(&self) -> &Arc<PartitionCell> {
        &self.cell
    }

    /// Who votes.
    pub fn voters(&self) -> Vec<u64> {
        self.node.store().voters().to_vec()
    }

    /// Refuses unless this node leads.
    pub fn check_leader(&self) -> Result<(), Refuse> {
        match self.node.raft.state {
            StateRole::Leader => Ok(()),
            _ => Err(Refuse::NotLeader { leader: self.node.raft.leader_id }),
        }
    }

    /// Time passes: heartbeats and elections.
    pub fn tick(&mut self) {
        self.node.tick();
    }

    /// Proposes a command; its ticket is answered once it is applied.
    pub fn propose(&mut self, ticket: Option<Ticket>, command: Command) -> Result<(), Refuse> {
        self.check_leader()?;
        match self.node.propose(Vec::new(), command.encode_to_vec()) {
            Ok(()) => {
                let index = self.node.raft.raft_log.last_index();
                let term = self.node.raft.term;
                self.waiting.push_back(Waiting { term, index, ticket, command });
                Ok(())
            }
            Err(_) => Err(Refuse::Overloaded { retry_ms: limits::OVERLOAD_RETRY_MS }),
        }
    }

    /// Proposes the removal of what has run out. What can't be proposed is told to the store, so
    /// that it comes up again.
    pub fn expire(&mut self, leases: Vec<ExpiredLease>, unix_ms: i64) {
        let proposer_term = self.node.raft.term;
        let operation = Operation::Expire(Expire { proposer_term, leases });
        let command = Command { proposed_unix_ms: unix_ms, operation: Some(operation) };
        let failed = self.check_leader().is_err() || self.propose(None, command.clone()).is_err();
        if failed && let Some(Operation::Expire(expire)) = &command.operation {
            self.cell.store.write().expiry_failed(&expire.leases);
        }
    }

    /// The batch with this group's Ready `number` is durable.
    pub fn persisted(&mut self, number: u64) {
        self.node.on_persist_ready(number);
    }

    /// Moves the group as far as it goes without waiting: collects what must become durable,
    /// applies what is committed, answers who waited for it.
    pub fn advance(&mut self, turn: &mut Turn, metrics: &EngineMetrics, clock: &dyn Clock) {
        while self.node.has_ready() {
            let mut ready = self.node.ready();
            if ready.ss().is_some() {
                self.role_changed(turn);
            }
            // A group of one voter has nobody to send to; peers come with the transport.
            let committed = ready.take_committed_entries();
            for entry in ready.entries() {
                let (op, data) = (entry_op(entry), &entry.data[..]);
                turn.batch.entry(self.partition, entry.term, entry.index, op, data);
            }
            turn.entries += ready.entries().len() as u64;
            if let Some(hs) = ready.hs() {
                turn.batch.hard_state(self.partition, hs.term, hs.vote, hs.commit);
                self.cell.term.store(hs.term, Relaxed);
                self.cell.commit.store(hs.commit, Relaxed);
            }
            let tail = self.node.mut_store();
            tail.append(ready.entries());
            if let Some(hs) = ready.hs() {
                tail.set_hard_state(hs.clone());
            }
            turn.sync |= ready.must_sync();
            // Without anything to sync it is covered by the next batch: a moved commit may be
            // late on disk, because recovery commits again what the log holds.
            turn.readies.push((self.partition, ready.number()));
            self.node.advance_append_async(ready);
            if !committed.is_empty() {
                self.apply(committed, turn, metrics, clock);
            }
        }
    }

    fn role_changed(&mut self, turn: &mut Turn) {
        let leader = self.node.raft.leader_id;
        self.cell.leader.store(leader, Relaxed);
        if self.node.raft.state != StateRole::Leader {
            self.cell.reads_are_current.store(false, Relaxed);
            // Whether they will be applied is no longer known here: the client asks again.
            for waiting in self.waiting.drain(..) {
                if let Some(ticket) = waiting.ticket {
                    let refuse = Refuse::NotLeader { leader };
                    turn.answers.push((ticket, Answer::Refused(refuse)));
                }
            }
        }
    }

    fn apply(
        &mut self,
        entries: Vec<Entry>,
        turn: &mut Turn,
        metrics: &EngineMetrics,
        clock: &dyn Clock,
    ) {
        let started_us = clock.boot_us();
        let now_ms = started_us / 1000;
        let cell = self.cell.clone();
        let mut store = cell.store.write();
        let revision_before = store.revision();
        for entry in entries {
            assert_eq!(
                entry.index,
                self.applied + 1,
                "partition {} must apply in order",
                self.partition
            );
            self.applied = entry.index;
            self.apply_entry(&mut store, &entry, turn, metrics, now_ms);
        }
        if store.revision() != revision_before {
            turn.changed.push(self.partition);
        }
        drop(store);
        self.node.advance_apply_to(self.applied);
        let alone = self.node.store().voters() == [self.node_id];
        let keep = if alone { 0 } else { limits::LOG_TAIL_ENTRIES_MAX };
        self.node.mut_store().compact(self.applied.saturating_sub(keep));
        if alone && self.node.raft.state == StateRole::Leader {
            // Only an entry of the own term proves that everything before it is applied.
            let current = self.node.raft.raft_log.term(self.applied) == Ok(self.node.raft.term);
            cell.reads_are_current.store(current, Relaxed);
        }
        metrics.apply_us.observe(clock.boot_us().saturating_sub(started_us));
    }

    fn apply_entry(
        &mut self,
        store: &mut Store,
        entry: &Entry,
        turn: &mut Turn,
        metrics: &EngineMetrics,
        now_ms: u64,
    ) {
        let waiting = self.take_waiting(entry, turn);
        if entry.data.is_empty() || entry.get_entry_type() != EntryType::EntryNormal {
            store.apply_empty(entry.index, entry.term);
            return;
        }
        let (ticket, command) = match waiting {
            Some(waiting) => (waiting.ticket, waiting.command),
            None => match Command::decode(entry.data.clone()) {
                Ok(command) => (None, command),
                // It passed its CRC, so a newer version wrote it: guessing would diverge.
                Err(error) => panic!(
                    "partition {} index {}: a command of an unknown form: {error}",
                    self.partition, entry.index
                ),
            },
        };
        let outcome = store.apply(entry.index, entry.term, &command, now_ms);
        if let Outcome::Expired { removed, spared } = &outcome {
            metrics.expired.fetch_add(u64::from(*removed), Relaxed);
            metrics.expiry_spared.fetch_add(u64::from(*spared), Relaxed);
        }
        if let Some(ticket) = ticket {
            let answer = Answer::Written {
                outcome,
                term: entry.term,
                store_revision: store.revision(),
                next_renewal_ms: 0,
            };
            turn.answers.push((ticket, answer));
        }
    }

    fn take_waiting(&mut self, entry: &Entry, turn: &mut Turn) -> Option<Waiting> {
        while let Some(front) = self.waiting.front() {
            if front.index > entry.index {
                return None;
            }
            let waiting = self.waiting.pop_front()?;
            if waiting.index == entry.index && waiting.term == entry.term {
                return Some(waiting);
            }
            // Its place was taken by another leader's entry.
            if let Some(ticket) = waiting.ticket {
                let refuse = Refuse::NotLeader { leader: self.node.raft.leader_id };
                turn.answers.push((ticket, Answer::Refused(refuse)));
            }
        }
        None
    }
}

/// What kind of frame an entry gets. A command's oneof is its first field, so the kind stands in
/// the first byte.
fn entry_op(entry: &Entry) -> Op {
    if entry.get_entry_type() != EntryType::EntryNormal {
        return Op::ConfChange;
    }
    match entry.data.first().map(|tag| tag >> 3) {
        None => Op::NoOp,
        Some(1) => Op::Put,
        Some(2) => Op::Patch,
        Some(3) => Op::Delete,
        Some(4) => Op::Drain,
        Some(5) => Op::Expire,
        Some(field) => unreachable!("a command whose first field is {field} was proposed"),
    }
}
