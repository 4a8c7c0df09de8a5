//! Whether many packets are lost on the way to another node, and what that calls for.

use crate::limits;
use std::time::{Duration, Instant};

const GROW: Duration = Duration::from_millis(limits::PEER_LANES_GROW_MS);
const CALM: Duration = Duration::from_millis(limits::PEER_LANES_CALM_MS);
const COPY: Duration = Duration::from_millis(limits::PEER_COPY_MS);
/// How many looks back count: the newest most, one that long ago a third of that.
const LOOKS: f32 = 64.0;

/// What was seen so far.
#[derive(Debug, Default)]
pub struct Loss {
    /// The share of looks at which TCP was trying again.
    share: f32,
    /// When that was last much.
    heavy: Option<Instant>,
    grown: Option<Instant>,
    more: usize,
}

impl Loss {
    /// Takes note of a look: whether TCP was trying again, on any connection.
    pub fn note(&mut self, now: Instant, is_held_up: bool) {
        self.share += (f32::from(u8::from(is_held_up)) - self.share) / LOOKS;
        if self.is_heavy() {
            self.heavy = Some(now);
            if self.grown.is_none_or(|at| now - at >= GROW) {
                self.grown = Some(now);
                self.more = (self.more + 1).min(limits::PEER_LANES_MAX - 1);
            }
        } else if self.heavy.is_some_and(|at| now - at >= CALM) {
            *self = Loss::default();
        }
    }

    fn is_heavy(&self) -> bool {
        self.share * 100.0 >= f32::from(limits::PEER_LOSS_PERCENT)
    }

    /// How many connections there should be.
    pub fn lanes(&self) -> usize {
        1 + self.more
    }

    /// Over how many of them a batch should go. A large one goes over one: where packets are lost
    /// because there are too many, more would do harm.
    pub fn copies(&self, now: Instant, bytes: impl FnOnce() -> usize) -> usize {
        let was_heavy = self.heavy.is_some_and(|at| now - at < COPY);
        if was_heavy && bytes() <= limits::PEER_COPY_BYTES_MAX {
            limits::PEER_COPIES_MAX
        } else {
            1
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANY: usize = 1_000;

    #[test]
    fn one_connection_is_enough_where_a_packet_is_lost_now_and_then() {
        let (mut now, mut loss) = (Instant::now(), Loss::default());
        for look in 0..MANY {
            now += GROW;
            loss.note(now, look % 50 == 0);
            assert_eq!((loss.lanes(), loss.copies(now, || 1)), (1, 1), "{look}");
        }
    }

    #[test]
    fn connections_come_one_by_one_where_many_are_lost_and_go_long_after() {
        let (mut now, mut loss) = (Instant::now(), Loss::default());
        let step = GROW / 2;
        let mut seen: Vec<usize> = (0..MANY)
            .map(|look| {
                now += step;
                loss.note(now, look % 4 > 0);
                loss.lanes()
            })
            .collect();
        assert_eq!(seen.last(), Some(&limits::PEER_LANES_MAX));
        let apart = seen.iter().filter(|lanes| **lanes == 2).count();
        assert_eq!(apart, 2, "no two of them at once");
        seen.dedup();
        assert!(seen.iter().copied().eq(1..=limits::PEER_LANES_MAX));
        while loss.is_heavy() {
            loss.note(now, false);
        }
        loss.note(now + CALM / 2, false);
        assert_eq!(loss.lanes(), limits::PEER_LANES_MAX);
        loss.note(now + CALM, false);
        assert_eq!(loss.lanes(), 1);
    }

    #[test]
    fn only_what_is_small_goes_over_several_and_only_where_many_are_lost() {
        let (now, mut loss) = (Instant::now(), Loss::default());
        assert_eq!(loss.copies(now, || unreachable!("not measured while all is well")), 1);
        for _ in 0..MANY {
            loss.note(now, true);
        }
        assert_eq!(loss.copies(now, || limits::PEER_COPY_BYTES_MAX), limits::PEER_COPIES_MAX);
        assert_eq!(loss.copies(now, || limits::PEER_COPY_BYTES_MAX + 1), 1);
        assert_eq!(loss.copies(now + COPY, || 1), 1);
    }
}
