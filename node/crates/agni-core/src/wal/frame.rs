//! The frame: `[0xCAFE:2][version:1][op:1][length:4][payload][crc32:4]`, big-endian, the CRC over
//! header and payload.

use bytes::Bytes;

/// Bytes before the payload.
pub const HEADER_BYTES: usize = 8;
/// Bytes after the payload.
pub const TRAILER_BYTES: usize = 4;
/// The largest payload: checked before anything is allocated or read.
pub const PAYLOAD_BYTES_MAX: usize = 64 << 20;

pub(super) const MAGIC: [u8; 2] = [0xCA, 0xFE];
const VERSION: u8 = 1;

/// What a frame's payload is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Op {
    /// An entry that creates or replaces a record.
    Put = 1,
    /// An entry that changes fields of a record.
    Patch = 2,
    /// An entry that removes a record.
    Delete = 3,
    /// An entry that marks a record as draining.
    Drain = 4,
    /// An entry that removes what has run out.
    Expire = 5,
    /// A leader's empty entry at the start of its term.
    NoOp = 6,
    /// An entry that changes a partition's members.
    ConfChange = 7,
    /// An entry that changes the system state.
    System = 8,
    /// A partition's term, vote and commit.
    HardState = 16,
    /// A snapshot has become durable.
    SnapshotMark = 17,
    /// Who votes in a group, from an index on.
    ReplicaSet = 18,
    /// A group is no longer held by this node: everything before is void, except its vote.
    Discard = 19,
    /// The end of what one fdatasync made durable.
    BatchCommit = 32,
    /// The first frame of a segment.
    SegmentHeader = 33,
}

impl Op {
    /// The op with this code.
    pub fn from_code(code: u8) -> Option<Op> {
        Some(match code {
            1 => Op::Put,
            2 => Op::Patch,
            3 => Op::Delete,
            4 => Op::Drain,
            5 => Op::Expire,
            6 => Op::NoOp,
            7 => Op::ConfChange,
            8 => Op::System,
            16 => Op::HardState,
            17 => Op::SnapshotMark,
            18 => Op::ReplicaSet,
            19 => Op::Discard,
            32 => Op::BatchCommit,
            33 => Op::SegmentHeader,
            _ => return None,
        })
    }

    /// Whether the frame carries a Raft entry.
    pub fn is_entry(self) -> bool {
        (self as u8) < 16
    }
}

/// Appends a frame around what `payload` writes.
pub(super) fn encode_frame(buffer: &mut Vec<u8>, op: Op, payload: impl FnOnce(&mut Vec<u8>)) {
    let start = buffer.len();
    buffer.extend_from_slice(&[MAGIC[0], MAGIC[1], VERSION, op as u8, 0, 0, 0, 0]);
    payload(buffer);
    let length = buffer.len() - start - HEADER_BYTES;
    assert!(length <= PAYLOAD_BYTES_MAX, "a payload of {length} bytes was let in");
    buffer[start + 4..start + 8].copy_from_slice(&(length as u32).to_be_bytes());
    let crc32 = crc32fast::hash(&buffer[start..]);
    buffer.extend_from_slice(&crc32.to_be_bytes());
}

/// A frame that passed its checks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// What the payload is.
    pub op: Op,
    /// The payload: a slice of the buffer that was read.
    pub payload: Bytes,
    /// Bytes of the whole frame.
    pub length: usize,
}

/// Why there is no frame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Zeros, or nothing: the end of what was written.
    #[error("end of the written part")]
    End,
    /// Bytes that are no frame.
    #[error("{0}")]
    Bad(String),
    /// A whole frame with a right checksum that this version does not know: a newer one wrote it.
    #[error("{0}")]
    Unknown(String),
}

/// Reads the frame at `offset`. Never panics, whatever the bytes are.
pub fn read_frame(buffer: &Bytes, offset: usize) -> Result<Frame, FrameError> {
    let rest = buffer.get(offset..).unwrap_or_default();
    let Some(header) = rest.first_chunk::<HEADER_BYTES>() else {
        let blank = rest.iter().all(|byte| *byte == 0);
        return Err(if blank { FrameError::End } else { bad("the header is cut short") });
    };
    if *header == [0; HEADER_BYTES] {
        return Err(FrameError::End);
    }
    if header[..2] != MAGIC {
        let (a, b) = (header[0], header[1]);
        return Err(FrameError::Bad(format!("the magic is {a:02x}{b:02x}, not cafe")));
    }
    let payload = u32::from_be_bytes([header[4], header[5], header[6], header[7]]) as usize;
    if payload > PAYLOAD_BYTES_MAX {
        return Err(FrameError::Bad(format!("the length {payload} is above the limit")));
    }
    let length = HEADER_BYTES + payload + TRAILER_BYTES;
    let Some(frame) = rest.get(..length) else {
        return Err(bad("the frame is cut short"));
    };
    let (body, trailer) = frame.split_at(HEADER_BYTES + payload);
    if crc32fast::hash(body).to_be_bytes() != *trailer {
        return Err(bad("the checksum is wrong"));
    }
    if header[2] != VERSION {
        return Err(FrameError::Unknown(format!("version {} is unknown", header[2])));
    }
    let Some(op) = Op::from_code(header[3]) else {
        return Err(FrameError::Unknown(format!("op {} is unknown", header[3])));
    };
    let start = offset + HEADER_BYTES;
    Ok(Frame { op, payload: buffer.slice(start..start + payload), length })
}

fn bad(message: &str) -> FrameError {
    FrameError::Bad(message.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(payload in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut buffer = vec![7; 3];
            encode_frame(&mut buffer, Op::Put, |out| out.extend_from_slice(&payload));
            let frame = read_frame(&Bytes::from(buffer.clone()), 3).unwrap();
            prop_assert_eq!(&frame.payload[..], &payload[..]);
            prop_assert_eq!(frame.length, buffer.len() - 3);
        }

        #[test]
        fn any_flipped_bit_is_seen(payload in prop::collection::vec(any::<u8>(), 0..40)) {
            let mut buffer = Vec::new();
            encode_frame(&mut buffer, Op::HardState, |out| out.extend_from_slice(&payload));
            for bit in 0..buffer.len() * 8 {
                let mut flipped = buffer.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                prop_assert!(read_frame(&Bytes::from(flipped), 0).is_err(), "bit {}", bit);
            }
        }

        #[test]
        fn random_bytes_never_panic(
            bytes in prop::collection::vec(any::<u8>(), 0..64), offset in 0_usize..80,
        ) {
            let _ = read_frame(&Bytes::from(bytes), offset);
        }
    }

    #[test]
    fn the_frame_on_disk_is_the_roadmaps() {
        let mut buffer = Vec::new();
        encode_frame(&mut buffer, Op::Put, |out| out.extend_from_slice(b"hi"));
        assert_eq!(buffer[..10], [0xCA, 0xFE, 1, 1, 0, 0, 0, 2, b'h', b'i']);
        assert_eq!(buffer[10..], crc32fast::hash(&buffer[..10]).to_be_bytes());
    }
}
