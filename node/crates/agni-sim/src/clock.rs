//! The clocks of the nodes: each has its own origin and its own rate, and its wall clock jumps.

use agni_core::clock::Clock;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};

/// One node's clock. It stands where `set` put it; nothing in a simulation waits.
#[derive(Debug)]
pub struct SimClock {
    origin_us: u64,
    drift_ppm: i64,
    now_us: AtomicU64,
    wall_offset_ms: AtomicI64,
}

impl SimClock {
    /// A clock that was `origin_us` at time 0 and gains so many microseconds a second.
    pub fn new(origin_us: u64, drift_ppm: i64) -> Self {
        SimClock {
            origin_us,
            drift_ppm,
            now_us: AtomicU64::new(origin_us),
            wall_offset_ms: AtomicI64::new(0),
        }
    }

    /// The world's time is `world_us`.
    pub fn set(&self, world_us: u64) {
        let gained = world_us as i64 * self.drift_ppm / 1_000_000;
        self.now_us.store(self.origin_us + world_us.saturating_add_signed(gained), Relaxed);
    }

    /// The wall clock jumps.
    pub fn jump_wall(&self, by_ms: i64) {
        self.wall_offset_ms.fetch_add(by_ms, Relaxed);
    }
}

impl Clock for SimClock {
    fn boot_us(&self) -> u64 {
        self.now_us.load(Relaxed)
    }

    fn unix_ms(&self) -> i64 {
        1_700_000_000_000 + (self.boot_us() / 1000) as i64 + self.wall_offset_ms.load(Relaxed)
    }
}
