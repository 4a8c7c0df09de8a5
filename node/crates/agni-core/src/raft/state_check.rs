//! Whether all replicas of a group hold the same (I12), found out through the log itself.
//!
//! A leader writes, every now and then, an entry that is a *place* of comparison: whoever applies
//! it remembers the hash of its own state there. With its next place it says what its hash was at
//! the last one. Nobody says anything while all agree. A replica that differs says so, in the log
//! too, and then all others say what they have, so that the same claims stand before everybody:
//!
//! - A replica against which a majority of the voters agrees is wrong. It steps down if it leads,
//!   and replaces its state by a snapshot of the leader's.
//! - Where no majority agrees (of two, of three while one is away) nobody is replaced: it can't be
//!   told who is wrong, and the copy that is thrown away could be the good one.
//!
//! Where nothing has changed since the last comparison there is no other one, unless a replica says
//! that nothing is known of it: it does so after a start, and after its state was replaced.
//!
//! From the moment that it differs from another one until this is settled, a follower is suspect:
//! it isn't handed the leadership, nobody reads there, and it doesn't stand for election unless
//! nobody else was elected for a while: others may lack entries that only its log has. A leader
//! goes on, because nobody could say that another one would be better.

use crate::proto::node::command::Operation;
use crate::proto::node::{Command, Expire, StateClaim};
use crate::raft::group::{Group, Turn};
use crate::raft::work::PeerMessage;
use crate::store::{STATE_HASH_FORM, Store};
use prost::Message as _;
use raft::eraftpb::{Entry, Message, MessageType};
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::atomic::Ordering::Relaxed;

/// Places that a replica remembers: claims are about the newest one, or the one before it while a
/// new leader has yet to say something.
const PLACES_MAX: usize = 4;

/// What people should hear of a comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StateNotice {
    /// Another replica holds something else.
    Differs {
        /// The group.
        partition: u32,
        /// After which entry.
        index: u64,
        /// The hash here.
        own: u64,
        /// The other one.
        node_id: u64,
        /// The hash there.
        theirs: u64,
    },
    /// A majority agrees on something else than this replica holds.
    IsWrong {
        /// The group.
        partition: u32,
        /// After which entry.
        index: u64,
    },
    /// A replica that was wrong holds what the leader has.
    IsReplaced {
        /// The group.
        partition: u32,
        /// The snapshot's index.
        index: u64,
    },
}

impl fmt::Display for StateNotice {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StateNotice::Differs { partition, index, own, node_id, theirs } => write!(
                out,
                "partition {partition} index {index}: {own:016x} here, {theirs:016x} on node \
                 {node_id}"
            ),
            StateNotice::IsWrong { partition, index } => {
                write!(out, "partition {partition} index {index}: a majority agrees against it")
            }
            StateNotice::IsReplaced { partition, index } => {
                write!(out, "partition {partition}: by the leader's snapshot of index {index}")
            }
        }
    }
}

/// An entry at which states are compared, as it was here.
#[derive(Debug, Clone, Copy)]
struct Place {
    index: u64,
    hash: u64,
    revision: u64,
}

/// What a replica remembers of comparisons. A restart forgets it: the next two places tell again.
#[derive(Debug, Default)]
pub(super) struct StateChecks {
    places: VecDeque<Place>,
    /// What was said about the place that was spoken of last, by node.
    compared: u64,
    claims: BTreeMap<u64, u64>,
    /// The revision at a place that a leader has spoken of: nothing newer, nothing to compare.
    settled_revision: Option<u64>,
    /// This replica's state was compared, or a comparison was asked for.
    is_known: bool,
    /// This node owes the others its own claim.
    owes_claim: bool,
    is_suspect: bool,
    is_wrong: bool,
    /// The term in which a snapshot was asked for.
    asked_term: u64,
}

impl StateChecks {
    fn place(&self, index: u64) -> Option<Place> {
        self.places.iter().find(|place| place.index == index).copied()
    }

    fn open(&mut self, place: Place) {
        self.places.push_back(place);
        if self.places.len() > PLACES_MAX {
            self.places.pop_front();
        }
    }

    fn is_disputed(&self) -> bool {
        let mut hashes = self.claims.values();
        let first = hashes.next();
        hashes.any(|hash| Some(hash) != first)
    }

    /// Whether another node's last claim is another one than this node has.
    fn differs(&self, node_id: u64) -> bool {
        let own = self.place(self.compared).map(|place| place.hash);
        own.is_some_and(|own| self.claims.get(&node_id).is_some_and(|theirs| *theirs != own))
    }

    /// Takes a claim; answers the hash here if it is the first at this place that differs.
    fn hear(&mut self, claim: &StateClaim, me: u64) -> Option<u64> {
        if claim.index > self.compared {
            self.compared = claim.index;
            self.claims.clear();
            self.owes_claim = false;
        }
        if claim.index == 0 && !claim.is_place {
            self.settled_revision = None;
            self.is_known |= claim.node_id == me;
        }
        if claim.index == 0 || claim.index < self.compared {
            return None;
        }
        let was_disputed = self.is_disputed();
        self.claims.insert(claim.node_id, claim.hash);
        let place = self.place(claim.index)?;
        self.is_known = true;
        if claim.is_place {
            self.settled_revision = Some(place.revision);
        }
        let differs = claim.hash != place.hash;
        if (differs || self.is_disputed()) && !self.claims.contains_key(&me) {
            self.owes_claim = true;
        }
        (differs && !was_disputed).then_some(place.hash)
    }

    /// Whether a majority of the voters agrees on something else than this replica holds.
    fn is_outvoted(&self, voters: &[u64]) -> bool {
        let Some(own) = self.place(self.compared) else { return false };
        let said =
            |hash: u64| voters.iter().filter(|voter| self.claims.get(voter) == Some(&hash)).count();
        self.claims.values().any(|hash| *hash != own.hash && said(*hash) > voters.len() / 2)
    }
}

/// An entry that says something and does nothing.
fn claim_command(claim: StateClaim, term: u64, unix_ms: i64) -> Command {
    let expire = Expire { proposer_term: term, leases: Vec::new(), claim: Some(claim) };
    Command { proposed_unix_ms: unix_ms, operation: Some(Operation::Expire(expire)) }
}

impl Group {
    /// It is time for a comparison. A leader of others makes its next entry a place of comparison
    /// and says what its state was at the last one, if anything has changed since. A follower asks
    /// for one if nothing is known of it.
    pub fn check_state(&mut self, turn: &mut Turn, unix_ms: i64) {
        if !self.leads() && !self.is_blank() && !self.checks.is_known {
            self.tell_leader((0, 0), turn, unix_ms);
        }
        let has_others = self.replicas_count() > 1 && self.is_current();
        if !has_others || self.node.raft.lead_transferee.is_some() {
            return;
        }
        let revision = self.cell.store.read().revision();
        let checks = &self.checks;
        if checks.settled_revision == Some(revision) && !checks.is_disputed() {
            return;
        }
        let last = checks.places.back().map_or((0, 0), |place| (place.index, place.hash));
        // What can't be proposed now is proposed the next time.
        self.claim(last, true, unix_ms);
    }

    fn claim(&mut self, (index, hash): (u64, u64), is_place: bool, unix_ms: i64) {
        let form = STATE_HASH_FORM;
        let claim = StateClaim { form, node_id: self.node_id, index, hash, is_place };
        let command = claim_command(claim, self.node.raft.term, unix_ms);
        let _ = self.propose(None, command);
    }

    /// An entry with a claim is applied; the state is that after it.
    pub(super) fn heard_claim(
        &mut self,
        claim: &StateClaim,
        index: u64,
        store: &Store,
        turn: &mut Turn,
    ) {
        if claim.form != STATE_HASH_FORM {
            return;
        }
        let differs = self.checks.hear(claim, self.node_id);
        if let Some(own) = differs {
            self.cell.state_mismatches.fetch_add(1, Relaxed);
            turn.notices.push(StateNotice::Differs {
                partition: self.partition,
                index: claim.index,
                own,
                node_id: claim.node_id,
                theirs: claim.hash,
            });
        }
        let place = self.checks.place(claim.index);
        if place.is_some() {
            self.cell.state_checked_index.fetch_max(claim.index, Relaxed);
        }
        let by_leader = claim.is_place && claim.node_id != self.node_id;
        if by_leader && place.is_some_and(|place| place.hash != claim.hash) {
            self.checks.is_suspect = true;
        } else if by_leader && place.is_some() && !self.checks.is_wrong {
            self.checks.is_suspect = false;
        }
        let voters: Vec<u64> = self.node.raft.prs().conf().voters().ids().iter().collect();
        if self.checks.is_outvoted(&voters) {
            if !self.checks.is_wrong {
                let (partition, index) = (self.partition, claim.index);
                turn.notices.push(StateNotice::IsWrong { partition, index });
            }
            (self.checks.is_wrong, self.checks.is_suspect) = (true, true);
        } else if self.is_confirmed(&voters) {
            self.checks.is_suspect = false;
        }
        self.cell.is_suspect.store(self.checks.is_suspect, Relaxed);
        if claim.is_place {
            let (hash, revision) = (store.state_hash(), store.revision());
            self.checks.open(Place { index, hash, revision });
        }
    }

    /// Whether a majority of the voters holds what this replica holds.
    fn is_confirmed(&self, voters: &[u64]) -> bool {
        let Some(own) = self.checks.place(self.checks.compared) else { return false };
        let agrees = |voter: &&u64| self.checks.claims.get(voter) == Some(&own.hash);
        !self.checks.is_wrong && voters.iter().filter(agrees).count() > voters.len() / 2
    }

    /// Ends the leadership of a replica whose state is wrong: at once where the others can elect
    /// somebody without it, else by handing over to whoever has caught up with its log.
    pub(super) fn give_wrong_lead_away(&mut self, now_us: u64) {
        if !self.is_wrong() || !self.leads() || self.node.raft.lead_transferee.is_some() {
            return;
        }
        let voters = self.node.store().voters();
        let mut others = self.peers(now_us);
        others.retain(|peer| peer.is_alive && voters.contains(&peer.id));
        if others.len() > voters.len() / 2 {
            let term = self.node.raft.term;
            self.node.raft.become_follower(term, raft::INVALID_ID);
            return;
        }
        others.retain(|peer| self.transfers.may_try(peer.id, now_us));
        if let Some(best) = others.iter().max_by_key(|peer| (peer.matched, peer.id)) {
            // What is refused now is tried again at the next tick.
            let _ = self.transfer(best.id);
        }
    }

    /// After a turn's entries were applied: says what this node owes.
    pub(super) fn speak_of_state(&mut self, turn: &mut Turn, unix_ms: i64) {
        if !std::mem::take(&mut self.checks.owes_claim) {
            return;
        }
        let Some(Place { index, hash, .. }) = self.checks.place(self.checks.compared) else {
            return;
        };
        match self.leads() {
            true => self.claim((index, hash), false, unix_ms),
            false => self.tell_leader((index, hash), turn, unix_ms),
        }
    }

    /// Has the leader write down a claim of this follower. One that is lost is made up for at the
    /// next place.
    fn tell_leader(&self, (index, hash): (u64, u64), turn: &mut Turn, unix_ms: i64) {
        let to = self.node.raft.leader_id;
        if to == raft::INVALID_ID {
            return;
        }
        let form = STATE_HASH_FORM;
        let claim = StateClaim { form, node_id: self.node_id, index, hash, is_place: false };
        let command = claim_command(claim, self.node.raft.term, unix_ms);
        let mut message = Message { to, from: self.node_id, ..Message::default() };
        message.set_msg_type(MessageType::MsgPropose);
        let data = command.encode_to_vec().into();
        message.set_entries(vec![Entry { data, ..Entry::default() }].into());
        let partition = self.partition;
        turn.messages.push(PeerMessage { partition, message, sender_is_unfit: false });
    }

    /// Whether a proposal of another node is its claim.
    pub(super) fn is_claim(&self, message: &Message) -> bool {
        let [entry] = message.get_entries() else { return false };
        let Ok(command) = Command::decode(entry.data.clone()) else { return false };
        let Some(Operation::Expire(Expire { leases, claim: Some(claim), .. })) = command.operation
        else {
            return false;
        };
        self.leads() && leases.is_empty() && !claim.is_place && claim.node_id == message.from
    }

    /// Whether another replica may be handed the leadership, as far as its state goes.
    pub(super) fn is_trusted(&self, node_id: u64) -> bool {
        !self.checks.differs(node_id)
    }

    /// Whether a majority agreed against this replica's state.
    pub(super) fn is_wrong(&self) -> bool {
        self.checks.is_wrong
    }

    /// Whether this replica's state is in doubt.
    pub(super) fn is_suspect(&self) -> bool {
        self.checks.is_suspect
    }

    /// Asks the leader for a snapshot in place of a state that is wrong. The log stays until it is
    /// there: nothing that this node has promised is forgotten.
    pub(super) fn replace_wrong_state(&mut self) {
        if !self.checks.is_wrong || self.leads() || self.installing.is_some() {
            return;
        }
        // While it asks, it takes no entries. What it asked an earlier leader for may lie beyond
        // the log of this one.
        let term = self.node.raft.term;
        if std::mem::replace(&mut self.checks.asked_term, term) != term {
            self.node.raft.pending_request_snapshot = raft::INVALID_INDEX;
        }
        // Refused while one is under way, or before an entry of the leader's term is here.
        let _ = self.node.request_snapshot();
    }

    /// The state came from somewhere else: what was remembered is of another one.
    pub(super) fn forget_checks(&mut self, installed: Option<u64>, turn: &mut Turn) {
        if let Some(index) = installed.filter(|_| self.checks.is_wrong) {
            turn.notices.push(StateNotice::IsReplaced { partition: self.partition, index });
        }
        self.checks = StateChecks::default();
        self.cell.is_suspect.store(false, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Clock, SystemClock};
    use crate::lease::LeaseClock;
    use crate::limits::{SUSPECT_STANDS_US, TICK_MS};
    use crate::metrics::EngineMetrics;
    use crate::raft::cell::PartitionCell;
    use crate::raft::group::{GroupSettings, Snapshots};
    use crate::raft::log_tail::{LogTail, TailLimits};
    use raft::eraftpb::{ConfState, HardState};
    use std::sync::Arc;

    /// When a follower of three asks for votes after its leader is gone, in microseconds.
    fn stands_at(is_suspect: bool) -> Option<u64> {
        let members = ConfState { voters: vec![1, 2, 3], ..ConfState::default() };
        let mut tail = LogTail::new(members, 5, 1);
        tail.set_hard_state(HardState { term: 1, commit: 5, ..HardState::default() });
        let settings = GroupSettings {
            partition: 0,
            node_id: 2,
            seed: 1,
            started_us: 0,
            lease_reads: true,
            tail: TailLimits::default(),
        };
        let cell = Arc::new(PartitionCell::new(Store::new(0)));
        let mut group = Group::new(settings, tail, 5, Snapshots::default(), cell).expect("group");
        group.checks.is_suspect = is_suspect;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let (metrics, clock) = (EngineMetrics::default(), LeaseClock::new(clock));
        let tick_us = TICK_MS * 1000;
        (0..=SUSPECT_STANDS_US / tick_us + 20).map(|tick| tick * tick_us).find(|now_us| {
            let mut turn = Turn::default();
            group.tick(*now_us);
            group.advance(&mut turn, &metrics, &clock);
            let asks =
                |sent: &PeerMessage| sent.message.get_msg_type() == MessageType::MsgRequestPreVote;
            turn.messages.iter().chain(&turn.promises).any(asks)
        })
    }

    #[test]
    fn a_suspect_leaves_the_election_to_others_and_not_for_ever() {
        assert!(stands_at(false).expect("it stands") < SUSPECT_STANDS_US / 2);
        let suspect = stands_at(true).expect("others may lack what only its log has");
        assert!((SUSPECT_STANDS_US..SUSPECT_STANDS_US + 500_000).contains(&suspect), "{suspect}");
    }
}
