//! The clocks of the nodes: each has its own origin and its own rate, and its wall clock jumps.

use crate::random::Random;
use agni_core::clock::Clock;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::Relaxed};

/// One node's clock. It stands where `set` put it; nothing in a simulation waits.
#[derive(Debug)]
pub struct SimClock {
    origin_us: u64,
    drift_ppm: i64,
    now_us: AtomicU64,
    wall_offset_ms: AtomicI64,
    stands: AtomicBool,
    /// How long it stood, in microseconds.
    stood_us: AtomicU64,
    /// How much of that the wall clock was given back, in milliseconds.
    wall_stood_ms: AtomicI64,
}

impl SimClock {
    /// A clock that was `origin_us` at time 0 and gains so many microseconds a second.
    fn new(origin_us: u64, drift_ppm: i64) -> Self {
        SimClock {
            origin_us,
            drift_ppm,
            now_us: AtomicU64::new(origin_us),
            wall_offset_ms: AtomicI64::new(0),
            stands: AtomicBool::new(false),
            stood_us: AtomicU64::new(0),
            wall_stood_ms: AtomicI64::new(0),
        }
    }

    /// A clock with any origin and any rate, up to so much in either direction.
    pub fn any(drift_ppm_max: u64, random: &mut Random) -> Self {
        let origin_us = random.between(1_000_000, 1_000_000_000_000);
        let drift_ppm = random.below(2 * drift_ppm_max + 1) as i64 - drift_ppm_max as i64;
        SimClock::new(origin_us, drift_ppm)
    }

    /// The world's time is `world_us`.
    pub fn set(&self, world_us: u64) {
        let gained = world_us as i64 * self.drift_ppm / 1_000_000;
        let goes_us = self.origin_us + world_us.saturating_add_signed(gained);
        if self.stands.load(Relaxed) {
            self.stood_us.store(goes_us - self.now_us.load(Relaxed), Relaxed);
        } else {
            self.now_us.store(goes_us - self.stood_us.load(Relaxed), Relaxed);
        }
    }

    /// The machine is suspended, and its time since boot with it.
    pub fn stop(&self) {
        self.stands.store(true, Relaxed);
    }

    /// How long it stood, all in all, in microseconds.
    pub fn stood_us(&self) -> u64 {
        self.stood_us.load(Relaxed)
    }

    /// The machine goes on. Its wall clock is set, its time since boot never.
    pub fn go_on(&self) {
        if self.stands.swap(false, Relaxed) {
            let stood_ms = self.stood_us.load(Relaxed) / 1000;
            self.wall_stood_ms.store(stood_ms as i64, Relaxed);
        }
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
        let offset_ms = self.wall_offset_ms.load(Relaxed) + self.wall_stood_ms.load(Relaxed);
        1_700_000_000_000 + (self.boot_us() / 1000) as i64 + offset_ms
    }
}
