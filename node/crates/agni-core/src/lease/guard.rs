//! The mass-expiry guard: when a large share of one region goes silent at once, the fault is
//! likelier in between than in them, so that region's records are kept as SUSPECT for a while.
//!
//! Pure: told how many leases fell due, it says whether to hold them and how many may go. A region
//! is
//!
//! - `Normal`: what is due goes at once;
//! - `Held`, for one more time to live from the moment the share was exceeded: nothing goes, what
//!   renews is alive again;
//! - `Slow`: what is still due goes at a limited rate, until nothing is left; then `Normal` again.

use std::collections::VecDeque;

/// How leases expire.
#[derive(Clone, Debug, PartialEq)]
pub struct LeaseSettings {
    /// Whether the guard watches at all. Default: true. Off, a lost uplink deregisters a region.
    pub guard: bool,
    /// The share of a region's leases, 0..1, above which their expiry within one time to live
    /// counts as a mass expiry. Default: 0.3.
    pub guard_share: f64,
    /// The number of leases below which it never does. Default: 20.
    pub guard_minimum: u32,
    /// How many suspects of a region go in a second once the hold is over. Default: 1,000.
    pub guard_release_per_second: u32,
    /// After how many milliseconds a lease that was answered by `take_due` and is still there is
    /// answered again. Default: 2,000.
    pub retry_ms: u64,
}

impl Default for LeaseSettings {
    fn default() -> LeaseSettings {
        LeaseSettings {
            guard: true,
            guard_share: 0.3,
            guard_minimum: 20,
            guard_release_per_second: 1_000,
            retry_ms: 2_000,
        }
    }
}

/// Into how many parts a window is divided: what falls due in one is forgotten together.
const WINDOW_PARTS: u64 = 128;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Phase {
    Normal,
    Held { until_ms: u64 },
    Slow { since_ms: u64, released: u64 },
}

/// The guard of one region.
#[derive(Debug)]
pub struct Guard {
    phase: Phase,
    window: VecDeque<(u64, u32)>,
    window_ms: u64,
    fell_due: u64,
    leased_peak: u32,
}

impl Default for Guard {
    fn default() -> Guard {
        Guard {
            phase: Phase::Normal,
            window: VecDeque::new(),
            window_ms: 0,
            fell_due: 0,
            leased_peak: 0,
        }
    }
}

impl Guard {
    /// Whether the region's expiry is held or slowed.
    pub fn is_active(&self) -> bool {
        self.phase != Phase::Normal
    }

    /// Notes that `count` leases fell due, whose longest time to live is `ttl_ms`, of `leased` that
    /// the region has, those included. Answers whether they are to be held.
    pub fn fell_due(
        &mut self,
        count: u32,
        ttl_ms: u64,
        leased: u32,
        now_ms: u64,
        settings: &LeaseSettings,
    ) -> bool {
        if !settings.guard {
            return false;
        }
        self.window_ms = self.window_ms.max(ttl_ms);
        self.forget_before(now_ms.saturating_sub(self.window_ms));
        // Those of the window that are gone already count as part of the region.
        self.leased_peak =
            if self.window.is_empty() { leased } else { self.leased_peak.max(leased) };
        match self.window.back_mut() {
            // Kept as a bounded number of sums: a window may be a day long.
            Some((at_ms, sum)) if now_ms.saturating_sub(*at_ms) < self.window_ms / WINDOW_PARTS => {
                *sum += count
            }
            _ => self.window.push_back((now_ms, count)),
        }
        self.fell_due += u64::from(count);
        if self.phase == Phase::Normal && self.is_mass(settings) {
            self.phase = Phase::Held { until_ms: now_ms + ttl_ms };
        }
        self.is_active()
    }

    /// How many of the held may go now. `held` is how many still are suspect.
    pub fn may_release(&mut self, held: u32, now_ms: u64, settings: &LeaseSettings) -> usize {
        match self.phase {
            Phase::Normal => usize::MAX,
            _ if held == 0 => {
                *self = Guard::default();
                usize::MAX
            }
            Phase::Held { until_ms } if now_ms < until_ms => 0,
            Phase::Held { .. } => {
                self.phase = Phase::Slow { since_ms: now_ms, released: 0 };
                0
            }
            Phase::Slow { since_ms, released } => {
                let rate = u64::from(settings.guard_release_per_second);
                let allowed = now_ms.saturating_sub(since_ms).saturating_mul(rate) / 1_000;
                // A pause of the process must not turn into a burst.
                let count = allowed.saturating_sub(released).min(rate);
                usize::try_from(count).unwrap_or(usize::MAX)
            }
        }
    }

    /// Notes that so many were released at this time.
    pub fn released(&mut self, count: usize, now_ms: u64, settings: &LeaseSettings) {
        if let Phase::Slow { since_ms, released } = &mut self.phase {
            let rate = u64::from(settings.guard_release_per_second);
            let allowed = now_ms.saturating_sub(*since_ms).saturating_mul(rate) / 1_000;
            *released = (*released).max(allowed.saturating_sub(rate)) + count as u64;
        }
    }

    fn is_mass(&self, settings: &LeaseSettings) -> bool {
        self.fell_due >= u64::from(settings.guard_minimum)
            && self.fell_due as f64 > settings.guard_share * f64::from(self.leased_peak)
    }

    fn forget_before(&mut self, oldest_ms: u64) {
        while let Some(&(at_ms, count)) = self.window.front() {
            if at_ms >= oldest_ms {
                break;
            }
            self.window.pop_front();
            self.fell_due -= u64::from(count);
        }
        if self.window.is_empty() {
            self.window_ms = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> LeaseSettings {
        LeaseSettings::default()
    }

    #[test]
    fn ordinary_losses_are_not_held() {
        let mut guard = Guard::default();
        for round in 0..100 {
            assert!(!guard.fell_due(2, 10_000, 1_000, round * 1_000, &settings()));
        }
        assert!(!Guard::default().fell_due(19, 10_000, 19, 0, &settings()), "below the minimum");
        let off = LeaseSettings { guard: false, ..settings() };
        assert!(!Guard::default().fell_due(1_000, 10_000, 1_000, 0, &off));
    }

    #[test]
    fn a_share_that_goes_over_a_while_counts_even_where_its_first_part_is_gone() {
        let mut guard = Guard::default();
        assert!(!guard.fell_due(200, 10_000, 1_000, 0, &settings()));
        assert!(!guard.fell_due(100, 10_000, 800, 3_000, &settings()), "exactly the share");
        assert!(guard.fell_due(1, 10_000, 700, 6_000, &settings()));
        let mut guard = Guard::default();
        assert!(!guard.fell_due(200, 10_000, 1_000, 0, &settings()));
        assert!(!guard.fell_due(200, 10_000, 800, 10_001, &settings()), "in another window");
    }

    #[test]
    fn the_held_go_after_one_more_ttl_at_a_limited_rate_and_the_guard_leaves() {
        let mut guard = Guard::default();
        assert!(guard.fell_due(5_000, 10_000, 5_000, 0, &settings()));
        let (mut held, mut now, mut gone_in_second) = (5_000u32, 0, Vec::new());
        while guard.is_active() {
            let count = guard.may_release(held, now, &settings()).min(held as usize);
            guard.released(count, now, &settings());
            held -= count as u32;
            assert!(now >= 10_000 || count == 0, "held for one more time to live");
            let second = (now / 1_000) as usize;
            gone_in_second.resize(second + 1, 0);
            gone_in_second[second] += count;
            now += 50;
            assert!(now < 30_000, "leaves by itself");
        }
        assert_eq!(held, 0);
        assert!(gone_in_second.iter().all(|&count| count <= 1_000), "{gone_in_second:?}");
    }

    #[test]
    fn a_long_window_takes_little_memory() {
        let mut guard = Guard::default();
        for tick in 0..1_000_000 {
            guard.fell_due(1, 86_400_000, 100_000_000, tick * 50, &settings());
        }
        assert!(guard.window.len() <= 2 * WINDOW_PARTS as usize, "{}", guard.window.len());
        assert_eq!(guard.fell_due, 1_000_000);
    }

    #[test]
    fn it_leaves_when_all_have_renewed() {
        let mut guard = Guard::default();
        assert!(guard.fell_due(50, 10_000, 50, 0, &settings()));
        assert_eq!(guard.may_release(50, 100, &settings()), 0);
        assert_eq!(guard.may_release(0, 200, &settings()), usize::MAX);
        assert!(!guard.is_active());
    }

    #[test]
    fn a_pause_does_not_become_a_burst() {
        let mut guard = Guard::default();
        guard.fell_due(100_000, 1_000, 100_000, 0, &settings());
        assert_eq!(guard.may_release(100_000, 1_000, &settings()), 0);
        let count = guard.may_release(100_000, 600_000, &settings());
        assert_eq!(count, 1_000);
        guard.released(count, 600_000, &settings());
        assert!(guard.may_release(99_000, 600_050, &settings()) <= 50);
    }
}
