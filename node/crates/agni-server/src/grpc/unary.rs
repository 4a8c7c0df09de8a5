//! Unary calls: a message in, a framed answer out.

use crate::body::Chunk;
use crate::call::Call;
use crate::grpc::frame::{Messages, decode};
use crate::limits;
use crate::node::Node;
use crate::ops::{admin, cluster, discover, read, write};
use crate::route::{self, Done};
use crate::status::RpcError;
use crate::watch::wait;
use crate::wire::{self, CandidateParts, HeaderParts};
use agni_core::proto::api;
use agni_core::proto::node::ask_refused::Why;
use agni_core::proto::node::ask_request::Work;
use agni_core::proto::node::ask_response::Answer;
use agni_core::proto::node::read_query::Query;
use agni_core::proto::node::{AskRefused, AskRequest, AskResponse};
use bytes::Bytes;
use std::future::Future;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

/// Waits for the message no longer than the limit; the usual message is here already and costs
/// no timer.
async fn message(node: &Node, messages: Messages) -> Result<Bytes, RpcError> {
    let mut reading = pin!(messages.only());
    let first = std::future::poll_fn(|context| Poll::Ready(reading.as_mut().poll(context))).await;
    if let Poll::Ready(message) = first {
        return message;
    }
    let limit = Duration::from_millis(node.config.header_timeout_ms);
    match tokio::time::timeout(limit, reading).await {
        Ok(message) => message,
        Err(_) => Err(RpcError::too_slow()),
    }
}

/// Answers a unary call.
pub async fn answer(node: &Node, call: Call, messages: Messages) -> Result<Chunk, RpcError> {
    let bytes = message(node, messages).await?;
    Ok(match call {
        Call::Register => wire::message(&write::register(node, decode(bytes)?).await?).into(),
        Call::Get => get(node, decode(bytes)?).await?,
        Call::Renew => wire::message(&write::renew(node, decode(bytes)?).await?).into(),
        _ => Box::pin(rarer(node, call, bytes)).await?,
    })
}

/// Answers what is asked less often.
async fn rarer(node: &Node, call: Call, bytes: Bytes) -> Result<Chunk, RpcError> {
    Ok(match call {
        Call::List => list(node, decode(bytes)?).await?,
        Call::Update => wire::message(&write::update(node, decode(bytes)?).await?).into(),
        Call::Deregister => wire::message(&write::deregister(node, decode(bytes)?).await?).into(),
        Call::Batch => wire::message(&write::batch(node, decode(bytes)?).await?).into(),
        Call::Discover => discovered(node, decode(bytes)?).await?,
        Call::Status => {
            decode::<api::StatusRequest>(bytes)?;
            wire::message(&cluster::status(node)).into()
        }
        Call::Routing => {
            decode::<api::RoutingRequest>(bytes)?;
            wire::message(&cluster::routing(node)).into()
        }
        Call::Snapshot => wire::message(&cluster::snapshot(node, decode(bytes)?).await?).into(),
        Call::Members => {
            decode::<api::MembersRequest>(bytes)?;
            wire::message(&admin::members(node).await).into()
        }
        Call::ChangeMember => wire::message(&admin::change(node, decode(bytes)?).await?).into(),
        Call::PlacePartition => wire::message(&admin::place(node, decode(bytes)?).await?).into(),
        Call::TransferLeader => wire::message(&admin::transfer(node, decode(bytes)?).await?).into(),
        Call::Ask => wire::message(&ask(node, decode(bytes)?).await).into(),
        // Those of `answer`, and those that are no message for a message.
        Call::Register
        | Call::Get
        | Call::Renew
        | Call::KeepAlive
        | Call::Watch
        | Call::Backup
        | Call::Copy
        | Call::Other => {
            return Err(RpcError::unimplemented(format!("{} is no unary call", call.name())));
        }
    })
}

async fn get(node: &Node, request: api::GetRequest) -> Result<Chunk, RpcError> {
    let found = read::get(node, request).await?;
    let header = node.header(found.partition, found.point);
    Ok(wire::get_response(header, &found.instance).into())
}

async fn list(node: &Node, request: api::ListRequest) -> Result<Chunk, RpcError> {
    let page = read::list(node, request).await?;
    let headers: Vec<HeaderParts<'_>> =
        page.points.iter().map(|(partition, point)| node.header(*partition, *point)).collect();
    let (next, resume) = (&page.next_page_token, &page.resume_token);
    Ok(wire::list_response(&headers, &page.instances, next, resume).into())
}

async fn discovered(node: &Node, request: api::DiscoverRequest) -> Result<Chunk, RpcError> {
    let found = discover::discover(node, &request).await?;
    let headers: Vec<HeaderParts<'_>> =
        found.points.iter().map(|(partition, point)| node.header(*partition, *point)).collect();
    let candidates: Vec<CandidateParts<'_>> = found
        .winners
        .iter()
        .map(|(instance, score)| CandidateParts { instance, score: *score })
        .collect();
    Ok(wire::discover_response(&headers, &candidates, found.exclusions, found.matched).into())
}

/// Another node's question, on behalf of its client.
async fn ask(node: &Node, request: AskRequest) -> AskResponse {
    let answer = match request.work {
        Some(work) if request.cluster_id[..] == node.engine.cluster_id() => {
            wait_for_change(node, request.partition, &work).await;
            match route::perform(node, request.partition, work).await {
                Ok(Done::Engine(answer)) => route::answered(answer),
                Ok(Done::Read(done)) => Answer::Read(done),
                Err(refuse) => route::refused(refuse),
            }
        }
        _ => Answer::Refused(AskRefused { why: Why::OtherCluster.into(), ..AskRefused::default() }),
    };
    AskResponse { answer: Some(answer) }
}

/// Who asks for changes says how long the first one may take.
async fn wait_for_change(node: &Node, partition: u32, work: &Work) {
    if let Work::Read(read) = work
        && let Some(Query::Events(events)) = &read.query
        && events.wait_ms > 0
        && node.engine.holds(partition)
    {
        let limit = Duration::from_millis(events.wait_ms.min(limits::REMOTE_WAIT_MS));
        wait::for_change(partition, events.after, limit).await;
    }
}
