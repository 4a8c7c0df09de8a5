//! Naming what ran out for removal: after a proof of leadership, and a little at a time.

use crate::limits;
use crate::planted::{Bug, is_planted};
use crate::raft::core::Core;
use crate::raft::group::Group;
use crate::raft::rounds::Claim;
use crate::raft::work::Priority;
use crate::store::Store;
use std::sync::atomic::Ordering::Relaxed;

/// How far the removal of what ran out together has come.
#[derive(Debug, Default)]
pub(super) struct Naming {
    /// The group that comes first next time, so that none waits for all of another's.
    first: usize,
    /// There was more than one batch may hold.
    is_left: bool,
}

impl Core {
    /// Whether more has run out than was named: the removal goes on after `EXPIRY_PACE_US`.
    pub fn is_expiring(&self) -> bool {
        self.naming.is_left
    }

    /// Looks for what ran out.
    pub(super) fn scan_expiry(&mut self) {
        let now_ms = self.clock.lease_ms();
        let (groups, known) = (&self.groups, self.mass_expiry_news.len());
        let mut visit = |look: &mut dyn FnMut(&mut Store)| {
            for group in groups.iter().filter(|group| scans(group)) {
                look(&mut group.cell().store.write());
            }
        };
        self.mass_expiry.look(now_ms, &mut visit, &mut self.mass_expiry_news);
        let begun = self.mass_expiry_news[known..].iter().filter(|news| news.has_begun()).count();
        self.metrics.mass_expiries.fetch_add(begun as u64, Relaxed);
        self.name_due();
    }

    /// Has some of it removed. That is proposed only after a quorum round that begins after the
    /// deadline: a leader that was paused finds out that it leads no longer.
    pub(super) fn name_due(&mut self) {
        let (now_ms, unix_ms) = (self.clock.lease_ms(), self.clock.unix_ms());
        let mut left = limits::EXPIRY_BATCH_LEASES_MAX;
        let count = self.groups.len();
        for _ in 0..count {
            if left == 0 {
                break;
            }
            let group = &mut self.groups[self.naming.first % count];
            self.naming.first = (self.naming.first + 1) % count;
            if scans(group) {
                left -= name(group, left, now_ms, unix_ms);
            }
        }
        self.naming.is_left = left == 0;
    }
}

fn scans(group: &Group) -> bool {
    group.is_current() || is_planted(Bug::ExpiryWithoutProof)
}

/// Names up to so many of one partition; says how many. What finds no place comes up again.
fn name(group: &mut Group, leases_max: usize, now_ms: u64, unix_ms: i64) -> usize {
    let due = group.cell().store.write().take_due(now_ms, leases_max);
    let count = due.len();
    if count == 0 {
        return 0;
    }
    if is_planted(Bug::ExpiryWithoutProof) {
        group.expire(due, unix_ms);
        return count;
    }
    match group.rounds.ask(Claim::Expire(due), Priority::Renew) {
        Err(Claim::Expire(due)) => {
            group.cell().store.write().expiry_failed(&due);
            0
        }
        _ => count,
    }
}
