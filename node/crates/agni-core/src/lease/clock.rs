//! The time that leases count: it stands still while the node can't take renewals.

use crate::clock::Clock;
use crate::limits::{DOUBTFUL_GAP_US, STALL_US, WALL_JUMP_MS};
use crate::planted::{Bug, is_planted};
use std::sync::Arc;
use std::sync::atomic::{
    AtomicI64, AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::Release,
};

/// What time did between two turns of the driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    /// How long the driver stood still, beyond what is usual, in microseconds.
    pub stalled_us: u64,
    /// Whether more time may have passed than the time since boot says: it was a long gap, or the
    /// wall clock went another way.
    pub is_doubtful: bool,
}

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
    /// How far the wall clock was ahead of the time since boot, in milliseconds.
    wall_ahead_ms: AtomicI64,
    /// The same at the first turn. Leases don't look at it; a planted bug does.
    first_ahead_ms: i64,
}

impl LeaseClock {
    /// A clock whose driver has its first turn now.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        let now_us = clock.boot_us();
        let first_ahead_ms = wall_ahead_ms(&*clock, now_us);
        LeaseClock {
            turn_us: AtomicU64::new(now_us),
            stalled_us: AtomicU64::new(0),
            wall_ahead_ms: AtomicI64::new(first_ahead_ms),
            first_ahead_ms,
            clock,
        }
    }

    /// The driver goes on. Answers what time did since its last turn.
    pub fn turn(&self) -> Gap {
        let now_us = self.clock.boot_us();
        let wall_ahead_ms = wall_ahead_ms(&*self.clock, now_us);
        let was_ahead_ms = self.wall_ahead_ms.swap(wall_ahead_ms, Relaxed);
        let gap_us = now_us.saturating_sub(self.turn_us.load(Acquire));
        let jumped = wall_ahead_ms.abs_diff(was_ahead_ms) > WALL_JUMP_MS;
        let stalled_us = match is_planted(Bug::StallCountsAgainstLeases) {
            false => gap_us.saturating_sub(STALL_US),
            true => 0,
        };
        // In this order: a reader in between sees leases live a little longer, never shorter.
        self.stalled_us.fetch_add(stalled_us, Release);
        self.turn_us.store(now_us, Release);
        Gap { stalled_us, is_doubtful: jumped || gap_us > DOUBTFUL_GAP_US }
    }

    /// The time of leases, in milliseconds.
    pub fn lease_ms(&self) -> u64 {
        let turn_us = self.turn_us.load(Acquire);
        let now_us = self.clock.boot_us().min(turn_us + STALL_US);
        let lease_ms = now_us.saturating_sub(self.stalled_us.load(Acquire)) / 1000;
        match is_planted(Bug::LeasesOnWallClock) {
            false => lease_ms,
            true => {
                let jumped_ms = self.wall_ahead_ms.load(Relaxed) - self.first_ahead_ms;
                lease_ms.saturating_add_signed(jumped_ms)
            }
        }
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

fn wall_ahead_ms(clock: &dyn Clock, boot_us: u64) -> i64 {
    clock.unix_ms() - (boot_us / 1000) as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The time since boot, and how far the wall clock is ahead of it.
    struct Hand(AtomicU64, AtomicI64);

    impl Clock for Hand {
        fn boot_us(&self) -> u64 {
            self.0.load(Acquire)
        }

        fn unix_ms(&self) -> i64 {
            (self.boot_us() / 1000) as i64 + self.1.load(Acquire)
        }
    }

    #[test]
    fn a_stall_does_not_count() {
        let hand = Arc::new(Hand(AtomicU64::new(10_000_000), AtomicI64::new(0)));
        let clock = LeaseClock::new(hand.clone());
        hand.0.store(10_100_000, Release);
        let usual = Gap { stalled_us: 0, is_doubtful: false };
        assert_eq!((clock.turn(), clock.lease_ms()), (usual, 10_100), "a usual turn");
        hand.0.store(22_100_000, Release);
        assert_eq!(clock.lease_ms(), 10_600, "readers wait for the driver");
        assert_eq!(clock.turn(), Gap { stalled_us: 11_500_000, is_doubtful: true });
        assert_eq!(clock.lease_ms(), 10_600, "time goes on where readers saw it");
        hand.0.store(22_200_000, Release);
        assert_eq!(clock.lease_ms(), 10_700);
    }

    #[test]
    fn a_wall_clock_that_jumps_makes_time_doubtful_once() {
        let hand = Arc::new(Hand(AtomicU64::new(10_000_000), AtomicI64::new(1_000)));
        let clock = LeaseClock::new(hand.clone());
        let mut goes_on = |by_ms| {
            hand.0.fetch_add(50_000, Release);
            hand.1.fetch_add(by_ms, Release);
            let Gap { stalled_us, is_doubtful } = clock.turn();
            assert_eq!(stalled_us, 0, "leases don't look at the wall clock");
            is_doubtful
        };
        let slewed = WALL_JUMP_MS as i64;
        let jumps = [0, slewed, -slewed, slewed + 1, 0, -3_600_000, 0];
        let doubtful = jumps.map(&mut goes_on);
        assert_eq!(doubtful, [false, false, false, true, false, true, false]);
    }
}
