//! Seeds without a violation, and proof that the simulator would see one.

use agni_core::planted::{Bug, plant};
use agni_sim::{Scenario, run};

/// More by `make sim`; these fit into every test run.
const SEEDS: u64 = 200;
/// A planted bug that no seed up to here meets would mean that the simulator is blind.
const HUNT_SEEDS: u64 = 2_000;

#[test]
fn no_seed_breaks_a_promise() {
    plant(None);
    let mut lease_reads = 0;
    for seed in 1..=SEEDS {
        let nodes = if seed % 4 == 0 { 5 } else { 3 };
        let scenario = Scenario { nodes, ..Scenario::default() };
        match run(seed, scenario) {
            Ok(summary) => {
                assert!(summary.writes > 50 && summary.reads > 50, "seed {seed}: {summary:?}");
                lease_reads += summary.lease_reads;
            }
            Err(violation) => panic!(
                "{}: {}; again: make sim SEED={seed} NODES={nodes}",
                violation.invariant, violation.message
            ),
        }
    }
    assert!(lease_reads > SEEDS * 10, "the lease is hardly used: {lease_reads}");
}

#[test]
fn a_run_is_the_same_each_time() {
    plant(None);
    for seed in [3, 4] {
        let first = run(seed, Scenario::default()).map_err(|v| v.message);
        let second = run(seed, Scenario::default()).map_err(|v| v.message);
        assert_eq!(format!("{first:?}"), format!("{second:?}"));
    }
}

fn is_found(bug: Bug) {
    plant(Some(bug));
    for seed in 1..=HUNT_SEEDS {
        if let Err(violation) = run(seed, Scenario::default()) {
            println!("{bug:?}: seed {seed}: {}: {}", violation.invariant, violation.message);
            return;
        }
    }
    panic!("{bug:?} was not found in {HUNT_SEEDS} seeds");
}

#[test]
fn finds_promises_before_sync() {
    is_found(Bug::PromiseBeforeSync);
}

#[test]
fn finds_a_lease_kept_on_transfer() {
    is_found(Bug::LeaseKeptOnTransfer);
}

#[test]
fn finds_acknowledgement_before_quorum() {
    is_found(Bug::AcknowledgeBeforeQuorum);
}

#[test]
fn finds_expiry_without_proof() {
    is_found(Bug::ExpiryWithoutProof);
}

#[test]
fn finds_stalls_that_count_against_leases() {
    is_found(Bug::StallCountsAgainstLeases);
}
