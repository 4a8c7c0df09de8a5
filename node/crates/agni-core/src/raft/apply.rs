//! What a group does with what is committed or confirmed: it changes the store and answers those
//! who waited for it.

use crate::lease::LeaseClock;
use crate::limits;
use crate::metrics::EngineMetrics;
use crate::planted::{Bug, is_planted};
use crate::proto::api::Capacity;
use crate::proto::node::{Command, Expire, command::Operation};
use crate::raft::group::{Group, Turn, Waiting};
use crate::raft::rounds::{Claim, Confirmed};
use crate::raft::work::{Answer, Refuse};
use crate::store::{Outcome, Store};
use crate::system::SYSTEM_PARTITION;
use parking_lot::RwLockWriteGuard;
use prost::Message as _;
use raft::eraftpb::{Entry, EntryType};
use std::sync::atomic::Ordering::Relaxed;

impl Group {
    pub(super) fn apply(
        &mut self,
        entries: Vec<Entry>,
        turn: &mut Turn,
        metrics: &EngineMetrics,
        clock: &LeaseClock,
    ) {
        let started_us = clock.boot_us();
        let now_ms = clock.lease_ms();
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
            // Who reads doesn't wait for all of a turn's entries.
            RwLockWriteGuard::bump(&mut store);
        }
        // What was reported to the system group may be news without a revision.
        if store.revision() != revision_before || self.partition == SYSTEM_PARTITION {
            turn.changed.push(self.partition);
        }
        self.take_over(&mut store, now_ms);
        drop(store);
        self.node.advance_apply_to(self.applied);
        self.compact();
        self.give_wrong_lead_away(clock.boot_us());
        self.speak_of_state(turn, clock.unix_ms());
        while let Some((index, ticket)) = self.confirmed_reads.front().copied() {
            if index > self.applied {
                break;
            }
            self.confirmed_reads.pop_front();
            turn.answers.push((ticket, Answer::Readable));
        }
        metrics.apply_us.observe(clock.boot_us().saturating_sub(started_us));
    }

    /// Forgets the part of the log that no follower is likely to need. One that is being sent a
    /// snapshot, or catches up behind one, must find what comes after it.
    fn compact(&mut self) {
        let keep = if self.replicas_count() == 1 { 0 } else { self.tail_limits.entries_max };
        let mut until = self.applied.saturating_sub(keep);
        if self.leads() {
            let others = self.node.raft.prs().iter().filter(|(id, _)| **id != self.node_id);
            for (_, progress) in others {
                let needed = match progress.state {
                    raft::ProgressState::Snapshot => progress.pending_snapshot,
                    _ => progress.matched,
                };
                until = until.min(needed);
            }
            let least = self.applied.saturating_sub(self.tail_limits.catch_up_entries_max);
            until = until.max(least);
        }
        self.node.mut_store().compact(until);
    }

    /// Begins to serve as the leader, once an entry of the own term is applied: only this proves
    /// that everything before it is. Every lease starts anew, because the renewals that the last
    /// leader acknowledged are not known here.
    fn take_over(&mut self, store: &mut Store, now_ms: u64) {
        let own = self.node.raft.raft_log.term(self.applied) == Ok(self.node.raft.term);
        if !self.leads() || !own || self.cell.is_current.load(Relaxed) {
            return;
        }
        if self.is_alone() {
            self.cell.leads_until_us.store(u64::MAX, Relaxed);
        }
        // Also where it is alone: it may have become so by what it has just applied.
        if !is_planted(Bug::TakeoverWithoutGrace) {
            store.grant_all(now_ms);
        }
        store.set_leading(true);
        self.cell.is_current.store(true, Relaxed);
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
        if entry.get_entry_type() != EntryType::EntryNormal {
            store.apply_empty(entry.index, entry.term);
            self.apply_conf_change(entry, turn);
            return;
        }
        if entry.data.is_empty() {
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
        let before = store.revision();
        let outcome = store.apply(entry.index, entry.term, &command, now_ms);
        if is_planted(Bug::StateDiverges) && self.node_id == 2 {
            // With a change: nothing is compared where there was none. The system group has few.
            let revision = if self.partition == SYSTEM_PARTITION { 5 } else { 25 };
            if before < revision && store.revision() >= revision {
                store.diverge();
            }
        }
        if let Some(Operation::Expire(Expire { claim: Some(claim), .. })) = &command.operation {
            self.heard_claim(claim, entry.index, store, turn);
        }
        if let Outcome::Expired { removed, spared } = &outcome {
            metrics.expired.fetch_add(u64::from(*removed), Relaxed);
            metrics.expiry_spared.fetch_add(u64::from(*spared), Relaxed);
        }
        if let Some(ticket) = ticket {
            let next_renewal_ms = match &outcome {
                Outcome::Put { ttl_ms, .. } if *ttl_ms > 0 => self.next_renewal_ms(*ttl_ms),
                _ => 0,
            };
            let store_revision = store.revision();
            let term = entry.term;
            let answer = Answer::Written { outcome, term, store_revision, next_renewal_ms };
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

    /// A leader that found no quorum for a while could acknowledge no renewal meanwhile. As after a
    /// takeover, its leases start anew then, and nothing is removed that ran out in between.
    pub(super) fn forgive(&mut self, confirmed: Confirmed, clock: &LeaseClock) -> Vec<Claim> {
        let Confirmed { started_us, mut claims } = confirmed;
        let outage = clock.boot_us().saturating_sub(started_us) > limits::STALL_US;
        if outage {
            claims.retain(|claim| !matches!(claim, Claim::Expire(_)));
            self.cell.store.write().grant_all(clock.lease_ms());
        }
        claims
    }

    /// Does what a confirmed round allows. `index` was committed when the round began.
    pub(super) fn resolve(
        &mut self,
        claims: Vec<Claim>,
        index: u64,
        turn: &mut Turn,
        metrics: &EngineMetrics,
        clock: &LeaseClock,
    ) {
        for claim in claims {
            match claim {
                Claim::Read(ticket) if index <= self.applied => {
                    turn.answers.push((ticket, Answer::Readable));
                }
                Claim::Read(ticket) => self.confirmed_reads.push_back((index, ticket)),
                Claim::Renew(ticket, leases) => {
                    let answer = self.renew(&leases, metrics, clock);
                    turn.answers.push((ticket, answer));
                }
                Claim::Expire(leases) => self.expire(leases, clock.unix_ms()),
                Claim::Lease => {}
            }
        }
    }

    /// Extends leases. The caller has made sure that nobody else leads: this never touches the log.
    pub(super) fn renew(
        &mut self,
        leases: &[(u64, Option<Capacity>)],
        metrics: &EngineMetrics,
        clock: &LeaseClock,
    ) -> Answer {
        let now_ms = clock.lease_ms();
        let (mut renewed, mut lost, mut shortest_ttl_ms) = (0, Vec::new(), i64::MAX);
        let mut store = self.cell.store.write();
        for (lease_id, load) in leases {
            match store.renew(*lease_id, load.as_ref(), now_ms) {
                Some(ttl_ms) => {
                    renewed += 1;
                    shortest_ttl_ms = shortest_ttl_ms.min(ttl_ms);
                }
                None => lost.push(*lease_id),
            }
        }
        drop(store);
        metrics.renewals.fetch_add(u64::from(renewed), Relaxed);
        metrics.renewals_lost.fetch_add(lost.len() as u64, Relaxed);
        let next_renewal_ms = match renewed {
            0 => limits::RENEWAL_DEFAULT_MS,
            _ => self.next_renewal_ms(shortest_ttl_ms),
        };
        Answer::Renewed { renewed, lost, next_renewal_ms }
    }

    /// A third of the time to live, less a random part of it, so that owners that started together
    /// don't stay together.
    fn next_renewal_ms(&mut self, ttl_ms: i64) -> i64 {
        next_renewal_ms(ttl_ms, &mut self.random)
    }
}

fn next_renewal_ms(ttl_ms: i64, state: &mut u64) -> i64 {
    let full = ttl_ms / limits::RENEWALS_PER_TTL;
    let spread = full * limits::RENEWAL_JITTER_PERCENT / 100;
    full - (crate::random::next(state) % (spread.max(1) as u64)) as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_renewal_is_spread_below_a_third_of_the_time_to_live() {
        let mut state = 7;
        let planned: Vec<i64> = (0..1000).map(|_| next_renewal_ms(30_000, &mut state)).collect();
        assert!(planned.iter().all(|ms| (8_000..=10_000).contains(ms)));
        let distinct: std::collections::BTreeSet<_> = planned.iter().collect();
        assert!(distinct.len() > 500, "owners must not stay in step");
    }
}
