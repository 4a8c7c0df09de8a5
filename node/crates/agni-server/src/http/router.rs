//! HTTP/JSON: a request is read, carried out and answered.

use crate::access::{Trace, note, within};
use crate::body::Body;
use crate::call::Call;
use crate::http::parse::{self, BatchBody, RenewBody, SnapshotBody, WriteBody};
use crate::http::query::Query;
use crate::http::routes::Route;
use crate::http::{metrics, openapi, print, sse};
use crate::limits;
use crate::node::{Arriving, Node, Phase};
use crate::ops::{admin, cluster, discover, read, write};
use crate::permit::permit;
use crate::status::{Code, RpcError};
use crate::token;
use agni_core::proto::api::{self, Kind};
use agni_core::store::InstanceOwned;
use bytes::{Bytes, BytesMut};
use http::header::{ALLOW, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{Method, Request, Response, StatusCode};
use http_body::Body as _;
use hyper::body::Incoming;
use serde_json::{Value, json};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

type Answered = Result<Response<Body>, RpcError>;

fn body(status: StatusCode, content_type: &'static str, text: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Body::data(text.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

fn ok(value: &Value) -> Response<Body> {
    body(StatusCode::OK, "application/json", value.to_string())
}

fn refusal(error: &RpcError) -> Response<Body> {
    let mut response = body(error.http_status(), "application/json", error.json().to_string());
    if let Some(ms) = error.retry_ms {
        // Whole seconds, and never none.
        let seconds = ms.div_ceil(1000).max(1);
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// Answers a request that is not gRPC.
pub async fn serve(node: Arc<Node>, request: Request<Incoming>) -> Response<Body> {
    let started = Instant::now();
    let trace = Trace::of(request.headers());
    let route = Route::of(request.uri().path());
    let call = match &route {
        Ok(Some(route)) => route.call(request.method()),
        _ => Call::Other,
    };
    let head = request.method() == Method::HEAD;
    let outcome = match route {
        Ok(Some(route)) => match permit(&node, call, request.extensions()) {
            Ok(()) => within(trace.clone(), allowed(&node, route, request)).await,
            Err(error) => Err(error),
        },
        Ok(None) => {
            let message = "there is no such path, /openapi.json lists them";
            Err(RpcError::new(Code::NotFound, "NOT_FOUND", message))
        }
        Err(error) => Err(error),
    };
    let code = outcome.as_ref().map_or_else(|error| error.code, |_| Code::Ok);
    note(&node, call, code, started, trace.as_deref());
    let mut response = outcome.unwrap_or_else(|error| match &trace {
        Some(trace) => refusal(&error.with("trace_id", trace.id.as_str())),
        None => refusal(&error),
    });
    if let Some(trace) = &trace {
        trace.answer(response.headers_mut());
    }
    if head {
        *response.body_mut() = Body::Empty;
    }
    response
}

async fn allowed(node: &Arc<Node>, route: Route, request: Request<Incoming>) -> Answered {
    let method = match request.method() {
        &Method::HEAD => Method::GET,
        method => method.clone(),
    };
    if !route.methods().contains(&method) {
        let words: Vec<&str> = route.methods().iter().map(Method::as_str).collect();
        let words = words.join(", ");
        let message = format!("this path takes {words} only");
        let error = RpcError::new(Code::Unimplemented, "METHOD_NOT_ALLOWED", message);
        let mut response = refusal(&error);
        if let Ok(value) = HeaderValue::from_str(&words) {
            response.headers_mut().insert(ALLOW, value);
        }
        return Ok(response);
    }
    let query = Query::parse(request.uri().query().unwrap_or_default())?;
    match route {
        Route::Healthy | Route::Ready | Route::Metrics | Route::OpenApi => {
            query.end()?;
            Ok(observe(node, &route))
        }
        _ if node.phase() == Phase::Stopping => Err(RpcError::shutting_down()),
        Route::Watch => sse::open(node, watch_request(query, &request)?).await,
        Route::Records(_)
        | Route::Record(..)
        | Route::Discover
        | Route::Status
        | Route::Routing
        | Route::Members
            if method == Method::GET || method == Method::DELETE =>
        {
            without_body(node, route, &method, query).await
        }
        route => {
            query.end()?;
            let bytes = read_body(node, request).await?;
            with_body(node, route, &bytes).await
        }
    }
}

fn observe(node: &Node, route: &Route) -> Response<Body> {
    match route {
        Route::Ready if !node.ready() => {
            let error = RpcError::new(Code::Unavailable, "NOT_READY", "the node isn't ready");
            refusal(&error)
        }
        Route::Metrics => {
            let text = metrics::text(node);
            body(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", text)
        }
        Route::OpenApi => ok(&openapi::document(&node.config.version)),
        _ => ok(&json!({ "status": "ok" })),
    }
}

async fn read_body(node: &Arc<Node>, request: Request<Incoming>) -> Result<Bytes, RpcError> {
    let json = request.headers().get(CONTENT_TYPE).is_none_or(|value| {
        let text = value.to_str().unwrap_or_default().to_ascii_lowercase();
        let media = text.split(';').next().unwrap_or_default().trim();
        // curl says this of what -d is given, and the first thing people try is curl.
        media == "application/json"
            || media.ends_with("+json")
            || media == "application/x-www-form-urlencoded"
    });
    if !json {
        let message = "the body must be application/json";
        return Err(RpcError::new(Code::InvalidArgument, "UNSUPPORTED_MEDIA_TYPE", message));
    }
    let patience = Duration::from_millis(node.config.header_timeout_ms);
    let reading = gather(request.into_body(), Arriving::new(node.clone()));
    tokio::time::timeout(patience, reading).await.map_err(|_| RpcError::too_slow())?
}

/// Reads a whole body. One that is too large is read on and thrown away for a while: a client that
/// is cut off while it still sends never sees why.
async fn gather(mut incoming: Incoming, mut arriving: Arriving) -> Result<Bytes, RpcError> {
    let limit = arriving.node().config.max_message_bytes;
    let (mut bytes, mut seen) = (BytesMut::new(), 0);
    while let Some(frame) =
        std::future::poll_fn(|context| Pin::new(&mut incoming).poll_frame(context)).await
    {
        let frame = frame.map_err(|error| {
            RpcError::new(Code::InvalidArgument, "REQUEST_BROKEN", error.to_string())
        })?;
        let Ok(data) = frame.into_data() else { continue };
        seen += data.len();
        if seen <= limit {
            bytes.extend_from_slice(&data);
            arriving.hold(bytes.len())?;
        } else if seen > limits::LINGER_BYTES_MAX {
            break;
        }
    }
    match seen > limit {
        true => Err(RpcError::too_large(limit)),
        false => Ok(bytes.freeze()),
    }
}

async fn with_body(node: &Node, route: Route, bytes: &[u8]) -> Answered {
    Ok(match route {
        Route::Records(kind) => {
            let request = parse::body::<WriteBody>(bytes)?.register(Some(kind))?;
            let response = write::register(node, request).await?;
            let mut answer = ok(&print::registered(&response));
            if response.created {
                *answer.status_mut() = StatusCode::CREATED;
            }
            answer
        }
        Route::Record(kind, name) => {
            let request = parse::body::<WriteBody>(bytes)?.update(Some(kind), Some(name))?;
            let response = write::update(node, request).await?;
            ok(&json!({ "revision": response.revision }))
        }
        Route::Renew => {
            let request = parse::body::<RenewBody>(bytes)?.request()?;
            ok(&print::renewed(&write::renew(node, request).await?))
        }
        Route::Batch => {
            let request = parse::body::<BatchBody>(bytes)?.request()?;
            ok(&print::batch(&write::batch(node, request).await?))
        }
        _ => {
            let body = match bytes.is_empty() {
                true => SnapshotBody::default(),
                false => parse::body::<SnapshotBody>(bytes)?,
            };
            let request = api::SnapshotRequest { partitions: body.partitions };
            ok(&print::snapshots(&cluster::snapshot(node, request).await?))
        }
    })
}

async fn without_body(node: &Node, route: Route, method: &Method, mut query: Query) -> Answered {
    match route {
        Route::Record(kind, name) if *method == Method::DELETE => {
            delete(node, kind, name, query).await
        }
        Route::Record(kind, name) => get(node, kind, name, query).await,
        Route::Records(kind) => list(node, kind, query).await,
        Route::Discover => discover_records(node, query).await,
        Route::Status => {
            query.end()?;
            Ok(ok(&print::status(&cluster::status(node))))
        }
        Route::Members => {
            query.end()?;
            Ok(ok(&print::members(&admin::members(node).await)))
        }
        _ => {
            std::mem::take(&mut query).end()?;
            Ok(ok(&print::routing(&cluster::routing(node))))
        }
    }
}

async fn delete(node: &Node, kind: Kind, name: String, mut query: Query) -> Answered {
    let namespace = query.text("namespace")?;
    let request = api::DeregisterRequest {
        key: Some(api::Key { namespace, kind: kind as i32, name }),
        incarnation: query.number("incarnation")?.unwrap_or_default(),
        expected_revision: query.number("expected_revision")?,
        drain_ms: query.number("drain_ms")?.unwrap_or_default(),
        successor: query.text("successor")?,
    };
    query.end()?;
    let response = write::deregister(node, request).await?;
    Ok(ok(&json!({ "existed": response.existed, "revision": response.revision })))
}

async fn get(node: &Node, kind: Kind, name: String, mut query: Query) -> Answered {
    let namespace = query.text("namespace")?;
    let key = Some(api::Key { namespace, kind: kind as i32, name });
    let request = api::GetRequest { key, read: query.read()? };
    query.end()?;
    let found = read::get(node, request).await?;
    let mut response = ok(&print::instance(&found.instance));
    let headers = response.headers_mut();
    headers.insert("x-agni-revision", HeaderValue::from(found.point.revision));
    headers.insert("x-agni-partition", HeaderValue::from(found.partition));
    if found.point.age_ms > 0 {
        headers.insert("x-agni-age-ms", HeaderValue::from(found.point.age_ms));
    }
    Ok(response)
}

async fn list(node: &Node, kind: Kind, mut query: Query) -> Answered {
    let request = api::ListRequest {
        filter: Some(query.filter(kind as i32, "region")?),
        page_size: query.number("page_size")?.unwrap_or_default(),
        page_token: query.text("page_token")?,
        read: query.read()?,
    };
    query.end()?;
    let page = read::list(node, request).await?;
    Ok(ok(&json!({
        "instances": page.instances.iter().map(print::instance).collect::<Vec<_>>(),
        "next_page_token": page.next_page_token,
        "resume_token": token::to_text(&page.resume_token),
    })))
}

async fn discover_records(node: &Node, mut query: Query) -> Answered {
    let kind = query.kind()?;
    let request = api::DiscoverRequest {
        filter: Some(query.filter(kind, "require_region")?),
        region: query.text("region")?,
        limit: query.number("limit")?.unwrap_or_default(),
        choices: query.number("choices")?.unwrap_or_default(),
        explain: query.flag("explain")?,
        explain_names: query.all("explain_name"),
        read: query.read()?,
    };
    query.end()?;
    let found = discover::discover(node, &request).await?;
    let candidate = |(instance, score): &(InstanceOwned, api::Score)| {
        let (instance, score) = (print::instance(instance), print::score(score));
        json!({ "instance": instance, "score": score })
    };
    Ok(ok(&json!({
        "candidates": found.winners.iter().map(candidate).collect::<Vec<_>>(),
        "exclusions": found.exclusions.iter().map(print::exclusion).collect::<Vec<_>>(),
        "matched": found.matched,
    })))
}

fn watch_request(
    mut query: Query,
    request: &Request<Incoming>,
) -> Result<api::WatchRequest, RpcError> {
    let kind = query.kind()?;
    let written = query.one("resume_token")?;
    // A browser that connects again says where it was; that is newer than what the address says.
    let resume = sse::last_event_id(request.headers()).or(written).unwrap_or_default();
    let wanted = api::WatchRequest {
        filter: Some(query.filter(kind, "region")?),
        resume_token: token::from_text(&resume).ok_or_else(token::invalid_resume)?.into(),
        include_current: query.flag("include_current")?,
        include_previous: query.flag("include_previous")?,
        progress_interval_ms: query.number("progress_interval_ms")?.unwrap_or_default(),
    };
    query.end()?;
    Ok(wanted)
}
