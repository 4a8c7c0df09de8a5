//! The network between the nodes: it delays, drops, duplicates and reorders, and links are cut one
//! way or both ways.

use crate::random::Random;
use std::collections::BTreeSet;

/// A message's travel, unless the network is slow.
const TRAVEL_US: (u64, u64) = (200, 3_000);

/// The state of all links.
#[derive(Debug, Default)]
pub struct Network {
    cut: BTreeSet<(usize, usize)>,
    /// Of a thousand messages, so many are lost.
    pub loss_permille: u64,
    /// And so many arrive twice.
    pub twice_permille: u64,
    /// Added to every travel, at most.
    pub slow_us: u64,
}

impl Network {
    /// Nothing from `from` reaches `to` any more.
    pub fn cut(&mut self, from: usize, to: usize) {
        self.cut.insert((from, to));
    }

    /// Whether nothing from `from` reaches `to`.
    pub fn is_cut(&self, from: usize, to: usize) -> bool {
        self.cut.contains(&(from, to))
    }

    /// Everything is well again.
    pub fn heal(&mut self) {
        *self = Network::default();
    }

    /// When the copies of a message arrive that is sent now, in microseconds from now.
    pub fn arrivals(&self, from: usize, to: usize, random: &mut Random) -> Vec<u64> {
        if self.cut.contains(&(from, to)) || random.chance(self.loss_permille) {
            return Vec::new();
        }
        let copies = 1 + usize::from(random.chance(self.twice_permille));
        let mut travel =
            || random.between(TRAVEL_US.0, TRAVEL_US.1) + random.below(self.slow_us + 1);
        (0..copies).map(|_| travel()).collect()
    }
}
