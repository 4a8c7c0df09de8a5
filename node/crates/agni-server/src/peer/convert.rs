//! Raft messages in the library's form and in ours. The library's decoder never sees bytes from
//! the network: it has no bound on recursion (RUSTSEC-2024-0437).

use agni_core::proto::node::{RaftEntry, RaftFrame, RaftSnapshot};
use agni_core::raft::replicas::{conf_state, replica_set};
use agni_core::raft::work::PeerMessage;
use raft::eraftpb::{Entry, EntryType, Message, MessageType, Snapshot};

/// Every type that a node sends to another one.
const KINDS: [MessageType; 14] = [
    MessageType::MsgPropose,
    MessageType::MsgAppend,
    MessageType::MsgAppendResponse,
    MessageType::MsgRequestVote,
    MessageType::MsgRequestVoteResponse,
    MessageType::MsgSnapshot,
    MessageType::MsgHeartbeat,
    MessageType::MsgHeartbeatResponse,
    MessageType::MsgTransferLeader,
    MessageType::MsgTimeoutNow,
    MessageType::MsgReadIndex,
    MessageType::MsgReadIndexResp,
    MessageType::MsgRequestPreVote,
    MessageType::MsgRequestPreVoteResponse,
];

const ENTRY_KINDS: [EntryType; 3] =
    [EntryType::EntryNormal, EntryType::EntryConfChange, EntryType::EntryConfChangeV2];

/// A message for the wire.
pub fn frame(message: PeerMessage) -> RaftFrame {
    let PeerMessage { partition, mut message, sender_is_unfit } = message;
    let snapshot = message.has_snapshot().then(|| {
        let metadata = message.get_snapshot().get_metadata();
        RaftSnapshot {
            index: metadata.index,
            term: metadata.term,
            replicas: Some(replica_set(metadata.get_conf_state())),
        }
    });
    let entry = |entry: Entry| RaftEntry {
        kind: entry.get_entry_type() as u32,
        term: entry.term,
        index: entry.index,
        data: entry.data,
    };
    let entries = message.take_entries().into_iter().map(entry).collect();
    RaftFrame {
        partition,
        kind: message.get_msg_type() as u32,
        to: message.to,
        from: message.from,
        term: message.term,
        log_term: message.log_term,
        index: message.index,
        entries,
        commit: message.commit,
        commit_term: message.commit_term,
        snapshot,
        request_snapshot: message.request_snapshot,
        reject: message.reject,
        reject_hint: message.reject_hint,
        context: message.context,
        priority: message.priority,
        sender_is_unfit,
    }
}

/// A message from the wire; none when it is of a kind that no node sends.
pub fn message(frame: RaftFrame) -> Option<PeerMessage> {
    let kind = KINDS.into_iter().find(|kind| *kind as u32 == frame.kind)?;
    let mut message = Message::default();
    message.set_msg_type(kind);
    (message.to, message.from, message.term) = (frame.to, frame.from, frame.term);
    (message.log_term, message.index) = (frame.log_term, frame.index);
    (message.commit, message.commit_term) = (frame.commit, frame.commit_term);
    (message.request_snapshot, message.reject) = (frame.request_snapshot, frame.reject);
    (message.reject_hint, message.context) = (frame.reject_hint, frame.context);
    message.priority = frame.priority;
    let mut entries = Vec::with_capacity(frame.entries.len());
    for RaftEntry { kind, term, index, data } in frame.entries {
        let kind = ENTRY_KINDS.into_iter().find(|known| *known as u32 == kind)?;
        let mut entry = Entry { term, index, data, ..Entry::default() };
        entry.set_entry_type(kind);
        entries.push(entry);
    }
    message.set_entries(entries.into());
    if let Some(RaftSnapshot { index, term, replicas }) = frame.snapshot {
        let mut snapshot = Snapshot::default();
        let metadata = snapshot.mut_metadata();
        (metadata.index, metadata.term) = (index, term);
        metadata.set_conf_state(conf_state(&replicas.unwrap_or_default()));
        message.set_snapshot(snapshot);
    }
    let (partition, sender_is_unfit) = (frame.partition, frame.sender_is_unfit);
    Some(PeerMessage { partition, message, sender_is_unfit })
}

/// Bytes of a message, roughly.
pub fn size(message: &PeerMessage) -> usize {
    const FIELDS_BYTES: usize = 64;
    let entries = message.message.get_entries().iter();
    FIELDS_BYTES + entries.map(|entry| entry.data.len() + FIELDS_BYTES / 2).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use agni_core::proto::node::ReplicaSet;
    use proptest::prelude::*;
    use prost::Message as _;

    fn numbers() -> impl Strategy<Value = Vec<u64>> {
        proptest::collection::btree_set(0_u64..9, 0..4).prop_map(|set| set.into_iter().collect())
    }

    prop_compose! {
        fn any_frame()(
            partition: u32,
            kind in proptest::sample::select(KINDS.to_vec()),
            fields: [u64; 9],
            entries in proptest::collection::vec((0_u32..3, any::<u64>(), any::<u64>(),
                proptest::collection::vec(any::<u8>(), 0..40)), 0..5),
            snapshot in proptest::option::of((any::<u64>(), any::<u64>(), numbers(), numbers())),
            reject: bool,
            context in proptest::collection::vec(any::<u8>(), 0..30),
            priority: i64,
        ) -> RaftFrame {
            let entry = |(kind, term, index, data): (u32, u64, u64, Vec<u8>)| {
                RaftEntry { kind, term, index, data: data.into() }
            };
            let [to, from, term, log_term, index, commit, commit_term, request, hint] = fields;
            RaftFrame {
                partition, kind: kind as u32, to, from, term, log_term, index,
                entries: entries.into_iter().map(entry).collect(),
                commit, commit_term, request_snapshot: request, reject, reject_hint: hint,
                snapshot: snapshot.map(|(index, term, voters, learners)| RaftSnapshot {
                    index, term,
                    replicas: Some(ReplicaSet { voters, learners, ..ReplicaSet::default() }),
                }),
                context: context.into(),
                priority,
                sender_is_unfit: reject,
            }
        }
    }

    proptest! {
        #[test]
        fn what_is_sent_is_what_arrives(sent in any_frame()) {
            let wire = sent.encode_to_vec();
            let arrived = RaftFrame::decode(&wire[..]).unwrap();
            let there = message(arrived).unwrap();
            prop_assert_eq!(frame(there), sent);
        }

        #[test]
        fn strange_bytes_are_no_message_and_no_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..200)
        ) {
            if let Ok(frame) = RaftFrame::decode(&bytes[..]) {
                let _ = message(frame);
            }
        }
    }
}
