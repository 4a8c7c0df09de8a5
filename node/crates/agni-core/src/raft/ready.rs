//! What a group does with a Ready of the Raft library: makes durable, sends, applies, answers.

use crate::lease::LeaseClock;
use crate::limits;
use crate::metrics::EngineMetrics;
use crate::planted::{Bug, is_planted};
use crate::raft::group::{Group, Leftovers, Turn};
use crate::raft::outbox;
use crate::raft::rounds::Claim;
use crate::raft::work::{Answer, PeerMessage, Refuse, SnapshotTransfer};
use crate::wal::Op;
use raft::Ready;
use raft::eraftpb::{Entry, EntryType, Message, MessageType};
use std::sync::atomic::Ordering::{Relaxed, Release};

impl Group {
    /// The batch with this group's Ready `number` is durable.
    pub fn persisted(&mut self, number: u64) {
        self.synced = self.synced.max(number);
        let Some(number_there) = number.checked_sub(self.ready_base).filter(|there| *there > 0)
        else {
            // Of a life that this group has let go of.
            return;
        };
        self.node.on_persist_ready(number_there);
        if let Some((_, index)) = self.installing.take_if(|(ready, _)| *ready <= number) {
            self.node.advance_apply_to(index);
        }
    }

    /// Moves the group as far as it goes without waiting: collects what must become durable and
    /// what is to be sent, applies what is committed, answers who waited for it.
    pub fn advance(&mut self, turn: &mut Turn, metrics: &EngineMetrics, clock: &LeaseClock) {
        if self.leftovers == Leftovers::There {
            self.leftovers = Leftovers::Going;
            turn.forget.push(self.partition);
        }
        loop {
            self.begin_round(turn, metrics, clock);
            if !self.node.has_ready() {
                break;
            }
            let mut ready = self.node.ready();
            self.ready_newest = ready.number();
            // The role first: what a leader waited for must not be answered by a later one.
            self.notice_role(turn);
            self.send(turn, &mut ready);
            let reads = ready.take_read_states();
            let committed = ready.take_committed_entries();
            if !ready.snapshot().is_empty() {
                let number = self.ready_base + ready.number();
                self.install(ready.snapshot(), number, turn, clock.lease_ms());
            }
            self.persist(turn, &ready);
            self.node.advance_append_async(ready);
            self.elections.settle(&mut self.node);
            for read in reads {
                if self.age_answered(&read.request_ctx, read.index) {
                    continue;
                }
                if let Some(confirmed) = self.rounds.confirmed(&read.request_ctx) {
                    self.prolong_lease(confirmed.started_us);
                    self.is_complete_at(read.index, confirmed.started_us);
                    let claims = self.forgive(confirmed, clock);
                    self.resolve(claims, read.index, turn, metrics, clock);
                }
            }
            if !committed.is_empty() {
                self.apply(committed, turn, metrics, clock);
                self.note_age();
            }
        }
        // Raft has found it out of date.
        self.arrived = None;
    }

    fn begin_round(&mut self, turn: &mut Turn, metrics: &EngineMetrics, clock: &LeaseClock) {
        if !self.rounds.is_wanted() || !self.is_current() {
            return;
        }
        let now_us = clock.boot_us();
        let Some(context) = self.rounds.begin(self.node_id, self.node.raft.term, now_us) else {
            return;
        };
        metrics.rounds.fetch_add(1, Relaxed);
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
        // A round that was under way when time became doubtful grants nothing.
        let may_grant = self.lease_reads && started_us >= self.lease_from_us && !transferring;
        if self.leads() && may_grant && self.lease_void_term != self.node.raft.term {
            let until_us = started_us + limits::LEASE_US;
            self.cell.leads_until_us.fetch_max(until_us, Relaxed);
        }
    }

    fn send(&mut self, turn: &mut Turn, ready: &mut Ready) {
        let partition = self.partition;
        let wrap = |message| PeerMessage { partition, message, sender_is_unfit: false };
        for message in outbox::merge_appends(ready.take_messages()) {
            match message.get_msg_type() {
                MessageType::MsgSnapshot => self.send_snapshot(turn, message),
                _ => turn.messages.push(wrap(message)),
            }
        }
        let promises = ready.take_persisted_messages().into_iter().map(wrap);
        // Without anything unsynced they promise nothing new: a heartbeat is answered at once.
        let must_sync = ready.must_sync() || !ready.snapshot().is_empty();
        let must_wait = must_sync || self.unsynced > self.synced;
        match must_wait && !is_planted(Bug::PromiseBeforeSync) {
            true => turn.promises.extend(promises),
            false => turn.messages.extend(promises),
        }
    }

    /// A snapshot travels as a file. The newest one is what the log answered for.
    fn send_snapshot(&mut self, turn: &mut Turn, message: Message) {
        let (partition, to) = (self.partition, message.to);
        let index = message.get_snapshot().get_metadata().index;
        match &self.snapshot_file {
            Some(file) if index == self.snapshots.0 => {
                let file = file.clone();
                turn.transfers.push(SnapshotTransfer { partition, to, message, file });
            }
            _ => self.snapshot_sent(to, false),
        }
    }

    fn persist(&mut self, turn: &mut Turn, ready: &Ready) {
        for entry in ready.entries() {
            let (op, data) = (entry_op(entry), &entry.data[..]);
            turn.batch.entry(self.partition, entry.term, entry.index, op, data);
        }
        turn.entries += ready.entries().len() as u64;
        if let Some(hs) = ready.hs() {
            turn.batch.whole_hard_state(self.partition, self.hard_state(hs));
            self.cell.term.store(hs.term, Relaxed);
            self.cell.commit.store(hs.commit, Release);
        }
        let tail = self.node.mut_store();
        tail.append(ready.entries());
        if let Some(hs) = ready.hs() {
            tail.set_hard_state(hs.clone());
        }
        if ready.must_sync() {
            turn.sync = true;
            self.unsynced = self.ready_base + ready.number();
        }
        // Without anything to sync it is covered by the next batch: a moved commit may be late on
        // disk, because recovery commits again what the log holds.
        turn.readies.push((self.partition, self.ready_base + ready.number()));
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
        // Whether they will be applied is no longer known here: the client must look.
        let unknown = Answer::Refused(Refuse::Unknown { leader });
        let given_up = self.waiting.drain(..).filter_map(|waiting| waiting.ticket);
        turn.answers.extend(given_up.map(|ticket| (ticket, unknown.clone())));
        let refused = Answer::Refused(Refuse::NotLeader { leader });
        let mut refuse = |ticket| turn.answers.push((ticket, refused.clone()));
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
        Some(7) => Op::System,
        Some(field) => unreachable!("a command whose first field is {field} was proposed"),
    }
}
