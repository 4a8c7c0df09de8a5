//! One partition: its Raft group, the store behind it, and who waits for which entry.

use crate::lease::LeaseClock;
use crate::limits;
use crate::metrics::EngineMetrics;
use crate::planted::{Bug, is_planted};
use crate::proto::node::{Command, Expire, ExpiredLease, command::Operation};
use crate::raft::cell::PartitionCell;
use crate::raft::election::Elections;
use crate::raft::log_tail::LogTail;
use crate::raft::outbox;
use crate::raft::rounds::{Claim, Rounds};
use crate::raft::work::{Answer, PeerMessage, Refuse, Ticket};
use crate::store::Outcome;
use crate::wal::{Batch, Op};
use prost::Message as _;
use raft::eraftpb::{Entry, EntryType, Message, MessageType};
use raft::{Config, RawNode, Ready, StateRole};
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
    /// Messages that promise what is in it: to be sent once it is durable.
    pub promises: Vec<PeerMessage>,
    /// Messages to be sent at once.
    pub messages: Vec<PeerMessage>,
    /// Answers to be delivered.
    pub answers: Vec<(Ticket, Answer)>,
    /// Partitions with new revisions.
    pub changed: Vec<u32>,
}

/// A proposal on its way: found again by (term, index), never by its order alone, because a new
/// leader may have put something else at the index.
pub(super) struct Waiting {
    pub term: u64,
    pub index: u64,
    pub ticket: Option<Ticket>,
    pub command: Command,
}

/// What a group needs besides its data.
pub struct GroupSettings {
    /// The partition.
    pub partition: u32,
    /// This node.
    pub node_id: u64,
    /// Of the election timeouts and the jitter: must differ between nodes.
    pub seed: u64,
    /// The time, in microseconds since boot.
    pub started_us: u64,
}

/// One partition's replication on this node.
pub struct Group {
    pub(super) partition: u32,
    pub(super) node_id: u64,
    pub(super) node: RawNode<LogTail>,
    pub(super) cell: Arc<PartitionCell>,
    pub(super) waiting: VecDeque<Waiting>,
    pub(super) applied: u64,
    pub(super) random: u64,
    /// Proof that this node leads, and who waits for it.
    pub(super) rounds: Rounds,
    /// Reads that a round has confirmed, until their index is applied.
    pub(super) confirmed_reads: VecDeque<(u64, Ticket)>,
    elections: Elections,
    /// The term in which this node leads; 0 while it doesn't.
    led_term: u64,
    /// The term in which a transfer was begun: a delayed message may still make somebody else
    /// campaign, whatever this node has been promised.
    lease_void_term: u64,
    /// Readies that must be durable before this group may promise anything.
    unsynced: u64,
    synced: u64,
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
        // Off: the library's batching puts entries behind a message that announces others (see
        // docs/decisions/0004). `outbox` does it instead.
        batch_append: false,
        read_only_option: raft::ReadOnlyOption::Safe,
        ..Config::default()
    }
}

impl Group {
    /// A group over what recovery found. `applied` is what the cell's store contains.
    pub fn new(
        settings: GroupSettings,
        tail: LogTail,
        applied: u64,
        snapshots: (u64, u64),
        cell: Arc<PartitionCell>,
    ) -> raft::Result<Self> {
        let GroupSettings { partition, node_id, seed, started_us } = settings;
        let alone = tail.voters() == [node_id];
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let mut node = RawNode::new(&raft_config(node_id, applied), tail, &logger)?;
        let seed = seed ^ (node_id << 32) ^ u64::from(partition);
        let elections = Elections::new(seed, started_us);
        elections.settle(&mut node);
        if alone {
            // Nobody else can win, so there is nothing to wait for.
            node.campaign()?;
        } else {
            cell.store.write().set_leading(false);
        }
        cell.snapshot_index.store(snapshots.0, Relaxed);
        Ok(Group {
            partition,
            node_id,
            node,
            cell,
            waiting: VecDeque::new(),
            applied,
            random: seed,
            rounds: Rounds::default(),
            confirmed_reads: VecDeque::new(),
            elections,
            led_term: 0,
            lease_void_term: 0,
            unsynced: 0,
            synced: 0,
            snapshots,
        })
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

    /// How it does, for people.
    pub fn describe(&self) -> String {
        let raft = &self.node.raft;
        format!(
            "{:?} term {} last {} persisted {} committed {} applied {} progress {:?}",
            raft.state,
            raft.term,
            raft.raft_log.last_index(),
            raft.raft_log.persisted,
            raft.raft_log.committed,
            raft.raft_log.applied,
            raft.prs()
                .iter()
                .map(|(id, p)| (*id, p.state, p.matched, p.next_idx, p.paused))
                .collect::<Vec<_>>(),
        )
    }

    /// Who votes.
    pub fn voters(&self) -> Vec<u64> {
        self.node.store().voters().to_vec()
    }

    /// Whether this node is the only voter.
    pub fn is_alone(&self) -> bool {
        self.node.store().voters() == [self.node_id]
    }

    /// The current term.
    pub fn term(&self) -> u64 {
        self.node.raft.term
    }

    /// Whether this node leads in the current term, as far as it knows.
    pub fn leads(&self) -> bool {
        self.node.raft.state == StateRole::Leader
    }

    /// Whether it leads and has applied all that earlier leaders acknowledged.
    pub fn is_current(&self) -> bool {
        self.leads() && self.cell.is_current.load(Relaxed)
    }

    /// Refuses unless this node leads.
    pub fn check_leader(&self) -> Result<(), Refuse> {
        match self.leads() {
            true => Ok(()),
            false => Err(Refuse::NotLeader { leader: self.node.raft.leader_id }),
        }
    }

    /// Time passes: heartbeats and elections.
    pub fn tick(&mut self, now_us: u64) {
        self.elections.tick(&mut self.node);
        let remaining_us = self.cell.leads_until_us.load(Relaxed).saturating_sub(now_us);
        let low = remaining_us < limits::LEASE_US * 2 / 3;
        if low && self.is_current() && self.cell.lease_is_used.swap(false, Relaxed) {
            // Where the queue is full there will be a round anyway.
            let _ = self.rounds.ask(Claim::Lease);
        }
    }

    /// A message of another replica. What can't be meant for this node is passed over.
    pub fn step(&mut self, message: Message, now_us: u64) {
        use MessageType::{MsgPropose, MsgRequestPreVote, MsgRequestVote};
        let kind = message.get_msg_type();
        let is_vote = matches!(kind, MsgRequestVote | MsgRequestPreVote);
        // The library would take a proposal from anybody.
        let foreign = kind == MsgPropose && !is_planted(Bug::ExpiryWithoutProof);
        let unfit = message.to != self.node_id || foreign;
        if unfit || (is_vote && !self.elections.may_vote(now_us)) {
            return;
        }
        // An error means that the message is out of date or from somebody unknown.
        let _ = self.node.step(message);
        self.elections.settle(&mut self.node);
    }

    /// Messages to this node did not arrive.
    pub fn unreachable(&mut self, node_id: u64) {
        if self.leads() {
            self.node.report_unreachable(node_id);
        }
    }

    /// Proposes a command; its ticket is answered once it is applied.
    pub fn propose(&mut self, ticket: Option<Ticket>, command: Command) -> Result<(), Refuse> {
        self.check_leader()?;
        if let Some(leader) = self.node.raft.lead_transferee {
            return Err(Refuse::NotLeader { leader });
        }
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

    /// What the newest proposal will probably lead to; see `Bug::AcknowledgeBeforeQuorum`.
    pub fn presumed_answer(&self) -> Answer {
        let revision = self.cell.store.read().revision() + self.waiting.len() as u64;
        let outcome = Outcome::Put {
            revision,
            create_revision: revision,
            lease_id: 0,
            ttl_ms: 0,
            incarnation: 0,
            created: true,
        };
        let term = self.node.raft.term;
        Answer::Written { outcome, term, store_revision: revision, next_renewal_ms: 0 }
    }

    /// Proposes the removal of what has run out. What can't be proposed is told to the store, so
    /// that it comes up again.
    pub fn expire(&mut self, leases: Vec<ExpiredLease>, unix_ms: i64) {
        let proposer_term = self.node.raft.term;
        let operation = Operation::Expire(Expire { proposer_term, leases });
        let command = Command { proposed_unix_ms: unix_ms, operation: Some(operation) };
        if is_planted(Bug::ExpiryWithoutProof) {
            let _ = self.node.propose(Vec::new(), command.encode_to_vec());
            return;
        }
        let failed = self.check_leader().is_err() || self.propose(None, command.clone()).is_err();
        if failed && let Some(Operation::Expire(expire)) = &command.operation {
            self.cell.store.write().expiry_failed(&expire.leases);
        }
    }

    /// Hands the leadership over. From here to the end of the term the clock-bound lease is void.
    pub fn transfer(&mut self, to: u64) -> Result<(), Refuse> {
        self.check_leader()?;
        if to == self.node_id || !self.node.store().voters().contains(&to) {
            return Err(Refuse::NotVoter);
        }
        if !is_planted(Bug::LeaseKeptOnTransfer) {
            self.lease_void_term = self.node.raft.term;
            self.cell.leads_until_us.store(0, Relaxed);
        }
        self.node.transfer_leader(to);
        Ok(())
    }

    /// The batch with this group's Ready `number` is durable.
    pub fn persisted(&mut self, number: u64) {
        self.synced = self.synced.max(number);
        self.node.on_persist_ready(number);
    }

    /// Moves the group as far as it goes without waiting: collects what must become durable and
    /// what is to be sent, applies what is committed, answers who waited for it.
    pub fn advance(&mut self, turn: &mut Turn, metrics: &EngineMetrics, clock: &LeaseClock) {
        loop {
            self.begin_round(turn, metrics, clock);
            if !self.node.has_ready() {
                break;
            }
            let mut ready = self.node.ready();
            // The role first: what a leader waited for must not be answered by a later one.
            self.notice_role(turn);
            self.send(turn, &mut ready);
            let reads = ready.take_read_states();
            let committed = ready.take_committed_entries();
            self.persist(turn, &ready);
            self.node.advance_append_async(ready);
            self.elections.settle(&mut self.node);
            for read in reads {
                if let Some(confirmed) = self.rounds.confirmed(&read.request_ctx) {
                    self.prolong_lease(confirmed.started_us);
                    let claims = self.forgive(confirmed, clock);
                    self.resolve(claims, read.index, turn, metrics, clock);
                }
            }
            if !committed.is_empty() {
                self.apply(committed, turn, metrics, clock);
            }
        }
    }

    fn begin_round(&mut self, turn: &mut Turn, metrics: &EngineMetrics, clock: &LeaseClock) {
        if !self.rounds.is_wanted() || !self.is_current() {
            return;
        }
        let now_us = clock.boot_us();
        let Some(context) = self.rounds.begin(self.node_id, self.node.raft.term, now_us) else {
            return;
        };
        if self.is_alone() {
            let claims = self.rounds.confirmed(&context).map_or_else(Vec::new, |c| c.claims);
            self.resolve(claims, self.applied, turn, metrics, clock);
        } else {
            self.node.read_index(context);
        }
    }

    /// A quorum has confirmed a round that began at `started_us`: none of it elects another leader
    /// for an election timeout from when it heard of the round, which was not before.
    fn prolong_lease(&mut self, started_us: u64) {
        let transferring =
            self.node.raft.lead_transferee.is_some() && !is_planted(Bug::LeaseKeptOnTransfer);
        if self.leads() && !transferring && self.lease_void_term != self.node.raft.term {
            let until_us = started_us + limits::LEASE_US;
            self.cell.leads_until_us.fetch_max(until_us, Relaxed);
        }
    }

    fn send(&mut self, turn: &mut Turn, ready: &mut Ready) {
        let partition = self.partition;
        let wrap = |message| PeerMessage { partition, message };
        let messages = outbox::merge_appends(ready.take_messages());
        turn.messages.extend(messages.into_iter().map(wrap));
        let promises = ready.take_persisted_messages().into_iter().map(wrap);
        // Without anything unsynced they promise nothing new: a heartbeat is answered at once.
        let must_wait = ready.must_sync() || self.unsynced > self.synced;
        match must_wait && !is_planted(Bug::PromiseBeforeSync) {
            true => turn.promises.extend(promises),
            false => turn.messages.extend(promises),
        }
    }

    fn persist(&mut self, turn: &mut Turn, ready: &Ready) {
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
        if ready.must_sync() {
            turn.sync = true;
            self.unsynced = ready.number();
        }
        // Without anything to sync it is covered by the next batch: a moved commit may be late on
        // disk, because recovery commits again what the log holds.
        turn.readies.push((self.partition, ready.number()));
    }

    fn notice_role(&mut self, turn: &mut Turn) {
        let leader = self.node.raft.leader_id;
        self.cell.leader.store(leader, Relaxed);
        let led_term = if self.leads() { self.node.raft.term } else { 0 };
        if led_term == self.led_term {
            return;
        }
        self.led_term = led_term;
        self.cell.is_current.store(false, Relaxed);
        self.cell.leads_until_us.store(0, Relaxed);
        self.cell.store.write().set_leading(false);
        let refused = Answer::Refused(Refuse::NotLeader { leader });
        let mut refuse = |ticket| turn.answers.push((ticket, refused.clone()));
        // Whether they will be applied is no longer known here: the client asks again.
        self.waiting.drain(..).filter_map(|waiting| waiting.ticket).for_each(&mut refuse);
        self.confirmed_reads.drain(..).for_each(|(_, ticket)| refuse(ticket));
        for claim in self.rounds.fail() {
            match claim {
                Claim::Read(ticket) | Claim::Renew(ticket, _) => refuse(ticket),
                // A new leader looks for itself.
                Claim::Expire(_) | Claim::Lease => {}
            }
        }
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
