//! One number for all that is replicated of a partition: equal on all replicas at an equal index.
//!
//! It is a sum over the records and the tombstones, kept with each change, so that it costs nothing
//! to ask for and doesn't depend on the way by which a replica came to its state: entry by entry,
//! or by a snapshot. Leases, loads and the event log aren't in it: they are each node's own.

use prost::Message as _;
use xxhash_rust::xxh3::xxh3_64;

use super::Store;

/// What the hash is made of. Replicas compare hashes of one form only, so a version that counts
/// something else takes the next number, and so does one with another number of tombstones.
pub const STATE_HASH_FORM: u32 = 1;

/// Two numbers made one. Each bit of the result hangs on all of theirs, so that sums of such
/// numbers don't cancel out.
pub(super) fn mix(left: u64, right: u64) -> u64 {
    let mut mixed = left ^ right.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(32);
    mixed = (mixed ^ (mixed >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    mixed = (mixed ^ (mixed >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    mixed ^ (mixed >> 33)
}

impl Store {
    /// The hash of what is replicated, as of the entry applied last.
    pub fn state_hash(&self) -> u64 {
        let system = self.system.as_ref().map_or(0, |state| xxh3_64(&state.encode_to_vec()));
        let parts = [
            self.slots.content(),
            self.tombstones.content(),
            self.tombstones.compacted(),
            self.revision,
            system,
        ];
        parts.into_iter().fold(u64::from(self.partition), mix)
    }

    /// Makes the hash that of another state; see `Bug::StateDiverges`.
    pub(crate) fn diverge(&mut self) {
        self.slots.diverge();
    }
}
