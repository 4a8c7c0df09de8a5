//! Appends batches: one write and one fdatasync each.

use super::batch::Batch;
use super::error::WalError;
use super::frame::Op;
use super::segment::{self, Active, Sealed};
use super::{Identity, WalOptions};
use crate::env::{Disk, DiskFile, is_disk_full};
use crate::proto::node::{BatchCommit, HardState, WalRecord};
use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

/// How much room there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskState {
    /// Enough.
    Ok,
    /// So little that what grows is refused, to keep what shrinks possible.
    Low,
    /// None: an append was refused.
    Full,
}

/// The log's end.
pub struct WalWriter {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) dir: PathBuf,
    pub(super) identity: Identity,
    pub(super) options: WalOptions,
    pub(super) active: Active,
    pub(super) sealed: Vec<Sealed>,
    /// The sequence of the newest batch.
    pub(super) sequence: u64,
    /// The newest hard state of each partition: written again at the start of each segment, so
    /// that older ones may go.
    pub(super) hard_states: BTreeMap<u32, HardState>,
    spare: Spare,
    has_reserve: bool,
    full: bool,
}

/// The file that is given up when the disk is full.
const RESERVE: &str = "reserve";

/// More than a commit record's frame ever takes.
const COMMIT_BYTES_MAX: u64 = 64;

impl WalWriter {
    pub(super) fn new(
        disk: Arc<dyn Disk>,
        dir: PathBuf,
        identity: Identity,
        options: WalOptions,
        active: Active,
    ) -> io::Result<Self> {
        let spare = Spare::start(disk.clone(), dir.join("next.tmp"), options.segment_bytes)?;
        let mut writer = WalWriter {
            disk,
            dir,
            identity,
            options,
            active,
            sealed: Vec::new(),
            sequence: 0,
            hard_states: BTreeMap::new(),
            spare,
            has_reserve: false,
            full: false,
        };
        writer.refill_reserve();
        Ok(writer)
    }

    /// Appends the batch and its commit record; with `sync` it is durable afterwards. The batch
    /// is left as it was, so that the same append can be repeated.
    ///
    /// # Errors
    /// `DiskFull` when there was no room: the log is as before. `Fatal` when the disk failed: the
    /// process must end, because a second fdatasync would not tell the truth.
    pub fn append(&mut self, batch: &mut Batch, sync: bool) -> Result<u64, WalError> {
        let needed = batch.len() as u64 + COMMIT_BYTES_MAX;
        let fits = self.active.position + needed <= self.active.capacity;
        let appended = match fits {
            true => Ok(()),
            false => self.rotate(needed),
        }
        .and_then(|()| self.append_here(batch, sync));
        match &appended {
            Ok(_) => self.full = false,
            Err(WalError::DiskFull) => {
                self.full = true;
                self.free_reserve();
            }
            Err(WalError::Fatal { .. }) => {}
        }
        appended
    }

    fn append_here(&mut self, batch: &mut Batch, sync: bool) -> Result<u64, WalError> {
        let length = batch.frames.len();
        self.add_commit(batch);
        let written = self.active.file.write_at(&batch.frames, self.active.position);
        let bytes = batch.frames.len() as u64;
        batch.frames.truncate(length);
        if let Err(source) = written {
            self.erase(bytes)?;
            return Err(self.failed(source));
        }
        if sync {
            // Whatever a failed sync says, trying again would lie: never `DiskFull` here.
            self.active.file.sync().map_err(|source| self.fatal(source))?;
        }
        self.active.position += bytes;
        self.sequence += 1;
        for (partition, index) in &batch.last_indexes {
            self.active.last_indexes.insert(*partition, *index);
        }
        for (partition, hard_state) in &batch.hard_states {
            self.hard_states.insert(*partition, *hard_state);
        }
        Ok(self.sequence)
    }

    fn add_commit(&self, batch: &mut Batch) {
        let commit = BatchCommit {
            sequence: self.sequence + 1,
            length: batch.frames.len() as u64,
            crc32: self.identity.batch_crc32(&batch.frames),
        };
        let record = WalRecord { batch_commit: Some(commit), ..WalRecord::default() };
        batch.record(Op::BatchCommit, &record);
    }

    /// Zeroes what a failed write may have left behind: under a shorter batch, written later, it
    /// would look like damage.
    fn erase(&mut self, bytes: u64) -> Result<(), WalError> {
        let zeros = vec![0; bytes as usize];
        self.active.file.write_at(&zeros, self.active.position).map_err(|source| self.fatal(source))
    }

    fn fatal(&self, source: io::Error) -> WalError {
        WalError::Fatal { file: self.active.path.clone(), source }
    }

    fn failed(&self, source: io::Error) -> WalError {
        if is_disk_full(&source) { WalError::DiskFull } else { self.fatal(source) }
    }

    /// Goes on in a new segment, which begins with the newest hard state of every partition.
    fn rotate(&mut self, needed: u64) -> Result<(), WalError> {
        let number = self.active.number + 1;
        let header = segment::header(number, &self.identity, self.sequence);
        let mut states = Batch::new();
        for (partition, state) in &self.hard_states {
            states.hard_state(*partition, state.term, state.vote, state.commit);
        }
        let own = (header.len() + states.len()) as u64 + COMMIT_BYTES_MAX;
        let path = segment::path(&self.dir, number);
        let (file, capacity) = self.next_file(needed + own)?;
        let mut first = header;
        let sequence = self.sequence + u64::from(!states.is_empty());
        if !states.is_empty() {
            self.add_commit(&mut states);
            first.extend_from_slice(&states.frames);
        }
        // Under its temporary name until this is durable: a segment always has its header, and
        // every partition's vote, before an older one may go.
        let made = file.write_at(&first, 0).and_then(|()| file.sync());
        let made = made.and_then(|()| self.disk.rename(&self.spare.path, &path));
        made.map_err(|source| self.failed(source))?;
        self.sequence = sequence;
        let position = first.len() as u64;
        let last_indexes = BTreeMap::new();
        let next = Active { number, path, file, capacity, position, last_indexes };
        let done = std::mem::replace(&mut self.active, next);
        self.sealed.push(Sealed {
            path: done.path,
            bytes: done.capacity,
            last_indexes: done.last_indexes,
        });
        self.spare.prepare();
        Ok(())
    }

    /// The prepared file where it is large enough, else one made now.
    fn next_file(&mut self, needed: u64) -> Result<(Box<dyn DiskFile>, u64), WalError> {
        let prepared = self.spare.take();
        if let Some(file) = prepared
            && needed <= self.options.segment_bytes
        {
            return Ok((file, self.options.segment_bytes));
        }
        let capacity = needed.max(self.options.segment_bytes);
        let mut made = self.disk.create_zeroed(&self.spare.path, capacity);
        if made.as_ref().is_err_and(is_disk_full) && self.free_reserve() {
            made = self.disk.create_zeroed(&self.spare.path, capacity);
        }
        made.map(|file| (file, capacity)).map_err(|source| self.failed(source))
    }

    /// Removes segments, oldest first, in which no partition needs anything from
    /// `keep_from(partition)` on. What fails is tried again the next time.
    pub fn release(&mut self, keep_from: &dyn Fn(u32) -> u64) -> io::Result<()> {
        while let Some(oldest) = self.sealed.first() {
            let needed = |(partition, last): (&u32, &u64)| *last >= keep_from(*partition);
            if oldest.last_indexes.iter().any(needed) {
                break;
            }
            self.disk.remove(&oldest.path)?;
            self.sealed.remove(0);
        }
        Ok(())
    }

    /// Bytes of all segments.
    pub fn bytes_on_disk(&self) -> u64 {
        self.active.capacity + self.sealed.iter().map(|segment| segment.bytes).sum::<u64>()
    }

    /// How many segments there are.
    pub fn segments(&self) -> usize {
        self.sealed.len() + 1
    }

    /// The newest batch's sequence.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// How much room there is; makes the reserve again when there is plenty.
    pub fn disk_state(&mut self) -> DiskState {
        let Ok(free) = self.disk.free_bytes(&self.dir) else { return DiskState::Ok };
        if free > self.options.reserve_bytes.saturating_mul(3) {
            self.refill_reserve();
        }
        // The next segment must fit, and a snapshot beside it.
        let low = free < self.options.segment_bytes.saturating_mul(2);
        match (self.full, low) {
            (true, _) => DiskState::Full,
            (false, true) => DiskState::Low,
            (false, false) => DiskState::Ok,
        }
    }

    fn refill_reserve(&mut self) {
        if self.has_reserve || self.options.reserve_bytes == 0 {
            return;
        }
        let path = self.dir.join(RESERVE);
        // One that an earlier life left is as good: writing it anew would delay the start.
        if self.disk.size(&path).is_ok_and(|size| size == Some(self.options.reserve_bytes)) {
            self.has_reserve = true;
            return;
        }
        self.has_reserve = self.disk.create_zeroed(&path, self.options.reserve_bytes).is_ok();
    }

    fn free_reserve(&mut self) -> bool {
        let had = std::mem::take(&mut self.has_reserve);
        had && self.disk.remove(&self.dir.join(RESERVE)).is_ok()
    }
}

/// A file of zeros made in advance, off the path of requests.
struct Spare {
    path: PathBuf,
    order: Option<SyncSender<()>>,
    made: Receiver<io::Result<Box<dyn DiskFile>>>,
    under_way: bool,
    thread: Option<JoinHandle<()>>,
}

impl Spare {
    fn start(disk: Arc<dyn Disk>, path: PathBuf, bytes: u64) -> io::Result<Self> {
        let (order, orders) = sync_channel::<()>(1);
        let (sender, made) = sync_channel(1);
        let target = path.clone();
        let thread =
            std::thread::Builder::new().name("agni-log-spare".into()).spawn(move || {
                while orders.recv().is_ok() {
                    if sender.send(disk.create_zeroed(&target, bytes)).is_err() {
                        return;
                    }
                }
            })?;
        let order = Some(order);
        let mut spare = Spare { path, order, made, under_way: false, thread: Some(thread) };
        spare.prepare();
        Ok(spare)
    }

    fn prepare(&mut self) {
        let Some(order) = &self.order else { return };
        self.under_way = order.try_send(()).is_ok();
    }

    /// Waits for the file under way: making a second one would not be faster.
    fn take(&mut self) -> Option<Box<dyn DiskFile>> {
        if !std::mem::take(&mut self.under_way) {
            return None;
        }
        self.made.recv().ok()?.ok()
    }
}

impl Drop for Spare {
    fn drop(&mut self) {
        self.order = None;
        if let Some(thread) = self.thread.take() {
            // It ends after the file that it is making.
            let _ = thread.join();
        }
    }
}
