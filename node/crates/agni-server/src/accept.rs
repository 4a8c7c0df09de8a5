//! Connections are accepted on one runtime, counted, and dealt out to all in turn.

use crate::log::{self, Level};
use crate::node::{Node, Phase};
use crate::runtime::Mailbox;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::net::TcpListener;

/// Pause after a failed accept, so that a lack of file descriptors doesn't spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// Accepts until the server drains.
pub async fn accept(node: Arc<Node>, listener: TcpListener, mailboxes: Vec<Mailbox>) {
    let mut life = node.follow();
    let mut turn = 0;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = life.wait_for(|phase| *phase != Phase::Serving) => return,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                log::write(Level::Warn, "accept failed", &[("error", error.to_string().into())]);
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        node.metrics.accepted.fetch_add(1, Relaxed);
        let Some(place) = node.place() else {
            node.metrics.refused.fetch_add(1, Relaxed);
            continue;
        };
        // Each answer goes out when it is ready, not when the segment is full.
        let _ = stream.set_nodelay(true);
        if let Ok(stream) = stream.into_std() {
            mailboxes[turn % mailboxes.len()].connection(stream, place);
        }
        turn += 1;
    }
}
