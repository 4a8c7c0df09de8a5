//! When snapshots are taken, and what becomes of them. One is written at a time.

use crate::limits;
use crate::proto::node::SnapshotHeader;
use crate::raft::core::{Core, Effects};
use crate::raft::group::Leftovers;
use crate::raft::replicas;
use crate::raft::work::{Answer, Refuse, Ticket};
use crate::snapshot::SnapshotMeta;
use crate::store::SnapshotCursor;
use crate::wal::SnapshotMark;
use std::collections::VecDeque;
use std::sync::atomic::Ordering::Relaxed;

/// How a snapshot ended.
pub struct SnapshotDone {
    /// What it was to be of.
    pub header: SnapshotHeader,
    /// The cursor, to be closed.
    pub cursor: SnapshotCursor,
    /// Who asked for it, if anybody did.
    pub ticket: Option<Ticket>,
    /// The file, or why there is none.
    pub result: Result<SnapshotMeta, String>,
}

/// A snapshot to be written by a thread of its own.
pub struct SnapshotJob {
    /// Where the copy begins.
    pub cursor: SnapshotCursor,
    /// What it is of.
    pub header: SnapshotHeader,
    /// Who asked for it, if anybody did.
    pub ticket: Option<Ticket>,
}

/// Snapshots that are to be taken.
#[derive(Default)]
pub(super) struct SnapshotQueue {
    log_bytes_since_round: u64,
    is_running: bool,
    /// Positions of groups, and who asked.
    waiting: VecDeque<(usize, Option<Ticket>)>,
}

impl SnapshotQueue {
    fn ask(&mut self, position: usize) {
        if !self.waiting.iter().any(|(waiting, _)| *waiting == position) {
            self.waiting.push_back((position, None));
        }
    }
}

impl Core {
    /// The log grew; enough of it starts a round of snapshots of everything that changed.
    pub(super) fn log_grew(&mut self, bytes: u64) {
        self.snapshots.log_bytes_since_round += bytes;
        if self.snapshots.log_bytes_since_round < self.settings.snapshot_wal_bytes {
            return;
        }
        self.snapshots.log_bytes_since_round = 0;
        for (position, group) in self.groups.iter().enumerate() {
            if group.applied() > group.snapshots.0 {
                self.snapshots.ask(position);
            }
        }
    }

    pub(super) fn queue_snapshot(&mut self, position: usize, ticket: Ticket) -> Result<(), Refuse> {
        let asked = self.snapshots.waiting.iter().filter(|(_, ticket)| ticket.is_some()).count();
        if asked >= limits::SNAPSHOT_REQUESTS_MAX.max(self.groups.len()) {
            return Err(Refuse::Overloaded { retry_ms: limits::OVERLOAD_RETRY_MS });
        }
        self.snapshots.waiting.push_back((position, Some(ticket)));
        Ok(())
    }

    pub(super) fn start_snapshot(&mut self, effects: &mut Effects) {
        for (position, group) in self.groups.iter().enumerate() {
            // A follower needs one that reaches further than what there is.
            if group.take_snapshot_wanted() {
                self.snapshots.ask(position);
            }
        }
        if self.snapshots.is_running {
            return;
        }
        let Some((position, ticket)) = self.snapshots.waiting.pop_front() else { return };
        let group = &self.groups[position];
        if group.is_blank() {
            let none = "this node holds no replica of the partition".to_owned();
            let failed = ticket.map(|ticket| (ticket, Answer::SnapshotFailed(none)));
            self.turn.answers.extend(failed);
            return;
        }
        self.snapshots.is_running = true;
        let mut store = group.cell().store.write();
        let cursor = store.begin_snapshot();
        drop(store);
        let header = cursor.header(self.settings.cluster_id, group.replicas());
        effects.snapshot = Some(SnapshotJob { cursor, header, ticket });
    }

    pub(super) fn snapshot_done(&mut self, done: SnapshotDone) {
        self.snapshots.is_running = false;
        let SnapshotDone { header, cursor, ticket, result } = done;
        let Some(group) = self.group(header.partition) else { return };
        group.cell().store.write().end_snapshot(cursor);
        let meta = match result {
            Ok(meta) => meta,
            Err(message) => {
                self.metrics.snapshots_failed.fetch_add(1, Relaxed);
                let failed = ticket.map(|ticket| (ticket, Answer::SnapshotFailed(message)));
                self.turn.answers.extend(failed);
                return;
            }
        };
        let set = header.replicas.unwrap_or_default();
        let state = replicas::conf_state(&set);
        group.snapshot_taken(meta.index, meta.term, meta.file.clone(), state);
        let mark = SnapshotMark {
            index: meta.index,
            term: meta.term,
            file: meta.file.clone(),
            replicas: set,
            installed: false,
        };
        self.metrics.snapshots.fetch_add(1, Relaxed);
        self.turn.batch.snapshot_mark(header.partition, mark);
        self.turn.sync = true;
        self.marks.push(ticket.map(|ticket| (ticket, Answer::Snapshot(meta))));
    }

    /// No file of a group that was let go is left, so its part of the log may go, too.
    pub(super) fn forgotten(&mut self, partition: u32) {
        if let Some(group) = self.group(partition) {
            group.leftovers = Leftovers::Gone;
        }
    }
}
