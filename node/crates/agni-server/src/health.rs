//! A port for those who only look: whether the process is alive, whether it serves, and what it
//! counts. It is plain HTTP and changes nothing, because a kubelet can't show a certificate. It
//! answers from the start, also while the node still looks for its cluster or reads its data.

use crate::body::Body;
use crate::config::ServerError;
use crate::http::metrics;
use crate::limits;
use crate::log::{self, Level};
use crate::node::{Node, Phase};
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use std::convert::Infallible;
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};

/// The running port.
pub struct HealthPort {
    node: Arc<OnceLock<Arc<Node>>>,
    stop: watch::Sender<bool>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl HealthPort {
    /// Answers on a socket that listens.
    ///
    /// # Errors
    /// When a thread can't be made.
    pub fn start(listener: std::net::TcpListener) -> Result<HealthPort, ServerError> {
        let node = Arc::new(OnceLock::new());
        let (stop, stopping) = watch::channel(false);
        let known = node.clone();
        let thread = std::thread::Builder::new()
            .name("agni-health".to_owned())
            .spawn(move || run(listener, &known, stopping))
            .map_err(|error| ServerError::new("THREAD", error.to_string()))?;
        Ok(HealthPort { node, stop, thread: Mutex::new(Some(thread)) })
    }

    /// The node has begun to serve.
    pub fn serves(&self, node: Arc<Node>) {
        let _ = self.node.set(node);
    }

    /// Ends it. Safe to repeat.
    pub fn stop(&self) {
        self.stop.send_replace(true);
        if let Some(thread) = self.thread.lock().take()
            && thread.join().is_err()
        {
            log::write(Level::Error, "the health thread has panicked", &[]);
        }
    }
}

impl Drop for HealthPort {
    fn drop(&mut self) {
        self.stop();
    }
}

fn run(
    listener: std::net::TcpListener,
    node: &Arc<OnceLock<Arc<Node>>>,
    mut stopping: watch::Receiver<bool>,
) {
    let built = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let Ok(runtime) = built else {
        return log::write(Level::Error, "the health runtime can't be made", &[]);
    };
    runtime.block_on(async {
        let Ok(listener) = TcpListener::from_std(listener) else { return };
        tokio::select! {
            () = accept(&listener, node) => {}
            _ = stopping.wait_for(|stop| *stop) => {}
        }
    });
    runtime.shutdown_timeout(Duration::from_millis(100));
}

async fn accept(listener: &TcpListener, node: &Arc<OnceLock<Arc<Node>>>) {
    let pause = Duration::from_millis(limits::ACCEPT_PAUSE_MS);
    let places = Arc::new(Semaphore::new(limits::HEALTH_CONNECTIONS_MAX));
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(pause).await;
            continue;
        };
        let Ok(place) = places.clone().try_acquire_owned() else { continue };
        let node = node.clone();
        tokio::spawn(async move {
            let service = service_fn(|request| {
                let response = answer(node.get().map(Arc::as_ref), &request);
                async { Ok::<_, Infallible>(response) }
            });
            let patience = Duration::from_millis(limits::HEALTH_PATIENCE_MS);
            let mut builder = http1::Builder::new();
            builder.timer(TokioTimer::new()).header_read_timeout(patience).keep_alive(false);
            let connection = builder.serve_connection(TokioIo::new(stream), service);
            // Whoever doesn't take its answer is cut off.
            let _ = tokio::time::timeout(2 * patience, connection).await;
            drop(place);
        });
    }
}

fn answer(node: Option<&Node>, request: &Request<Incoming>) -> Response<Body> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return text(StatusCode::METHOD_NOT_ALLOWED, "this port is only for looking");
    }
    match (request.uri().path(), node) {
        ("/livez", Some(node)) if !is_alive(node) => {
            text(StatusCode::SERVICE_UNAVAILABLE, "the driver stands still")
        }
        ("/livez", _) => text(StatusCode::OK, "ok"),
        ("/readyz" | "/metrics", None) => {
            let reason = "the node looks for its cluster, or reads its data";
            text(StatusCode::SERVICE_UNAVAILABLE, reason)
        }
        ("/readyz", Some(node)) => match unready(node) {
            Some(reason) => text(StatusCode::SERVICE_UNAVAILABLE, reason),
            None => text(StatusCode::OK, "ok"),
        },
        ("/metrics", Some(node)) => {
            let mut response = text(StatusCode::OK, metrics::text(node));
            let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
            response.headers_mut().insert(CONTENT_TYPE, kind);
            response
        }
        _ => text(StatusCode::NOT_FOUND, "there are /livez, /readyz and /metrics"),
    }
}

/// Never a matter of the others: who is restarted because they are gone can't heal anything.
fn is_alive(node: &Node) -> bool {
    let limit = Duration::from_millis(limits::DRIVER_SILENT_MS_MAX);
    node.phase() != Phase::Serving || node.engine.driver_age() < limit
}

fn unready(node: &Node) -> Option<&'static str> {
    match node.phase() {
        Phase::Serving if node.ready() => None,
        Phase::Serving => Some("a partition that this node holds is not led yet, or not caught up"),
        Phase::Draining | Phase::Stopping => Some("the node stops"),
    }
}

fn text(status: StatusCode, text: impl Into<bytes::Bytes>) -> Response<Body> {
    let mut response = Response::new(Body::data(text.into()));
    *response.status_mut() = status;
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}
