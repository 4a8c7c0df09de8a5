//! What a node tells others about itself, before and after it belongs to a cluster.

use super::config::ClusterConfig;
use crate::dial::Way;
use crate::peer_services::peer_service_client::PeerServiceClient;
use crate::tls::{Port, Tls};
use agni_core::engine::Engine;
use agni_core::proto::node::{ClusterMember, HelloRequest, HelloResponse, SystemState};
use agni_core::system::{self, Founder};
use bytes::Bytes;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};
use tonic::transport::Channel;

/// A node as others see it.
pub struct Face {
    /// Its settings, with the addresses filled in.
    pub config: ClusterConfig,
    /// The region that it serves.
    pub region: String,
    /// How many partitions it would give to a new cluster.
    pub partition_count: u32,
    /// The random bytes of its data directory.
    pub nonce: Vec<u8>,
    /// How it proves who it is; none without TLS.
    pub tls: Option<Arc<Tls>>,
    /// Whether it keeps damaged data of an earlier life, and so founds nothing.
    pub joins_only: bool,
    /// Whether the cluster has removed it.
    pub has_left: AtomicBool,
    /// Its engine, once it belongs to a cluster.
    engine: OnceLock<Engine>,
    /// What its cluster began with, if it was there.
    founding: OnceLock<SystemState>,
}

impl Face {
    /// A node that belongs to no cluster yet.
    pub fn new(
        config: ClusterConfig,
        region: String,
        partition_count: u32,
        nonce: Vec<u8>,
        tls: Option<Arc<Tls>>,
    ) -> Self {
        let (engine, founding) = (OnceLock::new(), OnceLock::new());
        let (joins_only, has_left) = (false, AtomicBool::new(false));
        Face { config, region, partition_count, nonce, tls, joins_only, has_left, engine, founding }
    }

    /// From here on it belongs to a cluster; `founding` if it was there from the start.
    pub fn belongs(&self, engine: Engine, founding: Option<SystemState>) {
        if let Some(founding) = founding {
            let _ = self.founding.set(founding);
        }
        let _ = self.engine.set(engine);
    }

    /// The engine; none before the node belongs to a cluster.
    pub fn engine(&self) -> Option<&Engine> {
        self.engine.get()
    }

    /// The node as one of a new cluster.
    pub fn founder(&self) -> Founder {
        self.config.founder(&self.region, &self.nonce)
    }

    /// The node as a member; the identity is the cluster's to give.
    pub fn member(&self) -> ClusterMember {
        ClusterMember {
            name: self.config.name.clone(),
            client_address: self.config.client_address.clone(),
            peer_address: self.config.address.clone(),
            region: self.region.clone(),
            zone: self.config.zone.clone(),
            nonce: Bytes::copy_from_slice(&self.nonce),
            ..ClusterMember::default()
        }
    }

    /// Its first words.
    pub fn hello(&self) -> HelloRequest {
        HelloRequest {
            name: self.config.name.clone(),
            nonce: Bytes::copy_from_slice(&self.nonce),
            seeds: self.config.seeds.clone(),
        }
    }

    /// What it answers to somebody's first words. The founding state is for founders alone.
    pub fn answer(&self, request: &HelloRequest) -> HelloResponse {
        let engine = self.engine.get();
        let removed = |state: Arc<SystemState>| {
            let asker = state.members.iter().find(|member| member.nonce == request.nonce);
            asker.is_some_and(|member| !system::takes_part(member))
        };
        let named =
            |state: &&SystemState| state.members.iter().any(|member| member.nonce == request.nonce);
        HelloResponse {
            name: self.config.name.clone(),
            nonce: Bytes::copy_from_slice(&self.nonce),
            cluster_id: engine.map(|e| Bytes::copy_from_slice(&e.cluster_id())).unwrap_or_default(),
            node_id: engine.map_or(0, Engine::node_id),
            founding: engine.and(self.founding.get()).filter(named).cloned(),
            client_address: self.config.client_address.clone(),
            zone: self.config.zone.clone(),
            seeds: self.config.seeds.clone(),
            region: self.region.clone(),
            partition_count: self.partition_count,
            joins_only: self.joins_only,
            you_have_left: engine.map(Engine::system_state).is_some_and(removed),
        }
    }

    /// Says hello to whoever listens at an address.
    ///
    /// # Errors
    /// Says what stands against it.
    pub async fn greet(&self, address: &str) -> Result<HelloResponse, String> {
        let answer = self.greet_as(address, None).await?;
        if self.tls.is_none() {
            return Ok(answer);
        }
        // What it says of itself counts only if its certificate says the same.
        self.greet_as(address, Some(&answer.name)).await
    }

    async fn greet_as(&self, address: &str, name: Option<&str>) -> Result<HelloResponse, String> {
        let mut client = self.client(address, name).await?;
        let answer = crate::dial::answer(client.hello(self.hello())).await?;
        Ok(answer.into_inner())
    }

    /// The way to another node's peer port; to any node there where its name isn't known.
    pub fn way(&self, address: &str, name: Option<&str>) -> Way {
        Way {
            tls: self.tls.clone(),
            port: Port::Peer,
            address: address.to_owned(),
            name: name.map(str::to_owned),
        }
    }

    /// A connection for questions.
    ///
    /// # Errors
    /// Says what stands against it.
    pub async fn client(
        &self,
        address: &str,
        name: Option<&str>,
    ) -> Result<PeerServiceClient<Channel>, String> {
        Ok(PeerServiceClient::new(crate::dial::dial(self.way(address, name)).await?.channel))
    }
}
