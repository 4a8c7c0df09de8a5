//! Appends batches: one write and one fdatasync each.

use super::batch::{Batch, DISCARD_INDEX};
use super::error::WalError;
use super::frame::Op;
use super::segment::{self, Active, Sealed};
use super::spare::Spare;
use super::{Identity, WalOptions};
use crate::env::{Disk, DiskFile, create_zeroed, is_disk_full};
use crate::limits;
use crate::proto::node::{BatchCommit, HardState, WalRecord};
use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

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
    full: bool,
}

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
        let spare = Spare::start(disk.clone(), &dir, options)?;
        Ok(WalWriter {
            disk,
            dir,
            identity,
            options,
            active,
            sealed: Vec::new(),
            sequence: 0,
            hard_states: BTreeMap::new(),
            spare,
            full: false,
        })
    }

    /// Appends the batch and its commit record; with `sync` it is durable afterwards. The batch
    /// is left as it was, so that the same append can be repeated.
    ///
    /// # Errors
    /// `DiskFull` when there was no room: the log is as before. `Fatal` when the disk failed: the
    /// process must end, because a second fdatasync would not tell the truth.
    pub fn append(&mut self, batch: &mut Batch, sync: bool) -> Result<u64, WalError> {
        let appended = self.make_room(batch).and_then(|()| self.append_here(batch, sync));
        match &appended {
            Ok(_) => self.full = false,
            Err(WalError::DiskFull) => {
                self.full = true;
                self.spare.free_reserve();
            }
            Err(WalError::Fatal { .. }) => {}
        }
        appended
    }

    /// Goes on in a new segment where this one has no room for the batch.
    fn make_room(&mut self, batch: &Batch) -> Result<(), WalError> {
        let needed = batch.len() as u64 + COMMIT_BYTES_MAX;
        if self.active.position + needed <= self.active.ordinary_end() {
            return Ok(());
        }
        match self.rotate(needed) {
            // What makes this node a leader must not need space: it has to serve reads and
            // renewals also when it is started with a full disk.
            Err(WalError::DiskFull)
                if !batch.has_commands && self.active.position + needed <= self.active.capacity =>
            {
                Ok(())
            }
            rotated => rotated,
        }
    }

    fn append_here(&mut self, batch: &mut Batch, sync: bool) -> Result<u64, WalError> {
        let length = batch.frames.len();
        self.add_commit(batch);
        let written = self.active.file.write_at(&batch.frames, self.active.position);
        let bytes = batch.frames.len() as u64;
        batch.frames.truncate(length);
        self.active.unsynced = true;
        if let Err(source) = written {
            self.active.erase(bytes).map_err(|source| self.fatal(source))?;
            return Err(self.failed(source));
        }
        if sync {
            self.sync()?;
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

    fn sync(&mut self) -> Result<(), WalError> {
        // Whatever a failed sync says, trying again would lie: never `DiskFull` here.
        self.active.file.sync().map_err(|source| self.fatal(source))?;
        self.active.unsynced = false;
        Ok(())
    }

    fn fatal(&self, source: io::Error) -> WalError {
        WalError::Fatal { file: self.active.path.clone(), source }
    }

    fn failed(&self, source: io::Error) -> WalError {
        if is_disk_full(&source) { WalError::DiskFull } else { self.fatal(source) }
    }

    /// Goes on in a new segment, which begins with the newest hard state of every partition.
    fn rotate(&mut self, needed: u64) -> Result<(), WalError> {
        if self.active.unsynced {
            // In a segment that is not the last one, a torn tail would be damage.
            self.sync()?;
        }
        let number = self.active.number + 1;
        let header = segment::header(number, &self.identity, self.sequence);
        let mut states = Batch::new();
        for (partition, state) in &self.hard_states {
            states.whole_hard_state(*partition, *state);
        }
        let needed = needed + (header.len() + states.len()) as u64 + COMMIT_BYTES_MAX;
        let path = segment::path(&self.dir, number);
        let (file, capacity) = self.next_file(needed + segment::margin(needed))?;
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
        if let Err(source) = made {
            // It may have its name already; the log must not go on in two places.
            self.disk.remove(&path).map_err(|source| self.fatal(source))?;
            return Err(self.failed(source));
        }
        self.sequence = sequence;
        let position = first.len() as u64;
        let last_indexes = BTreeMap::new();
        let unsynced = false;
        let next = Active { number, path, file, capacity, position, unsynced, last_indexes };
        let done = std::mem::replace(&mut self.active, next);
        self.sealed.push(Sealed {
            path: done.path,
            bytes: done.capacity,
            last_indexes: done.last_indexes,
        });
        self.spare.prepare();
        Ok(())
    }

    /// The prepared file where it is large enough, else one made now: a small one where there is
    /// no room for a whole one, so that what shrinks the data can go on to the last.
    fn next_file(&mut self, needed: u64) -> Result<(Box<dyn DiskFile>, u64), WalError> {
        let prepared = self.spare.take();
        let whole = self.options.segment_bytes;
        if let Some(file) = prepared
            && needed <= whole
        {
            return Ok((file, whole));
        }
        loop {
            for capacity in [whole, whole.min(limits::WAL_SMALL_SEGMENT_BYTES)] {
                let capacity = capacity.max(needed);
                match create_zeroed(&*self.disk, &self.spare.path, capacity) {
                    Ok(file) => return Ok((file, capacity)),
                    Err(error) if is_disk_full(&error) => {}
                    Err(error) => return Err(self.fatal(error)),
                }
            }
            if !self.spare.free_reserve() {
                return Err(WalError::DiskFull);
            }
        }
    }

    /// Removes segments, oldest first, in which no partition needs anything from
    /// `keep_from(partition)` on. What fails is tried again the next time.
    pub fn release(&mut self, keep_from: &dyn Fn(u32) -> u64) -> io::Result<()> {
        while let Some(oldest) = self.sealed.first() {
            // Where the group is held again, or no file of it is left, nothing needs to be told
            // that it was let go before.
            let needed = |(partition, last): (&u32, &u64)| match *last {
                DISCARD_INDEX => keep_from(*partition) == 0,
                last => last >= keep_from(*partition),
            };
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

    /// Waits until the next segment is there, or couldn't be made: for simulations, in which
    /// nothing may depend on how fast a thread is.
    pub fn settle(&self) {
        self.spare.settle();
    }

    /// How much room there is; has the reserve and the next segment made again when there is
    /// plenty.
    pub fn disk_state(&mut self) -> DiskState {
        let Ok(free) = self.disk.free_bytes(&self.dir) else { return DiskState::Ok };
        let WalOptions { segment_bytes, reserve_bytes } = self.options;
        if reserve_bytes > 0 && free > reserve_bytes.saturating_mul(3) {
            self.spare.refill_reserve();
        }
        // The next segment must fit, and a snapshot beside it.
        let low = free < segment_bytes.saturating_mul(2);
        if !low {
            self.spare.prepare();
        }
        match (self.full, low) {
            (true, _) => DiskState::Full,
            (false, true) => DiskState::Low,
            (false, false) => DiskState::Ok,
        }
    }
}
