//! The way to each other node: a bounded queue, and a task that keeps connections open over which
//! everything goes.

use super::backoff::backoff;
use super::convert;
use super::face::Face;
use super::lanes::Lanes;
use super::queue::{Batch, Queue, Waiting, queue};
use super::send_snapshot::{self, Sending};
use crate::dial::{Connection, Way, dial};
use crate::limits;
use crate::log::{self, Level};
use crate::metrics::PeerMetrics;
use agni_core::engine::{Engine, Peers};
use agni_core::proto::node::{RaftBatch, SystemState};
use agni_core::raft::work::{PeerMessage, SnapshotTransfer};
use agni_core::system;
use parking_lot::{Mutex, RwLock};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};
use tokio::sync::mpsc::unbounded_channel;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::sync::{Notify, watch};

struct Link {
    address: String,
    name: Option<String>,
    queue: Queue,
    /// Told when that node has called here: it can be reached, most likely.
    called: Arc<Notify>,
    task: tokio::task::JoinHandle<()>,
}

/// What the driver's thread and the peer thread share.
pub struct Links {
    links: RwLock<BTreeMap<u64, Link>>,
    /// Who has called without being known here yet, and where it listens. A node that was away for
    /// long meets a leader that joined meanwhile: it must be able to answer it, or it never learns.
    guests: Mutex<BTreeMap<u64, String>>,
    /// This node, for those who don't know it yet.
    face: Arc<Face>,
    metrics: Arc<PeerMetrics>,
    transfers: UnboundedSender<SnapshotTransfer>,
    engine: OnceLock<Engine>,
}

/// The driver's end.
struct Outbox(Arc<Links>);

impl Links {
    /// No link yet. The receiver is for `run`.
    pub fn new(
        face: Arc<Face>,
        metrics: Arc<PeerMetrics>,
    ) -> (Arc<Links>, UnboundedReceiver<SnapshotTransfer>) {
        // Bounded by Raft: one snapshot a follower and group at a time.
        let (transfers, receiver) = unbounded_channel();
        let links = Links {
            links: RwLock::default(),
            guests: Mutex::default(),
            face,
            metrics,
            transfers,
            engine: OnceLock::new(),
        };
        (Arc::new(links), receiver)
    }

    /// What the engine is given.
    pub fn outbox(self: &Arc<Self>) -> Box<dyn Peers> {
        Box::new(Outbox(self.clone()))
    }

    /// Where a node listens for others; none when it isn't known.
    pub fn address(&self, node_id: u64) -> Option<String> {
        self.links.read().get(&node_id).map(|link| link.address.clone())
    }

    /// A node has opened a call, and says where it listens. Of a member the cluster's word counts,
    /// and it needn't wait for the next try: who was just started again leads soon after.
    pub fn called(&self, node_id: u64, address: &str) {
        if let Some(link) = self.links.read().get(&node_id) {
            link.called.notify_one();
        }
        let mut guests = self.guests.lock();
        if guests.len() < limits::PEER_GUESTS_MAX || guests.contains_key(&node_id) {
            guests.insert(node_id, address.to_owned());
        }
    }

    fn unreachable(&self, node_id: u64) {
        if let Some(engine) = self.engine.get() {
            engine.unreachable(node_id);
        }
    }

    /// Keeps a link to every other member, for ever; called on the peer thread.
    pub async fn run(
        self: Arc<Self>,
        engine: Engine,
        sending: Arc<Sending>,
        mut transfers: UnboundedReceiver<SnapshotTransfer>,
        mut stopping: watch::Receiver<bool>,
    ) {
        let _ = self.engine.set(engine.clone());
        let mut known = None;
        let period = Duration::from_millis(limits::PEER_MEMBERS_CHECK_MS);
        loop {
            let now = (engine.system_version(), self.guests.lock().len());
            if known != Some(now) {
                known = Some(now);
                self.follow(&engine, &engine.system_state());
            }
            tokio::select! {
                () = tokio::time::sleep(period) => {}
                transfer = transfers.recv() => {
                    let Some(transfer) = transfer else { return };
                    let address = self.address(transfer.to);
                    let (engine, sending) = (engine.clone(), sending.clone());
                    tokio::spawn(send_snapshot::send(engine, sending, transfer, address));
                }
                _ = stopping.wait_for(|stop| *stop) => break,
            }
        }
        for link in self.links.write().values() {
            link.task.abort();
        }
    }

    /// Links to those who take part, at their present addresses.
    fn follow(self: &Arc<Self>, engine: &Engine, state: &SystemState) {
        let me = engine.node_id();
        let mut guests = self.guests.lock();
        guests.retain(|id, _| system::member(state, *id).is_none());
        let members = system::present(state).filter(|member| member.node_id != me).map(|member| {
            (member.node_id, (member.peer_address.as_str(), Some(member.name.as_str())))
        });
        let guests = guests.iter().map(|(id, address)| (*id, (address.as_str(), None)));
        let wanted: BTreeMap<u64, (&str, Option<&str>)> = members.chain(guests).collect();
        let mut links = self.links.write();
        links.retain(|id, link| {
            let stays = wanted.get(id) == Some(&(link.address.as_str(), link.name.as_deref()));
            if !stays {
                link.task.abort();
                self.metrics.connected.lock().remove(id);
                self.metrics.queues.lock().remove(id);
            }
            stays
        });
        for (id, (address, name)) in wanted {
            links.entry(id).or_insert_with(|| {
                self.metrics.connected.lock().insert(id, false);
                let (queue, waiting) = queue();
                self.metrics.queues.lock().insert(id, queue.depth().clone());
                let called = Arc::new(Notify::new());
                let runner = LinkTask {
                    node_id: id,
                    way: self.face.way(address, name),
                    own_address: self.face.config.address.clone(),
                    engine: engine.clone(),
                    metrics: self.metrics.clone(),
                    queue: waiting,
                    called: called.clone(),
                };
                let task = tokio::spawn(runner.run());
                let (address, name) = (address.to_owned(), name.map(str::to_owned));
                Link { address, name, queue, called, task }
            });
        }
    }
}

impl Peers for Outbox {
    fn send(&mut self, messages: &mut Vec<PeerMessage>) {
        let mut sorted: BTreeMap<u64, Batch> = BTreeMap::new();
        for message in messages.drain(..) {
            sorted.entry(message.message.to).or_default().push(message);
        }
        let links = self.0.links.read();
        for (to, batch) in sorted {
            let count = batch.len() as u64;
            let sent = links.get(&to).is_some_and(|link| link.queue.push(batch));
            if !sent {
                self.0.metrics.dropped.fetch_add(count, Relaxed);
                self.0.unreachable(to);
            }
        }
    }

    fn send_snapshot(&mut self, transfer: SnapshotTransfer) {
        let (partition, to) = (transfer.partition, transfer.to);
        if self.0.transfers.send(transfer).is_err()
            && let Some(engine) = self.0.engine.get()
        {
            engine.snapshot_sent(partition, to, false);
        }
    }
}

/// How long a call must last to count as one that works.
const STEADY: Duration = Duration::from_secs(1);

struct LinkTask {
    node_id: u64,
    way: Way,
    own_address: String,
    engine: Engine,
    metrics: Arc<PeerMetrics>,
    queue: Waiting,
    called: Arc<Notify>,
}

impl LinkTask {
    /// Connects, sends until the connection breaks, and again, waiting longer each time, unless the
    /// other node calls meanwhile. Only what changes is logged, not each attempt.
    async fn run(mut self) {
        let mut is_lost = false;
        let mut pauses: u32 = 0;
        loop {
            let (what, error) = match dial(self.way.clone()).await {
                Ok(connection) => {
                    self.is_connected(true);
                    let begun = Instant::now();
                    let why = self.serve(connection, is_lost).await;
                    self.is_connected(false);
                    if begun.elapsed() >= STEADY {
                        (is_lost, pauses) = (false, 0);
                    }
                    ("the connection to a node broke", why)
                }
                Err(error) => ("a node can't be reached", error),
            };
            if !is_lost {
                self.log(what, &error);
            }
            is_lost = true;
            // What waited is out of date; Raft says it anew.
            self.metrics.dropped.fetch_add(self.queue.clear(), Relaxed);
            self.engine.unreachable(self.node_id);
            let pause = backoff(self.node_id, pauses);
            pauses = pauses.saturating_add(1);
            if tokio::time::timeout(pause, self.called.notified()).await.is_ok() {
                pauses = 0;
            }
        }
    }

    fn is_connected(&self, is_connected: bool) {
        if let Some(known) = self.metrics.connected.lock().get_mut(&self.node_id) {
            *known = is_connected;
        }
    }

    fn log(&self, what: &str, error: &str) {
        let fields = [
            ("node_id", self.node_id.into()),
            ("address", self.way.address.as_str().into()),
            ("error", error.into()),
        ];
        log::write(Level::Warn, what, &fields);
    }

    /// Sends until the last connection breaks; says why.
    async fn serve(&mut self, first: Connection, is_back: bool) -> String {
        let begun = Instant::now();
        let mut untold = is_back;
        let (way, own_address) = (self.way.clone(), self.own_address.clone());
        let mut lanes = Lanes::new(self.node_id, way, own_address, self.metrics.clone(), first);
        loop {
            let next = tokio::select! {
                batch = self.next() => batch,
                why = lanes.ended() => return why,
            };
            let count = next.frames.len() as u64;
            if let Err(why) = lanes.send(next).await {
                self.metrics.dropped.fetch_add(count, Relaxed);
                return why;
            }
            self.metrics.sent.fetch_add(count, Relaxed);
            if untold && begun.elapsed() >= STEADY {
                untold = false;
                self.log("a node can be reached again", "");
            }
        }
    }

    /// The next batch, of what waits by then.
    async fn next(&mut self) -> RaftBatch {
        let frames = self.queue.next().await.into_iter().map(convert::frame).collect();
        let from = self.engine.node_id();
        let cluster_id = bytes::Bytes::copy_from_slice(&self.engine.cluster_id());
        RaftBatch { from, cluster_id, frames, peer_address: String::new() }
    }
}
