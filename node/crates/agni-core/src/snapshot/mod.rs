//! Snapshot files: a partition's records and tombstones at one log index, in checksummed,
//! compressed blocks. `docs/formats/snapshot.md` describes the file.

mod reader;
mod writer;

pub use reader::{SnapshotItem, list, list_on, read, read_on, remove_old};
pub use writer::SnapshotWriter;

use crate::system::SYSTEM_PARTITION;
use std::path::PathBuf;

pub(crate) const MAGIC: &[u8; 8] = b"AGNISNAP";
pub(crate) const VERSION: u32 = 1;
/// The largest block, compressed or not: checked before anything is allocated.
pub(crate) const BLOCK_BYTES_MAX: usize = 64 << 20;

/// A block's kind: the first byte of its frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum BlockKind {
    Header = 1,
    Records = 2,
    Footer = 3,
}

/// A snapshot file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotMeta {
    /// Its name below `snapshots/`.
    pub file: String,
    /// The partition.
    pub partition: u32,
    /// The newest log index in it.
    pub index: u64,
    /// The term of that entry; 0 where only the file's name was looked at.
    pub term: u64,
    /// The partition's revision; 0 where only the file's name was looked at.
    pub revision: u64,
    /// How many records it holds; 0 where only the file's name was looked at.
    pub records: u64,
    /// Its size.
    pub bytes: u64,
}

/// Why a snapshot can't be written or read.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The file is damaged; an older snapshot and the log have what it held.
    #[error("{}: corrupt at offset {offset}: {reason}", file.display())]
    Corrupt {
        /// The file.
        file: PathBuf,
        /// Where.
        offset: u64,
        /// What was found.
        reason: String,
    },
    /// A block was not written, since no reader would take it.
    #[error(
        "{}: a block of {bytes} bytes is above the limit of {BLOCK_BYTES_MAX}; write smaller ones",
        file.display()
    )]
    BlockTooLarge {
        /// The file.
        file: PathBuf,
        /// The block's size, packed or not, whichever is too large.
        bytes: usize,
    },
    /// The operating system refused something.
    #[error("{}: {source}", file.display())]
    Io {
        /// The file.
        file: PathBuf,
        /// Its answer.
        source: std::io::Error,
    },
    /// The leader's state took the place of what was to be written.
    #[error("the partition's state was replaced before the snapshot was complete")]
    Replaced,
    /// The node stopped meanwhile.
    #[error("the node stopped before the snapshot was complete")]
    Cancelled,
}

/// `p0003-00000000000000000042.snap`, `system-00000000000000000042.snap`
pub(crate) fn file_name(partition: u32, index: u64) -> String {
    match partition {
        SYSTEM_PARTITION => format!("system-{index:020}.snap"),
        _ => format!("p{partition:04}-{index:020}.snap"),
    }
}

/// The partition and index in a file's name.
pub fn parse_name(name: &str) -> Option<(u32, u64)> {
    let (group, index) = name.strip_suffix(".snap")?.split_once('-')?;
    let partition = match group {
        "system" => SYSTEM_PARTITION,
        _ => group.strip_prefix('p').filter(|digits| digits.len() == 4)?.parse().ok()?,
    };
    let index = Some(index).filter(|index| index.len() == 20)?.parse().ok()?;
    Some((partition, index))
}
