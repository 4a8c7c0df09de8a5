//! Which call is meant, and everything that all calls share: content type, deadline, trace.

use crate::access::{Trace, note, within};
use crate::body::Body;
use crate::call::Call;
use crate::grpc::frame::Messages;
use crate::grpc::{backup, keepalive, unary, watch};
use crate::node::{Node, Phase};
use crate::permit::permit;
use crate::status::{Code, GRPC_CONTENT_TYPE, RpcError, ok_trailers};
use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Whether a request is gRPC.
pub fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|value| {
        let value = value.as_bytes();
        value.starts_with(b"application/grpc")
            && !value.starts_with(b"application/grpc-web")
            && matches!(value.get(16), None | Some(b'+' | b';'))
    })
}

/// `grpc-timeout`: at most eight digits and a unit.
fn timeout(headers: &HeaderMap) -> Result<Option<Duration>, RpcError> {
    let Some(value) = headers.get("grpc-timeout") else { return Ok(None) };
    let invalid = || RpcError::field("grpc-timeout", "must be up to 8 digits and one of HMSmun");
    let text = value.to_str().map_err(|_| invalid())?;
    let (digits, unit) = text.split_at_checked(text.len().wrapping_sub(1)).ok_or_else(invalid)?;
    let all_digits = (1..=8).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
    let amount: u64 = digits.parse().ok().filter(|_| all_digits).ok_or_else(invalid)?;
    Ok(Some(match unit {
        "H" => Duration::from_secs(amount * 3600),
        "M" => Duration::from_secs(amount * 60),
        "S" => Duration::from_secs(amount),
        "m" => Duration::from_millis(amount),
        "u" => Duration::from_micros(amount),
        "n" => Duration::from_nanos(amount),
        _ => return Err(invalid()),
    }))
}

/// Answers a call of ours.
pub async fn serve(node: Arc<Node>, call: Call, request: Request<Incoming>) -> Response<Body> {
    let started = Instant::now();
    if request.method() != Method::POST {
        let mut response = Response::new(Body::Empty);
        *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
        response.headers_mut().insert(http::header::ALLOW, HeaderValue::from_static("POST"));
        return response;
    }
    if !is_grpc(request.headers()) {
        let mut response = Response::new(Body::Empty);
        *response.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
        return response;
    }
    let trace = Trace::of(request.headers());
    let outcome = within(trace.clone(), dispatch(&node, call, request)).await;
    let code = outcome.as_ref().map_or_else(|error| error.code, |_| Code::Ok);
    note(&node, call, code, started, trace.as_deref());
    let mut response = outcome.unwrap_or_else(|error| match &trace {
        Some(trace) => error.with("trace_id", trace.id.as_str()).response(),
        None => error.response(),
    });
    if let Some(trace) = &trace {
        trace.answer(response.headers_mut());
    }
    response
}

async fn dispatch(
    node: &Arc<Node>,
    call: Call,
    request: Request<Incoming>,
) -> Result<Response<Body>, RpcError> {
    if node.phase() == Phase::Stopping {
        return Err(RpcError::shutting_down());
    }
    if call == Call::Other {
        let path = request.uri().path();
        return Err(RpcError::unimplemented(format!("there is no method {path}")));
    }
    permit(node, call, request.extensions())?;
    let deadline = timeout(request.headers())?;
    let messages = Messages::new(request.into_body(), node.clone());
    match call {
        Call::KeepAlive => return Ok(streaming(keepalive::serve(node.clone(), messages))),
        Call::Watch => return Ok(streaming(Box::pin(watch::serve(node, messages)).await?)),
        Call::Backup | Call::Copy => {
            return Ok(streaming(Box::pin(backup::serve(node, call, messages)).await?));
        }
        _ => {}
    }
    let answer = pin!(unary::answer(node, call, messages));
    let chunk = match deadline {
        None => answer.await?,
        Some(deadline) => tokio::time::timeout(deadline, answer).await.map_err(|_| {
            // What was submitted may still be carried out: a retry must be safe, and is.
            RpcError::new(Code::DeadlineExceeded, "DEADLINE_EXCEEDED", "the deadline has passed")
        })??,
    };
    Ok(with_type(Body::with_trailers(chunk, ok_trailers())))
}

fn with_type(body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, GRPC_CONTENT_TYPE);
    response
}

fn streaming(stream: impl crate::body::Stream + 'static) -> Response<Body> {
    with_type(Body::Stream(Box::new(stream)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_is_digits_and_a_unit() {
        let of = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("grpc-timeout", HeaderValue::from_str(text).expect("header"));
            timeout(&headers).ok().flatten()
        };
        assert_eq!(of("5S"), Some(Duration::from_secs(5)));
        assert_eq!(of("250m"), Some(Duration::from_millis(250)));
        assert_eq!(of("99999999H"), Some(Duration::from_secs(99_999_999 * 3600)));
        for bad in ["", "S", "5", "5x", "123456789S", "-1S", "+1S", "1 S"] {
            assert_eq!(of(bad), None, "{bad:?}");
        }
        assert_eq!(timeout(&HeaderMap::new()).ok(), Some(None));
    }

    #[test]
    fn grpc_is_told_by_its_content_type() {
        let of = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(text));
            is_grpc(&headers)
        };
        assert!(of("application/grpc") && of("application/grpc+proto"));
        assert!(of("application/grpc;charset=utf-8"));
        assert!(!of("application/grpc-web") && !of("application/json") && !of("application/grpcx"));
    }
}
