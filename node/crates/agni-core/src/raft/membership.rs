//! From the replicas that a group has to those that are wanted, one safe step at a time: learner,
//! caught up, voter, old voter out. Decided by the group's leader; pure.

use crate::limits::CAUGHT_UP_ENTRIES;
use raft::eraftpb::{
    ConfChangeSingle, ConfChangeTransition, ConfChangeType, ConfChangeV2, ConfState,
};

/// What the leader sees of another replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// The node.
    pub id: u64,
    /// The newest index that it is known to have.
    pub matched: u64,
    /// Whether it was heard of lately.
    pub is_alive: bool,
}

/// What the leader sees of its group.
#[derive(Debug, Clone)]
pub struct Observed<'a> {
    /// The leader.
    pub me: u64,
    /// The group's members.
    pub now: &'a ConfState,
    /// The wanted voters, the preferred leader first.
    pub wanted: &'a [u64],
    /// The wanted learners.
    pub wanted_learners: &'a [u64],
    /// The other replicas.
    pub peers: &'a [Peer],
    /// The newest index of the log.
    pub last: u64,
    /// A change is in the log and not applied yet.
    pub is_changing: bool,
}

/// What to do next.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Nothing: all is as wanted, or something must happen first.
    Wait,
    /// Propose this change.
    Change(ConfChangeV2),
    /// Hand the leadership to this voter first.
    Transfer(u64),
}

/// The next step.
pub fn next(observed: &Observed<'_>) -> Step {
    let now = observed.now;
    if observed.is_changing || observed.wanted.is_empty() {
        return Step::Wait;
    }
    if !now.voters_outgoing.is_empty() {
        // The library leaves by itself what it entered so; this is for a leader that came later.
        return if now.auto_leave { Step::Wait } else { Step::Change(ConfChangeV2::default()) };
    }
    let wanted = observed.wanted;
    let missing = |id: &&u64| !now.voters.contains(id) && !now.learners.contains(id);
    if let Some(id) = wanted.iter().chain(observed.wanted_learners).find(missing) {
        return simple(ConfChangeType::AddLearnerNode, *id);
    }
    let joining: Vec<u64> = wanted.iter().copied().filter(|id| observed.may_vote(*id)).collect();
    let leaving = observed.leaving(joining.len());
    if !joining.is_empty() || !leaving.is_empty() {
        return observed.exchange(&joining, &leaving);
    }
    let idle = |id: &&u64| !wanted.contains(id) && !observed.wanted_learners.contains(id);
    match now.learners.iter().find(idle) {
        Some(id) => simple(ConfChangeType::RemoveNode, *id),
        None => Step::Wait,
    }
}

impl Observed<'_> {
    fn peer(&self, id: u64) -> Option<&Peer> {
        self.peers.iter().find(|peer| peer.id == id)
    }

    fn is_alive(&self, id: u64) -> bool {
        id == self.me || self.peer(id).is_some_and(|peer| peer.is_alive)
    }

    fn is_caught_up(&self, id: u64) -> bool {
        // A node that has nothing yet can't vote, however little there is.
        self.peer(id).is_some_and(|peer| {
            peer.is_alive && peer.matched > 0 && peer.matched + CAUGHT_UP_ENTRIES >= self.last
        })
    }

    /// Whether a wanted learner has come so far that it may vote.
    fn may_vote(&self, id: u64) -> bool {
        self.now.learners.contains(&id) && self.is_caught_up(id)
    }

    /// Which voters go, when so many join: all that aren't wanted once every wanted one votes, and
    /// as many as join before that, the dead ones first. The leader goes last.
    fn leaving(&self, joining: usize) -> Vec<u64> {
        let voters = &self.now.voters;
        let mut leaving: Vec<u64> =
            voters.iter().copied().filter(|id| !self.wanted.contains(id)).collect();
        leaving.sort_by_key(|id| (*id == self.me, self.is_alive(*id), *id));
        let voting = self.wanted.iter().filter(|id| voters.contains(id)).count();
        if voting + joining < self.wanted.len() {
            leaving.truncate(joining);
        }
        leaving
    }

    /// Voters in and out in one joint change, if the result is sure to have a quorum.
    fn exchange(&self, joining: &[u64], leaving: &[u64]) -> Step {
        if leaving.contains(&self.me) {
            return match self.successor() {
                Some(id) => Step::Transfer(id),
                // Whoever is to lead must vote first.
                None if !joining.is_empty() => self.exchange(joining, &[]),
                None => Step::Wait,
            };
        }
        let stays = |id: &&u64| !leaving.contains(id);
        let after: Vec<u64> =
            self.now.voters.iter().filter(stays).chain(joining).copied().collect();
        let alive = after.iter().filter(|id| self.is_alive(**id)).count();
        if alive <= after.len() / 2 {
            return Step::Wait;
        }
        let mut changes = Vec::new();
        for id in joining {
            changes.push(single(ConfChangeType::AddNode, *id));
        }
        for id in leaving {
            let kept = self.wanted_learners.contains(id);
            let kind =
                if kept { ConfChangeType::AddLearnerNode } else { ConfChangeType::RemoveNode };
            changes.push(single(kind, *id));
        }
        let mut change = ConfChangeV2::default();
        if changes.len() > 1 {
            change.set_transition(ConfChangeTransition::Implicit);
        }
        change.set_changes(changes.into());
        Step::Change(change)
    }

    /// Who leads in place of a leader that is to go: a wanted voter, as far along as any.
    fn successor(&self) -> Option<u64> {
        let fit = |id: &&u64| self.now.voters.contains(id) && self.is_caught_up(**id);
        self.wanted.iter().find(fit).copied()
    }
}

fn single(kind: ConfChangeType, id: u64) -> ConfChangeSingle {
    let mut change = ConfChangeSingle::default();
    change.set_change_type(kind);
    change.node_id = id;
    change
}

fn simple(kind: ConfChangeType, id: u64) -> Step {
    let mut change = ConfChangeV2::default();
    change.set_changes(vec![single(kind, id)].into());
    Step::Change(change)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn conf(voters: &[u64], learners: &[u64]) -> ConfState {
        ConfState { voters: voters.to_vec(), learners: learners.to_vec(), ..ConfState::default() }
    }

    fn peers(all: &[u64], dead: &[u64], behind: &[u64]) -> Vec<Peer> {
        let peer = |id: &u64| Peer {
            id: *id,
            matched: if behind.contains(id) { 0 } else { 1_000 },
            is_alive: !dead.contains(id),
        };
        all.iter().map(peer).collect()
    }

    fn step(me: u64, now: &ConfState, wanted: &[u64], dead: &[u64], behind: &[u64]) -> Step {
        let all: Vec<u64> = now.voters.iter().chain(&now.learners).copied().collect();
        let peers = peers(&all, dead, behind);
        next(&Observed {
            me,
            now,
            wanted,
            wanted_learners: &[],
            peers: &peers,
            last: 1_000,
            is_changing: false,
        })
    }

    fn kinds(step: &Step) -> Vec<(ConfChangeType, u64)> {
        let Step::Change(change) = step else { return Vec::new() };
        change.changes.iter().map(|c| (c.get_change_type(), c.node_id)).collect()
    }

    #[test]
    fn a_replica_is_exchanged_by_way_of_a_learner() {
        use ConfChangeType::{AddLearnerNode, AddNode, RemoveNode};
        let first = step(1, &conf(&[1, 2, 3], &[]), &[1, 2, 4], &[], &[]);
        assert_eq!(kinds(&first), [(AddLearnerNode, 4)]);
        let behind = step(1, &conf(&[1, 2, 3], &[4]), &[1, 2, 4], &[], &[4]);
        assert_eq!(behind, Step::Wait, "a learner that lacks entries does not vote");
        let second = step(1, &conf(&[1, 2, 3], &[4]), &[1, 2, 4], &[], &[]);
        assert_eq!(kinds(&second), [(AddNode, 4), (RemoveNode, 3)]);
        let done = step(1, &conf(&[1, 2, 4], &[]), &[1, 2, 4], &[], &[]);
        assert_eq!(done, Step::Wait);
    }

    #[test]
    fn a_leader_that_is_to_go_hands_over_first() {
        let last_out = step(3, &conf(&[1, 2, 3], &[4]), &[1, 2, 4], &[], &[]);
        assert_eq!(last_out, Step::Transfer(1));
        let moved = step(1, &conf(&[1], &[2]), &[2], &[], &[]);
        assert_eq!(kinds(&moved), [(ConfChangeType::AddNode, 2)], "nobody else could lead yet");
        assert_eq!(step(1, &conf(&[1, 2], &[]), &[2], &[], &[]), Step::Transfer(2));
    }

    #[test]
    fn no_step_leads_to_a_group_without_a_quorum() {
        let dead_majority = step(1, &conf(&[1, 2, 3], &[]), &[1, 2], &[2], &[]);
        assert_eq!(dead_majority, Step::Wait, "1 and 2 could not commit while 2 is dead");
        let repair = step(1, &conf(&[1, 2, 3], &[4]), &[1, 2, 4], &[3], &[]);
        assert_eq!(kinds(&repair).len(), 2, "the dead one goes for the live one");
    }

    fn apply(now: &mut ConfState, step: &Step) {
        let Step::Change(change) = step else { return };
        for single in &change.changes {
            let id = single.node_id;
            now.voters.retain(|voter| *voter != id);
            now.learners.retain(|learner| *learner != id);
            match single.get_change_type() {
                ConfChangeType::AddNode => now.voters.push(id),
                ConfChangeType::AddLearnerNode => now.learners.push(id),
                ConfChangeType::RemoveNode => {}
            }
        }
    }

    proptest! {
        #[test]
        fn it_arrives_wherever_it_is_sent_and_never_drops_below_a_quorum(
            from in proptest::collection::btree_set(1_u64..10, 1..6),
            to in proptest::collection::btree_set(1_u64..10, 1..6),
        ) {
            let mut now = conf(&from.iter().copied().collect::<Vec<_>>(), &[]);
            let wanted: Vec<u64> = to.iter().copied().collect();
            let mut me = now.voters[0];
            for _ in 0..64 {
                let step = step(me, &now, &wanted, &[], &[]);
                let before = now.voters.len();
                match &step {
                    Step::Wait => break,
                    Step::Transfer(id) => {
                        prop_assert!(now.voters.contains(id) && *id != me);
                        me = *id;
                    }
                    Step::Change(_) => apply(&mut now, &step),
                }
                prop_assert!(now.voters.contains(&me), "the leader stays while it leads");
                prop_assert!(now.voters.len() >= before.min(wanted.len()));
            }
            let mut voters = now.voters.clone();
            voters.sort_unstable();
            prop_assert_eq!(voters, wanted);
            prop_assert!(now.learners.is_empty());
        }
    }
}
