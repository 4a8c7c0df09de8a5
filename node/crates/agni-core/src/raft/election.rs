//! When a follower campaigns, and from when on a node may vote.
//!
//! The Raft library draws its timeouts from the thread's random numbers. They are replaced, each
//! time that it may have drawn one, by a function of a seed, so that a simulation can be replayed.

use crate::limits::{ELECTION_TICKS, TICK_MS};
use raft::{RawNode, StateRole, Storage};

/// The election timeouts of one group.
#[derive(Debug)]
pub struct Elections {
    seed: u64,
    campaigns: u64,
    votes_from_us: u64,
}

impl Elections {
    /// `seed` must differ between the nodes of a group. A node that started at `started_us` may
    /// have promised a leader, before it stopped, not to vote for another one for a while; it
    /// keeps that promise (tikv #15035).
    pub fn new(seed: u64, started_us: u64) -> Self {
        let votes_from_us = started_us + ELECTION_TICKS as u64 * TICK_MS * 1000;
        Elections { seed, campaigns: 0, votes_from_us }
    }

    /// Whether this node may vote yet.
    pub fn may_vote(&self, now_us: u64) -> bool {
        now_us >= self.votes_from_us
    }

    /// A tick passes. A node that may not stand waits on, and votes for whoever does.
    pub fn tick<S: Storage>(&mut self, node: &mut RawNode<S>, may_stand: bool) {
        let due = node.raft.election_elapsed + 1 >= node.raft.randomized_election_timeout();
        if due && !may_stand && node.raft.state != StateRole::Leader {
            node.raft.election_elapsed = ELECTION_TICKS;
            return;
        }
        self.campaigns += u64::from(due && node.raft.state != StateRole::Leader);
        node.tick();
        self.settle(node);
    }

    /// Replaces the timeout: `ELECTION_TICKS` to twice that, another one for each term and each
    /// campaign, so that those who split a vote don't stay in step.
    pub fn settle<S: Storage>(&self, node: &mut RawNode<S>) {
        let mut state = self.seed ^ (node.raft.term << 20) ^ self.campaigns;
        let more = crate::random::next(&mut state) % ELECTION_TICKS as u64;
        node.raft.set_randomized_election_timeout(ELECTION_TICKS + more as usize);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_has_just_started_keeps_the_promises_that_it_may_have_forgotten() {
        let elections = Elections::new(1, 5_000_000);
        let timeout_us = ELECTION_TICKS as u64 * TICK_MS * 1000;
        assert!(timeout_us > crate::limits::LEASE_US, "a leader may rely on it for that long");
        assert!(!elections.may_vote(5_000_000 + timeout_us - 1));
        assert!(elections.may_vote(5_000_000 + timeout_us));
    }
}
