//! One port for everything: our own gRPC calls, HTTP/JSON, and the standard services.

use crate::body::Body;
use crate::call::Call;
use crate::grpc;
use crate::http as json_http;
use crate::node::Node;
use crate::status::RpcError;
use http::{Request, Response};
use hyper::body::Incoming;
use std::cell::RefCell;
use std::convert::Infallible;
use std::sync::Arc;
use tower::ServiceExt;

thread_local! {
    static STANDARD: RefCell<Option<axum::Router>> = const { RefCell::new(None) };
}

/// Sets the standard gRPC services of this thread.
pub fn set_standard(services: axum::Router) {
    STANDARD.with_borrow_mut(|slot| *slot = Some(services));
}

/// Answers any request. What is returned is moved several times until it is a task of its own, so
/// that the ways which are not hot are in boxes, here and below.
pub async fn serve(
    node: Arc<Node>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let path = request.uri().path();
    if let Some(call) = Call::of_path(path) {
        return Ok(grpc::router::serve(node, call, request).await);
    }
    if path.starts_with("/grpc.") {
        return Ok(Box::pin(standard(request)).await);
    }
    if grpc::router::is_grpc(request.headers()) {
        let message = format!("there is no method {path}");
        return Ok(RpcError::unimplemented(message).response());
    }
    Ok(Box::pin(json_http::router::serve(node, request)).await)
}

async fn standard(request: Request<Incoming>) -> Response<Body> {
    let Some(services) = STANDARD.with_borrow(Clone::clone) else {
        return RpcError::shutting_down().response();
    };
    let request = request.map(axum::body::Body::new);
    match services.oneshot(request).await {
        Ok(response) => response.map(Body::Other),
    }
}
