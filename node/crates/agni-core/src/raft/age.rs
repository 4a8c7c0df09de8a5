//! How old a replica's state is at most. Its own clock is enough for that: a follower asks the
//! leader how far everything was complete, a leader asks a quorum, and once it has applied so far,
//! its state is no older than the question.

use crate::limits;
use crate::planted::{Bug, is_planted};
use crate::raft::group::Group;
use std::sync::atomic::Ordering::Relaxed;

const MARK: &[u8] = b"age";
const CONTEXT_BYTES: usize = 16 + MARK.len();

/// Which question an answer belongs to: node and time. Unique over all lives of a node, because
/// its clock goes on.
fn context(node_id: u64, asked_us: u64) -> Vec<u8> {
    let mut context = Vec::with_capacity(CONTEXT_BYTES);
    context.extend_from_slice(&node_id.to_be_bytes());
    context.extend_from_slice(&asked_us.to_be_bytes());
    context.extend_from_slice(MARK);
    context
}

/// When this node asked the question; none when it is no such question of its own.
fn asked_us(context: &[u8], node_id: u64) -> Option<u64> {
    let (node, rest) = context.split_first_chunk::<8>()?;
    let (asked, mark) = rest.split_first_chunk::<8>()?;
    let is_own = mark == MARK && u64::from_be_bytes(*node) == node_id;
    is_own.then(|| u64::from_be_bytes(*asked))
}

impl Group {
    /// Asks the leader how far everything is complete, more often while somebody wants to know.
    pub(super) fn ask_age(&mut self, now_us: u64) {
        let nobody = self.node.raft.leader_id == raft::INVALID_ID;
        if self.leads() || nobody || !self.cell.is_held.load(Relaxed) {
            return;
        }
        let used = self.cell.age_is_used.load(Relaxed);
        let pause_us = if used { limits::AGE_USED_US } else { limits::AGE_IDLE_US };
        if now_us.saturating_sub(self.age_asked_us) < pause_us {
            return;
        }
        self.cell.age_is_used.store(false, Relaxed);
        self.age_asked_us = now_us;
        self.node.read_index(context(self.node_id, now_us));
    }

    /// Takes an answer; says whether it is one to such a question.
    pub(super) fn age_answered(&mut self, request: &[u8], index: u64) -> bool {
        let Some(asked_us) = asked_us(request, self.node_id) else { return false };
        self.is_complete_at(index, asked_us);
        true
    }

    /// At this moment, in microseconds since boot, everything up to this index was complete.
    pub(super) fn is_complete_at(&mut self, index: u64, at_us: u64) {
        // One that waits already is reached first; a replica that is always a bit behind would
        // reach none if newer ones took its place.
        self.complete_at.get_or_insert((index, at_us));
        self.note_age();
    }

    /// Something was applied: the state may be as new now as the leader's was.
    pub(super) fn note_age(&mut self) {
        let is_reached =
            |index: u64, applied: u64| index <= applied || is_planted(Bug::AgeBeforeApply);
        let applied = self.applied;
        let reached = self.complete_at.take_if(|(index, _)| is_reached(*index, applied));
        if let Some((_, asked_us)) = reached {
            self.cell.complete_at_us.fetch_max(asked_us, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_told_by_node_and_time() {
        let question = context(7, 1_234);
        assert_eq!(asked_us(&question, 7), Some(1_234));
        assert_eq!(asked_us(&question, 8), None);
        assert_eq!(asked_us(&[0; 24], 7), None, "a leader's own round");
        assert_eq!(asked_us(b"", 7), None);
    }
}
