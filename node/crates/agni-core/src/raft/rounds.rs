//! Quorum rounds of one partition: proof that this node still led at a moment after somebody
//! asked. One round is under way at a time; whoever asks meanwhile waits for the next one,
//! because a round proves nothing about a moment after its start.

use crate::limits;
use crate::proto::api::Capacity;
use crate::proto::node::ExpiredLease;
use crate::raft::work::{Priority, Ticket};

/// What somebody wants to do once the node has proved itself.
#[derive(Debug)]
pub enum Claim {
    /// Read what is committed.
    Read(Ticket),
    /// Extend leases.
    Renew(Ticket, Vec<(u64, Option<Capacity>)>),
    /// Propose the removal of what ran out before the round began.
    Expire(Vec<ExpiredLease>),
    /// Prolong the clock-bound lease; nobody waits.
    Lease,
}

/// A round that a quorum has confirmed.
#[derive(Debug)]
pub struct Confirmed {
    /// When it began, in microseconds since boot.
    pub started_us: u64,
    /// Who waited for it.
    pub claims: Vec<Claim>,
}

#[derive(Debug)]
struct Round {
    context: [u8; CONTEXT_BYTES],
    started_us: u64,
    claims: Vec<Claim>,
}

/// Node, term, sequence: unique over all nodes and all lives of a node, since a restart without a
/// new term does not lead.
const CONTEXT_BYTES: usize = 24;

/// The rounds of one partition.
#[derive(Debug, Default)]
pub struct Rounds {
    sequence: u64,
    next: Vec<Claim>,
    under_way: Option<Round>,
}

impl Rounds {
    /// Waits for a round that begins from now on.
    ///
    /// # Errors
    /// Hands the claim back when too many wait for its priority.
    pub fn ask(&mut self, claim: Claim, priority: Priority) -> Result<(), Claim> {
        if self.next.len() >= priority.mark(limits::CLAIMS_MAX) {
            return Err(claim);
        }
        self.next.push(claim);
        Ok(())
    }

    /// Whether somebody waits for a round that hasn't begun.
    pub fn is_wanted(&self) -> bool {
        !self.next.is_empty()
    }

    /// Begins the next round, if one is wanted and none is under way; answers its context.
    pub fn begin(&mut self, node_id: u64, term: u64, now_us: u64) -> Option<Vec<u8>> {
        if self.under_way.is_some() || self.next.is_empty() {
            return None;
        }
        self.sequence += 1;
        let mut context = [0; CONTEXT_BYTES];
        context[..8].copy_from_slice(&node_id.to_be_bytes());
        context[8..16].copy_from_slice(&term.to_be_bytes());
        context[16..].copy_from_slice(&self.sequence.to_be_bytes());
        let claims = std::mem::take(&mut self.next);
        self.under_way = Some(Round { context, started_us: now_us, claims });
        Some(context.to_vec())
    }

    /// A quorum has answered the round with this context; none when it isn't the one under way.
    pub fn confirmed(&mut self, context: &[u8]) -> Option<Confirmed> {
        let round = self.under_way.take_if(|round| round.context == *context)?;
        Some(Confirmed { started_us: round.started_us, claims: round.claims })
    }

    /// Gives up: the claims of all rounds, because the node leads no longer.
    pub fn fail(&mut self) -> Vec<Claim> {
        let mut claims = self.under_way.take().map_or_else(Vec::new, |round| round.claims);
        claims.append(&mut self.next);
        claims
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_during_a_round_waits_for_the_next_one() {
        let mut rounds = Rounds::default();
        rounds.ask(Claim::Read(1), Priority::Renew).unwrap();
        let first = rounds.begin(1, 5, 1_000).unwrap();
        rounds.ask(Claim::Read(2), Priority::Renew).unwrap();
        assert!(rounds.begin(1, 5, 1_500).is_none(), "one round at a time");
        let confirmed = rounds.confirmed(&first).unwrap();
        assert_eq!(confirmed.started_us, 1_000);
        assert!(matches!(confirmed.claims[..], [Claim::Read(1)]));
        let second = rounds.begin(1, 5, 2_000).unwrap();
        assert!(rounds.confirmed(&first).is_none(), "an old answer proves nothing new");
        assert!(matches!(rounds.confirmed(&second).unwrap().claims[..], [Claim::Read(2)]));
    }

    #[test]
    fn a_deposed_leader_gives_all_claims_back() {
        let mut rounds = Rounds::default();
        rounds.ask(Claim::Read(1), Priority::Renew).unwrap();
        let context = rounds.begin(1, 5, 0).unwrap();
        rounds.ask(Claim::Lease, Priority::Renew).unwrap();
        assert_eq!(rounds.fail().len(), 2);
        assert!(rounds.confirmed(&context).is_none());
        assert!(!rounds.is_wanted());
    }

    #[test]
    fn reads_of_many_records_leave_room_for_renewals() {
        let mut rounds = Rounds::default();
        while rounds.ask(Claim::Read(1), Priority::Many).is_ok() {}
        assert!(rounds.ask(Claim::Read(2), Priority::Many).is_err());
        assert!(rounds.ask(Claim::Read(3), Priority::Watch).is_ok());
        assert!(rounds.ask(Claim::Renew(4, Vec::new()), Priority::Renew).is_ok());
    }
}
