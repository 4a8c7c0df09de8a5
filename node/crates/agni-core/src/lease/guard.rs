//! The mass-expiry guard of one domain: when a large share of it goes silent at once, the fault is
//! likelier in between than in them, so its records are kept as SUSPECT for a while.
//!
//! Pure: told what the tables say of a domain, it says whether to hold what runs out and how many
//! may go. A domain is
//!
//! - `Normal`: what is due goes at once;
//! - `Held`, until everything that was late when the share was exceeded has been overdue for one
//!   more time to live: nothing goes, what renews is alive again;
//! - `Slow`: what is still suspect goes at a limited rate, until nothing is left; then `Normal`.

use std::collections::VecDeque;

use crate::limits::{
    LATE_AFTER_PERCENT, MASS_EXPIRY_LEASES_MIN_DEFAULT, MASS_EXPIRY_LEASES_PER_S_DEFAULT,
    MASS_EXPIRY_SHARE_PERCENT_DEFAULT,
};

/// When leases that run out together are held. The names of the node's settings are in brackets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuardSettings {
    /// Whether anything ever is (`mass_expiry_guard`). Off, a lost uplink deregisters a region.
    pub is_on: bool,
    /// The share of a domain's leases above which their silence is held to be one fault, in percent
    /// (`mass_expiry_share_percent`).
    pub share_percent: u32,
    /// The number of silent leases below which it never is (`mass_expiry_min_leases`).
    pub min_leases: u32,
    /// How many suspects of a domain go in a second once the hold is over
    /// (`mass_expiry_leases_per_s`).
    pub leases_per_s: u32,
}

impl Default for GuardSettings {
    fn default() -> GuardSettings {
        GuardSettings {
            is_on: true,
            share_percent: MASS_EXPIRY_SHARE_PERCENT_DEFAULT,
            min_leases: MASS_EXPIRY_LEASES_MIN_DEFAULT,
            leases_per_s: MASS_EXPIRY_LEASES_PER_S_DEFAULT,
        }
    }
}

/// Into how many parts a window is divided: what falls due in one is forgotten together.
const WINDOW_PARTS: u64 = 128;

/// What the tables say of a domain at one look, added up.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Tally {
    /// Leases that have missed their renewals, and aren't due yet.
    pub late: u32,
    /// Leases that fell due since the last look.
    pub fell_due: u32,
    /// Leases that are held.
    pub suspects: u32,
    /// The longest time to live of those that are late or fell due, in milliseconds.
    pub ttl_ms: u64,
}

impl Tally {
    pub(crate) fn add(&mut self, other: &Tally) {
        self.late += other.late;
        self.fell_due += other.fell_due;
        self.suspects += other.suspects;
        self.ttl_ms = self.ttl_ms.max(other.ttl_ms);
    }

    pub(crate) fn is_quiet(&self) -> bool {
        self.late == 0 && self.fell_due == 0 && self.suspects == 0
    }
}

/// What a look has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// So many of so many leases are silent: from now on what runs out is held.
    Held { silent: u64, leases: u64 },
    /// Nothing is held any more; so many were let go.
    Over { let_go: u64 },
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Phase {
    Normal,
    Held { until_ms: u64 },
    Slow { since_ms: u64, released: u64 },
}

/// The guard of one domain.
#[derive(Debug)]
pub(crate) struct Guard {
    phase: Phase,
    /// When how many fell due, within the longest time to live.
    window: VecDeque<(u64, u32)>,
    window_ms: u64,
    fell_due: u64,
    let_go: u64,
}

impl Default for Guard {
    fn default() -> Guard {
        let window = VecDeque::new();
        Guard { phase: Phase::Normal, window, window_ms: 0, fell_due: 0, let_go: 0 }
    }
}

impl Guard {
    /// Whether what runs out in this domain is held.
    pub(crate) fn is_active(&self) -> bool {
        self.phase != Phase::Normal
    }

    /// Whether there is nothing to remember.
    pub(crate) fn is_idle(&self) -> bool {
        !self.is_active() && self.window.is_empty()
    }

    /// Takes in a look. `leased` answers how many leases the domain has, those that fall due now
    /// included; it is asked only where it matters.
    pub(crate) fn look(
        &mut self,
        tally: &Tally,
        now_ms: u64,
        settings: &GuardSettings,
        leased: impl FnOnce() -> u64,
    ) -> Option<Turn> {
        self.window_ms = self.window_ms.max(tally.ttl_ms);
        self.forget_before(now_ms.saturating_sub(self.window_ms));
        let gone = self.fell_due;
        self.fell_due(tally.fell_due, now_ms);
        match self.phase {
            Phase::Normal => {
                let silent = self.fell_due + u64::from(tally.late);
                if !settings.is_on || silent < u64::from(settings.min_leases) {
                    return None;
                }
                // Those of the window that are gone still count as part of the domain.
                let leases = leased() + gone;
                if silent * 100 <= leases * u64::from(settings.share_percent) {
                    return None;
                }
                // Whoever is late now is due before `100 - LATE_AFTER_PERCENT` of its time is over.
                let hold_ms = tally.ttl_ms * (200 - LATE_AFTER_PERCENT) / 100;
                self.phase = Phase::Held { until_ms: now_ms + hold_ms };
                Some(Turn::Held { silent, leases })
            }
            Phase::Held { .. } if tally.is_quiet() => Some(self.over()),
            Phase::Held { until_ms } if now_ms >= until_ms => {
                self.phase = Phase::Slow { since_ms: now_ms, released: 0 };
                None
            }
            Phase::Slow { .. } if tally.suspects == 0 && tally.fell_due == 0 => Some(self.over()),
            Phase::Held { .. } | Phase::Slow { .. } => None,
        }
    }

    /// How many of the held may go now.
    pub(crate) fn may_release(&self, now_ms: u64, settings: &GuardSettings) -> usize {
        let Phase::Slow { since_ms, released } = self.phase else { return 0 };
        let rate = u64::from(settings.leases_per_s);
        let allowed = now_ms.saturating_sub(since_ms).saturating_mul(rate) / 1_000;
        // A pause of the process must not turn into a burst.
        let count = allowed.saturating_sub(released).min(rate);
        usize::try_from(count).unwrap_or(usize::MAX)
    }

    /// Notes that so many were released at this time.
    pub(crate) fn released(&mut self, count: usize, now_ms: u64, settings: &GuardSettings) {
        if let Phase::Slow { since_ms, released } = &mut self.phase {
            let rate = u64::from(settings.leases_per_s);
            let allowed = now_ms.saturating_sub(*since_ms).saturating_mul(rate) / 1_000;
            *released = (*released).max(allowed.saturating_sub(rate)) + count as u64;
            self.let_go += count as u64;
        }
    }

    fn over(&mut self) -> Turn {
        let let_go = self.let_go;
        *self = Guard::default();
        Turn::Over { let_go }
    }

    fn fell_due(&mut self, count: u32, now_ms: u64) {
        if count == 0 {
            return;
        }
        self.fell_due += u64::from(count);
        match self.window.back_mut() {
            // Kept as a bounded number of sums: a window may be a day long.
            Some((at_ms, sum)) if now_ms.saturating_sub(*at_ms) < self.window_ms / WINDOW_PARTS => {
                *sum += count
            }
            _ => self.window.push_back((now_ms, count)),
        }
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

    fn settings() -> GuardSettings {
        GuardSettings::default()
    }

    fn due(fell_due: u32) -> Tally {
        Tally { fell_due, ttl_ms: 10_000, ..Tally::default() }
    }

    fn late(late: u32) -> Tally {
        Tally { late, ttl_ms: 10_000, ..Tally::default() }
    }

    fn suspects(suspects: u32) -> Tally {
        Tally { suspects, ttl_ms: 10_000, ..Tally::default() }
    }

    fn holds(guard: &mut Guard, tally: Tally, leased: u64, now_ms: u64) -> bool {
        guard.look(&tally, now_ms, &settings(), || leased);
        guard.is_active()
    }

    #[test]
    fn ordinary_losses_are_not_held() {
        let mut guard = Guard::default();
        for round in 0..100 {
            assert!(!holds(&mut guard, due(2), 1_000, round * 1_000));
        }
        assert!(!holds(&mut Guard::default(), due(2), 50, 0), "two of fifty");
        assert!(!holds(&mut Guard::default(), due(4), 4, 0), "below the minimum");
        let off = GuardSettings { is_on: false, ..settings() };
        assert_eq!(Guard::default().look(&due(1_000), 0, &off, || 1_000), None);
    }

    #[test]
    fn a_small_fleet_that_is_silent_is_held_before_the_first_of_it_runs_out() {
        let mut guard = Guard::default();
        assert!(!holds(&mut guard, late(15), 50, 0), "exactly the share");
        assert!(holds(&mut guard, late(16), 50, 100));
        assert!(holds(&mut Guard::default(), late(5), 5, 0), "all of a fleet of five");
    }

    #[test]
    fn a_share_that_goes_over_a_while_counts_even_where_its_first_part_is_gone() {
        let mut guard = Guard::default();
        assert!(!holds(&mut guard, due(200), 1_000, 0));
        assert!(!holds(&mut guard, due(100), 800, 3_000), "exactly the share");
        assert!(holds(&mut guard, due(1), 700, 6_000));
        let mut guard = Guard::default();
        assert!(!holds(&mut guard, due(200), 1_000, 0));
        assert!(!holds(&mut guard, due(200), 800, 10_001), "in another window");
    }

    #[test]
    fn the_held_go_after_one_more_ttl_at_a_limited_rate_and_the_guard_leaves() {
        let mut guard = Guard::default();
        assert!(holds(&mut guard, late(5_000), 5_000, 0));
        // The last of them is due at 4,000.
        let (mut held, mut now, mut gone_in_second) = (5_000u32, 4_000, Vec::new());
        let mut turn = None;
        while guard.is_active() {
            turn = guard.look(&suspects(held), now, &settings(), || 0);
            let count = guard.may_release(now, &settings()).min(held as usize);
            guard.released(count, now, &settings());
            held -= count as u32;
            assert!(now >= 14_000 || count == 0, "held for one more time to live");
            let second = (now / 1_000) as usize;
            gone_in_second.resize(second + 1, 0);
            gone_in_second[second] += count;
            now += 50;
            assert!(now < 34_000, "leaves by itself");
        }
        assert_eq!((held, turn), (0, Some(Turn::Over { let_go: 5_000 })));
        assert!(gone_in_second.iter().all(|&count| count <= 1_000), "{gone_in_second:?}");
    }

    #[test]
    fn a_long_window_takes_little_memory() {
        let mut guard = Guard::default();
        for tick in 0..1_000_000 {
            let tally = Tally { fell_due: 1, ttl_ms: 86_400_000, ..Tally::default() };
            assert!(!holds(&mut guard, tally, 100_000_000, tick * 50));
        }
        assert!(guard.window.len() <= 2 * WINDOW_PARTS as usize, "{}", guard.window.len());
        assert_eq!(guard.fell_due, 1_000_000);
    }

    #[test]
    fn it_leaves_when_all_have_renewed() {
        let mut guard = Guard::default();
        assert!(holds(&mut guard, late(50), 50, 0));
        assert_eq!(guard.may_release(100, &settings()), 0);
        assert!(holds(&mut guard, suspects(50), 50, 5_000));
        assert!(!holds(&mut guard, Tally::default(), 50, 5_050));
        assert!(guard.is_idle());
    }

    #[test]
    fn a_pause_does_not_become_a_burst() {
        let mut guard = Guard::default();
        assert!(holds(&mut guard, due(100_000), 100_000, 0));
        assert!(holds(&mut guard, suspects(100_000), 100_000, 14_000));
        assert_eq!(guard.may_release(14_000, &settings()), 0);
        let count = guard.may_release(600_000, &settings());
        assert_eq!(count, 1_000);
        guard.released(count, 600_000, &settings());
        assert!(guard.may_release(600_050, &settings()) <= 50);
    }
}
