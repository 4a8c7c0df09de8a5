//! How many connections one identity may have, whichever certificate proves it.

use crate::authority::{Pair, connect};
use crate::{AGENT, PATIENCE, Secure, ask};
use agni_server::limits::CONNECTIONS_PER_IDENTITY_DEFAULT;
use std::io;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

const OTHER: &str = "/t/default/agent/b";

/// A connection that has been answered and stays open.
async fn held(secure: &Secure, pair: &Pair) -> io::Result<TlsStream<TcpStream>> {
    let client = secure.authority.client(Some(pair), "http/1.1");
    let mut stream = connect(secure.running.server.local_address(), &client).await?;
    stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await?;
    let mut answer = [0; 1024];
    match tokio::time::timeout(PATIENCE, stream.read(&mut answer)).await?? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(stream),
    }
}

/// How many connections were refused, asked by another identity.
async fn refused(secure: &Secure, other: &Pair) -> u64 {
    let mut stream = held(secure, other).await.expect("another identity is let in");
    let text = ask(&mut stream, "GET", "/metrics", "").await.expect("metrics");
    let name = "agni_connections_refused_total ";
    let value = text.lines().find_map(|line| line.strip_prefix(name)).expect("metric");
    value.trim().parse().expect("a number")
}

#[tokio::test]
async fn an_identity_has_so_many_connections_and_no_more() {
    let secure = Secure::start();
    let other = secure.authority.leaf(OTHER);
    let mut open = Vec::new();
    for number in 0..CONNECTIONS_PER_IDENTITY_DEFAULT {
        open.push(held(&secure, &secure.agent).await.unwrap_or_else(|e| panic!("{number}: {e}")));
    }
    assert_eq!(refused(&secure, &other).await, 0);
    // A new certificate is no new identity.
    let renewed = secure.authority.leaf(AGENT);
    for (already, pair) in [&secure.agent, &renewed].into_iter().enumerate() {
        assert!(held(&secure, pair).await.is_err(), "one too many was served");
        assert_eq!(refused(&secure, &other).await, already as u64 + 1);
    }
    for stream in &mut open {
        let answer = stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await;
        assert!(answer.is_ok(), "whoever was there is left alone");
        let read = tokio::time::timeout(PATIENCE, stream.read(&mut [0; 1024])).await;
        assert!(read.expect("in time").is_ok_and(|read| read > 0), "it is not answered any more");
    }
    // One that goes makes room for one.
    drop(open.pop());
    let deadline = tokio::time::Instant::now() + PATIENCE;
    let again = loop {
        if let Ok(stream) = held(&secure, &renewed).await {
            break stream;
        }
        assert!(tokio::time::Instant::now() < deadline, "the place was not given back");
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    assert!(held(&secure, &secure.agent).await.is_err(), "one too many was served");
    drop(again);
}
