//! What the driver of a partition and its readers share.

use crate::planted::{Bug, is_planted};
use crate::store::Store;
use parking_lot::{Mutex, RwLock, RwLockReadGuard};
use std::sync::atomic::Ordering::{Acquire, Relaxed};
use std::sync::atomic::{AtomicBool, AtomicU64};

/// Another replica, as the leader sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Follower {
    /// The node that holds it.
    pub node_id: u64,
    /// Entries of the leader's log that it isn't known to have.
    pub behind: u64,
    /// Whether it was heard of lately.
    pub is_alive: bool,
}

/// What the driver shares with readers of one partition.
pub struct PartitionCell {
    /// The partition's state. The driver holds the write lock only while it applies.
    pub store: RwLock<Store>,
    /// The Raft term.
    pub term: AtomicU64,
    /// The leader; 0 when unknown.
    pub leader: AtomicU64,
    /// The newest committed index, from before anybody else is told of it.
    pub commit: AtomicU64,
    /// The newest snapshot's index.
    pub snapshot_index: AtomicU64,
    /// Whether this node holds a replica at all.
    pub is_held: AtomicBool,
    /// Whether this node leads and has applied an entry of its own term, and so all that was
    /// acknowledged before.
    pub is_current: AtomicBool,
    /// Until when this node can be sure that nobody else leads, in microseconds since boot: the
    /// clock-bound lease. 0 without one; `u64::MAX` where it is the only voter, because a
    /// ReadIndex round has nobody to ask then.
    pub leads_until_us: AtomicU64,
    /// When everything was complete at the leader that is applied here at least, in microseconds
    /// since boot; 0 before that is known. How old a stale read is counts from here.
    pub complete_at_us: AtomicU64,
    /// Somebody has made use of that, so it is worth renewing often.
    pub age_is_used: AtomicBool,
    /// Somebody has made use of the lease, so it is worth prolonging.
    pub lease_is_used: AtomicBool,
    /// Who votes, as far as it is applied here; while two sets overlap, both.
    pub voters: Mutex<Vec<u64>>,
    /// The other replicas where this node leads, looked at once a tick; empty elsewhere.
    pub followers: Mutex<Vec<Follower>>,
}

impl PartitionCell {
    /// A cell around a recovered store.
    pub fn new(store: Store) -> Self {
        PartitionCell {
            store: RwLock::new(store),
            term: AtomicU64::new(0),
            leader: AtomicU64::new(0),
            commit: AtomicU64::new(0),
            snapshot_index: AtomicU64::new(0),
            is_held: AtomicBool::new(false),
            is_current: AtomicBool::new(false),
            leads_until_us: AtomicU64::new(0),
            complete_at_us: AtomicU64::new(0),
            age_is_used: AtomicBool::new(false),
            lease_is_used: AtomicBool::new(false),
            voters: Mutex::default(),
            followers: Mutex::default(),
        }
    }

    /// Whether this node leads beyond doubt at `now_us` and has applied all that was acknowledged.
    fn leads_for_certain(&self, now_us: u64) -> bool {
        self.is_current.load(Relaxed) && now_us < self.leads_until_us.load(Relaxed)
    }

    /// The state, where it can be read at once as the leader's. A quorum of others may have made
    /// an entry durable before this node has: it is committed then, and seen elsewhere, but not
    /// applied here. Whoever has seen it must not be shown a state without it.
    pub fn read_as_leader(&self, now_us: u64) -> Option<RwLockReadGuard<'_, Store>> {
        let committed = self.commit.load(Acquire);
        if !self.leads_for_certain(now_us) {
            return None;
        }
        let store = self.store.read();
        let is_complete = store.applied().0 >= committed || self.leads_alone();
        (is_complete || is_planted(Bug::LeaseReadBeforeApply)).then_some(store)
    }

    /// How old the state is at most, in microseconds; none when that isn't known.
    pub fn age_us(&self, now_us: u64) -> Option<u64> {
        let known_us = self.complete_at_us.load(Relaxed);
        (known_us > 0).then(|| now_us.saturating_sub(known_us))
    }

    /// The same for ever: it is the only voter.
    pub fn leads_alone(&self) -> bool {
        self.is_current.load(Relaxed) && self.leads_until_us.load(Relaxed) == u64::MAX
    }
}
