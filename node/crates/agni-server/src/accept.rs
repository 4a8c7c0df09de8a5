//! Connections are accepted on one runtime, counted, and dealt out to all in turn.

use crate::limits;
use crate::log::{self, Level};
use crate::node::{Node, Phase};
use crate::runtime::Mailbox;
use socket2::{SockRef, TcpKeepalive};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::net::TcpListener;

/// Pause after a failed accept, so that a lack of file descriptors doesn't spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(limits::ACCEPT_PAUSE_MS);

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
        // What can't be set makes a connection slower or its death found later, no more.
        let _ = prepare(SockRef::from(&stream));
        if let Ok(stream) = stream.into_std() {
            mailboxes[turn % mailboxes.len()].connection(stream, place);
        }
        turn += 1;
    }
}

/// Sets what TCP does by itself: answers leave when they are ready, and dead peers are found.
fn prepare(socket: SockRef<'_>) -> std::io::Result<()> {
    // Each answer goes out when it is ready, not when the segment is full.
    socket.set_tcp_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_millis(limits::TCP_KEEPALIVE_IDLE_MS))
        .with_interval(Duration::from_millis(limits::TCP_KEEPALIVE_INTERVAL_MS))
        .with_retries(limits::TCP_KEEPALIVE_PROBES_MAX);
    socket.set_tcp_keepalive(&keepalive)?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(Duration::from_millis(limits::TCP_UNACKNOWLEDGED_MS_MAX)))?;
    Ok(())
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_dead_peer_is_found_in_bounded_time() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("listen");
        let address = listener.local_addr().expect("address");
        let _client = std::net::TcpStream::connect(address).expect("connect");
        let (stream, _) = listener.accept().expect("accept");
        let socket = SockRef::from(&stream);
        prepare(SockRef::from(&stream)).expect("options");
        assert!(socket.tcp_nodelay().expect("nodelay") && socket.keepalive().expect("keepalive"));
        let idle = socket.tcp_keepalive_time().expect("time");
        let interval = socket.tcp_keepalive_interval().expect("interval");
        let probes = socket.tcp_keepalive_retries().expect("retries");
        let silent = idle + interval * probes;
        let unacknowledged = socket.tcp_user_timeout().expect("timeout").expect("set");
        let by_ping = limits::PING_INTERVAL_MS + limits::PING_TIMEOUT_MS;
        assert_eq!(silent, Duration::from_millis(by_ping));
        assert_eq!(unacknowledged, Duration::from_millis(by_ping));
    }
}
