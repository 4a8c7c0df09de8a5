//! Whole clusters in one thread, from one seed: the real core and the real log, over a network,
//! disks and clocks that fail. Every step is checked.

mod check;
mod clients;
mod clock;
mod demands;
mod disk;
mod ending;
mod faults;
mod membership;
mod network;
mod node;
mod random;
mod snapshots;
mod transfers;
mod watchers;
mod world;

use std::panic::AssertUnwindSafe;

pub use check::Violation;
pub use world::{Scenario, Summary};

/// Runs the world of a seed. A panic of the core is a violation like any other: in the product it
/// would end the process, and again after each start.
///
/// # Errors
/// What was violated, if anything was.
pub fn run(seed: u64, scenario: Scenario) -> Result<Summary, Violation> {
    let run = || world::World::new(seed, scenario).run();
    std::panic::catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        let message = text.unwrap_or_else(|| "something that isn't text".to_owned());
        Err(Violation { invariant: "no panic", message })
    })
}
