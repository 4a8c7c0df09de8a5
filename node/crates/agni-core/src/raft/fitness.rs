//! Who should not lead at present: a node whose disk is full, or so slow that writes wait for it.
//! Others can be asked to lead as long as it can say so itself, and they remember who isn't fit.

use crate::limits;
use crate::raft::work::PeerMessage;
use crate::wal::DiskState;
use std::collections::BTreeSet;

/// What is known of this node's disk, and of those of others.
#[derive(Debug)]
pub struct Fitness {
    disk: DiskState,
    /// When the append that is under way began, in microseconds since boot.
    append_since_us: Option<u64>,
    /// Until when a slow append counts, in microseconds since boot.
    slow_until_us: u64,
    /// What was told last.
    told: bool,
    unfit: BTreeSet<u64>,
}

impl Default for Fitness {
    fn default() -> Self {
        let unfit = BTreeSet::new();
        Fitness { disk: DiskState::Ok, append_since_us: None, slow_until_us: 0, told: true, unfit }
    }
}

impl Fitness {
    /// The disk was looked at.
    pub fn disk(&mut self, state: DiskState) {
        self.disk = state;
    }

    /// Whether what makes the data grow must be refused.
    pub fn has_room(&self) -> bool {
        self.disk == DiskState::Ok
    }

    /// An append begins, or (none) has come to its end.
    pub fn appending(&mut self, since_us: Option<u64>) {
        self.append_since_us = since_us;
    }

    /// Whether this node may lead as far as its disk goes. One slow append counts for a while: who
    /// took the leadership back between two of them would give it away again.
    pub fn may_lead(&mut self, now_us: u64) -> bool {
        let waits = |since_us| now_us.saturating_sub(since_us) >= limits::SLOW_APPEND_US;
        if self.append_since_us.is_some_and(waits) {
            self.slow_until_us = now_us + limits::SLOW_APPEND_COUNTS_US;
        }
        self.has_room() && now_us >= self.slow_until_us
    }

    /// Whether the answer has changed since this was asked last; what it is then.
    pub fn has_changed(&mut self, now_us: u64) -> Option<bool> {
        let may_lead = self.may_lead(now_us);
        (std::mem::replace(&mut self.told, may_lead) != may_lead).then_some(may_lead)
    }

    /// Another node has written; each of its messages says whether it may lead.
    pub fn heard(&mut self, message: &PeerMessage) {
        let from = message.message.from;
        if message.sender_is_unfit {
            self.unfit.insert(from);
        } else if !self.unfit.is_empty() {
            self.unfit.remove(&from);
        }
    }

    /// Who else should not lead.
    pub fn unfit(&self) -> &BTreeSet<u64> {
        &self.unfit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_counts_while_it_is_full() {
        let mut fitness = Fitness::default();
        assert!(fitness.may_lead(1));
        fitness.disk(DiskState::Low);
        assert!(!fitness.may_lead(2) && !fitness.has_room());
        fitness.disk(DiskState::Ok);
        assert!(fitness.may_lead(3));
    }

    #[test]
    fn a_slow_append_counts_for_a_while() {
        let mut fitness = Fitness::default();
        fitness.appending(Some(1_000));
        assert!(fitness.may_lead(1_000 + limits::SLOW_APPEND_US - 1));
        let late = 1_000 + limits::SLOW_APPEND_US;
        assert!(!fitness.may_lead(late));
        fitness.appending(None);
        assert!(!fitness.may_lead(late + limits::SLOW_APPEND_COUNTS_US - 1));
        assert!(fitness.may_lead(late + limits::SLOW_APPEND_COUNTS_US));
        assert_eq!(fitness.has_changed(late), Some(false));
        assert_eq!(fitness.has_changed(late), None);
    }

    #[test]
    fn others_say_for_themselves() {
        let mut fitness = Fitness::default();
        let says = |from, sender_is_unfit| {
            let message = raft::eraftpb::Message { from, ..Default::default() };
            PeerMessage { partition: 0, message, sender_is_unfit }
        };
        fitness.heard(&says(2, true));
        fitness.heard(&says(3, false));
        assert_eq!(fitness.unfit().iter().collect::<Vec<_>>(), [&2]);
        fitness.heard(&says(2, false));
        assert!(fitness.unfit().is_empty());
    }
}
