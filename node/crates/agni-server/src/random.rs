//! Random numbers that spread clients over candidates, and guard nothing.

use std::cell::Cell;

thread_local! {
    static RANDOM: Cell<u64> = Cell::new(random_seed());
}

fn random_seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(std::thread::current().id())
}

/// SplitMix64 (Steele et al., OOPSLA 2014): spreads clients, guards nothing.
pub fn random() -> u64 {
    RANDOM.with(|state| {
        state.set(state.get().wrapping_add(0x9E37_79B9_7F4A_7C15));
        let mut z = state.get();
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    })
}
