//! Backups: the snapshot file of every partition, streamed to the client one after the other.
//!
//! A node takes what it holds from its own disk, and asks another replica for the rest. Where a
//! source is lost on the way, another one begins that partition anew. Nothing is kept in memory but
//! a few pieces: who takes them slowly slows the reading down.

use crate::limits;
use crate::log::{self, Level};
use crate::node::{Node, Phase};
use crate::ops::cluster;
use crate::pace::Pace;
use crate::route::question::{Point, read};
use crate::route::{self, copy};
use crate::runtime;
use crate::status::{Code, RpcError};
use crate::wire;
use agni_core::engine::Freshness;
use agni_core::proto::api::backup_piece::Piece;
use agni_core::proto::api::{
    BackupBegin, BackupData, BackupEnd, BackupPiece, BackupRequest, BackupSection,
};
use agni_core::proto::node::CopyRequest;
use agni_core::raft::work::{Answer, Priority, Work};
use agni_core::system;
use bytes::Bytes;
use std::borrow::Cow;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::task::spawn_blocking;

/// What is sent, framed.
pub type Pieces = Receiver<Result<Bytes, RpcError>>;

/// Why a partition did not go through.
#[derive(Debug)]
enum Fault {
    /// Nobody takes it any more.
    Gone,
    /// This source can't give it; another one may.
    Source(RpcError),
}

impl Fault {
    fn source(message: impl Into<Cow<'static, str>>) -> Self {
        Fault::Source(RpcError::new(Code::Internal, "SNAPSHOT_FAILED", message))
    }
}

/// Streams a backup of some partitions, or of all.
///
/// # Errors
/// When a partition is unknown, or too many backups are under way.
pub fn begin(node: &Arc<Node>, request: BackupRequest) -> Result<Pieces, RpcError> {
    let partitions = cluster::which(node, request.partitions)?;
    let bytes_per_s = request.bytes_per_s.max(limits::BACKUP_BYTES_PER_S_MIN);
    let own_pace = (request.bytes_per_s > 0).then(|| Pace::new(bytes_per_s));
    start(node, &node.backups, |node, sender| async move {
        let mut account = Account { node: &node, begun: Instant::now(), error: None, done: false };
        let mut sink = Sink { node: &node, sender: &sender, own_pace, sent: 0 };
        let outcome = whole(&node, &partitions, &mut sink).await.map_err(told);
        account.done = outcome.is_ok();
        account.error = outcome.as_ref().err().map(|error| error.message.to_string());
        outcome
    })
}

/// Counts a backup when it ends, also where nobody waits for its end.
struct Account<'a> {
    node: &'a Node,
    begun: Instant,
    error: Option<String>,
    done: bool,
}

impl Drop for Account<'_> {
    fn drop(&mut self) {
        let metrics = &self.node.metrics.backup;
        let took = self.begun.elapsed();
        let took_ms = ("took_ms", (took.as_millis() as u64).into());
        if self.done {
            metrics.finished.fetch_add(1, Relaxed);
            metrics.microseconds.observe(took.as_micros() as u64);
            log::write(Level::Info, "a backup was streamed", &[took_ms]);
        } else {
            metrics.failed.fetch_add(1, Relaxed);
            let error = self
                .error
                .take()
                .unwrap_or_else(|| "its client is gone, or the node stops".to_owned());
            log::write(Level::Warn, "a backup broke off", &[took_ms, ("error", error.into())]);
        }
    }
}

/// Streams one partition that this node holds, for another node's backup.
///
/// # Errors
/// When the question is of another cluster, or too many are under way.
pub fn begin_copy(node: &Arc<Node>, request: CopyRequest) -> Result<Pieces, RpcError> {
    if request.cluster_id[..] != node.engine.cluster_id() {
        return Err(RpcError::field("cluster_id", "is of another cluster"));
    }
    let CopyRequest { partition, at_least, .. } = request;
    cluster::which(node, vec![partition])?;
    start(node, &node.copies, move |node, sender| async move {
        let mut sink = Sink { node: &node, sender: &sender, own_pace: None, sent: 0 };
        from_here(&node, partition, at_least, &mut sink).await.map_err(told)
    })
}

/// Begins a stream, ended with the client's interest or the node's life.
fn start<F>(
    node: &Arc<Node>,
    places: &Arc<Semaphore>,
    work: impl FnOnce(Arc<Node>, Sender<Result<Bytes, RpcError>>) -> F,
) -> Result<Pieces, RpcError>
where
    F: Future<Output = Result<(), RpcError>> + Send + 'static,
{
    let Ok(place) = places.clone().try_acquire_owned() else {
        return Err(RpcError::overloaded(
            "as many backups as a node makes at once are under way, try again when one has ended",
        ));
    };
    let (sender, pieces) = channel(limits::BACKUP_PIECES_READY_MAX);
    let mut life = node.follow();
    let working = work(node.clone(), sender.clone());
    tokio::spawn(async move {
        let _place = place;
        let ended = tokio::select! {
            ended = working => ended,
            _ = life.wait_for(|phase| *phase != Phase::Serving) => Err(RpcError::shutting_down()),
            () = sender.closed() => return,
        };
        if let Err(error) = ended {
            // A client that is gone has nothing to be told.
            let _ = sender.send(Err(error)).await;
        }
    });
    Ok(pieces)
}

fn told(fault: Fault) -> RpcError {
    match fault {
        Fault::Gone => RpcError::new(
            Code::DeadlineExceeded,
            "DEADLINE_EXCEEDED",
            "the client took nothing for too long, read faster or write to a faster disk",
        ),
        Fault::Source(error) => error,
    }
}

/// Where pieces go.
struct Sink<'a> {
    node: &'a Node,
    sender: &'a Sender<Result<Bytes, RpcError>>,
    own_pace: Option<Pace>,
    /// Bytes of files that were sent, those of files begun anew counted again.
    sent: u64,
}

impl Sink<'_> {
    async fn send(&mut self, piece: Piece) -> Result<(), Fault> {
        let message = wire::message(&BackupPiece { piece: Some(piece) });
        let limit = Duration::from_millis(limits::BACKUP_PIECE_MS_MAX);
        match tokio::time::timeout(limit, self.sender.send(Ok(message))).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Fault::Gone),
        }
    }

    async fn data(&mut self, data: BackupData) -> Result<(), Fault> {
        let bytes = data.data.len();
        self.node.backup_pace.wait(bytes).await;
        if let Some(pace) = &self.own_pace {
            pace.wait(bytes).await;
        }
        self.send(Piece::Data(data)).await?;
        self.sent += bytes as u64;
        self.node.metrics.backup.bytes.fetch_add(bytes as u64, Relaxed);
        Ok(())
    }
}

async fn whole(node: &Node, partitions: &[u32], sink: &mut Sink<'_>) -> Result<(), Fault> {
    let begin = BackupBegin {
        cluster_id: node.cluster_id.clone(),
        partition_count: node.engine.partition_count(),
        partitions: partitions.to_vec(),
        region: node.config.region.clone(),
        version: node.config.version.clone(),
    };
    sink.send(Piece::Begin(begin)).await?;
    let mut bytes = 0;
    for partition in partitions {
        bytes += one(node, *partition, sink).await?;
    }
    sink.send(Piece::End(BackupEnd { partitions: partitions.len() as u32, bytes })).await
}

/// Sends one partition, from as many sources as it takes; answers its file's size.
async fn one(node: &Node, partition: u32, sink: &mut Sink<'_>) -> Result<u64, Fault> {
    let mut pause = Duration::from_millis(limits::BACKUP_PAUSE_MS_MIN);
    let (mut attempt, mut fruitless_since) = (0, Instant::now());
    loop {
        let before = sink.sent;
        let error = match from_somewhere(node, partition, attempt, sink).await {
            Err(Fault::Source(error)) => error,
            ended => return ended,
        };
        attempt += 1;
        if sink.sent > before {
            fruitless_since = Instant::now();
        }
        let waited = fruitless_since.elapsed();
        if waited >= Duration::from_millis(limits::BACKUP_WAIT_MS_MAX)
            || attempt >= limits::BACKUP_ATTEMPTS_MAX
        {
            return Err(Fault::Source(error.with("partition", partition.to_string())));
        }
        let fields = [("partition", partition.into()), ("error", error.message.as_ref().into())];
        log::write(Level::Info, "a partition's backup begins anew", &fields);
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(limits::BACKUP_PAUSE_MS_MAX));
    }
}

async fn from_somewhere(
    node: &Node,
    partition: u32,
    attempt: usize,
    sink: &mut Sink<'_>,
) -> Result<u64, Fault> {
    // Everything acknowledged by now is to be in it, wherever it comes from.
    let (point, ()) =
        read(node, partition, Freshness::Linearizable, &Point { priority: Priority::Many })
            .await
            .map_err(Fault::Source)?;
    let sources = sources(node, partition);
    let Some(source) = sources.get(attempt % sources.len().max(1)) else {
        return Err(Fault::source("it isn't known which nodes hold it"));
    };
    match *source == node.engine.node_id() {
        true => {
            let before = sink.sent;
            from_here(node, partition, point.revision, sink).await?;
            Ok(sink.sent - before)
        }
        false => from_there(node, *source, partition, point.revision, sink).await,
    }
}

/// Whom to take a partition from: this node, its leader, its other voters.
fn sources(node: &Node, partition: u32) -> Vec<u64> {
    let state = node.engine.system_state();
    let reported = system::placement(&state, partition).and_then(|p| p.reported.as_ref());
    let voters = reported.map_or(&[][..], |replicas| &replicas.voters);
    let me = node.engine.node_id();
    let here = node.engine.holds(partition).then_some(me);
    let leader = Some(route::leader(node, partition)).filter(|id| *id != 0);
    let mut sources: Vec<u64> = Vec::new();
    for id in here.into_iter().chain(leader).chain(voters.iter().copied()) {
        if !sources.contains(&id) && (id != me || here.is_some()) {
            sources.push(id);
        }
    }
    sources
}

/// Takes a snapshot here and sends its file.
async fn from_here(
    node: &Node,
    partition: u32,
    at_least: u64,
    sink: &mut Sink<'_>,
) -> Result<(), Fault> {
    catch_up(node, partition, at_least).await?;
    let meta = match runtime::ask(partition, Work::Snapshot).await {
        Answer::Snapshot(meta) if meta.revision >= at_least => meta,
        Answer::Snapshot(_) => return Err(Fault::source("the replica fell behind")),
        Answer::SnapshotFailed(message) => return Err(Fault::source(message)),
        Answer::Refused(refuse) => {
            return Err(Fault::Source(RpcError::refused(refuse)));
        }
        _ => return Err(Fault::source("the engine answered another question")),
    };
    let path = node.config.engine.data_dir.join("snapshots").join(&meta.file);
    // Held open: what replaces it meanwhile does no harm.
    let file = Arc::new(blocking(move || File::open(path)).await?);
    let section = BackupSection {
        partition,
        index: meta.index,
        revision: meta.revision,
        records: meta.records,
        bytes: meta.bytes,
    };
    sink.send(Piece::Section(section)).await?;
    let mut offset = 0;
    while offset < meta.bytes {
        let length = (limits::SNAPSHOT_PIECE_BYTES as u64).min(meta.bytes - offset) as usize;
        let (source, at) = (file.clone(), offset);
        let data = blocking(move || {
            let mut data = vec![0; length];
            source.read_exact_at(&mut data, at).map(|()| data)
        });
        let data = Bytes::from(data.await?);
        let crc32 = crc32fast::hash(&data);
        sink.data(BackupData { offset, data, crc32 }).await?;
        offset += length as u64;
    }
    Ok(())
}

/// Waits until the replica here has applied what must be in it.
async fn catch_up(node: &Node, partition: u32, at_least: u64) -> Result<(), Fault> {
    let begun = Instant::now();
    loop {
        let revision =
            node.engine.read(partition, Freshness::Local, |store, _, _| store.revision());
        if revision.is_ok_and(|revision| revision >= at_least) {
            return Ok(());
        }
        if begun.elapsed() >= Duration::from_millis(limits::BACKUP_CATCH_UP_MS_MAX) {
            return Err(Fault::source("the replica is behind"));
        }
        tokio::time::sleep(Duration::from_millis(limits::BACKUP_CATCH_UP_PAUSE_MS)).await;
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> Result<T, Fault> {
    match spawn_blocking(work).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) => Err(Fault::source(format!("the snapshot can't be read: {error}"))),
        Err(error) => Err(Fault::source(error.to_string())),
    }
}

/// Has another node take a snapshot, and passes its file on; answers the file's size.
async fn from_there(
    node: &Node,
    source: u64,
    partition: u32,
    at_least: u64,
    sink: &mut Sink<'_>,
) -> Result<u64, Fault> {
    let mut stream = copy::open(node, source, partition, at_least).await.map_err(Fault::source)?;
    let mut section: Option<BackupSection> = None;
    let mut offset = 0;
    while let Some(piece) =
        copy::next(&mut stream, section.is_none()).await.map_err(Fault::source)?
    {
        match piece {
            Piece::Section(begins)
                if section.is_none()
                    && begins.partition == partition
                    && begins.revision >= at_least =>
            {
                sink.send(Piece::Section(begins)).await?;
                section = Some(begins);
            }
            Piece::Data(data)
                if section.is_some()
                    && data.offset == offset
                    && data.crc32 == crc32fast::hash(&data.data) =>
            {
                offset += data.data.len() as u64;
                sink.data(data).await?;
            }
            _ => return Err(Fault::source(format!("node {source} sent something else"))),
        }
    }
    match section {
        Some(section) if section.bytes == offset => Ok(offset),
        _ => Err(Fault::source(format!("node {source} sent a part of it only"))),
    }
}
