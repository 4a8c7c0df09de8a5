//! `agni-sim --seed 7`, or `agni-sim --from 1 --count 10000`, with `--nodes 5`, `--trace` or
//! `--no-lease-reads`.

use agni_sim::{Scenario, run};
use std::process::ExitCode;

fn number(name: &str) -> Option<u64> {
    let mut arguments = std::env::args().skip_while(|argument| argument != name);
    arguments.nth(1).and_then(|value| value.parse().ok())
}

fn main() -> ExitCode {
    let (from, count) = match number("--seed") {
        Some(seed) => (seed, 1),
        None => (number("--from").unwrap_or(1), number("--count").unwrap_or(200)),
    };
    let nodes = number("--nodes").unwrap_or(3) as usize;
    let trace = std::env::args().any(|argument| argument == "--trace");
    let lease_reads = !std::env::args().any(|argument| argument == "--no-lease-reads");
    let scenario = Scenario { nodes, lease_reads, trace, ..Scenario::default() };
    let mut failed = 0;
    for seed in from..from + count {
        match run(seed, scenario.clone()) {
            Ok(summary) if count == 1 => println!("seed {seed}: {summary:#?}"),
            Ok(_) => {}
            Err(violation) => {
                failed += 1;
                println!("seed {seed}: {}: {}", violation.invariant, violation.message);
                println!("  again: make sim SEED={seed} NODES={nodes}");
            }
        }
    }
    println!("{count} seeds, {failed} violations");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
