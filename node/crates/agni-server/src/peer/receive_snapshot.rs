//! Receiving snapshots: into a file beside the others, piece by piece, kept when the connection
//! breaks so that the next one goes on. Published only when it is whole and durable.

#![allow(clippy::disallowed_methods)] // writes a snapshot's file, off the peer thread

use super::convert;
use crate::limits;
use crate::metrics::PeerMetrics;
use agni_core::engine::Engine;
use agni_core::proto::node::{SnapshotChunk, SnapshotOffsetRequest};
use agni_core::raft::work::PeerMessage;
use agni_core::snapshot::parse_name;
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::task::spawn_blocking;
use tonic::{Status, Streaming};

const PART: &str = ".part";

/// What all transfers share.
pub struct Receiving {
    dir: PathBuf,
    metrics: Arc<PeerMetrics>,
    /// The newest transfer of each group: an older one gives up.
    newest: Mutex<BTreeMap<u32, u64>>,
}

/// A transfer under way.
struct Transfer {
    partition: u32,
    number: u64,
    file: String,
    file_bytes: u64,
    offset: u64,
    message: PeerMessage,
    target: Arc<File>,
}

impl Receiving {
    /// Receives into this directory, in which nothing is under way.
    pub fn new(dir: PathBuf, metrics: Arc<PeerMetrics>) -> Self {
        // What an earlier life left half done is begun anew. There may be no directory yet.
        if let Ok(files) = fs::read_dir(&dir) {
            for file in files.flatten() {
                if file.file_name().to_string_lossy().ends_with(PART) {
                    let _ = fs::remove_file(file.path());
                }
            }
        }
        Receiving { dir, metrics, newest: Mutex::default() }
    }

    fn part(&self, from: u64, file: &str) -> PathBuf {
        self.dir.join(format!("{file}.{from}{PART}"))
    }

    /// How much of a file is there.
    pub fn offset(&self, request: &SnapshotOffsetRequest) -> u64 {
        match parse_name(&request.file) {
            Some((partition, _)) if partition == request.partition => {
                fs::metadata(self.part(request.from, &request.file)).map_or(0, |part| part.len())
            }
            _ => 0,
        }
    }

    /// Receives one whole file, and hands it to the engine. `expect` says whether the sender may
    /// send for whom it says.
    ///
    /// # Errors
    /// Says what is wrong with what came.
    pub async fn receive(
        &self,
        engine: &Engine,
        mut pieces: Streaming<SnapshotChunk>,
        expect: impl Fn(u64, &Bytes) -> Result<(), Status>,
    ) -> Result<(), Status> {
        let Some(first) = next(&mut pieces).await? else {
            return Err(Status::invalid_argument("there was no piece"));
        };
        let mut transfer = self.begin(engine, &first, expect).await?;
        let mut piece = Some(first);
        while let Some(chunk) = piece {
            self.take(&mut transfer, chunk).await?;
            piece = next(&mut pieces).await?;
        }
        self.finish(engine, transfer).await
    }

    async fn begin(
        &self,
        engine: &Engine,
        first: &SnapshotChunk,
        expect: impl Fn(u64, &Bytes) -> Result<(), Status>,
    ) -> Result<Transfer, Status> {
        let frame = first.message.clone();
        let message = frame.and_then(convert::message);
        let message =
            message.ok_or_else(|| Status::invalid_argument("the announcement is wrong"))?;
        let (from, partition) = (message.message.from, message.partition);
        expect(from, &first.cluster_id)?;
        let metadata = message.message.get_snapshot().get_metadata();
        if parse_name(&first.file) != Some((partition, metadata.index))
            || message.message.to != engine.node_id()
        {
            return Err(Status::invalid_argument(format!(
                "{} is not the file of what was announced",
                first.file
            )));
        }
        let number = {
            let mut newest = self.newest.lock();
            let number = newest.entry(partition).or_default();
            *number += 1;
            *number
        };
        let path = self.part(from, &first.file);
        let (dir, offset) = (self.dir.clone(), first.offset);
        let kept = path.clone();
        let group = first.file.split('-').next().unwrap_or_default().to_owned();
        let target = blocking(move || {
            fs::create_dir_all(&dir)?;
            drop_others(&dir, &group, &kept)?;
            let target = OpenOptions::new().create(true).write(true).truncate(false).open(path)?;
            // Where the sender begins earlier than what is there, it knows better.
            target.set_len(offset)?;
            Ok(Arc::new(target))
        })
        .await?;
        let (file, file_bytes) = (first.file.clone(), first.file_bytes);
        Ok(Transfer { partition, number, file, file_bytes, offset, message, target })
    }

    async fn take(&self, transfer: &mut Transfer, chunk: SnapshotChunk) -> Result<(), Status> {
        if self.newest.lock().get(&transfer.partition) != Some(&transfer.number) {
            return Err(Status::aborted("another transfer of this group has begun"));
        }
        let length = chunk.data.len() as u64;
        if chunk.offset != transfer.offset || chunk.offset + length > transfer.file_bytes {
            return Err(Status::out_of_range("a piece doesn't fit to the one before it"));
        }
        if crc32fast::hash(&chunk.data) != chunk.crc32 {
            return Err(Status::data_loss("a piece was damaged on its way"));
        }
        let (target, at) = (transfer.target.clone(), transfer.offset);
        blocking(move || target.write_all_at(&chunk.data, at)).await?;
        transfer.offset += length;
        self.metrics.snapshot_bytes_received.fetch_add(length, Relaxed);
        Ok(())
    }

    async fn finish(&self, engine: &Engine, transfer: Transfer) -> Result<(), Status> {
        if transfer.offset != transfer.file_bytes {
            let (has, wanted) = (transfer.offset, transfer.file_bytes);
            return Err(Status::data_loss(format!("it ended after {has} of {wanted} bytes")));
        }
        let part = self.part(transfer.message.message.from, &transfer.file);
        let (dir, published) = (self.dir.clone(), self.dir.join(&transfer.file));
        let target = transfer.target;
        blocking(move || {
            target.sync_all()?;
            fs::rename(part, published)?;
            File::open(dir)?.sync_all()
        })
        .await?;
        engine.snapshot_received(transfer.partition, transfer.message.message, transfer.file);
        Ok(())
    }
}

/// Removes what other transfers of a group have left.
fn drop_others(dir: &std::path::Path, group: &str, kept: &std::path::Path) -> io::Result<()> {
    for file in fs::read_dir(dir)? {
        let path = file?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let is_other = name.starts_with(&format!("{group}-")) && name.ends_with(PART);
        if is_other && path != kept {
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}

async fn next(pieces: &mut Streaming<SnapshotChunk>) -> Result<Option<SnapshotChunk>, Status> {
    let limit = Duration::from_millis(limits::SNAPSHOT_PIECE_MS_MAX);
    let late = |_| Status::deadline_exceeded("no piece came for too long");
    tokio::time::timeout(limit, pieces.message()).await.map_err(late)?
}

/// Does something with files without holding up who else is on the thread.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, Status> {
    let done = spawn_blocking(work).await.map_err(|error| Status::internal(error.to_string()))?;
    done.map_err(|error| Status::resource_exhausted(format!("the file can't be written: {error}")))
}
