//! Who leads what this node holds no replica of, as far as it was told.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Who is believed to lead the partitions of which this node holds no replica; 0 for nobody.
pub struct Hints(Vec<AtomicU64>);

impl Hints {
    /// Nobody is known.
    pub fn new(partition_count: u32) -> Self {
        Hints((0..partition_count).map(|_| AtomicU64::new(0)).collect())
    }

    /// Who is believed to lead a partition.
    pub fn get(&self, partition: u32) -> u64 {
        self.0.get(partition as usize).map_or(0, |hint| hint.load(Relaxed))
    }

    /// Somebody said who leads it.
    pub fn set(&self, partition: u32, leader: u64) {
        if let Some(hint) = self.0.get(partition as usize) {
            hint.store(leader, Relaxed);
        }
    }
}
