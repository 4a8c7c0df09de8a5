//! What this crate uses of the engine, in one place.

pub use agni_core::engine::{Engine, EngineConfig, Freshness, PartitionState, ReadPoint};
pub use agni_core::key::KeyRef;
pub use agni_core::metrics::{EngineMetrics, HISTOGRAM_BUCKETS, Histogram};
pub use agni_core::raft::work::{Answer, Deliver, Refuse, Submission, Ticket, Work};
pub use agni_core::store::{
    Change, CompiledFilter, DifferenceCursor, Event, InstanceOwned, ListPosition, Outcome,
    RankRequest, Refusal, Store, key_bytes_of, rank,
};
pub use agni_core::wal::DiskState;
