//! What a node answers to other nodes.

use super::convert;
use super::face::Face;
use super::join;
use super::links::Links;
use super::receive_snapshot::Receiving;
use crate::metrics::PeerMetrics;
use crate::peer_services::peer_service_server::PeerService;
use crate::tls::{Identity, Reason, Refusal};
use agni_core::engine::Engine;
use agni_core::proto::node::{
    HelloRequest, HelloResponse, JoinRequest, JoinResponse, RaftBatch, RaftDone, SnapshotChunk,
    SnapshotOffsetRequest, SnapshotOffsetResponse, SnapshotReceived,
};
use agni_core::system;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use tonic::{Request, Response, Status, Streaming};

/// Who is at the other end of a connection.
#[derive(Debug, Clone)]
pub struct Caller(pub Option<Identity>);

/// The service.
pub struct Service {
    /// This node.
    pub face: Arc<Face>,
    /// The ways to others.
    pub links: Arc<Links>,
    /// Where snapshots go.
    pub receiving: Arc<Receiving>,
    /// What is counted.
    pub metrics: Arc<PeerMetrics>,
}

impl Service {
    fn engine(&self) -> Result<&Engine, Status> {
        self.face.engine().ok_or_else(|| Status::unavailable("this node belongs to no cluster yet"))
    }

    /// Whether a node may speak here. One that isn't known yet may: it can have joined while this
    /// node was away. One that was removed may not, nor one that shows another's certificate.
    fn expect(
        &self,
        engine: &Engine,
        caller: &Caller,
        from: u64,
        cluster_id: &[u8],
    ) -> Result<(), Status> {
        if *cluster_id != engine.cluster_id()[..] {
            return self.refuse("this node belongs to another cluster; look at the addresses");
        }
        let name = self.name_of(caller)?;
        match system::member(&engine.system_state(), from) {
            Some(member) if !system::takes_part(member) => {
                self.refuse("the sender was removed from the cluster")
            }
            Some(member) if name.is_some_and(|name| name != member.name) => {
                let name = name.unwrap_or_default();
                self.impostor(&format!("{name} speaks for node {from}, which is {}", member.name))
            }
            _ if from == engine.node_id() => self.refuse("the sender says that it is this node"),
            _ => Ok(()),
        }
    }

    /// A node's certificate is used to speak for another node.
    fn impostor<T>(&self, message: &str) -> Result<T, Status> {
        if let Some(tls) = &self.face.tls {
            tls.refused(&Refusal::new(Reason::WrongNode, message), None, "node");
        }
        self.refuse(message)
    }

    fn refuse<T>(&self, message: &str) -> Result<T, Status> {
        self.metrics.refused.fetch_add(1, Relaxed);
        Err(Status::permission_denied(message))
    }

    /// What the caller's certificate calls it; none without TLS. Only nodes may call.
    fn name_of<'a>(&self, caller: &'a Caller) -> Result<Option<&'a str>, Status> {
        match (&self.face.tls, &caller.0) {
            (None, _) => Ok(None),
            (Some(_), Some(identity)) if identity.node_name().is_some() => Ok(identity.node_name()),
            _ => self.refuse("only nodes may speak here"),
        }
    }
}

/// Who is at the other end of a request's connection.
fn caller<T>(request: &Request<T>) -> Caller {
    request.extensions().get::<Caller>().cloned().unwrap_or(Caller(None))
}

#[tonic::async_trait]
impl PeerService for Service {
    async fn raft(
        &self,
        request: Request<Streaming<RaftBatch>>,
    ) -> Result<Response<RaftDone>, Status> {
        let engine = self.engine()?;
        let caller = caller(&request);
        let mut batches = request.into_inner();
        while let Some(batch) = batches.message().await? {
            let RaftBatch { from, cluster_id, frames, peer_address } = batch;
            self.expect(engine, &caller, from, &cluster_id)?;
            if !peer_address.is_empty() {
                self.links.called(from, &peer_address);
            }
            let count = frames.len();
            let mut messages: Vec<_> = frames.into_iter().filter_map(convert::message).collect();
            if let Some(strange) = messages.iter().find(|message| message.message.from != from) {
                let for_whom = strange.message.from;
                // The connection stays: the rest is the sender's own.
                let _ = self.impostor::<()>(&format!("node {from} speaks for node {for_whom}"));
                messages.retain(|message| message.message.from == from);
            }
            let strange = (count - messages.len()) as u64;
            let overflow = engine.receive(messages) as u64;
            self.metrics.refused.fetch_add(strange, Relaxed);
            self.metrics.received.fetch_add(count as u64 - strange - overflow, Relaxed);
            self.metrics.dropped.fetch_add(overflow, Relaxed);
        }
        Ok(Response::new(RaftDone {}))
    }

    async fn install_snapshot(
        &self,
        request: Request<Streaming<SnapshotChunk>>,
    ) -> Result<Response<SnapshotReceived>, Status> {
        let engine = self.engine()?;
        let caller = caller(&request);
        let expect =
            |from: u64, cluster_id: &bytes::Bytes| self.expect(engine, &caller, from, cluster_id);
        self.receiving.receive(engine, request.into_inner(), expect).await?;
        Ok(Response::new(SnapshotReceived {}))
    }

    async fn snapshot_offset(
        &self,
        request: Request<SnapshotOffsetRequest>,
    ) -> Result<Response<SnapshotOffsetResponse>, Status> {
        let caller = caller(&request);
        let request = request.into_inner();
        self.expect(self.engine()?, &caller, request.from, &request.cluster_id)?;
        Ok(Response::new(SnapshotOffsetResponse { offset: self.receiving.offset(&request) }))
    }

    async fn hello(
        &self,
        request: Request<HelloRequest>,
    ) -> Result<Response<HelloResponse>, Status> {
        self.name_of(&caller(&request))?;
        Ok(Response::new(self.face.answer(&request.into_inner())))
    }

    async fn join(&self, request: Request<JoinRequest>) -> Result<Response<JoinResponse>, Status> {
        let engine = self.engine()?;
        let caller = caller(&request);
        let request = request.into_inner();
        let wanted = request.member.as_ref().map(|member| member.name.as_str());
        let name = self.name_of(&caller)?;
        if name.is_some() && name != wanted {
            let (name, wanted) = (name.unwrap_or_default(), wanted.unwrap_or_default());
            return self.impostor(&format!("{name} asks to join as {wanted}"));
        }
        let answer = join::admit(&self.face, engine, &self.links, request).await?;
        Ok(Response::new(answer))
    }
}
