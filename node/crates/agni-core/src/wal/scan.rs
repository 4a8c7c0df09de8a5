//! Reads one segment: batches up to the first thing that is not one.

use super::Identity;
use super::frame::{Frame, FrameError, Op, read_frame};
use crate::proto::node::{BatchCommit, SegmentHeader, WalRecord};
use bytes::Bytes;
use prost::Message as _;
use std::ops::Range;

/// Why a scan ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Nothing but zeros follows.
    Clean,
    /// A complete batch follows that this version does not understand.
    Unknown {
        /// Where.
        offset: usize,
        /// What is not understood.
        reason: String,
    },
    /// Something follows that is no complete batch.
    Broken {
        /// Where the bad bytes are.
        offset: usize,
        /// What is wrong with them.
        reason: String,
    },
}

/// What a segment holds.
#[derive(Debug)]
pub(super) struct Scan {
    /// Where the last complete batch ends.
    pub end: usize,
    /// The sequence of that batch.
    pub sequence: u64,
    pub outcome: End,
}

/// The header frame of a segment.
pub(super) fn read_header(buffer: &Bytes) -> Result<(SegmentHeader, usize), String> {
    let frame = read_frame(buffer, 0).map_err(|error| error.to_string())?;
    if frame.op != Op::SegmentHeader {
        return Err(format!("the first frame is {:?}, not a segment header", frame.op));
    }
    let record = WalRecord::decode(frame.payload).map_err(|error| error.to_string())?;
    let header = record.segment_header.ok_or("the segment header is empty")?;
    Ok((header, frame.length))
}

/// Reads batches from `start` on, and hands over each once its commit record has been checked.
pub(super) fn scan(
    buffer: &Bytes,
    identity: &Identity,
    start: usize,
    sequence: u64,
    visit: &mut dyn FnMut(Vec<(Op, WalRecord)>) -> Result<(), String>,
) -> Scan {
    let (mut end, mut offset, mut sequence) = (start, start, sequence);
    let mut pending = Vec::new();
    let ended = |end, sequence, outcome| Scan { end, sequence, outcome };
    loop {
        let step = match read_frame(buffer, offset) {
            Ok(frame) => read_record(buffer, identity, end..offset, sequence, frame),
            Err(FrameError::Bad(reason)) => Err(Fault::Bad(reason)),
            Err(FrameError::Unknown(reason)) => Err(Fault::Unknown(reason)),
            Err(FrameError::End) => {
                let rest = buffer.get(offset..).unwrap_or_default();
                let blank = rest.iter().all(|byte| *byte == 0);
                if blank && pending.is_empty() {
                    return Scan { end, sequence, outcome: End::Clean };
                }
                Err(Fault::Bad("a batch has no commit record".into()))
            }
        };
        match step {
            Err(Fault::Bad(reason)) => {
                return ended(end, sequence, End::Broken { offset, reason });
            }
            Err(Fault::Unknown(reason)) => {
                return ended(end, sequence, End::Unknown { offset, reason });
            }
            Ok(Step::Record { op, record, length }) => {
                pending.push((op, record));
                offset += length;
            }
            Ok(Step::Commit { length }) => {
                if let Err(reason) = visit(std::mem::take(&mut pending)) {
                    return ended(end, sequence, End::Unknown { offset: end, reason });
                }
                sequence += 1;
                offset += length;
                end = offset;
            }
        }
    }
}

/// Why there is no next step.
enum Fault {
    /// The bytes are not what was written.
    Bad(String),
    /// The bytes are what was written, by a version that knows more.
    Unknown(String),
}

// One at a time, on the stack: a box would cost an allocation for each record of the log.
#[allow(clippy::large_enum_variant)]
enum Step {
    Record { op: Op, record: WalRecord, length: usize },
    Commit { length: usize },
}

fn read_record(
    buffer: &Bytes,
    identity: &Identity,
    batch: Range<usize>,
    sequence: u64,
    frame: Frame,
) -> Result<Step, Fault> {
    let bad = |reason: String| Err(Fault::Bad(reason));
    // Its checksum was right, so these are the bytes that were written.
    let record = WalRecord::decode(frame.payload)
        .map_err(|error| Fault::Unknown(format!("a record of an unknown form: {error}")))?;
    match frame.op {
        Op::SegmentHeader => bad("a segment header in the middle of a segment".into()),
        Op::BatchCommit => {
            let commit = record.batch_commit.unwrap_or_default();
            if commit.sequence != sequence + 1 {
                return bad(format!("batch {} follows batch {sequence}", commit.sequence));
            }
            if !is_commit_of(&buffer[batch], identity, &commit) {
                return bad(format!("batch {} is not what its commit says", commit.sequence));
            }
            Ok(Step::Commit { length: frame.length })
        }
        op => Ok(Step::Record { op, record, length: frame.length }),
    }
}

fn is_commit_of(frames: &[u8], identity: &Identity, commit: &BatchCommit) -> bool {
    commit.length == frames.len() as u64 && identity.batch_crc32(frames) == commit.crc32
}

/// Looks behind bad bytes for a complete batch that was written after the one they belong to.
/// The batch of the bad bytes itself proves nothing: its sectors may have reached the disk in any
/// order before its sync returned. A batch after it was only begun once it was durable.
/// The salt in its checksum is what a client that plants such bytes in a record can't know.
pub(super) fn later_batch(
    buffer: &Bytes,
    identity: &Identity,
    from: usize,
    sequence: u64,
) -> Option<u64> {
    let pattern = [super::frame::MAGIC[0], super::frame::MAGIC[1]];
    let rest = buffer.get(from..).unwrap_or_default();
    for (position, window) in rest.windows(4).enumerate() {
        if window[..2] != pattern || window[3] != Op::BatchCommit as u8 {
            continue;
        }
        let offset = from + position;
        let Ok(frame) = read_frame(buffer, offset) else { continue };
        let commit = WalRecord::decode(frame.payload).ok().and_then(|r| r.batch_commit);
        let Some(commit) = commit.filter(|commit| commit.sequence > sequence + 1) else { continue };
        let start = usize::try_from(commit.length).ok().and_then(|l| offset.checked_sub(l));
        // One that reaches back over good batches isn't one; checking it would only take time.
        let start = start.filter(|start| *start >= from);
        if start.is_some_and(|start| is_commit_of(&buffer[start..offset], identity, &commit)) {
            return Some(commit.sequence);
        }
    }
    None
}
