//! A server's life: engine, runtimes, drain, stop.

use crate::accept;
use crate::config::{ServerConfig, ServerError};
use crate::connection;
use crate::health::HealthPort;
use crate::http::print;
use crate::limits;
use crate::log::{self, Level};
use crate::metrics::ServerMetrics;
use crate::node::{Node, Phase};
use crate::ops::cluster;
use crate::peer::{PeerSettings, PeerThread, aside};
use crate::router;
use crate::runtime::{self, Delivery, Incoming, Mailbox};
use crate::services::cluster_service_server::SERVICE_NAME as CLUSTER_SERVICE;
use crate::services::registry_service_server::SERVICE_NAME as REGISTRY_SERVICE;
use crate::tls::Tls;
use crate::watch::dispatcher::{self, Hub};
use agni_core::engine::{Beginning, Engine, NoPeers};
use agni_core::error::StartError;
use socket2::{Domain, Protocol, Socket, Type};
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::sync::mpsc::UnboundedReceiver;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

/// Time between two looks at the connections that a drain waits for.
const DRAIN_POLL: Duration = Duration::from_millis(10);

/// A running server.
pub struct Server {
    node: Arc<Node>,
    peers: Option<PeerThread>,
    health: Option<HealthPort>,
    threads: parking_lot::Mutex<Vec<JoinHandle<()>>>,
}

impl Server {
    /// Recovers the data directory, then serves it.
    ///
    /// # Errors
    /// When a setting, the directory or the address can't be used.
    pub fn start(config: ServerConfig) -> Result<Server, ServerError> {
        Self::start_while(config, &|| true)
    }

    /// The same; a node that waits for a cluster gives up when `is_wanted` says no.
    ///
    /// # Errors
    /// When a setting, the directory or an address can't be used, or no cluster was found.
    pub fn start_while(
        mut config: ServerConfig,
        is_wanted: &dyn Fn() -> bool,
    ) -> Result<Server, ServerError> {
        config.validate()?;
        if let Some(level) = log::Level::parse(&config.log_level) {
            log::set_level(level);
        }
        // The address first: it is cheap to find out that it is taken.
        let (listener, address) = listen("listen", &config.listen)?;
        let health = match config.health_listen.as_str() {
            "" => None,
            address => Some(HealthPort::start(listen("health_listen", address)?.0)?),
        };
        let tls = config.tls.as_ref().map(Tls::load).transpose()?;
        let (clients, mut receivers): (Vec<_>, Vec<_>) =
            (0..config.runtimes).map(|_| Mailbox::new()).unzip();
        let metrics = ServerMetrics::default();
        let data_dir = config.engine.data_dir.clone();
        let mut begin = || begin(&mut config, address, &clients, &metrics, &tls, is_wanted);
        let (peers, engine) = match begin() {
            Err(Failure { error, is_damage: true }) => {
                keep_aside(&data_dir, &error)?;
                begin()
            }
            begun => begun,
        }
        .map_err(|failure| failure.error)?;
        let node = Node::new(config, engine, address, tls, metrics);
        if let Some(health) = &health {
            health.serves(node.clone());
        }
        let mut listener = Some(listener);
        let mut threads = Vec::new();
        for (index, receiver) in receivers.drain(..).enumerate() {
            let part = Part {
                node: node.clone(),
                index,
                listener: listener.take(),
                receiver,
                mailboxes: clients.clone(),
            };
            let thread = std::thread::Builder::new()
                .name(format!("agni-rt-{index}"))
                .spawn(move || part.run())
                .map_err(|error| ServerError::new("THREAD", error.to_string()))?;
            threads.push(thread);
        }
        log::write(
            Level::Info,
            "serving",
            &[
                ("address", address.to_string().into()),
                ("tls", node.tls.is_some().into()),
                ("cluster_id", node.cluster_id.as_str().into()),
                ("node_id", node.engine.node_id().into()),
                ("partitions", node.engine.partition_count().into()),
                ("version", node.config.version.as_str().into()),
                ("build_profile", cluster::build_profile().into()),
            ],
        );
        if node.tls.is_none() && !address.ip().is_loopback() {
            let text = "no tls: whoever reaches this node may change anything";
            log::write(Level::Warn, text, &[("address", address.to_string().into())]);
        }
        Ok(Server { node, peers, health, threads: parking_lot::Mutex::new(threads) })
    }

    /// Where it listens.
    pub fn local_address(&self) -> SocketAddr {
        self.node.address
    }

    /// Whether requests should be sent here.
    pub fn ready(&self) -> bool {
        self.node.ready()
    }

    /// Whether the cluster has removed this node: nothing is left to do for it.
    pub fn has_left(&self) -> bool {
        self.peers.as_ref().is_some_and(PeerThread::has_left)
    }

    /// What `ClusterService.Status` answers, as JSON.
    pub fn status_json(&self) -> String {
        print::status(&cluster::status(&self.node)).to_string()
    }

    /// Hands over what it leads, takes no new connection, ends those that there are, and waits for
    /// them.
    pub fn drain(&self, timeout_ms: u64) {
        let deadline = Instant::now() + Duration::from_millis(timeout_ms);
        if self.node.phase() == Phase::Serving && !self.node.engine.is_alone() {
            self.hand_over(deadline);
        }
        self.node.advance(Phase::Draining);
        while self.node.open_connections() > 0 && Instant::now() < deadline {
            std::thread::sleep(DRAIN_POLL);
        }
        let left = self.node.open_connections();
        log::write(Level::Info, "drained", &[("connections_left", left.into())]);
    }

    /// Waits until others lead what this node led. Its clients are served meanwhile.
    fn hand_over(&self, deadline: Instant) {
        let engine = &self.node.engine;
        engine.step_down();
        let limit = Duration::from_millis(limits::HAND_OVER_MS_MAX);
        let deadline = deadline.min(Instant::now() + limit);
        while engine.leads_any() && Instant::now() < deadline {
            std::thread::sleep(DRAIN_POLL);
        }
        let fields = [("all", (!engine.leads_any()).into())];
        log::write(Level::Info, "leaderships handed over", &fields);
    }

    /// Ends everything; what was answered is durable. Safe to repeat.
    pub fn stop(&self) {
        self.node.advance(Phase::Draining);
        self.node.engine.stop();
        if let Some(peers) = &self.peers {
            peers.stop();
        }
        self.node.advance(Phase::Stopping);
        if let Some(health) = &self.health {
            health.stop();
        }
        let mut threads = self.threads.lock();
        if threads.is_empty() {
            return;
        }
        for thread in threads.drain(..) {
            if thread.join().is_err() {
                log::write(Level::Error, "a runtime has panicked", &[]);
            }
        }
        log::write(Level::Info, "stopped", &[]);
    }

    /// How many watches are open.
    pub fn watches(&self) -> usize {
        self.node.metrics.watches.load(std::sync::atomic::Ordering::Relaxed)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Why a node doesn't begin.
struct Failure {
    error: ServerError,
    /// Whether it may begin anew, as a node without data.
    is_damage: bool,
}

impl From<ServerError> for Failure {
    fn from(error: ServerError) -> Self {
        Failure { error, is_damage: false }
    }
}

/// Finds the node's cluster, where it is to have one, and recovers its data.
fn begin(
    config: &mut ServerConfig,
    address: SocketAddr,
    clients: &[Mailbox],
    metrics: &ServerMetrics,
    tls: &Option<Arc<Tls>>,
    is_wanted: &dyn Fn() -> bool,
) -> Result<(Option<PeerThread>, Engine), Failure> {
    let mut mailboxes = clients.to_vec();
    let mut peers = None;
    if config.cluster.is_some() {
        let (mailbox, receiver) = Mailbox::new();
        mailboxes.push(mailbox);
        let thread = join_others(config, address, receiver, metrics, tls.clone(), is_wanted)?;
        peers = Some(thread);
    }
    let outbox = peers.as_ref().map_or_else(|| Box::new(NoPeers) as Box<_>, |p| p.outbox());
    let delivery = Box::new(Delivery::new(mailboxes));
    let started = Engine::start(config.engine.clone(), delivery, outbox);
    let engine = started.map_err(|error| Failure {
        is_damage: matches!(error, StartError::Corrupt { .. } | StartError::Inconsistent { .. })
            && config.cluster.as_ref().is_some_and(|c| c.rejoin_after_damage && c.has_others()),
        error: ServerError::new(error.code(), error.to_string()),
    })?;
    if let Some(peers) = &peers {
        peers.run(engine.clone())?;
    }
    Ok((peers, engine))
}

/// Moves damaged data out of the way of a new beginning.
fn keep_aside(data_dir: &Path, damage: &ServerError) -> Result<(), ServerError> {
    let folder = aside::keep(data_dir).map_err(|error| {
        let message = format!("{}; it can't be kept aside: {error}", damage.message);
        ServerError::new(&damage.code, message)
    })?;
    let fields = [
        ("damage", damage.message.as_str().into()),
        ("kept_in", folder.display().to_string().into()),
        ("remedy", "check its disk; remove the folder once all replicas are whole".into()),
    ];
    log::write(Level::Error, "the data is damaged: it is kept aside, the node joins anew", &fields);
    Ok(())
}

/// Listens for other nodes, and waits until this one belongs to a cluster.
fn join_others(
    config: &mut ServerConfig,
    client_address: SocketAddr,
    receiver: UnboundedReceiver<Incoming>,
    metrics: &ServerMetrics,
    tls: Option<Arc<Tls>>,
    is_wanted: &dyn Fn() -> bool,
) -> Result<PeerThread, ServerError> {
    let mut cluster = config.cluster.clone().unwrap_or_default();
    cluster.cluster_id = config.engine.cluster_id;
    let (listener, address) = listen("cluster listen", &cluster.listen)?;
    if cluster.address.is_empty() {
        cluster.address = address.to_string();
    }
    if cluster.client_address.is_empty() {
        cluster.client_address = client_address.to_string();
    }
    // Should it begin a second time, then where others know it.
    cluster.listen = address.to_string();
    config.cluster = Some(cluster.clone());
    let peers = PeerThread::start(PeerSettings {
        cluster,
        region: config.region.clone(),
        partition_count: config.engine.partitions,
        data_dir: config.engine.data_dir.clone(),
        listener,
        runtime_index: config.runtimes,
        receiver,
        metrics: metrics.peer.clone(),
        tls,
    })?;
    config.engine.beginning = match peers.gather(is_wanted)? {
        Some(seed) => Beginning::Given(seed),
        None => Beginning::Alone(peers.founder()),
    };
    Ok(peers)
}

fn listen(field: &str, address: &str) -> Result<(std::net::TcpListener, SocketAddr), ServerError> {
    let fault = |error: std::io::Error| {
        ServerError::new("LISTEN", format!("{field} {address} can't be used: {error}"))
    };
    let resolved =
        address.to_socket_addrs().map_err(fault)?.next().ok_or_else(|| {
            ServerError::new("LISTEN", format!("{field} {address} has no address"))
        })?;
    let domain = Domain::for_address(resolved);
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP)).map_err(fault)?;
    // A restart must not wait for connections of the life before.
    socket.set_reuse_address(true).map_err(fault)?;
    socket.bind(&resolved.into()).map_err(fault)?;
    socket.listen(limits::BACKLOG).map_err(fault)?;
    socket.set_nonblocking(true).map_err(fault)?;
    let listener: std::net::TcpListener = socket.into();
    let bound = listener.local_addr().map_err(fault)?;
    Ok((listener, bound))
}

/// What one runtime's thread is given.
struct Part {
    node: Arc<Node>,
    index: usize,
    listener: Option<std::net::TcpListener>,
    receiver: UnboundedReceiver<Incoming>,
    mailboxes: Vec<Mailbox>,
}

impl Part {
    fn run(self) {
        let built = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = match built {
            Ok(runtime) => runtime,
            Err(error) => {
                let fields = [("error", error.to_string().into())];
                log::write(Level::Error, "a runtime can't be made", &fields);
                return;
            }
        };
        let Part { node, index, listener, receiver, mailboxes } = self;
        runtime.block_on(async move {
            runtime::enter(index);
            dispatcher::enter(Hub::new(node.clone(), mailboxes[index].watches().clone()));
            router::set_standard(standard(&node).await);
            tokio::spawn(runtime::flush(node.engine.clone()));
            tokio::spawn(dispatcher::pump(node.clone()));
            tokio::spawn(dispatcher::tick(node.clone()));
            if let Some(listener) = listener
                && let Ok(listener) = TcpListener::from_std(listener)
            {
                tokio::spawn(accept::accept(node.clone(), listener, mailboxes));
                node.tls.clone().map(|tls| tokio::spawn(tls.follow_files()));
            }
            let serving = node.clone();
            let changed = |partitions: &[u32]| {
                dispatcher::with_hub(|hub| hub.changed(partitions));
            };
            tokio::spawn(runtime::receive(receiver, changed, move |stream, place| {
                let node = serving.clone();
                tokio::spawn(async move {
                    connection::greet(node, stream).await;
                    drop(place);
                });
            }));
            let mut life = node.follow();
            let _ = life.wait_for(|phase| *phase == Phase::Stopping).await;
        });
        // Ends tasks that are still there; those that wait for something don't hold it up.
        runtime.shutdown_timeout(Duration::from_millis(100));
    }
}

/// Has gRPC's health service say what /readyz says.
async fn report(reporter: &HealthReporter, ready: bool) {
    let status = if ready { ServingStatus::Serving } else { ServingStatus::NotServing };
    for service in ["", REGISTRY_SERVICE, CLUSTER_SERVICE] {
        reporter.set_service_status(service, status).await;
    }
}

/// The same from then on, until the node drains. Whoever watches the health hears changes alone.
async fn follow_readiness(node: Arc<Node>, reporter: HealthReporter, mut told: bool) {
    let mut interval = tokio::time::interval(Duration::from_millis(limits::HEALTH_LOOK_MS));
    let mut life = node.follow();
    while node.phase() == Phase::Serving {
        tokio::select! {
            _ = interval.tick() => {}
            _ = life.wait_for(|phase| *phase != Phase::Serving) => {}
        }
        let ready = node.ready();
        if ready != told {
            report(&reporter, ready).await;
            told = ready;
        }
    }
}

/// gRPC health and reflection.
async fn standard(node: &Arc<Node>) -> axum::Router {
    let (reporter, health) = tonic_health::server::health_reporter();
    let ready = node.ready();
    report(&reporter, ready).await;
    tokio::spawn(follow_readiness(node.clone(), reporter, ready));
    let mut routes = tonic::service::Routes::new(health);
    let descriptors = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
    for build in [true, false] {
        let builder = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(descriptors)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET);
        // The set is written by our own build; were it broken, the rest would still serve.
        match build {
            true => {
                if let Ok(service) = builder.build_v1() {
                    routes = routes.add_service(service);
                }
            }
            false => {
                if let Ok(service) = builder.build_v1alpha() {
                    routes = routes.add_service(service);
                }
            }
        }
    }
    routes.into_axum_router()
}
