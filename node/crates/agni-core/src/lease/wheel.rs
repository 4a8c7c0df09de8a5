//! A lazy timing wheel: finds what may be due without being told of renewals.
//!
//! Each armed slot has one live entry of four bytes. A renewal only stores a later deadline in the
//! lease table; when the wheel reaches the old entry, the caller looks at the deadline and arms the
//! slot again. Arming a slot earlier than before leaves its old entry behind as a stale one, which
//! is known by the slot's armed tick and dropped when it is reached.

/// The length of a tick, in milliseconds.
pub const TICK_MS: u64 = 50;

/// The tick of a slot that has no live entry.
pub const UNARMED: u32 = u32::MAX;

const LEVEL_0: u32 = 512;
const LEVEL_1: u32 = 64;
const LEVEL_2: u32 = 64;
const BLOCK_1: u32 = LEVEL_0;
const BLOCK_2: u32 = LEVEL_0 * LEVEL_1;

/// The first tick at which something due at `deadline_ms` is due.
pub fn tick_of(deadline_ms: u64) -> u32 {
    deadline_ms.div_ceil(TICK_MS).min(u64::from(UNARMED - 1)) as u32
}

/// Three levels: 512 ticks of 50 ms, 64 blocks of 25.6 s, 64 blocks of 27 minutes: 29 hours.
pub struct Wheel {
    now: u32,
    entries: usize,
    ticks: Vec<Vec<u32>>,
    blocks: Vec<Vec<u32>>,
    long_blocks: Vec<Vec<u32>>,
}

impl Wheel {
    /// An empty wheel that stands at a time.
    pub fn new(now_ms: u64) -> Wheel {
        let level = |size: u32| (0..size).map(|_| Vec::new()).collect();
        Wheel {
            now: (now_ms / TICK_MS).min(u64::from(UNARMED - 1)) as u32,
            entries: 0,
            ticks: level(LEVEL_0),
            blocks: level(LEVEL_1),
            long_blocks: level(LEVEL_2),
        }
    }

    /// An empty wheel at the same time.
    pub fn emptied(&self) -> Wheel {
        Wheel { now: self.now, ..Wheel::new(0) }
    }

    /// How many entries it holds, stale ones included.
    pub fn entries(&self) -> usize {
        self.entries
    }

    /// Bytes on the heap, roughly.
    pub fn memory_bytes(&self) -> usize {
        (LEVEL_0 + LEVEL_1 + LEVEL_2) as usize * size_of::<Vec<u32>>() + self.entries * 6
    }

    /// Adds an entry and answers the tick at which it will be reached: never before the next one.
    pub fn arm(&mut self, slot: u32, deadline_ms: u64) -> u32 {
        let tick = tick_of(deadline_ms).max(self.now + 1);
        self.insert(slot, tick);
        tick
    }

    fn insert(&mut self, slot: u32, tick: u32) {
        self.entries += 1;
        let bucket = if tick - self.now < LEVEL_0 {
            &mut self.ticks[(tick % LEVEL_0) as usize]
        } else if tick / BLOCK_1 - self.now / BLOCK_1 < LEVEL_1 {
            &mut self.blocks[(tick / BLOCK_1 % LEVEL_1) as usize]
        } else {
            // What lies beyond the horizon waits in the farthest block and is inserted again.
            let block = (tick / BLOCK_2).min(self.now / BLOCK_2 + LEVEL_2 - 1);
            &mut self.long_blocks[(block % LEVEL_2) as usize]
        };
        bucket.push(slot);
    }

    /// Moves on to a time and collects `(slot, tick)` of all entries that were reached.
    ///
    /// `armed` answers the tick that a slot was last armed for; entries for another are dropped.
    pub fn advance(&mut self, now_ms: u64, armed: impl Fn(u32) -> u32, due: &mut Vec<u32>) {
        let target = (now_ms / TICK_MS).min(u64::from(UNARMED - 1)) as u32;
        if self.entries == 0 {
            self.now = self.now.max(target);
            return;
        }
        while self.now < target {
            self.now += 1;
            if self.now.is_multiple_of(BLOCK_2) {
                let block = (self.now / BLOCK_2 % LEVEL_2) as usize;
                let slots = std::mem::take(&mut self.long_blocks[block]);
                self.cascade(slots, &armed);
            }
            if self.now.is_multiple_of(BLOCK_1) {
                let block = (self.now / BLOCK_1 % LEVEL_1) as usize;
                let slots = std::mem::take(&mut self.blocks[block]);
                self.cascade(slots, &armed);
            }
            let reached = std::mem::take(&mut self.ticks[(self.now % LEVEL_0) as usize]);
            self.entries -= reached.len();
            due.extend(reached.into_iter().filter(|&slot| armed(slot) == self.now));
        }
    }

    fn cascade(&mut self, slots: Vec<u32>, armed: &impl Fn(u32) -> u32) {
        self.entries -= slots.len();
        for slot in slots {
            let tick = armed(slot);
            if tick != UNARMED && tick >= self.now {
                self.insert(slot, tick);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn everything_is_reached_at_its_tick_and_once(
            start in 0u64..100_000_000,
            delays in proptest::collection::vec(0u64..100_000_000, 1..60),
            steps in proptest::collection::vec(1u64..5_000_000, 1..40),
        ) {
            let mut wheel = Wheel::new(start);
            let mut armed: Vec<u32> = Vec::new();
            for (slot, delay) in delays.iter().enumerate() {
                armed.push(wheel.arm(slot as u32, start + delay));
            }
            let mut now = start;
            let mut reached = vec![0; delays.len()];
            for step in steps.iter().copied().chain([100_000_000]) {
                now += step;
                let mut due = Vec::new();
                wheel.advance(now, |slot| armed[slot as usize], &mut due);
                for slot in due {
                    prop_assert!(start + delays[slot as usize] <= now, "never early");
                    reached[slot as usize] += 1;
                    armed[slot as usize] = UNARMED;
                }
                for (slot, delay) in delays.iter().enumerate() {
                    if start + delay + 2 * TICK_MS <= now {
                        prop_assert_eq!(reached[slot], 1, "late or twice");
                    }
                }
            }
            prop_assert_eq!(wheel.entries(), 0);
        }
    }

    #[test]
    fn an_entry_left_behind_by_an_earlier_arming_is_dropped() {
        let mut wheel = Wheel::new(0);
        wheel.arm(7, 80_000_000);
        let tick = wheel.arm(7, 1_000);
        let mut due = Vec::new();
        wheel.advance(1_000, |_| tick, &mut due);
        assert_eq!(due, [7]);
        wheel.advance(90_000_000, |_| UNARMED, &mut due);
        assert_eq!((due.as_slice(), wheel.entries()), (&[7][..], 0));
    }
}
