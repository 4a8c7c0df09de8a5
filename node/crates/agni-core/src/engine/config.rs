//! How an engine is set up.

use super::seed::Seed;
use crate::error::StartError;
use crate::lease::GuardSettings;
use crate::limits;
use crate::store::StoreLimits;
use crate::system::Founder;
use std::path::PathBuf;

/// What an empty data directory becomes. A directory that has an identity keeps it.
#[derive(Debug, Clone)]
pub enum Beginning {
    /// A cluster of this node alone.
    Alone(Founder),
    /// A member of a cluster that others know of, too.
    Given(Seed),
}

/// The engine's settings.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// Where everything durable lives. Made if it isn't there.
    pub data_dir: PathBuf,
    /// How many partitions a new cluster gets: a power of two, 1..1024. An existing directory
    /// must have been made with the same number.
    pub partitions: u32,
    /// The cluster's identity; none lets a new directory choose one.
    pub cluster_id: Option<[u8; 16]>,
    /// What an empty directory becomes.
    pub beginning: Beginning,
    /// Bytes of log since the last round of snapshots that start the next one.
    pub snapshot_wal_bytes: u64,
    /// Bytes kept aside on disk; also the free space below which growing writes are refused.
    pub disk_reserve_bytes: u64,
    /// Bytes of a segment of the log.
    pub wal_segment_bytes: u64,
    /// Submissions that may wait for the driver.
    pub queue_limit: usize,
    /// Whether a leader answers reads and renewals under its clock-bound lease; without, each takes
    /// a quorum round.
    pub lease_reads: bool,
    /// Time between two comparisons of the replicas' states, in milliseconds; 0 for none.
    pub state_check_ms: u64,
    /// How much of the past each partition keeps for those who watch.
    pub store: StoreLimits,
    /// When leases of one region, or behind one gateway, that run out together are held as SUSPECT.
    pub mass_expiry: GuardSettings,
}

impl Default for EngineConfig {
    fn default() -> Self {
        EngineConfig {
            data_dir: PathBuf::from("data"),
            partitions: limits::PARTITIONS_DEFAULT,
            cluster_id: None,
            beginning: Beginning::Alone(Founder::default()),
            snapshot_wal_bytes: limits::SNAPSHOT_WAL_BYTES_DEFAULT,
            disk_reserve_bytes: limits::DISK_RESERVE_BYTES_DEFAULT,
            wal_segment_bytes: limits::WAL_SEGMENT_BYTES_DEFAULT,
            queue_limit: limits::INBOX_SUBMISSIONS_MAX,
            lease_reads: true,
            state_check_ms: limits::STATE_CHECK_MS_DEFAULT,
            store: StoreLimits::default(),
            mass_expiry: GuardSettings::default(),
        }
    }
}

impl EngineConfig {
    /// Checks what can be checked without looking at the disk.
    ///
    /// # Errors
    /// Names the first field at fault.
    pub fn validate(&self) -> Result<(), StartError> {
        let fault = |field, message: String| Err(StartError::Config { field, message });
        if !self.partitions.is_power_of_two() || self.partitions > limits::PARTITIONS_MAX {
            let max = limits::PARTITIONS_MAX;
            let message = format!("must be a power of two, 1..{max}, not {}", self.partitions);
            return fault("partitions", message);
        }
        if self.queue_limit == 0 {
            return fault("queue_limit", "must be at least 1".into());
        }
        if !(1..=100).contains(&self.mass_expiry.share_percent) {
            return fault("mass_expiry_share_percent", "must be 1..100 percent".into());
        }
        if self.mass_expiry.leases_per_s == 0 {
            return fault("mass_expiry_leases_per_s", "must be at least 1".into());
        }
        let segment = 64 << 10..=limits::WAL_SEGMENT_BYTES_DEFAULT * 16;
        if !segment.contains(&self.wal_segment_bytes) {
            let message =
                format!("must be 65536..1073741824 bytes, not {}", self.wal_segment_bytes);
            return fault("wal_segment_bytes", message);
        }
        Ok(())
    }
}
