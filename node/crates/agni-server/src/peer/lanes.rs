//! The connections over which batches go to one other node: one, as long as all of it gets through.
//!
//! TCP keeps the order of what it carries: a packet that is lost holds up all that comes after it,
//! for longer after each try in vain. Raft needs no order, and bears what comes twice. So where
//! packets are lost more connections are made, a batch goes over those that are held up the least,
//! and a small one over several.

use super::backoff::backoff;
use super::loss::Loss;
use crate::dial::{Connection, Way, dial};
use crate::limits;
use crate::metrics::PeerMetrics;
use crate::peer_services::peer_service_client::PeerServiceClient;
use agni_core::proto::node::RaftBatch;
use prost::Message as _;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::mpsc::{Sender, channel};
use tokio::task::{Id, JoinSet};
use tokio_stream::wrappers::ReceiverStream;

const CHECK: Duration = Duration::from_millis(limits::PEER_LANES_CHECK_MS);

struct Lane {
    call: Id,
    batches: Sender<RaftBatch>,
    connection: Connection,
    /// How often TCP had tried in vain when one last looked.
    tries: u32,
    is_greeted: bool,
}

impl Lane {
    /// Gives the batch back if it can't be taken. The first one says where this node listens.
    fn put(&mut self, mut batch: RaftBatch, own_address: &str) -> Result<(), RaftBatch> {
        if !self.is_greeted {
            own_address.clone_into(&mut batch.peer_address);
        }
        match self.batches.try_send(batch) {
            Ok(()) => {
                self.is_greeted = true;
                Ok(())
            }
            Err(TrySendError::Full(mut back) | TrySendError::Closed(mut back)) => {
                back.peer_address.clear();
                Err(back)
            }
        }
    }
}

/// The connections to one other node.
pub struct Lanes {
    node_id: u64,
    way: Way,
    own_address: String,
    metrics: Arc<PeerMetrics>,
    /// Who was held up the least when one last looked comes first.
    lanes: Vec<Lane>,
    /// Each says why it ended.
    calls: JoinSet<String>,
    dials: JoinSet<Result<Connection, String>>,
    /// Dials in vain since one came through, and until when there are no more of them.
    failures: u32,
    rests: Instant,
    checked: Instant,
    loss: Loss,
}

/// What happened to a connection.
enum Event {
    Ended(Id, String),
    Dialled(Result<Connection, String>),
}

impl Lanes {
    /// With the first connection. `own_address` is where this node listens.
    pub fn new(
        node_id: u64,
        way: Way,
        own_address: String,
        metrics: Arc<PeerMetrics>,
        first: Connection,
    ) -> Lanes {
        let now = Instant::now();
        let mut lanes = Lanes {
            node_id,
            way,
            own_address,
            metrics,
            lanes: Vec::new(),
            calls: JoinSet::new(),
            dials: JoinSet::new(),
            failures: 0,
            rests: now,
            checked: now,
            loss: Loss::default(),
        };
        lanes.add(first);
        lanes
    }

    /// Waits until no connection is left; says why the last one broke.
    pub async fn ended(&mut self) -> String {
        loop {
            let event = event(&mut self.calls, &mut self.dials).await;
            if let Some(why) = self.handle(event) {
                return why;
            }
        }
    }

    /// Sends a batch as soon as a connection has room for it.
    ///
    /// # Errors
    /// Says why the last connection broke.
    pub async fn send(&mut self, mut batch: RaftBatch) -> Result<(), String> {
        loop {
            let now = Instant::now();
            if now - self.checked >= CHECK {
                self.checked = now;
                self.check(now);
            }
            let copies = self.loss.copies(now, || batch.encoded_len());
            match self.put(batch, copies) {
                Ok(()) => return Ok(()),
                Err(back) => batch = back,
            }
            let event = event(&mut self.calls, &mut self.dials);
            let first = self.lanes.first().map(|lane| lane.batches.clone());
            let room = async { first.as_ref()?.reserve().await.ok().map(drop) };
            tokio::select! {
                event = event => if let Some(why) = self.handle(event) { return Err(why) },
                Some(()) = room => {}
                () = tokio::time::sleep(CHECK) => {}
            }
        }
    }

    /// Puts so many copies into the connections that are held up the least, as far as there is
    /// room; gives the batch back if there is none.
    fn put(&mut self, batch: RaftBatch, copies: usize) -> Result<(), RaftBatch> {
        let free = self.lanes.iter_mut().filter(|lane| lane.batches.capacity() > 0);
        let mut chosen = free.take(copies);
        let Some(first) = chosen.next() else { return Err(batch) };
        for lane in chosen {
            let _ = lane.put(batch.clone(), &self.own_address);
        }
        first.put(batch, &self.own_address)
    }

    /// Takes note of what happened; says why the last connection broke, if it did.
    fn handle(&mut self, event: Event) -> Option<String> {
        match event {
            Event::Dialled(Ok(connection)) => {
                self.failures = 0;
                self.add(connection);
            }
            // Who can't be reached any more shows in the connections that there are.
            Event::Dialled(Err(_)) => {
                self.rests = Instant::now() + backoff(self.node_id, self.failures);
                self.failures = self.failures.saturating_add(1);
            }
            Event::Ended(call, why) => {
                self.lanes.retain(|lane| lane.call != call);
                return self.lanes.is_empty().then_some(why);
            }
        }
        None
    }

    /// Looks whether anything is held up, and has as many connections as that calls for.
    fn check(&mut self, now: Instant) {
        for lane in &mut self.lanes {
            lane.tries = lane.connection.tries();
        }
        self.lanes.sort_by_key(|lane| lane.tries);
        self.loss.note(now, self.lanes.iter().any(|lane| lane.tries > 0));
        let wanted = self.loss.lanes();
        self.lanes.truncate(wanted);
        if now >= self.rests {
            for _ in self.lanes.len() + self.dials.len()..wanted {
                self.dials.spawn(dial(self.way.clone()));
            }
        }
    }

    fn add(&mut self, connection: Connection) {
        self.metrics.connects.fetch_add(1, Relaxed);
        let (batches, receiver) = channel(limits::PEER_BATCHES_READY_MAX);
        let mut client = PeerServiceClient::new(connection.channel.clone())
            .max_encoding_message_size(limits::PEER_MESSAGE_BYTES_MAX);
        let call = self.calls.spawn(async move {
            let ended = client.raft(ReceiverStream::new(receiver)).await;
            let ended_by_peer = || "the other node ended it".to_owned();
            ended.err().map_or_else(ended_by_peer, |status| status.message().to_owned())
        });
        let call = call.id();
        self.lanes.push(Lane { call, batches, connection, tries: 0, is_greeted: false });
    }
}

/// The next one; none comes while there is no connection and none is being made.
async fn event(
    calls: &mut JoinSet<String>,
    dials: &mut JoinSet<Result<Connection, String>>,
) -> Event {
    tokio::select! {
        Some(ended) = calls.join_next_with_id() => match ended {
            Ok((call, why)) => Event::Ended(call, why),
            Err(error) => Event::Ended(error.id(), error.to_string()),
        },
        Some(dialled) = dials.join_next() => {
            Event::Dialled(dialled.unwrap_or_else(|error| Err(error.to_string())))
        }
        else => std::future::pending().await,
    }
}
