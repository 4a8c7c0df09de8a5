//! Seeds without a violation, and proof that the simulator would see one.

use agni_core::planted::{Bug, plant};
use agni_sim::{Scenario, run};

/// More by `make sim`; these fit into every test run.
const SEEDS: u64 = 200;
/// A planted bug that no seed up to here meets would mean that the simulator is blind.
const HUNT_SEEDS: u64 = 2_000;

/// What the seeds of a test run must have been through together.
#[derive(Default)]
struct Seen {
    lease_reads: u64,
    stale_reads: u64,
    demands: u64,
    demands_refused: u64,
    transfers: u64,
    lost: u64,
    differences: u64,
    watched: u64,
    full: u64,
}

/// Half of the seeds, so that two cores share them.
fn half_of_the_seeds(odd: u64) {
    plant(None);
    let mut seen = Seen::default();
    for seed in (1..=SEEDS).filter(|seed| seed % 2 == odd) {
        let nodes = if seed % 8 < 2 { 5 } else { 3 };
        match run(seed, Scenario { nodes, ..Scenario::default() }) {
            Ok(summary) => {
                assert!(summary.writes > 50 && summary.reads > 50, "seed {seed}: {summary:?}");
                seen.lease_reads += summary.lease_reads;
                seen.stale_reads += summary.stale_reads;
                seen.demands += summary.demands;
                seen.demands_refused += summary.demands_refused;
                seen.transfers += summary.transfers;
                seen.lost += summary.lost;
                seen.differences += summary.differences;
                seen.watched += summary.watched;
                seen.full += summary.full;
            }
            Err(violation) => panic!(
                "{}: {}; again: make sim SEED={seed} NODES={nodes}",
                violation.invariant, violation.message
            ),
        }
    }
    let Seen { lease_reads, transfers, lost, differences, watched, full, .. } = seen;
    assert!(seen.stale_reads > SEEDS * 5, "few read stale data: {}", seen.stale_reads);
    assert!(seen.demands > SEEDS * 5, "few demand anything: {}", seen.demands);
    assert!(seen.demands_refused > SEEDS * 2, "few are refused: {}", seen.demands_refused);
    assert!(lease_reads > SEEDS * 5, "the lease is hardly used: {lease_reads}");
    assert!(transfers > SEEDS, "snapshots hardly travel: {transfers}");
    assert!(lost > SEEDS / 50, "machines are hardly lost: {lost}");
    assert!(watched > SEEDS * 500, "watches are hardly told anything: {watched}");
    assert!(differences > SEEDS / 2, "watches hardly fall behind: {differences}");
    assert!(full > SEEDS / 20, "disks are hardly full: {full}");
}

#[test]
fn no_odd_seed_breaks_a_promise() {
    half_of_the_seeds(1);
}

#[test]
fn no_even_seed_breaks_a_promise() {
    half_of_the_seeds(0);
}

#[test]
fn without_lease_reads_nobody_relies_on_a_clock() {
    let scenario = Scenario { lease_reads: false, ..Scenario::default() };
    // What would break a promise of the lease breaks none: there is no lease.
    for bug in [None, Some(Bug::LeaseKeptInDoubt), Some(Bug::OldTicksCount)] {
        plant(bug);
        for seed in 1..=SEEDS / 20 {
            let summary = run(seed, scenario.clone())
                .unwrap_or_else(|v| panic!("{bug:?}, seed {seed}: {}: {}", v.invariant, v.message));
            assert!(summary.reads > 50 && summary.renewals > 20, "seed {seed}: {summary:?}");
            assert_eq!(summary.lease_reads, 0, "seed {seed}: {summary:?}");
        }
    }
}

#[test]
fn a_run_is_the_same_each_time() {
    plant(None);
    for seed in 3..9 {
        let first = run(seed, Scenario::default()).map_err(|v| v.message);
        let second = run(seed, Scenario::default()).map_err(|v| v.message);
        assert_eq!(format!("{first:?}"), format!("{second:?}"));
    }
}

/// The first seed that finds a bug must find it as what it is, by one of these invariants; any will
/// do if there are none. A bug that takes long to be met is hunted from a later seed on.
fn is_found_as(bug: Bug, from: u64, invariants: &[&str]) {
    plant(Some(bug));
    for seed in from..from + HUNT_SEEDS {
        if let Err(violation) = run(seed, Scenario::default()) {
            println!("{bug:?}: seed {seed}: {}: {}", violation.invariant, violation.message);
            let known = invariants.iter().any(|known| violation.invariant.starts_with(known));
            assert!(known || invariants.is_empty(), "{bug:?} was taken for something else");
            return;
        }
    }
    panic!("{bug:?} was not found in {HUNT_SEEDS} seeds");
}

fn is_found(bug: Bug) {
    is_found_as(bug, 1, &[]);
}

/// The invariants that a watch speaks for.
const WATCH: [&str; 4] = ["I13", "I14", "I16", "I23"];

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
fn finds_a_lease_read_that_lags() {
    is_found(Bug::LeaseReadBeforeApply);
}

#[test]
fn finds_expiry_without_proof() {
    is_found(Bug::ExpiryWithoutProof);
}

#[test]
fn finds_stalls_that_count_against_leases() {
    is_found(Bug::StallCountsAgainstLeases);
}

#[test]
fn finds_a_watch_that_skips_on_failover() {
    is_found_as(Bug::WatchSkipsOnFailover, 1, &WATCH);
}

#[test]
fn finds_a_watch_that_hides_a_gap() {
    is_found_as(Bug::WatchGapAtCompaction, 1, &WATCH);
}

#[test]
fn finds_a_watch_that_repeats_on_resume() {
    is_found_as(Bug::WatchRepeatsOnResume, 1, &["I14"]);
}

#[test]
fn finds_revisions_reused_after_a_snapshot() {
    is_found_as(Bug::RevisionReusedAfterSnapshot, 1, &["I5", "I12"]);
}

#[test]
fn finds_leases_on_the_wall_clock() {
    is_found_as(Bug::LeasesOnWallClock, 1, &["I6", "I28"]);
}

#[test]
fn finds_votes_of_a_replica_that_forgot() {
    is_found_as(Bug::VoteAfterLettingGo, 500, &["one leader", "I1", "I2", "I5"]);
}

#[test]
fn finds_a_lease_kept_in_doubt() {
    is_found_as(Bug::LeaseKeptInDoubt, 1, &["I2", "I6"]);
}

#[test]
fn finds_old_ticks_that_count() {
    is_found_as(Bug::OldTicksCount, 240, &["I2"]);
}

#[test]
fn finds_an_age_told_too_early() {
    is_found_as(Bug::AgeBeforeApply, 1, &["I3"]);
}

#[test]
fn finds_a_revision_that_is_not_compared() {
    is_found_as(Bug::RevisionNotCompared, 1, &["I4"]);
}

#[test]
fn finds_a_takeover_without_grace() {
    is_found_as(Bug::TakeoverWithoutGrace, 1, &["I6", "I28"]);
}

#[test]
fn finds_a_snapshot_that_forgets_removals() {
    is_found_as(Bug::SnapshotForgetsRemovals, 1, &["I12", "I13", "I16", "I23"]);
}

#[test]
fn finds_a_state_that_diverges() {
    is_found_as(Bug::StateDiverges, 1, &["I12"]);
}

/// Replicas that come to another state are found by their own comparison, and hold at the end what
/// all others do: whether they led or followed then.
#[test]
fn a_replica_that_differs_is_replaced() {
    plant(Some(Bug::StateDiverges));
    let scenario = Scenario { may_differ: true, ..Scenario::default() };
    let mut replaced = 0;
    // Two more that found something: a suspect that had all entries and let nobody be elected, and
    // a replica that began again and took its state for as young as it had been before.
    for seed in (1..=60).chain([109, 594]) {
        match run(seed, scenario.clone()) {
            Ok(summary) => replaced += summary.replaced,
            Err(violation) => {
                panic!("seed {seed}: {}: {}", violation.invariant, violation.message)
            }
        }
    }
    assert!(replaced > 60, "replicas are hardly replaced: {replaced}");
    let blind = Scenario { state_check_ms: Some(0), ..scenario };
    let found = (1..=60).any(|seed| run(seed, blind.clone()).is_err_and(|v| v.invariant == "I12"));
    assert!(found, "without a comparison they would differ at the end");
}
