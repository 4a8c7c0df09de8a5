//! Another node's question after changes waits here until there is one.

use crate::watch::dispatcher::with_hub;
use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

/// A wait that ends with its value.
struct Wait(u64);

impl Drop for Wait {
    fn drop(&mut self) {
        with_hub(|hub| hub.end_wait(self.0));
    }
}

/// Waits until a partition has changed after a revision, or for so long.
pub async fn for_change(partition: u32, after: u64, limit: Duration) {
    let Some(number) = with_hub(|hub| hub.begin_wait(partition, after)) else { return };
    let wait = Wait(number);
    let changed = poll_fn(|context| {
        with_hub(|hub| hub.poll_wait(wait.0, context)).unwrap_or(Poll::Ready(()))
    });
    let _ = tokio::time::timeout(limit, changed).await;
}
