//! What one fdatasync is to make durable: frames of all partitions in one buffer, which goes
//! round between the driver and the log thread and is never allocated anew.

use super::frame::{Op, encode_frame};
use crate::proto::node::{HardState, ReplicaSet, WalRecord};
use prost::Message as _;
use prost::encoding::{WireType, encode_key, encode_varint};

/// What stands for an index in the frame that discards a group.
pub const DISCARD_INDEX: u64 = u64::MAX - 1;

/// A snapshot file that has become durable.
#[derive(Debug, Clone, PartialEq)]
pub struct SnapshotMark {
    /// The newest index in it.
    pub index: u64,
    /// The term of that entry.
    pub term: u64,
    /// The file's name.
    pub file: String,
    /// Who votes at that index.
    pub replicas: ReplicaSet,
    /// It came from the leader, and replaces what the log held until here.
    pub installed: bool,
}

/// Frames that belong together.
#[derive(Debug, Default)]
pub struct Batch {
    pub(super) frames: Vec<u8>,
    /// The newest index of each partition that has entries in here.
    pub(super) last_indexes: Vec<(u32, u64)>,
    /// The hard states in here, oldest first.
    pub(super) hard_states: Vec<(u32, HardState)>,
    /// Whether there is a client's or a lease's doing in here: what can wait for space.
    pub(super) has_commands: bool,
}

impl Batch {
    /// An empty batch.
    pub fn new() -> Self {
        Batch::default()
    }

    /// Adds a Raft entry. `data` is the encoded command, as Raft has it.
    pub fn entry(&mut self, partition: u32, term: u64, index: u64, op: Op, data: &[u8]) {
        debug_assert!(op.is_entry());
        self.has_commands |= op != Op::NoOp;
        self.note_index(partition, index);
        // The same bytes as prost writes for a WalRecord, without a copy of `data` in between.
        encode_frame(&mut self.frames, op, |out| {
            for (field, value) in [(1, u64::from(partition)), (2, term), (3, index)] {
                if value != 0 {
                    encode_key(field, WireType::Varint, out);
                    encode_varint(value, out);
                }
            }
            if !data.is_empty() {
                encode_key(4, WireType::LengthDelimited, out);
                encode_varint(data.len() as u64, out);
                out.extend_from_slice(data);
            }
        });
    }

    /// Adds a partition's hard state.
    pub fn hard_state(&mut self, partition: u32, term: u64, vote: u64, commit: u64) {
        self.whole_hard_state(partition, HardState { term, vote, commit, ..HardState::default() });
    }

    /// The same with the floor of a group that was let go.
    pub fn whole_hard_state(&mut self, partition: u32, hard_state: HardState) {
        self.hard_states.push((partition, hard_state));
        let hard_state = Some(hard_state);
        self.record(Op::HardState, &WalRecord { partition, hard_state, ..WalRecord::default() });
    }

    /// Says that a snapshot file has become durable.
    pub fn snapshot_mark(&mut self, partition: u32, mark: SnapshotMark) {
        let SnapshotMark { index, term, file, replicas, installed } = mark;
        let record = WalRecord {
            partition,
            term,
            index,
            snapshot_file: file,
            replicas: Some(replicas),
            installed,
            ..WalRecord::default()
        };
        self.record(Op::SnapshotMark, &record);
    }

    /// Says who votes in a group from this index on. It is kept as long as the entry is.
    pub fn replica_set(&mut self, partition: u32, index: u64, term: u64, replicas: ReplicaSet) {
        self.note_index(partition, index);
        let replicas = Some(replicas);
        let record = WalRecord { partition, term, index, replicas, ..WalRecord::default() };
        self.record(Op::ReplicaSet, &record);
    }

    /// Says that this node no longer holds a group, of which it had applied `index`. It is kept
    /// while `keep_from` is 0: until no file of the group is there any more, or a snapshot is that
    /// the leader sent later.
    pub fn discard(&mut self, partition: u32, index: u64) {
        self.note_index(partition, DISCARD_INDEX);
        self.record(Op::Discard, &WalRecord { partition, index, ..WalRecord::default() });
    }

    fn note_index(&mut self, partition: u32, index: u64) {
        match self.last_indexes.iter_mut().find(|(known, _)| *known == partition) {
            Some((_, last)) => *last = index,
            None => self.last_indexes.push((partition, index)),
        }
    }

    pub(super) fn record(&mut self, op: Op, record: &WalRecord) {
        encode_frame(&mut self.frames, op, |out| {
            record.encode(out).expect("a Vec grows");
        });
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Bytes of its frames.
    pub fn len(&self) -> usize {
        self.frames.len()
    }

    /// Empties it, keeping its buffer unless a burst has made that very large.
    pub fn clear(&mut self) {
        const KEPT_BYTES_MAX: usize = 8 << 20;
        self.frames.clear();
        self.frames.shrink_to(KEPT_BYTES_MAX);
        self.last_indexes.clear();
        self.hard_states.clear();
        self.has_commands = false;
    }
}

#[cfg(test)]
mod tests {
    use super::super::frame::read_frame;
    use super::*;
    use bytes::Bytes;

    #[test]
    fn an_entry_is_a_wal_record() {
        let mut batch = Batch::new();
        batch.entry(3, 2, 9, Op::Delete, b"data");
        let buffer = Bytes::from(batch.frames);
        let frame = read_frame(&buffer, 0).unwrap();
        let data = Bytes::from_static(b"data");
        let record = WalRecord { partition: 3, term: 2, index: 9, data, ..WalRecord::default() };
        assert_eq!(&frame.payload[..], record.encode_to_vec());
        let decoded = WalRecord::decode(frame.payload.clone()).unwrap();
        assert_eq!(decoded, record);
        let start = buffer.as_ptr() as usize;
        let slice = decoded.data.as_ptr() as usize;
        assert!((start..start + buffer.len()).contains(&slice), "decoded without a copy");
    }
}
