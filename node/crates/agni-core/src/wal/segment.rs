//! One file of the log.

use super::Identity;
use super::frame::{Op, encode_frame};
use crate::env::{DiskFile, is_disk_full, write_zeros};
use crate::limits;
use crate::proto::node::{SegmentHeader, WalRecord};
use prost::Message as _;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

/// The file that is appended to.
pub(super) struct Active {
    pub number: u64,
    pub path: PathBuf,
    pub file: Box<dyn DiskFile>,
    /// Bytes of the file.
    pub capacity: u64,
    /// Where the next batch goes.
    pub position: u64,
    /// Whether something was written, or cut, since the last sync.
    pub unsynced: bool,
    pub last_indexes: BTreeMap<u32, u64>,
}

impl Active {
    /// Takes back what stands behind the last batch: under a shorter one, written later, it would
    /// look like damage. Where even zeros find no space the file is cut, which needs none.
    pub fn erase(&mut self, bytes: u64) -> io::Result<()> {
        self.unsynced = true;
        match write_zeros(&*self.file, self.position, self.position + bytes) {
            Err(error) if is_disk_full(&error) => {
                self.capacity = self.position;
                self.file.truncate(self.position)
            }
            done => done,
        }
    }

    /// Where an ordinary batch must end: what is behind is for what a node must write to lead.
    pub fn ordinary_end(&self) -> u64 {
        self.capacity - margin(self.capacity)
    }
}

/// Bytes of a segment that ordinary batches leave free: whole KiB.
pub(super) fn margin(capacity: u64) -> u64 {
    const KIB: u64 = 1 << 10;
    capacity / (limits::WAL_MARGIN_ONE_IN * KIB) * KIB
}

/// A file that is complete.
pub(super) struct Sealed {
    pub path: PathBuf,
    pub bytes: u64,
    /// The newest index of each partition in it: what decides when it may go.
    pub last_indexes: BTreeMap<u32, u64>,
}

/// `wal/00000000000000000001.wal`
pub(super) fn path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:020}.wal"))
}

/// The number in a segment's name.
pub(super) fn number(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".wal")?;
    (digits.len() == 20).then(|| digits.parse().ok()).flatten()
}

/// The first frame of a segment.
pub(super) fn header(number: u64, identity: &Identity, previous_sequence: u64) -> Vec<u8> {
    let header = SegmentHeader {
        segment: number,
        node_id: identity.node_id,
        cluster_id: bytes::Bytes::copy_from_slice(&identity.cluster_id),
        previous_sequence,
        salt: identity.salt,
    };
    let record = WalRecord { segment_header: Some(header), ..WalRecord::default() };
    let mut frame = Vec::new();
    encode_frame(&mut frame, Op::SegmentHeader, |out| record.encode(out).expect("a Vec grows"));
    frame
}
