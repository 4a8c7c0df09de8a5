//! What the driver is asked to do, and what it answers.

use crate::limits;
use crate::proto::api::Capacity;
use crate::proto::node::Command;
use crate::proto::node::command::Operation;
use crate::snapshot::SnapshotMeta;
use crate::store::Outcome;

/// Names a waiting request. The engine hands it back with the answer and never looks inside.
pub type Ticket = u64;

/// What comes first where not everything can be done. Each may fill a queue up to its own mark, so
/// that what stands lower never takes the room of what stands higher.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// What many records are read for: lists, discoveries, backups.
    Many,
    /// What a watch begins, resumes or catches up with.
    Watch,
    /// Registrations, changes, and reads of one record.
    Register,
    /// What takes a record away, or announces it.
    Deregister,
    /// What keeps the living alive, and what the cluster needs to be led.
    Renew,
}

impl Priority {
    /// How much of a queue with this limit it may fill; one at least.
    pub fn mark(self, limit: usize) -> usize {
        let percent = match self {
            Priority::Renew => 100,
            Priority::Deregister => limits::DEREGISTER_MARK_PERCENT,
            Priority::Register => limits::REGISTER_MARK_PERCENT,
            Priority::Watch => limits::WATCH_MARK_PERCENT,
            Priority::Many => limits::MANY_MARK_PERCENT,
        };
        (limit * percent / 100).max(1)
    }
}

/// What is asked of a partition.
#[derive(Debug)]
pub enum Work {
    /// Replicate and apply a command.
    Write(Command),
    /// Extend leases of this partition, with the load that their owners report.
    Renew(Vec<(u64, Option<Capacity>)>),
    /// Prove that this node leads; then what it has applied may be read as linearizable. How
    /// urgent that is depends on what is read.
    Read(Priority),
    /// Take a snapshot now.
    Snapshot,
    /// Hand the leadership over to another voter.
    Transfer {
        /// Its node id.
        to: u64,
    },
}

impl Work {
    /// What it comes before and after.
    pub fn priority(&self) -> Priority {
        match self {
            Work::Renew(_) | Work::Snapshot | Work::Transfer { .. } => Priority::Renew,
            Work::Read(priority) => *priority,
            Work::Write(command) => match command.operation {
                Some(Operation::Delete(_) | Operation::Drain(_)) => Priority::Deregister,
                Some(Operation::System(_)) => Priority::Renew,
                _ => Priority::Register,
            },
        }
    }
}

/// One request to the driver.
#[derive(Debug)]
pub struct Submission {
    /// Who waits for the answer.
    pub ticket: Ticket,
    /// The partition that is asked.
    pub partition: u32,
    /// What it is asked.
    pub work: Work,
}

/// What came of a submission.
#[derive(Debug, Clone)]
pub enum Answer {
    /// The command is durable and applied.
    Written {
        /// What it did.
        outcome: Outcome,
        /// The term in which it was committed.
        term: u64,
        /// The partition's revision after it.
        store_revision: u64,
        /// When to renew a lease that it granted, in milliseconds; 0 without one.
        next_renewal_ms: i64,
    },
    /// The leases were looked at.
    Renewed {
        /// How many were extended.
        renewed: u32,
        /// Those that are gone.
        lost: Vec<u64>,
        /// When to renew next, in milliseconds.
        next_renewal_ms: i64,
    },
    /// A read that begins now is linearizable.
    Readable,
    /// The transfer has begun; the term ends with it, or it is given up after one election timeout.
    Transferring,
    /// The snapshot is durable.
    Snapshot(SnapshotMeta),
    /// The snapshot could not be written.
    SnapshotFailed(String),
    /// Nothing was done.
    Refused(Refuse),
}

/// Why nothing was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refuse {
    /// A queue is full.
    Overloaded {
        /// When to try again, in milliseconds.
        retry_ms: u64,
    },
    /// The disk is full: nothing that grows is accepted.
    DiskFull,
    /// Another node leads the partition, or nobody does.
    NotLeader {
        /// The leader as far as known; 0 when unknown.
        leader: u64,
    },
    /// The leadership was lost on the way: it may have been done, and may yet be.
    Unknown {
        /// The leader as far as known; 0 when unknown.
        leader: u64,
    },
    /// The node named is no other voter of the partition.
    NotVoter,
    /// The node named should not lead at present: its disk is full or slow.
    Unfit,
    /// The node is stopping.
    ShuttingDown,
    /// The node has not caught up yet.
    NotReady,
    /// Only a quorum round can vouch for it: submit `Work::Read`, then read `Freshness::Local`.
    RoundNeeded,
    /// What this node has is older than was asked for.
    StalenessExceeded,
}

/// A Raft message between the replicas of a partition.
#[derive(Debug, Clone, PartialEq)]
pub struct PeerMessage {
    /// The partition.
    pub partition: u32,
    /// The message; it names who sends it to whom.
    pub message: raft::eraftpb::Message,
    /// Whether its sender should not lead at present, for its disk.
    pub sender_is_unfit: bool,
}

/// A snapshot that a follower needs.
#[derive(Debug, Clone, PartialEq)]
pub struct SnapshotTransfer {
    /// The group.
    pub partition: u32,
    /// The follower.
    pub to: u64,
    /// What announces it; its data is the file.
    pub message: raft::eraftpb::Message,
    /// The file's name below `snapshots/`.
    pub file: String,
}

/// Where the driver puts its answers: once a turn, not once a request.
pub trait Deliver: Send {
    /// Takes the answers of one turn; leaves `answers` empty.
    fn answers(&mut self, answers: &mut Vec<(Ticket, Answer)>);
    /// Says which partitions have new revisions; at most once a turn.
    fn changed(&mut self, partitions: &[u32]);
}
