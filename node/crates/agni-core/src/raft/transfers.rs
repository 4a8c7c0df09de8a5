//! Whom a leader tries to hand over to, and whom it leaves alone for a while because that failed.
//!
//! While a transfer is under way the leader takes no proposals, for an election timeout if need be.
//! A target that seems fit and doesn't take over would be asked again at the next look, and the
//! group would take no writes for as long as it seems so.

use crate::limits;
use std::collections::BTreeMap;

/// Attempts that failed, in one term of this leader.
#[derive(Debug, Default)]
pub struct Transfers {
    /// To whom, and for how many ticks.
    under_way: Option<(u64, u32)>,
    /// How often each target failed in a row, and until when it isn't tried again, in microseconds
    /// since boot.
    failed: BTreeMap<u64, (u32, u64)>,
}

impl Transfers {
    /// Whether a target may be tried now.
    pub fn may_try(&self, to: u64, now_us: u64) -> bool {
        self.failed.get(&to).is_none_or(|(_, until_us)| now_us >= *until_us)
    }

    /// A transfer begins.
    pub fn begun(&mut self, to: u64) {
        self.under_way = Some((to, 0));
    }

    /// Looks at how it goes, once a tick: who no longer leads has handed over, and forgets who
    /// failed; who leads without a transfer has seen it fail. Says whether to give it up.
    pub fn look(&mut self, leads: bool, is_under_way: bool, now_us: u64) -> bool {
        if !leads {
            self.under_way = None;
            self.failed.clear();
            return false;
        }
        if is_under_way && let Some((_, ticks)) = &mut self.under_way {
            *ticks += 1;
            return *ticks >= limits::TRANSFER_TICKS_MAX;
        }
        if let Some((to, _)) = self.under_way.take() {
            let (count, until_us) = self.failed.entry(to).or_default();
            let pause_us = limits::TRANSFER_PAUSE_US_MIN << (*count).min(10);
            *until_us = now_us + pause_us.min(limits::TRANSFER_PAUSE_US_MAX);
            *count = count.saturating_add(1);
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_that_failed_is_left_alone_for_longer_each_time() {
        let (mut transfers, mut now_us, mut before_us) = (Transfers::default(), 0, 0);
        for _ in 0..20 {
            assert!(transfers.may_try(2, now_us));
            transfers.begun(2);
            for tick in 1..=limits::TRANSFER_TICKS_MAX {
                let gives_up = transfers.look(true, true, now_us);
                assert_eq!(gives_up, tick == limits::TRANSFER_TICKS_MAX);
                assert!(transfers.may_try(2, now_us), "it isn't known yet");
            }
            transfers.look(true, false, now_us);
            let begin_us = now_us;
            while !transfers.may_try(2, now_us) {
                assert!(transfers.may_try(3, now_us), "others are no worse for it");
                now_us += limits::TRANSFER_PAUSE_US_MIN / 2;
            }
            let pause_us = now_us - begin_us;
            assert!(pause_us >= before_us && pause_us <= limits::TRANSFER_PAUSE_US_MAX);
            before_us = pause_us;
        }
        assert_eq!(before_us, limits::TRANSFER_PAUSE_US_MAX);
    }

    #[test]
    fn who_handed_over_has_nothing_to_remember() {
        let mut transfers = Transfers::default();
        transfers.begun(2);
        transfers.look(true, false, 5);
        assert!(!transfers.may_try(2, 5));
        transfers.look(false, false, 5);
        assert!(transfers.may_try(2, 5));
        transfers.begun(2);
        transfers.look(false, false, 6);
        transfers.look(true, false, 7);
        assert!(transfers.may_try(2, 7), "it ended well; this is another term");
    }
}
