//! Sending snapshots: each over a connection of its own, all of them within one rate, so that what
//! is urgent passes by.

#![allow(clippy::disallowed_methods)] // reads a snapshot's file, off the peer thread

use super::convert;
use super::face::Face;
use crate::dial::answer;
use crate::limits;
use crate::log::{self, Level};
use crate::metrics::PeerMetrics;
use crate::pace::Pace;
use agni_core::engine::Engine;
use agni_core::proto::node::{SnapshotChunk, SnapshotOffsetRequest};
use agni_core::raft::work::{PeerMessage, SnapshotTransfer};
use bytes::Bytes;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::sync::mpsc::{Sender, channel};
use tokio::task::spawn_blocking;
use tokio_stream::wrappers::ReceiverStream;

/// What all transfers share.
pub struct Sending {
    face: Arc<Face>,
    dir: PathBuf,
    pace: Pace,
    places: Semaphore,
    metrics: Arc<PeerMetrics>,
}

impl Sending {
    /// Sends files of this directory.
    pub fn new(face: Arc<Face>, dir: PathBuf, metrics: Arc<PeerMetrics>) -> Self {
        let pace = Pace::new(face.config.snapshot_bytes_per_s);
        let places = Semaphore::new(limits::SNAPSHOTS_SENT_AT_ONCE);
        Sending { face, dir, pace, places, metrics }
    }
}

/// Sends one, and tells the engine how it ended.
pub async fn send(
    engine: Engine,
    sending: Arc<Sending>,
    transfer: SnapshotTransfer,
    address: Option<String>,
) {
    let SnapshotTransfer { partition, to, message, file } = transfer;
    let sent = match address {
        None => Err("it isn't known where the node listens".to_owned()),
        Some(address) => {
            let job = Job { engine: &engine, sending: &sending, partition, file: &file };
            match sending.places.acquire().await {
                Ok(_place) => job.run(&address, message).await,
                Err(_) => Err("the node is stopping".to_owned()),
            }
        }
    };
    let counted = if sent.is_ok() {
        &sending.metrics.snapshots_sent
    } else {
        &sending.metrics.snapshots_failed
    };
    counted.fetch_add(1, Relaxed);
    let mut fields = vec![("to", to.into()), ("file", file.into())];
    match &sent {
        Ok(bytes) => {
            fields.push(("bytes", (*bytes).into()));
            log::write(Level::Info, "a snapshot was sent", &fields);
        }
        Err(error) => {
            fields.push(("error", error.as_str().into()));
            log::write(Level::Warn, "a snapshot could not be sent", &fields);
        }
    }
    engine.snapshot_sent(partition, to, sent.is_ok());
}

struct Job<'a> {
    engine: &'a Engine,
    sending: &'a Sending,
    partition: u32,
    file: &'a str,
}

impl Job<'_> {
    /// Answers the bytes that had to be sent.
    async fn run(&self, address: &str, message: raft::eraftpb::Message) -> Result<u64, String> {
        let path = self.sending.dir.join(self.file);
        // Held open: what replaces it meanwhile does no harm.
        let opened = spawn_blocking(move || {
            let file = File::open(path)?;
            let bytes = file.metadata()?.len();
            Ok::<_, std::io::Error>((Arc::new(file), bytes))
        });
        let (source, file_bytes) =
            opened.await.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
        let mut client = self
            .sending
            .face
            .client(address, None)
            .await?
            .max_encoding_message_size(limits::PEER_MESSAGE_BYTES_MAX);
        let cluster_id = Bytes::copy_from_slice(&self.engine.cluster_id());
        let asked = SnapshotOffsetRequest {
            partition: self.partition,
            file: self.file.to_owned(),
            from: self.engine.node_id(),
            cluster_id: cluster_id.clone(),
        };
        let from = answer(client.snapshot_offset(asked)).await?.into_inner().offset;
        let offset = if from <= file_bytes { from } else { 0 };
        let message = PeerMessage { partition: self.partition, message, sender_is_unfit: false };
        let first = SnapshotChunk {
            message: Some(convert::frame(message)),
            cluster_id,
            file: self.file.to_owned(),
            file_bytes,
            offset,
            ..SnapshotChunk::default()
        };
        let (pieces, receiver) = channel(2);
        let call = client.install_snapshot(ReceiverStream::new(receiver));
        let (fed, answered) = tokio::join!(self.feed(source, first, pieces), call);
        // What the other node says comes first: it knows why it hung up.
        answered.map_err(|status| status.message().to_owned())?;
        fed?;
        Ok(file_bytes - offset)
    }

    async fn feed(
        &self,
        source: Arc<File>,
        first: SnapshotChunk,
        pieces: Sender<SnapshotChunk>,
    ) -> Result<(), String> {
        let (file_bytes, mut offset) = (first.file_bytes, first.offset);
        let limit = Duration::from_millis(limits::SNAPSHOT_PIECE_MS_MAX);
        let mut next = Some(first);
        loop {
            let length = (limits::SNAPSHOT_PIECE_BYTES as u64).min(file_bytes - offset) as usize;
            self.sending.pace.wait(length).await;
            let (source, at) = (source.clone(), offset);
            let read = spawn_blocking(move || {
                let mut data = vec![0; length];
                source.read_exact_at(&mut data, at).map(|()| data)
            });
            let data = read
                .await
                .map_err(|error| error.to_string())?
                .map_err(|error| error.to_string())?;
            let crc32 = crc32fast::hash(&data);
            let chunk = SnapshotChunk {
                offset,
                data: data.into(),
                crc32,
                ..next.take().unwrap_or_default()
            };
            match tokio::time::timeout(limit, pieces.send(chunk)).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Err("the other node hung up".to_owned()),
                Err(_) => return Err(format!("nothing was taken for {} ms", limit.as_millis())),
            }
            self.sending.metrics.snapshot_bytes_sent.fetch_add(length as u64, Relaxed);
            offset += length as u64;
            if offset >= file_bytes {
                return Ok(());
            }
        }
    }
}
