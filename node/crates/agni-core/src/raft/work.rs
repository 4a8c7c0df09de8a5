//! What the driver is asked to do, and what it answers.

use crate::proto::api::Capacity;
use crate::proto::node::Command;
use crate::snapshot::SnapshotMeta;
use crate::store::Outcome;

/// Names a waiting request. The engine hands it back with the answer and never looks inside.
pub type Ticket = u64;

/// What is asked of a partition.
#[derive(Debug)]
pub enum Work {
    /// Replicate and apply a command.
    Write(Command),
    /// Extend leases of this partition, with the load that their owners report.
    Renew(Vec<(u64, Option<Capacity>)>),
    /// Prove that this node leads; then what it has applied may be read as linearizable.
    Read,
    /// Take a snapshot now.
    Snapshot,
    /// Hand the leadership over to another voter.
    Transfer {
        /// Its node id.
        to: u64,
    },
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
