//! When a follower campaigns, and from when on a node may vote.
//!
//! The Raft library draws its timeouts from the thread's random numbers. They are replaced, each
//! time that it may have drawn one. Random timeouts spread over twice the shortest one, and still
//! collide; but the voters of a group are known to all of them. So whoever lost a leader stands in
//! a turn that all agree on, each well after the one before it, and the first one wins unless it is
//! gone itself or lacks entries. Only after a campaign that failed do they fall back on chance, of
//! a seed, so that a simulation can be replayed.

use crate::limits::{ELECTION_TICKS, ELECTION_TURN_TICKS, TICK_MS};
use crate::planted::{Bug, is_planted};
use raft::{RawNode, StateRole, Storage};

/// The election timeouts of one group.
#[derive(Debug)]
pub struct Elections {
    partition: u32,
    seed: u64,
    /// Since a leader was known.
    campaigns: u64,
    votes_from_us: u64,
    /// When the wait for a sign of the leader began anew, in microseconds since boot.
    waits_since_us: u64,
}

impl Elections {
    /// `seed` must differ between the nodes of a group. A node that started at `started_us` may
    /// have promised a leader, before it stopped, not to vote for another one for a while; it
    /// keeps that promise (tikv #15035).
    pub fn new(partition: u32, seed: u64, started_us: u64) -> Self {
        let votes_from_us = started_us + ELECTION_TICKS as u64 * TICK_MS * 1000;
        Elections { partition, seed, campaigns: 0, votes_from_us, waits_since_us: started_us }
    }

    /// Whether this node may vote yet.
    pub fn may_vote(&self, now_us: u64) -> bool {
        now_us >= self.votes_from_us
    }

    /// How long there has been no sign of a leader, in microseconds.
    pub fn waited_us(&self, now_us: u64) -> u64 {
        now_us.saturating_sub(self.waits_since_us)
    }

    /// A message was taken in at this time. The library waits anew from one of the leader on.
    pub fn stepped<S: Storage>(&mut self, node: &mut RawNode<S>, now_us: u64) {
        if node.raft.election_elapsed == 0 {
            self.waits_since_us = now_us;
        }
        self.settle(node);
    }

    /// Whether one more tick would make the wait longer than it has been. After a stall ticks are
    /// made up for, and they come after the messages: they belong to the time before the leader was
    /// heard, which relies on this node's stillness from then on. The first tick may come at once,
    /// the one that makes `ELECTION_TICKS` no earlier than a tick less than that.
    fn is_ahead<S: Storage>(&self, node: &RawNode<S>, now_us: u64) -> bool {
        let waited_us = self.waited_us(now_us);
        let counted = node.raft.election_elapsed as u64;
        node.raft.state != StateRole::Leader && counted > waited_us / (TICK_MS * 1000)
    }

    /// A tick passes. A node that may not stand waits on, and votes for whoever does.
    pub fn tick<S: Storage>(&mut self, node: &mut RawNode<S>, may_stand: bool, now_us: u64) {
        if self.is_ahead(node, now_us) && !is_planted(Bug::OldTicksCount) {
            return;
        }
        let due = node.raft.election_elapsed + 1 >= node.raft.randomized_election_timeout();
        if due && !may_stand && node.raft.state != StateRole::Leader {
            node.raft.election_elapsed = ELECTION_TICKS;
            return;
        }
        self.campaigns += u64::from(due && node.raft.state != StateRole::Leader);
        node.tick();
        self.settle(node);
    }

    /// Replaces the timeout: `ELECTION_TICKS` and this node's turn; after a campaign that failed,
    /// up to twice that, another one for each term and each campaign, so that those who split a
    /// vote don't stay in step.
    pub fn settle<S: Storage>(&mut self, node: &mut RawNode<S>) {
        if node.raft.leader_id != 0 {
            self.campaigns = 0;
        }
        let turn = self.turn(node).filter(|_| self.campaigns == 0);
        let later = turn.unwrap_or_else(|| {
            let mut state = self.seed ^ (node.raft.term << 20) ^ self.campaigns;
            (crate::random::next(&mut state) % ELECTION_TICKS as u64) as usize
        });
        // The library takes nothing from twice the timeout on.
        let later = later.min(ELECTION_TICKS - 1);
        node.raft.set_randomized_election_timeout(ELECTION_TICKS + later);
    }

    /// How much later than the first one this node stands, in ticks; none if it is no voter. Who is
    /// the first one is another question for each group and each term.
    fn turn<S: Storage>(&self, node: &RawNode<S>) -> Option<usize> {
        let raft = &node.raft;
        let (mut count, mut place, mut is_voter) = (0, 0, false);
        // Called for every message, so without a list.
        for id in raft.prs().conf().voters().ids().iter() {
            is_voter |= id == raft.id;
            count += usize::from(id != raft.leader_id);
            place += usize::from(id != raft.leader_id && id < raft.id);
        }
        if !is_voter {
            return None;
        }
        let mut state = (raft.term << 20) ^ u64::from(self.partition);
        let first = crate::random::next(&mut state) as usize % count.max(1);
        Some((place + first) % count.max(1) * ELECTION_TURN_TICKS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use raft::Config;
    use raft::storage::MemStorage;

    #[test]
    fn a_node_that_has_just_started_keeps_the_promises_that_it_may_have_forgotten() {
        let elections = Elections::new(0, 1, 5_000_000);
        let timeout_us = ELECTION_TICKS as u64 * TICK_MS * 1000;
        assert!(timeout_us > crate::limits::LEASE_US, "a leader may rely on it for that long");
        assert!(!elections.may_vote(5_000_000 + timeout_us - 1));
        assert!(elections.may_vote(5_000_000 + timeout_us));
    }

    fn follower(id: u64, voters: &[u64], leader: u64, term: u64) -> RawNode<MemStorage> {
        let storage = MemStorage::new_with_conf_state((voters.to_vec(), vec![]));
        let config =
            Config { id, election_tick: ELECTION_TICKS, heartbeat_tick: 1, ..Config::default() };
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let mut node = RawNode::new(&config, storage, &logger).unwrap();
        node.raft.become_follower(term, leader);
        node
    }

    #[test]
    fn those_who_lost_a_leader_stand_in_turns_that_never_meet() {
        for term in 1..50 {
            for voters in [&[1, 2, 3][..], &[1, 2, 3, 4, 5]] {
                let mut turns: Vec<usize> = voters[1..]
                    .iter()
                    .map(|id| {
                        let mut node = follower(*id, voters, 1, term);
                        Elections::new(7, *id, 0).settle(&mut node);
                        node.raft.randomized_election_timeout()
                    })
                    .collect();
                turns.sort_unstable();
                assert_eq!(turns[0], ELECTION_TICKS, "somebody stands as early as possible");
                assert!(turns.windows(2).all(|two| two[1] - two[0] >= ELECTION_TURN_TICKS));
            }
        }
    }

    #[test]
    fn ticks_of_a_stall_dont_count_behind_what_was_heard_after_it() {
        let heard = |elections: &mut Elections, node: &mut RawNode<MemStorage>, at_us| {
            let mut heartbeat = raft::eraftpb::Message::default();
            heartbeat.set_msg_type(raft::eraftpb::MessageType::MsgHeartbeat);
            (heartbeat.from, heartbeat.to, heartbeat.term) = (1, 2, 4);
            node.step(heartbeat).unwrap();
            elections.stepped(node, at_us);
        };
        let tick_us = TICK_MS * 1000;
        for phase_us in [0, 1, tick_us / 2, tick_us - 1] {
            let mut elections = Elections::new(7, 9, 0);
            let mut node = follower(2, &[1, 2, 3], 1, 4);
            let woke_us = 50 * tick_us;
            heard(&mut elections, &mut node, woke_us);
            for _ in 0..crate::limits::CATCH_UP_TICKS_MAX {
                elections.tick(&mut node, true, woke_us);
            }
            assert_eq!(node.raft.election_elapsed, 1);
            let mut now_us = woke_us + phase_us;
            while node.raft.election_elapsed < ELECTION_TICKS && node.raft.leader_id != 0 {
                elections.tick(&mut node, true, now_us);
                now_us += tick_us;
            }
            let waited_us = now_us - tick_us - woke_us;
            assert!(waited_us >= (ELECTION_TICKS as u64 - 1) * tick_us, "{waited_us}");
            assert!(waited_us <= ELECTION_TICKS as u64 * tick_us, "{waited_us}");
        }
    }

    #[test]
    fn ticks_of_a_stall_count_where_nothing_was_heard() {
        let mut elections = Elections::new(7, 9, 0);
        let mut node = follower(2, &[1, 2, 3], 1, 4);
        for _ in 0..5 {
            elections.tick(&mut node, true, 5_000_000);
        }
        assert_eq!(node.raft.election_elapsed, 5);
    }

    #[test]
    fn after_a_campaign_that_failed_it_is_chance_again() {
        let mut elections = Elections::new(7, 9, 0);
        let mut node = follower(2, &[1, 2, 3], 1, 4);
        elections.settle(&mut node);
        let own = node.raft.randomized_election_timeout();
        node.raft.become_follower(5, 0);
        let mut seen = std::collections::BTreeSet::new();
        for campaigns in 1..40 {
            elections.campaigns = campaigns;
            elections.settle(&mut node);
            seen.insert(node.raft.randomized_election_timeout());
        }
        assert!(seen.len() > ELECTION_TICKS / 2, "{seen:?}");
        node.raft.become_follower(4, 1);
        elections.settle(&mut node);
        assert_eq!(node.raft.randomized_election_timeout(), own);
    }
}
