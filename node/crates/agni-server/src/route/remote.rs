//! Asking another node: over one connection a runtime and node, made when it is needed.

use super::convert::heard;
use super::{Done, Failure};
use crate::access::traced;
use crate::dial::{Way, dial_lazily};
use crate::limits;
use crate::node::Node;
use crate::peer_services::node_service_client::NodeServiceClient;
use crate::tls::Port;
use agni_core::proto::node::ask_request::Work as Asked;
use agni_core::proto::node::{AskRequest, ClusterMember};
use agni_core::raft::work::Refuse;
use agni_core::system;
use bytes::Bytes;
use std::cell::RefCell;
use std::collections::HashMap;
use std::time::Duration;
use tonic::Code;
use tonic::transport::Channel;

thread_local! {
    /// By address: a node that moves is reached anew.
    static CHANNELS: RefCell<HashMap<String, Channel>> = RefCell::default();
}

fn channel(node: &Node, member: &ClusterMember) -> Result<Channel, Failure> {
    let address = &*member.client_address;
    CHANNELS.with_borrow_mut(|channels| {
        if let Some(channel) = channels.get(address) {
            return Ok(channel.clone());
        }
        let way = Way {
            tls: node.tls.clone(),
            port: Port::Client,
            address: address.to_owned(),
            name: Some(member.name.clone()),
        };
        let made = dial_lazily(way).map_err(|_| Failure::Unreachable { maybe_arrived: false })?;
        // Addresses change rarely; whoever is left over from before closes with its last request.
        if channels.len() >= agni_core::limits::MEMBERS_EVER_MAX {
            channels.clear();
        }
        channels.insert(address.to_owned(), made.clone());
        Ok(made)
    })
}

/// A way to put questions to a node.
///
/// # Errors
/// When it isn't known where the node is.
pub fn client(node: &Node, node_id: u64) -> Result<NodeServiceClient<Channel>, Failure> {
    let state = node.engine.system_state();
    let Some(member) = system::member(&state, node_id) else {
        return Err(Failure::Unreachable { maybe_arrived: false });
    };
    Ok(NodeServiceClient::new(channel(node, member)?)
        .max_decoding_message_size(limits::PEER_MESSAGE_BYTES_MAX)
        .max_encoding_message_size(limits::PEER_MESSAGE_BYTES_MAX))
}

/// Asks a node to do work on a partition, and waits for its answer no longer than `limit`.
///
/// # Errors
/// When it refuses, or can't be reached.
pub async fn ask(
    node: &Node,
    node_id: u64,
    partition: u32,
    work: &Asked,
    limit: Duration,
) -> Result<Done, Failure> {
    let mut client = client(node, node_id)?;
    let request = AskRequest {
        cluster_id: Bytes::copy_from_slice(&node.engine.cluster_id()),
        partition,
        work: Some(work.clone()),
    };
    match tokio::time::timeout(limit, client.ask(traced(request))).await {
        Ok(Ok(response)) => match response.into_inner().answer.and_then(heard) {
            Some(Ok(done)) => Ok(done),
            Some(Err(refuse)) => Err(Failure::Refused(refuse)),
            None => Err(Failure::Refused(Refuse::Unknown { leader: 0 })),
        },
        Ok(Err(status)) => Err(Failure::Unreachable { maybe_arrived: may_have_arrived(&status) }),
        Err(_) => Err(Failure::Unreachable { maybe_arrived: true }),
    }
}

/// Whether a request that failed can have been carried out. Without a connection it can't.
fn may_have_arrived(status: &tonic::Status) -> bool {
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        if error.is::<tonic::ConnectError>() {
            return false;
        }
        source = error.source();
    }
    status.code() != Code::Unimplemented
}
