//! Bugs that the simulator must find, so that its silence means something. Without the feature
//! `planted-bugs`, which only the simulator's own tests turn on, none of this is compiled in.

/// A classic mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// Votes and acknowledgements leave before they are durable.
    PromiseBeforeSync,
    /// The clock-bound lease outlives a transfer of leadership.
    LeaseKeptOnTransfer,
    /// The clock-bound lease outlives a suspension in which the clock stood still.
    LeaseKeptInDoubt,
    /// A leader shows what it has applied, though more is committed and seen elsewhere.
    LeaseReadBeforeApply,
    /// A write is acknowledged when it is proposed.
    AcknowledgeBeforeQuorum,
    /// Whoever believes that something ran out has it removed by the leader, whose term it isn't
    /// checked against (etcd #15247).
    ExpiryWithoutProof,
    /// Time in which the process was stopped counts against leases.
    StallCountsAgainstLeases,
    /// A replica counts as new as its leader says before it has applied so far.
    AgeBeforeApply,
    /// A write is applied whatever revision it demanded.
    RevisionNotCompared,
    /// A replica that began with a snapshot claims to know every event, so that a watch which moves
    /// to it skips those before.
    WatchSkipsOnFailover,
    /// An event log that was cut answers what it has left, as if nothing were missing.
    WatchGapAtCompaction,
    /// A watch that goes on in an event log which doesn't reach back to the first change is told
    /// its last one again.
    WatchRepeatsOnResume,
    /// A replica that begins with a snapshot counts revisions on from the newest record in it,
    /// though removals had newer ones.
    RevisionReusedAfterSnapshot,
    /// The time of leases jumps with the wall clock.
    LeasesOnWallClock,
    /// A replica votes without regard to what it had before it let go of its group.
    VoteAfterLettingGo,
    /// Ticks that a voter missed before it heard its leader count towards the next election.
    OldTicksCount,
    /// A leader that takes over counts leases on, though it knows nothing of their renewals.
    TakeoverWithoutGrace,
    /// A replica that began with a snapshot doesn't know what was removed before.
    SnapshotForgetsRemovals,
    /// One node comes to another state than the others, once in each group, and nobody sees it.
    StateDiverges,
}

#[cfg(feature = "planted-bugs")]
mod switch {
    use super::Bug;
    use std::cell::Cell;

    thread_local! {
        static PLANTED: Cell<Option<Bug>> = const { Cell::new(None) };
    }

    /// Makes this thread's engines wrong.
    pub fn plant(bug: Option<Bug>) {
        PLANTED.set(bug);
    }

    pub(crate) fn is_planted(bug: Bug) -> bool {
        PLANTED.get() == Some(bug)
    }
}

#[cfg(feature = "planted-bugs")]
pub use switch::plant;

#[cfg(feature = "planted-bugs")]
pub(crate) use switch::is_planted;

#[cfg(not(feature = "planted-bugs"))]
pub(crate) const fn is_planted(_bug: Bug) -> bool {
    false
}
