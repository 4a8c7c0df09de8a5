//! What the engine counts about itself. Lock-free, so that counting costs the hot path nothing
//! to speak of; the server turns it into Prometheus text.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Buckets of a histogram: bucket `i` counts values up to `2^i`, the last one counts the rest.
pub const HISTOGRAM_BUCKETS: usize = 26;

/// A histogram over powers of two.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [AtomicU64; HISTOGRAM_BUCKETS],
    sum: AtomicU64,
}

impl Histogram {
    /// Counts one value.
    pub fn observe(&self, value: u64) {
        self.observe_many(value, 1);
    }

    /// Counts `count` equal values at the price of one.
    pub fn observe_many(&self, value: u64, count: u64) {
        let bits = u64::BITS - value.saturating_sub(1).leading_zeros();
        let bucket = (bits as usize).min(HISTOGRAM_BUCKETS - 1);
        self.buckets[bucket].fetch_add(count, Relaxed);
        self.sum.fetch_add(value.saturating_mul(count), Relaxed);
    }

    /// The count of each bucket (not cumulative) and the sum of all values.
    pub fn read(&self) -> ([u64; HISTOGRAM_BUCKETS], u64) {
        (std::array::from_fn(|i| self.buckets[i].load(Relaxed)), self.sum.load(Relaxed))
    }

    /// The upper bound of bucket `i`; none for the last.
    pub fn bound(i: usize) -> Option<u64> {
        (i + 1 < HISTOGRAM_BUCKETS).then(|| 1 << i)
    }
}

/// The engine's counters; a name says its unit.
#[derive(Debug, Default)]
pub struct EngineMetrics {
    /// Time a submission waited for the driver.
    pub queue_us: Histogram,
    /// Time of one append to the log, with its fdatasync.
    pub fsync_us: Histogram,
    /// Time to apply one partition's committed entries of a turn.
    pub apply_us: Histogram,
    /// Entries in one fdatasync.
    pub batch_entries: Histogram,
    /// Bytes in one fdatasync.
    pub batch_bytes: Histogram,
    /// Time between a lease's deadline and its removal.
    pub expiry_lag_ms: Histogram,
    /// Time that one snapshot took.
    pub snapshot_us: Histogram,
    /// Commands proposed.
    pub proposals: AtomicU64,
    /// Commands refused because a queue was full.
    pub overloaded: AtomicU64,
    /// Commands refused because the disk was full.
    pub disk_full: AtomicU64,
    /// Leases renewed.
    pub renewals: AtomicU64,
    /// Renewals of leases that were gone.
    pub renewals_lost: AtomicU64,
    /// Records removed because their lease ran out.
    pub expired: AtomicU64,
    /// Records named for expiry that had been renewed or changed in time.
    pub expiry_spared: AtomicU64,
    /// Times that the mass-expiry guard began to hold a domain.
    pub mass_expiries: AtomicU64,
    /// Time in which the driver stood still, beyond what is usual; leases don't count it.
    pub stalled_us: AtomicU64,
    /// Clock-bound leases given up because time was doubtful.
    pub leases_voided: AtomicU64,
    /// Quorum rounds begun.
    pub rounds: AtomicU64,
    /// Snapshots taken.
    pub snapshots: AtomicU64,
    /// Snapshots that failed.
    pub snapshots_failed: AtomicU64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_lands_in_the_first_bucket_that_holds_it() {
        let histogram = Histogram::default();
        for (value, bucket) in [(0, 0), (1, 0), (2, 1), (3, 2), (4, 2), (5, 3), (1024, 10)] {
            let before = histogram.read().0[bucket];
            histogram.observe(value);
            assert_eq!(histogram.read().0[bucket], before + 1, "value {value}");
            assert!(Histogram::bound(bucket).is_some_and(|bound| value <= bound));
        }
        histogram.observe(u64::MAX / 2);
        assert_eq!(histogram.read().0[HISTOGRAM_BUCKETS - 1], 1);
        assert_eq!(Histogram::bound(HISTOGRAM_BUCKETS - 1), None);
    }
}
