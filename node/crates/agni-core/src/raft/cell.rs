//! What the driver of a partition and its readers share.

use crate::store::Store;
use parking_lot::RwLock;
use std::sync::atomic::{AtomicBool, AtomicU64};

/// What the driver shares with readers of one partition.
pub struct PartitionCell {
    /// The partition's state. The driver holds the write lock only while it applies.
    pub store: RwLock<Store>,
    /// The Raft term.
    pub term: AtomicU64,
    /// The leader; 0 when unknown.
    pub leader: AtomicU64,
    /// The newest committed index.
    pub commit: AtomicU64,
    /// The newest snapshot's index.
    pub snapshot_index: AtomicU64,
    /// Whether this node leads, has committed in its term and is the only voter: then a
    /// ReadIndex round has nobody to ask, and the applied state is the linearizable one.
    pub reads_are_current: AtomicBool,
}

impl PartitionCell {
    /// A cell around a recovered store.
    pub fn new(store: Store) -> Self {
        PartitionCell {
            store: RwLock::new(store),
            term: AtomicU64::new(0),
            leader: AtomicU64::new(0),
            commit: AtomicU64::new(0),
            snapshot_index: AtomicU64::new(0),
            reads_are_current: AtomicBool::new(false),
        }
    }
}
