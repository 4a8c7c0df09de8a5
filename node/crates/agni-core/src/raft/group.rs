//! One partition: its Raft group, the store behind it, and who waits for which entry.

use crate::limits;
use crate::planted::{Bug, is_planted};
use crate::proto::node::{Command, Expire, ExpiredLease, ReplicaSet, command::Operation};
use crate::raft::cell::PartitionCell;
use crate::raft::election::Elections;
use crate::raft::log_tail::{LogTail, TailLimits};
use crate::raft::replicas;
use crate::raft::rounds::{Claim, Rounds};
use crate::raft::state_check::{StateChecks, StateNotice};
use crate::raft::transfers::Transfers;
use crate::raft::work::{Answer, PeerMessage, Priority, Refuse, SnapshotTransfer, Ticket};
use crate::store::{Outcome, Store};
use crate::wal::{Batch, DISCARD_INDEX};
use prost::Message as _;
use raft::eraftpb::{ConfState, Message, MessageType};
use raft::{Config, RawNode, StateRole};
use std::collections::{BTreeMap, VecDeque};
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
    /// Snapshots to be sent.
    pub transfers: Vec<SnapshotTransfer>,
    /// Groups whose snapshot files are to be removed.
    pub forget: Vec<u32>,
    /// The same, once what says so in the batch is durable: until then the group is still held.
    pub forget_once_durable: Vec<u32>,
    /// Answers to be delivered.
    pub answers: Vec<(Ticket, Answer)>,
    /// Partitions with new revisions.
    pub changed: Vec<u32>,
    /// What people should hear of the comparison of states.
    pub notices: Vec<StateNotice>,
}

/// A proposal on its way: found again by (term, index), never by its order alone, because a new
/// leader may have put something else at the index.
pub(super) struct Waiting {
    pub term: u64,
    pub index: u64,
    pub ticket: Option<Ticket>,
    pub command: Command,
}

/// A group's snapshot files.
#[derive(Debug, Clone, Default)]
pub struct Snapshots {
    /// The newest one's index; 0 without one.
    pub newest: u64,
    /// The index of the one before it.
    pub older: u64,
    /// The newest one's file.
    pub file: Option<String>,
}

/// Files of a life of a group that was let go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Leftovers {
    /// There may be some: somebody must remove them.
    There,
    /// They are being removed.
    Going,
    /// There are none.
    Gone,
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
    /// Whether a quorum round grants a clock-bound lease.
    pub lease_reads: bool,
    /// How much of the log is kept in memory.
    pub tail: TailLimits,
}

/// A snapshot that the leader sent: durable as a file, and loaded.
pub struct ArrivedSnapshot {
    /// The message that announced it.
    pub message: Message,
    /// The file.
    pub file: String,
    /// What is in it.
    pub store: Store,
}

/// One partition's replication on this node.
pub struct Group {
    pub(super) partition: u32,
    pub(super) node_id: u64,
    pub(super) node: RawNode<LogTail>,
    pub(super) cell: Arc<PartitionCell>,
    pub(super) waiting: VecDeque<Waiting>,
    pub(super) applied: u64,
    pub(super) tail_limits: TailLimits,
    pub(super) random: u64,
    /// Proof that this node leads, and who waits for it.
    pub(super) rounds: Rounds,
    /// Reads that a round has confirmed, until their index is applied.
    pub(super) confirmed_reads: VecDeque<(u64, Ticket)>,
    pub(super) elections: Elections,
    /// The term in which this node leads; 0 while it doesn't.
    pub(super) led_term: u64,
    /// The term in which a transfer was begun: a delayed message may still make somebody else
    /// campaign, whatever this node has been promised.
    pub(super) lease_void_term: u64,
    pub(super) lease_reads: bool,
    /// Rounds that began before this moment grant no clock-bound lease, in microseconds since boot.
    pub(super) lease_from_us: u64,
    /// The last moment at which this node didn't lead, in microseconds since boot.
    pub(super) led_since_us: u64,
    /// When this follower asked the leader how far everything was complete.
    pub(super) age_asked_us: u64,
    /// The index that answers it, and when it was asked; until that index is applied.
    pub(super) complete_at: Option<(u64, u64)>,
    /// Readies are numbered on over all Raft nodes that this group had: what stands before the
    /// present one's numbers, and its newest.
    pub(super) ready_base: u64,
    pub(super) ready_newest: u64,
    /// Readies that must be durable before this group may promise anything.
    pub(super) unsynced: u64,
    pub(super) synced: u64,
    /// Indexes of the newest snapshot and of the one before it; 0 without one.
    pub snapshots: (u64, u64),
    /// What is left on disk of a life of this group that was let go.
    pub(super) leftovers: Leftovers,
    /// The newest snapshot's file.
    pub(super) snapshot_file: Option<String>,
    /// A snapshot that the leader sent, until Raft takes or refuses it.
    pub(super) arrived: Option<ArrivedSnapshot>,
    /// The Ready that holds an installed snapshot, and its index: applied once it is durable.
    pub(super) installing: Option<(u64, u64)>,
    /// The index of the configuration that is in force.
    pub(super) replicas_index: u64,
    /// When each other replica last answered, in microseconds since boot: who answers has been
    /// reached, too.
    pub(super) heard_us: BTreeMap<u64, u64>,
    /// Whether the replicas hold the same.
    pub(super) checks: StateChecks,
    /// Who didn't take the leadership.
    pub(super) transfers: Transfers,
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

/// A Raft node over a log.
pub(super) fn raft_node(
    node_id: u64,
    applied: u64,
    tail: LogTail,
) -> raft::Result<RawNode<LogTail>> {
    let logger = slog::Logger::root(slog::Discard, slog::o!());
    RawNode::new(&raft_config(node_id, applied), tail, &logger)
}

fn is_alone(replicas: &ConfState, node_id: u64) -> bool {
    replicas.voters == [node_id] && replicas.voters_outgoing.is_empty()
}

impl Group {
    /// A group over what recovery found. `applied` is what the cell's store contains.
    pub fn new(
        settings: GroupSettings,
        tail: LogTail,
        applied: u64,
        snapshots: Snapshots,
        cell: Arc<PartitionCell>,
    ) -> raft::Result<Self> {
        let GroupSettings { partition, node_id, seed, started_us, lease_reads, tail: tail_limits } =
            settings;
        let alone = tail.newest() >= tail.floor() && is_alone(tail.conf_state(), node_id);
        let mut node = raft_node(node_id, applied, tail)?;
        let seed = seed ^ (node_id << 32) ^ u64::from(partition);
        let mut elections = Elections::new(partition, seed, started_us);
        elections.settle(&mut node);
        if alone {
            // Nobody else can win, so there is nothing to wait for.
            node.campaign()?;
        } else {
            cell.store.write().set_leading(false);
        }
        let is_blank = applied == 0 && node.raft.raft_log.last_index() == 0;
        let (snapshots, leftovers) = match is_blank && snapshots.newest > 0 {
            true => (Snapshots::default(), Leftovers::There),
            false => (snapshots, Leftovers::Gone),
        };
        cell.snapshot_index.store(snapshots.newest, Relaxed);
        cell.is_held.store(replicas::contains(node.store().conf_state(), node_id), Relaxed);
        *cell.voters.lock() = replicas::voters(node.store().conf_state());
        Ok(Group {
            partition,
            node_id,
            node,
            cell,
            waiting: VecDeque::new(),
            applied,
            tail_limits,
            random: seed,
            rounds: Rounds::default(),
            confirmed_reads: VecDeque::new(),
            elections,
            led_term: 0,
            lease_void_term: 0,
            lease_reads,
            lease_from_us: 0,
            led_since_us: started_us,
            age_asked_us: 0,
            complete_at: None,
            ready_base: 0,
            ready_newest: 0,
            unsynced: 0,
            synced: 0,
            snapshots: (snapshots.newest, snapshots.older),
            leftovers,
            snapshot_file: snapshots.file,
            arrived: None,
            installing: None,
            replicas_index: applied,
            heard_us: BTreeMap::new(),
            checks: StateChecks::default(),
            transfers: Transfers::default(),
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
            "{:?} term {} last {} persisted {} committed {} applied {} floor {:?} members {:?} \
             progress {:?}",
            raft.state,
            raft.term,
            raft.raft_log.last_index(),
            raft.raft_log.persisted,
            raft.raft_log.committed,
            raft.raft_log.applied,
            self.node.store().floor(),
            self.replicas(),
            raft.prs()
                .iter()
                .map(|(id, p)| (*id, p.state, p.matched, p.next_idx, p.paused))
                .collect::<Vec<_>>(),
        )
    }

    /// Who votes and who follows.
    pub fn replicas(&self) -> ReplicaSet {
        replicas::replica_set(self.node.store().conf_state())
    }

    /// How many replicas there are, learners included.
    pub(super) fn replicas_count(&self) -> usize {
        let state = self.node.store().conf_state();
        state.voters.len() + state.learners.len() + state.voters_outgoing.len()
    }

    /// Whether this node is the only voter.
    pub fn is_alone(&self) -> bool {
        is_alone(self.node.store().conf_state(), self.node_id)
    }

    /// Whether this node holds nothing of the group.
    pub fn is_blank(&self) -> bool {
        self.applied == 0 && self.node.raft.raft_log.last_index() == 0
    }

    /// The current term.
    pub fn term(&self) -> u64 {
        self.node.raft.term
    }

    /// Whether the group has a leader that serves, as far as this node knows; true where it holds
    /// no replica.
    pub fn is_led(&self) -> bool {
        match self.leads() {
            true => self.is_current(),
            false => !self.cell.is_held.load(Relaxed) || self.node.raft.leader_id != 0,
        }
    }

    /// The part of the log that is still needed begins here. Both snapshots must be usable, so it
    /// is kept back to the older one.
    pub fn keep_from(&self) -> u64 {
        match self.is_blank() {
            true if self.leftovers == Leftovers::Gone => DISCARD_INDEX + 1,
            true => 0,
            false => self.snapshots.1 + 1,
        }
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
        if !self.leads() {
            self.led_since_us = now_us;
        }
        let may_stand = self.may_stand(now_us);
        self.elections.tick(&mut self.node, may_stand, now_us);
        let is_handing_over = self.node.raft.lead_transferee.is_some();
        if self.transfers.look(self.leads(), is_handing_over, now_us) {
            self.node.raft.abort_leader_transfer();
        }
        self.ask_age(now_us);
        self.give_wrong_lead_away(now_us);
        self.replace_wrong_state();
        self.note_followers(now_us);
        let remaining_us = self.cell.leads_until_us.load(Relaxed).saturating_sub(now_us);
        let low = remaining_us < limits::LEASE_US * 2 / 3;
        if low
            && self.lease_reads
            && self.is_current()
            && self.cell.lease_is_used.swap(false, Relaxed)
        {
            // Where the queue is full there will be a round anyway.
            let _ = self.rounds.ask(Claim::Lease, Priority::Renew);
        }
    }

    /// More time may have passed than the clock says. A quorum must confirm anew that this node
    /// leads; whoever waits for it gets its answer a round later. Says whether there was a lease.
    pub fn void_lease(&mut self, now_us: u64) -> bool {
        self.lease_from_us = now_us;
        // Who leads alone counts on no clock.
        if self.cell.leads_alone() {
            return false;
        }
        self.cell.leads_until_us.swap(0, Relaxed) > now_us
    }

    /// A message of another replica. What can't be meant for this node is passed over.
    pub fn step(&mut self, message: Message, now_us: u64) {
        use MessageType::{MsgPropose, MsgRequestPreVote, MsgRequestVote, MsgSnapshot};
        let kind = message.get_msg_type();
        let is_vote = matches!(kind, MsgRequestVote | MsgRequestPreVote);
        // The library would take a proposal from anybody.
        let may_propose = || self.is_report(&message) || self.is_claim(&message);
        let foreign = kind == MsgPropose && !is_planted(Bug::ExpiryWithoutProof) && !may_propose();
        // A snapshot comes as a file, by way of `arrived`.
        let unfit = message.to != self.node_id || foreign || kind == MsgSnapshot;
        let too_early = is_vote && !self.elections.may_vote(now_us);
        if unfit || too_early || self.is_out_of_reach(&message, now_us) {
            return;
        }
        if is_answer(kind) {
            self.heard_us.insert(message.from, now_us);
        }
        // An error means that the message is out of date or from somebody unknown.
        let _ = self.node.step(message);
        self.elections.stepped(&mut self.node, now_us);
    }

    /// Messages to this node did not arrive: it isn't alive before it answers again, and takes
    /// nothing over.
    pub fn unreachable(&mut self, node_id: u64) {
        self.heard_us.remove(&node_id);
        if self.leads() {
            self.node.report_unreachable(node_id);
            if self.node.raft.lead_transferee == Some(node_id) {
                self.node.raft.abort_leader_transfer();
            }
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
        let operation = Operation::Expire(Expire { proposer_term, leases, claim: None });
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
        if !self.is_trusted(to) && !self.is_wrong() {
            return Err(Refuse::Unfit);
        }
        if !is_planted(Bug::LeaseKeptOnTransfer) {
            self.lease_void_term = self.node.raft.term;
            self.cell.leads_until_us.store(0, Relaxed);
        }
        self.node.transfer_leader(to);
        self.transfers.begun(to);
        Ok(())
    }
}

/// Whether a message is the answer to one of a leader, or of somebody who stands.
fn is_answer(kind: MessageType) -> bool {
    use MessageType::{
        MsgAppendResponse, MsgHeartbeatResponse, MsgRequestPreVoteResponse, MsgRequestVoteResponse,
    };
    matches!(
        kind,
        MsgAppendResponse
            | MsgHeartbeatResponse
            | MsgRequestPreVoteResponse
            | MsgRequestVoteResponse
    )
}
