//! How a group changes its members, and how a replica comes and goes: configuration changes,
//! snapshots that the leader sent, and letting go of a group.

use crate::limits;
use crate::planted::{Bug, is_planted};
use crate::proto::node::{
    Command, HardState as DurableHardState, PartitionPlacement, ReportReplicas, SystemCommand,
    command, system_command,
};
use crate::raft::cell::Follower;
use crate::raft::group::{ArrivedSnapshot, Group, Leftovers, Turn, raft_node};
use crate::raft::log_tail::LogTail;
use crate::raft::membership::{self, Observed, Peer, Step};
use crate::raft::replicas;
use crate::system::SYSTEM_PARTITION;
use crate::wal::SnapshotMark;
use prost::Message as _;
use protobuf::Message as _;
use raft::eraftpb::{
    ConfChangeV2, ConfState, Entry, HardState, Message, MessageType, Snapshot, SnapshotMetadata,
};
use std::sync::atomic::Ordering::Relaxed;

impl Group {
    /// Applies a committed change of the members.
    ///
    /// # Panics
    /// When its entry can't be read: it passed its checksum, so guessing would diverge.
    pub(super) fn apply_conf_change(&mut self, entry: &Entry, turn: &mut Turn) {
        let change = match ConfChangeV2::parse_from_bytes(&entry.data) {
            Ok(change) => change,
            Err(error) => panic!(
                "partition {} index {}: a configuration change of an unknown form: {error}",
                self.partition, entry.index
            ),
        };
        // A change that the library refuses is refused everywhere, and changes nothing.
        if let Ok(state) = self.node.apply_conf_change(&change) {
            self.set_replicas(state, entry.index);
            self.step_down_if_removed();
        }
        let set = self.replicas();
        turn.batch.replica_set(self.partition, entry.index, entry.term, set);
    }

    /// A leader does not hand over before every change that removes it: one that an earlier leader
    /// began may take effect while it leads. The library would go on, and end in a panic.
    fn step_down_if_removed(&mut self) {
        let members = self.node.store().conf_state();
        let votes = [&members.voters, &members.voters_outgoing];
        if self.leads() && !votes.iter().any(|half| half.contains(&self.node_id)) {
            let term = self.node.raft.term;
            self.node.raft.become_follower(term, raft::INVALID_ID);
        }
    }

    /// Other members are in force. A lease that rests on the old ones is void.
    fn set_replicas(&mut self, state: ConfState, index: u64) {
        self.cell.is_held.store(replicas::contains(&state, self.node_id), Relaxed);
        *self.cell.voters.lock() = replicas::voters(&state);
        self.node.mut_store().set_conf_state(state);
        self.replicas_index = index;
        let forever = self.is_alone() && self.is_current();
        self.cell.leads_until_us.store(if forever { u64::MAX } else { 0 }, Relaxed);
        let members = self.node.store().conf_state().clone();
        self.heard_us.retain(|id, _| replicas::contains(&members, *id));
    }

    /// One step towards the wanted members, if this node leads.
    pub fn reconfigure(&mut self, wanted: &[u64], wanted_learners: &[u64], now_us: u64) {
        if !self.is_current() || self.node.raft.lead_transferee.is_some() {
            return;
        }
        let peers: Vec<Peer> = self.peers(now_us);
        let step = membership::next(&Observed {
            me: self.node_id,
            now: self.node.store().conf_state(),
            wanted,
            wanted_learners,
            peers: &peers,
            last: self.node.raft.raft_log.last_index(),
            is_changing: self.node.raft.has_pending_conf(),
        });
        // What is refused now is tried again at the next look.
        match step {
            Step::Wait => {}
            Step::Change(change) => {
                let _ = self.node.propose_conf_change(Vec::new(), change);
            }
            Step::Transfer(to) if self.transfers.may_try(to, now_us) => {
                let _ = self.transfer(to);
            }
            Step::Transfer(_) => {}
        }
    }

    /// The other replicas as this leader sees them.
    pub fn peers(&self, now_us: u64) -> Vec<Peer> {
        let peer = |(id, progress): (&u64, &raft::Progress)| Peer {
            id: *id,
            matched: progress.matched,
            is_alive: self.has_answered(*id, limits::SILENT_US, now_us),
        };
        self.node.raft.prs().iter().filter(|(id, _)| **id != self.node_id).map(peer).collect()
    }

    fn has_answered(&self, id: u64, within_us: u64, now_us: u64) -> bool {
        self.heard_us.get(&id).is_some_and(|at_us| at_us + within_us > now_us)
    }

    /// Tells readers how far the other replicas are.
    pub(super) fn note_followers(&self, now_us: u64) {
        let last = self.node.raft.raft_log.last_index();
        let follower = |peer: Peer| Follower {
            node_id: peer.id,
            behind: last.saturating_sub(peer.matched),
            is_alive: peer.is_alive,
        };
        let peers = if self.leads() { self.peers(now_us) } else { Vec::new() };
        *self.cell.followers.lock() = peers.into_iter().map(follower).collect();
    }

    /// Hands the leadership to a voter that may have it and is as far along as any, if there is
    /// one.
    pub fn hand_over(&mut self, may_lead: impl Fn(u64) -> bool, now_us: u64) {
        if !self.is_current() || self.node.raft.lead_transferee.is_some() {
            return;
        }
        let voters = self.node.store().voters();
        let fit = |peer: &&Peer| {
            may_lead(peer.id)
                && voters.contains(&peer.id)
                && self.is_trusted(peer.id)
                && self.has_answered(peer.id, limits::ANSWERS_US, now_us)
                && self.transfers.may_try(peer.id, now_us)
        };
        let peers = self.peers(now_us);
        let best = peers.iter().filter(fit).max_by_key(|peer| (peer.matched, peer.id));
        let best = best.map(|peer| peer.id);
        let last = self.node.raft.raft_log.last_index();
        let is_near = |id: u64| {
            peers.iter().any(|p| p.id == id && p.matched + limits::CAUGHT_UP_ENTRIES >= last)
        };
        if let Some(to) = best.filter(|to| is_near(*to)) {
            let _ = self.transfer(to);
        }
    }

    /// Hands the leadership to the voter that should have it, once this node has led for a while: a
    /// leader that has just been elected has other things to do.
    pub fn prefer(&mut self, preferred: u64, now_us: u64) {
        let rested = now_us.saturating_sub(self.led_since_us) >= limits::PREFERRED_AFTER_US;
        if preferred != self.node_id && rested {
            self.hand_over(|id| id == preferred, now_us);
        }
    }

    /// What the system group should hear of the members that this leader has reached: other ones
    /// than were `told`, or that they are the ones that are wanted by now.
    pub fn report(&self, told: &PartitionPlacement) -> Option<Command> {
        let settled = self.node.store().conf_state().voters_outgoing.is_empty();
        // Who hasn't applied what was reported leads no more, and doesn't know it yet.
        if !self.is_current() || !settled || self.applied < told.reported_index {
            return None;
        }
        let reached = if self.has_reached(&told.wanted) { told.wanted_version } else { 0 };
        if self.replicas_index <= told.reported_index && reached <= told.reached_version {
            return None;
        }
        let report = ReportReplicas {
            partition: self.partition,
            replicas: Some(self.replicas()),
            // A leader that had begun from a snapshot reported the snapshot's index.
            index: self.replicas_index.max(told.reported_index),
            reached_version: Some(reached),
        };
        let operation = Some(system_command::Operation::ReportReplicas(report));
        let command = SystemCommand { author_epoch: 0, operation };
        Some(Command { proposed_unix_ms: 0, operation: Some(command::Operation::System(command)) })
    }

    /// Whether the wanted nodes vote, nobody else has a replica, and no change is on its way.
    fn has_reached(&self, wanted: &[u64]) -> bool {
        let now = self.node.store().conf_state();
        let votes = |id: &u64| now.voters.contains(id);
        let all_vote = now.voters.len() == wanted.len() && wanted.iter().all(votes);
        all_vote && now.learners.is_empty() && !self.node.raft.has_pending_conf()
    }

    /// Brings a report to the leader of the system group, which this group is. Another node gets
    /// it as a message; one that is lost is repeated at the next look.
    pub fn bring(&mut self, report: &Command) -> Option<Message> {
        if self.leads() {
            let _ = self.propose(None, report.clone());
            return None;
        }
        let to = self.node.raft.leader_id;
        if to == raft::INVALID_ID {
            return None;
        }
        let mut message = Message { to, from: self.node_id, ..Message::default() };
        message.set_msg_type(MessageType::MsgPropose);
        let data = report.encode_to_vec().into();
        message.set_entries(vec![Entry { data, ..Entry::default() }].into());
        Some(message)
    }

    /// Whether a proposal of another node is one that nodes may send: a report.
    pub(super) fn is_report(&self, message: &Message) -> bool {
        let [entry] = message.get_entries() else { return false };
        let Ok(command) = Command::decode(entry.data.clone()) else { return false };
        let Some(command::Operation::System(system)) = command.operation else { return false };
        let is_report =
            matches!(system.operation, Some(system_command::Operation::ReportReplicas(_)));
        self.partition == SYSTEM_PARTITION && self.leads() && is_report && system.author_epoch == 0
    }

    /// Shows a snapshot that the leader sent to Raft, which takes it or finds it out of date.
    pub fn arrived(&mut self, arrived: ArrivedSnapshot, now_us: u64) {
        let message = arrived.message.clone();
        // While files of an earlier life are removed, this one goes with them: the leader sends it
        // again.
        if message.to != self.node_id || self.leftovers != Leftovers::Gone {
            return;
        }
        self.arrived = Some(arrived);
        let _ = self.node.step(message);
        self.elections.stepped(&mut self.node, now_us);
    }

    /// Replaces everything by the snapshot that Raft has taken.
    ///
    /// # Panics
    /// When it is not the one that arrived: only that one was shown to Raft.
    pub(super) fn install(
        &mut self,
        snapshot: &Snapshot,
        number: u64,
        turn: &mut Turn,
        now_ms: u64,
    ) {
        let metadata = snapshot.get_metadata().clone();
        let arrived = self.arrived.take();
        let Some(ArrivedSnapshot { file, mut store, .. }) =
            arrived.filter(|arrived| arrived.store.applied().0 == metadata.index)
        else {
            panic!("partition {}: no snapshot of index {} arrived", self.partition, metadata.index)
        };
        let replicas = replicas::replica_set(metadata.get_conf_state());
        let (index, term) = (metadata.index, metadata.term);
        let mark = SnapshotMark { index, term, file: file.clone(), replicas, installed: true };
        turn.batch.snapshot_mark(self.partition, mark);
        turn.sync = true;
        self.unsynced = number;
        let state = metadata.get_conf_state().clone();
        self.node.mut_store().install(metadata);
        self.set_replicas(state, index);
        store.set_leading(false);
        store.grant_all(now_ms);
        *self.cell.store.write() = store;
        self.applied = index;
        self.forget_checks(Some(index), turn);
        // What lies before it can't be reached from the snapshot that was there until now.
        self.snapshots = (index, index);
        self.snapshot_file = Some(file);
        self.cell.snapshot_index.store(index, Relaxed);
        self.installing = Some((number, index));
        turn.changed.push(self.partition);
    }

    /// A snapshot that this node took is durable.
    pub fn snapshot_taken(&mut self, index: u64, term: u64, file: String, state: ConfState) {
        if index <= self.snapshots.0 {
            return;
        }
        self.snapshots = (index, self.snapshots.0);
        self.snapshot_file = Some(file);
        self.cell.snapshot_index.store(index, Relaxed);
        let mut metadata = SnapshotMetadata { index, term, ..SnapshotMetadata::default() };
        metadata.set_conf_state(state);
        self.node.mut_store().set_snapshot(metadata);
    }

    /// Whether somebody needs a newer snapshot than there is; asked once.
    pub fn take_snapshot_wanted(&self) -> bool {
        self.node.store().take_snapshot_wanted()
    }

    /// How the sending of a snapshot ended.
    pub fn snapshot_sent(&mut self, to: u64, ok: bool) {
        use raft::SnapshotStatus::{Failure, Finish};
        self.node.report_snapshot(to, if ok { Finish } else { Failure });
    }

    /// The term and index of the newest entry of the log.
    fn newest_entry(&self) -> (u64, u64) {
        let log = &self.node.raft.raft_log;
        (log.last_term(), log.last_index())
    }

    /// Whether this node has what it once had of the group. One that let go of it and got it again
    /// may have begun with an older state. Until it has caught up with itself it must not elect
    /// anybody: a quorum of the members of that time would forget what they had acknowledged. Nor
    /// before a snapshot that replaced its log is durable: the library would look for entries
    /// that are no longer there. Nor while its state is in doubt, if anybody else could stand: its
    /// log is as good as any, and a quorum may need it.
    pub(super) fn may_stand(&self, now_us: u64) -> bool {
        let is_needed = self.elections.waited_us(now_us) >= limits::SUSPECT_STANDS_US;
        let is_sound = !self.is_suspect() || self.is_alone() || is_needed;
        let has_all = self.newest_entry() >= self.node.store().floor();
        self.installing.is_none() && is_sound && has_all
    }

    /// Whether a message can ask this node for something that it must not give: its vote for a log
    /// that lacks what it once had, its candidacy, or entries that it has let go of.
    pub(super) fn is_out_of_reach(&self, message: &Message, now_us: u64) -> bool {
        use MessageType::{MsgHeartbeat, MsgRequestPreVote, MsgRequestVote, MsgTimeoutNow};
        match message.get_msg_type() {
            MsgRequestVote | MsgRequestPreVote => {
                let offered = (message.log_term, message.index);
                let lacks = self.is_blank() || offered < self.node.store().floor();
                lacks && !is_planted(Bug::VoteAfterLettingGo)
            }
            MsgTimeoutNow => !self.may_stand(now_us),
            MsgHeartbeat => message.commit > self.node.raft.raft_log.last_index(),
            _ => false,
        }
    }

    /// What is made durable of a hard state.
    pub(super) fn hard_state(&self, state: &HardState) -> DurableHardState {
        durable_hard_state(self.node.store(), state)
    }

    /// Whether the group, as the system group knows it at `reported_index`, goes on without this
    /// node.
    pub fn is_orphaned(&self, reported_index: u64) -> bool {
        !self.is_blank() && !self.leads() && reported_index > self.replicas_index
    }

    /// Lets go of the group. The vote stays, since the node may be asked for it again, and so does
    /// how far its log went: others may have counted on that, see `may_stand`.
    pub fn discard(&mut self, turn: &mut Turn) {
        let HardState { term, vote, .. } = self.node.store().hard_state().clone();
        let floor = self.node.store().floor().max(self.newest_entry());
        turn.batch.discard(self.partition, self.applied);
        let mut tail = LogTail::new(ConfState::default(), 0, 0);
        tail.set_hard_state(HardState { term, vote, ..HardState::default() });
        tail.set_floor(floor);
        turn.batch.whole_hard_state(self.partition, durable_hard_state(&tail, tail.hard_state()));
        turn.sync = true;
        // Readies of the old node are still on their way to the disk.
        self.ready_base += self.ready_newest;
        self.ready_newest = 0;
        self.node = match raft_node(self.node_id, 0, tail) {
            Ok(node) => node,
            Err(error) => panic!("partition {}: a blank group is refused: {error}", self.partition),
        };
        self.elections.settle(&mut self.node);
        let mut store = self.cell.store.write();
        *store = store.emptied();
        store.set_leading(false);
        drop(store);
        self.applied = 0;
        self.snapshots = (0, 0);
        self.snapshot_file = None;
        self.replicas_index = 0;
        (self.arrived, self.installing) = (None, None);
        self.forget_checks(None, turn);
        self.heard_us.clear();
        // It may begin again with an older state than it had, and must not call that young.
        self.complete_at = None;
        let cell = &self.cell;
        let figures = [&cell.snapshot_index, &cell.leader, &cell.commit, &cell.leads_until_us];
        for figure in figures.into_iter().chain([&cell.complete_at_us]) {
            figure.store(0, Relaxed);
        }
        for flag in [&cell.is_held, &cell.is_current] {
            flag.store(false, Relaxed);
        }
        cell.voters.lock().clear();
        self.leftovers = Leftovers::Going;
        turn.forget_once_durable.push(self.partition);
        turn.changed.push(self.partition);
    }
}

/// What is made durable in place of the library's hard state.
fn durable_hard_state(tail: &LogTail, state: &HardState) -> DurableHardState {
    let (floor_term, floor_index) = tail.floor();
    let HardState { term, vote, commit, .. } = *state;
    DurableHardState { term, vote, commit, floor_index, floor_term }
}
