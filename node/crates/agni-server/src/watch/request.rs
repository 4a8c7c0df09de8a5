//! What a watch asks for, checked.

use crate::limits;
use crate::node::Node;
use crate::ops::read::{named, pin};
use crate::status::RpcError;
use crate::token;
use agni_core::engine::Freshness;
use agni_core::proto::api;
use agni_core::raft::work::Priority;
use agni_core::store::CompiledFilter;
use prost::Message;

/// Where a watch begins.
pub enum Start {
    /// After these revisions.
    After(Vec<u64>),
    /// With everything that matches at these revisions.
    Current(Vec<u64>),
}

/// A checked watch.
pub struct WatchSpec {
    /// What it is about.
    pub filter: CompiledFilter,
    /// The same as a message, for other nodes.
    pub message: api::Filter,
    /// The same as bytes: watches with equal bytes share their chunks.
    pub filter_bytes: Vec<u8>,
    /// Where it begins.
    pub start: Start,
    /// Whether it wants records as they were before.
    pub previous: bool,
    /// Time between two progress messages, in milliseconds.
    pub progress_ms: u64,
}

/// Checks a watch and finds where it begins. Call it only after the runtime has begun to count
/// the watch, so that no change falls in between.
pub async fn check(node: &Node, request: api::WatchRequest) -> Result<WatchSpec, RpcError> {
    let filter = named(request.filter);
    let compiled = CompiledFilter::new(&filter)?;
    if filter.min_free.is_some() {
        let message = "can't be watched: load is no change of a record; use min_capacity";
        return Err(RpcError::field("filter.min_free", message));
    }
    if !filter.statuses.is_empty() {
        let message = "can't be watched: only draining is a change of a record; leave it out";
        return Err(RpcError::field("filter.statuses", message));
    }
    let progress_ms = match request.progress_interval_ms {
        0 => limits::PROGRESS_MS_DEFAULT,
        ms if (limits::PROGRESS_MS_MIN..=limits::PROGRESS_MS_MAX).contains(&ms) => ms,
        _ => {
            let message =
                format!("must be {}..{}", limits::PROGRESS_MS_MIN, limits::PROGRESS_MS_MAX);
            return Err(RpcError::field("progress_interval_ms", message));
        }
    };
    let now = pin(node, &Freshness::Linearizable.into(), Priority::Watch).await?;
    let start = if !request.resume_token.is_empty() {
        let cluster_id = node.engine.cluster_id();
        let revisions =
            token::open_resume(&request.resume_token, &cluster_id, node.engine.partition_count())?;
        if revisions.iter().zip(&now).any(|(token, now)| token > now) {
            // It speaks of changes that this cluster hasn't seen.
            return Err(token::invalid_resume());
        }
        Start::After(revisions)
    } else if request.include_current {
        Start::Current(now)
    } else {
        Start::After(now)
    };
    Ok(WatchSpec {
        filter: compiled,
        filter_bytes: filter.encode_to_vec(),
        message: filter,
        start,
        previous: request.include_previous,
        progress_ms: progress_ms as u64,
    })
}
