//! What a leader sends in one turn, in as few messages as it fits into.
//!
//! Without this each proposal is a message of its own to each follower. The library has an option
//! for it (`batch_append`), but it also joins entries to an empty message about another place in
//! the log; the follower then acknowledges entries that do not exist. The simulator found it.

use crate::limits::APPEND_MESSAGE_BYTES_MAX;
use raft::eraftpb::{Message, MessageType};

/// Joins messages that append to the same follower one right behind the other.
pub fn merge_appends(messages: Vec<Message>) -> Vec<Message> {
    let mut merged: Vec<Message> = Vec::with_capacity(messages.len());
    for mut message in messages {
        let earlier = merged.iter_mut().rev().find(|earlier| earlier.to == message.to);
        match earlier.filter(|earlier| continues(earlier, &message)) {
            Some(earlier) => {
                let entries = message.take_entries();
                earlier.mut_entries().extend(entries);
                earlier.commit = earlier.commit.max(message.commit);
            }
            None => merged.push(message),
        }
    }
    merged
}

/// Whether `next` appends what comes right behind what `message` appends.
fn continues(message: &Message, next: &Message) -> bool {
    let appends = |m: &Message| m.get_msg_type() == MessageType::MsgAppend;
    let Some(last) = message.entries.last() else { return false };
    let bytes: usize = message.entries.iter().chain(&*next.entries).map(|e| e.data.len()).sum();
    appends(message)
        && appends(next)
        && message.term == next.term
        && (next.index, next.log_term) == (last.index, last.term)
        && bytes as u64 <= APPEND_MESSAGE_BYTES_MAX
}

#[cfg(test)]
mod tests {
    use super::*;
    use raft::eraftpb::Entry;

    fn append(to: u64, after: u64, entries: &[u64], commit: u64) -> Message {
        let mut message = Message::default();
        message.set_msg_type(MessageType::MsgAppend);
        (message.to, message.term, message.index) = (to, 3, after);
        (message.log_term, message.commit) = (3, commit);
        let entry = |index: &u64| Entry { term: 3, index: *index, ..Entry::default() };
        message.set_entries(entries.iter().map(entry).collect::<Vec<_>>().into());
        message
    }

    #[test]
    fn what_follows_right_behind_is_joined() {
        let messages = vec![
            append(2, 10, &[11], 9),
            append(3, 10, &[11], 9),
            append(2, 11, &[12, 13], 10),
            append(3, 11, &[12, 13], 10),
        ];
        let merged = merge_appends(messages);
        assert_eq!(merged, [append(2, 10, &[11, 12, 13], 10), append(3, 10, &[11, 12, 13], 10)]);
    }

    #[test]
    fn entries_never_go_behind_a_message_about_another_place() {
        let probe_then_retry = vec![append(2, 171, &[], 171), append(2, 89, &[90, 91], 171)];
        assert_eq!(merge_appends(probe_then_retry.clone()), probe_then_retry);
        let repeated = vec![append(2, 10, &[11, 12], 9), append(2, 10, &[11, 12], 9)];
        assert_eq!(merge_appends(repeated.clone()), repeated);
    }
}
