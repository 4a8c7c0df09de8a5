//! One watch as the protocols hold it: opened, asked for its next message, closed when dropped.

use crate::admission;
use crate::node::Node;
use crate::status::RpcError;
use crate::watch::dispatcher::with_hub;
use crate::watch::encode::WatchMessage;
use crate::watch::request;
use agni_core::proto::api;
use agni_core::raft::work::Priority;
use std::task::{Context, Poll};

/// A watch of this runtime, closed when it is dropped.
pub struct Handle(usize);

/// A watch that is counted already but not there yet.
struct Counted;

impl Drop for Counted {
    fn drop(&mut self) {
        with_hub(|hub| hub.uncount());
    }
}

impl Handle {
    /// Opens a watch.
    ///
    /// # Errors
    /// When there are too many, or what it asks for can't be.
    pub async fn open(node: &Node, request: api::WatchRequest) -> Result<Handle, RpcError> {
        let counted = with_hub(|hub| hub.count()).ok_or_else(RpcError::shutting_down)?;
        counted?;
        let counted = Counted;
        // The runtime is told of changes from here on, so that none falls in between.
        let place = admission::admit(Priority::Watch).await?;
        let spec = request::check(node, request).await?;
        drop(place);
        let id = with_hub(|hub| hub.open(spec)).ok_or_else(RpcError::shutting_down)?;
        // From here on the watch counts itself.
        std::mem::forget(counted);
        Ok(Handle(id))
    }

    /// The next message; none at the end.
    pub fn poll(&self, context: &mut Context<'_>) -> Poll<Option<Result<WatchMessage, RpcError>>> {
        with_hub(|hub| hub.poll(self.0, context)).unwrap_or(Poll::Ready(None))
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        with_hub(|hub| hub.close(self.0));
    }
}
