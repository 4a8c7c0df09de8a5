//! One watch as the protocols hold it: opened, asked for its next message, closed when dropped.

use crate::status::RpcError;
use crate::watch::dispatcher::with_hub;
use crate::watch::encode::WatchMessage;
use agni_core::proto::api;
use std::task::{Context, Poll};

/// A watch of this runtime, closed when it is dropped.
pub struct Handle(usize);

impl Handle {
    /// Opens a watch.
    pub fn open(request: api::WatchRequest) -> Result<Handle, RpcError> {
        let opened = with_hub(|hub| hub.open(request)).ok_or_else(RpcError::shutting_down)?;
        opened.map(Handle)
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
