//! How long to wait before another node is tried again.

use crate::limits;
use std::time::Duration;

/// Longer after each failure, and never the same for two nodes at once.
pub fn backoff(node_id: u64, failures: u32) -> Duration {
    let longest = limits::PEER_BACKOFF_MS_MIN << failures.min(6);
    let longest = longest.min(limits::PEER_BACKOFF_MS_MAX);
    let mut state = node_id ^ u64::from(failures) << 32 ^ u64::from(std::process::id());
    let spread = agni_core::random::next(&mut state) % (longest / 2 + 1);
    Duration::from_millis(longest - spread)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_their_bound_and_nodes_do_not_stay_in_step() {
        let bounds = |failures| {
            let pauses = (1..50).map(|node_id| backoff(node_id, failures).as_millis() as u64);
            let pauses: std::collections::BTreeSet<u64> = pauses.collect();
            let (first, last) = (pauses.first().copied(), pauses.last().copied());
            (first.unwrap_or_default(), last.unwrap_or_default(), pauses.len())
        };
        let mut longest_before = 0;
        for failures in 0..6 {
            let full = (limits::PEER_BACKOFF_MS_MIN << failures).min(limits::PEER_BACKOFF_MS_MAX);
            let (shortest, longest, different) = bounds(failures);
            assert!(shortest >= full / 2 && longest <= full, "{shortest}..{longest} of {full}");
            assert!(longest > longest_before && different > 10);
            longest_before = longest;
        }
        let (shortest, longest, _) = bounds(u32::MAX);
        assert!(shortest >= limits::PEER_BACKOFF_MS_MAX / 2);
        assert!(longest <= limits::PEER_BACKOFF_MS_MAX);
    }
}
