//! The time that leases count: it stands still while the node can't take renewals.

use crate::clock::Clock;
use crate::limits::STALL_US;
use crate::planted::{Bug, is_planted};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Acquire, Ordering::Release};

/// Time since boot, less the time in which the driver stood still: a process that was stopped, a
/// machine that was suspended. Owners could not renew meanwhile, so it must not count against
/// them; without this, whoever's renewal waits in a socket loses its lease when the node wakes up.
///
/// The driver calls `turn` many times a second. Readers are never ahead of its last turn by more
/// than `STALL_US`, so they can't see leases run out before the driver notices the stall.
pub struct LeaseClock {
    clock: Arc<dyn Clock>,
    turn_us: AtomicU64,
    stalled_us: AtomicU64,
}

impl LeaseClock {
    /// A clock whose driver has its first turn now.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        let turn_us = AtomicU64::new(clock.boot_us());
        LeaseClock { clock, turn_us, stalled_us: AtomicU64::new(0) }
    }

    /// The driver goes on. Answers how long it stood still, beyond what is usual.
    pub fn turn(&self) -> u64 {
        let now_us = self.clock.boot_us();
        let gap_us = now_us.saturating_sub(self.turn_us.load(Acquire));
        let stall_us = match is_planted(Bug::StallCountsAgainstLeases) {
            false => gap_us.saturating_sub(STALL_US),
            true => 0,
        };
        // In this order: a reader in between sees leases live a little longer, never shorter.
        self.stalled_us.fetch_add(stall_us, Release);
        self.turn_us.store(now_us, Release);
        stall_us
    }

    /// The time of leases, in milliseconds.
    pub fn lease_ms(&self) -> u64 {
        let turn_us = self.turn_us.load(Acquire);
        let now_us = self.clock.boot_us().min(turn_us + STALL_US);
        now_us.saturating_sub(self.stalled_us.load(Acquire)) / 1000
    }

    /// Time since boot, in microseconds.
    pub fn boot_us(&self) -> u64 {
        self.clock.boot_us()
    }

    /// Unix time in milliseconds: for people only.
    pub fn unix_ms(&self) -> i64 {
        self.clock.unix_ms()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Hand(AtomicU64);

    impl Clock for Hand {
        fn boot_us(&self) -> u64 {
            self.0.load(Acquire)
        }

        fn unix_ms(&self) -> i64 {
            0
        }
    }

    #[test]
    fn a_stall_does_not_count() {
        let hand = Arc::new(Hand(AtomicU64::new(10_000_000)));
        let clock = LeaseClock::new(hand.clone());
        hand.0.store(10_100_000, Release);
        assert_eq!((clock.turn(), clock.lease_ms()), (0, 10_100), "a usual turn");
        hand.0.store(22_100_000, Release);
        assert_eq!(clock.lease_ms(), 10_600, "readers wait for the driver");
        assert_eq!(clock.turn(), 11_500_000);
        assert_eq!(clock.lease_ms(), 10_600, "time goes on where readers saw it");
        hand.0.store(22_200_000, Release);
        assert_eq!(clock.lease_ms(), 10_700);
    }
}
