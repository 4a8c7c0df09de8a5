//! The write-ahead log: one for all partitions of a node, in the frame that
//! `docs/formats/wal.md` describes. One fdatasync makes a batch of all groups durable.

mod batch;
mod error;
mod frame;
mod recover;
mod scan;
mod segment;
mod spare;
mod writer;

pub use batch::{Batch, DISCARD_INDEX, SnapshotMark};
pub use error::{RecoverError, WalError};
pub use frame::{
    Frame, FrameError, HEADER_BYTES, Op, PAYLOAD_BYTES_MAX, TRAILER_BYTES, read_frame,
};
pub use recover::{Recovered, recover, recover_on};
pub use writer::{DiskState, WalWriter};

/// Whose log it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// The cluster.
    pub cluster_id: [u8; 16],
    /// The node.
    pub node_id: u64,
    /// A secret that enters every batch's checksum, so that no client can write bytes into a
    /// record that look like a batch.
    pub salt: u64,
}

impl Identity {
    /// The checksum of a batch's frames.
    pub(crate) fn batch_crc32(&self, frames: &[u8]) -> u32 {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&self.salt.to_be_bytes());
        hasher.update(frames);
        hasher.finalize()
    }
}

/// How the log is written.
#[derive(Debug, Clone, Copy)]
pub struct WalOptions {
    /// Bytes of a segment.
    pub segment_bytes: u64,
    /// Bytes kept aside, to be given up when the disk is full.
    pub reserve_bytes: u64,
}
