//! The peer thread's life: it listens from the start, gathers a cluster where there is none yet,
//! and once the engine runs keeps the ways to the others.

use super::announce::announce;
use super::aside;
use super::config::ClusterConfig;
use super::face::Face;
use super::gather::gather;
use super::links::Links;
use super::listen::serve;
use super::nonce;
use super::receive_snapshot::Receiving;
use super::send_snapshot::Sending;
use super::service::Service;
use crate::config::ServerError;
use crate::log::{self, Level};
use crate::metrics::PeerMetrics;
use crate::runtime::{self, Incoming};
use crate::tls::Tls;
use agni_core::engine::{Engine, Meta, Peers, Seed};
use agni_core::raft::work::SnapshotTransfer;
use parking_lot::Mutex;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::{oneshot, watch};

/// What the thread is made from.
pub struct PeerSettings {
    /// How the node takes part.
    pub cluster: ClusterConfig,
    /// The region that it serves.
    pub region: String,
    /// How many partitions a new cluster gets.
    pub partition_count: u32,
    /// Where everything durable lives.
    pub data_dir: PathBuf,
    /// Where it listens for other nodes.
    pub listener: TcpListener,
    /// Its number among the runtimes.
    pub runtime_index: usize,
    /// Its answers from the engine.
    pub receiver: UnboundedReceiver<Incoming>,
    /// What it counts.
    pub metrics: Arc<PeerMetrics>,
    /// How it proves who it is; none without TLS.
    pub tls: Option<Arc<Tls>>,
}

/// The running thread.
pub struct PeerThread {
    links: Arc<Links>,
    face: Arc<Face>,
    seed: Option<Seed>,
    gathered: Mutex<mpsc::Receiver<Result<Seed, String>>>,
    engine: Mutex<Option<oneshot::Sender<Engine>>>,
    stop: watch::Sender<bool>,
    thread: Mutex<Option<JoinHandle<()>>>,
    data_dir: PathBuf,
}

/// How often a wait looks whether it is still wanted.
const GATHER_POLL: Duration = Duration::from_millis(100);

impl PeerThread {
    /// Listens for other nodes.
    ///
    /// # Errors
    /// When the data directory can't be read or a thread can't be made.
    pub fn start(settings: PeerSettings) -> Result<PeerThread, ServerError> {
        let data_dir = settings.data_dir.clone();
        let fault = |error: std::io::Error| {
            ServerError::new("DATA_DIRECTORY", format!("{}: {error}", data_dir.display()))
        };
        let is_kept = aside::is_kept(&data_dir).map_err(fault)?;
        let seed = known_seed(&data_dir)?;
        let own = |seed: &Seed| {
            let member = agni_core::system::member(&seed.state, seed.node_id);
            member.map(|member| member.nonce.to_vec()).unwrap_or_default()
        };
        let nonce = match &seed {
            Some(seed) => own(seed),
            None => nonce::open(&data_dir).map_err(fault)?,
        };
        let PeerSettings { cluster, region, partition_count, .. } = &settings;
        let mut face = Face::new(
            cluster.clone(),
            region.clone(),
            *partition_count,
            nonce,
            settings.tls.clone(),
        );
        face.joins_only = is_kept && seed.is_none();
        let face = Arc::new(face);
        let (links, transfers) = Links::new(face.clone(), settings.metrics.clone());
        let (stop, stopping) = watch::channel(false);
        let (engine_sender, engine) = oneshot::channel();
        let (gathered_sender, gathered) = mpsc::channel();
        let must_gather = seed.is_none() && !cluster.seeds.is_empty();
        let worker = Worker {
            face: face.clone(),
            links: links.clone(),
            transfers,
            gathered: must_gather.then_some(gathered_sender),
            engine,
            stopping,
            settings,
        };
        let thread = std::thread::Builder::new()
            .name("agni-peer".to_owned())
            .spawn(move || worker.run())
            .map_err(|error| ServerError::new("THREAD", error.to_string()))?;
        let engine = Mutex::new(Some(engine_sender));
        let thread = Mutex::new(Some(thread));
        let gathered = Mutex::new(gathered);
        Ok(PeerThread { links, face, seed, gathered, engine, stop, thread, data_dir })
    }

    /// What the engine is given to send with.
    pub fn outbox(&self) -> Box<dyn Peers> {
        self.links.outbox()
    }

    /// Waits until the node knows its cluster: the seed for an empty directory, none where the
    /// directory has an identity or the node begins alone.
    ///
    /// # Errors
    /// When it can't come to one, or `is_wanted` says that nobody wants it any more.
    pub fn gather(&self, is_wanted: &dyn Fn() -> bool) -> Result<Option<Seed>, ServerError> {
        if self.seed.is_some() || self.face.config.seeds.is_empty() {
            return Ok(None);
        }
        loop {
            match self.gathered.lock().recv_timeout(GATHER_POLL) {
                Ok(Ok(seed)) => return Ok(Some(seed)),
                Ok(Err(message)) => return Err(ServerError::new("CLUSTER", message)),
                Err(mpsc::RecvTimeoutError::Disconnected) => {
                    return Err(ServerError::new("THREAD", "the peer thread has ended"));
                }
                Err(mpsc::RecvTimeoutError::Timeout) if is_wanted() => {}
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    let message = "stopped before a cluster was found";
                    return Err(ServerError::new("INTERRUPTED", message));
                }
            }
        }
    }

    /// Whether the cluster has removed this node.
    pub fn has_left(&self) -> bool {
        self.face.has_left.load(Relaxed)
    }

    /// The nonce of the data directory, for a node that begins alone.
    pub fn founder(&self) -> agni_core::system::Founder {
        self.face.founder()
    }

    /// The engine runs: from here on the node takes part.
    ///
    /// # Errors
    /// When the data directory can't be read.
    pub fn run(&self, engine: Engine) -> Result<(), ServerError> {
        nonce::forget(&self.data_dir)
            .map_err(|error| ServerError::new("DATA_DIRECTORY", error.to_string()))?;
        let seed = known_seed(&self.data_dir)?;
        let founding = seed.filter(|seed| seed.is_founding).map(|seed| seed.state);
        self.face.belongs(engine.clone(), founding);
        if let Some(sender) = self.engine.lock().take() {
            let _ = sender.send(engine);
        }
        Ok(())
    }

    /// Ends the thread. Safe to repeat.
    pub fn stop(&self) {
        self.stop.send_replace(true);
        if let Some(thread) = self.thread.lock().take()
            && thread.join().is_err()
        {
            log::write(Level::Error, "the peer thread has panicked", &[]);
        }
    }
}

impl Drop for PeerThread {
    fn drop(&mut self) {
        self.stop();
    }
}

/// How a directory with an identity began.
fn known_seed(data_dir: &Path) -> Result<Option<Seed>, ServerError> {
    let fault =
        |error: agni_core::error::StartError| ServerError::new(error.code(), error.to_string());
    let Some(meta) = Meta::read(data_dir).map_err(fault)? else { return Ok(None) };
    Seed::read(data_dir, meta.node_id).map_err(fault)
}

struct Worker {
    face: Arc<Face>,
    links: Arc<Links>,
    transfers: UnboundedReceiver<SnapshotTransfer>,
    gathered: Option<mpsc::Sender<Result<Seed, String>>>,
    engine: oneshot::Receiver<Engine>,
    stopping: watch::Receiver<bool>,
    settings: PeerSettings,
}

impl Worker {
    fn run(self) {
        let built = tokio::runtime::Builder::new_current_thread().enable_all().build();
        match built {
            Ok(runtime) => {
                runtime.block_on(self.live());
                runtime.shutdown_timeout(Duration::from_millis(100));
            }
            Err(error) => {
                let fields = [("error", error.to_string().into())];
                log::write(Level::Error, "the peer runtime can't be made", &fields);
            }
        }
    }

    async fn live(self) {
        let Worker { face, links, transfers, gathered, engine, mut stopping, settings } = self;
        let PeerSettings { listener, runtime_index, receiver, metrics, data_dir, .. } = settings;
        let snapshots = data_dir.join("snapshots");
        let service = Service {
            face: face.clone(),
            links: links.clone(),
            receiving: Arc::new(Receiving::new(snapshots.clone(), metrics.clone())),
            metrics: metrics.clone(),
        };
        tokio::spawn(serve(listener, service, stopping.clone()));
        if let Some(gathered) = gathered {
            let face = face.clone();
            tokio::spawn(async move {
                let _ = gathered.send(gather(face).await);
            });
        }
        let engine = tokio::select! {
            engine = engine => engine,
            _ = stopping.wait_for(|stop| *stop) => return,
        };
        // Without one the server didn't start.
        let Ok(engine) = engine else { return };
        runtime::enter(runtime_index);
        tokio::spawn(runtime::flush(engine.clone()));
        tokio::spawn(runtime::receive(receiver, |_| (), |_, _| ()));
        tokio::spawn(announce(face.clone(), engine.clone()));
        let sending = Arc::new(Sending::new(face.clone(), snapshots, metrics));
        links.run(engine, sending, transfers, stopping).await;
    }
}
