//! How long the heads of an HTTP/1 connection's requests take.
//!
//! hyper's own limit counts from the end of the request before, so that it can't tell a connection
//! that rests from a head that doesn't come to its end. Here a head begins with its first byte.

use crate::body::{Body, BoxError, Chunk};
use http_body::{Body as HttpBody, Frame, SizeHint};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

#[derive(Clone, Copy)]
enum At {
    /// Between two requests.
    Rest,
    /// In a head that began then.
    Head(Instant),
    /// In a request or its answer.
    Request,
}

/// Where a connection is. It begins within a head.
#[derive(Clone)]
pub struct Heads(Arc<watch::Sender<At>>);

impl Heads {
    /// Of a connection whose first bytes have come.
    pub fn begun() -> Heads {
        Heads(Arc::new(watch::Sender::new(At::Head(Instant::now()))))
    }

    /// Bytes have come.
    pub fn read(&self) {
        self.0.send_if_modified(|at| {
            let begins = matches!(at, At::Rest);
            if begins {
                *at = At::Head(Instant::now());
            }
            begins
        });
    }

    /// A head is whole.
    pub fn request(&self) {
        self.0.send_replace(At::Request);
    }

    /// An answer that ends its request when it is dropped.
    pub fn answer(&self, body: Body) -> Answer {
        Answer { body, heads: self.clone() }
    }

    /// Waits for a head that isn't whole within the limit.
    pub async fn overdue(&self, limit: Duration) {
        let mut place = self.0.subscribe();
        loop {
            let at = *place.borrow_and_update();
            let moved = place.changed();
            match at {
                At::Head(begun) => {
                    if tokio::time::timeout_at(begun + limit, moved).await.is_err() {
                        return;
                    }
                }
                At::Rest | At::Request => {
                    // The sender is ours: it outlives this.
                    let _ = moved.await;
                }
            }
        }
    }
}

/// An answer on its way.
pub struct Answer {
    body: Body,
    heads: Heads,
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.heads.0.send_replace(At::Rest);
    }
}

impl HttpBody for Answer {
    type Data = Chunk;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Chunk>, BoxError>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
