//! Opens a log: streams what is durable, cuts a torn tail, refuses damage.

use super::batch::DISCARD_INDEX;
use super::error::RecoverError;
use super::frame::Op;
use super::scan::{End, Scan, later_batch, read_header, scan};
use super::segment::{self, Active, Sealed};
use super::writer::WalWriter;
use super::{Identity, WalOptions};
use crate::env::{Disk, DiskFile, RealDisk, create_zeroed, is_disk_full};
use crate::limits;
use crate::proto::node::{HardState, ReplicaSet, WalRecord};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A durable record, in the order in which it was written.
#[derive(Debug, Clone, PartialEq)]
pub enum Recovered<'a> {
    /// A Raft entry. One at or below an index that came before replaces the log from there.
    Entry {
        /// The partition.
        partition: u32,
        /// The entry's term.
        term: u64,
        /// The entry's index.
        index: u64,
        /// What it does.
        op: Op,
        /// The encoded command: a slice of the segment that was read.
        data: Bytes,
    },
    /// A hard state.
    HardState {
        /// The partition.
        partition: u32,
        /// The term.
        term: u64,
        /// The vote; 0 for none.
        vote: u64,
        /// The committed index.
        commit: u64,
        /// The term and index of the newest entry that the node had when it let go of the group.
        floor: (u64, u64),
    },
    /// A snapshot has become durable.
    SnapshotMark {
        /// The partition.
        partition: u32,
        /// The snapshot's index.
        index: u64,
        /// The term of that entry.
        term: u64,
        /// The file's name.
        file: &'a str,
        /// It came from the leader, and replaces what the log held until here.
        installed: bool,
    },
    /// Who votes in a group, from an index on.
    ReplicaSet {
        /// The partition.
        partition: u32,
        /// The index of the entry that made it so.
        index: u64,
        /// The term of that entry.
        term: u64,
        /// Who votes.
        replicas: ReplicaSet,
    },
    /// This node no longer holds the group: everything before is void, except its vote.
    Discard {
        /// The partition.
        partition: u32,
        /// What it had applied of it.
        index: u64,
    },
}

const REMEDY: &str = "restore the file from a copy, or wipe the data directory and join as a new \
                      member; nothing was changed";

/// Opens the log in `dir` on the real disk; see `recover_on`.
///
/// # Errors
/// See `recover_on`.
pub fn recover(
    dir: &Path,
    identity: &Identity,
    options: WalOptions,
    visit: &mut dyn FnMut(Recovered<'_>),
) -> Result<WalWriter, RecoverError> {
    recover_on(RealDisk::shared(), dir, identity, options, visit)
}

/// Opens the log in `dir`, making one if there is none, and hands every durable record to `visit`.
/// Bytes behind the last complete batch of the last segment are a torn append: they are kept in a
/// `.broken` file and cut.
///
/// # Errors
/// `Corrupt` for damage before the last batch, `Foreign` for somebody else's log, `Io`.
pub fn recover_on(
    disk: Arc<dyn Disk>,
    dir: &Path,
    identity: &Identity,
    options: WalOptions,
    visit: &mut dyn FnMut(Recovered<'_>),
) -> Result<WalWriter, RecoverError> {
    let mut recovery = Recovery {
        disk,
        dir: dir.to_path_buf(),
        identity: *identity,
        sequence: 0,
        hard_states: BTreeMap::new(),
        sealed: Vec::new(),
    };
    let numbers = recovery.segments()?;
    let mut active = None;
    for (position, number) in numbers.iter().enumerate() {
        let is_first = position == 0;
        let is_last = position + 1 == numbers.len();
        active = recovery.segment(*number, is_first, is_last, visit)?;
    }
    let active = match active {
        Some(active) => active,
        None => recovery.first_segment(options.segment_bytes)?,
    };
    let disk = recovery.disk;
    let mut writer = WalWriter::new(disk, recovery.dir, *identity, options, active)
        .map_err(|source| RecoverError::io(dir, source))?;
    writer.sealed = recovery.sealed;
    writer.sequence = recovery.sequence;
    writer.hard_states = recovery.hard_states;
    Ok(writer)
}

struct Recovery {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    identity: Identity,
    sequence: u64,
    hard_states: BTreeMap<u32, HardState>,
    sealed: Vec<Sealed>,
}

impl Recovery {
    /// The segments' numbers; leftovers of an earlier life are removed.
    fn segments(&self) -> Result<Vec<u64>, RecoverError> {
        let failed = |source| RecoverError::io(&self.dir, source);
        let mut numbers = Vec::new();
        for name in self.disk.list(&self.dir).map_err(failed)? {
            if name.ends_with(".tmp") {
                self.disk.remove(&self.dir.join(name)).map_err(failed)?;
            } else if let Some(number) = segment::number(&name) {
                numbers.push(number);
            }
        }
        for pair in numbers.windows(2) {
            if pair[1] != pair[0] + 1 {
                let file = segment::path(&self.dir, pair[0] + 1);
                return Err(corrupt(file, 0, "the segment is missing".into()));
            }
        }
        Ok(numbers)
    }

    fn first_segment(&self, bytes: u64) -> Result<Active, RecoverError> {
        let (temporary, path) = (self.dir.join("first.tmp"), segment::path(&self.dir, 1));
        let header = segment::header(1, &self.identity, 0);
        let position = header.len() as u64;
        let mut capacity = bytes.max(position);
        let mut file = create_zeroed(&*self.disk, &temporary, capacity);
        if file.as_ref().is_err_and(is_disk_full) {
            capacity = bytes.min(limits::WAL_SMALL_SEGMENT_BYTES).max(position);
            file = create_zeroed(&*self.disk, &temporary, capacity);
        }
        let made = file.and_then(|file| {
            file.write_at(&header, 0)?;
            file.sync()?;
            self.disk.rename(&temporary, &path)?;
            Ok(file)
        });
        let file = made.map_err(|source| RecoverError::io(&path, source))?;
        let (unsynced, last_indexes) = (false, BTreeMap::new());
        Ok(Active { number: 1, path, file, capacity, position, unsynced, last_indexes })
    }

    /// Reads one segment; the last one becomes the one that is appended to.
    fn segment(
        &mut self,
        number: u64,
        is_first: bool,
        is_last: bool,
        visit: &mut dyn FnMut(Recovered<'_>),
    ) -> Result<Option<Active>, RecoverError> {
        let path = segment::path(&self.dir, number);
        let failed = |source| RecoverError::io(&path, source);
        let buffer = Bytes::from(self.disk.read(&path).map_err(failed)?);
        // A segment gets its name only once its header is durable, so a bad one is damage.
        let (header, start) =
            read_header(&buffer).map_err(|reason| corrupt(path.clone(), 0, reason))?;
        self.check_owner(&path, &header)?;
        if header.segment != number {
            let reason = format!("its header says that it is segment {}", header.segment);
            return Err(corrupt(path, 0, reason));
        }
        if is_first {
            self.sequence = header.previous_sequence;
        } else if header.previous_sequence != self.sequence {
            let reason = format!(
                "it follows batch {}, but the segment before ends at batch {}",
                header.previous_sequence, self.sequence
            );
            return Err(corrupt(path, 0, reason));
        }
        let mut last_indexes = BTreeMap::new();
        let hard_states = &mut self.hard_states;
        let mut each = |records: Vec<(Op, WalRecord)>| {
            records.into_iter().try_for_each(|(op, record)| {
                recover_record(op, record, &mut last_indexes, hard_states, visit)
            })
        };
        let found = scan(&buffer, &self.identity, start, self.sequence, &mut each);
        self.sequence = found.sequence;
        if let End::Unknown { offset, reason } = found.outcome {
            let message = format!(
                "offset {offset}: {reason}; a newer version wrote it: start that version again; \
                 nothing was changed"
            );
            return Err(RecoverError::Foreign { file: path, message });
        }
        if !is_last {
            if let End::Broken { offset, reason } = found.outcome {
                return Err(corrupt(path, offset as u64, reason));
            }
            self.sealed.push(Sealed { path, bytes: buffer.len() as u64, last_indexes });
            return Ok(None);
        }
        let file = self.disk.open(&path).map_err(failed)?;
        let (capacity, position) = (buffer.len() as u64, found.end as u64);
        let unsynced = false;
        let mut active = Active { number, path, file, capacity, position, unsynced, last_indexes };
        self.cut_torn_tail(&mut active, &buffer, &found)?;
        Ok(Some(active))
    }

    fn check_owner(
        &self,
        path: &Path,
        header: &crate::proto::node::SegmentHeader,
    ) -> Result<(), RecoverError> {
        let own = header.cluster_id[..] == self.identity.cluster_id
            && header.node_id == self.identity.node_id
            && header.salt == self.identity.salt;
        if own {
            return Ok(());
        }
        let message = format!(
            "the log belongs to node {:016x} of another data directory; put back the directory's \
             own files",
            header.node_id
        );
        Err(RecoverError::Foreign { file: path.to_path_buf(), message })
    }

    fn cut_torn_tail(
        &self,
        active: &mut Active,
        buffer: &Bytes,
        found: &Scan,
    ) -> Result<(), RecoverError> {
        let End::Broken { offset, reason } = &found.outcome else { return Ok(()) };
        if let Some(later) = later_batch(buffer, &self.identity, found.end, found.sequence) {
            let reason = format!("{reason}; batch {later} after it is intact");
            return Err(corrupt(active.path.clone(), *offset as u64, reason));
        }
        let tail = &buffer[found.end..];
        let used = tail.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        let copy = self.keep_aside(&active.path, found.end, &tail[..used])?;
        // Stale bytes behind the next batch would look like damage later.
        let cut = active.erase(used as u64).and_then(|()| active.file.sync());
        cut.map_err(|source| RecoverError::io(&active.path, source))?;
        active.unsynced = false;
        let kept = match copy {
            Some(name) => format!("kept in {name}"),
            None => "not kept, since the disk is full".into(),
        };
        crate::fatal::warn(
            &format!("the last append was torn; its {used} bytes were cut and {kept}"),
            reason,
        );
        Ok(())
    }

    /// Copies a torn tail to a file of its own and answers its name; none when the disk is full:
    /// nobody was told that the tail had been written, so it is no reason not to start.
    fn keep_aside(
        &self,
        path: &Path,
        offset: usize,
        tail: &[u8],
    ) -> Result<Option<String>, RecoverError> {
        let name = format!("{}.{offset}.broken", path.display());
        let (copy, temporary) = (Path::new(&name), self.dir.join("broken.tmp"));
        let write = |file: Box<dyn DiskFile>| {
            file.write_at(tail, 0)?;
            file.sync()?;
            self.disk.rename(&temporary, copy)
        };
        match self.disk.create(&temporary).and_then(write) {
            Ok(()) => Ok(Some(name)),
            Err(source) if is_disk_full(&source) => {
                let removed = self.disk.remove(&temporary);
                removed.map_err(|source| RecoverError::io(&temporary, source))?;
                Ok(None)
            }
            Err(source) => Err(RecoverError::io(copy, source)),
        }
    }
}

fn recover_record(
    op: Op,
    record: WalRecord,
    last_indexes: &mut BTreeMap<u32, u64>,
    hard_states: &mut BTreeMap<u32, HardState>,
    visit: &mut dyn FnMut(Recovered<'_>),
) -> Result<(), String> {
    let WalRecord { partition, term, index, data, .. } = record;
    match op {
        Op::HardState => {
            let state = record.hard_state.ok_or("a hard state is empty")?;
            hard_states.insert(partition, state);
            let HardState { term, vote, commit, floor_index, floor_term } = state;
            let floor = (floor_term, floor_index);
            visit(Recovered::HardState { partition, term, vote, commit, floor });
        }
        Op::SnapshotMark => {
            let file = &record.snapshot_file;
            let installed = record.installed;
            visit(Recovered::SnapshotMark { partition, index, term, file, installed });
        }
        Op::ReplicaSet => {
            last_indexes.insert(partition, index);
            let replicas = record.replicas.ok_or("a replica set is empty")?;
            visit(Recovered::ReplicaSet { partition, index, term, replicas });
        }
        Op::Discard => {
            last_indexes.insert(partition, DISCARD_INDEX);
            visit(Recovered::Discard { partition, index });
        }
        entry => {
            last_indexes.insert(partition, index);
            visit(Recovered::Entry { partition, term, index, op: entry, data });
        }
    }
    Ok(())
}

fn corrupt(file: PathBuf, offset: u64, reason: String) -> RecoverError {
    RecoverError::Corrupt { file, offset, reason, remedy: REMEDY.into() }
}
