//! What all runtimes of a server share.

use crate::config::ServerConfig;
use crate::hints::Hints;
use crate::limits;
use crate::metrics::ServerMetrics;
use crate::pace::Pace;
use crate::status::RpcError;
use crate::tls::{Identity, Tls};
use crate::wire::HeaderParts;
use agni_core::engine::{Engine, ReadPoint};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::sync::{Semaphore, watch};

/// Where a server is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// It serves.
    Serving,
    /// It takes no new connection and ends those that there are.
    Draining,
    /// Its threads end.
    Stopping,
}

/// What all runtimes of a server share.
pub struct Node {
    /// The settings.
    pub config: ServerConfig,
    /// The engine.
    pub engine: Engine,
    /// The cluster, as hexadecimal text.
    pub cluster_id: String,
    /// Where the server listens.
    pub address: SocketAddr,
    /// The node's identity, where it speaks TLS.
    pub tls: Option<Arc<Tls>>,
    /// What the server counts.
    pub metrics: ServerMetrics,
    /// Who leads what this node doesn't hold.
    pub hints: Hints,
    /// Places for backups that clients take.
    pub backups: Arc<Semaphore>,
    /// Places for copies that other nodes take for their backups.
    pub copies: Arc<Semaphore>,
    /// The rate of all of them together.
    pub backup_pace: Pace,
    connections: AtomicUsize,
    /// How many of them each identity has.
    connections_of: Mutex<HashMap<Identity, usize>>,
    arriving: AtomicUsize,
    phase: watch::Sender<Phase>,
}

impl Node {
    /// Shared state over a running engine.
    pub fn new(
        config: ServerConfig,
        engine: Engine,
        address: SocketAddr,
        tls: Option<Arc<Tls>>,
        metrics: ServerMetrics,
    ) -> Arc<Self> {
        let cluster_id = engine.cluster_id().iter().map(|byte| format!("{byte:02x}")).collect();
        let hints = Hints::new(engine.partition_count());
        Arc::new(Node {
            config,
            engine,
            cluster_id,
            address,
            tls,
            metrics,
            hints,
            backups: Arc::new(Semaphore::new(limits::BACKUPS_AT_ONCE)),
            copies: Arc::new(Semaphore::new(limits::COPIES_AT_ONCE)),
            backup_pace: Pace::new(limits::BACKUP_BYTES_PER_S),
            connections: AtomicUsize::new(0),
            connections_of: Mutex::default(),
            arriving: AtomicUsize::new(0),
            phase: watch::Sender::new(Phase::Serving),
        })
    }

    /// Where the server is in its life.
    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Follows the server's life.
    pub fn follow(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }

    /// Goes on to a later phase; never back.
    pub fn advance(&self, phase: Phase) {
        self.phase.send_if_modified(|now| {
            let later = phase > *now;
            if later {
                *now = phase;
            }
            later
        });
    }

    /// Whether requests should be sent here.
    pub fn ready(&self) -> bool {
        self.phase() == Phase::Serving && self.engine.is_ready()
    }

    /// Whether it ends.
    pub fn is_stopping(&self) -> bool {
        self.phase() == Phase::Stopping
    }

    /// How many connections are open.
    pub fn open_connections(&self) -> usize {
        self.connections.load(Relaxed)
    }

    /// A place for one more connection, unless all are taken.
    pub fn place(self: &Arc<Self>) -> Option<Place> {
        let most = self.config.max_connections;
        let free = |open: usize| (open < most).then_some(open + 1);
        self.connections.fetch_update(Relaxed, Relaxed, free).ok()?;
        Some(Place(self.clone()))
    }

    /// A place for one more connection of an identity, unless it has all of its own.
    pub fn place_of(self: &Arc<Self>, identity: &Identity) -> Option<PlaceOf> {
        let mut places = self.connections_of.lock();
        let open = places.entry(identity.clone()).or_default();
        if *open >= self.config.max_connections_per_identity {
            return None;
        }
        *open += 1;
        Some(PlaceOf { node: self.clone(), identity: identity.clone() })
    }

    /// The header of an answer.
    pub fn header(&self, partition: u32, point: ReadPoint) -> HeaderParts<'_> {
        HeaderParts { cluster_id: &self.cluster_id, partition, point }
    }
}

/// One of an identity's connections; dropping it gives the place back.
pub struct PlaceOf {
    node: Arc<Node>,
    identity: Identity,
}

impl Drop for PlaceOf {
    fn drop(&mut self) {
        let mut places = self.node.connections_of.lock();
        if let Some(open) = places.get_mut(&self.identity) {
            *open -= 1;
            if *open == 0 {
                places.remove(&self.identity);
            }
        }
    }
}

/// One of the open connections; dropping it gives the place back.
pub struct Place(Arc<Node>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Relaxed);
    }
}

/// What has arrived of a request that is not whole yet, counted among those of all connections;
/// dropping it gives the bytes back.
pub struct Arriving {
    node: Arc<Node>,
    bytes: usize,
}

impl Arriving {
    /// Nothing has arrived yet.
    pub fn new(node: Arc<Node>) -> Self {
        Arriving { node, bytes: 0 }
    }

    /// The node that it arrives at.
    pub fn node(&self) -> &Arc<Node> {
        &self.node
    }

    /// So much is here now.
    ///
    /// # Errors
    /// When that is more than the node can hold for everybody. The bytes count until this is told
    /// otherwise or dropped.
    pub fn hold(&mut self, bytes: usize) -> Result<(), RpcError> {
        let before = std::mem::replace(&mut self.bytes, bytes);
        // Wraps around where there are fewer than before.
        let change = bytes.wrapping_sub(before);
        let all = self.node.arriving.fetch_add(change, Relaxed).wrapping_add(change);
        if bytes > before && all > self.node.config.max_arriving_bytes {
            let message = "too many large requests are arriving at once, try again after the delay";
            return Err(RpcError::overloaded(message));
        }
        Ok(())
    }
}

impl Drop for Arriving {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.node.arriving.fetch_sub(self.bytes, Relaxed);
        }
    }
}

/// Unix time in milliseconds: for people, never for a decision.
pub fn unix_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_millis() as i64)
}
